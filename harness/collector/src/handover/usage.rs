//! What an event says to a receiver: who used how much of what, at which price.
//!
//! A generation may take the place of an earlier one. Most receivers can only add, so such an event
//! stands for the difference: what it says less what the earlier events said. Which ones count is
//! decided by positions alone, so that an event says the same at each try:
//!
//! - an event that another with a smaller position supersedes says nothing;
//! - any other says all of itself;
//! - and it takes back what those said that it supersedes and whose position is smaller.

use agent_meter_core::sink::otel::event_id;
use chrono::{DateTime, SecondsFormat};
use rust_decimal::Decimal;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::event::tokens::Tokens;
use crate::event::{Body, Event, short_type};
use crate::money;

/// How much was used. Negative where an event takes back more than it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// Calls, or tokens of input and output.
    pub(crate) quantity: i64,
    /// `None` is unknown; of a call all are.
    pub(crate) tokens: Tokens,
    /// What the customer is charged.
    pub(crate) price: Decimal,
    /// What it cost the operator; `None` if that is not known.
    pub(crate) cost: Option<Decimal>,
}

impl Amounts {
    const NONE: Amounts = Amounts {
        quantity: 0,
        tokens: Tokens {
            input: None,
            output: None,
            reasoning: None,
            cache_read: None,
            cache_write: None,
        },
        price: Decimal::ZERO,
        cost: None,
    };

    /// What an event says; `None` if it is no call and no generation.
    pub(crate) fn of(event: &Event<'_>) -> Option<Amounts> {
        match &event.body {
            Body::Call(call) => {
                let (quantity, price) = (call.quantity, call.price);
                Some(Amounts { quantity, price, ..Amounts::NONE })
            }
            Body::Generation(generation) => {
                let tokens = generation.tokens;
                let sum = tokens.input.unwrap_or(0).saturating_add(tokens.output.unwrap_or(0));
                let (price, cost) = (generation.price, generation.rate.cost());
                Some(Amounts { quantity: sum, tokens, price, cost })
            }
            _ => None,
        }
    }

    fn less(self, other: Amounts) -> Result<Amounts, money::Overflow> {
        let less = |left: Option<i64>, right: Option<i64>| match (left, right) {
            (None, None) => None,
            _ => Some(left.unwrap_or(0).saturating_sub(right.unwrap_or(0))),
        };
        let (left, right) = (self.tokens, other.tokens);
        Ok(Amounts {
            quantity: self.quantity.saturating_sub(other.quantity),
            tokens: Tokens {
                input: less(left.input, right.input),
                output: less(left.output, right.output),
                reasoning: less(left.reasoning, right.reasoning),
                cache_read: less(left.cache_read, right.cache_read),
                cache_write: less(left.cache_write, right.cache_write),
            },
            price: money::subtract(self.price, other.price)?,
            cost: match (self.cost, other.cost) {
                (None, None) => None,
                (left, right) => {
                    let (left, right) = (left.unwrap_or_default(), right.unwrap_or_default());
                    Some(money::subtract(left, right)?)
                }
            },
        })
    }

    /// The counts of tokens that are known, by the names of properties.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let tokens = &self.tokens;
        [
            ("input_tokens", tokens.input),
            ("output_tokens", tokens.output),
            ("cache_read_tokens", tokens.cache_read),
            ("cache_write_tokens", tokens.cache_write),
            ("reasoning_tokens", tokens.reasoning),
        ]
        .into_iter()
        .filter_map(|(name, count)| Some((name, count?)))
    }
}

/// An event with what it says.
#[derive(Debug)]
pub(crate) struct Usage<'a> {
    pub(crate) event: &'a Event<'a>,
    pub(crate) position: i64,
    /// Names the event for receivers: 35 letters, digits and `_`, the same at each try.
    pub(crate) id: String,
    /// `None` if it is no call and no generation.
    pub(crate) amounts: Option<Amounts>,
    /// True if it says nothing, because another event takes its place.
    pub(crate) is_superseded: bool,
    /// The events that it takes back.
    pub(crate) replaced: &'a [Box<RawValue>],
}

