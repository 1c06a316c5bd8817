//! The providers of large language models: one file and one row for each.
//!
//! To add a provider: its file beside these, with a `SPEC` (hosts, paths, endpoints), the
//! `PRICE_LISTS` that name it, and a `Format` for each wire format that no other file has; its
//! `mod` line and its row in the table below; bodies with their expected costs under
//! `tests/fixtures/llm`. Rows stand in the order of their numbers in facts: add new ones at the
//! end.

mod anthropic;
mod azure_openai;
mod bedrock;
mod cohere;
mod deepseek;
mod gemini;
mod mistral;
mod ollama;
mod openai;
mod openai_compatible;
mod vertex;
mod vllm;

use serde::{Deserialize, Serialize};

use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec, segments};
use crate::protocol::llm::generation::Format;
use crate::wire::target::host_and_port;

macro_rules! providers {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $file:ident;)+) => {
        /// Who runs the model. Rate cards and events call the provider by its name.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum Provider { $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+ }

        impl Provider {
            /// Every provider, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in events, rate cards and the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The provider's names in published price lists.
            pub const fn price_lists(self) -> PriceLists {
                match self { $(Self::$variant => $file::PRICE_LISTS,)+ }
            }

            const fn spec(self) -> &'static Spec {
                match self { $(Self::$variant => &$file::SPEC,)+ }
            }
        }
    };
}

providers! {
    /// OpenAI.
    OpenAi = "openai", openai;
    /// Azure OpenAI.
    AzureOpenAi = "azure_openai", azure_openai;
    /// Anthropic.
    Anthropic = "anthropic", anthropic;
    /// The Gemini API.
    Gemini = "gemini", gemini;
    /// Vertex AI.
    Vertex = "vertex", vertex;
    /// Amazon Bedrock.
    Bedrock = "bedrock", bedrock;
    /// Mistral.
    Mistral = "mistral", mistral;
    /// Cohere.
    Cohere = "cohere", cohere;
    /// DeepSeek.
    DeepSeek = "deepseek", deepseek;
    /// vLLM.
    Vllm = "vllm", vllm;
    /// Ollama.
    Ollama = "ollama", ollama;
    /// Any other server that is compatible with OpenAI.
    OpenAiCompatible = "openai_compatible", openai_compatible;
}

/// A request that starts a generation or fetches one.
#[derive(Clone, Debug)]
pub struct Route {
    /// Who runs the model.
    pub provider: Provider,
    /// How the response reports its usage.
    pub format: &'static Format,
    /// The model, if the path names it.
    pub model: Option<String>,
    /// True if another response may report the same generation again: the filter counts it by its
    /// id.
    pub reports_again: bool,
}

/// The route of a request; `None` if it does not concern a generation. `provider` is the configured
/// one; without one the host decides, and then the path. The words of a path are those of a provider
/// in any case, as many servers do not distinguish it.
pub fn route(provider: Option<Provider>, method: &str, host: &str, path: &str) -> Option<Route> {
    let route_to = |path: &str| {
        let segments = segments(path);
        let segments = segments.as_slice();
        let provider = provider.or_else(|| by_host(host)).or_else(|| by_path(segments));
        let provider = provider.unwrap_or(Provider::OpenAiCompatible);
        let endpoint = (provider.spec().endpoint)(method, segments)?;
        let Endpoint { format, model, reports_again } = endpoint;
        Some(Route { provider, format, model, reports_again })
    };
    route_to(path).or_else(|| in_lower_case(path).and_then(|path| route_to(&path)))
}

/// Whether providers charge nothing for a `POST` to this path: it counts tokens, or keeps files,
/// threads and the like.
pub(crate) fn is_free(path: &str) -> bool {
    const ENDS: &[&str] = &[
        "count_tokens",
        "input_tokens",
        "moderations",
        "tokenize",
        "detokenize",
        "apply_template",
        "apply-guardrail",
    ];
    const ROOMS: &[&str] = &[
        "files",
        "uploads",
        "vector_stores",
        "assistants",
        "threads",
        "conversations",
        "containers",
        "cachedcontents",
        "fine_tuning",
        "guardrail",
    ];
    let path = path.to_ascii_lowercase();
    let segments = segments(&path);
    let last = segments.last().copied().unwrap_or_default();
    let verb = last.rsplit(':').next().unwrap_or_default();
    ENDS.contains(&last)
        || ["counttokens", "computetokens", "count-tokens"].contains(&verb)
        || segments.iter().any(|segment| ROOMS.contains(segment))
        || matches!(segments.as_slice(), [.., "api", "show" | "pull" | "push" | "copy" | "create"])
}

/// The name in events of a request that runs an agent (Responses and Assistants runs); `None` if
/// the request runs none.
pub(crate) fn agent_run(method: &str, path: &str) -> Option<&'static str> {
    let run_of = |path: &str| openai::agent_run(method, segments(path).as_slice());
    run_of(path).or_else(|| run_of(&in_lower_case(path)?))
}

/// Whether a request of a route makes a generation, and does not ask for one that exists.
pub(crate) fn is_creation(method: &str, path: &str) -> bool {
    let last = segments(path).last().copied().unwrap_or_default();
    method == "POST" && !last.eq_ignore_ascii_case("cancel")
}

/// The conversation that a path names.
pub(crate) fn conversation_in(path: &str) -> Option<String> {
    let thread_of = |path: &str| openai::thread(segments(path).as_slice()).map(str::to_owned);
    thread_of(path).or_else(|| thread_of(&in_lower_case(path)?))
}

/// Whether a request to this path may set `stream_options.include_usage`, and needs it to get usage
/// in its stream.
pub(crate) fn takes_stream_options(provider: Provider, path: &str) -> bool {
    let is_word = |word: &str| word.eq_ignore_ascii_case("completions");
    let is_completion = segments(path).last().is_some_and(|word| is_word(word));
    is_completion && !provider.spec().tells_usage_unasked
}

/// A path in lower case, if that makes a difference.
fn in_lower_case(path: &str) -> Option<String> {
    path.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| path.to_ascii_lowercase())
}

fn by_host(host: &str) -> Option<Provider> {
    let (name, port) = host_and_port(host.as_bytes());
    let name = core::str::from_utf8(name).ok()?.to_ascii_lowercase();
    let port = core::str::from_utf8(port).ok()?;
    Provider::ALL.iter().copied().find(|provider| provider.spec().has_host(&name, port))
}

/// The provider whose paths look like this one.
fn by_path(segments: &[&str]) -> Option<Provider> {
    Provider::ALL.iter().copied().find(|provider| (provider.spec().is_path)(segments))
}
