//! Tests `agent-meter prices import`: each list's own way to write a price, to the last digit, and
//! what the import leaves out.

use std::path::{Path, PathBuf};

use agent_meter_collector::prices::{Edition, Imported, Source, Wanted, import, import_text};
use chrono::NaiveDate;
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/prices").join(name)
}

fn wanted(providers: &[&str], models: &[&str]) -> Wanted {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Wanted { providers: texts(providers), models: texts(models) }
}

fn imported(source: Source, name: &str, wanted: &Wanted) -> Imported {
    import(source, &fixture(name), wanted, edition()).expect("a card")
}

fn edition() -> Edition {
    let date = NaiveDate::from_ymd_opt(2026, 11, 20).expect("a date");
    Edition { version: Some("test".to_owned()), date }
}

/// The entries of the card, as they are written.
fn rates(imported: &Imported) -> Vec<Value> {
    let card = serde_json::to_value(&imported.card).expect("JSON");
    assert_eq!((&card["version"], &card["currency"]), (&json!("test"), &json!("USD")));
    card["rates"].as_array().expect("rates").clone()
}

/// The entries of one model, without its name and provider.
fn of(rates: &[Value], provider: &str, model: &str) -> Vec<Value> {
    let is_it = |rate: &&Value| rate["provider"] == provider && rate["model"] == model;
    let found = rates.iter().filter(is_it).cloned().map(|mut rate| {
        let members = rate.as_object_mut().expect("an object");
        members.remove("provider");
        members.remove("model");
        rate
    });
    found.collect()
}

fn check(rates: &[Value], expected: &[(&str, &str, Value)]) {
    for (provider, model, expected) in expected {
        let expected = match expected {
            Value::Array(entries) => entries.clone(),
            entry => vec![entry.clone()],
        };
        assert_eq!(of(rates, provider, model), expected, "{provider} {model}");
    }
}

