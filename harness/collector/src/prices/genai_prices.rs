//! Reads the data.json of pydantic/genai-prices: US dollars for a million tokens, by provider and
//! model.
//!
//! Clauses match a model's name; `equals`, `starts_with`, `ends_with`, `contains` and `or` of these
//! are made names and patterns. Names there match in any case, in a card exactly.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::usage::TokenKind;
use anyhow::{Context, bail};
use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::prices::builder::{Builder, Fit, Model, ROUNDED, ours};
use crate::prices::card::{ContextTier, Rates, Table, Units, When};
use crate::prices::list::{Object, PLACES_MAX, count};

#[derive(Deserialize)]
struct Provider {
    id: String,
    models: Vec<Object>,
    /// Providers whose prices apply to models that this one has none of.
    #[serde(default)]
    fallback_model_providers: Option<Vec<String>>,
}

/// Prices that may apply only at some time, or to some requests.
struct Conditional {
    prices: Object,
    applies: Applies,
    /// The condition on a request; none in a model's own prices.
    when: BTreeMap<String, String>,
}

/// When prices apply.
enum Applies {
    Always,
    /// From this day on.
    From(String),
    /// In this part of each day, in UTC.
    Hours(String),
    /// By something that a card cannot say, and why.
    Otherwise(&'static str),
}

/// Why a card does not have prices with a condition that the import does not know.
const UNKNOWN: &str = "by a condition that a card cannot say";

/// The names of the members that are not null.
fn told(object: &Object) -> impl Iterator<Item = &str> {
    object.iter().filter(|(_, value)| value.get() != "null").map(|(name, _)| name)
}

impl Conditional {
    fn always(prices: Object) -> Self {
        Self { prices, applies: Applies::Always, when: BTreeMap::new() }
    }

    fn read(listed: &Object) -> anyhow::Result<Self> {
        let is_known = |name| matches!(name, "prices" | "constraint" | "when");
        let applies = match listed.read::<Object>("constraint")? {
            _ if !told(listed).all(is_known) => Applies::Otherwise(UNKNOWN),
            Some(constraint) => Applies::read(&constraint)?,
            None => Applies::Always,
        };
        let prices = listed.read("prices")?.context("expected `prices`, found none")?;
        Ok(Self { prices, applies, when: listed.read("when")?.unwrap_or_default() })
    }

    fn start(&self) -> Option<&str> {
        match &self.applies {
            Applies::From(day) => Some(day),
            Applies::Always | Applies::Hours(_) | Applies::Otherwise(_) => None,
        }
    }

    /// True if it applies from this day on; `None` is before all days.
    fn is_active(&self, day: Option<&str>) -> bool {
        self.start() <= day
    }
}

impl Applies {
    fn read(constraint: &Object) -> anyhow::Result<Self> {
        let text = |name| constraint.read::<String>(name);
        let names: BTreeSet<&str> = told(constraint).collect();
        Ok(match (names.into_iter().collect::<Vec<_>>().as_slice(), text("start_date")?) {
            (["start_date"], Some(day)) if day.parse::<NaiveDate>().is_ok() => Self::From(day),
            (["end_time", "start_time"], _) => {
                let (from, to) = (text("start_time")?, text("end_time")?);
                match (from.as_deref().and_then(minute), to.as_deref().and_then(minute)) {
                    (Some(from), Some(to)) => Self::Hours(format!("{from}-{to}")),
                    _ => Self::Otherwise("by another time of day than of UTC"),
                }
            }
            _ => Self::Otherwise(UNKNOWN),
        })
    }
}

/// A time of day in UTC such as `16:30:00Z`, as a card has it; `None` if it is not in whole minutes
/// of UTC.
fn minute(text: &str) -> Option<&str> {
    let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
    text.strip_suffix(":00")
}

pub(super) fn read(text: &str, builder: &mut Builder<'_>) -> anyhow::Result<()> {
    let list: Vec<Provider> = serde_json::from_str(text)?;
    for provider in &list {
        for model in &provider.models {
            let sellers = |builder: &mut Builder<'_>, listed: &str| {
                let ours = ours(&provider.id, |lists| lists.genai_prices);
                builder.sellers(&provider.id, listed, &ours)
            };
            read_model(&provider.id, model, Fit::Own, builder, sellers)?;
        }
    }
    for provider in &list {
        let own = ours(&provider.id, |lists| lists.genai_prices);
        for fallback in provider.fallback_model_providers.iter().flatten() {
            let Some(fallback) = list.iter().find(|other| other.id == *fallback) else {
                let what = format!("{}/*", provider.id);
                builder.leave_out(format!("prices of {fallback}, which the list lacks"), &what);
                continue;
            };
            for model in &fallback.models {
                let sellers = |builder: &mut Builder<'_>, _: &str| {
                    builder.wanted_fallbacks(&provider.id, &own)
                };
                read_model(&fallback.id, model, Fit::Fallback, builder, sellers)?;
            }
        }
    }
    Ok(())
}

