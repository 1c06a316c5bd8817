//! Events as bytes, in the format that a collector takes.

pub mod cloudevents;
