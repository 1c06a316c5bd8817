//! An incremental framer for `application/vnd.amazon.eventstream` (Smithy, "Amazon Event Stream
//! Specification", and botocore's reader, read 2026-11). It passes the payload on piece by piece
//! and keeps none of it.
//!
//! A message consists of a prelude (the length of the message and the length of the headers, each 4
//! bytes, big-endian, and their CRC-32), the headers, the payload, and the CRC-32 of everything
//! before it. The framer uses a length only after it has verified the prelude's CRC, and dispatches
//! a message only after it has verified the message's own CRC.
//!
//! To the next maintainer: a state that waits for a number gathers its bytes in `gathered`, as many
//! as [`State::bytes`] says; the other states pass bytes on as they arrive. After the first error
//! the framer reads nothing more, because it cannot find the start of the next message.

use flate2::Crc;

/// The two lengths and their CRC.
const PRELUDE_BYTES: u32 = 12;

/// The CRC of the message.
const TRAILER_BYTES: u32 = 4;

/// The type of a header value that is text.
const TEXT: u8 = 7;

/// The longest headers: the specification's limit.
const HEADERS_BYTES_MAX: u32 = 128 * 1024;

/// The longest payload: botocore's limit, which is above the specification's 16 MiB.
const PAYLOAD_BYTES_MAX: u32 = 24 * 1024 * 1024;

/// Bytes that the framer keeps of a header's name: enough for `:exception-type`, the longest it
/// needs.
const NAME_BYTES_MAX: usize = 16;

/// Bytes that the framer keeps of a header's value; Bedrock's longest is
/// `serviceUnavailableException`.
const VALUE_BYTES_MAX: usize = 64;

/// Receives what the framer reads.
pub trait FrameHandler {
    /// The next bytes of the message's payload, which are valid only if [`Self::dispatch`] follows.
    fn payload(&mut self, headers: &MessageHeaders, piece: &[u8]);
    /// The message is complete, and its CRC is correct.
    fn dispatch(&mut self, headers: &MessageHeaders);
}

/// The headers that say what a message is; empty if a header is missing or is not text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageHeaders {
    /// `:message-type`: `event`, `exception` or `error`.
    pub message_type: Vec<u8>,
    /// `:event-type`, of an event.
    pub event_type: Vec<u8>,
    /// `:exception-type`, of an exception.
    pub exception_type: Vec<u8>,
}

impl MessageHeaders {
    /// True if the message is an event: neither an exception nor an error.
    pub fn is_event(&self) -> bool {
        self.message_type == b"event"
    }

    fn get_mut(&mut self, name: &[u8]) -> Option<&mut Vec<u8>> {
        match name {
            b":message-type" => Some(&mut self.message_type),
            b":event-type" => Some(&mut self.event_type),
            b":exception-type" => Some(&mut self.exception_type),
            _ => None,
        }
    }

    fn clear(&mut self) {
        self.message_type.clear();
        self.event_type.clear();
        self.exception_type.clear();
    }
}

/// Encodes a message with these headers, all of them text of less than 64 KiB with names of less
/// than 256 bytes.
pub fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        head.extend_from_slice(name.as_bytes());
        head.push(TEXT);
        head.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        head.extend_from_slice(value.as_bytes());
    }
    let around = PRELUDE_BYTES.saturating_add(TRAILER_BYTES);
    let total = length(&head).saturating_add(length(payload)).saturating_add(around);
    let mut bytes = [total.to_be_bytes(), length(&head).to_be_bytes()].concat();
    bytes.extend(checksum(&bytes));
    bytes.extend(head);
    bytes.extend_from_slice(payload);
    bytes.extend(checksum(&bytes));
    bytes
}

fn checksum(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Prelude,
    NameLength,
    Name { left: u32 },
    Type,
    ValueLength { is_text: bool },
    Value { left: u32, is_text: bool },
    Payload,
    Trailer,
    Broken,
}

