//! Rate cards: which rate a generation gets, what it costs to the last digit, and which cards are refused.

use agent_meter_core::base::document;
use agent_meter_core::base::invalid::ConfigError;
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::domain::price_factors::{Modifier, Modifiers, PriceFactors, ServiceTier};
use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::units::{Unit, Units};
use agent_meter_core::domain::usage::{TokenKind, Usage};
use agent_meter_core::pricing::rate_card::price_consumed;
use agent_meter_core::pricing::{Circumstances, Consumed, Line, RateCard, Unpriced, cost};
use agent_meter_core::protocol::llm::provider::{Family, Provider};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::support::test;

fn read(card: Value) -> Result<RateCard, ConfigError> {
    let card: RateCard = document::read(card)?;
    card.validate("")?;
    Ok(card)
}

fn card(rates: &Value) -> RateCard {
    read(json!({ "version": "test", "currency": "USD", "rates": rates })).expect("a valid card")
}

/// A card with the one rate of `model`.
fn only(mut rate: Value) -> RateCard {
    rate["provider"] = json!("openai");
    rate["model"] = json!("model");
    card(&json!([rate]))
}

fn usage(counts: &Value) -> Usage {
    let mut usage = Usage::default();
    for (name, count) in counts.as_object().expect("counts") {
        let count = count.as_u64();
        match name.as_str() {
            "input" => usage.input = count,
            "output" => usage.output = count,
            "cache_read" => usage.cache_read = count,
            "cache_write_5m" => usage.cache_write_5m = count,
            "cache_write_1h" => usage.cache_write_1h = count,
            "input_audio" => usage.input_audio = count,
            "input_image" => usage.input_image = count,
            "cache_read_audio" => usage.cache_read_audio = count,
            "cache_read_image" => usage.cache_read_image = count,
            "input_video" => usage.input_video = count,
            "output_video" => usage.output_video = count,
            "reasoning" => usage.reasoning = count,
            "output_audio" => usage.output_audio = count,
            "output_image" => usage.output_image = count,
            other => panic!("{other} is no count"),
        }
    }
    usage
}

/// The lines as `kind tokens cost`, the total, and what else is to be known.
fn priced(rate: &Value, counts: &Value, tier: ServiceTier) -> String {
    let card = only(rate.clone());
    let rate = card.find(Family::OpenAi, "model", "", Timestamp(0)).expect("a rate");
    match cost(&usage(counts), rate, tier) {
        Ok(priced) => {
            let sum: rust_decimal::Decimal = priced.lines.iter().map(|line| line.cost).sum();
            assert_eq!(sum, priced.total, "{priced:?}");
            let lines: Vec<String> = priced
                .lines
                .iter()
                .map(|line| format!("{} {} {}", line.kind.name(), line.tokens, line.cost))
                .collect();
            let mark = if priced.is_inconsistent { " inconsistent" } else { "" };
            format!("{} = {}{mark}", lines.join(" + "), priced.total)
        }
        Err(reason) => reason.to_string(),
    }
}

