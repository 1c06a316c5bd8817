//! Rates that apply on conditions: where, when and how a model runs.

use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::domain::price_factors::{Modifier, PriceFactors, Word};
use agent_meter_core::domain::usage::Usage;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::pricing::RateCard;
use agent_meter_core::protocol::llm::provider::Family;
use serde_json::{Value, json};

use crate::generations::{JSON, Mesh, Worker};
use crate::support::test;

fn card(rates: &Value) -> RateCard {
    let card: RateCard =
        serde_json::from_value(json!({ "version": "1", "rates": rates })).expect("a card");
    card.validate("").expect("valid");
    card
}

fn rate(input: &str, more: Value) -> Value {
    let mut rate = more;
    for (name, value) in
        [("provider", "deepseek"), ("model", "m"), ("input", input), ("output", "0")]
    {
        rate[name] = json!(value);
    }
    rate
}

/// What a million tokens cost.
fn price(card: &RateCard, hour: u64, factors: PriceFactors) -> String {
    let usage = Usage { input: Some(1_000_000), output: Some(0), ..Usage::default() };
    // 2026-11-27, a Friday.
    let at = Timestamp(1_795_737_600_000 + hour * 3_600_000);
    match card.price(Family::DeepSeek, "m", "", at, factors, &usage) {
        Ok(priced) => priced.total.to_string(),
        Err(reason) => reason.name().to_owned(),
    }
}

#[test]
fn of_the_rates_whose_conditions_hold_the_one_with_the_most_goes_first() {
    let card = card(&json!([
        rate("1", json!({})),
        rate("2", json!({ "when": { "hours_utc": "01:00-04:00" } })),
        rate("3", json!({ "when": { "location": "eu*" } })),
        rate("4", json!({ "when": { "location": ["eu", "us"], "hours_utc": "01:00-04:00" } })),
        rate(
            "5",
            json!({ "when": { "thinking": true }, "multipliers": { "speed": { "fast": "2" } } })
        ),
        rate("6", json!({ "when": { "speed": "ultra" } })),
    ]));
    let at = |location: &str| PriceFactors {
        location: Some(location).filter(|name| !name.is_empty()).map(Word::new),
        ..PriceFactors::default()
    };
    for (hour, location, expected) in [
        (0, "", "1"),
        (1, "", "2"),
        (3, "", "2"),
        (4, "", "1"),
        (12, "eu-west-1", "3"),
        (2, "eu", "4"),
        (2, "us", "4"),
        (12, "us", "1"),
    ] {
        assert_eq!(price(&card, hour, at(location)), expected, "{hour} {location}");
    }
    let thinking = PriceFactors { is_thinking: true, ..PriceFactors::default() };
    assert_eq!(price(&card, 12, thinking), "5");
    let with = |mut factors: PriceFactors, speed: &str| {
        factors.modifiers.tell(Modifier::Speed, speed);
        factors
    };
    assert_eq!(price(&card, 12, with(thinking, "fast")), "10");
    assert_eq!(price(&card, 12, with(PriceFactors::default(), "ultra")), "6");
    assert_eq!(price(&card, 12, with(PriceFactors::default(), "fast")), "no_rate_for_modifier");
}

#[test]
fn a_location_has_a_factor_or_the_list_price() {
    let factors =
        json!({ "location": { "global": "1", "us": "1.1", "europe-*": "1.2", "*": "1.3" } });
    let card = card(&json!([rate("10", json!({ "multipliers": factors }))]));
    for (location, expected) in [
        (None, "10"),
        (Some("global"), "10"),
        (Some("us"), "11"),
        (Some("europe-west4"), "12"),
        (Some("asia"), "13"),
    ] {
        let factors = PriceFactors { location: location.map(Word::new), ..PriceFactors::default() };
        assert_eq!(price(&card, 0, factors), expected, "{location:?}");
    }
}

