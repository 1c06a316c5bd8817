//! Each reason, decided on numbers.

use agent_meter_collector::Ledger;
use agent_meter_collector::bill::BillComparison;
use serde_json::{Value, json};

use crate::{ask, events, file, ledger, shown, spent, spent_at, unpriced};

const GPT: &str = "gpt-4o-2024-08-06";
const NOON: &str = "2026-07-01T12:00:00Z";

/// A line of OpenAI's costs: the day of July, the line item, its amount, and its tokens if it tells
/// them.
type Line<'a> = (u32, &'a str, &'a str, Option<u64>);

/// A bill of OpenAI's.
pub(crate) fn bill(lines: &[Line<'_>]) -> String {
    let mut csv =
        "start_time,amount_value,amount_currency,quantity,quantity_unit,line_item\n".to_owned();
    for (day, item, amount, tokens) in lines {
        let start = 1_782_864_000 + (i64::from(*day) - 1) * 86_400;
        let (quantity, unit) = match tokens {
            Some(tokens) => (tokens.to_string(), "tokens"),
            None => (String::new(), ""),
        };
        csv.push_str(&format!("{start},{amount},usd,{quantity},{unit},\"{item}\"\n"));
    }
    csv
}

fn compare(ledger: &Ledger, lines: &[Line<'_>]) -> BillComparison {
    let file = file("costs.csv", bill(lines));
    ledger.compare_bills(&ask(std::slice::from_ref(&file.1))).expect("a comparison")
}

#[track_caller]
fn check(events: &[Value], lines: &[Line<'_>], expected: &[&str]) {
    assert_eq!(shown(&compare(&ledger(events), lines)), expected);
}

const INPUT: &str = "gpt-4o-2024-08-06, input";
const OUTPUT: &str = "gpt-4o-2024-08-06, output";

#[test]
fn the_same_tokens_at_another_price() {
    check(
        &[spent(1, NOON, "openai", GPT, [10_000, 0, 0, 2_000])],
        &[(1, INPUT, "0.025", Some(10_000)), (1, OUTPUT, "0.024", Some(2_000))],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.049 billed, 0.045 here",
            "  0.004 price_differs: output: 12 on the bill, 10 here, USD per million tokens",
        ],
    );
}

#[test]
fn other_tokens_at_the_same_price_and_at_another() {
    check(
        &[spent(1, NOON, "openai", GPT, [10_000, 0, 0, 2_000])],
        &[(1, INPUT, "0.03", Some(12_000)), (1, OUTPUT, "0.036", Some(3_000))],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.066 billed, 0.045 here",
            "  0.015 tokens_differ: input: 12000 on the bill, 10000 here; \
             output: 3000 on the bill, 2000 here",
            "  0.006 price_differs: output: 12 on the bill, 10 here, USD per million tokens",
        ],
    );
    // A kind that one side does not have.
    check(
        &[spent(1, NOON, "openai", GPT, [10_000, 4_000, 0, 0])],
        &[(1, INPUT, "0.025", Some(10_000))],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.025 billed, 0.03 here",
            "  -0.005 tokens_differ: cache_read: 0 on the bill, 4000 here",
        ],
    );
}

#[test]
fn an_estimate_explains_no_more_than_it_cost() {
    let mut estimated = spent(2, NOON, "openai", GPT, [1_000, 0, 0, 0]);
    events::merge(&mut estimated["data"], json!({"estimated": true}));
    let events = [spent(1, NOON, "openai", GPT, [10_000, 0, 0, 0]), estimated];
    check(
        &events,
        &[(1, INPUT, "0.029", None)],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.029 billed, 0.0275 here",
            "  0.0015 estimated_here: 1 generations",
        ],
    );
    check(
        &events,
        &[(1, INPUT, "0.0375", Some(15_000))],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.0375 billed, 0.0275 here",
            "  0.0025 estimated_here: 1 generations",
            "  0.0075 tokens_differ: input: 15000 on the bill, 11000 here",
        ],
    );
    check(
        &events,
        &[(1, INPUT, "1", None)],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 1 billed, 0.0275 here",
            "  0.0025 estimated_here: 1 generations",
            "  0.97 unexplained",
        ],
    );
}

