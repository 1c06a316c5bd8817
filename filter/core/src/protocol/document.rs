//! Reads chosen members out of JSON documents: one body, the elements of a streamed array, or one
//! event after another. A format lists the paths that it needs; the reader skips everything else by
//! counting brackets, so a document may be of any size.

use std::borrow::Cow;
use std::rc::Rc;

use rust_decimal::Decimal;

use crate::base::limits::{DOCUMENT_ITEMS_MAX, DOCUMENT_RECORDS_MAX, DOUBTS_MAX};
use crate::domain::price_factors::UNREADABLE;
use crate::protocol::member::{Value, of_both};
use crate::protocol::paths::{DOCUMENTS, ELEMENT, Field, Node, PathTree, ROOT};
use crate::wire::json::{Progress, Scalar, Scanner, Visitor, Want};

/// The name of the items that no path names.
pub(crate) const UNNAMED: &str = "*";

/// Elements of one name and the sum of their counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name of the member that holds the array of these elements.
    pub of: Cow<'static, str>,
    /// The name of the elements.
    pub name: Vec<u8>,
    /// The sum of their counts.
    pub count: u64,
}

/// An object within a document, kept as a document of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The name of the member that holds it, or the array with it.
    pub of: Cow<'static, str>,
    /// Its members.
    pub document: Document,
}

/// What the reader has read of an element of an array.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Element {
    name: Vec<u8>,
    detail: Vec<u8>,
    count: Option<u64>,
}

/// What the reader found in one document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    values: Vec<Value>,
    items: Vec<Item>,
    /// The records, without those that hold no member that the format needs.
    pub records: Vec<Record>,
    /// True if there were more records than the document keeps.
    pub has_more_records: bool,
    /// True if it holds something that bears on the price and that the reader could not read, or
    /// could not keep.
    is_odd: bool,
    /// The fields of which another reader may see another value, each with values that it may see.
    unclear: Vec<(u8, Vec<u8>)>,
    text_bytes: u64,
    input_characters: u64,
    is_object: bool,
    is_whole: bool,
    /// The type of the event that carried the document, if the framing names it.
    pub event_type: Vec<u8>,
}

impl Document {
    /// The member as a number of zero or more, which is rounded up; `None` if it is no such number.
    /// `12` and `12.0` are counts as they should be; `1.5` and `"12"` are read too, but make the
    /// document odd.
    pub fn count(&self, field: Field) -> Option<u64> {
        self.value(field).count()
    }

    /// Whether it holds a count, a quantity or a word that moves the price, and the reader could not
    /// read it, or read it only by leniency; or more of what it counts than it keeps.
    pub fn is_odd(&self) -> bool {
        self.is_odd
    }

    /// The member as a number of zero or more, which may be a string, or the number of its
    /// occurrences.
    pub fn quantity(&self, field: Field) -> Option<Decimal> {
        self.value(field).quantity()
    }

    /// Whether it may hold something that is billed beside tokens, or a cost.
    pub(crate) fn is_about_units(&self) -> bool {
        self.values.len() > Field::FIRST_BESIDE_TOKENS || !self.items.is_empty()
    }

    /// The names of the elements of `array`, each with the sum of their counts.
    pub(crate) fn items_of(&self, array: &str) -> impl Iterator<Item = (&[u8], u64)> {
        let items = self.items.iter().filter(move |item| item.of == array);
        items.map(|item| (item.name.as_slice(), item.count))
    }

