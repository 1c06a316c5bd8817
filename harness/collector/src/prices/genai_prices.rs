//! Reads the data.json of pydantic/genai-prices: US dollars for a million tokens, by provider and
//! model.
//!
//! Clauses match a model's name; `equals`, `starts_with`, `ends_with`, `contains` and `or` of these
//! are made names and patterns. Names there match in any case, in a card exactly.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::usage::TokenKind;
use anyhow::{Context, bail};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::prices::list::{Object, Price, count, price};
use crate::prices::{Builder, ContextTier, Model, Rates, Table, ours};

#[derive(Deserialize)]
struct Provider {
    id: String,
    models: Vec<Object>,
}

/// Prices that apply from a day on, or for a part of the day.
#[derive(Deserialize)]
struct Conditional {
    prices: Object,
    constraint: Option<Constraint>,
    /// The condition on a request; none in a model's own prices.
    #[serde(default)]
    when: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Constraint {
    start_date: Option<String>,
}

impl Conditional {
    fn is_by_time_of_day(&self) -> bool {
        self.constraint.as_ref().is_some_and(|constraint| constraint.start_date.is_none())
    }

    fn start(&self) -> Option<&str> {
        self.constraint.as_ref().and_then(|constraint| constraint.start_date.as_deref())
    }

    /// True if it applies from this day on; `None` is before all days.
    fn is_active(&self, day: Option<&str>) -> bool {
        self.start() <= day
    }
}

pub(super) fn read(text: &str, builder: &mut Builder<'_>) -> anyhow::Result<()> {
    let list: Vec<Provider> = serde_json::from_str(text)?;
    for provider in &list {
        for model in &provider.models {
            let id: String = model
                .read("id")?
                .with_context(|| format!("{}: a model without `id`", provider.id))?;
            let listed = format!("{}/{id}", provider.id);
            let providers =
                builder.providers(&provider.id, &ours(&provider.id, |lists| lists.genai_prices));
            if !providers.is_empty() {
                read_model(&listed, &id, &providers, model, builder).context(listed)?;
            }
        }
    }
    Ok(())
}

fn read_model(
    listed: &str,
    id: &str,
    providers: &[Seller],
    model: &Object,
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
    let prices: Vec<Conditional> = if prices.get().starts_with('[') {
        serde_json::from_str(prices.get()).context("prices")?
    } else {
        let prices = serde_json::from_str(prices.get()).context("prices")?;
        vec![Conditional { prices, constraint: None, when: BTreeMap::new() }]
    };
    if prices.iter().any(Conditional::is_by_time_of_day) {
        builder.leave_out("prices by the time of day", listed);
        return Ok(());
    }
    let variants: Vec<Conditional> = model.read("price_variants")?.unwrap_or_default();
    let tiers = service_tiers(&variants, listed, builder);
    let all = prices.iter().chain(tiers.values().flatten().copied());
    let mut starts: BTreeSet<Option<&str>> = all.map(Conditional::start).collect();
    starts.insert(None);
    let mut periods: Vec<(Option<&str>, Table)> = Vec::new();
    for start in starts {
        let standard = prices.iter().rfind(|prices| prices.is_active(start)).or(prices.first());
        let standard = standard.context("prices: expected one, found none")?;
        let Some(mut table) = read_prices(&[&standard.prices], listed, builder)? else {
            return Ok(());
        };
        for (tier, variants) in &tiers {
            let active: Vec<&Object> = variants
                .iter()
                .filter(|variant| variant.is_active(start))
                .map(|variant| &variant.prices)
                .collect();
            let Some(own) = read_prices(&active, listed, builder)? else { return Ok(()) };
            table.service_tiers.insert(tier, own);
        }
        if periods.last().is_none_or(|(_, last)| *last != table) {
            periods.push((start, table));
        }
    }
    for (at, (start, table)) in periods.iter().enumerate() {
        let end = periods.get(at + 1).and_then(|(start, _)| *start);
        for provider in providers {
            builder.push(Model {
                listed,
                provider: *provider,
                names: names.clone(),
                effective: (start.map(str::to_owned), end.map(str::to_owned)),
                table: table.clone(),
            });
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
        if variant.is_by_time_of_day() {
            builder.leave_out_price(&when, "by the time of day", listed);
            continue;
        }
        tiers.entry(tier).or_default().push(variant);
    }
    tiers
}

/// One price and its thresholds, in ascending order.
struct Tiered {
    base: Decimal,
    tiers: Vec<(u64, Decimal)>,
}

/// Reads prices; the first that names a kind counts. `None` if the model is left out.
fn read_prices(
    prices: &[&Object],
    listed: &str,
    builder: &mut Builder<'_>,
) -> anyhow::Result<Option<Table>> {
    let mut kinds: BTreeMap<TokenKind, Tiered> = BTreeMap::new();
    for (name, value) in prices.iter().flat_map(|prices| prices.iter()) {
        if value.get() == "null" {
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
            "output_image_mtok" => TokenKind::OutputImage,
            _ => {
                let is_tokens = name.ends_with("_mtok");
                let reason =
                    if is_tokens { "no kind of tokens in a card" } else { "not for tokens" };
                builder.leave_out_price(name, reason, listed);
                continue;
            }
        };
        let Some(tiered) = read_price(value).with_context(|| name.to_owned())? else {
            builder.leave_out("a price of more than 12 places", listed);
            return Ok(None);
        };
        kinds.entry(kind).or_insert(tiered);
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
    Ok(Some(Table { rates, context_tiers, ..Table::default() }))
}

/// `None` if it has too many places.
fn read_price(value: &RawValue) -> anyhow::Result<Option<Tiered>> {
    let one = |value: &RawValue| match price(value, 6)? {
        Some(Price::PerMillion(rate)) => Ok(Some(rate)),
        Some(Price::TooManyPlaces) => Ok(None),
        None => bail!("expected a price, found null"),
    };
    if !value.get().starts_with('{') {
        return Ok(one(value)?.map(|base| Tiered { base, tiers: Vec::new() }));
    }
    let object: Object = serde_json::from_str(value.get())?;
    let base = object.get("base").context("expected `base`, found none")?;
    let Some(base) = one(base).context("base")? else { return Ok(None) };
    let mut tiers = Vec::new();
    for tier in object.read::<Vec<Object>>("tiers")?.unwrap_or_default() {
        let start = count(tier.get("start").context("tiers: expected `start`, found none")?)?;
        let price = tier.get("price").context("tiers: expected `price`, found none")?;
        let Some(price) = one(price).context("tiers")? else { return Ok(None) };
        tiers.push((start, price));
    }
    tiers.sort_by_key(|(start, _)| *start);
    Ok(Some(Tiered { base, tiers }))
}
