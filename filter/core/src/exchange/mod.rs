//! One HTTP stream through the filter, from request head to its end: bytes in, facts out.
//! It never fails and never keeps a body; what it cannot read is counted and passes.

pub mod a2a;
pub mod link;
pub mod observed;

mod api;
mod llm;
mod mcp;

pub use self::mcp::requests::UNNAMED_TOOL;

use std::rc::Rc;

use crate::base::time::Timestamp;
use crate::config::Config;
use crate::config::product::{Product, ProductType};
use crate::domain::identity::Identity;
use crate::domain::session::SessionRef;
use crate::exchange::a2a::AgentExchange;
use crate::exchange::api::ApiExchange;
use crate::exchange::llm::LlmExchange;
use crate::exchange::mcp::McpExchange;
use crate::exchange::observed::{Asked, Observed, Show, StreamEnd};
use crate::guard::refusal::Refusal;
use crate::protocol::llm::provider::agent_run;
use crate::wire::boundary::Unit;
use crate::wire::http::Headers;

/// Everything that is known of one HTTP stream.
#[derive(Debug)]
pub enum Exchange {
    /// Messages of the Model Context Protocol.
    Mcp(Box<McpExchange>),
    /// A generation of a large language model.
    Llm(Box<LlmExchange>),
    /// An API call, or a request that runs an agent.
    Api(Box<ApiExchange>),
    /// A request to an agent.
    Agent(Box<AgentExchange>),
}

impl Exchange {
    /// Starts an exchange of a product, or `None` if the request is nothing that is metered. `id` is unique within the
    /// source.
    pub fn start(
        config: &Config,
        product: &Rc<Product>,
        identity: Identity,
        headers: Headers<'_>,
        id: String,
    ) -> Option<Self> {
        let product = Rc::clone(product);
        if product.is_api() {
            let exchange = ApiExchange::start(config, product, identity, headers, id);
            return Some(Self::Api(Box::new(exchange)));
        }
        match product.llm.clone() {
            Some(rules) => match runs_agent(headers) {
                Some(run) => ApiExchange::start_step(product, rules, identity, run, headers, id)
                    .map(|exchange| Self::Api(Box::new(exchange))),
                None => LlmExchange::start(product, rules, identity, None, headers, id)
                    .map(|exchange| Self::Llm(Box::new(exchange))),
            },
            None if product.product_type == ProductType::AiAgent => {
                AgentExchange::start(config, product, identity, headers, &id)
                    .map(|exchange| Self::Agent(Box::new(exchange)))
            }
            None => {
                let exchange = McpExchange::start(config, product, identity, headers, id);
                Some(Self::Mcp(Box::new(exchange)))
            }
        }
    }

    /// Whether bodies may have to be edited on their way, as the product's `ask_for_usage` has it: the request's length
    /// is not known then, and the response must come without a coding.
    pub fn may_edit(&self) -> bool {
        match self {
            Self::Mcp(_) | Self::Agent(_) => false,
            Self::Llm(exchange) => exchange.may_edit(),
            Self::Api(exchange) => exchange.may_edit(),
        }
    }

    /// What is to be shown of the request's body.
    pub fn shows_request(&self) -> Show {
        match self {
            Self::Mcp(_) | Self::Llm(_) | Self::Agent(_) => Show::Bytes,
            Self::Api(exchange) => exchange.show(),
        }
    }

