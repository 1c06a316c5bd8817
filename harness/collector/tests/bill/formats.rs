//! Each format as its documentation describes it, JSON and CSV, gzip and not.

use std::io::Write;
use std::path::PathBuf;

use agent_meter_collector::Ledger;
use agent_meter_collector::bill::{BillQuestion, Days, Format};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::{ask, events, file, fixture, ledger, shown, spent, spent_at};

const NOON: &str = "2026-07-01T12:00:00Z";
const GPT: &str = "gpt-4o-2024-08-06";

fn compare(ledger: &Ledger, files: &[PathBuf]) -> Vec<String> {
    shown(&ledger.compare_bills(&ask(files)).expect("a comparison"))
}

/// With a web search beside its tokens.
fn with_search(mut event: Value, total: &str) -> Value {
    let line =
        json!({"kind": "web_searches:high", "quantity": "1", "rate": "0.01", "cost": "0.01"});
    event["data"]["cost_lines"].as_array_mut().expect("lines").push(line);
    let data = json!({"total_provider_cost": total, "units": {"web_searches:high": "1"}});
    events::merge(&mut event["data"], data);
    event
}

#[test]
fn openai_tells_costs_by_line_item() {
    let generation = spent(1, NOON, "openai", GPT, [10_000, 1_000, 0, 2_000]);
    let ledger = ledger(&[with_search(generation, "0.05625")]);
    assert_eq!(
        compare(&ledger, &[fixture("openai-costs.json")]),
        [
            "2026-07-01 gpt-4o-2024-08-06: 0.04625 billed, 0.04625 here",
            "2026-07-01 o4-mini-2025-04-16: 0 billed, 0 here",
            "2026-07-01 web_searches: 0.01 billed, 0.01 here",
            "2026-07-02 assistants api | file search: 0.5 billed, 0 here",
            "  0.5 service_not_metered",
            "2026-07-02 gpt-5-nano: 0.03 billed, 0 here",
            "  0.03 model_not_metered",
        ]
    );
}

#[test]
fn the_console_of_openai_exports_the_same_as_csv_with_usage_beside_it() {
    let ledger = ledger(&[spent(1, NOON, "openai", GPT, [10_000, 1_000, 0, 2_000])]);
    let expected = ["2026-07-01 gpt-4o-2024-08-06: 0.04625 billed, 0.04625 here"];
    let costs = fixture("openai-costs.csv");
    assert_eq!(compare(&ledger, std::slice::from_ref(&costs)), expected);
    let summed = file(
        "costs.json",
        r#"{"data": [{"start_time": 1782864000, "end_time": 1782950400,
        "results": [{"object": "organization.costs.result", "line_item": null,
        "amount": {"value": 0.05, "currency": "usd"}}]}], "has_more": false}"#,
    );
    for usage in ["openai-usage.json", "openai-usage.csv"] {
        assert_eq!(compare(&ledger, &[costs.clone(), fixture(usage)]), expected);
        // A day that is one sum for all models can be compared too.
        assert_eq!(
            compare(&ledger, &[summed.1.clone(), fixture(usage)]),
            [
                "2026-07-01 *: 0.05 billed, 0.04625 here",
                "  0.00375 price_differs: the tokens agree; the bill does not tell what each kind \
                 costs",
            ]
        );
    }
    assert_eq!(
        compare(&ledger, std::slice::from_ref(&summed.1)),
        ["2026-07-01 *: 0.05 billed, 0.04625 here", "  0.00375 unexplained"]
    );
}

#[test]
fn anthropic_tells_costs_in_cents_and_usage_apart() {
    let rates = ["15", "1.5", "18.75", "75"];
    let model = ("anthropic", "claude-opus-4-20250514");
    let tokens = [2_000, 1_000, 2_000, 2_000];
    let ledger = ledger(&[spent_at(1, NOON, model, tokens, rates)]);
    assert_eq!(
        compare(&ledger, &[fixture("anthropic-costs.json")]),
        [
            "2026-07-01 claude-opus-4: 0.228 billed, 0.219 here",
            "  0.009 unexplained",
            "2026-07-01 claude-opus-4 (batch): 0.075 billed, 0 here",
            "  0.075 batch_not_metered",
            "2026-07-01 web_searches: 0.02 billed, 0 here",
            "  0.02 model_not_metered",
        ]
    );
    // With the tokens, the price shows.
    for usage in ["anthropic-usage.json", "anthropic-usage.csv"] {
        let lines = compare(&ledger, &[fixture("anthropic-costs.json"), fixture(usage)]);
        assert_eq!(
            lines[1],
            "  0.009 price_differs: input: 19.5 on the bill, 15 here, USD per million tokens"
        );
    }
}