#[test]
fn two_rates_on_the_same_conditions_are_refused() {
    for (when, is_fine) in [
        (json!({ "hours_utc": "01:00-04:00" }), true),
        (json!({ "hours_utc": "01:00-05:00" }), false),
        (json!({}), true),
    ] {
        let rates = [
            rate("1", json!({})),
            rate("2", json!({ "when": { "hours_utc": "01:00-05:00" } })),
            rate("3", json!({ "when": when })),
        ];
        let rates = &rates[usize::from(when == json!({}))..];
        let config = json!({ "products": [{ "id": "p", "type": "AI_AGENT", "match": { "path_prefix": "/" } }],
            "rate_cards": [{ "version": "1", "rates": rates }] });
        let error = Config::from_bytes(config.to_string().as_bytes()).err().map(|e| e.to_string());
        assert_eq!(error.is_none(), is_fine, "{when} {error:?}");
        let is_named = |error: String| error.contains("rate_cards[0].rates[2].model");
        assert!(error.is_none_or(is_named), "{when}");
    }
}

/// The location, the model's cost.
fn bill(llm: &Value, host: &str, path: &str, answer: &Value) -> (Value, Value) {
    let config = json!({
        "rate_cards": [{ "version": "1", "rates": [
            { "provider": "openai", "model": "gpt-5.1", "input": "1", "output": "1",
                "multipliers": { "location": { "eu": "1.1" } } },
            { "provider": "vertex", "model": "gemini-2.5-flash", "input": "1", "output": "1" },
            { "provider": "vertex", "model": "gemini-2.5-flash", "input": "2", "output": "2",
                "when": { "location": "europe-*" } },
            { "provider": "dashscope", "model": "qwen-plus", "input": "1", "output": "1" },
            { "provider": "dashscope", "model": "qwen-plus", "input": "1", "output": "4", "when": { "thinking": true } },
        ]}],
        "products": [{ "id": "p", "type": "AI_AGENT", "match": { "path_prefix": "/" }, "llm": llm }],
    });
    let mut mesh = Mesh::new(&config.to_string());
    let ask = [(":method", "POST"), (":path", path), (":authority", host)];
    let stream = mesh.send(Worker::First, &ask, r#"{"enable_thinking":true}"#);
    let head = [(":status", "200"), ("content-type", JSON)];
    mesh.answer(Worker::First, stream, &head, &answer.to_string(), StreamEnd::Complete);
    let (tokens, _) = mesh.events();
    (tokens[0]["location"].clone(), tokens[0]["total_provider_cost"].clone())
}

#[test]
fn the_host_the_path_and_the_configuration_tell_the_location() {
    let chat = json!({ "object": "chat.completion", "model": "gpt-5.1", "choices": [{ "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 900_000, "completion_tokens": 100_000, "total_tokens": 1_000_000 } });
    let gemini = json!({ "candidates": [{ "finishReason": "STOP" }], "usageMetadata": {
        "promptTokenCount": 1_000_000, "candidatesTokenCount": 0, "totalTokenCount": 1_000_000 } });
    let path = "/v1/projects/p/locations/europe-west4/publishers/google/models/gemini-2.5-flash:generateContent";
    let qwen = {
        let mut qwen = chat.clone();
        qwen["model"] = json!("qwen-plus");
        qwen
    };
    let completions = "/v1/chat/completions";
    let auto = json!({});
    for (llm, host, path, answer, expected) in [
        (&auto, "api.openai.com", completions, &chat, (Value::Null, json!("1"))),
        (&auto, "eu.api.openai.com", completions, &chat, (json!("eu"), json!("1.1"))),
        (
            &json!({ "provider": "openai", "location": "eu" }),
            "gateway",
            completions,
            &chat,
            (json!("eu"), json!("1.1")),
        ),
        (
            &auto,
            "europe-west4-aiplatform.googleapis.com",
            path,
            &gemini,
            (json!("europe-west4"), json!("2")),
        ),
        (
            &json!({ "location": "global" }),
            "europe-west4-aiplatform.googleapis.com",
            path,
            &gemini,
            (json!("global"), json!("1")),
        ),
        (
            &auto,
            "dashscope-intl.aliyuncs.com",
            "/compatible-mode/v1/chat/completions",
            &qwen,
            (json!("intl"), json!("1.3")),
        ),
    ] {
        assert_eq!(bill(llm, host, path, answer), expected, "{host} {path}");
    }
}