fn read_model(
    provider: &str,
    model: &Object,
    fit: Fit,
    builder: &mut Builder<'_>,
    sellers: impl Fn(&mut Builder<'_>, &str) -> Vec<Seller>,
) -> anyhow::Result<()> {
    let id: String =
        model.read("id")?.with_context(|| format!("{provider}: a model without `id`"))?;
    let listed = format!("{provider}/{id}");
    let sellers = sellers(builder, &listed);
    if sellers.is_empty() {
        return Ok(());
    }
    read_listed(&listed, &id, &sellers, model, fit, builder).context(listed)
}

fn read_listed(
    listed: &str,
    id: &str,
    sellers: &[Seller],
    model: &Object,
    fit: Fit,
    builder: &mut Builder<'_>,
) -> anyhow::Result<()> {
    let mut names = Vec::new();
    let clause = model.read::<Object>("match")?.context("expected `match`, found none")?;
    let is_complete = read_match(&clause, listed, &mut names, builder).context("match")?;
    if !is_complete && !names.iter().any(|name| name == id) {
        names.push(id.to_owned());
    }
    // The best name is the model's own, then any that is exact.
    names.sort_by_key(|name| (name != id, name.contains('*')));
    if names.is_empty() {
        builder.leave_out("matched by no name or pattern", listed);
        return Ok(());
    }
    let prices = model.get("prices").context("expected `prices`, found none")?;
    let mut prices: Vec<Conditional> = if prices.get().starts_with('[') {
        let prices: Vec<Object> = serde_json::from_str(prices.get()).context("prices")?;
        let prices = prices.iter().map(Conditional::read);
        prices.collect::<anyhow::Result<_>>().context("prices")?
    } else {
        vec![Conditional::always(serde_json::from_str(prices.get()).context("prices")?)]
    };
    let before = prices.len();
    prices.retain(|prices| {
        let reason = match prices.applies {
            Applies::Otherwise(reason) => reason,
            _ if !prices.when.is_empty() => UNKNOWN,
            _ => return true,
        };
        builder.leave_out_price("prices", reason, listed);
        false
    });
    let last = prices.iter().rposition(|prices| matches!(prices.applies, Applies::Always));
    if prices.len() < before && last.is_none() {
        // What is left does not say what holds at other times.
        builder.leave_out("no price that always applies", listed);
        return Ok(());
    }
    // The last that applies counts, so a price of all hours hides those before it.
    let timed = prices.iter().skip(last.unwrap_or(0));
    let timed: Vec<(&str, &Object)> = timed
        .filter_map(|prices| match &prices.applies {
            Applies::Hours(hours) => Some((hours.as_str(), &prices.prices)),
            Applies::Always | Applies::From(_) | Applies::Otherwise(_) => None,
        })
        .collect();
    let untimed: Vec<&Conditional> =
        prices.iter().filter(|prices| !matches!(prices.applies, Applies::Hours(_))).collect();
    let variants: Vec<Object> = model.read("price_variants")?.unwrap_or_default();
    let variants = variants.iter().map(Conditional::read);
    let variants = variants.collect::<anyhow::Result<Vec<_>>>().context("price_variants")?;
    let mut tiers = service_tiers(&variants, listed, builder);
    if fit == Fit::Fallback && !tiers.is_empty() {
        // Nor does the list's own calculator take them.
        builder.leave_out_price(
            "price_variants",
            "of the seller that another falls back to",
            listed,
        );
        tiers.clear();
    }
    let all = untimed.iter().copied().chain(tiers.values().flatten().copied());
    let mut starts: BTreeSet<Option<&str>> = all.map(Conditional::start).collect();
    starts.insert(None);
    let mut periods: Vec<(Option<&str>, Table)> = Vec::new();
    for start in starts {
        let standard = untimed.iter().rfind(|prices| prices.is_active(start));
        let standard = standard.copied().or(untimed.first().copied()).or(prices.first());
        let standard = standard.context("prices: expected one, found none")?;
        let mut table = read_prices(&[&standard.prices], listed, builder)?;
        for (tier, variants) in &tiers {
            let active: Vec<&Object> = variants
                .iter()
                .filter(|variant| variant.is_active(start))
                .map(|variant| &variant.prices)
                .collect();
            let own = read_prices(&active, listed, builder)?;
            table.service_tiers.insert(tier, own);
        }
        if periods.last().is_none_or(|(_, last)| *last != table) {
            periods.push((start, table));
        }
    }
    let mut by_hour: Vec<(When, Table)> = Vec::new();
    for (hours_utc, prices) in timed {
        let when = When { hours_utc: Some(hours_utc.to_owned()), ..When::default() };
        by_hour.push((when, read_prices(&[prices], listed, builder)?));
    }
    for (at, (start, table)) in periods.iter().enumerate() {
        let end = periods.get(at + 1).and_then(|(start, _)| *start);
        // Of patterns, a card takes the first that applies.
        let always = [(When::default(), table.clone())];
        for (when, mut table_then) in by_hour.iter().cloned().chain(always) {
            table_then.service_tiers.clone_from(&table.service_tiers);
            for provider in sellers {
                builder.push(Model {
                    listed: listed.to_owned(),
                    provider: *provider,
                    names: names.clone(),
                    effective: (start.map(str::to_owned), end.map(str::to_owned)),
                    when: when.clone(),
                    table: table_then.clone(),
                    fit,
                });
            }
        }
    }
    Ok(())
}

/// Turns clauses into names and patterns; `false` if some clause is neither.
fn read_match(
    clause: &Object,
    listed: &str,
    names: &mut Vec<String>,
    builder: &mut Builder<'_>,
) -> anyhow::Result<bool> {
    let mut is_complete = true;
    for (kind, value) in clause.iter() {
        let text = || serde_json::from_str::<String>(value.get());
        match kind {
            "or" => {
                let clauses: Vec<Object> = serde_json::from_str(value.get())?;
                for clause in &clauses {
                    is_complete &= read_match(clause, listed, names, builder)?;
                }
            }
            "equals" => names.push(text()?),
            "starts_with" => names.push(format!("{}*", text()?)),
            "ends_with" => names.push(format!("*{}", text()?)),
            "contains" => names.push(format!("*{}*", text()?)),
            "regex" | "and" => {
                let reason = "no pattern of a card; what only it matches has no rate";
                builder.leave_out_price(&format!("match by `{kind}`"), reason, listed);
                is_complete = false;
            }
            _ => bail!("expected a clause such as `equals`, found {kind:?}"),
        }
    }
    Ok(is_complete)
}

/// The variants that are a service tier of a card.
fn service_tiers<'a>(
    variants: &'a [Conditional],
    listed: &str,
    builder: &mut Builder<'_>,
) -> BTreeMap<&'static str, Vec<&'a Conditional>> {
    let mut tiers: BTreeMap<&'static str, Vec<&Conditional>> = BTreeMap::new();
    let when = |variant: &Conditional| {
        let when: Vec<String> =
            variant.when.iter().map(|(name, value)| format!("{name}={value}")).collect();
        when.join(", ")
    };
    for variant in variants {
        let when = when(variant);
        let tier = match when.as_str() {
            "processing=batch" => "batch",
            "service_tier=flex" => "flex",
            "service_tier=priority" => "priority",
            // The variant repeats the standard prices.
            _ if variant.prices.iter().next().is_none() => continue,
            _ => {
                builder.leave_out_price(&when, "no service tier of a card", listed);
                continue;
            }
        };
        match variant.applies {
            Applies::Always | Applies::From(_) => tiers.entry(tier).or_default().push(variant),
            Applies::Hours(_) => builder.leave_out_price(&when, "by the time of day", listed),
            Applies::Otherwise(reason) => builder.leave_out_price(&when, reason, listed),
        }
    }
    tiers
}

