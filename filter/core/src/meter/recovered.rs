//! Makes the events of a fact that a worker wrote to the log, because no accountant could read it:
//! an accountant over a host in memory prices it by the configuration that was in force.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::accountant::{Accountant, Handover};
use crate::base::hash::{hash, hex};
use crate::base::text::Duration;
use crate::base::time::Timestamp;
use crate::config::Config;
use crate::fact::Fact;
use crate::host::counter::{Counter, Gauge};
use crate::host::spill::Spill;
use crate::host::{Conflict, Expect, Host};
use crate::shared_data::commit::Candidate;
use crate::shared_data::journal::Writer;

/// The prefix of the keys; the host has no others.
const PREFIX: &str = "";

/// Shared data of nobody else, and the events that the accountant writes when it stops.
#[derive(Debug, Default)]
struct Memory {
    data: BTreeMap<String, (Vec<u8>, u32)>,
    writes: u32,
    events: Vec<String>,
}

impl Host for Memory {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.data.get(key).cloned()
    }

    fn set(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
        let found = self.data.get(key).map(|(_, version)| *version);
        match expect {
            Expect::Absent if found.is_some() => return Err(Conflict),
            Expect::Version(version) if found != Some(version) => return Err(Conflict),
            Expect::Any | Expect::Absent | Expect::Version(_) => {}
        }
        self.writes = self.writes.saturating_add(1);
        self.data.insert(key.to_owned(), (value.to_vec(), self.writes));
        Ok(())
    }

    fn property(&mut self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn spill(&mut self, spill: &Spill<'_>) {
        self.events.push(spill.text.to_owned());
    }

    fn warn(&mut self, _line: &str) {}

    fn count(&mut self, _: Counter, _: u64) {}

    fn gauge(&mut self, _: Gauge, _: u64) {}
}

/// The events of a fact, as CloudEvents in JSON; none if the fact makes none. `json` is what
/// stands behind `fact=` in the line of the log.
///
/// The same fact always has the same events, with a source of its own, so that a ledger takes them
/// once.
///
/// # Errors
///
/// If the text is not a fact of this version.
pub fn events_of_fact(mut config: Config, json: &str) -> Result<Vec<String>, serde_json::Error> {
    let fact: Fact = serde_json::from_str(json)?;
    let Some(at) = ended_at(&fact) else { return Ok(Vec::new()) };
    let bytes = fact.encode();
    let source = format!("urn:agent-meter:recovered:{}", hex(&hash(&[&bytes])));
    let mut host = Memory::default();
    let Ok(mut journal) = Writer::claim(&mut host, PREFIX) else { return Ok(Vec::new()) };
    if journal.append(&mut host, PREFIX, &bytes).is_err() {
        return Ok(Vec::new());
    }
    if let Some(lease) = Candidate::default().take_last(&mut host, PREFIX) {
        // The source that it would tell of ended long ago.
        config.delivery.heartbeat_interval = Duration::from_seconds(0);
        let config = Rc::new(config);
        let prefix = PREFIX.to_owned();
        let accountant = Accountant::resume(&mut host, config, prefix, lease, &source, 0, 1);
        accountant.stop(&mut host, at, Handover::Nothing);
    }
    Ok(host.events)
}

/// The end of what a fact is about, if that is a call or a generation.
fn ended_at(fact: &Fact) -> Option<Timestamp> {
    match fact {
        Fact::Call(call) => Some(call.ended_at),
        Fact::Calls(calls) => Some(calls.call.ended_at),
        Fact::Open(open) => Some(open.call.ended_at),
        Fact::Generation(generation) => Some(generation.ended_at),
        Fact::CallStarted(_)
        | Fact::CallUpdate(_)
        | Fact::Redirected { .. }
        | Fact::OtherOpen(_)
        | Fact::OtherAnswered { .. }
        | Fact::Running { .. }
        | Fact::Reserved(_)
        | Fact::Released { .. }
        | Fact::GenerationStarted(_)
        | Fact::GenerationAwaited { .. }
        | Fact::SessionEnd { .. } => None,
    }
}
