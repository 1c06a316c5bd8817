//! Decodes and validates one POST of CloudEvents 1.0 as `filter/EVENTS.md` describes them.
//! It is written from that document alone and shares no type with the filter, so that two
//! independent programs read the format. It stores nothing.

pub(crate) mod billed;
pub(crate) mod bounds;
pub(crate) mod call;
pub(crate) mod correction;
pub(crate) mod error;
pub(crate) mod generation;
pub(crate) mod guard;
pub(crate) mod heartbeat;
pub(crate) mod identity;
pub(crate) mod members;
pub(crate) mod session;
pub(crate) mod tokens;
pub(crate) mod top_up;
pub(crate) mod totals;
pub(crate) mod units;

use std::borrow::Cow;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::event::billed::{Billed, billed};
use crate::event::bounds::Beyond;
use crate::event::call::{Call, CallKind, call};
use crate::event::correction::{Correction, correction};
use crate::event::error::IngestError;
use crate::event::generation::{Generation, generation};
use crate::event::guard::{GuardTotals, LevelChange};
use crate::event::heartbeat::{Heartbeat, heartbeat};
use crate::event::identity::Identity;
use crate::event::members::{Members, shown};
use crate::event::session::{SessionChange, session};
use crate::event::top_up::{TopUp, top_up};
use crate::event::totals::SessionState;

/// The most events of one POST, ten times the longest batch of the filter: what is told of each that
/// is refused stays within the 4 MiB that the filter reads of an answer.
pub(crate) const EVENTS_MAX: usize = 10_000;
/// The longest event, in bytes: the longest that the filter makes has some tens of thousands.
const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// The longest event that the ledger writes itself, in bytes: an invoice with some tens of thousands
/// of lines.
const OWN_EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The most bytes of an id, and of a reason, that an answer repeats.
const ID_BYTES_MAX: usize = 64;
const REASON_BYTES_MAX: usize = 300;

/// One valid event.
#[derive(Debug)]
pub struct Event<'a> {
    /// Its JSON text, byte for byte as it came.
    pub raw: &'a str,
    /// Which Envoy process sent it.
    pub source: String,
    /// Unique with the source: the sequence in 20 digits.
    pub id: String,
    /// Counts the events of the source from 1.
    pub sequence: i64,
    /// The CloudEvents type, such as `agent-meter.tool_invocation`.
    pub event_type: String,
    /// When it happened: RFC 3339, as it came.
    pub time: String,
    /// The same in milliseconds since 1970, UTC.
    pub time_ms: i64,
    /// The customer; empty for the guard of a product.
    pub subject: String,
    /// 32 hexadecimal digits; `None` for events of guards.
    pub session_id: Option<String>,
    /// The data.
    pub body: Body,
    /// Which of its numbers is not plausible; then the data may be [`Body::Unknown`].
    pub beyond: Option<Beyond>,
}

/// The data of an event, by its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// `tool_invocation`, `api_call` or `agent_step`.
    Call(Box<Call>),
    /// `token_consumption`.
    Generation(Box<Generation>),
    /// `session_created`, `session_active`, `session_idle` or `session_closed`.
    Session(Box<SessionChange>),
    /// `guard_totals`.
    GuardTotals(Box<GuardTotals>),
    /// `margin_level_changed`, `budget_level_changed` or `loop_level_changed`.
    LevelChange(Box<LevelChange>),
    /// `heartbeat`.
    Heartbeat(Box<Heartbeat>),
    /// `correction`, which only the ledger writes.
    Correction(Box<Correction>),
    /// `invoice`, which only the ledger writes.
    Billed(Box<Billed>),
    /// `top_up`, which only the ledger writes.
    TopUp(Box<TopUp>),
    /// A type that this collector does not know: the ledger keeps its text and counts it in
    /// nothing.
    Unknown,
}

impl Body {
    /// Whose it is; `None` for events of guards and of unknown types.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        match self {
            Body::Call(call) => Some(&call.identity),
            Body::Generation(generation) => Some(&generation.identity),
            Body::Session(change) => Some(&change.identity),
            Body::GuardTotals(_) | Body::LevelChange(_) | Body::Heartbeat(_) | Body::Unknown => {
                None
            }
            Body::Correction(_) | Body::Billed(_) | Body::TopUp(_) => None,
        }
    }

    /// True if only the ledger itself writes such events.
    pub(crate) fn is_of_books(&self) -> bool {
        matches!(self, Body::Correction(_) | Body::Billed(_) | Body::TopUp(_))
    }
}

/// How the data of an event is read.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Call(CallKind),
    Generation,
    Session(SessionState),
    GuardTotals,
    /// Of a guard of this kind, unless the data names another.
    LevelChange(&'static str),
    Heartbeat,
    Correction,
    Billed,
    TopUp,
}

