//! How calls form sessions.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error, in_range, is_header, is_positive};
use crate::base::text::Duration;
use crate::config::matcher::is_decoded_path;

/// How calls form sessions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct SessionRules {
    /// Products with the same group share sessions; empty means the product's own id.
    pub group: String,
    /// What names a session: the first source that a request presents. Without any, the calls of
    /// one identity form an activity window.
    #[serde(rename = "ladder")]
    pub sources: Vec<SessionSource>,
    /// The request headers that may name a session, in order of preference.
    pub headers: Vec<String>,
    /// A session that is not active for this long becomes IDLE.
    pub idle_timeout: Duration,
    /// A session that is not active for this long becomes CLOSED.
    pub session_timeout: Duration,
    /// The path at which `POST` or `DELETE` closes the session that the request presents. The
    /// filter itself answers such a request.
    pub close_path: String,
    /// The most sessions of one identity at once; beyond it the accountant closes the least
    /// recently active one. 0 means unlimited.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = PER_IDENTITY_END)))]
    pub per_identity_max: u32,
}

/// What may name a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum SessionSource {
    /// `Mcp-Session-Id` (2025-03-26 to 2025-11-25).
    McpSessionId,
    /// One of the product's headers.
    Header,
    /// The member `session.id` of W3C baggage.
    Baggage,
    /// `params._meta.session_id` of the request's message, or the message's conversation.
    Meta,
    /// The trace that the request belongs to.
    Trace,
}

impl Default for SessionRules {
    fn default() -> Self {
        use SessionSource::{Baggage, Header, McpSessionId, Meta};
        Self {
            group: String::new(),
            // Without the trace: most applications make a new one for each call.
            sources: vec![McpSessionId, Header, Baggage, Meta],
            headers: vec!["x-session-id".to_owned(), "agent-session-id".to_owned()],
            idle_timeout: Duration::from_seconds(60),
            session_timeout: Duration::from_seconds(3600),
            close_path: String::new(),
            per_identity_max: 0,
        }
    }
}

impl SessionRules {
    /// The group of the product with this id; the id itself if it has none.
    pub(crate) fn group_of<'a>(&'a self, product_id: &'a str) -> &'a str {
        if self.group.is_empty() { product_id } else { &self.group }
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        if self.group.len() > 64 {
            return Err(error(&format!("{path}.group"), "expected at most 64 bytes"));
        }
        for (at, header) in self.headers.iter().enumerate() {
            is_header(&format!("{path}.headers[{at}]"), header)?;
        }
        for (at, source) in self.sources.iter().enumerate() {
            if self.sources.iter().take(at).any(|earlier| earlier == source) {
                return Err(error(&format!("{path}.ladder[{at}]"), "expected each once"));
            }
        }
        is_positive(&format!("{path}.idle_timeout"), self.idle_timeout)?;
        if self.session_timeout < self.idle_timeout {
            let reason = "expected at least `idle_timeout`";
            return Err(error(&format!("{path}.session_timeout"), reason));
        }
        if !self.close_path.is_empty() {
            is_decoded_path(&format!("{path}.close_path"), &self.close_path)?;
        }
        in_range(&format!("{path}.per_identity_max"), self.per_identity_max, 0, PER_IDENTITY_END)
    }
}

/// The most sessions of one identity that `per_identity_max` may allow.
const PER_IDENTITY_END: u32 = 10_000;
