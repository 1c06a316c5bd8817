//! Opens the file of an export, as it is or compressed with gzip.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};
use std::path::Path;

use anyhow::{Context, bail};
use flate2::read::MultiGzDecoder;

/// How formats begin that are told from gzip and text by their first bytes.
const GZIP: &[u8] = &[0x1f, 0x8b];
const REFUSED: [(&[u8], &str); 2] =
    [(b"PK\x03\x04", "a zip file: unpack it"), (b"PAR1", "a Parquet file: export CSV instead")];
/// The mark of UTF-8 that spreadsheets write before the text.
const BYTE_ORDER_MARK: &[u8] = &[0xef, 0xbb, 0xbf];

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
    pub(super) fn new(mut from: impl Read + 'static) -> anyhow::Result<Input> {
        let mut start = Vec::new();
        from.by_ref().take(4).read_to_end(&mut start).context("cannot be read")?;
        for (magic, what) in REFUSED {
            if start.starts_with(magic) {
                bail!("{what}");
            }
        }
        let is_gzip = start.starts_with(GZIP);
        let whole = Cursor::new(start).chain(from);
        let mut reader: Box<dyn BufRead> = if is_gzip {
            Box::new(BufReader::with_capacity(64 * 1024, MultiGzDecoder::new(whole)))
        } else {
            Box::new(BufReader::with_capacity(64 * 1024, whole))
        };
        let start = reader.fill_buf().map_err(failed)?;
        if start.starts_with(BYTE_ORDER_MARK) {
            reader.consume(BYTE_ORDER_MARK.len());
        }
        let start = reader.fill_buf().map_err(failed)?;
        let first = start.iter().find(|byte| !byte.is_ascii_whitespace());
        let is_json = matches!(first, Some(b'{' | b'['));
        Ok(Input { reader, is_json })
    }
}

/// Why reading failed, in the words of who made the file.
pub(super) fn failed(error: io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::UnexpectedEof => anyhow::anyhow!("the file is cut"),
        _ => anyhow::Error::new(error).context("cannot be read"),
    }
}
