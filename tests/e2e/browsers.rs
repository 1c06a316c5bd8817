//! A client in a browser behind `on_missing: reject`: its preflight, the discovery of the
//! authorization server, the refusal without a token, and the call with one.

use std::net::SocketAddr;

use agent_meter::stack::Options;
use serde_json::{Value, json};

use crate::client::{Client, request};
use crate::http1::Message;
use crate::identity::{calls, counted, plugin, product};
use crate::issuer::Issuer;
use crate::upstream::{Step, Upstream, json_response, obliging, response};
use crate::{Rig, release_module};

const PAGE: &str = "https://app.example";
const METADATA: &str = "/.well-known/oauth-protected-resource/mcp";
const PREFLIGHT: [(&str, &str); 3] = [
    ("origin", PAGE),
    ("access-control-request-method", "POST"),
    ("access-control-request-headers", "authorization, content-type, mcp-protocol-version"),
];
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// A server that answers preflights, and has metadata that names it as its clients do.
fn server(request: &Message) -> Vec<Step> {
    let path = request.word(1);
    let answer = match request.method().as_str() {
        "OPTIONS" => response(
            "204 No Content",
            &[
                ("access-control-allow-origin", PAGE),
                ("access-control-allow-methods", "GET, POST, DELETE"),
                ("access-control-allow-headers", "authorization, content-type"),
            ],
            b"",
        ),
        "GET" if path.starts_with("/.well-known/") => {
            let host = request.header("host").unwrap_or_default();
            json_response(&json!({ "resource": format!("https://{host}/mcp") }))
        }
        _ => return obliging(request),
    };
    vec![Step::Send(answer)]
}

/// The server's product: all of its paths, for callers that are known.
fn metered(cors: &Value) -> Value {
    let mut product = product("/mcp");
    product["match"] = json!({ "path_prefix": "/" });
    product["identity"]["on_missing"] = json!("reject");
    product["identity"]["challenge"] = json!({
        "resource_metadata": format!("https://tools.example{METADATA}"), "scope": "mcp:tools",
    });
    let mut plugin = plugin(&[product]);
    plugin["cors"] = cors.clone();
    plugin
}

