//! Adds up the lines of bills by provider, day and item, as they are read, so that a bill of any
//! length takes as much memory as it has days and models; and finds lines that come twice.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use anyhow::{bail, ensure};
use chrono::NaiveDate;
use iso_currency::Currency;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::bill::amount::Amount;
use crate::bill::line::{Cost, Entry, Item, Kind, Nature, Provider, Subject, Usage};
use crate::bill::models::Names;
use crate::bill::reason::Reason;

/// The currency in which bills are compared.
pub(super) const CURRENCY: &str = "USD";
/// The most days and models that are kept apart.
pub(super) const CELLS_MAX: usize = 100_000;
/// The most lines of which a repetition is found: 64 to 128 MiB.
const LINES_MAX: usize = 4_000_000;
/// The most names of a bill that are kept for one model and day.
const NAMES_MAX: usize = 16;

/// Days, half-open; `None`: from the first, or to the last day of the bill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Days {
    /// The first day.
    pub from: Option<NaiveDate>,
    /// The day behind the last one.
    pub to: Option<NaiveDate>,
}

impl Days {
    pub(super) fn contain(&self, day: NaiveDate) -> bool {
        self.from.is_none_or(|from| day >= from) && self.to.is_none_or(|to| day < to)
    }
}

/// What a bill has of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Billed {
    pub(super) amount: Amount,
    /// How many tokens it is for; `None` if some line does not say.
    pub(super) tokens: Option<Amount>,
    /// How exactly it is written: lines, and digits behind the point.
    pub(super) lines: u64,
    pub(super) places: u32,
}

/// What a bill has of an item on a day.
#[derive(Clone, Debug, Default)]
pub(super) struct BillCell {
    /// As the bill calls it.
    pub(super) names: BTreeSet<String>,
    /// False if nothing says which model of ours it is.
    pub(super) is_known: bool,
    pub(super) kinds: BTreeMap<Kind, Billed>,
    /// What the provider's report of usage says, in the order of [`Kind::TOKENS`].
    pub(super) usage: Option<[Amount; 4]>,
    /// Amounts that no metered call makes.
    pub(super) apart: BTreeMap<Reason, Amount>,
}

impl BillCell {
    pub(super) fn amount(&self) -> Amount {
        let used: Amount = self.kinds.values().map(|billed| billed.amount).sum();
        used + self.apart.values().copied().sum()
    }

    fn merge_usage(&mut self, other: [Amount; 4]) {
        let mut sum = self.usage.unwrap_or_default();
        for (sum, tokens) in sum.iter_mut().zip(other) {
            *sum += tokens;
        }
        self.usage = Some(sum);
    }
}

/// Amounts that are named and not compared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Aside {
    /// How many lines or generations.
    pub count: u64,
    /// What they come to.
    pub amount: Amount,
}

impl Aside {
    pub(super) fn add(&mut self, amount: Amount) {
        self.count += 1;
        self.amount += amount;
    }
}

pub(super) type Key = (Provider, NaiveDate, Item);

/// What the bills come to.
#[derive(Debug, Default)]
pub(super) struct Bills {
    pub(super) cells: BTreeMap<Key, BillCell>,
    /// All that is in `cells`, added up in the order of the lines.
    pub(super) total: Amount,
    /// Of a bill that is about more than models, by currency.
    pub(super) elsewhere: BTreeMap<String, Aside>,
    /// By currency.
    pub(super) other_currencies: BTreeMap<String, Aside>,
    days: Days,
    names: Names,
    seen: HashSet<[u8; 16]>,
    /// The number of the file that a day of a format is in.
    file_of_day: BTreeMap<(&'static str, NaiveDate), usize>,
}

/// What became of a line.
pub(super) enum Taken {
    /// It counts, with this amount.
    Counted(Amount),
    /// It is not compared, and named.
    Aside,
    /// It is of a day that nobody asked for.
    OutsideDays,
}

impl Bills {
    pub(super) fn new(days: Days, names: Names) -> Bills {
        Bills { days, names, ..Bills::default() }
    }

    /// Takes a line. `identity` tells it from all others.
    pub(super) fn add(
        &mut self,
        provider: Provider,
        entry: Entry,
        identity: impl FnOnce() -> String,
    ) -> anyhow::Result<Taken> {
        match entry {
            Entry::Elsewhere(amount, currency) => {
                check_currency(&currency)?;
                self.elsewhere.entry(currency).or_default().add(amount);
                Ok(Taken::Aside)
            }
            Entry::Cost(cost) if !self.days.contain(cost.day) => Ok(Taken::OutsideDays),
            Entry::Usage(usage) if !self.days.contain(usage.day) => Ok(Taken::OutsideDays),
            Entry::Cost(cost) => {
                self.must_be_new(&identity())?;
                check_currency(&cost.currency)?;
                if cost.currency != CURRENCY {
                    let aside = self.other_currencies.entry(cost.currency).or_default();
                    aside.add(cost.written.amount);
                    return Ok(Taken::Aside);
                }
                let amount = cost.written.amount;
                self.add_cost(provider, cost)?;
                self.total += amount;
                Ok(Taken::Counted(amount))
            }
            Entry::Usage(usage) => {
                self.must_be_new(&identity())?;
                self.add_usage(provider, usage)?;
                Ok(Taken::Counted(Amount::ZERO))
            }
        }
    }

    /// Refuses what came before.
    pub(super) fn must_be_new(&mut self, identity: &str) -> anyhow::Result<()> {
        let hash = Sha256::digest(identity);
        let mut short = [0; 16];
        short.copy_from_slice(&hash[..16]);
        ensure!(self.seen.insert(short), "repeats a line that came before");
        ensure!(
            self.seen.len() <= LINES_MAX,
            "more than {LINES_MAX} lines: ask for fewer days with --from and --to"
        );
        Ok(())
    }

