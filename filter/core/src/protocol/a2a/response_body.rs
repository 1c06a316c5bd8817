//! Reads what an agent answers: JSON or server-sent events, plain or coded.

use crate::base::limits::CALLS_PER_EXCHANGE_MAX;
use crate::domain::call::Transport;
use crate::protocol::a2a::{Answer, AnswerReader, Binding};
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
    /// What the event that is being read tells.
    event: Vec<Answer>,
    answers: Vec<Answer>,
}

impl A2aResponseBody {
    /// A reader for a body, or `None` if its coding is not read. What is pushed has the form of
    /// [`Binding::Rest`].
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

    /// Reads the next bytes; gives the answers that end in them. An event counts when it is dispatched: clients do
    /// not see one that the stream's end cuts off.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Answer> {
        self.decoder.feed(chunk);
        core::mem::take(&mut self.decoder.sink().answers)
    }

    /// How the answers come.
    pub fn transport(&mut self) -> Transport {
        if self.decoder.sink().framer.is_some() { Transport::Sse } else { Transport::Json }
    }

    /// Whether the body turned out to be nothing that this can read.
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

    // An event's type tells nothing: most have none, errors over HTTP+JSON are named.
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
