//! How the response to a call arrives.

use serde::{Deserialize, Serialize};

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
