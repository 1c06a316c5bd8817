//! Tests `agent-meter reconcile` as it is run.

mod support;

use agent_meter_collector::Ledger;
use serde_json::json;

use support::{Files, run};

/// A call in the ledger, as the filter tells it.
fn call(sequence: u64, call_id: &str) -> serde_json::Value {
    let id = format!("{sequence:020}");
    json!({
        "specversion": "1.0", "id": id, "source": "urn:agent-meter:edge:1", "sequence": id,
        "type": "agent-meter.tool_invocation", "time": format!("2026-11-25T10:00:0{sequence}.000Z"),
        "subject": "acme", "datacontenttype": "application/json",
        "data": {
            "event_type": "tool_invocation", "product_id": "mcp", "product_type": "MCP_SERVER",
            "customer_id": "acme", "team_id": "blue", "agent_id": "robot",
            "session_id": "0".repeat(32), "session_key": "1".repeat(32),
            "metric_id": "tool_invocations", "quantity": 1, "call_id": call_id, "tool_name": "t",
            "execution_status": "SUCCESS", "execution_duration_ms": 5, "http_status": 200,
            "transport": "json", "cost_tier": "standard", "billable": true, "price": "0.01",
            "currency": "USD", "request_id": format!("r-{sequence}"),
        },
    })
}

fn line(call_id: &str, request_id: &str) -> String {
    let line = json!({
        "start_time": "2026-11-25T10:00:00.000Z", "request_id": request_id,
        "agent_meter.call_id": call_id, "agent_meter.status": "SUCCESS",
    });
    format!("{line}\n")
}

#[test]
fn a_log_is_compared_with_the_ledger_and_each_difference_named() {
    let files = Files::new();
    let ledger = files.ledger();
    let events = json!([call(1, "0.1.0.0"), call(2, "0.1.1.0"), call(3, "0.1.2.0")]);
    let stored = Ledger::open(&ledger).expect("a ledger");
    let receipt = stored
        .insert_batch(events.to_string().as_bytes(), "application/cloudevents-batch+json")
        .expect("a batch");
    assert_eq!(receipt.accepted, 3, "{receipt:?}");
    drop(stored);
    let all = [("0.1.0.0", "r-1"), ("0.1.1.0", "r-2"), ("0.1.2.0", "r-3")];
    let whole: String = all.iter().map(|(call_id, request_id)| line(call_id, request_id)).collect();
    let whole = format!("GET /health 200\n{whole}");
    for (name, log, status, out, err) in [
        (
            "the same",
            whole.clone(),
            0,
            "3 lines of the log tell of calls or generations, 1 do not; 3 match\n",
            "",
        ),
        (
            "the second is not in the log",
            format!("{}{}", line("0.1.0.0", "r-1"), line("0.1.2.0", "r-3")),
            1,
            "2 lines of the log tell of calls or generations, 0 do not; 2 match\n\
             1 in the ledger only:\n  0.1.1.0\n",
            "error: the log and the ledger differ\n",
        ),
        (
            "another Envoy's call with the same id",
            format!("{whole}{}", line("0.1.1.0", "r-9")),
            1,
            "4 lines of the log tell of calls or generations, 1 do not; 3 match\n\
             1 in the log only:\n  0.1.1.0\n",
            "error: the log and the ledger differ\n",
        ),
        (
            "no access log",
            "nothing\n".to_owned(),
            1,
            "0 lines of the log tell of calls or generations, 1 do not; 0 match\n",
            "error: no line of the log tells of a call or a generation\n",
        ),
    ] {
        let log = files.with("access.log", log);
        let ended = run(&["reconcile", "--access-log", &log, "--ledger", &ledger]);
        assert_eq!((ended.status, &*ended.out, &*ended.err), (status, out, err), "{name}");
    }
    let log = files.with("access.log", whole);
    let ended = run(&["reconcile", "--access-log", &log, "--ledger", &ledger, "--json"]);
    let told: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!((&told["matched"], &told["not_in_log"]["count"]), (&json!(3), &json!(0)));
    let missing = run(&["reconcile", "--access-log", "/nowhere", "--ledger", &ledger]);
    assert_eq!(missing.status, 1);
    assert!(missing.err.starts_with("error: cannot read /nowhere"), "{missing:?}");
}
