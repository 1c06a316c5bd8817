//! Reads a request for a generation: the model, and how the client wants the response.

use crate::base::limits::{BYTES_PER_TOKEN, DATA_BYTES_PER_TOKEN, TEXT_BLOCK_BYTES};
use crate::base::time::len_u64;
use crate::domain::price_factors::{Modifiers, ServiceTier};
use crate::protocol::document::{Document, DocumentReader};
use crate::protocol::llm::generation::modifiers;
use crate::protocol::paths::{Field, PathTree, Paths};
use crate::wire::decode_budget::DecodeShare;
use crate::wire::encoding::{ContentCoding, DecodedBytes, Decoder};

const PATHS: &Paths = &[
    ("model", Field::Model),
    // watsonx, and OCI.
    ("model_id", Field::Model),
    ("servingMode.modelId", Field::Model),
    ("stream", Field::Stream),
    ("service_tier", Field::Tier),
    // Gemini, and Bedrock.
    ("serviceTier", Field::Tier),
    ("serviceTier.type", Field::Tier),
    ("performanceConfig.latency", Field::Latency),
    // Anthropic.
    ("speed", Field::Speed),
    ("inference_geo", Field::InferenceGeo),
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
    /// What else moves the price of what the client asks for.
    pub modifiers: Modifiers,
}

/// Reads one request body, chunk by chunk.
#[derive(Debug)]
pub struct LlmRequestBody {
    /// `None` if the filter cannot decode the body's coding.
    decoder: Option<Decoder<Body>>,
    /// Bytes that the reader could not decode.
    bytes: u64,
}

#[derive(Debug)]
struct Body {
    reader: DocumentReader,
    size: TextSize,
}

impl DecodedBytes for Body {
    fn decoded(&mut self, piece: &[u8]) {
        self.reader.feed(piece, &mut |_| {});
        self.size.add(piece);
    }
}

/// How many bytes of a body are text, and how many are encoded data. A block is text if it holds a
/// byte that base64 does not have and that no long text lacks.
#[derive(Debug, Default)]
struct TextSize {
    text: u64,
    data: u64,
    block: usize,
    is_text: bool,
}

impl TextSize {
    fn add(&mut self, mut piece: &[u8]) {
        while !piece.is_empty() {
            let room = TEXT_BLOCK_BYTES.saturating_sub(self.block);
            let (part, rest) = piece.split_at(room.min(piece.len()));
            self.is_text = self.is_text
                || memchr::memchr3(b' ', b',', b'\\', part).is_some()
                || !part.is_ascii();
            self.block = self.block.saturating_add(part.len());
            if self.block == TEXT_BLOCK_BYTES {
                let size = if self.is_text { &mut self.text } else { &mut self.data };
                *size = size.saturating_add(len_u64(self.block));
                (self.block, self.is_text) = (0, false);
            }
            piece = rest;
        }
    }

    fn tokens(&self) -> u64 {
        let text = self.text.saturating_add(len_u64(self.block));
        text.div_ceil(BYTES_PER_TOKEN).saturating_add(self.data / DATA_BYTES_PER_TOKEN)
    }
}

impl LlmRequestBody {
    /// Creates a reader for a body in this coding.
    pub fn new(coding: ContentCoding) -> Self {
        let reader = DocumentReader::new(PathTree::new(&[PATHS]));
        let body = Body { reader, size: TextSize::default() };
        Self { decoder: Decoder::new(coding, body).ok(), bytes: 0 }
    }

    /// Lets the reader decode no more than this share allows.
    pub(crate) fn limit(&mut self, share: &DecodeShare) {
        if let Some(decoder) = &mut self.decoder {
            decoder.limit(share);
        }
    }

    /// Reads the next bytes.
    pub fn feed(&mut self, chunk: &[u8]) {
        match &mut self.decoder {
            Some(decoder) => decoder.feed(chunk),
            None => self.bytes = self.bytes.saturating_add(len_u64(chunk.len())),
        }
    }

    /// What the reader has found so far.
    pub fn requested(&mut self) -> Requested {
        let read = |document: &Document| Requested {
            model: document.text(Field::Model).map(|model| model.into_owned()),
            is_streamed: document.is_true(Field::Stream),
            is_background: document.is_true(Field::Background),
            conversation: document.text(Field::Conversation).map(|id| id.into_owned()),
            service_tier: document.text(Field::Tier).map(|tier| ServiceTier::new(&tier)),
            modifiers: modifiers(document),
        };
        let decoder = self.decoder.as_mut();
        decoder.map(|decoder| read(decoder.sink().reader.document())).unwrap_or_default()
    }

    /// An estimate of the tokens in the body so far.
    pub(crate) fn tokens(&mut self) -> u64 {
        let of_text = self.decoder.as_mut().map_or(0, |decoder| decoder.sink().size.tokens());
        of_text.saturating_add(self.bytes.div_ceil(BYTES_PER_TOKEN))
    }
}
