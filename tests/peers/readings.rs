//! Reads the golden bodies of LLM providers a second time, with the providers' own packages and
//! genai-prices.

use std::path::Path;

use anyhow::ensure;
use tokio::process::Command;

use crate::process::run;
use crate::tools;

#[tokio::test]
async fn other_peoples_readers_find_the_same_usage() -> anyhow::Result<()> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/llm");
    let python = tools::python_with("readers-venv", &fixtures.join("requirements.txt")).await?;
    let printed = run(Command::new(python).arg("-B").arg(fixtures.join("check.py"))).await?;
    let last = printed.lines().last().unwrap_or_default();
    ensure!(last.ends_with(" cases, 0 not as explained"), "{printed}");
    Ok(())
}