/// One price and its thresholds, in ascending order.
struct Tiered {
    base: Decimal,
    tiers: Vec<(u64, Decimal)>,
}

/// Prices of units: the unit, and of how many of it the price is, as a power of 10.
const UNITS: [(&str, &str, u32); 8] = [
    ("requests_kcount", "requests", 3),
    ("web_searches_kcount", "web_searches", 3),
    ("storage_searches_kcount", "file_searches", 3),
    ("rerank_searches_kcount", "search_units", 3),
    ("input_document_kpages", PAGES, 3),
    ("input_annotated_document_kpages", ANNOTATED_PAGES, 3),
    ("input_mchars", "input_characters", 6),
    ("output_citation_mtok", "citation_tokens", 6),
];

const PAGES: &str = "pages";

/// The list counts them among the pages, a card beside them.
const ANNOTATED_PAGES: &str = "annotated_pages";

/// Prices of an hour of audio.
const HOURS: [(&str, &[&str]); 3] = [
    ("input_audio_hours", &["input_audio_seconds"]),
    ("output_audio_hours", &["output_audio_seconds"]),
    ("audio_hours", &["input_audio_seconds", "output_audio_seconds"]),
];

const SECONDS_OF_AN_HOUR: Decimal = Decimal::from_parts(3600, 0, 0, false, 0);

