//! Reads what a response reports about a generation as it passes: JSON, a streamed array,
//! server-sent events, JSON lines or an Amazon event stream, plain or with a content coding.

use crate::protocol::document_reader::DocumentReader;
use crate::protocol::llm::bedrock_chunks::Unwrapper;
use crate::protocol::llm::generation::{Fold, Format, Generation, Stage};
use crate::protocol::llm::{bedrock_chunks, runs, units};
use crate::protocol::path_tree::PathTree;
use crate::wire::amazon_event_stream::MessageHeaders;
use crate::wire::boundary::Unit;
use crate::wire::decode_budget::DecodeShare;
use crate::wire::encoding::{ContentCoding, DecodedBytes, Decoder};
use crate::wire::http::ResponseHead;
use crate::wire::json::Progress;
use crate::wire::media_type::{MediaType, is_media};
use crate::wire::sse::EventType;
use crate::wire::{amazon_event_stream, sse};

/// Reads one response, chunk by chunk.
#[derive(Debug)]
pub struct ResponseReader {
    /// The body; or what the head alone reported, if the filter cannot decode the body's coding.
    body: Result<Decoder<Body>, Generation>,
    /// The unit behind which the filter may cut the response.
    unit: Option<Unit>,
}

/// The body without its coding.
#[derive(Debug)]
struct Body {
    generation: Generation,
    fold: Fold,
    reader: DocumentReader,
    /// As the media type says, until the first bytes say otherwise.
    framing: Framing,
    /// The first bytes, until they tell the framing.
    start: Option<Vec<u8>>,
    is_unreadable: bool,
}

#[derive(Debug)]
enum Framing {
    /// One JSON text, perhaps an array of documents; or several, of which the media type knows
    /// nothing.
    Json(Texts),
    /// Server-sent events, each with a JSON text.
    Events(Box<sse::Framer>),
    /// JSON lines: one JSON text in each line.
    Lines,
    /// Messages of an Amazon event stream, each with a JSON text, which may be wrapped.
    Frames(Box<Frames>),
}

/// JSON texts one after another.
#[derive(Debug, Default)]
struct Texts {
    /// True if one of them was whole.
    has_whole: bool,
}

impl Texts {
    fn read(
        &mut self,
        mut piece: &[u8],
        reader: &mut DocumentReader,
        generation: &mut Generation,
        fold: Fold,
    ) {
        loop {
            if reader.progress() == Progress::Complete {
                piece = piece.trim_ascii_start();
                if piece.is_empty() || reader.is_unreadable() {
                    return;
                }
                self.has_whole = true;
                generation.is_streamed = true;
                reader.restart();
            }
            let read = reader.feed(piece, &mut |document| generation.apply(fold, document));
            piece = piece.get(read..).unwrap_or_default();
            if reader.progress() != Progress::Complete {
                return;
            }
        }
    }
}

/// The length of the longest name of a field of an event, with its colon.
const FIELD_BYTES_MAX: usize = 6;

/// What the first bytes of a body show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// A JSON object or array.
    Json,
    /// A field of a server-sent event, or a comment.
    Events,
    /// A frame of an Amazon event stream, whose length has leading zeros.
    Frames,
    /// None of these.
    Unclear,
}

/// What the first bytes of a body show; `None` if that takes more of them. `earlier` are those that
/// have come, fewer than the name of a field has.
fn sign(earlier: &[u8], piece: &[u8]) -> Option<Sign> {
    let text: Vec<u8> = earlier.iter().chain(piece).take(FIELD_BYTES_MAX).copied().collect();
    let fields = ["data:", "event:", "id:", "retry:"].map(str::as_bytes);
    match text.first()? {
        b'{' | b'[' => Some(Sign::Json),
        b':' => Some(Sign::Events),
        0 => Some(Sign::Frames),
        _ if fields.iter().any(|field| text.starts_with(field)) => Some(Sign::Events),
        _ if fields.iter().any(|field| field.starts_with(&text)) => None,
        _ => Some(Sign::Unclear),
    }
}

/// Leaves out what may stand before any body: a byte order mark, and the white space with which some
/// servers keep a connection alive.
fn without_padding(piece: &[u8]) -> &[u8] {
    let is_padding = |byte: &u8| byte.is_ascii_whitespace() || b"\xef\xbb\xbf".contains(byte);
    let at = piece.iter().position(|byte| !is_padding(byte)).unwrap_or(piece.len());
    piece.get(at..).unwrap_or_default()
}