    /// The member as a string, unless it is empty. Replaces invalid UTF-8.
    pub fn text(&self, field: Field) -> Option<Cow<'_, str>> {
        match self.value(field) {
            Value::Text(text) if !text.is_empty() => Some(String::from_utf8_lossy(text)),
            _ => None,
        }
    }

    /// The member as a word that moves the price, unless it is blank. What is there and is no string
    /// is [`UNREADABLE`], which is no word for the list price.
    pub fn word(&self, field: Field) -> Option<Cow<'_, str>> {
        match self.value(field) {
            Value::Absent | Value::Null => None,
            Value::Text(text) => {
                Some(String::from_utf8_lossy(text)).filter(|text| !text.trim().is_empty())
            }
            Value::Bare(_) | Value::Container | Value::Count(_) => Some(UNREADABLE.into()),
        }
    }

    /// The member as it stands in the text, if it is a string or a number, and whether it is a
    /// string.
    pub fn raw(&self, field: Field) -> Option<(bool, &[u8])> {
        match self.value(field) {
            Value::Text(text) => Some((true, text)),
            Value::Bare(text) => Some((false, text)),
            Value::Absent | Value::Null | Value::Container | Value::Count(_) => None,
        }
    }

    /// Whether the member is this string.
    pub fn is(&self, field: Field, text: &str) -> bool {
        matches!(self.value(field), Value::Text(found) if found == text.as_bytes())
    }

    /// Whether the member is `true`.
    pub(crate) fn is_true(&self, field: Field) -> bool {
        matches!(self.value(field), Value::Bare(text) if text == b"true")
    }

    /// Whether the member is `false`.
    pub(crate) fn is_false(&self, field: Field) -> bool {
        matches!(self.value(field), Value::Bare(text) if text == b"false")
    }

    /// Whether the document has the member, and its value is not `null`.
    pub fn has(&self, field: Field) -> bool {
        !matches!(self.value(field), Value::Absent | Value::Null)
    }

    /// The sum of the counts of the elements of `array` that have one of these names, in any case.
    /// `None` if there is no such element.
    pub fn sum(&self, array: &str, names: &[&str]) -> Option<u64> {
        let is_meant = |(name, _): &(&[u8], u64)| {
            names.iter().any(|meant| meant.as_bytes().eq_ignore_ascii_case(name))
        };
        let meant = self.items_of(array).filter(is_meant);
        meant.map(|(_, count)| count).reduce(u64::saturating_add)
    }

    /// Whether the document is an object.
    pub fn is_object(&self) -> bool {
        self.is_object
    }

    /// Whether the document has begun as an object and not ended.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_object && !self.is_whole
    }

    /// The length of the generated text, in bytes.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The length of the text to work on, in Unicode scalar values.
    pub(crate) fn input_characters(&self) -> u64 {
        self.input_characters
    }

    fn value(&self, field: Field) -> &Value {
        let at = Field::ALL.iter().position(|other| *other == field);
        at.and_then(|at| self.values.get(at)).unwrap_or(&Value::Absent)
    }

    /// Sets a member that does not come out of JSON.
    pub(crate) fn tell(&mut self, field: Field, is_string: bool, text: &[u8]) {
        let text = text.to_vec();
        let value = if is_string { Value::Text(text) } else { Value::Bare(text) };
        self.put(field, value);
    }

    /// Takes a member away.
    pub(crate) fn forget(&mut self, field: Field) {
        self.put(field, Value::Absent);
    }

    /// The fields that were told twice with different values or, where the tree is strict, under a
    /// name that other readers may take for theirs: it is not certain which one a server takes.
    pub(crate) fn unclear(&self) -> impl Iterator<Item = Field> {
        let fields = self.unclear.iter().map(|(field, _)| usize::from(*field));
        fields.filter_map(|field| Field::ALL.get(field).copied())
    }

    /// Some of the texts that a server may take for this member, if that is not certain.
    pub(crate) fn texts_in_doubt(&self, field: Field) -> Vec<String> {
        let is_it = |number: u8| Field::ALL.get(usize::from(number)) == Some(&field);
        let doubts = self.unclear.iter().filter(|(number, _)| is_it(*number));
        let texts: Vec<String> =
            doubts.map(|(_, text)| String::from_utf8_lossy(text).into_owned()).collect();
        let told = self.text(field).filter(|_| !texts.is_empty()).map(Cow::into_owned);
        texts.into_iter().chain(told).filter(|text| !text.is_empty()).collect()
    }

    fn doubt(&mut self, field: u8, text: &[u8]) {
        let doubts = self.unclear.iter().filter(|(number, _)| *number == field).count();
        if doubts < DOUBTS_MAX {
            self.unclear.push((field, text.to_vec()));
        }
    }

    fn put(&mut self, field: Field, value: Value) {
        let at = Field::ALL.iter().position(|other| *other == field);
        let Some(at) = at else { return };
        if self.values.len() <= at {
            self.values.resize(at.saturating_add(1), Value::Absent);
        }
        if let Some(place) = self.values.get_mut(at) {
            *place = value;
        }
    }

    /// Sets a member. Returns whether an earlier one with the same meaning counts other tokens.
    fn set(&mut self, field: u8, value: Value) -> bool {
        let at = usize::from(field);
        if self.values.len() <= at {
            self.values.resize(at.saturating_add(1), Value::Absent);
        }
        // A container only holds what tells the value.
        if let Some(Value::Bare(told) | Value::Text(told)) =
            self.values.get(at).filter(|told| value != Value::Container && **told != value)
        {
            self.doubt(field, &told.clone());
        }
        let (Some(meaning), Some(place)) = (Field::ALL.get(at).copied(), self.values.get_mut(at))
        else {
            return false;
        };
        let tokens = |value: &Value| value.count().filter(|count| *count > 0);
        let is_another = meaning.is_tokens()
            && !meaning.adds_up()
            && tokens(place).is_some_and(|earlier| tokens(&value).is_some_and(|it| it != earlier));
        *place = of_both(meaning, core::mem::take(place), value);
        is_another
    }

    /// Counts more of a kind that is counted.
    fn tally(&mut self, field: u8, more: u64) {
        let at = usize::from(field);
        let before = match self.values.get(at) {
            Some(Value::Count(count)) => *count,
            _ => 0,
        };
        self.set(field, Value::Count(before.saturating_add(more)));
    }

    fn clear(&mut self) {
        self.values.clear();
        self.items.clear();
        self.records.clear();
        self.has_more_records = false;
        self.is_odd = false;
        self.unclear.clear();
        self.text_bytes = 0;
        self.input_characters = 0;
        self.is_object = false;
        self.is_whole = false;
    }
}

