//! `agent-meter prices import`: makes a rate card of a public price list, digit for digit.
//!
//! It reads prices as text and keeps them decimal: no price passes through a float. It leaves out
//! what a card cannot express, and reports it, so that nobody pays a price that the list does not
//! name.

mod genai_prices;
mod list;
mod litellm;
mod models_dev;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use agent_meter_core::base::pattern::is_fit;
use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::usage::TokenKind;
use agent_meter_core::pricing::RateCard;
use agent_meter_core::protocol::llm::PriceLists;
use agent_meter_core::protocol::llm::provider::{Family, price_lists};
use anyhow::{Context, anyhow, ensure};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

/// The public price lists that are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// LiteLLM's model_prices_and_context_window.json.
    Litellm,
    /// The api.json of models.dev.
    ModelsDev,
    /// The data.json of pydantic/genai-prices.
    GenaiPrices,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Litellm, Self::ModelsDev, Self::GenaiPrices];

    /// The name in commands and versions, such as `models.dev`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Litellm => "litellm",
            Self::ModelsDev => "models.dev",
            Self::GenaiPrices => "genai-prices",
        }
    }

    /// The file that the list is published as.
    pub const fn file(self) -> &'static str {
        match self {
            Self::Litellm => "LiteLLM's model_prices_and_context_window.json",
            Self::ModelsDev => "The api.json of models.dev",
            Self::GenaiPrices => "The data.json of pydantic/genai-prices",
        }
    }

    /// The version of a card that has no better one.
    pub fn version_today(self) -> String {
        format!("{} {}", self.name(), chrono::Utc::now().format("%Y-%m-%d"))
    }
}

/// Which part of a list is wanted; empty is all.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names of ours, or of the list.
    pub providers: Vec<String>,
    /// Names of models, or patterns in which `*` matches any text.
    pub models: Vec<String>,
}

/// A rate card, as it is written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Card {
    version: String,
    currency: &'static str,
    rates: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct Entry {
    provider: Seller,
    model: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aliases: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    effective_to: Option<String>,
    #[serde(flatten)]
    table: Table,
}

type Rates = BTreeMap<TokenKind, Decimal>;

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Table {
    #[serde(flatten)]
    rates: Rates,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    context_tiers: Vec<ContextTier>,
    /// By name; empty in a service tier's own table.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    service_tiers: BTreeMap<&'static str, Table>,
    /// Factors of all rates, by modifier and word; empty in a service tier's own table.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    multipliers: BTreeMap<&'static str, BTreeMap<&'static str, Decimal>>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
struct ContextTier {
    above_input_tokens: u64,
    #[serde(flatten)]
    rates: Rates,
}

/// What an import made, and what it left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    /// The rate card; the filter's own reader takes it.
    pub card: Card,
    /// The parts of the list that the card leaves out.
    pub report: Report,
}

/// What was mapped and what was not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Entries of the card.
    pub mapped: usize,
    /// Models that were not asked for.
    pub not_asked_for: usize,
    /// Models that are not in the card, by reason.
    pub models: BTreeMap<String, Vec<String>>,
    /// Prices of models that are in the card, by the price's name and reason.
    pub prices: BTreeMap<String, Vec<String>>,
}

/// Reads a price list from a file.
///
/// # Errors
///
/// Names the file and the place of what could not be read.
pub fn import(
    source: Source,
    file: &Path,
    wanted: &Wanted,
    version: String,
) -> anyhow::Result<Imported> {
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", name()))?;
    import_text(source, &text, wanted, version).with_context(name)
}

/// Reads a price list.
///
/// # Errors
///
/// Names the place of what could not be read.
pub fn import_text(
    source: Source,
    text: &str,
    wanted: &Wanted,
    version: String,
) -> anyhow::Result<Imported> {
    let mut builder = Builder::new(wanted);
    match source {
        Source::Litellm => litellm::read(text, &mut builder),
        Source::ModelsDev => models_dev::read(text, &mut builder),
        Source::GenaiPrices => genai_prices::read(text, &mut builder),
    }
    .with_context(|| format!("expected a list of {}", source.name()))?;
    builder.finish(version)
}

