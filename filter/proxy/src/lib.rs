//! The Envoy module.
