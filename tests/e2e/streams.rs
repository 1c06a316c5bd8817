//! Streams whose upstream side a test controls step by step, over connections to the worker that it
//! chooses.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use agent_meter::stack::Options;
use agent_meter::wait;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::{Agent, Client, request};
use crate::http1::Message;
use crate::upstream::{
    SSE_HEAD, Step, Upstream, chunk, json_response, obliging, response, sse_event, success,
};
use crate::{LIMIT, Rig, impatient_plugin};

/// Tool and status of each call of a case.
pub(crate) type Calls = Vec<(&'static str, &'static str)>;

/// A connection to any worker.
pub(crate) const ANY: usize = 2;
/// Connections kept ready for each worker.
const POOL: usize = 75;

/// A stack whose upstream answers each request as the case that sent it says.
pub(crate) struct Wire {
    pub(crate) rig: Rig,
    /// Connections by worker.
    pool: Mutex<[Vec<Client>; 2]>,
    orders: Arc<Mutex<BTreeMap<String, UnboundedReceiver<Step>>>>,
    streams: AtomicU64,
    pub(crate) wanted: Mutex<Vec<(&'static str, Calls)>>,
    /// Streams that stay open until the end of the test.
    pub(crate) open: Mutex<Vec<Open>>,
}

/// A request whose response is running.
pub(crate) struct Open {
    reading: JoinHandle<anyhow::Result<Message>>,
    /// The length of the response's body so far; `None` before its head.
    seen: watch::Receiver<Option<usize>>,
    orders: UnboundedSender<Step>,
    written: usize,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call times out after two seconds, checked every second; any path under `/mcp` is metered.
pub(crate) fn patient_for_two_seconds() -> Value {
    let mut plugin = impatient_plugin();
    plugin["products"][0]["match"] = json!({ "path_prefix": "/mcp" });
    plugin["products"][0]["session"] = json!({ "idle_timeout": "2s" });
    plugin
}

impl Wire {
    pub(crate) async fn start(options: Options) -> anyhow::Result<Self> {
        let orders = Arc::<Mutex<BTreeMap<String, UnboundedReceiver<Step>>>>::default();
        let shared = Arc::clone(&orders);
        let upstream = Upstream::start(move |request| {
            let key = request.header("x-stream").unwrap_or_default();
            match lock(&shared).remove(&key) {
                Some(orders) => vec![Step::Follow(Arc::new(orders.into()))],
                None => obliging(request),
            }
        });
        let rig = Rig::with(upstream.await?, options).await?;
        Ok(Self {
            rig,
            pool: Mutex::default(),
            orders,
            streams: AtomicU64::new(0),
            wanted: Mutex::default(),
            open: Mutex::default(),
        })
    }

    /// Opens connections, one after another, until each worker has enough.
    pub(crate) async fn fill_pool(&self) -> anyhow::Result<()> {
        let mut accepted = self.accepted().await?;
        while lock(&self.pool).iter().any(|connections| connections.len() < POOL) {
            let client = Client::connect(self.rig.listen()?).await?;
            let worker = wait::until(LIMIT, "a worker accepts", async || {
                let now = self.accepted().await?;
                let worker = (0..2).find(|&worker| now[worker] > accepted[worker]);
                let worker = worker.context("no worker has")?;
                accepted = now;
                Ok(worker)
            })
            .await?;
            lock(&self.pool)[worker].push(client);
        }
        Ok(())
    }

    /// The number of connections that each worker has accepted.
    pub(crate) async fn accepted(&self) -> anyhow::Result<[u64; 2]> {
        let stats = self.rig.stack()?.envoy()?.stats("listener.").await?;
        let of = |worker: &str| {
            let ending = format!(".{worker}.downstream_cx_total");
            let found = stats.iter().filter(|(name, _)| name.ends_with(&ending));
            found.filter(|(name, _)| !name.contains("admin")).map(|(_, count)| *count).sum()
        };
        Ok([of("worker_0"), of("worker_1")])
    }

    pub(crate) async fn connect(&self, worker: usize) -> anyhow::Result<Client> {
        match worker {
            ANY => Client::connect(self.rig.listen()?).await,
            _ => lock(&self.pool)[worker].pop().context("no connection is left"),
        }
    }

