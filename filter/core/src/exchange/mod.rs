//! Follows one HTTP stream through the filter, from the request's head to its end: bytes in, facts
//! out. An exchange never fails and never keeps a body. It counts what it cannot read, and lets it
//! pass.
//!
//! To add a kind of exchange, add a file with a type that implements [`Exchange`], and its line in
//! [`start`].

pub mod a2a;
pub mod kind;
pub mod link;

mod api;
mod llm;
mod mcp;
mod starts;

pub use self::kind::{Exchange, Unmetered};
use crate::admission::Admitted;
use crate::config::Config;
use crate::config::product::Speaks;
use crate::exchange::a2a::A2aExchange;
use crate::exchange::api::ApiExchange;
use crate::exchange::llm::LlmExchange;
use crate::exchange::mcp::McpExchange;
use crate::protocol::llm::provider::agent_run;

/// Starts the exchange of a request, or says why there is none. `id` is unique within the source.
pub fn start(
    config: &Config,
    admitted: Admitted<'_>,
    id: String,
) -> Result<Box<dyn Exchange>, Unmetered> {
    let Admitted { product, head, .. } = admitted;
    match (product.product_type.traits().speaks, product.llm.clone()) {
        (Speaks::Api, _) => Ok(Box::new(ApiExchange::start(config, product, head, id)?)),
        (_, Some(rules)) => {
            let run = head
                .methods()
                .find_map(|method| head.target.paths().find_map(|path| agent_run(method, path)));
            Ok(match run {
                Some(run) => Box::new(ApiExchange::start_step(product, rules, run, head, id)?),
                None => Box::new(LlmExchange::start(product, rules, None, head, id)?),
            })
        }
        (Speaks::Agent, None) => {
            let exchange = A2aExchange::start(config, product, head, &id);
            Ok(Box::new(exchange.ok_or(Unmetered::Free)?))
        }
        (Speaks::Mcp, None) => Ok(Box::new(McpExchange::start(config, product, head, id))),
    }
}
