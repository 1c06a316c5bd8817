//! Who is billed when Envoy verifies the tokens of a real issuer, and what happens to requests
//! without a token.

use agent_meter::stack::Options;
use agent_meter::wait;
use anyhow::ensure;
use serde_json::{Value, json};

use crate::books::{Books, text};
use crate::client::{Client, request};
use crate::http1::Message;
use crate::issuer::{Issuer, claims, forged, now, signed, unsigned};
use crate::upstream::{Upstream, obliging};
use crate::{LIMIT, Rig, release_module};

/// An MCP server below this path, whose clients are identified by their tokens.
pub(crate) fn product(path: &str) -> Value {
    json!({
        "id": path.trim_matches('/'),
        "type": "MCP_SERVER",
        "match": { "path_prefix": path },
        "identity": {
            "customer": { "jwt_claim": "customer_id" },
            "team": { "jwt_claim": "team" },
            "agent": { "jwt_claim": "client_id" },
            "jwt_payload": "jwt_payload",
        },
        "pricing": { "currency": "USD", "default": { "price": "0.001" } },
    })
}

pub(crate) fn plugin(products: &[Value]) -> Value {
    json!({
        "delivery": { "flush_interval": "100ms", "retry_initial": "100ms", "retry_max": "500ms" },
        "products": products,
    })
}

async fn rig(issuer: &Issuer, may_be_missing: bool, products: &[Value]) -> anyhow::Result<Rig> {
    let options = Options {
        settings: issuer.settings(may_be_missing),
        ..Options::new(plugin(products), Some(release_module()?))
    };
    Rig::with(Upstream::start(obliging).await?, options).await
}

/// Calls a tool with these headers and this token.
pub(crate) async fn call(
    rig: &Rig,
    path: &str,
    token: &str,
    headers: &[(&str, &str)],
    tool: &str,
) -> anyhow::Result<Message> {
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": tool, "arguments": {} },
    });
    let bearer = format!("Bearer {token}");
    let mut all = vec![("content-type", "application/json")];
    if !token.is_empty() {
        all.push(("authorization", &bearer));
    }
    all.extend(headers);
    let request = request("POST", path, &all, body.to_string().as_bytes());
    Client::connect(rig.listen()?).await?.exchange(&request).await
}

/// Waits until the ledger has this many calls.
pub(crate) async fn calls(rig: &Rig, expected: usize) -> anyhow::Result<Books> {
    let books = rig
        .settled("all calls are in the ledger", |books| {
            let count = books.tool_invocations().count();
            ensure!(count >= expected, "{count} of {expected} calls");
            Ok(())
        })
        .await?;
    let count = books.tool_invocations().count();
    ensure!(count == expected, "{count} calls, {expected} expected");
    books.check(&rig.stack()?.ledger()?).await?;
    Ok(books)
}

/// Customer, team and agent of the only call of a tool.
fn billed(books: &Books, tool: &str) -> [String; 3] {
    let mut found = books.tool_invocations().filter(|call| call["tool_name"] == tool);
    let who = found
        .next()
        .map(|call| ["/customer_id", "/team_id", "/agent_id"].map(|member| text(call, member)));
    assert!(found.next().is_none(), "{tool} was called more than once");
    who.unwrap_or_default()
}

