//! The token counts of one generation, which is one response of a large language model, in one
//! normal form for all providers.
//!
//! `input` and `output` are inclusive: `input` contains cache reads, cache writes, audio and
//! images; `output` contains reasoning, audio and images. Every other count is a subset of one of
//! these two, so that the filter never adds a token twice. This is also the contract of Envoy's
//! `envoy.data.ai.v3.TokenUsage`. The file of each provider says which of its own numbers include
//! which.

use serde::{Deserialize, Serialize};

/// Where the filter read a generation's usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The response's body.
    Body,
    /// Headers of the response.
    ResponseHeaders,
    /// Metadata that Envoy's own filter extracted.
    EnvoyMetadata,
    /// The result of an MCP tool call.
    McpResult,
}

/// The table of the counts. A row contains the member of [`Usage`], the kind in rate cards and cost
/// lines, the kind that it is a part of (itself, if it is a whole), its name in rate cards and
/// events, and the session total that it adds to, if any. The filter charges each whole on its own,
/// so a unit other than tokens is a row that is a whole. The rows are in the order of a cost's
/// lines.
macro_rules! usage {
    ($($(#[doc = $doc:literal])+
        $field:ident: $kind:ident of $parent:ident = $name:literal $(in $total:ident)?;)+
    ) => {
        /// Token counts of one generation. `None` means *unknown*, which is not zero.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Usage {
            $($(#[doc = $doc])+ pub $field: Option<u64>,)+
            /// The provider's own total, as it reported it; it may differ from `input` + `output`.
            pub provider_total: Option<u64>,
            /// The largest `input` of one run of the model, if several runs make up these counts: the
            /// context tier goes by it.
            #[serde(default)]
            pub context_input: Option<u64>,
        }

        /// A kind of tokens that can have its own rate.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub enum TokenKind { $($(#[doc = $doc])+ #[serde(rename = $name)] $kind,)+ }

        impl TokenKind {
            /// Every kind, in the order of a cost's lines.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$kind),+];

            /// The name in rate cards and events.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)+ }
            }

            /// What the kind is, in one sentence.
            #[cfg(feature = "schema")]
            pub(crate) const fn description(self) -> &'static str {
                match self { $(Self::$kind => concat!("The rate for a million tokens:", $($doc),+),)+ }
            }

            /// The kind that this one is a part of; a whole is a part of itself.
            pub const fn parent(self) -> Self {
                match self { $(Self::$kind => Self::$parent,)+ }
            }

            /// The session total that this kind adds to.
            const fn total(self) -> Option<TokenTotal> {
                match self { $(Self::$kind => total!($($total)?),)+ }
            }
        }

        impl Usage {
            /// How many tokens of this kind the generation has, if known.
            pub const fn get(&self, kind: TokenKind) -> Option<u64> {
                match kind { $(TokenKind::$kind => self.$field,)+ }
            }

            /// For each count the greater of the two, as far as they are known.
            #[must_use]
            pub fn max(self, other: Self) -> Self {
                Self {
                    $($field: self.$field.max(other.$field),)+
                    provider_total: self.provider_total.max(other.provider_total),
                    context_input: self.context_input.max(other.context_input),
                }
            }

            /// The sum of both, as far as they are known.
            #[must_use]
            pub fn plus(self, other: Self) -> Self {
                Self {
                    $($field: sum(&[self.$field, other.$field]),)+
                    provider_total: sum(&[self.provider_total, other.provider_total]),
                    context_input: self.largest_input().max(other.largest_input()),
                }
            }

            /// What is left of these counts without the other ones.
            #[must_use]
            pub fn minus(self, other: Self) -> Self {
                let less = |all: Option<u64>, part: Option<u64>| {
                    all.map(|all| all.saturating_sub(part.unwrap_or(0)))
                };
                Self {
                    $($field: less(self.$field, other.$field),)+
                    provider_total: less(self.provider_total, other.provider_total),
                    context_input: self.context_input,
                }
            }

            /// The known counts; `other` supplies the ones that are unknown here.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self {
                    $($field: self.$field.or(other.$field),)+
                    provider_total: self.provider_total.or(other.provider_total),
                    context_input: self.context_input.or(other.context_input),
                }
            }
        }
    };
}

macro_rules! total {
    () => {
        None
    };
    ($total:ident) => {
        Some(TokenTotal::$total)
    };
}

usage! {
    /// All tokens that the model read: the prompt, cached or not, in any modality.
    input: Input of Input = "input" in Input;
    /// Part of `input`: read from the provider's cache.
    cache_read: CacheRead of Input = "cache_read" in CacheRead;
    /// Part of `input`: written to the provider's cache for 5 minutes, or for a time that the
    /// provider does not report.
    cache_write_5m: CacheWrite5m of Input = "cache_write_5m" in CacheWrite;
    /// Part of `input`: written to the provider's cache for 1 hour.
    cache_write_1h: CacheWrite1h of Input = "cache_write_1h" in CacheWrite;
    /// Part of `input`: audio.
    input_audio: InputAudio of Input = "input_audio";
    /// Part of `cache_read` and of `input_audio`: audio read from the cache.
    cache_read_audio: CacheReadAudio of InputAudio = "cache_read_audio";
    /// Part of `input`: images and video.
    input_image: InputImage of Input = "input_image";
    /// Part of `cache_read` and of `input_image`: images and video read from the cache.
    cache_read_image: CacheReadImage of InputImage = "cache_read_image";
    /// Part of `input_image`: video.
    input_video: InputVideo of InputImage = "input_video";
    /// All tokens that the model generated, including reasoning, in any modality.
    output: Output of Output = "output" in Output;
    /// Part of `output`: reasoning, which the provider may hide from the client.
    reasoning: Reasoning of Output = "reasoning" in Reasoning;
    /// Part of `output`: audio.
    output_audio: OutputAudio of Output = "output_audio";
    /// Part of `output`: images and video.
    output_image: OutputImage of Output = "output_image";
    /// Part of `output_image`: video.
    output_video: OutputVideo of OutputImage = "output_video";
}

