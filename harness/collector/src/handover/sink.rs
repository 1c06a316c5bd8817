//! What a sink is: which records it makes of an event, how they stand in a request, and what the
//! reply says about them. One file in `sinks/` for each.

use std::fmt;
use std::time::Duration;

use axum::http::StatusCode;

use crate::handover::usage::Usage;

/// The most characters of a reply that a reason repeats.
const SHOWN_CHARS_MAX: usize = 200;

/// A day.
pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// The bytes of a request to a receiver that tells no bound.
pub(crate) const BODY_BYTES: usize = 1024 * 1024;

/// The bounds of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Records in a request, unless the configuration says otherwise.
    pub(crate) records: usize,
    /// The most records that the receiver takes in a request.
    pub(crate) records_max: usize,
    /// The most bytes of a request's body.
    pub(crate) bytes: usize,
    /// How long the receiver knows an id again; `None` if it never forgets one, or knows none.
    pub(crate) dedup: Option<Duration>,
    /// How old an event may be; `None` if that is not told.
    pub(crate) oldest: Option<Duration>,
}

/// What one event, or a part of it, is in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// The position of the event.
    pub(crate) position: i64,
    /// The id by which the receiver knows it again; the same at each try.
    pub(crate) id: String,
    pub(crate) body: String,
}

/// What stands around and between the records of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) before: &'static str,
    pub(crate) between: &'static str,
    pub(crate) after: &'static str,
}

impl Frame {
    /// A JSON array.
    pub(crate) const ARRAY: Frame = Frame { before: "[", between: ",", after: "]" };
    /// An object with the array `events`.
    pub(crate) const EVENTS: Frame = Frame { before: "{\"events\":[", between: ",", after: "]}" };
    /// A line for each record.
    pub(crate) const LINES: Frame = Frame { before: "", between: "\n", after: "\n" };

    /// The bytes around one record.
    pub(crate) fn bytes(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// The body of a request.
    pub(crate) fn body<'a>(&self, records: impl Iterator<Item = &'a Record>) -> String {
        let mut body = self.before.to_owned();
        for (index, record) in records.enumerate() {
            if index > 0 {
                body.push_str(self.between);
            }
            body.push_str(&record.body);
        }
        body.push_str(self.after);
        body
    }
}

/// What a receiver answered.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The status and the beginning of the body, for a reason.
    pub(crate) fn shown(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let text: String = text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS_MAX).collect();
        match text.as_str() {
            "" => format!("answered {}", self.status),
            text => format!("answered {}: {text}", self.status),
        }
    }

    /// The body as JSON; null if it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// What became of one record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The receiver has it, by this request or an earlier one.
    Taken,
    /// The receiver will never take it as it is.
    Refused(String),
    /// It is to be sent again.
    Again,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The receiver has all records, but for so many that it does not name.
    Taken { unnamed: u64 },
    /// It told of each record, in their order.
    Each(Vec<Fate>),
    /// It took none, because something in the request is wrong.
    Refused(String),
    /// Try again. `is_unsent` if it has taken nothing for certain.
    Later { reason: String, is_unsent: bool },
    /// The token is not valid any more.
    Renew(String),
}

/// Reads the status alone, which is all that most receivers say: 400, 413 and 422 are about what was
/// sent, and what else is no success can be mended by an operator or by time.
pub(crate) fn by_status(reply: &Reply) -> Verdict {
    match reply.status.as_u16() {
        200..300 => Verdict::Taken { unnamed: 0 },
        400 | 413 | 422 => Verdict::Refused(reply.shown()),
        // Whoever ran out of time, or failed, may have taken something before.
        408 | 500.. => Verdict::Later { reason: reply.shown(), is_unsent: false },
        _ => Verdict::Later { reason: reply.shown(), is_unsent: true },
    }
}

/// Reads what a reply says of each record. One that says nothing of any is read by its status.
pub(crate) fn by_fates(reply: &Reply, fates: Vec<Fate>) -> Verdict {
    if fates.iter().all(|fate| *fate == Fate::Again) {
        return by_status(reply);
    }
    Verdict::Each(fates)
}

/// A token for a while, which some receivers want instead of the key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    /// Milliseconds since 1970.
    pub(crate) ends_ms: i64,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(.., {})", self.ends_ms)
    }
}

/// The headers of a request.
pub(crate) type Headers = Vec<(&'static str, String)>;

/// A format, and the receiver that reads it. Each request is a POST.
pub(crate) trait Sink: fmt::Debug + Send + Sync {
    /// Its bounds.
    fn limits(&self) -> Limits;

    /// True if it takes events of any type, unless the configuration says otherwise; else only calls
    /// and generations.
    fn takes_all(&self) -> bool {
        false
    }

    /// The records of an event; none if there is nothing to tell the receiver.
    ///
    /// # Errors
    ///
    /// Why the event cannot be handed over as it is.
    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String>;

    /// What stands around the records.
    fn frame(&self) -> Frame;

    /// What stands behind the URL's host.
    fn path(&self) -> String;

    /// The headers; `key` is the token if it has one.
    fn headers(&self, key: Option<&str>) -> Headers;

    /// Reads a reply to a request with these records.
    fn read(&self, reply: &Reply, records: &[Record]) -> Verdict {
        let _ = records;
        by_status(reply)
    }

    /// The URL that gives tokens; `None` if it needs none.
    fn token_url(&self) -> Option<&str> {
        None
    }

    /// Reads a token; `None` if the body has none.
    fn token(&self, body: &[u8]) -> Option<Token> {
        let _ = body;
        None
    }
}

/// `Authorization` with a bearer token, where there is one.
pub(crate) fn bearer(key: Option<&str>) -> Option<(&'static str, String)> {
    key.map(|key| ("authorization", format!("Bearer {key}")))
}

/// The media type of JSON, and the bearer token.
pub(crate) fn json_headers(key: Option<&str>) -> Headers {
    let media_type = ("content-type", "application/json".to_owned());
    [media_type].into_iter().chain(bearer(key)).collect()
}