    /// The next bytes of the request's body. Gives what is to pass instead of them, if they may not pass as they are.
    pub fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        match self {
            Self::Mcp(exchange) => {
                exchange.request_body(chunk, now);
                None
            }
            Self::Agent(exchange) => {
                exchange.request_body(chunk, now);
                None
            }
            Self::Llm(exchange) => exchange.request_body(chunk, now),
            Self::Api(exchange) => exchange.request_body(chunk, now),
        }
    }

    /// The size of the next bytes of the request's body, where that is all that is shown.
    pub fn request_size(&mut self, bytes: usize, now: Timestamp) {
        if let Self::Api(exchange) = self {
            exchange.request_size(bytes, now);
        }
    }

    /// The request has ended.
    pub fn request_end(&mut self, now: Timestamp) {
        match self {
            Self::Mcp(exchange) => exchange.request_end(now),
            Self::Llm(exchange) => exchange.request_end(now),
            Self::Api(exchange) => exchange.request_end(now),
            Self::Agent(exchange) => exchange.request_end(now),
        }
    }

    /// The response's head. Gives what is to be shown of its body.
    pub fn response_head(&mut self, headers: Headers<'_>) -> Show {
        match self {
            Self::Mcp(exchange) => Show::bytes_if(exchange.response_head(headers)),
            Self::Agent(exchange) => Show::bytes_if(exchange.response_head(headers)),
            Self::Llm(exchange) => {
                exchange.response_head(headers);
                Show::Bytes
            }
            Self::Api(exchange) => {
                exchange.response_head(headers);
                exchange.show()
            }
        }
    }

    /// Whether the response's body may get shorter on its way, so that its length is not known.
    pub fn shortens_response(&self) -> bool {
        match self {
            Self::Mcp(_) | Self::Agent(_) => false,
            Self::Llm(exchange) => exchange.shortens_response(),
            Self::Api(exchange) => exchange.shortens_response(),
        }
    }

    /// What the response may be cut behind, if it is a stream that can be ended in the middle.
    pub fn stream_unit(&self) -> Option<Unit> {
        match self {
            Self::Mcp(exchange) => exchange.is_stream.then_some(Unit::Event),
            Self::Agent(exchange) => exchange.is_stream.then_some(Unit::Event),
            Self::Llm(exchange) => exchange.stream_unit(),
            Self::Api(exchange) => exchange.stream_unit(),
        }
    }

    /// The filter ends the response, which is such a stream. Gives the last events, or `None` if it has told all that
    /// it was asked for.
    pub fn stop(&mut self, refusal: &Refusal, now: Timestamp) -> Option<Vec<u8>> {
        match self {
            Self::Mcp(exchange) => exchange.stop(refusal, now),
            Self::Agent(exchange) => exchange.stop(refusal, now),
            Self::Llm(exchange) => exchange.stop(refusal),
            Self::Api(exchange) => exchange.stop(refusal),
        }
    }

    /// The next bytes of the response's body; `is_end` with the last, if that is known. Gives what is to pass instead
    /// of them, if they may not pass as they are.
    pub fn response_body(&mut self, chunk: &[u8], is_end: bool, now: Timestamp) -> Option<Vec<u8>> {
        match self {
            Self::Mcp(exchange) => {
                exchange.response_body(chunk, now);
                None
            }
            Self::Agent(exchange) => {
                exchange.response_body(chunk, now);
                None
            }
            Self::Llm(exchange) => exchange.response_body(chunk, is_end),
            Self::Api(exchange) => exchange.response_body(chunk, is_end),
        }
    }

    /// The size of the next bytes of the response's body, where that is all that is shown.
    pub fn response_size(&mut self, bytes: usize) {
        if let Self::Api(exchange) = self {
            exchange.response_size(bytes);
        }
    }

    /// Whether what Envoy's own filter has extracted is to be given to [`Exchange::envoy_usage`] before the end.
    pub fn wants_envoy_usage(&self) -> bool {
        match self {
            Self::Mcp(_) | Self::Agent(_) => false,
            Self::Llm(exchange) => exchange.wants_envoy_usage(),
            Self::Api(exchange) => exchange.wants_envoy_usage(),
        }
    }

    /// The record that Envoy's own filter has made of the response.
    pub fn envoy_usage(&mut self, record: &[u8]) {
        let generation = match self {
            Self::Mcp(_) | Self::Agent(_) => None,
            Self::Llm(exchange) => Some(exchange.as_mut()),
            Self::Api(exchange) => exchange.generation(),
        };
        if let Some(generation) = generation {
            generation.envoy_usage(record);
        }
    }

    /// The stream has ended, however that came about; gives the facts that are left.
    pub fn end(self, end: StreamEnd, now: Timestamp) -> Observed {
        match self {
            Self::Mcp(exchange) => exchange.end(end, now),
            Self::Llm(exchange) => exchange.end(now),
            Self::Api(exchange) => exchange.end(end, now),
            Self::Agent(exchange) => exchange.end(end, now),
        }
    }

    /// Gives up calls that have gone without an answer for too long, while the stream goes on.
    pub fn time_out(&mut self, now: Timestamp) {
        if let Self::Mcp(exchange) = self {
            exchange.time_out(now);
        }
    }

    /// What has been observed since the last time.
    pub fn take_observed(&mut self) -> Observed {
        match self {
            Self::Mcp(exchange) => exchange.take_observed(),
            Self::Llm(exchange) => exchange.take_observed(),
            Self::Api(exchange) => exchange.take_observed(),
            Self::Agent(exchange) => exchange.take_observed(),
        }
    }

    /// The session of this exchange while a call of it is running, and when that call started.
    pub fn running(&self) -> Option<(&SessionRef, Timestamp)> {
        match self {
            Self::Mcp(exchange) => exchange.running(),
            Self::Api(exchange) => exchange.running(),
            Self::Agent(exchange) => exchange.running(),
            // The call that caused a generation shows that its session lives.
            Self::Llm(_) => None,
        }
    }

    /// What the request asks, as far as it has come.
    pub fn asked(&self) -> Asked {
        match self {
            Self::Mcp(exchange) => exchange.asked(),
            Self::Llm(exchange) => exchange.asked(),
            Self::Api(exchange) => exchange.asked(),
            Self::Agent(exchange) => exchange.asked(),
        }
    }

    /// The request is answered by the filter, with this HTTP status; gives the facts of it.
    pub fn refuse(self, http_status: u16, now: Timestamp) -> Observed {
        match self {
            Self::Mcp(exchange) => exchange.refuse(http_status, now),
            Self::Llm(exchange) => exchange.refuse(),
            Self::Api(exchange) => exchange.refuse(http_status, now),
            Self::Agent(exchange) => exchange.refuse(http_status, now),
        }
    }

    /// The product that the exchange belongs to.
    pub fn product(&self) -> &Rc<Product> {
        match self {
            Self::Mcp(exchange) => exchange.product(),
            Self::Llm(exchange) => exchange.product(),
            Self::Api(exchange) => exchange.product(),
            Self::Agent(exchange) => exchange.product(),
        }
    }
}

/// What a request to a product of models is called, if it runs an agent.
fn runs_agent(headers: Headers<'_>) -> Option<&'static str> {
    let text = |name| headers.get(name).and_then(|text| core::str::from_utf8(text).ok());
    agent_run(text(":method")?, text(":path")?)
}
