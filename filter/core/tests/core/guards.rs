//! Guards: what calls and generations add up to, the levels in between, and what requests may do then.

use agent_meter_core::domain::level::Level;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::sink::reply::Reply;
use serde_json::{Value, json};

use crate::guarded::{Became, Guarded, config, guard, levels};
use crate::host::meter;
use crate::support::test;

#[test]
fn the_three_levels_come_in_order_and_act_as_they_say() {
    let mut guarded = Guarded::new(&json!([guard(&json!({}))]));
    assert_eq!(guarded.generate("acme", 13_900), 200, "1.39 of 2.00: margin 30.5%");
    guarded.settle();
    assert_eq!(guarded.levels(), []);
    assert_eq!(guarded.call("acme", "t").mark(), Level::None);

    guarded.generate("acme", 100);
    guarded.settle();
    assert_eq!(guarded.levels(), levels(&[("NONE", "L1_ALERT", "threshold")]));
    let event = guarded.last("margin_level_changed");
    for (name, value) in [
        ("guard_id", json!("margin")),
        ("mode", json!("enforce")),
        ("scope", json!("customer")),
        ("customer_id", json!("acme")),
        ("period", json!("month")),
        ("margin", json!("0.3")),
        ("threshold", json!("0.3")),
        ("total_provider_cost", json!("1.4")),
        ("total_revenue", json!("2")),
        ("currency", json!("USD")),
        ("action", json!("alert")),
        ("notify", json!(["finance"])),
        ("period_started_at", json!("2025-11-01T00:00:00.000Z")),
        ("period_ends_at", json!("2025-12-01T00:00:00.000Z")),
    ] {
        assert_eq!(event[name], value, "{name}");
    }
    let passed = guarded.call("acme", "t");
    assert!(matches!(passed, Became::Passed(_, Level::Alert, false)), "{passed:?}");

    guarded.generate("acme", 2_000);
    guarded.settle();
    let passed = guarded.call("acme", "t");
    assert!(matches!(passed, Became::Passed(_, Level::Throttle, true)), "{passed:?}");
    let more: Vec<u16> = (0..10).map(|_| guarded.call("acme", "t").status()).collect();
    assert_eq!(more, [200, 200, 200, 200, 429, 429, 429, 429, 429, 429], "5 at once");
    guarded.envoy.now.0 += 200;
    assert_eq!(guarded.call("acme", "t").status(), 200, "and one each 200 ms");
    assert_eq!(guarded.generate("acme", 2_000), 429, "whatever they are");
    guarded.envoy.now.0 += 200;
    assert_eq!(guarded.generate("acme", 2_000), 200);
    guarded.settle();

    let Became::Refused(429, headers, body) = guarded.call("acme", "t") else { panic!() };
    assert_eq!(body["id"], "one");
    assert_eq!(body["error"]["code"], -32_013);
    assert_eq!(body["error"]["data"]["level"], "L3_BLOCK");
    assert_eq!(body["error"]["data"]["scope"], "customer");
    assert_eq!(body["error"]["data"]["resets_at"], "2025-12-01T00:00:00.000Z");
    let header =
        |name: &str| headers.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
    assert_eq!(header("x-margin-guard"), Some("blocked"));
    assert_eq!(header("x-margin-guard-level"), Some("L3"));
    assert!(header("retry-after").unwrap().parse::<u64>().unwrap() > 86_400);
    assert_eq!(guarded.generate("acme", 1), 429);
    assert_eq!(guarded.call("rival", "t").mark(), Level::None, "nobody else");
    assert_eq!(
        guarded.levels(),
        levels(&[
            ("NONE", "L1_ALERT", "threshold"),
            ("L1_ALERT", "L2_THROTTLE", "threshold"),
            ("L2_THROTTLE", "L3_BLOCK", "threshold"),
        ])
    );
    guarded.settle();
    let call = guarded.last("tool_invocation");
    assert_eq!((&call["execution_status"], &call["http_status"]), (&json!("BLOCKED"), &json!(429)));
}

