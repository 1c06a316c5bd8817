//! The metrics in Prometheus' text format: what came, what is missing, and what waits.
//! No label has a value from a source, so that sources without end make no metrics without end.

use std::fmt::Write;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use crate::handover::metrics as sinks;
use crate::ledger::Ledger;
use crate::report::gaps::SourceState;
use crate::routes::refusal::{Answer, failed};
use crate::routes::service::Service;
use crate::webhook::queue;

/// How long the number of mismatches stands: it takes a look at many sessions.
const MISMATCHES_TTL: Duration = Duration::from_secs(60);

/// How many of the latest sessions do not agree.
fn mismatches(service: &Service) -> anyhow::Result<usize> {
    let mut last = service.mismatches.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, count)) = last.filter(|(at, _)| at.elapsed() < MISMATCHES_TTL) {
        return Ok(count);
    }
    let mut sessions: Vec<_> = service
        .ledger
        .reconcile_latest()?
        .mismatches
        .into_iter()
        .map(|mismatch| (mismatch.source, mismatch.session_id))
        .collect();
    sessions.sort();
    sessions.dedup();
    *last = Some((Instant::now(), sessions.len()));
    Ok(sessions.len())
}

pub(super) async fn metrics(State(service): State<Service>) -> Answer {
    let work = move || {
        let ledger = &service.ledger;
        let mut text =
            [ledger.tally().to_string(), queue::metrics(ledger)?, sinks::metrics(ledger)?].concat();
        service.refusals.write(&mut text)?;
        write_state(ledger, &mut text)?;
        let name = "agent_meter_collector_reconcile_mismatches";
        writeln!(
            text,
            "# HELP {name} Sessions, of the latest 1000, whose final totals are not the sums."
        )?;
        writeln!(text, "# TYPE {name} gauge\n{name} {}", mismatches(&service)?)?;
        anyhow::Ok(text)
    };
    let text = tokio::task::spawn_blocking(work).await.map_err(anyhow::Error::from).flatten();
    let text = text.map_err(|error| failed(&error))?;
    let content_type = "text/plain; version=0.0.4; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// What the ledger holds now.
fn write_state(ledger: &Ledger, text: &mut String) -> anyhow::Result<()> {
    let sources = ledger.liveliness()?;
    let mut gauge = |name: &str, help: &str, values: &[(String, String)]| {
        let name = format!("agent_meter_collector_{name}");
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge")?;
        values.iter().try_for_each(|(labels, value)| writeln!(text, "{name}{labels} {value}"))
    };
    let one = |value: u64| [(String::new(), value.to_string())];
    let of_state = |state: SourceState| format!("{{state=\"{}\"}}", state.name());
    gauge(
        "missing_events",
        "Events that sources gave a number and that never came.",
        &one(sources.missing),
    )?;
    let states =
        SourceState::ALL.map(|state| (of_state(state), sources.states.count(state).to_string()));
    gauge("sources", "Sources, by whether they told that they live.", &states)?;
    let silences: Vec<_> = sources
        .silence_ms
        .iter()
        .map(|(state, ms)| (of_state(*state), format!("{}.{:03}", ms / 1000, ms % 1000)))
        .collect();
    let help = "Seconds since the last event of any source in this state.";
    gauge("last_event_age_seconds", help, &silences)?;
    gauge("open_sessions", "Sessions that are not closed.", &one(ledger.count_open_sessions()?))?;
    let quarantined = ledger.count_quarantined()?;
    let quarantined: Vec<_> = quarantined
        .into_iter()
        .map(|(reason, count)| (format!("{{reason=\"{}\"}}", reason.name()), count.to_string()))
        .collect();
    let help = "Events kept apart because they are not plausible, until somebody decides.";
    gauge("quarantined_events", help, &quarantined)?;
    gauge("ledger_bytes", "Bytes of the ledger on disk.", &one(ledger.bytes()?))?;
    Ok(())
}
