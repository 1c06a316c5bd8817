//! Brings events to a ledger or a collector, and reads its receipt.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, ensure};
use reqwest::header::HeaderValue;
use reqwest::{StatusCode, Url, header};
use serde_json::Value;

use super::summary::Recovered;
use crate::access::SharedSecret;
use crate::event::error::IngestError;
use crate::event::{self};
use crate::ledger::Ledger;
use crate::ledger::intake::Intake;

const BATCH: &str = "application/cloudevents-batch+json";
/// Events in one batch; the filter's own default.
pub(super) const BATCH_EVENTS_MAX: usize = 100;
/// Bytes in one batch, unless a single event is longer.
pub(super) const BATCH_BYTES_MAX: usize = 512 * 1024;

/// How long a collector may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Where recovered events go.
#[derive(Debug, Clone)]
pub enum Target {
    /// A ledger that this process has open.
    Ledger {
        /// The ledger.
        ledger: Ledger,
        /// Whether events may be older than what is plausible; else such ones are kept apart.
        allows_older: bool,
    },
    /// A collector.
    Collector(Remote),
    /// Nowhere: events are only checked.
    Nowhere,
}

/// How a request shows that it knows the secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Authentication {
    /// `agent-meter-signature`, over the body.
    #[default]
    Signature,
    /// `authorization: Bearer SECRET`.
    Bearer,
}

/// A collector that is reached over HTTP.
#[derive(Clone)]
pub struct Remote {
    url: Url,
    http: reqwest::Client,
    secret: Option<(SharedSecret, Authentication)>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Remote({})", self.url)
    }
}

impl Remote {
    /// The collector that takes events at this URL, with the path.
    pub fn new(url: Url) -> Self {
        // Without the limit, one that never answers would be waited for without end.
        let http = reqwest::Client::builder().timeout(ANSWER_LIMIT).build().unwrap_or_default();
        Self { url, http, secret: None }
    }

    /// The same, with the secret that it wants.
    #[must_use]
    pub fn with_secret(self, secret: Option<SharedSecret>, how: Authentication) -> Self {
        Self { secret: secret.map(|secret| (secret, how)), ..self }
    }

    /// An error where sending the same events again may help.
    async fn post(&self, count: usize, body: String) -> anyhow::Result<Answer> {
        let mut request = self.http.post(self.url.clone()).header(header::CONTENT_TYPE, BATCH);
        match &self.secret {
            None => {}
            Some((secret, Authentication::Signature)) => {
                request =
                    request.header("agent-meter-signature", secret.signature(body.as_bytes()));
            }
            Some((secret, Authentication::Bearer)) => {
                let mut bearer = HeaderValue::from_bytes(&secret.bearer())
                    .context("the secret has bytes that no header can have")?;
                bearer.set_sensitive(true);
                request = request.header(header::AUTHORIZATION, bearer);
            }
        }
        let response = request.body(body).send().await.context(self.url.to_string())?;
        let status = response.status();
        let media_type = response.headers().get(header::CONTENT_TYPE);
        let is_plain = media_type.is_some_and(|told| told.as_bytes().starts_with(b"text/plain"));
        let text = response.text().await?;
        let refusal = matches!(
            status,
            StatusCode::BAD_REQUEST
                | StatusCode::PAYLOAD_TOO_LARGE
                | StatusCode::UNSUPPORTED_MEDIA_TYPE
                | StatusCode::UNPROCESSABLE_ENTITY
        );
        if refusal {
            return Ok(Answer::Refused(format!("{status}: {text}")));
        }
        ensure!(status.is_success(), "{}: {status}: {}", self.url, beginning(&text));
        receipt(count, &text, is_plain)
            .with_context(|| format!("{}: {status} is no receipt: {}", self.url, beginning(&text)))
    }
}

/// What became of a batch.
pub(super) enum Answer {
    /// The target took all events but these.
    Taken {
        /// How many it had already.
        known: u64,
        /// The events that it refuses, each with the reason.
        refused: Vec<String>,
    },
    /// The target refuses the batch as a whole.
    Refused(String),
}

