//! `agent-meter quarantine`: lists, releases and discards the events that a ledger keeps apart.

use agent_meter_collector::{Decision, Ledger, Page};
use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};

use super::execute::print;

#[derive(Debug, Subcommand)]
pub(super) enum QuarantineCommand {
    /// List events that are kept apart, one line of JSON each
    List(ListArgs),
    /// Count events that were kept apart
    Release(DecideArgs),
    /// Never count events that were kept apart; their text stays
    Discard(DecideArgs),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Held,
    Released,
    Discarded,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// The ledger
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    /// What became of them
    #[arg(long, value_name = "STATE", default_value = "held")]
    state: State,
}

#[derive(Debug, Args)]
pub(super) struct DecideArgs {
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    /// The `position` of each event
    #[arg(value_name = "POSITION", required_unless_present = "all", conflicts_with = "all")]
    positions: Vec<i64>,
    /// All that are held
    #[arg(long)]
    all: bool,
}

impl QuarantineCommand {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        match self {
            QuarantineCommand::List(args) => args.execute(),
            QuarantineCommand::Release(args) => args.execute(Decision::Release),
            QuarantineCommand::Discard(args) => args.execute(Decision::Discard),
        }
    }
}

impl ListArgs {
    fn execute(self) -> anyhow::Result<()> {
        let ledger = Ledger::open_existing(&self.ledger)?;
        let state = match self.state {
            State::Held => "held",
            State::Released => "released",
            State::Discarded => "discarded",
        };
        let mut page = Page::default();
        loop {
            let found = ledger.quarantine(state, page)?;
            for event in &found.events {
                print(&serde_json::to_string(event)?)?;
            }
            let Some(next) = found.next else { return Ok(()) };
            page.after = Some(next.parse()?);
        }
    }
}

impl DecideArgs {
    fn execute(self, decision: Decision) -> anyhow::Result<()> {
        let ledger = Ledger::open_existing(&self.ledger)?;
        let mut positions = self.positions;
        if self.all {
            let mut page = Page::default();
            loop {
                let found = ledger.quarantine("held", page)?;
                positions.extend(found.events.iter().map(|event| event.position));
                let Some(next) = found.next else { break };
                page.after = Some(next.parse()?);
            }
        }
        let mut failed = Vec::new();
        for position in &positions {
            if let Err(error) = ledger.decide(*position, decision) {
                failed.push(format!("{position}: {error:#}"));
            }
        }
        let done = positions.len().saturating_sub(failed.len());
        let what = match decision {
            Decision::Release => "released",
            Decision::Discard => "discarded",
        };
        print(&format!("{what} {done} events"))?;
        let failed = (!failed.is_empty()).then(|| failed.join("; "));
        failed.map_or(Ok(()), Err).map_err(anyhow::Error::msg).context("not all of them")
    }
}
