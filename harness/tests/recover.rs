//! Tests `agent-meter recover` as it is run: what it brings back, what it says, how it ends.

mod support;

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_meter_collector::{Collector, Ledger};
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::host::spill::Spill;
use agent_meter_core::host::{Conflict, Expect, Host};
use agent_meter_core::meter::Meter;
use agent_meter_core::meter::action::VmInfo;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use support::{Files, command, fixture, run};

/// See `tests/recover` of the collector: three events and two attacks are in each log.
const SECRET: &str = "a secret of the samples";
const VICTIM: &str = "victim";
const LIMIT: Duration = Duration::from_secs(30);

/// The path of a sample of a log.
fn sample(name: &str) -> String {
    fixture(&format!("logs/{name}"))
}

#[test]
fn new_events_are_told_from_known_ones() {
    let files = Files::new();
    let ledger = files.ledger();
    let secret = files.with("secret", format!("{SECRET}\n"));
    let (envoy, istio) = (sample("envoy.log"), sample("istio.log"));
    for (words, out) in [
        (vec!["recover", &envoy], "recovered 3 new events, 0 were known already\n"),
        (vec!["recover", "--log", &envoy], "recovered 0 new events, 3 were known already\n"),
        (
            vec!["recover", &envoy, &istio, "--secret-file", &secret],
            "recovered 3 new events, 3 were known already\n",
        ),
    ] {
        let ended = run(&[&words[..], &["--ledger", &ledger]].concat());
        assert_eq!((ended.status, &ended.out[..]), (0, out), "{ended:?}");
        assert!(ended.err.contains("lines left alone"), "{ended:?}");
        let is_checked = words.contains(&"--secret-file");
        assert_eq!(
            ended.err.contains("are signed, and were taken unchecked"),
            !is_checked,
            "{ended:?}"
        );
    }
    let bill = run(&["invoice", "--ledger", &ledger, "--format", "json"]);
    assert!(bill.out.contains("acme") && !bill.out.contains(VICTIM), "{bill:?}");
}

#[test]
fn a_dry_run_writes_nothing() {
    let files = Files::new();
    let ledger = files.ledger();
    for further in [&[][..], &["--ledger", &ledger]] {
        let envoy = sample("istio-json.log");
        let ended = run(&[&["recover", "--dry-run", &envoy][..], further].concat());
        let expected = "found 3 events in 7 lines; nothing was written\n";
        assert_eq!((ended.status, &ended.out[..]), (0, expected), "{ended:?}");
    }
    assert!(!Path::new(&files.at("ledger.db")).exists());
}

#[test]
fn a_log_without_a_spilled_line_ends_with_3() {
    let files = Files::new();
    let empty =
        files.with("empty.log", "[2026-11-27 16:26:48.920][5863][warning][main] [a.cc:1] x\n");
    let attacks: String = std::fs::read_to_string(sample("envoy.log")).expect("a sample");
    let attacks: Vec<&str> = attacks.lines().filter(|line| line.contains(VICTIM)).collect();
    let attacks = files.with("attacks.log", attacks.join("\n"));
    for (logs, named) in
        [(vec![&empty[..]], "empty.log: either"), (vec![&empty, &attacks], "attacks.log: either")]
    {
        let ended = run(&[&["recover", "--ledger", "sqlite::memory:"][..], &logs].concat());
        assert_eq!((ended.status, &ended.out[..]), (3, ""), "{ended:?}");
        assert!(
            ended.err.contains("no spilled line of the filter in ") && ended.err.contains(named),
            "{ended:?}"
        );
    }
    let unknown = run(&["recover", "--dry-run", &sample("format.log")]);
    assert_eq!(unknown.status, 3, "{unknown:?}");
    assert!(unknown.err.contains("give it with --log-format"), "{unknown:?}");
    let format = "--log-format=%^%L%$ %n %v (thread %t)";
    assert_eq!(run(&["recover", "--dry-run", &sample("format.log"), format]).status, 0);
}

