//! Where a provider runs a model, as far as the host or the path of a request tells it.
//!
//! Providers name their regions in hosts (`bedrock-runtime.eu-west-1.amazonaws.com`,
//! `europe-west4-aiplatform.googleapis.com`, `eu.api.openai.com`) or paths
//! (`/v1/projects/p/locations/europe-west4/...`); read 2026-11.

use crate::domain::price_factors::Word;
use crate::protocol::llm::endpoint::segments;
use crate::wire::target::host_and_port;

/// Hosts whose labels in front are a location, with what stands between the location and the domain.
/// The `*` stands for the location.
const HOSTS: &[&str] = &[
    // Vertex AI.
    "*-aiplatform.googleapis.com",
    "aiplatform.*.rep.googleapis.com",
    // Amazon Bedrock and SageMaker.
    "bedrock-runtime.*.amazonaws.com",
    "bedrock-runtime-fips.*.amazonaws.com",
    "bedrock-runtime.*.amazonaws.com.cn",
    "bedrock-runtime.*.api.aws",
    "bedrock-mantle.*.api.aws",
    "runtime.sagemaker.*.amazonaws.com",
    // OpenAI's data residency, and xAI's regions.
    "*.api.openai.com",
    "*.api.x.ai",
    // Azure.
    "*.api.cognitive.microsoft.com",
    // DashScope, OCI and watsonx.
    "dashscope-*.aliyuncs.com",
    "inference.generativeai.*.oci.oraclecloud.com",
    "*.ml.cloud.ibm.com",
];

/// The location that a request names. A path says it more exactly than a host.
pub(crate) fn location(host: &str, path: &str) -> Option<Word> {
    in_path(path).or_else(|| in_host(host))
}

fn in_path(path: &str) -> Option<Word> {
    let segments = segments(path);
    let at = segments.iter().position(|segment| *segment == "locations")?;
    segments.get(at.saturating_add(1)).map(|location| Word::new(location))
}

fn in_host(host: &str) -> Option<Word> {
    let (name, _) = host_and_port(host.as_bytes());
    let name = core::str::from_utf8(name).ok()?.to_ascii_lowercase();
    HOSTS.iter().find_map(|pattern| {
        let (before, behind) = pattern.split_once('*')?;
        let location = name.strip_prefix(before)?.strip_suffix(behind)?;
        // One label: a longer name is another host.
        (!location.is_empty() && !location.contains('.')).then(|| Word::new(location))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_or_the_path_tells_the_location() {
        for (host, path, expected) in [
            ("api.openai.com", "/v1/responses", None),
            ("eu.api.openai.com", "/v1/responses", Some("eu")),
            ("a.b.api.openai.com", "/v1/responses", None),
            ("EU-west-1.api.x.ai:443", "/v1/chat/completions", Some("eu-west-1")),
            ("bedrock-runtime.eu-west-1.amazonaws.com", "/model/m/converse", Some("eu-west-1")),
            ("europe-west4-aiplatform.googleapis.com", "/v1/x", Some("europe-west4")),
            ("aiplatform.eu.rep.googleapis.com", "/v1/x", Some("eu")),
            (
                "aiplatform.googleapis.com",
                "/v1/projects/p/locations/global/publishers/google/models/gemini:generateContent",
                Some("global"),
            ),
            (
                "us-central1-aiplatform.googleapis.com",
                "/v1/projects/p/locations/us-central1/endpoints/1:predict",
                Some("us-central1"),
            ),
            ("dashscope-intl.aliyuncs.com", "/compatible-mode/v1/chat/completions", Some("intl")),
            ("dashscope.aliyuncs.com", "/compatible-mode/v1/chat/completions", None),
            ("gateway", "/v1/locations", None),
            ("", "", None),
        ] {
            let found = location(host, path);
            assert_eq!(found.as_ref().map(Word::as_str), expected, "{host} {path}");
        }
    }
}
