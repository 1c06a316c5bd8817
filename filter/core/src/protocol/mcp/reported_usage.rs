//! Where tools report the usage of their own generations, which the filter does not see.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error, is_header};
use crate::domain::seller::Seller;

/// Where a tool's result, or the response's headers, report usage. The filter reads only the places
/// that are named here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ReportedUsage {
    /// Who sells the models.
    pub provider: Option<Seller>,
    /// JSON pointers (RFC 6901) into the `result` of a tool call, such as
    /// `/_meta/usage/input_tokens`.
    pub result: Places,
    /// Response headers that only the server can set.
    pub trusted_headers: Places,
}

/// The place of each part of the usage; empty means that there is none. Counts are in the normal
/// form: `input` includes cache reads and cache writes, `output` includes reasoning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(rename = "UsagePlaces"))]
#[serde(deny_unknown_fields, default)]
pub struct Places {
    /// The model.
    pub model: String,
    /// Input tokens.
    pub input: String,
    /// Output tokens.
    pub output: String,
    /// The part of `input` that was read from a cache.
    pub cache_read: String,
    /// The part of `input` that was written to a cache.
    pub cache_write: String,
    /// The part of `cache_write` that is kept for an hour.
    pub cache_write_1h: String,
    /// The part of `output` that is reasoning.
    pub reasoning: String,
}

impl Places {
    /// Whether any place is named.
    pub fn is_named(&self) -> bool {
        self.all().into_iter().any(|(_, place)| !place.is_empty())
    }

    /// Every place, with its name.
    pub fn all(&self) -> [(&'static str, &str); 7] {
        [
            ("model", &self.model),
            ("input", &self.input),
            ("output", &self.output),
            ("cache_read", &self.cache_read),
            ("cache_write", &self.cache_write),
            ("cache_write_1h", &self.cache_write_1h),
            ("reasoning", &self.reasoning),
        ]
    }
}

impl ReportedUsage {
    pub(crate) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        for (name, pointer) in self.result.all() {
            if !pointer.is_empty() && !pointer.starts_with('/') {
                let reason = format!(
                    "expected a JSON pointer such as \"/_meta/usage/input_tokens\", found {pointer:?}"
                );
                return Err(error(&format!("{path}.result.{name}"), &reason));
            }
        }
        for (name, header) in self.trusted_headers.all() {
            if !header.is_empty() {
                is_header(&format!("{path}.trusted_headers.{name}"), header)?;
            }
        }
        if self.provider.is_none() && (self.result.is_named() || self.trusted_headers.is_named()) {
            return Err(error(&format!("{path}.provider"), "expected a provider, found none"));
        }
        Ok(())
    }
}
