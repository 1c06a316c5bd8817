//! `agent-meter reconcile`: compares a ledger with what else tells of the same calls.

use std::path::PathBuf;

use agent_meter_collector::recover::Log;
use agent_meter_collector::{Ledger, access_log::Difference};
use anyhow::ensure;
use clap::Args;

use super::execute::print;

/// The log is in JSON lines with the members `agent_meter.call_id`, `agent_meter.status` and
/// `agent_meter.generation_id`, and in a fleet `request_id`: see envoy/README.md.
#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    /// An access log of Envoy, gzip or not; `-` is stdin
    #[arg(long, value_name = "FILE", required = true)]
    access_log: Vec<PathBuf>,
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl ReconcileArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let ledger = Ledger::open_existing(&self.ledger)?;
        let logs = self.access_log.iter().map(|path| Log::open(path));
        let found = ledger.compare_access_logs(logs.collect::<anyhow::Result<_>>()?)?;
        if self.json {
            print(&serde_json::to_string(&found)?)?;
        } else {
            print(&format!(
                "{} lines of the log tell of calls or generations, {} do not; {} match",
                found.lines, found.other_lines, found.matched
            ))?;
            show("in the log only", &found.not_in_ledger)?;
            show("in the ledger only", &found.not_in_log)?;
            show("with another outcome", &found.other_status)?;
            if found.folded_calls > 0 {
                let folded = found.folded_calls;
                print(&format!("{folded} calls are in events that stand for several"))?;
            }
        }
        ensure!(found.lines > 0, "no line of the log tells of a call or a generation");
        ensure!(found.is_equal(), "the log and the ledger differ");
        Ok(())
    }
}

fn show(what: &str, difference: &Difference) -> anyhow::Result<()> {
    if difference.count == 0 {
        return Ok(());
    }
    print(&format!("{} {what}:", difference.count))?;
    for id in &difference.first {
        print(&format!("  {id}"))?;
    }
    Ok(())
}
