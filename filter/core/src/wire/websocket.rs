//! Reads the messages of one direction of a WebSocket (RFC 6455, section 5) as its frames pass, in
//! constant memory.
//!
//! To the next maintainer: [`FrameReader::feed`] may be cut at any byte. Control frames may stand
//! between the frames of a message. A message with the bit of an extension, such as that of
//! `permessage-deflate` (RFC 7692), is skipped whole; after bytes that are no frame, nothing more is
//! read.

/// Bytes of the longest head of a frame.
const HEAD_BYTES_MAX: usize = 14;

/// Bytes that are unmasked at once.
const PIECE_BYTES: usize = 256;

/// What the next bytes contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramePart<'a> {
    /// A part of a message, unmasked.
    Data(&'a [u8]),
    /// The message has ended.
    End,
    /// A message begins that cannot be read.
    Unreadable,
}

/// Reads one direction.
#[derive(Debug, Default)]
pub(crate) struct FrameReader {
    /// The head of the frame as far as it has come; whole while its payload passes.
    head: Vec<u8>,
    is_in_payload: bool,
    left: u64,
    mask: Option<[u8; 4]>,
    /// The place in the mask of the next byte.
    mask_at: usize,
    is_in_message: bool,
    is_skipped: bool,
    is_closed: bool,
    is_broken: bool,
}

/// A frame's head.
struct Head {
    is_final: bool,
    reserved: u8,
    opcode: u8,
}

impl FrameReader {
    /// Whether bytes came that are no frame.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// Reads the next bytes and calls `found` with what they contain.
    pub(crate) fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(FramePart<'_>)) {
        let mut rest = chunk;
        while let Some((byte, tail)) = rest.split_first() {
            if self.is_broken || self.is_closed {
                return;
            }
            if self.is_in_payload {
                let left = usize::try_from(self.left).unwrap_or(usize::MAX);
                let (piece, behind) = rest.split_at(left.min(rest.len()));
                rest = behind;
                self.payload(piece, found);
            } else {
                self.head.push(*byte);
                rest = tail;
                if head_bytes(&self.head) == Some(self.head.len()) {
                    self.begin_frame(found);
                }
            }
            if self.is_in_payload && self.left == 0 {
                self.end_frame(found);
            }
        }
    }

    fn parsed(&self) -> Head {
        let first = self.head.first().copied().unwrap_or_default();
        Head { is_final: first & 0x80 != 0, reserved: first & 0x70, opcode: first & 0x0F }
    }

