//! `agent-meter run --stdio`: real servers over stdio behind the relay, and one behind Envoy.

mod support;

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_meter::mcp_client::{Agent, Call};
use agent_meter::mcp_server::Outcome;
use agent_meter::stdio::{Options, Relay, split};
use agent_meter::wait::until;
use anyhow::ensure;
use reqwest::{RequestBuilder, Response};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, ProgressNotificationParam,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RoleClient};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ServiceExt};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(10);
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;

/// A relay, and what it said.
struct Rig {
    relay: Relay,
    said: Arc<Mutex<Vec<String>>>,
    url: String,
}

impl Rig {
    async fn start(command: &str, sessions_max: u32, idle: Duration) -> Self {
        let said = Arc::<Mutex<Vec<String>>>::default();
        let lines = said.clone();
        let say = Arc::new(move |line| lines.lock().expect("lines").push(line));
        let command = split(command).expect(command);
        let relay = Relay::start(Options { command, sessions_max, idle }, say).await;
        let relay = relay.expect("a relay");
        let url = format!("http://{}/mcp", relay.addr());
        Self { relay, said, url }
    }

    /// The sample server.
    async fn sample() -> Self {
        let command = format!("'{}' mcp-server --stdio", env!("CARGO_BIN_EXE_agent-meter"));
        Self::start(&command, 64, LIMIT).await
    }

    fn post(&self, session: Option<&str>, body: &str) -> RequestBuilder {
        let request = reqwest::Client::new().post(&self.url).body(body.to_owned());
        let request = request.header("accept", "application/json, text/event-stream");
        match session {
            Some(session) => request.header("mcp-session-id", session),
            None => request,
        }
    }

    async fn begin(&self) -> (String, Response) {
        let response = self.post(None, INITIALIZE).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        let id = response.headers()["mcp-session-id"].to_str().expect("text").to_owned();
        (id, response)
    }

    async fn status(&self, session: Option<&str>, body: &str) -> u16 {
        self.post(session, body).send().await.expect("an answer").status().as_u16()
    }

    /// Waits for a line with this text.
    async fn line(&self, text: &str) -> String {
        let found = until(LIMIT, text, async || {
            let said = self.said.lock().expect("lines");
            let line = said.iter().find(|line| line.contains(text)).cloned();
            line.ok_or_else(|| anyhow::anyhow!("{said:?}"))
        });
        found.await.expect("a line")
    }
}

