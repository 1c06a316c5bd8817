//! How the answer to a call comes.

use serde::{Deserialize, Serialize};

/// How the answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// A JSON body.
    Json,
    /// A server-sent event.
    Sse,
    /// No answer was seen.
    None,
}
