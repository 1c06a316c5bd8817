//! What a request's head says: which session it belongs to, and which revision of MCP it speaks.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::admission::session::{Rung, session_ref};
use crate::base::limits::VALUE_BYTES_MAX;
use crate::config::SessionSource;
use crate::config::product::Product;
use crate::domain::identity::Identity;
use crate::domain::session::SessionRef;
use crate::protocol::trace_context::traces_of;
use crate::wire::http::Headers;

/// The first revision of MCP without sessions, in which a client cancels a call by leaving (2026-07-28).
const FIRST_STATELESS_REVISION: &[u8] = b"2026-07-28";

/// What the exchange has to know of a request's head.
#[derive(Debug)]
pub(crate) struct RequestHead {
    pub(crate) session: SessionRef,
    /// By `Mcp-Session-Id`.
    pub(crate) has_session_id: bool,
    /// Nothing names the session.
    pub(crate) is_window: bool,
    /// The message may name the session, before anything that the head does.
    pub(crate) may_message_name: bool,
    /// MCP 2026-07-28 or later.
    pub(crate) is_stateless: bool,
    /// `Mcp-Name` where `Mcp-Method` is `tools/call`.
    pub(crate) named_tool: Option<Vec<u8>>,
}

impl RequestHead {
    pub(crate) fn read(product: &Product, identity: Identity, headers: Headers<'_>) -> Self {
        let is_stateless = headers
            .get("mcp-protocol-version")
            .is_some_and(|revision| revision >= FIRST_STATELESS_REVISION);
        let rules = &product.session;
        let baggage = headers.get("baggage").and_then(session_in_baggage);
        let trace = traces_of(headers).first().copied();
        let present = |name: &str| headers.get(name).filter(|value| !value.is_empty());
        let rung_of = |source: &SessionSource| match source {
            SessionSource::McpSessionId => {
                present("mcp-session-id").filter(|_| !is_stateless).map(Rung::McpSessionId)
            }
            SessionSource::Header => {
                rules.headers.iter().find_map(|name| present(name)).map(Rung::Header)
            }
            SessionSource::Baggage => baggage.as_deref().map(Rung::Baggage),
            SessionSource::Trace => trace.as_ref().map(|trace| Rung::Trace(trace)),
            // Known when the message has come.
            SessionSource::Meta => None,
        };
        let found = rules.ladder.iter().position(|source| rung_of(source).is_some());
        let rung = rules.ladder.iter().find_map(rung_of).unwrap_or(Rung::Window);
        let meta = rules.ladder.iter().position(|source| *source == SessionSource::Meta);
        let may_message_name = meta.is_some_and(|meta| found.is_none_or(|found| meta < found));
        Self {
            session: session_ref(product, identity, rung),
            has_session_id: matches!(rung, Rung::McpSessionId(_)),
            is_window: rung == Rung::Window,
            may_message_name,
            is_stateless,
            named_tool: named_tool(headers),
        }
    }
}

/// The member `session.id` of a `baggage` header (W3C Baggage, 2024): `key=value;property, ...`, percent-encoded.
fn session_in_baggage(value: &[u8]) -> Option<Vec<u8>> {
    let text = core::str::from_utf8(value).ok()?;
    let members = text.split(',').filter_map(|member| member.split(';').next()?.split_once('='));
    let (_, value) = members.into_iter().find(|(key, _)| key.trim() == "session.id")?;
    Some(value.trim().as_bytes().to_vec()).filter(|value| !value.is_empty())
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
