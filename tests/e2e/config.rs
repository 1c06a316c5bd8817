//! Configurations as Envoy passes them to the filter: the filter accepts them, or refuses them with
//! one line that names the place.

use std::net::SocketAddr;
use std::path::Path;

use agent_meter::envoy::{self, Bootstrap};
use agent_meter::stack::ANY_PORT;
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Agent, Client};
use crate::upstream::{Upstream, obliging};
use crate::{Rig, plain_plugin, release_module};

/// The place of the filter's configuration in `envoy/envoy.yaml`.
const CONFIGURATION: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config\
    /http_filters/0/typed_config/config/configuration";
const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";
const REFUSED: &str = "agent-meter configuration refused: ";

/// A valid configuration with one place changed; `null` removes the member.
fn changed(pointer: &str, value: Value) -> Value {
    let mut plugin = plain_plugin();
    let (parent, member) = pointer.rsplit_once('/').expect("a pointer");
    match plugin.pointer_mut(parent).expect("the place is there") {
        Value::Array(list) => list.push(value),
        Value::Object(object) if value.is_null() => drop(object.remove(member)),
        parent => parent[member] = value,
    }
    plugin
}

fn refusals() -> Vec<(Value, &'static str)> {
    let product = &plain_plugin()["products"][0];
    let price = "/products/0/pricing/default/price";
    vec![
        (
            changed("/products/0/pricing/default/prize", json!("1")),
            "products[0].pricing.default.prize: unknown field `prize`, expected `price` or `cost_tier`",
        ),
        (
            changed("/sessions_max", json!("many")),
            "sessions_max: invalid type: string \"many\", expected u32",
        ),
        (
            changed(price, json!("-1")),
            "products[0].pricing.default.price: invalid value: string \"-1\", expected a decimal string from 0 to below 1000000000000 with at most 12 places, such as \"0.05\"",
        ),
        (
            changed(price, json!(0.05)),
            "products[0].pricing.default.price: invalid type: floating point `0.05`, expected a decimal string from 0 to below 1000000000000 with at most 12 places, such as \"0.05\"",
        ),
        (
            changed("/products/-", product.clone()),
            "products[1].id: expected an id that no other product has, found \"mcp\" again",
        ),
        (
            changed("/products/0/session/idle_timeout", json!("1 minute")),
            "products[0].session.idle_timeout: invalid value: string \"1 minute\", expected a duration such as \"250ms\", \"60s\", \"5m\" or \"1h\", at most a year",
        ),
        (
            changed("/products/0/session/session_timeout", json!("1s")),
            "products[0].session.session_timeout: expected at least `idle_timeout`",
        ),
        (changed("/products", json!([])), "products: expected at least one product, found none"),
        (changed("/products", Value::Null), "missing field `products`"),
        (
            changed("/products/0/match/path", json!("mcp")),
            "products[0].match.path: expected a path that starts with `/`, found \"mcp\"",
        ),
        (
            changed("/products/0/pricing/currency", json!("usd")),
            "products[0].pricing.currency: expected an ISO 4217 code such as \"USD\", found \"usd\"",
        ),
        (
            changed("/products/0/pricing/billable_statuses", json!(["DONE"])),
            "products[0].pricing.billable_statuses[0]: unknown variant `DONE`, expected one of `SUCCESS`, `ERROR`, `VALIDATION_FAILED`, `BLOCKED`, `PAYMENT_REQUIRED`, `TIMEOUT`, `CANCELLED`, `HITL_REQUIRED`, `PENDING`, `UNKNOWN`",
        ),
        (
            changed("/products/0/identity/customer", json!({ "trusted_header": "X-Customer-Id" })),
            "products[0].identity.customer.trusted_header: expected a header name in lower case, found \"X-Customer-Id\"",
        ),
        (
            changed("/delivery/batch_events_max", json!(0)),
            "delivery.batch_events_max: expected 1 to 1000, found 0",
        ),
    ]
}

/// A bootstrap with this plugin configuration, whose upstream and collector do not exist.
pub(crate) fn bootstrap_to_nowhere(
    plugin: Value,
    settings: Vec<(String, Value)>,
) -> anyhow::Result<Bootstrap> {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 9));
    Ok(Bootstrap {
        node_id: "config-test".to_owned(),
        listen: ANY_PORT,
        admin: ANY_PORT,
        upstream: nowhere.into(),
        collector: nowhere.into(),
        wasm: Some(release_module()?),
        plugin,
        settings,
    })
}

/// Runs `envoy --mode validate`; returns whether Envoy accepts the bootstrap, and Envoy's log.
async fn validate(settings: Vec<(String, Value)>, plugin: Value) -> anyhow::Result<(bool, String)> {
    let dir = tempfile::tempdir()?;
    let bootstrap = bootstrap_to_nowhere(plugin, settings)?;
    let valid = envoy::validate(&envoy::find().await?, &bootstrap, dir.path()).await;
    Ok((valid.is_ok(), read_log(dir.path())?))
}

fn read_log(dir: &Path) -> anyhow::Result<String> {
    let log = std::fs::read(dir.join("validate.log")).context("Envoy has left no log")?;
    Ok(String::from_utf8_lossy(&log).into_owned())
}

/// The configuration as a `Struct`, the form in most files.
fn as_struct(plugin: &Value) -> Vec<(String, Value)> {
    vec![(CONFIGURATION.to_owned(), json!({ "@type": STRUCT, "value": plugin }))]
}

async fn check_refusal(plugin: Value, expected: &str) -> anyhow::Result<()> {
    let (passed, log) = validate(Vec::new(), plugin.clone()).await?;
    ensure!(!passed, "{plugin} was taken; expected {expected}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("wasm log")).collect();
    let [line] = lines[..] else { anyhow::bail!("expected one line, found {lines:#?}") };
    let said = line.split_once(REFUSED).with_context(|| line.to_owned())?.1;
    ensure!(said == expected, "{plugin}:\n  expected {expected}\n  found    {said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_configuration_is_refused_with_one_line_that_names_the_place() -> anyhow::Result<()>
{
    // Runs as many Envoys at once as a machine surely has processors.
    for rows in refusals().chunks(2) {
        let mut checks = JoinSet::new();
        for (plugin, expected) in rows {
            let (plugin, expected) = (plugin.clone(), *expected);
            checks.spawn(async move { check_refusal(plugin, expected).await });
        }
        while let Some(check) = checks.join_next().await {
            check??;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_configuration_passes_as_a_struct_and_as_a_string() -> anyhow::Result<()> {
    for settings in [Vec::new(), as_struct(&plain_plugin())] {
        let (passed, log) = validate(settings.clone(), plain_plugin()).await?;
        ensure!(passed, "{settings:?} was refused:\n{log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_struct_is_read_as_the_same_configuration() -> anyhow::Result<()> {
    let mut plugin = plain_plugin();
    plugin["products"][0]["pricing"]["default"]["price"] = json!("0.0125");
    // The harness delivers to a place in the configuration that this test replaces.
    let options = agent_meter::stack::Options {
        settings: as_struct(&plugin),
        ..agent_meter::stack::Options::new(plain_plugin(), Some(release_module()?))
    };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    Client::connect(rig.listen()?).await?.exchange(&Agent::new("a").call(1, "t")).await?;
    let books = rig
        .settled("the call is billed", |books| {
            ensure!(books.tool_invocations().count() == 1, "not yet");
            Ok(())
        })
        .await?;
    assert_eq!(books.tool_invocations().next().map(|call| &call["price"]), Some(&json!("0.0125")));
    rig.finish().await
}
