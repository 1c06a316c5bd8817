//! Tests `agent-meter collect`, `quarantine` and `recover` as they are run: how they start, what they
//! refuse, and what they do about a full disk.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent_meter_core::base::secret::Secret;
use agent_meter_core::host::spill::Spill;
use serde_json::{Value, json};

use support::Ended;

const SECRET: &str = "correct horse battery staple";
const COMMAND: &str = env!("CARGO_BIN_EXE_agent-meter");

/// A collector that runs as a program of its own, until it is dropped.
struct Collector {
    child: Child,
    base: String,
}

impl Drop for Collector {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Collector {
    fn start(mut command: Command) -> Collector {
        let mut child = command
            .env_remove("AGENT_METER_COLLECTOR_SECRET")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let Some(ready) = line.strip_prefix("ready ") else {
            let mut said = String::new();
            child.stderr.take().expect("its errors").read_to_string(&mut said).expect("text");
            panic!("not ready: {line:?} {said}");
        };
        let ready: Value = serde_json::from_str(ready).expect(ready);
        let base = format!("http://{}", ready["collector"].as_str().expect("an address"));
        Collector { child, base }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("{}{path}", self.base)).await.expect(path);
        (answer.status().as_u16(), answer.text().await.expect(path))
    }

    async fn post(&self, secret: Option<&str>, body: String) -> (u16, Value) {
        let request = reqwest::Client::new().post(format!("{}/v1/events", self.base));
        let request = request.header("content-type", "application/cloudevents-batch+json");
        let request = match secret {
            Some(secret) => request.bearer_auth(secret),
            None => request,
        };
        let answer = request.body(body).send().await.expect("an answer");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    /// Ends it, and returns all that it logged.
    fn end(mut self) -> String {
        let _ = self.child.kill();
        let mut said = String::new();
        self.child.stderr.take().expect("its errors").read_to_string(&mut said).expect("text");
        said
    }
}

fn collect(words: &[&str]) -> Command {
    let mut command = Command::new(COMMAND);
    command.args(["collect", "--listen", "127.0.0.1:0"]).args(words);
    command
}

fn run(words: &[&str]) -> (i32, String, String) {
    let Ended { status, out, err } = support::run(words);
    (status, out, err)
}

/// A call of just now.
fn call(sequence: u64, padding: usize) -> Value {
    let time = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S.000Z").to_string();
    json!({
        "specversion": "1.0", "id": format!("{sequence:020}"), "sequence": format!("{sequence:020}"),
        "source": "urn:agent-meter:envoy-1:0001", "type": "agent-meter.tool_invocation",
        "time": time, "subject": "acme", "datacontenttype": "application/json",
        "data": {
            "event_type": "tool_invocation", "product_id": "tools", "product_type": "MCP_SERVER",
            "customer_id": "acme", "team_id": "blue", "agent_id": "agent-1",
            "session_id": "0".repeat(32), "session_key": "0".repeat(32),
            "metric_id": "tool_invocations", "quantity": 1, "call_id": format!("call-{sequence}"),
            "tool_name": "search", "execution_status": "SUCCESS", "execution_duration_ms": 12,
            "http_status": 200, "transport": "json", "cost_tier": "x".repeat(padding),
            "billable": true, "price": "0.001", "currency": "USD",
        },
    })
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test]
async fn the_secret_comes_from_a_file_or_the_environment_and_is_never_shown() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("secret");
    fs::write(&file, format!("{SECRET}\n")).expect("write");
    let named = format!("edge={}", text(&file));
    let ledger = ["--ledger", "sqlite::memory:"];
    let by_option = collect(&[ledger[0], ledger[1], "--secret-file", &named]);
    let mut by_variable = collect(&ledger);
    by_variable.env("AGENT_METER_COLLECTOR_SECRET", SECRET);
    for command in [by_option, by_variable] {
        // `start` takes the variable away, unless the command line is another program's.
        let mut wrapped = Command::new("env");
        for (name, value) in command.get_envs() {
            let pair = format!("{}={}", name.display(), value.expect("a value").display());
            wrapped.arg(pair);
        }
        wrapped.arg(command.get_program()).args(command.get_args());
        let collector = Collector::start(wrapped);
        let body = json!([call(1, 1)]).to_string();
        assert_eq!(collector.post(None, body.clone()).await.0, 401);
        assert_eq!(
            collector.post(Some("correct horse battery stapler"), body.clone()).await.0,
            401
        );
        assert_eq!(collector.post(Some(SECRET), body).await.0, 200);
        let (_, metrics) = collector.get("/metrics").await;
        let (_, gaps) = collector.get("/v1/gaps").await;
        let said = collector.end();
        assert!(![metrics, gaps, said].iter().any(|text| text.contains("staple")));
    }
}

