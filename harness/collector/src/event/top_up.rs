//! Reads the data of `top_up`: that a customer, or a team or an agent of one, paid in advance. Only
//! the ledger itself writes such events; see the room `books`.

use rust_decimal::Decimal;

use crate::event::correction::text;
use crate::event::members::Members;

/// Whose balance it is, and in which currency. What is used is taken from the balance of its
/// customer, and from those of its team and of its agent, if these have any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Account {
    /// The customer.
    pub customer: String,
    /// `customer`, `team` or `agent`.
    pub scope: &'static str,
    /// The team or the agent; empty for a customer.
    pub name: String,
    /// ISO 4217.
    pub currency: String,
}

/// An amount that was paid in advance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopUp {
    /// Unique in the ledger: a top-up that comes again changes nothing.
    pub top_up_id: String,
    /// Whose it is.
    pub account: Account,
    /// More than 0, in the currency of the account.
    pub amount: Decimal,
    /// From when it pays, in milliseconds since 1970, UTC.
    pub from_ms: i64,
    /// When what is left of it is gone, in the same unit; `None` for never.
    pub expires_ms: Option<i64>,
    /// Who wrote it down.
    pub made_by: String,
}

/// The scopes that have balances, and the member that names each.
pub(crate) const SCOPES: [(&str, Option<&str>); 3] =
    [("customer", None), ("team", Some("team_id")), ("agent", Some("agent_id"))];

/// The largest amount.
const AMOUNT_MAX: u64 = 1_000_000_000_000;

/// Reads one top-up; an error begins with the path of the member.
pub(crate) fn top_up(data: &Members<'_>) -> Result<TopUp, String> {
    let names = SCOPES.map(|(scope, _)| scope);
    let scope = data.one_of("scope", &names)?;
    let member = SCOPES.into_iter().find(|(known, _)| *known == scope).and_then(|(_, name)| name);
    const COMMON: [&str; 10] = [
        "event_type",
        "top_up_id",
        "customer_id",
        "scope",
        "amount",
        "currency",
        "from",
        "expires_at",
        "made_by",
        "reason",
    ];
    let known: Vec<&str> = COMMON.into_iter().chain(member).collect();
    data.only(&known)?;
    let amount = data.money("amount")?;
    if amount.is_zero() || amount > AMOUNT_MAX.into() {
        return Err(data.wrong("amount", &format!("more than 0, and at most {AMOUNT_MAX}")));
    }
    let (_, from_ms) = data.time("from")?;
    let expires_ms = data.optional("expires_at", Members::time)?.map(|(_, ms)| ms);
    if expires_ms.is_some_and(|expires_ms| expires_ms <= from_ms) {
        return Err(data.wrong("expires_at", "later than from"));
    }
    data.optional("reason", text)?;
    let name = member.map_or(Ok(String::new()), |member| text(data, member))?;
    let (customer, currency) = (text(data, "customer_id")?, data.currency("currency")?);
    Ok(TopUp {
        top_up_id: text(data, "top_up_id")?,
        account: Account { customer, scope, name, currency },
        amount,
        from_ms,
        expires_ms,
        made_by: text(data, "made_by")?,
    })
}
