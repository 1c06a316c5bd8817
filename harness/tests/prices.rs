//! Tests `agent-meter prices` as it is run: what it prints, how it ends, and what it says of files
//! that it cannot use.

mod support;

use std::path::Path;

use serde_json::{Value, json};

use support::{Ended, Files, fixture};

fn run(words: &[&str]) -> Ended {
    support::run(&[&["prices"], words].concat())
}

/// The standard output of a command that succeeds.
fn printed(words: &[&str]) -> String {
    let Ended { status, out, err } = run(words);
    assert_eq!(status, 0, "{words:?}: {err}");
    out
}

/// The path of a public list's fixture.
fn list(name: &str) -> String {
    fixture(&format!("prices/{name}"))
}

fn text(file: &str) -> String {
    std::fs::read_to_string(file).expect(file)
}

/// A card with one model, in the form of a file.
fn card(change: fn(&mut Value)) -> String {
    let mut card = json!({ "version": "mine", "date": "2026-11-20", "source": "a list", "rates": [
        { "provider": "openai", "model": "gpt-4o", "input": "2.5", "output": "10" } ] });
    change(&mut card);
    card.to_string()
}

/// The name of a file that is no card, what is wrong with it, and what is said of it.
type NoCard = (&'static str, fn(&mut Value), &'static str);

const NO_CARDS: [NoCard; 6] = [
    ("other.yaml", |card| card["rates"][0]["inptu"] = json!("1"), "unknown field `inptu`"),
    ("less.json", |card| card["rates"][0]["input"] = json!("-1"), "rates[0].input"),
    ("none.json", |card| card["rates"] = json!({}), "expected a sequence"),
    (
        "twice.json",
        |card| card["rates"] = vec![card["rates"][0].clone(); 2].into(),
        "found \"gpt-4o\" again",
    ),
    ("list.json", |card| *card = json!({ "openai": { "models": {} } }), "unknown field `openai`"),
    ("empty.yaml", |card| *card = json!([]), "empty.yaml"),
];

#[test]
fn a_list_becomes_a_card_and_a_report() {
    let files = Files::new();
    let (card, report) = (files.at("card.json"), files.at("report.txt"));
    for (from, file, provider, rates) in [
        ("litellm", "litellm.json", "openai", None),
        ("models.dev", "models_dev.json", "anthropic", None),
        ("genai-prices", "genai_prices.json", "google", None),
        ("models.dev", "models_dev.json", "openai", Some(1)),
    ] {
        let list = list(file);
        let mut words = vec!["import", "--from", from, &list, "--provider", provider];
        words.extend(["--date", "2026-11-20", "--version", "test"]);
        if rates.is_some() {
            words.extend(["--model", "gpt-4o"]);
        }
        let yaml: Value = serde_yaml_ng::from_str(&printed(&words)).expect("YAML");
        let told = ["version", "source", "date", "currency"].map(|member| &yaml[member]);
        assert_eq!(told, ["test", from, "2026-11-20", "USD"], "{words:?}");
        let found = yaml["rates"].as_array().expect("rates").len();
        assert!(found > 0 && rates.is_none_or(|rates| rates == found), "{words:?}: {yaml}");
        // To files, with a summary on stderr, and nothing on stdout.
        words.extend(["--out", &card, "--report", &report]);
        let Ended { status, out, err } = run(&words);
        assert_eq!((status, out.as_str()), (0, ""), "{words:?}");
        assert!(err.starts_with(&format!("{found} rates; ")), "{err}");
        let json: Value = serde_json::from_str(&text(&card)).expect("JSON");
        assert_eq!(json, yaml, "{words:?}");
        let report = text(&report);
        assert!(report.lines().any(|line| line.ends_with("\t*\tnot asked for")), "{report}");
        assert!(report.lines().all(|line| line.split('\t').count() == 3), "{report}");
    }
}

