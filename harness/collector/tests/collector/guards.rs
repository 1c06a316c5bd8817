//! Tests the events of guards: totals of several sources, levels, contracts, and the reports on
//! them.

use agent_meter_collector::{Contracts, GuardsQuery, Page};

use super::*;

pub(super) const SCOPE: &str = "00112233445566778899aabbccddeeff";
pub(super) const EDGE_2: &str = "urn:agent-meter:envoy-2:0001";
const EDGE_3: &str = "urn:agent-meter:envoy-3:0001";
const HOUR: &str = "2026-07-01T10:00:00.000Z";
const NEXT_HOUR: &str = "2026-07-01T11:00:00.000Z";

/// An event of a guard: without the members that only calls and sessions have.
fn guard_event(source: &str, sequence: u64, event_type: &str, data: Value) -> Value {
    let mut event = event(sequence, event_type, json!({}));
    event["source"] = source.into();
    event["data"] = json!({
        "event_type": event_type,
        "guard_id": "floor",
        "guard_kind": "margin",
        "mode": "enforce",
        "scope": "customer",
        "customer_id": "acme",
        "scope_key": SCOPE,
        "period": "hour",
        "period_started_at": HOUR,
        "total_provider_cost": "0.5",
        "total_revenue": "2",
        "currency": "USD",
        "level": "NONE",
    });
    merge(&mut event["data"], data);
    event["subject"] = event["data"]["customer_id"].clone();
    event
}

fn totals(source: &str, sequence: u64, data: Value) -> Value {
    let mut event =
        guard_event(source, sequence, "guard_totals", json!({"calls": 3, "tokens": 100}));
    merge(&mut event["data"], data);
    event
}

/// The change of a margin guard's customer to L1_ALERT.
pub(super) fn crossed(source: &str, sequence: u64, data: Value) -> Value {
    let members = json!({
        "level": "L1_ALERT",
        "previous_level": "NONE",
        "reason": "threshold",
        "margin": "-0.1",
        "threshold": "0.3",
        "action": "alert",
        "notify": ["finance"],
        "period_ends_at": NEXT_HOUR,
    });
    let mut event = guard_event(source, sequence, "margin_level_changed", members);
    merge(&mut event["data"], data);
    event
}

/// Makes it an event of a product's guard, which has no customer.
fn of_product(mut event: Value) -> Value {
    let scope = json!({"scope": "product", "product_id": "tools", "customer_id": "",
        "scope_key": "ffeeddccbbaa99887766554433221100"});
    merge(&mut event["data"], scope);
    event["subject"] = "".into();
    event
}

/// The change of a session to L2_THROTTLE, in which a tool's calls repeat.
fn looping(sequence: u64) -> Value {
    let mut event = crossed(SOURCE, sequence, json!({}));
    let members = json!({
        "event_type": "loop_level_changed", "guard_kind": null, "mode": null, "scope": "session",
        "session_key": "fedcba9876543210fedcba9876543210", "tool_name": "search",
        "scope_key": "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f", "period": "session",
        "period_started_at": null, "total_provider_cost": null, "total_revenue": null,
        "currency": null, "reason": "repeated_call", "threshold": null, "period_ends_at": null,
    });
    merge(&mut event["data"], members);
    event["data"]["margin"] = Value::Null;
    event["type"] = "agent-meter.loop_level_changed".into();
    event
}

fn verdicts(receipt: &Receipt) -> Value {
    assert_eq!(receipt.rejected, [], "events of a test are valid");
    let receipt = serde_json::to_value(receipt).expect("json");
    receipt.get("verdicts").cloned().unwrap_or_default()
}

fn guards(ledger: &Ledger, query: &str) -> Value {
    let query = GuardsQuery::from_pairs(pairs(query)).expect(query);
    serde_json::to_value(ledger.guards(&query).expect("guards")).expect("json")
}

