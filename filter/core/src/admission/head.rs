//! What a request's head contains: which session it belongs to, and which revision of MCP it uses.

use crate::admission::session::SessionKey;
use crate::base::time::Timestamp;
use crate::config::SessionSource;
use crate::config::product::Product;
use crate::domain::identity::Identity;
use crate::domain::ids::TraceId;
use crate::protocol::call_proof::presented;
use crate::protocol::grpc::is_grpc;
use crate::protocol::request_body::BodyHead;
use crate::protocol::trace_context::traces_of;
use crate::wire::http::Headers;
use crate::wire::target::{OVERRIDES, Target};

/// The one known revision of MCP without sessions. Its clients cancel a call by leaving. A revision
/// that is not known may have sessions and resumed streams, so it is compared for equality: its
/// calls wait for their answers like those of the revisions that have sessions.
const STATELESS_REVISION: &[u8] = b"2026-07-28";

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
    /// The call proof that the request presents, if it belongs to a product with generations.
    pub(crate) proof: Option<TraceId>,
    /// The HTTP method.
    pub method: &'a [u8],
    /// The `:authority`.
    pub authority: &'a [u8],
    /// Host and path.
    pub(crate) target: Target<'a>,
    /// What it says about the body.
    pub body: BodyHead,
    /// True if the request uses MCP 2026-07-28.
    pub is_stateless: bool,
    /// `Mcp-Session-Id`, whatever revision the request claims: the server decides whether it is of
    /// any meaning.
    pub(crate) mcp_session_id: Option<&'a [u8]>,
    /// `Last-Event-ID`: the event after which a request resumes an event stream.
    pub(crate) last_event_id: Option<&'a [u8]>,
    /// True if a `GET` with it names no session, or several times one.
    pub(crate) resumes_unnamed: bool,
    /// True if `Mcp-Method` is `tools/call` (2026-07-28). It proves that there is a call where the
    /// message is not read, and nothing else.
    pub(crate) says_tool_call: bool,
    /// When it arrived.
    pub arrived_at: Timestamp,
    /// True if a product with `llm` is asked to leave HTTP for another protocol.
    pub(crate) is_upgrade: bool,
    /// True if that protocol is WebSocket.
    pub(crate) is_websocket: bool,
    /// True if it is a call of gRPC, gRPC-Web included.
    pub(crate) is_grpc: bool,
    is_post_by_header: bool,
}

impl<'a> RequestHead<'a> {
    /// Reads the head of a request of `product`.
    pub(crate) fn read(
        product: &Product,
        identity: Identity,
        target: Target<'a>,
        headers: Headers<'a>,
        arrived_at: Timestamp,
    ) -> Self {
        let is_stateless = headers.get("mcp-protocol-version") == Some(STATELESS_REVISION);
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
        let mut sources = rules.sources.iter().enumerate();
        let found = sources.find_map(|(place, source)| Some((place, key_of(source)?)));
        let (found, session_key) = found.unzip();
        let session_key = session_key.unwrap_or(SessionKey::Window);
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
            mcp_session_id: present("mcp-session-id"),
            last_event_id: headers.get("last-event-id"),
            resumes_unnamed: headers.get(":method") == Some(b"GET")
                && headers.get("last-event-id").is_some()
                && headers.all("mcp-session-id").count() != 1,
            says_tool_call: headers.get("mcp-method") == Some(b"tools/call"),
            arrived_at,
            proof: if product.llm.is_some() { presented(headers) } else { None },
            is_upgrade: product.llm.is_some() && headers.get("upgrade").is_some(),
            is_websocket: product.llm.is_some() && is_websocket(headers),
            is_grpc: is_grpc(headers),
            is_post_by_header: OVERRIDES.iter().any(|name| {
                headers.all(name).any(|value| value.trim_ascii().eq_ignore_ascii_case(b"post"))
            }),
            traces,
        }
    }

    /// Whether nothing in the head names a session.
    pub(crate) fn names_no_session(&self) -> bool {
        self.session_key == SessionKey::Window
    }

    /// The methods by which a server may go: the request's, and `POST` where that has a body too or
    /// a header that some servers heed says so.
    pub(crate) fn methods(&self) -> impl Iterator<Item = &'a str> {
        let own = core::str::from_utf8(self.method).unwrap_or_default();
        let has_body = !matches!(own, "GET" | "HEAD" | "DELETE" | "OPTIONS" | "POST");
        core::iter::once(own).chain((has_body || self.is_post_by_header).then_some("POST"))
    }
}

/// Whether a request asks for a WebSocket (RFC 6455, section 4.1). Envoy gives requests of HTTP/2
/// and HTTP/3 (RFC 8441) the same form.
fn is_websocket(headers: Headers<'_>) -> bool {
    let mut listed = headers.all("upgrade").flat_map(|value| value.split(|byte| *byte == b','));
    listed.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"websocket"))
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
