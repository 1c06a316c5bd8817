//! One Envoy serves products of all four types at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use agent_meter::stack::{Events, Options};
use agent_meter::wait;
use anyhow::ensure;
use serde_json::{Value, json};

use crate::books::text;
use crate::client::{Client, request};
use crate::identity::{call, plugin, product};
use crate::issuer::Issuer;
use crate::llm::chat;
use crate::streams::lock;
use crate::upstream::{Step, Upstream, json_response, obliging};
use crate::{LIMIT, Rig, release_module};

#[tokio::test(flavor = "multi_thread")]
async fn one_envoy_serves_all_types_of_products() -> anyhow::Result<()> {
    let issuer = Issuer::start().await?;
    let of_type = |path: &str, name: &str| {
        let mut product = product(path);
        product["type"] = json!(name);
        product
    };
    let mut api = of_type("/api", "STANDARD_API");
    api["routes"] = json!(["/api/orders/{id}/items"]);
    let mut agentic = of_type("/agentic", "AGENTIC_API");
    agentic["llm"] = json!({ "provider": "openai" });
    let mut agent = of_type("/agent", "AI_AGENT");
    agent["llm"] = json!({ "provider": "openai" });
    let products = [api, agentic, agent, product("/mcp")];

    // A collector that takes everything.
    let events = Arc::<Mutex<Vec<Value>>>::default();
    let into = Arc::clone(&events);
    let collector = Upstream::start(move |request| {
        let batch: Vec<Value> = serde_json::from_slice(&request.body).unwrap_or_default();
        let answer = json!({ "accepted": batch.len(), "duplicates": 0, "rejected": [] });
        lock(&into).extend(batch);
        vec![Step::Send(json_response(&answer))]
    })
    .await?;
    let upstream = Upstream::start(|request| {
        if request.word(1).starts_with("/mcp") {
            return obliging(request);
        }
        vec![Step::Send(json_response(&chat(100, 10)))]
    })
    .await?;
    let options = Options {
        settings: issuer.settings(false),
        events: Events::At(collector.addr().into()),
        ..Options::new(plugin(&products), Some(release_module()?))
    };
    let rig = Rig::with(upstream, options).await?;
    let token = issuer.token("acme-bot").await?;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let asked = json!({ "model": "gpt-4o", "messages": [] }).to_string();
    for path in
        ["/api/orders/7/items?n=1", "/agentic/v1/chat/completions", "/agent/v1/chat/completions"]
    {
        let request = request("POST", path, &headers, asked.as_bytes());
        let answer = Client::connect(rig.listen()?).await?.exchange(&request).await?;
        assert_eq!(answer.status(), 200, "{path}: {answer:?}");
    }
    assert_eq!(call(&rig, "/mcp", &token, &[], "tool").await?.status(), 200);

    let found = wait::until(LIMIT, "an event of each", async || {
        let told = lock(&events).clone();
        let data = told.into_iter().map(|event| event["data"].clone());
        let found: BTreeMap<(String, String), Value> = data
            .filter(|data| data["metric_id"].is_string())
            .map(|data| ((text(&data, "/product_type"), text(&data, "/event_type")), data))
            .collect();
        ensure!(found.len() >= 5, "{found:?}");
        Ok(found)
    })
    .await?;
    let kinds: Vec<(&str, &str)> =
        found.keys().map(|(product, event)| (product.as_str(), event.as_str())).collect();
    assert_eq!(
        kinds,
        [
            ("AGENTIC_API", "api_call"),
            ("AGENTIC_API", "token_consumption"),
            ("AI_AGENT", "token_consumption"),
            ("MCP_SERVER", "tool_invocation"),
            ("STANDARD_API", "api_call"),
        ]
    );
    for ((product, _), data) in &found {
        let is_app = product.ends_with("_API");
        let (told, absent) = if is_app { ("app_id", "agent_id") } else { ("agent_id", "app_id") };
        assert_eq!(data[told], "acme-bot", "{data}");
        assert!(data[absent].is_null(), "{data}");
        assert_eq!(data["customer_id"], "acme", "{data}");
    }
    let of = |product: &str| &found[&(product.to_owned(), "api_call".to_owned())];
    let api = of("STANDARD_API");
    assert_eq!(api["route"], "/api/orders/{id}/items", "{api}");
    assert_eq!(api["method"], "POST", "{api}");
    assert_eq!(api["request_bytes"], asked.len(), "{api}");
    assert_eq!(api["response_bytes"], chat(100, 10).to_string().len(), "{api}");
    assert_eq!(of("AGENTIC_API")["route"], "/agentic");
    rig.finish().await
}
