//! Reads the requests and responses of large language models. Each provider has a file, which says
//! which of its counts include which.

pub mod provider;

pub(crate) mod batch;

mod asks;
mod bedrock_chunks;
mod cache_apart;
mod endpoint;
mod envoy;
mod form;
mod generation;
pub(crate) mod location;
mod media;
mod realtime;
mod request;
mod response;
mod runs;
mod socket;
mod stream_error;
pub(crate) mod units;
pub(crate) mod within_or_beside;

pub use self::endpoint::PriceLists;
pub(crate) use self::envoy::read_token_usage;
pub(crate) use self::generation::Stage;
pub use self::generation::{Fold, Format, Generation, Parts};
pub use self::provider::{Family, Provider, Route};
pub use self::request::{LlmRequestBody, Requested};
pub use self::response::ResponseReader;
pub(crate) use self::socket::{SocketApi, SocketEvent, SocketGeneration, SocketReader};
