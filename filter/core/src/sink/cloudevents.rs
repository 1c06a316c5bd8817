//! CloudEvents 1.0.2, JSON event format, batched content mode, with the `sequence` extension.

use serde_json::Value;

use crate::sink::format::{Format, Options, joined};
use crate::sink::stored_event::StoredEvent;

/// The CloudEvents format.
#[derive(Debug)]
pub struct CloudEvents;

impl Format for CloudEvents {
    /// Some collectors compare the media type character by character.
    fn media_type(&self) -> &'static str {
        "application/cloudevents-batch+json"
    }

    fn event(&self, _: Options<'_>, source: &str, event: &StoredEvent) -> String {
        self::event(source, event)
    }

    fn batch(&self, events: &mut dyn Iterator<Item = String>) -> Vec<u8> {
        joined("[", events, ",", "]")
    }
}

/// An event of `source` in the JSON event format, without line breaks.
pub(crate) fn event(source: &str, event: &StoredEvent) -> String {
    let StoredEvent { event_type, subject, data, .. } = event;
    let (id, time) = (event.id(), event.time.to_rfc3339());
    let source = Value::from(source);
    // A subject is not empty, if there is one.
    let subject = match &**subject {
        "" => String::new(),
        subject => format!(r#""subject":{},"#, Value::from(subject)),
    };
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":{source},"type":"agent-meter.{event_type}","time":"{time}",{subject}"sequence":"{id}","datacontenttype":"application/json","data":{data}}}"#
    )
}
