//! One Envoy serves products of all four types at once.

use std::collections::BTreeMap;

use agent_meter::stack::Options;
use agent_meter_collector::{Dimension, UsageQuery, UsageRow};
use anyhow::ensure;
use serde_json::{Value, json};

use crate::books::text;
use crate::client::{Client, request};
use crate::identity::{call, plugin, product};
use crate::issuer::Issuer;
use crate::llm::chat;
use crate::upstream::{Step, Upstream, json_response, obliging};
use crate::{Rig, release_module};

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
    let mut products = [api, agentic, agent, product("/mcp")];
    for product in &mut products {
        product["identity"]["api_key"] = json!({ "trusted_header": "x-api-key" });
        product["identity"]["api_key_salt"] = json!("a secret of the tests");
    }

    let upstream = Upstream::start(|request| {
        if request.word(1).starts_with("/mcp") {
            return obliging(request);
        }
        vec![Step::Send(json_response(&chat(100, 10)))]
    })
    .await?;
    let options = Options {
        settings: issuer.settings(false),
        ..Options::new(plugin(&products), Some(release_module()?))
    };
    let rig = Rig::with(upstream, options).await?;
    let asked = json!({ "model": "gpt-4o", "messages": [] }).to_string();
    for (agent, times) in CALLERS {
        let token = issuer.token(agent).await?;
        let bearer = format!("Bearer {token}");
        let key = format!("key of {agent}");
        let headers = [
            ("authorization", bearer.as_str()),
            ("content-type", "application/json"),
            ("x-api-key", key.as_str()),
            ("x-session-id", "the same"),
        ];
        for path in [
            "/api/orders/7/items?n=1",
            "/agentic/v1/chat/completions",
            "/agent/v1/chat/completions",
        ] {
            let request = request("POST", path, &headers, asked.as_bytes());
            for _ in 0..times {
                let answer = Client::connect(rig.listen()?).await?.exchange(&request).await?;
                assert_eq!(answer.status(), 200, "{path}: {answer:?}");
            }
        }
        for _ in 0..times {
            let answer = call(&rig, "/mcp", &token, &headers[2..], "tool").await?;
            assert_eq!(answer.status(), 200, "{answer:?}");
        }
    }

    // Four kinds of requests, and a generation in two of them; rival does everything twice.
    let books = rig
        .settled("every call and generation is in the ledger", |books| {
            let present = |event_type: &str| books.of_type(event_type).count();
            ensure!(present("tool_invocation") == 3 && present("api_call") == 6, "calls");
            ensure!(present("token_consumption") == 6, "generations");
            Ok(())
        })
        .await?;
    let events: Vec<Value> = books.events.iter().map(|event| event["data"].clone()).collect();
    let found: BTreeMap<(String, String), Value> = events
        .into_iter()
        .filter(|data| data["metric_id"].is_string() && data["customer_id"] == "acme")
        .map(|data| ((text(&data, "/product_type"), text(&data, "/event_type")), data))
        .collect();
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
        let (present, absent) =
            if is_app { ("app_id", "agent_id") } else { ("agent_id", "app_id") };
        assert_eq!(data[present], "acme-bot", "{data}");
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

    // The ledger's answer at each level: calls, generations, tokens.
    let ledger = rig.stack()?.ledger()?;
    let rows = |dimension: Dimension| -> anyhow::Result<Vec<(String, u64, u64, u64)>> {
        let query = UsageQuery { group_by: vec![dimension], ..UsageQuery::default() };
        let rows = ledger.usage(&query)?.rows.into_iter();
        let row = |row: UsageRow| {
            let name = row.dimensions[0].1.clone();
            (name, row.calls, row.generations, row.tokens.input + row.tokens.output)
        };
        Ok(rows.map(row).collect())
    };
    let named =
        |acme: &str, rival: &str| vec![(acme.to_owned(), 3, 2, 220), (rival.to_owned(), 6, 4, 440)];
    assert_eq!(rows(Dimension::Customer)?, named("acme", "rival"));
    assert_eq!(rows(Dimension::Team)?, named("research", "sales"));
    assert_eq!(rows(Dimension::Agent)?, named("acme-bot", "rival-bot"));
    let unnamed = |dimension| -> anyhow::Result<Vec<(u64, u64, u64)>> {
        let mut rows: Vec<_> = rows(dimension)?.into_iter().map(|(_, a, b, c)| (a, b, c)).collect();
        rows.sort_unstable();
        Ok(rows)
    };
    assert_eq!(unnamed(Dimension::Key)?, [(3, 2, 220), (6, 4, 440)]);
    // One session for each product and caller, although all requests have the same session id.
    let of_agent = |times| {
        [(0, times, times * 110), (times, 0, 0), (times, 0, 0), (times, times, times * 110)]
    };
    let mut sessions = [of_agent(1), of_agent(2)].concat();
    sessions.sort_unstable();
    assert_eq!(unnamed(Dimension::Session)?, sessions);
    assert_eq!(
        rows(Dimension::Tool)?,
        [
            ("POST /agentic".to_owned(), 3, 3, 330),
            ("POST /api/orders/{id}/items".to_owned(), 3, 0, 0),
            ("__unattributed__".to_owned(), 0, 3, 330),
            ("tool".to_owned(), 3, 0, 0),
        ]
    );
    assert_eq!(
        rows(Dimension::Model)?,
        [("__none__".to_owned(), 9, 0, 0), ("gpt-4o".to_owned(), 0, 6, 660)]
    );
    assert_eq!(
        rows(Dimension::ProductType)?,
        [
            ("AGENTIC_API".to_owned(), 3, 3, 330),
            ("AI_AGENT".to_owned(), 0, 3, 330),
            ("MCP_SERVER".to_owned(), 3, 0, 0),
            ("STANDARD_API".to_owned(), 3, 0, 0),
        ]
    );
    books.check(&ledger).await?;
    rig.finish().await
}

/// Who calls, and how often.
const CALLERS: [(&str, u64); 2] = [("acme-bot", 1), ("rival-bot", 2)];
