//! A request that passes several filters, or is mirrored to another Envoy, is in the ledger once.

use agent_meter::envoy::Endpoint;
use agent_meter::stack::Options;
use serde_json::{Value, json};

use crate::client::{Client, request};
use crate::identity::{call, calls, counted};
use crate::upstream::{Upstream, obliging};
use crate::{Rig, plain_plugin, release_module};

const LISTENER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const UPSTREAM: &str = "/static_resources/clusters/0";
const CALLS: usize = 6;

fn plugin(already_metered: &Value) -> Value {
    let mut plugin = plain_plugin();
    plugin["already_metered"] = already_metered.clone();
    plugin
}

/// One more filter with this configuration.
fn filter(plugin: &Value) -> anyhow::Result<Value> {
    let mut plugin = plugin.clone();
    plugin["collector"] =
        json!({ "cluster": "agent_meter_collector", "authority": "agent-meter-collector" });
    Ok(json!({
        "name": "agent-meter",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm",
            "config": {
                "name": "agent-meter",
                "vm_config": {
                    "vm_id": "agent-meter",
                    "runtime": "envoy.wasm.runtime.v8",
                    "code": { "local": { "filename": release_module()? } },
                },
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": plugin.to_string(),
                },
            },
        },
    }))
}

/// Puts a second filter into the listener's chain, and a third into the upstream's.
fn three_filters(plugin: &Value) -> anyhow::Result<Vec<(String, Value)>> {
    let codec = json!({
        "name": "envoy.filters.http.upstream_codec",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec",
        },
    });
    let options = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http_protocol_options": {} },
            "http_filters": [filter(plugin)?, codec],
        },
    });
    Ok(vec![
        (format!("{LISTENER}/http_filters/+0"), filter(plugin)?),
        (format!("{UPSTREAM}/typed_extension_protocol_options"), options),
    ])
}

async fn call_all(rig: &Rig, headers: &[(&str, &str)]) -> anyhow::Result<()> {
    for at in 0..CALLS {
        let mut all = vec![("x-customer-id", "acme"), ("x-agent-id", "agent-1")];
        all.extend(headers);
        let answer = call(rig, "/mcp", "", &all, &format!("tool {at}")).await?;
        assert_eq!(answer.status(), 200, "{answer:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_in_one_chain_and_in_the_cluster_count_a_call_once() -> anyhow::Result<()> {
    let plugin = plugin(&json!({ "mark_header": "x-agent-meter" }));
    let settings = three_filters(&plugin)?;
    let options = Options { settings, ..Options::new(plugin, Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    call_all(&rig, &[("x-agent-meter", "forged")]).await?;
    let books = calls(&rig, CALLS).await?;
    let mut marks: Vec<String> = rig
        .upstream
        .take_requests()
        .iter()
        .filter_map(|request| request.header("x-agent-meter"))
        .collect();
    let mut ids: Vec<String> = books
        .tool_invocations()
        .filter_map(|call| Some(call["call_id"].as_str()?.rsplit_once('.')?.0.to_owned()))
        .collect();
    marks.sort();
    ids.sort();
    // The server sees one mark, with which the ids of the calls begin, and not the client's.
    assert_eq!(marks, ids);
    counted(&rig, "requests_already_metered", 2 * CALLS as u64).await?;
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_ledger_of_its_own_is_possible() -> anyhow::Result<()> {
    let plugin = plugin(&json!({ "same_stream": "meter" }));
    let settings = three_filters(&plugin)?;
    let options = Options { settings, ..Options::new(plugin, Some(release_module()?)) };
    let rig = Rig::with(Upstream::start(obliging).await?, options).await?;
    call_all(&rig, &[]).await?;
    calls(&rig, 3 * CALLS).await?;
    rig.finish().await
}

/// Where Envoy mirrors requests to another Envoy, and where it passes them on to one.
async fn two_proxies(
    front: &Value,
    behind: &Value,
    is_mirrored: bool,
) -> anyhow::Result<(Rig, Rig)> {
    let behind = Rig::start(Upstream::start(obliging).await?, plugin(behind)).await?;
    let endpoint: Endpoint = behind.listen()?.into();
    let address = json!({ "socket_address": {
        "address": endpoint.host, "port_value": endpoint.port,
    } });
    let endpoints = json!({
        "cluster_name": "behind",
        "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
    });
    let settings = if is_mirrored {
        let route = "route_config/virtual_hosts/0/routes/0/route";
        let cluster = json!({ "name": "behind", "type": "STATIC", "load_assignment": endpoints });
        vec![
            (
                format!("{LISTENER}/{route}/request_mirror_policies"),
                json!([{ "cluster": "behind" }]),
            ),
            ("/static_resources/clusters/-".to_owned(), cluster),
        ]
    } else {
        vec![(format!("{UPSTREAM}/load_assignment"), endpoints)]
    };
    let options = Options { settings, ..Options::new(plugin(front), Some(release_module()?)) };
    let front = Rig::with(Upstream::start(obliging).await?, options).await?;
    Ok((front, behind))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_through_two_proxies_is_counted_by_the_first() -> anyhow::Result<()> {
    let (marks, trusts) =
        (json!({ "mark_header": "x-agent-meter" }), json!({ "trusted_header": "x-agent-meter" }));
    let peers = json!({ "trusted_header": "x-agent-meter", "trusted_peers": ["spiffe://*"] });
    // The last peer has no certificate, so that its header is believed no more than a client's.
    for (behind, is_counted_twice) in [(&trusts, false), (&json!({}), true), (&peers, true)] {
        let (front, behind) = two_proxies(&marks, behind, false).await?;
        call_all(&front, &[("x-agent-meter", "forged")]).await?;
        calls(&front, CALLS).await?;
        calls(&behind, if is_counted_twice { CALLS } else { 0 }).await?;
        let skipped = if is_counted_twice { 0 } else { CALLS as u64 };
        counted(&behind, "requests_already_metered", skipped).await?;
        front.finish().await?;
        behind.finish().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirrored_call_is_counted_once() -> anyhow::Result<()> {
    let shadow = json!({ "skip_shadow_hosts": true });
    let (front, behind) = two_proxies(&json!({}), &shadow, true).await?;
    call_all(&front, &[]).await?;
    calls(&front, CALLS).await?;
    counted(&behind, "requests_shadowed", CALLS as u64).await?;
    assert_eq!(behind.upstream.requests_len(), CALLS);
    calls(&behind, 0).await?;
    // By default nobody escapes the meter by the name of a host.
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"shadow"}}"#;
    let bytes = request("POST", "/mcp", &[("x-customer-id", "acme")], body.as_bytes());
    let bytes = String::from_utf8(bytes)?.replace("host: tools.example", "host: x-shadow:80");
    let answer = Client::connect(front.listen()?).await?.exchange(bytes.as_bytes()).await?;
    assert_eq!(answer.status(), 200, "{answer:?}");
    calls(&front, CALLS + 1).await?;
    front.finish().await?;
    behind.finish().await
}