#[test]
fn totals_of_two_sources_add_up_and_each_gets_those_of_the_other() {
    let ledger = memory();
    let alone = insert(&ledger, &[totals(SOURCE, 1, json!({}))]);
    let expected = |cost: &str, revenue: &str, calls: u64, tokens: u64, emitters: u64| {
        json!([{"guard_id": "floor", "scope_key": SCOPE, "period_started_at": HOUR,
            "total_provider_cost": cost, "total_revenue": revenue, "calls": calls,
            "tokens": tokens, "emitters": emitters}])
    };
    assert_eq!(verdicts(&alone), expected("0", "0", 0, 0, 0));
    let second = json!({"total_provider_cost": "1.25", "calls": 5, "level": "L2_THROTTLE"});
    let second = insert(&ledger, &[totals(EDGE_2, 1, second)]);
    assert_eq!(verdicts(&second), expected("0.5", "2", 3, 100, 1));
    let third = insert(&ledger, &[totals(EDGE_3, 1, json!({}))]);
    assert_eq!(verdicts(&third), expected("1.75", "4", 8, 200, 2));

    // The later totals of a source replace its earlier ones. The reply to a source has the totals
    // of the others, also when it sends a level.
    let later = [totals(SOURCE, 2, json!({"total_provider_cost": "0.75", "calls": 4}))];
    assert_eq!(verdicts(&insert(&ledger, &later)), expected("1.75", "4", 8, 200, 2));
    let change = insert(&ledger, &[crossed(EDGE_3, 2, json!({"level": "NONE"}))]);
    assert_eq!(verdicts(&change), expected("2", "4", 9, 200, 2));

    let found = guards(&ledger, "");
    let listed = json!({"guards": [{"guard_id": "floor", "guard_kind": "margin", "mode": "enforce",
        "scope": "customer", "scope_key": SCOPE, "customer_id": "acme", "product_id": null,
        "agent_id": null, "team_id": null, "user_id": null, "api_key_hash": null, "session_key": null, "tool_name": null, "metric": null, "period": "hour",
        "period_started_at": HOUR, "level": "L2_THROTTLE", "emitters": 3,
        "emitters_without_totals": 0, "calls": 12,
        "tokens": 300, "total_provider_cost": "2.5", "total_revenue": "6", "margin": "0.5833",
        "contracted_revenue": null, "plan": null, "currency": "USD",
        "told_at": "2026-07-01T10:00:02Z"}], "more": false});
    assert_eq!(found, listed);
}

#[test]
fn totals_of_teams_users_and_keys_are_told_to_the_fleet_and_listed() {
    for (scope, member) in [("team", "team_id"), ("user", "user_id"), ("api_key", "api_key_hash")] {
        let ledger = memory();
        let of = |source: &str, name: &str, key: &str| {
            totals(source, 1, json!({"scope": scope, member: name, "scope_key": key}))
        };
        let keys = ["aa".repeat(16), "bb".repeat(16)];
        insert(&ledger, &[of(SOURCE, "one", &keys[0]), of(EDGE_3, "two", &keys[1])]);
        let told = verdicts(&insert(&ledger, &[of(EDGE_2, "one", &keys[0])]));
        let others = (&told[0]["scope_key"], &told[0]["calls"], &told[0]["emitters"]);
        assert_eq!(others, (&json!(keys[0]), &json!(3), &json!(1)), "{scope}");
        let found = guards(&ledger, "")["guards"].clone();
        let rows: Vec<&Value> = found.as_array().expect("rows").iter().collect();
        let one = rows.iter().find(|row| row[member] == "one").expect("a row");
        assert_eq!((&one["scope"], &one["calls"]), (&json!(scope), &json!(6)));
        let named = ["team_id", "user_id", "api_key_hash"].map(|name| one[name].is_null());
        assert_eq!(named.into_iter().filter(|is_null| *is_null).count(), 2, "{one}");
    }
}

