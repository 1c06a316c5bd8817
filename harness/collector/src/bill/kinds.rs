//! Compares what a bill and the ledger have of one item on one day, kind by kind where both tell
//! the kinds.

use std::collections::BTreeMap;

use crate::bill::amount::Amount;
use crate::bill::fold::{BillCell, Billed};
use crate::bill::line::Kind;
use crate::bill::ours::{Counted, OurCell};
use crate::bill::reason::Reason;

/// Where rounding begins: what a bill writes with fewer digits is not exact enough to be compared.
const PLACES_MIN: u32 = 6;

/// Reasons with their amounts, and what there is to say about them.
#[derive(Debug, Default)]
pub(super) struct Found(pub(super) BTreeMap<Reason, (Amount, Vec<String>)>);

impl Found {
    pub(super) fn add(&mut self, reason: Reason, amount: Amount, detail: String) {
        let (sum, details) = self.0.entry(reason).or_default();
        *sum += amount;
        if !detail.is_empty() {
            details.push(detail);
        }
    }
}

/// How many tokens of a kind the bill is for, if it says: in its lines, or the provider's report of
/// usage does.
pub(super) fn billed_tokens(bill: &BillCell, kind: Kind) -> Option<Amount> {
    if let Some(billed) = bill.kinds.get(&kind)
        && billed.tokens.is_some()
    {
        return billed.tokens;
    }
    if let Some(usage) = bill.usage {
        let at = Kind::TOKENS.iter().position(|token| *token == kind)?;
        return usage.get(at).copied();
    }
    // Lines that all tell their tokens leave none out.
    let mut others = bill.kinds.values();
    let tell = !bill.kinds.contains_key(&kind) && others.all(|billed| billed.tokens.is_some());
    tell.then_some(Amount::ZERO)
}

/// Names the differences.
pub(super) fn decide(bill: &BillCell, ours: &OurCell, found: &mut Found) {
    let has_other = |amount: Option<Amount>| amount.is_some_and(|amount| !amount.is_zero());
    let tells_no_kind = has_other(bill.kinds.get(&Kind::Other).map(|billed| billed.amount))
        || has_other(ours.kinds.get(&Kind::Other).map(|counted| counted.cost));
    let rest = if tells_no_kind {
        as_one(bill, ours, found)
    } else {
        Kind::TOKENS.into_iter().map(|kind| of_kind(kind, bill, ours, found)).sum()
    };
    doubt(rest, ours, found);
}

/// Compares one kind, and returns what stays unexplained.
fn of_kind(kind: Kind, bill: &BillCell, ours: &OurCell, found: &mut Found) -> Amount {
    let nothing = Billed::default();
    let billed = bill.kinds.get(&kind).unwrap_or(&nothing);
    let counted = ours.kinds.get(&kind).copied().unwrap_or_default();
    let Some(tokens) = billed_tokens(bill, kind) else {
        return without_tokens(kind, billed.amount, counted, found);
    };
    let (mut amount, mut tokens) = (billed.amount, tokens);
    if !counted.unpriced.is_zero() {
        let all = counted.unpriced >= tokens;
        let part = if all { Some(amount) } else { amount.share(counted.unpriced, tokens) };
        let part = part.unwrap_or_default();
        let detail = format!("{}: {} tokens without a price here", kind.name(), counted.unpriced);
        found.add(Reason::NoPriceHere, part, detail);
        amount = amount - part;
        tokens = (tokens - counted.unpriced).max(Amount::ZERO);
    }
    let rest = amount - counted.cost;
    if tokens == counted.tokens {
        return at_other_price(kind, rest, (amount, tokens), billed, counted, found);
    }
    let detail = format!("{}: {tokens} on the bill, {} here", kind.name(), counted.tokens);
    let share = counted.cost.share(tokens - counted.tokens, counted.tokens);
    let part = match share {
        // Of what one side does not have, there is no second price.
        Some(share) if !tokens.is_zero() => share,
        _ => rest,
    };
    let bound = rounding(billed) + Amount::half_of_last_place(11, 1);
    let part = if (rest - part).abs() <= bound { rest } else { part };
    found.add(Reason::TokensDiffer, part, detail);
    let left = rest - part;
    if !left.is_zero() {
        found.add(Reason::PriceDiffers, left, rates(kind, amount, tokens, counted));
    }
    Amount::ZERO
}

/// The same tokens at another price.
fn at_other_price(
    kind: Kind,
    rest: Amount,
    (amount, tokens): (Amount, Amount),
    billed: &Billed,
    counted: Counted,
    found: &mut Found,
) -> Amount {
    if rest.is_zero() {
        return Amount::ZERO;
    }
    if rest.abs() <= rounding(billed) {
        found.add(Reason::Rounding, rest, String::new());
        return Amount::ZERO;
    }
    if tokens.is_zero() {
        return rest;
    }
    found.add(Reason::PriceDiffers, rest, rates(kind, amount, tokens, counted));
    Amount::ZERO
}

