//! Reads LiteLLM's model_prices_and_context_window.json as its `generic_cost_per_token` of 1.110
//! does: US dollars for one token or another unit, by model.
//!
//! A kind without a price of its own costs its whole's price, as in a card. The card writes out
//! what LiteLLM finds by other fallbacks: a context tier keeps what a lower one names, the service
//! tiers `flex` and `priority` take the standard context tiers where they have none, and reasoning
//! in a service tier costs that tier's output. The card has no price that is in LiteLLM's code and
//! not in the list, such as half of the input's for what Fireworks reads from its cache.

mod hours;
mod images;
mod members;
mod tokens;
mod units;

use std::collections::BTreeMap;

use agent_meter_core::domain::seller::Seller;
use agent_meter_core::protocol::llm::provider::{Family, price_lists};
use anyhow::Context;
use rust_decimal::Decimal;

use self::images::{Decorated, Images};
use self::tokens::Prices;
use crate::prices::builder::{Builder, Fit, Model, ours};
use crate::prices::card::{Table, When};
use crate::prices::list::{Object, price};

/// Says that an entry is another name of an entry.
const ALIAS_OF: &str = "alias_of";

/// The most entries that lead from an alias to a price.
const ALIASES_MAX: usize = 8;

/// Providers of the list whose models a seller sells on its own hosts too, if it has no price of
/// its own there.
const ALSO_AT: [(&str, &str, Family); 2] =
    [("azure_ai", "azure", Family::AzureOpenAi), ("bedrock_mantle", "bedrock", Family::Bedrock)];

pub(super) fn read(text: &str, builder: &mut Builder<'_>) -> anyhow::Result<()> {
    let list: Object = serde_json::from_str(text)?;
    let mut entries: Vec<(&str, Object)> = Vec::new();
    // `sample_spec` explains the members.
    for (name, entry) in list.iter().filter(|(name, _)| *name != "sample_spec") {
        entries.push((name, serde_json::from_str(entry.get()).with_context(|| name.to_owned())?));
    }
    let by_name: BTreeMap<&str, &Object> =
        entries.iter().map(|(name, entry)| (*name, entry)).collect();
    let mut images = Images::default();
    for (name, entry) in &entries {
        let read = |builder: &mut Builder<'_>, images: &mut Images| {
            let mut found = entry;
            for _ in 0..ALIASES_MAX {
                let Some(target) = found.read::<String>(ALIAS_OF)? else {
                    return read_model(name, found, images, builder);
                };
                let Some(next) = by_name.get(target.as_str()) else { break };
                found = next;
            }
            builder.leave_out("an alias of no model", name);
            Ok(())
        };
        read(builder, &mut images).with_context(|| (*name).to_owned())?;
    }
    images.finish(builder);
    Ok(())
}

/// Under which sellers an entry stands, and how its names begin in the list.
struct Place {
    sellers: Vec<(Seller, Fit)>,
    prefix: String,
    family: Option<Family>,
}

fn place(provider: &str, name: &str, builder: &mut Builder<'_>) -> Place {
    let listed = ours(provider, |lists| lists.litellm);
    let own = listed.first().copied();
    let lists = price_lists().find(|(seller, _)| Some(*seller) == own);
    let prefix = lists.map_or(format!("{provider}/"), |(_, lists)| lists.litellm_prefix.to_owned());
    let mut sellers: Vec<(Seller, Fit)> = builder
        .sellers(provider, name, &listed)
        .into_iter()
        .map(|seller| (seller, Fit::Own))
        .collect();
    for (_, also, family) in ALSO_AT.iter().filter(|(named, ..)| *named == provider) {
        let wanted = builder.wanted_fallbacks(also, &[family.seller()]);
        sellers.extend(wanted.into_iter().map(|seller| (seller, Fit::Fallback)));
    }
    // Mantle names models and regions as Bedrock does.
    let own = own.or((provider == "bedrock_mantle").then(|| Family::Bedrock.seller()));
    let family = own.and_then(|seller| Family::named(seller.name()));
    Place { sellers, prefix, family }
}

