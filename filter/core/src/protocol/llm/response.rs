//! Reads what a response tells of a generation as it passes: JSON, an array that is streamed, server-sent events,
//! JSON lines or an Amazon event stream, plain or coded.

use crate::protocol::document::{Document, DocumentReader, PathTree};
use crate::protocol::llm::bedrock_chunks;
use crate::protocol::llm::bedrock_chunks::Unwrapper;
use crate::protocol::llm::generation::{Format, Generation, Stage};
use crate::wire::amazon_event_stream::MessageHeaders;
use crate::wire::boundary::Unit;
use crate::wire::encoding::{ContentCoding, DecodedBytes, Decoder};
use crate::wire::http::ResponseHead;
use crate::wire::json::Progress;
use crate::wire::media_type::MediaType;
use crate::wire::sse::EventType;
use crate::wire::{amazon_event_stream, sse};

/// Reads one response, chunk by chunk.
#[derive(Debug)]
pub struct ResponseReader {
    /// The body, or what the head alone has told if the body's coding is not read.
    body: Result<Decoder<Body>, Generation>,
    is_streamed: bool,
    /// What it may be cut behind.
    unit: Option<Unit>,
}

/// The body without its coding.
#[derive(Debug)]
struct Body {
    generation: Generation,
    fold: fn(&mut Generation, &Document),
    reader: DocumentReader,
    framing: Framing,
    is_unreadable: bool,
}

#[derive(Debug)]
enum Framing {
    /// One JSON text, maybe an array of documents.
    Json,
    /// Server-sent events, each with a JSON text.
    Events(Box<sse::Framer>),
    /// A JSON text a line.
    Lines,
    /// Messages of an Amazon event stream, each with a JSON text, which may be wrapped.
    Frames(Box<Frames>),
}

#[derive(Debug, Default)]
struct Frames {
    framer: amazon_event_stream::Framer,
    unwrapper: Unwrapper,
}

impl ResponseReader {
    /// A reader for a response with this head.
    pub fn new(format: &Format, response: &ResponseHead<'_>) -> Self {
        let ResponseHead { media_type, coding, headers, .. } = *response;
        let framing = match media_type {
            MediaType::EventStream => Framing::Events(Box::default()),
            MediaType::JsonLines => Framing::Lines,
            MediaType::AmazonEventStream => Framing::Frames(Box::default()),
            MediaType::Json | MediaType::Other => Framing::Json,
        };
        let is_streamed = !matches!(framing, Framing::Json);
        let mut generation = Generation::default();
        if let Some(head) = format.head {
            head(&mut generation, headers);
        }
        let reader = DocumentReader::new(PathTree::new(format.paths));
        let body = Body { generation, fold: format.fold, reader, framing, is_unreadable: false };
        let unit = match media_type {
            MediaType::EventStream => Some(Unit::Event),
            MediaType::JsonLines => Some(Unit::Line),
            MediaType::AmazonEventStream => Some(Unit::Message),
            MediaType::Json | MediaType::Other => None,
        };
        let unit = unit.filter(|_| coding == ContentCoding::Identity);
        Self { body: Decoder::new(coding, body).map_err(|body| body.generation), is_streamed, unit }
    }

    /// Reads the next bytes.
    pub fn feed(&mut self, chunk: &[u8]) {
        if let Ok(decoder) = &mut self.body {
            decoder.feed(chunk);
        }
    }

    /// Whether the response came as a stream of documents.
    pub fn is_streamed(&self) -> bool {
        self.is_streamed
    }

    /// What the response may be cut behind; `None` if it is no stream without a coding.
    pub fn unit(&self) -> Option<Unit> {
        self.unit
    }

    /// Whether the generation has come to its end, whatever may still follow.
    pub fn is_finished(&mut self) -> bool {
        let of_body =
            |generation: &Generation| generation.is_finished || generation.stage == Stage::Final;
        match &mut self.body {
            Ok(decoder) => of_body(&decoder.sink().generation),
            Err(generation) => of_body(generation),
        }
    }