#[test]
fn litellm_prices_a_token() {
    let imported = imported(Source::Litellm, "litellm.json", &Wanted::default());
    let rates = rates(&imported);
    check(
        &rates,
        &[
            (
                "openai",
                "gpt-4o",
                json!({ "input": "2.5", "cache_read": "1.25", "output": "10", "service_tiers": {
                    "batch": { "input": "1.25", "output": "5" },
                    "priority": { "input": "4.25", "cache_read": "2.125", "output": "17" },
                } }),
            ),
            (
                "openai",
                "gpt-realtime",
                json!({ "input": "4", "cache_read": "0.4", "input_audio": "32", "cache_read_audio": "0.4",
                    "input_image": "5", "cache_read_image": "0.5", "output": "16", "output_audio": "64" }),
            ),
            // The name of a fine-tuned model ends with the customer's own.
            (
                "openai",
                "ft:gpt-4o-2024-08-06",
                json!({ "aliases": ["ft:gpt-4o-2024-08-06:*"], "input": "3.75", "cache_read": "1.875",
                    "output": "15", "service_tiers": {
                        "batch": { "input": "2.225", "cache_read": "0.9", "output": "12.5" } } }),
            ),
            // A model that only makes images: all of its output costs an image's price.
            (
                "openai",
                "gpt-image-1",
                json!({ "input": "5", "cache_read": "1.25", "input_image": "10",
                    "cache_read_image": "2.5", "output": "40", "output_image": "40", "service_tiers": {
                        "batch": { "input": "2.5", "cache_read": "0.63", "input_image": "5" } } }),
            ),
            // A price of one region.
            (
                "azure_openai",
                "gpt-4o-2024-08-06",
                json!({ "when": { "location": "eu" }, "input": "2.75", "cache_read": "1.375", "output": "11",
                    "service_tiers": { "batch": { "input": "1.375", "output": "5.5" } } }),
            ),
            // One-hour writes, and a context tier with all kinds of tokens.
            (
                "vertex",
                "claude-sonnet-4-5",
                json!({ "input": "3", "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": "6",
                    "output": "15", "context_tiers": [{ "above_input_tokens": 200_000, "input": "6",
                        "cache_read": "0.6", "cache_write_5m": "7.5", "cache_write_1h": "12", "output": "22.5" }],
                    "service_tiers": { "batch": { "input": "1.5", "cache_read": "0.15",
                        "cache_write_5m": "1.88", "output": "7.5" } },
                    "units": { "web_searches": "0.01" } }),
            ),
            // `flex` has no context tier of its own, so the standard one applies; `batch` has one.
            (
                "gemini",
                "gemini-2.5-pro",
                json!({ "input": "1.25", "cache_read": "0.125", "output": "10",
                    "context_tiers": [{ "above_input_tokens": 200_000, "input": "2.5", "cache_read": "0.25",
                        "output": "15" }],
                    "service_tiers": {
                        "batch": { "input": "0.625", "cache_read": "0.125", "output": "5", "context_tiers": [
                            { "above_input_tokens": 200_000, "input": "1.25", "cache_read": "0.25", "output": "7.5" }] },
                        "flex": { "input": "0.625", "cache_read": "0.125", "output": "5", "context_tiers": [
                            { "above_input_tokens": 200_000, "input": "2.5", "cache_read": "0.25", "output": "15" }] },
                        "priority": { "input": "2.25", "cache_read": "0.225", "output": "18", "context_tiers": [
                            { "above_input_tokens": 200_000, "input": "4.5", "cache_read": "0.45", "output": "27" }] },
                    }, "units": { "searched_requests": "0.035", "maps_queries": "0.025" } }),
            ),
            // Reasoning in a service tier costs that tier's output price.
            (
                "gemini",
                "gemini-2.5-flash",
                json!({ "input": "0.3", "cache_read": "0.03", "input_audio": "1", "cache_read_audio": "0.1",
                    "output": "2.5", "reasoning": "2.5", "service_tiers": {
                        "batch": { "input": "0.15", "cache_read": "0.03", "input_audio": "0.5",
                            "cache_read_audio": "0.1", "output": "1.25", "reasoning": "1.25" },
                        "flex": { "input": "0.15", "cache_read": "0.03", "input_audio": "0.5",
                            "cache_read_audio": "0.1", "output": "1.25", "reasoning": "1.25" },
                        "priority": { "input": "0.54", "cache_read": "0.054", "input_audio": "1.8",
                            "cache_read_audio": "0.18", "output": "4.5", "reasoning": "4.5" } },
                    "units": { "searched_requests": "0.035", "maps_queries": "0.025" } }),
            ),
            // Factors by the list's own words.
            (
                "anthropic",
                "claude-opus-4-8",
                json!({ "input": "5", "cache_read": "0.5", "cache_write_5m": "6.25", "output": "25",
                    "multipliers": { "speed": { "fast": "2" }, "inference_geo": { "us": "1.1" } } }),
            ),
            // Writes for 12 hours, and a tier that only this list knows.
            (
                "openai",
                "gpt-6-astra",
                json!({ "input": "10", "cache_write_5m": "12.5", "cache_write_1h": "50", "output": "50",
                    "service_tiers": { "ultrafast": { "input": "60", "output": "300" } },
                    "multipliers": { "location": { "eu": "1.1" } } }),
            ),
            // By the hour and the weekday.
            (
                "deepseek",
                "deepseek-flash",
                Value::Array(
                    [
                        json!({}),
                        json!({ "hours_utc": "00:00-01:00", "weekdays": ["mon", "tue", "wed", "thu", "fri"] }),
                        json!({ "hours_utc": "04:00-06:00", "weekdays": ["mon", "tue", "wed", "thu", "fri"] }),
                        json!({ "hours_utc": "10:00-00:00", "weekdays": ["mon", "tue", "wed", "thu", "fri"] }),
                        json!({ "weekdays": ["sat", "sun"] }),
                    ]
                    .map(|when| match when {
                        Value::Object(when) if when.is_empty() => json!({ "input": "0.3",
                            "cache_read": "0.006", "cache_write_5m": "0", "output": "1.2" }),
                        when => json!({ "when": when, "input": "0.15", "cache_read": "0.003",
                            "cache_write_5m": "0", "output": "0.6" }),
                    })
                    .into(),
                ),
            ),
            // Of two entries, the one with more prices counts.
            (
                "deepseek",
                "deepseek-chat",
                json!({ "input": "0.28", "cache_read": "0.028", "cache_write_5m": "0", "output": "0.42" }),
            ),
            ("ollama", "llama3", json!({ "input": "0", "output": "0" })),
        ],
    );
    assert_eq!(imported.report.mapped, rates.len());
    let text = imported.report.to_string();
    let line = "1 provider_specific_entry.altitude: no modifier of a card (claude-opus-4-8)";
    assert!(text.contains(line), "{text}");
}