/// Reads a success as the filter does: a page acknowledges nothing, and numbers must account for
/// every event.
fn receipt(count: usize, text: &str, is_plain: bool) -> Option<Answer> {
    let all = Answer::Taken { known: 0, refused: Vec::new() };
    if text.trim().is_empty() {
        return Some(all);
    }
    let Ok(answer) = serde_json::from_str::<Value>(text) else {
        return is_plain.then_some(all);
    };
    let rejected = answer["rejected"].as_array().cloned().unwrap_or_default();
    let known = answer["duplicates"].as_u64().unwrap_or_default();
    if let Some(accepted) = answer["accepted"].as_u64() {
        let told = accepted.saturating_add(known).saturating_add(rejected.len() as u64);
        if told != count as u64 {
            return None;
        }
    }
    let reason = |event: &Value| format!("event {}: {}", event["id"], event["reason"]);
    Some(Answer::Taken { known, refused: rejected.iter().map(reason).collect() })
}

/// The beginning of a text, in one line.
fn beginning(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

impl Target {
    /// Sends events once.
    ///
    /// # Errors
    ///
    /// Where sending them again may help.
    pub(super) async fn send(&self, events: &[String]) -> anyhow::Result<Answer> {
        let body = format!("[{}]", events.join(","));
        match self {
            Self::Ledger { ledger, allows_older } => {
                insert(body, ledger.clone(), *allows_older).await
            }
            Self::Collector(remote) => remote.post(events.len(), body).await,
            Self::Nowhere => Ok(check(&body)),
        }
    }
}

async fn insert(body: String, ledger: Ledger, allows_older: bool) -> anyhow::Result<Answer> {
    let intake = Intake { recovers: true, allows_older, ..Intake::OPERATOR };
    let work = move || ledger.take_batch(body.as_bytes(), BATCH, intake);
    match tokio::task::spawn_blocking(work).await? {
        Ok((receipt, _)) => {
            let refused = receipt.rejected.into_iter();
            let refused = refused.map(|event| format!("event {}: {}", event.id, event.reason));
            Ok(Answer::Taken { known: receipt.duplicates, refused: refused.collect() })
        }
        Err(IngestError::Ledger(error)) => Err(error),
        Err(
            refusal @ (IngestError::MediaType(_)
            | IngestError::Malformed(_)
            | IngestError::TooMany(_)
            | IngestError::Foreign),
        ) => Ok(Answer::Refused(refusal.to_string())),
    }
}

/// What a ledger would say to events that it has not seen.
fn check(body: &str) -> Answer {
    match event::split(body.as_bytes(), BATCH) {
        Err(refusal) => Answer::Refused(refusal.to_string()),
        Ok(events) => {
            let refused = events.into_iter().filter_map(|event| event::read(event).err());
            let refused = refused.map(|(id, reason)| format!("event {id}: {reason}"));
            Answer::Taken { known: 0, refused: refused.collect() }
        }
    }
}

/// Sends events until the target takes or refuses each of them. After a failure it asks `wait`,
/// which gives up with an error.
///
/// # Errors
///
/// The error of `wait`.
pub(super) async fn deliver(
    events: &[String],
    target: &Target,
    into: &mut Recovered,
    wait: &mut impl AsyncFnMut(anyhow::Error) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut open = vec![events];
    while let Some(events) = open.pop() {
        if events.is_empty() {
            continue;
        }
        let answer = loop {
            match target.send(events).await {
                Ok(answer) => break answer,
                Err(error) => wait(error).await?,
            }
        };
        match answer {
            Answer::Taken { known, refused } => {
                into.taken += (events.len() as u64).saturating_sub(refused.len() as u64);
                into.known += known;
                refused.into_iter().for_each(|reason| into.refused.push(reason));
            }
            Answer::Refused(reason) if events.len() == 1 => into.refused.push(reason),
            Answer::Refused(_) => {
                let (first, second) = events.split_at(events.len() / 2);
                open.extend([second, first]);
            }
        }
    }
    Ok(())
}
