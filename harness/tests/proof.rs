//! Tests `agent-meter seal`, `verify` and `prove` as they are run, with keys of openssl's form.

mod support;

use agent_meter_collector::Ledger;
use serde_json::{Value, json};

use support::{Files, run};

/// The events of the filter's own test of what it writes.
const GOLDEN: &str = include_str!("../../filter/core/tests/core/golden/session.json");

/// The key of RFC 8032, section 7.1, test 1.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";
const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
";

#[test]
fn a_ledger_is_sealed_proved_and_verified() {
    let files = Files::new();
    let (private, public) = (files.with("private.pem", PRIVATE), files.with("public.pem", PUBLIC));
    let url = files.ledger();
    let mut events: Vec<Value> = serde_json::from_str(GOLDEN).expect("JSON");
    let now = json!(chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S.000Z").to_string());
    for event in &mut events {
        event["time"] = now.clone();
        if event["data"]["session_ended_at"].is_string() {
            event["data"]["session_ended_at"] = now.clone();
        }
    }
    let ledger = Ledger::open(&url).expect("a ledger");
    let body = serde_json::to_vec(&events).expect("JSON");
    let receipt = ledger.insert_batch(&body, "application/cloudevents-batch+json").expect("taken");
    let (stored, first) = (receipt.accepted, events[0]["id"].as_str().expect("an id"));
    assert!(stored > 3, "{receipt:?}");

    let ended = run(&["prove", first, "--ledger", &url]);
    assert!(ended.err.contains("no root covers the event yet"), "{}", ended.err);
    let ended = run(&["seal", "--signing-key-file", &private, "--ledger", &url]);
    assert_eq!(ended.status, 0, "{}", ended.err);
    assert!(ended.out.starts_with("agent-meter root v1\nnumber 1\nfirst 1\n"), "{}", ended.out);
    let ended = run(&["seal", "--signing-key-file", &private, "--ledger", &url]);
    assert_eq!(ended.out, "no event since the last root\n");

    let ended = run(&["prove", first, "--ledger", &url]);
    let proof = files.with("proof.json", &ended.out);
    let ended = run(&["verify", "--proof", &proof, "--public-key-file", &public]);
    assert_eq!(ended.out, "the event is under a root of this key\n", "{}", ended.err);
    let other = files
        .with("other.json", std::fs::read_to_string(&proof).expect("it").replace("acme", "bolt"));
    let ended = run(&["verify", "--proof", &other, "--public-key-file", &public]);
    assert_eq!((ended.status, ended.out.as_str()), (1, ""), "{}", ended.err);

    let ended = run(&["verify", "--public-key-file", &public, "--ledger", &url]);
    assert_eq!(ended.out, format!("{stored} events, 0 of them under no root yet; 1 roots\n"));
    let connection = rusqlite::Connection::open(files.at("ledger.db")).expect("a ledger");
    connection.execute("UPDATE calls SET price = '0'", []).expect("a change");
    let ended = run(&["verify", "--public-key-file", &public, "--ledger", &url]);
    assert_eq!(ended.status, 1);
    assert!(ended.out.contains("price is not what the event says"), "{}", ended.out);
}
