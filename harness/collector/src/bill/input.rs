//! Opens the file of an export, as it is or compressed with gzip.

use std::fs::File;
use std::io::{self, BufRead, Cursor, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, bail};

use crate::gzip;

/// How formats begin that are told from text by their first bytes.
const REFUSED: [(&[u8], &str); 2] =
    [(b"PK\x03\x04", "a zip file: unpack it"), (b"PAR1", "a Parquet file: export CSV instead")];
/// The mark of UTF-8 that spreadsheets write before the text.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

/// Bytes by which a format is told.
const START_BYTES: u64 = 4096;

/// The text of a file, and whether it is JSON.
pub(super) struct Input {
    pub(super) reader: Box<dyn BufRead>,
    pub(super) is_json: bool,
}

impl Input {
    /// Opens a file.
    pub(super) fn open(path: &Path) -> anyhow::Result<Input> {
        let file = File::open(path).context("cannot be read")?;
        Input::new(file)
    }

    /// Reads from anywhere.
    pub(super) fn new(from: impl Read + Send + 'static) -> anyhow::Result<Input> {
        let mut rest = gzip::plain(from).context("cannot be read")?;
        let mut start = Vec::new();
        rest.by_ref().take(START_BYTES).read_to_end(&mut start).map_err(failed)?;
        for (magic, what) in REFUSED {
            if start.starts_with(magic) {
                bail!("{what}");
            }
        }
        if start.starts_with(BYTE_ORDER_MARK) {
            start.drain(..BYTE_ORDER_MARK.len());
        }
        let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
        let is_json = matches!(first, Some(b'{' | b'['));
        Ok(Input { reader: Box::new(Cursor::new(start).chain(rest)), is_json })
    }
}

/// Why reading failed, in the words of who made the file.
pub(super) fn failed(error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => anyhow::anyhow!("the file is cut"),
        _ => anyhow::Error::new(error).context("cannot be read"),
    }
}
