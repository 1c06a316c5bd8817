//! A call exists with its head: requests that Envoy answers itself, that a server answers early or that a client leaves
//! before a body came, and gRPC, whose outcome is not in the HTTP status.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::net::SocketAddr;

use agent_meter::stack::{ANY_PORT, Options, Upstream as Server};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::books::{Books, text};
use crate::client::{Client, request};
use crate::upstream::{Upstream, obliging};
use crate::{Rig, release_module};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

/// The kinds of exchange: head, path, body, the event of its call.
const KINDS: [(&str, &str, &str, &str); 6] = [
    ("GET", "/api/x", "", "api_call"),
    ("POST", "/api/x", "0123456789", "api_call"),
    ("POST", "/agentic/v1/chat/completions", "{}", "api_call"),
    ("POST", "/a2a/v1/message:send", "{}", "agent_step"),
    ("POST", "/v1/responses", "{}", "agent_step"),
    ("POST", "/mcp", "{}", "tool_invocation"),
];

/// One product of each kind; a test tells its scenes apart by the customer.
fn plugin() -> Value {
    let product = |id: &str, product_type: &str, llm: Value| {
        let mut product = json!({
            "id": id,
            "type": product_type,
            "match": { "path_prefix": format!("/{id}") },
            "identity": { "customer": { "trusted_header": "x-customer-id" } },
        });
        if !llm.is_null() {
            product["llm"] = llm;
        }
        product
    };
    json!({
        "delivery": { "flush_interval": "100ms", "retry_initial": "100ms", "retry_max": "500ms" },
        "products": [
            product("mcp", "MCP_SERVER", Value::Null),
            product("api", "STANDARD_API", Value::Null),
            product("agentic", "AGENTIC_API", json!({})),
            product("a2a", "AI_AGENT", Value::Null),
            product("v1", "AI_AGENT", json!({ "provider": "openai" })),
        ],
    })
}

/// Routes and filters that answer by themselves what has this value in `x-reply`.
fn local_replies() -> Vec<(String, Value)> {
    let filters = format!("{MANAGER}/http_filters");
    let is = |value: &str| json!([{ "name": "x-reply", "string_match": { "exact": value } }]);
    let route = |value: &str, kind: &str, action: Value| {
        let mut route = json!({ "match": { "prefix": "/", "headers": is(value) } });
        route[kind] = action;
        (format!("{MANAGER}/route_config/virtual_hosts/0/routes/+0"), route)
    };
    let filter = |place: &str, name: &str, proto: &str, mut config: Value| {
        config["@type"] = json!(format!("{EXTENSIONS}.filters.http.{proto}"));
        let name = format!("envoy.filters.http.{name}");
        (format!("{filters}/{place}"), json!({ "name": name, "typed_config": config }))
    };
    let policy =
        json!({ "permissions": [{ "header": is("rbac")[0] }], "principals": [{ "any": true }] });
    let all = json!({ "numerator": 100 });
    let empty = json!({ "cluster_name": "empty", "endpoints": [] });
    vec![
        route("direct", "direct_response", json!({ "status": 404 })),
        route("redirect", "redirect", json!({ "path_redirect": "/elsewhere" })),
        route("missing", "route", json!({ "cluster": "missing" })),
        route("empty", "route", json!({ "cluster": "empty" })),
        (format!("{MANAGER}/route_config/validate_clusters"), json!(false)),
        (
            "/static_resources/clusters/-".to_owned(),
            json!({ "name": "empty", "type": "STATIC", "load_assignment": empty }),
        ),
        filter(
            "1",
            "rbac",
            "rbac.v3.RBAC",
            json!({ "rules": { "action": "DENY", "policies": { "no": policy } } }),
        ),
        // Of any status, by `x-envoy-fault-abort-request`.
        filter(
            "-",
            "fault",
            "fault.v3.HTTPFault",
            json!({ "abort": { "header_abort": {}, "percentage": all } }),
        ),
        filter("-", "router", "router.v3.Router", json!({})),
    ]
}

/// Type, outcome and HTTP status of each call, by customer.
fn calls(books: &Books) -> BTreeMap<String, (String, String, u64)> {
    ["tool_invocation", "api_call", "agent_step"]
        .into_iter()
        .flat_map(|event_type| books.of_type(event_type))
        .map(|data| {
            let status = data["http_status"].as_u64().unwrap_or_default();
            let told = (text(data, "/event_type"), text(data, "/execution_status"), status);
            (text(data, "/customer_id"), told)
        })
        .collect()
}

