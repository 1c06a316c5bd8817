//! Events as bytes, in the format that a collector takes.

pub mod event;
pub mod outbox;
pub mod reply;

pub mod cloudevents;