fn read_model(
    name: &str,
    model: &Object,
    images: &mut Images,
    builder: &mut Builder<'_>,
) -> anyhow::Result<()> {
    let Some(provider) = model.read::<String>("litellm_provider")? else {
        builder.leave_out("no provider", name);
        return Ok(());
    };
    let Place { sellers, prefix, family } = place(&provider, name, builder);
    if sellers.is_empty() {
        return Ok(());
    }
    let mode = model.read::<String>("mode")?.unwrap_or_default();
    let decorated = Decorated::parse(name, &prefix, &mode);
    let (names, location) = if units::is_general(model) {
        (vec!["*".to_owned()], None)
    } else {
        match names(&decorated.model, family) {
            Ok(found) => found,
            Err(reason) => {
                builder.leave_out(reason, name);
                return Ok(());
            }
        }
    };
    let mut prices = Prices::read(name, model, builder)?;
    if provider == "xai" {
        // Its context tiers begin at the threshold and not above it.
        prices.begin_earlier();
    }
    let mut table = prices.table();
    read_multipliers(name, model, &mut table, builder)?;
    units::Reader { listed: name, mode: &mode, provider: &provider, model, decorated: &decorated }
        .read(&mut table, builder)?;
    members::name_others(name, model, builder);
    table.tidy();
    let always = [(When::default(), table.clone())];
    let by_hour = hours::read(name, model, &table, builder)?;
    for (mut when, table) in always.into_iter().chain(by_hour) {
        when.location.clone_from(&location);
        for (seller, fit) in &sellers {
            let model = Model {
                listed: name.to_owned(),
                provider: *seller,
                names: names.clone(),
                effective: (None, None),
                when: when.clone(),
                table: table.clone(),
                fit: *fit,
            };
            images.take(&decorated, model, builder);
        }
    }
    Ok(())
}

/// The model's names on the wire, and the location that alone has the price.
fn names(
    name: &str,
    family: Option<Family>,
) -> Result<(Vec<String>, Option<String>), &'static str> {
    const NO_NAME: &str = "not a name on the wire";
    if name.contains('*') {
        return Err(NO_NAME);
    }
    let (first, rest) = name.split_once('/').unwrap_or(("", name));
    let (name, location) = match family {
        Some(Family::AzureOpenAi) if matches!(first, "eu" | "us") => (rest, Some(first)),
        Some(Family::AzureOpenAi) if matches!(first, "global" | "global-standard") => (rest, None),
        Some(Family::Bedrock) if is_region(first) && !rest.contains('/') => (rest, Some(first)),
        Some(Family::Bedrock) if matches!(first, "invoke" | "converse" | "claude_platform") => {
            (rest, None)
        }
        Some(Family::Bedrock) if !first.is_empty() => return Err(NO_NAME),
        _ => (name, None),
    };
    let mut names = vec![name.to_owned()];
    if family == Some(Family::OpenAi) && name.starts_with("ft:") {
        // On the wire the customer's own name follows.
        names.push(format!("{name}:*"));
    }
    Ok((names, location.map(str::to_owned)))
}

/// True if it is like `us-gov-west-1`.
fn is_region(name: &str) -> bool {
    let parts: Vec<&str> = name.split('-').collect();
    let number = parts.last().is_some_and(|last| last.parse::<u8>().is_ok());
    parts.len() >= 3 && number && parts[0].len() == 2
}

/// The factors of a model's prices that the list has by its own words.
const SPECIFIC: &str = "provider_specific_entry";

/// The list's words, and the modifiers that they are.
const MULTIPLIERS: [(&str, &str, &str); 2] =
    [("us", "inference_geo", "us"), ("fast", "speed", "fast")];

/// Factors of all prices by location: the member, and the location as the filter tells it.
pub(in crate::prices) const LOCATIONS: [(&str, &str); 4] = [
    ("regional_processing_uplift_multiplier_eu", "eu"),
    ("regional_processing_uplift_multiplier_us", "us"),
    ("fedramp_uplift_multiplier", "gov"),
    // All but the global one, whose factor is 1.
    ("regional_endpoint_uplift_multiplier", "*"),
];

/// Reads the factors of a model's prices.
fn read_multipliers(
    listed: &str,
    model: &Object,
    table: &mut Table,
    builder: &mut Builder<'_>,
) -> anyhow::Result<()> {
    for (name, value) in model.read::<Object>(SPECIFIC)?.unwrap_or_default().iter() {
        let member = format!("{SPECIFIC}.{name}");
        match MULTIPLIERS.iter().find(|(theirs, ..)| *theirs == name) {
            Some((_, modifier, word)) => {
                let factor = price(value, 6).with_context(|| member.clone())?;
                if let Some(factor) = factor {
                    let words = table.multipliers.entry(modifier).or_default();
                    words.insert(word, factor.amount);
                }
            }
            None => builder.leave_out_price(&member, "no modifier of a card", listed),
        }
    }
    for (member, location) in LOCATIONS {
        let Some(factor) = model.get(member) else { continue };
        let Some(factor) = price(factor, 6).context(member)? else { continue };
        let places = table.multipliers.entry("location").or_default();
        places.insert(location, factor.amount);
        if location == "*" {
            places.insert("global", Decimal::ONE);
        }
    }
    Ok(())
}
