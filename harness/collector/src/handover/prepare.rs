//! Makes the records of stored events: reads each, finds out what it takes back, and sets aside what
//! cannot be handed over.

use serde_json::value::RawValue;

use crate::event::{self, Body, Event, short_type};
use crate::handover::config::Configured;
use crate::handover::sink::Record;
use crate::handover::store;
use crate::handover::usage::Usage;
use crate::ledger::Ledger;
use crate::ledger::handover::{Progress, SetAside, Stored};

/// Why events are set aside.
pub(super) mod reason {
    /// The receiver refuses it.
    pub(in crate::handover) const REFUSED: &str = "refused";
    /// It may be in the receiver's books, which would not know it again.
    pub(in crate::handover) const UNCERTAIN: &str = "uncertain";
    /// It is older than the receiver takes.
    pub(in crate::handover) const TOO_OLD: &str = "too_old";
    /// It alone is larger than a request may be.
    pub(in crate::handover) const TOO_LARGE: &str = "too_large";
    /// The format has no words for it.
    pub(in crate::handover) const UNFIT: &str = "unfit";
}

/// The records of events, and those events that are set aside.
#[derive(Debug, Default)]
pub(super) struct Prepared {
    pub(super) records: Vec<Record>,
    pub(super) set_aside: Vec<SetAside>,
}

/// Makes the records of stored events, in their order.
pub(super) fn prepare(
    ledger: &Ledger,
    sink: &Configured,
    progress: &Progress,
    events: &[Stored],
) -> anyhow::Result<Prepared> {
    let mut prepared = Prepared::default();
    for stored in events {
        match records(ledger, sink, progress, stored)? {
            Ok(records) => prepared.records.extend(records),
            Err((state, detail)) => {
                let position = stored.position;
                prepared.set_aside.push(SetAside { position, state, detail });
            }
        }
    }
    Ok(prepared)
}

type Unfit = (&'static str, String);

fn records(
    ledger: &Ledger,
    sink: &Configured,
    progress: &Progress,
    stored: &Stored,
) -> anyhow::Result<Result<Vec<Record>, Unfit>> {
    let raw = match RawValue::from_string(stored.raw.clone()) {
        Ok(raw) => raw,
        Err(error) => return Ok(Err((reason::UNFIT, format!("not JSON: {error}")))),
    };
    let event = match event::read_stored(&raw) {
        Ok(event) => event,
        Err((id, detail)) => return Ok(Err((reason::UNFIT, format!("{id}: {detail}")))),
    };
    if !sink.events.contains(short_type(&event.event_type)) {
        return Ok(Ok(Vec::new()));
    }
    let is_superseded = is_superseded(ledger, &event, stored, progress)?;
    let replaced = if is_generation(&event) {
        replaced(ledger, &event, stored, progress)?
    } else {
        Vec::new()
    };
    let usage = Usage::new(&event, stored.position, is_superseded, &replaced);
    let made = usage.and_then(|usage| sink.sink.records(&usage));
    let records = match made {
        Ok(records) => records,
        Err(detail) => return Ok(Err((reason::UNFIT, detail))),
    };
    let limits = sink.sink.limits();
    let age_ms = ledger.now_ms().saturating_sub(event.time_ms);
    let oldest = limits.oldest.filter(|oldest| age_ms > crate::http_client::ms(*oldest));
    if let (Some(oldest), false) = (oldest, records.is_empty()) {
        let days = oldest.as_secs() / 86_400;
        return Ok(Err((reason::TOO_OLD, format!("of {}, more than {days} days ago", event.time))));
    }
    let room = limits.bytes.saturating_sub(sink.sink.frame().bytes());
    if let Some(large) = records.iter().find(|record| record.body.len() > room) {
        let detail = format!("{} bytes, of at most {room}", large.body.len());
        return Ok(Err((reason::TOO_LARGE, detail)));
    }
    Ok(Ok(records))
}

fn is_generation(event: &Event<'_>) -> bool {
    matches!(event.body, Body::Generation(_))
}

/// Whether another event takes its place whose turn is earlier. An event that was released late has
/// its turn now.
fn is_superseded(
    ledger: &Ledger,
    event: &Event<'_>,
    stored: &Stored,
    progress: &Progress,
) -> anyhow::Result<bool> {
    let Some(by) = stored.superseded_by else { return Ok(false) };
    let by = store::position_of(ledger, &event.source, by)?;
    let turn = if stored.is_late { progress.position + 1 } else { stored.position };
    Ok(by.is_some_and(|by| by < turn))
}

/// The events that this one takes back: superseded by it, with an earlier turn, and not superseded
/// before.
fn replaced(
    ledger: &Ledger,
    event: &Event<'_>,
    stored: &Stored,
    progress: &Progress,
) -> anyhow::Result<Vec<Box<RawValue>>> {
    let Body::Generation(generation) = &event.body else { return Ok(Vec::new()) };
    if generation.supersedes.is_none() {
        return Ok(Vec::new());
    }
    let turn = if stored.is_late { progress.position + 1 } else { stored.position };
    let session = &generation.identity.session_id;
    let between = (progress.started, turn);
    let found = store::superseded_by(ledger, session, &event.source, event.sequence, between)?;
    let mut replaced = Vec::new();
    // An event is superseded once, and by this one, whose turn is later: so it said all of itself.
    for earlier in found.into_iter().filter(|earlier| !earlier.raw.is_empty()) {
        replaced.push(RawValue::from_string(earlier.raw)?);
    }
    Ok(replaced)
}
