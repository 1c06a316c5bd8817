//! Tests `agent-meter reconcile` as it is run.

mod support;

use agent_meter_collector::{Clock, Ledger};
use serde_json::json;

use support::{Files, command, run};

/// A call in the ledger, as the filter tells it.
fn call(sequence: u64, call_id: &str) -> serde_json::Value {
    let id = format!("{sequence:020}");
    json!({
        "specversion": "1.0", "id": id, "source": "urn:agent-meter:edge:1", "sequence": id,
        "type": "agent-meter.tool_invocation", "time": format!("2026-11-25T10:00:0{sequence}.000Z"),
        "subject": "acme", "datacontenttype": "application/json",
        "data": {
            "event_type": "tool_invocation", "product_id": "mcp", "product_type": "MCP_SERVER",
            "customer_id": "acme", "team_id": "blue", "agent_id": "robot",
            "session_id": "0".repeat(32), "session_key": "1".repeat(32),
            "metric_id": "tool_invocations", "quantity": 1, "call_id": call_id, "tool_name": "t",
            "execution_status": "SUCCESS", "execution_duration_ms": 5, "http_status": 200,
            "transport": "json", "cost_tier": "standard", "billable": true, "price": "0.01",
            "currency": "USD", "request_id": format!("r-{sequence}"),
        },
    })
}

fn line(call_id: &str, request_id: &str) -> String {
    let line = json!({
        "start_time": "2026-11-25T10:00:00.000Z", "request_id": request_id,
        "agent_meter.call_id": call_id, "agent_meter.status": "SUCCESS",
    });
    format!("{line}\n")
}

#[test]
fn a_log_is_compared_with_the_ledger_and_each_difference_named() {
    let files = Files::new();
    let ledger = files.ledger();
    let events = json!([call(1, "0.1.0.0"), call(2, "0.1.1.0"), call(3, "0.1.2.0")]);
    let stored = Ledger::open(&ledger).expect("a ledger");
    let receipt = stored
        .insert_batch(events.to_string().as_bytes(), "application/cloudevents-batch+json")
        .expect("a batch");
    assert_eq!(receipt.accepted, 3, "{receipt:?}");
    drop(stored);
    let all = [("0.1.0.0", "r-1"), ("0.1.1.0", "r-2"), ("0.1.2.0", "r-3")];
    let whole: String = all.iter().map(|(call_id, request_id)| line(call_id, request_id)).collect();
    let whole = format!("GET /health 200\n{whole}");
    for (name, log, status, out, err) in [
        (
            "the same",
            whole.clone(),
            0,
            "3 lines of the log tell of calls or generations, 1 do not; 3 match\n",
            "",
        ),
        (
            "the second is not in the log",
            format!("{}{}", line("0.1.0.0", "r-1"), line("0.1.2.0", "r-3")),
            1,
            "2 lines of the log tell of calls or generations, 0 do not; 2 match\n\
             1 in the ledger only:\n  0.1.1.0\n",
            "error: the log and the ledger differ\n",
        ),
        (
            "another Envoy's call with the same id",
            format!("{whole}{}", line("0.1.1.0", "r-9")),
            1,
            "4 lines of the log tell of calls or generations, 1 do not; 3 match\n\
             1 in the log only:\n  0.1.1.0\n",
            "error: the log and the ledger differ\n",
        ),
        (
            "no access log",
            "nothing\n".to_owned(),
            1,
            "0 lines of the log tell of calls or generations, 1 do not; 0 match\n",
            "error: no line of the log tells of a call or a generation\n",
        ),
    ] {
        let log = files.with("access.log", log);
        let ended = run(&["reconcile", "--access-log", &log, "--ledger", &ledger]);
        assert_eq!((ended.status, &*ended.out, &*ended.err), (status, out, err), "{name}");
    }
    let log = files.with("access.log", whole);
    let ended = run(&["reconcile", "--access-log", &log, "--ledger", &ledger, "--json"]);
    let told: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!((&told["matched"], &told["not_in_log"]["count"]), (&json!(3), &json!(0)));
    let missing = run(&["reconcile", "--access-log", "/nowhere", "--ledger", &ledger]);
    assert_eq!(missing.status, 1);
    assert!(missing.err.starts_with("error: cannot read /nowhere"), "{missing:?}");
}

