//! Guards that go by what a customer paid in advance: what is asked and told, what is refused and how,
//! and that a top-up lets requests pass again.

use serde_json::{Value, json};

use crate::guarded::{Became, Guarded};
use crate::host::answered;
use crate::support::test;

/// A ledger that knows one customer, team or agent: what was topped up, less the prices of all calls
/// that came to it.
struct Ledger {
    granted: i64,
    /// What others spent, who are told as another Envoy's totals.
    others: i64,
    calls: i64,
}

/// A call costs one euro cent.
fn guarded(more: &Value) -> Guarded {
    let mut guard = json!({
        "id": "prepaid", "budget": { "prepaid_balance": true }, "fleet": true, "period": "day",
        "top_up_url": "https://pay.example.com/top-up", "products": ["crm"],
        "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
    });
    for (name, value) in more.as_object().unwrap() {
        guard[name] = value.clone();
    }
    let identity = json!({"customer": {"trusted_header": "x-customer-id"},
        "team": {"trusted_header": "x-team"}, "agent": {"trusted_header": "x-agent"}});
    let products = json!([{
        "id": "crm", "type": "MCP_SERVER", "match": {"path": "/mcp"}, "identity": identity,
        "pricing": { "currency": "USD", "default": { "price": "0.01" } },
    }, {
        "id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"}, "llm": {},
        "identity": identity, "pricing": { "currency": "USD", "tokens": { "pass_through": true, "markup": "0" } },
    }]);
    Guarded::with(&json!([guard]), &json!({ "products": products }))
}

fn cents(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.abs() / 100, cents.abs() % 100)
}

impl Ledger {
    fn new(granted: i64) -> Self {
        Self { granted, others: 0, calls: 0 }
    }

    /// Lets so many ticks pass, while this ledger takes all events and answers them.
    fn serve(&mut self, guarded: &mut Guarded, ticks: usize) {
        for _ in 0..ticks {
            guarded.envoy.now.0 += 250;
            let now = guarded.envoy.now;
            assert!(guarded.second.tick(&mut guarded.envoy.host, now).is_empty());
            let mut waiting = guarded.envoy.tick(0);
            while let Some(dispatch) = waiting.pop() {
                let events = crate::host::events(&dispatch);
                let body = self.answer(&events).to_string();
                guarded.told.extend(events);
                waiting.extend(guarded.envoy.reply(&dispatch, answered(200, body.as_bytes())));
            }
        }
    }

    fn answer(&mut self, events: &[Value]) -> Value {
        let of_type = |name: &str| {
            let name = format!("agent-meter.{name}");
            events.iter().filter(move |event| event["type"] == name.as_str())
        };
        self.calls += i64::try_from(
            of_type("tool_invocation").filter(|e| e["data"]["price"] == "0.01").count(),
        )
        .unwrap();
        let verdict = |event: &Value| {
            let data = &event["data"];
            assert_eq!(data["basis"], "prepaid_balance");
            let others = cents(self.others);
            json!({ "guard_id": "prepaid", "scope_key": data["scope_key"],
                "period_started_at": data["period_started_at"], "total_provider_cost": "0",
                "total_revenue": others, "calls": 0, "tokens": 0, "emitters": 1,
                "prepaid_balance": cents(self.granted - self.calls - self.others),
                "prepaid_known_revenue": data["total_revenue"] })
        };
        json!({ "verdicts": of_type("guard_totals").map(verdict).collect::<Vec<_>>() })
    }
}

fn call(guarded: &mut Guarded) -> (u16, Value) {
    match guarded.call("acme", "t") {
        Became::Passed(stream, ..) => {
            guarded.finish(stream);
            (200, Value::Null)
        }
        Became::Refused(status, _, body) => (status, body),
    }
}

/// How many of these calls pass, one after another.
fn passed(guarded: &mut Guarded, ledger: &mut Ledger, calls: usize) -> usize {
    let statuses = (0..calls).map(|_| {
        let (status, _) = call(guarded);
        ledger.serve(guarded, 1);
        status
    });
    statuses.filter(|status| *status == 200).count()
}