#[test]
fn what_is_no_list_is_named_and_makes_no_card() {
    let files = Files::new();
    let (litellm, models_dev) = (list("litellm.json"), list("models_dev.json"));
    let genai_prices = list("genai_prices.json");
    let missing = files.at("missing.json");
    let none = files.with("none.json", "{\"gpt-4o\": ");
    let own = files.with("card.json", card(|_| ()));
    // More than a rate may be.
    let refused = json!({ "m": { "litellm_provider": "openai", "input_cost_per_token": 1e9 } });
    let refused = files.with("refused.json", refused.to_string());
    let out = files.at("out.json");
    for (from, file, expected) in [
        ("litellm", &missing, "cannot read"),
        ("litellm", &none, "none.json: expected a list of litellm: EOF"),
        ("litellm", &models_dev, "models_dev.json: no model was mapped"),
        ("litellm", &genai_prices, "genai_prices.json: expected a list of litellm: invalid type"),
        ("litellm", &own, "card.json: expected a list of litellm: date: invalid type"),
        ("models.dev", &litellm, "litellm.json: no model was mapped"),
        ("models.dev", &genai_prices, "genai_prices.json: expected a list of models.dev"),
        ("genai-prices", &litellm, "litellm.json: expected a list of genai-prices"),
        ("genai-prices", &models_dev, "models_dev.json: expected a list of genai-prices"),
        ("litellm", &refused, "refused.json: the filter would refuse the card"),
    ] {
        let Ended { status, out: printed, err } =
            run(&["import", "--from", from, file, "--out", &out]);
        assert_eq!((status, printed.as_str()), (1, ""), "{from} {file}: {err}");
        assert!(err.contains(expected), "{from} {file}: {err}");
        assert!(!Path::new(&out).exists(), "{from} {file}");
    }
    let text = files.at("out.txt");
    for (words, status, expected) in [
        (&["--from", "litellm", &litellm, "--provider", "openia"][..], 1, "no provider \"openia\""),
        (&["--from", "litellm", &litellm, "--out", &text], 1, "ends in .yaml or .json"),
        (
            &["--from", "litelm", &litellm],
            2,
            "[possible values: litellm, models.dev, genai-prices]",
        ),
        (&["--from", "litellm", &litellm, "--date", "today"], 2, "--date"),
        (&[&litellm], 2, "--from"),
    ] {
        let ended = run(&[&["import"], words].concat());
        assert_eq!(ended.status, status, "{words:?}: {}", ended.err);
        assert!(ended.err.contains(expected), "{words:?}: {}", ended.err);
    }
}

