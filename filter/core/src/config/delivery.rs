//! Where the filter sends events, and how.

use serde::Deserialize;

use crate::base::invalid::{
    ConfigError, error, in_range, is_header, is_path, is_positive, not_empty,
};
use crate::base::limits::{
    COLLECTOR_HEADER_BYTES_MAX, COLLECTOR_HEADERS_MAX, METRIC_NAME_UNITS_MAX,
};
use crate::base::secret::{Secret, Secrets};
use crate::base::text::Duration;
use crate::sink::FormatName;
use crate::sink::aforo::METRICS;
use crate::sink::credential::{Authentication, Credential};
use crate::sink::format::Options;

/// Where the filter sends events.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Collector {
    /// The Envoy cluster; under Istio `outbound|PORT||HOST`.
    pub cluster: String,
    /// The `:authority` of the callouts.
    pub authority: String,
    /// The path of the callouts: `/v1/logs` of a receiver of OpenTelemetry, `/v1/ingest/batch` of Aforo.
    pub path: String,
    /// The format of events.
    pub format: FormatName,
    /// How long one callout may take.
    pub timeout: Duration,
    /// A secret of at least 16 bytes that the filter shares with the collector: it signs batches and the
    /// lines in Envoy's log. Empty means none: the collector takes events from whoever reaches it.
    pub secret: Secret,
    /// How a batch shows that it comes from who knows the secret.
    pub authentication: Authentication,
    /// Further headers of each delivery request, by their names in lower case; at most 16.
    pub headers: Secrets,
    /// Of `otlp_logs`: true if records have the attributes of money.
    pub cost_attributes: bool,
    /// Of `aforo`: the catalogue's names of `tool_invocations`, `api_calls`, `agent_steps` and `ai_tokens`,
    /// where they are others.
    pub metric_names: Secrets,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            cluster: "agent_meter_collector".to_owned(),
            authority: "agent-meter-collector".to_owned(),
            path: DEFAULT_PATH.to_owned(),
            format: FormatName::default(),
            timeout: Duration::from_seconds(5),
            secret: Secret::default(),
            authentication: Authentication::default(),
            headers: Secrets::default(),
            cost_attributes: false,
            metric_names: Secrets::default(),
        }
    }
}

impl Collector {
    /// The header that shows that this body comes from who knows the secret.
    pub fn credential(&self, body: &[u8]) -> Option<Credential> {
        Credential::of(&self.secret, self.authentication, body)
    }

    /// The headers of the configuration. Whoever takes them must not write a value anywhere.
    pub fn own_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.reveal()
    }

    /// What the configuration asks of its format.
    pub(crate) fn options(&self) -> Options<'_> {
        Options { cost_attributes: self.cost_attributes, metric_names: &self.metric_names }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        not_empty("collector.cluster", &self.cluster)?;
        not_empty("collector.authority", &self.authority)?;
        is_path("collector.path", &self.path)?;
        is_positive("collector.timeout", self.timeout)?;
        self.validate_headers()?;
        self.validate_format()?;
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

    fn validate_headers(&self) -> Result<(), ConfigError> {
        if self.headers.len() > COLLECTOR_HEADERS_MAX {
            let reason = format!("expected at most {COLLECTOR_HEADERS_MAX} headers");
            return Err(error("collector.headers", &reason));
        }
        let bears = self.secret.is_set() && self.authentication == Authentication::Bearer;
        for (name, text) in self.headers.reveal() {
            is_header("collector.headers", name)?;
            let path = format!("collector.headers.{name}");
            if OWN_HEADERS.contains(&name) || (bears && name == "authorization") {
                return Err(error(&path, "the filter sets this header itself"));
            }
            if HOP_BY_HOP.contains(&name) {
                return Err(error(&path, "this header is of one connection, not of a request"));
            }
            let is_sendable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
            if text.is_empty() || text.trim() != text || !text.bytes().all(is_sendable) {
                let reason = "expected printable ASCII without white space around it; the value is not shown";
                return Err(error(&path, reason));
            }
            if text.len() > COLLECTOR_HEADER_BYTES_MAX {
                let reason = format!("expected at most {COLLECTOR_HEADER_BYTES_MAX} bytes");
                return Err(error(&path, &reason));
            }
        }
        Ok(())
    }

    fn validate_format(&self) -> Result<(), ConfigError> {
        if self.cost_attributes && self.format != FormatName::OtlpLogs {
            let reason = "only `format: otlp_logs` has attributes";
            return Err(error("collector.cost_attributes", reason));
        }
        if !self.metric_names.is_empty() && self.format != FormatName::Aforo {
            return Err(error("collector.metric_names", "only `format: aforo` has metrics"));
        }
        for (ours, theirs) in self.metric_names.reveal() {
            let path = format!("collector.metric_names.{ours}");
            if !METRICS.contains(&ours) {
                let reason = format!("expected one of {}", METRICS.join(", "));
                return Err(error(&path, &reason));
            }
            if !(1..=METRIC_NAME_UNITS_MAX).contains(&theirs.encode_utf16().count()) {
                let reason = format!("expected a name of 1 to {METRIC_NAME_UNITS_MAX} characters");
                return Err(error(&path, &reason));
            }
        }
        Ok(())
    }
}