#[test]
fn a_collector_that_must_not_start_says_why() {
    let directory = tempfile::tempdir().expect("directory");
    let file = |name: &str, content: &str| {
        let path = directory.path().join(name);
        fs::write(&path, content).expect("write");
        text(&path).to_owned()
    };
    let (short, good) = (file("short", "fifteen bytes.."), file("good", SECRET));
    let twice = [format!("a={good}"), format!("b={good}")];
    let missing = text(&directory.path().join("missing")).to_owned();
    let anywhere = ["--listen", "0.0.0.0:0"];
    for (words, expected) in [
        (
            vec![anywhere[0], anywhere[1]],
            "error: listen on 0.0.0.0:0: whoever reaches it could bill any customer; give \
             --secret-file, or --insecure if something else keeps strangers out"
                .to_owned(),
        ),
        (
            vec!["--secret-file", &short],
            format!(
                "error: --secret-file: {short}: the secret default: must be at least 16 bytes, found 15"
            ),
        ),
        (vec!["--secret-file", &missing], format!("error: --secret-file: cannot read {missing}: ")),
        (
            vec!["--secret-file", &twice[0], "--secret-file", &twice[1]],
            "error: --secret-file: the secrets a and b are the same".to_owned(),
        ),
        (
            vec!["--allow-host", "http://x"],
            "error: --allow-host: must be a name, or NAME:PORT, found \"http://x\"".to_owned(),
        ),
    ] {
        let words = ["collect", "--ledger", "sqlite::memory:"].into_iter().chain(words);
        let words: Vec<&str> = words.collect();
        let (status, out, err) = run(&words);
        assert_eq!((status, out.as_str()), (1, ""), "{words:?}");
        assert!(err.starts_with(&expected), "{words:?}: {err}");
    }
    let words =
        ["run", "--upstream", "http://127.0.0.1:1", "--collector", "0.0.0.0:0", "--wasm", &good];
    let (status, _, err) = run(&words);
    assert_eq!(status, 1);
    assert!(err.contains("--collector: 0.0.0.0:0 can be reached by others"), "{err}");
}

