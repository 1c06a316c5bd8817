//! Tests `agent-meter correct`, `close`, `invoice`, `invoices` and `balance` as they are run: what they print,
//! and what they refuse.

use std::io::Write;
use std::process::{Command, Stdio};

use agent_meter_collector::Ledger;
use serde_json::{Value, json};

const SOURCE: &str = "urn:agent-meter:envoy-1:0001";

/// Runs the command, and returns whether it succeeded, stdout and stderr.
fn run(ledger: &str, args: &[&str], input: &str) -> (bool, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent-meter"));
    command.args(args).args(["--ledger", ledger]).env("USER", "jane");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("agent-meter");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("an end");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

fn call(sequence: u64, price: &str) -> Value {
    json!({
        "specversion": "1.0", "id": format!("{sequence:020}"), "source": SOURCE,
        "type": "agent-meter.tool_invocation", "time": "2026-06-10T10:00:00Z", "subject": "acme",
        "sequence": format!("{sequence:020}"), "datacontenttype": "application/json",
        "data": {
            "event_type": "tool_invocation", "product_id": "tools", "product_type": "MCP_SERVER",
            "customer_id": "acme", "team_id": "blue", "agent_id": "agent-1",
            "session_id": "0123456789abcdef0123456789abcdef",
            "session_key": "fedcba9876543210fedcba9876543210",
            "metric_id": "tool_invocations", "quantity": 1, "call_id": format!("call-{sequence}"),
            "tool_name": "search", "execution_status": "SUCCESS", "execution_duration_ms": 12,
            "http_status": 200, "transport": "json", "cost_tier": "standard", "billable": true,
            "price": price, "currency": "USD",
        },
    })
}

#[test]
fn what_was_counted_is_corrected_closed_and_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = format!("sqlite:{}", dir.path().join("ledger.db").display());
    drop(Ledger::open(&ledger).expect("a ledger"));
    let (first, second) = (format!("{:020}", 1), format!("{:020}", 2));

    // Two calls that were lost for months: first a preview, then in the books.
    let events = [call(1, "2"), call(2, "0.5")].map(|event| event.to_string()).join("\n");
    let backfill = ["correct", "backfill", "-", "--reason", "a log that was found"];
    let (ok, out, err) = run(&ledger, &[&backfill[..], &["--preview"]].concat(), &events);
    assert!(
        ok && out.contains("\"is_preview\":true") && out.contains("\"revenue\":\"2.5\""),
        "{out} {err}"
    );
    let (ok, out, err) = run(&ledger, &backfill, &events);
    assert!(ok && out.contains("\"accepted\":2"), "{out} {err}");

    let void =
        ["correct", "void", "--source", SOURCE, "--event", &second, "--reason", "a test call"];
    let (ok, out, err) = run(&ledger, &void, "");
    assert!(ok && out.contains("\"accepted\""), "{out} {err}");
    let (ok, out, _) = run(&ledger, &void, "");
    assert!(ok && out.contains("\"duplicate\""), "the same again: {out}");
    let amend = ["correct", "amend", "--source", SOURCE, "--event", &first, "--reason", "dearer"];
    let (ok, _, err) = run(&ledger, &[&amend[..], &["--set", "{\"price\": 3}"]].concat(), "");
    assert!(!ok && err.contains("data.price: must be a decimal string"), "{err}");
    let (ok, _, err) =
        run(&ledger, &[&amend[..], &["--set", "{\"price\": \"3.005\"}"]].concat(), "");
    assert!(ok, "{err}");
    let late = ["correct", "void", "--source", SOURCE, "--event", "7", "--reason", "later"];
    let (ok, out, err) = run(&ledger, &late, "");
    assert!(ok && out.contains("\"waiting\"") && err.contains("it waits for that"), "{out} {err}");

    let close = ["close", "--period", "2026-06", "--time-zone", "Europe/Berlin"];
    let (ok, out, _) = run(&ledger, &[&close[..], &["--preview"]].concat(), "");
    assert!(ok && out.contains("(not closed)") && out.contains("Payable  3.01 USD"), "{out}");
    let (ok, closed, err) = run(&ledger, &close, "");
    assert!(ok && closed.contains("Invoice   INV-000001"), "{closed} {err}");
    assert_eq!(run(&ledger, &close, "").1, closed, "closed is closed");
    let (ok, _, err) = run(&ledger, &["close", "--period", "2026-6"], "");
    assert!(!ok && err.contains("expected a month such as 2026-07"), "{err}");

    let credit = [
        "correct",
        "credit",
        "--invoice",
        "INV-000001",
        "--amount",
        "1",
        "--currency",
        "USD",
        "--reason",
        "as agreed",
    ];
    assert!(run(&ledger, &credit, "").0);
    let (ok, out, _) = run(&ledger, &["invoices"], "");
    assert!(
        ok && out.contains("\"payable\":\"3.01\",\"credited\":\"1\",\"due\":\"2.01\""),
        "{out}"
    );
    assert_eq!(run(&ledger, &["invoices", "--number", "INV-000001"], "").1, closed);
    for (format, expected) in [
        ("csv", "number,customer,used_by,"),
        ("json", "[{\"number\":\"INV-000001\""),
        ("html", "<!DOCTYPE html>"),
    ] {
        let args = ["invoices", "--number", "INV-000001", "--format", format];
        let (ok, out, err) = run(&ledger, &args, "");
        let tells_cost = out.contains("Margin") || out.contains("provider_cost");
        assert!(ok && out.starts_with(expected) && !tells_cost, "{format} {out} {err}");
    }
    let operators = ["invoices", "--number", "INV-000001", "--for", "operator"];
    let (ok, out, _) = run(&ledger, &operators, "");
    assert!(ok && out.contains("INV-000001") && out.contains("Margin"), "{out}");
    let (ok, _, err) = run(&ledger, &["invoices", "--format", "csv"], "");
    assert!(!ok && err.contains("add --number"), "{err}");
    let (ok, _, err) = run(&ledger, &["invoices", "--number", "INV-9"], "");
    assert!(!ok && err.contains("no invoice \"INV-9\" is closed"), "{err}");

    let (ok, out, _) = run(&ledger, &["correct", "list"], "");
    let kinds: Vec<String> = out
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["kind"].to_string())
        .collect();
    assert!(ok);
    assert_eq!(kinds.join(" "), "\"backfill\" \"void\" \"amend\" \"void\" \"credit\"");
    let (ok, out, err) = run(&ledger, &["verify"], "");
    assert!(ok, "{out} {err}");
}

