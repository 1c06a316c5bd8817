//! One table of a view: the same rows and columns as HTML, CSV and JSON. A column in which all is
//! absent, or zero, is left out.

use maud::{Markup, html};
use rust_decimal::Decimal;
use serde::Serializer;
use serde::ser::SerializeMap;

use crate::csv_file;
use crate::money::known::CostKnown;
use crate::page::amount::{self, Bound};
use crate::page::link::Link;
use crate::page::{Answer, View};
use crate::query::{BadQuery, Parameters};

/// A link of up to so many bytes is not broken.
const SHORT_BYTES_MAX: usize = 20;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(super) struct Column {
    /// In CSV and JSON, and in `sort`.
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) is_number: bool,
}

pub(super) const fn name(key: &'static str, title: &'static str) -> Column {
    Column { key, title, is_number: false }
}

pub(super) const fn number(key: &'static str, title: &'static str) -> Column {
    Column { key, title, is_number: true }
}

/// What a cell has in CSV and JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Absent,
    /// From outside.
    Text(String),
    Count(u64),
    /// Exact.
    Amount(Decimal),
}

/// A cell: its value, and how it is shown.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    value: Value,
    shown: Markup,
}

impl Cell {
    pub(super) fn text(text: &str) -> Cell {
        Cell { value: Value::Text(text.to_owned()), shown: html! { bdi { (text) } } }
    }

    /// A word, an id or a time, which stands on one line.
    pub(super) fn word(word: &str) -> Cell {
        Cell::shown(word, html! { span.short { (word) } })
    }

    /// A text that is shown otherwise, such as a part of it.
    pub(super) fn shown(text: &str, shown: Markup) -> Cell {
        Cell { value: Value::Text(text.to_owned()), shown }
    }

    pub(super) fn link(text: &str, shown: &str, link: &Link) -> Cell {
        // What is short, such as an id, stays on one line.
        let short = (shown.len() <= SHORT_BYTES_MAX).then_some("short");
        Cell::shown(text, html! { a class=[short] href=(link) { bdi { (shown) } } })
    }

    pub(super) fn maybe(text: Option<&str>) -> Cell {
        text.map_or_else(Cell::absent, Cell::text)
    }

    pub(super) fn absent() -> Cell {
        Cell { value: Value::Absent, shown: html! {} }
    }

    pub(super) fn unknown() -> Cell {
        Cell { value: Value::Absent, shown: html! { span.bad { "unknown" } } }
    }

    pub(super) fn count(count: u64) -> Cell {
        Cell { value: Value::Count(count), shown: html! { (amount::count(count)) } }
    }

    /// The same, as something that is wrong.
    pub(super) fn marked(self, is_wrong: bool) -> Cell {
        let Cell { value, shown } = self;
        Cell { value, shown: html! { span.bad[is_wrong] { (shown) } } }
    }

    pub(super) fn duration(ms: Option<u64>) -> Cell {
        ms.map_or_else(Cell::absent, |ms| Cell {
            value: Value::Count(ms),
            shown: html! { (amount::duration(ms)) },
        })
    }

    pub(super) fn money(amount: Decimal, currency: &str, bound: Bound) -> Cell {
        let lost = amount.is_sign_negative() && !amount.is_zero();
        let shown = amount::money(amount, currency, bound);
        let shown = if lost {
            html! { span.bad { (shown) } }
        } else {
            shown
        };
        Cell { value: Value::Amount(amount), shown }
    }

    /// A cost and what is left over it, as far as both are known.
    pub(super) fn cost_and_margin(
        [cost, margin]: [Decimal; 2],
        known: CostKnown,
        currency: &str,
    ) -> [Cell; 2] {
        let [least, most] = amount::bounds(known);
        let cell = |sum, bound| {
            known.told(sum).map_or_else(Cell::unknown, |sum| Cell::money(sum, currency, bound))
        };
        [cell(cost, least), cell(margin, most)]
    }

    fn is_absent(&self) -> bool {
        self.value == Value::Absent && self.shown.0.is_empty()
    }

