//! The tokens of one generation, that is one response of a large language model, in one normal form for all providers.
//!
//! `input` and `output` are inclusive: `input` holds cache reads, cache writes, audio and images; `output` holds
//! reasoning, audio and images. Everything else is a subset of one of the two, so that nothing is added up twice.
//! This is also the contract of Envoy's `envoy.data.ai.v3.TokenUsage`. Each provider's file says which of its own
//! numbers include which.

use serde::{Deserialize, Serialize};

/// Where a generation's usage was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The response's body.
    Body,
    /// Headers of the response.
    ResponseHeaders,
    /// What Envoy's own filter has extracted.
    EnvoyMetadata,
    /// The result of an MCP tool call.
    McpResult,
}

/// The table of what is counted. A row: the member of [`Usage`], the kind in rate cards and cost lines,
/// what it is a part of (itself, if it is a whole), its name in rate cards and events, and the total
/// of a session that it adds to, if it does. Each whole is charged on its own, so a unit that is no
/// token is a row that is a whole. Rows stand in the order of a cost's lines.
macro_rules! usage {
    ($($(#[doc = $doc:literal])+
        $field:ident: $kind:ident of $parent:ident = $name:literal $(in $total:ident)?;)+
    ) => {
        /// Token counts of one generation. `None` is *unknown*, which is not zero.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Usage {
            $($(#[doc = $doc])+ pub $field: Option<u64>,)+
            /// The provider's own total, as it told it; it may count otherwise than `input` + `output`.
            pub provider_total: Option<u64>,
        }

        /// A kind of tokens that can have a rate of its own.
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

            /// What it is a part of; a whole is a part of itself.
            pub const fn parent(self) -> Self {
                match self { $(Self::$kind => Self::$parent,)+ }
            }

            /// The total of a session that it adds to.
            const fn total(self) -> Option<TokenTotal> {
                match self { $(Self::$kind => total!($($total)?),)+ }
            }
        }

        impl Usage {
            /// How many tokens of this kind there are.
            pub const fn get(&self, kind: TokenKind) -> Option<u64> {
                match kind { $(TokenKind::$kind => self.$field,)+ }
            }

            /// What is known, and what `other` knows beyond that.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self {
                    $($field: self.$field.or(other.$field),)+
                    provider_total: self.provider_total.or(other.provider_total),
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
    /// All tokens that the model read: the prompt, cached or not, of any modality.
    input: Input of Input = "input" in Input;
    /// Of `input`: read from the provider's cache.
    cache_read: CacheRead of Input = "cache_read" in CacheRead;
    /// Of `input`: written to the provider's cache for 5 minutes, or for a time that the provider does
    /// not tell.
    cache_write_5m: CacheWrite5m of Input = "cache_write_5m" in CacheWrite;
    /// Of `input`: written to the provider's cache for 1 hour.
    cache_write_1h: CacheWrite1h of Input = "cache_write_1h" in CacheWrite;
    /// Of `input`: audio.
    input_audio: InputAudio of Input = "input_audio";
    /// Of `cache_read` and of `input_audio`: audio read from the cache.
    cache_read_audio: CacheReadAudio of InputAudio = "cache_read_audio";
    /// Of `input`: images and video.
    input_image: InputImage of Input = "input_image";
    /// All tokens that the model made, reasoning included, of any modality.
    output: Output of Output = "output" in Output;
    /// Of `output`: reasoning that the client may not get to see.
    reasoning: Reasoning of Output = "reasoning" in Reasoning;
    /// Of `output`: audio.
    output_audio: OutputAudio of Output = "output_audio";
    /// Of `output`: images and video.
    output_image: OutputImage of Output = "output_image";
}

impl TokenKind {
    /// Whether it is no part of another.
    pub fn is_whole(self) -> bool {
        self.parent() == self
    }

    /// The whole that it is a part of, if only as a part of a part.
    pub fn whole(self) -> Self {
        if self.is_whole() { self } else { self.parent().whole() }
    }

    /// The kinds that are no part of another.
    pub fn wholes() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|kind| kind.is_whole())
    }

    /// Its parts, without the parts of these.
    pub fn parts(self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |kind| kind.parent() == self && !kind.is_whole())
    }
}

impl Usage {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        TokenKind::wholes().all(|kind| self.get(kind).is_none())
    }

    /// Every count under its name in events: wholes, then their parts, then the parts of these.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
        let mut kinds = TokenKind::ALL;
        kinds.sort_unstable_by_key(|kind| {
            (!kind.is_whole(), kind.whole(), !kind.parent().is_whole(), *kind)
        });
        let usage = *self;
        let counts = kinds.into_iter().map(move |kind| (kind.name(), usage.get(kind)));
        counts.chain([("provider_total", self.provider_total)])
    }

    /// Input and output together; what is unknown counts as zero.
    pub fn total(&self) -> u64 {
        self.input.unwrap_or(0).saturating_add(self.output.unwrap_or(0))
    }
}

macro_rules! totals {
    ($($(#[doc = $doc:literal])+ $total:ident = $name:literal,)+) => {
        /// What a session adds up of its tokens.
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
    /// Tokens read.
    Input = "input",
    /// Tokens made.
    Output = "output",
    /// Of the output.
    Reasoning = "reasoning",
    /// Of the input.
    CacheRead = "cache_read",
    /// Of the input, of any lifetime.
    CacheWrite = "cache_write",
}

/// Tokens of several generations, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTotals([u64; TokenTotal::ALL.len()]);

impl TokenTotals {
    /// Adds one generation's; what is unknown counts as zero.
    pub fn add(&mut self, usage: &Usage) {
        for (sum, total) in self.0.iter_mut().zip(TokenTotal::ALL) {
            let kinds = TokenKind::ALL.into_iter().filter(|kind| kind.total() == Some(total));
            let tokens = kinds.filter_map(|kind| usage.get(kind)).fold(0, u64::saturating_add);
            *sum = sum.saturating_add(tokens);
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
    /// The provider told it to the end.
    Complete,
    /// The response was cut, or the client left, before the provider had told everything.
    Partial,
    /// The response could not be read.
    Failed,
    /// The response came to its end without telling any.
    Missing,
}

/// What the request asked for, or the provider says it gave: it decides the rate.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ServiceTier {
    /// The list price.
    #[default]
    Standard,
    /// Cheaper, done within a day.
    Batch,
    /// Cheaper, done when there is room.
    Flex,
    /// Dearer, done first.
    Priority,
}