#[test]
fn the_order_and_the_repetition_of_guard_events_change_nothing() {
    let events = [
        totals(SOURCE, 1, json!({"total_provider_cost": "0.1"})),
        totals(SOURCE, 2, json!({"total_provider_cost": "0.2", "level": "L1_ALERT"})),
        crossed(SOURCE, 3, json!({"level": "L3_BLOCK", "previous_level": "L1_ALERT"})),
        totals(EDGE_2, 1, json!({"total_provider_cost": "0.4"})),
    ];
    let report = guards(&ledger_of(&events), "");
    assert_eq!(report["guards"][0]["total_provider_cost"], "0.6");
    assert_eq!(report["guards"][0]["level"], "L3_BLOCK");
    for order in permutations(events.len()) {
        let ledger = memory();
        for &index in &order {
            insert(&ledger, &events[index..=index]);
        }
        assert_eq!(guards(&ledger, ""), report, "{order:?}");
        for &index in &order {
            // The reply to a repeated batch has the totals of now.
            let again = insert(&ledger, &events[index..=index]);
            assert_eq!((again.accepted, again.duplicates), (0, 1), "{order:?}");
            let other = if index == 3 { "0.2" } else { "0.4" };
            assert_eq!(verdicts(&again)[0]["total_provider_cost"], other, "{order:?}");
        }
        assert_eq!(guards(&ledger, ""), report, "{order:?}");
    }
}

#[test]
fn a_period_that_begins_starts_from_nothing() {
    let next = |sequence, data| {
        let mut event = totals(SOURCE, sequence, json!({"period_started_at": NEXT_HOUR}));
        merge(&mut event["data"], data);
        event
    };
    let ledger = ledger_of(&[
        totals(SOURCE, 1, json!({"level": "L3_BLOCK"})),
        totals(EDGE_2, 1, json!({"level": "L3_BLOCK"})),
    ]);
    let first = insert(&ledger, &[next(2, json!({"total_provider_cost": "0"}))]);
    assert_eq!(verdicts(&first)[0]["emitters"], 0, "the other has told nothing of this period");
    assert_eq!(verdicts(&first)[0]["period_started_at"], NEXT_HOUR);
    let found = guards(&ledger, "");
    assert_eq!(found["guards"][0]["emitters"], 1);
    assert_eq!(found["guards"][0]["level"], "NONE");
    // A late event of the period before counts in that period.
    let late = insert(&ledger, &[totals(EDGE_2, 2, json!({"total_provider_cost": "9"}))]);
    assert_eq!(verdicts(&late)[0]["total_provider_cost"], "0.5");
    assert_eq!(guards(&ledger, "")["guards"][0]["total_provider_cost"], "0");

    // A level may be the first event of a period.
    let started = json!({"period_started_at": "2026-07-01T12:00:00.000Z", "level": "NONE",
        "previous_level": "L3_BLOCK", "reason": "period_started", "currency": null});
    insert(&ledger, &[crossed(SOURCE, 3, started)]);
    let found = guards(&ledger, "");
    let row = &found["guards"][0];
    assert_eq!(
        (&row["calls"], &row["currency"], &row["level"]),
        (&Value::Null, &Value::Null, &json!("NONE")),
        "nobody told totals, and 0 would be a claim"
    );
    for sum in ["tokens", "total_provider_cost", "total_revenue", "margin"] {
        assert_eq!(row[sum], Value::Null, "{sum}");
    }
    assert_eq!((&row["emitters"], &row["emitters_without_totals"]), (&json!(1), &json!(1)));
    // Another one tells its own: the sums are those of who told, and lack the rest.
    let told = json!({"period_started_at": "2026-07-01T12:00:00.000Z"});
    insert(&ledger, &[totals(EDGE_3, 1, told)]);
    let row = &guards(&ledger, "")["guards"][0];
    assert_eq!((&row["calls"], &row["total_provider_cost"]), (&json!(3), &json!("0.5")));
    assert_eq!((&row["emitters"], &row["emitters_without_totals"]), (&json!(2), &json!(1)));
    // The ledger deletes totals of periods that nobody can ask for any more, once it makes others.
    let month = json!({"period_started_at": "2026-05-01T00:00:00.000Z"});
    insert(&ledger, &[totals(SOURCE, 4, month.clone())]);
    let old = insert(&ledger, &[totals(EDGE_2, 3, month.clone())]);
    assert_eq!(verdicts(&old)[0]["emitters"], 1);
    insert(&ledger, &[totals(SOURCE, 5, json!({"period_started_at": "2026-07-01T11:30:00.000Z"}))]);
    let old = insert(&ledger, &[totals(EDGE_2, 4, month)]);
    assert_eq!(verdicts(&old)[0]["emitters"], 0);
}

