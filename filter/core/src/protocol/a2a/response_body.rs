//! Reads the response of an agent: JSON or server-sent events, plain or with a content coding.

use crate::base::limits::CALLS_PER_EXCHANGE_MAX;
use crate::domain::call::Transport;
use crate::protocol::a2a::{Answer, AnswerReader, Binding};
use crate::wire::decode_budget::DecodeShare;
use crate::wire::encoding::{ContentCoding, DecodedBytes, Decoder};
use crate::wire::json::Progress;
use crate::wire::media_type::MediaType;
use crate::wire::sse;
use crate::wire::sse::EventType;

/// Reads one response body, or what an agent pushes to its client, chunk by chunk.
#[derive(Debug)]
pub struct A2aResponseBody {
    decoder: Decoder<Body>,
}

/// The body without its coding.
#[derive(Debug)]
struct Body {
    reader: AnswerReader,
    /// `None` if the body is one JSON text.
    framer: Option<Box<sse::Framer>>,
    /// The answers in the event that the reader is in.
    event: Vec<Answer>,
    answers: Vec<Answer>,
}

impl A2aResponseBody {
    /// Creates a reader for a body; `None` if the filter cannot decode its coding. What an agent
    /// pushes has the form of [`Binding::Rest`].
    pub fn new(binding: Binding, coding: ContentCoding, media_type: MediaType) -> Option<Self> {
        let framer = match media_type {
            MediaType::EventStream => Some(Box::default()),
            MediaType::Json
            | MediaType::Other
            | MediaType::JsonLines
            | MediaType::AmazonEventStream => None,
        };
        let reader = AnswerReader::new(binding);
        let body = Body { reader, framer, event: Vec::new(), answers: Vec::new() };
        Some(Self { decoder: Decoder::new(coding, body).ok()? })
    }

    /// Lets the reader decode no more than this share allows.
    pub(crate) fn limit(&mut self, share: &DecodeShare) {
        self.decoder.limit(share);
    }

    /// Reads the next bytes and returns the answers that end in them. An event counts when it is
    /// dispatched: clients do not see an event that the end of the stream cuts off.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Answer> {
        self.decoder.feed(chunk);
        core::mem::take(&mut self.decoder.sink().answers)
    }

    /// How the agent sends its answers.
    pub fn transport(&mut self) -> Transport {
        if self.decoder.sink().framer.is_some() { Transport::Sse } else { Transport::Json }
    }

    /// Whether the body could not be parsed.
    pub fn is_unreadable(&mut self) -> bool {
        let is_broken = self.decoder.is_broken();
        let body = self.decoder.sink();
        is_broken || (body.framer.is_none() && body.reader.progress() == Progress::Failed)
    }
}

impl DecodedBytes for Body {
    fn decoded(&mut self, piece: &[u8]) {
        let Self { reader, framer, event, answers } = self;
        match framer {
            Some(framer) => framer.feed(piece, &mut EventSink { reader, event, answers }),
            None => reader.feed(piece, &mut |answer| keep(answers, answer)),
        }
    }
}

struct EventSink<'a> {
    reader: &'a mut AnswerReader,
    event: &'a mut Vec<Answer>,
    answers: &'a mut Vec<Answer>,
}

impl sse::SseHandler for EventSink<'_> {
    fn data(&mut self, piece: &[u8]) {
        self.reader.feed(piece, &mut |answer| keep(self.event, answer));
    }

    // The type of an event does not matter: most events have none, errors over HTTP+JSON have one.
    fn dispatch(&mut self, _event_type: EventType) {
        let is_whole = self.reader.progress() == Progress::Complete;
        if is_whole {
            self.answers.append(self.event);
        }
        self.event.clear();
        self.reader.restart();
    }
}

fn keep(answers: &mut Vec<Answer>, answer: &Answer) {
    if answers.len() < CALLS_PER_EXCHANGE_MAX {
        answers.push(answer.clone());
    }
}
