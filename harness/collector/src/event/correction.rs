//! Reads the data of `correction`: what an operator decided about events, prices, customers and
//! invoices after the fact. Only the ledger itself writes such events; see the room `books`.

use rust_decimal::Decimal;
use serde_json::{Map, Value};

use crate::event::members::Members;

/// One correction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Correction {
    /// Its own id, unique in the ledger: a correction that comes again changes nothing.
    pub correction_id: String,
    /// Who made it.
    pub made_by: String,
    /// Why.
    pub reason: String,
    /// What it changes.
    pub change: Change,
}

/// What a correction changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An event counts no more.
    Void(Target),
    /// An event counts with other members of its `data`.
    Amend(Target, Map<String, Value>),
    /// Billable calls have another price.
    Rerate(Box<Rerate>),
    /// Less is owed for a closed invoice.
    Credit {
        /// The number of the invoice.
        invoice: String,
        /// By how much, in the currency of the invoice.
        amount: Decimal,
        /// ISO 4217.
        currency: String,
    },
    /// One customer pays for what another one used.
    Merge {
        /// Who used it.
        from: String,
        /// Who pays.
        to: String,
    },
    /// So many events were brought in later, under the id of this correction.
    Backfill {
        /// How many.
        events: i64,
    },
    /// Another correction, with this id, has no effect.
    Revert(String),
}

/// The event that a correction is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its source.
    pub source: String,
    /// Its id.
    pub id: String,
}

/// Another price for calls of a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rerate {
    /// From when, in milliseconds since 1970, UTC.
    pub from_ms: i64,
    /// Until when; what happened then is not in.
    pub to_ms: i64,
    /// Only calls of this customer.
    pub customer: Option<String>,
    /// Only of this product.
    pub product: Option<String>,
    /// Only of this tool, route or operation.
    pub tool: Option<String>,
    /// Only of this cost tier.
    pub tier: Option<String>,
    /// The price of one call, in the currency of each.
    pub unit_price: Decimal,
}

/// Members that say which event it is, and so cannot be amended.
const FIXED: [&str; 9] = [
    "event_type",
    "metric_id",
    "session_id",
    "session_key",
    "product_type",
    "generation_id",
    "supersedes",
    "request_id",
    "trace_id",
];

/// The longest text of an entry of the books, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

impl Change {
    /// Its name in events, in the ledger and in answers.
    pub fn kind(&self) -> &'static str {
        match self {
            Change::Void(_) => "void",
            Change::Amend(..) => "amend",
            Change::Rerate(_) => "rerate",
            Change::Credit { .. } => "credit",
            Change::Merge { .. } => "merge",
            Change::Backfill { .. } => "backfill",
            Change::Revert(_) => "revert",
        }
    }

    /// The event that it is about, if it is about one.
    pub(crate) fn target(&self) -> Option<&Target> {
        match self {
            Change::Void(target) | Change::Amend(target, _) => Some(target),
            _ => None,
        }
    }

    /// The time that it is about, in milliseconds since 1970, if it is about one.
    pub(crate) fn period_ms(&self) -> Option<(i64, i64)> {
        match self {
            Change::Rerate(rerate) => Some((rerate.from_ms, rerate.to_ms)),
            _ => None,
        }
    }

    /// The other correction, the invoice or the customer that it is about.
    pub(crate) fn refers_to(&self) -> Option<&str> {
        match self {
            Change::Revert(correction) => Some(correction),
            Change::Credit { invoice, .. } => Some(invoice),
            Change::Merge { from, .. } => Some(from),
            _ => None,
        }
    }
}

/// Reads one correction; an error begins with the path of the member.
pub(crate) fn correction(data: &Members<'_>) -> Result<Correction, String> {
    let change = match data.name("kind")?.as_str() {
        "void" => {
            only(data, &["target_source", "target_id"])?;
            Change::Void(target(data)?)
        }
        "amend" => {
            only(data, &["target_source", "target_id", "set"])?;
            Change::Amend(target(data)?, set(&data.members("set")?)?)
        }
        "rerate" => Change::Rerate(Box::new(rerate(data)?)),
        "credit" => {
            only(data, &["invoice", "amount", "currency"])?;
            let amount = data.money("amount")?;
            if amount.is_zero() {
                return Err(data.wrong("amount", "more than 0"));
            }
            let (invoice, currency) = (text(data, "invoice")?, data.currency("currency")?);
            Change::Credit { invoice, amount, currency }
        }
        "merge" => {
            only(data, &["from_customer_id", "to_customer_id"])?;
            let (from, to) = (text(data, "from_customer_id")?, text(data, "to_customer_id")?);
            if from == to {
                return Err(data.wrong("to_customer_id", "another than from_customer_id"));
            }
            Change::Merge { from, to }
        }
        "backfill" => {
            only(data, &["events"])?;
            Change::Backfill { events: data.count("events")? }
        }
        "revert" => {
            only(data, &["correction"])?;
            Change::Revert(text(data, "correction")?)
        }
        _ => {
            let kinds = "void, amend, rerate, credit, merge, backfill or revert";
            return Err(data.wrong("kind", kinds));
        }
    };
    Ok(Correction {
        correction_id: text(data, "correction_id")?,
        made_by: text(data, "made_by")?,
        reason: text(data, "reason")?,
        change,
    })
}

/// Refuses members that this kind of correction does not have: one that is misspelt must not be
/// ignored.
fn only(data: &Members<'_>, own: &[&str]) -> Result<(), String> {
    const COMMON: [&str; 5] = ["event_type", "correction_id", "made_by", "reason", "kind"];
    let known: Vec<&str> = COMMON.iter().chain(own).copied().collect();
    data.only(&known)
}

/// Reads a text that an operator gave.
pub(crate) fn text(data: &Members<'_>, member: &str) -> Result<String, String> {
    let text = data.name(member)?;
    if text.len() > TEXT_BYTES_MAX {
        return Err(data.wrong(member, "at most 1024 bytes long"));
    }
    Ok(text)
}

fn target(data: &Members<'_>) -> Result<Target, String> {
    Ok(Target { source: text(data, "target_source")?, id: text(data, "target_id")? })
}

fn set(members: &Members<'_>) -> Result<Map<String, Value>, String> {
    if members.object.is_empty() {
        return Err("set: must have a member".to_owned());
    }
    match members.object.keys().find(|name| FIXED.contains(&name.as_str())) {
        Some(fixed) => Err(format!("set.{fixed}: cannot be amended, it says which event it is")),
        None => Ok(members.object.clone()),
    }
}

fn rerate(data: &Members<'_>) -> Result<Rerate, String> {
    let filters = ["customer_id", "product_id", "tool_name", "cost_tier"];
    only(data, &[&filters[..], &["from", "to", "unit_price"]].concat())?;
    let ((_, from_ms), (_, to_ms)) = (data.time("from")?, data.time("to")?);
    if to_ms <= from_ms {
        return Err(data.wrong("to", "later than from"));
    }
    let filter = |member| data.optional(member, text);
    Ok(Rerate {
        from_ms,
        to_ms,
        customer: filter("customer_id")?,
        product: filter("product_id")?,
        tool: filter("tool_name")?,
        tier: filter("cost_tier")?,
        unit_price: data.money("unit_price")?,
    })
}
