//! Reads what a response body says about calls: JSON or server-sent events, plain or with a content
//! coding.

use crate::base::limits::{CALLS_PER_EXCHANGE_MAX, ENDPOINT_BYTES_MAX, STREAM_EVENTS_MAX};
use crate::domain::call::Transport;
use crate::protocol::mcp::answer_text::AnswerText;
use crate::protocol::mcp::message::{Message, Method};
use crate::protocol::mcp::message_reader::MessageReader;
use crate::protocol::mcp::reported::ReportReader;
use crate::protocol::mcp::reported_usage::ReportedUsage;
use crate::wire::decode_budget::DecodeShare;
use crate::wire::encoding::{ContentCoding, DecodedBytes, Decoder};
use crate::wire::json::Progress;
use crate::wire::media_type::MediaType;
use crate::wire::sse;
use crate::wire::sse::EventType;

/// Reads one response body, chunk by chunk.
#[derive(Debug)]
pub struct McpResponseBody {
    decoder: Decoder<Body>,
}

/// The body without its coding.
#[derive(Debug)]
struct Body {
    format: Format,
    reports: Option<Box<ReportReader>>,
    /// Names the last event; 0 without one.
    event: u64,
    items: ResponseItems,
}

/// What a piece of a body contained.
#[derive(Debug, Default)]
pub struct ResponseItems {
    /// Responses, and notifications about tasks.
    pub messages: Vec<ServerMessage>,
    /// The ids of the last events, as hashes, the latest last.
    pub(crate) events: Vec<u64>,
    /// The endpoint in an `endpoint` event (2024-11-05).
    pub endpoint: Option<Vec<u8>>,
}

/// A message of the server, and what tells it from others that carry the same id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMessage {
    /// The message.
    pub message: Message,
    /// A hash of its text; 0 if it is one of several in a list.
    pub(crate) text: u64,
    /// A hash of the id of its event; 0 without one.
    pub(crate) event: u64,
}

#[derive(Debug)]
enum Format {
    Json { reader: Box<MessageReader>, text: AnswerText },
    Events { framer: Box<sse::Framer>, event: Box<EventReader> },
}

impl McpResponseBody {
    /// Creates a reader for a body; `None` if the filter cannot decode its coding.
    pub fn new(
        coding: ContentCoding,
        media_type: MediaType,
        rules: &ReportedUsage,
    ) -> Option<Self> {
        let format = match media_type {
            MediaType::EventStream => {
                Format::Events { framer: Box::default(), event: Box::default() }
            }
            // Some servers send JSON-RPC without declaring it; a text that is not JSON fails at its
            // first byte.
            MediaType::Json
            | MediaType::Other
            | MediaType::JsonLines
            | MediaType::AmazonEventStream => {
                Format::Json { reader: Box::default(), text: AnswerText::default() }
            }
        };
        let decoder = Decoder::new(
            coding,
            Body {
                format,
                reports: ReportReader::new(rules).map(Box::new),
                event: 0,
                items: ResponseItems::default(),
            },
        )
        .ok()?;
        Some(Self { decoder })
    }

    /// Lets the reader decode no more than this share allows.
    pub(crate) fn limit(&mut self, share: &DecodeShare) {
        self.decoder.limit(share);
    }

    /// Reads the next bytes and returns what ends in them.
    pub fn feed(&mut self, chunk: &[u8]) -> ResponseItems {
        self.decoder.feed(chunk);
        core::mem::take(&mut self.decoder.sink().items)
    }

    /// How the server sends its responses.
    pub fn transport(&mut self) -> Transport {
        match self.decoder.sink().format {
            Format::Json { .. } => Transport::Json,
            Format::Events { .. } => Transport::Sse,
        }
    }

    /// Whether the body could not be decoded.
    pub(crate) fn is_undecodable(&self) -> bool {
        self.decoder.is_broken()
    }

    /// Whether the body could not be parsed.
    pub fn is_unreadable(&mut self) -> bool {
        let is_no_json = match &self.decoder.sink().format {
            Format::Json { reader, .. } => reader.progress() == Progress::Failed,
            Format::Events { .. } => false,
        };
        is_no_json || self.decoder.is_broken()
    }
}

impl ResponseItems {
    fn add(&mut self, messages: Vec<Message>, text: u64, event: u64) {
        let messages = messages.into_iter();
        self.messages.extend(messages.map(|message| ServerMessage { message, text, event }));
    }
}

impl DecodedBytes for Body {
    fn decoded(&mut self, piece: &[u8]) {
        let Self { format, reports, event: last, items } = self;
        match format {
            Format::Json { reader, text } => {
                let mut messages = Vec::new();
                let read = feed(reader, reports, piece, &mut messages);
                text.feed(piece.get(..read).unwrap_or(piece));
                items.add(messages, text.value(), 0);
            }
            Format::Events { framer, event } => {
                framer.feed(piece, &mut EventSink { event, reports, last, items });
            }
        }
    }
}

/// Reads the data of one server-sent event, and keeps its messages until the event is dispatched:
/// clients do not see an event that the end of the stream cuts off.
#[derive(Clone, Debug, Default)]
struct EventReader {
    reader: MessageReader,
    messages: Vec<Message>,
    /// The first bytes of the data: enough to hold an endpoint.
    text: Vec<u8>,
    hash: AnswerText,
}

struct EventSink<'a> {
    event: &'a mut EventReader,
    reports: &'a mut Option<Box<ReportReader>>,
    /// Names the last event.
    last: &'a mut u64,
    items: &'a mut ResponseItems,
}

impl sse::SseHandler for EventSink<'_> {
    fn data(&mut self, piece: &[u8]) {
        let EventReader { reader, messages, text, hash } = &mut *self.event;
        let room = ENDPOINT_BYTES_MAX.saturating_sub(text.len());
        text.extend_from_slice(piece.get(..room).unwrap_or(piece));
        let read = feed(reader, self.reports, piece, messages);
        hash.feed(piece.get(..read).unwrap_or(piece));
    }

    fn id(&mut self, hash: u64) {
        *self.last = hash;
        let events = &mut self.items.events;
        if hash != 0 {
            if events.len() >= STREAM_EVENTS_MAX {
                events.remove(0);
            }
            events.push(hash);
        }
    }

    fn dispatch(&mut self, event_type: EventType) {
        let event = core::mem::take(self.event);
        if let Some(reports) = self.reports {
            reports.restart();
        }
        match event_type {
            EventType::Message if event.reader.progress() == Progress::Complete => {
                self.items.add(event.messages, event.hash.value(), *self.last);
            }
            EventType::Endpoint => self.items.endpoint = Some(event.text),
            EventType::Message | EventType::Other => {}
        }
    }
}

/// Reads the next bytes; returns how many of them belong to the text.
fn feed(
    reader: &mut MessageReader,
    reports: &mut Option<Box<ReportReader>>,
    piece: &[u8],
    messages: &mut Vec<Message>,
) -> usize {
    // A message and its report end with the same byte, so the report is read first.
    if let Some(reports) = reports {
        reports.feed(piece);
    }
    reader.feed(piece, &mut |mut message: Message| {
        let is_relevant = message.is_answer() || message.method == Method::TaskNotification;
        if is_relevant && messages.len() < CALLS_PER_EXCHANGE_MAX {
            if let (Some(reports), Some(id)) = (reports.as_mut(), &message.id) {
                message.reported = reports.take(id);
            }
            messages.push(message);
        }
    })
}
