//! Who sells the models that a request asks for, how it is spoken to, and what its own paths mean.

use agent_meter_core::config::Config;
use agent_meter_core::domain::seller::Seller;
use agent_meter_core::protocol::llm::provider::{
    Asked, Family, Operation, OwnPath, PRESETS, Preset, price_lists, route,
};
use serde_json::{Value, json};

use crate::support::test;

const CHAT: &str = "/v1/chat/completions";

/// Seller, family and model of a request.
fn found(asked: Asked<'_>, method: &str, host: &str, path: &str) -> Option<[String; 3]> {
    let route = route(asked, method, host, path)?;
    let seller = route.provider.seller.name().to_owned();
    Some([seller, route.provider.family.name().to_owned(), route.model.unwrap_or_default()])
}

#[test]
fn the_host_the_name_and_then_the_path_tell_the_seller() {
    let compatible = "openai_compatible";
    for (named, host, path, expected) in [
        ("", "api.groq.com", "/openai/v1/chat/completions", Some(["groq", compatible, ""])),
        ("", "API.Groq.com.:443", "/openai/v1/responses", Some(["groq", compatible, ""])),
        ("", "notapi.groq.com", CHAT, Some([compatible, compatible, ""])),
        ("", "openrouter.ai", "/api/v1/messages", Some(["openrouter", compatible, ""])),
        ("", "api.perplexity.ai", "/chat/completions", Some(["perplexity", compatible, ""])),
        (
            "",
            "dashscope-intl.aliyuncs.com",
            "/compatible-mode/v1/chat/completions",
            Some(["dashscope", compatible, ""]),
        ),
        (
            "",
            "ark.cn-beijing.volces.com",
            "/api/v3/chat/completions",
            Some(["volcengine", compatible, ""]),
        ),
        ("", "ark.volces.com", CHAT, Some([compatible, compatible, ""])),
        ("", "api.voyageai.com", "/v1/multimodalembeddings", Some(["voyage", compatible, ""])),
        ("", "api.minimax.io", "/v1/text/chatcompletion_v2", Some(["minimax", compatible, ""])),
        (
            "",
            "dbc-1.cloud.databricks.com",
            "/serving-endpoints/databricks-claude-sonnet-4/invocations",
            Some(["databricks", compatible, "databricks-claude-sonnet-4"]),
        ),
        (
            "",
            "gw",
            "/ws/serving-endpoints/own/invocations",
            Some(["databricks", compatible, "own"]),
        ),
        (
            "",
            "a.snowflakecomputing.com",
            "/api/v2/cortex/inference:complete",
            Some(["snowflake", compatible, ""]),
        ),
        (
            "",
            "api.cloudflare.com",
            "/client/v4/accounts/1/ai/run/@cf/meta/llama-3.1-8b-instruct",
            Some(["cloudflare", compatible, "@cf/meta/llama-3.1-8b-instruct"]),
        ),
        ("", "gw", "/ai/run/@cf/meta/m", Some(["cloudflare", compatible, "@cf/meta/m"])),
        (
            "",
            "api.cloudflare.com",
            "/client/v4/accounts/1/ai/v1/chat/completions",
            Some(["cloudflare", compatible, ""]),
        ),
        (
            "",
            "runtime.sagemaker.us-east-1.amazonaws.com",
            "/endpoints/own/invocations",
            Some(["sagemaker", compatible, "own"]),
        ),
        (
            "",
            "us-south.ml.cloud.ibm.com",
            "/ml/v1/deployments/d-1/text/chat_stream?version=1",
            Some(["watsonx", compatible, "d-1"]),
        ),
        (
            "",
            "api.replicate.com",
            "/v1/models/meta/llama/predictions",
            Some(["replicate", compatible, "meta/llama"]),
        ),
        (
            "",
            "dashscope.aliyuncs.com",
            "/api/v1/services/aigc/text-generation/generation",
            Some(["dashscope", compatible, ""]),
        ),
        ("", "gw", "/20231130/actions/chat", Some(["oci", compatible, ""])),
        ("", "tgi:8080", "/generate_stream", Some(["tgi", compatible, ""])),
        ("", "gw", "/completion", Some(["llama_cpp", compatible, ""])),
        ("groq", "gw", "/completion", None),
        // A seller and a gateway speak the formats of others too, on paths as these have.
        (
            "",
            "api.portkey.ai",
            "/v1beta/models/m:generateContent",
            Some(["portkey", "gemini", "m"]),
        ),
        ("litellm", "gw", CHAT, Some(["litellm", compatible, ""])),
        ("litellm", "gw", "/anthropic/v1/messages", Some(["litellm", compatible, ""])),
        ("litellm", "gw", "/bedrock/model/m/converse", Some(["litellm", "bedrock", "m"])),
        ("litellm", "gw", "/serving-endpoints/own/invocations", None),
        // The name goes before the host.
        ("groq", "api.openai.com", CHAT, Some(["groq", compatible, ""])),
        ("openai", "api.groq.com", CHAT, Some(["openai", "openai", ""])),
        ("openai", "api.groq.com", "/v1/messages", None),
        (
            "databricks",
            "gw",
            "/x/serving-endpoints/own/invocations",
            Some(["databricks", compatible, "own"]),
        ),
        ("groq", "gw", "/serving-endpoints/own/invocations", None),
    ] {
        let asked = Asked { seller: Seller::new(named), ..Asked::default() };
        let expected = expected.map(|words| words.map(str::to_owned));
        assert_eq!(found(asked, "POST", host, path), expected, "{named} {host} {path}");
    }
}