#[test]
fn every_token_costs_the_rate_of_its_kind_once() {
    let plain = json!({ "input": "2.5", "output": "10" });
    let cached = json!({ "input": "3", "output": "15", "cache_read": "0.3", "cache_write_5m": "3.75",
        "cache_write_1h": "6" });
    let audio = json!({ "input": "4", "output": "16", "cache_read": "0.4", "input_audio": "32",
        "cache_read_audio": "0.5", "output_audio": "64" });
    let audio_without_cached_audio = json!({ "input": "4", "output": "16", "cache_read": "0.4",
        "input_audio": "32" });
    let audio_without_cache = json!({ "input": "4", "output": "16", "input_audio": "32" });
    let images = json!({ "input": "5", "output": "10", "cache_read": "1.25", "input_image": "10",
        "cache_read_image": "2.5" });
    for (what, rate, counts, expected) in [
        (
            "input and output",
            &plain,
            json!({ "input": 1000, "output": 100 }),
            "input 1000 0.0025 + output 100 0.001 = 0.0035",
        ),
        ("no tokens", &plain, json!({ "input": 0, "output": 0 }), " = 0"),
        ("output alone", &plain, json!({ "output": 7 }), "output 7 0.00007 = 0.00007"),
        ("input alone", &plain, json!({ "input": 7 }), "input 7 0.0000175 = 0.0000175"),
        (
            "parts without rates stay in their whole",
            &plain,
            json!({ "input": 10, "output": 10, "cache_read": 2, "cache_write_5m": 2, "cache_write_1h": 1,
                "input_audio": 3, "input_image": 2, "reasoning": 4, "output_audio": 3, "output_image": 3 }),
            "input 10 0.000025 + output 10 0.0001 = 0.000125",
        ),
        (
            "a cache",
            &cached,
            json!({ "input": 1000, "output": 10, "cache_read": 600, "cache_write_5m": 200, "cache_write_1h": 100 }),
            "input 100 0.0003 + cache_read 600 0.00018 + cache_write_5m 200 0.00075 + \
             cache_write_1h 100 0.0006 + output 10 0.00015 = 0.00198",
        ),
        (
            "a write for an hour costs as one for 5 minutes where it has no rate",
            &json!({ "input": "3", "output": "15", "cache_write_5m": "3.75" }),
            json!({ "input": 300, "output": 0, "cache_write_1h": 200 }),
            "input 100 0.0003 + cache_write_1h 200 0.00075 = 0.00105",
        ),
        (
            "a write for 5 minutes is input where only one for an hour has a rate",
            &json!({ "input": "3", "output": "15", "cache_write_1h": "6" }),
            json!({ "input": 300, "output": 0, "cache_write_5m": 200 }),
            "input 300 0.0009 = 0.0009",
        ),
        (
            "reasoning costs output where it has no rate",
            &plain,
            json!({ "input": 0, "output": 50, "reasoning": 40 }),
            "output 50 0.0005 = 0.0005",
        ),
        (
            "reasoning with a rate",
            &json!({ "input": "0.4", "output": "1.2", "reasoning": "4" }),
            json!({ "input": 0, "output": 50, "reasoning": 40 }),
            "output 10 0.000012 + reasoning 40 0.00016 = 0.000172",
        ),
        (
            "cached audio with a rate is taken out of both",
            &audio,
            json!({ "input": 100, "output": 20, "cache_read": 50, "input_audio": 40, "cache_read_audio": 30,
                "output_audio": 15 }),
            "input 40 0.00016 + cache_read 20 0.000008 + input_audio 10 0.00032 + \
             cache_read_audio 30 0.000015 + output 5 0.00008 + output_audio 15 0.00096 = 0.001543",
        ),
        (
            "cached audio without a rate is a cache read",
            &audio_without_cached_audio,
            json!({ "input": 100, "output": 0, "cache_read": 50, "input_audio": 40, "cache_read_audio": 30 }),
            "input 40 0.00016 + cache_read 50 0.00002 + input_audio 10 0.00032 = 0.0005",
        ),
        (
            "cached audio is audio where the cache has no rate",
            &audio_without_cache,
            json!({ "input": 100, "output": 0, "cache_read": 50, "input_audio": 40, "cache_read_audio": 30 }),
            "input 60 0.00024 + input_audio 40 0.00128 = 0.00152",
        ),
        (
            "cached audio tells of its wholes",
            &audio,
            json!({ "input": 100, "output": 0, "cache_read_audio": 30 }),
            "input 70 0.00028 + cache_read_audio 30 0.000015 = 0.000295",
        ),
        (
            "parts stand for an unknown whole",
            &cached,
            json!({ "output": 1, "cache_read": 10, "cache_write_5m": 4 }),
            "cache_read 10 0.000003 + cache_write_5m 4 0.000015 + output 1 0.000015 = 0.000033",
        ),
        (
            "images",
            &json!({ "input": "5", "output": "10", "input_image": "10", "output_image": "40" }),
            json!({ "input": 100, "output": 100, "input_image": 60, "output_image": 90 }),
            "input 40 0.0002 + input_image 60 0.0006 + output 10 0.0001 + output_image 90 0.0036 = 0.0045",
        ),
        (
            "cached images with a rate are taken out of both",
            &images,
            json!({ "input": 1000, "output": 0, "cache_read": 800, "input_image": 900, "cache_read_image": 800 }),
            "input 100 0.0005 + input_image 100 0.001 + cache_read_image 800 0.002 = 0.0035",
        ),
        (
            "cached images without a rate are a cache read",
            &json!({ "input": "5", "output": "10", "cache_read": "1.25", "input_image": "10" }),
            json!({ "input": 1000, "output": 0, "cache_read": 800, "input_image": 900, "cache_read_image": 800 }),
            "input 100 0.0005 + cache_read 800 0.001 + input_image 100 0.001 = 0.0025",
        ),
        (
            "images and audio that share the cache, of which nothing is told",
            &images,
            json!({ "input": 1000, "output": 0, "cache_read": 800, "input_image": 700 }),
            "cache_read 300 0.000375 + input_image 200 0.002 + cache_read_image 500 0.00125 = 0.003625",
        ),
        (
            "video with a rate is taken out of the images",
            &json!({ "input": "0.2", "output": "9", "input_image": "0.45", "input_video": "12", "output_video": "17.5" }),
            json!({ "input": 1000, "output": 100, "input_image": 900, "input_video": 600, "output_image": 80,
                "output_video": 50 }),
            "input 100 0.00002 + input_image 300 0.000135 + input_video 600 0.0072 + output 50 0.00045 + \
             output_video 50 0.000875 = 0.00868",
        ),
        (
            "video without a rate is an image",
            &json!({ "input": "0.2", "output": "9", "input_image": "0.45" }),
            json!({ "input": 1000, "output": 0, "input_image": 900, "input_video": 600 }),
            "input 100 0.00002 + input_image 900 0.000405 = 0.000425",
        ),
        (
            "a rate of zero is a price",
            &json!({ "input": "0", "output": "0" }),
            json!({ "input": 5, "output": 6 }),
            "input 5 0 + output 6 0 = 0",
        ),
        (
            "the smallest rate, to the last digit",
            &json!({ "input": "0.000000000001", "output": "0.333333333333" }),
            json!({ "input": 1, "output": 3 }),
            "input 1 0.000000000000000001 + output 3 0.000000999999999999 = 0.000001000000000000",
        ),
    ] {
        // A decimal is shown with its trailing zeros; equal values may differ there.
        let expected = expected.replace("0.000001000000000000", "0.000001");
        assert_eq!(priced(rate, &counts, ServiceTier::Standard), expected, "{what}");
    }
}

