//! What the filter writes to Envoy's log comes back from it, in each format of that log, and nothing
//! else does: the access log in the same stream is full of strangers' texts. And who sends batches
//! shows that it knows the secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use agent_meter::stack::{Events, Options};
use agent_meter::wait;
use agent_meter_collector::recover::{self, Log, Recovered, Target, recover};
use agent_meter_collector::{Ledger, SharedSecret};
use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::books::Books;
use crate::client::{Agent, Client};
use crate::http1::Message;
use crate::ledgers::new_ledger;
use crate::upstream::{Step, Upstream, obliging, response};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const SECRET: &str = "secret-of-the-fleet";
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const COLLECTOR: &str = "/static_resources/clusters/1";
/// So many tools, with such long names, that the closing event does not fit into a line.
const TOOLS: u64 = 60;

fn plugin(collector: &Value) -> Value {
    let mut plugin = plain_plugin();
    plugin["collector"] = collector.clone();
    plugin
}

/// An Envoy that writes both logs to the same stream, and whose collector is down.
async fn rig(
    application_log: Option<Value>,
    access_log: &Value,
    collector: &Upstream,
) -> anyhow::Result<Rig> {
    let access_log = json!([{
        "name": "envoy.access_loggers.stdout",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
            "log_format": access_log,
        },
    }]);
    let mut settings = vec![(format!("{MANAGER}/access_log"), access_log)];
    let format = application_log.map(|format| json!({ "log_format": { "json_format": format } }));
    settings.extend(format.map(|format| ("/application_log_config".to_owned(), format)));
    let events = Events::At(collector.addr().into());
    let plugin = plugin(&json!({ "secret": SECRET }));
    let options = Options { settings, events, ..Options::new(plugin, Some(release_module()?)) };
    Rig::with(Upstream::start(obliging).await?, options).await
}

/// An event that bills somebody who has never called.
fn forged() -> String {
    json!({
        "specversion": "1.0", "id": "00000000000000000001", "source": "urn:agent-meter:x:1",
        "type": "agent-meter.session_created", "time": "2026-07-01T10:00:00.000Z",
        "subject": "victim", "datacontenttype": "application/json",
        "data": { "event_type": "session_created", "customer_id": "victim" },
    })
    .to_string()
}

/// Texts that look like spilled lines, as far as a header can.
fn attacks() -> Vec<String> {
    let spill = format!("agent-meter spill reason=shutdown event={}", forged());
    let said = format!("wasm log agent-meter: {spill}");
    let at = "source/extensions/common/wasm/context.cc:1154";
    vec![
        format!("[2026-11-27 16:13:35.510][27309][warning][wasm] [{at}] {said}"),
        format!("2026-11-27T16:13:37.821513Z\twarning\tenvoy wasm {at}\t{said}"),
        json!({ "level": "warning", "scope": "envoy wasm", "msg": said }).to_string(),
        format!(
            "2026-11-27T16:13:37.821513000Z stdout F [2026-11-27 16:13:35.510][1][warning][wasm] [{at}] {said}"
        ),
        format!(
            "x\",\"level\":\"warning\",\"scope\":\"envoy wasm\",\"msg\":{}",
            json!(said).to_string().trim_end_matches('"')
        ),
        said,
        spill,
    ]
}