#[test]
fn a_clock_that_is_years_ahead_hides_nothing() {
    let today = "2026-07-02T00:00:00.000Z";
    let now = json!({"period": "day", "period_started_at": today});
    let ledger = ledger_of(&[totals(SOURCE, 1, now.clone())]);
    let ahead = json!({"period": "day", "period_started_at": "2126-07-01T00:00:00.000Z"});
    insert(&ledger, &[totals(EDGE_2, 1, ahead)]);
    let receipt = insert(&ledger, &[totals(EDGE_3, 1, now)]);
    assert_eq!(verdicts(&receipt)[0]["emitters"], 1);
    let found = &guards(&ledger, "")["guards"][0];
    assert_eq!((&found["period_started_at"], &found["emitters"]), (&json!(today), &json!(2)));
}

#[test]
fn sessions_products_and_loops_have_scopes_of_their_own() {
    let session = json!({"scope": "session", "period": "session", "period_started_at": null,
        "session_key": "fedcba9876543210fedcba9876543210",
        "scope_key": "abababababababababababababababab"});
    let events = [
        totals(SOURCE, 1, json!({})),
        totals(SOURCE, 2, session.clone()),
        of_product(totals(SOURCE, 3, json!({"mode": "observe"}))),
        looping(4),
        totals(EDGE_2, 1, session),
        of_product(totals(EDGE_2, 2, json!({}))),
    ];
    let ledger = memory();
    let others = verdicts(&insert(&ledger, &events[..4]));
    assert_eq!(others.as_array().map(Vec::len), Some(4), "{others}");
    let others = verdicts(&insert(&ledger, &events[4..]));
    assert_eq!(others[0]["scope_key"], "abababababababababababababababab");
    assert!(others[0].get("period_started_at").is_none(), "{others}");
    assert_eq!((&others[0]["emitters"], &others[1]["emitters"]), (&json!(1), &json!(1)));

    let listed = |query: &str| -> Vec<String> {
        let found = guards(&ledger, query);
        let rows = found["guards"].as_array().expect("guards");
        rows.iter().map(|row| row["scope"].as_str().expect("scope").to_owned()).collect()
    };
    // The strictest level first, and within a level the latest event first.
    assert_eq!(listed(""), ["session", "product", "session", "customer"]);
    assert_eq!(listed("level=L1_ALERT"), ["session"]);
    assert_eq!(listed("level=L3_BLOCK"), [""; 0]);
    assert_eq!(listed("customer_id=acme"), ["session", "session", "customer"]);
    assert_eq!(listed("customer_id="), ["product"]);
    assert_eq!(listed("guard_id=other"), [""; 0]);
    assert_eq!(listed("guard_id=floor&limit=2"), ["session", "product"]);
    assert_eq!(guards(&ledger, "limit=2")["more"], true);
    let product = &guards(&ledger, "customer_id=")["guards"][0];
    assert_eq!((&product["mode"], &product["emitters"]), (&json!("enforce"), &json!(2)));
    let found = &guards(&ledger, "level=L1_ALERT")["guards"][0];
    assert_eq!((&found["guard_kind"], &found["tool_name"]), (&json!("loop"), &json!("search")));

    for (query, expected) in [
        (
            "level=HIGH",
            "level: must be one of NONE, L1_ALERT, L2_THROTTLE, L3_BLOCK, found \"HIGH\"",
        ),
        ("limit=0", "limit: must be 1 to 10000, found \"0\""),
        (
            "customer=acme",
            "customer: unknown parameter, expected one of guard_id, level, customer_id, limit",
        ),
    ] {
        assert_eq!(GuardsQuery::from_pairs(pairs(query)).expect_err(query).to_string(), expected);
    }
}

