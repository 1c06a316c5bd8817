//! Reads a request for a generation: the model, and how the client wants the response. The body is
//! JSON or a form.

use std::borrow::Cow;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::base::limits::{BYTES_PER_TOKEN, DATA_BYTES_PER_TOKEN, TEXT_BLOCK_BYTES};
use crate::base::time::len_u64;
use crate::domain::price_factors::{Modifiers, ServiceTier, UNREADABLE};
use crate::domain::units::{Look, Unit, Units};
use crate::protocol::document::Document;
use crate::protocol::document_reader::DocumentReader;
use crate::protocol::llm::form::Form;
use crate::protocol::llm::generation::{modifiers, tier};
use crate::protocol::llm::units;
use crate::protocol::path_tree::PathTree;
use crate::protocol::paths::{Field, Paths};
use crate::protocol::request_body::BodyHead;
use crate::wire::doubt::Doubt;
use crate::wire::encoding::{DecodedBytes, Decoder};
use crate::wire::multipart::FormReader;

/// What requests of all formats may say. The model and the tier are in the table of the format.
const PATHS: &Paths = &[
    ("stream", Field::Stream),
    // Bedrock.
    ("performanceConfig.latency", Field::Latency),
    // Anthropic.
    ("speed", Field::Speed),
    ("inference_geo", Field::InferenceGeo),
    ("background", Field::Background),
    // DashScope, and servers that pass it to a model's template; Anthropic and others.
    ("enable_thinking", Field::Thinking),
    ("chat_template_kwargs.enable_thinking", Field::Thinking),
    ("thinking", Field::Thinking),
    ("thinking.type", Field::Thinking),
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
    ("response_format", Field::ResponseFormat),
    ("n", Field::Number),
    // Imagen and Veo.
    ("parameters.sampleCount", Field::Number),
    ("parameters.durationSeconds", Field::OutputVideoSeconds),
    ("parameters.resolution", Field::Size),
    // Messages on a WebSocket.
    ("type", Field::Kind),
    ("stream_id", Field::Lane),
];

/// Speech, whose speed is how fast the voice is.
const SPEECH: &Paths = &[("input", Field::InputText), ("speed", Field::Extra)];

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
    /// True if the client asks the model to think before it answers.
    pub(crate) is_thinking: bool,
    /// True if the model searches the web before it answers.
    pub(crate) is_search: bool,
    /// The size of that search's context.
    pub(crate) search_context: Option<String>,
    /// How the images or the video shall look.
    pub look: Look,
    /// True if the pages are to be annotated.
    pub(crate) is_annotated: bool,
    /// The form of the result.
    pub response_format: Option<String>,
    /// How many results.
    pub number: Option<u64>,
    /// The length of each video, in seconds.
    pub(crate) video_seconds: Option<Decimal>,
    /// The length of the text to speak, in Unicode scalar values; 0 for other requests.
    pub input_characters: u64,
    /// The kind of a message on a WebSocket.
    pub kind: Option<String>,
    /// The lane on which the response shall come.
    pub lane: Option<String>,
    /// True if the server may read something else in the request, or what the filter cannot read:
    /// what it says of the model, the tier and the like may not be what the provider bills.
    pub is_unclear: bool,
    /// Names of the model of which the server may take one, if it is not certain which.
    pub models_in_doubt: Vec<String>,
}

