//! Collects what a response reports about a generation.

use rust_decimal::Decimal;

use crate::domain::price_factors::{Modifier, Modifiers, ServiceTier, UNREADABLE};
use crate::domain::units::{Look, Units};
use crate::domain::usage::{Completeness, FurtherRun, Usage, sum};
use crate::protocol::document::Document;
use crate::protocol::llm::stream_error::StreamError;
use crate::protocol::llm::units;
use crate::protocol::paths::{Field, Paths};
use crate::wire::http::Headers;

/// Applies one document to a generation: a body, an element of a streamed array, or an event.
pub type Fold = fn(&mut Generation, &Document);

/// How one wire format reports its usage. The formats are in the providers' files.
#[derive(Debug)]
pub struct Format {
    /// The members that the format needs.
    pub paths: &'static [&'static Paths],
    /// Applies one document.
    pub fold: Fold,
    /// Applies the response's headers, if they report something.
    pub head: Option<fn(&mut Generation, Headers<'_>)>,
    /// How a stream in this format reports that it ends with an error.
    pub error: StreamError,
    /// By which members a request names the model and the tier.
    pub asks: &'static Paths,
}

/// How far a generation has progressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// The provider may report more.
    #[default]
    Open,
    /// The provider has reported everything.
    Final,
    /// The provider still works on the generation and the client will ask again: there is nothing
    /// to meter yet.
    Unfinished,
}

/// What a response has reported so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Generation {
    /// The tokens, in the normal form.
    pub usage: Usage,
    /// What the provider bills beside tokens.
    pub units: Units,
    /// How images and videos look.
    pub look: Look,
    /// What the provider says that it cost, in US dollars.
    pub reported_cost: Option<Decimal>,
    /// The model that answered.
    pub model: Option<String>,
    /// The provider's id of the generation.
    pub id: Option<String>,
    /// The service tier in which the provider ran it.
    pub service_tier: Option<ServiceTier>,
    /// What else moved its price.
    pub modifiers: Modifiers,
    /// How far it has progressed.
    pub stage: Stage,
    /// When the client requested it, in seconds since 1970.
    pub created_at: Option<u64>,
    /// True if the provider has given a reason why it ended; usage may still follow.
    pub is_finished: bool,
    /// True if the provider stopped before the end that the client wanted, and may go on.
    pub may_go_on: bool,
    /// The size of the generated text that has passed, in bytes.
    pub text_bytes: u64,
    /// True if the response is a stream of documents.
    pub is_streamed: bool,
    /// True if the response is audio, an image or a video, of which there is nothing to read.
    pub(crate) is_binary: bool,
    /// True if it is not paid in tokens, so that there are none to estimate.
    pub(crate) is_without_tokens: bool,
    /// True if it may be paid by what is told beside tokens alone: images, pages, audio, searches of
    /// a reranker.
    pub(super) may_lack_tokens: bool,
    /// The size of the generated text that has passed since a document told the output, in bytes.
    pub(super) untold_bytes: Option<u64>,
    /// True if the counts are of OpenAI's shape, in which only the total says whether a part is
    /// within its whole or beside it.
    pub(super) is_openai_shaped: bool,
    /// True if the counts contradict each other, or something that bears on the price could not be
    /// read.
    pub is_inconsistent: bool,
    /// The runs that the usage lists, until the response has ended.
    pub(super) runs: Vec<Run>,
    /// The runs beside the one that `usage` is about.
    pub further: Vec<FurtherRun>,
    /// The counts from which the provider's file computes `usage`, kept between documents.
    pub parts: Parts,
}

/// Counts as a provider reports them, if they come in several documents and the filter combines
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    /// Input tokens, without those that the provider counts apart.
    pub input: Option<u64>,
    /// Output tokens, without those that the provider counts apart.
    pub output: Option<u64>,
    /// Tokens that tools add to the prompt.
    pub(crate) tool_prompt: Option<u64>,
    /// All cache writes, of whatever lifetime.
    pub cache_write: Option<u64>,
    /// Cache writes for 5 minutes.
    pub(crate) cache_write_5m: Option<u64>,
    /// Cache writes for 1 hour.
    pub(crate) cache_write_1h: Option<u64>,
}

/// Where a run's tokens are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Within the counts of the response, if their sum says so.
    Within,
    /// The same; and if the sum of these alone is the response's, then the others are beside it.
    Answering,
    /// Beside the counts of the response.
    Beside,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) place: Place,
    pub(super) run: FurtherRun,
}

impl Generation {
    /// Applies one document.
    pub(super) fn apply(&mut self, fold: Fold, document: &Document) {
        let before = self.text_bytes;
        fold(self, document);
        self.is_inconsistent |= document.is_odd();
        let outputs = [Field::Output, Field::BilledOutput, Field::EachOutput];
        let tells_output =
            document.tells_tokens() && outputs.iter().any(|field| document.count(*field).is_some());
        self.untold_bytes = if tells_output {
            Some(0)
        } else {
            let bytes = self.text_bytes.saturating_sub(before);
            self.untold_bytes.map(|untold| untold.saturating_add(bytes))
        };
    }

