//! By which ids events and access logs are joined.

use serde::Deserialize;

/// What the filter tells beside its own ids; nothing unless the configuration asks for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CorrelationRules {
    /// True if events have `request_id`, the `x-request-id` of the request.
    pub request_id: bool,
    /// True if events have `trace_id`, the trace that the request names.
    pub trace_id: bool,
    /// True if events of calls have `rpc_id`, the JSON-RPC id of the call.
    pub rpc_id: bool,
    /// True if the filter leaves what it counted of a stream in Envoy's filter state, for access
    /// logs.
    pub access_log: bool,
}
