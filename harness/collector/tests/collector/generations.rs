//! Tests generations from outside: how the collector accepts, refuses, reports, reconciles and
//! bills tokens and their cost.

use agent_meter_collector::invoice::{Invoice, invoices};
use agent_meter_collector::{Ledger, Period, UsageQuery};
use serde_json::{Value, json};

use super::{
    BATCH, Http, SESSION, SOURCE, call, closed, gaps, insert, ledger_of, memory, merge, open,
    pairs, permutations, reconcile, sessions, start, state,
};

/// A priced generation that belongs to no tool call: 1000 tokens in, half of them from the cache,
/// 800 out.
pub(super) fn generation(sequence: u64, data: Value) -> Value {
    let members = json!({
        "quantity": 1800,
        "generation_id": format!("generation-{sequence}"),
        "model_requested": "gpt-4o",
        "tokens": {"input": 1000, "output": 800, "reasoning": 200, "cache_read": 500,
            "cache_write_5m": 0, "provider_total": 1800},
        "cost_lines": [
            {"kind": "input", "tokens": 500, "rate_per_million": "2.5", "cost": "0.00125"},
            {"kind": "cache_read", "tokens": 500, "rate_per_million": "1.25", "cost": "0.000625"},
            {"kind": "output", "tokens": 800, "rate_per_million": "10", "cost": "0.008"},
        ],
        "total_provider_cost": "0.009875",
        "price": "0",
    });
    let mut event = super::events::generation(sequence, 900, members);
    merge(&mut event["data"], data);
    event
}

/// The members that link a generation to the call of an event made with [`call`].
fn of_call(sequence: u64, tool: &str) -> Value {
    json!({"call_id": format!("call-{sequence}"), "tool_name": tool, "attribution": "trace"})
}

fn unpriced(reason: &str) -> Value {
    json!({"priced": false, "unpriced_reason": reason, "total_provider_cost": null,
        "cost_lines": [], "rate_card": null})
}

fn costing(cost: &str) -> Value {
    let line = json!({"kind": "output", "tokens": 1, "rate_per_million": cost, "cost": cost});
    json!({"total_provider_cost": cost, "cost_lines": [line]})
}

fn with(mut event: Value, data: Value) -> Value {
    merge(&mut event["data"], data);
    event
}

/// [`merge`] removes a member that is `null`; the format requires the member with `null` in it.
fn set_null(mut event: Value, member: &str) -> Value {
    event["data"][member] = Value::Null;
    event
}

fn unpriced_generation(sequence: u64, reason: &str) -> Value {
    set_null(generation(sequence, unpriced(reason)), "total_provider_cost")
}

/// A session of two calls and six generations: two for `search`, one for a failed `fetch`, and
/// three that belong to no call: one with a cost, one without a rate, one of unknown usage.
/// Sequences 1 to 9.
fn session() -> Vec<Value> {
    let unknown = json!({"tokens": {}, "quantity": 0, "completeness": "MISSING",
        "model": "__unknown__", "model_requested": null});
    vec![
        state(1, "CREATED"),
        with(generation(2, of_call(3, "search")), json!({"price": "0.0114"})),
        call(3, json!({})),
        with(generation(4, of_call(3, "search")), json!({"model": "gpt-4o-mini"})),
        call(
            5,
            json!({"tool_name": "fetch", "execution_status": "ERROR", "billable": false,
            "price": "0", "cost_tier": "premium"}),
        ),
        with(
            with(generation(6, of_call(5, "fetch")), costing("0.5")),
            json!({"provider": "anthropic", "model": "claude"}),
        ),
        with(
            generation(7, costing("0.25")),
            json!({"tokens": {"input": 10, "output": 1, "cache_write_5m": 3, "cache_write_1h": 4}, "quantity": 11}),
        ),
        with(unpriced_generation(8, "no_rate"), json!({"model": "new"})),
        with(unpriced_generation(9, "unknown_usage"), unknown),
    ]
}

/// The final event of [`session`].
fn end(sequence: u64, data: Value) -> Value {
    let model = |provider: &str,
                 model: &str,
                 counts: [u64; 2],
                 tokens: [u64; 5],
                 cost: &str,
                 revenue: &str| {
        json!({"provider": provider, "model": model, "generations": counts[0],
            "unpriced_generations": counts[1], "input": tokens[0], "output": tokens[1],
            "reasoning": tokens[2], "cache_read": tokens[3], "cache_write": tokens[4],
            "provider_cost": cost, "revenue": revenue})
    };
    let full = [1000, 800, 200, 500, 0];
    let members = json!({
        "total_tool_calls": 2, "billable_tool_calls": 1,
        "calls_by_status": {"ERROR": 1, "SUCCESS": 1},
        "calls_by_tool": [
            {"tool_name": "fetch", "calls": 1, "billable_calls": 0, "revenue": "0",
             "provider_cost": "0.5"},
            {"tool_name": "search", "calls": 1, "billable_calls": 1, "revenue": "0.001",
             "provider_cost": "0.01975"},
        ],
        "generations": 6, "unpriced_generations": 2, "unknown_usage_generations": 1,
        "usage_by_model": [
            model("anthropic", "claude", [1, 0], full, "0.5", "0"),
            model("openai", "__unknown__", [1, 1], [0; 5], "0", "0"),
            model("openai", "gpt-4o-2024-08-06", [2, 0], [1010, 801, 200, 500, 7], "0.259875", "0.0114"),
            model("openai", "gpt-4o-mini", [1, 0], full, "0.009875", "0"),
            model("openai", "new", [1, 1], full, "0", "0"),
        ],
        "total_tokens": {"input": 4010, "output": 3201, "reasoning": 800, "cache_read": 2000,
            "cache_write": 7},
        "total_provider_cost": "0.76975", "unattributed_provider_cost": "0.25",
        "total_revenue": "0.0124",
    });
    let mut event = closed(sequence, members);
    merge(&mut event["data"], data);
    event
}

