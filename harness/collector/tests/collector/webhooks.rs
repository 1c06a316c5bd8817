//! Tests webhooks, with a receiver that reads from its socket and answers as the test says.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use agent_meter_collector::{Extras, Retry, Secret, Webhook, Webhooks};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::guards::{EDGE_2, crossed};
use super::*;

const KEY: &[u8] = b"a key that both sides know";

/// The posts that came, and the responses to send: a status, `Retry-After`, and how long to wait.
struct Receiver {
    url: String,
    state: Arc<Mutex<Inbox>>,
}

#[derive(Default)]
struct Inbox {
    came: Vec<Came>,
    answers: VecDeque<(u16, Option<String>, Duration)>,
}

#[derive(Debug, Clone)]
struct Came {
    id: String,
    at: Instant,
    event: Value,
}

impl Receiver {
    async fn start() -> Receiver {
        let state = Arc::new(Mutex::new(Inbox::default()));
        let routes = Router::new().route("/hook", post(receive)).with_state(state.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let url = format!("http://{}/hook?team=1", listener.local_addr().expect("addr"));
        tokio::spawn(axum::serve(listener, routes).into_future());
        Receiver { url, state }
    }

    /// The next responses; after them the receiver accepts everything.
    fn answers(&self, answers: &[(u16, Option<&str>)]) {
        let answers = answers
            .iter()
            .map(|(status, after)| (*status, after.map(str::to_owned), Duration::ZERO));
        self.state.lock().expect("inbox").answers.extend(answers);
    }

    fn hangs_once(&self) {
        let answer = (200, None, Duration::from_secs(60));
        self.state.lock().expect("inbox").answers.push_back(answer);
    }

    fn came(&self) -> Vec<Came> {
        self.state.lock().expect("inbox").came.clone()
    }

    async fn until_came(&self, count: usize) -> Vec<Came> {
        until(|| async { (self.came().len() >= count).then(|| self.came()) }).await
    }
}

/// Checks what any receiver of Standard Webhooks checks.
async fn receive(
    State(state): State<Arc<Mutex<Inbox>>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, HeaderMap) {
    let header = |name: &str| headers[name].to_str().expect(name).to_owned();
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let age = chrono::Utc::now().timestamp() - timestamp.parse::<i64>().expect("seconds");
    assert!((0..10).contains(&age), "{timestamp}");
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).expect("key");
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(&body);
    let signature = header("webhook-signature");
    let signature = signature.strip_prefix("v1,").expect("v1");
    mac.verify_slice(&BASE64_STANDARD.decode(signature).expect("base64")).expect("signed");
    assert!(!id.contains('.'), "{id}");
    assert_eq!(header("content-type"), "application/json");
    let event = serde_json::from_slice(&body).expect("json");
    let (status, after, think) = {
        let mut inbox = state.lock().expect("inbox");
        inbox.came.push(Came { id, at: Instant::now(), event });
        inbox.answers.pop_front().unwrap_or((204, None, Duration::ZERO))
    };
    tokio::time::sleep(think).await;
    let mut headers = HeaderMap::new();
    if let Some(after) = after {
        headers.insert("retry-after", after.parse().expect("header"));
    }
    (StatusCode::from_u16(status).expect("status"), headers)
}

async fn until<T, F: Future<Output = Option<T>>>(found: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < deadline, "nothing within 20 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A retry after 50 ms.
fn quick_retry() -> Retry {
    Retry { first: Duration::from_millis(50), ..Retry::default() }
}

async fn collector(url: &str, hooks: &[(&str, &Receiver)], retry: Retry) -> Collector {
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(KEY));
    let hooks = hooks.iter().map(|(name, receiver)| {
        format!("{name}={}", receiver.url).parse::<Webhook>().expect("webhook")
    });
    let secret = Secret::parse(&secret).expect("secret");
    let mut webhooks = Webhooks::new(hooks.collect(), secret).expect("webhooks");
    webhooks.retry = retry;
    let extras = Extras { webhooks: Some(webhooks), clock: clock(), ..Extras::default() };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    Collector::start_with(listen, url, extras).await.expect("collector")
}

async fn send(collector: &Collector, events: &[Value]) {
    let body = serde_json::to_vec(events).expect("json");
    let (status, receipt) = Http::new(collector).post(BATCH, body).await;
    assert_eq!((status, &receipt["rejected"]), (200, &json!([])));
}

/// Waits for a line of the metrics.
async fn until_metric(collector: &Collector, line: &str) {
    let http = Http::new(collector);
    let line = format!("agent_meter_collector_webhook_{line}");
    until(|| async {
        let (_, text) = http.get("/metrics").await;
        text.lines().any(|found| found == line).then_some(())
    })
    .await;
}