#[test]
fn inconsistent_counts_charge_the_whole_and_say_so() {
    let rate = json!({ "input": "10", "output": "10", "cache_read": "1", "cache_read_audio": "2",
        "input_audio": "3", "reasoning": "20" });
    for (what, counts, expected) in [
        (
            "more read from the cache than read",
            json!({ "input": 100, "output": 0, "cache_read": 101 }),
            "cache_read 100 0.0001 = 0.0001 inconsistent",
        ),
        (
            "parts that are too much together",
            json!({ "input": 100, "output": 0, "cache_read": 80, "cache_write_5m": 30 }),
            "input 20 0.0002 + cache_read 80 0.00008 = 0.00028 inconsistent",
        ),
        (
            "what was read from the cache may be audio: both have what is too much",
            json!({ "input": 100, "output": 0, "cache_read": 80, "input_audio": 30 }),
            "cache_read 70 0.00007 + input_audio 20 0.00006 + cache_read_audio 10 0.00002 = 0.00015",
        ),
        (
            "parts without rates that are too much",
            json!({ "input": 100, "output": 0, "input_image": 101 }),
            "input 100 0.001 = 0.001 inconsistent",
        ),
        (
            "more cached audio than audio",
            json!({ "input": 100, "output": 0, "cache_read": 50, "input_audio": 10, "cache_read_audio": 20 }),
            "input 50 0.0005 + cache_read 40 0.00004 + cache_read_audio 10 0.00002 = 0.00056 inconsistent",
        ),
        (
            "more reasoning than output",
            json!({ "input": 0, "output": 5, "reasoning": 6 }),
            "reasoning 5 0.0001 = 0.0001 inconsistent",
        ),
        (
            "the largest counts",
            json!({ "input": 1, "output": 0, "cache_read": u64::MAX, "input_audio": u64::MAX }),
            "cache_read_audio 1 0.000002 = 0.000002 inconsistent",
        ),
        (
            "all that there is, and no more",
            json!({ "input": 100, "output": 0, "cache_read": 60, "input_audio": 60, "cache_read_audio": 20 }),
            "cache_read 40 0.00004 + input_audio 40 0.00012 + cache_read_audio 20 0.00004 = 0.0002",
        ),
    ] {
        assert_eq!(priced(&rate, &counts, ServiceTier::Standard), expected, "{what}");
    }
}

#[test]
fn whatever_is_told_each_token_is_charged_once() {
    const SEED: u64 = 20_261_123;
    let mut dice = Dice(SEED);
    for round in 0..5000 {
        let mut rate = json!({ "input": "1", "output": "1" });
        for kind in TokenKind::ALL {
            if dice.below(2) == 0 {
                rate[kind.name()] = json!("1");
            }
        }
        let mut count = || (dice.below(4) > 0).then(|| dice.below(100));
        let usage = Usage {
            input: Some(count().unwrap_or(0)),
            output: Some(count().unwrap_or(0)),
            cache_read: count(),
            cache_write_5m: count(),
            cache_write_1h: count(),
            input_audio: count(),
            input_image: count(),
            cache_read_audio: count(),
            cache_read_image: count(),
            input_video: count(),
            reasoning: count(),
            output_audio: count(),
            output_image: count(),
            output_video: count(),
            ..Usage::default()
        };
        let card = only(rate.clone());
        let priced = cost(&usage, &card.rates()[0], ServiceTier::Standard).expect("a price");
        let is_output = |kind: TokenKind| kind >= TokenKind::Output;
        let (made, read): (Vec<_>, Vec<_>) =
            priced.lines.iter().partition(|line| is_output(line.kind));
        let sum = |lines: &[&Line]| lines.iter().map(|line| line.tokens).sum::<u64>();
        let charged = (sum(&read), sum(&made));
        let told = (usage.input.unwrap_or(0), usage.output.unwrap_or(0));
        assert_eq!(charged, told, "seed {SEED}, round {round}: {rate}, {usage:?}, {priced:?}");
        let (part, whole) = (usage.reasoning.unwrap_or(0), told.1);
        assert!(part <= whole || priced.is_inconsistent, "round {round}: {usage:?}");
    }
}

