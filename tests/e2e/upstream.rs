//! A scripted upstream: it answers each request with exact bytes, cut and timed as the test says,
//! and records the requests as they arrive. Of MCP it knows only the form of a few responses.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_meter::stack::ANY_PORT;
use anyhow::Context;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{AbortHandle, JoinSet};

use crate::http1::{Kind, Message, Reader};

/// One step of a response.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Writes these bytes at once.
    Send(Vec<u8>),
    /// Does nothing for a while, as a server that works.
    Work(Duration),
    /// Waits for [`Upstream::go_on`].
    Gate,
    /// Ends the connection properly.
    Close,
    /// Resets the connection.
    Reset,
    /// Takes the steps that the test sends, until the test sends no more.
    Follow(Orders),
}

/// Steps that a test sends while a response is running.
pub(crate) type Orders = Arc<tokio::sync::Mutex<UnboundedReceiver<Step>>>;

/// The response to a request.
type Script = dyn Fn(&Message) -> Vec<Step> + Send + Sync;

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Message>>,
    body_bytes: AtomicUsize,
}

/// A running upstream; it stops when it is dropped.
pub(crate) struct Upstream {
    addr: SocketAddr,
    seen: Arc<Seen>,
    gate: Arc<Semaphore>,
    serving: AbortHandle,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Upstream {
    /// Serves on a free port.
    pub(crate) async fn start(
        script: impl Fn(&Message) -> Vec<Step> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::serve(TcpListener::bind(ANY_PORT).await?, script)
    }

    /// Serves on this listener.
    pub(crate) fn serve(
        listener: TcpListener,
        script: impl Fn(&Message) -> Vec<Step> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let addr = listener.local_addr()?;
        let seen = Arc::<Seen>::default();
        let gate = Arc::new(Semaphore::new(0));
        let script: Arc<Script> = Arc::new(script);
        let shared = (Arc::clone(&seen), Arc::clone(&gate));
        let serving = tokio::spawn(async move {
            // Dropped with this task, which also ends the connections.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, gate) = shared.clone();
                connections.spawn(connection(stream, Arc::clone(&script), seen, gate));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { addr, seen, gate, serving: serving.abort_handle() })
    }

    /// The address that it listens on.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Lets one response go on after its [`Step::Gate`].
    pub(crate) fn go_on(&self) {
        self.gate.add_permits(1);
    }

    /// How many bytes of the last request's body have come.
    pub(crate) fn body_bytes(&self) -> usize {
        self.seen.body_bytes.load(Ordering::SeqCst)
    }

    /// Takes the requests that have ended, in order.
    pub(crate) fn take_requests(&self) -> Vec<Message> {
        std::mem::take(&mut self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many requests have ended since a test last took them.
    pub(crate) fn requests_len(&self) -> usize {
        self.seen.requests.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

async fn connection(
    stream: TcpStream,
    script: Arc<Script>,
    seen: Arc<Seen>,
    gate: Arc<Semaphore>,
) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = Reader::new(stream);
    let note = |bytes| seen.body_bytes.store(bytes, Ordering::SeqCst);
    while let Some(request) = reader.message(Kind::Request, note).await? {
        let is_complete = request.is_complete;
        let steps = if is_complete { script(&request) } else { Vec::new() };
        seen.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request);
        if !is_complete {
            return Ok(());
        }
        let mut steps = VecDeque::from(steps);
        while let Some(step) = steps.pop_front() {
            match step {
                Step::Send(bytes) => {
                    reader.stream.write_all(&bytes).await.context("the peer has left")?;
                }
                Step::Work(time) => tokio::time::sleep(time).await,
                Step::Gate => gate.acquire().await?.forget(),
                Step::Close => return Ok(()),
                Step::Reset => return Ok(reader.stream.set_zero_linger()?),
                Step::Follow(orders) => {
                    let order = orders.lock().await.recv().await;
                    if let Some(order) = order {
                        steps.extend([order, Step::Follow(orders)]);
                    }
                }
            }
        }
    }
    Ok(())
}

/// A response with its `content-length`; its date is fixed, so that Envoy adds none.
pub(crate) fn response(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
    for (name, value) in headers {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    bytes.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [bytes.as_bytes(), body].concat()
}

/// 200 with a JSON body.
pub(crate) fn json_response(body: &Value) -> Vec<u8> {
    let body = body.to_string();
    response("200 OK", &[("content-type", "application/json")], body.as_bytes())
}

/// 200 with an event stream: one event, in one chunk, for each message.
pub(crate) fn sse_response(messages: &[Value]) -> Vec<u8> {
    let mut bytes = SSE_HEAD.as_bytes().to_vec();
    for message in messages {
        bytes.extend(chunk(sse_event(message).as_bytes()));
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

/// The head of a chunked event stream.
pub(crate) const SSE_HEAD: &str = "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

/// One event.
pub(crate) fn sse_event(message: &Value) -> String {
    format!("event: message\ndata: {message}\n\n")
}

/// One chunk of a chunked body.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// The JSON-RPC response of a tool that succeeded.
pub(crate) fn success(id: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": { "content": [{ "type": "text", "text": "done" }] } })
}

/// The JSON-RPC response of a tool that failed.
pub(crate) fn tool_error(id: &Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id,
        "result": { "content": [{ "type": "text", "text": "no" }], "isError": true },
    })
}

/// A JSON-RPC error.
pub(crate) fn rpc_error(id: &Value, code: i64) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": "no" } })
}

/// The JSON-RPC message of a request; null if there is none.
pub(crate) fn rpc_of(request: &Message) -> Value {
    serde_json::from_slice(&request.body).unwrap_or_default()
}

/// An upstream for tests of other things: every call succeeds, and every `DELETE` gets 200.
pub(crate) fn obliging(request: &Message) -> Vec<Step> {
    let answer = match request.method().as_str() {
        "POST" => json_response(&success(&rpc_of(request)["id"])),
        _ => response("200 OK", &[], b""),
    };
    vec![Step::Send(answer)]
}
