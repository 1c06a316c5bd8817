//! Guards by team, user and API key: each has totals of its own, who names none shares one, and no
//! key is told in the clear.

use agent_meter_core::config::Config;
use agent_meter_core::host::counter::Counter;
use serde_json::{Value, json};

use crate::guarded::{Became, Guarded, levels};
use crate::support::test;

/// The scopes, the header that names each here, and the member of events that tells it.
const SCOPES: [(&str, &str, &str); 3] = [
    ("team", "x-team", "team_id"),
    ("user", "x-user", "user_id"),
    ("api_key", "x-api-key", "api_key_hash"),
];

const KEY: &str = "sk-live-a-secret";

fn identity(required: &Value) -> Value {
    json!({
        "customer": {"trusted_header": "x-customer-id"}, "team": {"trusted_header": "x-team"},
        "user": {"trusted_header": "x-user"}, "api_key": {"trusted_header": "x-api-key"},
        "api_key_salt": "0123456789abcdef", "required": required,
    })
}

fn products(required: &Value) -> Value {
    json!({ "products": [{
        "id": "crm", "type": "MCP_SERVER", "match": {"path": "/mcp"}, "identity": identity(required),
    }] })
}

fn three(scope: &str, more: &Value) -> Value {
    let mut guard = json!({
        "id": "three", "scope": scope, "period": "day", "budget": { "calls": 3 },
        "actions": { "level_3": { "threshold": "0%", "action": "block_request" } },
    });
    for (name, value) in more.as_object().unwrap() {
        guard[name] = value.clone();
    }
    json!([guard])
}

/// The status of a call with these headers, which is answered and accounted.
fn used(guarded: &mut Guarded, more: &[(&str, &str)]) -> u16 {
    let body = r#"{"jsonrpc":"2.0","id":"one","method":"tools/call","params":{"name":"t"}}"#;
    let head = [&[(":method", "POST"), (":path", "/mcp")], more].concat();
    let became = guarded.send(&head, body);
    if let Became::Passed(stream, ..) = became {
        guarded.finish(stream);
    }
    guarded.settle();
    became.status()
}

#[test]
fn each_team_user_and_key_of_a_customer_has_a_budget_of_its_own() {
    for (scope, header, member) in SCOPES {
        let mut guarded = Guarded::with(&three(scope, &json!({})), &products(&json!([])));
        // Who calls, and how many of four calls pass.
        for (customer, name, passed) in [
            (Some("acme"), Some(KEY), 3),
            (Some("acme"), Some("another"), 3),
            (Some("rival"), Some(KEY), 3),
            // Those without share one, and so do those whom no customer covers.
            (Some("acme"), None, 3),
            (None, Some(KEY), 3),
            (None, None, 3),
            (Some("acme"), Some(KEY), 0),
            (Some("acme"), None, 0),
        ] {
            let head: Vec<_> = [("x-customer-id", customer), (header, name)]
                .into_iter()
                .filter_map(|(header, value)| Some((header, value?)))
                .collect();
            let statuses: Vec<u16> = (0..4).map(|_| used(&mut guarded, &head)).collect();
            let expected: Vec<u16> = (0..4).map(|at| if at < passed { 200 } else { 429 }).collect();
            assert_eq!(statuses, expected, "{scope}: {customer:?} {name:?}");
        }
        let changes: Vec<&Value> = guarded
            .told
            .iter()
            .map(|event| &event["data"])
            .filter(|data| data["event_type"] == "budget_level_changed")
            .collect();
        assert_eq!(guarded.levels(), levels(&[("NONE", "L3_BLOCK", "threshold"); 6]));
        let first = changes[0];
        assert_eq!((&first["scope"], &first["customer_id"]), (&json!(scope), &json!("acme")));
        let named = first[member].as_str().unwrap();
        let is_told = if scope == "api_key" { named.len() == 32 } else { named == KEY };
        assert!(is_told, "{first}");
        assert_eq!(changes[3][member], "anonymous", "{scope}");
        let others = SCOPES.iter().filter(|(_, _, other)| *other != member);
        assert!(others.clone().all(|(_, _, other)| first.get(*other).is_none()), "{first}");
        let all = json!(guarded.told).to_string();
        assert!(scope != "api_key" || !all.contains(KEY), "a key is told in the clear");
        let call = guarded.last("tool_invocation");
        assert_eq!(call.get("user_id"), None, "{call}");
    }
}

#[test]
fn events_tell_the_user_and_a_user_has_sessions_of_its_own() {
    let mut guarded = Guarded::with(&json!([]), &products(&json!([])));
    let session = |guarded: &Guarded| guarded.last("tool_invocation")["session_id"].clone();
    let mut sessions = Vec::new();
    for user in ["ann", "bob", "ann"] {
        let head = [("x-customer-id", "acme"), ("mcp-session-id", "shared"), ("x-user", user)];
        assert_eq!(used(&mut guarded, &head), 200);
        assert_eq!(guarded.last("tool_invocation")["user_id"], user);
        sessions.push(session(&guarded));
    }
    assert!(sessions[0] == sessions[2] && sessions[0] != sessions[1], "{sessions:?}");
}

