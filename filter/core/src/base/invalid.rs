//! The error for an invalid configuration, and the checks that several parts of it share.

use crate::base::limits::VALUE_BYTES_MAX;
use crate::base::text::Duration;

/// Why the filter refuses a configuration, in one line: `path: what was expected`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The path of the value, such as `products[0].pricing.default.price`; empty if the error
    /// concerns the whole text.
    pub path: String,
    /// What the filter expected and what it found.
    pub reason: String,
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

impl core::error::Error for ConfigError {}

pub(crate) fn error(path: &str, reason: &str) -> ConfigError {
    ConfigError { path: path.to_owned(), reason: reason.to_owned() }
}

pub(crate) fn not_empty(path: &str, value: &str) -> Result<(), ConfigError> {
    if value.is_empty() {
        return Err(error(path, "expected a name, found an empty string"));
    }
    Ok(())
}

/// Checks the name or the pattern of a tool that a JSON-RPC message calls: of a longer name the
/// filter knows only the beginning, so nothing would match it.
pub(crate) fn is_tool(path: &str, value: &str) -> Result<(), ConfigError> {
    if value.len() <= VALUE_BYTES_MAX {
        return Ok(());
    }
    let found = value.len();
    Err(error(path, &format!("expected at most {VALUE_BYTES_MAX} bytes, found {found}")))
}

pub(crate) fn is_path(path: &str, value: &str) -> Result<(), ConfigError> {
    if value.starts_with('/') {
        return Ok(());
    }
    Err(error(path, &format!("expected a path that starts with `/`, found {value:?}")))
}

pub(crate) fn is_header(path: &str, value: &str) -> Result<(), ConfigError> {
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
    if !value.is_empty() && value.bytes().all(|b| is_token(b) && !b.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(error(path, &format!("expected a header name in lower case, found {value:?}")))
}

pub(crate) fn is_positive(path: &str, value: Duration) -> Result<(), ConfigError> {
    if value.millis().0 > 0 {
        return Ok(());
    }
    Err(error(path, "expected more than zero, found \"0s\""))
}

pub(crate) fn in_range(path: &str, value: u32, min: u32, max: u32) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(error(path, &format!("expected {min} to {max}, found {value}")))
}
