//! What generations cost the operator, how much of that is known, and what is left of the revenue.

use rust_decimal::{Decimal, RoundingStrategy};
use serde::{Serialize, Serializer};

use crate::event::tokens::TokenTotals;
use crate::event::units::Units;
use crate::money;
use crate::money::known::CostKnown;

/// What the generations for one tool cost the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCost {
    /// As the client named it; `None` for generations that belong to no tool call.
    pub tool: Option<String>,
    /// Generations by whether their cost is known.
    pub generations: Generations,
    /// The sum of the costs that are known; in JSON `null` if none is.
    pub provider_cost: Decimal,
}

/// What the generations of one model cost the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCost {
    /// Who runs the model.
    pub provider: String,
    /// The model, as answered.
    pub model: String,
    /// Generations by whether their cost is known.
    pub generations: Generations,
    /// What they used.
    pub consumed: Consumed,
    /// The sum of the costs that are known; in JSON `null` if none is.
    pub provider_cost: Decimal,
}

impl Serialize for ToolCost {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told<'a> {
            tool: &'a Option<String>,
            #[serde(flatten)]
            cost: CostOf,
        }
        let cost = CostOf::new(self.generations, self.provider_cost);
        Told { tool: &self.tool, cost }.serialize(to)
    }
}

impl Serialize for ModelCost {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told<'a> {
            provider: &'a str,
            model: &'a str,
            #[serde(flatten)]
            consumed: &'a Consumed,
            #[serde(flatten)]
            cost: CostOf,
        }
        let cost = CostOf::new(self.generations, self.provider_cost);
        let ModelCost { provider, model, consumed, .. } = self;
        Told { provider, model, consumed, cost }.serialize(to)
    }
}

/// Generations and their cost, as far as it says anything.
#[derive(Serialize)]
struct CostOf {
    #[serde(flatten)]
    generations: Generations,
    cost_known: CostKnown,
    #[serde(serialize_with = "money::optional::serialize")]
    provider_cost: Option<Decimal>,
}

impl CostOf {
    fn new(generations: Generations, provider_cost: Decimal) -> CostOf {
        let cost_known = generations.cost_known();
        CostOf { generations, cost_known, provider_cost: cost_known.told(provider_cost) }
    }
}

/// What generations used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Consumed {
    /// Tokens, as far as they are known.
    #[serde(flatten)]
    pub tokens: TokenTotals,
    /// What is billed beside tokens.
    pub units: Units,
}

impl Consumed {
    pub(super) fn add(&mut self, other: Consumed) {
        self.tokens.add(other.tokens);
        self.units.add(other.units);
    }
}

/// Generations by whether their cost is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Generations {
    /// All of them.
    pub generations: u64,
    /// Those whose cost is not known.
    pub unpriced_generations: u64,
    /// Those whose input and output are both unknown, and that are not billed by other units alone;
    /// their cost is unknown too.
    pub unknown_usage_generations: u64,
    /// Those that used something beside tokens of which the rate card has no price: their known cost is
    /// too low.
    pub unpriced_units_generations: u64,
    /// Those whose counts contradict each other: their cost is by the reading that costs most.
    pub inconsistent_generations: u64,
}

impl Generations {
    /// How much of their cost is known.
    pub fn cost_known(&self) -> CostKnown {
        let in_part = self.unpriced_units_generations;
        CostKnown::of(self.generations, self.unpriced_generations, in_part)
    }

    pub(super) fn add(&mut self, other: Generations) {
        self.generations += other.generations;
        self.unpriced_generations += other.unpriced_generations;
        self.unknown_usage_generations += other.unknown_usage_generations;
        self.unpriced_units_generations += other.unpriced_units_generations;
        self.inconsistent_generations += other.inconsistent_generations;
    }
}

/// Money earned and spent, in one currency.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// What the generations cost the operator, as far as it is known. In JSON, it and the margin are
    /// `null` where nothing of it is known.
    #[serde(skip)]
    pub provider_cost: Decimal,
    /// The sum of the lines.
    #[serde(serialize_with = "money::as_text")]
    pub revenue: Decimal,
    /// Revenue less known provider cost; below zero for a loss.
    #[serde(skip)]
    pub margin: Decimal,
    /// Margin as a percentage of the revenue with one decimal, or `n/a` without revenue, and where
    /// nothing is known of the cost.
    pub margin_percent: String,
    /// What may be told of the cost and of the margin.
    #[serde(flatten)]
    told: ToldCost,
}

/// A cost, and what is left over it, as far as they say anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
struct ToldCost {
    cost_known: CostKnown,
    #[serde(serialize_with = "money::optional::serialize")]
    provider_cost: Option<Decimal>,
    #[serde(serialize_with = "money::optional::serialize")]
    margin: Option<Decimal>,
}

impl Sums {
    /// Sets the margin from revenue and the provider cost of these generations.
    pub(super) fn finish(&mut self, generations: Generations) {
        let cost_known = generations.cost_known();
        self.margin = money::difference(self.revenue, self.provider_cost);
        let hundred = Decimal::from(100);
        let percent = self.margin.checked_div(self.revenue).and_then(|r| r.checked_mul(hundred));
        self.told = ToldCost {
            cost_known,
            provider_cost: cost_known.told(self.provider_cost),
            margin: cost_known.told(self.margin),
        };
        self.margin_percent = match percent.and_then(|percent| cost_known.told(percent)) {
            Some(percent) => {
                let rounding = RoundingStrategy::MidpointAwayFromZero;
                let mut percent = percent.round_dp_with_strategy(1, rounding);
                percent.rescale(1);
                percent.to_string()
            }
            None => "n/a".to_owned(),
        };
    }
}
