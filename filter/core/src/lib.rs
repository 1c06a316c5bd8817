//! Everything that agent-meter decides, and nothing that touches a host: no clock, no randomness,
//! no input or output.
//!
//! A response's bytes take this road: [`wire`] scans them, [`protocol`] says what they mean,
//! [`exchange`] makes [`fact`]s of them and asks [`guard`] whether they may pass; a worker writes the
//! facts to a journal in [`shared_data`]; the [`accountant`] reads it, prices with [`pricing`], adds up
//! in [`session`] and [`guard`], makes an [`event`], and hands it to a [`sink`], whose bytes the proxy
//! sends. [`meter::Meter`] is the state of one VM, and the way in for the proxy in `filter/proxy`.
//!
//! One request, from its head to the fact that a worker would write to its journal:
//!
//! ```
//! use agent_meter_core::admission::{Admission, admit};
//! use agent_meter_core::base::time::Timestamp;
//! use agent_meter_core::config::Config;
//! use agent_meter_core::exchange::{self, kind::StreamEnd};
//! use agent_meter_core::fact::Fact;
//! use agent_meter_core::wire::http::{Headers, ResponseHead};
//!
//! let config = br#"{ "products": [{
//!     "id": "crm", "type": "MCP_SERVER", "match": { "path": "/mcp" },
//!     "identity": { "customer": { "trusted_header": "x-customer-id" } }
//! }] }"#;
//! let config = Config::from_bytes(config).unwrap();
//! let now = Timestamp(1_795_000_000_000);
//! let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
//!
//! let head =
//!     [header(":method", "POST"), header(":path", "/mcp"), header("x-customer-id", "acme")];
//! let admission = admit(&config, Headers(&head), false, &mut |_| None, now);
//! let Admission::Follow(admitted) = admission else { panic!("it belongs to a product") };
//! let mut exchange = exchange::start(&config, *admitted, "0".to_owned()).unwrap();
//!
//! let call = br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search"}}"#;
//! exchange.request_body(call, now);
//! exchange.request_end(now);
//! let head = [header(":status", "200"), header("content-type", "application/json")];
//! exchange.response_head(&ResponseHead::read(Headers(&head)));
//! exchange.response_body(br#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#, true, now);
//!
//! let facts = exchange.end(StreamEnd::Complete, now).facts;
//! let [Fact::Call(call)] = facts.as_slice() else { panic!("one call") };
//! assert_eq!((call.tool.as_str(), call.status.name()), ("search", "SUCCESS"));
//! assert_eq!(call.session.identity.customer, "acme");
//! ```
//!
//! The rooms below stand on each other: each imports only from those above it, which `tests/tidy`
//! holds.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::float_arithmetic,
    clippy::as_conversions,
    reason = "a panic in the module takes down every stream of a worker"
)]
#![warn(clippy::too_many_lines)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "tests may fail loudly"
    )
)]

/// Time, text, money, hashes, bounds: what everything stands on.
pub mod base;

/// The few calls to the host, and what the filter counts about itself.
pub mod host;

/// Bytes: HTTP heads, JSON, server-sent events, codings, all read in pieces.
pub mod wire;

/// The nouns of metering: identity, session, usage, status, level.
pub mod domain;

/// Journals, slots and commits in the shared data of the Envoy process.
pub mod shared_data;

/// What MCP, A2A and the providers' messages mean.
pub mod protocol;

/// What a worker tells the accountant.
pub mod fact;

/// What calls and generations cost, and what they are charged.
pub mod pricing;

/// Formats in which events go to a collector, and what its replies mean.
pub mod sink;

/// The plugin's configuration.
pub mod config;

/// What a request's head decides: its product, identity and session.
pub mod admission;

/// Whether a request may pass: levels of margins and budgets.
pub mod guard;

/// Sessions and their totals.
pub mod session;

/// One HTTP stream: bytes in, facts out.
pub mod exchange;

/// What the accountant tells the collector.
pub mod event;

/// The one writer: folds facts into sessions and events, and keeps these until delivered.
pub mod accountant;

/// The state of one VM.
pub mod meter;
