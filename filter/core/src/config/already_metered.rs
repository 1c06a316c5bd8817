//! Requests that another filter of this kind meters: on the same stream, or in another proxy.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error, is_header, not_empty};

/// How the filter recognises a request that is metered elsewhere, and says so to others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AlreadyMetered {
    /// What to do with a request that another filter of this Envoy meters on the same stream.
    pub same_stream: SameStream,
    /// The request header that tells proxies behind this one that the request is metered; the
    /// filter replaces what a client sent under this name. Empty means none.
    pub mark_header: String,
    /// The request header by which proxies in front tell that they have metered a request. Empty
    /// means that the filter believes no header.
    pub trusted_header: String,
    /// True if the filter ignores requests to hosts that end in `-shadow`, as Envoy names the host
    /// of a request that it mirrors.
    pub skip_shadow_hosts: bool,
    /// The proxies whose header and whose host the filter believes: URIs or DNS names of verified
    /// certificates, or patterns with `*`. Empty means everybody who can connect.
    pub trusted_peers: Vec<String>,
}

/// What to do with a request that another filter of this Envoy meters on the same stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub(crate) enum SameStream {
    /// Leave it to the other.
    #[default]
    Skip,
    /// Meter it again, as for a ledger of its own.
    Meter,
}

impl AlreadyMetered {
    /// Whether the filter believes something that a proxy in front says.
    pub(crate) fn believes(&self) -> bool {
        !self.trusted_header.is_empty() || self.skip_shadow_hosts
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        let headers =
            [("mark_header", &self.mark_header), ("trusted_header", &self.trusted_header)];
        for (option, header) in headers {
            if !header.is_empty() {
                is_header(&format!("{path}.{option}"), header)?;
            }
        }
        for (at, peer) in self.trusted_peers.iter().enumerate() {
            not_empty(&format!("{path}.trusted_peers[{at}]"), peer)?;
        }
        if !self.trusted_peers.is_empty() && !self.believes() {
            let reason = "expected none without `trusted_header` or `skip_shadow_hosts`";
            return Err(error(&format!("{path}.trusted_peers"), reason));
        }
        Ok(())
    }
}
