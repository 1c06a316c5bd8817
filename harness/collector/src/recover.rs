//! Brings events that the filter wrote to Envoy's log into a ledger or to a collector. The ledger
//! recognises those that it has already.

use std::io::BufRead;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use reqwest::header::HeaderValue;
use reqwest::{StatusCode, Url, header};
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};

use crate::access::SharedSecret;
use crate::event::error::IngestError;
use crate::ledger::Ledger;
use crate::ledger::intake::Intake;

/// Marks a line with an event; see `filter/EVENTS.md`.
const SPILL: &str = "agent-meter spill ";
const EVENT: &str = " event=";
const FACT: &str = " fact=";
const BATCH: &str = "application/cloudevents-batch+json";
/// Events in one batch; the filter's own default.
const BATCH_EVENTS_MAX: usize = 100;
/// How long to try a collector that is down or busy.
const COLLECTOR_LIMIT: Duration = Duration::from_secs(30);
/// How long to wait between two tries.
const COLLECTOR_PAUSE: Duration = Duration::from_millis(200);

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
    Collector {
        /// The URL that takes its events, with the path.
        url: Url,
        /// The secret that it wants.
        secret: Option<SharedSecret>,
    },
}

/// The outcome of a recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// How many events the target took, with those that it had already.
    pub taken: u64,
    /// One text for each event that the target refused for good, with its reason.
    pub refused: Vec<String>,
    /// One text for each line whose event cannot be read, with the line's number.
    pub unreadable: Vec<String>,
    /// Facts that cannot become events, because nothing says what they cost.
    pub unpriced_facts: u64,
}

/// Makes the events of a spilled fact: JSON text of each, from the JSON text of the fact.
pub type EventsOfFact<'a> = dyn Fn(&str) -> anyhow::Result<Vec<String>> + Send + Sync + 'a;

/// What a line holds.
enum Spilled {
    Event(String),
    Fact(String),
}

/// The spilled events and facts of an Envoy log as JSON text, byte for byte as the filter wrote
/// them.
///
/// An error names a line that cannot be read, or whose event is cut short.
fn spilled_from_log(reader: impl BufRead) -> impl Iterator<Item = anyhow::Result<Spilled>> {
    let lines = reader.split(b'\n').zip(1_u64..);
    lines.filter_map(|(line, number)| {
        spilled_of(line).with_context(|| format!("line {number}")).transpose()
    })
}

/// The event or the fact of one line; `None` for a line without one.
fn spilled_of(line: std::io::Result<Vec<u8>>) -> anyhow::Result<Option<Spilled>> {
    let line = line?;
    let line = String::from_utf8_lossy(&line);
    let Some((_, spill)) = line.split_once(SPILL) else { return Ok(None) };
    let behind = |mark: &str| spill.find(mark).map(|at| (at, &spill[at + mark.len()..]));
    let event = behind(EVENT).or(behind(&EVENT[1..]));
    // What comes first says which it is: the other mark may be in a text.
    let fact = behind(FACT).filter(|(at, _)| event.is_none_or(|(other, _)| *at < other));
    let (text, kind) = match (fact, event) {
        (Some((_, text)), _) => (text, "fact"),
        (None, Some((_, text))) => (text, "event"),
        (None, None) => return Ok(None),
    };
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next().with_context(|| format!("no {kind} after {kind}="))?;
    let value = value.with_context(|| format!("{kind} is not JSON"))?.get().to_owned();
    Ok(Some(if kind == "fact" { Spilled::Fact(value) } else { Spilled::Event(value) }))
}

/// Brings every spilled event of a log to the target, and lists the events that it could not. With
/// `facts` it brings the events of spilled facts too.
///
/// # Errors
///
/// If the ledger fails, or a collector does not answer for 30 seconds.
pub async fn recover(
    log: impl BufRead,
    target: &Target,
    facts: Option<&EventsOfFact<'_>>,
) -> anyhow::Result<Recovered> {
    let mut recovered = Recovered::default();
    let mut batch = Vec::new();
    for spilled in spilled_from_log(log) {
        match (spilled, facts) {
            (Ok(Spilled::Event(event)), _) => batch.push(event),
            (Ok(Spilled::Fact(_)), None) => recovered.unpriced_facts += 1,
            (Ok(Spilled::Fact(fact)), Some(facts)) => match facts(&fact) {
                Ok(events) => batch.extend(events),
                Err(error) => recovered.unreadable.push(format!("fact {fact}: {error:#}")),
            },
            (Err(error), _) => recovered.unreadable.push(format!("{error:#}")),
        }
        if batch.len() >= BATCH_EVENTS_MAX {
            send(&batch, target, &mut recovered).await?;
            batch.clear();
        }
    }
    send(&batch, target, &mut recovered).await?;
    Ok(recovered)
}

