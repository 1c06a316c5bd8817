//! The loop breaker: the same tool with the same arguments, again and again in one session.

use agent_meter_core::domain::level::Level;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::protocol::mcp::message_reader::MessageReader;
use serde_json::{Value, json};

use crate::guarded::{Guarded, levels};
use crate::support::{cuts, test};

/// More than 5 in 16 s.
fn guarded(more: &Value) -> Guarded {
    let mut rules = json!({
        "id": "loops", "scope": "session", "period": "session",
        "loop": { "calls": 5, "window": "16s" },
        "actions": { "level_2": { "throttle_rate": "1req/s", "notify": ["ops"] } },
    });
    for (name, value) in more.as_object().unwrap() {
        rules[name] = value.clone();
    }
    Guarded::new(&json!([rules]))
}

impl Guarded {
    /// A call in a session of acme's, which is answered at once if it passes; gives the status and the mark.
    fn repeat(&mut self, session: &str, tool: &str, arguments: &str) -> (u16, Level) {
        let head = [
            (":method", "POST"),
            (":path", "/mcp"),
            ("x-customer-id", "acme"),
            ("mcp-session-id", session),
        ];
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"one","method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
        );
        let became = self.send(&head, &body);
        let status = became.status();
        if status != 200 {
            return (status, Level::Throttle);
        }
        let mark = became.mark();
        self.finish(became.stream());
        (status, mark)
    }
}

#[test]
fn the_same_call_more_often_than_allowed_throttles_its_session_until_it_stops() {
    let mut guarded = guarded(&json!({}));
    for number in 0..5 {
        assert_eq!(guarded.repeat("a", "search", r#"{"q":"x"}"#), (200, Level::None));
        // Neither other arguments, nor another tool, nor another session are the same.
        guarded.repeat("a", "search", &format!(r#"{{"q":{number}}}"#));
        guarded.repeat("a", "fetch", r#"{"q":"x"}"#);
        guarded.repeat("b", "search", r#"{"q":"x"}"#);
    }
    guarded.settle();
    assert_eq!(guarded.levels(), []);
    // White space is no difference.
    assert_eq!(guarded.repeat("a", "search", r#"{ "q" : "x" }"#), (200, Level::None));
    guarded.settle();
    assert_eq!(guarded.levels(), levels(&[("NONE", "L2_THROTTLE", "repeated_call")]));
    let event = guarded.last("loop_level_changed");
    for (name, value) in [
        ("guard_kind", json!("loop")),
        ("scope", json!("session")),
        ("customer_id", json!("acme")),
        ("tool_name", json!("search")),
        ("used", json!("6")),
        ("limit", json!("5")),
        ("unit", json!("repeated_calls")),
        ("action", json!("throttle")),
        ("notify", json!(["ops"])),
        ("margin", json!(null)),
        ("threshold", json!(null)),
    ] {
        assert_eq!(event[name], value, "{name}");
    }

    assert_eq!(guarded.repeat("b", "search", "{}"), (200, Level::None), "another session");
    assert_eq!(guarded.repeat("a", "search", r#"{"q":"x"}"#), (200, Level::Throttle));
    let refused = guarded.repeat("a", "search", r#"{"q":"x"}"#);
    assert_eq!(refused, (429, Level::Throttle), "one a second");
    assert!(guarded.count(Counter::GuardThrottled) > 0);

    // What is refused is no call: a client that hammers does not keep itself there.
    for _ in 0..20 {
        guarded.repeat("a", "other", "{}");
        assert_eq!(guarded.repeat("a", "search", r#"{"q":"x"}"#).0, 429);
    }
    for _ in 0..20 {
        guarded.settle();
    }
    let expected = [("NONE", "L2_THROTTLE", "repeated_call"), ("L2_THROTTLE", "NONE", "recovered")];
    assert_eq!(guarded.levels(), levels(&expected));
    assert_eq!(guarded.repeat("a", "search", r#"{"q":"x"}"#), (200, Level::None));
}

#[test]
fn calls_without_arguments_are_the_same_and_calls_far_apart_are_no_loop() {
    let mut guarded = guarded(&json!({}));
    for _ in 0..30 {
        guarded.call_with("acme", "poll", &[("mcp-session-id", "a")]);
        guarded.repeat("a", "poll", "{}");
        guarded.settle();
        guarded.settle();
    }
    assert_eq!(guarded.levels(), [], "4 s apart");
    for _ in 0..6 {
        let became = guarded.call_with("acme", "poll", &[("mcp-session-id", "a")]);
        guarded.finish(became.stream());
    }
    guarded.settle();
    assert_eq!(guarded.levels(), levels(&[("NONE", "L2_THROTTLE", "repeated_call")]));
}

#[test]
fn a_guard_that_observes_only_tells() {
    let mut guarded = guarded(&json!({ "mode": "observe" }));
    for _ in 0..20 {
        assert_eq!(guarded.repeat("a", "search", "{}"), (200, Level::None));
    }
    guarded.settle();
    assert_eq!(guarded.levels(), levels(&[("NONE", "L2_THROTTLE", "repeated_call")]));
    for _ in 0..5 {
        assert_eq!(guarded.repeat("a", "search", "{}"), (200, Level::None));
    }
    assert!(guarded.count(Counter::GuardWouldThrottle) > 0);
    assert_eq!(guarded.count(Counter::GuardThrottled), 0);
}

fn hash(params: &str) -> Option<u64> {
    let text = format!(r#"{{"id":1,"method":"tools/call","params":{{{params}}}}}"#);
    let mut found = Vec::new();
    for cut in cuts(text.as_bytes()) {
        let mut reader = MessageReader::new(true);
        for chunk in cut {
            reader.feed(chunk, &mut |message| found.push(message.arguments));
        }
    }
    let first = *found.first().unwrap();
    assert!(found.iter().all(|hash| *hash == first), "{params}: not the same however it is cut");
    first
}

#[test]
fn arguments_are_the_same_by_their_text_without_white_space() {
    let one = r#""name":"t","arguments":{"a":"x y","b":[1,2,{"c":null}]}"#;
    for same in [
        "\"name\":\"t\",\"arguments\":{ \"a\" : \"x y\" ,\r\n \"b\":[1, 2,\t{\"c\": null}] }",
        r#""arguments":{"a":"x y","b":[1,2,{"c":null}]},"name":"other""#,
        r#""arguments":{"b":1},"arguments":{"a":"x y","b":[1,2,{"c":null}]},"name":"t""#,
    ] {
        assert_eq!(hash(one), hash(same), "{same}");
    }
    for other in [
        r#""arguments":{"a":"x  y","b":[1,2,{"c":null}]}"#,
        r#""arguments":{"a":"xy","b":[1,2,{"c":null}]}"#,
        r#""arguments":{"a":"x y","b":[12,{"c":null}]}"#,
        r#""arguments":{"a":"x y\" ","b":[1,2,{"c":null}]}"#,
        r#""arguments":{"b":[1,2,{"c":null}],"a":"x y"}"#,
        r#""arguments":{}"#,
        r#""name":"t""#,
    ] {
        assert_ne!(hash(one), hash(other), "{other}");
    }
    assert_ne!(hash(r#""arguments":{"a":"\" ,"}"#), hash(r#""arguments":{"a":"\","}"#));
    let mut reader = MessageReader::default();
    reader.feed(br#"{"id":1,"method":"tools/call","params":{"arguments":{}}}"#, &mut |message| {
        assert_eq!(message.arguments, None, "not asked for");
    });
}
