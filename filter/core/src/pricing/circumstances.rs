//! What decides which rate of a model applies, besides the provider and the name.

use crate::base::time::Timestamp;
use crate::domain::price_factors::PriceFactors;
use crate::fact::generation::GenerationEnded;

/// The circumstances of a generation.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// When it began: a rate is in force from a date to a date.
    pub started_at: Timestamp,
    /// When it ended: by that providers choose the price of the hour.
    pub ended_at: Timestamp,
    /// What moves its price.
    pub factors: PriceFactors,
}

impl Circumstances {
    /// Those of a generation that began and ended at this time.
    pub fn at(at: Timestamp, factors: PriceFactors) -> Self {
        Self { started_at: at, ended_at: at, factors }
    }
}

impl From<&GenerationEnded> for Circumstances {
    fn from(generation: &GenerationEnded) -> Self {
        let GenerationEnded { started_at, ended_at, .. } = *generation;
        let factors = PriceFactors {
            service_tier: generation.service_tier,
            modifiers: generation.modifiers,
            location: generation.location,
            is_thinking: generation.is_thinking,
        };
        Self { started_at, ended_at, factors }
    }
}

impl From<Timestamp> for Circumstances {
    fn from(at: Timestamp) -> Self {
        Self::at(at, PriceFactors::default())
    }
}