#[test]
fn levels_that_are_passed_at_once_are_told_one_by_one() {
    let mut guarded = Guarded::new(&json!([guard(&json!({}))]));
    guarded.generate("acme", 50_000);
    guarded.settle();
    assert_eq!(
        guarded.levels(),
        levels(&[
            ("NONE", "L1_ALERT", "threshold"),
            ("L1_ALERT", "L2_THROTTLE", "threshold"),
            ("L2_THROTTLE", "L3_BLOCK", "threshold"),
        ])
    );
}

#[test]
fn what_is_not_a_call_passes_a_block() {
    let mut guarded = Guarded::new(&json!([guard(&json!({}))]));
    guarded.generate("acme", 50_000);
    guarded.settle();
    let head = [(":method", "POST"), (":path", "/mcp"), ("x-customer-id", "acme")];
    for method in ["initialize", "tools/list", "ping"] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
        assert_eq!(guarded.send(&head, &body).status(), 200, "{method}");
    }
    let both = r#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}},
        {"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"b"}}]"#;
    let Became::Refused(429, _, body) = guarded.send(&head, both) else { panic!() };
    assert_eq!((&body[0]["id"], &body[1]["id"]), (&json!(1), &json!(2)));
}

#[test]
fn a_guard_that_observes_tells_and_counts_and_touches_nothing() {
    let mut guarded = Guarded::new(&json!([guard(&json!({ "mode": "observe" }))]));
    guarded.generate("acme", 50_000);
    guarded.settle();
    assert_eq!(guarded.levels().len(), 3);
    assert_eq!(guarded.last("margin_level_changed")["mode"], "observe");
    for _ in 0..10 {
        assert_eq!(guarded.call("acme", "t").mark(), Level::None);
    }
    assert_eq!(guarded.count(Counter::GuardWouldBlock), 10);
    assert_eq!(guarded.count(Counter::GuardBlocked), 0);
}

#[test]
fn revenue_is_contracted_earned_or_the_larger() {
    let earns = json!({ "tokens": { "pass_through": true, "markup": "1" } });
    // The revenue, the contract, whether tokens earn twice their cost, what 1.00 USD of cost comes to.
    for (revenue, contract, earns_twice, expected) in [
        ("contracted", Some("2"), false, Some("0.5")),
        ("contracted", None, true, None),
        ("earned", Some("100"), true, Some("0.5")),
        ("earned", Some("100"), false, None),
        ("larger", Some("100"), true, Some("0.99")),
        ("larger", Some("1.5"), true, Some("0.5")),
        ("larger", None, true, Some("0.5")),
        ("larger", None, false, None),
    ] {
        let actions = json!({ "level_1": { "threshold": "100%" } });
        let guards = json!([{ "id": "g", "revenue": revenue, "actions": actions }]);
        let customers = contract.map_or(json!({}), |pays| json!({ "acme": { "revenue": pays } }));
        let mut text: Value = serde_json::from_str(&config(
            &guards,
            &json!({ "contracts": { "customers": customers } }),
        ))
        .unwrap();
        if earns_twice {
            text["products"][1]["pricing"] = earns.clone();
        }
        let mut guarded = Guarded::with(&guards, &text);
        guarded.generate("acme", 10_000);
        guarded.settle();
        let row = format!("{revenue} {contract:?} {earns_twice}");
        match expected {
            None => assert_eq!(guarded.levels(), [], "{row}"),
            Some(margin) => {
                assert_eq!(guarded.last("margin_level_changed")["margin"], margin, "{row}");
            }
        }
    }
}

#[test]
fn cost_without_any_revenue_is_the_worst() {
    let contracts = json!({ "contracts": { "customers": { "acme": { "revenue": "0" } } } });
    let mut guarded = Guarded::with(&json!([guard(&json!({}))]), &contracts);
    guarded.generate("acme", 1);
    guarded.settle();
    assert_eq!(guarded.last("margin_level_changed")["level"], "L3_BLOCK");
    assert_eq!(guarded.last("margin_level_changed")["margin"], Value::Null);
}