    /// The response has ended: what it has told, and whether it could be read.
    pub fn end(mut self) -> (Generation, bool) {
        match &mut self.body {
            Ok(decoder) => {
                let is_broken = decoder.is_broken();
                let mut body = decoder.sink();
                body.end();
                let generation = core::mem::take(&mut body.generation);
                (generation, !is_broken && !body.is_unreadable)
            }
            Err(generation) => (core::mem::take(generation), false),
        }
    }
}

impl DecodedBytes for Body {
    fn decoded(&mut self, piece: &[u8]) {
        let Self { generation, fold, reader, framing, .. } = self;
        match framing {
            Framing::Json => {
                reader.feed(piece, &mut |document| fold(generation, document));
            }
            Framing::Events(framer) => {
                framer.feed(piece, &mut EventSink { reader, generation, fold: *fold });
            }
            Framing::Frames(frames) => {
                let Frames { framer, unwrapper } = frames.as_mut();
                framer.feed(piece, &mut FrameSink { unwrapper, reader, generation, fold: *fold });
            }
            Framing::Lines => {
                // JSON escapes line breaks, so that one is the end of a text.
                for (at, line) in piece.split(|byte| *byte == b'\n').enumerate() {
                    if at > 0 {
                        reader.restart();
                    }
                    reader.feed(line, &mut |document| fold(generation, document));
                }
            }
        }
    }
}

impl Body {
    fn end(&mut self) {
        match &self.framing {
            // A text that is cut is no failure, and clients pass over an event that is none.
            Framing::Json => self.is_unreadable |= self.reader.is_unreadable(),
            // An event without the blank line behind it was sent nevertheless, and its tokens were used.
            Framing::Events(framer) if framer.has_pending_data() => {
                fold_event(&mut self.generation, self.fold, &self.reader);
            }
            Framing::Frames(frames) if frames.framer.is_broken() => {
                self.is_unreadable = true;
                // What was passed over may have told more.
                if self.generation.stage == Stage::Final {
                    self.generation.stage = Stage::Open;
                }
            }
            Framing::Events(_) | Framing::Lines | Framing::Frames(_) => {}
        }
    }
}

/// Takes in the data of an event. What is no JSON, such as `[DONE]`, or is cut, tells nothing.
fn fold_event(
    generation: &mut Generation,
    fold: fn(&mut Generation, &Document),
    reader: &DocumentReader,
) {
    if reader.progress() == Progress::Complete && reader.document().is_object() {
        fold(generation, reader.document());
    }
}

/// Reads the data of server-sent events.
struct EventSink<'a> {
    reader: &'a mut DocumentReader,
    generation: &'a mut Generation,
    fold: fn(&mut Generation, &Document),
}

impl sse::SseHandler for EventSink<'_> {
    fn data(&mut self, piece: &[u8]) {
        self.reader.feed(piece, &mut |_| {});
    }

    fn dispatch(&mut self, _event_type: EventType) {
        fold_event(self.generation, self.fold, self.reader);
        self.reader.restart();
    }
}

/// Reads the messages of an Amazon event stream; exceptions tell nothing.
struct FrameSink<'a> {
    unwrapper: &'a mut Unwrapper,
    reader: &'a mut DocumentReader,
    generation: &'a mut Generation,
    fold: fn(&mut Generation, &Document),
}

impl amazon_event_stream::FrameHandler for FrameSink<'_> {
    fn payload(&mut self, headers: &MessageHeaders, piece: &[u8]) {
        if headers.event_type == bedrock_chunks::EVENT_TYPE {
            let reader = &mut *self.reader;
            self.unwrapper.feed(piece, &mut |piece| {
                reader.feed(piece, &mut |_| {});
            });
        } else {
            self.reader.feed(piece, &mut |_| {});
        }
    }

    fn dispatch(&mut self, headers: &MessageHeaders) {
        let is_wrapped = headers.event_type == bedrock_chunks::EVENT_TYPE;
        let is_whole = !is_wrapped || self.unwrapper.end();
        if is_whole && headers.is_event() {
            self.reader.set_event_type(&headers.event_type);
            fold_event(self.generation, self.fold, self.reader);
        }
        self.reader.restart();
    }
}
