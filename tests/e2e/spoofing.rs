//! Attempts of one tenant to be billed as another, to move its calls to the other's bill, or to end
//! the other's sessions. Both have valid tokens; nothing that a client can write moves a cent.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter::stack::Options;
use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::books::{Books, text};
use crate::client::{Client, request};
use crate::http1::Message;
use crate::identity::{plugin, product};
use crate::issuer::{Issuer, claims, forged, unsigned};
use crate::upstream::{Upstream, obliging};
use crate::{Rig, release_module};

/// The expected outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It is a call of the customer that made it.
    OwnCall,
    /// It gets this status, and is nobody's call.
    NoCall(u16),
}
use Fate::{NoCall, OwnCall};

/// One attempt: a call of a tool with its name.
#[derive(Debug, Clone)]
struct Attempt {
    name: &'static str,
    method: &'static str,
    path: String,
    /// In the order of sending.
    headers: Vec<(&'static str, String)>,
    /// `params._meta`.
    meta: Value,
    fate: Fate,
}

/// A trace that the victim's own call belongs to.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SESSION: &str = "victims-session";

/// The attempts of a client with this token.
fn attempts(own: &str) -> Vec<Attempt> {
    let plain = |name: &'static str| Attempt {
        name,
        method: "POST",
        path: "/mcp".to_owned(),
        headers: vec![("authorization", format!("Bearer {own}"))],
        meta: Value::Null,
        fate: OwnCall,
    };
    let header = |name, header: &'static str, value: &str| {
        let mut attempt = plain(name);
        attempt.headers.push((header, value.to_owned()));
        attempt
    };
    let two = |name, key: &'static str, values: [&str; 2]| {
        let mut attempt = plain(name);
        attempt.headers.extend(values.map(|value| (key, value.to_owned())));
        attempt
    };
    let path = |name, path: &str| Attempt { path: path.to_owned(), ..plain(name) };
    let meta = |name, meta: Value| Attempt { meta, ..plain(name) };
    let bearer = |name, tokens: &[String], fate| {
        let headers = tokens.iter().map(|token| ("authorization", format!("Bearer {token}")));
        Attempt { headers: headers.collect(), fate, ..plain(name) }
    };
    let victim = claims("acme-bot");
    let (forged, unsigned) = (forged(&victim), unsigned(&victim));
    let payload = forged.split('.').nth(1).unwrap_or_default().to_owned();
    let certificate = "By=spiffe://mesh/ns/a;Hash=0;URI=spiffe://acme/acme-bot";
    vec![
        // Its identity.
        header("the customer as a header", "x-customer-id", "acme"),
        header("the agent as a header", "x-agent-id", "acme-bot"),
        header("the team as a header", "x-team", "research"),
        header("the customer as a header in odd case", "X-CuStOmEr-Id", "acme"),
        two("the customer as a header twice", "x-customer-id", ["rival", "acme"]),
        header("the claim as a header", "customer_id", "acme"),
        header("the claim as a header with a hyphen", "customer-id", "acme"),
        header("the client as a header", "x-client-id", "acme-bot"),
        header("the customer as a cookie", "cookie", "customer_id=acme; client_id=acme-bot"),
        header("the customer as baggage", "baggage", "customer_id=acme,client_id=acme-bot"),
        path("the customer in the query", "/mcp?customer_id=acme&client_id=acme-bot&team=research"),
        path("the customer in the path", "/mcp/acme/acme-bot"),
        meta("the customer in _meta", json!({ "customer_id": "acme", "team": "research" })),
        meta("the agent in _meta", json!({ "agent_id": "acme-bot", "client_id": "acme-bot" })),
        meta(
            "an identity in _meta",
            json!({ "identity": { "customer": "acme" }, "sub": "acme-bot" }),
        ),
        // What Envoy or a mesh would add.
        header("a certificate as a header", "x-forwarded-client-cert", certificate),
        header("claims as a header", "x-jwt-payload", &payload),
        header("claims as Envoy's metadata", "jwt_payload", &payload),
        header("the subject as a header", "x-jwt-claim-customer-id", "acme"),
        header("a peer as Istio tells it", "x-envoy-peer-metadata-id", "acme-bot"),
        header("an internal request", "x-envoy-internal", "true"),
        header("another path for Envoy", "x-envoy-original-path", "/mcp/acme"),
        header("another host", "x-forwarded-host", "acme.test"),
        header("another address", "x-forwarded-for", "10.0.0.1"),
        // Tokens.
        bearer("a forged token", std::slice::from_ref(&forged), NoCall(401)),
        bearer("an unsigned token", &[unsigned], NoCall(401)),
        bearer("a forged token before the own", &[forged.clone(), own.to_owned()], NoCall(401)),
        bearer("a forged token after the own", &[own.to_owned(), forged.clone()], NoCall(401)),
        Attempt {
            fate: NoCall(401),
            ..path("a forged token in the query", &format!("/mcp?access_token={forged}"))
        },
        header("a forged token for a proxy", "proxy-authorization", &format!("Bearer {forged}")),
        header("a forged token in another header", "x-authorization", &format!("Bearer {forged}")),
        // Sessions.
        header("the session of MCP", "mcp-session-id", SESSION),
        header("the session header", "x-session-id", SESSION),
        header("the other session header", "agent-session-id", SESSION),
        header("the session as baggage", "baggage", "session.id=victims-session"),
        meta("the session in _meta", json!({ "session_id": SESSION })),
        Attempt {
            method: "DELETE",
            fate: NoCall(200),
            ..header("deleting the session of MCP", "mcp-session-id", SESSION)
        },
        Attempt {
            path: "/mcp/close".to_owned(),
            fate: NoCall(204),
            ..header("closing the session header", "x-session-id", SESSION)
        },
        Attempt {
            path: "/mcp/close".to_owned(),
            fate: NoCall(204),
            ..header("closing the session of MCP", "mcp-session-id", SESSION)
        },
        // The calls of the victim.
        header("the trace of a call that has ended", "traceparent", TRACE),
        header("usage as the server reports it", "x-usage-input", "1000000"),
        meta("usage in _meta", json!({ "usage": { "input_tokens": 1_000_000 } })),
        Attempt {
            headers: vec![
                ("authorization", format!("Bearer {own}")),
                ("mcp-protocol-version", "2026-07-28".to_owned()),
                ("mcp-method", "tools/call".to_owned()),
                ("mcp-name", "cheap".to_owned()),
            ],
            ..plain("dear: a tool under the name of another")
        },
        Attempt {
            headers: vec![
                ("authorization", format!("Bearer {own}")),
                ("mcp-protocol-version", "2026-07-28".to_owned()),
                ("mcp-method", "tools/list".to_owned()),
            ],
            ..plain("dear: a tool under another method")
        },
    ]
}