/// The path of our collector.
pub(super) const DEFAULT_PATH: &str = "/v1/events";

/// The headers of a delivery request that the filter or Envoy sets.
const OWN_HEADERS: [&str; 4] = ["agent-meter-signature", "content-length", "content-type", "host"];

/// The headers that are of one connection (RFC 9110, section 7.6.1), which HTTP/2 refuses.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A secret of this length cannot be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// How the filter sends events to the collector.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// The most events in one batch: 1 to 1000.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = BATCH_EVENTS_MAX)))]
    pub batch_events_max: u32,
    /// The longest time that an event waits for its batch to fill.
    pub flush_interval: Duration,
    /// The most batches in flight at once: 1 to 64. After a failure one at a time probes the collector.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = IN_FLIGHT_MAX)))]
    pub in_flight_max: u32,
    /// The wait after the first failure; each further failure doubles it, less up to a quarter at random.
    pub retry_initial: Duration,
    /// The longest wait between two attempts. The filter obeys a Retry-After, up to an hour.
    pub retry_max: Duration,
    /// The age at which the accountant writes an undelivered event to Envoy's log instead. Keep it
    /// below the time for which the collector recognises a repeated event.
    pub retry_horizon: Duration,
    /// How often the accountant tells that it lives and how much it has told; zero means never.
    pub heartbeat_interval: Duration,
    /// The most bytes of undelivered events, 1048576 to 268435456; beyond them the accountant writes the oldest to Envoy's
    /// log. Envoy holds each event twice: in the accountant's memory and in shared data.
    #[cfg_attr(feature = "schema", schemars(range(min = OUTBOX_BYTES_MIN, max = OUTBOX_BYTES_END)))]
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

impl Delivery {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        in_range("delivery.batch_events_max", self.batch_events_max, 1, BATCH_EVENTS_MAX)?;
        in_range("delivery.in_flight_max", self.in_flight_max, 1, IN_FLIGHT_MAX)?;
        is_positive("delivery.flush_interval", self.flush_interval)?;
        is_positive("delivery.retry_initial", self.retry_initial)?;
        is_positive("delivery.retry_horizon", self.retry_horizon)?;
        let bytes = self.outbox_bytes_max;
        in_range("delivery.outbox_bytes_max", bytes, OUTBOX_BYTES_MIN, OUTBOX_BYTES_END)?;
        if self.retry_max < self.retry_initial {
            return Err(error("delivery.retry_max", "expected at least `retry_initial`"));
        }
        Ok(())
    }
}

/// The most events that `batch_events_max` may allow.
const BATCH_EVENTS_MAX: u32 = 1000;

/// Well below the number of batches in the outbox, which would otherwise leave none to fill.
const IN_FLIGHT_MAX: u32 = 64;

/// The bounds of `outbox_bytes_max`, in bytes.
const OUTBOX_BYTES_MIN: u32 = 1024 * 1024;
const OUTBOX_BYTES_END: u32 = 256 * 1024 * 1024;