#[test]
fn what_is_not_recovered_is_named_and_ends_with_1() {
    let files = Files::new();
    let other = files.with("secret", "another secret of the samples");
    let old = sample("envoy-old.log");
    let cut: String = std::fs::read_to_string(sample("envoy.log")).expect("a sample");
    let cut = files.with("cut.log", cut.replace(" part=2/5 ", " part=1/5 "));
    for (words, expected) in [
        (
            vec![&old[..], "--secret-file", &other],
            "3 lines not taken, as the secret did not sign them: ",
        ),
        (vec![&cut], "is incomplete: part 2 of 5 is missing"),
    ] {
        let ended = run(&[&["recover", "--ledger", "sqlite::memory:"][..], &words].concat());
        assert_eq!(ended.status, 1, "{ended:?}");
        assert!(ended.err.contains(expected), "{ended:?}");
    }
    let short = files.with("short", "short");
    let named = format!(
        "error: --secret-file: {short}: the secret default: must be at least 16 bytes, found 5\n"
    );
    let ended = run(&["recover", "--dry-run", &old, "--secret-file", &short]);
    assert_eq!((ended.status, ended.err), (1, named));
    for usage in [
        &["recover", "--ledger", "sqlite::memory:"][..],
        &["recover", "a.log"],
        &["recover", "--follow", "dir", "--ledger", "sqlite::memory:"],
        &["recover", "--follow", "dir", "--state", "s", "--dry-run"],
        &["recover", "--follow", "dir", "--state", "s", "--ledger", "l", "a.log"],
        &["recover", "a.log", "--ledger", "l", "--state", "s"],
    ] {
        assert_eq!(run(usage).status, 2, "{usage:?}");
    }
}

#[test]
fn stdin_is_read() {
    let mut child = command(&["recover", "-", "--dry-run"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a command");
    let log = std::fs::read(sample("istio-json.log")).expect("a sample");
    child.stdin.take().expect("stdin").write_all(&log).expect("written");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("found 3 events"));
}

/// Ends with the test.
struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_followed_until_sigterm() {
    let files = Files::new();
    let secret = files.with("secret", SECRET);
    std::fs::create_dir(files.at("logs")).expect("a directory");
    std::fs::copy(sample("istio.log"), files.at("logs/a_istio-proxy-1.log")).expect("a log");
    std::fs::copy(sample("json.log"), files.at("logs/other.log")).expect("a log");
    let collector = Collector::start("127.0.0.1:0".parse().expect("an address"), "sqlite::memory:");
    let collector = collector.await.expect("a collector");
    let (url, logs, state) =
        (format!("http://{}", collector.addr()), files.at("logs"), files.at("state"));
    let words = [
        "recover",
        "--follow",
        &logs,
        "--match",
        "*_istio-proxy-*.log",
        "--state",
        &state,
        "--collector",
        &url,
        "--secret-file",
        &secret,
    ];
    for (stored, copied) in [(3, None), (6, Some("envoy.log"))] {
        if let Some(log) = copied {
            std::fs::copy(sample(log), files.at("logs/b_istio-proxy-1.log")).expect("a log");
        }
        let child = command(&words).stdout(Stdio::piped()).spawn().expect("a command");
        let mut child = Following(child);
        until(&collector.ledger(), stored).await;
        // Whatever it would send twice has the time to come.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let pid = child.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("kill").success());
        let status = child.0.wait().expect("it ends");
        let mut out = String::new();
        let mut stdout = child.0.stdout.take().expect("stdout");
        std::io::Read::read_to_string(&mut stdout, &mut out).expect("text");
        assert!(status.success(), "{out}");
        assert!(
            out.ends_with("stopped; recovered 3 new events, 0 were known already in all\n"),
            "{out}"
        );
    }
    collector.stop().await;
}

async fn until(ledger: &Ledger, events: u64) {
    let end = Instant::now() + LIMIT;
    loop {
        let stored = ledger.count_events().expect("a count");
        if stored == events {
            return;
        }
        assert!(Instant::now() < end && stored < events, "{stored} of {events} events");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Shared data and a log, as Envoy has them, and no accountant that reads the journal.
#[derive(Default)]
struct Memory {
    data: BTreeMap<String, (Vec<u8>, u32)>,
    writes: u32,
    log: String,
    spilled: u64,
}

impl Host for Memory {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.data.get(key).cloned()
    }

    fn set(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
        let found = self.data.get(key).map(|(_, version)| *version);
        match expect {
            Expect::Absent if found.is_some() => return Err(Conflict),
            Expect::Version(version) if found != Some(version) => return Err(Conflict),
            Expect::Any | Expect::Absent | Expect::Version(_) => {}
        }
        self.writes += 1;
        self.data.insert(key.to_owned(), (value.to_vec(), self.writes));
        Ok(())
    }

    fn property(&mut self, _: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn spill(&mut self, spill: &Spill<'_>) {
        assert_eq!(spill.kind, "fact");
        self.spilled += 1;
        for line in spill.lines() {
            self.log += &format!(
                "[2026-11-27 16:26:48.953][5863][warning][wasm] [source/extensions/common/wasm/context.cc:1154] wasm log agent-meter: {line}\n"
            );
        }
    }

    fn warn(&mut self, _: &str) {}

    fn count(&mut self, _: Counter, _: u64) {}

    fn gauge(&mut self, _: Gauge, _: u64) {}
}

/// When the worker ends.
const NOW: Timestamp = Timestamp(1_763_890_200_000);

/// What a worker writes to the log when its journal is full and it ends: facts; with the number of
/// calls that it has metered.
fn worker_that_nobody_reads(config: &Value) -> (Memory, u64) {
    let json = config.to_string();
    let read = Config::from_bytes(json.as_bytes()).expect("a configuration");
    let mut host = Memory::default();
    let vm = VmInfo { plugin: "test".to_owned(), node: "node".to_owned(), seed: 1, piece: 64 };
    let mut worker = Meter::new(&mut host, read, json.as_bytes(), vm, NOW);
    let headers = |pairs: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
    };
    let request = headers(&[
        (":method", "POST"),
        (":path", "/mcp"),
        ("content-type", "application/json"),
        ("mcp-session-id", "s"),
        ("x-customer-id", "acme"),
    ]);
    let response = headers(&[(":status", "200"), ("content-type", "application/json")]);
    let now = NOW;
    let mut calls = 0;
    // Each call keeps a fact in memory until the worker stops.
    for stream in 1..4000 {
        let action = worker.request_head(&mut host, stream, Headers(&request), now);
        if format!("{action:?}").starts_with("Answer") {
            break;
        }
        let name = "t".repeat(200);
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name}});
        worker.request_body(&mut host, stream, body.to_string().as_bytes(), true, now);
        worker.response_head(stream, Headers(&response));
        let body = br#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
        worker.response_body(&mut host, stream, body, true, now);
        worker.stream_end(&mut host, stream, StreamEnd::Complete, now);
        calls += 1;
    }
    // Another configuration comes into force: this worker ends, and leaves its facts to the next.
    let other = json.replace("0.25", "0.5");
    let read = Config::from_bytes(other.as_bytes()).expect("a configuration");
    let vm = VmInfo { plugin: "test".to_owned(), node: "node".to_owned(), seed: 2, piece: 64 };
    let _ = Meter::new(&mut host, read, other.as_bytes(), vm, NOW);
    worker.stop(&mut host, now);
    (host, calls)
}

