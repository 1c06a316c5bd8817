//! How much of a cost is known. This is the one place that decides it: reports, the page and
//! invoices tell an unknown cost as unknown, never as 0, and a cost in part as such.

use std::fmt;

use rust_decimal::Decimal;
use serde::Serialize;

/// How much of the cost of some generations is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CostKnown {
    /// All of it; also where there is no generation, which costs nothing.
    #[default]
    All,
    /// A part: the cost is at least the sum, and the margin at most what is left over it.
    Part,
    /// Nothing: the sum says nothing, and neither does the margin.
    None,
}

impl fmt::Display for CostKnown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CostKnown::All => "all",
            CostKnown::Part => "part",
            CostKnown::None => "none",
        })
    }
}

impl CostKnown {
    /// Of so many generations, of which `unpriced` have no cost and `in_part` one that leaves
    /// something out.
    pub(crate) fn of(generations: u64, unpriced: u64, in_part: u64) -> CostKnown {
        match (unpriced, in_part) {
            (0, 0) => CostKnown::All,
            _ if unpriced >= generations => CostKnown::None,
            _ => CostKnown::Part,
        }
    }

    /// A sum of costs, or what is left over it, if it says anything.
    pub(crate) fn told(self, sum: Decimal) -> Option<Decimal> {
        (self != CostKnown::None).then_some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_known_if_that_of_each_generation_is() {
        for (generations, unpriced, in_part, expected) in [
            (0, 0, 0, CostKnown::All),
            (3, 0, 0, CostKnown::All),
            (3, 1, 0, CostKnown::Part),
            (3, 0, 1, CostKnown::Part),
            (3, 2, 1, CostKnown::Part),
            (3, 3, 0, CostKnown::None),
            (1, 0, 1, CostKnown::Part),
        ] {
            assert_eq!(CostKnown::of(generations, unpriced, in_part), expected);
        }
        assert_eq!(CostKnown::None.told(Decimal::ONE), None);
        assert_eq!(CostKnown::Part.told(Decimal::ONE), Some(Decimal::ONE));
    }
}