/// Waits until a metric, which the filter updates now and then, has this value.
pub(crate) async fn counted(rig: &Rig, name: &str, expected: u64) -> anyhow::Result<()> {
    wait::until(LIMIT, name, async || {
        let found = rig.metric(name).await?;
        ensure!(found == expected, "{found} of {expected}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_of_a_client_says_who_is_billed() -> anyhow::Result<()> {
    let issuer = Issuer::start().await?;
    let refused = issuer.ask("acme-bot", "a guess").await?;
    assert_eq!(refused, json!({ "error": "invalid_client" }));
    let rig = rig(&issuer, false, &[product("/mcp")]).await?;
    for client in ["acme-bot", "rival-bot"] {
        let token = issuer.token(client).await?;
        let answer = call(&rig, "/mcp", &token, &[], client).await?;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    let books = calls(&rig, 2).await?;
    assert_eq!(billed(&books, "acme-bot"), ["acme", "research", "acme-bot"]);
    assert_eq!(billed(&books, "rival-bot"), ["rival", "sales", "rival-bot"]);
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_does_not_hold_bills_nobody() -> anyhow::Result<()> {
    let issuer = Issuer::start().await?;
    for may_be_missing in [false, true] {
        let rig = rig(&issuer, may_be_missing, &[product("/mcp")]).await?;
        let with = |name: &str, value: Value| {
            let mut claims = claims("acme-bot");
            claims[name] = value;
            claims
        };
        let mut altered = signed(&claims("rival-bot"));
        let payload = unsigned(&claims("acme-bot"));
        let (head, rest) = altered.split_once('.').unwrap_or_default();
        let (_, signature) = rest.split_once('.').unwrap_or_default();
        let payload = payload.split('.').nth(1).unwrap_or_default();
        altered = format!("{head}.{payload}.{signature}");
        let tokens = [
            ("of another key", forged(&claims("acme-bot"))),
            // Beyond the minute of clock skew that Envoy allows.
            ("expired", signed(&with("exp", json!(now() - 120)))),
            ("not yet valid", signed(&with("nbf", json!(now() + 120)))),
            ("of another issuer", signed(&with("iss", json!("https://elsewhere.test")))),
            ("unsigned", unsigned(&claims("acme-bot"))),
            ("with the claims of another", altered),
            ("no token", "acme".to_owned()),
        ];
        for (name, token) in tokens {
            let answer = call(&rig, "/mcp", &token, &[], name).await?;
            assert_eq!(answer.status(), 401, "{name}, {may_be_missing}: {answer:?}");
        }
        let answer = call(&rig, "/mcp", &signed(&claims("acme-bot")), &[], "sound").await?;
        assert_eq!(answer.status(), 200, "{answer:?}");
        let books = calls(&rig, 1).await?;
        assert_eq!(billed(&books, "sound")[0], "acme");
        assert_eq!(rig.upstream.take_requests().len(), 1);
        rig.finish().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_count_where_they_are_text() -> anyhow::Result<()> {
    let issuer = Issuer::start().await?;
    let source = |path: &str, source: Value| {
        let mut product = product(path);
        product["identity"]["customer"] = source;
        product
    };
    let rows = [
        ("/plain", json!({ "jwt_claim": "customer_id" }), "acme"),
        ("/pointer", json!({ "jwt_claim": "/customer_id" }), "acme"),
        ("/nested", json!({ "jwt_claim": "/act/sub" }), "user of acme"),
        ("/slash", json!({ "jwt_claim": "/urn:a~1b/c~0d" }), "with signs"),
        ("/namespace", json!({ "jwt_claim": "https://acme.example/customer" }), "by a URL"),
        ("/letters", json!({ "jwt_claim": "letters" }), "Zoë & 会社"),
        (
            "/metadata",
            json!({ "metadata": ["envoy.filters.http.jwt_authn", "jwt_payload", "act", "sub"] }),
            "user of acme",
        ),
        ("/element", json!({ "jwt_claim": "/texts/0" }), "acme"),
        ("/list", json!([{ "jwt_claim": "nothing" }, { "jwt_claim": "customer_id" }]), "acme"),
        ("/fallback", json!([{ "jwt_claim": "nothing" }, { "value": "house" }]), "house"),
        ("/eight", json!({ "jwt_claim": "eight" }), "eight888"),
        // What is no text names nobody, and is refused: rows 76 and 77 of the attempts. A number is
        // also if its eight bytes spell "acme-inc".
        ("/spelled", json!({ "jwt_claim": "spelled" }), ""),
        ("/number", json!({ "jwt_claim": "number" }), ""),
        ("/large", json!({ "jwt_claim": "large" }), ""),
        ("/fraction", json!({ "jwt_claim": "fraction" }), ""),
        ("/texts", json!({ "jwt_claim": "texts" }), ""),
        ("/object", json!({ "jwt_claim": "act" }), ""),
        ("/flag", json!({ "jwt_claim": "flag" }), ""),
        ("/null", json!({ "jwt_claim": "null" }), ""),
        ("/blank", json!({ "jwt_claim": "blank" }), ""),
        ("/lines", json!({ "jwt_claim": "lines" }), ""),
        ("/long", json!({ "jwt_claim": "long" }), ""),
        ("/deep", json!({ "jwt_claim": "/customer_id/sub" }), ""),
    ];
    let products: Vec<Value> =
        rows.iter().map(|(path, from, _)| source(path, from.clone())).collect();
    let rig = rig(&issuer, false, &products).await?;
    let mut all = claims("acme-bot");
    for (name, value) in [
        ("act", json!({ "sub": "user of acme" })),
        ("urn:a/b", json!({ "c~d": "with signs" })),
        ("https://acme.example/customer", json!("by a URL")),
        ("letters", json!("Zoë & 会社")),
        ("eight", json!("eight888")),
        ("spelled", json!(9.181_552_096_834_483e170)),
        ("number", json!(4711)),
        ("large", json!(1_234_567_890_123_456_u64)),
        ("fraction", json!(0.1)),
        ("texts", json!(["acme"])),
        ("flag", json!(true)),
        ("null", Value::Null),
        ("blank", json!("  ")),
        ("lines", json!("acme\nrival")),
        ("long", json!("a".repeat(5000))),
    ] {
        all[name] = value;
    }
    let token = signed(&all);
    for (path, _, customer) in &rows {
        let answer = call(&rig, path, &token, &[], path).await?;
        assert_eq!(
            answer.status(),
            if customer.is_empty() { 401 } else { 200 },
            "{path}: {answer:?}"
        );
    }
    let known: Vec<_> = rows.iter().filter(|(.., customer)| !customer.is_empty()).collect();
    let books = calls(&rig, known.len()).await?;
    for (path, _, customer) in known {
        assert_eq!(billed(&books, path)[0], *customer, "{path}");
    }
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_is_refused_or_anonymous() -> anyhow::Result<()> {
    let issuer = Issuer::start().await?;
    let edited = |path: &str, edits: &[(&str, Value)]| {
        let mut product = product(path);
        for (name, value) in edits {
            product["identity"][*name] = value.clone();
        }
        product
    };
    let expected = ("credential", json!("CLIENT_CREDENTIALS"));
    let stripped = ("strip_headers", json!(["x-customer-id", "x-agent-id"]));
    let mut api = edited("/api", &[("on_missing", json!("reject"))]);
    api["type"] = json!("STANDARD_API");
    let products = [
        edited("/reject", &[("on_missing", json!("reject"))]),
        edited("/anonymous", &[stripped, ("on_missing", json!("meter_as_anonymous"))]),
        edited("/count", std::slice::from_ref(&expected)),
        edited("/strict", &[expected, ("on_credential_mismatch", json!("reject"))]),
        api,
    ];
    let rig = rig(&issuer, true, &products).await?;
    let refused = |answer: &Message| {
        assert_eq!(answer.status(), 401, "{answer:?}");
        assert_eq!(answer.header("content-type").as_deref(), Some("application/json"));
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert!(challenge.starts_with("Bearer"), "{challenge}");
        serde_json::from_slice::<Value>(&answer.body).unwrap_or_default()
    };

    let body = refused(&call(&rig, "/reject", "", &[("x-customer-id", "acme")], "none").await?);
    assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &Value::Null), "{body}");
    assert_eq!(body["error"]["code"], -32_005, "{body}");
    assert!(body["error"]["message"].is_string(), "{body}");
    let mut no_customer = claims("acme-bot");
    no_customer["customer_id"] = json!(7);
    refused(&call(&rig, "/reject", &signed(&no_customer), &[], "none").await?);
    let body = refused(&call(&rig, "/api", "", &[], "none").await?);
    assert_eq!(body["error"], "unauthorized", "{body}");
    let mut user = claims("acme-bot");
    user["sub"] = json!("user 7");
    let user = signed(&user);
    refused(&call(&rig, "/strict", &user, &[], "none").await?);
    assert_eq!(rig.upstream.take_requests(), [], "the upstream has seen a request");
    counted(&rig, "requests_rejected", 4).await?;
    counted(&rig, "identity_unusable", 1).await?;
    assert_eq!(rig.metric("credential_mismatch").await?, 0);

    let headers =
        [("X-Customer-Id", "acme"), ("x-agent-id", "a"), ("x-agent-id", "b"), ("x-kept", "1")];
    let answers = [
        call(&rig, "/anonymous", "", &headers, "anonymous").await?,
        call(&rig, "/count", &user, &[], "user").await?,
        call(&rig, "/count", &issuer.token("acme-bot").await?, &[], "client").await?,
        call(&rig, "/strict", &issuer.token("acme-bot").await?, &[], "strict").await?,
        call(&rig, "/reject", &issuer.token("acme-bot").await?, &[], "known").await?,
    ];
    for answer in answers {
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    let seen = rig.upstream.take_requests();
    let kept = seen.iter().find(|request| request.word(1) == "/anonymous");
    let kept = kept
        .map(|request| ["x-customer-id", "x-agent-id", "x-kept"].map(|name| request.header(name)));
    assert_eq!(kept, Some([None, None, Some("1".to_owned())]));
    let books = calls(&rig, 5).await?;
    assert_eq!(billed(&books, "anonymous"), ["anonymous", "anonymous", "anonymous"]);
    let client = ["acme", "research", "acme-bot"];
    for tool in ["user", "client", "strict", "known"] {
        assert_eq!(billed(&books, tool), client, "{tool}");
    }
    let credential = |tool: &str| {
        let mut found = books.tool_invocations().filter(|call| call["tool_name"] == tool);
        found.next().map(|call| text(call, "/credential_type")).unwrap_or_default()
    };
    assert_eq!(credential("user"), "BEARER_TOKEN");
    assert_eq!(credential("client"), "CLIENT_CREDENTIALS");
    assert_eq!(credential("known"), "", "it is told where the product asks for it");
    counted(&rig, "credential_mismatch", 1).await?;
    rig.finish().await
}

/// Names and values.
type Headers<'a> = &'a [(&'a str, &'a str)];

/// Rows 65 to 70 of the attempts, as Envoy hands the headers to the filter.
#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_header_is_refused_and_one_that_envoy_took_out_names_nobody()
-> anyhow::Result<()> {
    let rig = Rig::start(Upstream::start(obliging).await?, crate::plain_plugin()).await?;
    let long = "x".repeat(257);
    let customer = |value: &'static str| ("x-customer-id", value);
    let rows: [(&str, Headers<'_>, u16); 8] = [
        ("66: twice", &[customer("acme"), customer("rival")], 400),
        ("67: an empty first line", &[customer(""), customer("acme")], 400),
        ("67: empty", &[customer("")], 400),
        ("69: too long", &[("x-customer-id", &long)], 400),
        ("71: a name of the filter", &[customer("anonymous")], 400),
        ("68: taken out", &[("connection", "x-customer-id"), customer("acme")], 401),
        (
            "68: taken out, kept alive",
            &[("connection", "keep-alive, X-Customer-Id"), customer("acme")],
            401,
        ),
        ("none", &[], 401),
    ];
    for (name, headers, status) in rows {
        let answer = call(&rig, "/mcp", "", headers, "none").await?;
        assert_eq!(answer.status(), status, "{name}: {answer:?}");
        let body: Value = serde_json::from_slice(&answer.body)?;
        assert_eq!((&body["jsonrpc"], &body["id"]), (&json!("2.0"), &Value::Null), "{body}");
    }
    assert_eq!(rig.upstream.take_requests(), [], "the upstream has seen a request");
    let own = [("65: joined", "acme, rival"), ("70: no width", "acme\u{200b}"), ("plain", "acme")];
    for (tool, customer) in own {
        let answer = call(&rig, "/mcp", "", &[("X-Customer-ID", customer)], tool).await?;
        assert_eq!(answer.status(), 200, "{tool}: {answer:?}");
    }
    let books = calls(&rig, own.len()).await?;
    for (tool, customer) in own {
        assert_eq!(billed(&books, tool)[0], customer, "{tool}");
    }
    counted(&rig, "identity_unusable", 5).await?;
    counted(&rig, "requests_rejected", 8).await?;
    rig.finish().await
}