#[test]
fn floors_move_the_levels_of_a_plan_or_a_customer() {
    let contracts = json!({ "contracts": {
        "default_plan": "pro",
        "plans": { "free": { "revenue": "1" }, "pro": { "revenue": "1" } },
        "customers": { "small": { "plan": "free" }, "kept": { "plan": "free" } },
    } });
    let guards = json!([guard(&json!({
        "min_margin": "25%",
        "floors": { "plans": { "free": "5%" }, "customers": { "kept": "25%" } },
    }))]);
    let mut guarded = Guarded::with(&guards, &contracts);
    for customer in ["acme", "small", "kept"] {
        guarded.generate(customer, 7_500);
    }
    guarded.settle();
    let of = |customer: &str| {
        let is =
            |event: &&Value| event["subject"] == customer && event["data"]["level"] != Value::Null;
        guarded.told.iter().filter(is).count()
    };
    assert_eq!((of("acme"), of("kept"), of("small")), (1, 1, 0), "25% left: at 30%, not at 10%");
}

#[test]
fn a_metric_counts_its_own_cost_only() {
    let actions = json!({ "level_3": { "threshold": "90%" } });
    let guards = json!([{ "id": "reasoning-token-safety", "metric": "ai_reasoning_tokens", "actions": actions }]);
    let mut guarded = Guarded::new(&guards);
    guarded.generate_with("acme", 100_000, 0, &[]);
    guarded.settle();
    assert_eq!(guarded.levels(), []);
    guarded.generate_with("acme", 0, 4_000, &[]);
    guarded.settle();
    let event = guarded.last("margin_level_changed");
    assert_eq!(
        (&event["total_provider_cost"], &event["metric"]),
        (&json!("0.2"), &json!("ai_reasoning_tokens"))
    );
    assert_eq!(event["action"], "alert", "without an action");
}

/// A budget of 20 tokens of one kind, and how many of 4 generations with 12 of each kind pass.
#[test]
fn tokens_of_a_kind_count_whether_or_not_they_have_a_rate_of_their_own() {
    let with_rates =
        json!({ "input": "100", "output": "100", "reasoning": "50", "cache_read": "1" });
    for (metric, passed) in [
        ("ai_tokens", 1),
        ("ai_input_tokens", 2),
        ("ai_cache_read_tokens", 2),
        ("ai_output_tokens", 2),
        ("ai_reasoning_tokens", 2),
        ("ai_cache_write_tokens", 4),
    ] {
        for (rates, cost) in [
            (with_rates.clone(), "computed"),
            (json!({ "input": "100", "output": "100" }), "computed"),
            (json!({ "units": { "pages": "1" } }), "computed"),
            (with_rates.clone(), "reported"),
        ] {
            let mut rate = rates.clone();
            rate["provider"] = json!("openai");
            rate["model"] = json!("gpt-4o");
            let more = json!({
                "rate_cards": [{ "version": "1", "rates": [rate] }],
                "products": [{
                    "id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"},
                    "identity": {"customer": {"trusted_header": "x-customer-id"}},
                    "llm": { "cost": cost },
                }],
            });
            let guards = json!([{
                "id": "quota", "period": "day", "metric": metric, "budget": { "tokens": 20 },
                "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
            }]);
            let mut guarded = Guarded::with(&guards, &more);
            let usage = json!({ "prompt_tokens": 24, "completion_tokens": 24, "total_tokens": 48,
                "prompt_tokens_details": { "cached_tokens": 12 },
                "completion_tokens_details": { "reasoning_tokens": 12 } });
            let statuses = (0..4).map(|_| {
                let status = guarded.generate_of("acme", &usage, &[]);
                guarded.settle();
                status
            });
            let found = statuses.filter(|status| *status == 200).count();
            assert_eq!(found, passed, "{metric} {rates} {cost}");
        }
    }
}

