//! The lines in which events and facts are written to Envoy's log when nothing else takes them;
//! `filter/EVENTS.md` describes them.

use crate::base::hash::{hash_text, hex};
use crate::base::secret::Secret;

/// The most bytes of text in one line. JSON escapes make at most two of one, twice of nothing
/// else: with a log's prefix a line stays below 16 KiB, at which containerd, CRI-O and docker cut.
pub const SPILL_TEXT_BYTES_MAX: usize = 6000;

/// Names what a mac is of, and the form of the lines.
const FORM: &[u8] = b"agent-meter-spill.v1\n";

/// Something that goes to the log instead.
#[derive(Clone, Copy, Debug)]
pub struct Spill<'a> {
    /// Why, in one word.
    pub reason: &'a str,
    /// `event` or `fact`.
    pub kind: &'a str,
    /// JSON without line breaks.
    pub text: &'a str,
    /// Signs the lines, unless it is empty.
    pub secret: &'a Secret,
}

impl Spill<'_> {
    /// The lines to write, at least one, without line breaks.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let Self { reason, kind, text, secret } = *self;
        let pieces = pieces(text);
        let count = pieces.len();
        let id = (count > 1).then(|| hex(&hash_text(text)));
        (1_usize..).zip(pieces).map(move |(number, piece)| {
            let mut line = format!("agent-meter spill reason={reason}");
            let part = id.as_ref().map(|id| (format!("{number}/{count}"), id));
            if let Some((part, id)) = &part {
                line += &format!(" part={part} of={id}");
            }
            if secret.is_set() {
                let part = part.map(|(part, id)| format!("{part} {id}")).unwrap_or_default();
                let mac = secret.mac(&[
                    FORM,
                    kind.as_bytes(),
                    b"\n",
                    part.as_bytes(),
                    b"\n",
                    piece.as_bytes(),
                ]);
                let half: Vec<u8> = mac.into_iter().take(MAC_BYTES).collect();
                line += &format!(" mac={}", hex(&half));
            }
            line += &format!(" {kind}={piece}");
            line
        })
    }
}

/// Half of an HMAC-SHA256: 32 hexadecimal digits.
const MAC_BYTES: usize = 16;

/// Cuts a text into pieces of at most [`SPILL_TEXT_BYTES_MAX`] bytes, between characters.
fn pieces(text: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = text;
    loop {
        let (piece, behind) = rest.split_at(rest.floor_char_boundary(SPILL_TEXT_BYTES_MAX));
        pieces.push(piece);
        if behind.is_empty() {
            return pieces;
        }
        rest = behind;
    }
}
