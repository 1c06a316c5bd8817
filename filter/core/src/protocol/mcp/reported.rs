//! Reads the usage that a tool reports for generations of its own: in its result, or in headers of
//! the response.

use std::rc::Rc;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::base::limits::CALLS_PER_EXCHANGE_MAX;
use crate::domain::usage::{Usage, UsageSource, sum};
use crate::protocol::document::Document;
use crate::protocol::document_reader::DocumentReader;
use crate::protocol::llm::within_or_beside;
use crate::protocol::mcp::reported_usage::{Places, ReportedUsage};
use crate::protocol::path_tree::PathTree;
use crate::protocol::paths::{Field, Paths};
use crate::wire::http::Headers;
use crate::wire::json_rpc::Id;

/// The usage that a tool reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// The tokens.
    pub usage: Usage,
    /// The model.
    pub model: Option<String>,
    /// Where the filter read it.
    pub source: UsageSource,
    /// True if a part was larger than its whole, or if a count was no whole number.
    pub(crate) is_inconsistent: bool,
}

/// What is at the place of a count.
enum Count {
    Absent,
    /// Something, but no whole number.
    Odd,
    Known(u64),
}

impl Count {
    fn of(number: Option<Decimal>) -> Self {
        let whole = number.filter(Decimal::is_integer).and_then(|number| number.to_u64());
        whole.map_or(Self::Odd, Self::Known)
    }
}

impl Reported {
    /// A report of what is told at the places of counts, unless nothing is. A part that is larger
    /// than its whole is counted beside it; without a whole it is all that is known of it.
    fn new(
        told: impl Fn(Field) -> Count,
        model: Option<String>,
        source: UsageSource,
    ) -> Option<Self> {
        let mut is_odd = false;
        let mut count = |field| match told(field) {
            Count::Absent => None,
            Count::Odd => {
                is_odd = true;
                None
            }
            Count::Known(count) => Some(count),
        };
        let (writes, of_an_hour) = (count(Field::CacheWrite), count(Field::CacheWrite1h));
        let other_writes = writes.map(|all| all.checked_sub(of_an_hour.unwrap_or(0)));
        let mut reported = Usage {
            input: count(Field::Input),
            output: count(Field::Output),
            cache_read: count(Field::CacheRead),
            cache_write_5m: other_writes.map(|others| others.or(writes).unwrap_or(0)),
            cache_write_1h: of_an_hour,
            reasoning: count(Field::Reasoning),
            ..Usage::default()
        };
        if reported == Usage::default() && !is_odd {
            return None;
        }
        let of_input = [reported.cache_read, reported.cache_write_5m, reported.cache_write_1h];
        let wholes = (reported.input, reported.output);
        reported.input = reported.input.or(sum(&of_input));
        reported.output = reported.output.or(reported.reasoning);
        let has_whole = wholes == (reported.input, reported.output);
        let mut usage = reported;
        within_or_beside::settle(&mut usage);
        let is_inconsistent =
            is_odd || !has_whole || other_writes == Some(None) || usage != reported;
        Some(Self { usage, model, source, is_inconsistent })
    }
}

const ID: &Paths = &[("id", Field::Id)];

/// Reads reports out of the results in a body, beside the reader of its messages.
#[derive(Debug)]
pub(crate) struct ReportReader {
    documents: DocumentReader,
    found: Vec<(Id, Reported)>,
}

impl ReportReader {
    /// Creates a reader; `None` if the product does not name a place in results.
    pub(crate) fn new(rules: &ReportedUsage) -> Option<Self> {
        rules.result.is_named().then(|| {
            let fields = fields(&rules.result);
            let tree: Rc<PathTree> = PathTree::of_pointers("result", &fields, ID);
            Self { documents: DocumentReader::new(tree), found: Vec::new() }
        })
    }

    /// Reads the next bytes of a body, or of the data of an event.
    pub(crate) fn feed(&mut self, piece: &[u8]) {
        let Self { documents, found } = self;
        documents.feed(piece, &mut |document| {
            if let (Some((is_string, text)), Some(reported), true) =
                (document.raw(Field::Id), reported(document), found.len() < CALLS_PER_EXCHANGE_MAX)
            {
                found.push((Id { is_string, text: text.to_vec() }, reported));
            }
        });
    }

    /// Begins the next event.
    pub(crate) fn restart(&mut self) {
        self.documents.restart();
        self.found.clear();
    }

    /// Removes and returns the report of the response with this id.
    pub(crate) fn take(&mut self, id: &Id) -> Option<Box<Reported>> {
        let at = self.found.iter().position(|(other, _)| other == id)?;
        Some(Box::new(self.found.remove(at).1))
    }
}

/// Reads the usage that the headers of a response report.
pub(crate) fn reported_in_headers(places: &Places, headers: Headers<'_>) -> Option<Box<Reported>> {
    if !places.is_named() {
        return None;
    }
    let fields = fields(places);
    let text = |bytes| core::str::from_utf8(bytes).ok();
    let told = |field: Field| {
        let named = fields.iter().find(|(_, named)| *named == field);
        let mut values = named.into_iter().flat_map(|(name, _)| headers.all(name));
        match values.next() {
            None => Count::Absent,
            Some(first) if values.any(|other| other != first) => Count::Odd,
            Some(first) => Count::of(text(first).and_then(|text| text.trim().parse().ok())),
        }
    };
    let model = headers.get(&places.model).and_then(text);
    let model = model.filter(|model| !model.is_empty()).map(str::to_owned);
    Reported::new(told, model, UsageSource::ResponseHeaders).map(Box::new)
}

fn reported(document: &Document) -> Option<Reported> {
    let told = |field| match document.has(field) {
        false => Count::Absent,
        true => Count::of(document.quantity(field)),
    };
    let model = document.text(Field::Model).map(|model| model.into_owned());
    Reported::new(told, model, UsageSource::McpResult)
}

fn fields(places: &Places) -> Vec<(&str, Field)> {
    let fields = [
        (places.model.as_str(), Field::Model),
        (places.input.as_str(), Field::Input),
        (places.output.as_str(), Field::Output),
        (places.cache_read.as_str(), Field::CacheRead),
        (places.cache_write.as_str(), Field::CacheWrite),
        (places.cache_write_1h.as_str(), Field::CacheWrite1h),
        (places.reasoning.as_str(), Field::Reasoning),
    ];
    fields.into_iter().filter(|(place, _)| !place.is_empty()).collect()
}
