//! Formats in which events go to a collector. The outbox knows none of them: it keeps events as
//! [`StoredEvent`](stored_event::StoredEvent)s and asks the format for bytes.
//!
//! To add a format: a file with a type that implements [`Format`], its `mod` line, and its row in
//! the table below, with the name that `collector.format` takes.

pub mod aforo;
pub mod cloudevents;
pub mod credential;
pub mod format;
mod members;
pub mod otel;
pub mod otlp_logs;
pub mod reply;
pub(crate) mod stored_event;

use serde::Deserialize;

use crate::sink::aforo::Aforo;
use crate::sink::cloudevents::CloudEvents;
use crate::sink::format::Format;
use crate::sink::otlp_logs::OtlpLogs;

macro_rules! formats {
    ($($(#[$attribute:meta])+ $variant:ident = $name:literal, $format:expr;)+) => {
        /// The format of events, as `collector.format` names it.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
        pub enum FormatName { $($(#[$attribute])+ #[serde(rename = $name)] $variant,)+ }

        impl FormatName {
            /// The format with this name.
            pub fn format(self) -> &'static dyn Format {
                match self { $(Self::$variant => &$format,)+ }
            }
        }
    };
}

formats! {
    /// CloudEvents 1.0.2 in JSON batches.
    #[default]
    CloudEvents = "cloudevents", CloudEvents;
    /// OpenTelemetry logs, in OTLP's JSON.
    OtlpLogs = "otlp_logs", OtlpLogs;
    /// Usage events of Aforo, in camelCase.
    Aforo = "aforo", Aforo;
}