#[test]
fn a_format_is_spoken_by_whoever_sells() {
    let anthropic = Some(Family::Anthropic);
    for (named, family, host, path, expected) in [
        ("acme", anthropic, "gw", "/v1/messages", Some(["acme", "anthropic"])),
        ("acme", anthropic, "gw", CHAT, None),
        ("groq", anthropic, "gw", "/v1/messages", Some(["groq", "anthropic"])),
        ("", anthropic, "gw", "/v1/messages", Some(["anthropic", "anthropic"])),
        ("", anthropic, "api.x.ai", "/v1/messages", Some(["xai", "anthropic"])),
        ("", anthropic, "api.openai.com", "/v1/messages", Some(["openai", "anthropic"])),
        ("", Some(Family::Bedrock), "gw", "/model/m/converse", Some(["bedrock", "bedrock"])),
        ("acme", Some(Family::Vertex), "api.openai.com", CHAT, Some(["acme", "vertex"])),
    ] {
        let asked = Asked { seller: Seller::new(named), family, ..Asked::default() };
        let found = found(asked, "POST", host, path).map(|[seller, family, _]| [seller, family]);
        let expected = expected.map(|words| words.map(str::to_owned));
        assert_eq!(found, expected, "{named} {family:?} {host} {path}");
    }
}

#[test]
fn an_own_path_goes_before_all_others() {
    let own = |path: &str, operation| OwnPath { path: path.into(), operation };
    let paths = [
        own("/gw/*/ask/{model}", Operation::Chat),
        own("/claude", Operation::Messages),
        own("/llm/{model}:run", Operation::Responses),
        own("/v1/messages", Operation::Embeddings),
    ];
    for (method, path, expected) in [
        (
            "POST",
            "/gw/eu/ask/meta/llama%2B3?x=1",
            Some(["openai_compatible", "openai_compatible", "meta/llama+3"]),
        ),
        ("POST", "/GW/eu/Ask/m", Some(["openai_compatible", "openai_compatible", "m"])),
        ("GET", "/gw/eu/ask/m", None),
        ("POST", "/gw/eu/ask", None),
        ("POST", "/claude", Some(["anthropic", "anthropic", ""])),
        ("POST", "/x/claude", None),
        ("GET", "/llm/m:run", Some(["openai_compatible", "openai_compatible", "m"])),
        ("POST", "/v1/messages", Some(["anthropic", "anthropic", ""])),
        ("POST", "/openai/v1/messages", Some(["anthropic", "anthropic", ""])),
    ] {
        let asked = Asked { paths: &paths, ..Asked::default() };
        let expected = expected.map(|words| words.map(str::to_owned));
        assert_eq!(found(asked, method, "gw", path), expected, "{method} {path}");
    }
    let acme = Asked { seller: Seller::new("acme"), family: Some(Family::OpenAi), paths: &paths };
    let expected = Some(["acme", "openai", ""].map(str::to_owned));
    assert_eq!(found(acme, "POST", "api.groq.com", "/claude"), expected);
    assert_eq!(found(acme, "POST", "api.groq.com", CHAT), expected);
}

