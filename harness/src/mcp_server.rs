//! A real MCP server (rmcp, streamable HTTP) that counts exactly the calls that it executed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rmcp::ErrorData;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    ListToolsResult, PaginatedRequestParams, ProgressNotificationParam, ServerCapabilities,
    ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::trace::{self, TRACEPARENT, TRACESTATE};

/// Each tool, its description, and the one string argument that it needs.
const TOOLS: [(&str, &str, &str); 5] = [
    ("lookup_customer", "Looks a customer up", "customer_id"),
    ("write_record", "Writes a record to the database", "record"),
    ("analyze_report", "Analyses a report, step by step", "report"),
    ("fail", "Fails, and says so in its result", "reason"),
    (SUMMARISE, "Lets a large language model sum a text up", "text"),
];

/// Offered only if the server knows an LLM.
const SUMMARISE: &str = "summarise";
/// Texts longer than this many bytes go to the larger model.
const SHORT_TEXT: usize = 40;

const ANALYSIS_STEPS: u32 = 3;
const ANALYSIS_STEP: Duration = Duration::from_millis(15);
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// How the server answers clients of revisions before 2026-07-28; later revisions have no sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Sessions, and responses as event streams.
    #[default]
    Sessions,
    /// No sessions, and responses as single JSON bodies.
    Json,
}

/// The outcome of a call, for server and client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// A result.
    Success,
    /// A result with `isError`.
    Error,
    /// JSON-RPC error -32602: unknown tool or bad arguments.
    ValidationFailed,
}

impl fmt::Display for Outcome {
    /// The event's `execution_status`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Success => "SUCCESS",
            Self::Error => "ERROR",
            Self::ValidationFailed => "VALIDATION_FAILED",
        })
    }
}

/// The number of calls by tool and outcome.
pub type Calls = BTreeMap<(String, Outcome), u64>;

/// A running server. Dropped without [`McpServer::stop`], it stops by itself, and nobody waits for
/// it.
#[derive(Debug)]
pub struct McpServer {
    addr: SocketAddr,
    executed: Arc<Mutex<Calls>>,
    llm_url: Arc<Mutex<Option<String>>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl McpServer {
    /// Serves `/mcp` on `listen`; port 0 takes a free one.
    pub async fn start(listen: SocketAddr, mode: Mode) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("the MCP server cannot listen on {listen}"))?;
        let addr = listener.local_addr()?;
        let executed = Arc::new(Mutex::new(Calls::new()));
        let llm_url = Arc::<Mutex<Option<String>>>::default();
        let tools = Tools { executed: executed.clone(), llm_url: llm_url.clone() };
        // Accepts any host name: Envoy may serve under another name than the loopback's.
        let config = StreamableHttpServerConfig::default()
            .disable_allowed_hosts()
            .with_legacy_session_mode(mode == Mode::Sessions)
            .with_json_response(mode == Mode::Json);
        let sessions = config.cancellation_token.clone();
        let service = StreamableHttpService::<Tools, LocalSessionManager>::new(
            move || Ok(tools.clone()),
            Arc::default(),
            config,
        );
        let router = axum::Router::new().nest_service("/mcp", service);
        let (stop, stopped) = oneshot::channel();
        let serving = axum::serve(listener, router).with_graceful_shutdown(async move {
            // An error means that the server was dropped, which stops it too.
            let _ = stopped.await;
            sessions.cancel();
        });
        Ok(Self { addr, executed, llm_url, stop, serving: tokio::spawn(serving.into_future()) })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The calls that it executed since it started.
    pub fn executed(&self) -> Calls {
        lock(&self.executed).clone()
    }

    /// Offers the tool `summarise` from now on. The tool asks the LLM with OpenAI's API at this
    /// base URL, such as `http://127.0.0.1:10000/llm`.
    pub fn set_llm(&self, url: String) {
        *lock(&self.llm_url) = Some(url);
    }

