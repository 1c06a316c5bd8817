//! One HTTP stream through the filter, from request head to its end: bytes in, facts out.
//! It never fails and never keeps a body; what it cannot read is counted and passes.

mod ask_for_usage;
mod llm;
mod mcp;

use std::rc::Rc;

use self::llm::LlmExchange;
use self::mcp::McpExchange;
pub use self::mcp::UNNAMED_TOOL;
use crate::config::{Config, Product};
use crate::counter::Counter;
use crate::fact::{Fact, SessionRef};
use crate::head::Headers;
use crate::units::Timestamp;

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

/// Everything that is known of one HTTP stream.
#[derive(Debug)]
pub enum Exchange {
    /// Messages of the Model Context Protocol.
    Mcp(Box<McpExchange>),
    /// A generation of a large language model.
    Llm(Box<LlmExchange>),
}

impl Exchange {
    /// Starts an exchange, or `None` if the request belongs to no product, or to nothing that is metered. `id` gives
    /// a name that is unique within the source.
    pub fn start(
        config: &Config,
        headers: Headers<'_>,
        id: impl FnOnce() -> String,
    ) -> Option<Self> {
        let path = headers.get(":path")?;
        let authority = headers.get(":authority").unwrap_or_default();
        let product = Rc::clone(config.product_for(authority, path)?);
        match product.llm.clone() {
            Some(rules) => {
                LlmExchange::start(product, rules, headers, id).map(|it| Self::Llm(Box::new(it)))
            }
            None => Some(Self::Mcp(Box::new(McpExchange::start(config, product, headers, id())))),
        }
    }

    /// Whether bodies may have to be edited on their way, as the product's `ask_for_usage` has it: the request's length
    /// is not known then, and the response must come without a coding.
    pub fn may_edit(&self) -> bool {
        matches!(self, Self::Llm(exchange) if exchange.may_edit())
    }

    /// The next bytes of the request's body. Gives what is to pass instead of them, if they may not pass as they are.
    pub fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        match self {
            Self::Mcp(exchange) => {
                exchange.request_body(chunk, now);
                None
            }
            Self::Llm(exchange) => exchange.request_body(chunk, now),
        }
    }

    /// The request has ended.
    pub fn request_end(&mut self, now: Timestamp) {
        match self {
            Self::Mcp(exchange) => exchange.request_end(now),
            Self::Llm(exchange) => exchange.request_end(now),
        }
    }

    /// The response's head. Gives whether its body is to be shown.
    pub fn response_head(&mut self, headers: Headers<'_>) -> bool {
        match self {
            Self::Mcp(exchange) => exchange.response_head(headers),
            Self::Llm(exchange) => {
                exchange.response_head(headers);
                true
            }
        }
    }

    /// Whether the response's body may get shorter on its way, so that its length is not known.
    pub fn shortens_response(&self) -> bool {
        matches!(self, Self::Llm(exchange) if exchange.shortens_response())
    }

    /// The next bytes of the response's body; `is_end` with the last, if that is known. Gives what is to pass instead
    /// of them, if they may not pass as they are.
    pub fn response_body(&mut self, chunk: &[u8], is_end: bool, now: Timestamp) -> Option<Vec<u8>> {
        match self {
            Self::Mcp(exchange) => {
                exchange.response_body(chunk, now);
                None
            }
            Self::Llm(exchange) => exchange.response_body(chunk, is_end),
        }
    }

    /// Whether what Envoy's own filter has extracted is to be given to [`Exchange::envoy_usage`] before the end.
    pub fn wants_envoy_usage(&self) -> bool {
        matches!(self, Self::Llm(exchange) if exchange.wants_envoy_usage())
    }

    /// The record that Envoy's own filter has made of the response.
    pub fn envoy_usage(&mut self, record: &[u8]) {
        if let Self::Llm(exchange) = self {
            exchange.envoy_usage(record);
        }
    }

    /// The stream has ended, however that came about; gives the facts that are left.
    pub fn end(self, end: StreamEnd, now: Timestamp) -> Observed {
        match self {
            Self::Mcp(exchange) => exchange.end(end, now),
            Self::Llm(exchange) => exchange.end(now),
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
        }
    }

    /// The session of this exchange while a call of it is running, and when that call started.
    pub fn running(&self) -> Option<(&SessionRef, Timestamp)> {
        match self {
            Self::Mcp(exchange) => exchange.running(),
            // The call that caused a generation shows that its session lives.
            Self::Llm(_) => None,
        }
    }

    /// The product that the exchange belongs to.
    pub fn product(&self) -> &Rc<Product> {
        match self {
            Self::Mcp(exchange) => exchange.product(),
            Self::Llm(exchange) => exchange.product(),
        }
    }
}
