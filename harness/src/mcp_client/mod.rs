//! A real MCP client (rmcp, streamable HTTP) that plays one agent: it opens a session, calls tools,
//! and closes the session. Each call has a trace of its own, in `_meta` and in the header
//! `traceparent`.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use reqwest::header::{HeaderName, HeaderValue};
use rmcp::ClientLifecycleMode;
use rmcp::ServiceError;
use rmcp::model::{
    CallToolRequestParams, ErrorCode, JsonObject, ProtocolVersion, RequestParamsMeta,
};
use rmcp::service::{RoleClient, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::json;

use crate::mcp_server::Outcome;
use crate::trace;

mod traced;

use traced::Traced;

/// How long a close may take: longer than rmcp's own limit for the final DELETE.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Which lifecycle the client uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protocol {
    /// `initialize`, a session, and `DELETE` at the end (2025-11-25).
    #[default]
    Sessions,
    /// `server/discover`, and requests that need no session (2026-07-28).
    Stateless,
}

/// One agent: its identity and its protocol.
#[derive(Debug, Clone)]
pub struct Agent {
    /// The endpoint, such as `http://127.0.0.1:10000/mcp`.
    pub url: String,
    /// The value of `x-customer-id`.
    pub customer: String,
    /// The value of `x-agent-id`.
    pub agent: String,
    /// The lifecycle.
    pub protocol: Protocol,
    /// Further headers for every request.
    pub headers: Vec<(String, String)>,
}

/// One tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: JsonObject,
}

/// An open session.
#[derive(Debug)]
pub struct Session {
    service: RunningService<RoleClient, ()>,
}

impl Agent {
    /// Makes an agent with sessions and no further headers.
    pub fn new(url: &str, customer: &str, agent: &str) -> Self {
        Self {
            url: url.to_owned(),
            customer: customer.to_owned(),
            agent: agent.to_owned(),
            protocol: Protocol::default(),
            headers: Vec::new(),
        }
    }

    /// Plays one whole session and returns the outcome of each call, in order.
    pub async fn play(&self, calls: &[Call]) -> anyhow::Result<Vec<Outcome>> {
        let session = self.open().await?;
        let mut outcomes = Vec::with_capacity(calls.len());
        for call in calls {
            outcomes.push(session.call(call).await?);
        }
        session.close().await?;
        Ok(outcomes)
    }

    /// Opens a session.
    pub async fn open(&self) -> anyhow::Result<Session> {
        let config = StreamableHttpClientTransportConfig::with_uri(self.url.as_str())
            .custom_headers(self.headers()?);
        // As rmcp does: a pooled connection may stall for 40 ms.
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build()?;
        let transport = StreamableHttpClientTransport::with_client(Traced(http), config);
        let lifecycle = match self.protocol {
            Protocol::Sessions => ClientLifecycleMode::Initialize,
            Protocol::Stateless => ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            },
        };
        let service = rmcp::service::serve_client_with_lifecycle((), transport, lifecycle)
            .await
            .with_context(|| format!("agent {} cannot open a session", self.agent))?;
        Ok(Session { service })
    }

    fn headers(&self) -> anyhow::Result<HashMap<HeaderName, HeaderValue>> {
        let identity = [("x-customer-id", &self.customer), ("x-agent-id", &self.agent)];
        let further = self.headers.iter().map(|(name, value)| (name.as_str(), value));
        let headers = identity.into_iter().chain(further);
        headers
            .map(|(name, value)| Ok((HeaderName::try_from(name)?, HeaderValue::try_from(value)?)))
            .collect()
    }
}

impl Call {
    /// Makes a call with one string argument.
    pub fn new(tool: &str, argument: &str, value: &str) -> Self {
        let arguments = JsonObject::from_iter([(argument.to_owned(), json!(value))]);
        Self { tool: tool.to_owned(), arguments }
    }
}

impl Session {
    /// Calls a tool; an error is a transport error, never the tool's.
    pub async fn call(&self, call: &Call) -> anyhow::Result<Outcome> {
        let mut request =
            CallToolRequestParams::new(call.tool.clone()).with_arguments(call.arguments.clone());
        request.set_traceparent(&trace::fresh());
        match self.service.call_tool(request).await {
            Ok(result) if result.is_error == Some(true) => Ok(Outcome::Error),
            Ok(_) => Ok(Outcome::Success),
            Err(ServiceError::McpError(error)) if error.code == ErrorCode::INVALID_PARAMS => {
                Ok(Outcome::ValidationFailed)
            }
            Err(error) => Err(error).with_context(|| format!("tools/call {}", call.tool)),
        }
    }

    /// The names of the server's tools.
    pub async fn tools(&self) -> anyhow::Result<Vec<String>> {
        let tools = self.service.list_all_tools().await.context("tools/list")?;
        Ok(tools.into_iter().map(|tool| tool.name.into_owned()).collect())
    }

    /// Closes the session. If the server gave it an id, rmcp's transport sends `DELETE` and waits
    /// for the response.
    pub async fn close(mut self) -> anyhow::Result<()> {
        match self.service.close_with_timeout(CLOSE_LIMIT).await? {
            Some(_) => Ok(()),
            None => bail!("the session did not close within {CLOSE_LIMIT:?}"),
        }
    }
}