    /// Ends every session, and waits at most two seconds for open requests.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        let abort = self.serving.abort_handle();
        if tokio::time::timeout(STOP_LIMIT, self.serving).await.is_err() {
            abort.abort();
        }
    }
}

/// Serves one client over stdin and stdout until it closes stdin. `llm_url` is as in
/// [`McpServer::set_llm`].
pub async fn serve_stdio(llm_url: Option<String>) -> anyhow::Result<()> {
    let tools = Tools { executed: Arc::default(), llm_url: Arc::new(Mutex::new(llm_url)) };
    let serving = rmcp::serve_server(tools, (tokio::io::stdin(), tokio::io::stdout())).await;
    serving.context("no MCP client on stdin")?.waiting().await?;
    Ok(())
}

#[derive(Debug, Clone)]
struct Tools {
    executed: Arc<Mutex<Calls>>,
    llm_url: Arc<Mutex<Option<String>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl rmcp::ServerHandler for Tools {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let has_llm = lock(&self.llm_url).is_some();
        let tools = TOOLS.iter().filter(|(tool, ..)| has_llm || *tool != SUMMARISE);
        Ok(ListToolsResult::with_all_items(tools.map(describe).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let llm_url = lock(&self.llm_url).clone();
        let answer = execute(&request, &context, llm_url.as_deref()).await;
        let outcome = match &answer {
            Ok(result) if result.is_error == Some(true) => Outcome::Error,
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::ValidationFailed,
        };
        *lock(&self.executed).entry((request.name.into_owned(), outcome)).or_default() += 1;
        answer.map(Into::into)
    }
}

/// Runs one tool; every error is a -32602.
async fn execute(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
    llm_url: Option<&str>,
) -> Result<CallToolResult, ErrorData> {
    let offered = |tool: &str| tool == request.name && (llm_url.is_some() || tool != SUMMARISE);
    let Some((tool, _, argument)) = TOOLS.iter().find(|(tool, ..)| offered(tool)) else {
        return Err(ErrorData::invalid_params(format!("unknown tool: {}", request.name), None));
    };
    let arguments = request.arguments.as_ref();
    let Some(value) = arguments.and_then(|given| given.get(*argument)?.as_str()) else {
        let message = format!("{tool}: expected a string in `{argument}`");
        return Err(ErrorData::invalid_params(message, None));
    };
    match (*tool, llm_url) {
        (SUMMARISE, Some(url)) => {
            return Ok(match summarise(url, value, TraceContext::of(context)).await {
                Ok(summary) => CallToolResult::success(vec![ContentBlock::text(summary)]),
                Err(error) => CallToolResult::error(vec![ContentBlock::text(format!("{error:#}"))]),
            });
        }
        ("fail", _) => return Ok(CallToolResult::error(vec![ContentBlock::text(value)])),
        ("analyze_report", _) => analyze(context).await,
        _ => {}
    }
    Ok(CallToolResult::success(vec![ContentBlock::text(format!("{tool}: {value}: done"))]))
}

/// Takes a while, and sends progress to a client that asked for it.
async fn analyze(context: &RequestContext<RoleServer>) {
    for step in 1..=ANALYSIS_STEPS {
        tokio::time::sleep(ANALYSIS_STEP).await;
        if let Some(token) = context.meta.get_progress_token() {
            let progress = ProgressNotificationParam::new(token, f64::from(step))
                .with_total(f64::from(ANALYSIS_STEPS));
            // A client that has left misses its progress, nothing else.
            let _ = context.peer.notify_progress(progress).await;
        }
    }
}

/// The trace that a call belongs to.
#[derive(Debug, Default)]
struct TraceContext {
    parent: Option<String>,
    /// What others have added to it.
    state: Option<String>,
}

impl TraceContext {
    /// As instrumentation of the HTTP server sees it: in the headers of the request that brought
    /// the call, else told in `_meta`.
    fn of(context: &RequestContext<RoleServer>) -> Self {
        let headers =
            context.extensions.get::<axum::http::request::Parts>().map(|parts| &parts.headers);
        let header = |name: &str| Some(headers?.get(name)?.to_str().ok()?.to_owned());
        let parent = header(TRACEPARENT).filter(|parent| trace::child_of(parent).is_some());
        match parent {
            Some(parent) => Self { parent: Some(parent), state: header(TRACESTATE) },
            None => {
                let told = context.meta.get_traceparent();
                Self { parent: told.map(str::to_owned), state: None }
            }
        }
    }
}

/// Asks the LLM, as a part of the call's trace.
async fn summarise(url: &str, text: &str, trace: TraceContext) -> anyhow::Result<String> {
    let model = if text.len() > SHORT_TEXT { "gpt-4o" } else { "gpt-4o-mini" };
    let prompt = format!("Sum this up in one sentence: {text}");
    let body = json!({"model": model, "messages": [{"role": "user", "content": prompt}]});
    let mut request = reqwest::Client::new().post(format!("{url}/v1/chat/completions")).json(&body);
    if let Some(child) = trace.parent.and_then(|parent| trace::child_of(&parent)) {
        request = request.header(TRACEPARENT, child);
        if let Some(state) = trace.state {
            request = request.header(TRACESTATE, state);
        }
    }
    let answer = request.send().await?.error_for_status()?.json::<serde_json::Value>().await?;
    let summary = answer.pointer("/choices/0/message/content").and_then(|text| text.as_str());
    summary.map(str::to_owned).context("the LLM's answer has no content")
}

fn describe((name, description, argument): &(&'static str, &'static str, &'static str)) -> Tool {
    let mut schema = JsonObject::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), json!({ *argument: { "type": "string" } }));
    schema.insert("required".to_owned(), json!([argument]));
    Tool::new(*name, *description, schema)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm_server::{LlmOptions, LlmServer};
    use crate::stack::ANY_PORT;

    /// The client's header and `_meta`, and the trace in which the server asks the LLM.
    #[tokio::test]
    async fn the_trace_of_a_call_is_taken_from_the_header_and_else_from_meta() {
        let llm = LlmServer::start(ANY_PORT, LlmOptions::default()).await.expect("an LLM");
        let server = McpServer::start(ANY_PORT, Mode::Json).await.expect("a server");
        server.set_llm(format!("http://{}", llm.addr()));
        let traceparent = |digit: &str| format!("00-{}-00f067aa0ba902b7-01", digit.repeat(32));
        let (one, two) = (traceparent("1"), traceparent("2"));
        for (header, meta, expected) in [
            (None, None, None),
            (Some(&one), None, Some(&one)),
            (None, Some(&two), Some(&two)),
            (Some(&one), Some(&two), Some(&one)),
            (Some(&"not a trace".to_owned()), None, None),
            (Some(&"not a trace".to_owned()), Some(&two), Some(&two)),
        ] {
            let mut params = json!({ "name": "summarise", "arguments": { "text": "short" } });
            if let Some(meta) = meta {
                params["_meta"] = json!({ "traceparent": meta });
            }
            let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
            let mut request = reqwest::Client::new()
                .post(format!("http://{}/mcp", server.addr()))
                .header("accept", "application/json, text/event-stream")
                .header("mcp-protocol-version", "2025-06-18")
                .json(&call);
            if let Some(header) = header {
                request = request.header(TRACEPARENT, header);
            }
            let before = llm.traceparents().len();
            let answer = request.send().await.expect("an answer").text().await.expect("text");
            assert!(answer.contains("All is well."), "{answer}");
            let traces = llm.traceparents().split_off(before);
            let traces: Vec<&str> = traces.iter().map(|trace| &trace[..36]).collect();
            let expected: Vec<&str> = expected.iter().map(|trace| &trace[..36]).collect();
            assert_eq!(traces, expected, "{header:?} {meta:?}");
        }
        server.stop().await;
        llm.stop().await;
    }
}