#[test]
fn a_rate_is_explained_by_cards_in_either_form_and_by_a_configuration() {
    let files = Files::new();
    let (yaml, json) = (files.at("card.yaml"), files.at("card.json"));
    for out in [&yaml, &json] {
        printed(&[
            "import",
            "--from",
            "litellm",
            &list("litellm.json"),
            "--provider",
            "openai",
            "--date",
            "2026-11-20",
            "--version",
            "test",
            "--out",
            out,
        ]);
    }
    // YAML has no halves of a character, as JSON does.
    let halves = text(&json).replacen("\"test\"", "\"\\ud83d\\ude00 test\"", 1);
    let halves = files.with("halves.json", halves);
    let example = [
        "--provider",
        "openai",
        "--at",
        "2026-11-24T08:00:00Z",
        "--tier",
        "priority",
        "--input",
        "1000",
        "--output",
        "500",
        "--tokens",
        "cache_read=400",
    ];
    let explain = |option: &str, file: &str, model: &str| {
        printed(&[&["explain", model, option, file], &example[..]].concat())
    };
    let expected = explain("--card", &yaml, "gpt-4o");
    for line in [
        "provider      openai",
        "names tried   gpt-4o",
        "prices        within_7_days, from litellm",
        // 600 × 4.25, 400 × 2.125 and 500 × 17, for a million.
        "example       600 input at 4.25: 0.00255",
        "example       400 cache_read at 2.125: 0.00085",
        "example       500 output at 17: 0.0085",
        "total         0.0119",
    ] {
        assert!(expected.lines().any(|found| found == line), "{line}\n{expected}");
    }
    assert_eq!(explain("--card", &json, "gpt-4o"), expected);
    let smiling = expected.replace("\"test\"", "\"\u{1f600} test\"");
    assert_eq!(explain("--card", &halves, "gpt-4o"), smiling);
    // The same cards in a configuration.
    let rates: Value = serde_json::from_str(&text(&json)).expect("JSON");
    let plugin = json!({ "rate_cards": [rates], "products": [{ "id": "llm", "type": "AI_AGENT",
        "match": { "path_prefix": "/" }, "llm": { "provider": "openai" } }] });
    let config = files.with("plugin.json", plugin.to_string());
    assert_eq!(explain("--config", &config, "gpt-4o"), expected);
    // As JSON.
    let answers = printed(&["explain", "gpt-4o", "--card", &json, "--json"]);
    let answers: Value = serde_json::from_str(&answers).expect("JSON");
    assert_eq!(answers[0]["rate"]["rate_card"], "test");
    assert_eq!((&answers[0]["total"], &answers[1]), (&json!("2.5"), &Value::Null));
    // What has no rate is an answer where a seller is named, and an error where none is.
    let unknown = printed(&["explain", "gpt-9", "--card", &json, "--provider", "openai"]);
    assert!(unknown.contains("rate          none\nno price      no_rate"), "{unknown}");
    let ended = run(&["explain", "gpt-9", "--card", &json]);
    assert_eq!((ended.status, ended.out.as_str()), (1, ""));
    assert!(ended.err.contains("no seller of the card has a rate for \"gpt-9\""), "{}", ended.err);
}

#[test]
fn what_cannot_be_explained_is_named() {
    let files = Files::new();
    let good = files.with("good.json", card(|_| ()));
    let missing = files.at("missing.yaml");
    let without = files.with("without.yaml", "products: []");
    for (words, status, expected) in [
        (&[][..], 2, "--config <FILE>|--card <FILE>"),
        (&["--card", &good, "--config", &good], 2, "cannot be used with"),
        (&["--card", &missing], 1, "cannot read"),
        (&["--config", &missing], 1, "cannot read"),
        (&["--config", &good], 1, "good.json"),
        (&["--config", &without], 1, "without.yaml"),
        (&["--card", &good, "--provider", "Open AI"], 1, "--provider: \"Open AI\""),
        (&["--card", &good, "--modifier", "speed"], 1, "--modifier: expected NAME=VALUE"),
        (&["--card", &good, "--modifier", "colour=red"], 1, "--modifier: \"colour\" is none"),
        (&["--card", &good, "--tokens", "words=5"], 1, "--tokens: \"words\" is no kind"),
        (&["--card", &good, "--tokens", "reasoning=few"], 1, "--tokens: \"reasoning=few\""),
        (&["--card", &good, "--unit", "hours=5"], 1, "--unit: \"hours=5\" names no unit"),
        (&["--card", &good, "--unit", "pages=few"], 1, "--unit: \"pages=few\""),
        (&["--card", &good, "--at", "now"], 2, "--at"),
        (&["--card", &good, "--at", "1969-12-31T00:00:00Z"], 1, "--at: expected a time after"),
    ] {
        let ended = run(&[&["explain", "gpt-4o"], words].concat());
        assert_eq!((ended.status, ended.out.as_str()), (status, ""), "{words:?}: {}", ended.err);
        assert!(ended.err.contains(expected), "{words:?}: {}", ended.err);
    }
    for (name, change, expected) in NO_CARDS {
        let file = files.with(name, card(change));
        let ended = run(&["explain", "gpt-4o", "--card", &file]);
        assert_eq!((ended.status, ended.out.as_str()), (1, ""), "{name}: {}", ended.err);
        assert!(ended.err.contains(name), "{name}: {}", ended.err);
        assert!(ended.err.contains(expected), "{name}: {}", ended.err);
    }
}

