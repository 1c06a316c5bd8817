//! Keep-alive connections to one listener, with one call at a time on each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use reqwest::Client;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::task::JoinSet;

use super::messages::{Scenario, call};

/// How many calls run at once while the CPU time is measured.
pub(super) const CONNECTIONS: u32 = 4;

/// The connections to one listener.
#[derive(Debug)]
pub(super) struct Load {
    url: String,
    connections: Vec<Client>,
    answer_bytes: usize,
    sent: u32,
}

impl Load {
    pub(super) fn new(listener: SocketAddr, scenario: Scenario) -> anyhow::Result<Self> {
        let connections = (0..CONNECTIONS).map(connection).collect::<anyhow::Result<_>>()?;
        let answer_bytes = scenario.answer_bytes()?;
        Ok(Self { url: format!("http://{listener}/mcp"), connections, answer_bytes, sent: 0 })
    }

    /// How many calls it has sent to this listener; the upstream answered every one.
    pub(super) fn sent(&self) -> u32 {
        self.sent
    }

    /// Sends calls on all connections and waits for the responses.
    pub(super) async fn send(&mut self, requests: u32) -> anyhow::Result<()> {
        self.send_on(CONNECTIONS, requests).await.map(drop)
    }

    /// Sends calls one after another; returns the latencies in ascending order.
    pub(super) async fn latencies(&mut self, requests: u32) -> anyhow::Result<Vec<Duration>> {
        let mut latencies = self.send_on(1, requests).await?;
        latencies.sort_unstable();
        Ok(latencies)
    }

    async fn send_on(&mut self, connections: u32, requests: u32) -> anyhow::Result<Vec<Duration>> {
        let mut tasks = JoinSet::new();
        for (place, client) in (0..connections).zip(&self.connections) {
            let calls = (place..requests).step_by(usize::try_from(connections)?);
            let calls = calls.map(|number| call(self.sent.wrapping_add(number))).collect();
            tasks.spawn(converse(client.clone(), self.url.clone(), calls, self.answer_bytes));
        }
        let mut latencies = Vec::new();
        while let Some(done) = tasks.join_next().await {
            latencies.extend(done??);
        }
        self.sent += requests;
        Ok(latencies)
    }
}

/// A client with one connection and one session.
pub(super) fn connection(number: u32) -> anyhow::Result<Client> {
    let session = format!("bench-session-{number:022}");
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-11-25"),
        ("mcp-session-id", &session),
        ("x-customer-id", "acme"),
        ("x-agent-id", "agent-1"),
    ];
    let headers = headers
        .into_iter()
        .map(|(name, value)| Ok((HeaderName::from_static(name), HeaderValue::from_str(value)?)));
    let headers = headers.collect::<anyhow::Result<HeaderMap>>()?;
    let client = Client::builder().no_proxy().pool_max_idle_per_host(1).default_headers(headers);
    client.build().context("cannot make a client")
}

async fn converse(
    client: Client,
    url: String,
    calls: Vec<String>,
    answer_bytes: usize,
) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(calls.len());
    for call in calls {
        latencies.push(exchange(&client, &url, call, answer_bytes, Instant::now()).await?);
    }
    Ok(latencies)
}

/// Sends a call and reads its answer. Returns how long after `begun` it was there.
pub(super) async fn exchange(
    client: &Client,
    url: &str,
    call: String,
    answer_bytes: usize,
    begun: Instant,
) -> anyhow::Result<Duration> {
    let answer = client.post(url).body(call).send().await?.error_for_status()?;
    let body = answer.bytes().await?;
    let latency = begun.elapsed();
    ensure!(body.len() == answer_bytes, "an answer of {} bytes from {url}", body.len());
    Ok(latency)
}