    /// Refuses a day that another file of this format has: the two may group it differently, and
    /// each would tell all of it.
    pub(super) fn must_be_in_one_file(
        &mut self,
        format: &'static str,
        day: NaiveDate,
        file: usize,
    ) -> anyhow::Result<()> {
        let first = *self.file_of_day.entry((format, day)).or_insert(file);
        ensure!(first == file, "the day {day} is in another file of {format} too");
        Ok(())
    }

    fn cell(
        &mut self,
        provider: Provider,
        day: NaiveDate,
        subject: &Subject,
        is_batch: bool,
    ) -> anyhow::Result<(&mut BillCell, bool)> {
        let resolved = self.names.resolve(provider, subject);
        let is_batch = is_batch && tells_batch(provider);
        let key = (provider, day, Item::new(&resolved.name, is_batch));
        if self.cells.len() == CELLS_MAX && !self.cells.contains_key(&key) {
            bail!("more than {CELLS_MAX} days and models");
        }
        let cell = self.cells.entry(key).or_default();
        cell.is_known = resolved.is_known;
        if let Subject::Id(text) | Subject::Name(text) = subject
            && cell.names.len() < NAMES_MAX
            && !cell.names.contains(text)
        {
            cell.names.insert(text.clone());
        }
        Ok((cell, resolved.is_service))
    }

    fn add_cost(&mut self, provider: Provider, cost: Cost) -> anyhow::Result<()> {
        let Cost { day, subject, is_batch, nature, kind, written, tokens, .. } = cost;
        let (cell, is_service) = self.cell(provider, day, &subject, is_batch)?;
        let apart = match nature {
            Nature::Usage if is_service => Some(Reason::ServiceNotMetered),
            Nature::Usage => None,
            Nature::Tax => Some(Reason::Tax),
            Nature::Credit => Some(Reason::Credit),
            Nature::Discount => Some(Reason::Discount),
            Nature::Refund => Some(Reason::Refund),
            Nature::Fee => Some(Reason::Fee),
        };
        if let Some(reason) = apart {
            *cell.apart.entry(reason).or_default() += written.amount;
            return Ok(());
        }
        let first = Billed { tokens: Some(Amount::ZERO), ..Billed::default() };
        let billed = cell.kinds.entry(kind).or_insert(first);
        billed.amount += written.amount;
        billed.tokens = billed.tokens.zip(tokens).map(|(sum, tokens)| sum + tokens);
        billed.lines += 1;
        billed.places = billed.places.max(written.places);
        Ok(())
    }

    fn add_usage(&mut self, provider: Provider, usage: Usage) -> anyhow::Result<()> {
        let Usage { day, subject, is_batch, tokens } = usage;
        self.cell(provider, day, &subject, is_batch)?.0.merge_usage(tokens);
        Ok(())
    }

    /// Checks that what was read can be compared, and adds up a day that is billed as one sum.
    pub(super) fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(name) = self.names.unused() {
            bail!("--model: no line of the bill has the name {name:?}");
        }
        self.seen = HashSet::new();
        let days: BTreeSet<(Provider, NaiveDate)> =
            self.sums().map(|(provider, day, _)| (*provider, *day)).collect();
        for (provider, day) in days {
            let of_day = |key: &Key| (key.0, key.1) == (provider, day);
            let is_sum = |key: &Key| key.2.name == Item::ALL;
            let sum_has_costs = self
                .cells
                .iter()
                .any(|(key, cell)| of_day(key) && is_sum(key) && !cell.kinds.is_empty());
            let others: Vec<Key> =
                self.cells.keys().filter(|key| of_day(key) && !is_sum(key)).cloned().collect();
            for key in others {
                let has_costs = self.cells.get(&key).is_some_and(|cell| !cell.kinds.is_empty());
                ensure!(
                    !has_costs,
                    "{day}: some lines of {} name a model, and some are the sum of all: export \
                     all of it grouped by model",
                    provider.name()
                );
                let usage = self.cells.get(&key).and_then(|cell| cell.usage);
                if let (true, Some(usage)) = (sum_has_costs, usage) {
                    self.cells.remove(&key);
                    let sum = (provider, day, Item::new(Item::ALL, false));
                    self.cells.entry(sum).or_default().merge_usage(usage);
                }
            }
        }
        Ok(())
    }

    fn sums(&self) -> impl Iterator<Item = &Key> {
        self.cells.keys().filter(|key| key.2.name == Item::ALL)
    }

    /// The days of which a provider bills one sum for all models.
    pub(super) fn days_of_sums(&self) -> BTreeSet<(Provider, NaiveDate)> {
        self.sums().map(|(provider, day, _)| (*provider, *day)).collect()
    }

    /// The days to compare: the first, and the one behind the last. `None` if no line is of them.
    pub(super) fn span(&self) -> Option<(NaiveDate, NaiveDate)> {
        let first = self.cells.keys().map(|key| key.1).min()?;
        let last = self.cells.keys().map(|key| key.1).max()?;
        let to = self.days.to.or_else(|| last.succ_opt())?;
        Some((self.days.from.unwrap_or(first), to))
    }
}

/// True if the bill tells what a batch cost apart.
pub(super) fn tells_batch(provider: Provider) -> bool {
    provider != Provider::OpenAi
}

fn check_currency(code: &str) -> anyhow::Result<()> {
    ensure!(
        Currency::from_code(code).is_some(),
        "currency: must be an ISO 4217 code, found {code:.20?}"
    );
    Ok(())
}