impl State {
    /// How many bytes the state gathers before it continues; 0 if it passes them on.
    fn bytes(self) -> u32 {
        match self {
            Self::Prelude => PRELUDE_BYTES,
            Self::NameLength | Self::Type => 1,
            Self::ValueLength { .. } => 2,
            Self::Trailer => TRAILER_BYTES,
            Self::Name { .. } | Self::Value { .. } | Self::Payload | Self::Broken => 0,
        }
    }

    fn is_in_headers(self) -> bool {
        match self {
            Self::NameLength
            | Self::Name { .. }
            | Self::Type
            | Self::ValueLength { .. }
            | Self::Value { .. } => true,
            Self::Prelude | Self::Payload | Self::Trailer | Self::Broken => false,
        }
    }
}

/// Reads one stream of messages, chunk by chunk.
#[derive(Debug)]
pub struct Framer {
    state: State,
    gathered: Vec<u8>,
    headers_left: u32,
    payload_left: u32,
    crc: Crc,
    name: Vec<u8>,
    headers: MessageHeaders,
}

impl Default for Framer {
    fn default() -> Self {
        Self {
            state: State::Prelude,
            gathered: Vec::new(),
            headers_left: 0,
            payload_left: 0,
            crc: Crc::new(),
            name: Vec::new(),
            headers: MessageHeaders::default(),
        }
    }
}

