//! The trait that every kind of exchange implements, and the types that its methods take and
//! return.

use core::fmt;
use std::rc::Rc;

use crate::base::time::Timestamp;
use crate::config::product::Product;
use crate::domain::ids::TraceId;
use crate::domain::session::SessionRef;
use crate::fact::Fact;
use crate::guard::refusal::Refusal;
use crate::host::counter::Counter;
use crate::shared_data::shares::holder_of;
use crate::wire::boundary::Unit;
use crate::wire::doubt::Doubt;
use crate::wire::http::{Headers, ResponseHead};
use crate::wire::json_rpc::Id;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The response is complete.
    Complete,
    /// The client disconnected, or the stream was reset, before the response was complete.
    Aborted,
}

/// Why a request starts no exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unmetered {
    /// It makes nothing that is metered.
    Free,
    /// It may make a generation that the filter does not read.
    Unseen {
        /// The product and the form of the path, for the log.
        place: String,
        /// True if the product refuses such requests.
        is_refused: bool,
    },
    /// It asks for a WebSocket, and the product refuses those.
    WebSocket,
}

/// What an exchange has observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Facts for the accountant, in the order in which they happened.
    pub facts: Vec<Fact>,
    /// Counters to add to the stats.
    pub counts: Vec<Counter>,
}

impl Observed {
    /// The server sent the client elsewhere: nothing was executed, and the call is that of the
    /// client's next request.
    pub(super) fn redirected(&mut self, call_id: String, session: &SessionRef, at: Timestamp) {
        let holder = holder_of(&session.identity.customer);
        self.counts.push(Counter::CallsRedirected);
        self.facts.push(Fact::Redirected { call_id, holder, at });
    }

    pub(super) fn add(&mut self, further: Self) {
        self.facts.extend(further.facts);
        self.counts.extend(further.counts);
    }
}

/// What a request asks for, as the guards evaluate it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRequest {
    /// The session of the request.
    pub session: SessionRef,
    /// The ids and tools of the calls that the request makes.
    pub calls: Vec<(String, String)>,
    /// The JSON-RPC ids of these calls; `None` if the client does not use JSON-RPC.
    pub ids: Option<Vec<Id>>,
    /// Whether the body says which calls the request makes.
    pub(crate) is_in_body: bool,
    /// Whether the body may name the session.
    pub(crate) may_body_name: bool,
}

/// What the meter wants of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyInterest {
    /// Nothing.
    #[default]
    None,
    /// Its size: the proxy need not copy the bytes.
    Size,
    /// Its bytes.
    Bytes,
}

impl BodyInterest {
    pub(super) fn bytes_if(is_of_interest: bool) -> Self {
        if is_of_interest { Self::Bytes } else { Self::None }
    }
}

/// The state of one HTTP stream. The default methods are for a kind that reads its bodies and does
/// not change them.
pub trait Exchange {
    /// The product of the exchange.
    fn product(&self) -> &Rc<Product>;

    /// Who pays, by the request's head.
    fn customer(&self) -> &str;

    /// Whether the filter must put a call proof into the request, because its calls may cause
    /// generations.
    fn wants_proof(&self) -> bool {
        false
    }

    /// Takes the call proof that the request carries to the server.
    fn set_proof(&mut self, _proof: TraceId) {}

    /// Begins what exists with the request's head, whether or not a body follows. The meter calls it
    /// once the guards have let the head pass and the proof is set.
    fn begin(&mut self) {}

    /// What the meter wants of the request's body.
    fn request_interest(&self) -> BodyInterest {
        BodyInterest::Bytes
    }

    /// Whether the filter must take the offer of extensions out of the request, so that it can read
    /// what is said on the WebSocket.
    fn wants_plain_frames(&self) -> bool {
        false
    }

    /// Whether the exchange may edit bodies, as the product's `ask_for_usage` allows. The length of
    /// the request is then unknown, and the server must send the response without a content coding.
    fn may_edit(&self) -> bool {
        false
    }

    /// Reads the next bytes of the request's body. Returns the bytes to send instead, or `None` to
    /// send the chunk unchanged.
    fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>>;

    /// Counts the next bytes of the request's body, if the meter wants only its size.
    fn request_size(&mut self, _bytes: usize, _now: Timestamp) {}

    /// Handles the end of the request.
    fn request_end(&mut self, now: Timestamp);

    /// Why it is not certain what the request asks for, as far as it has come; `None` if it is, or
    /// if that does not matter.
    fn doubt(&self) -> Option<Doubt> {
        None
    }

    /// What the request asks for, as far as the exchange has read it.
    fn policy_request(&self) -> PolicyRequest;

    /// Ends the exchange, because the filter answers the request with this HTTP status. Returns the
    /// facts.
    fn refuse(self: Box<Self>, http_status: u16, now: Timestamp) -> Observed;

    /// Reads the response's head. Returns what the meter wants of the response's body.
    fn response_head(&mut self, head: &ResponseHead<'_>) -> BodyInterest;

    /// Whether the filter may shorten the response's body, so that its length is unknown.
    fn shortens_response(&self) -> bool {
        false
    }

    /// Reads the next bytes of the response's body. `is_end` is true for the last ones, if the
    /// caller knows that. Returns the bytes to send instead, or `None` to send the chunk unchanged.
    fn response_body(&mut self, chunk: &[u8], is_end: bool, now: Timestamp) -> Option<Vec<u8>>;

    /// Counts the next bytes of the response's body, if the meter wants only its size.
    fn response_size(&mut self, _bytes: usize) {}

    /// Reads the response's trailers.
    fn response_trailers(&mut self, _trailers: Headers<'_>) {}

    /// The unit behind which the filter can cut the response, if the response is a stream that the
    /// filter can end in the middle.
    fn stream_unit(&self) -> Option<Unit> {
        None
    }

    /// Ends the response, which is such a stream. Returns the last events, or `None` if the
    /// response has already answered everything.
    fn stop(&mut self, _refusal: &Refusal, _now: Timestamp) -> Option<Vec<u8>> {
        None
    }

    /// Whether the meter needs the record of Envoy's own filter, by [`Exchange::envoy_usage`],
    /// before the exchange ends.
    fn wants_envoy_usage(&self) -> bool {
        false
    }

    /// Takes the record that Envoy's own filter made of the response.
    fn envoy_usage(&mut self, _record: &[u8]) {}

    /// Gives up calls that have waited too long for a response, while the stream stays open.
    fn time_out(&mut self, _now: Timestamp) {}

    /// While a call runs: the session of the exchange, and when that call started.
    fn running(&self) -> Option<(&SessionRef, Timestamp)> {
        None
    }

    /// Takes what the exchange has observed since this was last called.
    fn take_observed(&mut self) -> Observed;

    /// Ends the exchange together with its stream. Returns the remaining facts.
    fn end(self: Box<Self>, end: StreamEnd, now: Timestamp) -> Observed;
}

/// Names the product alone: a `Debug` of each kind in the table of methods would be 50 KB of the module.
impl fmt::Debug for dyn Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("product", &self.product().id).finish_non_exhaustive()
    }
}
