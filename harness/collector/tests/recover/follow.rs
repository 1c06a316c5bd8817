//! Following the logs of a directory: as they grow, are rotated, compressed and truncated, across
//! restarts of the follower and while the target is down.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use agent_meter_collector::Ledger;
use agent_meter_collector::recover::follow::{Follow, follow};
use agent_meter_collector::recover::{Options, Recovered, Remote, Target};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::carriers::{cri, gzip};
use super::ledger;

const LIMIT: Duration = Duration::from_secs(20);

/// A directory of logs, and a ledger.
struct Node {
    dir: TempDir,
    ledger: Ledger,
    written: AtomicU64,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("pods")).expect("a directory");
        fs::create_dir(dir.path().join("containers")).expect("a directory");
        Self { dir, ledger: ledger(), written: AtomicU64::new(0) }
    }

    /// The log that the runtime writes.
    fn pod(&self) -> PathBuf {
        self.dir.path().join("pods/0.log")
    }

    /// Puts a link where Kubernetes does.
    fn link(&self) {
        let link = self.dir.path().join("containers/pod_ns_istio-proxy-0.log");
        std::os::unix::fs::symlink(self.pod(), link).expect("a link");
    }

    fn what(&self) -> Follow {
        Follow {
            dir: self.dir.path().join("containers"),
            pattern: "*_istio-proxy-*.log".to_owned(),
            state: self.dir.path().join("state.json"),
            period: Duration::from_millis(20),
        }
    }

    /// The lines of so many further events, in CRI.
    fn lines(&self, count: u64) -> Vec<u8> {
        let first = self.written.fetch_add(count, Ordering::SeqCst) + 1;
        let line = |number: u64| {
            let event = json!({
                "specversion": "1.0", "id": format!("{number:020}"), "source": "urn:agent-meter:e:1",
                "type": "agent-meter.session_created", "time": "2026-07-01T10:00:00.000Z",
                "subject": "acme", "sequence": format!("{number:020}"),
                "datacontenttype": "application/json", "data": {
                    "event_type": "session_created", "product_id": "tools",
                    "product_type": "MCP_SERVER", "customer_id": "acme", "team_id": "blue",
                    "agent_id": "a", "session_id": format!("{number:032x}"),
                    "session_key": format!("{number:032x}"), "session_state": "CREATED",
                    "session_started_at": "2026-07-01T10:00:00.000Z",
                },
            });
            format!(
                "[2026-11-27 16:26:48.953][5863][warning][wasm] [source/extensions/common/wasm/context.cc:1154] wasm log agent-meter: agent-meter spill reason=refused event={event}\n"
            )
        };
        let lines: String = (first..first + count).map(line).collect();
        cri(lines.as_bytes(), "stderr")
    }

    fn append(&self, file: &Path, text: &[u8]) {
        let log = OpenOptions::new().create(true).append(true).open(file);
        log.and_then(|mut log| log.write_all(text)).expect("written");
    }

    /// Follows until the ledger has every event that was written, after `during`.
    async fn follow(&self, target: &Target, during: impl AsyncFnOnce()) -> Recovered {
        let (stop, stopped) = oneshot::channel::<()>();
        let what = self.what();
        let options = Options::default();
        let mut report = |_: &Recovered| {};
        let stopped = async { drop(stopped.await) };
        let following = follow(&what, target, &options, stopped, &mut report);
        let playing = async {
            during().await;
            let end = tokio::time::Instant::now() + LIMIT;
            loop {
                let (stored, written) = (
                    self.ledger.count_events().expect("a count"),
                    self.written.load(Ordering::SeqCst),
                );
                if stored == written {
                    break;
                }
                assert!(tokio::time::Instant::now() < end, "{stored} of {written} events");
                pause(20).await;
            }
            // Whatever would come twice has the time to.
            pause(200).await;
            stop.send(()).expect("it follows");
        };
        let (total, ()) = tokio::join!(following, playing);
        let total = total.expect("it ends well");
        assert!(total.is_complete(), "{total:?}");
        total
    }

    fn target(&self) -> Target {
        Target::Ledger { ledger: self.ledger.clone(), allows_older: true }
    }
}

async fn pause(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test]
async fn a_log_is_followed_as_it_grows_and_after_a_restart() {
    let node = Node::new();
    node.append(&node.pod(), &node.lines(3));
    node.link();
    // Another container's log is none of ours.
    node.append(&node.dir.path().join("containers/pod_ns_server-0.log"), b"x\n");
    let total = node
        .follow(&node.target(), async || {
            pause(100).await;
            node.append(&node.pod(), &node.lines(2));
            let lines = node.lines(1);
            let (first, second) = lines.split_at(lines.len() / 2);
            node.append(&node.pod(), first);
            pause(100).await;
            node.append(&node.pod(), second);
        })
        .await;
    assert_eq!((total.taken, total.known), (6, 0));
    // What is written while nobody follows is read later, and nothing else again.
    node.append(&node.pod(), &node.lines(4));
    let total = node.follow(&node.target(), async || {}).await;
    assert_eq!((total.taken, total.known), (4, 0));
    let total = node.follow(&node.target(), async || {}).await;
    assert_eq!(total, Recovered::default());
}