#[test]
fn litellm_prices_are_of_the_providers_and_models_that_are_asked_for() {
    let asked = wanted(
        &["dashscope", "perplexity", "xai", "novita", "openai"],
        &["qwen*", "sonar*", "grok*", "deepseek*"],
    );
    let imported = imported(Source::Litellm, "litellm.json", &asked);
    check(
        &rates(&imported),
        &[
            (
                "dashscope",
                "qwen-plus-2025-04-28",
                json!({ "input": "0.4", "output": "1.2", "reasoning": "4" }),
            ),
            // The first range is the price itself, the others are context tiers; each has its own
            // price for reasoning.
            (
                "dashscope",
                "qwen-plus-latest",
                json!({ "input": "0.4", "output": "1.2", "reasoning": "4", "context_tiers": [
                    { "above_input_tokens": 256_000, "input": "1.2", "output": "3.6", "reasoning": "12" }] }),
            ),
            (
                "perplexity",
                "sonar-deep-research",
                json!({ "input": "2", "output": "8", "reasoning": "3",
                    "units": { "citation_tokens": "0.000002", "web_searches": "0.005" } }),
            ),
            // xAI's context tiers begin at the threshold.
            (
                "xai",
                "grok-4.20-beta-0309-reasoning",
                json!({ "input": "1.25", "cache_read": "0.2", "input_image": "1.25", "output": "2.5",
                    "context_tiers": [{ "above_input_tokens": 199_999, "input": "2.5", "cache_read": "0.4",
                        "output": "5" }] }),
            ),
        ],
    );
    let report = &imported.report;
    let rounded = "novita/deepseek/deepseek-v4-pro-0813\tcache_read_input_token_cost\tfurther places than 12, so it is rounded\n";
    assert!(report.to_text().contains(rounded), "{}", report.to_text());
    assert!(report.not_asked_for() > 10, "{report}");
}

#[test]
fn a_provider_that_only_the_list_knows_keeps_its_name_as_far_as_sellers_may_have_it() {
    let list = r#"{
        "acme/m": { "litellm_provider": "acme", "input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6 },
        "groq/m": { "litellm_provider": "groq", "input_cost_per_token": 3e-6, "output_cost_per_token": 4e-6 },
        "Acme Two/m": { "litellm_provider": "Acme Two", "input_cost_per_token": 5e-6, "output_cost_per_token": 6e-6 }
    }"#;
    let all = [("acme", "m", "1"), ("groq", "m", "3"), ("acme-two", "m", "5")];
    for (asked, expected) in [
        (&[][..], &all[..]),
        (&["acme"], &all[..1]),
        (&["groq", "acme"], &all[..2]),
        (&["Acme Two"], &all[2..]),
        (&["acme-two"], &all[2..]),
    ] {
        let imported = import_text(Source::Litellm, list, &wanted(asked, &[]), edition());
        let rates = rates(&imported.expect("a card"));
        let text = |rate: &Value, name: &str| rate[name].as_str().unwrap_or_default().to_owned();
        let found: Vec<_> = rates
            .iter()
            .map(|rate| (text(rate, "provider"), text(rate, "model"), text(rate, "input")))
            .collect();
        let expected = expected.iter().map(|(provider, model, input)| {
            ((*provider).to_owned(), (*model).to_owned(), (*input).to_owned())
        });
        assert_eq!(found, expected.collect::<Vec<_>>(), "{asked:?}");
    }
}

