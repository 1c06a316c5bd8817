//! Reads chosen members out of JSON documents: one body, the elements of a streamed array, or one
//! event after another. A format lists the paths that it needs; the reader skips everything else by
//! counting brackets, so a document may be of any size.

use std::borrow::Cow;
use std::rc::Rc;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;

use crate::base::limits::DOCUMENT_ITEMS_MAX;
use crate::wire::json::{Progress, Scalar, Scanner, Visitor, Want};

/// Stands in a path for the elements of an array.
const ELEMENT: &str = "[]";

/// The node of the document itself.
const ROOT: u8 = 0;

/// The node of an array of documents.
const DOCUMENTS: u8 = u8::MAX;

macro_rules! fields {
    ($($(#[doc = $doc:literal])+ $variant:ident,)+) => {
        /// The meaning of a member of a document.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field { $($(#[doc = $doc])+ $variant,)+ }

        impl Field {
            /// Every field, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }
    };
}

fields! {
    /// Input tokens. The provider's file says which tokens the count includes.
    Input,
    /// Output tokens. The provider's file says which tokens the count includes.
    Output,
    /// Tokens read from a cache.
    CacheRead,
    /// Tokens written to a cache.
    CacheWrite,
    /// Tokens written to a cache for 5 minutes.
    CacheWrite5m,
    /// Tokens written to a cache for 1 hour.
    CacheWrite1h,
    /// Reasoning tokens.
    Reasoning,
    /// Tokens that tools add to the prompt, where the provider counts them apart.
    ToolPrompt,
    /// Input audio, in tokens.
    InputAudio,
    /// Input images, in tokens.
    InputImage,
    /// Output audio, in tokens.
    OutputAudio,
    /// Output images, in tokens.
    OutputImage,
    /// Input tokens that the provider bills, where it counts them apart.
    BilledInput,
    /// Output tokens that the provider bills, where it counts them apart.
    BilledOutput,
    /// The total that the provider reports.
    Total,
    /// Another member, which the provider's file explains.
    Extra,
    /// The model.
    Model,
    /// The generation's id.
    Id,
    /// The kind of document, from a member such as `type` or `object`.
    Kind,
    /// The state of the generation.
    Status,
    /// Why the generation ended.
    Finish,
    /// The service tier.
    Tier,
    /// When the client requested the generation, by the provider's clock, in seconds since 1970.
    CreatedAt,
    /// An error.
    Error,
    /// Generated text; the document keeps only its length.
    OutputText,
    /// Whether the request asks for a stream.
    Stream,
    /// Whether the request asks for usage in the stream.
    IncludeUsage,
    /// Whether the client asks not to wait for the generation.
    Background,
    /// The conversation that a request continues.
    Conversation,
    /// The name of an element, such as a modality or a lifetime.
    ItemName,
    /// The count of an element.
    ItemCount,
}

/// Paths such as `usage.prompt_tokens` or `choices[].finish_reason`, each with the meaning of the
/// member there.
pub type Paths = [(&'static str, Field)];

#[derive(Debug)]
struct Node {
    parent: u8,
    step: Cow<'static, str>,
    field: Option<u8>,
    is_object: bool,
    is_array: bool,
}

/// Paths as a tree.
#[derive(Debug)]
pub(crate) struct PathTree {
    nodes: Vec<Node>,
}

impl PathTree {
    /// Builds the tree of a format's tables. The tree leaves out paths beyond its 254th step; a
    /// test keeps the tables smaller.
    pub(crate) fn new(tables: &[&'static Paths]) -> Rc<Self> {
        let mut tree = Self::empty();
        for (path, field) in tables.iter().copied().flatten() {
            let steps = path.split('.').flat_map(|step| match step.strip_suffix(ELEMENT) {
                Some(name) => [Some(name), Some(ELEMENT)],
                None => [Some(step), None],
            });
            tree.add(steps.flatten().map(Cow::Borrowed), *field);
        }
        Rc::new(tree)
    }

    /// Builds the tree of JSON pointers (RFC 6901) below the member `under`, and of further paths.
    /// The tree does not follow array indexes.
    pub(crate) fn of_pointers(
        under: &str,
        pointers: &[(&str, Field)],
        paths: &'static Paths,
    ) -> Rc<Self> {
        let mut tree = Self::empty();
        for (pointer, field) in pointers {
            let steps = pointer.split('/').skip(1);
            let steps = steps.map(|step| step.replace("~1", "/").replace("~0", "~"));
            tree.add([under.to_owned()].into_iter().chain(steps).map(Cow::Owned), *field);
        }
        for (path, field) in paths {
            tree.add(path.split('.').map(Cow::Borrowed), *field);
        }
        Rc::new(tree)
    }

    fn empty() -> Self {
        let step = Cow::Borrowed("");
        let root = Node { parent: DOCUMENTS, step, field: None, is_object: true, is_array: false };
        Self { nodes: vec![root] }
    }

    fn add(&mut self, steps: impl Iterator<Item = Cow<'static, str>>, field: Field) {
        let mut at = ROOT;
        for step in steps {
            let is_element = step == ELEMENT;
            if let Some(parent) = self.nodes.get_mut(usize::from(at)) {
                parent.is_array |= is_element;
                parent.is_object |= !is_element;
            }
            at = match self.child(at, step.as_bytes()) {
                Some(child) => child,
                None => {
                    let Some(child) =
                        u8::try_from(self.nodes.len()).ok().filter(|child| *child < DOCUMENTS)
                    else {
                        return;
                    };
                    let (is_object, is_array) = (false, false);
                    self.nodes.push(Node { parent: at, step, field: None, is_object, is_array });
                    child
                }
            };
        }
        if let Some(node) = self.nodes.get_mut(usize::from(at)) {
            let number = Field::ALL.iter().position(|other| *other == field);
            node.field = number.and_then(|number| u8::try_from(number).ok());
        }
    }

    fn child(&self, parent: u8, step: &[u8]) -> Option<u8> {
        let is_child = |node: &Node| node.parent == parent && node.step.as_bytes() == step;
        self.nodes.iter().position(is_child).and_then(|at| u8::try_from(at).ok())
    }

    fn want(&self, parent: u8, step: &[u8]) -> Want {
        let child = self.child(parent, step);
        let Some((at, node)) =
            child.and_then(|at| self.nodes.get(usize::from(at)).map(|node| (at, node)))
        else {
            return Want::NOTHING;
        };
        // A container may replace the expected scalar: the reader then records only its presence.
        let is_field = node.field.is_some();
        Want {
            scalar: node.field,
            object: (node.is_object || is_field).then_some(at),
            array: (node.is_array || is_field).then_some(at),
            ..Want::NOTHING
        }
    }
}

/// The value of a member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Value {
    #[default]
    Absent,
    Null,
    /// A number or literal, as written.
    Bare(Vec<u8>),
    Text(Vec<u8>),
    /// An object or array.
    Container,
}

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

/// What the reader found in one document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    values: Vec<Value>,
    items: Vec<Item>,
    text_bytes: u64,
    is_object: bool,
    /// The type of the event that carried the document, if the framing names it.
    pub event_type: Vec<u8>,
}

impl Document {
    /// The member as a whole number of zero or more. `12.0` is one; `1.5`, `-1` and `"12"` are not.
    pub fn count(&self, field: Field) -> Option<u64> {
        match self.value(field) {
            Value::Bare(text) => whole_number(text),
            Value::Absent | Value::Null | Value::Text(_) | Value::Container => None,
        }
    }

    /// The member as a string, unless it is empty. Replaces invalid UTF-8.
    pub fn text(&self, field: Field) -> Option<Cow<'_, str>> {
        match self.value(field) {
            Value::Text(text) if !text.is_empty() => Some(String::from_utf8_lossy(text)),
            _ => None,
        }
    }

    /// The member as it stands in the text, if it is a string or a number, and whether it is a
    /// string.
    pub fn raw(&self, field: Field) -> Option<(bool, &[u8])> {
        match self.value(field) {
            Value::Text(text) => Some((true, text)),
            Value::Bare(text) => Some((false, text)),
            Value::Absent | Value::Null | Value::Container => None,
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

    /// Whether the document has the member, and its value is not `null`.
    pub fn has(&self, field: Field) -> bool {
        !matches!(self.value(field), Value::Absent | Value::Null)
    }

    /// The sum of the counts of the elements of `array` that have one of these names. `None` if
    /// there is no such element.
    pub fn sum(&self, array: &str, names: &[&str]) -> Option<u64> {
        let is_meant =
            |item: &&Item| item.of == array && names.iter().any(|n| n.as_bytes() == item.name);
        let mut counts = self.items.iter().filter(is_meant).map(|item| item.count).peekable();
        counts.peek()?;
        Some(counts.fold(0, u64::saturating_add))
    }

    /// Whether the document is an object.
    pub fn is_object(&self) -> bool {
        self.is_object
    }

    /// The length of the generated text, in bytes.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    fn value(&self, field: Field) -> &Value {
        let at = Field::ALL.iter().position(|other| *other == field);
        at.and_then(|at| self.values.get(at)).unwrap_or(&Value::Absent)
    }

    fn set(&mut self, field: u8, value: Value) {
        let at = usize::from(field);
        if self.values.len() <= at {
            self.values.resize(at.saturating_add(1), Value::Absent);
        }
        if let Some(place) = self.values.get_mut(at)
            // One field may stand at several paths: a `null` at one path must not replace a value
            // from another.
            && (value != Value::Null || *place == Value::Absent)
        {
            *place = value;
        }
    }

    fn clear(&mut self) {
        self.values.clear();
        self.items.clear();
        self.text_bytes = 0;
        self.is_object = false;
    }
}

fn whole_number(text: &[u8]) -> Option<u64> {
    let text = core::str::from_utf8(text).ok()?;
    text.parse().ok().or_else(|| {
        let number = Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text));
        number.ok().filter(Decimal::is_integer)?.to_u64()
    })
}

/// Reads documents one after another.
#[derive(Debug)]
pub(crate) struct DocumentReader {
    tree: Rc<PathTree>,
    scanner: Scanner,
    document: Document,
    /// True if the text is a document or an array of documents.
    holds_documents: bool,
    /// The name and the count of the current element.
    item: (Vec<u8>, Option<u64>),
}

impl DocumentReader {
    /// Creates a reader for the members that `tree` names.
    pub(crate) fn new(tree: Rc<PathTree>) -> Self {
        Self {
            tree,
            scanner: Scanner::default(),
            document: Document::default(),
            holds_documents: false,
            item: (Vec::new(), None),
        }
    }

    /// Reads the next bytes of a text and calls `found` with each document in it when the document
    /// ends: with the text itself or, if the text is an array, with its elements. Returns how many
    /// of the bytes belong to the text.
    pub(crate) fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(&Document)) -> usize {
        let Self { tree, scanner, document, holds_documents, item } = self;
        scanner.feed(chunk, &mut Builder { tree, document, holds_documents, item, found })
    }

    /// Begins a new text.
    pub(crate) fn restart(&mut self) {
        self.scanner.restart();
        self.document.clear();
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

    /// Sets the type of the event that carries the text.
    pub(crate) fn set_event_type(&mut self, event_type: &[u8]) {
        self.document.event_type.clear();
        self.document.event_type.extend_from_slice(event_type);
    }

    /// What the reader has found so far, even if the text is cut off.
    pub(crate) fn document(&self) -> &Document {
        &self.document
    }
}

struct Builder<'a> {
    tree: &'a PathTree,
    document: &'a mut Document,
    holds_documents: &'a mut bool,
    item: &'a mut (Vec<u8>, Option<u64>),
    found: &'a mut dyn FnMut(&Document),
}

impl Builder<'_> {
    fn node(&self, at: u8) -> Option<&Node> {
        self.tree.nodes.get(usize::from(at))
    }

    /// The name of the member that holds the array with `element` in it.
    fn array_of(&self, element: u8) -> Option<Cow<'static, str>> {
        let element = self.node(element).filter(|node| node.step == ELEMENT)?;
        self.node(element.parent).map(|array| array.step.clone())
    }
}

