//! What a request's head contains: which session it belongs to, and which revision of MCP it uses.

use crate::admission::session::SessionKey;
use crate::config::SessionSource;
use crate::config::product::Product;
use crate::domain::identity::Identity;
use crate::domain::ids::TraceId;
use crate::protocol::request_body::BodyHead;
use crate::protocol::trace_context::traces_of;
use crate::wire::http::Headers;
use crate::wire::target::Target;

/// The first revision of MCP without sessions (2026-07-28). Its clients cancel a call by leaving.
const FIRST_STATELESS_REVISION: &[u8] = b"2026-07-28";

/// Headers by which some servers replace the method.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

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
    /// Host and path.
    pub(crate) target: Target<'a>,
    /// What it says about the body.
    pub body: BodyHead,
    /// True if the request uses MCP 2026-07-28 or later.
    pub is_stateless: bool,
    is_post_by_header: bool,
}

impl<'a> RequestHead<'a> {
    /// Reads the head of a request of `product`.
    pub(crate) fn read(
        product: &Product,
        identity: Identity,
        target: Target<'a>,
        headers: Headers<'a>,
    ) -> Self {
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
            target,
            body: BodyHead::read(headers),
            is_stateless,
            is_post_by_header: OVERRIDES.iter().any(|name| {
                headers.all(name).any(|value| value.trim_ascii().eq_ignore_ascii_case(b"post"))
            }),
            traces,
        }
    }

    /// The methods by which a server may go: the request's, and `POST` where that has a body too or
    /// a header that some servers heed says so.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &'a str> {
        let own = core::str::from_utf8(self.method).unwrap_or_default();
        let has_body = !matches!(own, "GET" | "HEAD" | "DELETE" | "OPTIONS" | "POST");
        core::iter::once(own).chain((has_body || self.is_post_by_header).then_some("POST"))
    }
}

/// The member `session.id` of a `baggage` header (W3C Baggage, 2024): `key=value;property, ...`,
/// percent-encoded.
fn session_in_baggage(value: &[u8]) -> Option<&[u8]> {
    let text = core::str::from_utf8(value).ok()?;
    let members = text.split(',').filter_map(|member| member.split(';').next()?.split_once('='));
    let (_, value) = members.into_iter().find(|(key, _)| key.trim() == "session.id")?;
    Some(value.trim().as_bytes()).filter(|value| !value.is_empty())
}
