//! The official Python SDK and rmcp, both as client and as server, with and without sessions.

use agent_meter::mcp_client::{Agent, Call, Protocol};
use agent_meter::mcp_server::{Mode, Outcome};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::process::{Server, run_client};
use crate::{Metered, Seen, add, call, seen, tools};

/// Sessions that are played at the same time.
pub(crate) const CLIENTS: usize = 3;

/// A running Python server, with these options, and its port.
pub(crate) async fn server(arguments: &[&str]) -> anyhow::Result<(Server, u16)> {
    let mut command = Command::new(tools::python().await?);
    command.arg(tools::here("server.py")).args(arguments);
    Server::with_port(command).await
}

/// Plays [`CLIENTS`] sessions of the Python client at the same time; returns what they saw
/// together.
pub(crate) async fn clients(
    url: &str,
    arguments: &[&str],
    protocol: &str,
    calls: &[Value],
) -> anyhow::Result<Seen> {
    let mut command = Command::new(tools::python().await?);
    command.arg(tools::here("client.py")).arg(url).args(["--parallel", "3"]);
    command.args(arguments).args([
        "--agents",
        &CLIENTS.to_string(),
        "--calls",
        &json!(calls).to_string(),
    ]);
    let printed = run_client(&mut command).await?;
    ensure!(printed.len() == CLIENTS, "{} of {CLIENTS} clients told what they saw", printed.len());
    let mut together = Seen::new();
    for printed in printed {
        ensure!(printed["protocol"] == protocol, "expected {protocol}, found {printed}");
        add(&mut together, seen(calls, &printed["outcomes"])?);
    }
    Ok(together)
}

/// Every outcome that the Python server has, among calls that take a while.
pub(crate) fn plan() -> Vec<Value> {
    let mut calls = vec![
        call("slow", &json!({ "steps": 5, "step_ms": 20 })),
        call("fail", &json!({ "reason": "no" })),
        call("unknown", &json!({})),
        call("echo", &json!({ "massage": "misspelt" })),
        call("count", &json!({})),
    ];
    calls.extend((0..10).map(|n| call("echo", &json!({ "message": format!("é{n}\n\"\\") }))));
    calls.push(call("slow", &json!({ "steps": 2, "step_ms": 10 })));
    calls
}

/// What so many clients with the [`plan`] make the Python server execute; the unknown and the
/// misspelt call reach no tool.
pub(crate) fn executed(clients: usize) -> Value {
    json!({ "echo": 10 * clients, "slow": 2 * clients, "fail": clients, "count": clients })
}