#[test]
fn a_margin_is_a_share_of_what_was_earned() {
    for (revenue, cost, margin) in [
        ("2", "0.5", json!("0.75")),
        ("3", "1", json!("0.6667")),
        ("1", "1", json!("0")),
        ("1", "3.5", json!("-2.5")),
        ("0", "1", Value::Null),
        ("0", "0", Value::Null),
    ] {
        let data = json!({"total_revenue": revenue, "total_provider_cost": cost});
        let ledger = ledger_of(&[totals(SOURCE, 1, data)]);
        assert_eq!(guards(&ledger, "")["guards"][0]["margin"], margin, "{revenue} {cost}");
    }
}

#[test]
fn totals_that_do_not_fit_harm_no_other_event() {
    let most = json!({"total_provider_cost": "79228162514264337593543950335"});
    let ledger = ledger_of(&[totals(SOURCE, 1, most.clone()), totals(EDGE_2, 1, most)]);
    let receipt = insert(&ledger, &[totals(EDGE_3, 1, json!({})), call(3, json!({}))]);
    assert_eq!((receipt.accepted, receipt.verdicts.len()), (2, 1));
    assert_eq!((receipt.verdicts[0].emitters, receipt.verdicts[0].calls), (0, 0));
    assert_eq!(guards(&ledger, "")["guards"][0]["emitters"], 1);
}

#[test]
fn currencies_of_a_scope_are_never_added_up() {
    let ledger = ledger_of(&[totals(SOURCE, 1, json!({"currency": "EUR"}))]);
    // A change of level without a currency takes the currency of the totals in the same batch.
    let batch = [totals(EDGE_2, 1, json!({})), crossed(EDGE_2, 2, json!({"currency": null}))];
    let others = verdicts(&insert(&ledger, &batch));
    assert_eq!((others.as_array().map(Vec::len), &others[0]["emitters"]), (Some(1), &json!(0)));
    assert_eq!(guards(&ledger, "")["guards"].as_array().map(Vec::len), Some(2));
}

#[test]
fn totals_count_for_gaps_and_in_nothing_else() {
    let ledger = ledger_of(&[
        call(1, json!({})),
        totals(SOURCE, 2, json!({"future": {"member": 1}})),
        crossed(SOURCE, 4, json!({})),
        totals(SOURCE, 6, json!({})),
    ]);
    let plain = ledger_of(&[call(1, json!({}))]);
    assert_eq!(usage(&ledger, "group_by=customer,tool"), usage(&plain, "group_by=customer,tool"));
    assert_eq!(sessions(&ledger, ""), sessions(&plain, ""));
    let invoice = |ledger| {
        invoices(ledger).expect("invoices").iter().map(Invoice::to_json).collect::<Vec<_>>()
    };
    assert_eq!(invoice(&ledger), invoice(&plain));
    assert_eq!(ledger.count_events().expect("count"), 4);
    assert_eq!(
        gaps(&ledger)["sources"][0]["missing"],
        json!([{"from": 3, "to": 3}, {"from": 5, "to": 5}])
    );
    // The ledger does not keep their text; a page of events leaves them out.
    let query = EventsQuery::from_pairs(pairs("limit=2")).expect("query");
    let events = ledger.events(&query).expect("events");
    let types: Vec<Value> = events
        .events
        .iter()
        .map(|raw| serde_json::from_str::<Value>(raw.get()).expect("json")["type"].clone())
        .collect();
    assert_eq!(types, ["agent-meter.tool_invocation", "agent-meter.margin_level_changed"]);
    // The ledger keeps their ids all the same.
    let receipt = insert(&ledger, &[call(2, json!({})), totals(SOURCE, 1, json!({}))]);
    assert_eq!(receipt.rejected.len(), 2);
    assert!(receipt.verdicts.is_empty(), "what is refused is not answered");
}

