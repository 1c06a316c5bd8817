//! Reads a request for a generation that is a form: what its small fields say, as a document.

use crate::base::limits::DOUBTS_MAX;
use crate::protocol::document::Document;
use crate::protocol::paths::Field;
use crate::wire::member_check::is_alike;
use crate::wire::multipart::{FormField, FormReader};

const MODEL: &str = "model";

const FIELDS: &[(&str, Field)] = &[
    (MODEL, Field::Model),
    ("service_tier", Field::Tier),
    ("stream", Field::Stream),
    ("response_format", Field::ResponseFormat),
    ("n", Field::Number),
    ("size", Field::Size),
    ("quality", Field::Quality),
];

/// What a form says.
#[derive(Debug)]
pub(super) struct Form {
    reader: FormReader,
    document: Document,
    /// The fields that come with two values, so that it is not certain which the server takes.
    unclear: Vec<Field>,
    /// Names of the model that the server may take.
    models: Vec<String>,
}

impl Form {
    pub(super) fn new(reader: FormReader) -> Self {
        Self { reader, document: Document::default(), unclear: Vec::new(), models: Vec::new() }
    }

    /// Reads the next bytes.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        let Self { reader, document, unclear, models } = self;
        reader.feed(piece, &mut |found| {
            if is_alike(found.name, MODEL) {
                let name = String::from_utf8_lossy(found.value).into_owned();
                // Servers take the first or the last.
                models.truncate(DOUBTS_MAX.saturating_sub(1));
                models.push(name);
            }
            tell(document, unclear, found);
        });
    }

    /// What the fields say; nothing if the server may see other fields.
    pub(super) fn document(&self) -> Option<&Document> {
        (!self.reader.is_doubtful()).then_some(&self.document)
    }

    /// Whether the server may see other fields, or other values of them.
    pub(super) fn is_unclear(&self) -> bool {
        self.reader.is_doubtful() || !self.unclear.is_empty()
    }

    /// The names of the model that the server may take, if it is not certain which.
    pub(super) fn models_in_doubt(&self) -> &[String] {
        let is_certain = !self.reader.is_doubtful() && !self.unclear.contains(&Field::Model);
        if is_certain { &[] } else { &self.models }
    }

    /// The bytes of the fields and of the files.
    pub(super) fn sizes(&self) -> (u64, u64) {
        self.reader.sizes()
    }
}

fn tell(document: &mut Document, unclear: &mut Vec<Field>, found: FormField<'_>) {
    let known = FIELDS.iter().find(|(name, _)| is_alike(found.name, name));
    let Some((name, field)) = known else { return };
    let is_string = !matches!(field, Field::Stream | Field::Number);
    let is_other = found.name != name.as_bytes()
        || found.is_truncated
        || document.raw(*field).is_some_and(|known| known != (is_string, found.value));
    if is_other && !unclear.contains(field) {
        unclear.push(*field);
    }
    if unclear.contains(field) {
        document.forget(*field);
    } else {
        document.tell(*field, is_string, found.value);
    }
}
