//! Paths as a tree, in which a reader finds each member that it comes to.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

use crate::protocol::paths::{Field, Paths};
use crate::wire::json::Want;
use crate::wire::member_check::is_alike;

/// Stands in a path for the elements of an array.
pub(super) const ELEMENT: &str = "[]";

/// Stands in a path for every member that no other path names.
pub(super) const OTHERS: &str = "*";

/// The node of the document itself.
pub(super) const ROOT: u8 = 0;

/// The node of an array of documents.
pub(super) const DOCUMENTS: u8 = u8::MAX;

/// A node within another, with what distinguishes most steps at a glance.
#[derive(Clone, Copy, Debug)]
struct Child {
    length: usize,
    first: Option<u8>,
    node: u8,
}

impl Child {
    fn new(step: &[u8], node: u8) -> Self {
        Self { length: step.len(), first: step.first().copied(), node }
    }
}

/// One step of a path.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: u8,
    /// The nodes within it, in the order in which they were added.
    children: Vec<Child>,
    pub(super) step: Cow<'static, str>,
    /// The number of its meaning.
    pub(super) field: Option<u8>,
    is_object: bool,
    is_array: bool,
    /// True if an object there is a document.
    is_document: bool,
    /// The node of the members that no other path names.
    others: Option<u8>,
}

/// Paths as a tree.
#[derive(Debug)]
pub(crate) struct PathTree {
    pub(super) nodes: Vec<Node>,
    /// The node of the text, if documents are somewhere within it.
    around: Option<u8>,
    /// See [`Self::is_strict`].
    is_strict: bool,
}

/// A tree that was built, and of what.
struct Built {
    is_strict: bool,
    places: &'static [&'static str],
    tables: Vec<&'static Paths>,
    tree: Rc<PathTree>,
}

thread_local! {
    /// The trees of all formats that were met. A tree is larger than the rest of a reader, and takes
    /// longer to build than a short response to read. Their number is that of the formats.
    static BUILT: RefCell<Vec<Built>> = const { RefCell::new(Vec::new()) };
}

/// The tree of these tables, which `build` builds if there is none.
fn shared(
    is_strict: bool,
    places: &'static [&'static str],
    tables: &[&'static Paths],
    build: impl FnOnce() -> PathTree,
) -> Rc<PathTree> {
    BUILT.with_borrow_mut(|built| {
        let is_it = |one: &&Built| {
            one.is_strict == is_strict
                && one.places == places
                && one.tables.len() == tables.len()
                && one.tables.iter().zip(tables).all(|(one, other)| core::ptr::eq(*one, *other))
        };
        if let Some(found) = built.iter().find(is_it) {
            return Rc::clone(&found.tree);
        }
        let tree = Rc::new(build());
        let tables = tables.to_vec();
        built.push(Built { is_strict, places, tables, tree: Rc::clone(&tree) });
        tree
    })
}

