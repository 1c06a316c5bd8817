//! Links join the parts of a call that workers see on different HTTP streams. A link is a hash, so
//! that shared data contains no session id, endpoint or task id.

use crate::base::hash::{hash, hash_again};
use crate::config::product::Product;
use crate::domain::identity::Identity;
use crate::domain::ids::Link;
use crate::domain::seller::Seller;
use crate::wire::json_rpc::Id;
use crate::wire::target::Endpoint;

/// The namespace in which a JSON-RPC id names a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct IdNamespace([u8; 16]);

impl IdNamespace {
    /// The namespace of a session with this `Mcp-Session-Id` (2025-03-26 to 2025-11-25) at one
    /// server, because several servers may share the session. The server knows the session by its
    /// id alone, so all agents and keys of a customer are in one namespace; customers are not,
    /// because a server may let its clients choose ids.
    pub(crate) fn session(product: &Product, identity: &Identity, mcp_session_id: &[u8]) -> Self {
        let customer = identity.customer.as_bytes();
        Self(hash_again(&[b"session", product.id.as_bytes(), customer, mcp_session_id]))
    }

    /// The namespace of an address without a session: that which an event stream of the HTTP+SSE
    /// transport (2024-11-05) announced, or the request's own. Streams and messages may be
    /// two products of a group. Clients share an address that names no session, so there team and
    /// agent tell them apart.
    pub(crate) fn endpoint(product: &Product, identity: &Identity, endpoint: &Endpoint) -> Self {
        let Identity { customer, team, agent, .. } = identity;
        let mut parts =
            vec![b"endpoint".as_slice(), product.group().as_bytes(), customer.as_bytes()];
        if !endpoint.names_session {
            parts.extend([team.as_bytes(), agent.as_bytes()]);
        }
        parts.push(&endpoint.key);
        Self(hash_again(&parts))
    }

    /// The namespace of an event stream without a session, by the id of one of its events, as a
    /// hash: who resumes the stream names the last one that arrived.
    pub(crate) fn event(product: &Product, identity: &Identity, event: u64) -> Self {
        let customer = identity.customer.as_bytes();
        Self(hash(&[b"event", product.id.as_bytes(), customer, &event.to_be_bytes()]))
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
pub(crate) fn generation_link(seller: Seller, id: &str) -> Link {
    hash(&[b"generation", seller.name().as_bytes(), id.as_bytes()])
}