/// The types that this collector knows, without [`PREFIX`].
const TYPES: [(&str, Kind); 16] = [
    ("tool_invocation", Kind::Call(CallKind::Tool)),
    ("api_call", Kind::Call(CallKind::Api)),
    ("agent_step", Kind::Call(CallKind::Step)),
    ("token_consumption", Kind::Generation),
    ("session_created", Kind::Session(SessionState::Created)),
    ("session_active", Kind::Session(SessionState::Active)),
    ("session_idle", Kind::Session(SessionState::Idle)),
    ("session_closed", Kind::Session(SessionState::Closed)),
    ("guard_totals", Kind::GuardTotals),
    ("margin_level_changed", Kind::LevelChange("margin")),
    ("budget_level_changed", Kind::LevelChange("budget")),
    ("loop_level_changed", Kind::LevelChange("loop")),
    ("heartbeat", Kind::Heartbeat),
    ("correction", Kind::Correction),
    ("invoice", Kind::Billed),
    ("top_up", Kind::TopUp),
];

/// The source of the events that the ledger writes itself.
pub(crate) const BOOKS: &str = "urn:agent-meter:books";

/// What all types of the filter's events begin with.
const PREFIX: &str = "agent-meter.";

fn kind_of(event_type: &str) -> Option<(&'static str, Kind)> {
    let name = event_type.strip_prefix(PREFIX)?;
    TYPES.into_iter().find(|(known, _)| *known == name)
}

/// A type as metrics name it: one of a closed list, without its prefix, or `other`.
pub(crate) fn short_type(event_type: &str) -> &'static str {
    kind_of(event_type).map_or("other", |(name, _)| name)
}

/// The types that this collector knows, as metrics name them.
pub(crate) fn short_types() -> impl Iterator<Item = &'static str> {
    TYPES.into_iter().map(|(name, _)| name)
}

/// Splits a body into the exact bytes of each event.
pub(crate) fn split<'a>(
    body: &'a [u8],
    content_type: &str,
) -> Result<Vec<&'a RawValue>, IngestError> {
    let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let (one, batch) = match media_type.as_str() {
        "application/cloudevents-batch+json" => (false, true),
        "application/cloudevents+json" => (true, false),
        "application/json" => (true, true),
        _ => return Err(IngestError::MediaType(content_type.to_owned())),
    };
    if batch && let Some(events) = split_batch(body) {
        return Ok(events);
    }
    let malformed = |error: serde_json::Error| IngestError::Malformed(format!("not JSON: {error}"));
    let whole: &RawValue = serde_json::from_slice(body).map_err(malformed)?;
    match whole.get().as_bytes().first() {
        Some(b'[') if batch => {
            let mut events = serde_json::Deserializer::from_str(whole.get());
            events.deserialize_seq(Events).map_err(|error| {
                if error.to_string().starts_with(TOO_MANY) {
                    IngestError::TooMany(EVENTS_MAX)
                } else {
                    malformed(error)
                }
            })
        }
        Some(b'{') if one => Ok(vec![whole]),
        first => {
            let expected = match (one, batch) {
                (_, false) => "an object, one event",
                (false, true) => "an array of events",
                (true, true) => "an array of events or an object, one event",
            };
            let found = match first {
                Some(b'[') => "an array",
                Some(b'{') => "an object",
                Some(b'"') => "a string",
                Some(b'n') => "null",
                Some(b't' | b'f') => "a boolean",
                _ => "a number",
            };
            Err(IngestError::Malformed(format!("must be {expected}, found {found}")))
        }
    }
}

/// Splits a JSON array of events, or a text with one on each line that is not empty.
pub(crate) fn split_lines(text: &str) -> Result<Vec<&RawValue>, IngestError> {
    if text.trim_start().starts_with('[') {
        return split(text.as_bytes(), "application/json");
    }
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
    let events = lines.map(|(line, number): (&str, usize)| {
        serde_json::from_str(line)
            .map_err(|error| IngestError::Malformed(format!("line {number}: not JSON: {error}")))
    });
    events.collect()
}

/// The same for a batch without mistakes, in one pass; `None` if it has one, or is none.
fn split_batch(body: &[u8]) -> Option<Vec<&RawValue>> {
    let mut events = serde_json::Deserializer::from_slice(body);
    let split = events.deserialize_seq(Events).ok()?;
    events.end().ok()?;
    Some(split)
}

/// How the error begins that says that there are too many events.
const TOO_MANY: &str = "too many events";

/// Takes the exact bytes of at most [`EVENTS_MAX`] events, and no memory for more.
struct Events;

impl<'de> Visitor<'de> for Events {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut events = Vec::new();
        while let Some(event) = entries.next_element()? {
            if events.len() == EVENTS_MAX {
                return Err(A::Error::custom(TOO_MANY));
            }
            events.push(event);
        }
        Ok(events)
    }
}