#[test]
fn litellm_prices_units_beside_tokens() {
    let imported = imported(Source::Litellm, "litellm_units.json", &Wanted::default());
    let rates = rates(&imported);
    check(
        &rates,
        &[
            // Of both, the one that is not zero; the list has it twice.
            ("azure_openai", "whisper-1", json!({ "units": { "input_audio_seconds": "0.0001" } })),
            (
                "openai",
                "tts-1",
                json!({ "units": { "input_characters": "0.000015" },
                "multipliers": { "location": { "gov": "1.1" } } }),
            ),
            // A price of searches by the size of their context; without one, that of a medium one.
            (
                "openai",
                "gpt-4o-search-preview",
                json!({ "input": "2.5", "output": "10", "units": { "web_searches": "0.035",
                    "web_searches:low": "0.03", "web_searches:high": "0.05" } }),
            ),
            // Perplexity has a fee for each request.
            (
                "perplexity",
                "sonar",
                json!({ "input": "1", "output": "1", "units": { "requests": "0.008",
                    "requests:low": "0.005", "requests:high": "0.012" } }),
            ),
            // Gemini 3 is billed by the query, its predecessors by the request.
            (
                "gemini",
                "gemini-3-pro",
                json!({ "input": "2", "output": "12", "units": { "web_searches": "0.014" } }),
            ),
            (
                "gemini",
                "gemini-2.5-flash",
                json!({ "input": "0.3", "output": "2.5",
                    "units": { "searched_requests": "0.035", "maps_queries": "0.025" } }),
            ),
            (
                "cohere",
                "rerank-v3.5",
                json!({ "input": "0", "output": "0",
                "units": { "search_units": "0.002" } }),
            ),
            (
                "mistral",
                "mistral-ocr-latest",
                json!({ "units": { "pages": "0.001", "annotated_pages": "0.003" },
                    "service_tiers": { "batch": { "units": { "pages": "0.0005" } } } }),
            ),
            // Sizes and qualities are variants of one model; the dearest stands for all others.
            (
                "openai",
                "dall-e-3",
                json!({ "units": { "output_images": "0.12", "output_images:standard:1024x1024": "0.04",
                    "output_images:hd:1024x1792": "0.12" } }),
            ),
            (
                "bedrock",
                "amazon.nova-canvas-v1:0",
                json!({ "units": { "output_images": "0.08", "output_images:1024x1024:50-steps": "0.06",
                    "output_images:2048x2048:50-steps": "0.08" } }),
            ),
            (
                "dashscope",
                "wan3.0-video",
                json!({ "units": { "output_video_seconds": "0.165", "output_video_seconds:480p": "0.04",
                    "output_video_seconds:720p": "0.08" } }),
            ),
            // Who prices the tokens of an image does not bill the image.
            (
                "gemini",
                "gemini-2.5-flash-image",
                json!({ "input": "0.3", "output": "2.5", "output_image": "30" }),
            ),
            (
                "openai",
                "gpt-image-1-mini",
                json!({ "input": "2", "output": "8", "output_image": "8" }),
            ),
            // A price of all models of a seller.
            ("openai", "*", json!({ "units": { "code_sessions": "0.03" } })),
            // A card has no unit of its own for it.
            ("reducto", "parse", json!([])),
            // An alias is a name too.
            ("gemini", "gemini-flash-latest", of(&rates, "gemini", "gemini-2.5-flash").into()),
            // What Azure's hosts serve of others has a price there too.
            ("azure_ai", "grok-4", json!({ "input": "5.5", "output": "27.5" })),
            ("azure_openai", "grok-4", json!({ "input": "5.5", "output": "27.5" })),
            // Of two entries, the one with more prices has the name.
            (
                "bedrock",
                "moonshotai.kimi-k2.5",
                json!({ "input": "0.6", "output": "3", "service_tiers": { "priority": { "input": "1.05" } } }),
            ),
        ],
    );
    let expected = "\
azure_ai/flux\tinput_cost_per_pixel\tfor a pixel, without a size
azure_ai/flux\t*\tno price
bedrock/*/1-month-commitment/cohere.command-text-v14\t*\tnot a name on the wire
bedrock/moonshotai.kimi-k2.5\tname\tmoonshotai.kimi-k2.5 has the name, with other prices
gemini/gemini-2.5-flash-image\toutput_cost_per_image\tbeside the price of the same tokens, which is taken
gemini/gemini-2.5-flash\tsearch_free_requests\tfree requests; each is charged
gemini/gemini-flash-latest\tsearch_free_requests\tfree requests; each is charged
low/1024-x-1024/gpt-image-1-mini\t*\timages beside the price of their tokens, which is taken
nowhere\t*\tan alias of no model
reducto/parse\tocr_cost_per_credit\tfor a credit
reducto/parse\t*\tno price
standard/1024-x-1024/dall-e-3\tinput_cost_per_pixel\tfurther places than 12, so it is rounded
tts-1\tsurcharge\tno member that the import knows
tts-1\tsurcharges\tno member that the import knows
unnamed\t*\tno provider
";
    let mut expected: Vec<&str> = expected.lines().collect();
    expected.sort_unstable();
    let report = imported.report.to_text();
    assert_eq!(report.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn litellm_prices_by_the_hour_apply_only_in_hours_that_a_card_can_say() {
    let hours = |hours_utc: &str| json!([{ "hours_utc": hours_utc }]);
    const WINDOWS: &[&str] = &["off_peak_pricing.windows"];
    let rows: Vec<(Value, &[&str], &[&str])> = vec![
        (json!({ "windows": hours("00:30-08:00") }), &["00:30-08:00"], &[]),
        (
            json!({ "windows": [{ "hours_utc": ["1:00-02:00", "03:00-00:00"] }] }),
            &["01:00-02:00", "03:00-00:00"],
            &[],
        ),
        (
            json!({ "windows": [{ "hours_utc": "04:00-04:00", "weekdays": [6] }],
            "weekday_timezone": "UTC" }),
            &["all"],
            &[],
        ),
        (
            json!({ "windows": [{ "hours_utc": "00:30-08:00", "weekdays": null, "months": null }] }),
            &["00:30-08:00"],
            &[],
        ),
        // A window without hours is never open.
        (json!({ "windows": [{}] }), &[], WINDOWS),
        (json!({ "windows": [{ "hours_utc": null, "weekdays": [1] }] }), &[], WINDOWS),
        (json!({ "windows": [{ "hours": "00:30-08:00" }] }), &[], WINDOWS),
        (json!({ "windows": [{ "hours_utc": 5 }] }), &[], WINDOWS),
        (json!({ "windows": [{ "hours_utc": {} }] }), &[], WINDOWS),
        (json!({ "windows": [{ "hours_utc": [] }] }), &[], WINDOWS),
        (json!({ "windows": [{ "hours_utc": ["00:30-08:00", 9] }] }), &[], WINDOWS),
        (json!({ "windows": hours("at night") }), &[], WINDOWS),
        (json!({ "windows": hours("00:30-25:00") }), &[], WINDOWS),
        (json!({ "windows": [{ "hours_utc": "00:30-08:00", "months": [1] }] }), &[], WINDOWS),
        (json!({ "windows": [{ "hours_utc": "00:30-08:00", "weekdays": [] }] }), &[], WINDOWS),
        (json!({ "windows": [{ "hours_utc": "00:30-08:00", "weekdays": [0] }] }), &[], WINDOWS),
        (json!({ "windows": [{ "hours_utc": "00:30-08:00", "weekdays": "all" }] }), &[], WINDOWS),
        // What is wrong with one window says nothing of another.
        (
            json!({ "windows": [{ "hours_utc": 5 }, { "hours_utc": "00:30-08:00" }] }),
            &["00:30-08:00"],
            WINDOWS,
        ),
        (json!({ "windows": hours("00:30-08:00"), "months": [1] }), &[], &["off_peak_pricing"]),
        (
            json!({ "windows": hours("00:30-08:00"), "output_cost_per_image": 1 }),
            &["00:30-08:00"],
            &["off_peak_pricing.output_cost_per_image"],
        ),
    ];
    for (mut off_peak, expected, left_out) in rows {
        off_peak["input_cost_per_token"] = json!(1e-6);
        let list = json!({ "m": { "litellm_provider": "deepseek", "mode": "chat",
            "input_cost_per_token": 2e-6, "output_cost_per_token": 3e-6,
            "off_peak_pricing": off_peak } });
        let imported =
            import_text(Source::Litellm, &list.to_string(), &Wanted::default(), edition());
        let imported = imported.expect("a card");
        let rates = rates(&imported);
        let cheap = rates.iter().filter(|rate| rate["input"] == "1");
        let cheap: Vec<&str> =
            cheap.map(|rate| rate["when"]["hours_utc"].as_str().unwrap_or("all")).collect();
        assert_eq!(cheap, expected, "{off_peak}");
        assert_eq!(rates.iter().filter(|rate| rate["input"] == "2").count(), 1, "{off_peak}");
        let found = imported.report.left_out().iter().filter_map(|left| left.member.as_deref());
        assert_eq!(found.collect::<Vec<_>>(), left_out, "{off_peak}");
    }
}

#[test]
fn litellm_prices_of_all_models_are_those_of_entries_that_price_nothing_else() {
    for (members, expected) in [
        (json!({ "code_interpreter_cost_per_session": 0.03 }), "*"),
        (json!({ "code_interpreter_cost_per_session": 0.03, "input_cost_per_token": null }), "*"),
        (json!({ "guardrail_cost_per_unit": { "contentPolicyUnits": 0.00015 } }), "*"),
        (json!({ "code_interpreter_cost_per_session": null, "input_cost_per_token": 1e-6 }), "m"),
        // Free tokens, too, are those of this model alone.
        (json!({ "code_interpreter_cost_per_session": 0.03, "input_cost_per_token": 0 }), "m"),
        (
            json!({ "guardrail_cost_per_unit": { "a": 1 }, "cache_read_input_token_cost": 1e-6 }),
            "m",
        ),
        (json!({ "code_interpreter_cost_per_session": 0.03, "output_cost_per_image": 0.04 }), "m"),
        (json!({ "code_interpreter_cost_per_session": 0.03, "output_cost_per_second": 0.04 }), "m"),
    ] {
        let mut entry = members.clone();
        entry["litellm_provider"] = json!("openai");
        let list = json!({ "m": entry }).to_string();
        let imported = import_text(Source::Litellm, &list, &Wanted::default(), edition());
        let rates = rates(&imported.expect("a card"));
        let models: Vec<&Value> = rates.iter().map(|rate| &rate["model"]).collect();
        assert_eq!(models, [expected], "{members}");
    }
}

#[test]
fn genai_prices_with_a_condition_that_a_card_cannot_say_are_left_out_and_named() {
    let always = || json!({ "prices": { "input_mtok": 3 } });
    let by = |constraint: Value| json!({ "constraint": constraint, "prices": { "input_mtok": 1 } });
    let known = |from: &str, hours: Option<&str>| {
        let mut rates = vec![];
        let from = Some(from).filter(|from| !from.is_empty());
        rates.push((from.map(str::to_owned), hours.map(str::to_owned)));
        rates
    };
    for (listed, expected, reason) in [
        (by(json!({ "start_date": "2026-01-01" })), known("2026-01-01", None), ""),
        (
            by(json!({ "start_date": "2026-01-01", "end_date": null })),
            known("2026-01-01", None),
            "",
        ),
        (
            by(json!({ "start_time": "00:30:00Z", "end_time": "08:00:00+00:00" })),
            known("", Some("00:30-08:00")),
            "",
        ),
        (by(json!({ "start_date": "2026-01-01", "end_date": "2026-02-01" })), vec![], "cannot say"),
        (
            by(json!({ "start_date": "2026-01-01", "start_time": "00:30:00Z" })),
            vec![],
            "cannot say",
        ),
        (
            by(json!({ "start_date": "2026-01-01", "start_time": "00:30:00Z",
                "end_time": "08:00:00Z" })),
            vec![],
            "cannot say",
        ),
        (
            by(json!({ "start_time": "00:30:00Z", "end_time": "08:00:00Z", "weekdays": [1] })),
            vec![],
            "cannot say",
        ),
        (by(json!({ "start_time": "00:30:00Z" })), vec![], "cannot say"),
        (by(json!({ "start_date": "soon" })), vec![], "cannot say"),
        (by(json!({})), vec![], "cannot say"),
        (
            by(json!({ "start_time": "00:30:00+08:00", "end_time": "08:00:00+08:00" })),
            vec![],
            "than of UTC",
        ),
        (
            json!({ "prices": { "input_mtok": 1 }, "when": { "processing": "batch" } }),
            vec![],
            "cannot say",
        ),
        (json!({ "prices": { "input_mtok": 1 }, "region": "eu" }), vec![], "cannot say"),
    ] {
        let import = |prices: &[Value]| {
            let list = json!([{ "id": "openai", "models": [
                { "id": "m", "match": { "equals": "m" }, "prices": prices },
                { "id": "n", "match": { "equals": "n" }, "prices": { "input_mtok": 9 } } ] }]);
            let list = list.to_string();
            import_text(Source::GenaiPrices, &list, &Wanted::default(), edition()).expect("a card")
        };
        let imported = import(&[always(), listed.clone()]);
        let rates = of(&rates(&imported), "openai", "m");
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let cheap = rates.iter().filter(|rate| rate["input"] == "1");
        let cheap: Vec<_> = cheap
            .map(|rate| (text(&rate["effective_from"]), text(&rate["when"]["hours_utc"])))
            .collect();
        assert_eq!(cheap, expected, "{listed}");
        assert!(rates.iter().any(|rate| rate["input"] == "3"), "{listed}");
        let left_out = imported.report.to_text();
        let is_told = left_out.starts_with("openai/m\tprices\tby ") && left_out.contains(reason);
        assert_eq!(is_told, !reason.is_empty(), "{listed}: {left_out}");
        // Alone it says nothing of other times.
        if !reason.is_empty() {
            let imported = import(std::slice::from_ref(&listed));
            assert_eq!(of(&self::rates(&imported), "openai", "m"), [] as [Value; 0], "{listed}");
            let reason = imported.report.reason_of("openai/m");
            assert_eq!(reason, Some("no price that always applies"), "{listed}");
        }
    }
    // Of a service tier nothing is left to stand in.
    let list = json!([{ "id": "openai", "models": [{ "id": "m", "match": { "equals": "m" },
        "prices": { "input_mtok": 3 }, "price_variants": [{ "when": { "processing": "batch" },
            "prices": { "input_mtok": 1 }, "constraint": { "end_date": "2026-01-01" } }] }] }]);
    let imported =
        import_text(Source::GenaiPrices, &list.to_string(), &Wanted::default(), edition());
    let imported = imported.expect("a card");
    assert_eq!(of(&rates(&imported), "openai", "m"), [json!({ "input": "3" })]);
    let expected = "openai/m\tprocessing=batch\tby a condition that a card cannot say\n";
    assert_eq!(imported.report.to_text(), expected);
}

#[test]
fn genai_prices_of_a_provider_apply_to_another_that_sells_its_models() {
    let list = r#"[
        { "id": "openai", "models": [
            { "id": "gpt-4o", "match": { "equals": "gpt-4o" }, "prices": { "input_mtok": 2.5 } },
            { "id": "gpt-5", "match": { "equals": "gpt-5" }, "prices": { "input_mtok": 1.25 } } ] },
        { "id": "azure", "fallback_model_providers": ["openai", "elsewhere"], "models": [
            { "id": "gpt-4o", "match": { "starts_with": "gpt-4o" }, "prices": { "input_mtok": 3 } },
            { "id": "ocr", "match": { "equals": "ocr" }, "prices": { "input_document_kpages": 2,
                "input_annotated_document_kpages": 3, "requests_kcount": 5, "input_audio_hours": 0.36, "input_text_messages_kcount": 1 } } ] }
    ]"#;
    let imported = import_text(Source::GenaiPrices, list, &Wanted::default(), edition());
    let imported = imported.expect("a card");
    check(
        &rates(&imported),
        &[
            ("openai", "gpt-4o", json!({ "input": "2.5" })),
            ("azure_openai", "gpt-4o*", json!({ "input": "3" })),
            // A pattern of the seller's own goes before a name of another one.
            ("azure_openai", "gpt-4o", json!([])),
            ("azure_openai", "gpt-5", json!({ "input": "1.25" })),
            (
                "azure_openai",
                "ocr",
                json!({ "units": { "pages": "0.002", "annotated_pages": "0.001", "requests": "0.005",
                    "input_audio_seconds": "0.0001" } }),
            ),
        ],
    );
    let expected = "azure/*\t*\tprices of elsewhere, which the list lacks\n\
        azure/ocr\tinput_text_messages_kcount\tno unit of a card\n";
    assert_eq!(imported.report.to_text(), expected);
}

#[test]
fn models_dev_prices_a_million() {
    let imported = imported(Source::ModelsDev, "models_dev.json", &Wanted::default());
    check(
        &rates(&imported),
        &[
            ("openai", "gpt-4o", json!({ "input": "2.5", "cache_read": "1.25", "output": "10" })),
            (
                "openai",
                "gpt-realtime",
                json!({ "input": "4", "cache_read": "0.4", "input_audio": "32", "output": "16", "output_audio": "64" }),
            ),
            // `tiers` replaces the older `context_over_200k`.
            (
                "openai",
                "gpt-5.5",
                json!({ "input": "5", "cache_read": "0.5", "output": "30", "context_tiers": [
                    { "above_input_tokens": 272_000, "input": "10", "cache_read": "1", "output": "45" }] }),
            ),
            (
                "anthropic",
                "claude-sonnet-4-5",
                json!({ "input": "3", "cache_read": "0.3", "cache_write_5m": "3.75", "output": "15",
                    "context_tiers": [{ "above_input_tokens": 200_000, "input": "6", "cache_read": "0.6",
                        "cache_write_5m": "7.5", "output": "22.5" }] }),
            ),
            (
                "bedrock",
                "anthropic.claude-sonnet-4-5-20250929-v1:0",
                json!({ "input": "3", "cache_read": "0.3", "cache_write_5m": "3.75", "output": "15" }),
            ),
        ],
    );
    assert_eq!(imported.report.reason_of("openai/whisper-1"), Some("no price"));
    let asked = wanted(&["perplexity"], &[]);
    let perplexity = self::imported(Source::ModelsDev, "models_dev.json", &asked);
    check(
        &rates(&perplexity),
        &[(
            "perplexity",
            "sonar-deep-research",
            json!({ "input": "2", "output": "8", "reasoning": "3" }),
        )],
    );
}

#[test]
fn genai_prices_have_periods_variants_and_clauses() {
    let imported = imported(Source::GenaiPrices, "genai_prices.json", &Wanted::default());
    let rates = rates(&imported);
    let o3 = of(&rates, "openai", "o3");
    let periods: Vec<_> = o3
        .iter()
        .map(|rate| {
            (&rate["effective_from"], &rate["effective_to"], &rate["input"], &rate["output"])
        })
        .collect();
    // The price fell on one day; prices of service tiers came on two other days.
    assert_eq!(
        periods,
        [
            (&Value::Null, &json!("2025-06-10"), &json!("10"), &json!("40")),
            (&json!("2025-06-10"), &json!("2026-10-12"), &json!("2"), &json!("8")),
            (&json!("2026-10-12"), &json!("2026-10-14"), &json!("2"), &json!("8")),
            (&json!("2026-10-14"), &Value::Null, &json!("2"), &json!("8")),
        ]
    );
    assert_eq!(o3[1]["service_tiers"]["batch"], Value::Null);
    assert_eq!(o3[2]["service_tiers"]["batch"], Value::Null);
    assert_eq!(o3[3]["service_tiers"]["batch"], json!({ "input": "1", "output": "4" }));
    let claude = json!({ "input": "3", "cache_read": "0.3", "cache_write_5m": "3.75", "cache_write_1h": "6",
        "output": "15", "context_tiers": [{ "above_input_tokens": 200_000, "input": "6", "cache_read": "0.6",
            "cache_write_5m": "7.5", "cache_write_1h": "12", "output": "22.5" }],
        "units": { "web_searches": "0.01" } });
    let mut first = claude.clone();
    first["aliases"] = json!(["claude-sonnet-4.5*"]);
    first["effective_to"] = json!("2026-10-14");
    assert_eq!(of(&rates, "anthropic", "claude-sonnet-4-5*")[0], first);
    check(
        &rates,
        &[(
            "anthropic",
            "claude-2*",
            json!({ "aliases": ["*claude-v2*"], "input": "8", "output": "24" }),
        )],
    );
    // Both of Google's APIs share one list; a clause that is not a pattern leaves the model's own
    // name.
    for provider in ["gemini", "vertex"] {
        assert_eq!(of(&rates, provider, "gemini-2.5-pro").len(), 2, "{provider}");
    }
    let report = &imported.report;
    let deepseek = of(&rates, "deepseek", "deepseek-chat-v3-0324");
    let by_hour: Vec<_> =
        deepseek.iter().map(|rate| (&rate["when"]["hours_utc"], &rate["input"])).collect();
    assert_eq!(by_hour, [(&json!("00:30-16:30"), &json!("0.27")), (&Value::Null, &json!("0.135"))]);
    let text = report.to_string();
    let line = "1 match by `and`: no pattern of a card; what only it matches has no rate (google/gemini-2.5-pro)";
    assert!(text.contains(line), "{text}");
    let image = of(&rates, "openai", "gpt-image-1");
    assert!(image[0]["cache_read_image"].is_string(), "{image:?}");
}

#[test]
fn what_cannot_be_imported_names_its_place() {
    let litellm = Source::Litellm;
    for (source, text, asked, expected) in [
        (litellm, "[", &[][..], "expected a list of litellm"),
        (litellm, "{}", &[], "no model was mapped"),
        (
            litellm,
            r#"{"m": {"litellm_provider": "openai", "input_cost_per_token": "cheap"}}"#,
            &[],
            "m: input_cost_per_token: expected a price of zero or more, found \"cheap\"",
        ),
        (
            litellm,
            r#"{"m": {"litellm_provider": "openai", "input_cost_per_token": -1e-6}}"#,
            &[],
            "m: input_cost_per_token: expected a price of zero or more, found -1e-6",
        ),
        (
            litellm,
            r#"{"m": {"litellm_provider": "openai", "input_cost_per_token": 1e-6}}"#,
            &["openia"],
            "--provider: the list has no provider \"openia\"",
        ),
        (
            Source::ModelsDev,
            r#"{"openai": {"models": {"m": {"cost": {"input": [1]}}}}}"#,
            &[],
            "openai.models.m: cost: input: expected a price of zero or more, found [1]",
        ),
        (
            Source::GenaiPrices,
            r#"[{"id": "openai", "models": [{"id": "m", "match": {"equals": "m"}, "prices": {"input_mtok": {"tiers": []}}}]}]"#,
            &[],
            "openai/m: input_mtok: expected `base`, found none",
        ),
    ] {
        let refused = import_text(source, text, &wanted(asked, &[]), edition());
        let refused = format!("{:#}", refused.expect_err(text));
        assert!(refused.contains(expected), "{text}: {refused}");
    }
    let missing = import(litellm, Path::new("/no/such.json"), &Wanted::default(), edition());
    let missing = format!("{:#}", missing.expect_err("no file"));
    assert!(missing.contains("/no/such.json"), "{missing}");
}

#[test]
fn a_card_without_a_version_is_called_by_its_list_and_its_date() {
    let unnamed = Edition { version: None, ..edition() };
    let list = fixture("models_dev.json");
    let imported = import(Source::ModelsDev, &list, &wanted(&["openai"], &[]), unnamed);
    let card = imported.expect("a card").card.to_rate_card().expect("a card");
    assert_eq!((card.version(), card.source()), ("models.dev 2026-11-20", Some("models.dev")));
}

#[test]
fn a_card_is_written_as_yaml_and_as_json() {
    let imported =
        imported(Source::ModelsDev, "models_dev.json", &wanted(&["openai"], &["gpt-4o"]));
    let yaml = imported.card.to_text(None).expect("YAML");
    assert_eq!(
        yaml,
        "version: test\nsource: models.dev\ndate: 2026-11-20\ncurrency: USD\nrates:\n- provider: openai\n  model: gpt-4o\n  input: '2.5'\n  \
         cache_read: '1.25'\n  output: '10'\n"
    );
    let json = imported.card.to_text(Some(Path::new("card.json"))).expect("JSON");
    let from_json: Value = serde_json::from_str(&json).expect("JSON");
    let from_yaml: Value = serde_yaml_ng::from_str(&yaml).expect("YAML");
    assert_eq!(from_json, from_yaml);
    let refused = imported.card.to_text(Some(Path::new("card.txt"))).expect_err("another name");
    assert!(refused.to_string().contains(".yaml or .json"), "{refused}");
}
