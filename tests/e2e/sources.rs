//! Who is billed without a token: by the client's certificate, filter state, or API keys; how many
//! sessions an identity may have, and what names them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use agent_meter::stack::Options;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::books::{Books, text};
use crate::client::{Client, request};
use crate::upstream::{Upstream, obliging};
use crate::{Rig, release_module};

const CHAIN: &str = "/static_resources/listeners/0/filter_chains/0";

/// API calls below these paths; each product has its own identity and session rules.
fn plugin(products: &[(&str, Value, Value)]) -> Value {
    let product = |(id, identity, session): &(&str, Value, Value)| {
        json!({
            "id": id, "type": "STANDARD_API", "match": { "path_prefix": format!("/{id}") },
            "identity": identity, "session": session,
            "pricing": { "default": { "price": "0.001" } },
        })
    };
    json!({
        "delivery": { "flush_interval": "100ms", "retry_initial": "100ms", "retry_max": "500ms" },
        "products": products.iter().map(product).collect::<Vec<_>>(),
    })
}

async fn rig(
    products: &[(&str, Value, Value)],
    settings: Vec<(String, Value)>,
) -> anyhow::Result<Rig> {
    let options = Options { settings, ..Options::new(plugin(products), Some(release_module()?)) };
    Rig::with(Upstream::start(obliging).await?, options).await
}

async fn send(
    rig: &Rig,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> anyhow::Result<u16> {
    let bytes = request(method, path, headers, b"");
    Ok(Client::connect(rig.listen()?).await?.exchange(&bytes).await?.status())
}

async fn calls(rig: &Rig, expected: usize) -> anyhow::Result<Books> {
    let books = rig
        .settled("all calls are in the ledger", |books| {
            let count = books.of_type("api_call").count();
            ensure!(count == expected, "{count} of {expected} calls");
            Ok(())
        })
        .await?;
    books.check(&rig.stack()?.ledger()?).await?;
    Ok(books)
}

/// A member of the only call of a product.
fn member_of(books: &Books, product: &str, member: &str) -> String {
    let mut found = books.of_type("api_call").filter(|call| call["product_id"] == product);
    let value = found.next().map(|call| text(call, member)).unwrap_or_default();
    assert!(found.next().is_none(), "{product} was called more than once");
    value
}

/// Runs openssl, which makes certificates and connects with TLS.
fn openssl(dir: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new("openssl");
    let output = command.args(arguments).current_dir(dir).output().context("openssl is needed")?;
    ensure!(output.status.success(), "openssl {arguments:?}: {output:?}");
    Ok(())
}

/// Makes a key and a self-signed certificate with these names.
fn certificate(dir: &Path, name: &str, subject: &str, names: &str) -> anyhow::Result<()> {
    let (key, file) = (format!("{name}.key"), format!("{name}.pem"));
    let names = format!("subjectAltName={names}");
    openssl(
        dir,
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "2",
            "-keyout",
            &key,
            "-out",
            &file,
            "-subj",
            subject,
            "-addext",
            &names,
        ],
    )
}