async fn send(rig: &Rig, attempt: &Attempt) -> anyhow::Result<Message> {
    let mut body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": attempt.name, "arguments": { "customer_id": "acme" } },
    });
    if attempt.meta.is_object() {
        body["params"]["_meta"] = attempt.meta.clone();
    }
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(attempt.headers.iter().map(|(name, value)| (*name, value.as_str())));
    let body = if attempt.method == "POST" { body.to_string() } else { String::new() };
    let request = request(attempt.method, &attempt.path, &headers, body.as_bytes());
    Client::connect(rig.listen()?).await?.exchange(&request).await
}

/// The victim's own calls; each one's session is named in another way.
fn own_calls(token: &str, name: [&'static str; 5]) -> [Attempt; 5] {
    let call = |name, header: Option<(&'static str, &str)>| {
        let header = header.map(|(name, value)| (name, value.to_owned()));
        Attempt {
            name,
            method: "POST",
            path: "/mcp".to_owned(),
            headers: [
                ("authorization", format!("Bearer {token}")),
                ("traceparent", TRACE.to_owned()),
            ]
            .into_iter()
            .chain(header)
            .collect(),
            meta: Value::Null,
            fate: OwnCall,
        }
    };
    let [by_mcp, by_header, by_second, by_baggage, by_meta] = name;
    [
        call(by_mcp, Some(("mcp-session-id", SESSION))),
        call(by_header, Some(("x-session-id", SESSION))),
        call(by_second, Some(("agent-session-id", SESSION))),
        call(by_baggage, Some(("baggage", "user=1, session.id=victims-session;p=1"))),
        Attempt { meta: json!({ "session_id": SESSION }), ..call(by_meta, None) },
    ]
}

/// Customer and session of the calls, by tool.
fn by_tool(books: &Books) -> BTreeMap<String, (String, String)> {
    let calls = books.tool_invocations();
    calls
        .map(|call| {
            (text(call, "/tool_name"), (text(call, "/customer_id"), text(call, "/session_id")))
        })
        .collect()
}

fn metered() -> Value {
    let mut product = product("/mcp");
    product["session"] = json!({ "close_path": "/mcp/close" });
    product["reported_usage"] = json!({
        "provider": "openai",
        "trusted_headers": { "input": "x-usage-input", "model": "x-usage-model" },
    });
    product["pricing"]["tools"] = json!([{ "tool": "dear: *", "price": "1" }]);
    product
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_client_writes_moves_a_cent() -> anyhow::Result<()> {
    let issuer = Issuer::start().await?;
    let settings = issuer.settings(false);
    let options =
        Options { settings, ..Options::new(plugin(&[metered()]), Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    let (victim, rival) = (issuer.token("acme-bot").await?, issuer.token("rival-bot").await?);
    let before = ["own 1", "own 2", "own 3", "own 4", "own 5"];
    let after = ["own 6", "own 7", "own 8", "own 9", "own 10"];
    for call in own_calls(&victim, before) {
        assert_eq!(send(&rig, &call).await?.status(), 200, "{}", call.name);
    }
    let attempts = attempts(&rival);
    assert!(attempts.len() >= 40, "{}", attempts.len());
    for attempt in &attempts {
        let status = send(&rig, attempt).await?.status();
        let expected = if let NoCall(status) = attempt.fate { status } else { 200 };
        assert_eq!(status, expected, "{}", attempt.name);
    }
    for call in own_calls(&victim, after) {
        assert_eq!(send(&rig, &call).await?.status(), 200, "{}", call.name);
    }

    let own: Vec<_> = attempts.iter().filter(|attempt| attempt.fate == OwnCall).collect();
    let total = before.len() + after.len() + own.len();
    crate::identity::calls(&rig, total).await?;
    // The rival's own two sessions end: the one of MCP by its DELETE, or by the close that comes
    // right after it, since another worker may report either first. A session's end waits for one
    // more reading of all journals.
    let books = rig
        .settled("the rival's two sessions have ended", |books| {
            ensure!(books.closed().count() == 2, "{:?}", books.closed().collect::<Vec<_>>());
            Ok(())
        })
        .await?;
    let calls = by_tool(&books);
    assert_eq!(calls.len(), total, "the calls have names of their own");
    for attempt in own {
        let (customer, _) = calls.get(attempt.name).context(attempt.name)?;
        assert_eq!(customer, "rival", "{}", attempt.name);
    }
    for call in books.tool_invocations() {
        let who = ["customer_id", "team_id", "agent_id"].map(|level| call[level].clone());
        let is_victims = text(call, "/tool_name").starts_with("own ");
        let expected = if is_victims {
            ["acme", "research", "acme-bot"]
        } else {
            ["rival", "sales", "rival-bot"]
        };
        assert_eq!(who, expected, "{call}");
        let is_dear = text(call, "/tool_name").starts_with("dear: ");
        assert_eq!(call["price"], if is_dear { "1" } else { "0.001" }, "{call}");
    }
    // The victim's sessions are its own, one for each way to name it, and continue.
    let sessions_of = |customer: &str| -> BTreeSet<String> {
        let found = calls.values().filter(|(owner, _)| owner == customer);
        found.map(|(_, session)| session.clone()).collect()
    };
    // The two headers are one source of the key: the same value in either is the same session.
    assert_eq!(sessions_of("acme").len(), 4, "{calls:?}");
    assert!(sessions_of("acme").is_disjoint(&sessions_of("rival")), "{calls:?}");
    for (first, second) in before.iter().zip(after) {
        assert_eq!(calls[*first], calls[second], "{first} and {second}");
    }
    for closed in books.closed() {
        assert_eq!(closed["customer_id"], "rival", "{closed}");
        let reason = text(closed, "/close_reason");
        assert!(["client_delete", "closed"].contains(&reason.as_str()), "{closed}");
    }
    assert_eq!(books.generations().count(), 0);
    rig.finish().await
}
