//! What a response costs the operator, from its body to the events: shapes out of public reports, at
//! the prices of the providers' pages.

use agent_meter_core::exchange::kind::StreamEnd;
use serde_json::{Value, json};

use crate::generations::{JSON, Mesh, Worker};
use crate::support::{rate, test};

const EVENTS: &str = "text/event-stream";
const MESSAGES: &str = "/v1/messages";
const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const IMAGES: &str = "/v1/images/generations";

fn config() -> String {
    let sonnet = json!({ "input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75",
        "cache_write_1h": "6",
        "context_tiers": [{ "above_input_tokens": 200_000, "input": "6", "output": "22.5" }] });
    json!({
        "rate_cards": [{ "version": "1", "rates": [
            rate("anthropic", "claude-sonnet-4-5", sonnet.clone()),
            rate("openai_compatible", "claude-sonnet-4-5", sonnet),
            rate("anthropic", "claude-opus-4-7", json!({ "input": "5", "output": "25" })),
            rate("anthropic", "claude-opus-4-8", json!({ "input": "5", "output": "25",
                "multipliers": { "speed": { "fast": "2" }, "inference_geo": { "us": "1.1" } } })),
            rate("openai", "gpt-5.1", json!({ "input": "1.25", "output": "10", "cache_read": "0.125" })),
            rate("openai", "gpt-image-1-mini", json!({ "input": "2", "output": "8", "output_image": "8" })),
            rate("openai", "gpt-image-1.5", json!({ "input": "5", "input_image": "8", "output": "10", "output_image": "32" })),
            rate("openai_compatible", "sonar-deep-research", json!({ "input": "2", "output": "8", "reasoning": "3" })),
        ]}, { "version": "2", "rates": [
            rate("openai", "gpt-5.1-2025-11-13", json!({ "input": "100", "output": "100" })),
        ]}],
        "products": [
            { "id": "anthropic", "type": "AI_AGENT", "match": { "host": "api.anthropic.com", "path_prefix": "/v1" },
                "llm": { "provider": "anthropic", "incomplete_usage": "bill_observed" } },
            { "id": "openai", "type": "AI_AGENT", "match": { "host": "api.openai.com", "path_prefix": "/v1" },
                "pricing": { "tokens": { "pass_through": true, "markup": "1" } },
                "llm": { "provider": "openai", "incomplete_usage": "bill_observed" } },
            { "id": "compatible", "type": "AI_AGENT", "match": { "host": "gateway", "path_prefix": "/v1" },
                "llm": { "provider": "openai_compatible", "incomplete_usage": "bill_observed" } },
        ],
    })
    .to_string()
}

fn chat(model: &str, usage: &Value) -> String {
    let choice = json!({ "index": 0, "finish_reason": "stop" });
    json!({ "object": "chat.completion", "model": model, "choices": [choice], "usage": usage })
        .to_string()
}

fn message(model: &str, usage: &Value) -> String {
    json!({ "type": "message", "id": "msg_1", "model": model, "stop_reason": "end_turn", "usage": usage })
        .to_string()
}

/// The two events of a stream of Anthropic's that tell usage.
fn stream(start: &Value, delta: &Value) -> String {
    let start = json!({ "type": "message_start",
        "message": { "type": "message", "model": "claude-sonnet-4-5", "usage": start } });
    let delta =
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" }, "usage": delta });
    format!("data: {start}\n\ndata: {delta}\n\n")
}

/// Purpose, model and cost of each event that a response makes; a reason in the place of a cost, and
/// a mark behind it if the counts contradict each other.
fn bill(host: &str, path: &str, media_type: &str, body: &str) -> Vec<String> {
    let mut mesh = Mesh::new(&config());
    let ask = [(":method", "POST"), (":path", path), (":authority", host)];
    let stream = mesh.send(Worker::First, &ask, "{}");
    let head = [(":status", "200"), ("content-type", media_type)];
    mesh.answer(Worker::First, stream, &head, body, StreamEnd::Complete);
    let (tokens, _) = mesh.events();
    let line = |event: &Value| {
        let text = |name: &str| event[name].as_str().map(str::to_owned);
        let cost = text("total_provider_cost").or_else(|| text("unpriced_reason"));
        let mark = if event["inconsistent"] == true { " inconsistent" } else { "" };
        let purpose = text("purpose").map(|purpose| format!("{purpose}: ")).unwrap_or_default();
        format!("{purpose}{} {}{mark}", text("model").unwrap(), cost.unwrap())
    };
    tokens.iter().map(line).collect()
}

