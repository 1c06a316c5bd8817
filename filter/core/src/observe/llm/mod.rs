//! What the requests and responses of large language models say. One file for each provider; each says which of its
//! counts include which.
//!
//! A new provider: a file with a table of paths, a `fold` and a `route`; a name in [`Provider`]; a line in [`route`];
//! fixtures under `tests/fixtures/llm`.

mod anthropic;
mod envoy;
mod generation;
mod openai;
mod request;
mod response;

pub use self::envoy::read_token_usage;
pub use self::generation::{Format, Generation, Route, Stage};
pub use self::request::{RequestReader, Requested};
pub use self::response::ResponseReader;
use crate::usage::Provider;

/// What a request asks for, or `None` if it makes no generation. `provider` is the configured one; without one the
/// host and then the path tell.
pub fn route(provider: Option<Provider>, method: &str, host: &str, path: &str) -> Option<Route> {
    let provider = provider.or_else(|| by_host(host)).or_else(|| by_path(path));
    match provider.unwrap_or(Provider::OpenAiCompatible) {
        Provider::Anthropic => anthropic::route(method, path),
        provider => openai::route(provider, method, path),
    }
}

fn by_host(host: &str) -> Option<Provider> {
    let host = host.split(':').next().unwrap_or_default();
    let is_at = |domain: &str| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    const DOMAINS: &[(&str, Provider)] =
        &[("api.openai.com", Provider::OpenAi), ("api.anthropic.com", Provider::Anthropic)];
    DOMAINS.iter().find(|(domain, _)| is_at(domain)).map(|(_, provider)| *provider)
}

fn by_path(path: &str) -> Option<Provider> {
    let segments = generation::segments(path);
    match segments.as_slice() {
        [.., "messages"] => Some(Provider::Anthropic),
        _ => None,
    }
}
