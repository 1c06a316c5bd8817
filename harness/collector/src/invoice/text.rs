//! Documents as text: tables with aligned decimal points, and names that cannot move a terminal's
//! cursor.

use std::fmt;

use rust_decimal::Decimal;

use crate::invoice::sheet::{Block, Part, Sheet, Table, TotalLine};

impl fmt::Display for Sheet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", printable(&self.title))?;
        for (label, value) in &self.head {
            writeln!(f, "{label:<8}  {}", printable(value))?;
        }
        f.write_str("\n")?;
        for part in &self.parts {
            writeln!(f, "{part}")?;
        }
        for TotalLine { label, value, is_sum } in &self.totals {
            if *is_sum {
                writeln!(f, "{label}  {value}")?;
            } else {
                writeln!(f, "  {label:<15}  {value}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", printable(&self.title))?;
        for block in &self.blocks {
            match block {
                Block::Table(table) => write!(f, "{table}")?,
                Block::Fact(label, value) => writeln!(f, "  {label:<15}  {}", printable(value))?,
                Block::Note(text) => writeln!(f, "    {}", printable(text))?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let indent = if let Some(caption) = &self.caption {
            writeln!(f, "    {}", printable(caption))?;
            "      "
        } else {
            "  "
        };
        let head = self.head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let rows = self.rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect());
        let table: Vec<Vec<String>> =
            [head].into_iter().filter(|head| !head.is_empty()).chain(rows).collect();
        write_table(f, indent, &table, self.names)
    }
}

/// Writes a table. The first columns are names, aligned to the left; the others are numbers,
/// aligned to the right.
pub(crate) fn write_table<R: AsRef<[String]>>(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    table: &[R],
    names: usize,
) -> fmt::Result {
    let mut widths: Vec<usize> = Vec::new();
    for row in table {
        for (column, cell) in row.as_ref().iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    for row in table {
        f.write_str(indent)?;
        for (column, (cell, width)) in row.as_ref().iter().zip(widths.iter().copied()).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            if column < names {
                write!(f, "{gap}{cell:<width$}")?;
            } else {
                write!(f, "{gap}{cell:>width$}")?;
            }
        }
        f.write_str("\n")?;
    }
    Ok(())
}

/// The most digits behind the point.
pub(crate) fn scale(amounts: impl Iterator<Item = Decimal>) -> u32 {
    amounts.map(|amount| amount.scale()).max().unwrap_or(0)
}

/// The same amount with zeros added, so that the decimal points of a column align.
pub(crate) fn aligned(amount: Decimal, scale: u32) -> String {
    let mut text = amount.to_string();
    if scale > amount.scale() {
        if amount.scale() == 0 {
            text.push('.');
        }
        text.extend((amount.scale()..scale).map(|_| '0'));
    }
    text
}

/// Characters that turn the direction of what follows, or end a line: a name could look like another.
const TURNING: [char; 15] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}', '\u{202a}', '\u{202b}', '\u{202c}',
    '\u{202d}', '\u{202e}', '\u{2066}', '\u{2067}', '\u{2068}', '\u{2069}', '\u{feff}',
];

/// A name from outside, without characters that could move a terminal's cursor or turn what is read.
pub(crate) fn printable(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_control() || TURNING.contains(&character) {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}
