//! What a request's head contains: which session it belongs to, and which revision of MCP it uses.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::admission::session::SessionKey;
use crate::base::limits::VALUE_BYTES_MAX;
use crate::config::SessionSource;
use crate::config::product::Product;
use crate::domain::identity::Identity;
use crate::domain::ids::TraceId;
use crate::protocol::trace_context::traces_of;
use crate::wire::encoding::ContentCoding;
use crate::wire::http::Headers;

/// The first revision of MCP without sessions (2026-07-28). Its clients cancel a call by leaving.
const FIRST_STATELESS_REVISION: &[u8] = b"2026-07-28";

/// What a request's head contains, read once for everything that follows.
#[derive(Clone, Debug)]
pub struct RequestHead<'a> {
    /// Who the request is for.
    pub identity: Identity,
    /// The key of the session; [`session_ref`](crate::admission::session::session_ref) makes the
    /// session from it and the identity.
    pub session_key: SessionKey<'a>,
    /// Whether the body may name the session. That name overrides any in the head.
    pub(crate) may_body_name: bool,
    /// The traces that the request names: one, or several where propagators disagree.
    pub traces: Vec<TraceId>,
    /// The HTTP method.
    pub method: &'a [u8],
    /// The `:authority`.
    pub authority: &'a [u8],
    /// Path and query.
    pub path: &'a [u8],
    /// The content coding of the body.
    pub coding: ContentCoding,
    /// True if the request uses MCP 2026-07-28 or later.
    pub is_stateless: bool,
    /// The value of `Mcp-Name`, if `Mcp-Method` is `tools/call`.
    pub(crate) named_tool: Option<Vec<u8>>,
}

impl<'a> RequestHead<'a> {
    /// Reads the head of a request of `product`.
    pub fn read(product: &Product, identity: Identity, headers: Headers<'a>) -> Self {
        let is_stateless = headers
            .get("mcp-protocol-version")
            .is_some_and(|revision| revision >= FIRST_STATELESS_REVISION);
        let rules = &product.session;
        let traces = traces_of(headers);
        let present = |name: &str| headers.get(name).filter(|value| !value.is_empty());
        let key_of = |source: &SessionSource| match source {
            SessionSource::McpSessionId => {
                present("mcp-session-id").filter(|_| !is_stateless).map(SessionKey::McpSessionId)
            }
            SessionSource::Header => {
                rules.headers.iter().find_map(|name| present(name)).map(SessionKey::Header)
            }
            SessionSource::Baggage => {
                headers.get("baggage").and_then(session_in_baggage).map(SessionKey::Baggage)
            }
            SessionSource::Trace => traces.first().copied().map(SessionKey::Trace),
            // Only the body contains it.
            SessionSource::Meta => None,
        };
        let found = rules.sources.iter().position(|source| key_of(source).is_some());
        let session_key = rules.sources.iter().find_map(key_of).unwrap_or(SessionKey::Window);
        let meta = rules.sources.iter().position(|source| *source == SessionSource::Meta);
        Self {
            identity,
            session_key,
            may_body_name: meta.is_some_and(|meta| found.is_none_or(|found| meta < found)),
            method: headers.get(":method").unwrap_or_default(),
            authority: headers.get(":authority").unwrap_or_default(),
            path: headers.get(":path").unwrap_or_default(),
            coding: ContentCoding::parse(headers.get("content-encoding")),
            is_stateless,
            named_tool: named_tool(headers),
            traces,
        }
    }

    /// The method and the path as text; `None` if one of them is not text.
    pub(crate) fn target(&self) -> Option<(&'a str, &'a str)> {
        let text = |bytes: &'a [u8]| core::str::from_utf8(bytes).ok();
        Some((text(self.method)?, text(self.path)?))
    }
}

/// Whether a header that may name the session comes with two values: the filter and the server could
/// take different ones.
pub(super) fn is_session_ambiguous(product: &Product, headers: Headers<'_>) -> bool {
    let rules = &product.session;
    let has_two = |name: &str| {
        let mut values = headers.all(name);
        values.next().is_some_and(|first| values.any(|value| value != first))
    };
    rules.sources.iter().any(|source| match source {
        SessionSource::McpSessionId => has_two("mcp-session-id"),
        SessionSource::Header => rules.headers.iter().any(|name| has_two(name)),
        SessionSource::Baggage | SessionSource::Meta | SessionSource::Trace => false,
    })
}

/// The member `session.id` of a `baggage` header (W3C Baggage, 2024): `key=value;property, ...`,
/// percent-encoded.
fn session_in_baggage(value: &[u8]) -> Option<&[u8]> {
    let text = core::str::from_utf8(value).ok()?;
    let members = text.split(',').filter_map(|member| member.split(';').next()?.split_once('='));
    let (_, value) = members.into_iter().find(|(key, _)| key.trim() == "session.id")?;
    Some(value.trim().as_bytes()).filter(|value| !value.is_empty())
}

/// The tool that the headers of MCP 2026-07-28 name; a name that is not plain text is in base64.
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
