//! WebSockets: metered where Envoy allows them, and refused so that clients fall back where it does
//! not. Client and server are those of `tokio-tungstenite`.

use anyhow::{Context, ensure};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use agent_meter::stack::{ANY_PORT, Options};
use agent_meter::wait;

use crate::llm::{generations, plugin, product};
use crate::upstream::{Upstream, obliging};
use crate::{LIMIT, Rig, release_module};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

const SERVER_PORT: &str = "/static_resources/clusters/0/load_assignment/endpoints/0/lb_endpoints/0/\
    endpoint/address/socket_address/port_value";

/// A rig whose Envoy allows WebSockets, to the server at this port.
async fn rig(llm: &Value, port: u16) -> anyhow::Result<Rig> {
    let settings = vec![
        (format!("{MANAGER}/upgrade_configs"), json!([{ "upgrade_type": "websocket" }])),
        (SERVER_PORT.to_owned(), json!(port)),
    ];
    let plugin = plugin(&[product("", llm)]);
    let options = Options { settings, ..Options::new(plugin, Some(release_module()?)) };
    Rig::with(Upstream::start(obliging).await?, options).await
}

/// Asks for a WebSocket at a path.
async fn connect(rig: &Rig, path: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let listen = rig.listen().map_err(|error| Error::Io(std::io::Error::other(error)))?;
    let mut request = format!("ws://api.openai.com{path}").into_client_request()?;
    for (name, value) in [
        ("x-customer-id", "acme"),
        ("x-agent-id", "codex"),
        ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits"),
    ] {
        request.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let (socket, _) = client_async(request, TcpStream::connect(listen).await?).await?;
    Ok(socket)
}

fn event(number: u64, kind: &str, usage: &Value) -> Value {
    let status = if kind == "response.created" { "in_progress" } else { "completed" };
    json!({ "type": kind, "response": {
        "id": format!("resp_{number}"), "status": status, "model": "gpt-4o", "usage": usage } })
}

/// Answers each request on one connection with a response; the last one never ends.
#[expect(clippy::result_large_err, reason = "the library's callback has this type")]
async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let (stream, _) = listener.accept().await?;
    let mut offered = None;
    let mut socket = accept_hdr_async(stream, |request: &Request, response: Response| {
        offered = request.headers().get("sec-websocket-extensions").cloned();
        Ok(response)
    })
    .await?;
    ensure!(offered.is_none(), "compression was offered: {offered:?}");
    let mut number = 0;
    while let Some(message) = socket.next().await {
        let Message::Text(text) = message? else { continue };
        let asked: Value = serde_json::from_str(&text)?;
        number += 1;
        let usage = json!({ "input_tokens": 1000 * number, "output_tokens": 10, "total_tokens": 1000 * number + 10 });
        let mut said = vec![
            event(number, "response.created", &Value::Null),
            json!({ "type": "response.output_text.delta", "delta": "four words of text" }),
        ];
        if asked["input"] != "never" {
            said.push(event(number, "response.completed", &usage));
        }
        for part in said {
            socket.send(Message::text(part.to_string())).await?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_response_on_a_websocket_is_metered_where_envoy_allows_them() -> anyhow::Result<()> {
    let listener = TcpListener::bind(ANY_PORT).await?;
    let rig = rig(&json!({ "provider": "openai" }), listener.local_addr()?.port()).await?;
    let server = tokio::spawn(serve(listener));
    let mut socket = connect(&rig, "/v1/responses").await?;
    // A long message is sent in several frames and chunks.
    for (input, answers) in [("a".repeat(200_000).as_str(), 3), ("short", 3), ("never", 2)] {
        let ask = json!({ "type": "response.create", "model": "gpt-4o", "input": input });
        socket.send(Message::text(ask.to_string())).await?;
        for _ in 0..answers {
            let answer = socket.next().await.context("an answer")??;
            ensure!(answer.is_text(), "{answer:?}");
        }
    }
    drop(socket);
    let _ = server.await?;
    let events = generations(&rig, 3).await?;
    let mut told: Vec<_> = events
        .iter()
        .map(|event| {
            let tokens = &event["tokens"];
            format!(
                "{} {} {} {}",
                event["model"], event["completeness"], tokens["input"], tokens["output"]
            )
        })
        .collect();
    told.sort();
    // The message that was never answered has 58 bytes.
    let expected = [
        "\"gpt-4o\" \"COMPLETE\" 1000 10",
        "\"gpt-4o\" \"COMPLETE\" 2000 10",
        "\"gpt-4o\" \"MISSING\" 15 5",
    ];
    assert_eq!(told, expected);
    for (counter, expected) in [
        ("websockets", 1),
        ("generations", 3),
        ("websockets_unread", 0),
        ("llm_requests_unseen", 0),
    ] {
        ensure!(rig.metric(counter).await? == expected, "{counter}");
    }
    rig.finish().await
}

/// The status with which a request for a WebSocket is refused.
async fn refused(rig: &Rig) -> anyhow::Result<u16> {
    match connect(rig, "/v1/responses").await {
        Err(Error::Http(response)) => Ok(response.status().as_u16()),
        other => anyhow::bail!("not refused: {:?}", other.map(|_| ())),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_gets_426_where_it_is_not_allowed() -> anyhow::Result<()> {
    // By Envoy.
    let product = product("", &json!({ "provider": "openai" }));
    let by_envoy = Rig::start(Upstream::start(obliging).await?, plugin(&[product])).await?;
    ensure!(refused(&by_envoy).await? == 426);
    ensure!(by_envoy.upstream.requests_len() == 0, "the server was asked");
    by_envoy.finish().await?;
    // By the filter.
    let listener = TcpListener::bind(ANY_PORT).await?;
    let llm = json!({ "provider": "openai", "websocket": "reject" });
    let by_filter = rig(&llm, listener.local_addr()?.port()).await?;
    ensure!(refused(&by_filter).await? == 426);
    wait::until(LIMIT, "the refusal is counted", async || {
        ensure!(by_filter.metric("websockets_refused").await? == 1);
        Ok(())
    })
    .await?;
    by_filter.finish().await
}
