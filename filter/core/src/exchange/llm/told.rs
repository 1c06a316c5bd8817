//! What an exchange knows of one generation, before it is a fact.

use rust_decimal::Decimal;

use crate::base::limits::{BYTES_PER_TOKEN, VALUE_BYTES_MAX};
use crate::base::time::Timestamp;
use crate::domain::names::escaped;
use crate::domain::units::{Unit, Units};
use crate::domain::usage::{Completeness, FurtherRun, Usage};
use crate::protocol::llm::{Generation, Requested};

/// One generation, as its request and its response tell of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) caused_by: Option<(String, String)>,
    pub(super) generation: Generation,
    pub(super) is_readable: bool,
    pub(super) requested: Requested,
    /// An estimate of the tokens in the request.
    pub(super) requested_tokens: u64,
    pub(super) started_at: Timestamp,
    /// True if it is a step of an agent that no request of HTTP makes.
    pub(super) is_step: bool,
}

/// Whether the response is speech, of which only the text that the request tells can be counted:
/// characters, and no tokens.
pub(super) fn is_by_text(generation: &Generation, requested: &Requested) -> bool {
    generation.is_binary && requested.input_characters > 0
}

/// What is billed beside tokens, as the response and the request tell it, and how much of all is
/// known then. `is_told` is true if tokens are told or estimated.
pub(super) fn told_units(
    generation: &Generation,
    requested: &Requested,
    is_told: bool,
    completeness: Completeness,
) -> (Units, Completeness) {
    let mut units = generation.units.clone();
    // Speech is billed by its text, unless it is billed by tokens.
    let is_speech = !is_told && is_by_text(generation, requested);
    let is_video = generation.is_without_tokens && requested.video_seconds.is_some();
    if is_speech {
        units.raise(Unit::InputCharacters, Decimal::from(requested.input_characters));
    }
    if is_told || is_video || completeness == Completeness::Complete {
        requested.add_to(&mut units);
    }
    generation.look.or(&requested.look).qualify(&mut units);
    let is_by_request = is_speech || (is_video && !units.is_empty());
    (units, if is_by_request { Completeness::Complete } else { completeness })
}

/// Estimates what is unknown from the bytes transferred. Returns whether it changed anything.
pub(super) fn estimate(usage: &mut Usage, requested_tokens: u64, text_bytes: u64) -> bool {
    let is_some = |count: &u64| *count > 0;
    let before = *usage;
    if usage.input.is_none() {
        usage.input = Some(requested_tokens).filter(is_some);
    }
    // A cut stream may contain a first count, and more text after it.
    usage.output = usage.output.max(Some(text_bytes.div_ceil(BYTES_PER_TOKEN)).filter(is_some));
    *usage != before
}

/// A further run with names that the filter can report.
pub(super) fn named(run: FurtherRun) -> FurtherRun {
    let name = |name| escaped(bounded(name));
    FurtherRun { purpose: name(run.purpose), model: run.model.map(name), ..run }
}

/// A name, as far as the filter keeps it.
pub(super) fn bounded(mut model: String) -> String {
    let mut end = model.len().min(VALUE_BYTES_MAX);
    while !model.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    model.truncate(end);
    model
}
