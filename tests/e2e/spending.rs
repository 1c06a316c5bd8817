//! Customers that spend: a server of tools and of models, a guard, and the responses to requests
//! while they spend. Every generation costs 1 USD, so that tests can count.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agent_meter::wait;
use anyhow::ensure;
use serde_json::{Value, json};

use crate::books::{Books, text};
use crate::client::{Agent, Client};
use crate::http1::Message;
use crate::llm::{chat, plugin, post, product};
use crate::upstream::{Step, json_response, obliging, rpc_of, success};
use crate::{LIMIT, Rig};

/// A server of tools and of models; each generation has 1,000 tokens.
pub(crate) fn tools_and_models(request: &Message) -> Vec<Step> {
    if request.word(1).starts_with("/v1/") {
        return vec![Step::Send(json_response(&chat(500, 500)))];
    }
    let rpc = rpc_of(request);
    let answer = Step::Send(json_response(&success(&rpc["id"])));
    match rpc["params"]["name"].as_str() {
        Some("slow") => vec![Step::Gate, answer],
        Some(_) => vec![answer],
        None => obliging(request),
    }
}

/// A generation costs 1 USD. A customer may spend 90% of its contract.
pub(crate) fn guarded(contracts: &Value, alert_at: &str) -> Value {
    let mut plugin = plugin(&[product("", &json!({ "provider": "openai" }))]);
    for rate in plugin["rate_cards"][0]["rates"].as_array_mut().into_iter().flatten() {
        if rate["model"] == "gpt-4o" {
            (rate["input"], rate["output"]) = (json!("1000"), json!("1000"));
        }
    }
    plugin["contracts"] = json!({ "customers": contracts });
    plugin["guards"] = json!([{
        "id": "margin",
        "revenue": "contracted",
        "actions": {
            "level_1": { "threshold": alert_at },
            "level_3": { "threshold": "10%", "action": "block_request" },
        },
    }]);
    plugin
}

/// The status of the response to a customer's next generation.
pub(crate) async fn generate(listen: SocketAddr, customer: &str) -> anyhow::Result<u16> {
    let body = json!({ "model": "gpt-4o", "messages": [] }).to_string();
    let path = "/v1/chat/completions";
    let request = post("llm.example", customer, path, &[], body.as_bytes());
    Ok(Client::connect(listen).await?.exchange(&request).await?.status())
}

/// The status of the response to a customer's next tool call; it costs nothing, and repeated calls
/// reach both workers.
pub(crate) async fn call(listen: SocketAddr, customer: &str) -> anyhow::Result<u16> {
    let request = Agent::new(customer).call(1, "t");
    Ok(Client::connect(listen).await?.exchange(&request).await?.status())
}

/// Waits until a customer's calls get this status, ten times in a row.
pub(crate) async fn until_status(rig: &Rig, customer: &str, expected: u16) -> anyhow::Result<()> {
    let listen = rig.listen()?;
    wait::until(LIMIT, &format!("{customer} is answered {expected}"), async || {
        for _ in 0..10 {
            let status = call(listen, customer).await?;
            ensure!(status == expected, "{status}");
        }
        Ok(())
    })
    .await
}

/// Sends requests of a customer all the time, and keeps every status other than the expected one.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    others: tokio::task::JoinHandle<anyhow::Result<(u64, Vec<u16>)>>,
}

impl Watch {
    pub(crate) fn start(listen: SocketAddr, customer: &'static str, expected: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        let others = tokio::spawn(async move {
            let (mut asked, mut others) = (0, Vec::new());
            while !is_over.load(Ordering::Relaxed) {
                let status = call(listen, customer).await?;
                asked += 1;
                others.extend((status != expected).then_some(status));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok((asked, others))
        });
        Self { stop, others }
    }

    /// Stops, and returns how many requests it sent.
    pub(crate) async fn check(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let (asked, others) = self.others.await??;
        ensure!(asked > 10 && others.is_empty(), "asked {asked} times, answered {others:?}");
        Ok(asked)
    }
}

/// The levels of a customer in the books, and why each changed.
pub(crate) fn levels(books: &Books, customer: &str) -> Vec<(String, String)> {
    let of_customer =
        books.of_type("margin_level_changed").filter(|event| event["customer_id"] == customer);
    of_customer.map(|event| (text(event, "/level"), text(event, "/reason"))).collect()
}

pub(crate) fn owned(levels: &[(&str, &str)]) -> Vec<(String, String)> {
    levels.iter().map(|(level, reason)| ((*level).to_owned(), (*reason).to_owned())).collect()
}
