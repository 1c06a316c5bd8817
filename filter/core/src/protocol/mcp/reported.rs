//! Reads the usage that a tool reports for generations of its own: in its result, or in headers of
//! the response.

use std::rc::Rc;

use crate::base::limits::CALLS_PER_EXCHANGE_MAX;
use crate::domain::usage::{Usage, UsageSource};
use crate::protocol::document::{Document, DocumentReader};
use crate::protocol::llm::within_or_beside;
use crate::protocol::mcp::reported_usage::{Places, ReportedUsage};
use crate::protocol::paths::{Field, PathTree, Paths};
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
    /// True if a part was larger than its whole.
    pub(crate) is_inconsistent: bool,
}

impl Reported {
    /// A report of these counts, unless they are unknown. A part that is larger than its whole is
    /// counted beside it.
    fn new(reported: Usage, model: Option<String>, source: UsageSource) -> Option<Self> {
        let mut usage = reported;
        within_or_beside::settle(&mut usage);
        let is_inconsistent = usage != reported;
        (!usage.is_unknown()).then_some(Self { usage, model, source, is_inconsistent })
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
    let text = |name: &str| core::str::from_utf8(headers.get(name)?).ok();
    let count = |name: &str| text(name)?.trim().parse().ok();
    let usage = Usage {
        input: count(&places.input),
        output: count(&places.output),
        cache_read: count(&places.cache_read),
        cache_write_5m: count(&places.cache_write),
        reasoning: count(&places.reasoning),
        ..Usage::default()
    };
    let model = text(&places.model).filter(|model| !model.is_empty()).map(str::to_owned);
    let source = UsageSource::ResponseHeaders;
    Reported::new(usage, model, source).map(Box::new)
}

fn reported(document: &Document) -> Option<Reported> {
    let usage = Usage {
        input: document.count(Field::Input),
        output: document.count(Field::Output),
        cache_read: document.count(Field::CacheRead),
        cache_write_5m: document.count(Field::CacheWrite),
        reasoning: document.count(Field::Reasoning),
        ..Usage::default()
    };
    let model = document.text(Field::Model).map(|model| model.into_owned());
    let source = UsageSource::McpResult;
    Reported::new(usage, model, source)
}

fn fields(places: &Places) -> Vec<(&str, Field)> {
    let fields = [
        (places.model.as_str(), Field::Model),
        (places.input.as_str(), Field::Input),
        (places.output.as_str(), Field::Output),
        (places.cache_read.as_str(), Field::CacheRead),
        (places.cache_write.as_str(), Field::CacheWrite),
        (places.reasoning.as_str(), Field::Reasoning),
    ];
    fields.into_iter().filter(|(place, _)| !place.is_empty()).collect()
}