#[test]
fn each_rule_of_guard_events_has_its_own_reason() {
    let levels = "NONE, L1_ALERT, L2_THROTTLE, L3_BLOCK";
    let total = |data| totals(SOURCE, 1, data);
    let change = |data| crossed(SOURCE, 1, data);
    let set = |mut event: Value, member: &str, value: Value| {
        event[member] = value;
        event
    };
    for (event, reason) in [
        (
            total(json!({"guard_id": ""})),
            "data.guard_id: must be a string, not empty, found \"\"".to_owned(),
        ),
        (
            total(json!({"guard_kind": "loop"})),
            "data.guard_kind: must be one of margin, budget, found \"loop\"".into(),
        ),
        (
            total(json!({"mode": "on"})),
            "data.mode: must be one of enforce, observe, found \"on\"".into(),
        ),
        (
            total(json!({"scope": "planet"})),
            "data.scope: must be one of customer, session, product, agent, tool, team, user, \
             api_key, found \"planet\""
                .into(),
        ),
        (total(json!({"scope": "user"})), "data.user_id: missing".into()),
        (
            total(json!({"scope_key": "12"})),
            "data.scope_key: must be 32 hexadecimal digits, found \"12\"".into(),
        ),
        (
            total(json!({"period": "week"})),
            "data.period: must be one of hour, day, month, session, found \"week\"".into(),
        ),
        (total(json!({"period_started_at": null})), "data.period_started_at: missing".into()),
        (
            total(json!({"period_started_at": "now"})),
            "data.period_started_at: must be an RFC 3339 time, found \"now\"".into(),
        ),
        (
            total(json!({"period": "session"})),
            format!(
                "data.period_started_at: must be absent when period is session, found {HOUR:?}"
            ),
        ),
        (
            total(json!({"total_provider_cost": "-1"})),
            "data.total_provider_cost: must be a decimal string of at least 0, found \"-1\"".into(),
        ),
        (
            total(json!({"total_revenue": 2})),
            "data.total_revenue: must be a decimal string of at least 0, found 2".into(),
        ),
        (
            total(json!({"calls": -1})),
            "data.calls: must be an integer of at least 0, found -1".into(),
        ),
        (total(json!({"tokens": null})), "data.tokens: missing".into()),
        (
            total(json!({"currency": "usd"})),
            "data.currency: must be an ISO 4217 code, found \"usd\"".into(),
        ),
        (
            total(json!({"level": "L4"})),
            format!("data.level: must be one of {levels}, found \"L4\""),
        ),
        (
            set(total(json!({})), "subject", json!("other")),
            "data.customer_id: must be \"other\", found \"acme\"".into(),
        ),
        (change(json!({"previous_level": null})), "data.previous_level: missing".into()),
        (
            change(json!({"reason": "why"})),
            "data.reason: must be one of threshold, recovered, period_started, configuration, \
             fleet, collector_lost, collector_back, repeated_call, found \"why\""
                .into(),
        ),
        (
            change(json!({"action": "stop"})),
            "data.action: must be one of none, alert, throttle, block, pause, found \"stop\""
                .into(),
        ),
        (change(json!({"margin": 0.1})), "data.margin: must be a decimal string, found 0.1".into()),
        (
            change(json!({"threshold": "--1"})),
            "data.threshold: must be a decimal string, found \"--1\"".into(),
        ),
        (
            change(json!({"notify": "finance"})),
            "data.notify: must be an array of strings, found \"finance\"".into(),
        ),
        (
            change(json!({"notify": ["a", 1]})),
            "data.notify: must be an array of strings, found [\"a\",1]".into(),
        ),
        (
            change(json!({"period_ends_at": "soon"})),
            "data.period_ends_at: must be an RFC 3339 time, found \"soon\"".into(),
        ),
    ] {
        let ledger = memory();
        let receipt = insert(&ledger, &[event.clone(), call(2, json!({}))]);
        let reasons: Vec<&str> = receipt.rejected.iter().map(|one| one.reason.as_str()).collect();
        assert_eq!(reasons, [reason], "{event}");
        assert_eq!((receipt.accepted, receipt.verdicts.len()), (1, 0), "the others are stored");
    }
    // An event without a customer may leave out `subject`.
    let mut product = of_product(total(json!({})));
    merge(&mut product, json!({"subject": null}));
    assert_eq!(verdicts(&insert(&memory(), &[product])).as_array().map(Vec::len), Some(1));
}