fn ids(came: &[Came]) -> Vec<Value> {
    let mut ids: Vec<Value> = came.iter().map(|came| came.event["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    ids
}

#[tokio::test]
async fn each_webhook_gets_each_event_for_it_once() {
    let (finance, all) = (Receiver::start().await, Receiver::start().await);
    let hooks = [("finance", &finance), ("*", &all)];
    let collector = collector(&new_ledger(), &hooks, quick_retry()).await;
    let events = [
        crossed(SOURCE, 1, json!({})),
        crossed(SOURCE, 2, json!({"notify": []})),
        call(3, json!({})),
        crossed(SOURCE, 4, json!({"notify": ["ops", "finance"]})),
        crossed(EDGE_2, 1, json!({"notify": ["ops"]})),
    ];
    send(&collector, &events).await;
    // A repeated batch posts nothing.
    send(&collector, &events).await;
    until_metric(&collector, "delivered_total{webhook=\"*\"} 4").await;
    until_metric(&collector, "delivered_total{webhook=\"finance\"} 2").await;
    for line in ["failed_total", "given_up_total", "waiting"] {
        until_metric(&collector, &format!("{line}{{webhook=\"finance\"}} 0")).await;
    }
    assert_eq!(ids(&finance.came()), [events[0]["id"].clone(), events[3]["id"].clone()]);
    let came = all.came();
    assert_eq!(came.len(), 4);
    for came in &came {
        assert!(events.contains(&came.event), "as it came in: {}", came.event);
    }
    let ids: std::collections::BTreeSet<&str> = came.iter().map(|came| came.id.as_str()).collect();
    assert_eq!(ids.len(), 4, "one id for each event: {ids:?}");
    collector.stop().await;
}

#[tokio::test]
async fn a_receiver_that_fails_twice_gets_the_event_until_it_takes_it() {
    let receiver = Receiver::start().await;
    receiver.answers(&[(500, None), (302, None)]);
    let collector = collector(&new_ledger(), &[("finance", &receiver)], quick_retry()).await;
    send(&collector, &[crossed(SOURCE, 1, json!({}))]).await;
    until_metric(&collector, "delivered_total{webhook=\"finance\"} 1").await;
    until_metric(&collector, "failed_total{webhook=\"finance\"} 2").await;
    let came = receiver.came();
    assert_eq!(came.len(), 3);
    assert!(came.iter().all(|one| one.id == came[0].id), "the receiver can tell it is the same");
    let waits = [came[1].at - came[0].at, came[2].at - came[1].at];
    assert!(waits[0] >= Duration::from_millis(50), "{waits:?}");
    assert!(waits[1] >= Duration::from_millis(100), "twice as long: {waits:?}");
    collector.stop().await;
}

#[tokio::test]
async fn a_restart_of_the_collector_forgets_nothing() {
    let directory = tempfile::tempdir().expect("directory");
    let url = format!("sqlite:{}", directory.path().join("ledger.db").display());
    let receiver = Receiver::start().await;
    receiver.answers(&[(503, None), (503, None)]);
    // A slow retry, so that the stop comes between the tries.
    let slow_retry = Retry { first: Duration::from_millis(600), ..Retry::default() };
    for (starts, tries) in [(1, 1), (2, 2), (3, 3)] {
        let collector = collector(&url, &[("finance", &receiver)], slow_retry).await;
        if starts == 1 {
            send(&collector, &[crossed(SOURCE, 1, json!({}))]).await;
        }
        receiver.until_came(tries).await;
        collector.stop().await;
        assert_eq!(receiver.came().len(), tries, "a stopped collector posts nothing");
    }
    let collector = collector(&url, &[("finance", &receiver)], slow_retry).await;
    until_metric(&collector, "delivered_total{webhook=\"finance\"} 1").await;
    until_metric(&collector, "failed_total{webhook=\"finance\"} 2").await;
    until_metric(&collector, "waiting{webhook=\"finance\"} 0").await;
    assert_eq!(receiver.came().len(), 3);
    collector.stop().await;
}

#[tokio::test]
async fn what_is_gone_or_too_old_is_given_up() {
    let receiver = Receiver::start().await;
    receiver.answers(&[(410, None)]);
    let short = Retry { horizon: Duration::from_millis(300), ..quick_retry() };
    let collector = collector(&new_ledger(), &[("finance", &receiver)], short).await;
    send(&collector, &[crossed(SOURCE, 1, json!({}))]).await;
    until_metric(&collector, "given_up_total{webhook=\"finance\"} 1").await;
    assert_eq!(receiver.came().len(), 1, "410 is final");

    receiver.answers(&[(500, None); 20]);
    let begun = Instant::now();
    send(&collector, &[crossed(SOURCE, 2, json!({}))]).await;
    until_metric(&collector, "given_up_total{webhook=\"finance\"} 2").await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    let tries = receiver.came().len();
    assert!(tries >= 4, "first, after 50, 100, and at the end: {tries}");
    until_metric(&collector, &format!("failed_total{{webhook=\"finance\"}} {tries}")).await;
    collector.stop().await;
}

#[tokio::test]
async fn a_receiver_that_asks_to_wait_is_left_alone() {
    let receiver = Receiver::start().await;
    receiver.answers(&[(429, Some("1"))]);
    let collector = collector(&new_ledger(), &[("finance", &receiver)], quick_retry()).await;
    send(&collector, &[crossed(SOURCE, 1, json!({}))]).await;
    let came = receiver.until_came(2).await;
    assert!(came[1].at - came[0].at >= Duration::from_millis(990), "{came:?}");
    until_metric(&collector, "delivered_total{webhook=\"finance\"} 1").await;
    // As a date in whole seconds, so between one and two seconds from now.
    let date = (chrono::Utc::now() + Duration::from_secs(2)).format("%a, %d %b %Y %H:%M:%S GMT");
    receiver.answers(&[(503, Some(&date.to_string()))]);
    send(&collector, &[crossed(SOURCE, 2, json!({}))]).await;
    let came = receiver.until_came(4).await;
    assert!(came[3].at - came[2].at >= Duration::from_millis(900), "{came:?}");
    until_metric(&collector, "delivered_total{webhook=\"finance\"} 2").await;
    collector.stop().await;
}

#[tokio::test]
async fn a_receiver_that_hangs_or_is_not_there_holds_up_no_other() {
    let (slow, good, gone) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    slow.hangs_once();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let url = format!("http://{}/", nobody.local_addr().expect("addr"));
    drop(nobody);
    let gone = Receiver { url, ..gone };
    let hooks = [("slow", &slow), ("good", &good), ("gone", &gone)];
    let retry = Retry { timeout: Duration::from_secs(1), ..quick_retry() };
    let collector = collector(&new_ledger(), &hooks, retry).await;
    let notify = json!({"notify": ["slow", "good", "gone"]});
    let begun = Instant::now();
    send(&collector, &[crossed(SOURCE, 1, notify)]).await;
    until_metric(&collector, "delivered_total{webhook=\"good\"} 1").await;
    assert!(begun.elapsed() < Duration::from_secs(1), "before the slow one's time is over");
    until_metric(&collector, "delivered_total{webhook=\"slow\"} 1").await;
    until_metric(&collector, "failed_total{webhook=\"slow\"} 1").await;
    until_metric(&collector, "waiting{webhook=\"gone\"} 1").await;
    collector.stop().await;
}

#[test]
fn webhooks_that_cannot_be_used_say_why() {
    for (text, expected) in [
        ("finance", "must be NAME=URL, found \"finance\""),
        ("=http://127.0.0.1/", "the name must be * or 1 to 64 of A-Z a-z 0-9 - _ ., found \"\""),
        (
            "a b=http://127.0.0.1/",
            "the name must be * or 1 to 64 of A-Z a-z 0-9 - _ ., found \"a b\"",
        ),
        ("ops=/hook", "the URL of ops: relative URL without a base, found \"/hook\""),
        ("ops=http://", "the URL of ops: empty host, found \"http://\""),
        (
            "ops=ftp://127.0.0.1/",
            "the URL of ops: must begin with http:// or https://, found \"ftp://127.0.0.1/\"",
        ),
        (
            "ops=https://me:secret@127.0.0.1/",
            "the URL of ops: must hold no user and no password; the receiver knows us by the \
             signature",
        ),
    ] {
        let error = text.parse::<Webhook>().expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    }
    let hook = || "ops=https://127.0.0.1/".parse::<Webhook>().expect("webhook");
    for (hooks, expected) in [
        (vec![hook(), hook()], "the name ops is given twice"),
        (vec![], "must be 1 to 32 webhooks, found 0"),
        (vec![hook(); 33], "must be 1 to 32 webhooks, found 33"),
    ] {
        let secret = Secret::parse("plain").expect("secret");
        assert_eq!(Webhooks::new(hooks, secret).expect_err(expected).to_string(), expected);
    }
}
