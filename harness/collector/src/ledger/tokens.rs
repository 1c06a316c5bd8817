//! Sums of tokens as columns of a query.

use rusqlite::Row;

use crate::event::totals::TokenTotals;
use crate::query::count;

impl TokenTotals {
    /// The columns of a query of generations, to be read with [`TokenTotals::read`].
    pub(crate) const COLUMNS: &str = "coalesce(sum(input), 0), coalesce(sum(output), 0), \
         coalesce(sum(reasoning), 0), coalesce(sum(cache_read), 0), coalesce(sum(cache_write), 0)";

    /// Reads five columns from `first` on.
    pub(crate) fn read(row: &Row<'_>, first: usize) -> rusqlite::Result<TokenTotals> {
        let column = |index: usize| count(row, first + index);
        Ok(TokenTotals {
            input: column(0)?,
            output: column(1)?,
            reasoning: column(2)?,
            cache_read: column(3)?,
            cache_write: column(4)?,
        })
    }
}
