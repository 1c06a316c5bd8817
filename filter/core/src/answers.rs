//! Reads the answers out of a response's body: JSON or server-sent events, plain or coded.

use crate::fact::Transport;
use crate::limits::CALLS_PER_EXCHANGE_MAX;
use crate::observe::mcp::{Message, MessageReader};
use crate::wire::encoding::{ContentCoding, Decoder, Sink};
use crate::wire::json::Progress;
use crate::wire::media_type::MediaType;
use crate::wire::sse;

/// Reads one response body, chunk by chunk.
#[derive(Debug)]
pub struct AnswerReader {
    decoder: Decoder<Body>,
}

/// The body without its coding.
#[derive(Debug)]
struct Body {
    format: Format,
    answers: Vec<Message>,
}

#[derive(Debug)]
enum Format {
    Json(Box<MessageReader>),
    Events { framer: Box<sse::Framer>, event: Box<EventReader> },
}

impl AnswerReader {
    /// A reader for a body, or `None` if its coding is not read.
    pub fn new(coding: ContentCoding, media_type: MediaType) -> Option<Self> {
        let format = match media_type {
            MediaType::EventStream => {
                Format::Events { framer: Box::default(), event: Box::default() }
            }
            // Some servers answer JSON-RPC without saying so; a text that is no JSON fails at its first byte.
            MediaType::Json | MediaType::Other => Format::Json(Box::default()),
        };
        let decoder = Decoder::new(coding, Body { format, answers: Vec::new() }).ok()?;
        Some(Self { decoder })
    }

    /// Reads the next bytes; gives the answers that end in them.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Message> {
        self.decoder.feed(chunk);
        self.decoder.sink().map(|body| core::mem::take(&mut body.answers)).unwrap_or_default()
    }

    /// How the answers come.
    pub fn transport(&mut self) -> Transport {
        match self.decoder.sink().map(|body| &body.format) {
            Some(Format::Json(_)) => Transport::Json,
            Some(Format::Events { .. }) => Transport::Sse,
            None => Transport::None,
        }
    }

    /// Whether the body turned out to be nothing that this can read.
    pub fn is_unreadable(&mut self) -> bool {
        let is_no_json = match self.decoder.sink().map(|body| &body.format) {
            Some(Format::Json(reader)) => reader.progress() == Progress::Failed,
            Some(Format::Events { .. }) | None => false,
        };
        is_no_json || self.decoder.is_broken()
    }
}

impl Sink for Body {
    fn decoded(&mut self, piece: &[u8]) {
        let Self { format, answers } = self;
        match format {
            Format::Json(reader) => {
                reader.feed(piece, &mut |message| keep_answer(answers, message));
            }
            Format::Events { framer, event } => {
                framer.feed(piece, &mut EventSink { event, answers })
            }
        }
    }
}

/// Reads the data of one server-sent event, and keeps its answers until the event is dispatched: clients do not see
/// an event that the stream's end cuts off.
#[derive(Clone, Debug, Default)]
struct EventReader {
    reader: MessageReader,
    answers: Vec<Message>,
}

struct EventSink<'a> {
    event: &'a mut EventReader,
    answers: &'a mut Vec<Message>,
}

impl sse::Sink for EventSink<'_> {
    fn data(&mut self, piece: &[u8]) {
        let EventReader { reader, answers } = &mut *self.event;
        reader.feed(piece, &mut |message| keep_answer(answers, message));
    }

    fn dispatch(&mut self, is_message: bool) {
        let event = core::mem::take(self.event);
        if is_message && event.reader.progress() == Progress::Complete {
            self.answers.extend(event.answers);
        }
    }
}

fn keep_answer(answers: &mut Vec<Message>, message: &Message) {
    if message.is_answer() && answers.len() < CALLS_PER_EXCHANGE_MAX {
        answers.push(message.clone());
    }
}