impl Card {
    /// The card in the form of the plugin's configuration.
    ///
    /// # Errors
    ///
    /// Names the place that the filter would refuse.
    pub fn to_rate_card(&self) -> anyhow::Result<RateCard> {
        let card = RateCard::deserialize(serde_json::to_value(self)?)?;
        card.validate("").map_err(|refused| anyhow!("{refused}"))?;
        Ok(card)
    }

    /// The file's text: JSON if its name ends so, else YAML.
    ///
    /// # Errors
    ///
    /// If `out` ends in neither `.json`, `.yaml` nor `.yml`.
    pub fn to_text(&self, out: Option<&Path>) -> anyhow::Result<String> {
        let extension = out.map(|out| out.extension().unwrap_or_default().to_string_lossy());
        match extension.as_deref() {
            None | Some("yaml" | "yml") => Ok(serde_yaml_ng::to_string(self)?),
            Some("json") => Ok(serde_json::to_string_pretty(self)? + "\n"),
            Some(_) => Err(anyhow!("--out: expected a name that ends in .yaml or .json")),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rates", self.mapped)?;
        if self.not_asked_for > 0 {
            write!(f, "; {} models not asked for", self.not_asked_for)?;
        }
        for (what, left_out) in [("models", &self.models), ("prices", &self.prices)] {
            if !left_out.is_empty() {
                let count: usize = left_out.values().map(Vec::len).sum();
                write!(f, "\n{count} {what} left out:")?;
            }
            let mut by_count: Vec<_> = left_out.iter().collect();
            by_count.sort_by_key(|(_, names)| std::cmp::Reverse(names.len()));
            for (reason, names) in by_count {
                let mut distinct: Vec<&str> = names.iter().map(String::as_str).collect();
                distinct.dedup();
                let more = if distinct.len() > 3 { ", ..." } else { "" };
                distinct.truncate(3);
                let examples = distinct;
                write!(f, "\n{:>6} {reason} ({}{more})", names.len(), examples.join(", "))?;
            }
        }
        Ok(())
    }
}

const OF_ANOTHER: &str =
    "of a provider that the filter does not know by name: `--provider NAME` takes it";

/// Collects the entries of a card while a list is read.
struct Builder<'a> {
    wanted: &'a Wanted,
    entries: Vec<Entry>,
    /// The entries that have a name.
    named: BTreeMap<(Seller, String), Vec<usize>>,
    /// Every provider that the list names.
    providers: BTreeSet<String>,
    report: Report,
}

/// A model of a list, before it is known which of its names are still free.
struct Model<'a> {
    /// As the list has it, for the report.
    listed: &'a str,
    provider: Seller,
    /// On the wire; the first is the best.
    names: Vec<String>,
    /// First day, and first day after; in days of UTC.
    effective: (Option<String>, Option<String>),
    table: Table,
}

/// The providers that a list of this kind calls so.
fn ours(listed: &str, names: impl Fn(PriceLists) -> &'static [&'static str]) -> Vec<Seller> {
    let is_called_so =
        |lists: PriceLists| names(lists).iter().any(|pattern| is_fit(pattern, listed));
    price_lists().filter(|(_, lists)| is_called_so(*lists)).map(|(seller, _)| seller).collect()
}

impl<'a> Builder<'a> {
    fn new(wanted: &'a Wanted) -> Self {
        Self {
            wanted,
            entries: Vec::new(),
            named: BTreeMap::new(),
            providers: BTreeSet::new(),
            report: Report::default(),
        }
    }