#[test]
fn an_own_path_that_cannot_be_read_is_refused_with_its_place() {
    for (path, operation, refused) in [
        ("/run/{model}", "chat", None),
        ("/run/*/x", "ollama_chat", None),
        (
            "run",
            "chat",
            Some(
                "products[0].llm.paths[1].path: expected a path that starts with `/`, found \"run\"",
            ),
        ),
        (
            "",
            "chat",
            Some("products[0].llm.paths[1].path: expected a path that starts with `/`, found \"\""),
        ),
        (
            "/a?b",
            "chat",
            Some("products[0].llm.paths[1].path: expected a path without query, found \"/a?b\""),
        ),
        (
            "/{model}/{model}",
            "chat",
            Some(
                "products[0].llm.paths[1].path: expected `{model}` once or not at all, found \"/{model}/{model}\"",
            ),
        ),
        (
            "/{name}",
            "chat",
            Some(
                "products[0].llm.paths[1].path: expected `{model}` once or not at all, found \"/{name}\"",
            ),
        ),
        (
            "/run",
            "talk",
            Some(
                "products[0].llm.paths[1].as: unknown variant `talk`, expected one of `chat`, `completions`",
            ),
        ),
    ] {
        let paths: Value =
            json!([{ "path": "/ok", "as": "messages" }, { "path": path, "as": operation }]);
        let product = json!({ "id": "llm", "type": "AI_AGENT", "match": { "path_prefix": "/" }, "llm": { "paths": paths } });
        let config = json!({ "products": [product] }).to_string();
        let found =
            Config::from_bytes(config.as_bytes()).map(drop).map_err(|found| found.to_string());
        match refused {
            None => assert_eq!(found, Ok(()), "{path}"),
            Some(refused) => {
                let found = found.expect_err(path);
                assert!(found.starts_with(refused), "{found}\n{refused}");
            }
        }
    }
}

#[test]
fn each_name_is_of_one_seller_and_each_operation_has_one_name() {
    let mut names: Vec<String> =
        price_lists().map(|(seller, _)| seller.name().to_owned()).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
    assert!(PRESETS.iter().all(|preset| Seller::new(preset.name).is_some()));
    for operation in Operation::ALL {
        let read: Operation = serde_json::from_value(json!(operation.name())).expect("a name");
        assert_eq!(read, *operation);
    }
}

/// The table of sellers in the documentation is the code's.
#[test]
fn the_readme_lists_every_seller() {
    let readme = include_str!("../../../README.md");
    let code = |words: &[&str]| {
        words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
    };
    let row = |preset: &Preset| {
        let (name, family) = (preset.name, preset.family.name());
        let paths = preset.paths.iter();
        let paths = paths.map(|(path, operation)| format!("`{path}` as `{}`", operation.name()));
        let paths = paths.collect::<Vec<_>>().join(", ");
        format!("| `{name}` | `{family}` | {} | {paths} |", code(preset.hosts)).replace("  ", " ")
    };
    let rows: Vec<String> = PRESETS.iter().map(row).collect();
    let is_missing = |row: &&String| !readme.lines().any(|line| line == row.as_str());
    let missing: Vec<&String> = rows.iter().filter(is_missing).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    let operations: Vec<&str> = Operation::ALL.iter().map(|operation| operation.name()).collect();
    assert!(readme.contains(&code(&operations)), "{}", code(&operations));
}
