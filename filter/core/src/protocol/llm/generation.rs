//! What a response has told of a generation so far.

use crate::domain::usage::{Completeness, ServiceTier, Usage};
use crate::protocol::document::{Document, Field, Paths};
use crate::protocol::llm::stream_error::StreamError;
use crate::wire::http::Headers;

/// How one wire format tells its usage. The formats are in the providers' files.
#[derive(Debug)]
pub struct Format {
    /// The members that are read.
    pub paths: &'static [&'static Paths],
    /// Takes in one document: a body, an element of a streamed array, or an event.
    pub fold: fn(&mut Generation, &Document),
    /// Takes in the response's headers, where they tell something.
    pub head: Option<fn(&mut Generation, Headers<'_>)>,
    /// How its streams tell that they end with an error.
    pub error: StreamError,
}

/// How far a generation has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// More may be told.
    #[default]
    Open,
    /// The provider has told everything.
    Final,
    /// The provider still works on it and will be asked again: there is nothing to meter yet.
    Unfinished,
}

/// What a response has told so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// The tokens, in the normal form.
    pub usage: Usage,
    /// The model that answered.
    pub model: Option<String>,
    /// The provider's id of the generation.
    pub id: Option<String>,
    /// The tier that it ran in.
    pub service_tier: Option<ServiceTier>,
    /// How far it has come.
    pub stage: Stage,
    /// When it was asked for, in seconds since 1970.
    pub created_at: Option<u64>,
    /// It has come to a reason to stop; usage may still follow.
    pub is_finished: bool,
    /// Generated text that has passed, in bytes.
    pub text_bytes: u64,
    /// Counts from which the provider's file makes `usage`, kept between documents.
    pub parts: Parts,
}

/// Counts as a provider tells them, where they come in several documents and have to be put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Read, without what the provider counts apart.
    pub input: Option<u64>,
    /// Made, without what the provider counts apart.
    pub output: Option<u64>,
    /// Tools' prompts.
    pub tool_prompt: Option<u64>,
    /// All writes to the cache, of whatever lifetime.
    pub cache_write: Option<u64>,
}

impl Generation {
    /// Takes over every count that `told` knows.
    pub fn tell(&mut self, told: Usage) {
        self.usage = told.or(self.usage);
    }

    /// Takes over what most formats tell in the same way: model, id, tier, time of creation and text.
    pub fn tell_head(&mut self, document: &Document) {
        if let Some(model) = document.text(Field::Model) {
            self.model = Some(model.into_owned());
        }
        if let Some(id) = document.text(Field::Id) {
            self.id = Some(id.into_owned());
        }
        if let Some(tier) = document.text(Field::Tier) {
            self.service_tier = Some(service_tier(&tier));
        }
        keep(&mut self.created_at, document.count(Field::CreatedAt));
        self.text_bytes = self.text_bytes.saturating_add(document.text_bytes());
    }

    /// How much is known, once the response has ended. `None` if there is nothing to meter.
    pub fn completeness(&self, is_readable: bool) -> Option<Completeness> {
        match self.stage {
            Stage::Unfinished => None,
            Stage::Final if !self.usage.is_unknown() => Some(Completeness::Complete),
            _ if !self.usage.is_unknown() => Some(Completeness::Partial),
            _ if is_readable => Some(Completeness::Missing),
            _ => Some(Completeness::Failed),
        }
    }
}

/// Replaces what is known by what is told, if something is.
pub(super) fn keep<T>(place: &mut Option<T>, told: Option<T>) {
    if told.is_some() {
        *place = told;
    }
}

/// The sum of what is known, or `None` if nothing is.
pub(super) fn sum(parts: &[Option<u64>]) -> Option<u64> {
    let mut known = parts.iter().flatten().peekable();
    known.peek()?;
    Some(known.fold(0, |sum, part| sum.saturating_add(*part)))
}

/// The tier that a provider's word means; what is no special tier has the list price.
pub(super) fn service_tier(word: &str) -> ServiceTier {
    // As Vertex AI names its traffic, and Gemini's requests the tier.
    let bare = word.strip_prefix("ON_DEMAND_").or_else(|| word.strip_prefix("SERVICE_TIER_"));
    let word = bare.unwrap_or(word);
    let is = |other: &str| word.eq_ignore_ascii_case(other);
    if is("batch") {
        ServiceTier::Batch
    } else if is("flex") {
        ServiceTier::Flex
    } else if is("priority") {
        ServiceTier::Priority
    } else {
        ServiceTier::Standard
    }
}

/// A count that a header tells.
pub(super) fn header_count(headers: Headers<'_>, name: &str) -> Option<u64> {
    core::str::from_utf8(headers.get(name)?).ok()?.trim().parse().ok()
}
