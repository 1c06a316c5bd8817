//! Links join the parts of a call that workers see on different HTTP streams. A link is a hash, so
//! that shared data contains no session id, endpoint or task id.

use crate::base::hash::hash;
use crate::domain::ids::Link;
use crate::domain::session::SessionRef;
use crate::protocol::llm::provider::Provider;
use crate::wire::json_rpc::Id;

/// The namespace in which a JSON-RPC id names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdNamespace([u8; 16]);

impl IdNamespace {
    /// The namespace of a session with this `Mcp-Session-Id` (2025-03-26 to 2025-11-25) at one
    /// server, because several servers may share the session. The server knows the session by its
    /// id alone, so all agents and keys of a customer are in one namespace; customers are not,
    /// because a server may let its clients choose ids.
    pub(crate) fn session(session: &SessionRef, mcp_session_id: &[u8]) -> Self {
        let SessionRef { product_id, identity, .. } = session;
        let customer = identity.customer.as_bytes();
        Self(hash(&[b"session", product_id.as_bytes(), customer, mcp_session_id]))
    }

    /// The namespace of an event stream of the HTTP+SSE transport (2024-11-05): the path and query
    /// of the endpoint that the server announced, within product and identity.
    pub(crate) fn endpoint(session: &SessionRef, path_and_query: &[u8]) -> Self {
        let identity = &session.identity;
        Self(hash(&[
            b"endpoint",
            session.product_id.as_bytes(),
            identity.customer.as_bytes(),
            identity.team.as_bytes(),
            identity.agent.as_bytes(),
            path_and_query,
        ]))
    }

    /// Returns the link of the request with this id.
    pub(crate) fn link(self, id: &Id) -> Link {
        hash(&[b"id", &self.0, &id.canonical()])
    }

    /// Returns the links that a response with this id may mean: its own, and that of the id as the
    /// other JSON type, because some servers change the type.
    pub(crate) fn links(self, id: &Id) -> [Link; 2] {
        [self.link(id), hash(&[b"id", &self.0, &id.canonical_of_other_type()])]
    }
}

/// Returns the link of a task. Anyone who knows the id of a task may poll it.
pub(crate) fn task_link(product_id: &str, task_id: &[u8]) -> Link {
    hash(&[b"task", product_id.as_bytes(), task_id])
}

/// Returns the link of a generation that several responses may report.
pub(crate) fn generation_link(provider: Provider, id: &str) -> Link {
    hash(&[b"generation", provider.name().as_bytes(), id.as_bytes()])
}

/// Returns the path and query of the endpoint that the event stream at `path` announced. `endpoint`
/// is absolute, or relative to `path`.
pub(crate) fn resolve_endpoint(path: &[u8], endpoint: &[u8]) -> Vec<u8> {
    let endpoint = endpoint.trim_ascii();
    if let Some(at) = endpoint.windows(3).position(|window| window == b"://") {
        let behind = endpoint.get(at.saturating_add(3)..).unwrap_or_default();
        let slash = behind.iter().position(|&byte| byte == b'/');
        return slash.and_then(|slash| behind.get(slash..)).unwrap_or(b"/").to_vec();
    }
    if endpoint.starts_with(b"/") {
        return endpoint.to_vec();
    }
    let path = path.split(|&byte| byte == b'?').next().unwrap_or_default();
    let folder = path.iter().rposition(|&byte| byte == b'/').map_or(0, |at| at.saturating_add(1));
    [path.get(..folder).unwrap_or_default(), endpoint].concat()
}