fn run(kind: &str, model: Option<&str>, input: u64, output: u64) -> Value {
    json!({ "type": kind, "model": model, "input_tokens": input, "output_tokens": output,
        "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0 })
}

#[test]
fn each_run_of_a_response_is_billed_once_and_as_what_it_is() {
    let sonnet = "claude-sonnet-4-5";
    let compaction = run("compaction", None, 180_000, 3500);
    let (one, other) = (run("message", None, 150_000, 500), run("message", None, 80_000, 500));
    let declined = run("message", Some("claude-opus-4-7"), 1200, 4);
    let answered = run("fallback_message", Some(sonnet), 1200, 300);
    let images = json!({ "input_tokens": 300, "output_tokens": 4160, "total_tokens": 4460 });
    let response = |tools: &Value, image_gen: &Value| {
        json!({ "object": "response", "id": "resp_1", "status": "completed", "model": "gpt-5.1",
            "tools": tools, "tool_usage": { "image_gen": image_gen, "web_search": { "num_requests": 0 } },
            "usage": { "input_tokens": 2000, "output_tokens": 50, "total_tokens": 2050 } })
        .to_string()
    };
    let tools = json!([{ "type": "function", "name": "f" }, { "type": "image_generation", "model": "gpt-image-1-mini" }]);
    let mut many = vec![json!({ "type": "function", "name": "f" }); 64];
    many.push(json!({ "type": "image_generation", "model": "gpt-image-1-mini" }));
    let many = json!(many);
    let unused = json!({ "input_tokens": 0, "output_tokens": 0, "total_tokens": 0 });
    let rows: Vec<(&str, &str, &str, String, &[&str])> = vec![
        (
            "a compaction is beside the top level, in its own context tier",
            "api.anthropic.com",
            MESSAGES,
            message(
                sonnet,
                &json!({ "input_tokens": 23_000, "output_tokens": 1000,
                "iterations": [compaction, run("message", None, 23_000, 1000)] }),
            ),
            &["claude-sonnet-4-5 0.084", "compaction: claude-sonnet-4-5 0.5925"],
        ),
        (
            "a response that stops behind its compaction",
            "api.anthropic.com",
            MESSAGES,
            message(
                sonnet,
                &json!({ "input_tokens": 0, "output_tokens": 0, "iterations": [compaction] }),
            ),
            &["claude-sonnet-4-5 0", "compaction: claude-sonnet-4-5 0.5925"],
        ),
        (
            "an adviser is another model",
            "api.anthropic.com",
            MESSAGES,
            message(
                sonnet,
                &json!({ "input_tokens": 100, "output_tokens": 10, "iterations": [
                run("message", None, 100, 10), run("advisor_message", Some("claude-opus-4-7"), 1000, 100)] }),
            ),
            &["claude-sonnet-4-5 0.00045", "advisor_message: claude-opus-4-7 0.0075"],
        ),
        (
            "an adviser without a rate is named",
            "api.anthropic.com",
            MESSAGES,
            message(
                sonnet,
                &json!({ "input_tokens": 100, "output_tokens": 10, "iterations": [
                run("message", None, 100, 10), run("advisor_message", Some("claude-x"), 1000, 100)] }),
            ),
            &["claude-sonnet-4-5 0.00045", "advisor_message: claude-x no_rate"],
        ),
        (
            "two advices by one model are one run",
            "api.anthropic.com",
            MESSAGES,
            message(
                sonnet,
                &json!({ "input_tokens": 100, "output_tokens": 10, "iterations": [
                run("advisor_message", Some("claude-opus-4-7"), 1000, 100), run("message", None, 100, 10),
                run("advisor_message", Some("claude-opus-4-7"), 1000, 100)] }),
            ),
            &["claude-sonnet-4-5 0.00045", "advisor_message: claude-opus-4-7 0.015"],
        ),
        (
            "two turns are within the top level, and neither reaches the context tier",
            "api.anthropic.com",
            MESSAGES,
            message(
                sonnet,
                &json!({ "input_tokens": 230_000, "output_tokens": 1000, "iterations": [one, other] }),
            ),
            &["claude-sonnet-4-5 0.705"],
        ),
        (
            "a fallback whose counts alone are the top level",
            "api.anthropic.com",
            MESSAGES,
            message(
                sonnet,
                &json!({ "input_tokens": 1200, "output_tokens": 300, "iterations": [declined, answered] }),
            ),
            &["claude-sonnet-4-5 0.0081", "message: claude-opus-4-7 0.0061"],
        ),
        (
            "a fallback with the declined attempt within the top level",
            "api.anthropic.com",
            MESSAGES,
            message(
                sonnet,
                &json!({ "input_tokens": 2400, "output_tokens": 304, "iterations": [declined, answered] }),
            ),
            &["claude-sonnet-4-5 0.0081", "message: claude-opus-4-7 0.0061"],
        ),
        (
            "turns that do not add up to the top level",
            "api.anthropic.com",
            MESSAGES,
            message(
                sonnet,
                &json!({ "input_tokens": 1000, "output_tokens": 10, "iterations": [run("message", None, 900, 20)] }),
            ),
            &["claude-sonnet-4-5 0.0033 inconsistent"],
        ),
        (
            "images of a hosted tool",
            "api.openai.com",
            RESPONSES,
            response(&tools, &images),
            &["gpt-5.1 0.003", "image_gen: gpt-image-1-mini 0.03388"],
        ),
        (
            "a hosted tool that names no model",
            "api.openai.com",
            RESPONSES,
            response(&json!([]), &images),
            &["gpt-5.1 0.003", "image_gen: gpt-image-1 no_rate"],
        ),
        (
            "images of a hosted tool whose counts contradict each other",
            "api.openai.com",
            RESPONSES,
            response(
                &tools,
                &json!({ "input_tokens": 300, "output_tokens": 4160, "total_tokens": 60 }),
            ),
            &["gpt-5.1 0.003 inconsistent", "image_gen: gpt-image-1-mini 0.03388 inconsistent"],
        ),
        (
            "hosted tools that were not used",
            "api.openai.com",
            RESPONSES,
            response(&tools, &unused),
            &["gpt-5.1 0.003"],
        ),
        (
            "images of a hosted tool behind many other tools",
            "api.openai.com",
            RESPONSES,
            response(&many, &images),
            &["gpt-5.1 0.003", "image_gen: gpt-image-1-mini 0.03388"],
        ),
        (
            "images of a hosted tool whose counts are texts",
            "api.openai.com",
            RESPONSES,
            response(
                &tools,
                &json!({ "input_tokens": "50", "output_tokens": "4160", "total_tokens": 4210 }),
            ),
            &["gpt-5.1 0.003 inconsistent", "image_gen: gpt-image-1-mini 0.03338 inconsistent"],
        ),
        (
            "images of a hosted tool of which nothing can be read",
            "api.openai.com",
            RESPONSES,
            response(&tools, &json!({ "input_tokens": "fifty", "output_tokens": -1 })),
            &["gpt-5.1 0.003 inconsistent"],
        ),
    ];
    for (name, host, path, body, expected) in rows {
        assert_eq!(bill(host, path, JSON, &body), expected, "{name}");
    }
}

#[test]
fn what_moves_a_price_is_priced_or_named() {
    let opus = |modifiers: Value| {
        let mut usage = modifiers;
        usage["input_tokens"] = json!(1000);
        usage["output_tokens"] = json!(1000);
        message("claude-opus-4-8", &usage)
    };
    for (modifiers, expected) in [
        (json!({}), "claude-opus-4-8 0.03"),
        (json!({ "speed": "standard", "inference_geo": "not_available" }), "claude-opus-4-8 0.03"),
        (json!({ "speed": "fast" }), "claude-opus-4-8 0.06"),
        (json!({ "inference_geo": "us" }), "claude-opus-4-8 0.033"),
        (json!({ "speed": "fast", "inference_geo": "us" }), "claude-opus-4-8 0.066"),
        (json!({ "inference_geo": "eu" }), "claude-opus-4-8 no_rate_for_modifier"),
        (json!({ "service_tier": "priority" }), "claude-opus-4-8 no_rate_for_tier"),
    ] {
        let body = opus(modifiers.clone());
        assert_eq!(bill("api.anthropic.com", MESSAGES, JSON, &body), [expected], "{modifiers}");
    }
}

/// A client could choose the tier so as to pay nothing.
#[test]
fn a_tier_without_a_rate_is_charged_at_the_list_price() {
    let mut mesh = Mesh::new(&config());
    for (body, expected) in [
        ("{}", ["0.0045", "0.00225", "standard"]),
        (r#"{"service_tier":"platinum"}"#, ["0.0045", "null", "platinum"]),
    ] {
        let ask = [(":method", "POST"), (":path", CHAT), (":authority", "api.openai.com")];
        let stream = mesh.send(Worker::First, &ask, body);
        let head = [(":status", "200"), ("content-type", JSON)];
        let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 100 });
        let answer = chat("gpt-5.1", &usage);
        mesh.answer(Worker::First, stream, &head, &answer, StreamEnd::Complete);
        let (tokens, _) = mesh.events();
        let told =
            ["price", "total_provider_cost", "service_tier"].map(|name| tokens[0][name].clone());
        let told = told.map(|value| value.as_str().unwrap_or("null").to_owned());
        assert_eq!(told, expected, "{body}");
    }
}

#[test]
fn a_later_card_that_names_a_model_goes_before_an_earlier_one_that_names_it_without_its_date() {
    let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 0, "total_tokens": 1000 });
    for (model, cost) in [
        ("gpt-5.1", "0.00125"),
        ("gpt-5.1-2025-11-13", "0.1"),
        ("gpt-5.1-2025-12-24", "0.00125"),
        ("openai/gpt-5.1-2025-11-13", "0.1"),
    ] {
        let told = bill("api.openai.com", CHAT, JSON, &chat(model, &usage));
        assert_eq!(told, [format!("{model} {cost}")]);
    }
}

