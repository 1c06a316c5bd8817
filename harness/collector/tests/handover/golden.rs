//! Each sink's requests, byte by byte, and their bounds.

use serde_json::json;

use crate::receiver::{Came, Receiver};
use crate::{Rig, call, calls, each_vendor, generation, state, store, vendors};

/// Two calls, of which one is not billed, a generation, and one that takes its place.
fn told() -> Vec<serde_json::Value> {
    vec![
        call(1, json!({"tool_name": "say \"hi\" & <go> é"})),
        call(2, json!({"execution_status": "ERROR", "billable": false, "price": "0"})),
        generation(3, 1000, json!({})),
        generation(4, 700, json!({"supersedes": "0.1.3", "price": "0.0023"})),
    ]
}

fn shown(came: &[Came]) -> String {
    let mut text = String::new();
    for came in came {
        text.push_str(&format!("POST {}\n", came.path));
        let own = ["host", "content-length", "user-agent"];
        for (name, value) in came.headers.iter().filter(|(name, _)| !own.contains(&name.as_str())) {
            text.push_str(&format!("{name}: {}\n", value.to_str().expect("ASCII")));
        }
        text.push_str(&format!("\n{}\n\n", came.body));
    }
    text
}

#[tokio::test]
async fn each_sink_sends_what_its_vendor_documents() {
    for (vendor, receiver, sinks) in each_vendor().await {
        let rig = Rig::new();
        let collector = rig.start(&sinks).await;
        store(&collector.ledger(), &told());
        rig.until_done(&collector, vendor.name).await;
        collector.stop().await;
        let found = shown(&receiver.with(|inbox| inbox.came.clone()));
        let file =
            format!("{}/tests/handover/golden/{}.txt", env!("CARGO_MANIFEST_DIR"), vendor.name);
        if std::env::var_os("WRITE_GOLDEN").is_some() {
            std::fs::write(&file, &found).expect("a file");
        }
        let expected = std::fs::read_to_string(&file).expect("a golden file");
        assert_eq!(found, expected, "{}: after a change run with WRITE_GOLDEN=1", vendor.name);
    }
}

#[tokio::test]
async fn a_sink_for_snake_case_and_one_for_several_meters() {
    let meters = "{tool_invocation: {quantity: calls, price: money}, \
                  token_consumption: {input_tokens: llm_in, output_tokens: llm_out}}";
    for (name, more, expected) in [
        ("aforo", ", case: snake", vec!["\"customer_id\":", "\"execution_duration_ms\":12"]),
        (
            "stripe_stream",
            ", decimals: 6",
            vec![
                r#""event_name":"calls""#,
                r#""event_name":"money""#,
                r#""value":"1000""#,
                r#""event_name":"llm_in""#,
                r#""event_name":"llm_out""#,
                r#""value":"-300""#,
            ],
        ),
        ("amberflo", "", vec![r#""meterValue":0.001"#, r#""meterValue":-300"#]),
    ] {
        let vendor = vendors::vendor(name);
        let receiver = Receiver::start(vendor).await;
        let rig = Rig::new();
        let more = match name {
            "aforo" => more.to_owned(),
            _ => format!("{more}, meters: {meters}"),
        };
        // Aforo's schema in these tests is the other one.
        if name == "aforo" {
            receiver.with(|inbox| inbox.always = Some(crate::receiver::Act::Answer(202, None)));
        }
        let collector = rig.start(&receiver.sinks(&more)).await;
        store(&collector.ledger(), &told());
        rig.until_done(&collector, name).await;
        collector.stop().await;
        let body = receiver.with(|inbox| inbox.came[0].body.clone());
        for expected in expected {
            assert!(body.contains(expected), "{name}: {expected} in {body}");
        }
    }
}

#[tokio::test]
async fn no_request_is_larger_than_its_receiver_takes() {
    for (vendor, receiver, sinks) in each_vendor().await {
        let rig = Rig::new();
        let collector = rig.start(&sinks).await;
        let count = if vendor.records_max == 1 { 50 } else { 1100 };
        store(&collector.ledger(), &calls(1..=count));
        let long = |sequence: u64| {
            let name = format!("{sequence}{}", "\"".repeat(150_000));
            call(sequence, json!({ "tool_name": name }))
        };
        let long: Vec<_> = (count + 1..=count + 20).map(long).collect();
        store(&collector.ledger(), &long);
        rig.until_done(&collector, vendor.name).await;
        let state = state(&collector.ledger(), vendor.name);
        assert_eq!((state.handed, state.failures), (count + 20, 0), "{}", vendor.name);
        assert_eq!(state.set_aside, [], "{}", vendor.name);
        receiver.with(|inbox| {
            for came in &inbox.came {
                let records = (vendor.records)(came).len();
                assert!(records <= vendor.records_max, "{}: {records}", vendor.name);
                assert!(came.body.len() <= vendor.bytes_max, "{}", vendor.name);
            }
            assert!(inbox.came.len() as u64 <= count + 20, "{}", vendor.name);
        });
        collector.stop().await;
    }
}