/// The calls of so many customers, which are as many as the stats count.
async fn settled(
    rig: &Rig,
    expected: usize,
) -> anyhow::Result<BTreeMap<String, (String, String, u64)>> {
    let books = rig
        .settled("every call", |books| {
            let found = calls(books).len();
            ensure!(found == expected, "{found} of {expected} calls");
            Ok(())
        })
        .await?;
    // A VM adds to the stats with its next tick.
    agent_meter::wait::until(crate::LIMIT, "the stats count the same calls", async || {
        let counted = rig.metric("calls").await?;
        ensure!(counted == u64::try_from(expected)?, "{counted} of {expected} calls");
        Ok(())
    })
    .await?;
    books.check(&rig.stack()?.ledger()?).await?;
    Ok(calls(&books))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_envoy_itself_answers_is_an_event_with_the_right_status() -> anyhow::Result<()> {
    let options =
        Options { settings: local_replies(), ..Options::new(plugin(), Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    // What asks for the reply, its status, and the outcome.
    const FAULT: &str = "x-envoy-fault-abort-request";
    let rows = [
        ("x-reply", "rbac", 403, "BLOCKED"),
        ("x-reply", "direct", 404, "ERROR"),
        ("x-reply", "redirect", 301, "ERROR"),
        ("x-reply", "missing", 503, "ERROR"),
        ("x-reply", "empty", 503, "ERROR"),
        (FAULT, "400", 400, "VALIDATION_FAILED"),
        (FAULT, "401", 401, "BLOCKED"),
        (FAULT, "429", 429, "BLOCKED"),
        (FAULT, "500", 500, "ERROR"),
        (FAULT, "504", 504, "TIMEOUT"),
    ];
    let mut expected = BTreeMap::new();
    for (header, value, status, outcome) in rows {
        for (place, (method, path, body, event_type)) in KINDS.into_iter().enumerate() {
            let customer = format!("{value}-{place}");
            let headers = [
                ("x-customer-id", customer.as_str()),
                ("content-type", "application/json"),
                ("mcp-protocol-version", "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "t"),
                (header, value),
            ];
            let request = request(method, path, &headers, body.as_bytes());
            let answer = Client::connect(rig.listen()?).await?.exchange(&request).await?;
            ensure!(answer.status() == status, "{customer}: {answer:?}");
            // An API answers with a redirection; a call of a tool or an agent is that of the request
            // which follows.
            let is_answer = event_type == "api_call" || path == "/v1/responses";
            let outcome = match status {
                301 if is_answer => "SUCCESS",
                301 if matches!(event_type, "tool_invocation" | "agent_step") => continue,
                _ => outcome,
            };
            let told = (event_type.to_owned(), outcome.to_owned(), u64::from(status));
            expected.insert(customer, told);
        }
    }
    assert_eq!(settled(&rig, expected.len()).await?, expected);
    rig.finish().await
}

/// A server that answers as soon as the head has come if that asks for it, and else never.
async fn serve_early() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(ANY_PORT).await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
                    if stream.read_buf(&mut seen).await? == 0 {
                        return Ok(());
                    }
                }
                if String::from_utf8_lossy(&seen).contains("x-early") {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await?;
                }
                while stream.read_buf(&mut seen).await? > 0 {}
                std::io::Result::Ok(())
            });
        }
    });
    Ok(addr)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_answer_and_a_client_that_leaves_are_events() -> anyhow::Result<()> {
    let rig = Rig::with_own_server(Options {
        upstream: Server::At(serve_early().await?.into()),
        ..Options::new(plugin(), Some(release_module()?))
    })
    .await?;
    let mut expected = BTreeMap::new();
    for (place, (method, path, _, event_type)) in KINDS.into_iter().enumerate().skip(1) {
        for is_early in [true, false] {
            for sent in ["", "{\"mess"] {
                let customer = format!("{place}-{is_early}-{}", sent.len());
                let mut headers = vec![
                    ("x-customer-id", customer.as_str()),
                    ("mcp-protocol-version", "2026-07-28"),
                    ("mcp-method", "tools/call"),
                    ("mcp-name", "t"),
                    ("content-type", "application/json"),
                    ("content-length", "1000"),
                ];
                headers.extend(is_early.then_some(("x-early", "1")));
                let mut head = format!("{method} {path} HTTP/1.1\r\nhost: tools.example\r\n");
                for (name, value) in headers {
                    head.push_str(&format!("{name}: {value}\r\n"));
                }
                let mut client = Client::connect(rig.listen()?).await?;
                client.send(format!("{head}\r\n{sent}").as_bytes()).await?;
                let (outcome, status) = match (is_early, event_type) {
                    (false, _) => ("CANCELLED", 0),
                    (true, "api_call") => ("SUCCESS", 200),
                    (true, _) if path == "/v1/responses" => ("SUCCESS", 200),
                    // The answer is none of a tool or an agent.
                    (true, _) => ("UNKNOWN", 200),
                };
                if is_early {
                    let answer = client.receive(|_| ()).await?;
                    ensure!(answer.status() == 200, "{customer}: {answer:?}");
                } else {
                    let begun = u64::try_from(expected.len())? + 1;
                    agent_meter::wait::until(crate::LIMIT, "the request is there", async || {
                        let now = rig.stack()?.envoy()?.stats("cluster.upstream.upstream_rq_total");
                        let now = now.await?.values().sum::<u64>();
                        ensure!(now >= begun, "{now} of {begun}");
                        Ok(())
                    })
                    .await?;
                }
                drop(client);
                let told = (event_type.to_owned(), outcome.to_owned(), status);
                expected.insert(customer, told);
            }
        }
    }
    assert_eq!(settled(&rig, expected.len()).await?, expected);
    rig.finish().await
}

