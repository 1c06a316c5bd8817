//! What came of each fault, and the table of it.

use std::fmt::{self, Display};

/// What came of one fault.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Calls whose whole answer a client has seen.
    pub(super) calls: u64,
    /// Those of them that the ledger has as a success.
    pub(super) in_ledger: u64,
    /// Those of them that came from Envoy's log.
    pub(super) recovered: u64,
    /// Those that are missing, from a time for which the collector names their source as silent.
    pub(super) named: u64,
    /// Those that are missing, and nothing says so.
    pub(super) silent_loss: u64,
    /// Calls that the ledger has once more than they were made.
    pub(super) doubles: u64,
    /// What else is wrong with the ledger.
    pub(super) trouble: Option<String>,
}

impl Row {
    /// Whether the row is as it must be.
    pub(super) fn is_good(&self) -> bool {
        let sum = self.in_ledger + self.named + self.silent_loss;
        self.silent_loss == 0
            && self.doubles == 0
            && self.trouble.is_none()
            && self.calls > 0
            && sum == self.calls
    }
}

/// The rows by the names of their faults; an error where a fault could not be played.
#[derive(Debug, Default)]
pub(super) struct Table {
    rows: Vec<(String, anyhow::Result<Row>)>,
}

impl Table {
    pub(super) fn add(&mut self, fault: String, row: anyhow::Result<Row>) {
        self.rows.push((fault, row));
    }

    /// The faults whose rows are not as they must be, and why.
    pub(super) fn bad(&self) -> Vec<String> {
        let bad = self.rows.iter().filter_map(|(fault, row)| match row {
            Ok(row) if row.is_good() => None,
            Ok(row) => Some(format!("{fault}: {row:?}")),
            Err(error) => Some(format!("{fault}: {error:#}")),
        });
        bad.collect()
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widest = self.rows.iter().map(|(fault, _)| fault.len()).max().unwrap_or(0);
        let names = ["calls made", "in the ledger", "recovered", "named missing", "silent loss"];
        write!(f, "\n{:<widest$}", "fault")?;
        for name in names.into_iter().chain(["doubles"]) {
            write!(f, "  {name}")?;
        }
        writeln!(f)?;
        for (fault, row) in &self.rows {
            write!(f, "{fault:<widest$}")?;
            match row {
                Ok(row) => writeln!(
                    f,
                    "  {:>10}  {:>13}  {:>9}  {:>13}  {:>11}  {:>7}",
                    row.calls,
                    row.in_ledger,
                    row.recovered,
                    row.named,
                    row.silent_loss,
                    row.doubles,
                )?,
                Err(_) => writeln!(f, "  was not played to its end")?,
            }
        }
        Ok(())
    }
}
