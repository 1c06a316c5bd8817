//! Envoy's access log tells what the filter counted of a stream, and `agent-meter reconcile` finds
//! what is in the log or the ledger only.

use agent_meter::stack::Options;
use agent_meter_collector::recover::Log;
use anyhow::ensure;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Agent, Client};
use crate::upstream::{Upstream, obliging};
use crate::{Rig, plain_plugin, release_module};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const CALLS: u64 = 12;
/// As `envoy/README.md` shows it.
const README: &str = include_str!("../../envoy/README.md");

/// The members of the log's lines in the README's example.
fn json_format() -> anyhow::Result<Value> {
    let (_, example) = README.split_once("```yaml\naccess_log:\n").expect("an example");
    let (example, _) = example.split_once("```").expect("its end");
    let log: Value = serde_yaml_ng::from_str(example)?;
    Ok(log[0]["typed_config"]["log_format"]["json_format"].clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_access_log_tells_of_the_calls_that_are_in_the_ledger() -> anyhow::Result<()> {
    let dir = TempDir::new()?;
    let path = dir.path().join("access.log");
    let access_log = json!([{
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": { "json_format": json_format()? },
        },
    }]);
    let mut plugin = plain_plugin();
    plugin["correlation"] =
        json!({ "request_id": true, "trace_id": true, "rpc_id": true, "access_log": true });
    let settings = vec![
        (format!("{MANAGER}/access_log"), access_log),
        (format!("{MANAGER}/generate_request_id"), json!(true)),
    ];
    let options = Options { settings, ..Options::new(plugin, Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    for number in 0..CALLS {
        let mut client = Client::connect(rig.listen()?).await?;
        let answer = client.exchange(&Agent::new("agent-0").call(number, "tool")).await?;
        ensure!(answer.status() == 200, "{answer:?}");
    }
    let books = rig
        .settled("the calls are in the ledger", |books| {
            let calls = u64::try_from(books.tool_invocations().count())?;
            ensure!(calls == CALLS, "{calls} calls");
            Ok(())
        })
        .await?;
    for call in books.tool_invocations() {
        let request_id = call["request_id"].as_str().unwrap_or_default();
        ensure!(request_id.len() == 36, "Envoy's own: {call}");
        ensure!(call["rpc_id"].is_string(), "{call}");
    }
    let ledger = rig.stack()?.ledger()?;
    // Envoy writes its log once a second, and when it ends.
    let mut log = String::new();
    for _ in 0..100 {
        log = std::fs::read_to_string(&path)?;
        if log.lines().count() as u64 >= CALLS {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let lines: Vec<Value> = log.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    let first = &lines[0];
    ensure!(first["agent_meter.tool"] == "tool", "{first}");
    ensure!(first["agent_meter.status"] == "SUCCESS", "{first}");

    let compare = |text: &str| {
        let log = Log::new("access.log", std::io::Cursor::new(text.to_owned().into_bytes()))?;
        ledger.compare_access_logs(vec![log])
    };
    let same = compare(&log)?;
    ensure!(same.is_equal() && same.matched == CALLS && same.lines == CALLS, "{same:?}");
    // A line that is missing, one of a call that nobody counted, and another outcome.
    let without: String =
        log.lines().take(2).chain(log.lines().skip(3)).map(|line| format!("{line}\n")).collect();
    let found = compare(&without)?;
    ensure!(found.not_in_log.count == 1 && !found.is_equal(), "{found:?}");
    let call_id = first["agent_meter.call_id"].as_str().unwrap_or_default();
    let found = compare(&format!(
        "{log}{}\n",
        log.lines().next().unwrap_or_default().replace(call_id, "9.9.9.9")
    ))?;
    ensure!(found.not_in_ledger.first == ["9.9.9.9"] && !found.is_equal(), "{found:?}");
    let found = compare(&log.replacen("SUCCESS", "ERROR", 1))?;
    ensure!(found.other_status.count == 1 && !found.is_equal(), "{found:?}");
    rig.finish().await
}
