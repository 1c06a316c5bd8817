//! Reads messages out of the body of a request: JSON, plain or with a content coding.

use core::fmt::Debug;

use crate::wire::encoding::{ContentCoding, DecodedBytes, Decoder};
use crate::wire::json::Progress;

/// Reads the messages of one protocol out of JSON, piece by piece.
pub trait ReadMessages: Debug + 'static {
    /// The content of one message.
    type Message: Clone + Debug;

    /// Reads the next bytes and calls `show` with each message that ends in them.
    fn feed(&mut self, piece: &[u8], show: &mut dyn FnMut(&Self::Message));

    /// Whether the JSON text has started, apart from white space.
    fn has_started(&self) -> bool;

    /// How far the JSON text has been read.
    fn progress(&self) -> Progress;
}

/// Reads one request body, chunk by chunk.
#[derive(Debug)]
pub struct RequestBody<R: ReadMessages> {
    /// `None` if the filter cannot decode the body's coding.
    decoder: Option<Decoder<Body<R>>>,
}

#[derive(Debug)]
struct Body<R: ReadMessages> {
    reader: R,
    messages: Vec<R::Message>,
}

impl<R: ReadMessages> DecodedBytes for Body<R> {
    fn decoded(&mut self, piece: &[u8]) {
        let Self { reader, messages } = self;
        reader.feed(piece, &mut |message| messages.push(message.clone()));
    }
}

impl<R: ReadMessages> RequestBody<R> {
    /// Creates a reader for a body in this coding.
    pub fn new(reader: R, coding: ContentCoding) -> Self {
        Self { decoder: Decoder::new(coding, Body { reader, messages: Vec::new() }).ok() }
    }

    /// Reads the next bytes and returns the messages that end in them.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<R::Message> {
        let Some(decoder) = &mut self.decoder else { return Vec::new() };
        decoder.feed(chunk);
        core::mem::take(&mut decoder.sink().messages)
    }

    /// Whether the body is empty so far. False if the filter cannot decode its coding.
    pub fn is_empty(&mut self) -> bool {
        self.decoder.as_mut().is_some_and(|decoder| !decoder.sink().reader.has_started())
    }

    /// Whether the complete body could not be parsed.
    pub fn is_unreadable(&mut self) -> bool {
        let Some(decoder) = &mut self.decoder else { return true };
        let is_broken = decoder.is_broken();
        let reader = &decoder.sink().reader;
        let is_read = match reader.progress() {
            Progress::Complete => true,
            Progress::Open => !reader.has_started(),
            Progress::Failed => false,
        };
        is_broken || !is_read
    }
}