/// A kind without a rate of its own costs what its whole does.
#[test]
fn the_cost_of_a_kind_is_that_of_its_tokens() {
    for (metric, cost) in [
        ("ai_input_tokens", "0.0012"),
        ("ai_cache_read_tokens", "0.000012"),
        ("ai_output_tokens", "0.0012"),
        ("ai_reasoning_tokens", "0.0012"),
    ] {
        let rate = json!({ "provider": "openai", "model": "gpt-4o", "input": "100", "output": "100",
            "cache_read": "1" });
        let more = json!({ "rate_cards": [{ "version": "1", "rates": [rate] }] });
        let guards = json!([{
            "id": "quota", "period": "day", "metric": metric, "budget": { "provider_cost": "1" },
            "actions": { "level_1": { "threshold": "100%" } },
        }]);
        let mut guarded = Guarded::with(&guards, &more);
        let usage = json!({ "prompt_tokens": 24, "completion_tokens": 24, "total_tokens": 48,
            "prompt_tokens_details": { "cached_tokens": 12 },
            "completion_tokens_details": { "reasoning_tokens": 12 } });
        guarded.generate_of("acme", &usage, &[]);
        guarded.settle();
        assert_eq!(guarded.last("budget_level_changed")["used"], cost, "{metric}");
    }
}

#[test]
fn a_new_period_begins_with_a_reason() {
    let mut guarded = Guarded::new(&json!([guard(&json!({ "period": "hour" }))]));
    guarded.generate("acme", 50_000);
    guarded.settle();
    assert_eq!(guarded.call("acme", "t").status(), 429);
    guarded.envoy.now.0 += 3_600_000;
    assert_eq!(guarded.call("acme", "t").status(), 429, "until the accountant says so");
    guarded.settle();
    let all = guarded.levels();
    assert_eq!(all[3..], levels(&[("L3_BLOCK", "NONE", "period_started")]));
    assert_eq!(guarded.call("acme", "t").status(), 200);
}

#[test]
fn a_clock_that_is_set_back_changes_no_level() {
    let mut guarded = Guarded::new(&json!([guard(&json!({ "period": "hour" }))]));
    guarded.generate("acme", 50_000);
    guarded.generate("rival", 50_000);
    guarded.settle();
    let before = guarded.levels();
    guarded.envoy.now.0 -= 3 * 3_600_000;
    guarded.settle();
    assert_eq!(guarded.call("acme", "t").status(), 429);
    assert_eq!(guarded.generate("rival", 1), 200, "no revenue is configured");
    guarded.settle();
    assert_eq!(guarded.levels(), before);
    guarded.envoy.now.0 += 3 * 3_600_000;
    guarded.settle();
    guarded.generate("rival", 1);
    guarded.settle();
    assert_eq!(guarded.call("rival", "t").status(), 200);
}

#[test]
fn a_budget_is_used_up_by_what_it_counts() {
    // The budget, and how many of 2 tokens or one call pass.
    for (budget, scope) in [
        (json!({ "calls": 3 }), "customer"),
        (json!({ "calls": 3 }), "tool"),
        (json!({ "calls": 3 }), "agent"),
        (json!({ "calls": 3 }), "product"),
    ] {
        let guards = json!([{
            "id": "quota", "scope": scope, "period": "day", "budget": budget, "products": ["crm"],
            "actions": {
                "level_1": { "threshold": "50%" },
                "level_3": { "threshold": "0%", "action": "block_request" },
            },
        }]);
        let mut guarded = Guarded::new(&guards);
        let mut passed = 0;
        for _ in 0..6 {
            let became = guarded.call("acme", "t");
            if let Became::Passed(stream, ..) = became {
                passed += 1;
                guarded.finish(stream);
            } else if let Became::Refused(status, _, body) = became {
                assert_eq!((status, &body["error"]["data"]["reason"]), (429, &json!("budget")));
            }
            guarded.settle();
        }
        assert_eq!(passed, 3, "{scope}");
        let event = guarded.last("budget_level_changed");
        let expected = json!(["3", "3", "calls", scope]);
        assert_eq!(json!([event["used"], event["limit"], event["unit"], event["scope"]]), expected);
        assert_eq!(guarded.levels().len(), 2, "{scope}");
        let other = guarded.call("acme", "other");
        assert_eq!(other.status() == 200, scope == "tool", "{scope}");
    }
}

