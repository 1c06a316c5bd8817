//! What a kind of exchange is: the trait that each implements, and what its methods take and give.

use core::fmt;
use std::rc::Rc;

use crate::base::time::Timestamp;
use crate::config::product::Product;
use crate::domain::session::SessionRef;
use crate::fact::Fact;
use crate::guard::refusal::Refusal;
use crate::host::counter::Counter;
use crate::wire::boundary::Unit;
use crate::wire::http::ResponseHead;
use crate::wire::json_rpc::Id;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The response came to its end.
    Complete,
    /// The client left, or the stream was reset, before the response's end.
    Aborted,
}

/// What an exchange has observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// For the accountant, in the order in which they came about.
    pub facts: Vec<Fact>,
    /// For the stats.
    pub counts: Vec<Counter>,
}

impl Observed {
    pub(super) fn add(&mut self, further: Self) {
        self.facts.extend(further.facts);
        self.counts.extend(further.counts);
    }
}

/// What a request asks of the guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRequest {
    /// The session it belongs to.
    pub session: SessionRef,
    /// The ids and tools of the calls that it makes.
    pub calls: Vec<(String, String)>,
    /// The ids of these as JSON-RPC requests; `None` if its client does not speak that.
    pub ids: Option<Vec<Id>>,
    /// Whether its body says which calls it makes.
    pub is_in_body: bool,
    /// Whether its body may name the session.
    pub may_body_name: bool,
}

/// What the meter wants of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyInterest {
    /// Nothing.
    #[default]
    None,
    /// Its size: the bytes need not be copied.
    Size,
    /// Its bytes.
    Bytes,
}

impl BodyInterest {
    pub(super) fn bytes_if(is_of_interest: bool) -> Self {
        if is_of_interest { Self::Bytes } else { Self::None }
    }
}

/// Everything that is known of one HTTP stream. The defaults are those of a kind that reads its bodies
/// and changes none of them.
pub trait Exchange {
    /// The product that it belongs to.
    fn product(&self) -> &Rc<Product>;

    /// What the meter wants of the request's body.
    fn request_interest(&self) -> BodyInterest {
        BodyInterest::Bytes
    }

    /// Whether the exchange may edit bodies, as the product's `ask_for_usage` has it: the length of the
    /// request is not known then, and the response must come without a coding.
    fn may_edit(&self) -> bool {
        false
    }

    /// Reads the next bytes of the request's body. Gives what passes instead of them, if they may not
    /// pass as they are.
    fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>>;

    /// Counts the next bytes of the request's body, where only the size is of interest.
    fn request_size(&mut self, _bytes: usize, _now: Timestamp) {}

    /// The request has ended.
    fn request_end(&mut self, now: Timestamp);

    /// What the request asks, as far as it has come.
    fn policy_request(&self) -> PolicyRequest;

    /// The filter answers the request with this HTTP status. Gives the facts of it.
    fn refuse(self: Box<Self>, http_status: u16, now: Timestamp) -> Observed;

    /// Reads the response's head. Gives what the meter wants of its body.
    fn response_head(&mut self, head: &ResponseHead<'_>) -> BodyInterest;

    /// Whether the response's body may get shorter on its way, so that its length is not known.
    fn shortens_response(&self) -> bool {
        false
    }

    /// Reads the next bytes of the response's body; `is_end` with the last, if that is known. Gives what
    /// passes instead of them, if they may not pass as they are.
    fn response_body(&mut self, chunk: &[u8], is_end: bool, now: Timestamp) -> Option<Vec<u8>>;

    /// Counts the next bytes of the response's body, where only the size is of interest.
    fn response_size(&mut self, _bytes: usize) {}

    /// What the response may be cut behind, if it is a stream that can be ended in the middle.
    fn stream_unit(&self) -> Option<Unit> {
        None
    }

    /// The filter ends the response, which is such a stream. Gives the last events, or `None` if the
    /// response has already answered everything.
    fn stop(&mut self, _refusal: &Refusal, _now: Timestamp) -> Option<Vec<u8>> {
        None
    }

    /// Whether [`Exchange::envoy_usage`] is to be given, before the end, what Envoy's own filter has
    /// extracted.
    fn wants_envoy_usage(&self) -> bool {
        false
    }

    /// Takes the record that Envoy's own filter has made of the response.
    fn envoy_usage(&mut self, _record: &[u8]) {}

    /// Gives up calls that have gone without an answer for too long, while the stream goes on.
    fn time_out(&mut self, _now: Timestamp) {}

    /// The session of this exchange while a call of it runs, and when that call started.
    fn running(&self) -> Option<(&SessionRef, Timestamp)> {
        None
    }

    /// Takes what has been observed since the last time.
    fn take_observed(&mut self) -> Observed;

    /// The stream has ended, in whatever way. Gives the facts that are left.
    fn end(self: Box<Self>, end: StreamEnd, now: Timestamp) -> Observed;
}

/// Names the product alone: a `Debug` of each kind in the table of methods would be 50 KB of the module.
impl fmt::Debug for dyn Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("product", &self.product().id).finish_non_exhaustive()
    }
}
