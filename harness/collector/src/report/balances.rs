//! What is left of what customers paid in advance.

use rust_decimal::Decimal;
use serde::Serialize;

use crate::event::top_up::Account;
use crate::ledger::Ledger;
use crate::ledger::balance::Balance;
use crate::ledger::merges::Merges;
use crate::ledger::top_ups::{self, Stored};
use crate::money::{self, Exact};
use crate::query::{BadQuery, Page, Parameters, rfc3339};
use crate::sql::Transaction;

/// Which balances to tell.
#[derive(Debug, Clone, Default)]
pub struct BalancesQuery {
    /// Only those of this customer, or of who pays for it.
    pub customer: Option<String>,
    /// Which page.
    pub page: Page,
}

impl BalancesQuery {
    /// Reads the parameters `customer_id`, `after` and `limit`.
    ///
    /// # Errors
    ///
    /// Names the parameter that is unknown, given twice or malformed.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<BalancesQuery, BadQuery> {
        let mut parameters = Parameters::new(pairs, &["customer_id", "after", "limit"])?;
        let customer = parameters.take("customer_id");
        Ok(BalancesQuery { customer, page: parameters.take_page()? })
    }
}

/// One page of balances, in the order of the accounts' first top-ups.
#[derive(Debug, Serialize)]
pub struct Balances {
    /// At most as many as the page may have.
    pub balances: Vec<BalanceState>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

/// What an account has come to. `granted` is `spent`, `expired` and `balance` together, to the last
/// digit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BalanceState {
    /// Who pays.
    pub customer_id: String,
    /// `customer`, `team` or `agent`.
    pub scope: &'static str,
    /// The team, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// The agent, if it is one's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// ISO 4217, of all amounts.
    pub currency: String,
    /// The amounts of all top-ups that have begun.
    #[serde(serialize_with = "money::as_text")]
    pub granted: Decimal,
    /// The prices of all that was used since the first top-up began.
    #[serde(serialize_with = "money::as_text")]
    pub spent: Decimal,
    /// What was left of top-ups when they expired.
    #[serde(serialize_with = "money::as_text")]
    pub expired: Decimal,
    /// What is left; below zero, what is owed.
    #[serde(serialize_with = "money::as_text")]
    pub balance: Decimal,
    /// RFC 3339, UTC: when the next top-up expires of which something is left.
    pub next_expiry_at: Option<String>,
    /// The top-ups; left out of a list of all customers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_ups: Option<Vec<TopUpState>>,
}

/// A top-up, and what is left of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopUpState {
    /// Its id.
    pub top_up_id: String,
    /// The id of its event, by which `agent-meter correct void` takes it back.
    pub event_id: String,
    /// `pending`, `live`, `spent`, `expired` or `void`.
    pub state: &'static str,
    /// What was paid.
    #[serde(serialize_with = "money::as_text")]
    pub amount: Decimal,
    /// What is left.
    #[serde(serialize_with = "money::as_text")]
    pub left: Decimal,
    /// RFC 3339, UTC: from when it pays.
    pub from: String,
    /// RFC 3339, UTC: when what is left of it is gone; `None` for never.
    pub expires_at: Option<String>,
}

impl Ledger {
    /// What is left of what customers paid in advance. An account of a customer for whom another one
    /// pays is told as the one of who pays.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn balances(&self, query: &BalancesQuery) -> anyhow::Result<Balances> {
        let now_ms = self.now_ms();
        self.read(|ledger| {
            let merges = Merges::read(ledger)?;
            let customers = query.customer.as_ref().map(|customer| {
                let mut customers = merges.paid_by(merges.payer(customer));
                if !customers.contains(customer) {
                    customers.push(customer.clone());
                }
                customers
            });
            let mut accounts = top_ups::accounts(ledger, customers.as_deref(), query.page)?;
            let next = query.page.cut(&mut accounts);
            let mut balances: Vec<BalanceState> = Vec::with_capacity(accounts.len());
            for (_, account) in &accounts {
                let mut found = state(ledger, account, now_ms)?;
                if customers.is_none() {
                    found.top_ups = None;
                }
                if !balances.contains(&found) {
                    balances.push(found);
                }
            }
            Ok(Balances { balances, next })
        })
    }
}

/// What an account has come to at `now_ms`, with its top-ups.
pub(crate) fn state(
    ledger: &Transaction<'_>,
    account: &Account,
    now_ms: i64,
) -> anyhow::Result<BalanceState> {
    let Balance { payer, standing, lots, .. } = Balance::read(ledger, None, account, now_ms)?;
    let Account { scope, name, currency, .. } = account.clone();
    let named = |kind: &str| (scope == kind).then(|| name.clone());
    let top_ups = lots.iter().map(|(stored, left)| top_up(stored, *left, now_ms));
    Ok(BalanceState {
        customer_id: payer,
        scope,
        team_id: named("team"),
        agent_id: named("agent"),
        currency,
        granted: standing.granted.rounded(),
        spent: standing.spent.rounded(),
        expired: standing.expired.rounded(),
        balance: standing.balance().rounded(),
        next_expiry_at: standing.next_expiry_ms().map(rfc3339),
        top_ups: Some(top_ups.collect()),
    })
}

fn top_up(stored: &Stored, left: Exact, now_ms: i64) -> TopUpState {
    let state = match stored.expires_ms {
        _ if stored.is_void => "void",
        _ if stored.from_ms > now_ms => "pending",
        Some(expires_ms) if expires_ms <= now_ms => "expired",
        _ if left == Exact::ZERO => "spent",
        _ => "live",
    };
    TopUpState {
        top_up_id: stored.top_up_id.clone(),
        event_id: stored.event_id.clone(),
        state,
        amount: stored.amount,
        left: left.rounded(),
        from: rfc3339(stored.from_ms),
        expires_at: stored.expires_ms.map(rfc3339),
    }
}