/// What may be read from the cache and has a rate of its own: each is part of two kinds, the cache
/// reads and the first one here.
pub(crate) const CACHED_MEDIA: [(TokenKind, TokenKind); 2] = [
    (TokenKind::InputAudio, TokenKind::CacheReadAudio),
    (TokenKind::InputImage, TokenKind::CacheReadImage),
];

impl TokenKind {
    /// True if it is not a part of another kind.
    pub(crate) fn is_whole(self) -> bool {
        self.parent() == self
    }

    /// The whole that it is a part of, directly or through another part.
    pub fn whole(self) -> Self {
        if self.is_whole() { self } else { self.parent().whole() }
    }

    /// The kinds that are not parts of another.
    pub fn wholes() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.is_whole())
    }

    /// Its direct parts, without the parts of those parts.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |kind| kind.parent() == self && !kind.is_whole())
    }
}

/// The sum of the known parts, or `None` if none is known.
pub(crate) fn sum(parts: &[Option<u64>]) -> Option<u64> {
    let mut known = parts.iter().flatten().peekable();
    known.peek()?;
    Some(known.fold(0, |sum, part| sum.saturating_add(*part)))
}

/// A run of a model that a response reports beside its own: a context that was compacted, an
/// adviser, an image that a tool made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FurtherRun {
    /// What it was for, in the provider's word.
    pub purpose: String,
    /// The model; `None` if the response does not name it.
    pub model: Option<String>,
    /// The tokens.
    pub usage: Usage,
}

impl Usage {
    /// The largest input of one run of the model.
    pub fn largest_input(&self) -> Option<u64> {
        self.context_input.or(self.input)
    }

    /// True if neither input nor output is known.
    pub fn is_unknown(&self) -> bool {
        TokenKind::wholes().all(|kind| self.get(kind).is_none())
    }

    /// How many tokens of this kind there are: of one that is unknown, as many as its parts, and
    /// zero if none of them is known. What was read from the cache of audio or images is of two
    /// kinds, whether or not these are told.
    pub(crate) fn part(&self, kind: TokenKind) -> u64 {
        let parts = || {
            if kind == TokenKind::CacheRead {
                sum(&CACHED_MEDIA.map(|(_, cached)| self.get(cached)))
            } else {
                kind.parts().filter_map(|part| self.get(part)).max()
            }
        };
        self.get(kind).or_else(parts).unwrap_or(0)
    }

    /// Every count under its name in events: wholes, then their parts, then the parts of the parts.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
        let mut kinds = TokenKind::ALL;
        kinds.sort_unstable_by_key(|kind| {
            (!kind.is_whole(), kind.whole(), !kind.parent().is_whole(), *kind)
        });
        let usage = *self;
        let counts = kinds.into_iter().map(move |kind| (kind.name(), usage.get(kind)));
        let further =
            [("provider_total", self.provider_total), ("context_input", self.context_input)];
        counts.chain(further)
    }

    /// Input and output together; an unknown count is zero here.
    pub fn total(&self) -> u64 {
        self.input.unwrap_or(0).saturating_add(self.output.unwrap_or(0))
    }
}

macro_rules! totals {
    ($($(#[doc = $doc:literal])+ $total:ident = $name:literal,)+) => {
        /// The token totals of a session.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        enum TokenTotal { $($(#[doc = $doc])+ $total,)+ }

        impl TokenTotal {
            /// Every total, in the order of events.
            const ALL: [Self; [$($name),+].len()] = [$(Self::$total),+];

            const fn name(self) -> &'static str {
                match self { $(Self::$total => $name,)+ }
            }
        }
    };
}

totals! {
    /// Tokens that models read.
    Input = "input",
    /// Tokens that models generated.
    Output = "output",
    /// The reasoning part of the output.
    Reasoning = "reasoning",
    /// The part of the input that providers read from a cache.
    CacheRead = "cache_read",
    /// The part of the input that providers wrote to a cache, for any lifetime.
    CacheWrite = "cache_write",
}

/// The sum of the token counts of several generations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTotals([u64; TokenTotal::ALL.len()]);

impl TokenTotals {
    /// Adds the counts of one generation; an unknown count is zero here.
    pub fn add(&mut self, usage: &Usage) {
        self.change(usage, u64::saturating_add);
    }

    /// Takes off the counts of one generation.
    pub(crate) fn take(&mut self, usage: &Usage) {
        self.change(usage, u64::saturating_sub);
    }

    fn change(&mut self, usage: &Usage, by: fn(u64, u64) -> u64) {
        for (sum, total) in self.0.iter_mut().zip(TokenTotal::ALL) {
            let kinds = TokenKind::ALL.into_iter().filter(|kind| kind.total() == Some(total));
            let tokens = kinds.filter_map(|kind| usage.get(kind)).fold(0, u64::saturating_add);
            *sum = by(*sum, tokens);
        }
    }

    /// Every total under its name in events.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        TokenTotal::ALL.map(TokenTotal::name).into_iter().zip(self.0)
    }
}

/// How much of a generation's usage is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Completeness {
    /// The provider reported it completely.
    Complete,
    /// The response was cut, or the client left, before the provider had reported everything.
    Partial,
    /// The filter could not parse the response.
    Failed,
    /// The response reached its end without reporting usage.
    Missing,
}
