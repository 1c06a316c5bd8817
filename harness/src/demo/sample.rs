//! Builds events of a ledger for the demo's tests.

use agent_meter_collector::{Body, Call, CallKind, Generation, Identity, Rated, Tokens, Units};
use rust_decimal::Decimal;

fn identity() -> Identity {
    Identity {
        product: "tools".to_owned(),
        product_type: "MCP_SERVER",
        customer: "acme".to_owned(),
        team: "blue".to_owned(),
        agent: "agent-1".to_owned(),
        api_key_hash: None,
        credential_type: None,
        session_id: "0123456789abcdef0123456789abcdef".to_owned(),
        session_key: "fedcba9876543210fedcba9876543210".to_owned(),
    }
}

/// A generation for a call with this id and tool, with 10 tokens in and 5 out.
pub(super) fn generation(call: Option<(&str, &str)>, model: &str, cost: Option<&str>) -> Body {
    let rate = match cost {
        Some(cost) => {
            let cost = Decimal::from_str_exact(cost).expect("an amount");
            Rated::Priced { cost, rate_card: "test".to_owned() }
        }
        None => Rated::Unpriced { reason: "no_rate" },
    };
    let (input, output, reasoning, cache_read) = (Some(10), Some(5), Some(2), Some(4));
    Body::Generation(Box::new(Generation {
        identity: identity(),
        generation_id: "1".to_owned(),
        supersedes: None,
        call: call.map(|(call_id, tool)| (call_id.to_owned(), tool.to_owned())),
        attribution: if call.is_some() { "trace" } else { "none" },
        provider: "openai".to_owned(),
        model: model.to_owned(),
        service_tier: "standard".to_owned(),
        completeness: "COMPLETE",
        estimated: false,
        tokens: Tokens { input, output, reasoning, cache_read, ..Tokens::default() },
        units: Units::default(),
        has_unpriced_units: false,
        is_inconsistent: false,
        reported_cost: None,
        rate,
        price: Decimal::ZERO,
        currency: "USD".to_owned(),
    }))
}

/// A successful call of `summarise`.
pub(super) fn call(call_id: &str, duration_ms: i64) -> Body {
    Body::Call(Box::new(Call {
        identity: identity(),
        kind: CallKind::Tool,
        call_id: call_id.to_owned(),
        tool: "summarise".to_owned(),
        status: "SUCCESS",
        duration_ms,
        http_status: 200,
        transport: Some("json".to_owned()),
        bytes: None,
        tier: "standard".to_owned(),
        quantity: 1,
        billable: true,
        price: Decimal::ZERO,
        currency: "USD".to_owned(),
    }))
}
