//! Reads a request for a generation: the model, and how the client wants the response.

use crate::base::time::len_u64;
use crate::domain::usage::ServiceTier;
use crate::protocol::document::{Document, DocumentReader, Field, PathTree, Paths};
use crate::protocol::llm::generation::service_tier;
use crate::wire::decode_budget::DecodeShare;
use crate::wire::encoding::{ContentCoding, DecodedBytes, Decoder};

const PATHS: &Paths = &[
    ("model", Field::Model),
    ("stream", Field::Stream),
    ("service_tier", Field::Tier),
    // Gemini, and Bedrock.
    ("serviceTier", Field::Tier),
    ("serviceTier.type", Field::Tier),
    ("background", Field::Background),
    // Responses: an id, or an object with one.
    ("conversation", Field::Conversation),
    ("conversation.id", Field::Conversation),
];

/// What a client asks for in a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// The model, as the client names it.
    pub model: Option<String>,
    /// True if the client asks for a stream.
    pub is_streamed: bool,
    /// True if the client will fetch the result later.
    pub is_background: bool,
    /// The conversation that the request continues.
    pub conversation: Option<String>,
    /// The tier that the client asks for.
    pub service_tier: Option<ServiceTier>,
}

/// Reads one request body, chunk by chunk.
#[derive(Debug)]
pub struct LlmRequestBody {
    /// `None` if the filter cannot decode the body's coding.
    decoder: Option<Decoder<Body>>,
    bytes: u64,
}

#[derive(Debug)]
struct Body(DocumentReader);

impl DecodedBytes for Body {
    fn decoded(&mut self, piece: &[u8]) {
        self.0.feed(piece, &mut |_| {});
    }
}

impl LlmRequestBody {
    /// Creates a reader for a body in this coding.
    pub fn new(coding: ContentCoding) -> Self {
        let reader = DocumentReader::new(PathTree::new(&[PATHS]));
        Self { decoder: Decoder::new(coding, Body(reader)).ok(), bytes: 0 }
    }

    /// Lets the reader decode no more than this share allows.
    pub(crate) fn limit(&mut self, share: &DecodeShare) {
        if let Some(decoder) = &mut self.decoder {
            decoder.limit(share);
        }
    }

    /// Reads the next bytes.
    pub fn feed(&mut self, chunk: &[u8]) {
        self.bytes = self.bytes.saturating_add(len_u64(chunk.len()));
        if let Some(decoder) = &mut self.decoder {
            decoder.feed(chunk);
        }
    }

    /// What the reader has found so far.
    pub fn requested(&mut self) -> Requested {
        let read = |document: &Document| Requested {
            model: document.text(Field::Model).map(|model| model.into_owned()),
            is_streamed: document.is_true(Field::Stream),
            is_background: document.is_true(Field::Background),
            conversation: document.text(Field::Conversation).map(|id| id.into_owned()),
            service_tier: document.text(Field::Tier).map(|tier| service_tier(&tier)),
        };
        let decoder = self.decoder.as_mut();
        decoder.map(|decoder| read(decoder.sink().0.document())).unwrap_or_default()
    }

    /// The size of the body so far, in bytes before decoding.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