#[test]
fn a_budget_of_tokens_or_of_cost_blocks_generations() {
    for budget in [json!({ "tokens": 20 }), json!({ "provider_cost": "0.002" })] {
        let guards = json!([{
            "id": "quota", "period": "day", "budget": budget,
            "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
        }]);
        let mut guarded = Guarded::new(&guards);
        let statuses: Vec<u16> = (0..4)
            .map(|_| {
                let status = guarded.generate("acme", 10);
                guarded.settle();
                status
            })
            .collect();
        assert_eq!(statuses, [200, 200, 429, 429], "{budget}");
    }
}

#[test]
fn a_session_has_a_guard_of_its_own() {
    let guards = json!([guard(&json!({ "scope": "session", "period": "session" }))]);
    let mut guarded = Guarded::new(&guards);
    guarded.generate_with("acme", 50_000, 0, &[("x-session-id", "one")]);
    guarded.settle();
    let ask = |guarded: &mut Guarded, session: &str| {
        guarded.generate_with("acme", 1, 0, &[("x-session-id", session)])
    };
    assert_eq!(ask(&mut guarded, "one"), 429);
    assert_eq!(ask(&mut guarded, "two"), 200);
    let event = guarded.last("margin_level_changed");
    assert_eq!(event["session_key"].as_str().map(str::len), Some(32));
    assert_eq!(event.get("period_ends_at"), None);
}

#[test]
fn a_tool_that_is_not_in_the_plan_is_forbidden() {
    let contracts = json!({ "contracts": {
        "plans": { "free": { "tools": ["search", "read_*"] } },
        "customers": { "acme": { "plan": "free" } },
    } });
    let mut guarded = Guarded::with(&json!([]), &contracts);
    for (customer, tool, status) in [
        ("acme", "search", 200),
        ("acme", "read_file", 200),
        ("acme", "write_file", 403),
        ("rival", "write_file", 200),
    ] {
        let became = guarded.call(customer, tool);
        assert_eq!(became.status(), status, "{customer} {tool}");
        if let Became::Refused(_, _, body) = became {
            assert_eq!((&body["id"], &body["error"]["code"]), (&json!("one"), &json!(-32_014)));
        }
    }
    // The header may name another tool than the message.
    let lie = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "search"),
    ];
    assert_eq!(guarded.call_with("acme", "write_file", &lie).status(), 403);
    guarded.settle();
    let blocked = |event: &&Value| event["data"]["execution_status"] == "BLOCKED";
    assert_eq!(guarded.told.iter().filter(blocked).count(), 2);
    assert_eq!(guarded.count(Counter::ToolsNotInPlan), 2);
}

fn trace(number: u32) -> String {
    format!("00-4bf92f3577b34da6a3ce929d0e0e47{number:02x}-00f067aa0ba902b7-01")
}

