//! The configurations under which requests are measured.

use serde_json::{Value, json};

/// The tools of the demo, as `agent-meter bench` meters them.
pub(crate) fn tools() -> Value {
    json!({ "products": [{
        "id": "crm-tools",
        "type": "MCP_SERVER",
        "match": { "path": "/mcp" },
        "identity": identity(),
        "pricing": {
            "currency": "USD",
            "billable_statuses": ["SUCCESS"],
            "default": { "price": "0.001", "cost_tier": "standard" },
            "tools": [
                { "tool": "lookup_*", "price": "0.001", "cost_tier": "lookup" },
                { "tool": "write_*", "price": "0.05", "cost_tier": "database-write" },
                { "tool": "analyze_*", "price": "0.10", "cost_tier": "analysis" },
            ],
        },
    }] })
}

fn identity() -> Value {
    json!({
        "customer": { "trusted_header": "x-customer-id" },
        "agent": { "trusted_header": "x-agent-id" },
    })
}

/// Tools and models: the calls of tools may cause generations, so they carry proofs.
pub(crate) fn both() -> Value {
    let mut plugin = tools();
    plugin["rate_cards"] = json!([{
        "version": "cost",
        "currency": "USD",
        "rates": [{
            "provider": "openai", "model": "gpt-4o", "aliases": ["gpt-4o-2024-08-06"],
            "input": "2.5", "cache_read": "1.25", "output": "10",
        }],
    }]);
    let mut caller = identity();
    caller["on_missing"] = json!("meter_as_anonymous");
    let product = json!({
        "id": "llm",
        "type": "AI_AGENT",
        "match": { "path_prefix": "/llm" },
        "identity": caller,
        "llm": { "provider": "openai" },
        "pricing": { "currency": "USD", "tokens": { "pass_through": true, "markup": "1.2" } },
    });
    plugin["products"].as_array_mut().into_iter().for_each(|all| all.push(product.clone()));
    plugin
}

/// Guards far from every level.
pub(crate) fn guarded() -> Value {
    let mut plugin = both();
    let actions = json!({
        "level_1": { "threshold": "50%" },
        "level_2": { "threshold": "30%", "throttle_rate": "20req/sec" },
        "level_3": { "threshold": "10%", "action": "block_request" },
    });
    plugin["contracts"] = json!({ "customers": { "acme": { "revenue": "1000000" } } });
    plugin["guards"] = json!([
        { "id": "margin", "revenue": "contracted", "actions": actions },
        { "id": "budget", "budget": { "calls": 1_000_000_000 }, "actions": actions },
    ]);
    plugin
}

pub(crate) fn reserving() -> Value {
    let mut plugin = guarded();
    plugin["guards"][0]["reserve"] = json!({ "estimate": "0.01", "last_cost": false });
    plugin
}

/// With ids of traces and logs in events, and fields for access logs.
pub(crate) fn joined() -> Value {
    let mut plugin = tools();
    plugin["correlation"] =
        json!({ "request_id": true, "trace_id": true, "rpc_id": true, "access_log": true });
    plugin
}

pub(crate) fn api() -> Value {
    json!({ "products": [{
        "id": "orders",
        "type": "AGENTIC_API",
        "match": { "path_prefix": "/orders" },
        "routes": ["/orders/{id}"],
        "identity": identity(),
        "pricing": {
            "currency": "USD",
            "tools": [{ "tool": "POST /orders/{id}", "price": "0.002", "cost_tier": "standard" }],
        },
    }] })
}
