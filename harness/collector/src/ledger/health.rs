//! Tells whether the ledger can be written: it writes a row, as nothing less would tell of a full
//! disk or of a program that holds the file.

use crate::ledger::Ledger;
use crate::sql::values;

impl Ledger {
    /// Writes one row.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be written; events would be refused too.
    pub fn check_writable(&self) -> anyhow::Result<()> {
        let now_ms = self.now_ms();
        self.write(|ledger| {
            ledger
                .prepare_cached(
                    "INSERT INTO health VALUES (1, ?)
                     ON CONFLICT (position) DO UPDATE SET checked_ms = excluded.checked_ms",
                )?
                .execute(values![now_ms])
        })?;
        Ok(())
    }
}
