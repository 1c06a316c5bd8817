//! How the filter joins a product's calls with the generations that they cause.

use serde::Deserialize;

/// How the filter joins a product's calls with the generations that they cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum TraceRule {
    /// By a member that the filter adds to the request's `tracestate`, with a `traceparent` of the
    /// filter where the client sent none. The client's own trace stays for tracing.
    #[default]
    State,
    /// By a trace of the filter, which replaces the client's: for applications that carry on only
    /// `traceparent` or B3.
    Own,
    /// By the trace that the client sends. The filter does not change the request.
    Trust,
}
