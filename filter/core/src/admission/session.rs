//! Names a session: hashes the first of the product's sources that a request presents together with
//! the identity of who presents it. Because the identity is part of the hash, a session id that
//! belongs to someone else names another session.

use crate::base::hash::hash_again;
use crate::config::product::Product;
use crate::domain::identity::{Credential, Identity};
use crate::domain::ids::TraceId;
use crate::domain::session::SessionRef;

/// What a request presents as its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKey<'a> {
    /// `Mcp-Session-Id` (2025-03-26 to 2025-11-25).
    McpSessionId(&'a [u8]),
    /// A header that the product's configuration names.
    Header(&'a [u8]),
    /// The member `session.id` of the baggage.
    Baggage(&'a [u8]),
    /// The session or conversation that the message names.
    Meta(&'a [u8]),
    /// The trace.
    Trace(TraceId),
    /// The endpoint of an event stream of the HTTP+SSE transport (2024-11-05): path and query.
    Endpoint(&'a [u8]),
    /// Nothing: the calls of one identity form an activity window.
    Window,
}

/// The session of a request to this product with this identity and key. Products of a group share
/// their sessions, so the hash contains the group's name; the reference names the product itself.
pub(crate) fn session_ref(
    product: &Product,
    identity: Identity,
    key: SessionKey<'_>,
) -> SessionRef {
    let (kind, value): (&[u8], &[u8]) = match key {
        SessionKey::McpSessionId(value) => (b"mcp-session-id", value),
        SessionKey::Header(value) => (b"header", value),
        SessionKey::Baggage(value) => (b"baggage", value),
        SessionKey::Meta(value) => (b"meta", value),
        SessionKey::Trace(ref value) => (b"trace", value),
        SessionKey::Endpoint(value) => (b"endpoint", value),
        SessionKey::Window => (b"window", b""),
    };
    let mut parts = vec![
        b"agent-meter session key 1".as_slice(),
        product.group().as_bytes(),
        identity.customer.as_bytes(),
        identity.team.as_bytes(),
        identity.agent.as_bytes(),
    ];
    parts.extend(identity.api_key.as_ref().map(|key| key.as_bytes()));
    if let Some(user) = &identity.user {
        parts.extend([b"user".as_slice(), user.as_bytes()]);
    }
    // Events contain the credential of their session, so each session has one.
    parts.extend(identity.credential.map(|credential| match credential {
        Credential::ClientCredentials => b"client credentials".as_slice(),
        Credential::BearerToken => b"bearer token".as_slice(),
    }));
    parts.extend([kind, value]);
    let config = product.config_id;
    SessionRef { product_id: product.id.clone(), config, key: hash_again(&parts), identity }
}