#[test]
fn the_console_of_anthropic_names_models_for_people() {
    let rates = ["15", "1.5", "18.75", "75"];
    let model = ("anthropic", "claude-opus-4-20250514");
    let ledger = ledger(&[
        spent_at(1, NOON, model, [2_600, 0, 0, 2_000], rates),
        spent_at(
            2,
            NOON,
            ("anthropic", "claude-zap-9-20260101"),
            [0, 0, 0, 2_000],
            ["0", "0", "0", "100"],
        ),
    ]);
    let mut question = ask(&[fixture("anthropic-costs.csv")]);
    assert_eq!(
        shown(&ledger.compare_bills(&question).expect("a comparison")),
        [
            "2026-07-01 Claude Zap 9: 0.2 billed, 0 here",
            "  0.2 unexplained: nothing says which model of ours this is: --model NAME=ID does",
            "2026-07-01 claude-opus-4: 0.189 billed, 0.189 here",
            "2026-07-01 claude-zap-9: 0 billed, 0.2 here",
            "  -0.2 not_on_bill",
        ]
    );
    question.models = vec!["Claude Zap 9=claude-zap-9-20260101".to_owned()];
    assert_eq!(
        shown(&ledger.compare_bills(&question).expect("a comparison")),
        [
            "2026-07-01 claude-opus-4: 0.189 billed, 0.189 here",
            "2026-07-01 claude-zap-9: 0.2 billed, 0.2 here",
        ]
    );
    question.models = vec!["Claude Zap 8=claude-zap-9".to_owned()];
    let error = ledger.compare_bills(&question).expect_err("a name that is not there");
    assert_eq!(error.to_string(), "--model: no line of the bill has the name \"Claude Zap 8\"");
}

fn bedrock() -> Ledger {
    let model = ("bedrock", "us.anthropic.claude-sonnet-4-20250514-v1:0");
    let rates = ["3", "0.3", "3.75", "15"];
    ledger(&[
        spent_at(1, NOON, model, [10_000, 1_000, 0, 1_000], rates),
        // The same model, as InvokeModel answers.
        spent_at(2, NOON, ("bedrock", "claude-sonnet-4-20250514"), [0, 0, 0, 1_000], rates),
        spent(3, NOON, "openai", GPT, [1, 0, 0, 1]),
    ])
}

#[test]
fn aws_tells_of_bedrock_among_all_that_it_sells() {
    let ledger = bedrock();
    let found = ledger.compare_bills(&ask(&[fixture("aws-cur2.csv")])).expect("a comparison");
    assert_eq!(
        shown(&found),
        [
            "2026-07-01 Amazon Bedrock: 0.0077 billed, 0 here",
            "  0.0077 tax",
            "2026-07-01 claude-sonnet-4: 0.0503 billed, 0.0603 here",
            "  -0.01 credit",
            "2026-07-01 claude-sonnet-4-6: 0.03 billed, 0 here",
            "  0.03 model_not_metered",
        ]
    );
    let elsewhere = &found.other_services["USD"];
    assert_eq!((elsewhere.count, elsewhere.amount.to_string()), (1, "0.1008".to_owned()));
    assert_eq!(found.files[0].lines, 6);
    let same = ["2026-07-01 claude-sonnet-4: 0.0603 billed, 0.0603 here"];
    assert_eq!(compare(&ledger, &[fixture("aws-cur-legacy.csv")]), same);
    let focus = compare(&ledger, &[fixture("aws-focus.csv")]);
    assert_eq!(focus, ["2026-07-01 Amazon Bedrock: 0.004 billed, 0 here", "  0.004 tax", same[0]]);
}

#[test]
fn a_report_is_read_from_gzip_and_in_several_files() {
    let ledger = bedrock();
    let text = std::fs::read_to_string(fixture("aws-cur-legacy.csv")).expect("a fixture");
    let lines: Vec<&str> = text.lines().collect();
    let gzip = |lines: &[&str]| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(format!("{}\n", lines.join("\n")).as_bytes()).expect("gzip");
        encoder.finish().expect("gzip")
    };
    let first = file("cur-00001.csv.gz", gzip(&lines[..3]));
    let second = file("cur-00002.csv.gz", gzip(&[lines[0], lines[3]]));
    let same = ["2026-07-01 claude-sonnet-4: 0.0603 billed, 0.0603 here"];
    assert_eq!(compare(&ledger, &[first.1.clone(), second.1.clone()]), same);
    let whole = gzip(&lines);
    let cut = file("cut.csv.gz", &whole[..whole.len() - 12]);
    let error = ledger.compare_bills(&ask(std::slice::from_ref(&cut.1))).expect_err("a cut file");
    assert!(format!("{error:#}").ends_with("cut.csv.gz: the file is cut"), "{error:#}");
}

#[test]
fn a_format_can_be_asked_for_and_days_and_providers_chosen() {
    let rows = [
        spent(1, "2026-07-01T12:00:00Z", "mine", GPT, [10_000, 1_000, 0, 2_000]),
        spent(2, "2026-07-02T12:00:00Z", "openai", GPT, [1, 0, 0, 0]),
    ];
    let ledger = ledger(&rows);
    let day = |text: &str| Some(text.parse().expect("a day"));
    let question = BillQuestion {
        format: Some(Format::OpenaiCosts),
        days: Days { from: day("2026-07-01"), to: day("2026-07-02") },
        sellers: vec!["mine".to_owned()],
        ..ask(&[fixture("openai-costs.json")])
    };
    let found = ledger.compare_bills(&question).expect("a comparison");
    assert_eq!(
        shown(&found),
        [
            "2026-07-01 gpt-4o-2024-08-06: 0.04625 billed, 0.04625 here",
            "2026-07-01 o4-mini-2025-04-16: 0 billed, 0 here",
            "2026-07-01 web_searches: 0.01 billed, 0 here",
            "  0.01 model_not_metered",
        ]
    );
    assert_eq!((found.files[0].lines, found.files[0].lines_outside_days), (5, 2));
    let question = BillQuestion { format: Some(Format::AwsCur), ..question };
    let error = ledger.compare_bills(&question).expect_err("another format");
    assert!(format!("{error:#}").contains("is openai_costs, in a file that should be aws_cur"));
}
