//! Tests exports: a month in FOCUS adds up to the month's invoice, to the last digit.

use std::collections::BTreeMap;

use agent_meter_collector::invoice::Invoice;
use agent_meter_collector::{Clock, Ledger, Month, export_focus};
use rust_decimal::Decimal;
use serde_json::{Value, json};

/// 2026-08-02T12:00:00Z.
const NOW_MS: i64 = 1_785_672_000_000;

fn ledger(events: &[Value]) -> Ledger {
    let ledger = Ledger::open_at("sqlite::memory:", Clock::new(|| NOW_MS)).expect("a ledger");
    let body = serde_json::to_vec(events).expect("json");
    let receipt = ledger.insert_batch(&body, "application/cloudevents-batch+json").expect("batch");
    assert_eq!(receipt.rejected, []);
    ledger
}

fn event(sequence: u64, kind: &str, time: &str, customer: &str, data: &Value) -> Value {
    let mut event = json!({
        "specversion": "1.0",
        "id": format!("{sequence:020}"),
        "source": "urn:agent-meter:envoy-1:0001",
        "type": format!("agent-meter.{kind}"),
        "time": time,
        "subject": customer,
        "sequence": format!("{sequence:020}"),
        "data": {
            "event_type": kind, "product_id": "tools", "product_type": "MCP_SERVER",
            "customer_id": customer, "team_id": "blue", "agent_id": "agent-1",
            "session_id": "0123456789abcdef0123456789abcdef",
            "session_key": "fedcba9876543210fedcba9876543210", "currency": "USD",
        },
    });
    for (name, value) in data.as_object().expect("an object") {
        event["data"][name] = value.clone();
    }
    event
}

fn call(sequence: u64, time: &str, customer: &str, tool: &str, price: &str) -> Value {
    let data = json!({
        "metric_id": "tool_invocations", "quantity": 1, "call_id": format!("call-{sequence}"),
        "tool_name": tool, "execution_status": if price == "0" { "ERROR" } else { "SUCCESS" },
        "execution_duration_ms": 1, "http_status": 200, "transport": "json",
        "cost_tier": "standard", "billable": price != "0", "price": price,
    });
    event(sequence, "tool_invocation", time, customer, &data)
}

fn generation(sequence: u64, time: &str, customer: &str, price: &str, currency: &str) -> Value {
    let data = json!({
        "metric_id": "ai_tokens", "quantity": 15, "generation_id": format!("g-{sequence}"),
        "attribution": "none", "provider": "openai", "model": "gpt-4o", "service_tier": "standard",
        "usage_source": "body", "completeness": "COMPLETE", "estimated": false,
        "tokens": {"input": 10, "output": 5, "reasoning": 2, "cache_read": 3},
        "cost_lines": [{"kind": "output", "tokens": 5, "rate_per_million": "0.14",
            "cost": "0.0000007"}],
        "priced": true, "total_provider_cost": "0.0000007",
        "rate_card": "2026-07", "price": price, "currency": currency, "http_status": 200,
        "duration_ms": 1, "streamed": false,
    });
    event(sequence, "token_consumption", time, customer, &data)
}

/// A month with both its edges, three customers and two currencies.
fn month() -> Vec<Value> {
    vec![
        call(1, "2026-06-30T23:59:59.999Z", "acme", "search", "9"),
        call(2, "2026-07-01T00:00:00.000Z", "acme", "search", "0.001"),
        call(3, "2026-07-01T10:00:00.000Z", "acme", "say \"hi\", go", "0.0000000000000000001"),
        call(4, "2026-07-01T10:00:00.000Z", "acme", "search", "0"),
        call(5, "2026-07-31T23:59:59.999Z", "umbrella, inc", "search", "0.3"),
        call(6, "2026-08-01T00:00:00.000Z", "acme", "search", "9"),
        generation(7, "2026-07-15T12:00:00.000Z", "acme", "0.0000123", "USD"),
        generation(8, "2026-07-15T12:00:00.000Z", "zorg", "0.07", "EUR"),
        generation(9, "2026-07-16T12:00:00.000Z", "acme", "0", "USD"),
    ]
}

fn exported(ledger: &Ledger) -> (Vec<BTreeMap<String, String>>, String) {
    let mut out = Vec::new();
    let month: Month = "2026-07".parse().expect("a month");
    let told = export_focus(ledger, month, "Example Ltd", &mut out).expect("exported");
    let text = String::from_utf8(out).expect("text");
    let mut lines = text.trim_end().split("\r\n").map(values);
    let names = lines.next().expect("names");
    let rows: Vec<BTreeMap<String, String>> = lines
        .map(|values| {
            assert_eq!(values.len(), names.len());
            names.iter().cloned().zip(values).collect()
        })
        .collect();
    assert_eq!(told.rows, rows.len() as u64);
    (rows, text)
}