    /// Takes over the counts in `reported`. What a provider reports again is cumulative, so a count
    /// never falls.
    pub fn report(&mut self, reported: Usage) {
        self.usage = self.usage.max(reported);
    }

    /// Takes over what most formats report in the same way: model, id, tier, modifiers, time of
    /// creation and text.
    pub(crate) fn tell_head(&mut self, document: &Document) {
        if let Some(model) = document.text(Field::Model) {
            self.model = Some(model.into_owned());
        }
        if let Some(id) = document.text(Field::Id) {
            self.id = Some(id.into_owned());
        }
        if document.tells_words() {
            keep(&mut self.service_tier, tier(document));
            self.modifiers = modifiers(document).or(self.modifiers);
        }
        keep(&mut self.created_at, document.count(Field::CreatedAt));
        units::tell(&mut self.units, document);
        if document.tells_units() {
            self.look = units::look(document).or(&self.look);
            self.reported_cost = self.reported_cost.max(units::reported_cost(document));
        }
        self.text_bytes = self.text_bytes.saturating_add(document.text_bytes());
    }

    /// How much of the usage is known, once the response has ended. `None` if there is nothing to
    /// meter.
    pub fn completeness(&self, is_readable: bool) -> Option<Completeness> {
        match self.stage {
            Stage::Unfinished => None,
            Stage::Final
                if self.usage.is_unknown() && self.may_lack_tokens && !self.units.is_empty() =>
            {
                Some(Completeness::Complete)
            }
            _ if self.usage.is_unknown() && is_readable => Some(Completeness::Missing),
            _ if self.usage.is_unknown() => Some(Completeness::Failed),
            // The usage may have come before the reason why the generation ended.
            Stage::Open if !self.is_finished => Some(Completeness::Partial),
            Stage::Final | Stage::Open if self.lacks_counts() => Some(Completeness::Partial),
            Stage::Final | Stage::Open => Some(Completeness::Complete),
        }
    }

    /// Whether some of the tokens are not among the counts: nothing was told of the input, text came
    /// after the last count of the output, or the count of the output could not be read.
    fn lacks_counts(&self) -> bool {
        let Usage { input, output, .. } = self.usage;
        input.is_none()
            || (output.is_none() && self.is_inconsistent)
            || self.untold_bytes.is_some_and(|bytes| bytes > 0)
    }
}

/// Replaces the known value by the reported one, if there is one.
pub(super) fn keep<T>(place: &mut Option<T>, reported: Option<T>) {
    if reported.is_some() {
        *place = reported;
    }
}

/// Raises a count to the reported one. What a provider reports again is cumulative, so a smaller
/// count is none.
pub(super) fn raise(place: &mut Option<u64>, reported: Option<u64>) {
    *place = (*place).max(reported);
}

/// Splits cache writes by their lifetime: those whose lifetime the provider does not report have the
/// shorter one.
pub(super) fn by_lifetime(
    all: Option<u64>,
    for_5m: Option<u64>,
    for_1h: Option<u64>,
) -> (Option<u64>, Option<u64>) {
    let all = all.max(sum(&[for_5m, for_1h]));
    let rest = all.map(|all| all.saturating_sub(for_1h.unwrap_or(0)));
    (rest.filter(|rest| *rest > 0 || for_1h.is_none() || for_5m.is_some()), for_1h)
}

/// Reads the modifiers of a document.
pub(super) fn modifiers(document: &Document) -> Modifiers {
    let mut modifiers = Modifiers::default();
    for (field, modifier) in [
        (Field::Speed, Modifier::Speed),
        (Field::InferenceGeo, Modifier::InferenceGeo),
        (Field::Latency, Modifier::Latency),
    ] {
        if let Some(word) = document.word(field) {
            modifiers.tell(modifier, &word);
        }
    }
    modifiers
}

/// Reads the service tier of a document.
pub(super) fn tier(document: &Document) -> Option<ServiceTier> {
    document.word(Field::Tier).and_then(|tier| ServiceTier::told(&tier))
}

/// Reads the tokens that were written to a cache for an hour. What is written for a time that is not
/// known counts as written for the longer one.
pub(super) fn long_writes(document: &Document) -> Option<u64> {
    let other = document.count(Field::CacheWriteOther).filter(|count| *count > 0);
    sum(&[document.count(Field::CacheWrite1h), other])
}

impl Generation {
    /// Reads a count from a header.
    pub(super) fn header_count(&mut self, headers: Headers<'_>, name: &str) -> Option<u64> {
        let text = headers.get(name)?;
        let count = core::str::from_utf8(text).ok().and_then(|text| text.trim().parse().ok());
        self.is_inconsistent |= count.is_none();
        count
    }
}

/// Reads a word that moves the price from a header. What is no text is [`UNREADABLE`].
pub(super) fn header_word<'a>(headers: Headers<'a>, name: &str) -> Option<&'a str> {
    let word = core::str::from_utf8(headers.get(name)?).unwrap_or(UNREADABLE);
    Some(word).filter(|word| !word.trim().is_empty())
}
