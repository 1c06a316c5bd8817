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

/// Token counts of one generation. `None` is *unknown*, which is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// All tokens that the model read: the prompt, cached or not, of any modality.
    pub input: Option<u64>,
    /// All tokens that the model made, reasoning included, of any modality.
    pub output: Option<u64>,
    /// Of `input`: read from the provider's cache.
    pub cache_read: Option<u64>,
    /// Of `input`: written to the provider's cache for 5 minutes, or for a time that the provider does not tell.
    pub cache_write_5m: Option<u64>,
    /// Of `input`: written to the provider's cache for 1 hour.
    pub cache_write_1h: Option<u64>,
    /// Of `input`: audio.
    pub input_audio: Option<u64>,
    /// Of `input`: images and video.
    pub input_image: Option<u64>,
    /// Of `cache_read` and of `input_audio`: audio read from the cache.
    pub cache_read_audio: Option<u64>,
    /// Of `output`: reasoning that the client may not get to see.
    pub reasoning: Option<u64>,
    /// Of `output`: audio.
    pub output_audio: Option<u64>,
    /// Of `output`: images and video.
    pub output_image: Option<u64>,
    /// The provider's own total, as it told it; it may count otherwise than `input` + `output`.
    pub provider_total: Option<u64>,
}

impl Usage {
    /// Whether nothing is known.
    pub fn is_unknown(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }

    /// What is known, and what `other` knows beyond that.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            input: self.input.or(other.input),
            output: self.output.or(other.output),
            cache_read: self.cache_read.or(other.cache_read),
            cache_write_5m: self.cache_write_5m.or(other.cache_write_5m),
            cache_write_1h: self.cache_write_1h.or(other.cache_write_1h),
            input_audio: self.input_audio.or(other.input_audio),
            input_image: self.input_image.or(other.input_image),
            cache_read_audio: self.cache_read_audio.or(other.cache_read_audio),
            reasoning: self.reasoning.or(other.reasoning),
            output_audio: self.output_audio.or(other.output_audio),
            output_image: self.output_image.or(other.output_image),
            provider_total: self.provider_total.or(other.provider_total),
        }
    }

    /// Every count under its name in events.
    pub fn counts(&self) -> [(&'static str, Option<u64>); 12] {
        [
            ("input", self.input),
            ("output", self.output),
            ("cache_read", self.cache_read),
            ("cache_write_5m", self.cache_write_5m),
            ("cache_write_1h", self.cache_write_1h),
            ("input_audio", self.input_audio),
            ("input_image", self.input_image),
            ("cache_read_audio", self.cache_read_audio),
            ("reasoning", self.reasoning),
            ("output_audio", self.output_audio),
            ("output_image", self.output_image),
            ("provider_total", self.provider_total),
        ]
    }

    /// Input and output together; what is unknown counts as zero.
    pub fn total(&self) -> u64 {
        self.input.unwrap_or(0).saturating_add(self.output.unwrap_or(0))
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