#[test]
fn alerts_are_listed_byte_for_byte_the_newest_first() {
    let events: Vec<Value> = vec![
        crossed(SOURCE, 1, json!({})),
        call(2, json!({})),
        looping(3),
        totals(SOURCE, 4, json!({})),
        crossed(SOURCE, 5, json!({"level": "NONE", "previous_level": "L1_ALERT"})),
    ];
    let ledger = ledger_of(&events);
    let page = |after| {
        let page = ledger.alerts(Page { after, limit: 2 }).expect("alerts");
        serde_json::to_value(page).expect("json")
    };
    let first = page(None);
    assert_eq!(first, json!({"alerts": [events[4], events[2]], "next": "3"}));
    assert_eq!(page(Some(3)), json!({"alerts": [events[0]], "next": null}));
}

/// Takes away what version 4 brought.
const BEFORE_4: &str = "
    DROP TABLE guard_totals; DROP TABLE webhook_deliveries; DROP INDEX events_alerts;
    PRAGMA user_version = 3;";

#[test]
fn a_ledger_of_version_3_is_brought_up_to_date() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ledger.db").to_str().expect("path").to_owned();
    // A filter with guards may have sent these to a collector without.
    let events = [totals(SOURCE, 1, json!({})), crossed(SOURCE, 2, json!({}))];
    let old = rusqlite::Connection::open(&path).expect("open");
    old.execute_batch(super::schema::VERSION_4).expect("sql");
    old.execute_batch(BEFORE_4).expect("sql");
    for (position, event) in (1_i64..).zip(&events) {
        let text = |member: &str| event[member].as_str().expect(member).to_owned();
        let row = (position, SOURCE, text("id"), text("type"), text("time"), event.to_string());
        let sql = "INSERT INTO events VALUES (?1, ?2, ?3, ?1, ?4, ?5, 'acme', NULL, ?6, '')";
        old.execute(sql, row).expect("a row");
    }
    drop(old);
    let new = guards(&ledger_of(&events), "");
    for round in 0..2 {
        let ledger = open(&path);
        assert_eq!(guards(&ledger, ""), new, "{round}");
        assert_eq!(insert(&ledger, &events).duplicates, 2, "{round}");
        assert_eq!(ledger.alerts(Page::default()).expect("alerts").alerts.len(), 1, "{round}");
    }
}

#[test]
fn contracts_that_cannot_be_used_say_why() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("contracts.yaml");
    let name = path.display().to_string();
    for (text, expected) in [
        ("[1]", "must be a mapping with `customers`, found [1]"),
        ("{}", "customers: missing"),
        ("customers: 3", "customers: must be an object, found 3"),
        ("customer: {}", "customer: unknown, expected one of customers"),
        ("customers: {acme: 2}", "customers.acme: must be an object, found 2"),
        ("customers: {acme: {}}", "customers.acme.contracted_revenue: missing"),
        (
            "customers: {acme: {contracted_revenue: 2.00}}",
            "customers.acme.contracted_revenue: must be a decimal string of at least 0, found 2.0",
        ),
        (
            "customers: {acme: {contracted_revenue: \"-2\"}}",
            "customers.acme.contracted_revenue: must be a decimal string of at least 0, found \"-2\"",
        ),
        (
            "customers: {acme: {contracted_revenue: \"2\", plan: 1}}",
            "customers.acme.plan: must be a string, found 1",
        ),
        (
            "customers: {acme: {revenue: \"2\"}}",
            "customers.acme.revenue: unknown, expected one of contracted_revenue, plan",
        ),
    ] {
        std::fs::write(&path, text).expect("write");
        let error = Contracts::open(&path).expect_err(text);
        assert_eq!(format!("{error:#}"), format!("{name}: {expected}"));
    }
    std::fs::write(&path, "a: b: c").expect("write");
    let error = format!("{:#}", Contracts::open(&path).expect_err("no YAML"));
    assert!(error.starts_with(&format!("{name} is neither YAML nor JSON: ")), "{error}");
    std::fs::remove_file(&path).expect("remove");
    let error = format!("{:#}", Contracts::open(&path).expect_err("no file"));
    assert!(error.starts_with(&format!("cannot read {name}: ")), "{error}");
}

