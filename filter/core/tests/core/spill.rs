//! The lines in Envoy's log, and the header by which the collector knows the filter.

use agent_meter_core::base::hash::hex;
use agent_meter_core::base::secret::Secret;
use agent_meter_core::config::Config;
use agent_meter_core::host::spill::{SPILL_TEXT_BYTES_MAX, Spill};
use agent_meter_core::sink::credential::Credential;
use serde_json::{Value, json};

use crate::host::Envoy;
use crate::support::test;

const SECRET: &str = "sixteen bytes or more";

fn lines(kind: &str, text: &str, secret: &str) -> Vec<String> {
    let secret = Secret::new(secret).unwrap_or_default();
    Spill { reason: "shutdown", kind, text, secret: &secret }.lines().collect()
}

/// The members of a line, and the text at its end.
fn members<'a>(line: &'a str, kind: &str) -> (Vec<(&'a str, &'a str)>, &'a str) {
    let (head, text) = line.split_once(&format!(" {kind}=")).unwrap();
    let members = head.strip_prefix("agent-meter spill ").unwrap().split(' ');
    (members.map(|member| member.split_once('=').unwrap()).collect(), text)
}

#[test]
fn a_short_text_is_one_line_as_it_always_was() {
    assert_eq!(
        lines("event", r#"{"id":"1"}"#, ""),
        [r#"agent-meter spill reason=shutdown event={"id":"1"}"#]
    );
    assert_eq!(lines("fact", "null", ""), ["agent-meter spill reason=shutdown fact=null"]);
    assert_eq!(lines("event", &"x".repeat(SPILL_TEXT_BYTES_MAX), "").len(), 1);
}

#[test]
fn a_long_text_is_cut_between_characters_into_numbered_parts() {
    for text in [
        "x".repeat(SPILL_TEXT_BYTES_MAX + 1),
        "é".repeat(SPILL_TEXT_BYTES_MAX),
        format!("x{}", "é".repeat(SPILL_TEXT_BYTES_MAX)),
        format!("xx{}", "🙂".repeat(10_000)),
    ] {
        for secret in ["", SECRET] {
            let lines = lines("event", &text, secret);
            let count = lines.len();
            let mut joined = String::new();
            let mut ids = Vec::new();
            for (at, line) in lines.iter().enumerate() {
                let (members, text) = members(line, "event");
                let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
                let signed = ["reason", "part", "of", "mac"];
                assert_eq!(names, if secret.is_empty() { &signed[..3] } else { &signed[..] });
                assert_eq!(members[1].1, format!("{}/{count}", at + 1));
                ids.push(members[2].1);
                assert!(text.len() <= SPILL_TEXT_BYTES_MAX, "{} bytes", text.len());
                joined += text;
            }
            assert!(joined == text && count > 1, "{count} parts");
            ids.dedup();
            assert_eq!(ids.len(), 1);
            assert_eq!(ids[0].len(), 16);
        }
    }
}

#[test]
fn each_line_is_signed_with_its_kind_and_its_place() {
    let secret = Secret::new(SECRET).unwrap();
    let mac = |message: String| hex(&secret.mac(&[message.as_bytes()])[..16]);
    let whole = lines("event", "{}", SECRET);
    let expected = mac("agent-meter-spill.v1\nevent\n\n{}".to_owned());
    assert_eq!(whole, [format!("agent-meter spill reason=shutdown mac={expected} event={{}}")]);
    let text = "y".repeat(SPILL_TEXT_BYTES_MAX + 1);
    let parts = lines("fact", &text, SECRET);
    let (first, _) = members(&parts[0], "fact");
    let (last, rest) = members(&parts[1], "fact");
    let id = first[2].1;
    let start = &text[..SPILL_TEXT_BYTES_MAX];
    assert_eq!(first[3].1, mac(format!("agent-meter-spill.v1\nfact\n1/2 {id}\n{start}")));
    assert_eq!(last[3].1, mac(format!("agent-meter-spill.v1\nfact\n2/2 {id}\n{rest}")));
}

/// The filter's lines carry what the configuration says.
#[test]
fn a_long_event_leaves_in_signed_parts() {
    let config = json!({
        "collector": { "secret": SECRET },
        "products": [{ "id": "crm", "type": "MCP_SERVER", "match": { "path": "/mcp" },
            "identity": { "customer": { "trusted_header": "x-customer-id" } } }],
    });
    let mut envoy = Envoy::new(&config.to_string());
    for tool in 0..64 {
        envoy.call("s", &format!("{tool:0>100}"), "{}");
        envoy.deliver(250);
    }
    envoy.host.lines.clear();
    let now = envoy.now;
    envoy.main.stop(&mut envoy.host, now);
    let parts: Vec<&String> =
        envoy.host.lines.iter().filter(|line| line.contains(" part=")).collect();
    assert!(parts.len() > 1, "{:?}", envoy.host.lines);
    let joined: String = parts.iter().map(|line| members(line, "event").1).collect();
    let event: Value = serde_json::from_str(&joined).unwrap();
    assert_eq!(event["data"]["calls_by_tool"].as_array().unwrap().len(), 64);
    assert!(envoy.host.lines.iter().all(|line| line.contains(" mac=") && line.len() < 6200));
}

fn config(collector: &Value) -> Result<Config, String> {
    let product = json!({"id": "mcp", "type": "MCP_SERVER", "match": {"path": "/mcp"}});
    let config = json!({ "collector": collector, "products": [product] });
    Config::from_bytes(config.to_string().as_bytes()).map_err(|refused| refused.to_string())
}

#[test]
fn a_batch_carries_the_header_that_the_configuration_asks_for() {
    let body = br#"[{"id":"1"}]"#;
    let header = |collector: &Value| config(collector).unwrap().collector.credential(body);
    assert_eq!(header(&json!({})), None);
    assert_eq!(header(&json!({ "authentication": "bearer" })), None);
    let signed = header(&json!({ "secret": SECRET })).unwrap();
    let mac = Secret::new(SECRET).unwrap().mac(&[b"agent-meter-batch.v1\n[{\"id\":\"1\"}]"]);
    assert_eq!(
        signed,
        Credential { name: "agent-meter-signature", value: format!("v1={}", hex(&mac)) }
    );
    let token = "token-of-16-bytes";
    let bearer = header(&json!({ "secret": token, "authentication": "bearer" })).unwrap();
    let value = format!("Bearer {token}");
    assert_eq!(bearer, Credential { name: "authorization", value });
    assert!(!format!("{bearer:?}").contains(token));
}

#[test]
fn every_batch_is_signed_and_no_output_shows_the_secret() {
    let config = json!({
        "collector": { "secret": SECRET },
        "products": [{ "id": "crm", "type": "MCP_SERVER", "match": { "path": "/mcp" },
            "identity": { "customer": { "trusted_header": "x-customer-id" } } }],
    });
    let mut envoy = Envoy::new(&config.to_string());
    envoy.call("s", "lookup", "{}");
    let mut requests = Vec::new();
    for _ in 0..8 {
        requests.extend(envoy.tick(250));
    }
    assert!(!requests.is_empty());
    let secret = Secret::new(SECRET).unwrap();
    for request in &requests {
        let mac = secret.mac(&[b"agent-meter-batch.v1\n", &request.body]);
        let header = request.credential.clone().unwrap();
        assert_eq!(header.value, format!("v1={}", hex(&mac)));
        assert!(!format!("{request:?}").contains(SECRET));
    }
    let read = self::config(&json!({ "secret": SECRET })).unwrap();
    assert!(!format!("{read:?}").contains(SECRET));
}

#[test]
fn a_secret_that_does_not_fit_is_refused_and_not_shown() {
    for (collector, expected) in [
        (json!({"secret": "fifteen bytes.."}), "expected a secret of at least 16 bytes"),
        (
            json!({"secret": "sixteen bytes and more\n"}),
            "expected a secret without white space around it",
        ),
        (
            json!({"secret": "sixteen bytes and more", "authentication": "bearer"}),
            "expected a secret of printable ASCII without white space, as it is sent in a header: `authentication: bearer`",
        ),
        (json!({"secret": 12345678901234567_u64}), "expected a text, which is not shown"),
    ] {
        let refused = config(&collector).unwrap_err();
        assert_eq!(refused, format!("collector.secret: {expected}"), "{collector}");
    }
    assert!(config(&json!({"authentication": "basic"})).is_err());
}
