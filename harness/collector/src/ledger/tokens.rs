//! Sums of tokens as columns of a query.

use crate::event::tokens::TokenTotals;
use crate::sql::{self, Row};

impl TokenTotals {
    /// The columns of a query of generations, to be read with [`TokenTotals::of_row`].
    pub(crate) fn columns() -> String {
        let sums = TokenTotals::KINDS.iter().map(|kind| format!("count_sum({kind}) AS {kind}"));
        sums.collect::<Vec<_>>().join(", ")
    }

    /// Reads the columns by their names.
    pub(crate) fn of_row(row: &Row<'_>) -> sql::Result<TokenTotals> {
        TokenTotals::try_from_counts(|kind| row.get::<_, i64>(kind).map(i64::unsigned_abs))
    }
}
