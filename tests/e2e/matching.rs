//! Spellings of a metered path: whatever reaches the server through real Envoy is in the ledger, with Envoy's path
//! normalisation and without it.

use agent_meter::stack::Options;
use agent_meter::wait;
use anyhow::ensure;
use serde_json::{Value, json};

use crate::client::{Client, request};
use crate::upstream::{Upstream, obliging};
use crate::{LIMIT, Rig, plain_plugin, release_module};

const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
/// Rows 42 to 47 of the table of attacks.
const SPELLINGS: &[&str] = &[
    "/mcp",
    "/MCP",
    "/%6dcp",
    "/%256dcp",
    "//mcp",
    "/./mcp",
    "/x/../mcp",
    "/mcp;a=1",
    "/;/mcp",
    "/mcp%2f",
    "/mcp%3f",
    "/mcp%00",
    "/mcp%5cx/..",
    "/mcp\\..\\mcp",
    "/mcp.",
    "/mcp/",
    "/mcp?x",
    "/mcp/%2e%2e/mcp",
    "/mcp#f",
    "\\mcp",
];

fn settings(is_normalised: bool) -> Vec<(String, Value)> {
    if is_normalised {
        return Vec::new();
    }
    let set = |name: &str, value: Value| (format!("{MANAGER}/{name}"), value);
    vec![
        set("normalize_path", json!(false)),
        set("merge_slashes", json!(false)),
        set("path_with_escaped_slashes_action", json!("KEEP_UNCHANGED")),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reaches_the_server_is_metered_however_its_path_is_written() -> anyhow::Result<()> {
    for is_normalised in [false, true] {
        let upstream = Upstream::start(obliging).await?;
        let settings = settings(is_normalised);
        let options = Options { settings, ..Options::new(plain_plugin(), Some(release_module()?)) };
        let rig = Rig::with(upstream, options).await?;
        let mut executed = 0;
        for (id, path) in SPELLINGS.iter().enumerate() {
            let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
                "params": { "name": format!("t{id}"), "arguments": {} } });
            let headers = [("x-customer-id", "acme"), ("content-type", "application/json")];
            let bytes = request("POST", path, &headers, call.to_string().as_bytes());
            let answer = Client::connect(rig.listen()?).await?.exchange(&bytes).await?;
            let status = answer.status();
            assert!(status == 200 || status == 400, "{path}: {answer:?}");
            let must_pass = ["/mcp", "/MCP", "/%6dcp", "//mcp", "/mcp;a=1", "/mcp.", "/mcp/"];
            assert!(status == 200 || !must_pass.contains(path), "{path}: {answer:?}");
            executed += usize::from(status == 200);
        }
        rig.settled("what was executed is in the ledger", |books| {
            let told = books.of_type("tool_invocation").count();
            ensure!(told == executed, "{told} of {executed} calls");
            Ok(())
        })
        .await?;
        assert_eq!(rig.metric("requests_unmatched").await?, 0);
        rig.finish().await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_product_matches_is_counted_and_refused_where_that_is_asked_for()
-> anyhow::Result<()> {
    for (unmatched, status) in [("pass", 200), ("reject", 403)] {
        let mut plugin = plain_plugin();
        plugin["unmatched"] = json!(unmatched);
        let upstream = Upstream::start(obliging).await?;
        let rig = Rig::start(upstream, plugin).await?;
        let bytes = request("POST", "/other", &[], br#"{"id":1,"method":"ping"}"#);
        let answer = Client::connect(rig.listen()?).await?.exchange(&bytes).await?;
        assert_eq!(answer.status(), status, "{answer:?}");
        wait::until(LIMIT, "the request is counted", async || {
            let unmatched = rig.metric("requests_unmatched").await?;
            ensure!(unmatched == 1, "requests_unmatched is {unmatched}");
            Ok(())
        })
        .await?;
        rig.finish().await?;
    }
    Ok(())
}