/// The data of the next event.
async fn event(response: &mut Response) -> String {
    let mut text = String::new();
    while !text.ends_with("\n\n") {
        let chunk = response.chunk().await.expect("a chunk").expect("no end");
        text.push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
    }
    let data = text.strip_prefix("event: message\ndata: ").unwrap_or_else(|| panic!("{text}"));
    data.trim_end_matches('\n').to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_sees_what_a_server_over_stdio_does() {
    let rig = Rig::sample().await;
    let agent = Agent::new(&rig.url, "acme", "agent-1");
    let (one, two) = (agent.open().await.expect("one"), agent.open().await.expect("two"));
    let tools = one.tools().await.expect("tools");
    assert_eq!(tools, ["lookup_customer", "write_record", "analyze_report", "fail"]);
    for (call, outcome) in [
        (Call::new("lookup_customer", "customer_id", "c"), Outcome::Success),
        (Call::new("fail", "reason", "no"), Outcome::Error),
        (Call::new("drop_table", "table", "t"), Outcome::ValidationFailed),
    ] {
        for session in [&one, &two] {
            assert_eq!(session.call(&call).await.expect("a call"), outcome, "{call:?}");
        }
    }
    one.close().await.expect("closes");
    two.close().await.expect("closes");
    rig.relay.stop().await;
    assert!(rig.said.lock().expect("lines").is_empty(), "{:?}", rig.said);
}

/// A client that keeps the progress it hears of.
#[derive(Clone, Default)]
struct Listening(Arc<Mutex<Vec<f64>>>);

impl ClientHandler for Listening {
    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.0.lock().expect("progress").push(progress.progress);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_comes_before_the_result_of_its_call() {
    let rig = Rig::sample().await;
    let heard = Listening::default();
    let transport = StreamableHttpClientTransport::from_uri(rig.url.as_str());
    let client = heard.clone().serve(transport).await.expect("a session");
    let arguments = json!({"report": "r"}).as_object().cloned().expect("an object");
    let call = CallToolRequestParams::new("analyze_report").with_arguments(arguments);
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(call));
    let sent = client.send_cancellable_request(request, PeerRequestOptions::default()).await;
    sent.expect("sent").await_response().await.expect("a result");
    assert_eq!(*heard.0.lock().expect("progress"), [1.0, 2.0, 3.0]);
    client.cancel().await.expect("ends");
    rig.relay.stop().await;
}

/// `cat` sends each message back: a request as one of the server's own, which the client answers.
#[tokio::test(flavor = "multi_thread")]
async fn no_byte_of_a_message_changes_in_either_direction() {
    let rig = Rig::start("cat", 64, LIMIT).await;
    let beginning = r#"{ "x":1e400,"id":"\u0041", "jsonrpc":"2.0","method":"initialize","params":{"_meta":{"b/c":[12345678901234567890123.50]}} ,"é":null}"#;
    let mut stream = rig.post(None, beginning).send().await.expect("an answer");
    let session = stream.headers()["mcp-session-id"].to_str().expect("text").to_owned();
    assert_eq!(event(&mut stream).await, beginning);
    let answer = "{\"jsonrpc\":\"2.0\",\r\n \"id\":\"A\",\"result\":{\"y\":0.10},\"z\":\"\\n\"}";
    assert_eq!(rig.status(Some(&session), answer).await, 202);
    assert_eq!(event(&mut stream).await, answer.replace("\r\n", "  "));
    assert_eq!(stream.chunk().await.expect("the end"), None);
    // What is about no open request takes the client's own stream, also if it comes later.
    let told = r#"{"jsonrpc":"2.0","method":"notifications/new","params":[1]}"#;
    assert_eq!(rig.status(Some(&session), told).await, 202);
    let own = || {
        let request = reqwest::Client::new().get(&rig.url).header("mcp-session-id", &session);
        request.header("accept", "text/event-stream").send()
    };
    let mut first = own().await.expect("a stream");
    assert_eq!(event(&mut first).await, told);
    assert_eq!(own().await.expect("an answer").status(), 409);
    rig.relay.stop().await;
    assert_eq!(first.chunk().await.expect("the end"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_request_ends_without_an_answer() {
    let rig = Rig::start("cat", 64, LIMIT).await;
    let (session, mut stream) = rig.begin().await;
    assert_eq!(event(&mut stream).await, INITIALIZE);
    let same = rig.status(Some(&session), INITIALIZE).await;
    assert_eq!(same, 400, "two open requests have one id");
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    assert_eq!(rig.status(Some(&session), cancel).await, 202);
    assert_eq!(event(&mut stream).await, cancel);
    assert_eq!(stream.chunk().await.expect("the end"), None);
    rig.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_ends_answers_its_requests_with_an_error_and_its_session_is_gone() {
    let command = "sh -c 'echo started >&2; read line; echo no JSON; exit 3'";
    let rig = Rig::start(command, 64, LIMIT).await;
    let (session, mut stream) = rig.begin().await;
    let error: Value = serde_json::from_str(&event(&mut stream).await).expect("JSON");
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!(1), &json!(-32000)), "{error}");
    assert_eq!(stream.chunk().await.expect("the end"), None);
    assert_eq!(rig.status(Some(&session), INITIALIZE).await, 404);
    let ended = "[server 1] warning: has ended (exit status: 3): its session is gone, 1 requests got an error";
    assert_eq!(rig.line("has ended").await, ended);
    assert_eq!(rig.line("started").await, "[server 1] started");
    assert!(rig.line("no message on stdout").await.ends_with(": no JSON"));
    rig.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_session_has_a_process_which_ends_with_it_and_so_many_and_no_more() {
    // It ignores the end of stdin, and tells its process.
    let command = "sh -c 'echo pid $$ >&2; exec sleep 600'";
    let rig = Rig::start(command, 2, LIMIT).await;
    let (first, _one) = rig.begin().await;
    let (second, _two) = rig.begin().await;
    assert_ne!(first, second);
    let full = rig.post(None, INITIALIZE).send().await.expect("an answer");
    assert_eq!(
        (full.status().as_u16(), &full.headers()["retry-after"]),
        (503, &"5".parse().expect("5"))
    );
    rig.line("2 sessions are open").await;
    let lines = [rig.line("[server 1] pid").await, rig.line("[server 2] pid").await];
    let pids = lines.map(|line| line.rsplit(' ').next().expect("a pid").to_owned());
    let runs = |pid: &str| std::path::Path::new("/proc").join(pid).exists();
    assert!(pids[0] != pids[1] && runs(&pids[0]) && runs(&pids[1]), "{pids:?}");
    let request = reqwest::Client::new().delete(&rig.url).header("mcp-session-id", &first);
    assert_eq!(request.send().await.expect("an answer").status(), 204);
    let ended = until(LIMIT, "its process ends", async || {
        ensure!(!runs(&pids[0]), "{pids:?}");
        Ok(())
    });
    ended.await.expect("ends by SIGTERM");
    assert_eq!(rig.status(Some(&first), INITIALIZE).await, 404);
    let (_third, _three) = rig.begin().await;
    rig.relay.stop().await;
    assert!(!runs(&pids[1]), "{pids:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_session_ends_and_an_open_stream_is_not_idle() {
    let rig = Rig::start("cat", 64, Duration::from_millis(300)).await;
    let (session, stream) = rig.begin().await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(rig.status(Some(&session), r#"{"method":"m"}"#).await, 202);
    drop(stream);
    assert!(rig.line("is idle").await.contains("[server 1] is idle for 300ms"));
    assert_eq!(rig.status(Some(&session), r#"{"method":"m"}"#).await, 404);
    rig.relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_or_has_no_session_reaches_no_server() {
    let rig = Rig::start("cat", 64, LIMIT).await;
    for (session, body, status, text) in [
        (None, "{", 400, "-32700"),
        (None, "[]", 400, "a batch"),
        (None, r#"{"id":1,"method":"tools/list"}"#, 400, "begins with `initialize`"),
        (Some("x"), r#"{"id":1,"method":"tools/list"}"#, 404, "no such session"),
    ] {
        let answer = rig.post(session, body).send().await.expect("an answer");
        assert_eq!(answer.status(), status, "{body}");
        let answer = answer.text().await.expect("text");
        assert!(answer.contains(text), "{answer}");
    }
    for (origin, status) in [("http://evil.example", 403), ("http://localhost:6274", 400)] {
        let answer = rig.post(None, "{").header("origin", origin).send().await;
        assert_eq!(answer.expect("an answer").status(), status, "{origin}");
    }
    let large = " ".repeat((4 << 20) + 1);
    assert_eq!(rig.status(None, &large).await, 413);
    rig.relay.stop().await;
}

#[test]
fn a_command_that_cannot_start_is_one_line_before_ready() {
    let any = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    for (command, expected) in [
        (
            "no-such-server --x",
            "cannot start no-such-server: No such file or directory (os error 2)",
        ),
        ("", "expected a command, such as 'npx -y @scope/server'"),
        ("a 'b", "a quote is not closed"),
    ] {
        let ended = support::run(&[&["run", "--stdio", command], &any[..]].concat());
        let expected = format!("error: --stdio: {expected}\n");
        assert_eq!((ended.status, &ended.out[..], ended.err), (1, "", expected));
    }
    let both = support::run(&["run", "--stdio", "cat", "--upstream", "http://127.0.0.1:9"]);
    assert_eq!(both.status, 2);
    assert!(both.err.contains("cannot be used with"), "{}", both.err);
}

/// README's "Meter your own MCP server", over stdio.
#[tokio::test(flavor = "multi_thread")]
async fn calls_of_a_server_over_stdio_are_in_the_ledger() {
    let files = support::Files::new();
    let server = format!("'{}' mcp-server --stdio", env!("CARGO_BIN_EXE_agent-meter"));
    let mut words = vec!["run", "--stdio", &server, "--concurrency", "1"];
    let ledger = files.ledger();
    words.extend(["--ledger", &ledger]);
    for option in ["--listen", "--admin", "--collector"] {
        words.extend([option, "127.0.0.1:0"]);
    }
    let mut run = support::command(&words);
    let mut run = run.stdout(Stdio::piped()).spawn().expect("a command");
    let mut ready = String::new();
    BufReader::new(run.stdout.take().expect("stdout")).read_line(&mut ready).expect("a line");
    let ready: Value = serde_json::from_str(ready.trim_start_matches("ready ")).expect(&ready);
    let url = format!("http://{}/mcp", ready["listen"].as_str().expect("an address"));
    let call = Call::new("lookup_customer", "customer_id", "c");
    let seen = Agent::new(&url, "acme", "agent-1").play(&[call.clone(), call]).await;
    assert_eq!(seen.expect("a session"), [Outcome::Success, Outcome::Success]);
    let mut interrupt = std::process::Command::new("kill");
    let interrupted = interrupt.args(["-INT", &run.id().to_string()]).status();
    assert!(interrupted.expect("kill").success());
    assert!(run.wait().expect("an end").success());
    let invoice =
        support::run(&["invoice", "--ledger", &ledger, "--format", "csv", "--for", "operator"]);
    let lines: Vec<&str> =
        invoice.out.lines().filter(|line| line.contains("lookup_customer")).collect();
    assert_eq!(lines.len(), 1, "{invoice:?}");
    assert!(lines[0].contains("acme") && lines[0].contains(",2,"), "{invoice:?}");
}
