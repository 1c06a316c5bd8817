//! The providers of large language models: one file and one row each.

pub mod anthropic;
pub mod azure_openai;
pub mod bedrock;
pub mod cohere;
pub mod deepseek;
pub mod gemini;
pub mod mistral;
pub mod ollama;
pub mod openai;
pub mod openai_compatible;
pub mod vertex;
pub mod vllm;

use serde::{Deserialize, Serialize};

use crate::protocol::llm::generation;
use crate::protocol::llm::generation::Route;

/// What a request asks for, or `None` if it makes no generation. `provider` is the configured one; without one the
/// host and then the path tell.
pub fn route(provider: Option<Provider>, method: &str, host: &str, path: &str) -> Option<Route> {
    let segments = generation::segments(path);
    let segments = segments.as_slice();
    let provider = provider.or_else(|| by_host(host)).or_else(|| by_path(segments));
    match provider.unwrap_or(Provider::OpenAiCompatible) {
        Provider::OpenAi => openai::route(method, segments),
        Provider::AzureOpenAi => azure_openai::route(method, segments),
        Provider::Anthropic => anthropic::route(method, segments),
        Provider::Gemini => gemini::route(method, segments),
        Provider::Vertex => vertex::route(method, segments),
        Provider::Bedrock => bedrock::route(method, segments),
        Provider::Mistral => mistral::route(method, segments),
        Provider::Cohere => cohere::route(method, segments),
        Provider::DeepSeek => deepseek::route(method, segments),
        Provider::Vllm => vllm::route(method, segments),
        Provider::Ollama => ollama::route(method, segments),
        Provider::OpenAiCompatible => {
            openai_compatible::route(Provider::OpenAiCompatible, method, segments)
        }
    }
}

/// What a request that runs an agent is called in events, or `None` if it runs none: Responses and Assistants runs.
pub fn agent_run(method: &str, path: &str) -> Option<&'static str> {
    openai::agent_run(method, generation::segments(path).as_slice())
}

/// The conversation that a path names.
pub fn conversation_in(path: &str) -> Option<&str> {
    openai::thread(generation::segments(path).as_slice())
}

/// Whether a request to this path may say `stream_options.include_usage`, and needs to for usage in its stream.
pub fn takes_stream_options(provider: Provider, path: &str) -> bool {
    let is_completion = matches!(generation::segments(path).as_slice(), [.., "completions"]);
    // Mistral always tells.
    is_completion && provider != Provider::Mistral
}

/// Domains, each with its subdomains.
const DOMAINS: &[(&str, Provider)] = &[
    ("api.openai.com", Provider::OpenAi),
    ("openai.azure.com", Provider::AzureOpenAi),
    ("openai.azure.us", Provider::AzureOpenAi),
    ("services.ai.azure.com", Provider::AzureOpenAi),
    ("cognitiveservices.azure.com", Provider::AzureOpenAi),
    ("api.anthropic.com", Provider::Anthropic),
    ("generativelanguage.googleapis.com", Provider::Gemini),
    ("aiplatform.googleapis.com", Provider::Vertex),
    ("api.mistral.ai", Provider::Mistral),
    ("codestral.mistral.ai", Provider::Mistral),
    ("api.cohere.com", Provider::Cohere),
    ("api.cohere.ai", Provider::Cohere),
    ("api.deepseek.com", Provider::DeepSeek),
    ("ollama.com", Provider::Ollama),
];

/// The port on which Ollama listens.
const OLLAMA_PORT: &str = "11434";