    /// Sends a request; the test sends its response step by step.
    pub(crate) async fn request(
        &self,
        worker: usize,
        agent: &Agent,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> anyhow::Result<Open> {
        let key = self.streams.fetch_add(1, Ordering::Relaxed).to_string();
        let (orders, follow) = unbounded_channel();
        lock(&self.orders).insert(key.clone(), follow);
        let mut client = self.connect(worker).await?;
        let agent = agent.with("x-stream", &key);
        client.send(&request(method, path, &agent.all_headers(), body)).await?;
        let (sender, seen) = watch::channel(None);
        let reading = tokio::spawn(async move {
            client.receive(|bytes| sender.send_replace(Some(bytes)).map_or((), drop)).await
        });
        // Waits for the upstream to have the request, even if the client leaves right afterwards.
        wait::until(LIMIT, "the upstream has the request", async || {
            ensure!(!lock(&self.orders).contains_key(&key), "not yet");
            Ok(())
        })
        .await?;
        Ok(Open { reading, seen, orders, written: 0 })
    }

    pub(crate) async fn post(
        &self,
        worker: usize,
        agent: &Agent,
        body: &Value,
    ) -> anyhow::Result<Open> {
        self.request(worker, agent, "POST", "/mcp", body.to_string().as_bytes()).await
    }

    /// A `POST` whose response is an event stream that begins with a priming event.
    pub(crate) async fn stream(
        &self,
        worker: usize,
        agent: &Agent,
        body: &Value,
    ) -> anyhow::Result<Open> {
        let mut open = self.post(worker, agent, body).await?;
        open.begin("text/event-stream").await?;
        open.write("id: 1\ndata: \n\n").await?;
        Ok(open)
    }

    /// The `GET` of an event stream, resumed or not.
    pub(crate) async fn resume(&self, worker: usize, agent: &Agent) -> anyhow::Result<Open> {
        let agent = agent.with("last-event-id", "1");
        let mut open = self.request(worker, &agent, "GET", "/mcp", b"").await?;
        open.begin("text/event-stream").await?;
        Ok(open)
    }

    /// A request with an immediate response.
    pub(crate) async fn ask(
        &self,
        worker: usize,
        agent: &Agent,
        body: &Value,
        answer: Vec<u8>,
    ) -> anyhow::Result<Message> {
        self.post(worker, agent, body).await?.answer(answer).await
    }

    pub(crate) fn keep(&self, open: Open) {
        lock(&self.open).push(open);
    }
}

impl Open {
    pub(crate) fn order(&self, step: Step) -> anyhow::Result<()> {
        self.orders.send(step).ok().context("the upstream is gone")
    }

    /// Sends the head of a chunked response.
    pub(crate) async fn begin(&mut self, media_type: &str) -> anyhow::Result<()> {
        let head = SSE_HEAD.replace("text/event-stream", media_type);
        self.order(Step::Send(head.into_bytes()))?;
        tokio::time::timeout(LIMIT, self.seen.wait_for(Option::is_some)).await??;
        Ok(())
    }

    /// Sends the next bytes of the response; returns when the client has them.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let bytes = bytes.as_ref();
        self.written += bytes.len();
        self.order(Step::Send(chunk(bytes)))?;
        let written = self.written;
        let has_come = self.seen.wait_for(|seen| seen.is_some_and(|seen| seen >= written));
        tokio::time::timeout(LIMIT, has_come).await.context("the client does not get it")??;
        Ok(())
    }

    pub(crate) async fn event(&mut self, message: &Value) -> anyhow::Result<()> {
        self.write(sse_event(message)).await
    }

    /// Ends the response properly.
    pub(crate) async fn done(self) -> anyhow::Result<Message> {
        self.answer(b"0\r\n\r\n".to_vec()).await
    }

    /// Sends the last bytes of the response, frames included.
    pub(crate) async fn answer(self, bytes: Vec<u8>) -> anyhow::Result<Message> {
        self.order(Step::Send(bytes))?;
        let answer = tokio::time::timeout(LIMIT, self.reading).await???;
        ensure!(answer.is_complete, "the answer was cut: {answer:?}");
        Ok(answer)
    }

    /// Lets the upstream end the connection in the middle.
    pub(crate) async fn break_off(self, step: Step) -> anyhow::Result<()> {
        self.order(step)?;
        let answer = tokio::time::timeout(LIMIT, self.reading).await???;
        ensure!(!answer.is_complete, "the answer is complete: {answer:?}");
        Ok(())
    }

    /// Lets the client leave.
    pub(crate) fn leave(self) {
        self.reading.abort();
    }
}

/// A `tools/call`.
pub(crate) fn call(id: impl Into<Value>, tool: &str) -> Value {
    let id: Value = id.into();
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": tool, "arguments": {} } })
}

pub(crate) fn ok(id: u64) -> Value {
    success(&json!(id))
}

pub(crate) fn result(id: u64, result: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "result": result })
}

pub(crate) fn json_ok(id: u64) -> Vec<u8> {
    json_response(&ok(id))
}

pub(crate) fn refusal(status: &str) -> Vec<u8> {
    response(status, &[("content-type", "text/plain")], b"no")
}

pub(crate) fn accepted() -> Vec<u8> {
    response("202 Accepted", &[("content-type", "text/plain")], b"Accepted")
}

/// The same agent as a client of MCP 2026-07-28, which has no sessions.
pub(crate) fn modern(agent: &Agent) -> Agent {
    let agent = agent.with("mcp-protocol-version", "2026-07-28");
    Agent { session: None, ..agent }.with("mcp-method", "tools/call")
}