/// Sends a request over TLS with this client's certificate and returns the whole response.
async fn over_tls(
    dir: &Path,
    to: SocketAddr,
    client: Option<&str>,
    bytes: &[u8],
) -> anyhow::Result<String> {
    let mut command = tokio::process::Command::new("openssl");
    command.args(["s_client", "-quiet", "-connect", &to.to_string()]).current_dir(dir);
    if let Some(client) = client {
        command.args(["-cert", &format!("{client}.pem"), "-key", &format!("{client}.key")]);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().context("openssl is needed")?;
    let mut input = child.stdin.take().context("a pipe")?;
    input.write_all(bytes).await?;
    let mut answer = String::new();
    let mut output = child.stdout.take().context("a pipe")?;
    tokio::time::timeout(crate::LIMIT, output.read_to_string(&mut answer)).await??;
    Ok(answer)
}

/// The books once one session is closed, and its final event.
async fn one_closed(rig: &Rig) -> anyhow::Result<(Books, Value)> {
    let books = rig
        .settled("one session is closed", |books| {
            ensure!(books.closed().count() == 1, "{} closed", books.closed().count());
            Ok(())
        })
        .await?;
    let closed = books.closed().next().cloned().unwrap_or_default();
    Ok((books, closed))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verified_certificate_says_who_is_billed() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    certificate(dir.path(), "server", "/CN=server", "DNS:server.test")?;
    certificate(
        dir.path(),
        "acme",
        "/O=Acme/CN=agent",
        "URI:spiffe://mesh.test/ns/a/sa/agent,DNS:agent.acme.test",
    )?;
    certificate(dir.path(), "mallory", "/O=Acme/CN=agent", "URI:spiffe://mesh.test/ns/a/sa/agent")?;
    let file = |name: &str| json!({ "filename": dir.path().join(name).to_string_lossy() });
    let socket = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {
                "tls_certificates": [
                    { "certificate_chain": file("server.pem"), "private_key": file("server.key") },
                ],
                "validation_context": { "trusted_ca": file("acme.pem") },
            },
        },
    });
    let by = |name: &str| json!({ "customer": { "peer": name } });
    let products = [
        ("uri", by("uri"), json!({})),
        ("dns", by("dns"), json!({})),
        ("subject", by("subject"), json!({})),
    ];
    let rig = rig(&products, vec![(format!("{CHAIN}/transport_socket"), socket)]).await?;
    let to = rig.listen()?;
    for (product, ..) in &products {
        // The filter does not use what the client itself writes.
        let headers = [("connection", "close"), ("x-forwarded-client-cert", "URI=spiffe://rival")];
        let bytes = request("GET", &format!("/{product}"), &headers, b"");
        let answer = over_tls(dir.path(), to, Some("acme"), &bytes).await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{product}: {answer}");
        for client in [Some("mallory"), None] {
            let answer = over_tls(dir.path(), to, client, &bytes).await?;
            ensure!(answer.is_empty(), "{client:?} was answered: {answer}");
        }
    }
    let books = calls(&rig, 3).await?;
    assert_eq!(member_of(&books, "uri", "/customer_id"), "spiffe://mesh.test/ns/a/sa/agent");
    assert_eq!(member_of(&books, "dns", "/customer_id"), "agent.acme.test");
    assert_eq!(member_of(&books, "subject", "/customer_id"), "CN=agent,O=Acme");
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn filter_state_of_another_filter_says_who_is_billed() -> anyhow::Result<()> {
    let filter = json!({
        "name": "envoy.filters.http.set_filter_state",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config",
            "on_request_headers": [{
                "object_key": "acme.customer",
                "factory_key": "envoy.string",
                "format_string": { "text_format_source": { "inline_string": "by %PROTOCOL%" } },
            }],
        },
    });
    let filters = format!("{CHAIN}/filters/0/typed_config/http_filters/+0");
    let by = |key: &str| json!({ "customer": { "filter_state": key }, "on_missing": "meter_as_anonymous" });
    let products =
        [("state", by("acme.customer"), json!({})), ("none", by("acme.other"), json!({}))];
    let rig = rig(&products, vec![(filters, filter)]).await?;
    for path in ["/state", "/none"] {
        assert_eq!(send(&rig, "GET", path, &[("acme.customer", "mallory")]).await?, 200);
    }
    let books = calls(&rig, 2).await?;
    assert_eq!(member_of(&books, "state", "/customer_id"), "by HTTP/1.1");
    assert_eq!(member_of(&books, "none", "/customer_id"), "anonymous");
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_a_hash_that_its_salt_decides() -> anyhow::Result<()> {
    let salted =
        |salt: &str| json!({ "api_key": { "trusted_header": "x-api-key" }, "api_key_salt": salt });
    let products = [
        ("first", salted("the secret of the first"), json!({})),
        ("same", salted("the secret of the first"), json!({})),
        ("other", salted("the secret of the other"), json!({})),
        ("without", json!({}), json!({})),
        ("unkeyed", salted("the secret of the first"), json!({})),
    ];
    let rig = rig(&products, Vec::new()).await?;
    for (product, ..) in &products {
        let key = [("x-api-key", "key-of-acme")];
        let headers = if *product == "unkeyed" { &[][..] } else { &key };
        assert_eq!(send(&rig, "GET", &format!("/{product}"), headers).await?, 200);
    }
    let books = calls(&rig, 5).await?;
    let hash = |product: &str| member_of(&books, product, "/api_key_hash");
    let first = hash("first");
    assert!(first.len() == 32 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
    assert_eq!(hash("same"), first);
    assert_ne!(hash("other"), first);
    assert_eq!((hash("without"), hash("unkeyed")), (String::new(), String::new()));
    assert!(!json!(books.events).to_string().contains("key-of-acme"));
    assert!(!rig.log()?.contains("key-of-acme"));
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_has_so_many_sessions_and_the_longest_quiet_one_goes() -> anyhow::Result<()> {
    let identity = json!({ "customer": { "trusted_header": "x-customer-id" } });
    let rules = json!({ "per_identity_max": 2 });
    let rig = rig(&[("api", identity, rules)], Vec::new()).await?;
    let story = [("acme", "1"), ("acme", "2"), ("rival", "1"), ("acme", "1"), ("acme", "3")];
    for (at, (customer, session)) in story.into_iter().enumerate() {
        let headers = [("x-customer-id", customer), ("x-session-id", session)];
        assert_eq!(send(&rig, "GET", "/api", &headers).await?, 200);
        // Each call is in the ledger before the next one, whichever worker has it.
        calls(&rig, at + 1).await?;
    }
    let (books, closed) = one_closed(&rig).await?;
    assert_eq!(closed["close_reason"], "identity_limit", "{closed}");
    assert_eq!((&closed["customer_id"], &closed["total_tool_calls"]), (&json!("acme"), &json!(1)));
    assert_eq!(books.of_type("session_created").count(), 4);
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_rung_that_a_request_presents_names_its_session() -> anyhow::Result<()> {
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let all = [
        ("mcp-session-id", "m"),
        ("x-session-id", "h"),
        ("agent-session-id", "a"),
        ("baggage", "user=1,session.id=b"),
        ("traceparent", trace),
    ];
    // Which single header names the session at each product, if a request has all of them.
    let rows = [
        ("mcp", json!(["mcp_session_id", "header", "baggage", "trace"]), 0),
        ("header", json!(["header", "mcp_session_id", "baggage", "trace"]), 1),
        ("baggage", json!(["baggage", "trace", "header"]), 3),
        ("trace", json!(["trace", "baggage", "mcp_session_id", "header"]), 4),
    ];
    let products: Vec<(&str, Value, Value)> =
        rows.iter().map(|(id, ladder, _)| (*id, json!({}), json!({ "ladder": ladder }))).collect();
    let rig = rig(&products, Vec::new()).await?;
    for (product, _, alone) in &rows {
        let path = format!("/{product}");
        let without: Vec<(&str, &str)> =
            all.iter().enumerate().filter(|(at, _)| at != alone).map(|(_, pair)| *pair).collect();
        for headers in [&all[..], &all[*alone..=*alone], &without, &[]] {
            assert_eq!(send(&rig, "GET", &path, headers).await?, 200, "{path} {headers:?}");
        }
    }
    let books = calls(&rig, rows.len() * 4).await?;
    for (product, ..) in &rows {
        // With all headers and with the named one alone; without the named one; without any.
        let mut sizes: Vec<usize> = Vec::new();
        let of_product =
            |kind| books.of_type(kind).filter(move |data| data["product_id"] == *product);
        for created in of_product("session_created") {
            let calls = of_product("api_call");
            let own = calls.filter(|call| call["session_id"] == created["session_id"]);
            sizes.push(own.count());
        }
        sizes.sort_unstable();
        assert_eq!(sizes, [1, 1, 2], "{product}");
    }
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delete_at_the_close_path_closes_the_session_that_it_presents() -> anyhow::Result<()> {
    let rules = json!({ "close_path": "/api/close" });
    let rig = rig(&[("api", json!({}), rules)], Vec::new()).await?;
    for (method, path, session, status) in [
        ("GET", "/api", "1", 200),
        ("GET", "/api", "2", 200),
        // A request that reads the path is a call, and closes nothing.
        ("GET", "/api/close", "2", 200),
        ("DELETE", "/api/close?now", "1", 204),
        // There is no such session.
        ("DELETE", "/api/close", "3", 204),
    ] {
        let headers = [("x-session-id", session)];
        assert_eq!(send(&rig, method, path, &headers).await?, status, "{method} {path}");
    }
    let (_, closed) = one_closed(&rig).await?;
    assert_eq!(
        (&closed["close_reason"], &closed["total_tool_calls"]),
        (&json!("closed"), &json!(1))
    );
    let seen = rig.upstream.take_requests();
    assert!(seen.iter().all(|request| request.method() == "GET"), "the filter answers: {seen:?}");
    let books = calls(&rig, 3).await?;
    assert_eq!(books.of_type("session_created").count(), 2);
    rig.finish().await
}
