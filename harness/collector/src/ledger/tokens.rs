//! Sums of tokens as columns of a query.

use rusqlite::Row;

use crate::event::tokens::TokenTotals;
use crate::query;

impl TokenTotals {
    /// The columns of a query of generations, to be read with [`TokenTotals::of_row`].
    pub(crate) fn columns() -> String {
        let sums = TokenTotals::KINDS.iter().map(|kind| format!("count_sum({kind}) AS {kind}"));
        sums.collect::<Vec<_>>().join(", ")
    }

    /// Reads the columns by their names.
    pub(crate) fn of_row(row: &Row<'_>) -> rusqlite::Result<TokenTotals> {
        TokenTotals::try_from_counts(|kind| query::count(row, row.as_ref().column_index(kind)?))
    }
}
