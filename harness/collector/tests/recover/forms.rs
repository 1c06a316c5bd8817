//! Each log of Envoy through each form in which fleets keep logs: whole, in parts, cut.

use agent_meter_collector::EventsQuery;
use agent_meter_collector::recover::{Recovered, Target, recover};
use serde_json::json;

use super::carriers::{CARRIERS, cri, docker, gzip};
use super::{ATTACKS, EVENTS, LOGS, key, ledger, log, options, recovered};

#[tokio::test]
async fn every_log_is_read_in_every_form() {
    for (name, text) in LOGS {
        for (carrier, write) in CARRIERS {
            let carried = write(text.as_bytes());
            for key in [None, Some(key())] {
                let is_old = name == "envoy-old.log";
                if is_old && (key.is_some() || carrier.contains("docker json-file")) {
                    // docker cuts its long line within a character: see below.
                    continue;
                }
                let is_checked = key.is_some();
                let (found, _) = recovered(name, carried.clone(), &options(key)).await;
                let what = format!("{name}, {carrier}, {is_checked}: {found:?}");
                assert_eq!((found.taken, found.known), (EVENTS, 0), "{what}");
                assert!(found.is_complete(), "{what}");
                assert_eq!(found.foreign.count(), ATTACKS, "{what}");
                let signed = if is_old || is_checked { 0 } else { found.lines };
                assert_eq!(found.unchecked, signed, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn the_victim_of_the_attacks_is_never_billed() {
    for (name, text) in LOGS {
        let (_, ledger) = recovered(name, text, &options(None)).await;
        let events = ledger.events(&EventsQuery::default()).expect("events");
        let events = serde_json::to_string(&events).expect("JSON");
        assert!(
            events.contains("session_closed") && !events.contains("victim"),
            "{name}: {events}"
        );
    }
}

#[tokio::test]
async fn what_was_known_already_is_told_apart() {
    let (_, text) = LOGS[0];
    let target = Target::Ledger { ledger: ledger(), allows_older: true };
    for (new, known) in [(EVENTS, 0), (0, EVENTS)] {
        let found = recover([log("a", text)], &target, &options(Some(key()))).await.expect("found");
        assert_eq!((found.taken - found.known, found.known), (new, known));
    }
    // Several logs at once, one of them twice.
    let target = Target::Ledger { ledger: ledger(), allows_older: true };
    let logs = [LOGS[0], LOGS[4], LOGS[0]].map(|(name, text)| log(name, text));
    let found = recover(logs, &target, &options(Some(key()))).await.expect("found");
    assert_eq!((found.taken, found.known), (3 * EVENTS, EVENTS));
}

#[tokio::test]
async fn a_dry_run_reads_and_checks() {
    let (name, text) = LOGS[0];
    let logs = [log(name, text)];
    let found = recover(logs, &Target::Nowhere, &options(Some(key()))).await.expect("found");
    assert_eq!((found.taken, found.known), (EVENTS, 0));
    let line = envoy(r#"agent-meter spill reason=x event={"specversion":"1.0","id":"1"}"#);
    let found = recover([log("bad", line)], &Target::Nowhere, &options(None)).await;
    let found = found.expect("found");
    assert_eq!((found.taken, found.refused.count()), (0, 1), "{found:?}");
}

/// As Envoy writes it by default.
fn envoy(message: &str) -> String {
    format!(
        "[2026-11-27 16:26:48.953][5863][warning][wasm] [source/extensions/common/wasm/context.cc:1154] wasm log agent-meter: {message}\n"
    )
}

/// A closing event of this many bytes, as an older filter wrote it in one line.
fn old_line(bytes: usize) -> String {
    let event = |padding: usize| {
        json!({
            "specversion": "1.0", "id": "00000000000000000001", "source": "urn:agent-meter:e:1",
            "type": "agent-meter.call", "time": "2026-07-01T10:00:00.000Z", "subject": "acme",
            "datacontenttype": "application/json", "data": {"padding": "\"".repeat(padding)},
        })
        .to_string()
    };
    let least = event(0).len();
    let text = event((bytes - least) / 2);
    let text = format!("{text}{}", " ".repeat(bytes - text.len()));
    assert_eq!(text.len(), bytes);
    envoy(&format!("agent-meter spill reason=shutdown event={text}"))
}

/// The unreadable texts of a log, with what was taken.
async fn read(text: impl Into<Vec<u8>>) -> (u64, Vec<String>) {
    let target = Target::Nowhere;
    let found: Recovered =
        recover([log("a.log", text)], &target, &options(None)).await.expect("found");
    // What the events say is no matter here.
    let whole = found.taken + found.refused.count();
    (whole, found.unreadable.iter().cloned().collect())
}

#[tokio::test]
async fn a_closing_event_of_an_old_filter_is_read_from_parts_of_16_kib() {
    let line = old_line(22_656);
    for (form, log) in [
        ("file", line.clone().into_bytes()),
        ("docker", docker(line.as_bytes())),
        ("containerd", cri(line.as_bytes(), "stderr")),
        ("gzip", gzip(&cri(line.as_bytes(), "stdout"))),
    ] {
        assert_eq!(read(log).await, (1, Vec::new()), "{form}");
    }
}

#[tokio::test]
async fn what_is_cut_is_named_with_its_place() {
    let line = old_line(22_656);
    let other = envoy(r#"agent-meter spill reason=x event={"id":"2"}"#);
    let half = &line[..line.len() / 2];
    let after_docker = |log: &str| {
        let first = docker(log.as_bytes());
        first.split(|byte| *byte == b'\n').next().expect("an entry").to_vec()
    };
    let cut_cri = String::from_utf8(cri(line.as_bytes(), "stdout")).expect("text");
    let first_cri = cut_cri.lines().next().expect("a line");
    let parts: Vec<&str> = LOGS[0].1.lines().filter(|line| line.contains(" part=")).collect();
    let without_second = [&parts[..1], &parts[2..]].concat().join("\n");
    let mixed = parts.join("\n").replace("part=2/5", "part=0/5");
    let mixed = mixed.replace("part=3/5", "part=2/5").replace("part=0/5", "part=3/5");
    let long = envoy(&format!(
        "agent-meter spill reason=x event={{\"id\":\"{}\"}}",
        "\u{1f642}".repeat(9000)
    ));
    let chunks: Vec<&[u8]> = long.trim_end().as_bytes().chunks(16 * 1024).collect();
    let last = chunks.len() - 1;
    let spoiled: String = chunks
        .iter()
        .enumerate()
        .map(|(at, chunk)| {
            let end = if at == last { "\n" } else { "" };
            let log = format!("{}{end}", String::from_utf8_lossy(chunk));
            format!("{}\n", json!({"log": log, "stream": "stdout", "time": "2026"}))
        })
        .collect();
    let spoiled = spoiled.into_bytes();
    let invalid = [half.as_bytes(), b"\xff\n"].concat();
    for (what, log, whole, expected) in [
        (
            "a file",
            format!("{other}{half}\n{other}").into_bytes(),
            2,
            "a.log:2: event is not JSON: EOF while parsing a string",
        ),
        ("its end", format!("{other}{half}").into_bytes(), 1, "a.log:2: event is not JSON: EOF"),
        (
            "before the event",
            envoy("agent-meter spill reason=x").into_bytes(),
            0,
            "a.log:1: cut behind reason=",
        ),
        (
            "in a member",
            envoy("agent-meter spill rea").into_bytes(),
            0,
            "a.log:1: cut: no event= or fact= in it",
        ),
        ("in a character", invalid, 0, "a.log:1: damaged: not UTF-8"),
        (
            "containerd's rest",
            format!("{first_cri}\n").into_bytes(),
            0,
            "a.log:1: cut: the rest of the line did not come",
        ),
        (
            "docker's rest",
            after_docker(&line),
            0,
            "a.log:1: cut: the rest of the line did not come",
        ),
        // docker's program ended in the middle of a line: what follows is another's.
        (
            "docker's program",
            [docker(half.as_bytes()), docker(other.as_bytes())].concat(),
            1,
            "a.log:1: event is not JSON: EOF",
        ),
        ("docker's characters", spoiled, 0, "a.log:1: event is not JSON: EOF"),
        ("a part", without_second.into_bytes(), 0, "is incomplete: part 2 of 5 is missing"),
        (
            "two parts",
            parts[..3].join("\n").into_bytes(),
            0,
            "is incomplete: part 4, 5 of 5 is missing",
        ),
        ("their order", mixed.into_bytes(), 0, "a.log:5: damaged: the 5 parts of "),
        (
            "a number",
            parts[0].replace("part=1/5", "part=6/5").into_bytes(),
            0,
            "a.log:1: damaged: part=6/5 is no part",
        ),
        ("gzip", gzip(line.as_bytes())[..200].to_vec(), 0, "a.log:1: the log ends here: "),
    ] {
        let (found, unreadable) = read(log).await;
        assert_eq!((found, unreadable.len()), (whole, 1), "{what}: {unreadable:?}");
        assert!(unreadable[0].contains(expected), "{what}: {unreadable:?}");
    }
}

#[tokio::test]
async fn lines_without_end_are_bounded() {
    let mut log = vec![b'x'; 9 * 1024 * 1024];
    log.extend_from_slice(
        format!("\n{}", envoy(r#"agent-meter spill reason=x event={"id":"2"}"#)).as_bytes(),
    );
    assert_eq!(read(log).await, (1, Vec::new()));
    // Parts without end: the line is given up, and the next one is read.
    let mut log = Vec::new();
    for _ in 0..600 {
        log.extend_from_slice(b"2026-11-27T16:26:48.92Z stdout P ");
        log.extend_from_slice(&vec![b'y'; 16 * 1024]);
        log.push(b'\n');
    }
    log.extend_from_slice(b"2026-11-27T16:26:48.92Z stdout F end\n");
    log.extend_from_slice(&cri(
        envoy(r#"agent-meter spill reason=x event={"id":"2"}"#).as_bytes(),
        "stdout",
    ));
    assert_eq!(read(log).await, (1, Vec::new()));
}

#[tokio::test]
async fn events_come_out_byte_for_byte() {
    let text = r#"{"id":  "1", "text": " event={} fact={}"}"#;
    for line in [
        envoy(&format!("agent-meter spill reason=shutdown event={text}")),
        envoy(&format!("agent-meter spill reason=shutdown event={text} something behind it")),
        format!(
            "2026-11-27T16:13:37.821513Z\twarning\tenvoy wasm source/extensions/common/wasm/context.cc:1154\twasm log a: agent-meter spill reason=shutdown event={text}\tthread=27329\n"
        ),
    ] {
        let server = Receiver::start().await;
        let target = Target::Collector(server.remote());
        recover([log("a.log", line)], &target, &options(None)).await.expect("taken");
        assert_eq!(server.bodies(), [format!("[{text}]")]);
    }
}

/// A collector that keeps what it gets, and answers nothing.
pub(crate) struct Receiver {
    addr: std::net::SocketAddr,
    requests: std::sync::Arc<std::sync::Mutex<Vec<Request>>>,
}

type Request = (axum::http::HeaderMap, String);

impl Receiver {
    pub(crate) async fn start() -> Self {
        let requests = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let into = requests.clone();
        let take = move |headers: axum::http::HeaderMap, body: String| async move {
            into.lock().expect("a lock").push((headers, body));
        };
        let routes = axum::Router::new().route("/v1/events", axum::routing::post(take));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Self { addr, requests }
    }

    pub(crate) fn remote(&self) -> agent_meter_collector::recover::Remote {
        let url = format!("http://{}/v1/events", self.addr).parse().expect("a URL");
        agent_meter_collector::recover::Remote::new(url)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("a lock").clone()
    }

    fn bodies(&self) -> Vec<String> {
        self.requests().into_iter().map(|(_, body)| body).collect()
    }
}

/// The text of an answer of another collector, and whether it is a receipt of one event.
#[tokio::test]
async fn a_receipt_accounts_for_every_event() {
    let line = envoy(r#"agent-meter spill reason=x event={"id":"2"}"#);
    for (media_type, body, expected) in [
        ("application/json", r#"{"accepted":1,"duplicates":0,"rejected":[]}"#, Some((1, 0))),
        ("application/json", r#"{"accepted":0,"duplicates":1,"rejected":[]}"#, Some((1, 1))),
        (
            "application/json",
            r#"{"accepted":0,"duplicates":0,"rejected":[{"id":"2","reason":"no"}]}"#,
            Some((0, 0)),
        ),
        ("application/json", r#"{"status":"ok"}"#, Some((1, 0))),
        ("text/plain", "ok", Some((1, 0))),
        ("text/plain", "", Some((1, 0))),
        ("application/json", r#"{"accepted":0,"duplicates":0,"rejected":[]}"#, None),
        ("text/html", "<html>login</html>", None),
    ] {
        let answer = move || async move { ([("content-type", media_type)], body) };
        let routes = axum::Router::new().route("/v1/events", axum::routing::post(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/v1/events", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let remote = agent_meter_collector::recover::Remote::new(url.parse().expect("a URL"));
        let target = Target::Collector(remote);
        let (logs, options) = ([log("a.log", line.clone())], options(None));
        let found = recover(logs, &target, &options);
        let found = tokio::time::timeout(std::time::Duration::from_secs(1), found).await;
        let found = found.ok().map(|found| found.expect("an answer"));
        assert_eq!(found.map(|found| (found.taken, found.known)), expected, "{body}");
    }
}
