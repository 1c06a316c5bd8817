//! Makes a card of the models of a list: under which sellers and names each of them stands, and
//! which of several that claim one name has it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use agent_meter_core::base::pattern::{is_fit, is_pattern};
use agent_meter_core::domain::seller::Seller;
use agent_meter_core::protocol::llm::PriceLists;
use agent_meter_core::protocol::llm::provider::price_lists;
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::value::RawValue;

use crate::prices::card::{Card, Entry, Table, When};
use crate::prices::list::price;
use crate::prices::report::{LeftOut, Report};
use crate::prices::source::{Edition, Source};
use crate::prices::wanted::Wanted;

/// What an import made, and what it left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The rate card; the filter's own reader takes it.
    pub card: Card,
    /// The parts of the list that the card leaves out.
    pub report: Report,
}

/// The most bytes of a seller's name.
const NAME_BYTES_MAX: usize = 31;

/// The reason of a price with more places than the filter takes.
pub(super) const ROUNDED: &str = "further places than 12, so it is rounded";

/// A model of a list, before it is known which of its names are still free.
#[derive(Clone, Debug)]
pub(super) struct Model {
    /// As the list has it, for the report.
    pub(super) listed: String,
    pub(super) provider: Seller,
    /// On the wire; the first is the best.
    pub(super) names: Vec<String>,
    /// First day, and first day after; in days of UTC.
    pub(super) effective: (Option<String>, Option<String>),
    pub(super) when: When,
    pub(super) table: Table,
    /// How well the entry fits its names.
    pub(super) fit: Fit,
}

/// How well an entry of a list fits the names that it has in the card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It is the seller's own.
    #[default]
    Own,
    /// It is of another seller, whose prices apply where this one has none.
    Fallback,
}

/// The sellers that a list of this kind calls so.
pub(super) fn ours(
    listed: &str,
    names: impl Fn(PriceLists) -> &'static [&'static str],
) -> Vec<Seller> {
    let is_called_so =
        |lists: PriceLists| names(lists).iter().any(|pattern| is_fit(pattern, listed));
    price_lists().filter(|(_, lists)| is_called_so(*lists)).map(|(seller, _)| seller).collect()
}

/// A list's name as the name of a seller: in lower case, with `-` for what such names cannot have.
fn fitted(listed: &str) -> Option<Seller> {
    let plain = listed.chars().map(|letter| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9' | '-' | '_' | '.') => letter,
        _ => '-',
    });
    let name: String = plain.take(NAME_BYTES_MAX).collect();
    Seller::new(name.trim_matches('-'))
}