async fn send(events: &[String], target: &Target, into: &mut Recovered) -> anyhow::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    let answer = match target {
        Target::Ledger { ledger, allows_older } => {
            insert(events, ledger.clone(), *allows_older).await?
        }
        Target::Collector { url, secret } => post(events, url, secret.as_ref()).await?,
    };
    match (answer, events) {
        (Ok(rejected), _) => {
            into.taken += u64::try_from(events.len().saturating_sub(rejected.len()))?;
            into.refused.extend(rejected);
        }
        (Err(reason), [_]) => into.refused.push(reason),
        (Err(_), _) => {
            for event in events {
                Box::pin(send(std::slice::from_ref(event), target, into)).await?;
            }
        }
    }
    Ok(())
}

/// The reasons for which single events of a batch were refused, or why the whole batch was.
type Answer = Result<Vec<String>, String>;

async fn insert(events: &[String], ledger: Ledger, allows_older: bool) -> anyhow::Result<Answer> {
    let body = body_of(events);
    let intake = Intake { recovers: true, allows_older, ..Intake::OPERATOR };
    let work = move || ledger.take_batch(body.as_bytes(), BATCH, intake);
    match tokio::task::spawn_blocking(work).await? {
        Ok((receipt, _)) => {
            let rejected = receipt.rejected.into_iter();
            Ok(Ok(rejected.map(|event| format!("event {}: {}", event.id, event.reason)).collect()))
        }
        Err(IngestError::Ledger(error)) => Err(error),
        Err(
            refusal @ (IngestError::MediaType(_)
            | IngestError::Malformed(_)
            | IngestError::TooMany(_)
            | IngestError::Foreign),
        ) => Ok(Err(refusal.to_string())),
    }
}

/// Sends the events until the collector takes or refuses them, for [`COLLECTOR_LIMIT`] at most.
async fn post(
    events: &[String],
    url: &Url,
    secret: Option<&SharedSecret>,
) -> anyhow::Result<Answer> {
    let (http, body) = (reqwest::Client::new(), body_of(events));
    let deadline = Instant::now() + COLLECTOR_LIMIT;
    let mut last = anyhow!("no answer");
    loop {
        match timeout_at(deadline, post_once(&http, url, secret, &body)).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error,
            Err(_) => break,
        }
        if Instant::now() + COLLECTOR_PAUSE >= deadline {
            break;
        }
        sleep(COLLECTOR_PAUSE).await;
    }
    Err(last.context(format!("{url} takes the events: not within {COLLECTOR_LIMIT:?}")))
}

/// An error where sending the same events again may help.
async fn post_once(
    http: &reqwest::Client,
    url: &Url,
    secret: Option<&SharedSecret>,
    body: &str,
) -> anyhow::Result<Answer> {
    let mut request =
        http.post(url.clone()).header(header::CONTENT_TYPE, BATCH).body(body.to_owned());
    if let Some(secret) = secret {
        let mut bearer = HeaderValue::from_bytes(&secret.bearer())
            .context("the secret has bytes that no header can have")?;
        bearer.set_sensitive(true);
        request = request.header(header::AUTHORIZATION, bearer);
    }
    let response = request.send().await?;
    let (status, text) = (response.status(), response.text().await?);
    let refusal = matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
            | StatusCode::UNPROCESSABLE_ENTITY
    );
    if refusal {
        return Ok(Err(format!("{status}: {text}")));
    }
    ensure!(status.is_success(), "{status}: {text}");
    Ok(Ok(rejected_in(&text)))
}

/// The `rejected` of a collector's answer; with any other 2xx answer it took everything.
fn rejected_in(answer: &str) -> Vec<String> {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    let rejected = answer["rejected"].as_array().cloned().unwrap_or_default();
    rejected.iter().map(|event| format!("event {}: {}", event["id"], event["reason"])).collect()
}

fn body_of(events: &[String]) -> String {
    format!("[{}]", events.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_of_a_log_byte_for_byte() {
        let log = "[t][1][info][main] starting\n\
            [t][1][warning][wasm] [c.cc:1] wasm log agent-meter: agent-meter spill reason=shutdown event={\"id\":  \"1\"}\n\
            [t][1][warning][wasm] agent-meter spill reason=outbox_full event={\"a\":\" event={}\"} trailing\n\
            [t][1][warning][wasm] agent-meter spill reason=outbox_full event={\"id\":\n\
            agent-meter spill reason=x\n\
            \u{fffd} agent-meter spill event={}\n\
            agent-meter spill reason=journal_full fact={\"tool\":\" event={}\"}";
        let text = |spilled| match spilled {
            Ok(Spilled::Event(event)) => event,
            Ok(Spilled::Fact(fact)) => format!("a fact {fact}"),
            Err(error) => format!("{error:#}"),
        };
        let events: Vec<String> = spilled_from_log(log.as_bytes()).map(text).collect();
        assert_eq!(events[..2], [r#"{"id":  "1"}"#, r#"{"a":" event={}"}"#]);
        assert!(events[2].starts_with("line 4: event is not JSON"), "{}", events[2]);
        assert_eq!(events[3..], ["{}", r#"a fact {"tool":" event={}"}"#]);
    }
}