#[test]
fn what_has_no_price_is_not_free() {
    let output_only = json!({ "output": "10" });
    for (what, rate, counts, expected) in [
        (
            "a kind without any rate",
            output_only.clone(),
            json!({ "input": 1, "output": 1 }),
            "no rate for input tokens",
        ),
        (
            "none of that kind",
            output_only,
            json!({ "input": 0, "output": 1 }),
            "output 1 0.00001 = 0.00001",
        ),
        (
            "an embedding has no output",
            json!({ "input": "1" }),
            json!({ "input": 1, "output": 1 }),
            "no rate for output tokens",
        ),
        (
            "everything is cached",
            json!({ "cache_read": "1" }),
            json!({ "input": 5, "cache_read": 5 }),
            "cache_read 5 0.000005 = 0.000005",
        ),
        (
            "nothing is known",
            json!({ "input": "1" }),
            json!({ "cache_read": 5 }),
            "neither input nor output tokens are known",
        ),
        (
            "more than a decimal can hold",
            json!({ "input": "999999999999.999999999999" }),
            json!({ "input": u64::MAX }),
            "the cost is more than a decimal can hold",
        ),
    ] {
        assert_eq!(priced(&rate, &counts, ServiceTier::Standard), expected, "{what}");
    }
    let card = only(json!({ "input": "1" }));
    let found = card.price(
        Family::Anthropic,
        "",
        "claude",
        Timestamp(0),
        ServiceTier::Standard,
        &usage(&json!({ "input": 1 })),
    );
    let model = "claude".to_owned();
    assert_eq!(found, Err(Unpriced::NoRate { provider: Family::Anthropic.seller(), model }));
}

#[test]
fn a_long_context_prices_the_whole_request() {
    let rate = json!({ "input": "1", "output": "10", "cache_read": "0.1", "context_tiers": [
        { "above_input_tokens": 200, "input": "2", "output": "20" },
        { "above_input_tokens": 400, "input": "4", "cache_read": "0.4" },
    ] });
    for (what, counts, expected) in [
        (
            "at the threshold",
            json!({ "input": 200, "output": 1 }),
            "input 200 0.0002 + output 1 0.00001 = 0.00021",
        ),
        (
            "above it, all tokens",
            json!({ "input": 201, "output": 1 }),
            "input 201 0.000402 + output 1 0.00002 = 0.000422",
        ),
        (
            "cached tokens count, and a kind that is not named keeps its rate",
            json!({ "input": 201, "output": 0, "cache_read": 200 }),
            "input 1 0.000002 + cache_read 200 0.00002 = 0.000022",
        ),
        (
            "only the highest tier counts",
            json!({ "input": 401, "output": 1, "cache_read": 1 }),
            "input 400 0.0016 + cache_read 1 0.0000004 + output 1 0.00001 = 0.0016104",
        ),
    ] {
        assert_eq!(priced(&rate, &counts, ServiceTier::Standard), expected, "{what}");
    }
}

#[test]
fn a_service_tier_replaces_the_rates_that_it_names() {
    let rate = json!({ "input": "2", "output": "10", "cache_read": "1",
        "context_tiers": [{ "above_input_tokens": 1000, "input": "4", "output": "20", "cache_read": "2" }],
        "service_tiers": {
            "batch": { "input": "1", "output": "5" },
            "priority": { "output": "30", "context_tiers": [{ "above_input_tokens": 1000, "output": "60" }] },
        } });
    let small = json!({ "input": 100, "output": 10, "cache_read": 50 });
    let large = json!({ "input": 2000, "output": 10, "cache_read": 50 });
    for (what, tier, counts, expected) in [
        (
            "batch",
            ServiceTier::Batch,
            &small,
            "input 50 0.00005 + cache_read 50 0.00005 + output 10 0.00005 = 0.00015",
        ),
        (
            "batch, where its own rate goes before a standard context tier",
            ServiceTier::Batch,
            &large,
            "input 1950 0.00195 + cache_read 50 0.0001 + output 10 0.00005 = 0.0021",
        ),
        (
            "priority with its own context tier",
            ServiceTier::Priority,
            &large,
            "input 1950 0.0078 + cache_read 50 0.0001 + output 10 0.0006 = 0.0085",
        ),
        (
            "a tier that the card does not name has no price",
            ServiceTier::Flex,
            &small,
            "no rate for the tier \"flex\"",
        ),
    ] {
        assert_eq!(priced(&rate, counts, tier), expected, "{what}");
    }
}

