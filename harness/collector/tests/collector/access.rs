//! Tests who may write and read, under which host, and how much: K6 and K12 of what hostile senders
//! tried.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use agent_meter_collector::{Secrets, SharedSecret, Timeouts};
use hmac::{Hmac, KeyInit, Mac};
use rusqlite::Connection;
use sha2::Sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::guards::{EDGE_2, SCOPE};
use super::*;

const EDGE: &str = "the edge's secret, 0123456789";
const HUB: &str = "the hub's secret, 9876543210";
const READER: &str = "the reader's secret, abcdef";

fn secrets(secrets: &[(&str, &str)]) -> Secrets {
    let secrets = secrets.iter().map(|(name, text)| SharedSecret::new(name, text).expect(name));
    Secrets::new(secrets.collect()).expect("secrets")
}

fn two_writers() -> Extras {
    Extras {
        writers: secrets(&[("edge", EDGE), ("hub", HUB)]),
        clock: clock(),
        ..Extras::default()
    }
}

async fn start_with(extras: Extras) -> Collector {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Collector::start_with(listen, &new_ledger(), extras).await.expect("collector")
}

fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("key");
    mac.update(b"agent-meter-batch.v1\n");
    mac.update(body);
    let digits = mac.finalize().into_bytes().into_iter().map(|byte| format!("{byte:02x}"));
    format!("v1={}", digits.collect::<String>())
}

