//! Reads what is asked of an agent out of a request's body: JSON, plain or coded.

use crate::protocol::a2a::{Request, RequestReader, Route};
use crate::wire::encoding::{ContentCoding, Decoder, Sink};
use crate::wire::json::Progress;

/// Reads one request body, chunk by chunk.
#[derive(Debug)]
pub struct A2aRequestBody {
    /// `None` if the body's coding is not read.
    decoder: Option<Decoder<Body>>,
}

#[derive(Debug)]
struct Body {
    reader: RequestReader,
    requests: Vec<Request>,
}

impl Sink for Body {
    fn decoded(&mut self, piece: &[u8]) {
        let Self { reader, requests } = self;
        reader.feed(piece, &mut |request| requests.push(request.clone()));
    }
}

impl A2aRequestBody {
    /// A reader for the body of a request with this head.
    pub fn new(route: Route, coding: ContentCoding) -> Self {
        let body = Body { reader: RequestReader::new(route), requests: Vec::new() };
        Self { decoder: Decoder::new(coding, body).ok() }
    }

    /// Reads the next bytes; gives the requests that end in them: one in all, as A2A has no batches.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<Request> {
        let Some(decoder) = &mut self.decoder else { return Vec::new() };
        decoder.feed(chunk);
        core::mem::take(&mut decoder.sink().requests)
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