/// Plays, stops Envoy, and recovers its log.
async fn check(application_log: Option<Value>, access_log: Value) -> anyhow::Result<()> {
    let is_up = Arc::new(AtomicBool::new(false));
    let up = Arc::clone(&is_up);
    let collector = Upstream::start(move |_| {
        let is_up = up.load(Ordering::SeqCst);
        let status = if is_up { "204 No Content" } else { "503 Service Unavailable" };
        vec![Step::Send(response(status, &[], b""))]
    })
    .await?;
    let mut rig = rig(application_log, &access_log, &collector).await?;
    let agent = Agent::new("acme");
    let mut client = Client::connect(rig.listen()?).await?;
    let name = |number: u64| format!("tool_{number}_{}", "é\"\\x".repeat(30));
    for number in 0..TOOLS {
        let answer = client.exchange(&agent.call(number, &name(number))).await?;
        ensure!(answer.status() == 200, "{answer:?}");
    }
    let attacks = attacks();
    for (number, attack) in (TOOLS..).zip(&attacks) {
        let answer =
            client.exchange(&agent.with("user-agent", attack).call(number, "lookup")).await?;
        ensure!(answer.status() == 200, "{answer:?}");
    }
    let pid = rig.stack()?.envoy()?.pid().context("Envoy runs")?;
    let sent = std::process::Command::new("kill").args(["-TERM", &pid.to_string()]).status()?;
    ensure!(sent.success(), "kill: {sent}");
    tokio::time::timeout(LIMIT, rig.stack_mut()?.ended()).await.context("Envoy does not stop")?;

    let log = rig.stack()?.dir().join("envoy.log");
    ensure!(rig.log()?.contains("victim"), "the access log is not in the same stream");
    ensure!(rig.log()?.contains(" part=2/"), "no event was long");
    for key in [Some(SharedSecret::unnamed(SECRET)?), None] {
        let is_checked = key.is_some();
        let ledger = Ledger::open(&new_ledger())?;
        let options =
            recover::Options { secrets: key.into_iter().collect(), ..recover::Options::default() };
        let target = Target::Ledger { ledger: ledger.clone(), allows_older: true };
        let found = recover([Log::open(&log)?], &target, &options).await?;
        ensure!(found.is_complete(), "{found:?}");
        assert_eq!(found.foreign.count(), u64::try_from(attacks.len())?, "{found:?}");
        assert_eq!(found.unchecked, if is_checked { 0 } else { found.lines });
        let books = Books::read(&ledger).await?;
        let calls = books.calls();
        assert_eq!(calls.values().sum::<u64>(), TOOLS + u64::try_from(attacks.len())?);
        assert_eq!(books.closed().count(), 1);
        books.check(&ledger).await?;
        let text = format!("{:?}", books.events);
        ensure!(!text.contains("victim"), "{text}");
    }
    let other = Some(SharedSecret::unnamed("secret-of-another-fleet")?);
    let options =
        recover::Options { secrets: other.into_iter().collect(), ..recover::Options::default() };
    let found = recover([Log::open(&log)?], &Target::Nowhere, &options).await?;
    let Recovered { taken, lines, untrusted, .. } = &found;
    ensure!(*taken == 0 && untrusted.count() == *lines && *lines > TOOLS, "{found:?}");
    is_up.store(true, Ordering::SeqCst);
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_log_has_the_filters_lines_and_strangers_texts() -> anyhow::Result<()> {
    let format = "[%START_TIME%] \"%REQ(:METHOD)%\" \"%REQ(USER-AGENT)%\"\n";
    check(None, json!({ "text_format_source": { "inline_string": format } })).await
}

/// Nothing in such an access log is escaped, so strangers can add members.
#[tokio::test(flavor = "multi_thread")]
async fn an_access_log_in_json_that_is_written_as_text_is_left_alone() -> anyhow::Result<()> {
    let format = "{\"method\":\"%REQ(:METHOD)%\",\"agent\":\"%REQ(USER-AGENT)%\"}\n";
    check(None, json!({ "text_format_source": { "inline_string": format } })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn envoys_json_log_has_the_filters_lines_and_strangers_texts() -> anyhow::Result<()> {
    // As Istio's `logAsJson` has it.
    let application = json!({
        "level": "%l", "time": "%Y-%m-%dT%T.%fZ", "scope": "envoy %n", "msg": "%j",
        "caller": "%g:%#", "thread": "%t",
    });
    let access = json!({ "json_format": {
        "method": "%REQ(:METHOD)%", "user_agent": "%REQ(USER-AGENT)%", "start": "%START_TIME%",
    } });
    check(Some(application), access).await
}

/// The collector's headers of each batch, and its body.
async fn batches(collector: Value, settings: Vec<(String, Value)>) -> anyhow::Result<Vec<Message>> {
    let taken = |_: &Message| vec![Step::Send(response("204 No Content", &[], b""))];
    let receiver = Upstream::start(taken).await?;
    let events = Events::At(receiver.addr().into());
    let plugin = plugin(&collector);
    let options = Options { settings, events, ..Options::new(plugin, Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    let agent = Agent::new("acme");
    let answer = Client::connect(rig.listen()?).await?.exchange(&agent.call(1, "lookup")).await?;
    ensure!(answer.status() == 200, "{answer:?}");
    wait::until(LIMIT, "a batch is taken", async || {
        ensure!(rig.metric("events_acked").await? > 0, "none");
        Ok(())
    })
    .await?;
    let requests = receiver.take_requests();
    rig.finish().await?;
    Ok(requests)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_batch_is_signed_with_the_secret() -> anyhow::Result<()> {
    let requests = batches(json!({ "secret": SECRET }), Vec::new()).await?;
    let secret = agent_meter_core::base::secret::Secret::new(SECRET).context("a secret")?;
    for request in &requests {
        let mac = secret.mac(&[b"agent-meter-batch.v1\n", &request.body]);
        let expected = format!("v1={}", agent_meter_core::base::hash::hex(&mac));
        assert_eq!(request.header("agent-meter-signature"), Some(expected), "{request:?}");
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_may_carry_the_secret_as_a_token() -> anyhow::Result<()> {
    let collector = json!({ "secret": SECRET, "authentication": "bearer" });
    for request in batches(collector, Vec::new()).await? {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {SECRET}")));
        assert_eq!(request.header("agent-meter-signature"), None, "{request:?}");
    }
    Ok(())
}

/// The alternative of `envoy/README.md`: Envoy adds the token, and the filter knows no secret.
#[tokio::test(flavor = "multi_thread")]
async fn envoy_can_add_the_token_itself() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("collector-token.yaml");
    let secret = json!({ "resources": [{
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
        "name": "collector-token",
        "generic_secret": { "secret": { "inline_string": format!("Bearer {SECRET}") } },
    }] });
    std::fs::write(&file, secret.to_string())?;
    let readme = include_str!("../../envoy/README.md");
    let shown = readme.split("```yaml\n").find(|block| block.contains("credential_injector"));
    let shown = shown.and_then(|block| block.split("```").next()).context("no example")?;
    let mut options: Value = serde_yaml_ng::from_str(shown)?;
    let options = options["typed_extension_protocol_options"].take();
    let text = options.to_string();
    let placed = text.replace("/etc/agent-meter/collector-token.yaml", &file.display().to_string());
    ensure!(placed != text, "the example names no file");
    let settings = vec![(
        format!("{COLLECTOR}/typed_extension_protocol_options"),
        serde_json::from_str(&placed)?,
    )];
    for request in batches(json!({}), settings).await? {
        assert_eq!(request.header("authorization"), Some(format!("Bearer {SECRET}")));
    }
    Ok(())
}
