//! Files that may be compressed with gzip.

use std::io::{self, BufRead, BufReader, Cursor, Read};

use flate2::read::MultiGzDecoder;

/// The first bytes of a gzip file.
const MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Reads what is there, decompressed if its first bytes are gzip's.
///
/// # Errors
///
/// If its first bytes cannot be read.
pub(crate) fn plain(mut from: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let mut start = Vec::new();
    from.by_ref().take(2).read_to_end(&mut start)?;
    let is_gzip = start == MAGIC;
    let whole = Cursor::new(start).chain(from);
    Ok(if is_gzip {
        Box::new(BufReader::new(MultiGzDecoder::new(whole)))
    } else {
        Box::new(BufReader::new(whole))
    })
}