#[test]
fn contracts_are_read_again_when_they_change_and_kept_when_they_break() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("contracts.json");
    let write = |revenue: &str| {
        let text = json!({"customers": {"acme": {"contracted_revenue": revenue}}}).to_string();
        std::fs::write(&path, text).expect("write");
    };
    let revenue =
        |contracts: &Contracts| contracts.of("acme").expect("acme").contracted_revenue.to_string();
    write("2.00");
    let contracts = Contracts::open(&path).expect("contracts");
    assert_eq!((revenue(&contracts).as_str(), contracts.of("bolt")), ("2", None));
    write("20.5");
    std::fs::write(&path, "customers: {acme: {contracted_revenue: much}}").expect("write");
    contracts.refresh().expect_err("broken");
    assert_eq!(revenue(&contracts), "2");
    contracts.refresh().expect("told once");
    write("300.25");
    contracts.refresh().expect("right again");
    assert_eq!(revenue(&contracts), "300.25");
}

#[tokio::test]
async fn the_routes_of_guards_answer_over_a_socket() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("contracts.yaml");
    let text = "customers: {acme: {contracted_revenue: \"2.00\", plan: pro}}";
    std::fs::write(&path, text).expect("write");
    let contracts = Some(Contracts::open(&path).expect("contracts"));
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let extras = Extras { contracts, clock: clock(), ..Extras::default() };
    let collector = Collector::start_with(listen, &new_ledger(), extras).await.expect("collector");
    let http = Http::new(&collector);
    let events = [
        totals(SOURCE, 1, json!({})),
        of_product(totals(SOURCE, 2, json!({}))),
        crossed(SOURCE, 3, json!({})),
    ];
    let body = serde_json::to_vec(&events).expect("json");
    let verdict = |key: &str| {
        json!({"guard_id": "floor", "scope_key": key, "period_started_at": HOUR,
            "total_provider_cost": "0", "total_revenue": "0", "calls": 0, "tokens": 0,
            "emitters": 0})
    };
    let mut acme = verdict(SCOPE);
    merge(&mut acme, json!({"contracted_revenue": "2"}));
    let product = verdict("ffeeddccbbaa99887766554433221100");
    let mut expected =
        json!({"accepted": 3, "duplicates": 0, "rejected": [], "verdicts": [acme, product]});
    assert_eq!(http.post(BATCH, body.clone()).await, (200, expected.clone()));
    merge(&mut expected, json!({"accepted": 0, "duplicates": 3}));
    assert_eq!(http.post(BATCH, body).await, (200, expected));

    let json = |text: &str| serde_json::from_str::<Value>(text).expect(text);
    let (status, text) = http.get("/v1/guards?customer_id=acme&level=L1_ALERT").await;
    let row = &json(&text)["guards"][0];
    assert_eq!(
        (status, &row["contracted_revenue"], &row["plan"]),
        (200, &json!("2"), &json!("pro"))
    );
    let (status, text) = http.get("/v1/guards?level=HIGH").await;
    assert_eq!((status, text.contains("level: must be one of")), (400, true));
    let (status, text) = http.get("/v1/alerts?limit=1").await;
    assert_eq!((status, json(&text)), (200, json!({"alerts": [events[2]], "next": null})));
    let (status, text) = http.get("/v1/alerts?limit=x").await;
    assert_eq!((status, text.contains("limit: must be 1 to")), (400, true));
    let (_, text) = http.get("/metrics").await;
    for line in [
        r#"agent_meter_collector_events_total{outcome="accepted",type="guard_totals"} 2"#,
        r#"agent_meter_collector_events_total{outcome="duplicate",type="margin_level_changed"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    let (_, page) = http.get("/guards").await;
    assert!(page.contains("floor") && page.contains("Contract"), "{page}");

    // The collector checks the file while it runs.
    std::fs::write(&path, text_of_contract("17.5")).expect("write");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let (_, text) = http.get("/v1/guards?customer_id=acme").await;
        if json(&text)["guards"][0]["contracted_revenue"] == "17.5" {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{text}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    collector.stop().await;
}

fn text_of_contract(revenue: &str) -> String {
    json!({"customers": {"acme": {"contracted_revenue": revenue}}}).to_string()
}
