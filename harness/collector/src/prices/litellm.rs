//! Reads LiteLLM's model_prices_and_context_window.json as its `generic_cost_per_token` of 1.109
//! does: US dollars for one token, by model.
//!
//! A kind without a price of its own costs its whole's price, as in a card. The card writes out
//! what LiteLLM finds by other fallbacks: a context tier keeps what a lower one names, the service
//! tiers `flex` and `priority` take the standard context tiers where they have none, and reasoning
//! in a service tier costs that tier's output. The card has no price that is in LiteLLM's code and
//! not in the list, such as half of the input's for what Fireworks reads from its cache.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter_core::domain::usage::TokenKind;
use agent_meter_core::protocol::llm::provider::{Family, price_lists};
use anyhow::Context;
use serde_json::value::RawValue;

use crate::prices::list::{Object, Price, count, price, read as read_value};
use crate::prices::{Builder, ContextTier, Model, Rates, Table, ours};

pub(super) fn read(text: &str, builder: &mut Builder<'_>) -> anyhow::Result<()> {
    let list: Object = serde_json::from_str(text)?;
    // The plain name of a model goes before its name at a deployment of Azure.
    let (last, first): (Vec<_>, Vec<_>) =
        list.iter().partition(|(name, _)| name.starts_with("azure/global"));
    for (name, model) in first.into_iter().chain(last) {
        // Explains the members.
        if name == "sample_spec" {
            continue;
        }
        let model: Object = serde_json::from_str(model.get()).with_context(|| name.to_owned())?;
        read_model(name, &model, builder).with_context(|| name.to_owned())?;
    }
    Ok(())
}

fn read_model(name: &str, model: &Object, builder: &mut Builder<'_>) -> anyhow::Result<()> {
    let provider = match model.get("litellm_provider") {
        Some(provider) => read_value::<String>(provider).context("litellm_provider")?,
        None => None,
    };
    let Some(provider) = provider else {
        builder.leave_out("no provider", name);
        return Ok(());
    };
    let listed = ours(&provider, |lists| lists.litellm);
    let ours = listed.first().copied();
    let providers = builder.providers(&provider, &listed);
    if providers.is_empty() {
        return Ok(());
    }
    let own_prefix = format!("{provider}/");
    let lists = price_lists().find(|(seller, _)| Some(*seller) == ours);
    let prefix = lists.map_or(own_prefix.as_str(), |(_, lists)| lists.litellm_prefix);
    let family = ours.and_then(|seller| Family::named(seller.name()));
    let names = match names(name, prefix, family) {
        Ok(names) => names,
        Err(reason) => {
            builder.leave_out(reason, name);
            return Ok(());
        }
    };
    let Some(mut prices) = Prices::read(name, model, builder)? else { return Ok(()) };
    if provider == "xai" {
        // Its context tiers begin at the threshold and not above it.
        prices.begin_earlier();
    }
    let mut table = prices.table();
    read_multipliers(name, model, &mut table, builder).context("provider_specific_entry")?;
    for provider in providers {
        builder.push(Model {
            listed: name,
            provider,
            names: names.clone(),
            effective: (None, None),
            table: table.clone(),
        });
    }
    Ok(())
}

/// The model's names on the wire.
fn names(name: &str, prefix: &str, family: Option<Family>) -> Result<Vec<String>, &'static str> {
    const ONE_REGION: &str = "a price of one region, which is not in the model's name";
    let name = name.strip_prefix(prefix).unwrap_or(name);
    if name.contains('*') {
        return Err("no model's name");
    }
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let name = match family {
        Some(Family::AzureOpenAi) if matches!(first, "eu" | "us") => return Err(ONE_REGION),
        Some(Family::AzureOpenAi) if matches!(first, "global" | "global-standard") => rest,
        Some(Family::Bedrock) if is_region(first) => return Err(ONE_REGION),
        Some(Family::Bedrock) if first == "invoke" => rest,
        Some(Family::Bedrock) if !first.is_empty() => return Err("no model's name"),
        _ => name,
    };
    let mut names = vec![name.to_owned()];
    if family == Some(Family::OpenAi) && name.starts_with("ft:") {
        // On the wire the customer's own name follows.
        names.push(format!("{name}:*"));
    }
    Ok(names)
}

