//! What a row of an hour adds up: counts, amounts and quantities of units.

use std::borrow::Cow;

use crate::ledger::units::UnitSums;
use crate::money::Exact;
use crate::sql::{self, Value};

/// One sum of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sum {
    /// Of numbers so small that no hour has more than fit.
    Count(i64),
    Amount(Exact),
    Units(UnitSums),
}

impl Sum {
    pub(super) fn add(&mut self, other: Sum) {
        match (self, other) {
            (Sum::Count(sum), Sum::Count(more)) => *sum = sum.saturating_add(more),
            (Sum::Amount(sum), Sum::Amount(more)) => sum.add(more),
            (Sum::Units(sum), Sum::Units(more)) => sum.add(more),
            // Both are of one column.
            _ => {}
        }
    }

    pub(super) fn negated(self) -> Sum {
        match self {
            Sum::Count(count) => Sum::Count(count.saturating_neg()),
            Sum::Amount(amount) => Sum::Amount(-amount),
            Sum::Units(units) => Sum::Units(units.negated()),
        }
    }

    pub(super) fn is_zero(&self) -> bool {
        match self {
            Sum::Count(count) => *count == 0,
            Sum::Amount(amount) => *amount == Exact::ZERO,
            Sum::Units(units) => units.is_zero(),
        }
    }

    /// An amount as text, whatever its length.
    pub(super) fn to_value(&self) -> Value<'static> {
        match self {
            Sum::Count(count) => Value::Integer(*count),
            Sum::Amount(amount) => Value::Text(Cow::Owned(amount.to_string())),
            Sum::Units(units) => Value::Text(Cow::Owned(units.to_json())),
        }
    }
}

/// A number or an amount of a row; nothing counts as zero.
pub(super) fn exact(value: &Value<'_>) -> sql::Result<Exact> {
    match value {
        Value::Null => Some(Exact::ZERO),
        Value::Integer(number) => Some(Exact::from(*number)),
        Value::Decimal(amount) => Some(Exact::from(*amount)),
        Value::Text(text) => Exact::parse(text),
    }
    .ok_or_else(|| sql::Error::Column(format!("not money: {value:.60?}")))
}

/// The quantities of a row; nothing counts as none.
pub(super) fn units(value: &Value<'_>) -> sql::Result<UnitSums> {
    match value {
        Value::Null => Some(UnitSums::default()),
        Value::Text(text) => UnitSums::from_json(text),
        Value::Integer(_) | Value::Decimal(_) => None,
    }
    .ok_or_else(|| sql::Error::Column(format!("not units: {value:.60?}")))
}
