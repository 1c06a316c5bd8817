//! What an exchange knows of one generation, before it is a fact.

use crate::base::time::Timestamp;
use crate::protocol::llm::{Generation, Requested};

/// One generation, as its request and its response tell of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) id: String,
    pub(super) caused_by: Option<(String, String)>,
    pub(super) generation: Generation,
    pub(super) is_readable: bool,
    pub(super) requested: Requested,
    /// An estimate of the tokens in the request.
    pub(super) requested_tokens: u64,
    pub(super) started_at: Timestamp,
    /// True if it is a step of an agent that no request of HTTP makes.
    pub(super) is_step: bool,
}
