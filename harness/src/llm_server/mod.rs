//! An endpoint with the APIs of the large language models of several providers. It keeps its own
//! account of the tokens that it reported: `GET /account`. It runs no model; every number follows
//! from the request. It compresses responses for clients that accept gzip.

mod account;
mod api;

use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use account::{Account, Entry, Generation, Tokens};

use account::Books;
use api::{Ask, Form};

const STOP_LIMIT: Duration = Duration::from_secs(2);
/// The most `traceparent` values that the endpoint keeps.
const TRACES_MAX: usize = 10_000;

/// How the endpoint answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LlmOptions {
    /// The pause between two parts of a stream, and before a plain response.
    pub delay: Duration,
}

/// A running endpoint. Dropped without [`LlmServer::stop`], it stops by itself, and nobody waits
/// for it.
#[derive(Debug)]
pub struct LlmServer {
    addr: SocketAddr,
    books: Arc<Mutex<Books>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

#[derive(Debug, Clone)]
struct Shared {
    books: Arc<Mutex<Books>>,
    options: LlmOptions,
}

impl LlmServer {
    /// Serves on `listen`; port 0 takes a free one.
    pub async fn start(listen: SocketAddr, options: LlmOptions) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("the LLM endpoint cannot listen on {listen}"))?;
        let addr = listener.local_addr()?;
        let books = Arc::<Mutex<Books>>::default();
        let router = Router::new()
            .route("/account", get(account))
            .fallback(ask)
            .with_state(Shared { books: books.clone(), options });
        let (stop, stopped) = oneshot::channel();
        let serving = axum::serve(listener, router).with_graceful_shutdown(async {
            // An error means that the server was dropped, which stops it too.
            let _ = stopped.await;
        });
        Ok(Self { addr, books, stop, serving: tokio::spawn(serving.into_future()) })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it has reported since it started.
    pub fn account(&self) -> Account {
        lock(&self.books).account()
    }

    /// Each response that it began, in order.
    pub fn generations(&self) -> Vec<Generation> {
        lock(&self.books).generations().to_vec()
    }

    /// The `traceparent` of each request that had one, in order.
    pub fn traceparents(&self) -> Vec<String> {
        lock(&self.books).traceparents.clone()
    }

    /// Accepts no further connections, and waits at most two seconds for open requests.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let abort = self.serving.abort_handle();
        if tokio::time::timeout(STOP_LIMIT, self.serving).await.is_err() {
            abort.abort();
        }
    }
}

fn lock(books: &Mutex<Books>) -> MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn account(State(shared): State<Shared>) -> Json<Account> {
    Json(lock(&shared.books).account())
}

/// Answers as a model would; the header `x-status` makes it refuse with that status.
async fn ask(State(shared): State<Shared>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let asked = Ask::read(uri.path(), uri.query().unwrap_or_default(), &headers, &body);
    {
        let mut books = lock(&shared.books);
        books.requests += 1;
        if let Some(traceparent) = text("traceparent")
            && books.traceparents.len() < TRACES_MAX
        {
            books.traceparents.push(traceparent.to_owned());
        }
    }
    let Some(asked) = asked else {
        return refusal(StatusCode::NOT_FOUND, "no such API, or not a JSON object with a model");
    };
    if let Some(status) = text("x-status").and_then(|status| status.parse::<u16>().ok()) {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
        return refusal(status, "refused as the request asked");
    }
    let traceparent = text("traceparent").map(str::to_owned);
    let generation = lock(&shared.books).begin(asked.api.provider(), &asked.model, traceparent);
    let mut coder = text("accept-encoding")
        .is_some_and(|it| it.contains("gzip"))
        .then(|| GzEncoder::new(Vec::new(), Compression::default()));
    let mut head = HeaderMap::new();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static(asked.content_type()));
    if coder.is_some() {
        head.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    let mut parts = asked.answer();
    if asked.form == Form::Plain {
        // If the client disconnects, the server drops this task, and the endpoint reports nothing.
        tokio::time::sleep(shared.options.delay).await;
        let (text, reported) = parts.swap_remove(0);
        if let Some(tokens) = reported {
            lock(&shared.books).report(generation, tokens);
        }
        return (head, coded(&mut coder, text, true)).into_response();
    }
    // The endpoint reports a part when it hands the part to the connection. If the client leaves,
    // it never reports the rest of the stream.
    let last = parts.len() - 1;
    let parts = parts.into_iter().enumerate();
    let sent = futures_util::stream::unfold(
        (parts, coder, shared),
        move |(mut parts, mut coder, shared)| async move {
            let (at, (text, reported)) = parts.next()?;
            if at > 0 && !shared.options.delay.is_zero() {
                tokio::time::sleep(shared.options.delay).await;
            }
            if let Some(tokens) = reported {
                lock(&shared.books).report(generation, tokens);
            }
            let bytes = coded(&mut coder, text, at == last);
            Some((Ok::<_, Infallible>(bytes), (parts, coder, shared)))
        },
    );
    (head, Body::from_stream(sent)).into_response()
}

/// Encodes and flushes a part, so that the client can decode it at once.
fn coded(coder: &mut Option<GzEncoder<Vec<u8>>>, text: String, is_last: bool) -> Vec<u8> {
    let Some(mut gzip) = coder.take() else { return text.into_bytes() };
    // A write to memory cannot fail.
    let _ = gzip.write_all(text.as_bytes());
    if is_last {
        return gzip.finish().unwrap_or_default();
    }
    let _ = gzip.flush();
    let bytes = std::mem::take(gzip.get_mut());
    *coder = Some(gzip);
    bytes
}

fn refusal(status: StatusCode, message: &str) -> Response {
    let error = json!({"error": {"message": message, "type": "invalid_request_error"}});
    (status, Json(error)).into_response()
}
