//! `agent-meter balance`: writes down what customers pay in advance, and shows what is left of it.

use agent_meter_collector::{BalancesQuery, Ledger, Page};
use clap::{Args, Subcommand};
use serde_json::{Map, Value};

use super::execute::print;

/// A balance is what was paid in advance less what was used since. Nothing that is stored is changed:
/// `agent-meter correct void` takes a top-up back, by the `event_id` that `list` shows.
#[derive(Debug, Subcommand)]
pub(super) enum BalanceCommand {
    /// Write a top-up down; one that comes again, with the same id, changes nothing
    TopUp(Box<TopUpArgs>),
    /// Show what is left, a line of JSON for each account; with --customer, also of each top-up
    List {
        /// Only of this customer [default: all]
        #[arg(long, value_name = "CUSTOMER")]
        customer: Option<String>,
        /// The ledger; a collector may have it open
        #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
        ledger: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct TopUpArgs {
    /// Its id, such as that of the payment
    #[arg(long, value_name = "ID")]
    id: String,
    /// Who paid
    #[arg(long, value_name = "CUSTOMER")]
    customer: String,
    /// Only for this team of the customer
    #[arg(long, value_name = "TEAM", conflicts_with = "agent")]
    team: Option<String>,
    /// Only for this agent of the customer
    #[arg(long, value_name = "AGENT")]
    agent: Option<String>,
    /// How much
    #[arg(long, value_name = "DECIMAL")]
    amount: String,
    /// The currency, ISO 4217
    #[arg(long, value_name = "CODE")]
    currency: String,
    /// From when it pays, such as 2026-07-01T00:00:00Z; what was used before the first top-up is not
    /// taken from it [default: now]
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// When what is left of it is gone [default: never]
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Who writes it down
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    by: String,
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
}

impl BalanceCommand {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        match self {
            BalanceCommand::TopUp(args) => args.execute(),
            BalanceCommand::List { customer, ledger } => {
                let ledger = Ledger::open_existing(&ledger)?;
                let mut query = BalancesQuery { customer, page: Page::default() };
                loop {
                    let found = ledger.balances(&query)?;
                    for balance in &found.balances {
                        print(&serde_json::to_string(balance)?)?;
                    }
                    match found.next {
                        Some(next) => query.page.after = Some(next.parse()?),
                        None => return Ok(()),
                    }
                }
            }
        }
    }
}

impl TopUpArgs {
    fn execute(self) -> anyhow::Result<()> {
        let scope = match (&self.team, &self.agent) {
            (Some(_), _) => "team",
            (None, Some(_)) => "agent",
            (None, None) => "customer",
        };
        let members = [
            ("top_up_id", Some(self.id)),
            ("customer_id", Some(self.customer)),
            ("scope", Some(scope.to_owned())),
            ("team_id", self.team),
            ("agent_id", self.agent),
            ("amount", Some(self.amount)),
            ("currency", Some(self.currency)),
            ("from", self.from),
            ("expires_at", self.expires),
            ("reason", self.reason),
        ];
        let members = members.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let told: Map<String, Value> =
            members.map(|(name, value)| (name.to_owned(), value.into())).collect();
        let ledger = Ledger::open_existing(&self.ledger)?;
        let topped_up = ledger.top_up(&Value::Object(told), &self.by)?;
        print(&serde_json::to_string(&topped_up)?)
    }
}
