//! Where tools report the usage of generations that they made inside, out of the filter's sight.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error, is_header};
use crate::protocol::llm::provider::Provider;

/// Where a tool's result, or the response's headers, report usage. Nothing is read where nothing is named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReportedUsage {
    /// Who runs the models.
    pub provider: Option<Provider>,
    /// JSON pointers (RFC 6901) into the `result` of a tool call, such as `/_meta/usage/input_tokens`.
    pub result: Places,
    /// Response headers that the server sets and that nothing else can.
    pub trusted_headers: Places,
}

/// Where each part of the usage stands; empty means nowhere. Counts are in the normal form: `input` holds what was
/// read from and written to a cache, `output` holds reasoning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Places {
    /// The model.
    pub model: String,
    /// Tokens read.
    pub input: String,
    /// Tokens made.
    pub output: String,
    /// Of `input`.
    pub cache_read: String,
    /// Of `input`.
    pub cache_write: String,
    /// Of `output`.
    pub reasoning: String,
}

impl Places {
    /// Whether anything is named.
    pub fn is_named(&self) -> bool {
        self.all().into_iter().any(|(_, place)| !place.is_empty())
    }

    /// Every place under its name.
    pub fn all(&self) -> [(&'static str, &str); 6] {
        [
            ("model", &self.model),
            ("input", &self.input),
            ("output", &self.output),
            ("cache_read", &self.cache_read),
            ("cache_write", &self.cache_write),
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
