//! Tests the comparison of providers' bills with a ledger: each format, each reason, what is refused,
//! and that the amounts always add up. The figures of the fixtures are made up.

#[path = "../events/mod.rs"]
#[allow(dead_code, reason = "no call is on a bill")]
mod events;
mod formats;
mod large;
#[path = "../ledgers/mod.rs"]
mod ledgers;
#[path = "../random/mod.rs"]
mod random;
mod reasons;
mod refusals;
mod seeded;

use std::path::{Path, PathBuf};

use agent_meter_collector::bill::{BillComparison, BillQuestion};
use agent_meter_collector::{Clock, Ledger};
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// 2026-08-02T12:00:00Z.
const NOW_MS: i64 = 1_785_672_000_000;
/// What a million tokens cost here: not cached, read from a cache, written to one, generated.
const RATES: [&str; 4] = ["2.5", "1.25", "3", "10"];
const KINDS: [&str; 4] = ["input", "cache_read", "cache_write_5m", "output"];

/// A ledger that took these events.
fn ledger(events: &[Value]) -> Ledger {
    let clock = Clock::new(|| NOW_MS);
    let ledger = Ledger::open_at(&ledgers::new_ledger(), clock).expect("a ledger");
    store(&ledger, events);
    ledger
}

fn store(ledger: &Ledger, events: &[Value]) {
    for events in events.chunks(10_000) {
        let body = serde_json::to_vec(events).expect("json");
        let receipt = ledger.insert_batch(&body, "application/cloudevents-batch+json");
        let receipt = receipt.expect("a batch");
        assert_eq!((receipt.rejected, receipt.accepted), (vec![], events.len() as u64));
    }
}

/// A generation of a model with so many tokens of each kind, at [`RATES`].
fn spent(sequence: u64, time: &str, provider: &str, model: &str, tokens: [u64; 4]) -> Value {
    spent_at(sequence, time, (provider, model), tokens, RATES)
}

fn spent_at(
    sequence: u64,
    time: &str,
    (provider, model): (&str, &str),
    tokens: [u64; 4],
    rates: [&str; 4],
) -> Value {
    let mut sum = Decimal::ZERO;
    let mut lines = Vec::new();
    for ((kind, tokens), rate) in KINDS.into_iter().zip(tokens).zip(rates) {
        let rate_of_one = rate.parse::<Decimal>().expect(rate) / Decimal::from(1_000_000);
        let cost = rate_of_one * Decimal::from(tokens);
        sum += cost;
        lines.push(json!({
            "kind": kind, "tokens": tokens, "rate_per_million": rate,
            "cost": cost.normalize().to_string(),
        }));
    }
    let [fresh, read, written, output] = tokens;
    let mut event = events::generation(
        sequence,
        1,
        json!({
            "provider": provider, "model": model, "quantity": tokens.iter().sum::<u64>(),
            "tokens": {
                "input": fresh + read + written, "output": output, "cache_read": read,
                "cache_write_5m": written,
            },
            "cost_lines": lines, "total_provider_cost": sum.normalize().to_string(),
        }),
    );
    event["time"] = time.into();
    event
}

/// The same without a price.
fn unpriced(mut event: Value, reason: &str) -> Value {
    let data = json!({
        "cost_lines": [], "priced": false, "total_provider_cost": Value::Null,
        "unpriced_reason": reason,
    });
    events::merge(&mut event["data"], data);
    // `merge` takes null for a member to remove.
    event["data"]["total_provider_cost"] = Value::Null;
    event["data"].as_object_mut().expect("an object").remove("rate_card");
    event
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bill/fixtures").join(name)
}

fn ask(files: &[PathBuf]) -> BillQuestion {
    BillQuestion { files: files.to_vec(), ..BillQuestion::default() }
}

/// A file with this text, in a directory that lives as long as the first value.
fn file(name: &str, text: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect(name);
    (dir, path)
}

/// Each row as `day model: bill bill, ours ours`, with its reasons behind it; and all sums checked.
fn shown(comparison: &BillComparison) -> Vec<String> {
    conserved(comparison);
    let mut lines = Vec::new();
    for row in &comparison.rows {
        let (day, model) = (&row.day, &row.model);
        lines.push(format!("{day} {model}: {} billed, {} here", row.bill, row.ours));
        for named in &row.reasons {
            let colon = if named.detail.is_empty() { "" } else { ": " };
            let (reason, detail) = (named.reason.name(), &named.detail);
            lines.push(format!("  {} {reason}{colon}{detail}", named.amount));
        }
    }
    lines
}

/// Checks bill = ours + all reasons, for each row, day, model and in all, by what JSON says.
fn conserved(comparison: &BillComparison) {
    let text = serde_json::to_string(comparison).expect("JSON");
    let told: Value = serde_json::from_str(&text).expect("JSON");
    let decimal =
        |value: &Value| -> Decimal { value.as_str().expect("text").parse().expect("a decimal") };
    let check = |what: &Value, reasons: Decimal| {
        let (bill, ours) = (decimal(&what["bill"]), decimal(&what["ours"]));
        assert_eq!(bill, ours + reasons, "{what}");
        assert_eq!(decimal(&what["difference"]), reasons, "{what}");
        (bill, ours)
    };
    let mut totals = [(Decimal::ZERO, Decimal::ZERO); 3];
    let mut add = |at: usize, (bill, ours): (Decimal, Decimal)| {
        totals[at].0 += bill;
        totals[at].1 += ours;
    };
    for row in told["rows"].as_array().expect("rows") {
        let reasons = row["reasons"].as_array().expect("reasons");
        add(0, check(row, reasons.iter().map(|named| decimal(&named["amount"])).sum()));
    }
    for (at, sums) in [(1, "by_day"), (2, "by_model")] {
        for sum in told[sums].as_object().expect("sums").values() {
            let reasons = sum["reasons"].as_object().expect("reasons");
            add(at, check(sum, reasons.values().map(decimal).sum()));
        }
    }
    let total = &told["total"];
    let reasons = total["reasons"].as_object().expect("reasons").values().map(decimal).sum();
    let total = check(total, reasons);
    assert_eq!(totals, [total; 3]);
}
