//! Sellers of models through real Envoy: by a configured name on a path of its own, by host, and at
//! two prices for one model.

use anyhow::Context;
use serde_json::{Value, json};

use crate::Rig;
use crate::client::Client;
use crate::http1::Message;
use crate::llm::{by_agent, generations, plugin, post, product};
use crate::upstream::{SSE_HEAD, Step, Upstream, chunk, json_response};

const MODEL: &str = "gpt-oss-120b";

/// Answers a chat, as a stream if the request says so; without the model if the path names it.
fn answer(request: &Message) -> Vec<Step> {
    let asked: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let model = asked.get("model").cloned().unwrap_or_default();
    let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100 });
    let choice = json!({ "index": 0, "finish_reason": "stop", "delta": {} });
    if asked["stream"] != true {
        let body = json!({ "id": "c", "object": "chat.completion", "model": model,
            "choices": [choice], "usage": usage });
        return vec![Step::Send(json_response(&body))];
    }
    let last = json!({ "id": "c", "object": "chat.completion.chunk", "model": model,
        "choices": [choice], "usage": usage });
    let events = format!("data: {last}\n\ndata: [DONE]\n\n");
    [SSE_HEAD.into(), chunk(events.as_bytes()), b"0\r\n\r\n".into()].map(Step::Send).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sellers_of_one_model_cost_what_each_takes() -> anyhow::Result<()> {
    let rate = |provider: &str, input: &str| json!({ "provider": provider, "model": MODEL, "input": input, "output": "0" });
    let own = json!([{ "path": "/teams/*/{model}/invocations", "as": "chat" }]);
    let mut plugin = plugin(&[
        product("acme.test", &json!({ "provider": "acme", "format": "openai", "paths": own })),
        product(
            "contract.test",
            &json!({ "provider": "acme", "format": "openai", "rate_card": "contract" }),
        ),
        product("", &json!({})),
    ]);
    plugin["rate_cards"] = json!([
        { "version": "list", "rates": [rate("acme", "1"), rate("groq", "2"), rate("openai_compatible", "3")] },
        { "version": "contract", "rates": [rate("acme", "0.5")] },
    ]);
    let rig = Rig::start(Upstream::start(answer).await?, plugin).await?;
    let chat = "/openai/v1/chat/completions";
    let rows = [
        ("acme.test", "/teams/a/gpt-oss-120b/invocations", json!({}), "acme", "0.001"),
        (
            "acme.test",
            "/teams/a/gpt-oss-120b/invocations",
            json!({ "stream": true }),
            "acme",
            "0.001",
        ),
        ("acme.test", chat, json!({ "model": MODEL }), "acme", "0.001"),
        ("contract.test", chat, json!({ "model": MODEL }), "acme", "0.0005"),
        ("api.groq.com", chat, json!({ "model": MODEL, "stream": true }), "groq", "0.002"),
        ("api.cerebras.ai", chat, json!({ "model": MODEL }), "cerebras", "0.003"),
        ("gateway.test", chat, json!({ "model": MODEL }), "openai_compatible", "0.003"),
    ];
    for (at, (host, path, body, ..)) in rows.iter().enumerate() {
        let ask = post(host, &at.to_string(), path, &[], body.to_string().as_bytes());
        let answer = Client::connect(rig.listen()?).await?.exchange(&ask).await?;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    let found = generations(&rig, rows.len()).await?;
    let found = by_agent(found.iter())?;
    for (at, (_, _, _, seller, cost)) in rows.iter().enumerate() {
        let event = found.get(&at.to_string()).context("an event of each")?;
        assert_eq!(event["provider"], *seller, "{event}");
        assert_eq!(event["total_provider_cost"], *cost, "{event}");
        assert_eq!(event["completeness"], "COMPLETE", "{event}");
    }
    rig.finish().await
}
