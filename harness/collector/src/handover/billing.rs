//! What billing systems have in common: the names that they have for meters and customers, and
//! which events they are told of.

use std::collections::BTreeMap;

use rust_decimal::Decimal;

use crate::event::members::Members;
use crate::handover::usage::{Amounts, Usage};

/// The types of events that are billed, with the names of their meters by default.
pub(crate) const BILLED: [(&str, &str); 4] = [
    ("tool_invocation", "tool_invocations"),
    ("api_call", "api_calls"),
    ("agent_step", "agent_steps"),
    ("token_consumption", "ai_tokens"),
];

/// What a meter may count.
const QUANTITIES: [&str; 7] = [
    "quantity",
    "price",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
];

/// The names of customers and meters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Billing {
    /// By the type of event: the meters, each with what it counts.
    meters: BTreeMap<String, Vec<(String, String)>>,
    /// The receiver's name of each customer; without it the receiver has our names.
    customers: Option<BTreeMap<String, String>>,
    /// Whether calls are told that the customer is not charged for.
    unbilled: bool,
}

impl Billing {
    pub(crate) const MEMBERS: [&'static str; 3] = ["meters", "customers", "unbilled"];

    /// Reads the members of a sink. `splits` if an event may be counted by several meters.
    ///
    /// # Errors
    ///
    /// Names the member.
    pub(crate) fn read(sink: &Members<'_>, splits: bool) -> Result<Billing, String> {
        let mut meters = BTreeMap::new();
        for (kind, meter) in BILLED {
            meters.insert(kind.to_owned(), vec![("quantity".to_owned(), meter.to_owned())]);
        }
        if let Some(named) = sink.optional("meters", Members::members)? {
            named.only(&BILLED.map(|(kind, _)| kind))?;
            for kind in named.object.keys() {
                meters.insert(kind.clone(), meters_of(&named, kind, splits)?);
            }
        }
        let customers = sink.optional("customers", |sink, member| {
            let customers = sink.members(member)?;
            let name = |customer: &String| Ok((customer.clone(), customers.name(customer)?));
            customers.object.keys().map(name).collect::<Result<_, String>>()
        })?;
        let unbilled = sink.optional("unbilled", Members::flag)?.unwrap_or(false);
        Ok(Billing { meters, customers, unbilled })
    }

    /// Whether the receiver is told of an event at all.
    pub(crate) fn takes(&self, usage: &Usage<'_>) -> bool {
        !usage.is_nothing() && (usage.is_billable() || self.unbilled)
    }

    /// The name of the one meter that counts events of this type.
    pub(crate) fn meter<'a>(&'a self, usage: &Usage<'_>) -> &'a str {
        let meters = self.meters.get(usage.kind()).map_or(&[][..], Vec::as_slice);
        meters.first().map_or("", |(_, meter)| meter)
    }

    /// Each meter that counts the event, what it counts, and how much; not 0.
    pub(crate) fn values<'a>(&'a self, usage: &Usage<'_>) -> Vec<(&'a str, &'a str, Decimal)> {
        let (Some(amounts), Some(meters)) = (&usage.amounts, self.meters.get(usage.kind())) else {
            return Vec::new();
        };
        let values = meters
            .iter()
            .map(|(what, meter)| (meter.as_str(), what.as_str(), value(amounts, what)));
        values.filter(|(_, _, value)| !value.is_zero()).collect()
    }

    /// The receiver's name of the customer.
    ///
    /// # Errors
    ///
    /// If customers have names of their own there, and this one has none.
    pub(crate) fn customer<'a>(&'a self, usage: &'a Usage<'_>) -> Result<&'a str, String> {
        let customer = usage.event.subject.as_str();
        let Some(customers) = &self.customers else { return Ok(customer) };
        let known = customers.get(customer).map(String::as_str);
        known.ok_or_else(|| format!("customers: has no {customer:?}"))
    }
}

/// How much of what a meter counts.
fn value(amounts: &Amounts, what: &str) -> Decimal {
    match what {
        "quantity" => amounts.quantity.into(),
        "price" => amounts.price,
        tokens => {
            let mut counts = amounts.counts();
            counts.find(|(name, _)| *name == tokens).map_or(0, |(_, count)| count).into()
        }
    }
}

fn meters_of(
    named: &Members<'_>,
    kind: &str,
    splits: bool,
) -> Result<Vec<(String, String)>, String> {
    if named.object.get(kind).is_some_and(serde_json::Value::is_string) {
        return Ok(vec![("quantity".to_owned(), named.name(kind)?)]);
    }
    if !splits {
        return Err(named.wrong(kind, "the name of a meter"));
    }
    let meters = named
        .members(kind)
        .map_err(|_| named.wrong(kind, "the name of a meter, or names by what they count"))?;
    meters.only(&QUANTITIES)?;
    // In the order of the list, whatever the order of the file is.
    let counted = QUANTITIES.iter().filter(|what| meters.has(what));
    counted.map(|what| Ok(((*what).to_owned(), meters.name(what)?))).collect()
}
