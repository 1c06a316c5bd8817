//! Real receivers of what the collector hands over: ClickHouse itself keeps the rows, and replaces
//! those that are superseded or come twice; a collector of OpenTelemetry reads the logs and the
//! metrics. They get the golden requests, which the collector's own tests compare with what sinks
//! send.

use std::path::Path;

use agent_meter_collector::CLICKHOUSE_SCHEMA;
use anyhow::ensure;
use tokio::process::Command;

use crate::process::run;
use crate::tools;

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_and_opentelemetry_take_what_sinks_send() -> anyhow::Result<()> {
    let pins = tools::here("requirements-sinks.txt");
    let python = tools::python_with("peers-sinks-venv", &pins).await?;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = golden.join("../harness/collector/tests/handover/golden");
    let mut command = Command::new(python);
    command.arg(tools::here("sinks.py")).arg(golden).arg(CLICKHOUSE_SCHEMA);
    let told = run(&mut command).await?;
    ensure!(told.contains("3 receivers took all"), "{told}");
    Ok(())
}
