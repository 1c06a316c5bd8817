//! Paths that a server has for itself, and what a request to each of them does.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error};
use crate::base::pattern::{is_fit, is_pattern};
use crate::protocol::llm::endpoint::{Endpoint, segments};
use crate::protocol::llm::provider::operation::Operation;
use crate::wire::target::percent_decoded;

/// Stands in a path for the name of the model.
const MODEL: &str = "{model}";

/// A path of the configuration, and what a request to it does.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct OwnPath {
    /// The whole path, without query. `*` stands for any text without a `/`; `{model}` stands for
    /// the model, whose name may have some.
    pub path: Box<str>,
    /// What a request to it does.
    #[serde(rename = "as")]
    pub operation: Operation,
}

impl OwnPath {
    /// The endpoint of a request, if it is to this path.
    pub(super) fn endpoint(&self, method: &str, path: &[&str]) -> Option<Endpoint> {
        let model = matched(&segments(&self.path), path)?;
        endpoint(self.operation, method, model)
    }

    pub(crate) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        let refuse = |reason: &str| Err(error(&format!("{path}.path"), reason));
        let found = &self.path;
        if !found.starts_with('/') {
            return refuse(&format!("expected a path that starts with `/`, found {found:?}"));
        }
        if found.contains(['?', '#']) {
            return refuse(&format!("expected a path without query, found {found:?}"));
        }
        if found.matches('{').count() > 1
            || found.matches(MODEL).count() != found.matches('{').count()
        {
            return refuse(&format!("expected `{MODEL}` once or not at all, found {found:?}"));
        }
        Ok(())
    }
}

/// The endpoint of a request to a path that ends with one of these patterns.
pub(super) fn endpoint_of(
    paths: &[(&str, Operation)],
    method: &str,
    path: &[&str],
) -> Option<Endpoint> {
    let last = path.last()?;
    // Most patterns end otherwise, which costs little to see.
    let may_fit = |pattern: &str| {
        let end = pattern.rsplit('/').next().unwrap_or_default();
        is_pattern(end) || end.contains(MODEL) || end.eq_ignore_ascii_case(last)
    };
    paths.iter().filter(|(pattern, _)| may_fit(pattern)).find_map(|(pattern, operation)| {
        let pattern = segments(pattern);
        let ends = (0..path.len()).filter_map(|at| path.get(at..));
        let model = ends.into_iter().find_map(|end| matched(&pattern, end))?;
        endpoint(*operation, method, model)
    })
}

/// A request that may not be answered with a new generation asks for an earlier one.
fn endpoint(operation: Operation, method: &str, model: Option<String>) -> Option<Endpoint> {
    let is_asked = method == "POST" || (method == "GET" && operation.reports_again());
    is_asked.then(|| operation.endpoint(model))
}

/// Whether a pattern fits a path, in any case; and the model that the path names.
fn matched(pattern: &[&str], path: &[&str]) -> Option<Option<String>> {
    let is_same = |(pattern, word): (&&str, &&str)| match is_pattern(pattern) {
        true => is_fit(&pattern.to_ascii_lowercase(), &word.to_ascii_lowercase()),
        false => pattern.eq_ignore_ascii_case(word),
    };
    let Some(at) = pattern.iter().position(|part| part.contains(MODEL)) else {
        let fits = pattern.len() == path.len() && pattern.iter().zip(path).all(is_same);
        return fits.then_some(None);
    };
    let (before, rest) = (pattern.get(..at)?, pattern.get(at..)?);
    let (naming, after) = rest.split_first()?;
    let end = path.len().checked_sub(after.len()).filter(|end| *end > at)?;
    let is_around =
        before.iter().zip(path).all(is_same) && after.iter().zip(path.get(end..)?).all(is_same);
    let named = percent_decoded(&path.get(at..end)?.join("/"));
    let (head, tail) = naming.split_once(MODEL)?;
    let model = named.strip_prefix(head)?.strip_suffix(tail)?;
    (is_around && !model.is_empty()).then(|| Some(model.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{matched, segments};

    #[test]
    fn a_pattern_names_the_model() {
        for (pattern, path, expected) in [
            ("/v1/run", "/v1/run", Some(None)),
            ("/v1/run", "/V1/Run/", Some(None)),
            ("/v1/run", "/v1/run/x", None),
            ("/v1/run", "/x/v1/run", None),
            ("/a/*/run", "/a/b/run", Some(None)),
            ("/a/*/run", "/a/b/c/run", None),
            ("/a/v*/run", "/a/v2/run", Some(None)),
            ("/e/{model}/invocations", "/e/m-1/invocations", Some(Some("m-1"))),
            ("/e/{model}/invocations", "/e/invocations", None),
            ("/run/{model}", "/run/@cf/meta/llama-3", Some(Some("@cf/meta/llama-3"))),
            ("/run/@cf/{model}", "/run/@hf/meta/llama-3", None),
            ("/*/run/{model}", "/x/run/a%2Fb", Some(Some("a/b"))),
            ("/m/{model}:go", "/m/Gpt:go", Some(Some("Gpt"))),
            ("/m/{model}:go", "/m/a/b:go", Some(Some("a/b"))),
            ("/m/{model}:go", "/m/:go", None),
            ("/m/{model}/p", "/m/a/b/p", Some(Some("a/b"))),
        ] {
            let found = matched(&segments(pattern), &segments(path));
            let expected: Option<Option<&str>> = expected;
            let expected = expected.map(|model| model.map(str::to_owned));
            assert_eq!(found, expected, "{pattern} {path}");
        }
    }
}