impl Visitor for Builder<'_> {
    fn top(&mut self) -> Want {
        Want { scalar: None, object: Some(ROOT), array: Some(DOCUMENTS), ..Want::NOTHING }
    }

    fn member(&mut self, node: u8, key: &[u8]) -> Want {
        self.tree.want(node, key)
    }

    fn element(&mut self, node: u8) -> Want {
        if node == DOCUMENTS {
            return Want::object(ROOT);
        }
        self.tree.want(node, ELEMENT.as_bytes())
    }

    fn scalar(&mut self, field: u8, value: Scalar<'_>) {
        let meaning = Field::ALL.get(usize::from(field));
        let kept = match (value.is_string, value.text) {
            (true, text) => Value::Text(text.to_vec()),
            (false, b"null") => Value::Null,
            (false, text) => Value::Bare(text.to_vec()),
        };
        match meaning {
            Some(Field::OutputText) => {
                let bytes = if value.is_string { value.bytes } else { 0 };
                self.document.text_bytes = self.document.text_bytes.saturating_add(bytes);
            }
            Some(Field::ItemName) => self.item.0 = value.text.to_vec(),
            Some(Field::ItemCount) => self.item.1 = whole_number(value.text),
            _ => self.document.set(field, kept),
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
        if let Some(field) = self.node(node).and_then(|node| node.field) {
            self.document.set(field, Value::Container);
        }
        if self.node(node).is_some_and(|node| node.step == ELEMENT) {
            *self.item = (Vec::new(), None);
        }
    }

    fn close(&mut self, node: u8) {
        if node == ROOT {
            (self.found)(self.document);
            return;
        }
        let Some(of) = self.array_of(node) else { return };
        let (name, count) = core::mem::take(self.item);
        let Some(count) = count else { return };
        let items = &mut self.document.items;
        let same = items.iter_mut().find(|item| item.of == of && item.name == name);
        if let Some(item) = same {
            item.count = item.count.saturating_add(count);
        } else if items.len() < DOCUMENT_ITEMS_MAX {
            items.push(Item { of, name, count });
        }
    }
}
