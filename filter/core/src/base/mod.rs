//! The base of all other modules: time, text, money, hashes, secrets, limits and configuration errors.

pub mod document;
pub(crate) mod encoded;
pub(crate) mod fingerprint;
pub mod hash;
pub mod invalid;
pub mod limits;
pub mod money;
pub mod pattern;
#[cfg(feature = "schema")]
pub(crate) mod schema;
pub mod secret;
pub(crate) mod stream_map;
pub mod text;
pub mod time;
