//! Reads chosen members out of JSON documents: one body, the elements of a streamed array, or one
//! event after another. A format lists the paths that it needs; the reader skips everything else by
//! counting brackets, so a document may be of any size.

use std::borrow::Cow;
use std::rc::Rc;

use crate::base::limits::DOCUMENT_RECORDS_MAX;
use crate::protocol::document::{Document, Record, UNNAMED};
use crate::protocol::member::Value;
use crate::protocol::path_tree::{DOCUMENTS, ELEMENT, Node, PathTree, ROOT};
use crate::protocol::paths::Field;
use crate::wire::json::{Progress, Scalar, Scanner, Visitor, Want};

/// What the reader has read of an element of an array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Element {
    name: Vec<u8>,
    detail: Vec<u8>,
    count: Option<u64>,
}

/// Reads documents one after another.
#[derive(Debug)]
pub(crate) struct DocumentReader {
    tree: Rc<PathTree>,
    scanner: Scanner,
    document: Document,
    /// True if the text is a document or an array of documents.
    holds_documents: bool,
    /// The current element.
    item: Element,
    /// The record that is open, and its node.
    record: Option<Box<(u8, Document)>>,
}

impl DocumentReader {
    /// Creates a reader for the members that `tree` names.
    pub(crate) fn new(tree: Rc<PathTree>) -> Self {
        Self {
            tree,
            scanner: Scanner::default(),
            document: Document::default(),
            holds_documents: false,
            item: Element::default(),
            record: None,
        }
    }

    /// Reads the next bytes of a text and calls `found` with each document in it when the document
    /// ends: with the text itself or, if the text is an array, with its elements. Returns how many
    /// of the bytes belong to the text.
    pub(crate) fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(&Document)) -> usize {
        let Self { tree, scanner, document, holds_documents, item, record } = self;
        scanner.feed(chunk, &mut Builder { tree, document, holds_documents, item, record, found })
    }

    /// Begins a new text.
    pub(crate) fn restart(&mut self) {
        self.scanner.restart();
        self.document.clear();
        self.record = None;
        self.holds_documents = false;
    }

    /// How far the text has been read.
    pub(crate) fn progress(&self) -> Progress {
        self.scanner.progress()
    }

    /// Whether the text cannot hold a document: it is not JSON, or it is a string, number or
    /// literal.
    pub(crate) fn is_unreadable(&self) -> bool {
        let is_scalar = self.scanner.has_started() && !self.holds_documents;
        is_scalar || self.progress() == Progress::Failed
    }

    /// Whether the text has begun and not ended.
    pub(crate) fn is_within(&self) -> bool {
        self.scanner.has_started() && self.progress() == Progress::Open
    }

    /// Whether another reader may see another structure in the text: see [`Scanner::is_lax`].
    pub(crate) fn is_lax(&self) -> bool {
        self.scanner.is_lax()
    }

    /// Sets the type of the event that carries the text.
    pub(crate) fn set_event_type(&mut self, event_type: &[u8]) {
        self.document.event_type.clear();
        self.document.event_type.extend_from_slice(event_type);
    }

    /// The same, to be taken.
    pub(crate) fn document_mut(&mut self) -> &mut Document {
        &mut self.document
    }

    /// What the reader has found so far, even if the text is cut off.
    pub(crate) fn document(&self) -> &Document {
        &self.document
    }

    /// The text has ended. Returns what the reader has found of a document that was cut off, with
    /// the text that it was in.
    pub(crate) fn cut_document(&mut self) -> Option<&Document> {
        if !self.document.is_cut() {
            return None;
        }
        let (field, bytes) = self.scanner.open_text().unwrap_or_default();
        if Field::ALL.get(usize::from(field)) == Some(&Field::OutputText) {
            self.document.add_text(bytes);
        }
        Some(&self.document)
    }
}

struct Builder<'a> {
    tree: &'a PathTree,
    document: &'a mut Document,
    holds_documents: &'a mut bool,
    item: &'a mut Element,
    record: &'a mut Option<Box<(u8, Document)>>,
    found: &'a mut dyn FnMut(&Document),
}

impl Builder<'_> {
    fn node(&self, at: u8) -> Option<&Node> {
        self.tree.nodes.get(usize::from(at))
    }

    fn is_record(&self, at: u8) -> bool {
        let field = self.node(at).and_then(|node| node.field);
        field.and_then(|field| Field::ALL.get(usize::from(field))) == Some(&Field::Record)
    }

    /// The record that is open, else the document.
    fn innermost(&mut self) -> &mut Document {
        match self.record {
            Some(record) => &mut record.1,
            None => self.document,
        }
    }

    /// Keeps the record that ends, if it holds anything.
    fn close_record(&mut self, node: u8, record: Document) {
        let of = self.array_of(node).or_else(|| self.node(node).map(|node| node.step.clone()));
        if record.is_blank() {
            return;
        }
        if self.document.records.len() >= DOCUMENT_RECORDS_MAX {
            self.document.has_more_records = true;
            return;
        }
        let of = of.unwrap_or_default();
        self.document.records.push(Record { of, document: record });
    }

    /// The name of the member that holds the array with `element` in it.
    fn array_of(&self, element: u8) -> Option<Cow<'static, str>> {
        let element = self.node(element).filter(|node| node.step == ELEMENT)?;
        self.node(element.parent).map(|array| array.step.clone())
    }
}