pub(super) fn usage(ledger: &Ledger, query: &str) -> Value {
    let query = UsageQuery::from_pairs(pairs(query)).expect(query);
    serde_json::to_value(ledger.usage(&query).expect("usage")).expect("json")["rows"].take()
}

/// Keeps the given members of each row.
pub(super) fn only(rows: &Value, members: &[&str]) -> Value {
    let rows = rows.as_array().expect("rows").iter();
    rows.map(|row| members.iter().map(|member| row[member].clone()).collect::<Value>()).collect()
}

#[test]
fn each_rule_of_a_generation_has_its_own_reason() {
    let none = || generation(1, json!({}));
    let attributed = |data: Value| with(generation(1, of_call(2, "search")), data);
    for (event, reason) in [
        (
            generation(1, json!({"metric_id": "tokens"})),
            r#"metric_id: must be "ai_tokens", found "tokens""#,
        ),
        (
            generation(1, json!({"quantity": -1})),
            "quantity: must be an integer of at least 0, found -1",
        ),
        (
            generation(1, json!({"quantity": 1799})),
            "quantity: must be the sum of tokens.input and tokens.output, found 1799",
        ),
        (
            generation(1, json!({"generation_id": ""})),
            r#"generation_id: must be a string, not empty, found """#,
        ),
        (generation(1, json!({"generation_id": null})), "generation_id: missing"),
        (
            generation(1, json!({"attribution": "guess"})),
            r#"attribution: must be one of trace, inferred, result, none, found "guess""#,
        ),
        (
            generation(1, json!({"call_id": "call-2"})),
            r#"call_id: must be absent when attribution is none, found "call-2""#,
        ),
        (
            generation(1, json!({"tool_name": "a"})),
            r#"tool_name: must be absent when attribution is none, found "a""#,
        ),
        (attributed(json!({"call_id": null})), "call_id: missing"),
        (attributed(json!({"tool_name": null})), "tool_name: missing"),
        (generation(1, json!({"provider": 1})), "provider: must be a string, found 1"),
        (generation(1, json!({"model": ""})), r#"model: must be a string, not empty, found """#),
        (generation(1, json!({"purpose": ""})), "purpose: must be a string, not empty, found \"\""),
        (
            generation(1, json!({"inconsistent": "yes"})),
            "inconsistent: must be true or false, found \"yes\"",
        ),
        (
            generation(1, json!({"model_requested": 7})),
            "model_requested: must be a string, found 7",
        ),
        (
            generation(1, json!({"service_tier": ""})),
            r#"service_tier: must be a string, not empty, found """#,
        ),
        (
            generation(1, json!({"modifiers": {"speed": 2}})),
            "modifiers.speed: must be a string, found 2",
        ),
        (
            generation(1, json!({"usage_source": "guess"})),
            r#"usage_source: must be one of body, response_headers, envoy_metadata, mcp_result, found "guess""#,
        ),
        (
            generation(1, json!({"completeness": "HALF"})),
            r#"completeness: must be one of COMPLETE, PARTIAL, FAILED, MISSING, found "HALF""#,
        ),
        (generation(1, json!({"estimated": 0})), "estimated: must be true or false, found 0"),
        (generation(1, json!({"tokens": null})), "tokens: missing"),
        (
            generation(1, json!({"tokens": {"input": 1.5}})),
            "tokens.input: must be an integer of at least 0, found 1.5",
        ),
        (
            generation(1, json!({"tokens": {"output_audio": "3"}})),
            r#"tokens.output_audio: must be an integer of at least 0, found "3""#,
        ),
        (generation(1, json!({"cost_lines": {}})), "cost_lines: must be an array, found {}"),
        (generation(1, json!({"cost_lines": [1]})), "cost_lines[0]: must be an object, found 1"),
        (
            generation(1, json!({"cost_lines": [{"kind": "input"}]})),
            "cost_lines[0].tokens: missing",
        ),
        (
            generation(1, json!({"cost_lines": [{"kind": "web_searches", "quantity": "1"}]})),
            "cost_lines[0].rate: missing",
        ),
        (
            generation(1, json!({"units": {"web_searches": 3}})),
            "units.web_searches: must be a decimal string of at least 0, found 3",
        ),
        (
            generation(1, json!({"unpriced_units": [1]})),
            "unpriced_units: must be an array of strings, not empty, found [1]",
        ),
        (
            generation(1, json!({"reported_cost": "-1"})),
            r#"reported_cost: must be a decimal string of at least 0, found "-1""#,
        ),
        (
            generation(
                1,
                json!({"cost_lines": [{"kind": "input", "tokens": 1, "rate_per_million": "2", "cost": "-1"}]}),
            ),
            r#"cost_lines[0].cost: must be a decimal string of at least 0, found "-1""#,
        ),
        (
            generation(1, json!({"total_provider_cost": "0.01"})),
            r#"total_provider_cost: must be the sum of the cost lines, 0.009875, found "0.01""#,
        ),
        (
            set_null(none(), "total_provider_cost"),
            "total_provider_cost: must be a decimal string of at least 0, found null",
        ),
        (
            generation(1, json!({"unpriced_reason": "no_rate"})),
            r#"unpriced_reason: must be absent when priced is true, found "no_rate""#,
        ),
        (generation(1, json!({"rate_card": null})), "rate_card: missing"),
        (generation(1, json!({"priced": "yes"})), r#"priced: must be true or false, found "yes""#),
        (
            with(unpriced_generation(1, "no_rate"), json!({"total_provider_cost": "0"})),
            r#"total_provider_cost: must be null when priced is false, found "0""#,
        ),
        (
            with(
                unpriced_generation(1, "no_rate"),
                json!({"cost_lines": [{"kind": "a", "tokens": 1, "rate_per_million": "0", "cost": "0"}]}),
            ),
            r#"cost_lines: must be [] when priced is false, found [{"cost":"0","kind":"a","rate_per_million":"0","tokens":1}]"#,
        ),
        (
            unpriced_generation(1, "why"),
            r#"unpriced_reason: must be one of no_rate, no_rate_for_kind, no_rate_for_tier, no_rate_for_modifier, no_rate_for_unit, no_reported_cost, unknown_usage, money_overflow, found "why""#,
        ),
        (
            generation(1, json!({"price": 1})),
            "price: must be a decimal string of at least 0, found 1",
        ),
        (
            generation(1, json!({"currency": "Euro"})),
            r#"currency: must be an ISO 4217 code, found "Euro""#,
        ),
        (generation(1, json!({"http_status": null})), "http_status: missing"),
        (
            generation(1, json!({"duration_ms": -3})),
            "duration_ms: must be an integer of at least 0, found -3",
        ),
        (generation(1, json!({"streamed": 1})), "streamed: must be true or false, found 1"),
        (
            generation(1, json!({"session_id": "abc"})),
            r#"session_id: must be 32 hexadecimal digits, found "abc""#,
        ),
        (
            generation(1, json!({"customer_id": "other"})),
            r#"customer_id: must be "acme", found "other""#,
        ),
        (end(1, json!({"generations": null})), "generations: missing"),
        (
            end(1, json!({"usage_by_model": [{"provider": "a", "model": "b"}]})),
            "usage_by_model[0].generations: missing",
        ),
        (
            end(1, json!({"unattributed_provider_cost": 1})),
            "unattributed_provider_cost: must be a decimal string of at least 0, found 1",
        ),
    ] {
        let ledger = memory();
        let receipt = insert(&ledger, std::slice::from_ref(&event));
        let reasons: Vec<_> =
            receipt.rejected.iter().map(|rejected| rejected.reason.as_str()).collect();
        assert_eq!(reasons, [format!("data.{reason}")], "{event}");
        assert_eq!(ledger.count_events().expect("count"), 0, "{event}");
    }
    let untold = json!({"tokens": {"cache_read": 1}, "quantity": 0});
    let receipt = insert(&memory(), &[generation(1, untold)]);
    let expected = "data.priced: must be false when neither input nor output is known, nor units alone are billed, found true";
    assert_eq!(receipt.rejected[0].reason, expected);
    for reason in ["no_rate", "no_rate_for_kind", "unknown_usage", "money_overflow"] {
        ledger_of(&[unpriced_generation(1, reason)]);
    }
    ledger_of(&[generation(
        1,
        json!({"tokens": {"input": 0, "thoughts": 3}, "quantity": 0, "more": 1}),
    )]);
}

#[test]
fn a_generation_delivered_again_is_counted_once() {
    let ledger = ledger_of(&session());
    let before = usage(&ledger, "group_by=tool,model");
    assert_eq!(insert(&ledger, &session()).duplicates, 9);
    let other = generation(2, json!({"price": "9"}));
    assert_eq!(insert(&ledger, &[other]).rejected.len(), 1);
    assert_eq!(usage(&ledger, "group_by=tool,model"), before);
}

#[test]
fn usage_has_tokens_and_cost_by_tool_model_provider_and_outcome() {
    let ledger = ledger_of(&session());
    for (query, members, expected) in [
        (
            "group_by=tool",
            &[
                "tool",
                "calls",
                "generations",
                "unpriced_generations",
                "provider_cost",
                "revenue",
                "margin",
            ][..],
            json!([
                ["__unattributed__", 0, 3, 2, "0.25", "0", "-0.25"],
                ["fetch", 1, 1, 0, "0.5", "0", "-0.5"],
                ["search", 1, 2, 0, "0.01975", "0.0124", "-0.00735"],
            ]),
        ),
        (
            "group_by=provider,model",
            &[
                "provider",
                "model",
                "calls",
                "generations",
                "unpriced_generations",
                "unknown_usage_generations",
                "provider_cost",
                "revenue",
            ],
            json!([
                ["__none__", "__none__", 2, 0, 0, 0, "0", "0.001"],
                ["anthropic", "claude", 0, 1, 0, 0, "0.5", "0"],
                ["openai", "__unknown__", 0, 1, 1, 1, null, "0"],
                ["openai", "gpt-4o-2024-08-06", 0, 2, 0, 0, "0.259875", "0.0114"],
                ["openai", "gpt-4o-mini", 0, 1, 0, 0, "0.009875", "0"],
                ["openai", "new", 0, 1, 1, 0, null, "0"],
            ]),
        ),
        (
            "group_by=status,tier",
            &["status", "tier", "calls", "generations", "provider_cost"],
            json!([
                ["ERROR", "premium", 1, 1, "0.5"],
                ["SUCCESS", "standard", 1, 2, "0.01975"],
                ["__unattributed__", "__unattributed__", 0, 3, "0.25"],
            ]),
        ),
        (
            "model=gpt-4o-2024-08-06",
            &["calls", "generations", "input", "output", "reasoning", "cache_read", "cache_write"],
            json!([[0, 2, 1010, 801, 200, 500, 7]]),
        ),
        (
            "tool=__unattributed__&provider=openai",
            &["generations", "provider_cost"],
            json!([[3, "0.25"]]),
        ),
        (
            "group_by=customer&status=SUCCESS",
            &["customer", "calls", "provider_cost"],
            json!([["acme", 1, "0.01975"]]),
        ),
    ] {
        assert_eq!(only(&usage(&ledger, query), members), expected, "{query}");
    }
}

#[test]
fn every_grouping_comes_to_the_same_sums() {
    let ledger = ledger_of(&session());
    let amount = |value: &Value| {
        let text = value.as_str().expect("money");
        rust_decimal::Decimal::from_str_exact(text).expect("money")
    };
    let sums = |query: &str| {
        let rows = usage(&ledger, query);
        let rows = rows.as_array().expect("rows");
        let counts = [
            "calls",
            "billable_calls",
            "generations",
            "unpriced_generations",
            "unknown_usage_generations",
            "input",
            "output",
            "reasoning",
            "cache_read",
            "cache_write",
        ]
        .map(|count| rows.iter().map(|row| row[count].as_u64().expect(count)).sum::<u64>());
        let money = ["revenue", "provider_cost", "margin"].map(|member| {
            // Where nothing is known of a cost, neither it nor the margin is told, and the sum over
            // all takes the cost for nothing.
            let told = |row: &Value| match (&row[member], member) {
                (Value::Null, "margin") => amount(&row["revenue"]),
                (Value::Null, _) => rust_decimal::Decimal::ZERO,
                (told, _) => amount(told),
            };
            rows.iter().map(told).sum::<rust_decimal::Decimal>()
        });
        (counts, money)
    };
    for dimension in [
        "customer",
        "team",
        "agent",
        "key",
        "product",
        "product_type",
        "session",
        "kind",
        "tool",
        "status",
        "tier",
        "provider",
        "model",
        "source",
        "currency",
        "day",
        "tool,model",
        "status,provider,tool",
    ] {
        assert_eq!(sums(&format!("group_by={dimension}")), sums(""), "{dimension}");
    }
}

#[test]
fn a_closed_session_agrees_with_its_generations_in_every_order() {
    let mut events = session();
    events.push(end(10, json!({})));
    let reports = |ledger: &Ledger| {
        let invoice = Invoice::for_customer(ledger, None, Period::default()).expect("invoice");
        json!([
            sessions(ledger, ""),
            usage(ledger, "group_by=session,tool,status,provider,model,day"),
            gaps(ledger),
            reconcile(ledger),
            invoice.to_json(),
            invoice.to_string(),
        ])
    };
    let expected = reports(&ledger_of(&events));
    assert_eq!(expected[3], json!({"sessions": 1, "mismatches": []}));
    // Five of the events in each order, before or after the others.
    for order in permutations(5) {
        for rest_first in [true, false] {
            let ledger = memory();
            let chosen: Vec<Value> =
                order.iter().map(|index| events[[1, 2, 5, 7, 9][*index]].clone()).collect();
            let rest: Vec<Value> = [0, 3, 4, 6, 8].map(|index| events[index].clone()).to_vec();
            let parts = if rest_first { [rest, chosen] } else { [chosen, rest] };
            for part in parts {
                insert(&ledger, &part);
            }
            assert_eq!(reports(&ledger), expected, "{order:?}");
        }
    }
}

#[test]
fn an_open_session_shows_what_its_generations_come_to_so_far() {
    let so_far = &sessions(&ledger_of(&session()), "")["sessions"][0];
    let mut events = session();
    events.push(end(10, json!({})));
    let ended = &sessions(&ledger_of(&events), "")["sessions"][0];
    for member in [
        "calls_by_tool",
        "generations",
        "unpriced_generations",
        "unknown_usage_generations",
        "usage_by_model",
        "total_tokens",
        "total_provider_cost",
        "unattributed_provider_cost",
        "total_revenue",
        "currency",
        "margin",
    ] {
        assert_eq!(so_far[member], ended[member], "{member}");
    }
    assert_eq!(ended["margin"], "-0.75735");
    // A generation alone makes a session too, and may be the only event that names a tool.
    let alone =
        sessions(&ledger_of(&[generation(1, of_call(9, "late"))]), "")["sessions"][0].take();
    assert_eq!(alone["state"], "ACTIVE");
    let tool = json!([{"tool_name": "late", "calls": 0, "billable_calls": 0, "revenue": "0",
        "provider_cost": "0.009875"}]);
    assert_eq!(alone["calls_by_tool"], tool);
    let mixed = [generation(1, json!({})), call(2, json!({"currency": "EUR"}))];
    let mixed = sessions(&ledger_of(&mixed), "")["sessions"][0].take();
    for member in
        ["currency", "total_revenue", "total_provider_cost", "unattributed_provider_cost", "margin"]
    {
        assert_eq!(mixed[member], Value::Null, "{member}");
    }
    assert_eq!(mixed["usage_by_model"][0]["provider_cost"], Value::Null);
}

#[test]
fn reconciliation_names_each_total_that_the_generations_do_not_bear_out() {
    let fields = |events: &[Value]| {
        let found = reconcile(&ledger_of(events));
        let rows = found["mismatches"].as_array().expect("rows").clone();
        rows.iter().map(|row| row["field"].as_str().expect("field").to_owned()).collect::<Vec<_>>()
    };
    let lost = |sequence: usize| {
        let mut events = session();
        events.push(end(10, json!({})));
        events.remove(sequence - 1);
        fields(&events)
    };
    assert_eq!(
        lost(2),
        [
            "calls_by_tool",
            "generations",
            "usage_by_model",
            "total_tokens",
            "total_provider_cost",
            "total_revenue"
        ]
    );
    assert_eq!(
        lost(7),
        [
            "generations",
            "usage_by_model",
            "total_tokens",
            "total_provider_cost",
            "unattributed_provider_cost"
        ]
    );
    assert_eq!(
        lost(9),
        ["generations", "unpriced_generations", "unknown_usage_generations", "usage_by_model"]
    );
    let differing = |data: Value| {
        let mut events = session();
        events.push(end(10, data));
        fields(&events)
    };
    assert_eq!(differing(json!({"total_provider_cost": "0.7"})), ["total_provider_cost"]);
    assert_eq!(differing(json!({"unpriced_generations": 1})), ["unpriced_generations"]);
    // A final event may name a tool for a generation without cost; that is not a difference.
    let events = [
        with(unpriced_generation(1, "no_rate"), of_call(9, "late")),
        closed(
            2,
            json!({"total_tool_calls": 0, "billable_tool_calls": 0, "calls_by_status": {},
            "calls_by_tool": [], "total_revenue": "0", "generations": 1, "unpriced_generations": 1,
            "unknown_usage_generations": 0, "unattributed_provider_cost": "0",
            "total_tokens": {"input": 1000, "output": 800, "reasoning": 200, "cache_read": 500, "cache_write": 0},
            "usage_by_model": [{"provider": "openai", "model": "gpt-4o-2024-08-06", "generations": 1,
                "unpriced_generations": 1, "input": 1000, "output": 800, "reasoning": 200,
                "cache_read": 500, "cache_write": 0, "provider_cost": "0", "revenue": "0"}]}),
        ),
    ];
    assert!(fields(&events).is_empty());
}

#[test]
fn reconciliation_adds_up_the_models_that_a_final_event_does_not_name() {
    let mut events = session();
    events.push(end(10, json!({})));
    let mut models = events[9]["data"]["usage_by_model"].as_array().expect("models").clone();
    models.retain(|model| model["model"] == "new" || model["provider"] == "anthropic");
    models.push(json!({"provider": "openai", "model": "__other__", "generations": 4,
        "unpriced_generations": 1, "input": 2010, "output": 1601, "reasoning": 400,
        "cache_read": 1000, "cache_write": 7, "provider_cost": "0.26975", "revenue": "0.0114"}));
    events[9]["data"]["usage_by_model"] = json!(models);
    assert_eq!(reconcile(&ledger_of(&events)), json!({"sessions": 1, "mismatches": []}));
}

#[test]
fn a_cost_whose_lines_do_not_fit_is_refused() {
    let lines = ["1000000000000", "0.0000000000000000000000000001"]
        .map(|cost| json!({"kind": "output", "tokens": 1, "rate_per_million": "1", "cost": cost}));
    let receipt = insert(&memory(), &[generation(3, json!({"cost_lines": lines}))]);
    let expected = "data.cost_lines[1].cost: must be small enough to be added to the lines before \
                    it, found \"0.0000000000000000000000000001\"";
    assert_eq!(receipt.rejected[0].reason, expected);
}

#[test]
fn an_invoice_shows_tokens_cost_and_what_nobody_knows() {
    let mut events = session();
    events.push(end(10, json!({})));
    let ledger = ledger_of(&events);
    let text = "\
INVOICE, the operator's: not for the customer
Customer  acme
Period    the beginning to now

Product tools (MCP_SERVER), USD
  Tool    Tier      Unit price  Calls  Billable  Amount
  fetch   premium            -      1         0   0.000
  search  standard       0.001      1         1   0.001
  Provider  Model              Generations  Input tokens  Output tokens  Amount
  openai    gpt-4o-2024-08-06            2          1010            801  0.0114
  Not billed       ERROR 1, unpriced generations 2
  Sessions closed  1
  Provider cost    at least 0.76975 USD
    By tool
      fetch                                0.50000
      search                               0.01975
      (not attributed to a tool)  at least 0.25000
    By model
      anthropic  claude             0.500000
      openai     __unknown__         unknown
      openai     gpt-4o-2024-08-06  0.259875
      openai     gpt-4o-mini        0.009875
      openai     new                 unknown
    1 generation without a rate: cost unknown
    1 generation of unknown usage: cost unknown
  Revenue          0.0124 USD
  Margin           at most -0.75735 USD (-6107.7 %), 2 of 6 generations without a cost

Total  0.0124 USD
";
    let all = invoices(&ledger).expect("invoices");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].to_string(), text);
    let json = all[0].to_json();
    let product = &json["products"][0];
    let line = json!([{"provider": "openai", "model": "gpt-4o-2024-08-06", "generations": 2,
        "uncharged_generations": 0, "input": 1010, "output": 801, "reasoning": 200, "cache_read": 500, "cache_write": 7,
        "units": {}, "amount": "0.0114"}]);
    assert_eq!(product["token_lines"], line);
    assert_eq!(
        product["cost_by_tool"][2],
        json!({"tool": null, "generations": 3, "unpriced_generations": 2,
            "unknown_usage_generations": 1, "unpriced_units_generations": 0,
            "inconsistent_generations": 0, "cost_known": "part", "provider_cost": "0.25"})
    );
    assert_eq!(
        product["cost_by_model"][1],
        json!({"provider": "openai", "model": "__unknown__", "generations": 1,
            "unpriced_generations": 1, "unknown_usage_generations": 1,
            "unpriced_units_generations": 0, "inconsistent_generations": 0, "input": 0, "output": 0, "reasoning": 0, "cache_read": 0,
            "cache_write": 0, "units": {}, "cost_known": "none", "provider_cost": null})
    );
    assert_eq!(product["unpriced_by_reason"], json!({"no_rate": 1, "unknown_usage": 1}));
    assert_eq!(json["totals"][0]["cost_known"], "part");
    assert_eq!(json["totals"][0]["unpriced_generations"], 2);

    // A product without calls has no table of calls on its invoice.
    let ledger = ledger_of(&[generation(1, json!({"price": "2"}))]);
    let text = invoices(&ledger).expect("invoices")[0].to_string();
    assert!(!text.contains("Tier") && text.ends_with("Total  2 USD\n"), "{text}");
}