    fn is_nothing(&self) -> bool {
        match &self.value {
            Value::Absent => self.is_absent(),
            Value::Text(text) => text.is_empty(),
            Value::Count(count) => *count == 0,
            Value::Amount(amount) => amount.is_zero(),
        }
    }
}

/// Rows under columns.
#[derive(Debug)]
pub(super) struct Table {
    /// What it is of, for its caption and the names of files.
    pub(super) title: String,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Without the columns in which all are absent, and those of numbers in which all are zero.
    pub(super) fn new(title: &str, columns: &[Column], rows: Vec<Vec<Cell>>) -> Table {
        let has = |cell: &Cell, is_number: bool| match is_number {
            true => !cell.is_nothing(),
            false => !cell.is_absent(),
        };
        let is_shown = |at: usize, column: &Column| {
            rows.iter().any(|row| row.get(at).is_some_and(|cell| has(cell, column.is_number)))
        };
        let shown: Vec<bool> =
            columns.iter().enumerate().map(|(at, column)| is_shown(at, column)).collect();
        let keep = |at: usize| shown.get(at).copied().unwrap_or(false);
        let columns = columns.iter().enumerate().filter(|(at, _)| keep(*at));
        let columns = columns.map(|(_, column)| *column).collect();
        let cut = |row: Vec<Cell>| {
            let cells = row.into_iter().enumerate().filter(|(at, _)| keep(*at));
            cells.map(|(_, cell)| cell).collect()
        };
        Table { title: title.to_owned(), columns, rows: rows.into_iter().map(cut).collect() }
    }

    /// As HTML. Where the view can be sorted, `sort` has its link, the columns by which it can be,
    /// and the one by which it is, with a `-` before it for the largest first.
    pub(super) fn html(&self, sort: Option<(&Link, &[&str], &str)>) -> Markup {
        if self.rows.is_empty() {
            return html! { p.empty { "Nothing here." } };
        }
        // The roles stay when the style of a small screen makes cards of rows.
        html! {
            div.scroll { table role="table" {
                caption { (self.title) }
                thead role="rowgroup" { tr role="row" {
                    @for column in &self.columns { (head(column, sort)) }
                } }
                tbody role="rowgroup" {
                    @for row in &self.rows {
                        tr role="row" {
                            @for (at, (column, cell)) in self.columns.iter().zip(row).enumerate() {
                                @let class = column.is_number.then_some("number");
                                @if at == 0 {
                                    th role="rowheader" scope="row" class=[class] { (cell.shown) }
                                } @else {
                                    td role="cell" class=[class] data-label=(column.title) { (cell.shown) }
                                }
                            }
                        }
                    }
                }
            } }
        }
    }

    /// As CSV after RFC 4180, amounts with all their digits.
    pub(super) fn csv(&self) -> anyhow::Result<String> {
        let mut writer = csv_file::writer(Vec::new());
        writer.write_record(self.columns.iter().map(|column| column.key))?;
        for row in &self.rows {
            writer.write_record(row.iter().map(|cell| match &cell.value {
                Value::Absent => String::new(),
                Value::Text(text) => csv_file::name(text),
                Value::Count(count) => count.to_string(),
                Value::Amount(amount) => amount.normalize().to_string(),
            }))?;
        }
        csv_file::text(writer)
    }

    /// As a JSON array of objects, amounts as decimal strings.
    pub(super) fn json(&self) -> anyhow::Result<String> {
        let mut out = String::from("[");
        for (at, row) in self.rows.iter().enumerate() {
            out.push_str(if at == 0 { "\n" } else { ",\n" });
            let mut line = Vec::new();
            let mut serializer = serde_json::Serializer::new(&mut line);
            let mut map = serializer.serialize_map(None)?;
            for (Column { key, .. }, cell) in self.columns.iter().zip(row) {
                match &cell.value {
                    Value::Absent => map.serialize_entry(key, &None::<()>)?,
                    Value::Text(text) => map.serialize_entry(key, text)?,
                    Value::Count(count) => map.serialize_entry(key, count)?,
                    Value::Amount(amount) => {
                        map.serialize_entry(key, &amount.normalize().to_string())?;
                    }
                }
            }
            map.end()?;
            out.push_str(&String::from_utf8(line)?);
        }
        out.push_str("\n]\n");
        Ok(out)
    }
}