#[test]
fn what_has_no_price_here_is_priced_by_the_bill() {
    let events = [
        spent(1, NOON, "openai", GPT, [10_000, 0, 0, 0]),
        unpriced(spent(2, NOON, "openai", GPT, [5_000, 0, 0, 0]), "no_rate_for_tier"),
    ];
    let no_price = "  0.0125 no_price_here: input: 5000 tokens without a price here";
    for tokens in [Some(15_000), None] {
        check(
            &events,
            &[(1, INPUT, "0.0375", tokens)],
            &["2026-07-01 gpt-4o-2024-08-06: 0.0375 billed, 0.025 here", no_price],
        );
    }
    // Without any price, all of it.
    check(
        &[unpriced(spent(2, NOON, "openai", GPT, [5_000, 0, 0, 7]), "no_rate")],
        &[(1, INPUT, "0.0125", None)],
        &["2026-07-01 gpt-4o-2024-08-06: 0.0125 billed, 0 here", no_price],
    );
}

#[test]
fn a_generation_of_unknown_usage_explains_no_more_than_the_dearest_one() {
    let mut unknown = unpriced(spent(2, NOON, "openai", GPT, [0; 4]), "unknown_usage");
    events::merge(&mut unknown["data"], json!({"completeness": "MISSING", "quantity": 0}));
    unknown["data"]["tokens"] = json!({});
    let known = spent(1, NOON, "openai", GPT, [10_000, 0, 0, 0]);
    check(
        &[known, unknown.clone()],
        &[(1, INPUT, "0.06", Some(24_000))],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.06 billed, 0.025 here",
            "  0.025 usage_unknown_here: 1 generations",
            "  0.01 tokens_differ: input: 24000 on the bill, 10000 here",
        ],
    );
    check(
        &[unknown],
        &[(1, INPUT, "0.06", None)],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.06 billed, 0 here",
            "  0.06 usage_unknown_here: 1 generations",
        ],
    );
}

#[test]
fn models_and_days_that_one_side_does_not_have() {
    check(
        &[
            spent(1, NOON, "openai", GPT, [10_000, 0, 0, 0]),
            spent(2, "2026-07-03T12:00:00Z", "openai", GPT, [10_000, 0, 0, 0]),
            spent(3, "2026-07-04T12:00:00Z", "openai", GPT, [10_000, 0, 0, 0]),
        ],
        &[
            (1, INPUT, "0.025", Some(10_000)),
            (2, INPUT, "0.5", Some(200_000)),
            (3, "o3-2025-04-16, input", "2", None),
        ],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.025 billed, 0.025 here",
            "2026-07-02 gpt-4o-2024-08-06: 0.5 billed, 0 here",
            "  0.5 day_not_metered",
            "2026-07-03 gpt-4o-2024-08-06: 0 billed, 0.025 here",
            "  -0.025 not_on_bill",
            "2026-07-03 o3-2025-04-16: 2 billed, 0 here",
            "  2 model_not_metered",
        ],
    );
}

#[test]
fn a_request_over_midnight_is_on_the_day_on_which_the_bill_has_it() {
    let mut late = spent(2, "2026-07-02T00:00:05Z", "openai", GPT, [4_000, 0, 0, 0]);
    events::merge(&mut late["data"], json!({"duration_ms": 20_000}));
    let events = [
        spent(1, NOON, "openai", GPT, [10_000, 0, 0, 0]),
        late,
        spent(3, "2026-07-02T12:00:00Z", "openai", GPT, [2_000, 0, 0, 0]),
    ];
    check(
        &events,
        &[(1, INPUT, "0.035", Some(14_000)), (2, INPUT, "0.005", Some(2_000))],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.035 billed, 0.025 here",
            "  0.01 edge_of_day",
            "2026-07-02 gpt-4o-2024-08-06: 0.005 billed, 0.015 here",
            "  -0.01 edge_of_day",
        ],
    );
    // Where the bill has it as we do, nothing moves; nor where that explains nothing.
    check(
        &events,
        &[(1, INPUT, "0.025", Some(10_000)), (2, INPUT, "0.015", Some(6_000))],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.025 billed, 0.025 here",
            "2026-07-02 gpt-4o-2024-08-06: 0.015 billed, 0.015 here",
        ],
    );
    // The day behind the last one is not compared, and still has the request.
    check(
        &events,
        &[(1, INPUT, "0.035", Some(14_000))],
        &["2026-07-01 gpt-4o-2024-08-06: 0.035 billed, 0.025 here", "  0.01 edge_of_day"],
    );
}