/// A server of gRPC: the path says with which status it answers, and where it says so.
async fn serve_grpc() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(ANY_PORT).await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = h2::server::Builder::new();
                let mut connection = server.handshake::<_, Cursor<Vec<u8>>>(stream).await?;
                while let Some(request) = connection.accept().await {
                    let (request, respond) = request?;
                    tokio::spawn(answer_grpc(request, respond));
                }
                anyhow::Ok(())
            });
        }
    });
    Ok(addr)
}

async fn answer_grpc(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Cursor<Vec<u8>>>,
) -> anyhow::Result<()> {
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_start_matches("/api/").split('/');
    let (place, code) = (parts.next().context("a place")?, parts.next().context("a code")?);
    let head = http::Response::builder().header("content-type", "application/grpc");
    if place == "head" {
        respond.send_response(head.header("grpc-status", code).body(())?, true)?;
        return Ok(());
    }
    let mut sender = respond.send_response(head.body(())?, false)?;
    sender.send_data(Cursor::new(vec![0, 0, 0, 0, 0]), false)?;
    let mut trailers = http::HeaderMap::new();
    trailers.insert("grpc-message", http::HeaderValue::from_static("x"));
    if code != "none" {
        trailers.insert("grpc-status", http::HeaderValue::from_str(code)?);
    }
    sender.send_trailers(trailers)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_call_comes_to_what_its_head_or_its_trailers_say() -> anyhow::Result<()> {
    let protocol = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": format!("{EXTENSIONS}.upstreams.http.v3.HttpProtocolOptions"),
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    let mut settings = local_replies();
    let at = "/static_resources/clusters/0/typed_extension_protocol_options";
    settings.push((at.to_owned(), protocol));
    let rig = Rig::with_own_server(Options {
        upstream: Server::At(serve_grpc().await?.into()),
        settings,
        ..Options::new(plugin(), Some(release_module()?))
    })
    .await?;
    let mut expected = BTreeMap::new();
    for (path, reply, outcome) in [
        ("trailers/0", "", "SUCCESS"),
        ("trailers/13", "", "ERROR"),
        ("trailers/7", "", "BLOCKED"),
        ("trailers/4", "", "TIMEOUT"),
        ("trailers/3", "", "VALIDATION_FAILED"),
        ("trailers/1", "", "CANCELLED"),
        ("trailers/none", "", "UNKNOWN"),
        ("head/0", "", "SUCCESS"),
        ("head/7", "", "BLOCKED"),
        ("head/16", "", "BLOCKED"),
        ("head/14", "", "ERROR"),
        // Envoy makes gRPC of its own answers.
        ("local", "rbac", "BLOCKED"),
        ("local", "empty", "ERROR"),
    ] {
        let customer = format!("{path}-{reply}");
        let headers = [
            ("x-customer-id", customer.as_str()),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
            ("x-reply", reply),
        ];
        let request = request("POST", &format!("/api/{path}"), &headers, &[0, 0, 0, 0, 0]);
        let answer = Client::connect(rig.listen()?).await?.exchange(&request).await?;
        ensure!(answer.status() == 200, "{customer}: {answer:?}");
        expected.insert(customer, ("api_call".to_owned(), outcome.to_owned(), 200));
    }
    assert_eq!(settled(&rig, expected.len()).await?, expected);
    rig.finish().await
}