/// Reads one event; the error is its id, empty if it has none, and the reason.
pub(crate) fn read(raw: &RawValue) -> Result<Event<'_>, (String, String)> {
    read_within(EVENT_BYTES_MAX, raw)
}

/// The same for an event that the ledger has: an invoice of its own may be longer than what is taken.
pub(crate) fn read_stored(raw: &RawValue) -> Result<Event<'_>, (String, String)> {
    read_within(OWN_EVENT_BYTES_MAX, raw)
}

fn read_within(bytes_max: usize, raw: &RawValue) -> Result<Event<'_>, (String, String)> {
    if raw.get().len() > bytes_max {
        let found = raw.get().len();
        let reason = format!("event: must be at most {bytes_max} bytes, found {found}");
        return Err((String::new(), reason));
    }
    let value: Value = serde_json::from_str(raw.get())
        .map_err(|error| (String::new(), format!("event: not JSON: {error}")))?;
    let Value::Object(object) = &value else {
        return Err((String::new(), format!("event: must be an object, found {}", shown(&value))));
    };
    event(raw.get(), object).map_err(|reason| {
        let id = object.get("id").and_then(Value::as_str).unwrap_or_default();
        (cut(id, ID_BYTES_MAX), cut(&reason, REASON_BYTES_MAX))
    })
}

/// At most so many bytes of a text, so that an answer does not repeat all that a sender wrote.
fn cut(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(bytes_max)])
}

fn event<'a>(raw: &'a str, object: &Map<String, Value>) -> Result<Event<'a>, String> {
    let attributes = Members { path: Cow::Borrowed(""), object };
    attributes.exactly("specversion", "1.0")?;
    let id = attributes.name("id")?;
    let source = attributes.name("source")?;
    let event_type = attributes.name("type")?;
    let (time, time_ms) = attributes.time("time")?;
    let sequence = attributes.sequence("sequence")?;
    attributes.exactly("sequence", &id)?;
    if object.contains_key("datacontenttype") {
        attributes.exactly("datacontenttype", "application/json")?;
    }
    let known = kind_of(&event_type);
    let subject = match known {
        // A guard of a product watches all its customers, and a heartbeat is of none.
        Some((_, Kind::GuardTotals | Kind::LevelChange(_) | Kind::Heartbeat)) => {
            attributes.optional("subject", Members::text)?.unwrap_or_default()
        }
        _ => attributes.name("subject")?,
    };
    let told = || {
        let session_id = object.get("data").and_then(|data| data.get("session_id")?.as_str());
        session_id.map(str::to_owned)
    };
    let (body, session_id, beyond) = match known {
        Some((name, kind)) => {
            let data = attributes.members("data")?;
            let beyond = bounds::of_data(name, data.object);
            match (known_body(&data, name, kind, &subject), beyond) {
                (Ok(body), beyond) => {
                    let session_id = body.identity().map(|identity| identity.session_id.clone());
                    (body, session_id, beyond)
                }
                // What is beyond every bound need not even fit the ledger's numbers.
                (Err(_), Some(beyond)) => (Body::Unknown, told(), Some(beyond)),
                (Err(reason), None) => return Err(reason),
            }
        }
        None => (Body::Unknown, told(), None),
    };
    Ok(Event {
        raw,
        source,
        id,
        sequence,
        event_type,
        time,
        time_ms,
        subject,
        session_id,
        body,
        beyond,
    })
}

fn known_body(data: &Members<'_>, name: &str, kind: Kind, subject: &str) -> Result<Body, String> {
    let body = body(data, kind)?;
    data.exactly("event_type", name)?;
    // A heartbeat is of no customer, and the subject of a correction is who made it.
    if !matches!(kind, Kind::Heartbeat | Kind::Correction) {
        data.exactly("customer_id", subject)?;
    }
    Ok(body)
}

fn body(data: &Members<'_>, kind: Kind) -> Result<Body, String> {
    Ok(match kind {
        Kind::Call(kind) => Body::Call(Box::new(call(data, kind)?)),
        Kind::Generation => Body::Generation(Box::new(generation(data)?)),
        Kind::Session(state) => Body::Session(Box::new(session(data, state)?)),
        Kind::GuardTotals => Body::GuardTotals(Box::new(guard::totals(data)?)),
        Kind::Heartbeat => Body::Heartbeat(Box::new(heartbeat(data)?)),
        Kind::Correction => Body::Correction(Box::new(correction(data)?)),
        Kind::Billed => Body::Billed(Box::new(billed(data)?)),
        Kind::TopUp => Body::TopUp(Box::new(top_up(data)?)),
        Kind::LevelChange(guard) => Body::LevelChange(Box::new(guard::level_change(data, guard)?)),
    })
}
