//! Why a generation has no cost.

use core::fmt;

use crate::domain::price_factors::{Modifier, ServiceTier, Word};
use crate::domain::seller::Seller;
use crate::domain::units::UnitName;
use crate::domain::usage::TokenKind;

/// Why a generation has no cost. Not the same as a cost of zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unpriced {
    /// The card has no rate for the model at this time.
    NoRate {
        /// The provider of the model.
        provider: Seller,
        /// The model as the response names it, else as the request does; empty if unknown.
        model: String,
    },
    /// The rate does not say what tokens of this kind cost, and the generation has some.
    NoRateForKind(TokenKind),
    /// The rate does not name the service tier.
    NoRateForTier(ServiceTier),
    /// The rate names no multiplier for this word of a modifier.
    NoRateForModifier(Modifier, Word),
    /// Only units beside tokens are told, and none of them has a rate.
    NoRateForUnit(UnitName),
    /// Neither input nor output is known, nor any unit beside them.
    UnknownUsage,
    /// The provider's own cost is to be used, and it reports none.
    NoReportedCost,
    /// The cost is more than a decimal can hold.
    MoneyOverflow,
}

impl Unpriced {
    /// The name in events.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoRate { .. } => "no_rate",
            Self::NoRateForKind(_) => "no_rate_for_kind",
            Self::NoRateForTier(_) => "no_rate_for_tier",
            Self::NoRateForModifier(..) => "no_rate_for_modifier",
            Self::NoRateForUnit(_) => "no_rate_for_unit",
            Self::UnknownUsage => "unknown_usage",
            Self::NoReportedCost => "no_reported_cost",
            Self::MoneyOverflow => "money_overflow",
        }
    }
}

impl fmt::Display for Unpriced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRate { provider, model } => {
                write!(f, "no rate for the model {model:?} of {}", provider.name())
            }
            Self::NoRateForKind(kind) => write!(f, "no rate for {} tokens", kind.name()),
            Self::NoRateForTier(tier) => write!(f, "no rate for the tier {:?}", tier.name()),
            Self::NoRateForModifier(modifier, word) => {
                write!(f, "no rate for {} {:?}", modifier.name(), word.as_str())
            }
            Self::NoRateForUnit(name) => write!(f, "no rate for {name}"),
            Self::UnknownUsage => f.write_str("neither input nor output tokens are known"),
            Self::NoReportedCost => f.write_str("the provider reports no cost"),
            Self::MoneyOverflow => f.write_str("the cost is more than a decimal can hold"),
        }
    }
}

impl core::error::Error for Unpriced {}
