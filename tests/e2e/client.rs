//! A client that sends any bytes over one connection and returns the bytes of the responses.

use std::net::SocketAddr;

use anyhow::Context;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::http1::{Kind, Message, Reader};

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    reader: Reader<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(addr: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(addr).await.with_context(|| addr.to_string())?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: Reader::new(stream) })
    }

    /// Sends any bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.reader.stream.write_all(bytes).await.context("cannot send")
    }

    /// Reads the next response as far as it came; calls `seen` with the length of the body so far.
    pub(crate) async fn receive(&mut self, seen: impl FnMut(usize)) -> anyhow::Result<Message> {
        let message = self.reader.message(Kind::Response, seen).await?;
        message.context("the connection ended without an answer")
    }

    /// Sends a request and returns the complete response.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> anyhow::Result<Message> {
        self.send(request).await?;
        let answer = self.receive(|_| ()).await?;
        anyhow::ensure!(answer.is_complete, "the answer was cut: {answer:?}");
        Ok(answer)
    }
}

/// A request with a body and its `content-length`.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: tools.example\r\n");
    for (name, value) in headers {
        bytes.push_str(&format!("{name}: {value}\r\n"));
    }
    if method == "POST" || !body.is_empty() {
        bytes.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    bytes.push_str("\r\n");
    [bytes.as_bytes(), body].concat()
}

/// A question to the collector, which answers only under names of its own.
pub(crate) fn report(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// One agent and its session, as its requests name them.
#[derive(Debug, Clone)]
pub(crate) struct Agent {
    /// The customer and agent of the identity headers; a test distinguishes its parts by it.
    pub(crate) name: String,
    /// `Mcp-Session-Id`.
    pub(crate) session: Option<String>,
    /// Further headers.
    pub(crate) headers: Vec<(String, String)>,
}

impl Agent {
    /// An agent with a session of its own.
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            session: Some(format!("session-of-{name}")),
            headers: Vec::new(),
        }
    }

    /// The same agent with one more header.
    pub(crate) fn with(&self, name: &str, value: &str) -> Self {
        let mut agent = self.clone();
        agent.headers.push((name.to_owned(), value.to_owned()));
        agent
    }

    /// A `tools/call`.
    pub(crate) fn call(&self, id: u64, tool: &str) -> Vec<u8> {
        let body = json!({
            "jsonrpc": "2.0", "id": id, "method": "tools/call",
            "params": { "name": tool, "arguments": { "n": id } },
        });
        self.post(body.to_string().as_bytes())
    }

    /// A `POST` of any body.
    pub(crate) fn post(&self, body: &[u8]) -> Vec<u8> {
        request("POST", "/mcp", &self.all_headers(), body)
    }

    /// The `DELETE` that ends the session.
    pub(crate) fn delete(&self) -> Vec<u8> {
        request("DELETE", "/mcp", &self.all_headers(), b"")
    }

    pub(crate) fn all_headers(&self) -> Vec<(&str, &str)> {
        let mut headers = vec![
            ("x-customer-id", self.name.as_str()),
            ("x-agent-id", self.name.as_str()),
            ("content-type", "application/json"),
            ("accept", "application/json, text/event-stream"),
        ];
        headers.extend(self.session.as_deref().map(|id| ("mcp-session-id", id)));
        headers.extend(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        headers
    }
}