#[test]
fn a_refusal_and_the_totals_name_the_scope() {
    for (scope, header, member) in SCOPES {
        let guards = three(scope, &json!({ "fleet": true }));
        let mut guarded = Guarded::with(&guards, &products(&json!([])));
        let head = [("x-customer-id", "acme"), (header, "one")];
        assert_eq!(used(&mut guarded, &head), 200);
        let totals = guarded.last("guard_totals").clone();
        assert_eq!((&totals["scope"], &totals["calls"]), (&json!(scope), &json!(1)));
        assert!(totals[member].is_string(), "{totals}");
        // Others have used the other two.
        let verdict = json!([{
            "guard_id": "three", "scope_key": totals["scope_key"],
            "period_started_at": totals["period_started_at"],
            "total_provider_cost": "0", "total_revenue": "0", "calls": 2, "tokens": 0,
        }]);
        // A batch of another's, for which the collector's answer comes.
        let other = guarded.call("rival", "t").stream();
        guarded.finish(other);
        guarded.settle_with(&verdict);
        let body = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"t"}}"#;
        let whole = [&[(":method", "POST"), (":path", "/mcp")], &head[..]].concat();
        let Became::Refused(429, headers, body) = guarded.send(&whole, body) else {
            panic!("{scope}: the fleet's budget is used up")
        };
        assert_eq!((&body["id"], &body["error"]["data"]["scope"]), (&json!(7), &json!(scope)));
        assert!(headers.contains(&("x-margin-guard-level", "L3".to_owned())), "{headers:?}");
    }
}

#[test]
fn who_invents_keys_has_a_budget_for_the_rest_of_them_and_takes_nothing_of_others() {
    let mut guarded = Guarded::with(&three("api_key", &json!({})), &products(&json!([])));
    for at in 0..3 {
        let key = format!("own-{at}");
        assert_eq!(used(&mut guarded, &[("x-customer-id", "acme"), ("x-api-key", &key)]), 200);
    }
    let body = r#"{"jsonrpc":"2.0","id":"one","method":"tools/call","params":{"name":"t"}}"#;
    for at in 0..1030 {
        let key = format!("invented-{at}");
        let head = [
            (":method", "POST"),
            (":path", "/mcp"),
            ("x-customer-id", "rival"),
            ("x-api-key", key.as_str()),
        ];
        if let Became::Passed(stream, ..) = guarded.send(&head, body) {
            guarded.finish(stream);
        }
    }
    guarded.settle();
    assert!(guarded.count(Counter::GuardScopesOverLimit) >= 6);
    let rest = guarded.last("budget_level_changed");
    let told = (&rest["customer_id"], &rest["api_key_hash"]);
    assert_eq!(told, (&json!("rival"), &json!("__other__")));
    assert_eq!(used(&mut guarded, &[("x-customer-id", "rival"), ("x-api-key", "new")]), 429);
    assert_eq!(used(&mut guarded, &[("x-customer-id", "acme"), ("x-api-key", "own-1")]), 200);
}

#[test]
fn a_required_level_is_asked_for_whatever_on_missing_says() {
    let levels = json!(["customer", "team", "user", "api_key"]);
    let mut products = products(&levels);
    products["products"][0]["identity"]["on_missing"] = json!("meter_as_anonymous");
    let whole = [("x-customer-id", "acme"), ("x-team", "a"), ("x-user", "b"), ("x-api-key", "key")];
    for without in 0..whole.len() {
        let mut guarded = Guarded::with(&json!([]), &products);
        let mut head = whole.to_vec();
        assert_eq!(used(&mut guarded, &head), 200);
        let (left_out, _) = head.remove(without);
        assert_eq!(used(&mut guarded, &head), 401, "without {left_out}");
        assert_eq!(guarded.count(Counter::RequestsRejected), 1);
    }
}

#[test]
fn a_guard_by_what_requests_need_not_name_is_warned_of() {
    let without = "guards[0].scope: of the callers of product \"crm\" those without a `user` share";
    let blind = "guards[0].scope: of the callers of product \"crm\" all of a customer share one";
    let mut sourceless = identity(&json!([]));
    sourceless["user"] = Value::Null;
    for (identity, scope, expected) in [
        (identity(&json!([])), "user", Some(without)),
        (identity(&json!(["user"])), "user", None),
        (sourceless.clone(), "user", Some(blind)),
        (
            sourceless,
            "team",
            Some("guards[0].scope: of the callers of product \"crm\" those without"),
        ),
        (identity(&json!(["api_key"])), "api_key", None),
    ] {
        let mut config = products(&json!([]));
        config["products"][0]["identity"] = identity;
        config["guards"] = three(scope, &json!({}));
        let config = Config::from_bytes(config.to_string().as_bytes()).unwrap();
        let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
        assert_eq!(warnings.len(), usize::from(expected.is_some()), "{scope}: {warnings:?}");
        let is_it = warnings.iter().zip(expected).all(|(found, start)| found.starts_with(start));
        assert!(is_it, "{warnings:?}");
    }
}
