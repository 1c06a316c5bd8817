//! How a call, and the response to it, arrives.

use serde::{Deserialize, Serialize};

/// The name of a tool that the filter does not know for certain. Its price is the dearest of the
/// price list.
pub(crate) const UNNAMED_TOOL: &str = "__unnamed__";

/// How certain it is that there was a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// The filter understood the request and, if one came, the response.
    Certain,
    /// The filter did not understand the request for certain, or could not decode the response, and
    /// what it did understand is what a call looks like.
    Inferred,
}

/// How the response arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A JSON body.
    Json,
    /// A server-sent event.
    Sse,
    /// The filter saw no response.
    None,
}