/// True if it is like `us-gov-west-1`.
fn is_region(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let number = parts.last().is_some_and(|last| last.parse::<u8>().is_ok());
    parts.len() >= 3 && number && parts[0].len() == 2
}

/// What names of prices end with, and the service tiers that it means.
const TIERS: [(&str, &str); 4] = [
    ("_batches", "batch"),
    ("_flex", "flex"),
    ("_priority", "priority"),
    ("_ultrafast", "ultrafast"),
];

/// The factors of a model's prices that the list has by its own words, and the modifiers that they
/// are.
const MULTIPLIERS: [(&str, &str, &str); 2] =
    [("us", "inference_geo", "us"), ("fast", "speed", "fast")];

/// Reads the factors of a model's prices.
fn read_multipliers(
    listed: &str,
    model: &Object,
    table: &mut Table,
    builder: &mut Builder<'_>,
) -> anyhow::Result<()> {
    for (name, value) in model.read::<Object>("provider_specific_entry")?.unwrap_or_default().iter()
    {
        let known = MULTIPLIERS.iter().find(|(theirs, ..)| *theirs == name);
        match (known, price(value, 6).context(name.to_owned())?) {
            (Some((_, modifier, word)), Some(Price::PerMillion(factor))) => {
                table.multipliers.entry(modifier).or_default().insert(word, factor);
            }
            _ => {
                let name = format!("provider_specific_entry.{name}");
                builder.leave_out_price(&name, "no modifier of a card", listed);
            }
        }
    }
    Ok(())
}

