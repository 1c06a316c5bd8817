//! One HTTP stream through the filter, from request head to its end: bytes in, facts out.
//! It never fails and never keeps a body; what it cannot read is counted and passes.
//!
//! A new kind of exchange: a file with a type that implements [`Exchange`], and its line in [`start`].

pub mod a2a;
pub mod link;
pub mod observed;

mod api;
mod llm;
mod mcp;

use core::fmt::Debug;
use std::rc::Rc;

pub use self::mcp::requests::UNNAMED_TOOL;
use crate::admission::Admitted;
use crate::base::time::Timestamp;
use crate::config::Config;
use crate::config::product::{Product, Speaks};
use crate::domain::session::SessionRef;
use crate::exchange::a2a::A2aExchange;
use crate::exchange::api::ApiExchange;
use crate::exchange::llm::LlmExchange;
use crate::exchange::mcp::McpExchange;
use crate::exchange::observed::{BodyInterest, Observed, PolicyRequest, StreamEnd};
use crate::guard::refusal::Refusal;
use crate::protocol::llm::provider::agent_run;
use crate::wire::boundary::Unit;
use crate::wire::http::ResponseHead;

/// Starts the exchange of a request, or gives `None` if the request is nothing that is metered. `id` is
/// unique within the source.
pub fn start(config: &Config, admitted: Admitted<'_>, id: String) -> Option<Box<dyn Exchange>> {
    let Admitted { product, head, .. } = admitted;
    match (product.product_type.traits().speaks, product.llm.clone()) {
        (Speaks::Api, _) => Some(Box::new(ApiExchange::start(config, product, head, id))),
        (_, Some(rules)) => {
            let run = head.target().and_then(|(method, path)| agent_run(method, path));
            Some(match run {
                Some(run) => Box::new(ApiExchange::start_step(product, rules, run, head, id)?),
                None => Box::new(LlmExchange::start(product, rules, None, head, id)?),
            })
        }
        (Speaks::Agent, None) => Some(Box::new(A2aExchange::start(config, product, head, &id)?)),
        (Speaks::Mcp, None) => Some(Box::new(McpExchange::start(config, product, head, id))),
    }
}

/// Everything that is known of one HTTP stream. The defaults are those of a kind that reads its bodies
/// and changes none of them.
pub trait Exchange: Debug {
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