/// The values of a line of CSV.
fn values(line: &str) -> Vec<String> {
    let (mut values, mut value, mut is_quoted) = (Vec::new(), String::new(), false);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => value.push(chars.next().expect("\"")),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => values.push(std::mem::take(&mut value)),
            c => value.push(c),
        }
    }
    values.push(value);
    values
}

#[test]
fn a_month_adds_up_to_its_invoices() {
    let ledger = ledger(&month());
    let (rows, _) = exported(&ledger);
    let period = "2026-07".parse::<Month>().expect("a month").period().expect("a period");
    for customer in ["acme", "umbrella, inc", "zorg"] {
        let invoice = Invoice::for_customer(&ledger, Some(customer), period).expect("an invoice");
        for total in &invoice.totals {
            let is_of = |row: &&BTreeMap<String, String>| {
                row["BillingAccountId"] == customer && row["BillingCurrency"] == total.currency
            };
            let sum = |column: &str| -> Decimal {
                let amounts = rows.iter().filter(is_of).filter(|row| !row[column].is_empty());
                amounts.map(|row| row[column].parse::<Decimal>().expect(column)).sum()
            };
            assert_eq!(sum("BilledCost"), total.sums.revenue, "{customer}");
            assert_eq!(sum("x_ProviderCost"), total.sums.provider_cost, "{customer}");
        }
    }
    let billed: Decimal =
        rows.iter().map(|row| row["BilledCost"].parse::<Decimal>().expect("n")).sum();
    assert_eq!(billed.to_string(), "0.3710123000000000001");
}

#[test]
fn rows_are_of_days_customers_and_tools() {
    let (rows, text) = exported(&ledger(&month()));
    assert_eq!(rows.len(), 6, "{text}");
    let search = &rows[1];
    assert_eq!(search["ChargeDescription"], "Calls of search");
    assert_eq!(search["ChargePeriodStart"], "2026-07-01T00:00:00Z");
    assert_eq!(search["ChargePeriodEnd"], "2026-07-02T00:00:00Z");
    assert_eq!(search["BillingPeriodEnd"], "2026-08-01T00:00:00Z");
    assert_eq!((&*search["ConsumedQuantity"], &*search["PricingQuantity"]), ("2.0", "1.0"));
    assert_eq!(search["InvoiceId"], "2026-07/acme/USD");
    assert_eq!(search["InvoiceIssuerName"], "Example Ltd");
    assert_eq!(rows[0]["x_ToolName"], "say \"hi\", go");
    let model = &rows[2];
    assert_eq!((&*model["x_Model"], &*model["x_InputTokens"]), ("gpt-4o", "10"));
    assert_eq!(model["x_ProviderCost"], "0.0000007");
}

#[test]
fn a_month_is_written_with_a_dash() {
    for text in ["2026", "2026-7", "2026-13", "2026-07-01", "07-2026", "", "éé26-07"] {
        let error = text.parse::<Month>().expect_err(text);
        assert!(error.starts_with("expected a month such as 2026-07, found"), "{error}");
    }
}

/// `tests/peers/focus.rs` gives this file to FOCUS' own validator.
#[test]
fn the_month_is_the_file_that_the_validator_reads() {
    let (_, text) = exported(&ledger(&month()));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/export/focus-2026-07.csv");
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(file, &text).expect("a file");
    }
    let expected = std::fs::read_to_string(file).expect("a golden file");
    assert_eq!(text, expected, "after a change run with WRITE_GOLDEN=1, and `make peers`");
}

#[test]
fn a_generation_that_takes_the_place_of_another_is_charged_once() {
    let mut events = month();
    let mut truth = generation(10, "2026-07-15T12:00:00.000Z", "acme", "0.5", "USD");
    truth["data"]["supersedes"] = json!("g-7");
    events.push(truth);
    let (rows, _) = exported(&ledger(&events));
    let of_day = rows.iter().filter(|row| {
        row["ChargePeriodStart"] == "2026-07-15T00:00:00Z" && row["BillingAccountId"] == "acme"
    });
    let of_day: Vec<&str> = of_day.map(|row| row["BilledCost"].as_str()).collect();
    assert_eq!(of_day, ["0.5"]);
}
