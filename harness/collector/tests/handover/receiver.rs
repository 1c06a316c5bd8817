//! A receiver over HTTP: it reads each request, checks it as its vendor would, takes what is new and
//! answers, or does what a test wants it to do instead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use http_body_util::BodyExt;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::vendors::{Answer, Vendor};

/// What a receiver does with the next request, in the place of what its vendor would.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Takes nothing, and answers with this status, and header `retry-after`.
    Answer(u16, Option<&'static str>),
    /// Takes nothing, and never answers.
    Hang,
    /// Takes nothing, and closes the connection.
    Cut,
    /// Takes all, and closes the connection without an answer.
    TakeAndCut,
}

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Came {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Came {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
}

/// What a receiver has.
#[derive(Default)]
pub(crate) struct Inbox {
    /// Requests that came, without those for tokens.
    pub(crate) came: Vec<Came>,
    pub(crate) acts: VecDeque<Act>,
    /// What it does with each request when `acts` are at their end.
    pub(crate) always: Option<Act>,
    /// The records that it has, by id.
    pub(crate) taken: BTreeMap<String, String>,
    /// Records that came again although the receiver had taken them.
    pub(crate) again: u64,
    /// Records with such a text are refused.
    pub(crate) poison: BTreeSet<String>,
    /// Tokens that were given.
    pub(crate) tokens: u64,
    /// Whether tokens end at once.
    pub(crate) tokens_end: bool,
}

pub(crate) struct Receiver {
    vendor: &'static Vendor,
    pub(crate) addr: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub(crate) async fn start(vendor: &'static Vendor) -> Receiver {
        Receiver::start_at(vendor, "127.0.0.1:0".parse().expect("addr"), Arc::default()).await
    }

    async fn start_at(
        vendor: &'static Vendor,
        addr: SocketAddr,
        inbox: Arc<Mutex<Inbox>>,
    ) -> Receiver {
        let listener = TcpListener::bind(addr).await.expect("listen");
        let addr = listener.local_addr().expect("addr");
        let shared = inbox.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let inbox = shared.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| serve(vendor, inbox.clone(), request));
                    let _ =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Receiver { vendor, addr, inbox, task }
    }

    /// The same receiver with all that it has, not listening.
    pub(crate) async fn down(self) -> Down {
        self.task.abort();
        // The port is free when the listener is gone.
        while std::net::TcpListener::bind(self.addr).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Down { vendor: self.vendor, addr: self.addr, inbox: self.inbox.clone() }
    }

    /// The file of a sink named as the vendor, which sends here, with more members.
    pub(crate) fn sinks(&self, more: &str) -> String {
        let name = self.vendor.name;
        let url = format!("http://{}", self.addr);
        let own = self.vendor.members.replace("{url}", &url);
        format!("sinks: {{{name}: {{type: {name}, url: '{url}', timeout: 1{own}{more}}}}}")
    }

    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Inbox) -> T) -> T {
        work(&mut self.inbox.lock().expect("an inbox"))
    }

    /// The ids of the records that it has.
    pub(crate) fn taken(&self) -> usize {
        self.with(|inbox| inbox.taken.len())
    }
}

pub(crate) struct Down {
    vendor: &'static Vendor,
    addr: SocketAddr,
    inbox: Arc<Mutex<Inbox>>,
}

impl Down {
    pub(crate) async fn up(self) -> Receiver {
        Receiver::start_at(self.vendor, self.addr, self.inbox).await
    }
}

/// Ends the connection.
type Cut = Box<dyn std::error::Error + Send + Sync>;

async fn serve(
    vendor: &'static Vendor,
    inbox: Arc<Mutex<Inbox>>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Body>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let path = head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
    let body = String::from_utf8(body.to_vec())?;
    let came = Came { path, headers: head.headers, body };
    if let Some(token) = vendor.token.filter(|token| came.path == token.path) {
        let mut inbox = inbox.lock().expect("an inbox");
        inbox.tokens += 1;
        return Ok(respond((token.give)(&came, inbox.tokens, inbox.tokens_end), None));
    }
    let act = {
        let mut inbox = inbox.lock().expect("an inbox");
        inbox.came.push(came.clone());
        inbox.acts.pop_front().or_else(|| inbox.always.clone())
    };
    match act {
        Some(Act::Answer(status, after)) => Ok(respond((status, String::from("{}")), after)),
        Some(Act::Hang) => {
            std::future::pending::<Result<_, Infallible>>().await.map_err(Into::into)
        }
        Some(Act::Cut) => Err("cut".into()),
        Some(Act::TakeAndCut) => {
            let records = (vendor.records)(&came);
            let mut inbox = inbox.lock().expect("an inbox");
            for (id, content) in records {
                inbox.taken.insert(id, content);
            }
            Err("taken and cut".into())
        }
        None => Ok(respond(take(vendor, &inbox, &came), None)),
    }
}

/// Does what the vendor would do: refuses or takes.
fn take(vendor: &Vendor, inbox: &Mutex<Inbox>, came: &Came) -> Answer {
    let records = (vendor.records)(came);
    assert!(!records.is_empty(), "{}: a request without records", vendor.name);
    let mut inbox = inbox.lock().expect("an inbox");
    let poison = inbox.poison.clone();
    let is_wrong = |content: &str| poison.iter().any(|poison| content.contains(poison.as_str()));
    let wrong: Vec<usize> = records
        .iter()
        .enumerate()
        .filter(|(_, (_, content))| is_wrong(content))
        .map(|(index, _)| index)
        .collect();
    let known: Vec<usize> = records
        .iter()
        .enumerate()
        .filter(|(_, (id, _))| inbox.taken.contains_key(id))
        .map(|(index, _)| index)
        .collect();
    for index in &known {
        let (id, content) = &records[*index];
        assert_eq!(inbox.taken[id], *content, "{}: the same id, other content", vendor.name);
    }
    inbox.again += known.len() as u64;
    let ids: Vec<&str> = records.iter().map(|(id, _)| id.as_str()).collect();
    let (answer, taken) = (vendor.answer)(&ids, &wrong, &known);
    for index in taken {
        let (id, content) = &records[index];
        inbox.taken.insert(id.clone(), content.clone());
    }
    answer
}

fn respond((status, body): Answer, after: Option<&str>) -> Response<Body> {
    let mut response = Response::builder().status(status);
    if let Some(after) = after {
        response = response.header("retry-after", after);
    }
    response.body(Body::from(body)).expect("a response")
}