impl<'a> Usage<'a> {
    /// `replaced` are the events that it takes back, which no other event supersedes before.
    ///
    /// # Errors
    ///
    /// If a difference cannot be told.
    pub(crate) fn new(
        event: &'a Event<'a>,
        position: i64,
        is_superseded: bool,
        replaced: &'a [Box<RawValue>],
    ) -> Result<Usage<'a>, String> {
        let mut amounts = Amounts::of(event);
        if is_superseded {
            amounts = amounts.map(|_| Amounts::NONE);
        }
        for raw in replaced {
            let other =
                crate::event::read(raw).map_err(|(id, reason)| format!("{id}: {reason}"))?;
            if currency(&other) != currency(event) {
                return Err(format!("it takes the place of {}, of another currency", other.id));
            }
            if let (Some(own), Some(others)) = (amounts, Amounts::of(&other)) {
                amounts = Some(own.less(others).map_err(|overflow| overflow.to_string())?);
            }
        }
        let id = event_id(&event.source, &event.id);
        Ok(Usage { event, position, id, amounts, is_superseded, replaced })
    }

    /// When it happened: RFC 3339, UTC, with milliseconds.
    pub(crate) fn time(&self) -> String {
        DateTime::from_timestamp_millis(self.event.time_ms).map_or_else(
            || self.event.time.clone(),
            |time| time.to_rfc3339_opts(SecondsFormat::Millis, true),
        )
    }

    /// The type of the event, as metrics and the configuration name it.
    pub(crate) fn kind(&self) -> &'static str {
        short_type(&self.event.event_type)
    }

    /// True if there is nothing that a receiver that adds up would have to know.
    pub(crate) fn is_nothing(&self) -> bool {
        self.amounts.is_none() || self.is_superseded && self.replaced.is_empty()
    }

    /// False for a call that the customer is not charged for, whatever its price is.
    pub(crate) fn is_billable(&self) -> bool {
        match &self.event.body {
            Body::Call(call) => call.billable,
            _ => true,
        }
    }

    /// What the event says: its `data`, with the differences in the place of what it takes back.
    pub(crate) fn data(&self) -> Value {
        let mut event = serde_json::from_str::<Value>(self.event.raw).unwrap_or_default();
        let mut data = event.get_mut("data").map(Value::take).unwrap_or_default();
        let is_whole = !self.is_superseded && self.replaced.is_empty();
        let Some(amounts) = self.amounts.as_ref().filter(|_| !is_whole) else { return data };
        let tokens = &amounts.tokens;
        let counts = [
            ("input", tokens.input),
            ("output", tokens.output),
            ("cache_read", tokens.cache_read),
            ("cache_write_5m", tokens.cache_write),
            ("reasoning", tokens.reasoning),
        ];
        let counts =
            counts.into_iter().filter_map(|(kind, count)| Some((kind.to_owned(), count?.into())));
        if let Some(members) = data.as_object_mut() {
            members.insert("quantity".to_owned(), amounts.quantity.into());
            members.insert("tokens".to_owned(), Value::Object(counts.collect()));
            members.insert("price".to_owned(), json!(amounts.price.normalize().to_string()));
            let cost = amounts.cost.map(|cost| cost.normalize().to_string());
            members.insert("total_provider_cost".to_owned(), json!(cost));
        }
        data
    }

    /// What a receiver may want to know, in a fixed order.
    pub(crate) fn properties(&self) -> Vec<(&'static str, Property)> {
        let mut all = Vec::new();
        let Some(identity) = self.event.body.identity() else { return all };
        let text = |text: &str| Property::Text(text.to_owned());
        all.push(("event_type", text(self.kind())));
        all.push(("product_id", text(&identity.product)));
        all.push(("team_id", text(&identity.team)));
        all.push(("agent_id", text(&identity.agent)));
        all.push(("session_id", text(&identity.session_id)));
        match &self.event.body {
            Body::Call(call) => {
                all.push(("tool_name", text(&call.tool)));
                all.push(("execution_status", text(call.status)));
                all.push(("cost_tier", text(&call.tier)));
                all.push(("billable", Property::Flag(call.billable)));
            }
            Body::Generation(generation) => {
                if let Some((_, tool)) = &generation.call {
                    all.push(("tool_name", text(tool)));
                }
                all.push(("provider", text(&generation.provider)));
                all.push(("model", text(&generation.model)));
                all.push(("service_tier", text(&generation.service_tier)));
                all.push(("completeness", text(generation.completeness)));
                if let Some(superseded) = &generation.supersedes {
                    all.push(("supersedes", text(superseded)));
                }
            }
            _ => {}
        }
        if let Some(amounts) = &self.amounts {
            all.push(("quantity", Property::Count(amounts.quantity)));
            all.extend(amounts.counts().map(|(name, count)| (name, Property::Count(count))));
            all.push(("price", Property::Amount(amounts.price)));
            if let Some(cost) = amounts.cost {
                all.push(("provider_cost", Property::Amount(cost)));
            }
        }
        if let Some(currency) = currency(self.event) {
            all.push(("currency", text(currency)));
        }
        all
    }
}

/// A value of a property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Property {
    Text(String),
    Count(i64),
    Amount(Decimal),
    Flag(bool),
}

impl Property {
    /// As text.
    pub(crate) fn text(&self) -> String {
        match self {
            Property::Text(text) => text.clone(),
            Property::Count(count) => count.to_string(),
            Property::Amount(amount) => amount.normalize().to_string(),
            Property::Flag(flag) => flag.to_string(),
        }
    }
}

/// The currency of a call or a generation.
pub(crate) fn currency<'a>(event: &'a Event<'_>) -> Option<&'a str> {
    match &event.body {
        Body::Call(call) => Some(&call.currency),
        Body::Generation(generation) => Some(&generation.currency),
        _ => None,
    }
}
