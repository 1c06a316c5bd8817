//! Reads CSV after RFC 4180, record by record, whatever its length: values may be quoted, and quoted
//! ones may have line breaks.

use std::io::BufRead;

use anyhow::{bail, ensure};

use crate::bill::input::failed;

/// The longest record that is read, in bytes.
const RECORD_BYTES_MAX: usize = 1024 * 1024;

/// A file of records, the first of which has the names of the columns.
pub(super) struct Csv<R> {
    reader: R,
    header: Vec<String>,
    /// The line on which the record begins, from 1.
    line: u64,
    next_line: u64,
    raw: Vec<u8>,
    record: Record,
}

/// The values of one record.
#[derive(Debug, Default)]
pub(super) struct Record {
    text: Vec<u8>,
    /// Where each value ends.
    ends: Vec<usize>,
}

impl Record {
    /// The value of a column, by its number; empty if there is none.
    pub(super) fn get(&self, at: usize) -> &str {
        let begin = if at == 0 { Some(0) } else { self.ends.get(at - 1).copied() };
        let (Some(begin), Some(&end)) = (begin, self.ends.get(at)) else { return "" };
        // The record was checked when it was read.
        std::str::from_utf8(self.text.get(begin..end).unwrap_or_default()).unwrap_or_default()
    }

    fn values(&self) -> impl Iterator<Item = &str> {
        (0..self.ends.len()).map(|at| self.get(at))
    }
}

impl<R: BufRead> Csv<R> {
    /// Reads the names of the columns.
    pub(super) fn new(reader: R) -> anyhow::Result<Csv<R>> {
        let (raw, record) = (Vec::new(), Record::default());
        let mut csv = Csv { reader, header: Vec::new(), line: 0, next_line: 1, raw, record };
        ensure!(csv.read()?, "line 1: the file is empty");
        csv.header = csv.record.values().map(|name| name.trim().to_owned()).collect();
        Ok(csv)
    }

    pub(super) fn header(&self) -> &[String] {
        &self.header
    }

    /// The line on which the last record begins, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    /// The next record; `None` behind the last one.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<&Record>> {
        loop {
            if !self.read()? {
                return Ok(None);
            }
            let is_empty = self.record.ends.len() == 1 && self.record.text.is_empty();
            if is_empty && self.header.len() > 1 {
                continue;
            }
            let (found, expected) = (self.record.ends.len(), self.header.len());
            ensure!(
                found == expected,
                "line {}: {found} values, but the header has {expected}",
                self.line
            );
            return Ok(Some(&self.record));
        }
    }

    /// Reads a record; `false` behind the last one.
    fn read(&mut self) -> anyhow::Result<bool> {
        self.raw.clear();
        self.line = self.next_line;
        let mut quotes = 0;
        loop {
            let before = self.raw.len();
            let room = (RECORD_BYTES_MAX + 1).saturating_sub(before);
            let mut limited = std::io::Read::take(&mut self.reader, room as u64);
            let read = limited.read_until(b'\n', &mut self.raw).map_err(failed)?;
            ensure!(self.raw.len() <= RECORD_BYTES_MAX, "line {}: longer than 1 MiB", self.line);
            if read == 0 {
                ensure!(before == 0, "line {}: a quote does not end: the file is cut", self.line);
                return Ok(false);
            }
            // A number that lost its last digits still is a number.
            ensure!(
                self.raw.ends_with(b"\n"),
                "line {}: the last line does not end: the file may be cut; if it is whole, add a \
                 line break",
                self.next_line
            );
            self.next_line += 1;
            quotes += self.raw[before..].iter().filter(|byte| **byte == b'"').count();
            if quotes % 2 == 0 {
                break;
            }
        }
        self.raw.pop();
        if self.raw.ends_with(b"\r") {
            self.raw.pop();
        }
        ensure!(std::str::from_utf8(&self.raw).is_ok(), "line {}: no UTF-8", self.line);
        self.split(quotes > 0)?;
        Ok(true)
    }

    /// Cuts the text of a record into its values.
    fn split(&mut self, has_quotes: bool) -> anyhow::Result<()> {
        self.record.text.clear();
        self.record.ends.clear();
        if !has_quotes {
            for value in self.raw.split(|byte| *byte == b',') {
                self.record.text.extend_from_slice(value);
                self.record.ends.push(self.record.text.len());
            }
            return Ok(());
        }
        let mut bytes = self.raw.iter().copied().peekable();
        loop {
            if bytes.next_if_eq(&b'"').is_some() {
                // The quotes are even, so each one that begins a value has one that ends it.
                while let Some(byte) = bytes.next() {
                    match byte {
                        b'"' if bytes.next_if_eq(&b'"').is_none() => break,
                        byte => self.record.text.push(byte),
                    }
                }
            } else {
                while let Some(byte) = bytes.next_if(|byte| *byte != b',') {
                    if byte == b'"' {
                        bail!("line {}: a quote within a value that has none around it", self.line);
                    }
                    self.record.text.push(byte);
                }
            }
            self.record.ends.push(self.record.text.len());
            match bytes.next() {
                None => return Ok(()),
                Some(b',') => {}
                Some(_) => bail!("line {}: text behind a quoted value", self.line),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<(u64, Vec<String>)>, String> {
        let mut csv = Csv::new(text.as_bytes()).map_err(|error| error.to_string())?;
        let mut records = Vec::new();
        loop {
            let record = csv.next().map_err(|error| error.to_string())?;
            let Some(record) = record else { return Ok(records) };
            let values = record.values().map(str::to_owned).collect();
            records.push((csv.line(), values));
        }
    }

    #[test]
    fn records_are_cut_as_the_standard_says() {
        let text = "a,b\r\n1,2\r\n\"x, \"\"y\"\"\",\n\n\"two\nlines\",\"\"\n,z\n";
        let expected: [(u64, [&str; 2]); 4] =
            [(2, ["1", "2"]), (3, ["x, \"y\"", ""]), (5, ["two\nlines", ""]), (7, ["", "z"])];
        let expected = expected.map(|(line, values)| (line, values.map(str::to_owned).to_vec()));
        assert_eq!(all(text), Ok(expected.to_vec()));
    }

    #[test]
    fn what_is_no_csv_is_refused_with_its_line() {
        for (text, expected) in [
            ("", "line 1: the file is empty"),
            ("a,b\n1,2\n1\n", "line 3: 1 values, but the header has 2"),
            ("a,b\n1,2,3\n", "line 2: 3 values, but the header has 2"),
            ("a,b\n1,\"2\n", "line 2: a quote does not end: the file is cut"),
            ("a,b\n1,2\"3\"\n", "line 2: a quote within a value that has none around it"),
            ("a,b\n\"1\"2,3\n", "line 2: text behind a quoted value"),
        ] {
            assert_eq!(all(text), Err(expected.to_owned()), "{text:?}");
        }
        let cut = all("a,b\n1,2\n3,4").expect_err("cut");
        assert!(cut.starts_with("line 3: the last line does not end"), "{cut}");
        let long = format!("a\n{}\n", "x".repeat(RECORD_BYTES_MAX));
        assert_eq!(all(&long), Err("line 2: longer than 1 MiB".to_owned()));
    }
}