    fn begin_frame(&mut self, found: &mut dyn FnMut(FramePart<'_>)) {
        let Head { is_final, reserved, opcode } = self.parsed();
        let second = self.head.get(1).copied().unwrap_or_default();
        let is_masked = second & 0x80 != 0;
        let (_, more) = self.head.split_at(2.min(self.head.len()));
        let mask_bytes = if is_masked { 4 } else { 0 };
        let (length, mask) = more.split_at(more.len().saturating_sub(mask_bytes));
        self.left = match second & 0x7F {
            126 | 127 => length.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
            short => u64::from(short),
        };
        self.mask = mask.try_into().ok();
        self.mask_at = 0;
        self.is_in_payload = true;
        let is_control = opcode & 0x08 != 0;
        let is_known = matches!(opcode, 0..=2 | 8..=10);
        let is_first = matches!(opcode, 1 | 2);
        let is_in_order = is_control || is_first != self.is_in_message;
        let is_small = !is_control || (is_final && self.left <= 125);
        self.is_broken |= !is_known || !is_in_order || !is_small || self.left > u64::MAX >> 1;
        if is_first && !self.is_broken {
            self.is_in_message = true;
            self.is_skipped = reserved != 0;
            if self.is_skipped {
                found(FramePart::Unreadable);
            }
        }
    }

    fn payload(&mut self, piece: &[u8], found: &mut dyn FnMut(FramePart<'_>)) {
        let bytes = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        self.left = self.left.saturating_sub(bytes);
        if self.is_skipped || self.parsed().opcode & 0x08 != 0 {
            return;
        }
        let Some(mask) = self.mask else { return found(FramePart::Data(piece)) };
        let mut plain = [0; PIECE_BYTES];
        for part in piece.chunks(PIECE_BYTES) {
            let masked = part.iter().zip(mask.iter().cycle().skip(self.mask_at));
            for (to, (byte, mask)) in plain.iter_mut().zip(masked) {
                *to = byte ^ mask;
            }
            self.mask_at = self.mask_at.wrapping_add(part.len()) & 3;
            found(FramePart::Data(plain.get(..part.len()).unwrap_or_default()));
        }
    }

    fn end_frame(&mut self, found: &mut dyn FnMut(FramePart<'_>)) {
        let Head { is_final, opcode, .. } = self.parsed();
        self.head.clear();
        self.is_in_payload = false;
        self.is_closed = opcode == 8;
        if opcode & 0x08 == 0 && is_final {
            self.is_in_message = false;
            if !core::mem::take(&mut self.is_skipped) {
                found(FramePart::End);
            }
        }
    }
}

/// The length of a frame's head, if its first two bytes are there.
fn head_bytes(head: &[u8]) -> Option<usize> {
    let second = head.get(1)?;
    let length: usize = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if second & 0x80 == 0 { 2 } else { 6 };
    Some(length.saturating_add(mask).min(HEAD_BYTES_MAX))
}

#[cfg(test)]
mod tests {
    use super::{FramePart, FrameReader};

    /// A frame whose first byte is this; the length takes as many bytes as `wide` says.
    fn frame(first: u8, wide: usize, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
        let bit = if mask.is_some() { 0x80 } else { 0 };
        let length = u64::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes = vec![first];
        match wide {
            0 => bytes.push(length[7] | bit),
            2 => bytes.extend([&[126 | bit], &length[6..]].concat()),
            _ => bytes.extend([&[127 | bit], &length[..]].concat()),
        }
        bytes.extend(mask.unwrap_or_default().iter().filter(|_| mask.is_some()));
        let key = mask.unwrap_or_default();
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    fn read(chunks: &[&[u8]]) -> String {
        let mut reader = FrameReader::default();
        let mut text = String::new();
        for chunk in chunks {
            reader.feed(chunk, &mut |part| match part {
                FramePart::Data(bytes) => text.push_str(&String::from_utf8_lossy(bytes)),
                FramePart::End => text.push('|'),
                FramePart::Unreadable => text.push('?'),
            });
        }
        assert!(reader.head.len() <= super::HEAD_BYTES_MAX);
        if reader.is_broken() { text + "!" } else { text }
    }

    #[test]
    fn messages_are_read_whole_byte_by_byte_and_at_each_split() {
        let key = Some([0x37, 0xFA, 0x21, 0x3D]);
        let long = "x".repeat(700);
        let hello = || frame(0x81, 0, None, b"Hello");
        let close = || frame(0x88, 0, None, b"\x03\xE8");
        let rows = [
            ("one message", hello(), "Hello|".to_owned()),
            ("a masked one", frame(0x81, 0, key, b"Hello"), "Hello|".to_owned()),
            ("a binary one", frame(0x82, 0, key, b"ab"), "ab|".to_owned()),
            ("lengths of 16 bits", frame(0x81, 2, key, long.as_bytes()), format!("{long}|")),
            ("lengths of 64 bits", frame(0x81, 8, None, long.as_bytes()), format!("{long}|")),
            ("an empty one", [frame(0x81, 0, key, b""), hello()].concat(), "|Hello|".to_owned()),
            (
                "fragments with control frames in between",
                [
                    frame(0x01, 0, key, b"Hel"),
                    frame(0x89, 0, key, b"ping"),
                    frame(0x00, 0, key, b""),
                    frame(0x8A, 0, key, b""),
                    frame(0x80, 0, key, b"lo"),
                    hello(),
                ]
                .concat(),
                "Hello|Hello|".to_owned(),
            ),
            (
                "a compressed message in fragments",
                [frame(0x41, 0, None, b"\xF2"), frame(0x80, 0, None, b"\x48"), hello()].concat(),
                "?Hello|".to_owned(),
            ),
            ("what follows a close", [hello(), close(), hello()].concat(), "Hello|".to_owned()),
            (
                "a reserved opcode",
                [hello(), frame(0x83, 0, None, b"x")].concat(),
                "Hello|!".to_owned(),
            ),
            ("a fragment of nothing", frame(0x80, 0, None, b"x"), "!".to_owned()),
            (
                "a message within a message",
                [frame(0x01, 0, None, b"a"), hello()].concat(),
                "a!".to_owned(),
            ),
            ("a fragmented ping", frame(0x09, 0, None, b"x"), "!".to_owned()),
            ("a long ping", frame(0x89, 2, None, &[b'x'; 126]), "!".to_owned()),
            ("a length without end", vec![0x81, 127, 0x80, 0, 0, 0, 0, 0, 0, 0, 1], "!".to_owned()),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(read(&[&bytes]), expected, "{name}");
            assert_eq!(read(&bytes.chunks(1).collect::<Vec<_>>()), expected, "{name}: bytes");
            for at in 0..bytes.len() {
                let (start, end) = bytes.split_at(at);
                assert_eq!(read(&[start, end]), expected, "{name} at {at}");
            }
        }
    }
}
