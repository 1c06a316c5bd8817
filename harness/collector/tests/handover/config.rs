//! The file of sinks: what is wrong in it is named with its place, and secrets are never shown.

use crate::{KEY, Rig};

#[test]
fn a_wrong_file_names_the_place() {
    let rig = Rig::new();
    for (text, expected) in [
        ("sinks: {}", "sinks: must be 1 to 32, found 0"),
        ("[1]", "must be a mapping with `sinks`, found [1]"),
        ("sinks: {a: {type: x}}", "sinks.a.type: must be one of openmeter, metronome, lago"),
        ("sinks: {a: {}}", "sinks.a.type: missing"),
        ("sink: {}", "sink: unknown, expected one of sinks"),
        ("sinks: {a b: {type: lago}}", "sinks.a b: the name must be 1 to 64 of A-Z a-z 0-9 - _ ."),
        ("sinks: {a: {type: lago}}", "sinks.a.key_file: missing"),
        ("sinks: {a: {type: openmeter}}", "sinks.a.url: missing"),
        ("sinks: {a: {type: lago, key: x}}", "sinks.a.key: unknown, expected one of type, url"),
        ("sinks: {a: {type: lago, key_file: /none}}", "sinks.a.key_file: cannot read /none"),
        (
            "sinks: {a: {type: openmeter, url: 'ftp://x'}}",
            "sinks.a.url: must begin with http:// or https://, found \"ftp://x\"",
        ),
        (
            "sinks: {a: {type: openmeter, url: 'http://me:pass@x'}}",
            "sinks.a.url: must hold no user and no password; give key_file",
        ),
        (
            "sinks: {a: {type: openmeter, url: 'http://x?y=1'}}",
            "sinks.a.url: must have no query, found \"http://x?y=1\"",
        ),
        (
            "sinks: {a: {type: lago, key_file: '{key}', batch_events: 101}}",
            "sinks.a.batch_events: must be 1 to 100, found 101",
        ),
        (
            "sinks: {a: {type: lago, key_file: '{key}', from: here}}",
            "sinks.a.from: must be one of now, first, found \"here\"",
        ),
        (
            "sinks: {a: {type: lago, key_file: '{key}', events: [heartbeat]}}",
            "sinks.a.events: \"heartbeat\" is unknown, expected some of tool_invocation",
        ),
        (
            "sinks: {a: {type: lago, key_file: '{key}', meters: {api_call: {price: x}}}}",
            "sinks.a.meters.api_call: must be the name of a meter, found {\"price\":\"x\"}",
        ),
        (
            "sinks: {a: {type: amberflo, key_file: '{key}', meters: {api_call: {prise: x}}}}",
            "sinks.a.meters.api_call.prise: unknown, expected one of quantity, price",
        ),
        (
            "sinks: {a: {type: lago, key_file: '{key}', customers: {acme: 7}}}",
            "sinks.a.customers.acme: must be a string, found 7",
        ),
        ("sinks: {a: {type: stripe_stream, key_file: '{key}'}}", "sinks.a.customers: missing"),
        ("sinks: {a: {type: aforo, key_file: '{key}'}}", "sinks.a.tenant: missing"),
        ("sinks: {a: {type: json_lines}}", "sinks.a.file: missing"),
        (
            "sinks: {a: {type: json_lines, file: x, url: 'http://x'}}",
            "sinks.a.url: unknown, expected one of type, events",
        ),
        (
            "sinks: {a: {type: clickhouse, url: 'http://x', table: 'x; DROP'}}",
            "sinks.a.table: must be of A-Z a-z 0-9 _ ., found \"x; DROP\"",
        ),
    ] {
        let error = rig.sinks(text).expect_err(text);
        let error = format!("{error:#}");
        assert!(error.contains(expected), "{text}\n{error}\nlacks {expected}");
    }
}

#[test]
fn a_key_is_one_line_and_never_shown() {
    let rig = Rig::new();
    let text = "sinks: {a: {type: lago, key_file: '{key}'}}";
    let shown = format!("{:?}", rig.sinks(text).expect("sinks"));
    assert!(!shown.contains(KEY), "{shown}");
    for (key, expected) in [("", "must not be empty"), ("one\ntwo", "must be one line of ASCII")] {
        std::fs::write(rig.path("key"), key).expect("a key");
        let error = format!("{:#}", rig.sinks(text).expect_err(key));
        assert!(error.contains(expected) && !error.contains("two"), "{error}");
    }
}

#[test]
fn the_example_of_the_readme_is_read() {
    let readme = include_str!("../../README.md");
    let example = readme.split("```yaml\nsinks:").nth(1).expect("an example");
    let example = example.split("```").next().expect("its end");
    let rig = Rig::new();
    let text = format!("sinks:{example}");
    let key = rig.path("key");
    let key = key.to_str().expect("UTF-8");
    let text: String = text
        .lines()
        .map(|line| match line.split_once("key_file: ") {
            Some((before, rest)) => {
                let after = rest.find([',', '}']).map_or("", |at| &rest[at..]);
                format!("{before}key_file: {key}{after}\n")
            }
            None => format!("{line}\n"),
        })
        .collect();
    let names = rig.sinks(&text).expect("sinks").names();
    assert!(names.len() >= 5, "{names:?}");
}
