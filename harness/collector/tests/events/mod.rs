//! Events as `filter/EVENTS.md` describes them, without any code of the filter.

use serde_json::{Value, json};

pub(crate) const SOURCE: &str = "urn:agent-meter:envoy-1:0001";
pub(crate) const SESSION: &str = "0123456789abcdef0123456789abcdef";

pub(crate) fn event(sequence: u64, event_type: &str, data: Value) -> Value {
    let mut event = json!({
        "specversion": "1.0",
        "id": format!("{sequence:020}"),
        "source": SOURCE,
        "type": format!("agent-meter.{event_type}"),
        "time": format!("2026-07-01T10:00:{:02}.000Z", sequence % 60),
        "subject": "acme",
        "sequence": format!("{sequence:020}"),
        "datacontenttype": "application/json",
        "data": {
            "event_type": event_type,
            "product_id": "tools",
            "product_type": "MCP_SERVER",
            "customer_id": "acme",
            "team_id": "blue",
            "agent_id": "agent-1",
            "session_id": SESSION,
            "session_key": "fedcba9876543210fedcba9876543210",
        },
    });
    merge(&mut event["data"], data);
    event
}

/// Sets members; `null` removes one.
pub(crate) fn merge(target: &mut Value, members: Value) {
    let (Value::Object(target), Value::Object(members)) = (target, members) else {
        panic!("merge wants objects");
    };
    for (member, value) in members {
        match value {
            Value::Null => drop(target.remove(&member)),
            value => drop(target.insert(member, value)),
        }
    }
}

pub(crate) fn call(sequence: u64, data: Value) -> Value {
    let members = json!({
        "metric_id": "tool_invocations",
        "quantity": 1,
        "call_id": format!("call-{sequence}"),
        "tool_name": "search",
        "execution_status": "SUCCESS",
        "execution_duration_ms": 12,
        "http_status": 200,
        "transport": "json",
        "cost_tier": "standard",
        "billable": true,
        "price": "0.001",
        "currency": "USD",
    });
    let mut event = event(sequence, "tool_invocation", members);
    merge(&mut event["data"], data);
    event
}

/// A generation with so many tokens of input and as many of output.
pub(crate) fn generation(sequence: u64, tokens: u64, data: Value) -> Value {
    let members = json!({
        "metric_id": "ai_tokens",
        "quantity": 2 * tokens,
        "generation_id": format!("0.1.{sequence}"),
        "attribution": "none",
        "provider": "openai",
        "model": "gpt-4o-2024-08-06",
        "service_tier": "standard",
        "usage_source": "body",
        "completeness": "COMPLETE",
        "estimated": false,
        "tokens": {"input": tokens, "output": tokens, "cache_read": tokens / 2},
        "cost_lines": [
            {"kind": "output", "tokens": tokens, "rate_per_million": "10", "cost": "0.008"},
        ],
        "priced": true,
        "total_provider_cost": "0.008",
        "rate_card": "2026-11-23",
        "price": "0.0123",
        "currency": "USD",
        "http_status": 200,
        "duration_ms": 2310,
        "streamed": true,
    });
    let mut event = event(sequence, "token_consumption", members);
    merge(&mut event["data"], data);
    event
}