/// The steps of a path.
fn steps(path: &'static str) -> impl Iterator<Item = Cow<'static, str>> {
    let steps = path.split('.').flat_map(|step| match step.strip_suffix(ELEMENT) {
        Some(name) => [Some(name), Some(ELEMENT)],
        None => [Some(step), None],
    });
    steps.flatten().map(Cow::Borrowed)
}

impl PathTree {
    /// The tree of a format's tables. It leaves out paths beyond its 254th step; a test keeps the
    /// tables smaller.
    pub(crate) fn new(tables: &[&'static Paths]) -> Rc<Self> {
        shared(false, &[], tables, || Self::of(tables))
    }

    /// The tree of tables for documents that clients write.
    pub(crate) fn strict(tables: &[&'static Paths]) -> Rc<Self> {
        shared(true, &[], tables, || Self { is_strict: true, ..Self::of(tables) })
    }

    fn of(tables: &[&'static Paths]) -> Self {
        let mut tree = Self::empty();
        tree.add_all(tables);
        tree
    }

    fn add_all(&mut self, tables: &[&'static Paths]) {
        for (path, field) in tables.iter().copied().flatten() {
            self.add(steps(path), *field);
        }
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
        let root = Node {
            parent: DOCUMENTS,
            children: Vec::new(),
            step,
            field: None,
            is_object: true,
            is_array: false,
            is_document: false,
            others: None,
        };
        Self { nodes: vec![root], around: None, is_strict: false }
    }

    /// The tree of a format's tables for documents that are at these places of a text.
    pub(crate) fn within(places: &'static [&'static str], tables: &[&'static Paths]) -> Rc<Self> {
        shared(false, places, tables, || {
            let mut tree = Self::empty();
            tree.around = tree.insert(DOCUMENTS, Cow::Borrowed(""));
            for place in places {
                let Some(around) = tree.around else { break };
                let node = tree.follow(around, steps(place));
                if let Some(node) = node.and_then(|node| tree.nodes.get_mut(usize::from(node))) {
                    node.is_document = true;
                }
            }
            tree.add_all(tables);
            tree
        })
    }

    /// What the reader wants of the text itself.
    pub(super) fn top(&self) -> Want {
        match self.around {
            Some(around) => Want::object(around),
            None => {
                Want { scalar: None, object: Some(ROOT), array: Some(DOCUMENTS), ..Want::NOTHING }
            }
        }
    }

    fn add(&mut self, steps: impl Iterator<Item = Cow<'static, str>>, field: Field) {
        let Some(at) = self.follow(ROOT, steps) else { return };
        if let Some(node) = self.nodes.get_mut(usize::from(at)) {
            node.field = u8::try_from(field.number()).ok();
        }
    }

    /// The node at the end of these steps, which are added if they are not there.
    fn follow(&mut self, mut at: u8, steps: impl Iterator<Item = Cow<'static, str>>) -> Option<u8> {
        for step in steps {
            let is_element = step == ELEMENT;
            if let Some(parent) = self.nodes.get_mut(usize::from(at)) {
                parent.is_array |= is_element;
                parent.is_object |= !is_element;
            }
            at = match self.child(at, step.as_bytes()) {
                Some(child) => child,
                None => self.insert(at, step)?,
            };
        }
        Some(at)
    }

    fn insert(&mut self, parent: u8, step: Cow<'static, str>) -> Option<u8> {
        let at = u8::try_from(self.nodes.len()).ok().filter(|child| *child < DOCUMENTS)?;
        // It stands for all that is within such a member too.
        let others = (step == OTHERS).then_some(at);
        if let Some(parent) = self.nodes.get_mut(usize::from(parent)) {
            parent.others = parent.others.or(others);
            parent.children.push(Child::new(step.as_bytes(), at));
        }
        let (is_object, is_array, is_document) = (false, false, false);
        let field = None;
        self.nodes.push(Node {
            parent,
            children: Vec::new(),
            step,
            field,
            is_object,
            is_array,
            is_document,
            others,
        });
        Some(at)
    }

    /// The most containers that are open within the deepest member, if it is one.
    #[cfg(test)]
    pub(super) fn depth(&self) -> usize {
        let parent = |at: &u8| self.nodes.get(usize::from(*at)).map(|node| node.parent);
        let to_top = |node: &Node| core::iter::successors(Some(node.parent), parent).count();
        let around = self.nodes.iter().filter(|node| node.is_document).map(to_top).max();
        let own = self.nodes.iter().map(to_top).max().unwrap_or(0);
        around.map_or(own, |around| around.saturating_sub(1).saturating_add(own))
    }

    fn children(&self, parent: u8) -> &[Child] {
        self.nodes.get(usize::from(parent)).map(|node| node.children.as_slice()).unwrap_or_default()
    }

    fn child(&self, parent: u8, step: &[u8]) -> Option<u8> {
        let sought = Child::new(step, parent);
        let is_it = |child: &&Child| {
            child.length == sought.length
                && child.first == sought.first
                && self.step(child.node).as_bytes() == step
        };
        self.children(parent).iter().find(is_it).map(|child| child.node)
    }

    fn step(&self, node: u8) -> &str {
        self.nodes.get(usize::from(node)).map(|node| &*node.step).unwrap_or_default()
    }

    /// Whether other readers may take other names of members for those of the tree.
    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// The member for which other readers may take `key`, which names none, and its field.
    pub(super) fn taken_for(&self, parent: u8, key: &[u8]) -> Option<(&str, u8)> {
        if !self.is_strict {
            return None;
        }
        let nodes = self.children(parent).iter();
        let mut nodes = nodes.filter_map(|child| self.nodes.get(usize::from(child.node)));
        let node = nodes.find(|node| is_alike(key, &node.step))?;
        Some((&node.step, node.field?))
    }

    pub(super) fn want(&self, parent: u8, step: &[u8]) -> Want {
        let others = || self.nodes.get(usize::from(parent))?.others;
        let child = self.child(parent, step).or_else(others);
        let Some((at, node)) =
            child.and_then(|at| self.nodes.get(usize::from(at)).map(|node| (at, node)))
        else {
            return Want::NOTHING;
        };
        if node.is_document {
            return Want::object(ROOT);
        }
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