#[test]
fn no_count_falls_and_no_part_is_lost() {
    let rows: Vec<(&str, &str, &str, &str, String, &str)> = vec![
        (
            "a split by lifetime that is of the first turn alone",
            "api.anthropic.com",
            MESSAGES,
            EVENTS,
            stream(
                &json!({ "input_tokens": 250, "output_tokens": 1, "cache_read_input_tokens": 42_000,
                    "cache_creation_input_tokens": 3000,
                    "cache_creation": { "ephemeral_5m_input_tokens": 3000, "ephemeral_1h_input_tokens": 0 } }),
                &json!({ "output_tokens": 900, "cache_creation_input_tokens": 18_000 }),
            ),
            "claude-sonnet-4-5 0.09435",
        ),
        (
            "a last event that says 0",
            "api.anthropic.com",
            MESSAGES,
            EVENTS,
            stream(
                &json!({ "input_tokens": 15_000, "output_tokens": 1 }),
                &json!({ "input_tokens": 0, "output_tokens": 40 }),
            ),
            "claude-sonnet-4-5 0.0456",
        ),
        (
            "cached input beside the prompt",
            "gateway",
            CHAT,
            JSON,
            chat("claude-sonnet-4-5", &json!({ "prompt_tokens": 100, "completion_tokens": 82,
                "total_tokens": 50_182, "prompt_tokens_details": { "cached_tokens": 50_000 } })),
            "claude-sonnet-4-5 0.01653",
        ),
        (
            "output that only the total holds",
            "api.openai.com",
            CHAT,
            JSON,
            chat("gpt-5.1", &json!({ "prompt_tokens": 3, "completion_tokens": 7, "total_tokens": 298 })),
            "gpt-5.1 0.00295375",
        ),
        (
            "reasoning that is larger than the output",
            "gateway",
            CHAT,
            JSON,
            chat("sonar-deep-research", &json!({ "prompt_tokens": 7, "completion_tokens": 3256,
                "total_tokens": 3263, "reasoning_tokens": 193_944 })),
            "sonar-deep-research 0.607894 inconsistent",
        ),
        (
            "a total that is less than the sum",
            "api.openai.com",
            CHAT,
            JSON,
            chat("gpt-5.1", &json!({ "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 90 })),
            "gpt-5.1 0.000325 inconsistent",
        ),
        (
            "a compaction that was asked for",
            "api.openai.com",
            "/v1/responses/compact",
            JSON,
            json!({ "id": "resp_2", "object": "response.compaction", "model": "gpt-5.1", "output": [],
                "usage": { "input_tokens": 90_000, "input_tokens_details": { "cached_tokens": 0 },
                    "output_tokens": 2000, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 92_000 } })
            .to_string(),
            "gpt-5.1 0.1325",
        ),
        (
            "images without details",
            "api.openai.com",
            IMAGES,
            JSON,
            json!({ "model": "gpt-image-1.5", "data": [], "usage": { "input_tokens": 50, "output_tokens": 4160,
                "total_tokens": 4210, "input_tokens_details": { "text_tokens": 50, "image_tokens": 0 } } })
            .to_string(),
            "gpt-image-1.5 0.13337",
        ),
    ];
    for (name, host, path, media_type, body, expected) in rows {
        assert_eq!(bill(host, path, media_type, &body), [expected], "{name}");
    }
}

/// A product that meters what this path starts with.
fn product(id: &str, llm: &Value) -> Value {
    json!({ "id": id, "type": "AI_AGENT", "match": { "path_prefix": format!("/{id}") }, "llm": llm })
}

#[test]
fn a_generation_costs_what_its_seller_takes_by_the_card_of_its_product() {
    let rate = |provider: &str, input: &str| json!({ "provider": provider, "model": "gpt-oss-120b", "input": input, "output": "0" });
    let config = json!({
        "rate_cards": [
            { "version": "list", "rates": [rate("one", "1"), rate("two", "2"), rate("openai_compatible", "9")] },
            { "version": "contract", "rates": [rate("one", "0.5")] },
        ],
        "products": [
            product("one", &json!({ "provider": "one", "format": "openai_compatible" })),
            product("two", &json!({ "provider": "two", "format": "openai" })),
            product("three", &json!({ "provider": "three", "format": "openai_compatible" })),
            product("four", &json!({ "provider": "four", "format": "azure_openai" })),
            product("any", &json!({})),
            product("contract", &json!({ "provider": "one", "format": "openai", "rate_card": "contract" })),
            product("elsewhere", &json!({ "provider": "two", "format": "openai", "rate_card": "contract" })),
        ],
    });
    let body = chat("gpt-oss-120b", &json!({ "prompt_tokens": 1_000_000, "completion_tokens": 1 }));
    for (product, seller, cost, card) in [
        ("one", "one", "1", "list"),
        ("two", "two", "2", "list"),
        ("three", "three", "9", "list"),
        ("four", "four", "no_rate", ""),
        ("any", "openai_compatible", "9", "list"),
        ("contract", "one", "0.5", "contract"),
        ("elsewhere", "two", "no_rate", ""),
    ] {
        let mut mesh = Mesh::new(&config.to_string());
        let path = format!("/{product}/v1/chat/completions");
        let ask = [(":method", "POST"), (":path", &*path), (":authority", "gw")];
        let stream = mesh.send(Worker::First, &ask, "{}");
        let head = [(":status", "200"), ("content-type", JSON)];
        mesh.answer(Worker::First, stream, &head, &body, StreamEnd::Complete);
        let (tokens, _) = mesh.events();
        let event = &tokens[0];
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let told = if event["priced"] == true { "total_provider_cost" } else { "unpriced_reason" };
        let found = (text("provider"), text(told), text("rate_card"));
        assert_eq!(found, (seller, cost, card), "{product}");
    }
}