/// How much the lines of a bill may be off because they are rounded.
fn rounding(billed: &Billed) -> Amount {
    Amount::half_of_last_place(billed.places.max(PLACES_MIN), billed.lines)
}

fn rates(kind: Kind, amount: Amount, tokens: Amount, counted: Counted) -> String {
    let rate = |amount: Amount, tokens: Amount| match amount.per_million(tokens) {
        Some(rate) => rate.to_string(),
        None => "unknown".to_owned(),
    };
    format!(
        "{}: {} on the bill, {} here, USD per million tokens",
        kind.name(),
        rate(amount, tokens),
        rate(counted.cost, counted.tokens)
    )
}

/// Compares a kind of which the bill does not tell the tokens.
fn without_tokens(kind: Kind, amount: Amount, counted: Counted, found: &mut Found) -> Amount {
    let rest = amount - counted.cost;
    if counted.unpriced.is_zero() || rest <= Amount::ZERO {
        return rest;
    }
    let part = match counted.cost.share(counted.unpriced, counted.tokens) {
        Some(part) => part.min(rest),
        None => rest,
    };
    let detail = format!("{}: {} tokens without a price here", kind.name(), counted.unpriced);
    found.add(Reason::NoPriceHere, part, detail);
    rest - part
}

/// Compares the sums over all kinds, where one side does not tell these.
fn as_one(bill: &BillCell, ours: &OurCell, found: &mut Found) -> Amount {
    let amount: Amount = bill.kinds.values().map(|billed| billed.amount).sum();
    let rest = amount - ours.cost();
    let of = |kind: Kind| ours.kinds.get(&kind).copied().unwrap_or_default();
    let unpriced: Amount = Kind::TOKENS.into_iter().map(|kind| of(kind).unpriced).sum();
    let tokens: Amount = Kind::TOKENS.into_iter().map(|kind| of(kind).tokens).sum();
    if rest.is_zero() {
        return rest;
    }
    if ours.unpriced > 0 {
        if rest <= Amount::ZERO || (tokens.is_zero() && ours.unpriced == ours.unknown) {
            return rest;
        }
        let part = match ours.cost().share(unpriced, tokens) {
            Some(part) => part.min(rest),
            None if ours.cost().is_zero() => rest,
            None => Amount::ZERO,
        };
        let detail = format!("{} generations without a price here", ours.unpriced);
        found.add(Reason::NoPriceHere, part, detail);
        return rest - part;
    }
    let agree = |kind: Kind| billed_tokens(bill, kind) == Some(of(kind).tokens);
    if tokens.is_zero() || !Kind::TOKENS.into_iter().all(agree) {
        return rest;
    }
    let rounded: Amount = bill.kinds.values().map(rounding).sum();
    let reason = if rest.abs() <= rounded { Reason::Rounding } else { Reason::PriceDiffers };
    let detail = "the tokens agree; the bill does not tell what each kind costs";
    let detail = if reason == Reason::Rounding { "" } else { detail };
    found.add(reason, rest, detail.to_owned());
    Amount::ZERO
}

/// Takes what estimates and generations without usage explain from what is left, and from what the
/// tokens differ by.
fn doubt(rest: Amount, ours: &OurCell, found: &mut Found) {
    let unknown = Amount::from(i64::try_from(ours.unknown).unwrap_or(i64::MAX));
    let all_unknown = ours.unknown == ours.generations;
    let mut room_unknown = ours.dearest.share(unknown, Amount::from(1)).unwrap_or_default();
    let mut room_estimated = ours.estimated_cost;
    let mut explain = |left: Amount, found: &mut Found| {
        let mut left = left;
        if ours.unknown > 0 && left > Amount::ZERO {
            let part = if all_unknown { left } else { left.min(room_unknown) };
            let detail = format!("{} generations", ours.unknown);
            explained(Reason::UsageUnknownHere, part, detail, found);
            room_unknown = room_unknown - part;
            left = left - part;
        }
        if ours.estimated > 0 {
            let part = left.within(room_estimated);
            let detail = format!("{} generations", ours.estimated);
            explained(Reason::EstimatedHere, part, detail, found);
            room_estimated = room_estimated - part.abs();
            left = left - part;
        }
        left
    };
    if let Some(tokens) = found.0.get(&Reason::TokensDiffer).map(|(amount, _)| *amount) {
        let left = explain(tokens, found);
        if let Some(differ) = found.0.get_mut(&Reason::TokensDiffer) {
            differ.0 = left;
        }
    }
    let left = explain(rest, found);
    if !left.is_zero() {
        found.add(Reason::Unexplained, left, String::new());
    }
}

fn explained(reason: Reason, part: Amount, detail: String, found: &mut Found) {
    if !part.is_zero() {
        let is_new = !found.0.contains_key(&reason);
        found.add(reason, part, if is_new { detail } else { String::new() });
    }
}
