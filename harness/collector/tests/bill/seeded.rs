//! Random bills and ledgers: whatever they have, bill = ours + all reasons.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::random::Random;
use crate::{ask, conserved, events, file, ledger, spent_at, unpriced};

const LEDGERS: u64 = 8;
const BILLS: u64 = 6;
const MODELS: [(&str, &str); 3] = [
    ("ClaudeSonnet4", "us.anthropic.claude-sonnet-4-20250514-v1:0"),
    ("NovaLite", "amazon.nova-lite-v1:0"),
    ("Claude4.5Haiku", "claude-haiku-4-5-20251001"),
];
const KINDS: [&str; 4] = [
    "input-tokens",
    "cache-read-input-token-count",
    "cache-write-input-token-count",
    "output-tokens",
];

fn pick<'a>(random: &mut Random, of: &[&'a str]) -> &'a str {
    of[usize::try_from(random.below(of.len() as u64)).expect("small")]
}

/// A generation of whatever kind, and what it costs.
fn generation(random: &mut Random, sequence: u64) -> (Value, Decimal) {
    let day = 1 + random.below(4);
    let time = pick(random, &["00:00:01", "00:00:30", "12:00:00", "23:59:59"]);
    let time = format!("2026-07-{day:02}T{time}Z");
    let model = MODELS[usize::try_from(random.below(3)).expect("small")].1;
    let tokens = [0; 4].map(|_: u64| random.below(5) * random.below(10_000));
    let rates =
        ["3", "0.3", "3.75", "15"].map(|rate| if random.below(9) == 0 { "7" } else { rate });
    let mut event = spent_at(sequence, &time, ("bedrock", model), tokens, rates);
    let duration_ms = random.below(100_000);
    events::merge(&mut event["data"], json!({"duration_ms": duration_ms}));
    match random.below(6) {
        0 => events::merge(&mut event["data"], json!({"estimated": true})),
        1 => event = unpriced(event, "no_rate"),
        2 => events::merge(&mut event["data"], json!({"service_tier": "batch"})),
        3 => {
            event = unpriced(event, "unknown_usage");
            event["data"]["tokens"] = json!({});
            events::merge(&mut event["data"], json!({"completeness": "MISSING", "quantity": 0}));
        }
        _ => {}
    }
    let cost = event["data"]["total_provider_cost"].as_str();
    let cost = cost.map_or(Decimal::ZERO, |cost| cost.parse().expect("a decimal"));
    (event, cost)
}

/// A line of a report, and its amount.
fn line(random: &mut Random, number: u64) -> (String, Decimal) {
    let day = 1 + random.below(4);
    let model = MODELS[usize::try_from(random.below(3)).expect("small")].0;
    let kind = pick(random, &KINDS);
    let usage = match random.below(12) {
        0 => format!("USE1-{model}-{kind}-batch"),
        1 => "USE1-Zap9-input-tokens".to_owned(),
        2 => "USE1-NovaLite-Customization-Training".to_owned(),
        _ => format!("USE1-{model}-{kind}"),
    };
    let nature = match random.below(10) {
        0 => pick(random, &["Tax", "Credit", "Refund", "EdpDiscount", "Fee"]),
        _ => "Usage",
    };
    let places = u32::try_from(random.below(11)).expect("small");
    let mut amount = Decimal::new(i64::try_from(random.below(1_000_000)).expect("small"), places);
    if nature != "Usage" && random.below(2) == 0 {
        amount = -amount;
    }
    let thousands = random.below(60);
    let unit = if random.below(4) == 0 { "Units" } else { "1K tokens" };
    let text = format!(
        "{number},2026-07-01,{nature},2026-07-0{day} 05:00:00,AmazonBedrock,{usage},{thousands},\
         USD,{amount},{unit}\n"
    );
    (text, amount)
}

#[test]
fn the_amounts_add_up_whatever_they_are() {
    for seed in 0..LEDGERS {
        let mut random = Random(seed);
        let generations: Vec<_> =
            (1..=25).map(|sequence| generation(&mut random, sequence)).collect();
        let events: Vec<Value> = generations.iter().map(|(event, _)| event.clone()).collect();
        let ledger = ledger(&events);
        for bill in 0..BILLS {
            let mut text = "identity_line_item_id,bill_billing_period_start_date,\
                line_item_line_item_type,line_item_usage_start_date,line_item_product_code,\
                line_item_usage_type,line_item_usage_amount,line_item_currency_code,\
                line_item_unblended_cost,pricing_unit\n"
                .to_owned();
            let mut billed = Decimal::ZERO;
            // The first and the last day, so that all of the ledger is compared.
            for day in [1, 4] {
                text.push_str(&format!(
                    "d{day},2026-07-01,Fee,2026-07-0{day} 00:00:00,AmazonBedrock,,0,USD,0,\n"
                ));
            }
            for number in 0..random.below(60) {
                let (line, amount) = line(&mut random, number);
                text.push_str(&line);
                billed += amount;
            }
            let file = file("cur.csv", text);
            let found = ledger.compare_bills(&ask(std::slice::from_ref(&file.1)));
            let found = found.unwrap_or_else(|error| panic!("{seed}.{bill}: {error:#}"));
            conserved(&found);
            let cost: Decimal = generations.iter().map(|(_, cost)| *cost).sum();
            let total = (found.total.bill.to_string(), found.total.ours.to_string());
            let expected = (billed.normalize().to_string(), cost.normalize().to_string());
            assert_eq!(total, expected, "{seed}.{bill}");
        }
    }
}