/// Reads the price of a unit; `false` if the member is none.
fn read_unit(
    units: &mut Units,
    name: &str,
    value: &RawValue,
    listed: &str,
    builder: &mut Builder<'_>,
) -> anyhow::Result<bool> {
    if let Some((_, unit, power)) = UNITS.iter().find(|(theirs, ..)| *theirs == name) {
        if let Some(rate) = builder.price_of_one(listed, name, value, *power)? {
            units.entry((*unit).to_owned()).or_insert(rate);
        }
        return Ok(true);
    }
    let Some((_, of_hours)) = HOURS.iter().find(|(theirs, _)| *theirs == name) else {
        return Ok(false);
    };
    if let Some(rate) = builder.price_of_one(listed, name, value, 0)? {
        let exact = rate / SECONDS_OF_AN_HOUR;
        let rounded = exact.round_dp(PLACES_MAX).normalize();
        if rounded != exact {
            builder.leave_out_price(name, ROUNDED, listed);
        }
        for unit in *of_hours {
            units.entry((*unit).to_owned()).or_insert(rounded);
        }
    }
    Ok(true)
}

/// Reads prices; the first that names a kind counts.
fn read_prices(
    prices: &[&Object],
    listed: &str,
    builder: &mut Builder<'_>,
) -> anyhow::Result<Table> {
    let mut kinds: BTreeMap<TokenKind, Tiered> = BTreeMap::new();
    let mut units = Units::new();
    for (name, value) in prices.iter().flat_map(|prices| prices.iter()) {
        if value.get() == "null" {
            continue;
        }
        if !value.get().starts_with('{') && read_unit(&mut units, name, value, listed, builder)? {
            continue;
        }
        let kind = match name {
            "input_mtok" => TokenKind::Input,
            "output_mtok" => TokenKind::Output,
            "output_reasoning_mtok" => TokenKind::Reasoning,
            "cache_read_mtok" => TokenKind::CacheRead,
            // Of all writes; those for an hour may have a price of their own.
            "cache_write_mtok" | "cache_write_5m_mtok" => TokenKind::CacheWrite5m,
            "cache_write_1h_mtok" => TokenKind::CacheWrite1h,
            "input_audio_mtok" => TokenKind::InputAudio,
            "cache_audio_read_mtok" => TokenKind::CacheReadAudio,
            "output_audio_mtok" => TokenKind::OutputAudio,
            "input_image_mtok" => TokenKind::InputImage,
            "cache_image_read_mtok" => TokenKind::CacheReadImage,
            "input_video_mtok" => TokenKind::InputVideo,
            "output_image_mtok" => TokenKind::OutputImage,
            "output_video_mtok" => TokenKind::OutputVideo,
            _ => {
                let is_tokens = name.ends_with("_mtok");
                let reason =
                    if is_tokens { "no kind of tokens in a card" } else { "no unit of a card" };
                builder.leave_out_price(name, reason, listed);
                continue;
            }
        };
        let tiered = read_price(value, name, listed, builder)?;
        kinds.entry(kind).or_insert(tiered);
    }
    if let Some(pages) = units.get(PAGES).copied()
        && let Some(annotated) = units.get_mut(ANNOTATED_PAGES)
    {
        *annotated = annotated.saturating_sub(pages).max(Decimal::ZERO);
    }
    let rates = kinds.iter().map(|(kind, price)| (*kind, price.base)).collect();
    let thresholds: BTreeSet<u64> =
        kinds.values().flat_map(|price| &price.tiers).map(|(above, _)| *above).collect();
    let at = |above: u64| -> Rates {
        let tiered = kinds.iter().filter(|(_, price)| !price.tiers.is_empty());
        let rate = |price: &Tiered| {
            let tier = price.tiers.iter().rfind(|(start, _)| *start <= above);
            tier.map_or(price.base, |(_, rate)| *rate)
        };
        tiered.map(|(kind, price)| (*kind, rate(price))).collect()
    };
    let context_tiers = thresholds
        .into_iter()
        .map(|above| ContextTier { above_input_tokens: above, rates: at(above) })
        .collect();
    Ok(Table { rates, units, context_tiers, ..Table::default() })
}

fn read_price(
    value: &RawValue,
    name: &str,
    listed: &str,
    builder: &mut Builder<'_>,
) -> anyhow::Result<Tiered> {
    let mut one = |value: &RawValue, place: &str| {
        let member = format!("{name}{place}");
        let price = builder.price_of_million(listed, &member, value, 6)?;
        price.with_context(|| format!("{member}: expected a price, found null"))
    };
    if !value.get().starts_with('{') {
        return Ok(Tiered { base: one(value, "")?, tiers: Vec::new() });
    }
    let object: Object = serde_json::from_str(value.get())?;
    let missing = |what: &str| format!("{name}: expected `{what}`, found none");
    let base = one(object.get("base").with_context(|| missing("base"))?, ".base")?;
    let mut tiers = Vec::new();
    for tier in object.read::<Vec<Object>>("tiers")?.unwrap_or_default() {
        let start = count(tier.get("start").with_context(|| missing("start"))?)?;
        tiers.push((start, one(tier.get("price").with_context(|| missing("price"))?, ".tiers")?));
    }
    tiers.sort_by_key(|(start, _)| *start);
    Ok(Tiered { base, tiers })
}
