//! The golden bodies under `tests/fixtures/llm` through real Envoy, with its own
//! `ai_protocol_manager` behind the filter: the ledger must have what each body reports, whether
//! the filter uses Envoy's reading or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use agent_meter::stack::Options;
use agent_meter::wait;
use agent_meter_core::protocol::llm::provider::Family;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::Client;
use crate::http1::Message;
use crate::llm::{by_agent, generations, head, plugin, post, product};
use crate::metadata::with_ai_protocol_manager;
use crate::upstream::{Step, Upstream, chunk};
use crate::{LIMIT, Rig, release_module};

/// Envoy's filter leaves out what is reported beside input and output, takes a later zero for a
/// count, and adds up the runs of two models: the filter's own counts win.
const DISAGREEMENTS: [&str; 8] = [
    "anthropic.messages_fallback_within",
    "anthropic.streamed_zero_input_in_delta",
    "gemini.openai_compatible_endpoint",
    "openai.chat_hidden_output",
    "openai_compatible.cache_beside_the_prompt",
    "openai_compatible.hidden_output",
    "openai_compatible.reasoning_larger_than_the_completion",
    "openai_compatible.xai_reasoning_beside_completion",
];

/// One body and the expected event.
struct Case {
    provider: String,
    row: Value,
    body: Vec<u8>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/llm")
}

fn cases() -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder())? {
        let path = entry?.path();
        let table = path.join("cases.json");
        if !table.is_file() {
            continue;
        }
        let provider = path.file_name().context("a name")?.to_string_lossy().into_owned();
        for row in serde_json::from_slice::<Vec<Value>>(&fs::read(table)?)? {
            let body = fs::read(path.join(row["file"].as_str().context("a file")?))?;
            cases.push(Case { provider: provider.clone(), row, body });
        }
    }
    cases.sort_by_key(|case| (case.provider.clone(), case.row["name"].to_string()));
    ensure!(cases.len() > 100, "{} cases", cases.len());
    Ok(cases)
}

impl Case {
    fn name(&self) -> String {
        format!("{}.{}", self.provider, self.row["name"].as_str().unwrap_or_default())
    }

    fn text<'a>(&'a self, member: &str) -> &'a str {
        self.row[member].as_str().unwrap_or_default()
    }

    /// True if the body makes a generation with an event.
    fn has_event(&self) -> bool {
        self.row["expect"]["completeness"] != "NONE"
    }

    /// How many runs the response reports beside its own.
    fn further(&self) -> usize {
        self.row["expect"]["further"].as_array().map_or(0, Vec::len)
    }

    /// The body as of now, with an id that no other body has.
    fn body(&self, mode: &str) -> Vec<u8> {
        // For these paths a generation is identified by the response's id and the time of its
        // creation.
        if !["responses", "threads", "runs", "interactions", "predictions", "async"]
            .iter()
            .any(|part| self.text("path").contains(part))
        {
            return self.body.clone();
        }
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let mut pieces = text.split("\"created_at\":");
        let mut fresh = pieces.next().unwrap_or_default().to_owned();
        for piece in pieces {
            let rest = piece.trim_start_matches(|it: char| it == ' ' || it.is_ascii_digit());
            fresh.push_str(&format!("\"created_at\":{now}{rest}"));
        }
        match self.row["expect"]["id"].as_str() {
            Some(id) => {
                fresh.replace(id, &format!("{id}-{}-{mode}", self.text("name"))).into_bytes()
            }
            None => fresh.into_bytes(),
        }
    }

    /// The response; it ends too early if the case says so.
    fn answer(&self, mode: &str) -> Vec<Step> {
        let mut text = format!(
            "HTTP/1.1 {} Told\r\ncontent-type: {}\r\ntransfer-encoding: chunked\r\n",
            self.row["status"],
            self.text("content_type")
        );
        for (name, value) in self.row["response_headers"].as_object().into_iter().flatten() {
            text.push_str(&format!("{name}: {}\r\n", value.as_str().unwrap_or_default()));
        }
        let mut bytes = (text + "\r\n").into_bytes();
        let body = self.body(mode);
        if !body.is_empty() {
            bytes.extend(chunk(&body));
        }
        if self.row["aborted"] == true {
            return vec![Step::Send(bytes), Step::Close];
        }
        bytes.extend(b"0\r\n\r\n");
        vec![Step::Send(bytes)]
    }

    fn request(&self, mode: &str) -> Vec<u8> {
        let (host, agent) =
            (format!("{}.{mode}.test", self.provider), format!("{mode} {}", self.name()));
        if self.text("method") == "GET" {
            let head = head("GET", &host, &agent, self.text("path"), &[]);
            return [head, b"\r\n".into()].concat();
        }
        let body = self.row["request"].to_string();
        post(&host, &agent, self.text("path"), &[], body.as_bytes())
    }
}

