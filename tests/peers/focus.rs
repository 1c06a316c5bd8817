//! The validator of FOCUS itself reads a month that the collector exported: the file with which the
//! collector's own tests compare the export.
//!
//! Of its rules `InvoiceId-C-004-C` and `InvoiceId-C-005-C` the one wants every id to be null and
//! the other none, so one of them fails whatever the file is. No other may.

use std::path::Path;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::process::run;
use crate::tools;

/// What else the exporter can do, beside what every file has to.
const SUPPORTED: &str =
    "USAGE_MEASUREMENT_SUPPORTED,ACCOUNT_NAMING_SUPPORTED,MULTIPLE_PRICING_CATEGORIES_SUPPORTED";

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the validator needs Python 3.12, as python3.12 or $PYTHON_3_12; `make peers` runs it"]
async fn the_validator_of_focus_finds_no_mistake() -> anyhow::Result<()> {
    let python = std::env::var("PYTHON_3_12").unwrap_or_else(|_| "python3.12".to_owned());
    let reason = "focus-validator needs Python 3.12 or newer, as python3.12 or in $PYTHON_3_12";
    let pins = tools::here("requirements-focus.txt");
    let python = tools::python_of(&python, reason, "peers-focus-venv", &pins).await?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = file.join("../harness/collector/tests/export/focus-2026-07.csv").canonicalize()?;
    // It looks for its list of currencies from where it stands.
    let find = "import focus_validator, os; print(os.path.dirname(focus_validator.__path__[0]))";
    let home = run(Command::new(&python).args(["-c", find])).await?;
    let validator = python.with_file_name("focus-validator");
    for supported in ["", SUPPORTED] {
        let mut command = Command::new(&validator);
        command.current_dir(home.trim()).arg("--data-file").arg(&file);
        command.args(["--validate-version", "1.2", "--block-download"]);
        command.args(["--focus-dataset", "CostAndUsage"]);
        if !supported.is_empty() {
            command.args(["--applicability-criteria", supported]);
        }
        let told = run(&mut command).await?;
        let counts = told.lines().find(|line| line.starts_with("Total: "));
        let counts = counts.with_context(|| told.clone())?;
        let failed: Vec<&str> = told.lines().filter(|line| line.contains(": FAIL ")).collect();
        ensure!(
            counts.contains("Fail: 1 ")
                && failed.len() == 1
                && failed[0].contains("InvoiceId-C-004-C"),
            "{counts}\n{}",
            failed.join("\n")
        );
    }
    Ok(())
}