/// Sends one request with these headers on a connection of its own.
async fn send(
    listen: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> anyhow::Result<Message> {
    let request = request(method, path, headers, body.as_bytes());
    Client::connect(listen).await?.exchange(&request).await
}

fn tool_call() -> String {
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "lookup", "arguments": {} },
    });
    call.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_finds_its_way_to_a_token_and_is_billed_once() -> anyhow::Result<()> {
    let issuer = Issuer::start().await?;
    let plugin = metered(&json!({ "allow_origins": [PAGE] }));
    let settings = issuer.settings(true);
    let options = Options { settings, ..Options::new(plugin, Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(server).await?, options).await?;
    let listen = rig.listen()?;

    let preflight = send(listen, "OPTIONS", "/mcp", &PREFLIGHT, "").await?;
    assert_eq!(preflight.status(), 204, "{preflight:?}");
    assert_eq!(preflight.header("access-control-allow-origin").as_deref(), Some(PAGE));

    let headers = [("origin", PAGE), ("content-type", "application/json")];
    let refused = send(listen, "POST", "/mcp", &headers, &tool_call()).await?;
    assert_eq!(refused.status(), 401, "{refused:?}");
    let said =
        format!(r#"Bearer resource_metadata="https://tools.example{METADATA}", scope="mcp:tools""#);
    assert_eq!(refused.header("www-authenticate"), Some(said));
    assert_eq!(refused.header("access-control-allow-origin").as_deref(), Some(PAGE));
    assert_eq!(
        refused.header("access-control-expose-headers").as_deref(),
        Some("www-authenticate")
    );
    assert_eq!(refused.header("vary").as_deref(), Some("origin"));

    let found = send(listen, "GET", METADATA, &[("origin", PAGE)], "").await?;
    assert_eq!(found.status(), 200, "{found:?}");
    let found: Value = serde_json::from_slice(&found.body)?;
    assert_eq!(found["resource"], "https://tools.example/mcp", "the server knows another host");

    let bearer = format!("Bearer {}", issuer.token("acme-bot").await?);
    let headers = [headers[0], headers[1], ("authorization", &bearer)];
    let served = send(listen, "POST", "/mcp", &headers, &tool_call()).await?;
    assert_eq!(served.status(), 200, "{served:?}");

    let books = calls(&rig, 1).await?;
    let billed: Vec<&Value> = books.tool_invocations().collect();
    assert_eq!(billed[0]["customer_id"], "acme");
    assert_eq!(books.of_type("session_created").count(), 1);
    counted(&rig, "requests_exempt", 2).await?;
    counted(&rig, "requests_rejected", 1).await?;
    let seen: Vec<String> =
        rig.upstream.take_requests().iter().map(|request| request.method()).collect();
    assert_eq!(seen, ["OPTIONS", "GET", "POST"]);
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_may_execute_needs_an_identity() -> anyhow::Result<()> {
    let rig = Rig::start(Upstream::start(server).await?, metered(&json!({}))).await?;
    let listen = rig.listen()?;
    let call = tool_call();
    let json = ("content-type", "application/json");
    for (method, path, headers, body) in [
        ("OPTIONS", "/mcp", &[PREFLIGHT[0], PREFLIGHT[1], json][..], call.as_str()),
        ("OPTIONS", "/mcp", &[("x-http-method-override", "POST")], ""),
        ("GET", METADATA, &[json], &call),
        ("GET", METADATA, &[("x-original-url", "/mcp")], ""),
        ("GET", "/.well-known/../mcp", &[], ""),
        ("GET", "/.well-known/%2e%2e/mcp", &[], ""),
        ("POST", METADATA, &[json], &call),
    ] {
        let refused = send(listen, method, path, headers, body).await?;
        assert_eq!(refused.status(), 401, "{method} {path} {headers:?}: {refused:?}");
        assert_eq!(refused.header("access-control-allow-origin"), None, "nobody allowed it");
    }
    // A body whose end the head does not tell.
    let mut chunked = request("OPTIONS", "/mcp", &[("transfer-encoding", "chunked")], b"");
    chunked.extend(format!("{:x}\r\n{call}\r\n0\r\n\r\n", call.len()).into_bytes());
    let refused = Client::connect(listen).await?.exchange(&chunked).await?;
    assert_eq!(refused.status(), 401, "{refused:?}");
    assert_eq!(rig.upstream.take_requests(), [], "the server has seen a request");
    rig.finish().await
}

/// Envoy's own filter in front answers preflights, and covers the refusals of this one.
#[tokio::test(flavor = "multi_thread")]
async fn envoys_cors_filter_does_the_same() -> anyhow::Result<()> {
    let kind = "type.googleapis.com/envoy.extensions.filters.http.cors.v3";
    let filter = json!({
        "name": "envoy.filters.http.cors", "typed_config": { "@type": format!("{kind}.Cors") },
    });
    let policy = json!({ "envoy.filters.http.cors": {
        "@type": format!("{kind}.CorsPolicy"),
        "allow_origin_string_match": [{ "exact": PAGE }],
        "allow_methods": "GET, POST, DELETE",
        "allow_headers": "authorization, content-type",
        "expose_headers": "www-authenticate",
    } });
    let settings = vec![
        (format!("{MANAGER}/http_filters/+0"), filter),
        (format!("{MANAGER}/route_config/virtual_hosts/0/typed_per_filter_config"), policy),
    ];
    let options =
        Options { settings, ..Options::new(metered(&json!({})), Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(server).await?, options).await?;
    let listen = rig.listen()?;
    let preflight = send(listen, "OPTIONS", "/mcp", &PREFLIGHT, "").await?;
    assert_eq!(preflight.status(), 200, "{preflight:?}");
    let headers = [("origin", PAGE), ("content-type", "application/json")];
    let refused = send(listen, "POST", "/mcp", &headers, &tool_call()).await?;
    assert_eq!(refused.status(), 401, "{refused:?}");
    for answer in [&preflight, &refused] {
        assert_eq!(answer.header("access-control-allow-origin").as_deref(), Some(PAGE));
    }
    let exposed = refused.header("access-control-expose-headers");
    assert_eq!(exposed.as_deref(), Some("www-authenticate"));
    assert_eq!(rig.upstream.take_requests(), [], "the server has seen a request");
    rig.finish().await
}
