//! Brings events that the filter wrote to Envoy's log into a ledger or to a collector. The ledger
//! recognises those that it has already.
//!
//! The files, in the order of the data:
//!
//! | file | what it does |
//! |---|---|
//! | `input` | opens logs, also compressed ones, and reads them line by line |
//! | `logger` | recognises what Envoy's Wasm logger wrote, in the formats of its log |
//! | `line` | reads one spilled line, and checks its mac |
//! | `carrier` | undoes what carries a log: docker's JSON, CRI, kubectl, Loki, fluent-bit |
//! | `parts` | joins the parts of long texts |
//! | `summary` | says what came of it |
//! | `scan` | puts these together: lines in, events and facts out |
//! | `send` | brings events to their target, and reads its receipt |
//! | `follow` | does all of this with the logs of a directory as they grow |

mod carrier;
pub mod follow;
mod input;
mod line;
mod logger;
mod parts;
mod scan;
mod send;
mod summary;

use std::fmt;
use std::time::Duration;

use anyhow::ensure;
use tokio::time::{Instant, sleep};

pub use self::input::Log;
pub use self::logger::Format;
pub use self::send::{Authentication, Remote, Target};
pub use self::summary::{Recovered, Texts};

use self::input::Place;
use self::scan::{Scan, Spilled};
use self::send::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, deliver};
use crate::access::SharedSecret;

/// How long to try a target that is down or busy.
const TARGET_LIMIT: Duration = Duration::from_secs(30);
/// How long to wait between two tries.
const TARGET_PAUSE: Duration = Duration::from_millis(200);

/// Makes the events of a spilled fact: JSON text of each, from the JSON text of the fact.
pub type EventsOfFact<'a> = dyn Fn(&str) -> anyhow::Result<Vec<String>> + Send + Sync + 'a;

/// How logs are read.
#[derive(Clone, Default)]
pub struct Options<'a> {
    /// Takes only lines that one of these secrets has signed, unless there is none.
    pub secrets: Vec<SharedSecret>,
    /// Formats of Envoy's log, besides the usual ones.
    pub formats: Vec<Format>,
    /// Prices spilled facts.
    pub facts: Option<&'a EventsOfFact<'a>>,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("secrets", &self.secrets)
            .field("formats", &self.formats)
            .finish()
    }
}

impl Options<'_> {
    /// Adds the events of what was spilled to a batch.
    fn add(&self, spilled: Spilled, batch: &mut Vec<String>, summary: &mut Recovered) {
        match (spilled, self.facts) {
            (Spilled::Event(event), _) => batch.push(event),
            (Spilled::Fact(_), None) => summary.unpriced_facts += 1,
            (Spilled::Fact(fact), Some(facts)) => match facts(&fact) {
                Ok(events) => batch.extend(events),
                Err(error) => summary.unreadable.push(format!("fact {fact}: {error:#}")),
            },
        }
    }
}

fn is_full(batch: &[String]) -> bool {
    batch.len() >= BATCH_EVENTS_MAX
        || batch.iter().map(String::len).sum::<usize>() >= BATCH_BYTES_MAX
}

/// Brings every spilled event of the logs to the target, and lists what it could not.
///
/// # Errors
///
/// If the target does not take the events within 30 seconds.
pub async fn recover(
    logs: impl IntoIterator<Item = Log>,
    target: &Target,
    options: &Options<'_>,
) -> anyhow::Result<Recovered> {
    let mut summary = Recovered::default();
    let mut scan = Scan::new(options.secrets.clone(), &options.formats);
    let mut batch = Vec::new();
    for mut log in logs {
        let mut place = Place { log: log.name(), line: 0, offset: 0 };
        loop {
            place.line += 1;
            let line = match log.next_line() {
                Ok(Some(line)) => line,
                Ok(None) => break,
                Err(error) => {
                    summary.unreadable.push(format!("{place}: the log ends here: {error}"));
                    break;
                }
            };
            for spilled in scan.read(&place, &line, &mut summary) {
                options.add(spilled, &mut batch, &mut summary);
                if is_full(&batch) {
                    send(&batch, target, &mut summary).await?;
                    batch.clear();
                }
            }
        }
        scan.end_log(&place.log, &mut summary);
    }
    scan.end_parts(0, &mut summary);
    send(&batch, target, &mut summary).await?;
    Ok(summary)
}

/// Sends for [`TARGET_LIMIT`] at most.
async fn send(batch: &[String], target: &Target, summary: &mut Recovered) -> anyhow::Result<()> {
    let deadline = Instant::now() + TARGET_LIMIT;
    let mut wait = async |error: anyhow::Error| {
        let is_over = Instant::now() + TARGET_PAUSE >= deadline;
        ensure!(
            !is_over,
            error.context(format!("the events are not taken within {TARGET_LIMIT:?}"))
        );
        sleep(TARGET_PAUSE).await;
        Ok(())
    };
    deliver(batch, target, summary, &mut wait).await
}