#[test]
fn a_file_of_corrections_is_written_whole_or_not_at_all() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = format!("sqlite:{}", dir.path().join("ledger.db").display());
    drop(Ledger::open(&ledger).expect("a ledger"));
    let good = r#"{"kind":"merge","from_customer_id":"a","to_customer_id":"b","correction_id":"1","made_by":"jane","reason":"one company","made_at":"2026-06-01T00:00:00Z"}"#;
    let apply = ["correct", "apply", "-"];
    let (ok, _, err) = run(&ledger, &apply, &format!("{good}\n\n{{\"kind\":\n"));
    assert!(!ok && err.contains("-, line 3"), "{err}");
    let (ok, _, err) = run(&ledger, &apply, &format!("{good}\n{{\"kind\":\"undo\"}}\n"));
    assert!(!ok && err.contains("correction 2: kind: must be void, amend"), "{err}");
    assert_eq!(run(&ledger, &["correct", "list"], "").1, "");
    let (ok, out, err) = run(&ledger, &apply, good);
    assert!(ok && out.contains("\"accepted\""), "{out} {err}");
}

#[test]
fn an_invoice_is_of_a_period_of_a_time_zone_and_of_a_customer_who_is_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = format!("sqlite:{}", dir.path().join("ledger.db").display());
    drop(Ledger::open(&ledger).expect("a ledger"));
    let at = |sequence: u64, price: &str, time: &str| {
        let mut event = call(sequence, price);
        event["time"] = time.into();
        event.to_string()
    };
    // In Berlin the second and the third are in July, and the last is in August.
    let events = [
        at(1, "1", "2026-06-30T21:59:59Z"),
        at(2, "2", "2026-06-30T22:00:00Z"),
        at(3, "4", "2026-07-31T21:59:59Z"),
        at(4, "8", "2026-07-31T22:00:00Z"),
    ];
    let (ok, _, err) =
        run(&ledger, &["correct", "backfill", "-", "--reason", "a log"], &events.join("\n"));
    assert!(ok, "{err}");
    let total = |args: &[&str]| {
        let (ok, out, err) = run(&ledger, &[&["invoice"][..], args].concat(), "");
        assert!(ok, "{err}");
        let total = out.lines().find_map(|line| line.strip_prefix("Payable  ")).map(str::to_owned);
        (total.unwrap_or_default(), out)
    };
    let berlin = ["--period", "2026-07", "--time-zone", "Europe/Berlin"];
    let (sum, text) = total(&berlin);
    assert_eq!(sum, "6.00 USD");
    let local = "Period    2026-07-01T00:00:00+02:00 to 2026-08-01T00:00:00+02:00 (Europe/Berlin)";
    assert!(text.contains(local), "{text}");
    assert_eq!(total(&[&berlin[..], &["--customer", "acme"]].concat()).0, "6.00 USD");
    assert_eq!(total(&["--period", "2026-07"]).0, "12.00 USD");
    assert_eq!(total(&["--period", "2026-07-31"]).0, "12.00 USD");
    assert_eq!(total(&[]).0, "15.00 USD");
    // Nobody used anything, so nobody has an invoice; a customer who is there has an empty one.
    assert_eq!(total(&["--period", "2026-05"]).1.trim(), "");
    assert_eq!(total(&["--period", "2026-05", "--customer", "acme"]).0, "0");

    for (args, expected) in [
        (&["--customer", "acmee"][..], "error: the ledger has no customer \"acmee\"\n"),
        (&["--period", "2026-6"], "error: expected a month such as 2026-07"),
        (&["--period", "2026-06", "--time-zone", "Mars"], "error: no time zone \"Mars\""),
        (&["--time-zone", "UTC"], "error: the following required arguments were not provided"),
    ] {
        let (ok, out, err) = run(&ledger, &[&["invoice"][..], args].concat(), "");
        assert!(!ok && out.is_empty() && err.starts_with(expected), "{args:?} {err}");
    }
    let merge = ["correct", "merge", "--from", "acme-old", "--to", "acme", "--reason", "one"];
    assert!(run(&ledger, &merge, "").0);
    let (_, text) = total(&["--customer", "acme-old"]);
    assert!(text.contains("Paid by   acme"), "{text}");
}

