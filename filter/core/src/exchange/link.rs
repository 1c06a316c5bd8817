//! What joins the ends of a call that are seen on different HTTP streams, maybe by different workers.
//! Links are hashes: no session id, endpoint or task id appears in shared data.

use crate::base::hash::hash;
use crate::domain::ids::Link;
use crate::domain::session::SessionRef;
use crate::protocol::llm::provider::Provider;
use crate::wire::json_rpc::Id;

/// Within which a JSON-RPC id names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdNamespace([u8; 16]);

impl IdNamespace {
    /// A session with an `Mcp-Session-Id` (2025-03-26 to 2025-11-25), at one server: several may share the session.
    pub fn session(session: &SessionRef) -> Self {
        Self(hash(&[b"session", session.product_id.as_bytes(), &session.key]))
    }

    /// An event stream of the HTTP+SSE transport (2024-11-05): the path and query of the endpoint that it told, within
    /// product and identity.
    pub fn endpoint(session: &SessionRef, path_and_query: &[u8]) -> Self {
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

    /// The link of a request with this id.
    pub fn link(self, id: &Id) -> Link {
        hash(&[b"id", &self.0, &id.canonical()])
    }

    /// The links that an answer with this id may mean: its own, and the one with the other type, which some servers
    /// give it.
    pub fn links(self, id: &Id) -> [Link; 2] {
        [self.link(id), hash(&[b"id", &self.0, &id.canonical_of_other_type()])]
    }
}

/// The link of a task; a task may be polled by anyone who knows its id.
pub fn task_link(product_id: &str, task_id: &[u8]) -> Link {
    hash(&[b"task", product_id.as_bytes(), task_id])
}

/// The link of a generation that several responses may tell of.
pub fn generation_link(provider: Provider, id: &str) -> Link {
    hash(&[b"generation", provider.name().as_bytes(), id.as_bytes()])
}

/// The path and query of an endpoint that an event stream at `path` told: absolute, or relative to it.
pub fn resolve_endpoint(path: &[u8], endpoint: &[u8]) -> Vec<u8> {
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
