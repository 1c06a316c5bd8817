//! What the tests of generations share: products, and requests and responses of large language
//! models, as bytes.

use std::collections::BTreeMap;

use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::Rig;
use crate::books::text;
use crate::plain_plugin;

/// The counts of an event, with zero for those that it lacks: input, output, reasoning, cache read
/// and written.
pub(crate) type Counts = [u64; 5];

/// A product for the requests to one host, or to any host if it is empty; the host is its name.
pub(crate) fn product(host: &str, llm: &Value) -> Value {
    json!({
        "id": if host.is_empty() { "any" } else { host },
        "type": "AI_AGENT",
        "match": { "host": host, "path_prefix": "/" },
        "identity": {
            "customer": { "trusted_header": "x-customer-id" },
            "agent": { "trusted_header": "x-agent-id" },
            "on_missing": "meter_as_anonymous",
        },
        "llm": llm,
        "pricing": { "currency": "USD", "tokens": { "pass_through": true, "markup": "0.2" } },
    })
}

/// The MCP server at `/mcp`, these products behind it, and the prices of the LLM endpoint's models.
pub(crate) fn plugin(products: &[Value]) -> Value {
    let mut plugin = plain_plugin();
    if let Some(list) = plugin["products"].as_array_mut() {
        list.extend_from_slice(products);
    }
    let openai = |provider: &str| {
        [
            json!({ "provider": provider, "model": "gpt-4o", "aliases": ["gpt-4o-2024-08-06"],
                "input": "2.5", "cache_read": "1.25", "output": "10" }),
            json!({ "provider": provider, "model": "gpt-4o-mini", "aliases": ["gpt-4o-mini-2024-07-18"],
                "input": "0.15", "cache_read": "0.075", "output": "0.6" }),
        ]
    };
    let claude = |provider: &str, model: &str| {
        json!({ "provider": provider, "model": model, "input": "3", "cache_read": "0.3",
            "cache_write_5m": "3.75", "output": "15" })
    };
    let mut rates = [openai("openai"), openai("openai_compatible")].concat();
    rates.extend([
        claude("anthropic", "claude-sonnet-4-20250514"),
        claude("bedrock", "anthropic.claude-sonnet-4-*"),
        json!({ "provider": "gemini", "model": "gemini-2.5-flash", "input": "0.3",
            "cache_read": "0.03", "output": "2.5" }),
        json!({ "provider": "ollama", "model": "llama3.2", "input": "0", "output": "0" }),
    ]);
    plugin["rate_cards"] = json!([{ "version": "test", "currency": "USD", "rates": rates }]);
    plugin
}

/// A request to a host for an agent, with its `content-length`.
pub(crate) fn post(
    host: &str,
    agent: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = head("POST", host, agent, path, headers);
    bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
    bytes.extend(body);
    bytes
}

/// The first lines of a request, without the empty one.
pub(crate) fn head(
    method: &str,
    host: &str,
    agent: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Vec<u8> {
    let mut text = format!(
        "{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-customer-id: {agent}\r\nx-agent-id: {agent}\r\n\
         content-type: application/json\r\n"
    );
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.into_bytes()
}

/// One event for each text, each with its blank line.
pub(crate) fn events<T: std::fmt::Display>(data: impl IntoIterator<Item = T>) -> String {
    data.into_iter().map(|data| format!("data: {data}\n\n")).collect()
}

/// A chunk of a chat with this text.
pub(crate) fn chat_chunk(text: &str) -> Value {
    json!({ "id": "c", "object": "chat.completion.chunk", "model": "gpt-4o",
        "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": null }] })
}

/// The chunk with the usage.
pub(crate) fn usage_chunk(input: u64, output: u64) -> Value {
    json!({ "id": "c", "object": "chat.completion.chunk", "model": "gpt-4o", "choices": [],
        "usage": { "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output } })
}

/// A chat completion in one piece.
pub(crate) fn chat(input: u64, output: u64) -> Value {
    json!({ "id": "c", "object": "chat.completion", "model": "gpt-4o",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "All is well." },
            "finish_reason": "stop" }],
        "usage": { "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output } })
}

/// The counts of a generation's event.
pub(crate) fn counts(event: &Value) -> Counts {
    let count = |kind: &str| event["tokens"][kind].as_u64().unwrap_or_default();
    let written = count("cache_write_5m") + count("cache_write_1h");
    [count("input"), count("output"), count("reasoning"), count("cache_read"), written]
}

/// The same from the account of the LLM endpoint.
pub(crate) fn reported(tokens: agent_meter::llm_server::Tokens) -> Counts {
    [tokens.input, tokens.output, tokens.reasoning, tokens.cache_read, tokens.cache_write]
}

/// What a generation cost the operator; an error if the event does not have the cost.
pub(crate) fn cost(event: &Value) -> anyhow::Result<Decimal> {
    Decimal::from_str_exact(&text(event, "/total_provider_cost")).with_context(|| event.to_string())
}

/// The only event of each agent.
pub(crate) fn by_agent<'a>(
    events: impl Iterator<Item = &'a Value>,
) -> anyhow::Result<BTreeMap<String, &'a Value>> {
    let mut found = BTreeMap::new();
    for event in events {
        let earlier = found.insert(text(event, "/agent_id"), event);
        ensure!(earlier.is_none(), "a second event: {event}");
    }
    Ok(found)
}

/// Waits until the ledger has this many generations, checks it, and returns their events.
pub(crate) async fn generations(rig: &Rig, expected: usize) -> anyhow::Result<Vec<Value>> {
    let books = rig
        .settled("all generations are in the ledger", |books| {
            let count = books.generations().count();
            ensure!(count >= expected, "{count} of {expected} generations");
            Ok(())
        })
        .await?;
    books.check(&rig.stack()?.ledger()?).await?;
    let found: Vec<Value> = books.generations().cloned().collect();
    ensure!(found.len() == expected, "{} generations, {expected} expected", found.len());
    Ok(found)
}