/// The head of a POST, as text, that a `body` follows.
fn head(addr: SocketAddr, headers: &[(&str, &str)], bytes: usize) -> String {
    let mut head = "POST /v1/events HTTP/1.1\r\nconnection: close\r\n".to_owned();
    if !headers.iter().any(|(name, _)| *name == "host") {
        head.push_str(&format!("host: {addr}\r\n"));
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    format!("{head}content-type: {BATCH}\r\ncontent-length: {bytes}\r\n\r\n")
}

/// Posts with exactly these headers, and returns the status and the body.
async fn post(collector: &Collector, headers: &[(&str, &str)], body: &[u8]) -> (u16, Value) {
    let mut stream = TcpStream::connect(collector.addr()).await.expect("connects");
    let head = head(collector.addr(), headers, body.len());
    stream.write_all(head.as_bytes()).await.expect("sends");
    stream.write_all(body).await.expect("sends");
    answer(stream).await
}

async fn answer(mut stream: TcpStream) -> (u16, Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("reads");
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (status.expect("a status"), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn body(events: &[Value]) -> Vec<u8> {
    serde_json::to_vec(events).expect("json")
}

fn from(source: &str, sequence: u64) -> Value {
    let mut event = call(sequence, json!({}));
    event["source"] = source.into();
    event
}

#[tokio::test]
async fn only_who_knows_a_secret_may_write() {
    let collector = start_with(two_writers()).await;
    let events = body(&[call(1, json!({}))]);
    let (good, bearer) = (signature(EDGE, &events), format!("Bearer {EDGE}"));
    let other = signature(EDGE, &body(&[call(2, json!({}))]));
    let (wrong, unsigned) = (signature("not the secret 0123", &events), good.replace("v1=", ""));
    for headers in [
        vec![],
        vec![("authorization", "Bearer not the secret, 0123456789")],
        vec![("authorization", "Bearer ")],
        vec![("authorization", EDGE)],
        vec![("agent-meter-signature", wrong.as_str())],
        vec![("agent-meter-signature", other.as_str())],
        vec![("agent-meter-signature", unsigned.as_str())],
        vec![("agent-meter-signature", "v1=")],
        // A signature that is wrong is not made good by anything else.
        vec![("agent-meter-signature", wrong.as_str()), ("authorization", bearer.as_str())],
    ] {
        let (status, answer) = post(&collector, &headers, &events).await;
        let error = "the secret is missing or wrong: expected agent-meter-signature: v1=HEX of \
                     the body, or authorization: Bearer SECRET";
        assert_eq!((status, answer), (401, json!({"error": error})), "{headers:?}");
        assert_eq!(collector.ledger().count_events().expect("count"), 0, "{headers:?}");
    }
    let twice = [("agent-meter-signature", good.as_str()), ("agent-meter-signature", &wrong)];
    assert_eq!(post(&collector, &twice, &events).await.0, 400);
    for (headers, accepted) in
        [([("agent-meter-signature", good.as_str())], 1), ([("authorization", &bearer)], 0)]
    {
        let (status, receipt) = post(&collector, &headers, &events).await;
        assert_eq!((status, &receipt["accepted"]), (200, &json!(accepted)), "{receipt}");
    }
    let (_, text) = Http::new(&collector).get("/metrics").await;
    let line = "agent_meter_collector_refused_writes_total{reason=\"unauthorized\"} 9";
    assert!(text.lines().any(|found| found == line), "{text}");
    assert!(!text.contains(EDGE));
    collector.stop().await;
}

#[tokio::test]
async fn a_source_belongs_to_the_secret_that_wrote_first() {
    let collector = start_with(two_writers()).await;
    let send = async |secret: &str, events: &[Value]| {
        let events = body(events);
        let signature = signature(secret, &events);
        let (status, receipt) =
            post(&collector, &[("agent-meter-signature", signature.as_str())], &events).await;
        assert_eq!(status, 200);
        receipt
    };
    assert_eq!(send(EDGE, &[from(SOURCE, 1)]).await["accepted"], 1);
    // Another sender takes no numbers of the live source, and tells nothing in its name.
    let forged = send(HUB, &[from(SOURCE, 2), from(SOURCE, 3), from(EDGE_2, 1)]).await;
    assert_eq!(forged["accepted"], 1);
    let reason = "source: another sender wrote for it first, with another secret";
    for index in 0..2 {
        assert_eq!(forged["rejected"][index]["reason"], reason, "{forged}");
    }
    let honest = send(EDGE, &[from(SOURCE, 2), from(SOURCE, 3)]).await;
    assert_eq!((&honest["accepted"], &honest["rejected"]), (&json!(2), &json!([])));
    let ledger = collector.ledger();
    assert_eq!(gaps(&ledger)["sources"][0]["writer"], "edge");
    assert_eq!(gaps(&ledger)["sources"][1]["writer"], "hub");
    // Whoever has the file may bring what a log holds.
    assert_eq!(insert(&ledger, &[from(SOURCE, 4)]).accepted, 1);
    assert_eq!(gaps(&ledger)["sources"][0]["writer"], "edge");
    collector.stop().await;
}

#[tokio::test]
async fn a_source_of_before_the_secrets_is_bound_by_the_first_one_and_never_set_free() {
    let directory = tempfile::tempdir().expect("directory");
    let url = directory.path().join("ledger.db").to_str().expect("UTF-8").to_owned();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let open = async |extras| Collector::start_with(listen, &url, extras).await.expect("starts");
    let collector = open(Extras { clock: clock(), ..Extras::default() }).await;
    assert_eq!(post(&collector, &[], &body(&[call(1, json!({}))])).await.0, 200);
    collector.stop().await;
    let collector = open(two_writers()).await;
    for (secret, status) in [(EDGE, 200), (HUB, 403)] {
        let events = body(&[call(if status == 200 { 2 } else { 3 }, json!({}))]);
        let signature = signature(secret, &events);
        let headers = [("agent-meter-signature", signature.as_str())];
        assert_eq!(post(&collector, &headers, &events).await.0, status);
    }
    collector.stop().await;
    let collector = open(Extras { clock: clock(), ..Extras::default() }).await;
    // As a whole, so that the filter sends it again once the operator has mended the secrets.
    let refused = post(&collector, &[], &body(&[call(4, json!({}))])).await;
    let error = "source: another sender wrote for it first, with another secret";
    assert_eq!(refused, (403, json!({"error": error})));
    assert_eq!(collector.ledger().count_events().expect("count"), 2);
    collector.stop().await;
}

fn totals(source: &str, sequence: u64, calls: u64) -> Value {
    let mut event = event(sequence, "guard_totals", json!({}));
    event["source"] = source.into();
    event["data"] = json!({
        "event_type": "guard_totals", "guard_id": "floor", "guard_kind": "budget",
        "mode": "enforce", "scope": "customer", "customer_id": "acme", "scope_key": SCOPE,
        "period": "hour", "period_started_at": "2026-07-01T10:00:00.000Z",
        "total_provider_cost": "0", "total_revenue": "0", "currency": "USD", "level": "NONE",
        "calls": calls, "tokens": 0,
    });
    event
}

#[tokio::test]
async fn totals_count_for_the_source_of_an_authenticated_sender_only() {
    let directory = tempfile::tempdir().expect("directory");
    let url = directory.path().join("ledger.db").to_str().expect("UTF-8").to_owned();
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let open = async |extras| Collector::start_with(listen, &url, extras).await.expect("starts");
    // Invented before there were secrets.
    let collector = open(Extras { clock: clock(), ..Extras::default() }).await;
    let invented = body(&[totals("urn:agent-meter:nobody:1", 1, 1_000_000)]);
    assert_eq!(post(&collector, &[], &invented).await.0, 200);
    collector.stop().await;
    let collector = open(two_writers()).await;
    assert_eq!(post(&collector, &[], &body(&[totals("urn:x", 1, 1_000_000)])).await.0, 401);
    let mut verdicts = Vec::new();
    // The second speaks in the name of the first, which counts for nothing.
    for (secret, events) in [
        (EDGE, [totals(SOURCE, 1, 3)]),
        (HUB, [totals(SOURCE, 2, 1_000_000)]),
        (HUB, [totals(EDGE_2, 1, 5)]),
    ] {
        let events = body(&events);
        let signature = signature(secret, &events);
        let headers = [("agent-meter-signature", signature.as_str())];
        let (_, receipt) = post(&collector, &headers, &events).await;
        verdicts.push(receipt["verdicts"][0]["calls"].clone());
    }
    assert_eq!(verdicts, [json!(0), Value::Null, json!(3)]);
    let (_, text) = Http::new(&collector).get("/v1/guards").await;
    let found = &serde_json::from_str::<Value>(&text).expect("json")["guards"][0];
    assert_eq!((&found["calls"], &found["emitters"]), (&json!(8), &json!(2)));
    collector.stop().await;
}

#[tokio::test]
async fn only_a_known_host_is_answered_and_no_page_of_another_site_writes() {
    let extras = Extras {
        hosts: vec!["billing.example.com".to_owned()],
        clock: clock(),
        ..Extras::default()
    };
    let collector = start_with(extras).await;
    let events = body(&[call(1, json!({}))]);
    let addr = collector.addr().to_string();
    let own = format!("http://{addr}");
    for (headers, status) in [
        (vec![("host", "evil.example")], 421),
        (vec![("host", "127.0.0.1.evil.example")], 421),
        (vec![("host", "")], 421),
        (vec![("host", addr.as_str()), ("host", "evil.example")], 400),
        (vec![("origin", "https://evil.example")], 403),
        (vec![("origin", "null")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("sec-fetch-site", "same-site")], 403),
        (vec![("origin", own.as_str()), ("sec-fetch-site", "same-origin")], 200),
        (vec![("host", "localhost:1")], 200),
        (vec![("host", "Billing.Example.com")], 200),
    ] {
        assert_eq!(post(&collector, &headers, &events).await.0, status, "{headers:?}");
        let count = u64::from(status == 200);
        assert!(collector.ledger().count_events().expect("count") >= count);
        assert!(status == 200 || collector.ledger().count_events().expect("count") == 0);
    }
    // Readers too: the answer must not go to a page that lets its name lead here.
    for (path, status) in
        [("/", 421), ("/v1/usage", 421), ("/metrics", 421), ("/nothing", 421), ("/healthz", 200)]
    {
        let mut stream = TcpStream::connect(collector.addr()).await.expect("connects");
        let head =
            format!("GET {path} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.expect("sends");
        assert_eq!(answer(stream).await.0, status, "{path}");
    }
    let mut stream = TcpStream::connect(collector.addr()).await.expect("connects");
    let head = format!(
        "GET http://evil.example/v1/usage HTTP/1.1\r\nhost: {addr}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("sends");
    assert_eq!(answer(stream).await.0, 421);
    collector.stop().await;
}

#[tokio::test]
async fn readers_need_the_secret_if_there_is_one() {
    let readers = secrets(&[("reader", READER)]);
    let collector = start_with(Extras { readers, ..two_writers() }).await;
    let http = Http::new(&collector);
    let paths = [
        "/",
        "/metrics",
        "/v1/events",
        "/v1/usage",
        "/v1/sessions",
        "/v1/gaps",
        "/v1/quarantine",
        "/v1/reconcile",
        "/v1/guards",
        "/v1/balances",
        "/v1/alerts",
    ];
    for path in paths {
        let url = format!("http://{}{path}", collector.addr());
        for (told, status) in [
            (None, 401),
            (Some(format!("Bearer {EDGE}")), 401),
            (Some(format!("Bearer {READER}")), 200),
        ] {
            let request = http.client.get(&url);
            let request = match &told {
                Some(told) => request.header("authorization", told),
                None => request,
            };
            let answer = request.send().await.expect(path);
            assert_eq!(answer.status().as_u16(), status, "{path} {told:?}");
            assert!(status == 200 || answer.headers().contains_key("www-authenticate"));
        }
        // As a browser asks for the page.
        let answer = http.client.get(&url).basic_auth("any", Some(READER)).send().await;
        assert_eq!(answer.expect(path).status().as_u16(), 200, "{path}");
    }
    assert_eq!(http.get("/healthz").await.0, 200, "probes have no secret");
    let bearer = format!("Bearer {READER}");
    let events = body(&[call(1, json!({}))]);
    let (status, _) = post(&collector, &[("authorization", bearer.as_str())], &events).await;
    assert_eq!(status, 401, "a reader does not write");
    collector.stop().await;
    // Without a secret for readers, this machine may read.
    let collector = start_with(two_writers()).await;
    assert_eq!(Http::new(&collector).get("/v1/usage").await.0, 200);
    collector.stop().await;
}

#[tokio::test]
async fn only_who_has_the_secret_for_top_ups_may_write_one() {
    const PAYMENTS: &str = "the payment system's secret";
    let bearer = |secret: &str| format!("Bearer {secret}");
    let told =
        json!({"top_up_id": "p-1", "customer_id": "acme", "amount": "10", "currency": "USD"});
    let post = async |collector: &Collector, told: &Value, secret: Option<&str>, host: &str| {
        let url = format!("http://{}/v1/balances", collector.addr());
        let request = reqwest::Client::new().post(&url).json(told).header("host", host);
        let request = match secret {
            Some(secret) => request.header("authorization", bearer(secret)),
            None => request,
        };
        let answer = request.send().await.expect("an answer");
        (answer.status().as_u16(), answer.json::<Value>().await.expect("JSON"))
    };
    // Nobody may if no secret is for that, whoever may write events.
    for extras in [Extras::default(), two_writers()] {
        let collector = start_with(extras).await;
        let host = collector.addr().to_string();
        let (status, answer) = post(&collector, &told, Some(EDGE), &host).await;
        assert_eq!(status, 403, "{answer}");
        collector.stop().await;
    }
    let payers = secrets(&[("payments", PAYMENTS)]);
    let collector = start_with(Extras { payers, ..two_writers() }).await;
    let host = collector.addr().to_string();
    for secret in [None, Some(EDGE), Some("another secret, 01234")] {
        let (status, _) = post(&collector, &told, secret, &host).await;
        assert_eq!(status, 401, "{secret:?}");
    }
    assert_eq!(post(&collector, &told, Some(PAYMENTS), "evil.example").await.0, 421);
    let mut other = told.clone();
    other["amount"] = "11".into();
    for (told, expected) in [
        (&json!({"top_up_id": "x"}), (400, json!({"error": "amount: missing"}))),
        (&json!([]), (400, json!({"error": "must be an object, found []"}))),
    ] {
        assert_eq!(post(&collector, told, Some(PAYMENTS), &host).await, expected);
    }
    assert_eq!(collector.ledger().count_events().expect("count"), 0);
    for outcome in ["accepted", "duplicate"] {
        let (status, answer) = post(&collector, &told, Some(PAYMENTS), &host).await;
        assert_eq!((status, &answer["outcome"]), (200, &json!(outcome)));
        assert_eq!(answer["balance"]["balance"], "10");
    }
    let (status, answer) = post(&collector, &other, Some(PAYMENTS), &host).await;
    assert!(status == 409 && answer["error"].as_str().expect("text").contains("another one"));
    let http = Http::new(&collector);
    let get = async |path: &str| {
        let (status, text) = http.get(path).await;
        (status, serde_json::from_str::<Value>(&text).expect("JSON"))
    };
    let (status, found) = get("/v1/balances?customer_id=acme").await;
    assert_eq!(status, 200);
    assert_eq!(found["balances"][0]["top_ups"][0]["state"], "live", "{found}");
    assert_eq!(get("/v1/balances?customer=acme").await.0, 400);
    assert_eq!(get("/v1/balances").await.1["balances"][0]["top_ups"], Value::Null);
    collector.stop().await;
}

#[tokio::test]
async fn an_address_that_others_reach_needs_a_secret_or_a_word() {
    let listen = SocketAddr::from(([0, 0, 0, 0], 0));
    let start = async |extras| Collector::start_with(listen, &new_ledger(), extras).await;
    let error = start(Extras::default()).await.expect_err("anybody could write");
    let expected = "listen on 0.0.0.0:0: whoever reaches it could bill any customer; give \
                    --secret-file, or --insecure if something else keeps strangers out";
    assert_eq!(error.to_string(), expected);
    let readers = secrets(&[("reader", READER)]);
    start(Extras { readers, ..Extras::default() }).await.expect_err("anybody could write");
    for extras in [two_writers(), Extras { insecure: true, ..Extras::default() }] {
        start(extras).await.expect("starts").stop().await;
    }
    let hosts = vec!["http://x".to_owned()];
    let error = start(Extras { hosts, ..two_writers() }).await.expect_err("no host");
    assert_eq!(
        format!("{error:#}"),
        "--allow-host: must be a name, or NAME:PORT, found \"http://x\""
    );
}

/// An address of this machine that is not loopback; `None` if it has none.
fn outer_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    // Sends nothing.
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|addr| addr.ip()).filter(|ip| !ip.is_loopback())
}

#[tokio::test]
async fn readers_from_elsewhere_are_refused_if_only_writers_have_secrets() {
    let Some(ip) = outer_address() else { return };
    let listen = SocketAddr::new(ip, 0);
    let get = async |extras| {
        let collector = Collector::start_with(listen, &new_ledger(), extras).await;
        let collector = collector.expect("starts");
        let found = Http::new(&collector).get("/v1/usage").await.0;
        collector.stop().await;
        found
    };
    assert_eq!(get(two_writers()).await, 403);
    assert_eq!(get(Extras { insecure: true, ..Extras::default() }).await, 200);
}

#[tokio::test]
async fn a_flood_of_nothing_has_a_small_answer() {
    let collector = start_with(Extras { clock: clock(), ..Extras::default() }).await;
    let zeros = format!("[{}0]", "0,".repeat(8_000_000)).into_bytes();
    let (status, answer) = post(&collector, &[], &zeros).await;
    assert_eq!((status, answer), (413, json!({"error": "body: must be at most 10000 events"})));
    // The most that is refused one by one, each with all that a reason may repeat.
    let long = format!("{{\"id\":\"{}\"}}", "i".repeat(500));
    let most = format!("[{}{long}]", format!("{long},").repeat(9_999)).into_bytes();
    let (status, answer) = post(&collector, &[], &most).await;
    assert_eq!((status, answer["rejected"].as_array().map(Vec::len)), (200, Some(10_000)));
    let bytes = answer.to_string().len();
    assert!(bytes < 4 * 1024 * 1024, "the filter reads no more than 4 MiB, and this has {bytes}");
    // One event that is larger than all that the filter makes.
    let huge = call(1, json!({"cost_tier": "x".repeat(1024 * 1024)}));
    let (_, answer) = post(&collector, &[], &body(&[huge])).await;
    let reason = answer["rejected"][0]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("event: must be at most 1048576 bytes, found 10"), "{reason}");
    collector.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_beyond_the_memory_for_them_are_told_to_come_again() {
    let collector = start_with(Extras { clock: clock(), ..Extras::default() }).await;
    let addr = collector.addr();
    // Five bodies of 16 MiB that never end.
    let mut held = Vec::new();
    for _ in 0..5 {
        let mut stream = TcpStream::connect(addr).await.expect("connects");
        let head = head(addr, &[], 16 * 1024 * 1024);
        stream.write_all(head.as_bytes()).await.expect("sends");
        let sent = tokio::time::timeout(Duration::from_secs(10), async {
            stream.write_all(&vec![b' '; 16 * 1024 * 1024 - 1]).await
        });
        // The last one is refused while it sends.
        let _ = sent.await;
        held.push(stream);
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let (_, text) = Http::new(&collector).get("/metrics").await;
        let line = "agent_meter_collector_refused_writes_total{reason=\"busy\"} 0";
        if !text.lines().any(|found| found == line) {
            break;
        }
        assert!(Instant::now() < deadline, "nothing was refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(held);
    let deadline = Instant::now() + Duration::from_secs(20);
    while post(&collector, &[], &body(&[call(1, json!({}))])).await.0 != 200 {
        assert!(Instant::now() < deadline, "the memory is not given back");
    }
    collector.stop().await;
}

#[tokio::test]
async fn who_sends_slowly_is_cut_off() {
    let timeouts = Timeouts { head: Duration::from_millis(300), body: Duration::from_millis(300) };
    let collector = start_with(Extras { timeouts, clock: clock(), ..Extras::default() }).await;
    // A body that stops, with a length and without one.
    let chunked = head(collector.addr(), &[("transfer-encoding", "chunked")], 0);
    let chunked = chunked.replace("content-length: 0\r\n", "") + "5\r\n[    \r\n";
    for text in [head(collector.addr(), &[], 100) + "[", chunked] {
        let mut stream = TcpStream::connect(collector.addr()).await.expect("connects");
        stream.write_all(text.as_bytes()).await.expect("sends");
        let (status, answer) = answer(stream).await;
        assert_eq!((status, answer), (408, json!({"error": "body: must come within 300ms"})));
    }
    // A head that stops, and a connection that says nothing.
    for text in ["POST /v1/events HTTP/1.1\r\nhost: ", ""] {
        let mut stream = TcpStream::connect(collector.addr()).await.expect("connects");
        stream.write_all(text.as_bytes()).await.expect("sends");
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let read = tokio::time::timeout(Duration::from_secs(10), read).await;
        read.expect("cut off").expect("an end");
    }
    let (_, text) = Http::new(&collector).get("/metrics").await;
    let line = "agent_meter_collector_refused_writes_total{reason=\"timeout\"} 2";
    assert!(text.lines().any(|found| found == line), "{text}");
    collector.stop().await;
}

#[test]
fn only_its_owner_may_read_a_ledger() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ledger.db");
    let text = path.to_str().expect("UTF-8");
    let mode = |suffix: &str| {
        let found = std::fs::metadata(format!("{text}{suffix}")).expect(suffix);
        found.permissions().mode() & 0o777
    };
    let ledger = open(text);
    insert(&ledger, &[call(1, json!({}))]);
    assert_eq!(["", "-wal", "-shm"].map(mode), [0o600; 3]);
    for suffix in ["", "-wal", "-shm"] {
        let readable = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(format!("{text}{suffix}"), readable).expect(suffix);
    }
    // As a file of an earlier version was.
    let again = open(text);
    assert_eq!(["", "-wal", "-shm"].map(mode), [0o600; 3]);
    drop((ledger, again));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_whether_the_ledger_can_be_written() {
    let directory = tempfile::tempdir().expect("directory");
    let path = directory.path().join("ledger.db");
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let collector = Collector::start(listen, path.to_str().expect("UTF-8")).await.expect("starts");
    let http = Http::new(&collector);
    assert_eq!(http.get("/healthz").await, (200, r#"{"status":"ok"}"#.to_owned()));
    let other = Connection::open(&path).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (status, text) = http.get("/healthz").await;
    assert_eq!((status, text.contains("ledger: takes longer than 2 s")), (503, true), "{text}");
    other.execute_batch("ROLLBACK").expect("unlocks");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    while http.get("/healthz").await.0 != 200 {
        assert!(Instant::now() < deadline, "well again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    collector.stop().await;
}