impl Framer {
    /// Reads the next bytes of the stream. It never dispatches a message that the stream's end cuts
    /// off.
    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl FrameHandler) {
        let mut rest = chunk;
        while !rest.is_empty() && self.state != State::Broken {
            rest = match self.state.bytes() {
                0 => self.pass(rest, sink),
                bytes => self.gather(bytes, rest, sink),
            };
        }
    }

    /// True if the stream is not a valid event stream; the framer ignores the rest of it.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Consumes bytes that the state passes on; returns the rest.
    fn pass<'a>(&mut self, rest: &'a [u8], sink: &mut impl FrameHandler) -> &'a [u8] {
        let state = self.state;
        let left = match state {
            State::Name { left } | State::Value { left, .. } => left,
            _ => self.payload_left,
        };
        let (piece, tail) = split(rest, left);
        let left = left.saturating_sub(length(piece));
        self.take(piece);
        if self.state == State::Broken {
            return tail;
        }
        match state {
            State::Name { .. } => {
                keep(&mut self.name, piece, NAME_BYTES_MAX);
                self.enter(if left == 0 { State::Type } else { State::Name { left } });
            }
            State::Value { is_text, .. } => {
                if is_text && let Some(value) = self.headers.get_mut(&self.name) {
                    keep(value, piece, VALUE_BYTES_MAX);
                }
                self.value(left, is_text);
            }
            _ => {
                self.payload_left = left;
                sink.payload(&self.headers, piece);
                self.payload();
            }
        }
        tail
    }

    /// Consumes the bytes of a number, and continues once it has all of them; returns the rest.
    fn gather<'a>(&mut self, bytes: u32, rest: &'a [u8], sink: &mut impl FrameHandler) -> &'a [u8] {
        let missing = bytes.saturating_sub(length(&self.gathered));
        let (piece, tail) = split(rest, missing);
        self.gathered.extend_from_slice(piece);
        match self.state {
            State::Prelude | State::Trailer => {}
            _ => self.take(piece),
        }
        if length(piece) < missing || self.state == State::Broken {
            return tail;
        }
        let number =
            self.gathered.iter().fold(0_u32, |sum, byte| sum.wrapping_shl(8) | u32::from(*byte));
        match self.state {
            State::Prelude => self.prelude(),
            State::NameLength => {
                self.name.clear();
                // The specification requires a name of at least one byte.
                self.enter(if number == 0 { State::Broken } else { State::Name { left: number } });
            }
            State::Type => self.value_type(number),
            State::ValueLength { is_text } => self.value(number, is_text),
            State::Trailer => self.trailer(number, sink),
            State::Name { .. } | State::Value { .. } | State::Payload | State::Broken => {}
        }
        self.gathered.clear();
        tail
    }

    fn prelude(&mut self) {
        let word = |at: usize| {
            let bytes = self.gathered.get(at..at.saturating_add(4));
            bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_be_bytes)
        };
        let (total, headers, crc) = (word(0), word(4), word(8));
        self.crc.reset();
        self.crc.update(self.gathered.get(..8).unwrap_or_default());
        let is_right = self.crc.sum() == crc;
        self.crc.update(self.gathered.get(8..).unwrap_or_default());
        let payload = total
            .checked_sub(PRELUDE_BYTES.saturating_add(TRAILER_BYTES))
            .and_then(|rest| rest.checked_sub(headers))
            .filter(|payload| *payload <= PAYLOAD_BYTES_MAX && headers <= HEADERS_BYTES_MAX);
        match payload {
            Some(payload) if is_right => {
                self.headers.clear();
                self.headers_left = headers;
                self.payload_left = payload;
                self.header();
            }
            _ => self.state = State::Broken,
        }
    }

    /// The types in the specification: two booleans, integers, bytes, text, a time and a UUID.
    fn value_type(&mut self, number: u32) {
        match number {
            0 | 1 => self.value(0, false),
            2 => self.value(1, false),
            3 => self.value(2, false),
            4 => self.value(4, false),
            5 | 8 => self.value(8, false),
            6 => self.enter(State::ValueLength { is_text: false }),
            7 => {
                // Of two headers with the same name, the last one counts.
                if let Some(value) = self.headers.get_mut(&self.name) {
                    value.clear();
                }
                self.enter(State::ValueLength { is_text: true });
            }
            9 => self.value(16, false),
            _ => self.state = State::Broken,
        }
    }

    fn value(&mut self, left: u32, is_text: bool) {
        if left == 0 {
            self.header();
        } else {
            self.enter(State::Value { left, is_text });
        }
    }

    /// Starts the next header, or the payload after the last one.
    fn header(&mut self) {
        if self.headers_left > 0 {
            self.state = State::NameLength;
        } else {
            self.payload();
        }
    }

    fn payload(&mut self) {
        self.state = if self.payload_left > 0 { State::Payload } else { State::Trailer };
    }

    fn trailer(&mut self, crc: u32, sink: &mut impl FrameHandler) {
        if self.crc.sum() == crc {
            sink.dispatch(&self.headers);
            self.state = State::Prelude;
        } else {
            self.state = State::Broken;
        }
    }

    /// Continues within a header that has at least one more byte.
    fn enter(&mut self, state: State) {
        self.state = if self.headers_left == 0 { State::Broken } else { state };
    }

    /// Adds bytes after the prelude to the CRC; within headers, counts down `headers_left`.
    fn take(&mut self, piece: &[u8]) {
        self.crc.update(piece);
        if self.state.is_in_headers() {
            match self.headers_left.checked_sub(length(piece)) {
                Some(left) => self.headers_left = left,
                None => self.state = State::Broken,
            }
        }
    }
}

/// The first `bytes` of `rest`, or all of it, and the remainder.
fn split(rest: &[u8], bytes: u32) -> (&[u8], &[u8]) {
    let at = usize::try_from(bytes).unwrap_or(usize::MAX);
    rest.split_at_checked(at).unwrap_or((rest, &[]))
}

fn length(piece: &[u8]) -> u32 {
    u32::try_from(piece.len()).unwrap_or(u32::MAX)
}

fn keep(kept: &mut Vec<u8>, piece: &[u8], bytes_max: usize) {
    let room = bytes_max.saturating_sub(kept.len());
    kept.extend_from_slice(piece.get(..room).unwrap_or(piece));
}
