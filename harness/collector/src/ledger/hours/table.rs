//! A table of usage by hour as a list of columns, a column a line.

use rust_decimal::Decimal;

use crate::ledger::hours::hour::hour_of;
use crate::ledger::hours::sums::{Sum, exact, units};
use crate::money;
use crate::sql::postgres::Array;
use crate::sql::{self, FromValue, Value};

/// A column: its name, its type, and what of a row it is made of. Dimensions come before sums.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column(pub(super) &'static str, pub(super) &'static str, pub(super) Of);

/// What of a row of calls or generations a column is made of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Of {
    /// A dimension: the column of this name.
    Same,
    /// A dimension: what one of the calls is charged.
    UnitPrice,
    /// A dimension: the names of the units.
    UnitNames,
    /// A sum: how many rows.
    One,
    /// A sum of this column, with NULL as zero.
    Sum(&'static str),
    /// A sum: how many rows do not have this column.
    Absent(&'static str),
    /// A sum: the quantities of units.
    Units,
}

impl Of {
    fn is_dimension(self) -> bool {
        matches!(self, Of::Same | Of::UnitPrice | Of::UnitNames)
    }
}

/// A table of usage by hour.
#[derive(Debug)]
pub(crate) struct HourTable {
    pub(crate) name: &'static str,
    /// The table whose rows it adds up.
    pub(crate) rows: &'static str,
    /// The columns of that table that it needs, `time_ms` first.
    pub(super) inputs: Vec<&'static str>,
    dimensions: Vec<(Column, Places)>,
    sums: Vec<(Column, Places)>,
    /// Inserts a row or adds to it, in SQLite.
    pub(super) addition: String,
    /// The same for many rows, in PostgreSQL.
    pub(super) bulk_addition: String,
}

/// The places of a column's inputs in the list of all.
type Places = [usize; 2];

/// What one row of calls or generations is in its hour.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) hour_ms: i64,
    pub(super) dimensions: Vec<Value<'a>>,
    pub(super) sums: Vec<Sum>,
}

impl HourTable {
    pub(super) fn new(name: &'static str, rows: &'static str, columns: &[Column]) -> HourTable {
        let mut inputs = vec!["time_ms"];
        let mut place = |name| match inputs.iter().position(|known| *known == name) {
            Some(place) => place,
            None => {
                inputs.push(name);
                inputs.len() - 1
            }
        };
        let placed = columns.iter().map(|column| {
            let places = match column.2 {
                Of::Same => [place(column.0), 0],
                Of::UnitPrice => [place("price"), place("quantity")],
                Of::UnitNames | Of::Units => [place("units"), 0],
                Of::Sum(input) | Of::Absent(input) => [place(input), 0],
                Of::One => [0, 0],
            };
            (*column, places)
        });
        let (dimensions, sums) = placed.partition(|(column, _)| column.2.is_dimension());
        let (addition, bulk_addition) = additions(name, columns);
        HourTable { name, rows, inputs, dimensions, sums, addition, bulk_addition }
    }

    pub(crate) fn schema(&self) -> String {
        let all = self.dimensions.iter().chain(&self.sums);
        let columns = all.map(|(Column(name, sql, _), _)| format!("    {name} {sql},\n"));
        let (name, columns) = (self.name, columns.collect::<String>());
        format!(
            "CREATE TABLE {name} (\n    hour_ms INTEGER NOT NULL,\n    key TEXT NOT NULL,\n{columns}    \
             PRIMARY KEY (hour_ms, key)\n) STRICT, WITHOUT ROWID;
CREATE INDEX {name}_customer ON {name} (customer, hour_ms);\n"
        )
    }

    /// The columns of a row of calls or generations that its hour needs.
    pub(crate) fn stored_columns(&self) -> String {
        self.inputs.join(", ")
    }

