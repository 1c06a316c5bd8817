//! Shared by the tests of the core, which run natively and on wasm32.

#![allow(dead_code, reason = "each test file uses what it needs")]

use agent_meter_core::admission::{Admission, admit};
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::exchange::{self, Exchange};
use agent_meter_core::protocol::llm::Route;
use agent_meter_core::protocol::llm::provider::{self, Asked, Family};
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

/// The exchange of a request of which Envoy knows nothing but its headers.
pub(crate) fn start_exchange(config: &Config, headers: Headers<'_>) -> Option<Box<dyn Exchange>> {
    match admit(config, headers, false, &mut |_| None, Timestamp(0)) {
        Admission::Follow(admitted) => exchange::start(config, *admitted, "0".to_owned()).ok(),
        Admission::Pass
        | Admission::Unmatched
        | Admission::Exempt(_)
        | Admission::Skip { .. }
        | Admission::Answer { .. } => None,
    }
}

/// `#[test]` on every target: on wasm32 the tests run in node.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use core::prelude::v1::test;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm_bindgen_test::wasm_bindgen_test as test;

/// Every way to cut `bytes` that the streaming tests use: whole, byte by byte, and in two at each place.
pub(crate) fn cuts(bytes: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut cuts = vec![vec![bytes], bytes.chunks(1).collect(), bytes.chunks(7).collect()];
    for at in 1..bytes.len() {
        cuts.push(vec![&bytes[..at], &bytes[at..]]);
    }
    cuts
}

/// The route of a request to a provider that the configuration names, or does not.
pub(crate) fn route(family: Option<Family>, method: &str, host: &str, path: &str) -> Option<Route> {
    provider::route(family.map(Asked::from).unwrap_or_default(), method, host, path)
}

/// A rate of a card for a model of a provider.
pub(crate) fn rate(provider: &str, model: &str, rates: Value) -> Value {
    let mut rate = rates;
    rate["provider"] = json!(provider);
    rate["model"] = json!(model);
    rate
}