fn is_unnamed(field: u8) -> bool {
    Field::ALL.get(usize::from(field)) == Some(&Field::Unnamed)
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
            self.document.text_bytes = self.document.text_bytes.saturating_add(bytes);
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
        if record.values.iter().all(|value| matches!(value, Value::Absent | Value::Null)) {
            return;
        }
        if self.document.records.len() >= DOCUMENT_RECORDS_MAX {
            self.document.has_more_records = true;
            return;
        }
        let of = of.unwrap_or_default();
        self.document.records.push(Record { of, document: record });
    }

    /// Counts so many elements of a name.
    fn put_item(&mut self, of: Cow<'static, str>, name: Vec<u8>, count: u64) {
        let items = &mut self.document.items;
        let same = items.iter_mut().find(|item| item.of == of && item.name == name);
        if let Some(item) = same {
            item.count = item.count.saturating_add(count);
        } else if items.len() < DOCUMENT_ITEMS_MAX {
            items.push(Item { of, name, count });
        } else {
            self.document.is_odd = true;
        }
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
        let kept = Value::new(&value);
        self.document.is_odd |= kept.is_odd(meaning);
        match meaning {
            Field::OutputText => {
                let bytes = if value.is_string { value.bytes } else { 0 };
                self.document.text_bytes = self.document.text_bytes.saturating_add(bytes);
            }
            Field::InputText if value.is_string => {
                self.document.input_characters = value.characters;
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
                    self.put_item(Cow::Borrowed(UNNAMED), name, count);
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
        self.put_item(of, name, count);
    }
}