/// A generation that is billed by the image alone.
fn images(sequence: u64, quantity: &str, cost: &str) -> Value {
    let mut event = generation(
        sequence,
        json!({"model": "dall-e-3", "model_requested": "dall-e-3", "quantity": 0,
            "units": {"output_images:hd": quantity}, "total_provider_cost": cost,
            "cost_lines": [{"kind": "output_images:hd", "quantity": quantity, "rate": "0.08", "cost": cost}]}),
    );
    event["data"]["tokens"] = json!({});
    event
}

#[test]
fn what_is_billed_beside_tokens_is_summed_by_name_and_what_has_no_price_is_named() {
    let searched = json!({"units": {"web_searches": "3", "file_searches": "1"},
        "unpriced_units": ["file_searches"], "reported_cost": "0.0206"});
    let mut unknown = unpriced_generation(5, "unknown_usage");
    let searches =
        json!({"units": {"web_searches": "1"}, "completeness": "MISSING", "quantity": 0});
    merge(&mut unknown["data"], searches);
    unknown["data"]["tokens"] = json!({});
    let ledger = ledger_of(&[
        images(1, "2", "0.16"),
        images(2, "0.5", "0.04"),
        generation(3, searched.clone()),
        generation(4, searched),
        unknown,
    ]);
    let query = UsageQuery::from_pairs([("group_by", "model")]).expect("a query");
    let rows = serde_json::to_value(ledger.usage(&query).expect("usage")).expect("json");
    let told = |row: usize| {
        let row = &rows["rows"][row];
        [
            &row["model"],
            &row["units"],
            &row["unpriced_units_generations"],
            &row["unknown_usage_generations"],
        ]
        .map(Value::clone)
    };
    assert_eq!(
        told(0),
        [json!("dall-e-3"), json!({"output_images:hd": "2.5"}), json!(0), json!(0)]
    );
    let searches = json!({"file_searches": "2", "web_searches": "7"});
    assert_eq!(told(1), [json!("gpt-4o-2024-08-06"), searches, json!(2), json!(1)]);
    let invoice = &invoices(&ledger).expect("invoices")[0];
    let text = invoice.to_string();
    for line in [
        "    Beside tokens\n      openai  dall-e-3           output_images:hd  2.5\n",
        "      openai  gpt-4o-2024-08-06  file_searches       2\n",
        "    2 generations with units without a price: cost too low\n",
        "1 of 5 generations without a cost, 2 of 5 generations with a part of it",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let model = &invoice.to_json()["products"][0]["cost_by_model"][0];
    assert_eq!(model["units"], json!({"output_images:hd": "2.5"}));
}

#[test]
fn counts_that_contradict_each_other_are_shown_wherever_costs_are() {
    let events = [
        generation(1, json!({"inconsistent": true})),
        generation(2, json!({"inconsistent": true, "model": "gpt-4o-mini"})),
        generation(3, json!({"inconsistent": false})),
        generation(4, json!({})),
    ];
    let ledger = ledger_of(&events);
    let rows = usage(&ledger, "group_by=model");
    let expected = json!([["gpt-4o-2024-08-06", 3, 1], ["gpt-4o-mini", 1, 1]]);
    assert_eq!(only(&rows, &["model", "generations", "inconsistent_generations"]), expected);
    let invoice = &invoices(&ledger).expect("invoices")[0];
    let (text, json) = (invoice.to_string(), invoice.to_json());
    let note = "\n    2 generations with inconsistent counts: cost uncertain\n";
    assert!(text.contains(note), "{text}");
    assert_eq!(json["totals"][0]["inconsistent_generations"], 2);
    assert_eq!(json["products"][0]["cost_by_model"][1]["inconsistent_generations"], 1);
    let one = &invoices(&ledger_of(&events[1..3])).expect("invoices")[0].to_string();
    assert!(one.contains("1 generation with inconsistent counts"), "{one}");
    let none = &invoices(&ledger_of(&events[2..])).expect("invoices")[0].to_string();
    assert!(!none.contains("inconsistent"), "{none}");
}

#[test]
fn a_cost_that_the_provider_reports_needs_no_usage() {
    let mut reported = generation(
        1,
        json!({"rate_card": "reported", "reported_cost": "0.0206",
        "total_provider_cost": "0.0206", "quantity": 0,
        "cost_lines": [{"kind": "reported_cost", "cost": "0.0206"}]}),
    );
    reported["data"]["tokens"] = json!({});
    assert!(
        ledger_of(&[reported]).usage(&UsageQuery::default()).expect("usage").rows[0]
            .provider_cost
            .to_string()
            == "0.0206"
    );
}

#[test]
fn a_margin_is_rounded_to_one_decimal_and_absent_without_revenue() {
    for (price, cost, margin, percent) in [
        ("0.003", "0.001", "0.002", "66.7"),
        ("1", "3", "-2", "-200.0"),
        ("2", "1.001", "0.999", "50.0"),
        ("2000", "1999", "1", "0.1"),
        ("1", "0", "1", "100.0"),
        ("0", "1", "-1", "n/a"),
        ("0", "0", "0", "n/a"),
    ] {
        let ledger = ledger_of(&[call(1, json!({"price": price})), generation(2, costing(cost))]);
        let invoice = Invoice::for_customer(&ledger, None, Period::default()).expect("invoice");
        let sums = &invoice.totals[0].sums;
        let found = (sums.margin.to_string(), sums.margin_percent.as_str());
        assert_eq!(found, (margin.to_owned(), percent), "{price} - {cost}");
        assert_eq!(usage(&ledger, "")[0]["margin"], margin, "{price} - {cost}");
    }
}

/// The tables of version 1: it has no generations, and the event of a call has its cost.
const VERSION_1: &str = "
CREATE TABLE events (position INTEGER PRIMARY KEY, source TEXT NOT NULL, id TEXT NOT NULL,
 sequence INTEGER NOT NULL, type TEXT NOT NULL, time TEXT NOT NULL, subject TEXT NOT NULL,
 session_id TEXT, raw TEXT NOT NULL, received_at TEXT NOT NULL, UNIQUE (source, id)) STRICT;
CREATE INDEX events_session ON events (session_id);
CREATE TABLE calls (position INTEGER PRIMARY KEY REFERENCES events (position), provider_cost TEXT NOT NULL) STRICT;
CREATE TABLE sessions (position INTEGER PRIMARY KEY, totals TEXT) STRICT;
PRAGMA user_version = 1;
";

#[test]
fn a_ledger_of_version_1_is_brought_up_to_date() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ledger.db").to_str().expect("path").to_owned();
    let mut events = session();
    events.push(end(10, json!({})));
    // Version 1 kept it as an event of unknown type; now that the type is known, it is not valid.
    events.push(generation(11, json!({"priced": 1})));
    let old = rusqlite::Connection::open(&path).expect("open");
    old.execute_batch(VERSION_1).expect("sql");
    for (position, event) in (1_i64..).zip(&events) {
        let sql = "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, 'acme', ?, ?, '')";
        let text = |member: &str| event[member].as_str().expect(member).to_owned();
        let row = (
            position,
            SOURCE,
            text("id"),
            position,
            text("type"),
            text("time"),
            SESSION,
            event.to_string(),
        );
        old.execute(sql, row).expect("a row");
    }
    drop(old);
    let new = ledger_of(&events[..10]);
    for round in 0..2 {
        let ledger = open(&path);
        assert_eq!(ledger.count_events().expect("count"), 11, "{round}");
        assert_eq!(
            usage(&ledger, "group_by=tool,model"),
            usage(&new, "group_by=tool,model"),
            "{round}"
        );
        assert_eq!(sessions(&ledger, ""), sessions(&new, ""), "{round}");
        assert_eq!(reconcile(&ledger), json!({"sessions": 1, "mismatches": []}), "{round}");
        assert_eq!(insert(&ledger, &events[..10]).duplicates, 10, "{round}");
    }
}