/// Collects the entries of a card while a list is read.
pub(super) struct Builder<'a> {
    wanted: &'a Wanted,
    /// Whether of several models with one name the first has it, and not the one with most prices.
    is_first_best: bool,
    models: Vec<Model>,
    /// Every seller that the list names, by its names and ours.
    providers: BTreeSet<String>,
    report: Report,
    /// What the report already has.
    reported: HashSet<LeftOut>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(wanted: &'a Wanted, is_first_best: bool) -> Self {
        Self {
            wanted,
            is_first_best,
            models: Vec::new(),
            providers: BTreeSet::new(),
            report: Report::default(),
            reported: HashSet::new(),
        }
    }

    /// The sellers under which a model of the list's provider is wanted; none if it is not asked
    /// for. One that the filter does not know by name has the list's own.
    pub(super) fn sellers(&mut self, listed: &str, model: &str, ours: &[Seller]) -> Vec<Seller> {
        let own =
            if ours.is_empty() { fitted(listed).into_iter().collect() } else { ours.to_vec() };
        if own.is_empty() {
            self.leave_out("a provider without a name", model);
            return own;
        }
        self.providers.insert(listed.to_owned());
        self.providers.extend(own.iter().map(|seller| seller.name().to_owned()));
        let asked = &self.wanted.providers;
        let is_asked = |name: &str| asked.iter().any(|asked| asked == name);
        if asked.is_empty() || is_asked(listed) {
            return own;
        }
        let found: Vec<Seller> = own.into_iter().filter(|seller| is_asked(seller.name())).collect();
        if found.is_empty() {
            self.report.not_asked_for.insert(model.to_owned());
        }
        found
    }

    /// Those of these sellers under whose names another one's models are wanted; `listed` is what
    /// the list calls the sellers.
    pub(super) fn wanted_fallbacks(&mut self, listed: &str, sellers: &[Seller]) -> Vec<Seller> {
        self.providers.extend(sellers.iter().map(|seller| seller.name().to_owned()));
        let asked = &self.wanted.providers;
        let is_asked = |seller: &&Seller| {
            asked.is_empty() || asked.iter().any(|name| name == seller.name() || name == listed)
        };
        sellers.iter().filter(is_asked).copied().collect()
    }

    /// The price of a million for a member with the price of 10 to the power of `unit`; `None` if
    /// it is null.
    pub(super) fn price_of_million(
        &mut self,
        listed: &str,
        member: &str,
        value: &RawValue,
        unit: u32,
    ) -> anyhow::Result<Option<Decimal>> {
        let price = price(value, unit).with_context(|| member.to_owned())?;
        if price.is_some_and(|price| price.is_rounded) {
            self.leave_out_price(member, ROUNDED, listed);
        }
        Ok(price.map(|price| price.amount))
    }

    /// The same, but of one.
    pub(super) fn price_of_one(
        &mut self,
        listed: &str,
        member: &str,
        value: &RawValue,
        unit: u32,
    ) -> anyhow::Result<Option<Decimal>> {
        self.price_of_million(listed, member, value, unit + 6)
    }

    /// Leaves out a model.
    pub(super) fn leave_out(&mut self, reason: impl Into<String>, model: &str) {
        self.report(LeftOut { model: model.to_owned(), member: None, reason: reason.into() });
    }

    /// Leaves out a price of a model.
    pub(super) fn leave_out_price(&mut self, member: &str, reason: &str, model: &str) {
        let (model, member) = (model.to_owned(), Some(member.to_owned()));
        self.report(LeftOut { model, member, reason: reason.to_owned() });
    }

    fn report(&mut self, left_out: LeftOut) {
        if self.reported.insert(left_out.clone()) {
            self.report.left_out.push(left_out);
        }
    }

    /// Takes a model under those of its names that no other one has at the same time, or that no
    /// other one has with more prices.
    pub(super) fn push(&mut self, mut model: Model) {
        let patterns = &self.wanted.models;
        let is_wanted = |name: &String| patterns.iter().any(|pattern| is_fit(pattern, name));
        if !patterns.is_empty() && !model.names.iter().any(is_wanted) {
            self.report.not_asked_for.insert(model.listed);
            return;
        }
        model.table.tidy();
        if model.table.is_empty() {
            self.leave_out("no price", &model.listed);
            return;
        }
        let mut seen = BTreeSet::new();
        model.names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
        self.models.push(model);
    }

    /// Which model has which of its names.
    fn owners(&mut self) -> HashSet<(usize, String)> {
        let mut claims: BTreeMap<(Seller, &str), Vec<usize>> = BTreeMap::new();
        let mut patterns: BTreeMap<Seller, Vec<(usize, &str)>> = BTreeMap::new();
        for (at, model) in self.models.iter().enumerate() {
            for name in &model.names {
                claims.entry((model.provider, name)).or_default().push(at);
                if is_pattern(name) && model.fit == Fit::Own {
                    patterns.entry(model.provider).or_default().push((at, name));
                }
            }
        }
        let mut owners = HashSet::new();
        let mut losers: Vec<(usize, usize)> = Vec::new();
        for ((seller, name), mut claiming) in claims {
            let model = |at: usize| self.models.get(at);
            let rank = |at: &usize| {
                let count = |model: &Model| match self.is_first_best {
                    true => 0,
                    false => model.table.prices(),
                };
                (model(*at).map(|model| (model.fit, Reverse(count(model)))), *at)
            };
            claiming.sort_by_key(rank);
            let mut owning: Vec<usize> = Vec::new();
            for at in claiming {
                let Some(claiming) = model(at) else { continue };
                // A pattern of the seller's own goes before a name of another one.
                let of_seller = patterns.get(&seller).into_iter().flatten();
                let covers = |(_, pattern): &&(usize, &str)| {
                    claiming.fit == Fit::Fallback && is_fit(pattern, name)
                };
                let overlaps =
                    |owner: &&usize| model(**owner).is_some_and(|owner| owner.overlaps(claiming));
                let earlier = owning.iter().find(overlaps).copied();
                match of_seller.clone().find(covers).map(|(owner, _)| *owner).or(earlier) {
                    Some(owner) => losers.push((owner, at)),
                    None => {
                        owning.push(at);
                        owners.insert((at, name.to_owned()));
                    }
                }
            }
        }
        losers.sort_unstable();
        for (owner, loser) in losers {
            let (Some(owner), Some(loser)) = (self.models.get(owner), self.models.get(loser))
            else {
                continue;
            };
            if owner.table != loser.table && loser.fit == Fit::Own {
                let listed = loser.listed.clone();
                let reason = format!("{} has the name, with other prices", owner.listed);
                self.leave_out_price("name", &reason, &listed);
            }
        }
        owners
    }

    /// The card.
    pub(super) fn finish(mut self, source: Source, edition: Edition) -> anyhow::Result<Imported> {
        for asked in &self.wanted.providers {
            let is_known = self.providers.contains(asked);
            ensure!(is_known, "--provider: the list has no provider {asked:?}");
        }
        let owners = self.owners();
        let mut rates = Vec::new();
        for (at, model) in self.models.into_iter().enumerate() {
            let Model { provider, names, effective: (from, to), when, table, .. } = model;
            let mut names = names.into_iter().filter(|name| owners.contains(&(at, name.clone())));
            let Some(model) = names.next() else { continue };
            rates.push(Entry {
                provider,
                model,
                aliases: names.collect(),
                effective_from: from,
                effective_to: to,
                when,
                table,
            });
        }
        let mut report = self.report;
        ensure!(!rates.is_empty(), "no model was mapped\n{report}");
        report.mapped = rates.len();
        let (source, date) = (source.name(), edition.date.to_string());
        let version = edition.version.unwrap_or_else(|| format!("{source} {date}"));
        let card = Card { version, source, date, currency: "USD", rates };
        card.to_rate_card().context("the filter would refuse the card")?;
        Ok(Imported { card, report })
    }
}

impl Model {
    /// Whether both are in force at some time under the same conditions.
    fn overlaps(&self, other: &Self) -> bool {
        let before = |end: &Option<String>, start: &Option<String>| matches!((end, start), (Some(end), Some(start)) if end <= start);
        let (from, to) = &self.effective;
        let (other_from, other_to) = &other.effective;
        self.when == other.when && !before(to, other_from) && !before(other_to, from)
    }
}