#[test]
fn a_bill_that_is_rounded_is_told_from_another_price() {
    let rates = ["0.0123", "0", "0", "0"];
    check(
        &[spent_at(1, NOON, ("openai", GPT), [1_001, 0, 0, 0], rates)],
        &[(1, INPUT, "0.000012", Some(1_001))],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.000012 billed, 0.0000123123 here",
            "  -0.0000003123 rounding",
        ],
    );
    check(
        &[spent(1, NOON, "openai", GPT, [10_100, 0, 0, 0])],
        &[(1, INPUT, "0.03", Some(10_100))],
        &[
            "2026-07-01 gpt-4o-2024-08-06: 0.03 billed, 0.02525 here",
            "  0.00475 price_differs: input: 2.970297 on the bill, 2.5 here, USD per million tokens",
        ],
    );
}

#[test]
fn what_is_void_or_superseded_does_not_count_and_what_is_amended_counts_as_it_is_now() {
    let dearer = json!({
        "cost_lines": [{"kind": "input", "tokens": 10_000, "rate_per_million": "3", "cost": "0.03"}],
        "total_provider_cost": "0.03",
    });
    let mut later = spent(3, NOON, "openai", GPT, [1_000, 0, 0, 0]);
    events::merge(&mut later["data"], json!({"supersedes": "0.1.2"}));
    let ledger = ledger(&[
        spent(1, NOON, "openai", GPT, [10_000, 0, 0, 0]),
        spent(2, NOON, "openai", GPT, [500, 0, 0, 0]),
        later,
        spent(4, NOON, "openai", GPT, [7_000, 0, 0, 0]),
    ]);
    let correction = |id: &str, kind: &str, event: u64| {
        json!({
            "correction_id": id, "made_by": "jane", "reason": "a test",
            "made_at": "2026-07-02T00:00:00Z", "kind": kind,
            "target_source": events::SOURCE, "target_id": format!("{event:020}"),
        })
    };
    let mut amend = correction("1", "amend", 1);
    amend["set"] = dearer;
    let made = ledger.correct(&[amend, correction("2", "void", 4)]);
    assert_eq!(made.expect("corrections").len(), 2);
    assert_eq!(
        shown(&compare(&ledger, &[(1, INPUT, "0.0335", Some(11_000))])),
        [
            "2026-07-01 gpt-4o-2024-08-06: 0.0335 billed, 0.0325 here",
            "  0.001 price_differs: input: 3.045455 on the bill, 2.954545 here, USD per million \
             tokens",
        ]
    );
}

#[test]
fn other_currencies_are_named_and_not_compared() {
    let mut euros = spent(2, NOON, "openai", GPT, [4_000, 0, 0, 0]);
    events::merge(&mut euros["data"], json!({"currency": "EUR"}));
    let ledger = ledger(&[spent(1, NOON, "openai", GPT, [10_000, 0, 0, 0]), euros]);
    let text = bill(&[(1, INPUT, "0.025", Some(10_000)), (1, OUTPUT, "7", None)]);
    let file = file("costs.csv", text.replace("7,usd", "7,gbp"));
    let found = ledger.compare_bills(&ask(std::slice::from_ref(&file.1))).expect("a comparison");
    assert_eq!(shown(&found), ["2026-07-01 gpt-4o-2024-08-06: 0.025 billed, 0.025 here"]);
    let (bill, here) = (&found.other_currencies_on_bill, &found.other_currencies_here);
    assert_eq!((bill["GBP"].amount.to_string(), here["EUR"].count), ("7".to_owned(), 1));
    assert!(found.has_other_currencies());
}