fn head(column: &Column, sort: Option<(&Link, &[&str], &str)>) -> Markup {
    let class = column.is_number.then_some("number");
    let Some((link, _, by)) = sort.filter(|(_, keys, _)| keys.contains(&column.key)) else {
        return html! { th role="columnheader" scope="col" class=[class] { (column.title) } };
    };
    let (key, is_falling) = by.strip_prefix('-').map_or((by, false), |key| (key, true));
    let is_by_it = key == column.key;
    // The largest number first, the first name first, and the other way round by the next click.
    let falls = if is_by_it { !is_falling } else { column.is_number };
    let order = if is_falling { "descending" } else { "ascending" };
    let next = format!("{}{}", if falls { "-" } else { "" }, column.key);
    html! {
        th role="columnheader" scope="col" class=[class] aria-sort=[is_by_it.then_some(order)] {
            a href=(link.clone().with("sort", next)) {
                (column.title)
                @if is_by_it { span aria-hidden="true" { (if is_falling { " ↓" } else { " ↑" }) } }
            }
        }
    }
}

/// How a view is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Html,
    Csv,
    Json,
}

impl Format {
    pub(super) fn take(parameters: &mut Parameters) -> Result<Format, BadQuery> {
        match parameters.take("format").as_deref() {
            None | Some("html") => Ok(Format::Html),
            Some("csv") => Ok(Format::Csv),
            Some("json") => Ok(Format::Json),
            Some(format) => {
                let message = format!("format: must be html, csv or json, found {format:?}");
                Err(BadQuery::new(message))
            }
        }
    }

    /// The table as a file; `None` if a document is asked for.
    pub(super) fn file(self, table: &Table) -> anyhow::Result<Option<Answer>> {
        Ok(match self {
            Format::Html => None,
            Format::Csv => {
                Some(Answer::Csv(format!("{}.csv", file_name(&table.title)), table.csv()?))
            }
            Format::Json => Some(Answer::Json(table.json()?)),
        })
    }
}

/// A name of letters, digits and hyphens.
fn file_name(title: &str) -> String {
    let letters = title.chars().map(|letter| match letter {
        letter if letter.is_ascii_alphanumeric() => letter.to_ascii_lowercase(),
        _ => '-',
    });
    letters.take(64).collect()
}

/// The links to the same table as files.
pub(super) fn exports(link: &Link) -> Markup {
    let file = |format: &str| link.clone().with("format", format);
    html! {
        p.exports {
            "This table: "
            a href=(file("csv")) download { "CSV" } " "
            a href=(file("json")) { "JSON" }
            @if link.view() == View::Usage { ", with exact amounts" }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_the_same_in_each_format_without_columns_of_zeros() {
        let columns = [
            name("name", "Name"),
            number("calls", "Calls"),
            number("zero", "Zero"),
            number("price", "Price"),
        ];
        let row = |name: &str, calls, price: &str| {
            let price = Cell::money(price.parse().expect("a decimal"), "USD", Bound::Exact);
            vec![Cell::text(name), Cell::count(calls), Cell::count(0), price]
        };
        let rows = vec![row("=<b>", 2, "-0.0010"), row("b\"", 0, "1")];
        let table = Table::new("Of it", &columns, rows);
        assert_eq!(
            table.csv().expect("CSV"),
            "name,calls,price\r\n'=<b>,2,-0.001\r\n\"b\"\"\",0,1\r\n"
        );
        let json = "[\n{\"name\":\"=<b>\",\"calls\":2,\"price\":\"-0.001\"},\n\
            {\"name\":\"b\\\"\",\"calls\":0,\"price\":\"1\"}\n]\n";
        assert_eq!(table.json().expect("JSON"), json);
        let html = table.html(None).into_string();
        assert!(html.contains("=&lt;b&gt;") && !html.contains("<b>") && !html.contains("Zero"));
        assert_eq!(Table::new("Empty", &columns, Vec::new()).json().expect("JSON"), "[\n]\n");
    }
}
