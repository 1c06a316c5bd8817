//! Reads the reply of the collector.

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::base::hash::unhex;
use crate::base::time::Millis;
use crate::domain::scope_totals::{ScopeKey, ScopeTotals};

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
}

/// The result of a request to the collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The collector accepted the body, except the events with these sequence numbers.
    Taken {
        /// Sequence numbers of the events that the collector refuses for good.
        refused: Vec<u64>,
        /// The totals of the other Envoys, by scope.
        verdicts: Vec<FleetTotals>,
    },
    /// The collector refuses this body, and will refuse it again.
    Refused,
    /// The result is unknown, or the collector asks the filter to wait.
    Failed {
        /// How long to wait, if the collector said so.
        retry_after: Option<Millis>,
    },
}

impl Reply {
    /// Reads a reply: its HTTP status (0 if there was none), `Retry-After` and body.
    pub fn parse(http_status: u16, retry_after: Option<&[u8]>, body: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct Answer {
            #[serde(default)]
            rejected: Vec<Rejected>,
            #[serde(default)]
            verdicts: Vec<serde_json::Value>,
        }
        #[derive(Deserialize)]
        struct Rejected {
            id: String,
        }
        match http_status {
            200..=299 => {
                // Many collectors reply with an empty body, or one of their own: they accepted all
                // events.
                let answer = serde_json::from_slice::<Answer>(body).ok();
                let Answer { rejected, verdicts } = answer.unwrap_or_default();
                Self::Taken {
                    refused: rejected.iter().filter_map(|r| r.id.parse().ok()).collect(),
                    verdicts: verdicts.iter().filter_map(fleet_totals).collect(),
                }
            }
            400 | 413 | 415 | 422 => Self::Refused,
            _ => {
                let seconds = retry_after
                    .and_then(|value| core::str::from_utf8(value).ok())
                    .and_then(|text| text.trim().parse::<u64>().ok());
                Self::Failed { retry_after: seconds.map(Millis::from_seconds) }
            }
        }
    }
}

/// Reads one element of `verdicts`; `None` if it is unreadable, which does not affect the others.
fn fleet_totals(verdict: &serde_json::Value) -> Option<FleetTotals> {
    let text = |name: &str| verdict.get(name).and_then(serde_json::Value::as_str);
    let money = |name: &str| text(name).and_then(|text| Decimal::from_str_exact(text).ok());
    let number = |name: &str| verdict.get(name).and_then(serde_json::Value::as_u64);
    Some(FleetTotals {
        key: unhex(text("scope_key")?)?,
        period_started_at: text("period_started_at").map(str::to_owned),
        others: ScopeTotals {
            provider_cost: money("total_provider_cost")?,
            revenue: money("total_revenue")?,
            calls: number("calls")?,
            tokens: number("tokens")?,
        },
        contracted: money("contracted_revenue"),
    })
}
