//! Where the filter sends events, and how.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error, is_path, is_positive, not_empty};
use crate::base::secret::Secret;
use crate::base::text::Duration;
use crate::sink::FormatName;
use crate::sink::credential::{Authentication, Credential};

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
    /// What the filter shares with the collector: it signs batches and the lines in Envoy's log.
    pub secret: Secret,
    /// How a batch shows that it comes from who knows the secret.
    pub authentication: Authentication,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            cluster: "agent_meter_collector".to_owned(),
            authority: "agent-meter-collector".to_owned(),
            path: "/v1/events".to_owned(),
            format: FormatName::default(),
            timeout: Duration::from_seconds(5),
            secret: Secret::default(),
            authentication: Authentication::default(),
        }
    }
}

impl Collector {
    /// The header that shows that this body comes from who knows the secret.
    pub fn credential(&self, body: &[u8]) -> Option<Credential> {
        Credential::of(&self.secret, self.authentication, body)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        not_empty("collector.cluster", &self.cluster)?;
        not_empty("collector.authority", &self.authority)?;
        is_path("collector.path", &self.path)?;
        is_positive("collector.timeout", self.timeout)?;
        if !self.secret.is_set() {
            return Ok(());
        }
        let text = self.secret.reveal();
        if text.len() < SECRET_BYTES_MIN {
            let reason = format!("expected a secret of at least {SECRET_BYTES_MIN} bytes");
            return Err(error("collector.secret", &reason));
        }
        if text.trim() != text {
            // The collector reads the secret from a file, which ends with a line break.
            let reason = "expected a secret without white space around it";
            return Err(error("collector.secret", reason));
        }
        let is_token = text.bytes().all(|byte| byte.is_ascii_graphic());
        if self.authentication == Authentication::Bearer && !is_token {
            let reason = "expected a secret of printable ASCII without white space, as it is sent in a header: `authentication: bearer`";
            return Err(error("collector.secret", reason));
        }
        Ok(())
    }
}

/// A secret of this length cannot be guessed.
const SECRET_BYTES_MIN: usize = 16;

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