#[test]
fn a_modifier_multiplies_every_rate_and_has_no_price_without_a_multiplier() {
    let card = only(json!({ "input": "3", "output": "15",
        "service_tiers": { "fast": { "input": "6", "output": "30" } },
        "multipliers": { "speed": { "fast": "2" }, "inference_geo": { "us": "1.1" } } }));
    let usage = usage(&json!({ "input": 1000, "output": 100 }));
    let at = |tier: &str, words: &[(Modifier, &str)]| {
        let mut modifiers = Modifiers::default();
        words.iter().for_each(|(modifier, word)| modifiers.tell(*modifier, word));
        let factors = PriceFactors { modifiers, ..ServiceTier::new(tier).into() };
        let priced = card.price(Family::OpenAi, "model", "", Timestamp(0), factors, &usage);
        priced.map_or_else(|reason| reason.to_string(), |priced| priced.total.to_string())
    };
    for (tier, words, expected) in [
        ("standard", &[][..], "0.0045"),
        (
            "standard",
            &[(Modifier::Speed, "standard"), (Modifier::InferenceGeo, "global")],
            "0.0045",
        ),
        ("standard", &[(Modifier::Speed, "fast")], "0.009"),
        ("standard", &[(Modifier::InferenceGeo, "us")], "0.00495"),
        ("standard", &[(Modifier::Speed, "fast"), (Modifier::InferenceGeo, "US")], "0.0099"),
        ("fast", &[(Modifier::InferenceGeo, "us")], "0.0099"),
        ("standard", &[(Modifier::InferenceGeo, "eu")], "no rate for inference_geo \"eu\""),
        ("standard", &[(Modifier::Latency, "optimized")], "no rate for latency \"optimized\""),
        ("platinum", &[], "no rate for the tier \"platinum\""),
    ] {
        assert_eq!(at(tier, words), expected, "{tier} {words:?}");
    }
}

#[test]
fn the_rate_that_was_taken_is_told() {
    let card =
        only(json!({ "input": "2", "context_tiers": [{ "above_input_tokens": 10, "input": "4" }],
        "service_tiers": { "batch": { "input": "1" } } }));
    let at = |tier, input| {
        let usage = usage(&json!({ "input": input }));
        let at = Timestamp(0);
        let priced = card.price(Family::OpenAi, "model", "", at, tier, &usage);
        let priced = priced.expect("a price");
        (priced.above_input_tokens, priced.lines[0].rate.to_string())
    };
    assert_eq!(at(ServiceTier::Standard, 10), (None, "2".to_owned()));
    assert_eq!(at(ServiceTier::Standard, 11), (Some(10), "4".to_owned()));
    assert_eq!(at(ServiceTier::Batch, 10), (None, "1".to_owned()));
}

#[test]
fn the_most_exact_name_decides() {
    let rate = |provider: &str, model: &str, aliases: &[&str]| json!({ "provider": provider, "model": model, "aliases": aliases, "input": "1" });
    let card = card(&json!([
        rate("*", "*-free", &[]),
        rate("openai", "gpt-4o*", &[]),
        rate("openai", "gpt-*", &[]),
        rate("*", "gpt-4o", &[]),
        rate("openai", "gpt-4o", &["gpt-4o-2024-08-06", "chatgpt-4o-*"]),
        rate("anthropic", "gpt-4o-mini", &[]),
        rate("bedrock", "*anthropic.claude-sonnet-4-5*", &[]),
    ]));
    for (what, provider, answered, requested, expected) in [
        ("exact", Family::OpenAi, "gpt-4o", "", Some(4)),
        ("exact for any provider", Family::Mistral, "gpt-4o", "", Some(3)),
        ("alias", Family::OpenAi, "gpt-4o-2024-08-06", "gpt-4o", Some(4)),
        (
            "a pattern among aliases, in the card's order",
            Family::OpenAi,
            "chatgpt-4o-latest",
            "",
            Some(4),
        ),
        ("the first pattern that fits", Family::OpenAi, "gpt-4o-mini", "", Some(1)),
        ("a later pattern", Family::OpenAi, "gpt-5", "", Some(2)),
        ("a pattern for any provider", Family::Ollama, "x-free", "", Some(0)),
        ("letters' case counts", Family::OpenAi, "GPT-4o", "", None),
        ("another provider's model", Family::Mistral, "gpt-4o-mini", "", None),
        ("requested, when the answer's name has no rate", Family::OpenAi, "o9", "gpt-4o", Some(4)),
        (
            "answered, even if requested is more exact",
            Family::OpenAi,
            "gpt-4o-x",
            "gpt-4o",
            Some(1),
        ),
        ("requested alone", Family::OpenAi, "", "gpt-4o", Some(4)),
        ("behind a gateway's prefix", Family::OpenAi, "openai/gpt-4o", "", Some(4)),
        ("with a date that no rate names", Family::Mistral, "gpt-4o-2031-01-31", "", Some(3)),
        (
            "the answered name without its prefix, before another that was asked for",
            Family::OpenAi,
            "x/gpt-4o",
            "gpt-5",
            Some(4),
        ),
        (
            "the answered name without its date, before another that was asked for",
            Family::Mistral,
            "gpt-4o-2031-01-31",
            "x-free",
            Some(3),
        ),
        (
            "Bedrock's id that was asked for, before the model in the body",
            Family::Bedrock,
            "x-free",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            Some(6),
        ),
        (
            "the profile in an ARN",
            Family::Bedrock,
            "",
            "arn:aws:bedrock:us-east-1:1:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            Some(6),
        ),
        ("no name", Family::OpenAi, "", "", None),
        (
            "Bedrock's ids by pattern",
            Family::Bedrock,
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "",
            Some(6),
        ),
    ] {
        let found = card.find(provider, answered, requested, Timestamp(0));
        let expected: Option<usize> = expected;
        assert_eq!(found, expected.map(|at| &card.rates()[at]), "{what}");
    }
}