/// A generation of GPT-4o with so many tokens, at 2.5 and 10 US dollars for a million.
fn generation(sequence: u64, time: &str, [input, output]: [u64; 2]) -> serde_json::Value {
    let id = format!("{sequence:020}");
    let money = |millionths: u64| {
        rust_decimal::Decimal::new(i64::try_from(millionths).expect("small"), 7)
            .normalize()
            .to_string()
    };
    let (of_input, of_output) = (input * 25, output * 100);
    json!({
        "specversion": "1.0", "id": id, "source": "urn:agent-meter:edge:1", "sequence": id,
        "type": "agent-meter.token_consumption", "time": time, "subject": "acme",
        "datacontenttype": "application/json",
        "data": {
            "event_type": "token_consumption", "product_id": "llm", "product_type": "MCP_SERVER",
            "customer_id": "acme", "team_id": "blue", "agent_id": "robot",
            "session_id": "0".repeat(32), "session_key": "1".repeat(32),
            "metric_id": "ai_tokens", "quantity": input + output,
            "generation_id": format!("0.1.{sequence}"), "attribution": "none",
            "provider": "openai", "model": "gpt-4o-2024-08-06", "service_tier": "standard",
            "usage_source": "body", "completeness": "COMPLETE", "estimated": false,
            "tokens": {"input": input, "output": output},
            "cost_lines": [
                {"kind": "input", "tokens": input, "rate_per_million": "2.5", "cost": money(of_input)},
                {"kind": "output", "tokens": output, "rate_per_million": "10", "cost": money(of_output)},
            ],
            "priced": true, "total_provider_cost": money(of_input + of_output),
            "rate_card": "2026-06-01", "price": "0", "currency": "USD", "http_status": 200,
            "duration_ms": 900, "streamed": false,
        },
    })
}

/// The blocks of code of the section about bills, each behind the name of its language.
fn blocks() -> Vec<(String, String)> {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/collector/README.md");
    let text = std::fs::read_to_string(readme).expect("a README");
    let section = text.split("\n## ").find(|section| section.starts_with("The provider's bill"));
    let mut parts = section.expect("a section").split("```");
    let mut blocks = Vec::new();
    while let (Some(_), Some(block)) = (parts.next(), parts.next()) {
        let (language, text) = block.split_once('\n').expect("a line");
        blocks.push((language.to_owned(), text.to_owned()));
    }
    blocks
}

#[test]
fn the_bill_of_the_readme_is_compared_as_it_says() {
    let files = Files::new();
    let ledger = files.ledger();
    let events = json!([
        generation(1, "2026-07-01T09:00:00Z", [10_000, 2_000]),
        generation(2, "2026-07-02T09:00:00Z", [50_000, 0]),
    ]);
    // 2026-07-08: what is older than its bounds would be kept apart.
    let stored = Ledger::open_at(&ledger, Clock::new(|| 1_783_468_800_000)).expect("a ledger");
    let receipt =
        stored.insert_batch(events.to_string().as_bytes(), "application/cloudevents-batch+json");
    let receipt = receipt.expect("a batch");
    assert_eq!(receipt.accepted, 2, "{receipt:?}");
    drop(stored);
    let blocks = blocks();
    let [(csv, bill), (sh, line), (text, expected)] = &blocks[..] else { panic!("{blocks:?}") };
    assert_eq!((&**csv, &**sh, &**text), ("csv", "sh", "text"));
    files.with("costs.csv", bill);
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    let mut command = command(&words);
    let output = command.current_dir(files.at("")).output().expect("a command");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!((&*out, &*err, output.status.code()), (&**expected, "", Some(0)));

    let bill = files.with("costs.csv", bill);
    let words = ["reconcile", "--bill", &bill, "--ledger", &ledger];
    let fatal = run(&[&words[..], &["--fail-on", "tokens_differ"]].concat());
    let expected =
        "error: tokens_differ in 1 of 3 rows, the first of 2026-07-01, \"gpt-4o-2024-08-06\"\n";
    assert_eq!((fatal.status, &*fatal.err), (1, expected));
    let fatal = run(&[&words[..], &["--fail-on", "tokens_differ", "--tolerance", "0.1"]].concat());
    assert_eq!((fatal.status, &*fatal.err), (0, ""));
    let told = run(&[&words[..], &["--json", "--from", "2026-07-02"]].concat());
    let told: serde_json::Value = serde_json::from_str(&told.out).expect("JSON");
    assert_eq!((&told["from"], &told["total"]["bill"]), (&json!("2026-07-02"), &json!("0.525")));
    assert_eq!(told["rows"][1]["tokens"]["input"], json!({"bill": "50000", "ours": "50000"}));

    let other =
        files.with("other.csv", "start_time,amount_value,amount_currency\n1782864000,x,usd\n");
    let refused = run(&["reconcile", "--bill", &other, "--ledger", &ledger]);
    let expected =
        format!("error: {other}: line 2: amount_value: must be a decimal number, found \"x\"\n");
    assert_eq!((refused.status, refused.err), (1, expected));
    let unexplained =
        files.with("sum.csv", "start_time,amount_value,amount_currency\n1782864000,0.05,usd\n");
    let refused = run(&["reconcile", "--bill", &unexplained, "--ledger", &ledger]);
    assert_eq!(refused.status, 1);
    assert_eq!(refused.err, "error: unexplained in 1 of 1 rows, the first of 2026-07-01, \"*\"\n");
    for words in [&["--tolerance", "2"][..], &["--format", "pdf"], &["--access-log", "log"]] {
        let refused = run(&[&["reconcile", "--bill", &bill][..], words].concat());
        assert_eq!(refused.status, 2, "{words:?} {refused:?}");
    }
    assert_eq!(run(&["reconcile", "--access-log", "log", "--from", "2026-07-01"]).status, 2);
}