#[test]
fn a_balance_is_asked_for_spent_refused_and_topped_up() {
    let (mut guarded, mut ledger) = (guarded(&json!({})), Ledger::new(20));
    let (status, body) = call(&mut guarded);
    assert_eq!((status, &body["id"]), (402, &json!("one")), "not known yet");
    let error = &body["error"];
    assert_eq!((&error["code"], &error["data"]["balance"]), (&json!(-32_016), &Value::Null));
    assert_eq!(error["data"]["retry_after_seconds"], 2);
    ledger.serve(&mut guarded, 8);
    assert_eq!(passed(&mut guarded, &mut ledger, 30), 20, "as many as were paid for");
    // For a moment what was spent last may be taken twice, never not at all.
    ledger.serve(&mut guarded, 8);
    let Became::Refused(402, headers, body) = guarded.call("acme", "t") else { panic!() };
    let data = &body["error"]["data"];
    for (name, expected) in [
        ("reason", json!("prepaid_balance")),
        ("level", json!("L3_BLOCK")),
        ("guard_id", json!("prepaid")),
        ("scope", json!("customer")),
        ("balance", json!("0")),
        ("currency", json!("USD")),
        ("top_up_url", json!("https://pay.example.com/top-up")),
        ("retry_after_seconds", json!(60)),
        ("resets_at", Value::Null),
    ] {
        assert_eq!(data[name], expected, "{name}");
    }
    assert!(headers.contains(&("retry-after", "60".to_owned())), "{headers:?}");
    let change = guarded.last("budget_level_changed");
    let told = json!([change["used"], change["limit"], change["unit"], change["action"]]);
    assert_eq!(told, json!(["0.2", "0.2", "prepaid_balance", "block"]));
    // Nobody asks again; the accountant does.
    ledger.granted += 5;
    ledger.serve(&mut guarded, 28);
    assert_eq!(passed(&mut guarded, &mut ledger, 10), 5, "a top-up lets as many pass again");
    // Refused calls are in the books as blocked, and cost nothing.
    ledger.serve(&mut guarded, 8);
    let told = guarded.told.iter().map(|event| &event["data"]);
    let blocked = told.filter(|data| data["execution_status"] == "BLOCKED");
    let blocked: Vec<_> = blocked.map(|data| (&data["http_status"], &data["price"])).collect();
    assert!(blocked.len() > 10 && blocked.iter().all(|call| *call == (&json!(402), &json!("0"))));
}

#[test]
fn a_new_period_goes_on_with_what_is_left() {
    let (mut guarded, mut ledger) = (guarded(&json!({ "period": "hour" })), Ledger::new(10));
    call(&mut guarded);
    ledger.serve(&mut guarded, 8);
    assert_eq!(passed(&mut guarded, &mut ledger, 6), 6);
    guarded.envoy.now.0 += 3_600_000;
    assert_eq!(passed(&mut guarded, &mut ledger, 10), 4);
}

#[test]
fn what_others_spend_and_what_expires_is_taken_from_it_at_once() {
    let (mut guarded, mut ledger) = (guarded(&json!({})), Ledger::new(10));
    call(&mut guarded);
    ledger.serve(&mut guarded, 8);
    ledger.others = 7;
    assert_eq!(passed(&mut guarded, &mut ledger, 1), 1);
    ledger.serve(&mut guarded, 8);
    assert_eq!(passed(&mut guarded, &mut ledger, 10), 2, "10 less 7 and 1");
    ledger.granted += 50;
    ledger.serve(&mut guarded, 28);
    assert_eq!(call(&mut guarded).0, 200);
    // It expires, while nobody calls.
    ledger.granted -= 51;
    ledger.serve(&mut guarded, 4 * 65);
    let (status, body) = call(&mut guarded);
    assert_eq!((status, &body["error"]["data"]["balance"]), (402, &json!("-0.02")));
}

#[test]
fn what_is_not_known_passes_if_the_guard_says_so() {
    let (mut guarded, mut ledger) =
        (guarded(&json!({ "on_unknown_balance": "pass" })), Ledger::new(0));
    assert_eq!(call(&mut guarded).0, 200);
    ledger.serve(&mut guarded, 8);
    assert_eq!(call(&mut guarded).0, 402, "it is known: nothing is left");
}

#[test]
fn a_balance_of_nothing_is_spent_and_generations_ask_too() {
    let (mut guarded, mut ledger) =
        (guarded(&json!({ "products": ["llm"], "scope": "agent" })), Ledger::new(0));
    assert_eq!(guarded.generate("acme", 1), 402);
    ledger.serve(&mut guarded, 8);
    assert_eq!(guarded.last("guard_totals")["agent_id"], "anonymous");
    assert_eq!(guarded.generate("acme", 1), 402);
    ledger.granted = 1;
    ledger.serve(&mut guarded, 28);
    assert_eq!(guarded.generate("acme", 1), 200);
    assert_eq!(call(&mut guarded).0, 200, "another product's");
}

#[test]
fn a_flood_of_refused_calls_asks_once_a_second() {
    let (mut guarded, mut ledger) = (guarded(&json!({})), Ledger::new(0));
    for _ in 0..200 {
        assert_eq!(call(&mut guarded).0, 402);
        guarded.envoy.now.0 += 10;
    }
    ledger.serve(&mut guarded, 8);
    let asked = guarded.told.iter().filter(|event| event["type"] == "agent-meter.guard_totals");
    assert!(asked.count() <= 3);
}