/// The first card is the operator's own, and names the model as clients do.
#[test]
fn a_model_has_the_first_price_of_its_name_even_if_it_answers_with_a_date() {
    let of = |model: &str, input: &str| {
        card(&json!([{ "provider": "openai", "model": model, "input": input, "output": "0" }]))
    };
    let cards = [of("gpt-4o", "1"), of("gpt-4o-2024-08-06", "2")];
    for (answered, requested, cost) in [
        ("gpt-4o-2024-08-06", "gpt-4o", "1"),
        ("gpt-4o-2024-08-06", "", "2"),
        ("gpt-4o-2024-08-06", "gpt-5", "2"),
        ("gpt-4o-2031-01-31", "gpt-5", "1"),
    ] {
        let at = Circumstances::from(Timestamp(0));
        let usage = usage(&json!({ "input": 1_000_000 }));
        let names = [answered, requested];
        let priced = price_consumed(&cards.iter(), Family::OpenAi, names, at, &usage);
        assert_eq!(priced.unwrap().0.total.to_string(), cost, "{answered} {requested}");
    }
}

#[test]
fn a_general_price_of_a_unit_must_name_what_moves_it() {
    let card = card(&json!([
        { "provider": "openai", "model": "*", "units": { "pages": "0.01" },
            "service_tiers": { "flex": { "units": { "pages": "0.005" } } } },
        { "provider": "openai", "model": "known", "input": "1", "service_tiers": { "turbo": { "input": "2" } } },
    ]));
    let (none, some) = (Usage::default(), usage(&json!({ "input": 1_000_000 })));
    let mut pages = Units::default();
    pages.add(Unit::Pages, 2.into());
    for (model, usage, tier, expected) in [
        ("any", &none, "standard", "0.02"),
        ("any", &none, "flex", "0.01"),
        ("any", &none, "turbo", "no rate for the tier \"turbo\""),
        // The model's own rate knows the tier.
        ("known", &some, "turbo", "2.02"),
    ] {
        let consumed = Consumed { usage, units: Some(&pages) };
        let tier = ServiceTier::new(tier);
        let priced = card.price(Family::OpenAi, model, "", Timestamp(0), tier, consumed);
        let told = priced.map_or_else(|reason| reason.to_string(), |p| p.total.to_string());
        assert_eq!(told, expected, "{model} {tier:?}");
    }
}

#[test]
fn a_rate_of_the_seller_goes_before_one_of_its_format() {
    let rate =
        |provider: &str, model: &str| json!({ "provider": provider, "model": model, "input": "1" });
    let card = card(&json!([
        rate("*", "gpt-oss-120b"),
        rate("openai_compatible", "gpt-oss-120b"),
        rate("groq", "gpt-oss-120b"),
        rate("openai_compatible", "qwen3"),
        rate("*", "qwen3"),
        rate("openai_compatible", "kimi-*"),
        rate("anthropic", "claude"),
        rate("bedrock", "claude"),
        rate("acme", "own"),
    ]));
    let compatible = Family::OpenAiCompatible;
    for (seller, family, answered, requested, expected) in [
        ("groq", compatible, "gpt-oss-120b", "", Some(2)),
        ("cerebras", compatible, "gpt-oss-120b", "", Some(1)),
        ("openai_compatible", compatible, "gpt-oss-120b", "", Some(1)),
        ("cerebras", Family::Ollama, "gpt-oss-120b", "", Some(0)),
        ("openai", Family::OpenAi, "gpt-oss-120b", "", Some(0)),
        ("groq", compatible, "qwen3", "", Some(3)),
        ("groq", compatible, "kimi-k2", "", Some(5)),
        ("groq", Family::OpenAi, "kimi-k2", "", None),
        ("acme", Family::Anthropic, "claude", "", None),
        ("acme", Family::Bedrock, "claude", "own", Some(8)),
        ("acme", Family::Anthropic, "own", "claude", Some(8)),
        ("anthropic", Family::Anthropic, "claude", "", Some(6)),
    ] {
        let seller = Seller::new(seller).expect("a name");
        let found = card.find(Provider { seller, family }, answered, requested, Timestamp(0));
        let expected: Option<usize> = expected;
        assert_eq!(found, expected.map(|at| &card.rates()[at]), "{seller} {family:?} {answered}");
    }
}

