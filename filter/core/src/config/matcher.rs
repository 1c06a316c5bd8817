//! Which requests belong to a product.

use serde::Deserialize;

use super::{ConfigError, error, is_path};

/// The requests that belong to a product: by path without query, and, where it is given, by host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Matcher {
    /// The host without port, or `*.` and what it ends with; empty means any.
    pub host: String,
    /// Exactly this path.
    pub path: Option<String>,
    /// This path and what lies below it: `/mcp` takes `/mcp` and `/mcp/a`, not `/mcpx`.
    pub path_prefix: Option<String>,
}

impl Matcher {
    /// Whether a request with this `:authority` and `:path` belongs to the product.
    pub fn is_match(&self, authority: &[u8], path_and_query: &[u8]) -> bool {
        let path = path_and_query.split(|byte| matches!(byte, b'?' | b'#')).next();
        let path = path.unwrap_or_default();
        let is_path = match (&self.path, &self.path_prefix) {
            (Some(exact), _) => path == exact.as_bytes(),
            (None, Some(prefix)) => {
                let prefix = prefix.as_bytes();
                path.strip_prefix(prefix).is_some_and(|rest| {
                    rest.is_empty() || prefix.ends_with(b"/") || rest.starts_with(b"/")
                })
            }
            (None, None) => false,
        };
        is_path && self.is_host(authority)
    }

    fn is_host(&self, authority: &[u8]) -> bool {
        let host = without_port(authority);
        match self.host.strip_prefix('*') {
            _ if self.host.is_empty() => true,
            None => host.eq_ignore_ascii_case(self.host.as_bytes()),
            Some(end) => host
                .len()
                .checked_sub(end.len())
                .filter(|at| *at > 0)
                .and_then(|at| host.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes())),
        }
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        let is_host = |host: &str| !host.contains(['*', ':', '/']) || host.starts_with('[');
        let host = self.host.strip_prefix("*.").unwrap_or(&self.host);
        if !is_host(host) || (host.is_empty() && !self.host.is_empty()) {
            let reason = format!(
                "expected a host without port such as \"api.openai.com\" or \"*.openai.azure.com\", found {:?}",
                self.host
            );
            return Err(error(&format!("{path}.host"), &reason));
        }
        match (&self.path, &self.path_prefix) {
            (Some(exact), None) => is_path(&format!("{path}.path"), exact),
            (None, Some(prefix)) => is_path(&format!("{path}.path_prefix"), prefix),
            _ => Err(error(path, "expected either `path` or `path_prefix`")),
        }
    }
}

fn without_port(authority: &[u8]) -> &[u8] {
    if authority.starts_with(b"[") {
        let end = authority.iter().position(|byte| *byte == b']');
        return end.and_then(|end| authority.get(..=end)).unwrap_or(authority);
    }
    authority.split(|byte| *byte == b':').next().unwrap_or_default()
}