/// The prices of a model by service tier and threshold; 0 is no threshold.
#[derive(Default)]
struct Prices(BTreeMap<(Option<&'static str>, u64), Rates>);

/// `None` is no price of a kind of tokens that a card knows.
struct Name {
    kind: TokenKind,
    service_tier: Option<&'static str>,
    above: u64,
}

impl Name {
    /// Reads names such as `input_cost_per_token` and
    /// `cache_creation_input_token_cost_above_1hr_above_200k_tokens_batches`.
    fn parse(name: &str) -> Option<Self> {
        let found =
            TIERS.iter().find_map(|(suffix, tier)| Some((name.strip_suffix(suffix)?, Some(*tier))));
        let (name, service_tier) = found.unwrap_or((name, None));
        let mut parts = name.split("_above_");
        let mut kind = match parts.next()? {
            "input_cost_per_token" => TokenKind::Input,
            "output_cost_per_token" => TokenKind::Output,
            "output_cost_per_reasoning_token" => TokenKind::Reasoning,
            "cache_read_input_token_cost" => TokenKind::CacheRead,
            "cache_creation_input_token_cost" => TokenKind::CacheWrite5m,
            "input_cost_per_audio_token" => TokenKind::InputAudio,
            "cache_read_input_audio_token_cost" => TokenKind::CacheReadAudio,
            "output_cost_per_audio_token" => TokenKind::OutputAudio,
            "input_cost_per_image_token" => TokenKind::InputImage,
            "output_cost_per_image_token" => TokenKind::OutputImage,
            _ => return None,
        };
        let mut above = 0;
        for part in parts {
            // The filter counts writes for 12 hours under the longer lifetime.
            if matches!(part, "1hr" | "12hr") && kind == TokenKind::CacheWrite5m {
                kind = TokenKind::CacheWrite1h;
                continue;
            }
            let tokens = part.strip_suffix("_tokens")?;
            above = match tokens.strip_suffix('k') {
                Some(thousands) => thousands.parse::<u64>().ok()?.checked_mul(1000)?,
                None => tokens.parse().ok()?,
            };
        }
        Some(Self { kind, service_tier, above })
    }
}

impl Prices {
    /// `None` if the model is left out.
    fn read(
        listed: &str,
        model: &Object,
        builder: &mut Builder<'_>,
    ) -> anyhow::Result<Option<Self>> {
        let mut prices = Self::default();
        for (name, value) in model.iter() {
            let is_price = name.ends_with("_pricing")
                || ["cost", "_multiplier"].iter().any(|part| name.contains(part));
            if value.get() == "null" || !is_price {
                continue;
            }
            let Some(Name { kind, service_tier, above }) = Name::parse(name) else {
                if name != "tiered_pricing" && !is_zero(value) && !is_old_name(name, model) {
                    builder.leave_out_price(name, unit(name), listed);
                }
                continue;
            };
            match price(value, 0).context(name.to_owned())? {
                Some(Price::PerMillion(rate)) => {
                    prices.0.entry((service_tier, above)).or_default().insert(kind, rate);
                }
                Some(Price::TooManyPlaces) => {
                    builder.leave_out("a price of more than 12 places", listed);
                    return Ok(None);
                }
                None => {}
            }
        }
        if let Some(tiers) = model.read::<Vec<Object>>("tiered_pricing")?
            && !prices.read_tiers(&tiers, listed, builder).context("tiered_pricing")?
        {
            return Ok(None);
        }
        prices.price_images_only();
        Ok(Some(prices))
    }

    /// Reads price lists by the range of input tokens, which go before all others; `false` if the
    /// model is left out.
    fn read_tiers(
        &mut self,
        tiers: &[Object],
        listed: &str,
        builder: &mut Builder<'_>,
    ) -> anyhow::Result<bool> {
        let mut read: Vec<(u64, Rates)> = Vec::new();
        for tier in tiers {
            let Some(range) = tier.read::<Vec<Box<RawValue>>>("range")? else {
                builder.leave_out_price("tiered_pricing", "not by input tokens", listed);
                return Ok(true);
            };
            let above = count(range.first().context("range: expected two numbers")?)?;
            let mut rates = Rates::new();
            for (name, value) in tier.iter() {
                let Some(Name { kind, .. }) = Name::parse(name) else { continue };
                match price(value, 0).context(name.to_owned())? {
                    Some(Price::PerMillion(rate)) => {
                        rates.insert(kind, rate);
                    }
                    Some(Price::TooManyPlaces) => {
                        builder.leave_out("a price of more than 12 places", listed);
                        return Ok(false);
                    }
                    None => {}
                }
            }
            if !rates.contains_key(&TokenKind::Input) {
                builder.leave_out("tiered_pricing without a price of input", listed);
                return Ok(false);
            }
            read.push((above, rates));
        }
        let kinds: BTreeSet<TokenKind> =
            read.iter().flat_map(|(_, rates)| rates.keys()).copied().collect();
        let standard = self.0.entry((None, 0)).or_default().clone();
        for (above, mut rates) in read {
            // A tier does not take from another one what it does not name.
            let input = rates.get(&TokenKind::Input).copied();
            let own_output =
                rates.get(&TokenKind::Output).or(standard.get(&TokenKind::Output)).copied();
            for kind in kinds.iter().copied().chain(standard.keys().copied()) {
                let instead = match kind {
                    TokenKind::CacheRead | TokenKind::CacheWrite5m => input,
                    TokenKind::CacheWrite1h => {
                        rates.get(&TokenKind::CacheWrite5m).copied().or(input)
                    }
                    TokenKind::Output | TokenKind::Reasoning => own_output,
                    TokenKind::Input
                    | TokenKind::InputAudio
                    | TokenKind::CacheReadAudio
                    | TokenKind::InputImage
                    | TokenKind::OutputAudio
                    | TokenKind::OutputImage => standard.get(&kind).copied(),
                };
                if let Some(instead) = instead {
                    rates.entry(kind).or_insert(instead);
                }
            }
            self.0.insert((None, above), rates);
        }
        Ok(true)
    }

    /// A model that has no price of output but one of images makes images only.
    fn price_images_only(&mut self) {
        if let Some(rates) = self.0.get_mut(&(None, 0))
            && let Some(images) = rates.get(&TokenKind::OutputImage).copied()
            && rates.get(&TokenKind::Output).is_none_or(rust_decimal::Decimal::is_zero)
        {
            rates.insert(TokenKind::Output, images);
        }
    }

    fn begin_earlier(&mut self) {
        let prices = std::mem::take(&mut self.0);
        self.0.extend(
            prices
                .into_iter()
                .map(|((tier, above), rates)| ((tier, above.saturating_sub(1)), rates)),
        );
    }

    fn table(&self) -> Table {
        let mut table = self.own(None);
        table.service_tiers = TIERS.map(|(_, tier)| (tier, self.own(Some(tier)))).into();
        table
    }

    fn get(&self, tier: Option<&'static str>, above: u64) -> Rates {
        self.0.get(&(tier, above)).cloned().unwrap_or_default()
    }

    /// The rates of one service tier.
    fn own(&self, tier: Option<&'static str>) -> Table {
        let mut rates = self.get(tier, 0);
        let has_reasoning = |rates: &Rates| rates.contains_key(&TokenKind::Reasoning);
        // Reasoning costs the tier's own output, not the standard price of reasoning.
        let has_output = tier.is_some() && rates.contains_key(&TokenKind::Output);
        let replaces = has_output && has_reasoning(&self.get(None, 0)) && !has_reasoning(&rates);
        let replace = |rates: &mut Rates| {
            if let Some(output) = rates.get(&TokenKind::Output).copied().filter(|_| replaces) {
                rates.insert(TokenKind::Reasoning, output);
            }
        };
        replace(&mut rates);
        let is_named = tier.is_some_and(|_| self.0.keys().any(|(named, _)| *named == tier));
        let takes_standard = tier.is_none() || (is_named && tier != Some("batch"));
        let thresholds: BTreeSet<u64> = self
            .0
            .keys()
            .filter(|(named, above)| {
                *above > 0 && (*named == tier || (takes_standard && named.is_none()))
            })
            .map(|(_, above)| *above)
            .collect();
        let mut so_far = Rates::new();
        let mut context_tiers = Vec::new();
        for above_input_tokens in thresholds {
            if takes_standard {
                so_far.extend(self.get(None, above_input_tokens));
            }
            so_far.extend(self.get(tier, above_input_tokens));
            replace(&mut so_far);
            context_tiers.push(ContextTier { above_input_tokens, rates: so_far.clone() });
        }
        Table { rates, context_tiers, ..Table::default() }
    }
}

fn is_zero(value: &RawValue) -> bool {
    matches!(price(value, 6), Ok(Some(Price::PerMillion(rate))) if rate.is_zero())
}

/// True if another member has the same price.
fn is_old_name(name: &str, model: &Object) -> bool {
    let text = |name: &str| model.get(name).map(RawValue::get);
    name == "input_cost_per_token_cache_hit" && text(name) == text("cache_read_input_token_cost")
}

/// What a price is for that a card cannot express.
fn unit(name: &str) -> &'static str {
    let units = [
        ("off_peak_pricing", "by the time of day; the standard price is taken"),
        ("uplift_multiplier", "by the region"),
        ("dbu", "in units of Databricks"),
        ("_query", "for a query"),
        ("_second", "for a second"),
        ("_pixel", "for a pixel"),
        ("_character", "for a character"),
        ("_page", "for a page"),
        ("_request", "for a request"),
        ("_session", "for a session"),
        ("_message", "for a message"),
        ("1k_", "for a thousand"),
        ("per_image_token", "no kind of tokens in a card"),
        ("_image_token", "no kind of tokens in a card"),
        ("per_image", "for an image"),
        ("token", "no kind of tokens or service tier in a card"),
    ];
    units.iter().find(|(part, _)| name.contains(part)).map_or("not for tokens", |(_, unit)| unit)
}
