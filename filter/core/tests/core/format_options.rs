//! What the configuration says of formats: headers and names that are refused, and what a check warns
//! of.

use agent_meter_core::config::Config;
use serde_json::{Value, json};

use crate::formats::config;
use crate::support::test;

#[test]
fn headers_that_do_not_fit_are_refused_and_no_value_is_shown() {
    const VALUE: &str = "sk_live_4711";
    let read = |collector: Value| Config::from_bytes(config(&collector).as_bytes());
    let many: Value =
        (0..17).map(|at| (format!("x-{at}"), json!("a"))).collect::<serde_json::Map<_, _>>().into();
    let secret = "a-secret-of-enough-bytes";
    for (collector, expected) in [
        (json!({"headers": {"x-api-key": VALUE, "x-tenant-id": "t 1"}}), None),
        (json!({"headers": {"authorization": format!("Bearer {VALUE}")}}), None),
        (json!({"secret": secret, "headers": {"authorization": VALUE}}), None),
        (
            json!({"secret": secret, "authentication": "bearer", "headers": {"authorization": VALUE}}),
            Some("collector.headers.authorization: the filter sets"),
        ),
        (
            json!({"headers": {":path": VALUE}}),
            Some("collector.headers: expected a header name in lower case, found \":path\""),
        ),
        (
            json!({"headers": {"X-Api-Key": VALUE}}),
            Some("collector.headers: expected a header name in lower case"),
        ),
        (json!({"headers": {"": VALUE}}), Some("collector.headers: expected a header name")),
        (json!({"headers": {"host": VALUE}}), Some("collector.headers.host: the filter sets")),
        (
            json!({"headers": {"content-type": VALUE}}),
            Some("collector.headers.content-type: the filter sets"),
        ),
        (
            json!({"headers": {"content-length": VALUE}}),
            Some("collector.headers.content-length: the filter sets"),
        ),
        (
            json!({"headers": {"agent-meter-signature": VALUE}}),
            Some("collector.headers.agent-meter-signature: the filter sets"),
        ),
        (
            json!({"headers": {"connection": VALUE}}),
            Some("collector.headers.connection: this header is of one connection"),
        ),
        (
            json!({"headers": {"te": VALUE}}),
            Some("collector.headers.te: this header is of one connection"),
        ),
        (
            json!({"headers": {"x-a": format!("{VALUE}\r\nx-b: 1")}}),
            Some("collector.headers.x-a: expected printable ASCII"),
        ),
        (
            json!({"headers": {"x-a": format!("{VALUE}\u{e9}")}}),
            Some("collector.headers.x-a: expected printable ASCII"),
        ),
        (
            json!({"headers": {"x-a": format!(" {VALUE}")}}),
            Some("collector.headers.x-a: expected printable ASCII"),
        ),
        (json!({"headers": {"x-a": ""}}), Some("collector.headers.x-a: expected printable ASCII")),
        (
            json!({"headers": {"x-a": VALUE.repeat(400)}}),
            Some("collector.headers.x-a: expected at most 4096 bytes"),
        ),
        (json!({"headers": {"x-a": [VALUE]}}), Some("collector.headers")),
        (json!({ "headers": many }), Some("collector.headers: expected at most 16 headers")),
        (
            json!({"cost_attributes": true}),
            Some("collector.cost_attributes: only `format: otlp_logs`"),
        ),
        (
            json!({"metric_names": {"ai_tokens": "x"}}),
            Some("collector.metric_names: only `format: aforo`"),
        ),
        (
            json!({"format": "aforo", "metric_names": {"tokens": "x"}}),
            Some("collector.metric_names.tokens: expected one of tool_invocations"),
        ),
        (
            json!({"format": "aforo", "metric_names": {"ai_tokens": ""}}),
            Some("collector.metric_names.ai_tokens: expected a name of 1 to 255"),
        ),
    ] {
        match (read(collector.clone()), expected) {
            (Ok(config), None) => {
                let shown = format!("{:?}", config.collector);
                assert!(!shown.contains(VALUE), "{shown}");
                assert_eq!(config.collector.own_headers().count(), config.collector.headers.len());
            }
            (Err(refused), Some(expected)) => {
                let refused = refused.to_string();
                assert!(refused.starts_with(expected), "{collector}: {refused}");
                assert!(!refused.contains(VALUE), "{refused}");
            }
            (read, _) => panic!("{collector}: {read:?}"),
        }
    }
}

#[test]
fn a_check_warns_of_what_a_format_leaves_out() {
    let guards = json!([{"id": "all", "budget": {"calls": 5}, "scope": "customer", "period": "day", "fleet": true, "actions": {"level_1": {"threshold": "30%"}}}]);
    for (collector, guards, expected) in [
        (json!({}), json!([]), &[][..]),
        (
            json!({"format": "otlp_logs", "path": "/v1/logs"}),
            json!([]),
            &["collector.format: events that cannot"],
        ),
        (
            json!({"format": "otlp_logs"}),
            json!([]),
            &[
                "collector.format: ",
                "collector.path: \"/v1/events\" is the path of our collector; receivers of otlp_logs have \"/v1/logs\"",
            ],
        ),
        (
            json!({"format": "aforo", "path": "/v1/ingest/batch"}),
            json!([]),
            &["collector.format: sessions, guards, heartbeats"],
        ),
        (
            json!({"format": "aforo", "path": "/v1/ingest/batch"}),
            guards,
            &["collector.format: ", "guards[0].fleet: guard \"all\" never learns"],
        ),
    ] {
        let mut text: Value = serde_json::from_str(&config(&collector)).unwrap();
        text["guards"] = guards;
        let config = Config::from_bytes(text.to_string().as_bytes()).unwrap();
        let warnings = config.warnings().iter().map(ToString::to_string).collect::<Vec<_>>();
        let of_format = ["collector.", "guards[0].fleet"];
        let warnings: Vec<&String> = warnings
            .iter()
            .filter(|warning| of_format.iter().any(|start| warning.starts_with(start)))
            .collect();
        assert_eq!(warnings.len(), expected.len(), "{collector}: {warnings:?}");
        for (warning, start) in warnings.iter().zip(expected) {
            assert!(warning.starts_with(start), "{warning}");
        }
    }
}