#[tokio::test]
async fn metrics_have_tokens_cost_and_revenue() {
    let collector = start().await;
    let http = Http::new(&collector);
    let body = serde_json::to_vec(&session()).expect("json");
    assert_eq!(http.post(BATCH, body.clone()).await.0, 200);
    assert_eq!(http.post(BATCH, body).await.1["duplicates"], 9);
    let (_, text) = http.get("/metrics").await;
    for line in [
        r#"events_total{outcome="accepted",type="token_consumption"} 6"#,
        r#"generations_total{cost="known"} 4"#,
        r#"generations_total{cost="no_rate"} 1"#,
        r#"generations_total{cost="unknown_usage"} 1"#,
        r#"tokens_total{kind="input"} 4010"#,
        r#"tokens_total{kind="cache_write"} 7"#,
        r#"provider_cost_total{currency="USD",attributed_to="none"} 0.25"#,
        r#"provider_cost_total{currency="USD",attributed_to="tool"} 0.51975"#,
        r#"revenue_total{currency="USD",charged_for="calls"} 0.001"#,
        r#"revenue_total{currency="USD",charged_for="tokens"} 0.0114"#,
    ] {
        let line = format!("agent_meter_collector_{line}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    collector.stop().await;
}

/// A generation of which `output` tokens cost as many USD.
fn told(sequence: u64, id: &str, output: u64, supersedes: Option<&str>) -> Value {
    let cost = output.to_string();
    let mut event = generation(sequence, costing(&cost));
    let data = &mut event["data"];
    data["generation_id"] = json!(id);
    data["tokens"] = json!({"input": 0, "output": output});
    data["quantity"] = json!(output);
    if let Some(supersedes) = supersedes {
        data["supersedes"] = json!(supersedes);
    }
    event
}

#[test]
fn what_is_superseded_leaves_every_sum_in_whatever_order_it_comes() {
    // An estimate with a further run, what was cut, and the truth; and one that only looks alike.
    let events = [
        told(1, "0.1.5", 13, None),
        told(2, "0.1.5.1", 2, None),
        told(3, "0.1.7", 90, Some("0.1.5")),
        told(4, "0.1.9", 5000, Some("0.1.7")),
        told(5, "0.1.55", 1, None),
    ];
    for order in permutations(events.len()) {
        let ledger = memory();
        for at in order.iter().chain(&order) {
            let receipt = insert(&ledger, std::slice::from_ref(&events[*at]));
            assert!(receipt.rejected.is_empty(), "{receipt:?}");
        }
        let row = &usage(&ledger, "")[0];
        assert_eq!((&row["generations"], &row["output"]), (&json!(2), &json!(5001)), "{order:?}");
        assert_eq!(row["provider_cost"], "5001", "{order:?}");
        let sessions = sessions(&ledger, "");
        assert_eq!(sessions["sessions"][0]["generations"], 2, "{order:?}");
        assert_eq!(sessions["sessions"][0]["total_provider_cost"], "5001", "{order:?}");
    }
}

#[tokio::test]
async fn metrics_count_what_is_superseded_no_more_and_never_fall() {
    let of_call = |event: Value| with(event, of_call(9, "search"));
    let events = [
        told(1, "0.1.5", 13, None),
        told(2, "0.1.5.1", 2, None),
        of_call(told(3, "0.1.7", 90, Some("0.1.5"))),
        of_call(told(4, "0.1.9", 8, Some("0.1.7"))),
        with(told(5, "0.1.55", 1, None), json!({"price": "4"})),
    ];
    // What is paid back is not counted: the first generation of a label makes up for it.
    let more = [told(6, "0.2.1", 300, None), of_call(told(7, "0.2.2", 400, None))];
    let counters = |text: &str| -> Vec<(String, u64)> {
        let lines = text.lines().filter(|line| line.contains("_total{"));
        let lines = lines.filter_map(|line| line.rsplit_once(' '));
        lines.map(|(name, value)| (name.to_owned(), value.parse().expect(name))).collect()
    };
    for order in permutations(events.len()) {
        let collector = start().await;
        let http = Http::new(&collector);
        let mut before: Vec<(String, u64)> = Vec::new();
        for event in order.iter().map(|at| &events[*at]).chain(&more) {
            let body = serde_json::to_vec(&[event]).expect("json");
            assert_eq!(http.post(BATCH, body).await.0, 200);
            let now = counters(&http.get("/metrics").await.1);
            for (name, value) in &before {
                let found = now.iter().find(|(other, _)| other == name);
                assert!(found.is_some_and(|(_, now)| now >= value), "{order:?} {name}");
            }
            before = now;
        }
        let told = |name: &str| {
            let name = format!("agent_meter_collector_{name}");
            before.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
        };
        for (name, expected) in [
            (r#"events_total{outcome="accepted",type="token_consumption"}"#, 7),
            (r#"generations_total{cost="known"}"#, 4),
            (r#"tokens_total{kind="output"}"#, 709),
            (r#"provider_cost_total{currency="USD",attributed_to="none"}"#, 301),
            (r#"provider_cost_total{currency="USD",attributed_to="tool"}"#, 408),
            (r#"revenue_total{currency="USD",charged_for="tokens"}"#, 4),
        ] {
            assert_eq!(told(name), Some(expected), "{order:?} {name}");
        }
        collector.stop().await;
    }
}

#[test]
fn a_closed_session_was_right_about_what_was_superseded_later() {
    let totals = |generations: u64, output: u64, cost: &str| {
        json!({"total_tool_calls": 0, "billable_tool_calls": 0, "calls_by_status": {},
            "calls_by_tool": [], "generations": generations, "unpriced_generations": 0,
            "unknown_usage_generations": 0, "usage_by_model": [{"provider": "openai",
                "model": "gpt-4o-2024-08-06", "generations": generations,
                "unpriced_generations": 0, "input": 0, "output": output, "reasoning": 0,
                "cache_read": 0, "cache_write": 0, "provider_cost": cost, "revenue": "0"}],
            "total_tokens": {"input": 0, "output": output, "reasoning": 0, "cache_read": 0,
                "cache_write": 0},
            "total_provider_cost": cost, "unattributed_provider_cost": cost,
            "total_revenue": "0"})
    };
    let mut events = [
        told(1, "0.1.5", 13, None),
        told(2, "0.1.6", 7, None),
        told(3, "0.1.7", 8, Some("0.1.6")),
        with(closed(4, json!({})), totals(2, 21, "21")),
        told(5, "0.1.8", 5000, Some("0.1.5")),
    ];
    events[3]["data"]["calls_by_status"] = json!({});
    for order in permutations(events.len()) {
        let ledger = memory();
        for at in &order {
            insert(&ledger, std::slice::from_ref(&events[*at]));
        }
        assert_eq!(reconcile(&ledger)["mismatches"], json!([]), "{order:?}");
        assert_eq!(reconcile(&ledger)["sessions"], 1, "{order:?}");
        let session = &sessions(&ledger, "")["sessions"][0];
        assert_eq!(session["total_provider_cost"], "5008", "{order:?}");
        assert_eq!(session["wall_duration_ms"], 300_000, "{order:?}");
    }
}

#[test]
fn an_access_log_names_a_response_once_with_all_its_runs() {
    use agent_meter_collector::recover::Log;
    let ledger = ledger_of(&[
        generation(1, json!({"generation_id": "0.1.7"})),
        generation(2, json!({"generation_id": "0.1.7.1", "purpose": "compaction"})),
        generation(3, json!({"generation_id": "0.1.7.2", "purpose": "compaction"})),
        // A result of a batch has such an id too, but is a response of its own.
        generation(4, json!({"generation_id": "0.1.8.1"})),
        generation(5, json!({"generation_id": "0.1.9"})),
    ]);
    let line = |id: &str| format!("{{\"agent_meter.generation_id\": \"{id}\"}}\n");
    let text = [line("0.1.7"), line("0.1.9")].concat();
    let log = Log::new("access.log", std::io::Cursor::new(text)).expect("a log");
    let found = ledger.compare_access_logs(vec![log]).expect("a comparison");
    assert_eq!((found.matched, found.not_in_ledger.count), (4, 0));
    assert_eq!(found.not_in_log.first, ["0.1.8.1"]);
}
