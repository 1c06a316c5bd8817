//! Which members of a document a format needs, and what they mean: paths, and the tree of them that
//! a reader follows.

use std::borrow::Cow;
use std::rc::Rc;

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

macro_rules! fields {
    (
        $($(#[doc = $doc:literal])+ $variant:ident,)+
        // What is billed beside tokens.
        --
        $($(#[doc = $doc_beside:literal])+ $beside:ident,)+
    ) => {
        /// The meaning of a member of a document.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Field {
            $($(#[doc = $doc])+ $variant,)+
            $($(#[doc = $doc_beside])+ $beside,)+
        }

        impl Field {
            /// Every field, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+ $(Self::$beside,)+];

            /// Its place in [`Self::ALL`].
            #[expect(clippy::as_conversions, reason = "nothing is cut off a variant's number")]
            pub(super) const fn number(self) -> usize {
                self as usize
            }

            /// The number of the first field that is about what is billed beside tokens.
            pub(super) const FIRST_BESIDE_TOKENS: usize = [$(Self::$variant),+].len();
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
    /// Tokens written to a cache for a time that the format does not know. Several add up.
    CacheWriteOther,
    /// Reasoning tokens.
    Reasoning,
    /// Tokens that tools add to the prompt, where the provider counts them apart.
    ToolPrompt,
    /// Input audio, in tokens.
    InputAudio,
    /// Input images, in tokens.
    InputImage,
    /// Input video, in tokens.
    InputVideo,
    /// Output audio, in tokens.
    OutputAudio,
    /// Output images, in tokens.
    OutputImage,
    /// Input tokens that the provider bills, where it counts them apart.
    BilledInput,
    /// Output tokens that the provider bills, where it counts them apart.
    BilledOutput,
    /// Input tokens of one of several results, which add up.
    EachInput,
    /// Output tokens of one of several results, which add up.
    EachOutput,
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
    /// How fast the model runs.
    Speed,
    /// Where the model runs.
    InferenceGeo,
    /// How soon the answer comes.
    Latency,
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
    /// Whether the client asks the model to think.
    Thinking,
    /// The conversation that a request continues.
    Conversation,
    /// The name of an element, such as a modality or a lifetime.
    ItemName,
    /// The count of an element.
    ItemCount,
    /// An object, or the elements of an array, that the document keeps as documents of their own.
    Record,
    /// The kind of an element, which counts as one of its kind.
    ItemKind,
    /// What tells elements of one kind apart. The name of the element is both, with a `:` between.
    ItemDetail,
    /// The text to work on; the document keeps only its length in characters.
    InputText,
    /// The form in which the client wants the result.
    ResponseFormat,
    /// How many results the client wants.
    Number,
    /// The lane of a WebSocket, or what else distinguishes the responses on it.
    Lane,
    /// The model that transcribes what users say.
    Transcriber,
    /// Input audio that was read from a cache, in tokens.
    CacheReadAudio,
    /// Input images that were read from a cache, in tokens.
    CacheReadImage,
    --
    /// The kind of a hosted tool's call.
    ToolCall,
    /// What a hosted tool's call did.
    ToolAction,
    /// Searches of the web.
    WebSearches,
    /// Searches of the web among the pages of news agencies and the like.
    PremiumSearches,
    /// Searches of the web that are billed, of those that were made.
    BilledSearches,
    /// Queries of a search, each one a text.
    SearchQuery,
    /// Sources from a map, each one an object.
    MapsSource,
    /// Searches of stored files.
    FileSearches,
    /// Sources that a search used.
    SearchSources,
    /// Containers in which code ran.
    CodeSessions,
    /// Tokens of citations beside the input.
    CitationTokens,
    /// The size of a search's context.
    SearchContext,
    /// Searches as a reranker bills them.
    SearchUnits,
    /// Pages.
    Pages,
    /// Pages that are annotated as well.
    AnnotatedPages,
    /// Input images, by their number.
    InputImages,
    /// Output images, by their number.
    OutputImages,
    /// An image that was made, whatever it looks like.
    MadeImage,
    /// Input audio, in seconds.
    InputAudioSeconds,
    /// Output video, in seconds.
    OutputVideoSeconds,
    /// Seconds for which a machine ran.
    ComputeSeconds,
    /// So many of something under a name that no path has, where a provider tells what it bills. An
    /// object there may hold several.
    Unnamed,
    /// What stands there and is billed neither for itself nor again.
    Unbilled,
    /// The size of images or of a video.
    Size,
    /// The quality of images.
    Quality,
    /// What the provider says that the generation cost, in US dollars.
    ReportedCost,
    /// The same in ticks, of which a US dollar has 10,000,000,000.
    ReportedCostTicks,
    /// What another provider charges the client for it, in US dollars.
    UpstreamCost,
    /// Whether the client pays another provider with a key of its own.
    IsOwnKey,
}

impl Field {
    /// Whether each occurrence counts as one.
    pub(super) const fn is_counted(self) -> bool {
        matches!(self, Self::SearchQuery | Self::MapsSource | Self::MadeImage)
    }

    /// Whether it is a number of tokens: a whole number of zero or more.
    pub(super) const fn is_tokens(self) -> bool {
        matches!(
            self,
            Self::Input
                | Self::Output
                | Self::CacheRead
                | Self::CacheWrite
                | Self::CacheWrite5m
                | Self::CacheWrite1h
                | Self::Reasoning
                | Self::ToolPrompt
                | Self::InputAudio
                | Self::InputImage
                | Self::InputVideo
                | Self::OutputAudio
                | Self::OutputImage
                | Self::BilledInput
                | Self::BilledOutput
                | Self::EachInput
                | Self::EachOutput
                | Self::Total
                | Self::CacheReadAudio
                | Self::CacheReadImage
        )
    }

    /// Whether it is a quantity of something that is billed beside tokens: a number of zero or more.
    pub(super) const fn is_quantity(self) -> bool {
        matches!(
            self,
            Self::WebSearches
                | Self::PremiumSearches
                | Self::BilledSearches
                | Self::FileSearches
                | Self::SearchSources
                | Self::CodeSessions
                | Self::CitationTokens
                | Self::SearchUnits
                | Self::Pages
                | Self::InputImages
                | Self::OutputImages
                | Self::InputAudioSeconds
                | Self::OutputVideoSeconds
                | Self::ComputeSeconds
        )
    }

    /// Whether it is a word that moves the price.
    pub(super) const fn is_word(self) -> bool {
        matches!(self, Self::Tier | Self::Speed | Self::InferenceGeo | Self::Latency)
    }

    /// Whether the numbers of several members add up.
    pub(super) const fn adds_up(self) -> bool {
        matches!(self, Self::CacheWriteOther | Self::EachInput | Self::EachOutput)
    }
}

/// Paths such as `usage.prompt_tokens` or `choices[].finish_reason`, each with the meaning of the
/// member there.
pub type Paths = [(&'static str, Field)];

/// One step of a path.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: u8,
    /// The first node within it, and the next one within its parent.
    child: Option<u8>,
    sibling: Option<u8>,
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

/// The steps of a path.
fn steps(path: &'static str) -> impl Iterator<Item = Cow<'static, str>> {
    let steps = path.split('.').flat_map(|step| match step.strip_suffix(ELEMENT) {
        Some(name) => [Some(name), Some(ELEMENT)],
        None => [Some(step), None],
    });
    steps.flatten().map(Cow::Borrowed)
}

impl PathTree {
    /// Builds the tree of a format's tables. The tree leaves out paths beyond its 254th step; a
    /// test keeps the tables smaller.
    pub(crate) fn new(tables: &[&'static Paths]) -> Rc<Self> {
        Rc::new(Self::of(tables))
    }

    /// Builds the tree of tables for documents that clients write.
    pub(crate) fn strict(tables: &[&'static Paths]) -> Rc<Self> {
        let mut tree = Self::of(tables);
        tree.is_strict = true;
        Rc::new(tree)
    }

    fn of(tables: &[&'static Paths]) -> Self {
        let mut tree = Self::empty();
        for (path, field) in tables.iter().copied().flatten() {
            tree.add(steps(path), *field);
        }
        tree
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
            child: None,
            sibling: None,
            step,
            field: None,
            is_object: true,
            is_array: false,
            is_document: false,
            others: None,
        };
        Self { nodes: vec![root], around: None, is_strict: false }
    }

    /// Builds the tree of a format's tables for documents that are at these places of a text.
    pub(crate) fn within(places: &[&'static str], tables: &[&'static Paths]) -> Rc<Self> {
        let mut tree = Self::empty();
        tree.around = tree.insert(DOCUMENTS, Cow::Borrowed(""));
        for place in places {
            let Some(around) = tree.around else { break };
            let node = tree.follow(around, steps(place));
            if let Some(node) = node.and_then(|node| tree.nodes.get_mut(usize::from(node))) {
                node.is_document = true;
            }
        }
        for (path, field) in tables.iter().copied().flatten() {
            tree.add(steps(path), *field);
        }
        Rc::new(tree)
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
        let last = self.children(parent).last().map(|(last, _)| last);
        if let Some(parent) = self.nodes.get_mut(usize::from(parent)) {
            parent.others = parent.others.or(others);
            parent.child = parent.child.or(Some(at));
        }
        if let Some(last) = last.and_then(|last| self.nodes.get_mut(usize::from(last))) {
            last.sibling = Some(at);
        }
        let (is_object, is_array, is_document) = (false, false, false);
        let field = None;
        let (child, sibling) = (None, None);
        self.nodes.push(Node {
            parent,
            child,
            sibling,
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

    /// The nodes within one, in the order in which they were added.
    fn children(&self, parent: u8) -> impl Iterator<Item = (u8, &Node)> {
        let node = |at: u8| Some((at, self.nodes.get(usize::from(at))?));
        let first = self.nodes.get(usize::from(parent)).and_then(|parent| parent.child);
        let next = move |(_, before): &(u8, &Node)| before.sibling.and_then(node);
        core::iter::successors(first.and_then(node), next)
    }

    fn child(&self, parent: u8, step: &[u8]) -> Option<u8> {
        self.children(parent).find(|(_, node)| node.step.as_bytes() == step).map(|(at, _)| at)
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
        let (_, node) = self.children(parent).find(|(_, node)| is_alike(key, &node.step))?;
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