    /// The names of the dimensions and of the sums, but for the hour.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.dimensions.iter().chain(&self.sums).map(|(column, _)| column.0)
    }

    pub(super) fn dimension_count(&self) -> usize {
        self.dimensions.len()
    }

    /// The arrays for rows in PostgreSQL, in the order of the insertion.
    pub(super) fn arrays<'a>(&self) -> Vec<Array<'a>> {
        let all = self.dimensions.iter().chain(&self.sums);
        let own = all.map(|(column, _)| Array::of_column(given_type(column.1)));
        [Array::of_column("INTEGER"), Array::of_column("TEXT")].into_iter().chain(own).collect()
    }

    /// What a row is in its hour; `inputs` are its columns in the order of the table's.
    pub(super) fn entry<'a>(&self, inputs: &[Value<'a>]) -> sql::Result<Entry<'a>> {
        let input = |place: usize| inputs.get(place).unwrap_or(&Value::Null);
        let time_ms = i64::from_value(input(0).clone()).unwrap_or_default();
        let dimension = |(column, [first, second]): &(Column, Places)| {
            Ok(match column.2 {
                Of::UnitPrice => {
                    let amount = |place| Decimal::from_value(input(place).clone());
                    let price = amount(*first).unwrap_or_default();
                    let quantity = amount(*second).unwrap_or_default();
                    Value::Decimal(money::unit_price(price, quantity))
                }
                Of::UnitNames => Value::from(units(input(*first))?.names()),
                _ => input(*first).clone(),
            })
        };
        let sum = |(column, [place, _]): &(Column, Places)| {
            let value = input(*place);
            Ok(match column.2 {
                Of::Sum(_) if is_amount(column.1) => Sum::Amount(exact(value)?),
                Of::Sum(_) => Sum::Count(exact(value)?.rounded_count()),
                Of::Absent(_) => Sum::Count((*value == Value::Null).into()),
                Of::Units => Sum::Units(units(value)?),
                _ => Sum::Count(1),
            })
        };
        Ok(Entry {
            hour_ms: hour_of(time_ms),
            dimensions: self.dimensions.iter().map(dimension).collect::<sql::Result<_>>()?,
            sums: self.sums.iter().map(sum).collect::<sql::Result<_>>()?,
        })
    }

    /// The sums of a stored row, whose columns were read as text.
    pub(super) fn stored_sums(&self, values: &[Value<'_>]) -> sql::Result<Vec<Sum>> {
        let sum = |((column, _), value): (&(Column, Places), &Value<'_>)| {
            Ok(match column.2 {
                Of::Units => Sum::Units(units(value)?),
                _ if is_amount(column.1) => Sum::Amount(exact(value)?),
                _ => Sum::Count(exact(value)?.rounded_count()),
            })
        };
        self.sums.iter().zip(values).map(sum).collect()
    }
}

fn is_amount(sql: &str) -> bool {
    sql.starts_with("DECIMAL")
}

/// The type in which a value is given: an amount as text, because a sum may have more digits than an
/// amount.
fn given_type(sql: &str) -> &str {
    if is_amount(sql) { "TEXT" } else { sql }
}

/// The statements that insert a row, or add to it, in SQLite and in PostgreSQL.
fn additions(table: &str, columns: &[Column]) -> (String, String) {
    let names = columns.iter().map(|column| column.0);
    let names = ["hour_ms", "key"].into_iter().chain(names).collect::<Vec<_>>();
    let values = names.iter().map(|_| "?").collect::<Vec<_>>().join(", ");
    let sums = columns.iter().filter(|column| !column.2.is_dimension());
    let sums = sums.map(|Column(name, sql, of)| match of {
        Of::Units => format!("{name} = units_add({table}.{name}, excluded.{name})"),
        _ if is_amount(sql) => format!("{name} = decimal_add({table}.{name}, excluded.{name})"),
        _ => format!("{name} = {table}.{name} + excluded.{name}"),
    });
    let sums = sums.collect::<Vec<_>>().join(", ");
    let on_conflict = format!("ON CONFLICT (hour_ms, key) DO UPDATE SET {sums}");
    let types = columns.iter().map(|column| Array::of_column(given_type(column.1)).type_name());
    let arrays = ["bigint", "text"].into_iter().chain(types).zip(1..);
    let arrays = arrays.map(|(kind, number)| format!("${number}::{kind}[]")).collect::<Vec<_>>();
    let selected = columns.iter().map(|column| match is_amount(column.1) {
        true => format!("{}::numeric", column.0),
        false => column.0.to_owned(),
    });
    let selected = selected.collect::<Vec<_>>().join(", ");
    let (names, arrays) = (names.join(", "), arrays.join(", "));
    (
        format!("INSERT INTO {table} ({names}) VALUES ({values}) {on_conflict}"),
        format!(
            "INSERT INTO {table} ({names}) SELECT hour_ms, key, {selected}
             FROM unnest({arrays}) AS given ({names}) {on_conflict}"
        ),
    )
}
