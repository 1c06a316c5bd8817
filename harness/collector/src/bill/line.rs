//! A line of a bill, in one form for all providers.

use std::fmt;

use chrono::NaiveDate;
use serde::{Serialize, Serializer};

use crate::bill::amount::{Amount, Written};

/// Who sends the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// OpenAI.
    OpenAi,
    /// Anthropic.
    Anthropic,
    /// Amazon Web Services, for Bedrock.
    Aws,
}

impl Provider {
    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Provider::OpenAi => "openai",
            Provider::Anthropic => "anthropic",
            Provider::Aws => "aws",
        }
    }

    /// The `provider` of our generations that this bill is about, unless the caller names others.
    pub(super) const fn seller(self) -> &'static str {
        match self {
            Provider::OpenAi => "openai",
            Provider::Anthropic => "anthropic",
            Provider::Aws => "bedrock",
        }
    }
}

/// What is counted, as far as both sides tell it apart. Each token is in one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Tokens that the model read, and not from a cache.
    Input,
    /// Tokens that were read from a cache.
    CacheRead,
    /// Tokens that were written to a cache, for any time.
    CacheWrite,
    /// Tokens that the model generated, reasoning among them.
    Output,
    /// Anything else, or nothing that is told: images, seconds, a sum over all kinds.
    Other,
}

impl Kind {
    /// The kinds of tokens.
    pub(super) const TOKENS: [Kind; 4] =
        [Kind::Input, Kind::CacheRead, Kind::CacheWrite, Kind::Output];

    /// The name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Input => "input",
            Kind::CacheRead => "cache_read",
            Kind::CacheWrite => "cache_write",
            Kind::Output => "output",
            Kind::Other => "other",
        }
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

/// What a line is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// A model, by its id.
    Id(String),
    /// A model, by a name for people or for a price list, which a table has to translate.
    Name(String),
    /// All models together: the export is not grouped by model.
    All,
    /// What our cost lines have as a unit of this name.
    Unit(&'static str),
    /// Something that no metered call makes.
    Service(String),
    /// Something that no table names.
    Unknown(String),
}

/// Why a line is on the bill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nature {
    /// Something was used.
    Usage,
    Tax,
    Credit,
    Discount,
    Refund,
    /// A minimum, a subscription, a commitment.
    Fee,
}

/// An amount of a day.
#[derive(Clone, Debug)]
pub(super) struct Cost {
    pub(super) day: NaiveDate,
    pub(super) subject: Subject,
    pub(super) is_batch: bool,
    pub(super) nature: Nature,
    pub(super) kind: Kind,
    pub(super) written: Written,
    /// ISO 4217.
    pub(super) currency: String,
    /// How many tokens it is for, if it says.
    pub(super) tokens: Option<Amount>,
}

/// The tokens of a day, without an amount.
#[derive(Clone, Debug)]
pub(super) struct Usage {
    pub(super) day: NaiveDate,
    pub(super) subject: Subject,
    pub(super) is_batch: bool,
    /// In the order of [`Kind::TOKENS`].
    pub(super) tokens: [Amount; 4],
}

/// What a line of an export tells.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    Cost(Cost),
    Usage(Usage),
    /// An amount of something that is no model, in a bill about more than models.
    Elsewhere(Amount, String),
}

/// What is compared: a model, or a unit that is billed beside models.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) is_batch: bool,
}

impl Item {
    /// The name of the item that stands for all models.
    pub(super) const ALL: &'static str = "*";

    pub(super) fn new(name: &str, is_batch: bool) -> Item {
        Item { name: name.to_owned(), is_batch }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.is_batch { f.write_str(" (batch)") } else { Ok(()) }
    }
}