#[tokio::test]
async fn rotation_loses_nothing() {
    let node = Node::new();
    node.append(&node.pod(), &node.lines(3));
    node.link();
    let old = node.dir.path().join("pods/0.log.20261127-161335");
    let total = node
        .follow(&node.target(), async || {
            for round in 0..3 {
                pause(60).await;
                fs::rename(node.pod(), format!("{}{round}", old.display())).expect("renamed");
                // The runtime writes to the old file until it opens the new one.
                node.append(&PathBuf::from(format!("{}{round}", old.display())), &node.lines(2));
                File::create(node.pod()).expect("a file");
                node.append(&node.pod(), &node.lines(2));
            }
        })
        .await;
    assert_eq!((total.taken, total.known), (15, 0));
    // Rotated and compressed while nobody follows, twice.
    node.append(&node.pod(), &node.lines(2));
    let text = fs::read(node.pod()).expect("a log");
    fs::write(node.dir.path().join("pods/0.log.20261127-161336.gz"), gzip(&text)).expect("written");
    fs::remove_file(node.pod()).expect("removed");
    fs::write(node.dir.path().join("pods/0.log.20261127-161337"), node.lines(3)).expect("written");
    node.append(&node.pod(), &node.lines(1));
    let total = node.follow(&node.target(), async || {}).await;
    assert_eq!((total.taken, total.known), (6, 0));
    let total = node.follow(&node.target(), async || {}).await;
    assert_eq!(total.taken, 0, "{total:?}");
}

#[tokio::test]
async fn a_log_that_is_truncated_is_read_from_its_start() {
    let node = Node::new();
    node.append(&node.pod(), &node.lines(5));
    node.link();
    let total = node
        .follow(&node.target(), async || {
            pause(100).await;
            // As logrotate's `copytruncate`: what came just before is in the copy only.
            node.append(&node.pod(), &node.lines(2));
            fs::copy(node.pod(), node.dir.path().join("pods/0.log.1")).expect("copied");
            fs::write(node.pod(), b"").expect("truncated");
            node.append(&node.pod(), &node.lines(1));
            pause(600).await;
            // Longer than before, at once.
            fs::write(node.pod(), node.lines(9)).expect("written");
        })
        .await;
    assert_eq!((total.taken, total.known), (17, 0));
}

#[tokio::test]
async fn a_line_that_rotation_cuts_is_read_whole() {
    let node = Node::new();
    let lines = node.lines(2);
    // In parts, of which the log ends between two.
    let text = String::from_utf8(lines).expect("text");
    let cut = text
        .replace(" stderr F ", " stderr P ")
        .replace(" event=", "\n2026-11-27T16:26:48.92Z stderr F  event=");
    let lines: Vec<&str> = cut.split_inclusive('\n').collect();
    node.append(&node.pod(), lines[..3].concat().as_bytes());
    node.link();
    let total = node
        .follow(&node.target(), async || {
            pause(100).await;
            fs::rename(node.pod(), node.dir.path().join("pods/0.log.1")).expect("renamed");
            node.append(&node.pod(), lines[3..].concat().as_bytes());
        })
        .await;
    assert_eq!((total.taken, total.known), (2, 0));
}

#[tokio::test]
async fn what_happens_while_the_collector_is_down_arrives_later() {
    let node = Node::new();
    node.append(&node.pod(), &node.lines(250));
    node.link();
    let is_up = Arc::new(AtomicBool::new(false));
    let (up, into) = (is_up.clone(), node.ledger.clone());
    let take = move |body: axum::body::Bytes| async move {
        if !up.load(Ordering::SeqCst) {
            return Err(axum::http::StatusCode::SERVICE_UNAVAILABLE);
        }
        let receipt = into.insert_batch(&body, "application/cloudevents-batch+json");
        Ok(axum::Json(receipt.expect("events")))
    };
    let routes = axum::Router::new().route("/v1/events", axum::routing::post(take));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1/events", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let target = Target::Collector(Remote::new(url.parse().expect("a URL")));
    let total = node
        .follow(&target, async || {
            pause(150).await;
            // Deleted before anyone could read it, but for who has it open.
            for _ in 0..3 {
                fs::rename(node.pod(), node.dir.path().join("pods/0.log.1")).expect("renamed");
                node.append(&node.pod(), &node.lines(30));
                pause(150).await;
            }
            assert_eq!(node.ledger.count_events().expect("a count"), 0);
            is_up.store(true, Ordering::SeqCst);
        })
        .await;
    assert_eq!((total.taken, total.known), (340, 0));
}

/// A follower that ends while the collector is down leaves everything to the next one.
#[tokio::test]
async fn a_stop_while_the_collector_is_down_loses_nothing() {
    let node = Node::new();
    node.append(&node.pod(), &node.lines(3));
    node.link();
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/v1/events", nobody.local_addr().expect("an address"));
    drop(nobody);
    let target = Target::Collector(Remote::new(url.parse().expect("a URL")));
    let (what, options) = (node.what(), Options::default());
    let mut report = |_: &Recovered| {};
    let total = follow(&what, &target, &options, pause(200), &mut report).await.expect("ends");
    assert_eq!(total, Recovered::default());
    let total = node.follow(&node.target(), async || {}).await;
    assert_eq!((total.taken, total.known), (3, 0));
}

#[tokio::test]
async fn a_state_that_is_none_is_refused_with_its_name() {
    let node = Node::new();
    fs::write(node.dir.path().join("state.json"), "{}").expect("written");
    let (what, target, options) = (node.what(), node.target(), Options::default());
    let mut report = |_: &Recovered| {};
    let error =
        follow(&what, &target, &options, pause(1), &mut report).await.expect_err("no state");
    assert!(format!("{error:#}").contains("state.json: no state of"), "{error:#}");
}