#[test]
fn facts_are_priced_by_the_configuration_that_was_in_force() {
    let files = Files::new();
    let config = json!({
        "collector": { "secret": SECRET },
        "products": [{
            "id": "crm", "type": "MCP_SERVER", "match": { "path": "/mcp" },
            "identity": { "customer": { "trusted_header": "x-customer-id" } },
            "pricing": { "currency": "USD", "default": { "price": "0.25" } },
        }],
    });
    let (host, calls) = worker_that_nobody_reads(&config);
    assert!(host.spilled > 100 && host.spilled <= calls, "{} of {calls}", host.spilled);
    let log = files.with("envoy.log", &host.log);
    let secret = files.with("secret", SECRET);
    let config = files.with("plugin.yaml", config.to_string());
    let ledger = files.ledger();
    // The calls are a year old.
    let words = ["recover", &log, "--ledger", &ledger, "--secret-file", &secret, "--older"];
    let ended = run(&words);
    assert_eq!(
        (ended.status, &ended.out[..]),
        (1, "recovered 0 new events, 0 were known already\n")
    );
    let lost = format!("{} facts not recovered: `agent-meter recover --config FILE`", host.spilled);
    assert!(ended.err.contains(&lost), "{ended:?}");
    // A session, a call and an end for each.
    let events = 3 * host.spilled;
    for (new, known) in [(events, 0), (0, events)] {
        let ended = run(&[&words[..], &["--config", &config]].concat());
        let expected = format!("recovered {new} new events, {known} were known already\n");
        assert_eq!((ended.status, ended.out), (0, expected), "{}", ended.err);
    }
    let bill = run(&["invoice", "--ledger", &ledger, "--format", "json"]);
    let bill: Value = serde_json::from_str(&bill.out).expect("JSON");
    let expected = rust_decimal::Decimal::from(host.spilled) * rust_decimal::Decimal::new(25, 2);
    let text = bill.to_string();
    assert!(text.contains(&format!("\"{}\"", expected.normalize())), "{expected}: {text}");
}
