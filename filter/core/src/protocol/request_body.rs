//! Reads messages out of the body of a request: JSON, plain or with a content coding.

use core::fmt::Debug;

use crate::wire::decode_budget::DecodeShare;
use crate::wire::doubt::Doubt;
use crate::wire::encoding::{ContentCoding, DecodedBytes, Decoder};
use crate::wire::headers::Headers;
use crate::wire::json::Progress;
use crate::wire::media_type::body_doubt;
use crate::wire::multipart::delimiter;
use crate::wire::utf8::Utf8Check;

/// Reads the messages of one protocol out of JSON, piece by piece.
pub trait ReadMessages: Debug + 'static {
    /// The content of one message.
    type Message: Clone + Debug;

    /// Reads the next bytes and calls `show` with each message that ends in them.
    fn feed(&mut self, piece: &[u8], show: &mut dyn FnMut(Self::Message));

    /// How far the JSON text has been read.
    fn progress(&self) -> Progress;

    /// Whether a more lenient reader may see another structure in what has been read.
    fn is_lax(&self) -> bool;

    /// Whether what has been read contains a value that is no message, such as a list in a list.
    fn has_other_values(&self) -> bool;
}

/// What the head of a request says about its body.
#[derive(Clone, Debug)]
pub struct BodyHead {
    /// Its content coding.
    pub coding: ContentCoding,
    /// What the head leaves open about how the server reads it.
    pub(crate) doubt: Option<Doubt>,
    /// How much of it the worker decodes.
    pub(crate) share: DecodeShare,
    /// The delimiter of its parts, if it is a form.
    pub(crate) form_delimiter: Option<Vec<u8>>,
}

impl BodyHead {
    /// Reads the head; the share has no limit.
    pub fn read(headers: Headers<'_>) -> Self {
        let (coding, share) = (ContentCoding::of(headers), DecodeShare::default());
        let mut types = headers.all("content-type");
        let is_plain_json = types.next() == Some(b"application/json") && types.next().is_none();
        if is_plain_json && coding == ContentCoding::Identity {
            return Self { coding, doubt: None, share, form_delimiter: None };
        }
        Self { coding, doubt: body_doubt(headers), share, form_delimiter: form_delimiter(headers) }
    }
}

/// The delimiter of a form; `None` if the body is none, or its media type comes twice.
fn form_delimiter(headers: Headers<'_>) -> Option<Vec<u8>> {
    let mut types = headers.all("content-type");
    let found = delimiter(types.next()?)?;
    types.next().is_none().then_some(found)
}

/// Reads one request body, chunk by chunk.
#[derive(Debug)]
pub struct RequestBody<R: ReadMessages> {
    /// `None` if the filter cannot decode the body's coding.
    decoder: Option<Decoder<Body<R>>>,
    /// What the head leaves open about the body.
    head_doubt: Option<Doubt>,
    has_coding: bool,
    /// The body has a coding, and begins like a text without one: a server that does not look at
    /// the coding may read the text.
    is_plain_too: bool,
    is_empty: bool,
}

#[derive(Debug)]
struct Body<R: ReadMessages> {
    reader: R,
    messages: Vec<R::Message>,
    utf8: Utf8Check,
}

impl<R: ReadMessages> DecodedBytes for Body<R> {
    fn decoded(&mut self, piece: &[u8]) {
        let Self { reader, messages, utf8 } = self;
        utf8.feed(piece);
        reader.feed(piece, &mut |message| messages.push(message));
    }
}

impl<R: ReadMessages> RequestBody<R> {
    /// Creates a reader for the body of a request with this head.
    pub fn new(reader: R, head: BodyHead) -> Self {
        let BodyHead { coding, doubt, share, .. } = head;
        let body = Body { reader, messages: Vec::new(), utf8: Utf8Check::default() };
        let mut decoder = Decoder::new(coding, body).ok();
        if let Some(decoder) = &mut decoder {
            decoder.limit(&share);
        }
        Self {
            decoder,
            head_doubt: doubt,
            has_coding: coding != ContentCoding::Identity,
            is_plain_too: false,
            is_empty: true,
        }
    }

    /// Reads the next bytes and returns the messages that end in them.
    pub fn feed(&mut self, chunk: &[u8]) -> Vec<R::Message> {
        if let (true, true, Some(first)) = (self.is_empty, self.has_coding, chunk.first()) {
            self.is_plain_too = matches!(first, b' ' | b'\t' | b'\n' | b'\r' | b'{' | b'[' | 0xEF);
        }
        self.is_empty &= chunk.is_empty();
        let Some(decoder) = &mut self.decoder else { return Vec::new() };
        decoder.feed(chunk);
        core::mem::take(&mut decoder.sink().messages)
    }

    /// Whether no byte of the body has come.
    pub fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Why the filter does not know for certain what the body says; `None` so far if it does, and
    /// for an empty body. At the end an incomplete text is one reason more.
    pub fn doubt(&mut self, is_end: bool) -> Option<Doubt> {
        if self.is_empty {
            return None;
        }
        let Some(decoder) = &mut self.decoder else { return Some(Doubt::Coding) };
        let is_plain_too = self.is_plain_too.then_some(Doubt::Undecodable);
        let failure = self.head_doubt.or(decoder.failure()).or(is_plain_too);
        let Body { reader, utf8, .. } = &*decoder.sink();
        let is_other_than_utf8 = if is_end { utf8.is_invalid_at_end() } else { utf8.is_invalid() };
        let is_other_than_json = match reader.progress() {
            Progress::Complete => reader.is_lax(),
            Progress::Open => is_end || reader.is_lax(),
            Progress::Failed => true,
        };
        failure
            .or(is_other_than_utf8.then_some(Doubt::NotUtf8))
            .or(is_other_than_json.then_some(Doubt::NotJson))
            .or(reader.has_other_values().then_some(Doubt::NotAMessage))
    }
}
