//! `agent-meter sinks`: shows how far sinks have come, lists what they set aside, and has it sent
//! again.

use agent_meter_collector::{CLICKHOUSE_SCHEMA, Ledger};
use anyhow::ensure;
use clap::{Args, Subcommand, ValueEnum};

use super::execute::print;

/// Events that are read at once.
const PAGE: u32 = 1000;

#[derive(Debug, Subcommand)]
pub(super) enum SinksCommand {
    /// Show each sink: one line of JSON with its position, lag, counts and last error
    List(LedgerArgs),
    /// List the events that sinks set aside, one line of JSON each, with the reason
    SetAside(SetAsideArgs),
    /// Have a sink send events again that it set aside; its collector does so within a second. One
    /// that is `uncertain` may be billed twice then
    Retry(RetryArgs),
    /// Print the statement that makes the table of a sink
    Schema {
        /// The type of the sink
        #[arg(value_name = "TYPE")]
        kind: WithSchema,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum WithSchema {
    #[value(name = "clickhouse")]
    ClickHouse,
}

#[derive(Debug, Args)]
pub(super) struct LedgerArgs {
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
}

#[derive(Debug, Args)]
pub(super) struct SetAsideArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// Only of this sink [default: all]
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RetryArgs {
    #[command(flatten)]
    ledger: LedgerArgs,
    /// The sink
    #[arg(long, value_name = "NAME")]
    sink: String,
    /// The `position` of each event
    #[arg(value_name = "POSITION", required_unless_present = "all", conflicts_with = "all")]
    positions: Vec<i64>,
    /// All that it set aside
    #[arg(long)]
    all: bool,
}

impl SinksCommand {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        match self {
            SinksCommand::List(args) => args.execute(),
            SinksCommand::SetAside(args) => args.execute(),
            SinksCommand::Retry(args) => args.execute(),
            SinksCommand::Schema { kind: WithSchema::ClickHouse } => {
                print(CLICKHOUSE_SCHEMA.trim_end())
            }
        }
    }
}

impl LedgerArgs {
    fn open(&self) -> anyhow::Result<Ledger> {
        Ledger::open_existing(&self.ledger)
    }

    fn execute(self) -> anyhow::Result<()> {
        for sink in self.open()?.sinks()? {
            print(&serde_json::to_string(&sink)?)?;
        }
        Ok(())
    }
}

impl SetAsideArgs {
    fn execute(self) -> anyhow::Result<()> {
        let ledger = self.ledger.open()?;
        let known = ledger.sinks()?.into_iter().map(|sink| sink.sink);
        let wanted = |name: &String| self.sink.as_ref().is_none_or(|sink| sink == name);
        let names: Vec<String> = known.filter(wanted).collect();
        ensure!(!names.is_empty(), "the ledger knows no such sink");
        for name in names {
            let mut after = 0;
            loop {
                let events = ledger.set_aside(&name, after, PAGE)?;
                let Some(last) = events.last() else { break };
                after = last.position;
                for event in &events {
                    print(&serde_json::to_string(event)?)?;
                }
            }
        }
        Ok(())
    }
}

impl RetryArgs {
    fn execute(self) -> anyhow::Result<()> {
        let ledger = self.ledger.open()?;
        let known = ledger.sinks()?;
        ensure!(known.iter().any(|sink| sink.sink == self.sink), "the ledger knows no such sink");
        let mut count = 0;
        if self.all {
            count = ledger.send_again(&self.sink, None)?;
        }
        let mut unknown = Vec::new();
        for position in self.positions {
            match ledger.send_again(&self.sink, Some(position))? {
                0 => unknown.push(position.to_string()),
                more => count += more,
            }
        }
        print(&format!("{count} events are to be sent again"))?;
        ensure!(unknown.is_empty(), "{} did not set aside: {}", self.sink, unknown.join(", "));
        Ok(())
    }
}
