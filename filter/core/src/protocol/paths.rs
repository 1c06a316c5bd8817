//! What the members of a document mean, and the paths at which they stand.

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