/// Sends a request and reads the response until it ends in any way.
async fn ask(listen: SocketAddr, request: Vec<u8>) -> anyhow::Result<()> {
    let mut client = Client::connect(listen).await?;
    client.send(&request).await?;
    client.receive(|_| ()).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_golden_body_is_metered_as_it_reports_with_envoys_reading_or_without()
-> anyhow::Result<()> {
    let cases = cases()?;
    let modes = ["own", "envoy"];
    let answers: BTreeMap<String, Vec<Step>> = cases
        .iter()
        .flat_map(|case| modes.map(|mode| (format!("{mode} {}", case.name()), case.answer(mode))))
        .collect();
    let upstream = Upstream::start(move |request: &Message| {
        let agent = request.header("x-agent-id").unwrap_or_default();
        answers.get(&agent).cloned().unwrap_or_default()
    });
    let providers: BTreeSet<&str> = cases.iter().map(|case| case.provider.as_str()).collect();
    let products: Vec<Value> = providers
        .iter()
        .flat_map(|provider| {
            modes.map(|mode| {
                let llm = json!({ "provider": provider, "envoy_metadata": mode == "envoy",
                    "incomplete_usage": "bill_observed" });
                product(&format!("{provider}.{mode}.test"), &llm)
            })
        })
        .collect();
    let mut settings = with_ai_protocol_manager();
    // Paths of Bedrock name models by ARNs, with encoded slashes.
    let slashes = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/path_with_escaped_slashes_action";
    settings.push((slashes.to_owned(), json!("KEEP_UNCHANGED")));
    let options = Options { settings, ..Options::new(plugin(&products), Some(release_module()?)) };
    let rig = Rig::with(upstream.await?, options).await?;
    let listen = rig.listen()?;
    let mut clients = JoinSet::new();
    for request in cases.iter().flat_map(|case| modes.map(|mode| case.request(mode))) {
        clients.spawn(ask(listen, request));
    }
    while let Some(asked) = clients.join_next().await {
        asked??;
    }

    let total = cases.iter().filter(|case| case.has_event()).count();
    let further: usize = cases.iter().map(Case::further).sum();
    let found = generations(&rig, 2 * (total + further)).await?;
    let (own, further): (Vec<_>, Vec<_>) =
        found.iter().partition(|event| event["purpose"].is_null());
    let found = by_agent(own.into_iter())?;
    let mut by_envoy = 0;
    for case in cases.iter().filter(|case| case.has_event()) {
        let expected = &case.row["expect"];
        for mode in modes {
            let name = format!("{mode} {}", case.name());
            let event = found.get(&name).with_context(|| format!("{name} is not told"))?;
            assert_eq!(event["tokens"], expected["usage"], "{name}: {event}");
            assert_eq!(event["completeness"], expected["completeness"], "{name}: {event}");
            assert_eq!(event["service_tier"], expected["service_tier"], "{name}: {event}");
            if !expected["model"].is_null() {
                assert_eq!(event["model"], expected["model"], "{name}: {event}");
            }
            let is_inconsistent = expected["inconsistent"] == true;
            assert_eq!(event["inconsistent"] == true, is_inconsistent, "{name}: {event}");
            let runs = further.iter().filter(|run| run["agent_id"] == *name);
            let run = |run: &&&Value| json!({ "purpose": run["purpose"], "model": run["model"], "usage": run["tokens"] });
            let runs: Vec<Value> = runs.map(|it| run(&it)).collect();
            let wanted = expected["further"].as_array().cloned().unwrap_or_default();
            assert_eq!(runs, wanted, "{name}");
            if event["usage_source"] == "envoy_metadata" {
                assert_eq!(mode, "envoy", "{event}");
                assert!(!DISAGREEMENTS.contains(&&*case.name()), "{event}");
                by_envoy += 1;
            }
        }
    }
    wait::until(LIMIT, "disagreements are counted", async || {
        let counted = rig.metric("usage_disagreement").await?;
        ensure!(counted == u64::try_from(DISAGREEMENTS.len())?, "{counted} were counted");
        Ok(())
    })
    .await?;
    // The native formats of further sellers, Envoy does not have.
    let is_of_family = |case: &&Case| case.has_event() && Family::named(&case.provider).is_some();
    let known = cases.iter().filter(is_of_family).count();
    println!("Envoy has read {by_envoy} of {known} as the filter has");
    assert!(2 * by_envoy > known, "Envoy has read {by_envoy} of {known} only");
    rig.finish().await
}
