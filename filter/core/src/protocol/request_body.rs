//! Reads the messages out of a request's body: JSON, plain or coded.

use crate::protocol::mcp::message::{Message, MessageReader};
use crate::wire::encoding::{ContentCoding, Decoder, Sink};
use crate::wire::json::Progress;

/// Reads one request body, chunk by chunk.
#[derive(Debug)]
pub struct RequestReader {
    /// `None` if the body's coding is not read.
    decoder: Option<Decoder<Body>>,
}

#[derive(Debug)]
struct Body {
    reader: MessageReader,
    messages: Vec<Message>,
}

impl Sink for Body {
    fn decoded(&mut self, piece: &[u8]) {
        let Self { reader, messages } = self;
        reader.feed(piece, &mut |message| messages.push(message.clone()));
    }
}

impl RequestReader {
    /// A reader for a body that hashes the arguments of calls, or does not.
    pub fn new(coding: ContentCoding, hashes_arguments: bool) -> Self {
        let body = Body { reader: MessageReader::new(hashes_arguments), messages: Vec::new() };
        Self { decoder: Decoder::new(coding, body).ok() }
    }

    /// Reads the next bytes; gives the messages that end in them.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Message> {
        let Some(decoder) = &mut self.decoder else { return Vec::new() };
        decoder.feed(chunk);
        core::mem::take(&mut decoder.sink().messages)
    }

    /// Whether nothing has come.
    pub fn is_empty(&mut self) -> bool {
        self.decoder.as_mut().is_some_and(|decoder| !decoder.sink().reader.has_started())
    }

    /// Whether the body, of which all has come, is something that this cannot read.
    pub fn is_unreadable(&mut self) -> bool {
        let Some(decoder) = &mut self.decoder else { return true };
        let is_broken = decoder.is_broken();
        let body = decoder.sink();
        let is_read = match body.reader.progress() {
            Progress::Complete => true,
            Progress::Open => !body.reader.has_started(),
            Progress::Failed => false,
        };
        is_broken || !is_read
    }
}
