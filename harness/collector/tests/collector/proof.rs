//! Tests that whatever is changed in a ledger is found, and that a proof of an event holds for that
//! event alone.

use std::path::{Path, PathBuf};

use agent_meter_collector::proof::{Proof, PublicKey, SigningKey, Verification};

use super::generations::generation;
use super::*;
use crate::ledgers::{new_ledger, run};

/// A key of the tests, as `openssl genpkey -algorithm ed25519` writes it.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
";

pub(super) struct Place {
    directory: tempfile::TempDir,
    pub(super) url: String,
}

impl Place {
    pub(super) fn new() -> Place {
        let directory = tempfile::tempdir().expect("a directory");
        let url = match new_ledger().as_str() {
            "sqlite::memory:" => format!("sqlite:{}", directory.path().join("ledger.db").display()),
            url => url.to_owned(),
        };
        Place { directory, url }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    fn keys(&self) -> (SigningKey, PublicKey) {
        let private = SigningKey::read(&self.file("private.pem", PRIVATE)).expect("a key");
        let public = self.file("public.pem", &private.public().to_pem());
        (private, PublicKey::read(&public).expect("a key"))
    }

    pub(super) fn verify(&self) -> Verification {
        open(&self.url).verify(Some(&self.keys().1)).expect("a ledger")
    }
}

/// Changes a ledger, as whoever reaches its file or its server can.
pub(super) fn execute(url: &str, sql: &str) {
    let Some(path) = url.strip_prefix("sqlite:") else { return run(url, sql) };
    let connection = rusqlite::Connection::open(path).expect("a ledger");
    connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; {sql}")).expect(sql);
}

/// Sixteen events of two sources under two roots, and one under none.
fn sealed() -> Place {
    let place = Place::new();
    let ledger = open(&place.url);
    let (private, _) = place.keys();
    let mut events = whole_session();
    insert(&ledger, &events);
    assert!(ledger.seal(&private).expect("a root").is_some());
    assert!(ledger.seal(&private).expect("a ledger").is_none(), "there was nothing to seal");
    let mut held = generation(9, json!({}));
    held["data"]["tokens"]["input"] = json!(9_000_000_000_000_u64);
    let more =
        vec![generation(8, json!({})), held, generation(10, json!({"supersedes": "generation-8"}))];
    insert(&ledger, &more);
    for event in &mut events[..6] {
        event["source"] = "urn:agent-meter:envoy-2:0001".into();
    }
    insert(&ledger, &events[..6]);
    assert_eq!(ledger.seal(&private).expect("a root").expect("new").number, 2);
    insert(&ledger, &[call(11, json!({}))]);
    place
}

#[test]
fn what_was_not_changed_has_no_fault() {
    let found = sealed().verify();
    let counts = (found.events, found.events_not_sealed, found.roots, found.faults);
    assert_eq!(counts, (17, 1, 2, 0), "{found:?}");
}

#[test]
fn what_was_changed_is_named() {
    for (sql, expected) in [
        (
            "UPDATE events SET raw = replace(raw, '0.001', '0.002') WHERE position = 2",
            "at 2: it was changed",
        ),
        ("UPDATE events SET subject = 'bolt' WHERE position = 2", "at 2: it was changed"),
        (
            "UPDATE events SET received_at = '2026-07-03T12:00:00Z' WHERE position = 3",
            "at 3: it was",
        ),
        ("UPDATE events SET sequence = 70 WHERE position = 7", "at 7: it was changed"),
        (
            "UPDATE quarantine SET raw = replace(raw, '9000000000000', '9000000000001')",
            "at 9: it was",
        ),
        ("DELETE FROM events WHERE position = 4", "its events are not those that were stored"),
        ("DELETE FROM events WHERE position = 4", "root 1 of 2026-07-02T12:00:00Z: the 6 events"),
        ("DELETE FROM events WHERE position = 17", "its events are not those that were stored"),
        ("UPDATE sources SET chain = NULL", "its events are not those that were stored"),
        ("DELETE FROM sources WHERE source LIKE '%envoy-2%'", "no row of its own"),
        ("UPDATE calls SET price = '9' WHERE position = 2", "calls, row 2: price is not what"),
        ("UPDATE calls SET customer = 'bolt' WHERE position = 5", "calls, row 5: customer is not"),
        ("DELETE FROM calls WHERE position = 2", "event at 2: it is in none of calls"),
        ("UPDATE generations SET output = 1", "generations, row 10: output is not what"),
        ("UPDATE call_hours SET price = '9'", "call_hours, hour 2026-07-01T10:00:00Z: it is not"),
        ("UPDATE call_hours SET customer = 'bolt'", "call_hours, hour 2026-07-01T10:00:00Z"),
        ("UPDATE call_hours SET key = 'other' WHERE billable = 0", "it is not the sum of calls"),
        ("UPDATE generation_hours SET hour_ms = 0", "generation_hours, hour 1970-01-01T00:00:00Z"),
        ("UPDATE generation_hours SET units = '{\"pages\":\"1\"}'", "not the sum of generations"),
        ("DELETE FROM generation_hours", "generation_hours, hour 2026-07-01T10:00:00Z: it is not"),
        ("DELETE FROM calls", "call_hours, hour 2026-07-01T10:00:00Z: it is not the sum of calls"),
        ("UPDATE superseded SET provider_cost = '0'", "superseded, row 8: provider_cost is not"),
        ("DELETE FROM superseded", "event at 8: it is in none of generations, superseded"),
        (
            "UPDATE roots SET root = previous WHERE number = 2",
            "root 2 of 2026-07-02T12:00:00Z: it is not signed",
        ),
        (
            "UPDATE roots SET sealed_at = '2026-07-02T11:00:00Z' WHERE number = 1",
            "it does not follow",
        ),
        ("DELETE FROM roots WHERE number = 1", "it does not follow the one before it"),
        // By who knows how digests are made.
        (
            "UPDATE events SET digest = repeated.digest FROM events AS repeated
             WHERE events.position = 2 AND repeated.position = 3",
            "root 1 of 2026-07-02T12:00:00Z: the 7 events",
        ),
    ] {
        let place = sealed();
        execute(&place.url, sql);
        let found = place.verify();
        assert!(found.listed.iter().any(|fault| fault.contains(expected)), "{sql}: {found:?}");
    }
}

#[test]
fn a_correction_that_is_changed_is_found() {
    for (sql, expected) in [
        // One that cannot even be read any more must not keep the rest from being looked at.
        ("UPDATE events SET raw = 'x' WHERE position = 3", "at 3: it was changed"),
        ("UPDATE events SET raw = 'x' WHERE position = 3", "corrected_calls, row 1: no event says"),
        ("DELETE FROM corrections", "corrections, row 3: it is not what the event says"),
        ("UPDATE corrections SET target_id = 'other'", "corrections, row 3: it is not what"),
        ("DELETE FROM corrected_calls", "event at 1: it is in none of calls"),
        ("INSERT INTO calls SELECT * FROM corrected_calls", "calls, row 1: no event says so"),
    ] {
        let place = Place::new();
        let ledger = open(&place.url);
        insert(&ledger, &[call(1, json!({})), call(2, json!({}))]);
        let void = json!({"correction_id": "v", "made_by": "jane", "reason": "a test",
            "kind": "void", "target_source": SOURCE, "target_id": format!("{:020}", 1)});
        ledger.correct(&[void]).expect("a correction");
        assert_eq!(place.verify().faults, 0);
        drop(ledger);
        execute(&place.url, sql);
        let found = place.verify();
        assert!(found.listed.iter().any(|fault| fault.contains(expected)), "{sql}: {found:?}");
    }
}

#[test]
fn a_proof_holds_for_its_event_and_for_nothing_else() {
    let place = sealed();
    let (_, public) = place.keys();
    let ledger = open(&place.url);
    let id = |sequence: u64| format!("{sequence:020}");
    let error = ledger.prove(&id(2), None).expect_err("two sources have it").to_string();
    assert!(error.contains("name the source"), "{error}");
    let error = ledger.prove(&id(99), Some(SOURCE)).expect_err("none").to_string();
    assert!(error.contains("no event"), "{error}");
    let error = ledger.prove(&id(11), Some(SOURCE)).expect_err("not sealed").to_string();
    assert!(error.contains("no root covers"), "{error}");
    for sequence in 1..=10 {
        let proof = ledger.prove(&id(sequence), Some(SOURCE)).expect("a proof");
        let text = serde_json::to_string(&proof).expect("JSON");
        let event: Value =
            serde_json::from_str(proof.check(&public).expect("it holds")).expect("JSON");
        assert_eq!(event["sequence"], id(sequence));
        // Without the event itself; each doubling of a day's events adds 43 bytes.
        let value: Value = serde_json::from_str(&text).expect("JSON");
        let own = text.len() - value["event"]["text"].to_string().len();
        assert!(own < 1_000, "{own}");
        for (place, byte) in
            text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric())
        {
            let mut other = text.clone().into_bytes();
            other[place] = if byte == b'1' { b'2' } else { b'1' };
            let other = String::from_utf8(other).expect("UTF-8");
            let still =
                serde_json::from_str::<Proof>(&other).is_ok_and(|it| it.check(&public).is_ok());
            assert!(!still, "a proof holds with another byte at {place}: {other}");
        }
    }
}

#[test]
fn a_file_that_is_no_key_is_refused_and_not_shown() {
    let place = Place::new();
    let missing = Path::new("/nonexistent/key.pem");
    assert!(SigningKey::read(missing).expect_err("no file").to_string().contains("cannot read"));
    for (text, expected) in [
        ("", "no PEM block \"PRIVATE KEY\""),
        ("-----BEGIN PRIVATE KEY-----\n*\n-----END PRIVATE KEY-----", "not base64"),
        (
            "-----BEGIN PRIVATE KEY-----\nMC4C\n-----END PRIVATE KEY-----",
            "no private key of Ed25519",
        ),
    ] {
        let error = SigningKey::read(&place.file("key.pem", text)).expect_err(text).to_string();
        assert!(error.contains(expected) && !error.contains("MC4C"), "{error}");
    }
}
