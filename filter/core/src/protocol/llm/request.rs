//! Reads a request for a generation: the model, and how the client wants the response.

use std::borrow::Cow;

use rust_decimal::Decimal;

use crate::base::limits::{BYTES_PER_TOKEN, DATA_BYTES_PER_TOKEN, TEXT_BLOCK_BYTES};
use crate::base::time::len_u64;
use crate::domain::price_factors::{Modifiers, ServiceTier};
use crate::domain::units::{Unit, Units};
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
    // OpenAI's Chat Completions with a search, and Perplexity.
    ("web_search_options", Field::WebSearches),
    ("web_search_options.search_context_size", Field::SearchContext),
    // Images and videos.
    ("size", Field::Size),
    ("quality", Field::Quality),
    // Mistral's OCR.
    ("bbox_annotation_format", Field::AnnotatedPages),
    ("document_annotation_format", Field::AnnotatedPages),
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
    /// True if the model searches the web before it answers.
    pub(crate) is_search: bool,
    /// The size of that search's context.
    pub(crate) search_context: Option<String>,
    /// The size of the images or the video.
    pub(crate) size: Option<String>,
    /// The quality of the images.
    pub(crate) quality: Option<String>,
    /// True if the pages are to be annotated.
    pub(crate) is_annotated: bool,
}

impl Requested {
    /// Adds to what the response tells of what is billed beside tokens what only the request tells.
    pub(crate) fn add_to(&self, units: &mut Units) {
        let [context, size, quality] = [&self.search_context, &self.size, &self.quality]
            .map(|text| text.as_deref().unwrap_or_default());
        units.qualify(Unit::OutputImages, &[quality, size]);
        units.qualify(Unit::OutputVideoSeconds, &[size]);
        let is_told =
            [Unit::WebSearches, Unit::Requests].iter().any(|unit| units.of(*unit).is_some());
        if self.is_search && !is_told {
            units.raise(Unit::WebSearches, Decimal::ONE);
            units.qualify(Unit::WebSearches, &[context]);
        }
        if let Some(pages) = units.of(Unit::Pages).filter(|_| self.is_annotated) {
            units.raise(Unit::AnnotatedPages, pages);
        }
    }
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
        let text = |document: &Document, field| document.text(field).map(Cow::into_owned);
        let read = |document: &Document| Requested {
            model: text(document, Field::Model),
            is_streamed: document.is_true(Field::Stream),
            is_background: document.is_true(Field::Background),
            conversation: text(document, Field::Conversation),
            service_tier: document.text(Field::Tier).map(|tier| ServiceTier::new(&tier)),
            modifiers: modifiers(document),
            is_search: document.has(Field::WebSearches),
            search_context: text(document, Field::SearchContext),
            size: text(document, Field::Size),
            quality: text(document, Field::Quality),
            is_annotated: document.has(Field::AnnotatedPages),
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