#[test]
fn with_reservation_calls_at_once_cannot_all_pass_on_the_last_cent() {
    let guards = json!([guard(&json!({
        "reserve": { "estimate": "0.25", "last_cost": true }, "products": ["crm"],
    }))]);
    let mut guarded = Guarded::new(&guards);
    // Each call costs 0.25; 1.80 of 2.00 is where requests are blocked, in the eighth call.
    let mut running = Vec::new();
    for number in 0..20 {
        let trace = trace(number);
        let became = guarded.call_with("acme", "dear", &[("traceparent", &trace)]);
        if let Became::Passed(stream, ..) = became {
            running.push((stream, trace));
        } else if let Became::Refused(_, _, body) = became {
            assert_eq!(body["error"]["data"]["reason"], "no_room");
        }
    }
    assert_eq!(running.len(), 8, "at once, on two workers, before anything is known");
    guarded.settle();
    assert_eq!(guarded.call("acme", "dear").status(), 429, "they still run");
    for (stream, trace) in running.drain(..) {
        let spent = guarded.generate_with("llm-egress", 2_500, 0, &[("traceparent", &trace)]);
        assert_eq!(spent, 200);
        guarded.finish(stream);
    }
    guarded.settle();
    assert_eq!(guarded.levels(), [], "who asks as someone else spends its own");

    // Asked for anonymously, they are the calls' own.
    let mut guarded = Guarded::new(&guards);
    let mut passed = 0;
    for number in 0..40 {
        let trace = trace(number);
        let became = guarded.call_with("acme", "dear", &[("traceparent", &trace)]);
        let Became::Passed(stream, ..) = became else { continue };
        passed += 1;
        let state = guarded.carried.clone();
        let head = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api.openai.com"),
            ("traceparent", trace.as_str()),
            ("tracestate", state.as_str()),
        ];
        let asked = guarded.send(&head, r#"{"model":"gpt-4o"}"#).stream();
        guarded.answer(asked, r#"{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":2500,"completion_tokens":0,"total_tokens":2500}}"#);
        guarded.finish(stream);
        if number % 3 == 0 {
            guarded.settle();
        }
    }
    guarded.settle();
    assert_eq!(passed, 8);
    let event = guarded.last("margin_level_changed");
    assert_eq!((&event["level"], &event["total_provider_cost"]), (&json!("L3_BLOCK"), &json!("2")));
    assert_eq!(guarded.count(Counter::HoldsLeaked), 0);
}

fn budget(limit: &Value, reserve: &Value, product: &str) -> Value {
    json!([{ "id": "spend", "budget": limit, "reserve": reserve, "products": [product],
        "actions": { "level_3": { "threshold": "0%", "action": "block_request" } } }])
}

// K11, 86.
#[test]
fn of_a_burst_as_many_calls_pass_as_the_budget_has_left() {
    let guards = budget(&json!({ "calls": 5 }), &json!({}), "crm");
    let mut guarded = Guarded::new(&guards);
    for burst in 0..3 {
        let passed: Vec<u32> = (0..60)
            .filter_map(|_| match guarded.call("acme", "t") {
                Became::Passed(stream, ..) => Some(stream),
                Became::Refused(status, ..) => {
                    assert_eq!(status, 429);
                    None
                }
            })
            .collect();
        assert_eq!(passed.len(), if burst == 0 { 5 } else { 0 }, "burst {burst}");
        passed.into_iter().for_each(|stream| guarded.finish(stream));
        guarded.settle();
    }
    // One by one they are as many, and no reservation is left behind.
    let mut one_by_one = Guarded::new(&guards);
    for number in 0..8 {
        let became = one_by_one.call("acme", "t");
        assert_eq!(became.status(), if number < 5 { 200 } else { 429 }, "{number}");
        if let Became::Passed(stream, ..) = became {
            one_by_one.finish(stream);
        }
        one_by_one.settle();
    }
    assert_eq!(one_by_one.count(Counter::HoldsLeaked), 0);
}

#[test]
fn of_a_burst_as_many_generations_pass_as_the_tokens_last_for() {
    let guards = budget(&json!({ "tokens": 10_000 }), &json!({ "estimate_tokens": 2000 }), "llm");
    let mut guarded = Guarded::new(&guards);
    let head = [
        (":method", "POST"),
        (":path", "/v1/chat/completions"),
        (":authority", "api.openai.com"),
        ("x-customer-id", "acme"),
    ];
    let sent: Vec<Became> = (0..30).map(|_| guarded.send(&head, r#"{"model":"gpt-4o"}"#)).collect();
    assert_eq!(sent.iter().filter(|became| became.status() == 200).count(), 5);
    for became in sent {
        if let Became::Passed(stream, ..) = became {
            guarded.answer(stream, r#"{"id":"c","object":"chat.completion","model":"gpt-4o","choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":1000,"completion_tokens":0,"total_tokens":1000}}"#);
        }
    }
    guarded.settle();
    // They used half of what they reserved, so as much is left.
    let more = (0..30).filter(|_| guarded.send(&head, r#"{"model":"gpt-4o"}"#).status() == 200);
    assert_eq!(more.count(), 3, "5,000 of 10,000 are left: two and a half estimates");
    assert_eq!(guarded.count(Counter::HoldsLeaked), 0);
}

#[test]
fn room_is_given_back_by_calls_that_cost_less() {
    let guards = json!([guard(&json!({ "reserve": { "estimate": "1.8" }, "products": ["crm"] }))]);
    let mut guarded = Guarded::new(&guards);
    for round in 0..4 {
        let stream = guarded.call("acme", "t").stream();
        assert_eq!(guarded.call("acme", "t").status(), 429, "{round}: all is taken");
        guarded.finish(stream);
        guarded.settle();
    }
    assert_eq!(guarded.count(Counter::HoldsLeaked), 0);
}

#[test]
fn room_of_which_nobody_tells_is_given_back() {
    let guards = json!([guard(&json!({ "reserve": { "estimate": "1.8" }, "products": ["crm"] }))]);
    let mut guarded = Guarded::new(&guards);
    let stream = guarded.call("acme", "t").stream();
    guarded.finish(stream);
    guarded.settle();
    // A VM has taken room and died before it could tell.
    for (key, (bytes, _)) in &mut guarded.envoy.host.data {
        let at = bytes.windows(3).position(|text| text == b"1.8");
        if let Some(at) = at.filter(|_| key.contains(".y")) {
            bytes[at..at + 3].copy_from_slice(b"3.6");
        }
    }
    assert_eq!(guarded.call("acme", "t").status(), 429);
    for _ in 0..4 {
        guarded.settle();
    }
    assert_eq!(guarded.count(Counter::HoldsLeaked), 1);
    assert_eq!(guarded.call("acme", "t").status(), 200);
}

fn fleet_guard(more: &Value) -> Value {
    let mut guard = guard(more);
    guard["fleet"] = json!(true);
    guard
}

#[test]
fn what_other_envoys_have_spent_counts_in_a_fleet() {
    let mut guarded = Guarded::new(&json!([fleet_guard(&json!({}))]));
    guarded.generate("acme", 1_000);
    guarded.settle();
    let totals = guarded.last("guard_totals").clone();
    assert_eq!(totals["total_provider_cost"], "0.1");
    assert_eq!((&totals["calls"], &totals["tokens"]), (&json!(0), &json!(1_000)));
    let verdict = |cost: &str, period: &str| {
        json!([{ "guard_id": "margin", "scope_key": totals["scope_key"], "period_started_at": period,
            "total_provider_cost": cost, "total_revenue": "0", "calls": 0, "tokens": 0, "emitters": 1 }])
    };
    // Of another period, for a scope that is not there, or no verdict at all.
    let unknown = json!([{ "scope_key": "00112233445566778899aabbccddeeff", "total_provider_cost": "9",
        "total_revenue": "0", "calls": 0, "tokens": 0 }]);
    for stale in [verdict("9", "2025-10-01T00:00:00Z"), unknown, json!(["what?", 3, {}])] {
        guarded.generate("acme", 1);
        guarded.settle_with(&stale);
        assert_eq!(guarded.levels(), [], "{stale}");
    }
    assert!(guarded.count(Counter::VerdictsUnused) >= 2);
    guarded.generate("acme", 1);
    guarded.settle_with(&verdict("1.8", "2025-11-01T00:00:00Z"));
    guarded.settle();
    let changes = guarded.levels();
    assert_eq!(changes.len(), 3);
    assert!(changes.iter().all(|(_, _, reason)| reason == "fleet"), "{changes:?}");
    assert_eq!(guarded.call("acme", "t").status(), 429);
    // A late reply that knows less changes nothing.
    guarded.settle_with(&verdict("0.1", "2025-11-01T00:00:00Z"));
    assert_eq!(guarded.call("acme", "t").status(), 429);
}

#[test]
fn the_collector_may_know_the_contract() {
    let contracts = json!({ "contracts": {} });
    let mut guarded = Guarded::with(&json!([fleet_guard(&json!({}))]), &contracts);
    guarded.generate("acme", 10_000);
    guarded.settle();
    assert_eq!(guarded.levels(), [], "no revenue is configured");
    let key = guarded.last("guard_totals")["scope_key"].clone();
    guarded.generate("acme", 1);
    guarded.settle_with(
        &json!([{ "scope_key": key, "period_started_at": "2025-11-01T00:00:00.000Z",
        "total_provider_cost": "0", "total_revenue": "0", "calls": 0, "tokens": 0,
        "contracted_revenue": "1.05" }]),
    );
    guarded.settle();
    assert_eq!(guarded.last("margin_level_changed")["level"], "L3_BLOCK");
}

#[test]
fn a_lost_collector_means_what_the_guard_says() {
    for (on_loss, blocked, at_ease) in
        [("local", 429, 200), ("allow", 200, 200), ("block", 429, 429)]
    {
        let mut guarded =
            Guarded::new(&json!([fleet_guard(&json!({ "on_collector_loss": on_loss }))]));
        guarded.generate("acme", 50_000);
        guarded.settle();
        assert_eq!(guarded.call("acme", "t").status(), 429, "{on_loss}");
        assert_eq!(guarded.call("rival", "t").status(), 200, "{on_loss}");
        for _ in 0..300 {
            guarded.envoy.now.0 += 250;
            let mut waiting = guarded.envoy.tick(0);
            while let Some(dispatch) = waiting.pop() {
                waiting.extend(guarded.envoy.reply(&dispatch, Reply::Failed { retry_after: None }));
            }
        }
        assert_eq!(guarded.call("acme", "t").status(), blocked, "{on_loss}");
        assert_eq!(guarded.call("rival", "t").status(), at_ease, "{on_loss}");
        guarded.settle();
        guarded.settle();
        assert_eq!(guarded.call("acme", "t").status(), 429, "{on_loss}, when it is back");
        assert_eq!(guarded.call("rival", "t").status(), 200, "{on_loss}, when it is back");
        let reasons: Vec<String> =
            guarded.levels().into_iter().map(|(_, _, reason)| reason).collect();
        let expected = usize::from(on_loss == "allow");
        assert_eq!(
            reasons.iter().filter(|r| *r == "collector_lost").count(),
            expected,
            "{reasons:?}"
        );
    }
}

#[test]
fn levels_survive_a_reload_and_follow_the_new_thresholds() {
    let strict = json!([guard(&json!({}))]);
    let mut guarded = Guarded::new(&strict);
    guarded.generate("acme", 50_000);
    guarded.settle();
    for (guards, status, told) in [
        (strict.clone(), 429, vec![]),
        (
            json!([guard(&json!({ "floors": { "customers": { "acme": "-500%" } } }))]),
            200,
            vec![("L3_BLOCK", "NONE", "configuration")],
        ),
        (
            strict.clone(),
            429,
            vec![
                ("NONE", "L1_ALERT", "configuration"),
                ("L1_ALERT", "L2_THROTTLE", "configuration"),
                ("L2_THROTTLE", "L3_BLOCK", "configuration"),
            ],
        ),
        (json!([]), 200, vec![("L3_BLOCK", "NONE", "configuration")]),
    ] {
        let config = config(&guards, &json!({}));
        let before = guarded.levels().len();
        let now = guarded.envoy.now;
        let host = &mut guarded.envoy.host;
        let new = [0; 3].map(|_| meter(host, &config));
        let [main, worker, second] = new;
        for mut old in [
            core::mem::replace(&mut guarded.envoy.main, main),
            core::mem::replace(&mut guarded.envoy.worker, worker),
            core::mem::replace(&mut guarded.second, second),
        ] {
            old.stop(host, now);
        }
        // Until the new accountant has taken over, what was said stands.
        let _ = guarded.call("acme", "t");
        let _ = guarded.call("acme", "t");
        guarded.settle();
        assert_eq!(guarded.call("acme", "t").status(), status);
        assert_eq!(guarded.levels()[before..], levels(&told));
    }
}
