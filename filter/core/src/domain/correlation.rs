//! Ids of other systems by which an event is joined with traces and access logs.

use serde::{Deserialize, Serialize};

/// The ids that the configuration asks for, as far as a request has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Correlation {
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// The trace id of the request, 32 lower-case hexadecimal digits.
    pub trace_id: Option<String>,
    /// The JSON-RPC id of a call: a number as written, or a hash of a text.
    pub rpc_id: Option<String>,
}
