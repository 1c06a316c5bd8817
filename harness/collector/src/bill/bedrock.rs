//! Reads the usage types under which AWS bills Amazon Bedrock.
//!
//! Source: "Understanding your Amazon Bedrock Cost and Usage Report data" in Bedrock's user guide,
//! and AWS' price list, both of 2026. There are three forms, each with a region before it:
//!
//! | form | the model |
//! |---|---|
//! | `USE1-Claude4.6Sonnet-cache-read-input-token-count-cross-region-global` | by a name of the price list |
//! | `USE1-openai.gpt-oss-120b-mantle-input-tokens-standard` | by its id |
//! | `USE1-MP:USE1_InputTokenCount_Global-Units` | in the name of the product: `Claude Sonnet 4.6 (Amazon Bedrock Edition)` |

use crate::bill::amount::Amount;
use crate::bill::line::{Kind, Provider, Subject};
use crate::bill::services::service;

/// The codes of the services under which AWS sells Bedrock.
const SERVICE_CODES: [&str; 3] =
    ["AmazonBedrock", "AmazonBedrockService", "AmazonBedrockFoundationModels"];
/// How the name of a product ends that AWS' marketplace sells for Bedrock.
const EDITION: &str = "(Amazon Bedrock Edition)";

/// What stands between the model and the tier, in lower case. The first that is found counts.
const MARKERS: [(&str, Kind); 12] = [
    ("-cache-read-input-token-count", Kind::CacheRead),
    ("-cache-write-input-token-count", Kind::CacheWrite),
    ("-mantle-cache-read-tokens", Kind::CacheRead),
    ("-mantle-cache-write-tokens", Kind::CacheWrite),
    ("-mantle-input-tokens", Kind::Input),
    ("-mantle-output-tokens", Kind::Output),
    ("-text-input-tokens", Kind::Input),
    ("-text-output-tokens", Kind::Output),
    ("-input-tokens", Kind::Input),
    ("-output-tokens", Kind::Output),
    ("-input-token-count", Kind::Input),
    ("-output-token-count", Kind::Output),
];

/// True if a line is about Bedrock, by the code of its service or the name of its product.
pub(super) fn is_bedrock(code: &str, product: &str) -> bool {
    SERVICE_CODES.contains(&code) || product == "Amazon Bedrock" || product.contains(EDITION)
}

/// What a usage type says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UsageType {
    pub(super) subject: Subject,
    pub(super) kind: Kind,
    pub(super) is_batch: bool,
}

/// Reads a usage type, with the name of the product where it does not name the model.
pub(super) fn usage_type(text: &str, product: &str) -> UsageType {
    let rest = without_region(text);
    if let Some(sold) = rest.strip_prefix("MP:") {
        return marketplace(sold, product);
    }
    let lower = rest.to_ascii_lowercase();
    let found = MARKERS.iter().find_map(|(marker, kind)| {
        lower.find(marker).map(|at| (at, at + marker.len(), marker, *kind))
    });
    let Some((at, end, marker, kind)) = found else {
        return UsageType { subject: other(rest), kind: Kind::Other, is_batch: false };
    };
    let (model, tier) = (&rest[..at], &lower[end..]);
    // Another model of ours: one that was trained for somebody.
    let is_custom = tier.contains("custom-model");
    let subject = match () {
        () if is_custom => Subject::Name(rest.to_owned()),
        () if marker.starts_with("-mantle-") => Subject::Id(model.to_owned()),
        () => Subject::Name(model.to_owned()),
    };
    UsageType { subject, kind, is_batch: tier.split('-').any(|word| word == "batch") }
}

/// A usage type of the marketplace, without the region and `MP:`.
fn marketplace(text: &str, product: &str) -> UsageType {
    let words = text.split_once('_').map_or(text, |(_, words)| words);
    let lower = words.to_ascii_lowercase();
    let plain = lower.replace('_', "");
    let kind = match () {
        () if plain.starts_with("cacheread") => Kind::CacheRead,
        () if plain.starts_with("cachewrite") => Kind::CacheWrite,
        () if plain.starts_with("inputtoken") => Kind::Input,
        () if plain.starts_with("outputtoken") => Kind::Output,
        () => Kind::Other,
    };
    let is_batch = lower.split(['_', '-']).any(|word| word == "batch");
    let name = product.split(EDITION).next().unwrap_or_default().trim();
    let subject = match (kind, name) {
        (Kind::Other, _) => other(if name.is_empty() { text } else { product }),
        (_, "") => Subject::Unknown(text.to_owned()),
        (_, name) => Subject::Name(name.to_owned()),
    };
    UsageType { subject, kind, is_batch }
}

