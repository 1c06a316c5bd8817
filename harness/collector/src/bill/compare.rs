//! Compares bills with the ledger by provider, day and item, and names each difference. It decides on
//! numbers alone; what it cannot decide stays unexplained.
//!
//! Each reason is bound by data: an estimate explains at most what it cost, a generation of which
//! nothing is known at most what the dearest other one cost. So a small doubt explains no large
//! difference.

use std::collections::{BTreeMap, BTreeSet};

use chrono::NaiveDate;

use crate::bill::amount::Amount;
use crate::bill::fold::{BillCell, Bills, Key};
use crate::bill::kinds::{self, Found};
use crate::bill::line::{Item, Kind, Provider};
use crate::bill::ours::{OurCell, Ours};
use crate::bill::reason::Reason;
use crate::bill::report::{Counts, Named, Row};
use crate::bill::services::UNITS;

/// Compares all days and items.
pub(super) fn rows(bills: &Bills, ours: &Ours, from: NaiveDate, to: NaiveDate) -> Vec<Row> {
    let days = from..to;
    let metered: BTreeSet<(Provider, &Item)> =
        ours.cells.keys().map(|(provider, _, item)| (*provider, item)).collect();
    let (moved, edges) = over_midnight(bills, ours, |day| days.contains(&day));
    let nothing = (BillCell::default(), OurCell::default());
    let keys: BTreeSet<&Key> = bills.cells.keys().chain(moved.keys()).collect();
    let rows = keys.into_iter().map(|key| {
        let bill = bills.cells.get(key).unwrap_or(&nothing.0);
        let counted = moved.get(key).unwrap_or(&nothing.1);
        let original = ours.cells.get(key).unwrap_or(&nothing.1);
        let mut found = Found::default();
        for (reason, amount) in &bill.apart {
            found.add(*reason, *amount, String::new());
        }
        if let Some(amount) = edges.get(key) {
            found.add(Reason::EdgeOfDay, *amount, String::new());
        }
        let is_metered = metered.contains(&(key.0, &key.2));
        decide(key, bill, counted, is_metered, &mut found);
        row(key, bill, original, counted, found)
    });
    rows.filter(|row| row.is_there).collect()
}

/// Gives generations that ran over midnight to the day before, where the bill has them there: all
/// of a midnight and a model, or none. Returns what each day has then, and by how much that is more.
fn over_midnight(
    bills: &Bills,
    ours: &Ours,
    is_within: impl Fn(NaiveDate) -> bool,
) -> (BTreeMap<Key, OurCell>, BTreeMap<Key, Amount>) {
    let mut moved = ours.cells.clone();
    let mut amounts: BTreeMap<Key, Amount> = BTreeMap::new();
    for (key, edge) in &ours.edges {
        let (provider, day, item) = key;
        let Some(before) = day.pred_opt() else { continue };
        let cost = edge.cost();
        let earlier = (*provider, before, item.clone());
        let gap = |moved: &BTreeMap<Key, OurCell>, key: &Key, more: Amount| {
            if !is_within(key.1) {
                return Amount::ZERO;
            }
            let billed = |cell: &BillCell| cell.kinds.values().map(|billed| billed.amount).sum();
            let bill: Amount = bills.cells.get(key).map(billed).unwrap_or_default();
            let cost = moved.get(key).map(OurCell::cost).unwrap_or_default();
            (bill - cost - more).abs()
        };
        let as_it_is = gap(&moved, key, Amount::ZERO) + gap(&moved, &earlier, Amount::ZERO);
        let if_moved = gap(&moved, key, -cost) + gap(&moved, &earlier, cost);
        if if_moved >= as_it_is {
            continue;
        }
        for (key, is_added) in [(&earlier, true), (key, false)] {
            if is_within(key.1) {
                moved.entry(key.clone()).or_default().merge(edge, is_added);
                let more = if is_added { cost } else { -cost };
                *amounts.entry(key.clone()).or_default() += more;
            }
        }
    }
    (moved, amounts)
}

/// Names what the usage of a day differs by.
fn decide(key: &Key, bill: &BillCell, ours: &OurCell, is_metered: bool, found: &mut Found) {
    let billed: Amount = bill.kinds.values().map(|billed| billed.amount).sum();
    if bill.kinds.is_empty() {
        let cost = ours.cost();
        if !cost.is_zero() {
            found.add(Reason::NotOnBill, -cost, String::new());
        }
        return;
    }
    if ours.generations > 0 {
        kinds::decide(bill, ours, found);
        return;
    }
    if billed.is_zero() {
        return;
    }
    if !bill.is_known {
        let detail = "nothing says which model of ours this is: --model NAME=ID does";
        found.add(Reason::Unexplained, billed, detail.to_owned());
        return;
    }
    let reason = match () {
        () if is_metered => Reason::DayNotMetered,
        () if key.2.is_batch => Reason::BatchNotMetered,
        () => Reason::ModelNotMetered,
    };
    found.add(reason, billed, String::new());
}

/// Puts a row together. What no reason has is unexplained, so that the row adds up.
fn row(key: &Key, bill: &BillCell, ours: &OurCell, counted: &OurCell, found: Found) -> Row {
    let (billed, cost) = (bill.amount(), ours.cost());
    let difference = billed - cost;
    let mut reasons = found.0;
    let named: Amount = reasons.values().map(|(amount, _)| *amount).sum();
    if named != difference {
        reasons.entry(Reason::Unexplained).or_default().0 += difference - named;
    }
    reasons.retain(|_, (amount, details)| !amount.is_zero() || !details.is_empty());
    let is_unit = UNITS.contains(&key.2.name.as_str());
    let tokens = if is_unit { BTreeMap::new() } else { tokens(bill, counted) };
    let reasons = reasons.into_iter().map(|(reason, (amount, details))| Named {
        reason,
        amount,
        detail: details.join("; "),
    });
    Row {
        provider: key.0,
        day: key.1,
        model: key.2.to_string(),
        names: bill.names.iter().cloned().collect(),
        bill: billed,
        ours: cost,
        difference,
        generations: ours.generations,
        estimated_generations: ours.estimated,
        unpriced_generations: ours.unpriced,
        tokens,
        reasons: reasons.collect(),
        is_there: !billed.is_zero()
            || !bill.kinds.is_empty()
            || ours.generations > 0
            || bill.usage.is_some()
            || !bill.apart.is_empty()
            || counted.generations > 0,
    }
}

fn tokens(bill: &BillCell, ours: &OurCell) -> BTreeMap<Kind, Counts> {
    let mut tokens = BTreeMap::new();
    for kind in Kind::TOKENS {
        let counted = ours.kinds.get(&kind).copied().unwrap_or_default();
        let counts = Counts {
            bill: kinds::billed_tokens(bill, kind),
            ours: counted.tokens + counted.unpriced,
        };
        if !counts.ours.is_zero() || counts.bill.is_some_and(|tokens| !tokens.is_zero()) {
            tokens.insert(kind, counts);
        }
    }
    tokens
}