impl Visitor for Builder<'_> {
    fn top(&mut self) -> Want {
        self.tree.top()
    }

    fn member(&mut self, node: u8, key: &[u8]) -> Want {
        let want = self.tree.want(node, key);
        if want.scalar.is_some_and(is_unnamed) {
            self.item.name = key.to_vec();
        }
        if want != Want::NOTHING {
            return want;
        }
        let Some((name, field)) = self.tree.taken_for(node, key) else { return want };
        self.document.doubt(field, b"");
        self.tree.want(node, name.as_bytes())
    }

    fn element(&mut self, node: u8) -> Want {
        if node == DOCUMENTS {
            return Want::object(ROOT);
        }
        self.tree.want(node, ELEMENT.as_bytes())
    }

    fn scalar(&mut self, field: u8, value: Scalar<'_>) {
        let Some(meaning) = Field::ALL.get(usize::from(field)).copied() else { return };
        // Of most documents of a stream this is all that they hold.
        if meaning == Field::OutputText {
            self.document.add_text(if value.is_string { value.bytes } else { 0 });
            return;
        }
        let kept = Value::new(&value);
        self.document.is_odd |= kept.is_odd(meaning);
        match meaning {
            Field::InputText if value.is_string => {
                self.document.input_characters = value.characters();
            }
            Field::ItemName => self.item.name = value.text.to_vec(),
            Field::ItemKind => {
                self.item.name = value.text.to_vec();
                self.item.count = Some(1);
            }
            Field::ItemDetail => self.item.detail = value.text.to_vec(),
            Field::ItemCount => self.item.count = kept.count(),
            Field::Unnamed => {
                let name = [&self.item.detail, &*self.item.name].concat();
                if let Some(count) = kept.count().filter(|count| *count > 0) {
                    self.document.put_item(Cow::Borrowed(UNNAMED), name, count);
                }
            }
            counted if counted.is_counted() && kept != Value::Null => {
                self.innermost().tally(field, 1);
            }
            adding if adding.adds_up() => {
                if let Some(count) = kept.count() {
                    self.innermost().tally(field, count);
                }
            }
            _ => {
                if self.tree.is_strict() {
                    self.innermost().doubt_another(field, &kept);
                }
                let is_another = self.innermost().set(field, kept);
                self.document.is_odd |= is_another;
            }
        }
    }

    fn open(&mut self, node: u8) {
        *self.holds_documents |= node == ROOT || node == DOCUMENTS;
        if node == ROOT {
            let event_type = core::mem::take(&mut self.document.event_type);
            self.document.clear();
            self.document.event_type = event_type;
            self.document.is_object = true;
            return;
        }
        if self.is_record(node) {
            *self.record = Some(Box::new((node, Document::default())));
            return;
        }
        let field = self.node(node).and_then(|node| node.field);
        if let Some(field) = field
            && let Some(meaning) = Field::ALL.get(usize::from(field)).copied()
        {
            if meaning == Field::Unnamed {
                self.item.detail = [&*self.item.name, b"."].concat();
                return;
            }
            self.document.is_odd |= Value::Container.is_odd(meaning);
            if meaning.is_counted() {
                self.innermost().tally(field, 1);
            } else {
                self.innermost().set(field, Value::Container);
            }
        }
        if self.node(node).is_some_and(|node| node.step == ELEMENT) {
            *self.item = Element::default();
        }
    }

    fn close(&mut self, node: u8) {
        if node == ROOT {
            self.document.is_whole = true;
            (self.found)(self.document);
            return;
        }
        if let Some(record) = self.record.take_if(|record| record.0 == node) {
            self.close_record(node, record.1);
            return;
        }
        if self.node(node).and_then(|node| node.field).is_some_and(is_unnamed) {
            self.item.detail.clear();
            return;
        }
        let Some(of) = self.array_of(node) else { return };
        let Element { mut name, detail, count } = core::mem::take(self.item);
        let Some(count) = count else { return };
        if !detail.is_empty() {
            name.push(b':');
            name.extend_from_slice(&detail);
        }
        self.document.put_item(of, name, count);
    }
}

fn is_unnamed(field: u8) -> bool {
    Field::ALL.get(usize::from(field)) == Some(&Field::Unnamed)
}
