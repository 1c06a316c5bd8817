//! What the requests and responses of large language models say. One file for each provider; each says which of its
//! counts include which.
//!
//! A new provider: a file with a table of paths, a `fold` and a `route`; a name in [`Provider`]; a line in [`route`],
//! and one in [`by_host`] or [`by_path`]; fixtures under `tests/fixtures/llm`.

pub mod provider;

mod bedrock_chunks;
mod envoy;
mod generation;
mod request;
mod response;
mod stream_error;

pub use self::envoy::read_token_usage;
pub use self::generation::{Format, Generation, Parts, Route, Stage};
pub use self::request::{RequestReader, Requested};
pub use self::response::ResponseReader;
pub use self::stream_error::StreamError;