/// Fails unless so many clients with the [`plan`] saw what the server executed.
pub(crate) fn check_plan(seen: &Seen, clients: usize) -> anyhow::Result<()> {
    let count = |tool: &str, status: &str| seen.get(&(tool.to_owned(), status.to_owned()));
    let clients = u64::try_from(clients)?;
    ensure!(count("echo", "SUCCESS") == Some(&(10 * clients)), "{seen:?}");
    ensure!(count("slow", "SUCCESS") == Some(&(2 * clients)), "{seen:?}");
    ensure!(count("count", "SUCCESS") == Some(&clients), "{seen:?}");
    ensure!(count("fail", "ERROR") == Some(&clients), "{seen:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_with_sessions_on_python_server() -> anyhow::Result<()> {
    let (server, port) = server(&[]).await?;
    let metered = Metered::around(port).await?;
    let seen = clients(&metered.url("/mcp")?, &["--mode", "legacy"], "2025-11-25", &plan()).await?;
    check_plan(&seen, CLIENTS)?;
    let billed = metered.billed(&seen).await?;
    billed.without_strays()?;
    metered.closed_by_client(CLIENTS).await?;
    metered.finish(&seen).await?;
    assert_eq!(server.stop().await?, executed(CLIENTS));
    Ok(())
}

// Row 43 of the table of attacks: Starlette decodes `%6d`.
#[tokio::test(flavor = "multi_thread")]
async fn python_server_is_metered_at_another_spelling_of_its_path() -> anyhow::Result<()> {
    let (server, port) = server(&[]).await?;
    let metered = Metered::around_raw_paths(port).await?;
    let url = metered.url("/%6dcp")?;
    let seen = clients(&url, &["--mode", "legacy"], "2025-11-25", &plan()).await?;
    check_plan(&seen, CLIENTS)?;
    let billed = metered.billed(&seen).await?;
    assert_eq!(billed.metric("requests_unmatched"), 0);
    metered.finish(&seen).await?;
    assert_eq!(server.stop().await?, executed(CLIENTS));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_of_2026_on_python_server() -> anyhow::Result<()> {
    // Once set explicitly, once found by `server/discover`.
    for mode in ["2026-07-28", "auto"] {
        let (server, port) = server(&[]).await?;
        let metered = Metered::around(port).await?;
        let url = metered.url("/mcp")?;
        let seen = clients(&url, &["--mode", mode], "2026-07-28", &plan()).await?;
        check_plan(&seen, CLIENTS)?;
        let billed = metered.billed(&seen).await?;
        billed.without_strays()?;
        let created = billed.books.of_type("session_created").count();
        assert_eq!(created, CLIENTS, "one window of activity for each agent");
        metered.finish(&seen).await?;
        assert_eq!(server.stop().await?, executed(CLIENTS), "{mode}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_on_python_server_over_the_old_transport() -> anyhow::Result<()> {
    let (server, port) = server(&["--transport", "sse"]).await?;
    let metered = Metered::around(port).await?;
    let arguments = ["--transport", "sse", "--mode", "legacy"];
    let seen = clients(&metered.url("/sse")?, &arguments, "2025-11-25", &plan()).await?;
    check_plan(&seen, CLIENTS)?;
    let billed = metered.billed(&seen).await?;
    billed.without_strays()?;
    metered.finish(&seen).await?;
    assert_eq!(server.stop().await?, executed(CLIENTS));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_on_rmcp_server() -> anyhow::Result<()> {
    let calls = [
        call("lookup_customer", &json!({ "customer_id": "c-1" })),
        call("analyze_report", &json!({ "report": "r-1" })),
        call("fail", &json!({ "reason": "no" })),
        call("write_record", &json!({ "rekord": "misspelt" })),
        call("drop_table", &json!({ "table": "t" })),
        call("write_record", &json!({ "record": "w-1" })),
    ];
    for (mode, client_mode, protocol) in [
        (Mode::Sessions, "auto", "2026-07-28"),
        (Mode::Json, "auto", "2026-07-28"),
        (Mode::Sessions, "legacy", "2025-11-25"),
        (Mode::Json, "legacy", "2025-11-25"),
    ] {
        let metered = Metered::around_rmcp(mode).await?;
        let url = metered.url("/mcp")?;
        let seen = clients(&url, &["--mode", client_mode], protocol, &calls)
            .await
            .with_context(|| format!("{mode:?}, {client_mode}"))?;
        let executed = metered.stack().server()?.executed();
        let executed: Seen = executed
            .into_iter()
            .map(|((tool, outcome), count)| ((tool, outcome.to_string()), count))
            .collect();
        assert_eq!(seen, executed, "{mode:?}, {client_mode}");
        let billed =
            metered.billed(&seen).await.with_context(|| format!("{mode:?}, {client_mode}"))?;
        billed.without_strays()?;
        if (mode, client_mode) == (Mode::Sessions, "legacy") {
            metered.closed_by_client(CLIENTS).await?;
        }
        metered.finish(&seen).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rmcp_client_on_python_server() -> anyhow::Result<()> {
    let plan = [
        (Call::new("echo", "message", "hi"), "echo"),
        (Call::new("fail", "reason", "no"), "fail"),
        (Call::new("unknown", "argument", "x"), ""),
        (Call::new("echo", "massage", "misspelt"), ""),
        (Call { tool: "slow".to_owned(), arguments: slow_arguments() }, "slow"),
    ];
    let calls: Vec<Call> = plan.iter().map(|(call, _)| call.clone()).collect();
    for protocol in [Protocol::Sessions, Protocol::Stateless] {
        let (server, port) = server(&[]).await?;
        let metered = Metered::around(port).await?;
        let url = metered.url("/mcp")?;
        let mut seen = Seen::new();
        for agent in 1..=CLIENTS {
            let agent = Agent::new(&url, "acme", &format!("agent-{agent}"));
            let outcomes = Agent { protocol, ..agent }.play(&calls).await?;
            assert_eq!(outcomes[0], Outcome::Success);
            assert_eq!(outcomes[1], Outcome::Error);
            for (call, outcome) in calls.iter().zip(outcomes) {
                *seen.entry((call.tool.clone(), outcome.to_string())).or_default() += 1;
            }
        }
        let billed = metered.billed(&seen).await.with_context(|| format!("{protocol:?}"))?;
        billed.without_strays()?;
        if protocol == Protocol::Sessions {
            metered.closed_by_client(CLIENTS).await?;
        }
        metered.finish(&seen).await?;
        let expected = json!({ "echo": CLIENTS, "fail": CLIENTS, "slow": CLIENTS });
        assert_eq!(server.stop().await?, expected, "{protocol:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn python_client_that_gives_up() -> anyhow::Result<()> {
    let mut left = call("slow", &json!({ "steps": 60, "step_ms": 50 }));
    left["limit_ms"] = json!(1000);
    // The call after it keeps the DELETE from overtaking the client's notification.
    let [before, after] = ["before", "after"].map(|word| call("echo", &json!({ "message": word })));
    let calls = [before, left, after];
    // With sessions the server answers a cancelled call with the error -32800. Over the old
    // transport no response comes: the call is in the ledger when it times out or Envoy stops.
    for (transport, path, mode, protocol, status) in [
        ("streamable-http", "/mcp", "legacy", "2025-11-25", "CANCELLED"),
        ("streamable-http", "/mcp", "auto", "2026-07-28", "CANCELLED"),
        ("sse", "/sse", "legacy", "2025-11-25", "CANCELLED"),
    ] {
        let (server, port) = server(&["--transport", transport]).await?;
        let metered = Metered::around(port).await?;
        let arguments = ["--transport", transport, "--mode", mode, "--parallel", "1"];
        let mut seen = clients(&metered.url(path)?, &arguments, protocol, &calls).await?;
        let given_up = seen.remove(&("slow".to_owned(), "GAVE_UP".to_owned()));
        seen.insert(("slow".to_owned(), status.to_owned()), given_up.unwrap_or_default());
        if transport != "sse" {
            metered.billed(&seen).await.with_context(|| format!("{transport}, {mode}"))?;
        }
        metered.finish(&seen).await.with_context(|| format!("{transport}, {mode}"))?;
        let executed = json!({ "echo": 2 * CLIENTS, "slow": CLIENTS });
        assert_eq!(server.stop().await?, executed, "{transport}, {mode}");
    }
    Ok(())
}

fn slow_arguments() -> serde_json::Map<String, Value> {
    let arguments = json!({ "steps": 3, "step_ms": 20 });
    arguments.as_object().cloned().unwrap_or_default()
}
