//! A real MCP server (rmcp, streamable HTTP) that counts exactly what it executed.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
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

/// Tools with the one string argument that each of them needs.
const TOOLS: [(&str, &str, &str); 4] = [
    ("lookup_customer", "Looks a customer up", "customer_id"),
    ("write_record", "Writes a record to the database", "record"),
    ("analyze_report", "Analyses a report, step by step", "report"),
    ("fail", "Fails, and says so in its result", "reason"),
];

const ANALYSIS_STEPS: u32 = 3;
const ANALYSIS_STEP: Duration = Duration::from_millis(15);
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// How the server speaks to clients of revisions before 2026-07-28; later ones have no sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Sessions, and answers as event streams.
    #[default]
    Sessions,
    /// No sessions, and answers as single JSON bodies.
    Json,
}

/// How a call ended, as server and client see it.
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

/// Calls by tool and outcome.
pub type Calls = BTreeMap<(String, Outcome), u64>;

/// A running server. Dropped without [`McpServer::stop`], it stops by itself, unwaited for.
#[derive(Debug)]
pub struct McpServer {
    addr: SocketAddr,
    executed: Arc<Mutex<Calls>>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<std::io::Result<()>>,
}

impl McpServer {
    /// Serves `/mcp` on `listen`; port 0 asks for a free one.
    pub async fn start(listen: SocketAddr, mode: Mode) -> anyhow::Result<Self> {
        let listener = tokio::net::TcpListener::bind(listen)
            .await
            .with_context(|| format!("the MCP server cannot listen on {listen}"))?;
        let addr = listener.local_addr()?;
        let executed = Arc::new(Mutex::new(Calls::new()));
        let tools = Tools { executed: executed.clone() };
        // Envoy may serve under another name than the loopback's.
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
        Ok(Self { addr, executed, stop, serving: tokio::spawn(serving.into_future()) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// What it executed since it started.
    pub fn executed(&self) -> Calls {
        self.executed.lock().unwrap_or_else(PoisonError::into_inner).clone()
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

#[derive(Debug, Clone)]
struct Tools {
    executed: Arc<Mutex<Calls>>,
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
        Ok(ListToolsResult::with_all_items(TOOLS.iter().map(describe).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let answer = execute(&request, &context).await;
        let outcome = match &answer {
            Ok(result) if result.is_error == Some(true) => Outcome::Error,
            Ok(_) => Outcome::Success,
            Err(_) => Outcome::ValidationFailed,
        };
        let mut executed = self.executed.lock().unwrap_or_else(PoisonError::into_inner);
        *executed.entry((request.name.into_owned(), outcome)).or_default() += 1;
        answer.map(Into::into)
    }
}

/// Runs one tool; every error is a -32602.
async fn execute(
    request: &CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> Result<CallToolResult, ErrorData> {
    let Some((tool, _, argument)) = TOOLS.iter().find(|(tool, ..)| *tool == request.name) else {
        return Err(ErrorData::invalid_params(format!("unknown tool: {}", request.name), None));
    };
    let arguments = request.arguments.as_ref();
    let Some(value) = arguments.and_then(|given| given.get(*argument)?.as_str()) else {
        let message = format!("{tool}: expected a string in `{argument}`");
        return Err(ErrorData::invalid_params(message, None));
    };
    match *tool {
        "fail" => return Ok(CallToolResult::error(vec![ContentBlock::text(value)])),
        "analyze_report" => analyze(context).await,
        _ => {}
    }
    Ok(CallToolResult::success(vec![ContentBlock::text(format!("{tool}: {value}: done"))]))
}

/// Takes its time, and tells a client that wants to know how far it is.
async fn analyze(context: &RequestContext<RoleServer>) {
    for step in 1..=ANALYSIS_STEPS {
        tokio::time::sleep(ANALYSIS_STEP).await;
        if let Some(token) = context.meta.get_progress_token() {
            let progress = ProgressNotificationParam::new(token, f64::from(step))
                .with_total(f64::from(ANALYSIS_STEPS));
            // A client that is gone misses its progress, no more.
            let _ = context.peer.notify_progress(progress).await;
        }
    }
}

fn describe((name, description, argument): &(&'static str, &'static str, &'static str)) -> Tool {
    let mut schema = JsonObject::new();
    schema.insert("type".to_owned(), json!("object"));
    schema.insert("properties".to_owned(), json!({ *argument: { "type": "string" } }));
    schema.insert("required".to_owned(), json!([argument]));
    Tool::new(*name, *description, schema)
}