    /// The providers under which a model of the list's provider is wanted; counts the model if
    /// there are none. One that the filter does not know by name is taken under the list's name if
    /// it is asked for by that, as `openai_compatible` if it is asked for by this.
    fn providers(&mut self, listed: &str, ours: &[Seller]) -> Vec<Seller> {
        let asked = &self.wanted.providers;
        let compatible = Family::OpenAiCompatible.seller();
        self.providers.insert(listed.to_owned());
        self.providers.extend(ours.iter().map(|ours| ours.name().to_owned()));
        if ours.is_empty() {
            self.providers.insert(compatible.name().to_owned());
        }
        if asked.is_empty() {
            if ours.is_empty() {
                self.leave_out(OF_ANOTHER, listed);
            }
            return ours.to_owned();
        }
        let is_asked = |name: &str| asked.iter().any(|asked| asked == name);
        let found: Vec<Seller> = if ours.is_empty() {
            let by_its_name =
                || is_asked(listed).then(|| Seller::new(listed).unwrap_or(compatible));
            let found = is_asked(compatible.name()).then_some(compatible).or_else(by_its_name);
            found.into_iter().collect()
        } else {
            let found = ours.iter().filter(|ours| is_asked(listed) || is_asked(ours.name()));
            found.copied().collect()
        };
        if found.is_empty() {
            self.report.not_asked_for += 1;
        }
        found
    }

    fn leave_out(&mut self, reason: impl Into<String>, model: &str) {
        self.report.models.entry(reason.into()).or_default().push(model.to_owned());
    }

    fn leave_out_price(&mut self, price: &str, reason: &str, model: &str) {
        let names = self.report.prices.entry(format!("{price}: {reason}")).or_default();
        if names.last().is_none_or(|last| last != model) {
            names.push(model.to_owned());
        }
    }

    /// Takes a model under those of its names that no earlier one has at the same time.
    fn push(&mut self, model: Model<'_>) {
        let Model { listed, provider, mut names, effective: (from, to), mut table } = model;
        let models = &self.wanted.models;
        let is_wanted = |name: &String| models.iter().any(|pattern| is_fit(pattern, name));
        if !models.is_empty() && !names.iter().any(is_wanted) {
            self.report.not_asked_for += 1;
            return;
        }
        table.tidy();
        if table.rates.is_empty() {
            self.leave_out("no token price", listed);
            return;
        }
        let mut seen = BTreeSet::new();
        names.retain(|name| !name.is_empty() && seen.insert(name.clone()));
        let mut is_other_price = false;
        let entries = &self.entries;
        names.retain(|name| {
            let same = self.named.get(&(provider, name.clone()));
            let same = same.into_iter().flatten().filter_map(|at| entries.get(*at));
            let mut same = same.filter(|entry| {
                let before = |end: &Option<String>, start: &Option<String>| {
                    matches!((end, start), (Some(end), Some(start)) if end <= start)
                };
                !before(&entry.effective_to, &from) && !before(&to, &entry.effective_from)
            });
            let earlier = same.next();
            is_other_price |= earlier.is_some_and(|earlier| earlier.table != table);
            earlier.is_none()
        });
        if is_other_price {
            self.leave_out("an earlier model has the name at another price", listed);
        }
        let mut names = names.into_iter();
        let Some(model) = names.next() else { return };
        let entry = Entry {
            provider,
            model,
            aliases: names.collect(),
            effective_from: from,
            effective_to: to,
            table,
        };
        for name in std::iter::once(&entry.model).chain(&entry.aliases) {
            self.named.entry((provider, name.clone())).or_default().push(self.entries.len());
        }
        self.entries.push(entry);
    }

    fn finish(mut self, version: String) -> anyhow::Result<Imported> {
        for asked in &self.wanted.providers {
            let is_known = self.providers.contains(asked);
            ensure!(is_known, "--provider: the list has no provider {asked:?}");
        }
        ensure!(!self.entries.is_empty(), "no model was mapped\n{}", self.report);
        self.report.mapped = self.entries.len();
        let card = Card { version, currency: "USD", rates: self.entries };
        card.to_rate_card().context("the filter would refuse the card")?;
        Ok(Imported { card, report: self.report })
    }
}

impl Table {
    /// Takes out what says nothing.
    fn tidy(&mut self) {
        self.context_tiers.retain(|tier| !tier.rates.is_empty());
        for table in self.service_tiers.values_mut() {
            table.tidy();
            if table.rates.is_empty() && !table.context_tiers.is_empty() {
                table.rates.clone_from(&self.rates);
            }
        }
        self.service_tiers.retain(|_, table| !table.rates.is_empty());
    }
}
