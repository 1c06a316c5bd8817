//! What guards count of one run of a model: its cost, its price and its tokens, or those of some kinds.

use rust_decimal::Decimal;

use crate::config::product::Product;
use crate::config::{Guard, Metric};
use crate::domain::scope_totals::ScopeTotals;
use crate::domain::usage::{TokenKind, Usage};
use crate::pricing::Line;
use crate::pricing::charge::Charged;

/// What guards count of one run of a model.
pub(super) struct Run<'a> {
    pub(super) at_least: Decimal,
    pub(super) price: Decimal,
    pub(super) usage: Usage,
    pub(super) lines: &'a [Line],
}

impl<'a> Run<'a> {
    pub(super) fn of(charged: &'a Charged) -> Self {
        let Charged { at_least, price, usage, .. } = *charged;
        Self { at_least, price, usage, lines: charged.lines.as_deref().unwrap_or_default() }
    }
}

/// Returns what a guard counts of a run; `None` if it does not count runs of this kind.
pub(super) fn of_run(
    guard: &Guard,
    run: &Run<'_>,
    has_call: bool,
    rules: &Product,
) -> Option<ScopeTotals> {
    let Run { at_least, price, ref usage, .. } = *run;
    match guard.metric {
        None | Some(Metric::AiTokens) => {
            let tokens = usage.total();
            Some(ScopeTotals { provider_cost: at_least, revenue: price, calls: 0, tokens })
        }
        Some(Metric::ToolInvocations | Metric::ApiCalls | Metric::AgentSteps) => {
            has_call.then(|| ScopeTotals { provider_cost: at_least, ..ScopeTotals::default() })
        }
        Some(kinds) => Some(of_kinds(kinds, run, rules)),
    }
}

/// Returns the totals of a run for some kinds of token. Kinds without a rate of their own cost what
/// the whole costs in whose line they are.
fn of_kinds(kinds: Metric, run: &Run<'_>, rules: &Product) -> ScopeTotals {
    let mut sums = ScopeTotals { tokens: kinds.tokens(&run.usage), ..ScopeTotals::default() };
    for line in run.lines {
        let is_within = |part: TokenKind| run.lines.iter().all(|line| line.kind != part);
        let of_others = kinds.apart_from(line.kind, &run.usage, is_within).min(line.tokens);
        let cost = if kinds.has(line.kind) {
            line.cost_of(line.tokens.saturating_sub(of_others))
        } else {
            line.cost_of(of_others)
        };
        sums.provider_cost = sums.provider_cost.saturating_add(cost);
    }
    if !run.price.is_zero() {
        sums.revenue = rules.pricing.tokens.charge(sums.provider_cost).unwrap_or_default();
    }
    sums
}