#[derive(Debug, Default)]
struct Frames {
    framer: amazon_event_stream::Framer,
    unwrapper: Unwrapper,
    /// True if an event could not be read, which may have reported more.
    has_lost: bool,
}

impl ResponseReader {
    /// Creates a reader for a response with this head.
    pub fn new(format: &Format, response: &ResponseHead<'_>) -> Self {
        let ResponseHead { media_type, coding, headers, .. } = *response;
        let framing = match media_type {
            MediaType::EventStream => Framing::Events(Box::default()),
            MediaType::JsonLines => Framing::Lines,
            MediaType::AmazonEventStream => Framing::Frames(Box::default()),
            MediaType::Json | MediaType::Other => Framing::Json(Texts::default()),
        };
        let is_streamed = !matches!(framing, Framing::Json(_));
        let reported_cost = units::reported_cost_in(headers);
        let is_binary = headers.get("content-type").is_some_and(is_media);
        let mut generation =
            Generation { is_streamed, is_binary, reported_cost, ..Generation::default() };
        if let Some(head) = format.head {
            head(&mut generation, headers);
        }
        let reader = DocumentReader::new(PathTree::new(format.paths));
        let start = Some(Vec::new());
        let fold = format.fold;
        let body = Body { generation, fold, reader, framing, start, is_unreadable: false };
        let unit = match media_type {
            MediaType::EventStream => Some(Unit::Event),
            MediaType::JsonLines => Some(Unit::Line),
            MediaType::AmazonEventStream => Some(Unit::Message),
            MediaType::Json | MediaType::Other => None,
        };
        let unit = unit.filter(|_| coding == ContentCoding::Identity);
        Self { body: Decoder::new(coding, body).map_err(|body| body.generation), unit }
    }

    /// Lets the reader decode no more than this share allows.
    pub(crate) fn limit(&mut self, share: &DecodeShare) {
        if let Ok(decoder) = &mut self.body {
            decoder.limit(share);
        }
    }

    /// Reads the next bytes.
    pub fn feed(&mut self, chunk: &[u8]) {
        if let Ok(decoder) = &mut self.body {
            decoder.feed(chunk);
        }
    }

    /// Whether the response is a stream of documents.
    pub fn is_streamed(&mut self) -> bool {
        match &mut self.body {
            Ok(decoder) => decoder.sink().generation.is_streamed,
            Err(generation) => generation.is_streamed,
        }
    }

    /// The unit behind which the filter may cut the response; `None` if it is not a stream, or has
    /// a content coding.
    pub fn unit(&self) -> Option<Unit> {
        self.unit
    }

    /// Whether the generation has ended, whatever may still follow.
    pub fn is_finished(&mut self) -> bool {
        let of_body =
            |generation: &Generation| generation.is_finished || generation.stage == Stage::Final;
        match &mut self.body {
            Ok(decoder) => of_body(&decoder.sink().generation),
            Err(generation) => of_body(generation),
        }
    }

    /// Ends the response. Returns what it reported, and whether the reader could read it.
    pub fn end(mut self) -> (Generation, bool) {
        match &mut self.body {
            Ok(decoder) => {
                let is_broken = decoder.is_broken();
                let mut body = decoder.sink();
                body.end();
                let mut generation = core::mem::take(&mut body.generation);
                runs::finish(&mut generation);
                (generation, !is_broken && !body.is_unreadable)
            }
            Err(generation) => (core::mem::take(generation), false),
        }
    }
}

impl DecodedBytes for Body {
    fn decoded(&mut self, piece: &[u8]) {
        if self.generation.is_binary {
            return;
        }
        let Some(earlier) = self.start.take() else { return self.read(piece) };
        let piece = if earlier.is_empty() { without_padding(piece) } else { piece };
        let Some(sign) = sign(&earlier, piece) else {
            self.start = Some([earlier.as_slice(), piece].concat());
            return;
        };
        self.reframe(sign);
        self.read(&earlier);
        self.read(piece);
    }
}

impl Body {
    /// Chooses the framing that the first bytes show, whatever the media type says.
    fn reframe(&mut self, sign: Sign) {
        match (sign, &self.framing) {
            (Sign::Events, Framing::Json(_) | Framing::Lines) => {
                self.framing = Framing::Events(Box::default());
            }
            (Sign::Frames, Framing::Json(_)) => self.framing = Framing::Frames(Box::default()),
            (Sign::Json, Framing::Events(_)) => self.framing = Framing::Json(Texts::default()),
            _ => return,
        }
        self.generation.is_streamed = !matches!(self.framing, Framing::Json(_));
    }