impl Requested {
    /// Adds to what the response tells of what is billed beside tokens what only the request tells.
    pub fn add_to(&self, units: &mut Units) {
        // The answer to a request for a video says nothing about it.
        if let Some(seconds) = self.video_seconds.filter(|_| units.is_empty()) {
            let videos = Decimal::from(self.number.unwrap_or(1).max(1));
            units.raise(Unit::OutputVideoSeconds, seconds.saturating_mul(videos));
        }
        let is_told =
            [Unit::WebSearches, Unit::Requests].iter().any(|unit| units.of(*unit).is_some());
        if self.is_search && !is_told {
            units.raise(Unit::WebSearches, Decimal::ONE);
            units.qualify(Unit::WebSearches, &[self.search_context.as_deref().unwrap_or_default()]);
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
    /// True if the head leaves open how the server reads the body.
    is_head_unclear: bool,
    /// True if all of the body has come.
    is_whole: bool,
}

#[derive(Debug)]
enum Body {
    Json(Box<DocumentReader>, TextSize),
    Form(Box<Form>),
}

impl DecodedBytes for Body {
    fn decoded(&mut self, piece: &[u8]) {
        match self {
            Self::Json(reader, size) => {
                reader.feed(piece, &mut |_| {});
                size.add(piece);
            }
            Self::Form(form) => form.feed(piece),
        }
    }
}

impl Body {
    fn document(&self) -> Option<&Document> {
        match self {
            Self::Json(reader, _) => Some(reader.document()),
            Self::Form(form) => form.document(),
        }
    }

    /// Whether a server may read something else than the document says, or the body is none.
    fn is_unclear(&self, is_whole: bool) -> bool {
        match self {
            Self::Json(reader, _) => {
                let unclear = reader.document().unclear();
                reader.is_unreadable()
                    || reader.is_lax()
                    || (is_whole && reader.is_within())
                    // Whether the model thinks is told in several places, in words of their own.
                    || unclear.into_iter().any(|field| field != Field::Thinking)
            }
            Self::Form(form) => form.is_unclear(),
        }
    }

    fn tokens(&self) -> u64 {
        match self {
            Self::Json(_, size) => size.tokens(),
            Self::Form(form) => {
                let (fields, files) = form.sizes();
                let of_fields = fields.div_ceil(BYTES_PER_TOKEN);
                of_fields.saturating_add(files / DATA_BYTES_PER_TOKEN)
            }
        }
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
    /// Creates a reader for the body of a request with this head, which names the model and the tier
    /// as `asks` says. `is_speech` is true if the text to speak decides the price.
    pub fn new(head: BodyHead, asks: &'static Paths, is_speech: bool) -> Self {
        let BodyHead { coding, share, form_delimiter, doubt } = head;
        // Many clients send JSON as another media type, and most servers read it all the same.
        let is_head_unclear = doubt == Some(Doubt::Charset);
        let body = match form_delimiter {
            Some(delimiter) => Body::Form(Box::new(Form::new(FormReader::new(delimiter)))),
            None => {
                let speech: &[&Paths] = if is_speech { &[SPEECH] } else { &[] };
                let tables = [&[PATHS, asks], speech].concat();
                let reader = DocumentReader::new(PathTree::strict(&tables));
                Body::Json(Box::new(reader), TextSize::default())
            }
        };
        let mut decoder = Decoder::new(coding, body).ok();
        if let Some(decoder) = &mut decoder {
            decoder.limit(&share);
        }
        Self { decoder, bytes: 0, is_head_unclear, is_whole: false }
    }

    /// Reads the next bytes.
    pub fn feed(&mut self, chunk: &[u8]) {
        match &mut self.decoder {
            Some(decoder) => decoder.feed(chunk),
            None => self.bytes = self.bytes.saturating_add(len_u64(chunk.len())),
        }
    }

    /// Notes that all of the body has come.
    pub fn end(&mut self) {
        self.is_whole = true;
    }

    /// Begins a new text, which must be JSON without a coding.
    pub(crate) fn restart(&mut self) {
        if let Some(decoder) = &mut self.decoder
            && let Body::Json(reader, size) = &mut *decoder.sink()
        {
            reader.restart();
            *size = TextSize::default();
        }
    }

    /// What the reader has found so far.
    pub fn requested(&mut self) -> Requested {
        let is_empty = self.tokens() == 0;
        let Some(decoder) = &mut self.decoder else {
            return Requested { is_unclear: !is_empty, ..Requested::default() };
        };
        let is_broken = decoder.is_broken();
        let body = decoder.sink();
        let is_unclear =
            !is_empty && (is_broken || self.is_head_unclear || body.is_unclear(self.is_whole));
        let models_in_doubt = match &*body {
            Body::Json(reader, _) => reader.document().texts_in_doubt(Field::Model),
            Body::Form(form) => form.models_in_doubt().to_vec(),
        };
        let certain = body.document().map(requested).unwrap_or_default();
        Requested { is_unclear, models_in_doubt, ..certain }
    }

    /// An estimate of the tokens in the body so far.
    pub(crate) fn tokens(&mut self) -> u64 {
        let of_text = self.decoder.as_mut().map_or(0, |decoder| decoder.sink().tokens());
        of_text.saturating_add(self.bytes.div_ceil(BYTES_PER_TOKEN))
    }
}

/// What a document asks for. Of what is told twice nothing is certain.
fn requested(document: &Document) -> Requested {
    let unclear: Vec<Field> = document.unclear().collect();
    if unclear.is_empty() {
        return certain(document);
    }
    let mut cleared = document.clone();
    unclear.iter().for_each(|field| cleared.forget(*field));
    let is_thinking = unclear.contains(&Field::Thinking);
    let mut requested = certain(&cleared);
    requested.is_thinking |= is_thinking;
    if unclear.contains(&Field::Tier) {
        requested.service_tier = Some(ServiceTier::new(UNREADABLE));
    }
    requested
}

fn certain(document: &Document) -> Requested {
    let text = |field| document.text(field).map(Cow::into_owned);
    let number = document.quantity(Field::Number).filter(Decimal::is_integer);
    let number = number.and_then(|number| number.to_u64());
    // A number of videos that cannot be read is no 1.
    let is_number_odd = document.has(Field::Number) && number.is_none();
    let seconds = document.quantity(Field::OutputVideoSeconds);
    Requested {
        model: text(Field::Model),
        is_streamed: document.is_true(Field::Stream),
        is_background: document.is_true(Field::Background),
        conversation: text(Field::Conversation),
        service_tier: tier(document),
        modifiers: modifiers(document),
        is_thinking: document.has(Field::Thinking) && !is_off(document),
        is_search: document.has(Field::WebSearches),
        search_context: text(Field::SearchContext),
        look: units::look(document),
        is_annotated: document.has(Field::AnnotatedPages),
        response_format: text(Field::ResponseFormat),
        number,
        video_seconds: seconds.filter(|_| !is_number_odd),
        input_characters: document.input_characters(),
        kind: text(Field::Kind),
        lane: text(Field::Lane),
        is_unclear: false,
        models_in_doubt: Vec::new(),
    }
}

/// Whether a document says that the model shall not think.
fn is_off(document: &Document) -> bool {
    let off: &[&[u8]] = &[b"false", b"disabled", b"none"];
    document.raw(Field::Thinking).is_some_and(|(_, word)| off.contains(&word))
}