#[tokio::test]
async fn a_full_disk_is_told_and_harms_nothing_that_was_acknowledged() {
    let directory = tempfile::tempdir().expect("directory");
    let ledger = directory.path().join("ledger.db");
    // No file may have more than 600 blocks of 1024 bytes, which stops writes as a full disk does.
    let mut command = Command::new("bash");
    command.args([
        "-c",
        "trap '' XFSZ; ulimit -f 600; exec \"$@\"",
        "bash",
        COMMAND,
        "collect",
        "--listen",
        "127.0.0.1:0",
        "--ledger",
        text(&ledger),
    ]);
    let collector = Collector::start(command);
    assert_eq!(collector.get("/healthz").await.0, 200);
    let mut taken = 0;
    let (status, answer) = loop {
        let (status, answer) =
            collector.post(None, json!([call(taken + 1, 100_000)]).to_string()).await;
        if status != 200 {
            break (status, answer);
        }
        taken += 1;
        assert!(taken < 100, "the disk is never full");
    };
    assert!(taken > 0 && status == 500, "{answer}");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (status, text) = collector.get("/healthz").await;
        if status == 503 && text.contains("\"error\":\"ledger: ") {
            break;
        }
        // A row fits into what an event did not.
        let (status, _) = collector.post(None, json!([call(taken + 1, 1_000)]).to_string()).await;
        taken += u64::from(status == 200);
        assert!(Instant::now() < deadline, "{status} {text}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    collector.end();
    let again = Collector::start(collect(&["--ledger", text(&ledger)]));
    let (_, gaps) = again.get("/v1/gaps").await;
    let gaps: Value = serde_json::from_str(&gaps).expect("JSON");
    assert_eq!((&gaps["sources"][0]["received"], &gaps["missing"]), (&json!(taken), &json!(0)));
    assert_eq!(again.get("/healthz").await.0, 200);
}

/// The line of an event in Envoy's log, signed with a secret unless that is empty.
fn spilled(event: &Value, secret: &str) -> String {
    let (secret, event) = (Secret::new(secret).unwrap_or_default(), event.to_string());
    let spill = Spill { reason: "shutdown", kind: "event", text: &event, secret: &secret };
    let logger = "[2026-11-27 16:26:48.953][5863][warning][wasm] [source/extensions/common/wasm/context.cc:1154] wasm log agent-meter: ";
    spill.lines().map(|line| format!("{logger}{line}\n")).collect()
}

#[tokio::test]
async fn what_is_too_old_is_kept_apart_unless_the_operator_says_otherwise() {
    let directory = tempfile::tempdir().expect("directory");
    let log = directory.path().join("envoy.log");
    let mut old = call(1, 1);
    old["time"] = "2020-01-01T00:00:00Z".into();
    let (mut ahead, mut costly) = (call(2, 1), call(3, 1));
    ahead["time"] = "2999-01-01T00:00:00Z".into();
    costly["data"]["price"] = "79228162514264337593543950335".into();
    let lines = [&old, &ahead, &costly].map(|event| spilled(event, ""));
    fs::write(&log, lines.concat()).expect("write");
    let ledger = text(&directory.path().join("a.db")).to_owned();
    let listed = |ledger: &str, state: &str| -> Vec<(i64, String)> {
        let (status, out, err) = run(&["quarantine", "list", "--ledger", ledger, "--state", state]);
        assert_eq!(status, 0, "{err}");
        let events = out.lines().map(|line| serde_json::from_str::<Value>(line).expect(line));
        let named = events.map(|event| {
            let reason = event["reason"].as_str().expect("a reason").to_owned();
            (event["position"].as_i64().expect("a position"), reason)
        });
        named.collect()
    };
    let all = |reasons: &[&str]| {
        (1..).zip(reasons.iter().map(|reason| (*reason).to_owned())).collect::<Vec<_>>()
    };
    let (status, out, err) = run(&["recover", "--log", text(&log), "--ledger", &ledger]);
    assert_eq!(
        (status, out.as_str()),
        (0, "recovered 3 new events, 0 were known already\n"),
        "{err}"
    );
    assert_eq!(listed(&ledger, "held"), all(&["time", "time", "money"]));
    assert_eq!(run(&["quarantine", "release", "--ledger", &ledger, "1"]).1, "released 1 events\n");
    assert_eq!(
        run(&["quarantine", "discard", "--ledger", &ledger, "--all"]).1,
        "discarded 2 events\n"
    );
    assert_eq!(listed(&ledger, "held"), []);
    assert_eq!(listed(&ledger, "released").len(), 1);
    assert_eq!(listed(&ledger, "discarded").len(), 2);
    let (status, _, err) = run(&["quarantine", "release", "--ledger", &ledger, "2"]);
    assert_eq!(status, 1);
    assert!(err.contains("2: no event is held at 2"), "{err}");
    let (_, invoice, _) = run(&["invoice", "--ledger", &ledger]);
    assert!(invoice.contains("0.001 USD"), "{invoice}");
    for words in [vec!["release"], vec!["release", "--all", "1"]] {
        let words: Vec<&str> = ["quarantine"].into_iter().chain(words).collect();
        assert_eq!(run(&words).0, 2, "{words:?}");
    }

    let ledger = text(&directory.path().join("b.db")).to_owned();
    let (status, _, err) = run(&["recover", "--log", text(&log), "--ledger", &ledger, "--older"]);
    assert_eq!(status, 0, "{err}");
    let held: Vec<_> = listed(&ledger, "held").into_iter().map(|(_, reason)| reason).collect();
    assert_eq!(held, ["time", "money"], "the future is not plausible however old events may be");
    let words = ["recover", "--log", text(&log), "--collector", "http://127.0.0.1:1", "--older"];
    assert_eq!(run(&words).0, 2);
}

#[tokio::test]
async fn recover_shows_the_collector_its_secret() {
    let directory = tempfile::tempdir().expect("directory");
    let (log, secret) = (directory.path().join("envoy.log"), directory.path().join("secret"));
    fs::write(&log, spilled(&call(1, 1), SECRET)).expect("write");
    fs::write(&secret, SECRET).expect("write");
    let collector = Collector::start(collect(&[
        "--ledger",
        text(&directory.path().join("ledger.db")),
        "--secret-file",
        text(&secret),
    ]));
    let words = ["recover", "--log", text(&log), "--collector", &collector.base];
    let (status, out, err) = run(&[&words[..], &["--secret-file", text(&secret)]].concat());
    assert_eq!(
        (status, out.as_str()),
        (0, "recovered 1 new events, 0 were known already\n"),
        "{err}"
    );
}
