//! Queries for many rows at once. There are few forms of such a statement, so that it stays prepared.

use crate::sql::Value;

/// Ids or positions that one query asks for.
const LIST_MAX: usize = 128;

/// Queries for many ids of one source: the SQL, which `sql` makes of a list of parameters, and its
/// values, of which the first is the source.
pub(super) fn of_ids<'a>(
    source: &'a str,
    ids: &'a [&'a str],
    sql: impl Fn(&str) -> String,
) -> Vec<(String, Vec<Value<'a>>)> {
    let queries = ids.chunks(LIST_MAX).map(|ids| {
        let size = if ids.len() > 1 { LIST_MAX } else { 1 };
        let list: Vec<String> =
            (2..).take(size).map(|number: usize| format!("?{number}")).collect();
        // A list that is not full repeats its last id.
        let last = ids.last().copied().unwrap_or_default();
        let padded = ids.iter().copied().chain(std::iter::repeat(last)).take(size);
        let values = std::iter::once(source).chain(padded).map(Value::from).collect();
        (sql(&format!("({})", list.join(", "))), values)
    });
    queries.collect()
}

/// The same for many positions.
pub(super) fn of_positions(
    positions: &[i64],
    sql: impl Fn(&str) -> String,
) -> Vec<(String, Vec<Value<'static>>)> {
    let queries = positions.chunks(LIST_MAX).map(|positions| {
        let size = if positions.len() > 1 { LIST_MAX } else { 1 };
        let list: Vec<String> = (1..=size).map(|number| format!("?{number}")).collect();
        let last = positions.last().copied().unwrap_or_default();
        let padded = positions.iter().copied().chain(std::iter::repeat(last)).take(size);
        (sql(&format!("({})", list.join(", "))), padded.map(Value::from).collect())
    });
    queries.collect()
}