fn other(text: &str) -> Subject {
    service(Provider::Aws, text).unwrap_or_else(|| Subject::Unknown(text.to_owned()))
}

/// Without `USE1-`.
fn without_region(text: &str) -> &str {
    let is_region = |region: &str| {
        let is_code = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit();
        (2..=5).contains(&region.len()) && region.bytes().all(is_code)
    };
    match text.split_once('-') {
        Some((region, rest)) if is_region(region) => rest,
        _ => text,
    }
}

/// How many tokens a quantity is, if its unit says so: `1K tokens`, `1M tokens` or `Tokens`.
pub(super) fn tokens(kind: Kind, quantity: Option<Amount>, unit: &str) -> Option<Amount> {
    let each = match unit.to_ascii_lowercase().as_str() {
        _ if kind == Kind::Other => return None,
        "tokens" | "token" => 1,
        "1k tokens" | "1000 tokens" => 1000,
        "1m tokens" | "million tokens" => 1_000_000,
        _ => return None,
    };
    quantity?.share(Amount::from(each), Amount::from(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_types_name_models_kinds_and_batches() {
        let name = |text: &str| Subject::Name(text.to_owned());
        let sonnet = "Claude Sonnet 4.6 (Amazon Bedrock Edition)";
        for (text, product, subject, kind, is_batch) in [
            ("USE1-ClaudeSonnet4-input-tokens", "", name("ClaudeSonnet4"), Kind::Input, false),
            (
                "USE1-Claude4.6Sonnet-cache-read-input-token-count-cross-region-global",
                "",
                name("Claude4.6Sonnet"),
                Kind::CacheRead,
                false,
            ),
            (
                "EU-Llama4-Maverick-17B-input-tokens-batch",
                "",
                name("Llama4-Maverick-17B"),
                Kind::Input,
                true,
            ),
            (
                "USE1-Nova2.0Pro-text-output-tokens-priority-cross-region-global",
                "",
                name("Nova2.0Pro"),
                Kind::Output,
                false,
            ),
            (
                "USE1-openai.gpt-oss-120b-mantle-input-tokens-standard",
                "",
                Subject::Id("openai.gpt-oss-120b".to_owned()),
                Kind::Input,
                false,
            ),
            (
                "USE1-MP:USE1_InputTokenCount_Global_Batch-Units",
                sonnet,
                name("Claude Sonnet 4.6"),
                Kind::Input,
                true,
            ),
            (
                "USE1-MP:USE1_cache_write_tokens_global_standard-Units",
                sonnet,
                name("Claude Sonnet 4.6"),
                Kind::CacheWrite,
                false,
            ),
            (
                "USE1-MP:USE1_InputTokenCount-Units",
                "",
                Subject::Unknown("USE1_InputTokenCount-Units".to_owned()),
                Kind::Input,
                false,
            ),
            (
                "USE1-NovaLite-input-tokens-custom-model",
                "",
                name("NovaLite-input-tokens-custom-model"),
                Kind::Input,
                false,
            ),
            (
                "USE1-NovaLite-Customization-Training",
                "",
                Subject::Service("NovaLite-Customization-Training".to_owned()),
                Kind::Other,
                false,
            ),
            (
                "USE1-Guardrail-ContentPolicyUnitsConsumed",
                "",
                Subject::Unit("guardrail_units"),
                Kind::Other,
                false,
            ),
            (
                "USE1-NovaCanvas-T2I-1024-Standard",
                "",
                Subject::Unknown("NovaCanvas-T2I-1024-Standard".to_owned()),
                Kind::Other,
                false,
            ),
        ] {
            assert_eq!(usage_type(text, product), UsageType { subject, kind, is_batch }, "{text}");
        }
    }
}
