//! Reads the reply of the collector.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::base::hash::unhex;
use crate::base::time::{Millis, Timestamp, len_u64};
use crate::domain::scope_totals::{ScopeKey, ScopeTotals};
use crate::wire::http_date::http_date;
use crate::wire::media_type::{MediaType, is_plain_text};

/// The totals of one scope in all other Envoys, as the collector reports them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetTotals {
    /// The scope.
    pub key: ScopeKey,
    /// The start of the period in RFC 3339, as events write it.
    pub period_started_at: Option<String>,
    /// The totals of the other Envoys.
    pub others: ScopeTotals,
    /// What the customer pays for one period.
    pub contracted: Option<Decimal>,
    /// What the scope may spend in the period, of what it paid in advance: what is left, and what of
    /// the period's revenue is taken from it already.
    pub prepaid: Option<Decimal>,
}

/// What came back for a request to the collector.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpReply<'a> {
    /// The HTTP status; 0 if there was none.
    pub status: u16,
    /// `Content-Type`.
    pub media_type: Option<&'a [u8]>,
    /// `Retry-After`: seconds, or a date.
    pub retry_after: Option<&'a [u8]>,
    /// The body.
    pub body: &'a [u8],
    /// When it came.
    pub at: Timestamp,
}

/// The result of a request to the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The collector accepted the body, except some events.
    Taken {
        /// For how many events the answer accounts; `None` if it does not say.
        accounted: Option<u64>,
        /// The events that the collector refuses for good.
        refused: Refused,
        /// How many sessions the collector wants ended; the filter ends none.
        sessions_to_end: usize,
        /// The totals of the other Envoys, by scope.
        verdicts: Vec<FleetTotals>,
    },
    /// A success that acknowledges nothing: a page, a text that is not JSON, or a count that leaves
    /// events out. Somebody else may have answered, such as a proxy that wants a login.
    NoReceipt,
    /// The collector refuses this body, and will refuse it again.
    Refused,
    /// The result is unknown, or the collector asks the filter to wait.
    Failed {
        /// How long to wait, if the collector said so.
        retry_after: Option<Millis>,
    },
}

/// Which events of a request the collector refuses for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Those with these sequence numbers.
    Sequences(Vec<u64>),
    /// Those at these places in the request, from 0.
    Places(Vec<u64>),
    /// So many, and it does not say which.
    Unnamed(u64),
}

impl Refused {
    /// So many of a request, or none.
    pub(super) fn unnamed(count: u64) -> Self {
        if count == 0 { Self::Places(Vec::new()) } else { Self::Unnamed(count) }
    }

    /// Whether this event of a request, at this place, is or may be one of them.
    pub(crate) fn may_be(&self, place: usize, sequence: u64) -> bool {
        match self {
            Self::Sequences(sequences) => sequences.contains(&sequence),
            Self::Places(places) => places.contains(&len_u64(place)),
            Self::Unnamed(_) => true,
        }
    }
}

impl Reply {
    /// A success that gives no totals.
    pub(super) fn taken(refused: Refused) -> Self {
        Self::Taken { accounted: None, refused, sessions_to_end: 0, verdicts: Vec::new() }
    }

    /// Reads a reply.
    pub fn parse(reply: &HttpReply<'_>) -> Self {
        match reply.status {
            200..=299 => receipt(reply),
            400 | 413 | 415 | 422 => Self::Refused,
            _ => Self::Failed { retry_after: retry_after(reply) },
        }
    }
}

/// Reads a success. Many collectors answer without a body, or with one of their own: they accepted
/// all events. A body is JSON, or a text that says that it is one.
fn receipt(reply: &HttpReply<'_>) -> Reply {
    let body = reply.body.trim_ascii();
    let is_text = reply.media_type.is_some_and(is_plain_text);
    let is_json = reply.media_type.is_none_or(|told| MediaType::parse(told) == MediaType::Json);
    let answer = match serde_json::from_slice::<Value>(body) {
        Ok(answer) if is_json || is_text => answer,
        _ if is_text || body.is_empty() => Value::Null,
        _ => return Reply::NoReceipt,
    };
    let entries = |name: &str| answer.get(name).and_then(Value::as_array);
    let count = |name: &str| {
        let listed = || entries(name).map(|entries| len_u64(entries.len()));
        answer.get(name).and_then(Value::as_u64).or_else(listed)
    };
    let further = ["duplicates", "rejected"].into_iter().filter_map(count);
    let ids = entries("rejected").into_iter().flatten().filter_map(|event| event.get("id"));
    Reply::Taken {
        accounted: count("accepted").map(|accepted| further.fold(accepted, u64::saturating_add)),
        refused: Refused::Sequences(ids.filter_map(|id| id.as_str()?.parse().ok()).collect()),
        sessions_to_end: 0,
        verdicts: entries("verdicts").into_iter().flatten().filter_map(fleet_totals).collect(),
    }
}

/// How long the collector asks to wait (RFC 9110, section 10.2.3).
fn retry_after(reply: &HttpReply<'_>) -> Option<Millis> {
    let told = core::str::from_utf8(reply.retry_after?).ok()?.trim();
    let seconds = told.parse::<u64>().ok().map(Millis::from_seconds);
    seconds.or_else(|| Some(http_date(told)?.saturating_since(reply.at)))
}

/// Reads one element of `verdicts`; `None` if it is unreadable, which does not affect the others.
fn fleet_totals(verdict: &Value) -> Option<FleetTotals> {
    let text = |name: &str| verdict.get(name).and_then(Value::as_str);
    let money = |name: &str| text(name).and_then(|text| Decimal::from_str_exact(text).ok());
    let number = |name: &str| verdict.get(name).and_then(Value::as_u64);
    let revenue = money("total_revenue")?;
    let known = money("prepaid_known_revenue").unwrap_or_default().saturating_add(revenue);
    let prepaid = money("prepaid_balance").map(|balance| balance.saturating_add(known));
    Some(FleetTotals {
        key: unhex(text("scope_key")?)?,
        period_started_at: text("period_started_at").map(str::to_owned),
        others: ScopeTotals {
            provider_cost: money("total_provider_cost")?,
            revenue,
            calls: number("calls")?,
            tokens: number("tokens")?,
        },
        contracted: money("contracted_revenue"),
        prepaid,
    })
}
