//! An incremental framer for server-sent events (WHATWG HTML, "Server-sent events", read 2026-11).
//! It passes data on piece by piece and keeps none of it, so an event may have any size.
//!
//! To the next maintainer: lines end in LF, CRLF or CR. A CR ends the line at once, and the framer
//! skips one LF that follows, even if it arrives in the next chunk.

use crate::base::fingerprint::Fingerprint;
use crate::wire::BYTE_ORDER_MARK;

/// Receives what the framer reads.
pub trait SseHandler {
    /// The next bytes of the event's data; an LF joins its lines.
    fn data(&mut self, piece: &[u8]);
    /// The stream's last event id is now this one, as a hash; 0 for an empty one.
    fn id(&mut self, _hash: u64) {}
    /// The event is complete.
    fn dispatch(&mut self, event_type: EventType);
}

/// The types of events that MCP defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// `message`, or an event without a type: a JSON-RPC message.
    Message,
    /// `endpoint` (2024-11-05): where the client has to send its messages.
    Endpoint,
    /// Any other type; clients ignore it.
    Other,
}

/// Bytes that the framer keeps of a field's name: more than `event`, the longest with a meaning.
const NAME_BYTES_MAX: usize = 8;

/// Bytes that the framer keeps of an event's type; `message` fits.
const TYPE_BYTES_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Data,
    Event,
    Id,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Name,
    /// Directly after the colon, where the framer drops one space.
    Colon(Field),
    Value(Field),
}

/// Names an event by its id: a hash of it, which is never 0, or 0 for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct EventId {
    hash: Fingerprint,
    is_some: bool,
}

impl EventId {
    fn feed(&mut self, piece: &[u8]) {
        self.hash.feed(piece);
        self.is_some |= !piece.is_empty();
    }

    fn value(self) -> u64 {
        if self.is_some { self.hash.value().max(1) } else { 0 }
    }
}

/// The hash that [`SseHandler::id`] tells of an event with this id.
pub(crate) fn event_id(id: &[u8]) -> u64 {
    let mut event = EventId::default();
    event.feed(id);
    event.value()
}

/// Reads one event stream, chunk by chunk.
#[derive(Clone, Debug)]
pub struct Framer {
    state: State,
    name: Vec<u8>,
    event_type: Vec<u8>,
    id: EventId,
    has_data: bool,
    after_carriage_return: bool,
    mark_bytes_seen: u8,
    is_first_line: bool,
}

impl Default for Framer {
    fn default() -> Self {
        Self {
            state: State::Name,
            name: Vec::new(),
            event_type: Vec::new(),
            id: EventId::default(),
            has_data: false,
            after_carriage_return: false,
            mark_bytes_seen: 0,
            is_first_line: true,
        }
    }
}

impl Framer {
    /// Reads the next bytes of the stream. It never dispatches an event that the stream's end cuts
    /// off.
    pub fn feed(&mut self, chunk: &[u8], sink: &mut impl SseHandler) {
        let mut rest = chunk;
        while let Some((&byte, tail)) = rest.split_first() {
            if core::mem::take(&mut self.after_carriage_return) && byte == b'\n' {
                rest = tail;
                continue;
            }
            if byte == b'\n' || byte == b'\r' {
                self.after_carriage_return = byte == b'\r';
                self.line_ended(sink);
                rest = tail;
                continue;
            }
            rest = match self.state {
                State::Name => {
                    self.name_byte(byte, sink);
                    tail
                }
                State::Colon(field) => {
                    self.state = State::Value(field);
                    if byte == b' ' { tail } else { rest }
                }
                State::Value(field) => {
                    let end = memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                    let (piece, tail) = rest.split_at(end);
                    self.value(field, piece, sink);
                    tail
                }
            };
        }
    }

    /// True if data has arrived that no blank line has completed yet.
    pub(crate) fn has_pending_data(&self) -> bool {
        self.has_data
    }

    fn name_byte(&mut self, byte: u8, sink: &mut impl SseHandler) {
        if self.is_first_line && self.name.is_empty() {
            let mark_at = usize::from(self.mark_bytes_seen);
            if BYTE_ORDER_MARK.get(mark_at) == Some(&byte) {
                self.mark_bytes_seen = self.mark_bytes_seen.saturating_add(1);
                return;
            }
        }
        if byte == b':' {
            let field = self.field();
            self.start_field(field, sink);
            self.state = State::Colon(field);
        } else if self.name.len() < NAME_BYTES_MAX {
            self.name.push(byte);
        }
    }

    fn field(&self) -> Field {
        match self.name.as_slice() {
            b"data" => Field::Data,
            b"event" => Field::Event,
            b"id" => Field::Id,
            _ => Field::Other,
        }
    }

    fn start_field(&mut self, field: Field, sink: &mut impl SseHandler) {
        match field {
            Field::Data => {
                if self.has_data {
                    sink.data(b"\n");
                }
                self.has_data = true;
            }
            Field::Event => self.event_type.clear(),
            Field::Id => self.id = EventId::default(),
            Field::Other => {}
        }
    }

    fn value(&mut self, field: Field, piece: &[u8], sink: &mut impl SseHandler) {
        match field {
            Field::Data => sink.data(piece),
            Field::Event => {
                let room = TYPE_BYTES_MAX.saturating_sub(self.event_type.len());
                self.event_type.extend_from_slice(piece.get(..room).unwrap_or(piece));
            }
            Field::Id => self.id.feed(piece),
            Field::Other => {}
        }
    }

    fn line_ended(&mut self, sink: &mut impl SseHandler) {
        self.is_first_line = false;
        if self.state == State::Name && self.name.is_empty() {
            if core::mem::take(&mut self.has_data) {
                sink.dispatch(match self.event_type.as_slice() {
                    b"" | b"message" => EventType::Message,
                    b"endpoint" => EventType::Endpoint,
                    _ => EventType::Other,
                });
            }
            self.event_type.clear();
        } else if self.state == State::Name {
            // A line without a colon is a field with an empty value.
            let field = self.field();
            self.start_field(field, sink);
            if field == Field::Id {
                sink.id(self.id.value());
            }
        } else if matches!(self.state, State::Colon(Field::Id) | State::Value(Field::Id)) {
            sink.id(self.id.value());
        }
        self.name.clear();
        self.state = State::Name;
    }
}
