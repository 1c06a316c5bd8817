//! Whose lines are taken: with a secret only those that it has signed, from nobody but Envoy's Wasm
//! logger.

use agent_meter_collector::SharedSecret;
use agent_meter_collector::recover::{Authentication, Target, recover};

use super::forms::Receiver;
use super::{ATTACKS, EVENTS, LOGS, SECRET, key, log, options, recovered};

#[tokio::test]
async fn with_another_secret_nothing_is_taken_and_every_line_is_named() {
    let other = SharedSecret::unnamed("another secret of the samples").expect("a secret");
    for (name, text) in LOGS {
        let (found, ledger) = recovered(name, text, &options(Some(other.clone()))).await;
        assert_eq!((found.taken, found.untrusted.count()), (0, found.lines), "{name}: {found:?}");
        let expected = if name == "envoy-old.log" { ": unsigned" } else { ": forged, or signed" };
        assert!(found.untrusted.iter().all(|text| text.contains(expected)), "{name}: {found:?}");
        assert_eq!(ledger.count_events().expect("a count"), 0, "{name}");
        assert!(!found.is_complete() && found.foreign.count() == ATTACKS);
    }
}

#[tokio::test]
async fn one_of_several_secrets_is_enough() {
    let other = || SharedSecret::unnamed("another secret of the samples").expect("a secret");
    for secrets in [vec![key(), other()], vec![other(), key()], vec![other(), key(), other()]] {
        let several = agent_meter_collector::recover::Options { secrets, ..options(None) };
        let (found, _) = recovered("a.log", LOGS[0].1, &several).await;
        assert!(found.taken == EVENTS && found.is_complete(), "{found:?}");
        assert_eq!(found.unchecked, 0);
    }
}

#[tokio::test]
async fn a_line_that_was_changed_is_forged() {
    let text = LOGS[0].1;
    let (first, count) =
        ("\"customer_id\":\"acme\"", text.matches("\"customer_id\":\"acme\"").count());
    assert!(count >= 3, "the sample has {count}");
    for (what, changed, taken) in [
        ("the text", text.replacen(first, "\"customer_id\":\"evil\"", 1), EVENTS - 1),
        ("the kind", text.replacen(" event={", " fact={", 1), EVENTS - 1),
        ("the number", text.replace(" part=1/5 ", " part=2/5 "), EVENTS - 1),
        ("the text that it is of", text.replace(" of=", " of=0"), EVENTS - 1),
    ] {
        let (found, _) = recovered("a.log", changed, &options(Some(key()))).await;
        assert_eq!(found.taken, taken, "{what}: {found:?}");
        assert!(!found.untrusted.is_empty(), "{what}: {found:?}");
    }
    // Without a secret nobody can tell.
    let changed = text.replace("\"tool_name\":\"lookup\"", "\"tool_name\":\"dearer\"");
    assert_ne!(changed, text);
    let (found, _) = recovered("a.log", changed, &options(None)).await;
    assert_eq!((found.taken, found.untrusted.count()), (EVENTS, 0), "{found:?}");
}

/// A stranger's text at the start of the second part of a line that was cut.
#[tokio::test]
async fn the_rest_of_a_line_that_was_cut_is_never_a_line_of_its_own() {
    let (_, text) = LOGS[0];
    let spilled = text.lines().find(|line| line.contains("wasm log ")).expect("a line");
    let head = "[2026-11-27T16:26:44.393Z] \"GET /";
    let long = format!("{head}{}{spilled}", "x".repeat(16 * 1024 - head.len()));
    for carried in
        [super::carriers::cri(long.as_bytes(), "stdout"), super::carriers::docker(long.as_bytes())]
    {
        let second = carried.split(|byte| *byte == b'\n').nth(1).expect("a second part");
        let second = String::from_utf8_lossy(second);
        let begins = [" F [2026-11-27 16:26:48", "{\"log\":\"[2026-11-27 16:26:48"];
        assert!(begins.iter().any(|begin| second.contains(begin)), "{second}");
        let (found, _) = recovered("a.log", carried.clone(), &options(None)).await;
        assert_eq!((found.taken, found.lines, found.foreign.count()), (0, 0, 1), "{found:?}");
    }
}

/// An access log that is JSON for its reader and text for Envoy, which then escapes nothing: a
/// stranger can add members.
#[tokio::test]
async fn members_that_a_stranger_added_are_not_taken() {
    let (_, text) = LOGS[0];
    let spilled = text.lines().find(|line| line.contains("wasm log ")).expect("a line");
    let said = &spilled[spilled.find("wasm log ").expect("a message")..];
    let (spilled, said) = (serde_json::json!(spilled), serde_json::json!(said));
    let envoy = format!(r#""level":"warning","scope":"envoy wasm","msg":{said}"#);
    for added in [
        envoy.clone(),
        format!(r#""log":{spilled}"#),
        format!(r#""message":{spilled},"stream":"stdout""#),
        format!(r#""record":{{{envoy}}}"#),
        format!(r#""record":{{"log":{spilled}}}"#),
    ] {
        for written in [
            format!(r#"{{"method":"POST","ua":"x",{added}}}"#),
            format!(r#"{{"start":"2026","user_agent":"x",{added},"status":200}}"#),
        ] {
            let carried = super::carriers::docker(written.as_bytes());
            for log in [written.into_bytes(), carried] {
                let (found, _) = recovered("a.log", log, &options(None)).await;
                assert_eq!((found.taken, found.lines), (0, 0), "{added}: {found:?}");
                assert_eq!(found.foreign.count(), 1, "{added}: {found:?}");
            }
        }
    }
}

#[tokio::test]
async fn the_collector_gets_the_secret_as_it_wants_it() {
    let (_, text) = LOGS[0];
    for (how, name) in [
        (Authentication::Signature, "agent-meter-signature"),
        (Authentication::Bearer, "authorization"),
    ] {
        let server = Receiver::start().await;
        let target = Target::Collector(server.remote().with_secret(Some(key()), how));
        let logs = [log("a.log", text)];
        let found = recover(logs, &target, &options(Some(key()))).await.expect("taken");
        assert_eq!(found.taken, EVENTS);
        let (headers, body) = server.requests().remove(0);
        let told = headers[name].to_str().expect("text");
        if how == Authentication::Bearer {
            assert_eq!(told, format!("Bearer {SECRET}"));
        } else {
            assert_eq!(told, format!("v1={}", mac(&format!("agent-meter-batch.v1\n{body}"))));
        }
        assert!(!format!("{target:?} {:?}", key()).contains(SECRET));
    }
}

/// HMAC-SHA256 with [`SECRET`], in hexadecimal digits.
fn mac(message: &str) -> String {
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(message.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_short_secret_is_refused_and_not_shown() {
    let error = SharedSecret::unnamed("fifteen bytes..\n").expect_err("short").to_string();
    assert_eq!(error, "the secret default: must be at least 16 bytes, found 15");
}
