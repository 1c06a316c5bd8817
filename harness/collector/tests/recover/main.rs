//! Recovery from logs: what Envoy wrote, in the forms in which fleets keep it.
//!
//! `tests/fixtures/logs` has what Envoy 1.40.0 wrote with the filter in it: the last events of a
//! session, one of them longer than a line may be, and two requests whose `User-Agent` is a spilled
//! line that bills a victim. The last one is a whole line of Envoy's Wasm logger. The secret is
//! [`SECRET`], except in `envoy-old.log`, which an older filter wrote.

mod carriers;
mod follow;
mod forms;
#[path = "../ledgers/mod.rs"]
mod ledgers;
mod trust;

use std::io::Cursor;

use agent_meter_collector::recover::{Format, Log, Options, Recovered, Target, recover};
use agent_meter_collector::{Ledger, SharedSecret};

use self::ledgers::new_ledger;

const SECRET: &str = "a secret of the samples";

/// Each log of Envoy, by the name of its file.
const LOGS: [(&str, &str); 7] = [
    ("envoy.log", include_str!("../../../../tests/fixtures/logs/envoy.log")),
    ("envoy-old.log", include_str!("../../../../tests/fixtures/logs/envoy-old.log")),
    ("fine-grain.log", include_str!("../../../../tests/fixtures/logs/fine-grain.log")),
    ("format.log", include_str!("../../../../tests/fixtures/logs/format.log")),
    ("istio.log", include_str!("../../../../tests/fixtures/logs/istio.log")),
    ("istio-json.log", include_str!("../../../../tests/fixtures/logs/istio-json.log")),
    ("json.log", include_str!("../../../../tests/fixtures/logs/json.log")),
];

/// What each of them holds.
const EVENTS: u64 = 3;
const ATTACKS: u64 = 2;

fn key() -> SharedSecret {
    SharedSecret::unnamed(SECRET).expect("a secret")
}

/// With the formats of `format.log` and `json.log`, which are not usual ones.
fn options(key: Option<SharedSecret>) -> Options<'static> {
    let formats = [
        "%^%L%$ %n %v (thread %t)",
        r#"{"Timestamp":"%Y-%m-%dT%T.%F","ThreadId":"%t","SourceLine":"%s:%#","Level":"%l","Message":"%j","Fixed":"Value"}"#,
    ];
    let formats = formats.map(|format| Format::parse(format).expect("a format"));
    Options { secrets: key.into_iter().collect(), formats: formats.into(), ..Options::default() }
}

fn ledger() -> Ledger {
    Ledger::open(&new_ledger()).expect("a ledger")
}

fn log(name: &str, text: impl Into<Vec<u8>>) -> Log {
    Log::new(name, Cursor::new(text.into())).expect("a log")
}

/// Brings a log into a new ledger.
async fn recovered(
    name: &str,
    text: impl Into<Vec<u8>>,
    options: &Options<'_>,
) -> (Recovered, Ledger) {
    let ledger = ledger();
    let target = Target::Ledger { ledger: ledger.clone(), allows_older: true };
    let found = recover([log(name, text)], &target, options).await.expect(name);
    (found, ledger)
}
