//! Which requests belong to a product.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error, is_header, is_path};
use crate::wire::http::Headers;

/// The requests that belong to a product: by path without query, and by host and headers if given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
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
    /// Request headers that must be present.
    pub headers: Vec<HeaderMatch>,
}

/// A request header that must be present.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Its name, in lower case.
    pub name: String,
    /// Its value; without one any will do.
    #[serde(default)]
    pub value: Option<String>,
}

impl Matcher {
    /// Whether a request with this `:authority`, `:path` and headers belongs to the product.
    pub fn is_match(&self, authority: &[u8], path_and_query: &[u8], headers: Headers<'_>) -> bool {
        let path = without_query(path_and_query);
        let is_path = if let Some(exact) = &self.path {
            path == exact.as_bytes()
        } else if let Some(prefix) = &self.path_prefix {
            let prefix = prefix.as_bytes();
            path.strip_prefix(prefix).is_some_and(|rest| {
                rest.is_empty() || prefix.ends_with(b"/") || rest.starts_with(b"/")
            })
        } else if let Some(template) = &self.path_template {
            is_template(template, path)
        } else {
            false
        };
        let has = |header: &HeaderMatch| match (&header.value, headers.get(&header.name)) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(value), Some(found)) => found == value.as_bytes(),
        };
        is_path && self.is_host(authority) && self.headers.iter().all(has)
    }

    fn is_host(&self, authority: &[u8]) -> bool {
        let host = without_port(authority);
        match self.host.strip_prefix('*') {
            _ if self.host.is_empty() => true,
            None => host.eq_ignore_ascii_case(self.host.as_bytes()),
            Some(end) => host
                .len()
                .checked_sub(end.len())
                .filter(|at| *at > 0)
                .and_then(|at| host.get(at..))
                .is_some_and(|tail| tail.eq_ignore_ascii_case(end.as_bytes())),
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
            (Some(exact), None, None) => is_path(&format!("{path}.path"), exact),
            (None, Some(prefix), None) => is_path(&format!("{path}.path_prefix"), prefix),
            (None, None, Some(form)) => validate_template(&format!("{path}.path_template"), form),
            _ => Err(error(path, "expected one of `path`, `path_prefix` and `path_template`")),
        }
    }
}

/// A path without its query.
pub(crate) fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}

/// Whether a path has the form of a template, in which `{...}` stands for one nonempty segment.
pub(crate) fn is_template(template: &str, path: &[u8]) -> bool {
    let mut parts = template.as_bytes().split(|byte| *byte == b'/');
    let mut segments = path.split(|byte| *byte == b'/');
    loop {
        match (parts.next(), segments.next()) {
            (None, None) => return true,
            (Some(part), Some(segment)) => {
                let is_any = part.starts_with(b"{") && part.ends_with(b"}");
                if !(part == segment || (is_any && !segment.is_empty())) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

pub(super) fn validate_template(path: &str, template: &str) -> Result<(), ConfigError> {
    is_path(path, template)?;
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

fn without_port(authority: &[u8]) -> &[u8] {
    if authority.starts_with(b"[") {
        let end = authority.iter().position(|byte| *byte == b']');
        return end.and_then(|end| authority.get(..=end)).unwrap_or(authority);
    }
    authority.split(|byte| *byte == b':').next().unwrap_or_default()
}
