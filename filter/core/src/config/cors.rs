//! Which pages in browsers may read the filter's own answers. The server decides on its own, and
//! answers preflights.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error};
use crate::wire::http::{Headers, LocalReply};

/// The longest origin that the filter looks at: a scheme, a DNS name of 253 bytes, and a port.
const ORIGIN_BYTES_MAX: usize = 300;

/// Headers that every page may read (Fetch, CORS-safelisted response-header names), as far as the
/// filter sets them.
const SAFELISTED: &str = "content-type";

/// The pages that may read the filter's own answers; none unless the configuration names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Cors {
    /// Origins such as `https://app.example.com`, or `https://*.example.com` for all hosts below;
    /// `*` means any.
    pub allow_origins: Vec<String>,
    /// True if pages may also read answers to requests that carry cookies or certificates.
    pub allow_credentials: bool,
}

impl Cors {
    /// The origin of a request, if it is allowed to read the filter's answers.
    pub(crate) fn allowed_origin(&self, headers: Headers<'_>) -> Option<String> {
        if self.allow_origins.is_empty() {
            return None;
        }
        let mut origins = headers.all("origin");
        let (Some(origin), None) = (origins.next(), origins.next()) else { return None };
        let origin = core::str::from_utf8(origin).ok()?;
        let is_short = origin.len() <= ORIGIN_BYTES_MAX;
        let is_allowed = is_short && self.allow_origins.iter().any(|rule| allows(rule, origin));
        is_allowed.then(|| origin.to_owned())
    }

    /// Lets the page of this origin read an answer with its headers. `None` is a request of another
    /// page, or of none.
    pub(crate) fn let_read(&self, reply: &mut LocalReply, origin: Option<&str>) {
        if self.allow_origins.is_empty() {
            return;
        }
        let is_any = self.allows_any();
        let names = reply.headers.iter().map(|(name, _)| *name);
        let exposed: Vec<&str> = names.filter(|name| *name != SAFELISTED).collect();
        if !is_any {
            // What a cache keeps for one page must not be given to another.
            reply.headers.push(("vary", "origin".to_owned()));
        }
        let Some(origin) = origin else { return };
        let origin = if is_any { "*" } else { origin };
        reply.headers.push(("access-control-allow-origin", origin.to_owned()));
        if self.allow_credentials {
            reply.headers.push(("access-control-allow-credentials", "true".to_owned()));
        }
        if !exposed.is_empty() {
            reply.headers.push(("access-control-expose-headers", exposed.join(", ")));
        }
    }

    fn allows_any(&self) -> bool {
        self.allow_origins.iter().any(|rule| rule == "*")
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        for (at, rule) in self.allow_origins.iter().enumerate() {
            if rule != "*" && !is_origin(rule) {
                let reason = format!(
                    "expected an origin in lower case such as \"https://app.example.com\", \"https://*.example.com\" or \"*\", found {rule:?}"
                );
                return Err(error(&format!("{path}.allow_origins[{at}]"), &reason));
            }
        }
        if self.allow_credentials && self.allows_any() {
            let reason =
                "expected false with the origin \"*\": any page could act for its visitors";
            return Err(error(&format!("{path}.allow_credentials"), reason));
        }
        if self.allow_credentials && self.allow_origins.is_empty() {
            let reason = "expected false without `allow_origins`";
            return Err(error(&format!("{path}.allow_credentials"), reason));
        }
        Ok(())
    }
}

/// Whether a rule allows an origin. `*.` stands for one or more labels of a host.
fn allows(rule: &str, origin: &str) -> bool {
    if rule == "*" {
        return true;
    }
    let Some((scheme, end)) = rule.split_once("*") else { return rule == origin };
    let host = origin.strip_prefix(scheme).and_then(|rest| rest.strip_suffix(end));
    let is_label = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    host.is_some_and(|host| !host.is_empty() && host.bytes().all(is_label))
}

/// Whether this is what a browser may send in `origin`, or a pattern with `*.` before its host.
fn is_origin(rule: &str) -> bool {
    let Some((scheme, host)) = rule.split_once("://") else { return false };
    let host = host.strip_prefix("*.").unwrap_or(host);
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"+-.".contains(&b));
    let is_host =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.:[]".contains(&byte);
    is_scheme && !host.is_empty() && host.bytes().all(is_host)
}
