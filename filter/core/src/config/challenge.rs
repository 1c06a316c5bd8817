//! What a 401 of the filter tells the client: where to get a token, and which.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error};

/// The parameters of the challenge in `www-authenticate` (RFC 6750); an empty text is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Challenge {
    /// The name of what the token protects, for people.
    pub realm: String,
    /// The URL of the protected resource's metadata (RFC 9728), by which clients of MCP find the
    /// authorization server.
    pub resource_metadata: String,
    /// The scopes that a token needs, with one blank between two.
    pub scope: String,
}

impl Challenge {
    /// The value of `www-authenticate`. Only a request that has a token is told that it is invalid,
    /// unless there is nothing else to say: a challenge needs a parameter.
    pub(crate) fn header(&self, has_token: bool) -> String {
        let told = [
            ("realm", &self.realm),
            ("resource_metadata", &self.resource_metadata),
            ("scope", &self.scope),
        ];
        let told = told.into_iter().filter(|(_, value)| !value.is_empty());
        let mut told: Vec<String> =
            told.map(|(name, value)| format!("{name}=\"{value}\"")).collect();
        if has_token || told.is_empty() {
            told.push("error=\"invalid_token\"".to_owned());
        }
        format!("Bearer {}", told.join(", "))
    }

    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether clients on other machines must not believe the metadata, since anyone in between
    /// could have changed it.
    pub(super) fn is_insecure(&self) -> bool {
        let rest = self.resource_metadata.strip_prefix("http://");
        let local = ["127.0.0.1", "localhost", "[::1]"];
        rest.is_some_and(|rest| {
            let host = rest.split('/').next().unwrap_or_default();
            !local.iter().any(|name| {
                host.strip_prefix(name).is_some_and(|port| port.is_empty() || port.starts_with(':'))
            })
        })
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        let is_quotable = |text: &str| {
            text.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\'))
        };
        if !is_quotable(&self.realm) {
            let reason = "expected ASCII text without quotation marks and backslashes";
            return Err(error(&format!("{path}.realm"), reason));
        }
        let is_scope =
            self.scope.is_empty() || self.scope.split(' ').all(|scope| !scope.is_empty());
        if !is_scope || !is_quotable(&self.scope) {
            let reason = format!(
                "expected scopes with one blank between two, such as \"mcp:tools mcp:read\", found {:?}",
                self.scope
            );
            return Err(error(&format!("{path}.scope"), &reason));
        }
        let url = &self.resource_metadata;
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        let is_url = host.is_some_and(|host| !host.is_empty() && !host.starts_with('/'));
        let is_clean = is_quotable(url) && !url.contains([' ', '#']);
        if !(url.is_empty() || is_url && is_clean) {
            let reason = format!(
                "expected a URL such as \"https://tools.example.com/.well-known/oauth-protected-resource/mcp\", found {url:?}"
            );
            return Err(error(&format!("{path}.resource_metadata"), &reason));
        }
        Ok(())
    }
}
