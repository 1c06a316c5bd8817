//! What a request's head says: whose session it belongs to, and which revision of MCP it speaks.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::config::{IdentitySource, Product};
use crate::fact::{Identity, SessionRef};
use crate::limits::{IDENTITY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::session_key::{Rung, session_ref};

/// What stands for a level of the identity that the request did not tell.
pub const ANONYMOUS: &str = "anonymous";
/// The first revision of MCP without sessions, in which a client cancels a call by leaving (2026-07-28).
const FIRST_STATELESS_REVISION: &[u8] = b"2026-07-28";

/// The headers of a request or response, names in lower case; values may be any bytes.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a>(pub &'a [(String, Vec<u8>)]);

impl<'a> Headers<'a> {
    /// The first value under `name`.
    pub fn get(self, name: &str) -> Option<&'a [u8]> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_slice())
    }
}

/// What the exchange has to know of a request's head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) session: SessionRef,
    /// By `Mcp-Session-Id`.
    pub(crate) has_session_id: bool,
    /// Neither a session id nor the product's session header.
    pub(crate) is_window: bool,
    /// MCP 2026-07-28 or later.
    pub(crate) is_stateless: bool,
    /// `Mcp-Name` where `Mcp-Method` is `tools/call`.
    pub(crate) named_tool: Option<Vec<u8>>,
}

impl RequestHead {
    pub(crate) fn read(product: &Product, headers: Headers<'_>) -> Self {
        let is_stateless = headers
            .get("mcp-protocol-version")
            .is_some_and(|revision| revision >= FIRST_STATELESS_REVISION);
        let present = |name: &str| headers.get(name).filter(|value| !value.is_empty());
        let mcp_session_id = present("mcp-session-id").filter(|_| !is_stateless);
        let rung = match (mcp_session_id, present(&product.session.header)) {
            (Some(id), _) => Rung::McpSessionId(id),
            (None, Some(value)) => Rung::Header(value),
            (None, None) => Rung::Window,
        };
        let rules = &product.identity;
        let identity = Identity {
            customer: identity_level(rules.customer.as_ref(), headers),
            team: identity_level(rules.team.as_ref(), headers),
            agent: identity_level(rules.agent.as_ref(), headers),
        };
        Self {
            session: session_ref(&product.id, identity, rung),
            has_session_id: mcp_session_id.is_some(),
            is_window: rung == Rung::Window,
            is_stateless,
            named_tool: named_tool(headers),
        }
    }
}

/// The tool that the headers of MCP 2026-07-28 name; a name that is no plain text is in base64.
fn named_tool(headers: Headers<'_>) -> Option<Vec<u8>> {
    if headers.get("mcp-method") != Some(b"tools/call") {
        return None;
    }
    let name = headers.get("mcp-name")?;
    let coded = name.strip_prefix(b"=?base64?").and_then(|rest| rest.strip_suffix(b"?="));
    let mut name = match coded {
        Some(coded) => BASE64_STANDARD.decode(coded).ok()?,
        None => name.to_vec(),
    };
    name.truncate(VALUE_BYTES_MAX);
    Some(name)
}

fn identity_level(source: Option<&IdentitySource>, headers: Headers<'_>) -> String {
    let text = match source {
        Some(IdentitySource::Value(value)) => return value.clone(),
        Some(IdentitySource::TrustedHeader(name)) => {
            String::from_utf8_lossy(headers.get(name).unwrap_or_default())
        }
        None => return ANONYMOUS.to_owned(),
    };
    let mut end = text.len().min(IDENTITY_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    match text.get(..end) {
        Some(kept) if !kept.is_empty() => kept.to_owned(),
        _ => ANONYMOUS.to_owned(),
    }
}
