//! Which requests belong to a product.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error, is_header, is_path};
use crate::wire::http::Headers;
use crate::wire::target::{Target, is_folded, trim_slash};

/// The requests that belong to a product: by path without query, and by host and headers if given. A
/// slash at the end of a path makes no difference.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Matcher {
    /// The host without port, or `*.` and the end of the host; empty means any.
    pub host: String,
    /// Exactly this path.
    pub path: Option<String>,
    /// This path and all below it: `/mcp` matches `/mcp` and `/mcp/a`, not `/mcpx`.
    pub path_prefix: Option<String>,
    /// Paths of this form: `/orders/{id}/items`, in which `{...}` stands for one segment.
    pub path_template: Option<String>,
    /// Whether upper and lower case differ in the path.
    pub case: PathCase,
    /// Request headers that must be present.
    pub headers: Vec<HeaderMatch>,
}

/// Whether upper and lower case differ in a path, for ASCII.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum PathCase {
    /// They do not, as in many servers: nobody gets past the meter by writing `/MCP`.
    #[default]
    Insensitive,
    /// They do.
    Sensitive,
}

impl PathCase {
    fn is_same(self, one: &str, other: &str) -> bool {
        match self {
            Self::Insensitive => one.eq_ignore_ascii_case(other),
            Self::Sensitive => one == other,
        }
    }
}

/// A request header that must be present.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Its name, in lower case.
    pub name: String,
    /// Its value; without one any will do.
    #[serde(default)]
    pub value: Option<String>,
}

impl Matcher {
    /// Whether a request belongs to the product, in any reading of its path.
    pub fn is_match(&self, target: &Target<'_>, headers: Headers<'_>) -> bool {
        target.paths().any(|path| self.has_path(path)) && self.has_rest(target, headers)
    }

    /// Whether the path, in one reading, belongs to the product.
    pub(super) fn has_path(&self, path: &str) -> bool {
        if let Some(exact) = &self.path {
            self.case.is_same(trim_slash(path), trim_slash(exact))
        } else if let Some(prefix) = &self.path_prefix {
            let prefix = trim_slash(prefix);
            path.split_at_checked(prefix.len()).is_some_and(|(start, rest)| {
                self.case.is_same(start, prefix) && (rest.is_empty() || rest.starts_with('/'))
            })
        } else if let Some(template) = &self.path_template {
            self.is_template(template, path)
        } else {
            false
        }
    }

    /// Whether the configuration names a path below this one, which ends in a slash.
    pub(crate) fn names_below(&self, folder: &str) -> bool {
        let named = [&self.path, &self.path_prefix, &self.path_template];
        named.into_iter().flatten().any(|path| {
            let start = format!("{path}/").get(..folder.len()).map(str::to_ascii_lowercase);
            start.as_deref() == Some(folder)
        })
    }

    /// Whether host and headers belong to the product.
    pub(super) fn has_rest(&self, target: &Target<'_>, headers: Headers<'_>) -> bool {
        let has = |header: &HeaderMatch| match (&header.value, headers.get(&header.name)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(value), Some(found)) => found == value.as_bytes(),
        };
        self.is_host(target.host()) && self.headers.iter().all(has)
    }

    /// Whether this is the product's host.
    pub(crate) fn is_host(&self, host: &[u8]) -> bool {
        match self.host.strip_prefix('*') {
            _ if self.host.is_empty() => true,
            None => host.eq_ignore_ascii_case(self.host.trim_end_matches('.').as_bytes()),
            Some(end) => host
                .len()
                .checked_sub(end.len())
                .filter(|at| *at > 0)
                .and_then(|at| host.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes())),
        }
    }

    /// Whether a path has the form of a template, in which `{...}` stands for one nonempty segment.
    pub(super) fn is_template(&self, template: &str, path: &str) -> bool {
        let mut parts = trim_slash(template).split('/');
        let mut segments = trim_slash(path).split('/');
        loop {
            match (parts.next(), segments.next()) {
                (None, None) => return true,
                (Some(part), Some(segment)) => {
                    let is_any = part.starts_with('{') && part.ends_with('}');
                    if !(self.case.is_same(part, segment) || (is_any && !segment.is_empty())) {
                        return false;
                    }
                }
                _ => return false,
            }
        }
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        let is_host = |host: &str| !host.contains(['*', ':', '/']) || host.starts_with('[');
        let host = self.host.strip_prefix("*.").unwrap_or(&self.host);
        if !is_host(host) || (host.is_empty() && !self.host.is_empty()) {
            let reason = format!(
                "expected a host without port such as \"api.openai.com\" or \"*.openai.azure.com\", found {:?}",
                self.host
            );
            return Err(error(&format!("{path}.host"), &reason));
        }
        for (at, header) in self.headers.iter().enumerate() {
            is_header(&format!("{path}.headers[{at}].name"), &header.name)?;
        }
        match (&self.path, &self.path_prefix, &self.path_template) {
            (Some(exact), None, None) => is_decoded_path(&format!("{path}.path"), exact),
            (None, Some(prefix), None) => is_decoded_path(&format!("{path}.path_prefix"), prefix),
            (None, None, Some(form)) => validate_template(&format!("{path}.path_template"), form),
            _ => Err(error(path, "expected one of `path`, `path_prefix` and `path_template`")),
        }
    }
}

/// Checks a path that the configuration names, and with which it compares what requests name.
pub(super) fn is_decoded_path(path: &str, value: &str) -> Result<(), ConfigError> {
    is_path(path, value)?;
    if is_folded(value) {
        return Ok(());
    }
    let reason = format!(
        "expected a path in its decoded form, without escapes, `;`, query, empty segments and dots at the end of a segment, found {value:?}"
    );
    Err(error(path, &reason))
}

pub(super) fn validate_template(path: &str, template: &str) -> Result<(), ConfigError> {
    is_decoded_path(path, template)?;
    let is_sound = |part: &str| {
        let inner = part.strip_prefix('{').and_then(|part| part.strip_suffix('}'));
        let rest = inner.unwrap_or(part);
        let has_no_name = inner.is_some_and(str::is_empty);
        !has_no_name && !rest.contains(['{', '}'])
    };
    if template.split('/').all(is_sound) {
        return Ok(());
    }
    let reason = format!(
        "expected a path in which whole segments are `{{name}}`, such as \"/orders/{{id}}\", found {template:?}"
    );
    Err(error(path, &reason))
}
