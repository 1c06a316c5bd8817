//! The core's tests, one binary: they run natively and, by `make test-wasm`, on wasm32 in node.

mod a2a;
#[expect(clippy::disallowed_methods, reason = "it writes the golden events anew when asked to")]
mod accountant;
mod already_metered;
mod amazon_event_stream;
mod ask_for_usage;
mod asks;
mod batches;
mod bedrock;
mod bills;
mod browsers;
mod certainty;
mod config;
mod corrections;
mod correlation;
#[cfg(not(target_arch = "wasm32"))]
#[expect(clippy::disallowed_methods, reason = "it writes the table anew when asked to")]
mod coverage;
#[path = "../dice.rs"]
mod dice;
mod drain;
mod encoding;
mod exchange;
mod format_options;
#[expect(clippy::disallowed_methods, reason = "it writes the golden requests anew when asked to")]
mod formats;
mod forms;
mod generations;
mod groups;
mod guarded;
mod guards;
mod heads;
mod heartbeats;
mod host;
mod identity;
mod joins;
// The golden bodies are files.
#[cfg(not(target_arch = "wasm32"))]
#[expect(clippy::disallowed_methods, reason = "it reads them")]
mod llm;
mod llm_formats;
mod loops;
mod matching;
mod origins;
mod owners;
mod pauses;
mod payments;
#[path = "../plan.rs"]
mod plan;
#[path = "../play.rs"]
mod play;
mod plays;
mod polls;
mod prepaid;
mod products;
mod rates;
mod scanner;
mod scopes;
mod sellers;
mod shapes;
mod shares;
mod spill;
mod sse;
mod steps;
mod stops;
mod succession;
mod support;
mod units;
mod unread;
mod unseen;
mod websocket;
mod when;
mod wire_cases;
