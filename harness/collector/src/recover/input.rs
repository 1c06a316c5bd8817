//! Opens logs, as they are or compressed with gzip, and reads them line by line.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

use crate::gzip;

/// The most bytes of a line that are looked at. A spilled line is far below.
pub(super) const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// A log to read.
pub struct Log {
    name: Arc<str>,
    reader: Box<dyn BufRead + Send>,
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Log({})", self.name)
    }
}

impl Log {
    /// Opens a file; `-` is stdin.
    ///
    /// # Errors
    ///
    /// If the file cannot be read.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        if path == Path::new("-") {
            return Self::new("stdin", io::stdin());
        }
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
        Self::new(&name, file).with_context(|| format!("cannot read {name}"))
    }

    /// Reads a log from anywhere; `name` stands for it in messages.
    ///
    /// # Errors
    ///
    /// If its first bytes cannot be read.
    pub fn new(name: &str, from: impl Read + Send + 'static) -> anyhow::Result<Self> {
        Ok(Self { name: name.into(), reader: gzip::plain(from)? })
    }

    pub(crate) fn name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// The next line without its end, or `None` at the end of the log. Of a line that is too long
    /// it gives the beginning.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        read_line(&mut self.reader).map(|line| line.map(|line| line.text))
    }
}

/// A line, or what there is of a last one.
#[derive(Debug)]
pub(super) struct RawLine {
    /// Its text without the line feed; of a line that is too long, the beginning.
    pub(super) text: Vec<u8>,
    /// How many bytes it took in the log.
    pub(super) length: u64,
    /// Whether a line feed ended it.
    pub(super) is_ended: bool,
}

pub(super) fn read_line(reader: &mut impl BufRead) -> io::Result<Option<RawLine>> {
    let mut text = Vec::new();
    let read = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut text)?;
    let (mut length, mut is_ended) = (read as u64, text.last() == Some(&b'\n'));
    if read == 0 {
        return Ok(None);
    }
    if is_ended {
        text.pop();
    } else if length == LINE_BYTES_MAX {
        let (skipped, ended) = skip_line(reader)?;
        (length, is_ended) = (length + skipped as u64, ended);
    }
    Ok(Some(RawLine { text, length, is_ended }))
}

/// Skips to behind the next line feed; gives how many bytes that were, and whether there was one.
fn skip_line(reader: &mut impl BufRead) -> io::Result<(usize, bool)> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let end = memchr::memchr(b'\n', buffer);
        let length = end.map_or(buffer.len(), |at| at + 1);
        reader.consume(length);
        skipped += length;
        if end.is_some() || length == 0 {
            return Ok((skipped, end.is_some()));
        }
    }
}

/// Where a line stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The name of the log.
    pub(super) log: Arc<str>,
    /// Its number, from 1; 0 where lines are not counted.
    pub(super) line: u64,
    /// Where it begins, in bytes.
    pub(super) offset: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}, byte {}", self.log, self.offset),
            line => write!(f, "{}:{line}", self.log),
        }
    }
}
