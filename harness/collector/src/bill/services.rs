//! What providers bill beside the tokens of models: what the filter meters as a unit, and what no
//! call makes that passes it. One line for each; the first that fits counts.
//!
//! The names are those of the line items of OpenAI's costs and of the usage types of Bedrock, as
//! exports and price lists of 2025 and 2026 write them.

use crate::bill::line::{Provider, Subject};

/// The units of our cost lines that providers bill apart from the model.
pub(super) const UNITS: [&str; 5] =
    ["web_searches", "file_searches", "code_sessions", "maps_queries", "guardrail_units"];

enum Meaning {
    /// A unit of [`UNITS`].
    Unit(&'static str),
    /// The filter does not meter it.
    NotMetered,
}

use Meaning::{NotMetered, Unit};

/// What a name contains, in lower case.
const SERVICES: &[(Provider, &str, Meaning)] = &[
    (Provider::OpenAi, "evals |", NotMetered),
    (Provider::OpenAi, "assistants api |", NotMetered),
    (Provider::OpenAi, "web search", Unit("web_searches")),
    (Provider::OpenAi, "file search storage", NotMetered),
    (Provider::OpenAi, "file search", Unit("file_searches")),
    (Provider::OpenAi, "code interpreter", Unit("code_sessions")),
    (Provider::OpenAi, "container", Unit("code_sessions")),
    (Provider::OpenAi, "vector stor", NotMetered),
    (Provider::OpenAi, "storage", NotMetered),
    (Provider::OpenAi, "fine-tuning", NotMetered),
    (Provider::OpenAi, "fine tuning", NotMetered),
    (Provider::OpenAi, "training", NotMetered),
    (Provider::OpenAi, "grader", NotMetered),
    (Provider::Anthropic, "web_search", Unit("web_searches")),
    (Provider::Anthropic, "web search", Unit("web_searches")),
    (Provider::Anthropic, "code_execution", Unit("code_sessions")),
    (Provider::Anthropic, "code execution", Unit("code_sessions")),
    (Provider::Anthropic, "session_usage", NotMetered),
    (Provider::Aws, "guardrail", Unit("guardrail_units")),
    (Provider::Aws, "customization", NotMetered),
    (Provider::Aws, "custommodelimport", NotMetered),
    (Provider::Aws, "provisionedthroughput", NotMetered),
    (Provider::Aws, "modelunits", NotMetered),
    (Provider::Aws, "reserved", NotMetered),
    (Provider::Aws, "evaluation", NotMetered),
    (Provider::Aws, "knowledgebase", NotMetered),
    (Provider::Aws, "dataautomation", NotMetered),
    (Provider::Aws, "flows", NotMetered),
    (Provider::Aws, "storage", NotMetered),
    (Provider::Aws, "training", NotMetered),
];

/// The service that a line's name tells of; `None` if it is none that is known.
pub(super) fn service(provider: Provider, name: &str) -> Option<Subject> {
    let lower = name.to_lowercase();
    let found = SERVICES.iter().find(|(of, needle, _)| *of == provider && lower.contains(needle));
    found.map(|(_, _, meaning)| match meaning {
        Unit(unit) => Subject::Unit(unit),
        NotMetered => Subject::Service(name.to_owned()),
    })
}

/// The item of [`UNITS`] that a unit of our cost lines is billed as, such as `web_searches` for
/// `web_searches:high`.
pub(super) fn unit(kind: &str) -> Option<&'static str> {
    let base = kind.split(':').next().unwrap_or_default();
    let base = if base == "searched_requests" { "web_searches" } else { base };
    UNITS.into_iter().find(|unit| *unit == base)
}