#[test]
fn a_rate_counts_from_its_first_day_to_before_its_last() {
    let rate = |from: Value, to: Value, model: &str| json!({ "provider": "openai", "model": model, "effective_from": from, "effective_to": to, "input": "1" });
    let mut rates = vec![
        rate(json!("2026-01-01"), json!("2026-02-01"), "m"),
        rate(json!("2026-02-01"), json!("2026-03-01T11:00:00Z"), "m"),
        rate(json!("2026-01-01"), json!("2026-02-01"), "p*"),
        rate(json!("2026-01-01"), json!("2026-04-01"), "*"),
    ];
    rates.push(
        json!({ "provider": "mistral", "model": "m", "effective_to": "1970-01-02", "input": "1" }),
    );
    let card = card(&Value::Array(rates));
    let (january, february) = (1_767_225_600_000, 1_769_904_000_000);
    let eleven_in_march = 1_772_362_800_000;
    for (what, provider, model, at, expected) in [
        ("before all", Family::OpenAi, "m", january - 1, None),
        ("the first moment", Family::OpenAi, "m", january, Some(0)),
        ("the last moment", Family::OpenAi, "m", february - 1, Some(0)),
        ("the next rate", Family::OpenAi, "m", february, Some(1)),
        ("a time with an offset", Family::OpenAi, "m", eleven_in_march - 1, Some(1)),
        (
            "a pattern, when no exact rate counts any more",
            Family::OpenAi,
            "m",
            eleven_in_march,
            Some(3),
        ),
        ("a pattern's time", Family::OpenAi, "pp", january, Some(2)),
        (
            "a later pattern, when the first does not count any more",
            Family::OpenAi,
            "pp",
            february,
            Some(3),
        ),
        ("no beginning", Family::Mistral, "m", 0, Some(4)),
        ("an end", Family::Mistral, "m", 86_400_000, None),
    ] {
        let found = card.find(provider, model, "", Timestamp(at));
        let expected: Option<usize> = expected;
        assert_eq!(found, expected.map(|at| &card.rates()[at]), "{what}");
    }
}

#[test]
fn a_card_that_cannot_be_charged_by_is_refused_with_its_place() {
    let rates = |rates: Value| json!({ "version": "1", "currency": "USD", "rates": rates });
    let rate = |more: Value| {
        let mut rate = json!({ "provider": "openai", "model": "m", "input": "1" });
        for (name, value) in more.as_object().expect("members") {
            rate[name] = value.clone();
        }
        rates(json!([rate]))
    };
    let twice = |a: Value, b: Value| {
        let mut card = rate(a);
        let second = rate(b)["rates"][0].clone();
        card["rates"].as_array_mut().expect("rates").push(second);
        card
    };
    let decimal = "expected a decimal string from 0 to below 1000000000000 with at most 12 places";
    for (card, path, reason) in [
        (json!({ "rates": [] }), "", "missing field `version`"),
        (json!({ "version": "", "rates": [] }), "version", "found an empty string"),
        (
            json!({ "version": "1", "currency": "usd", "rates": [] }),
            "currency",
            "expected an ISO 4217 code",
        ),
        (json!({ "version": "1", "rates": [], "x": 1 }), "x", "unknown field `x`"),
        (rates(json!([{ "model": "m" }])), "rates[0]", "missing field `provider`"),
        (rates(json!([{ "provider": "*" }])), "rates[0]", "missing field `model`"),
        (rate(json!({ "provider": "OpenAI" })), "rates[0].provider", "expected a provider's name"),
        (rate(json!({ "model": "" })), "rates[0].model", "found an empty string"),
        (rate(json!({ "aliases": ["a", ""] })), "rates[0].aliases[1]", "found an empty string"),
        (rate(json!({ "input": 2.5 })), "rates[0].input", "invalid type: floating point"),
        (rate(json!({ "input": "-1" })), "rates[0].input", decimal),
        (rate(json!({ "input": "1e-6" })), "rates[0].input", decimal),
        (rate(json!({ "reasoning": "0.0000000000001" })), "rates[0].reasoning", decimal),
        (
            rate(json!({ "cached": "1" })),
            "rates[0].cached",
            "unknown field `cached`, expected one of",
        ),
        (rates(json!([{ "provider": "*", "model": "m" }])), "rates[0]", "at least one rate"),
        (
            rate(json!({ "effective_from": "2026-13-01" })),
            "rates[0].effective_from",
            "expected a date",
        ),
        (
            rate(json!({ "effective_from": "1969-12-31" })),
            "rates[0].effective_from",
            "not before 1970",
        ),
        (
            rate(json!({ "effective_from": "2026-01-01", "effective_to": "2026-01-01" })),
            "rates[0].effective_to",
            "expected a time after `effective_from`",
        ),
        (
            rate(json!({ "context_tiers": [{ "input": "1" }] })),
            "rates[0].context_tiers[0]",
            "missing field `above_input_tokens`",
        ),
        (
            rate(json!({ "context_tiers": [{ "above_input_tokens": 1 }] })),
            "rates[0].context_tiers[0]",
            "at least one rate",
        ),
        (
            rate(json!({ "context_tiers": [{ "above_input_tokens": 5, "input": "1" },
                { "above_input_tokens": 5, "input": "1" }] })),
            "rates[0].context_tiers[1].above_input_tokens",
            "expected more than in the context tier before",
        ),
        (
            rate(json!({ "service_tiers": { "Fast": { "input": "1" } } })),
            "rates[0].service_tiers.Fast",
            "unknown tier `Fast`, expected the name of a tier as events tell it",
        ),
        (
            rate(json!({ "multipliers": { "altitude": { "high": "2" } } })),
            "rates[0].multipliers.altitude",
            "unknown field `altitude`",
        ),
        (
            rate(json!({ "multipliers": { "speed": { "fast": "-2" } } })),
            "rates[0].multipliers.speed.fast",
            "expected",
        ),
        (
            rate(json!({ "service_tiers": { "standard": { "input": "1" } } })),
            "rates[0].service_tiers.standard",
            "unknown tier `standard`",
        ),
        (
            rate(json!({ "service_tiers": { "batch": {} } })),
            "rates[0].service_tiers.batch",
            "at least one rate",
        ),
        (
            rate(json!({ "service_tiers": { "batch": { "model": "m" } } })),
            "rates[0].service_tiers.batch.model",
            "unknown field `model`",
        ),
        (
            rate(json!({ "provider": "" })),
            "rates[0].provider",
            "expected a provider's name of 1 to 31",
        ),
        (
            twice(json!({ "provider": "groq" }), json!({ "provider": "groq" })),
            "rates[1].model",
            "found \"m\" again, which rates[0] names",
        ),
        (twice(json!({}), json!({})), "rates[1].model", "found \"m\" again, which rates[0] names"),
        (
            twice(json!({}), json!({ "model": "n", "aliases": ["o", "m"] })),
            "rates[1].aliases[1]",
            "found \"m\" again, which rates[0] names",
        ),
        (
            twice(
                json!({ "effective_to": "2026-01-02" }),
                json!({ "effective_from": "2026-01-01" }),
            ),
            "rates[1].model",
            "expected one rate of a model at a time",
        ),
    ] {
        let found = read(card.clone()).expect_err(&card.to_string());
        assert_eq!(found.path, path, "{card}: {found}");
        assert!(found.reason.contains(reason), "{card}: {found}");
    }
}