#[test]
fn a_document_is_the_customers_unless_the_operator_asks_and_nobody_gets_that_of_anonymous() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = format!("sqlite:{}", dir.path().join("ledger.db").display());
    drop(Ledger::open(&ledger).expect("a ledger"));
    let mut nobody = call(2, "3");
    nobody["subject"] = "anonymous".into();
    nobody["data"]["customer_id"] = "anonymous".into();
    let events = [call(1, "2"), nobody].map(|event| event.to_string()).join("\n");
    let backfill = ["correct", "backfill", "-", "--reason", "a log"];
    assert!(run(&ledger, &backfill, &events).0);

    let (ok, out, err) = run(&ledger, &["invoice"], "");
    assert!(ok && out.contains("Payable  2.00 USD") && !out.contains("Margin"), "{out}");
    let told =
        "anonymous: 3 USD of whoever named no customer are billed to nobody; see --for operator";
    assert!(err.contains(told) && !out.contains("anonymous"), "{out} {err}");
    let (ok, out, err) = run(&ledger, &["invoice", "--customer", "anonymous"], "");
    let expected =
        "error: \"anonymous\" is whoever named no customer: nobody can be sent a document";
    assert!(!ok && out.is_empty() && err.starts_with(expected), "{err}");
    let operators = ["invoice", "--for", "operator", "--format"];
    let (ok, out, err) = run(&ledger, &[&operators[..], &["text"]].concat(), "");
    assert!(ok && err.is_empty() && out.contains("Customer  anonymous"), "{out} {err}");
    assert!(out.contains("Margin           3 USD (100.0 %)"), "{out}");
    for (format, expected) in [("csv", "number,customer"), ("json", "[{\"customer\":\"acme\"")] {
        let (ok, out, _) = run(&ledger, &[&operators[..], &[format]].concat(), "");
        assert!(ok && out.starts_with(expected) && out.contains("margin"), "{out}");
    }
    let (ok, out, err) = run(&ledger, &["close", "--period", "2026-06", "--format", "csv"], "");
    assert!(ok && err.contains(told) && !out.contains("anonymous"), "{out} {err}");
    assert_eq!(out.lines().filter(|line| line.contains(",payable,")).count(), 1, "{out}");
}

#[test]
fn what_is_paid_in_advance_is_written_down_and_shown() {
    let dir = tempfile::tempdir().expect("a directory");
    let ledger = format!("sqlite:{}", dir.path().join("ledger.db").display());
    let top_up = ["balance", "top-up", "--customer", "acme", "--currency", "USD", "--id", "p-1"];
    let (ok, _, err) = run(&ledger, &[&top_up[..], &["--amount", "10"]].concat(), "");
    assert!(!ok && err.contains("no ledger at"), "{err}");
    drop(Ledger::open(&ledger).expect("a ledger"));
    for outcome in ["accepted", "duplicate"] {
        let (ok, out, err) = run(&ledger, &[&top_up[..], &["--amount", "10"]].concat(), "");
        assert!(ok && out.contains(&format!("\"outcome\":\"{outcome}\"")), "{out} {err}");
    }
    let (ok, _, err) = run(&ledger, &[&top_up[..], &["--amount", "11"]].concat(), "");
    assert!(!ok && err.contains("another one with this id"), "{err}");
    let team = ["balance", "top-up", "--customer", "acme", "--team", "blue", "--currency", "USD"];
    let members = ["--id", "p-2", "--amount", "0.5", "--expires", "2999-01-01T00:00:00Z"];
    let (ok, out, err) = run(&ledger, &[&team[..], &members].concat(), "");
    assert!(ok && out.contains("\"team_id\":\"blue\""), "{out} {err}");
    let (ok, out, _) = run(&ledger, &["balance", "list", "--customer", "acme"], "");
    let lines: Vec<Value> =
        out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(ok && lines.len() == 2, "{out}");
    assert_eq!((&lines[0]["balance"], &lines[1]["balance"]), (&json!("10"), &json!("0.5")));
    assert_eq!(lines[1]["next_expiry_at"], "2999-01-01T00:00:00Z");
    let event = lines[0]["top_ups"][0]["event_id"].as_str().expect("an id");
    let void = ["correct", "void", "--source", "urn:agent-meter:books", "--event", event];
    let (ok, _, err) = run(&ledger, &[&void[..], &["--reason", "a charge-back"]].concat(), "");
    assert!(ok, "{err}");
    let (_, out, _) = run(&ledger, &["balance", "list"], "");
    assert!(out.starts_with("{\"customer_id\":\"acme\"") && out.contains("\"balance\":\"0\""));
}
