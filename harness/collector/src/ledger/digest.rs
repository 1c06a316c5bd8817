//! Digests of stored events, by which a change of one can be found.
//!
//! The digest of an event is the hash of a leaf of RFC 6962 (section 2.1): SHA-256 of the byte 0 and
//! of its fields, each as a netstring, `LENGTH:BYTES,`, in the order of [`Fields`]. The chain of a
//! source is `SHA-256("agent-meter chain v1\n" CHAIN DIGEST)` over its events in the order in which
//! they were stored, all in hexadecimal digits; it begins with the empty text. Version 1.

use sha2::{Digest, Sha256};

use crate::event::{Body, Event};
use crate::hex::hex;
use crate::sql::postgres::kept_text;

/// What of a stored event has a digest.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Fields {
    pub(crate) source: String,
    pub(crate) id: String,
    /// RFC 3339: when the ledger took it.
    pub(crate) received_at: String,
    #[serde(rename = "type")]
    pub(crate) event_type: String,
    pub(crate) time: String,
    pub(crate) subject: String,
    pub(crate) sequence: i64,
    /// As it came; empty where the ledger keeps no text.
    pub(crate) text: String,
}

impl Fields {
    /// 64 hexadecimal digits.
    pub(crate) fn digest(&self) -> String {
        let sequence = self.sequence.to_string();
        let fields = [
            &self.source,
            &self.id,
            &self.received_at,
            &self.event_type,
            &self.time,
            &self.subject,
            &sequence,
            &self.text,
        ];
        digest(fields.map(String::as_str))
    }
}

/// The digest of an event that the ledger takes now.
pub(crate) fn of_event(event: &Event<'_>, received_at: &str) -> String {
    let sequence = event.sequence.to_string();
    let (source, id) = (kept_text(&event.source), kept_text(&event.id));
    let (event_type, subject) = (kept_text(&event.event_type), kept_text(&event.subject));
    let text = text_with_digest(event);
    digest([&source, &id, received_at, &event_type, &event.time, &subject, &sequence, text])
}

/// The event as it came, if the ledger keeps that, in `events` or in `quarantine`: nothing for
/// `guard_totals` and heartbeats, which are many, and where each repeats all that the last one said.
fn text_with_digest<'a>(event: &'a Event<'a>) -> &'a str {
    if event.beyond.is_some() { event.raw } else { text_if_plausible(event) }
}

/// The text that `events` has of an event that is not kept apart.
pub(super) fn text_if_plausible<'a>(event: &'a Event<'a>) -> &'a str {
    match &event.body {
        Body::GuardTotals(_) | Body::Heartbeat(_) => "",
        Body::Call(_)
        | Body::Generation(_)
        | Body::Session(_)
        | Body::LevelChange(_)
        | Body::Correction(_)
        | Body::Billed(_)
        | Body::TopUp(_)
        | Body::Unknown => event.raw,
    }
}

fn digest(fields: [&str; 8]) -> String {
    let mut hash = Sha256::new();
    hash.update([0]);
    for field in fields {
        hash.update(format!("{}:", field.len()));
        hash.update(field);
        hash.update(",");
    }
    hex(&hash.finalize())
}

/// The chain of a source with one more event.
pub(crate) fn chained(chain: &str, digest: &str) -> String {
    let hash = Sha256::new_with_prefix("agent-meter chain v1\n");
    hex(&hash.chain_update(chain).chain_update(digest).finalize())
}