fn by_host(host: &str) -> Option<Provider> {
    let host = host.to_ascii_lowercase();
    let (name, port) = match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if !port.contains(']') => (name, port),
        _ => (host.as_str(), ""),
    };
    let name = name.trim_end_matches('.');
    let is_at = |domain: &str| {
        name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    if let Some((_, provider)) = DOMAINS.iter().find(|(domain, _)| is_at(domain)) {
        return Some(*provider);
    }
    let has_label = |label: &str| name.split('.').any(|other| other == label);
    let is_amazon = is_at("amazonaws.com") || is_at("amazonaws.com.cn") || is_at("api.aws");
    // Regions stand before the name, `europe-west4-aiplatform`, or behind it, `aiplatform.eu.rep`.
    let is_vertex = name.ends_with("-aiplatform.googleapis.com")
        || (name.starts_with("aiplatform.") && is_at("rep.googleapis.com"));
    let is_bedrock = ["bedrock-runtime", "bedrock-runtime-fips", "bedrock-mantle"];
    if is_amazon && is_bedrock.into_iter().any(has_label) {
        Some(Provider::Bedrock)
    } else if is_vertex {
        Some(Provider::Vertex)
    } else if port == OLLAMA_PORT {
        Some(Provider::Ollama)
    } else {
        None
    }
}

/// The provider whose paths look like this one; a path like OpenAI's may be anybody's.
fn by_path(segments: &[&str]) -> Option<Provider> {
    match segments {
        _ if bedrock::is_path(segments) => Some(Provider::Bedrock),
        [.., "v1", "messages"] => Some(Provider::Anthropic),
        [.., "deployments", _, "completions" | "embeddings"]
        | [.., "deployments", _, _, "completions" | "generations" | "edits"]
        | [.., "deployments", _, "audio", _] => Some(Provider::AzureOpenAi),
        [.., "projects", _, "locations", _, "endpoints", "openapi", "chat", "completions"]
        | [.., "publishers", _, "models", _] => Some(Provider::Vertex),
        [.., "projects", _, "locations", _, "endpoints", call]
            if generation::split_verb(call).is_some() =>
        {
            Some(Provider::Vertex)
        }
        [.., "models" | "tunedModels", call] if generation::split_verb(call).is_some() => {
            Some(Provider::Gemini)
        }
        [.., "projects", _, "locations", _, "interactions"]
        | [.., "projects", _, "locations", _, "interactions", _] => Some(Provider::Vertex),
        [.., "v1beta", "openai", "chat", "completions"] => Some(Provider::Gemini),
        [.., "v1beta", "interactions"] | [.., "v1beta", "interactions", _] => {
            Some(Provider::Gemini)
        }
        [.., "v1" | "v2", "chat" | "embed"] | [.., "v1", "generate"] => Some(Provider::Cohere),
        [.., "fim", "completions"] => Some(Provider::Mistral),
        [.., "api", "chat" | "generate" | "embed" | "embeddings"] => Some(Provider::Ollama),
        _ => None,
    }
}

/// Who runs the model; the name under which rate cards and events know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// OpenAI.
    #[serde(rename = "openai")]
    OpenAi,
    /// Azure OpenAI.
    #[serde(rename = "azure_openai")]
    AzureOpenAi,
    /// Anthropic.
    Anthropic,
    /// The Gemini API.
    Gemini,
    /// Vertex AI.
    Vertex,
    /// Amazon Bedrock.
    Bedrock,
    /// Mistral.
    Mistral,
    /// Cohere.
    Cohere,
    /// DeepSeek.
    #[serde(rename = "deepseek")]
    DeepSeek,
    /// vLLM.
    Vllm,
    /// Ollama.
    Ollama,
    /// Any other server that speaks like OpenAI.
    #[serde(rename = "openai_compatible")]
    OpenAiCompatible,
}

impl Provider {
    /// Every provider.
    pub const ALL: [Self; 12] = [
        Self::OpenAi,
        Self::AzureOpenAi,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Bedrock,
        Self::Mistral,
        Self::Cohere,
        Self::DeepSeek,
        Self::Vllm,
        Self::Ollama,
        Self::OpenAiCompatible,
    ];

    /// The name in events, rate cards and the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::AzureOpenAi => "azure_openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Bedrock => "bedrock",
            Self::Mistral => "mistral",
            Self::Cohere => "cohere",
            Self::DeepSeek => "deepseek",
            Self::Vllm => "vllm",
            Self::Ollama => "ollama",
            Self::OpenAiCompatible => "openai_compatible",
        }
    }
}
