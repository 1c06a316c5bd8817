//! Requests that are almost calls, through Envoy to the official SDKs: what a tool did is in the
//! ledger at no less than its price, or the request was refused.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_meter::wait;
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use crate::books::{Books, text};
use crate::client::Client;
use crate::dice::Dice;
use crate::mutate::{Request, TOOLS, gzip, request};
use crate::process::{Server, say};
use crate::{LIMIT, Metered, tools};

/// Random requests to each server and configuration, beside the rows.
const REQUESTS: u64 = 400;
const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"analyze_x","arguments":{}}}"#;

/// The attempts that made an official SDK run a tool for nothing, by their numbers.
fn rows() -> Vec<(&'static str, &'static str, Request)> {
    let json = || vec![("content-type", "application/json".to_owned())];
    let row = |body: Vec<u8>, headers: Vec<(&'static str, String)>| Request {
        method: "POST",
        headers,
        body,
        pieces: 1,
        certain: None,
    };
    let with = |name: &'static str, value: &str| {
        let mut headers = json();
        headers.push((name, value.to_owned()));
        headers
    };
    let of_charset =
        |charset: &str| vec![("content-type", format!("application/json; charset={charset}"))];
    let utf16 = |mark: &str| -> Vec<u8> {
        mark.encode_utf16().chain(CALL.encode_utf16()).flat_map(u16::to_le_bytes).collect()
    };
    let decoy = CALL.replace("\"method\":", "\"method\":\"ping\",\"+AG0-ethod\":");
    let mut named = with("content-encoding", "br");
    named.push(("mcp-method", "tools/call".to_owned()));
    named.push(("mcp-name", "lookup_cheap".to_owned()));
    let blanks = [" ".repeat(3_000_000).as_bytes(), CALL.as_bytes()].concat();
    vec![
        ("a plain call", "/mcp", row(CALL.into(), json())),
        ("4: UTF-16 with a mark", "/mcp", row(utf16("\u{FEFF}"), json())),
        ("5: UTF-16 by its charset", "/mcp", row(utf16(""), of_charset("utf-16le"))),
        ("5: UTF-16 without a charset", "/mcp", row(utf16(""), json())),
        ("6: UTF-7 behind a decoy", "/mcp", row(decoy.into(), of_charset("utf-7"))),
        ("32: br", "/mcp", row(brotli(CALL.as_bytes()), with("content-encoding", "br"))),
        ("33: br and a cheap name", "/mcp", row(brotli(CALL.as_bytes()), named)),
        ("34: gzip of blanks", "/mcp", row(gzip(&blanks), with("content-encoding", "gzip"))),
        ("42: the path in another case", "/MCP", row(CALL.into(), json())),
    ]
}

/// Brotli (RFC 7932) that stores the bytes as they are.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short body") - 1;
    let head = (length << 4 | 1 << 20).to_le_bytes();
    [&head[..3], bytes, &[3]].concat()
}

/// The bytes of a request: its body with a length, or in chunks.
fn bytes(host: &str, path: &str, customer: &str, request: &Request) -> Vec<u8> {
    let Request { method, headers, body, pieces, .. } = request;
    let mut head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-customer-id: {customer}\r\n\
         accept: application/json, text/event-stream\r\n"
    );
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if *pieces == 1 || body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        return [head.as_bytes(), body].concat();
    }
    head.push_str("transfer-encoding: chunked\r\n\r\n");
    let mut bytes = head.into_bytes();
    for chunk in body.chunks(body.len().div_ceil(*pieces)) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Sends the rows and the random requests, each as a customer of its own, and checks what the
/// server did against the ledger.
async fn check(server: Server, port: u16, more: &Value) -> anyhow::Result<()> {
    let metered = Metered::priced(port, more).await?;
    let listen = metered.stack().envoy()?.listen();
    let mut named = BTreeMap::new();
    let random = (0..REQUESTS).map(|seed| ("", "/mcp", request(&mut Dice(seed))));
    let mut answered = 0_u32;
    for (number, (name, path, request)) in rows().into_iter().chain(random).enumerate() {
        let customer = format!("c{number}");
        let bytes = bytes(&listen.to_string(), path, &customer, &request);
        named.insert(customer, format!("{name} {request:?}"));
        let mut client = Client::connect(listen).await?;
        // The end of a connection is an answer too, and so is a stream of events.
        let answer = timeout(Duration::from_secs(3), client.exchange(&bytes)).await;
        answered += u32::from(matches!(answer, Ok(Ok(_))));
    }
    let executed = server.stop().await?;
    let executed = executed.as_object().context("a server tells what it executed")?;
    say(&format!("{} requests, {answered} answered, {} ran a tool", named.len(), executed.len()));
    let has_plan = !more["contracts"].is_null();
    ensure!(has_plan || executed.contains_key("c0"), "the plain call did not run: {executed:?}");
    let ledger = metered.stack().ledger()?;
    wait::until(LIMIT, "what the server ran is in the ledger", async || {
        let books = Books::read(&ledger).await?;
        for (customer, ran) in executed {
            let calls =
                books.tool_invocations().filter(|data| text(data, "/customer_id") == *customer);
            let paid = calls.filter(|data| text(data, "/execution_status") == "SUCCESS");
            let paid = paid.map(|data| Ok(text(data, "/price").parse()?));
            let mut paid = paid.collect::<anyhow::Result<Vec<Decimal>>>()?;
            let mut owed = Vec::new();
            for tool in ran.as_array().context("a list of tools")? {
                ensure!(!has_plan || tool == "lookup_x", "{tool} ran: {}", named[customer]);
                let price = TOOLS.iter().find(|(name, _)| tool == name).context("a known tool")?.1;
                owed.push(price.parse::<Decimal>()?);
            }
            paid.sort_unstable_by(|a, b| b.cmp(a));
            owed.sort_unstable_by(|a, b| b.cmp(a));
            let is_covered =
                paid.len() >= owed.len() && owed.iter().zip(&paid).all(|(owed, paid)| paid >= owed);
            ensure!(is_covered, "{ran} ran, paid {paid:?}: {}", named[customer]);
        }
        Ok(())
    })
    .await?;
    metered.stop().await?;
    Ok(())
}

/// Where nothing acts on requests, and where a plan lists one of the tools.
fn configurations() -> [Value; 2] {
    let plan = json!({ "contracts": {
        "plans": { "some": { "tools": ["lookup_*"] } }, "default_plan": "some",
    } });
    [json!({}), plan]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_python_sdk_runs_is_counted_or_refused() -> anyhow::Result<()> {
    for more in configurations() {
        let mut command = Command::new(tools::python().await?);
        command.arg(tools::here("priced.py"));
        let (server, port) = Server::with_port(command).await?;
        check(server, port, &more).await?;
    }
    Ok(())
}

#[ignore = "its packages from npm are many megabytes: make peers"]
#[tokio::test(flavor = "multi_thread")]
async fn what_the_typescript_sdk_behind_express_runs_is_counted_or_refused() -> anyhow::Result<()> {
    for more in configurations() {
        let command = tools::npm().await?.script(&tools::here("priced.mjs"));
        let (server, port) = Server::with_port(command).await?;
        check(server, port, &more).await?;
    }
    Ok(())
}
