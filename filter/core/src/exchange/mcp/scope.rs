//! Which streams belong together: under which links the answers to an exchange's requests may come
//! on other streams, and whose answers its own response may carry. What the transport presents
//! decides (the session's id, the address, an event's id), and never the session that is billed.

use crate::admission::head::RequestHead;
use crate::base::limits::STREAM_EVENTS_MAX;
use crate::config::product::Product;
use crate::domain::identity::Identity;
use crate::domain::ids::Link;
use crate::exchange::link::IdNamespace;
use crate::wire::json_rpc::Id;
use crate::wire::sse::event_id;
use crate::wire::target::{Endpoint, Target};
use crate::wire::uri::resolved;

/// What the transport presents.
#[derive(Debug)]
pub(super) struct Scope {
    session: Option<IdNamespace>,
    /// True in MCP 2026-07-28 without a session: a server answers a request on the request's own
    /// stream or not at all.
    is_stateless: bool,
    /// True for a `GET`.
    is_stream: bool,
    /// The event after which a `GET` resumes a stream.
    resumed: Option<u64>,
    /// Path and query of the request, to which an endpoint may be relative.
    path: Box<[u8]>,
    /// Where clients send their messages: the address of the request or, on an event stream of
    /// HTTP+SSE, the one that the server announced.
    endpoint: Endpoint,
    /// The last events, the latest first.
    events: Vec<u64>,
}

impl Scope {
    /// What this head presents.
    pub(super) fn of(product: &Product, head: &RequestHead<'_>) -> Self {
        let session =
            head.mcp_session_id.map(|id| IdNamespace::session(product, &head.identity, id));
        let has_address = session.is_none();
        let is_stream = head.method == b"GET";
        Self {
            is_stateless: head.is_stateless && has_address,
            is_stream,
            resumed: head.last_event_id.map(event_id).filter(|_| is_stream),
            path: if is_stream && has_address {
                head.target.path_and_query().into()
            } else {
                Box::default()
            },
            endpoint: if has_address { head.target.endpoint() } else { Endpoint::default() },
            events: Vec::new(),
            session,
        }
    }

    /// Whether the request names its session.
    pub(super) fn has_session(&self) -> bool {
        self.session.is_some()
    }

    /// The address of the endpoint.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Takes the endpoint that the server announced (2024-11-05).
    pub(super) fn announced(&mut self, reference: &[u8]) {
        if self.session.is_none() {
            self.endpoint = Target::read(b"", &resolved(&self.path, reference)).endpoint();
        }
    }

    /// Takes the ids of the next events of the response.
    pub(super) fn saw(&mut self, events: &[u64]) {
        if self.session.is_some() {
            return;
        }
        self.events.splice(0..0, events.iter().rev().copied());
        self.events.truncate(STREAM_EVENTS_MAX);
    }

    /// The links under which the answer to the request with this id may come on another stream; none
    /// if it cannot.
    pub(super) fn links_of_request(
        &self,
        product: &Product,
        identity: &Identity,
        id: &Id,
    ) -> Vec<Link> {
        match self.session {
            Some(session) => vec![session.link(id)],
            None if self.is_stateless => Vec::new(),
            // Whoever resumes the stream names one of them.
            None if !self.events.is_empty() => {
                let events = self.events.iter();
                events.map(|event| IdNamespace::event(product, identity, *event).link(id)).collect()
            }
            None => vec![IdNamespace::endpoint(product, identity, &self.endpoint).link(id)],
        }
    }

    /// The links of the requests on other streams that an answer with this id may be about, the
    /// likeliest first; none if it can be about no other stream's.
    pub(super) fn links_of_answer(
        &self,
        product: &Product,
        identity: &Identity,
        id: &Id,
    ) -> Vec<Link> {
        if let Some(session) = self.session {
            return session.links(id).to_vec();
        }
        if !self.is_stream {
            return Vec::new();
        }
        let resumed = self.resumed.map(|event| IdNamespace::event(product, identity, event));
        let endpoint = IdNamespace::endpoint(product, identity, &self.endpoint);
        resumed.into_iter().chain([endpoint]).flat_map(|namespace| namespace.links(id)).collect()
    }
}