    fn read(&mut self, piece: &[u8]) {
        let Self { generation, fold, reader, framing, .. } = self;
        match framing {
            Framing::Json(texts) => texts.read(piece, reader, generation, *fold),
            Framing::Events(framer) => {
                framer.feed(piece, &mut EventSink { reader, generation, fold: *fold });
            }
            Framing::Frames(frames) => {
                let Frames { framer, unwrapper, has_lost } = frames.as_mut();
                let fold = *fold;
                framer
                    .feed(piece, &mut FrameSink { unwrapper, has_lost, reader, generation, fold });
            }
            Framing::Lines => {
                // JSON escapes line breaks, so a line break always ends a text.
                for (at, line) in piece.split(|byte| *byte == b'\n').enumerate() {
                    if at > 0 {
                        reader.restart();
                    }
                    reader.feed(line, &mut |document| generation.apply(*fold, document));
                }
            }
        }
    }

    fn end(&mut self) {
        if let Some(start) = self.start.take() {
            self.read(&start);
        }
        let Self { generation, fold, reader, framing, .. } = self;
        match framing {
            Framing::Json(_) | Framing::Lines => fold_cut(generation, *fold, reader),
            // The server sent this event, although the blank line behind it is missing, and used
            // its tokens.
            Framing::Events(framer) if framer.has_pending_data() => {
                fold_event(generation, *fold, reader);
                fold_cut(generation, *fold, reader);
            }
            // Bytes of a message are not to be trusted before its check sum.
            Framing::Events(_) | Framing::Frames(_) => {}
        }
        match &self.framing {
            // A text that is cut off is still readable. Events are not checked, because clients
            // skip an event that is not JSON.
            Framing::Json(texts) => {
                self.is_unreadable |= !texts.has_whole && self.reader.is_unreadable();
            }
            Framing::Frames(frames) => {
                // What the reader skipped may have reported more.
                if frames.framer.is_broken() {
                    reopen(&mut self.generation);
                }
                let has_lost = frames.framer.is_broken() || frames.has_lost;
                self.is_unreadable |= has_lost && self.generation.stage != Stage::Final;
            }
            Framing::Events(_) | Framing::Lines => {}
        }
    }
}

/// Takes back that everything was reported.
fn reopen(generation: &mut Generation) {
    generation.is_finished = false;
    if generation.stage == Stage::Final {
        generation.stage = Stage::Open;
    }
}

/// Applies the data of an event. Ignores data that is cut off or is not JSON, such as `[DONE]`.
fn fold_event(generation: &mut Generation, fold: Fold, reader: &DocumentReader) {
    if reader.progress() == Progress::Complete && reader.document().is_object() {
        generation.apply(fold, reader.document());
    }
}

/// Applies what came of a document that was cut off. Whatever it says of its end, its usage may not
/// be all: the members behind the cut may have told more.
fn fold_cut(generation: &mut Generation, fold: Fold, reader: &mut DocumentReader) {
    let Some(document) = reader.cut_document() else { return };
    let (stage, is_finished) = (generation.stage, generation.is_finished);
    generation.apply(fold, document);
    generation.is_finished = is_finished;
    if generation.stage == Stage::Final {
        generation.stage = stage;
    }
}

/// Reads the data of server-sent events.
struct EventSink<'a> {
    reader: &'a mut DocumentReader,
    generation: &'a mut Generation,
    fold: Fold,
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

/// Reads the messages of an Amazon event stream; ignores exceptions.
struct FrameSink<'a> {
    unwrapper: &'a mut Unwrapper,
    has_lost: &'a mut bool,
    reader: &'a mut DocumentReader,
    generation: &'a mut Generation,
    fold: Fold,
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
        let is_unwrapped = !is_wrapped || self.unwrapper.end();
        let is_whole = is_unwrapped && !self.reader.is_unreadable() && !self.reader.is_within();
        if headers.is_event() && !is_whole {
            *self.has_lost = true;
            // Only a later event can tell for certain that nothing is missing.
            reopen(self.generation);
        }
        if is_whole && headers.is_event() {
            self.reader.set_event_type(&headers.event_type);
            fold_event(self.generation, self.fold, self.reader);
        }
        self.reader.restart();
    }
}