#[test]
fn what_changed_since_a_card_is_named_and_ends_with_1() {
    let files = Files::new();
    let litellm = list("litellm.json");
    let (yaml, json) = (files.at("card.yaml"), files.at("card.json"));
    for out in [&yaml, &json] {
        let words = ["import", "--from", "litellm", &litellm, "--provider", "openai", "--out", out];
        printed(&words);
    }
    for words in [
        ["check", &yaml, &litellm, "--from", "litellm"].as_slice(),
        &["check", &json, &litellm, "--from", "litellm"],
        &["check", &json, &yaml],
        &["check", &yaml, &json],
    ] {
        let Ended { status, out, err } = run(words);
        assert_eq!((status, out.as_str(), err.as_str()), (0, "", ""), "{words:?}");
        assert_eq!(printed(&[words, &["--json"]].concat()), "[]\n", "{words:?}");
    }
    let mut newer: Value = serde_json::from_str(&text(&litellm)).expect("JSON");
    newer["gpt-4o"]["output_cost_per_token"] = json!(1.2e-5);
    newer["gpt-realtime"].as_object_mut().expect("an entry").remove("input_cost_per_image_token");
    newer["gpt-new"] = json!({ "litellm_provider": "openai", "input_cost_per_token": 1e-6 });
    newer["claude-new"] = json!({ "litellm_provider": "anthropic", "input_cost_per_token": 1e-6 });
    let newer = files.with("newer.json", newer.to_string());
    let expected = "added    openai gpt-new\n\
        dearer   openai gpt-4o output: 10 -> 12\n\
        removed  openai gpt-realtime input_image: 5\n";
    for card in [&yaml, &json] {
        let words = ["check", card, &newer, "--from", "litellm"];
        let Ended { status, out, err } = run(&words);
        let mut found: Vec<&str> = out.lines().collect();
        found.sort_unstable();
        assert_eq!(found, expected.lines().collect::<Vec<_>>(), "{card}");
        assert_eq!(status, 1, "{card}");
        assert!(err.contains("3 prices differ"), "{err}");
        let ended = run(&[&words[..], &["--json"]].concat());
        let found: Value = serde_json::from_str(&ended.out).expect("JSON");
        assert_eq!((ended.status, found.as_array().expect("a list").len()), (1, 3), "{card}");
    }
}

#[test]
fn what_cannot_be_compared_is_named() {
    let files = Files::new();
    let good = files.with("good.json", card(|_| ()));
    let (litellm, missing) = (list("litellm.json"), files.at("missing.json"));
    let genai_prices = list("genai_prices.json");
    for (words, status, expected) in [
        (&[good.as_str()][..], 2, "<LIST>"),
        (&[&missing, &litellm, "--from", "litellm"], 1, "missing.json"),
        (&[&good, &missing, "--from", "litellm"], 1, "missing.json"),
        (&[&good, &missing], 1, "missing.json"),
        // A list needs its name, and its own.
        (&[&good, &litellm], 1, "litellm.json"),
        (&[&litellm, &litellm, "--from", "litellm"], 1, "litellm.json"),
        (&[&good, &genai_prices, "--from", "litellm"], 1, "genai_prices.json: expected a list of"),
        (&[&good, &litellm, "--from", "openai"], 2, "[possible values:"),
    ] {
        let ended = run(&[&["check"], words].concat());
        assert_eq!((ended.status, ended.out.as_str()), (status, ""), "{words:?}: {}", ended.err);
        assert!(ended.err.contains(expected), "{words:?}: {}", ended.err);
        assert!(!ended.err.contains("differ"), "{words:?}: {}", ended.err);
    }
    for (name, change, expected) in NO_CARDS {
        let file = files.with(name, card(change));
        for words in [["check", &file, &good], ["check", &good, &file]] {
            let ended = run(&words);
            assert_eq!((ended.status, ended.out.as_str()), (1, ""), "{name}: {}", ended.err);
            assert!(ended.err.contains(name), "{name}: {}", ended.err);
            assert!(ended.err.contains(expected), "{name}: {}", ended.err);
        }
    }
}
