//! The metrics of sinks in Prometheus' text format, as the ledger knows them.

use std::fmt::Write;

use crate::ledger::Ledger;
use crate::ledger::handover::SinkState;
use crate::query::millis;

/// The metrics of all sinks; empty without any.
pub(crate) fn metrics(ledger: &Ledger) -> anyhow::Result<String> {
    let (sinks, now_ms) = (ledger.sinks()?, ledger.now_ms());
    let mut text = String::new();
    if sinks.is_empty() {
        return Ok(text);
    }
    let mut family = |name: &str, kind: &str, help: &str, value: &dyn Fn(&SinkState) -> String| {
        let name = format!("agent_meter_collector_sink_{name}");
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")?;
        sinks
            .iter()
            .try_for_each(|sink| writeln!(text, "{name}{{sink=\"{}\"}} {}", sink.sink, value(sink)))
    };
    let counter = "counter";
    family("handed_total", counter, "Events that a sink's receiver took.", &|sink| {
        sink.handed.to_string()
    })?;
    family("failed_total", counter, "Tries that failed.", &|sink| sink.failures.to_string())?;
    let help = "Events that a receiver refused without saying which ones.";
    family("unnamed_total", counter, help, &|sink| sink.unnamed.to_string())?;
    family("lag_events", "gauge", "Stored events that a sink has not come to.", &|sink| {
        sink.lag_events.to_string()
    })?;
    let help = "Seconds since the oldest event came that a sink has not come to.";
    family("lag_seconds", "gauge", help, &|sink| {
        let since = sink.waiting_since.as_deref().and_then(millis).unwrap_or(now_ms);
        let ms = now_ms.saturating_sub(since).max(0);
        format!("{}.{:03}", ms / 1000, ms % 1000)
    })?;
    let name = "agent_meter_collector_sink_set_aside";
    writeln!(text, "# HELP {name} Events that a sink set aside, by reason.\n# TYPE {name} gauge")?;
    for sink in &sinks {
        for (reason, count) in &sink.set_aside {
            writeln!(text, "{name}{{sink=\"{}\",reason=\"{reason}\"}} {count}", sink.sink)?;
        }
    }
    Ok(text)
}
