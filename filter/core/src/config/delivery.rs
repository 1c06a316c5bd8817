//! Where the filter sends events, and how.

use serde::Deserialize;

use crate::base::text::Duration;
use crate::sink::FormatName;

/// Where the filter sends events.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Collector {
    /// The Envoy cluster; under Istio `outbound|PORT||HOST`.
    pub cluster: String,
    /// The `:authority` of the callouts.
    pub authority: String,
    /// The path of the callouts.
    pub path: String,
    /// The format of events.
    pub format: FormatName,
    /// How long one callout may take.
    pub timeout: Duration,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            cluster: "agent_meter_collector".to_owned(),
            authority: "agent-meter-collector".to_owned(),
            path: "/v1/events".to_owned(),
            format: FormatName::default(),
            timeout: Duration::from_seconds(5),
        }
    }
}

/// How the filter sends events to the collector.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// The most events in one batch.
    pub batch_events_max: u32,
    /// The longest time that an event waits for its batch to fill.
    pub flush_interval: Duration,
    /// The most batches in flight at once.
    pub in_flight_max: u32,
    /// The wait after the first failure; each further failure doubles it.
    pub retry_initial: Duration,
    /// The longest wait between two attempts.
    pub retry_max: Duration,
    /// The age at which the accountant writes an undelivered event to Envoy's log instead. Keep it
    /// below the time for which the collector recognises a repeated event.
    pub retry_horizon: Duration,
    /// How often the accountant tells that it lives and how much it has told; zero means never.
    pub heartbeat_interval: Duration,
    /// The most bytes of undelivered events; beyond them the accountant writes the oldest to Envoy's
    /// log. Envoy holds each event twice: in the accountant's memory and in shared data.
    pub outbox_bytes_max: u32,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            batch_events_max: 100,
            flush_interval: Duration::from_seconds(1),
            in_flight_max: 8,
            retry_initial: Duration::from_seconds(1),
            retry_max: Duration::from_seconds(5),
            retry_horizon: Duration::from_seconds(12 * 3600),
            heartbeat_interval: Duration::from_seconds(10),
            outbox_bytes_max: 64 * 1024 * 1024,
        }
    }
}
