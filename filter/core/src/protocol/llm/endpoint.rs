//! What a provider's file defines: its hosts and paths, and how each of its responses reports
//! usage.

use crate::protocol::llm::batch::Batch;
use crate::protocol::llm::generation::Format;
use crate::wire::target::percent_decoded;

/// One provider: its hosts, its paths and its endpoints.
#[derive(Debug)]
pub(super) struct Spec {
    /// Its domains, each with its subdomains.
    pub(super) domains: &'static [&'static str],
    /// Whether a host belongs to this provider, for hosts that no list of domains can name. Takes
    /// the name in lower case, and the port or an empty text.
    pub(super) is_host: fn(&str, &str) -> bool,
    /// Whether only this provider has paths like this one. Any server may have a path like
    /// OpenAI's.
    pub(super) is_path: fn(&[&str]) -> bool,
    /// The endpoint of a request, by method and path. `None` if it does not concern a generation,
    /// such as a request that only counts tokens.
    pub(super) endpoint: fn(&str, &[&str]) -> Option<Endpoint>,
    /// How the results of a batch are read, if a request fetches some.
    pub(super) batch: fn(&str, &[&str]) -> Option<&'static Batch>,
    /// True if its streams report usage without `stream_options.include_usage`.
    pub(super) tells_usage_unasked: bool,
}

impl Spec {
    /// A provider that only the configuration can name.
    pub(super) const fn new(endpoint: fn(&str, &[&str]) -> Option<Endpoint>) -> Self {
        Self {
            domains: &[],
            is_host: |_, _| false,
            is_path: |_| false,
            endpoint,
            batch: |_, _| None,
            tells_usage_unasked: false,
        }
    }

    /// Whether a host belongs to this provider. Takes the name in lower case, without a dot at its
    /// end.
    pub(super) fn has_host(&self, name: &str, port: &str) -> bool {
        self.domains.iter().any(|domain| is_at(name, domain)) || (self.is_host)(name, port)
    }
}

/// The provider's names in published price lists. A name may end with a `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PriceLists {
    /// `litellm_provider` in LiteLLM's list.
    pub litellm: &'static [&'static str],
    /// The prefix of its models in LiteLLM's list.
    pub litellm_prefix: &'static str,
    /// Its names in the list of models.dev.
    pub models_dev: &'static [&'static str],
    /// Its names in the list of genai-prices.
    pub genai_prices: &'static [&'static str],
}

impl PriceLists {
    /// A provider that no list names.
    pub(super) const NONE: Self =
        Self { litellm: &[], litellm_prefix: "", models_dev: &[], genai_prices: &[] };
}

/// A path that starts a generation or fetches one.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// How the response reports its usage.
    pub(super) format: &'static Format,
    /// The model, if the path names it.
    pub(super) model: Option<String>,
    /// True if another response may report the same generation again: the filter counts it by its
    /// id.
    pub(super) reports_again: bool,
}

impl Endpoint {
    /// An endpoint whose path names no model, and whose responses report each generation once.
    pub(super) const fn of(format: &'static Format) -> Self {
        Self { format, model: None, reports_again: false }
    }
}

/// Whether a host's name is this domain or below it.
pub(super) fn is_at(name: &str, domain: &str) -> bool {
    name.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The segments of a path, without its query.
pub(super) fn segments(path: &str) -> Vec<&str> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    path.split('/').filter(|segment| !segment.is_empty()).collect()
}

/// The model and the verb of a segment such as `gemini-2.5-flash:generateContent`.
pub(super) fn split_verb(segment: &str) -> Option<(String, String)> {
    let segment = percent_decoded(segment);
    segment.rsplit_once(':').map(|(model, verb)| (model.to_owned(), verb.to_owned()))
}