#[test]
fn a_card_below_another_path_says_where_it_stands() {
    let card: RateCard =
        serde_json::from_value(json!({ "version": "1", "currency": "?", "rates": [] }))
            .expect("a card");
    let found = card.validate("rate_cards[2]").expect_err("a currency");
    assert_eq!(found.path, "rate_cards[2].currency");
}

#[test]
fn the_age_of_a_card_is_told_in_classes() {
    let at = |time: &str| {
        let time: jiff::Timestamp = time.parse().expect("a time");
        Timestamp(u64::try_from(time.as_millisecond()).expect("after 1970"))
    };
    let age = |date: Value, time: &str| {
        let card = json!({ "version": "1", "date": date, "rates": [] });
        let card: RateCard = serde_json::from_value(card).expect("a card");
        card.age(at(time)).name()
    };
    for (time, expected) in [
        ("2026-01-01T00:00:00Z", "within_7_days"),
        ("2026-11-20T00:00:00Z", "within_7_days"),
        ("2026-11-27T00:00:00Z", "within_7_days"),
        ("2026-11-27T00:00:00.001Z", "within_30_days"),
        ("2026-12-20T00:00:00Z", "within_30_days"),
        ("2026-12-20T00:00:00.001Z", "within_90_days"),
        ("2027-02-18T00:00:00Z", "within_90_days"),
        ("2027-02-18T00:00:00.001Z", "over_90_days"),
    ] {
        assert_eq!(age(json!("2026-11-20"), time), expected, "{time}");
    }
    assert_eq!(age(json!("2026-11-20T12:00:00Z"), "2026-11-27T12:00:00Z"), "within_7_days");
    assert_eq!(age(Value::Null, "2026-11-27T00:00:00Z"), "unknown");
    let wrong = json!({ "version": "1", "date": "last week", "rates": [] });
    let refused = serde_json::from_value::<RateCard>(wrong).expect_err("no date").to_string();
    assert!(refused.contains("expected a date such as \"2026-01-01\""), "{refused}");
}

#[test]
fn yaml_and_json_hold_the_same_card() {
    let yaml = "
version: \"2026-11-23\"
currency: USD
rates:
- provider: openai
  model: gpt-4o
  aliases: [gpt-4o-2024-08-06]
  effective_from: 2026-01-01
  effective_to: 2027-01-01
  input: \"2.5\"
  output: \"10\"
  cache_read: \"1.25\"
  context_tiers:
  - above_input_tokens: 200000
    input: \"5\"
  service_tiers:
    batch: {input: \"1.25\", output: \"5\"}
";
    let from_yaml: RateCard = serde_yaml_ng::from_str(yaml).expect("a card");
    let value: Value = serde_yaml_ng::from_str(yaml).expect("a value");
    let from_json: RateCard = serde_json::from_str(&value.to_string()).expect("a card");
    assert_eq!(from_yaml, from_json);
    assert_eq!((from_yaml.version(), from_yaml.currency()), ("2026-11-23", "USD"));
    let rate = &from_yaml.rates()[0];
    assert_eq!((rate.provider(), rate.model()), (Some(Family::OpenAi.seller()), "gpt-4o"));
}

#[test]
fn each_kind_has_the_name_that_events_carry() {
    for kind in TokenKind::ALL {
        assert_eq!(serde_json::to_value(kind).expect("a name"), kind.name());
    }
}
