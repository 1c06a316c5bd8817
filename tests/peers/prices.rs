//! Compares token costs with genai-prices of PyPI: its own price list, imported as a rate card,
//! must give its own costs.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter_collector::prices::{Edition, Source, Wanted, import_text};
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::domain::price_factors::ServiceTier;
use agent_meter_core::domain::usage::{TokenKind, Usage};
use agent_meter_core::pricing::{Priced, RateCard, Unpriced};
use agent_meter_core::protocol::llm::provider::Provider;
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::process::Command;

use crate::process::run;
use crate::tools;

/// One provider: its part of the list, and the costs of the usage blocks by model.
#[derive(Deserialize)]
struct Theirs {
    list: Box<RawValue>,
    models: BTreeMap<String, Vec<Case>>,
}

/// One usage block and its cost by genai-prices.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    at: Timestamp,
    tier: ServiceTier,
    usage: Usage,
    total: Decimal,
}

/// Why costs differ, and how many blocks differ for that reason.
const EXPLAINED: [(&str, &str, usize); 2] = [
    (NO_PRICE, "costs nothing there; here it has no rate", 3255),
    (FREE_THERE, "output of embeddings, which there is none of; here it has no cost", 2523),
];
const NO_PRICE: &str = "no price";
const FREE_THERE: &str = "a kind without a price";

/// How much of a cost may be lost by a price with more than 12 places, which are traces of floats.
const ROUNDING: Decimal = Decimal::from_parts(1, 0, 0, false, 11);

/// How our cost differs from theirs; `Err` if it must not.
fn compare<'a>(
    case: &Case,
    ours: &Result<Priced, Unpriced>,
    left_out: Option<&'a str>,
) -> Result<Option<&'a str>, String> {
    let priced = match (ours, left_out) {
        (Ok(priced), _) => priced,
        (Err(Unpriced::NoRate { .. }), Some(reason)) => return Ok(Some(reason)),
        (Err(Unpriced::NoRateForKind(TokenKind::Output)), _) => return Ok(Some(FREE_THERE)),
        (Err(Unpriced::NoRateForKind(_)), _) if case.total == Decimal::ZERO => {
            return Ok(Some(FREE_THERE));
        }
        (Err(reason), _) => return Err(reason.to_string()),
    };
    if priced.is_inconsistent {
        Err(format!("{priced:?} is inconsistent"))
    } else if (priced.total - case.total).abs() <= case.total * ROUNDING {
        Ok(None)
    } else {
        Err(format!("{priced:?}"))
    }
}

/// The kinds and tiers in the equal costs, so that none of them is compared only by name.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    kinds: BTreeSet<TokenKind>,
    service_tiers: BTreeSet<ServiceTier>,
    has_context_tier: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_costs_what_genai_prices_says() -> anyhow::Result<()> {
    let mut command = Command::new(tools::python().await?);
    let printed = run(command.arg(tools::here("prices.py"))).await?;
    let theirs: BTreeMap<String, Theirs> = serde_json::from_str(&printed)?;
    let (mut same, mut seen, mut wrong) = (0, Seen::default(), Vec::new());
    let mut differences: BTreeMap<String, usize> = BTreeMap::new();
    for (id, Theirs { list, models }) in theirs {
        let wanted = Wanted { providers: vec![id.clone()], models: Vec::new() };
        let imported = import_text(Source::GenaiPrices, list.get(), &wanted, Edition::today());
        let imported = imported.with_context(|| id.clone())?;
        let card: RateCard = imported.card.to_rate_card()?;
        let provider = Provider::named(card.rates()[0].provider().context("a provider")?);
        for (model, cases) in models {
            let left_out = imported.report.reason_of(&model);
            for case in cases {
                let Case { name, at, tier, usage, .. } = &case;
                let price = |tier: ServiceTier| card.price(provider, name, "", *at, tier, usage);
                // A tier without a rate has no price here, and the list price there.
                let (tier, ours) = match price(*tier) {
                    Err(Unpriced::NoRateForTier(_)) => {
                        (ServiceTier::Standard, price(ServiceTier::Standard))
                    }
                    ours => (*tier, ours),
                };
                match (compare(&case, &ours, left_out), &ours) {
                    (Ok(None), Ok(priced)) => {
                        same += 1;
                        seen.kinds.extend(priced.lines.iter().map(|line| line.kind));
                        seen.service_tiers.insert(tier);
                        seen.has_context_tier |= priced.above_input_tokens.is_some();
                    }
                    (Ok(reason), _) => {
                        *differences.entry(reason.unwrap_or_default().to_owned()).or_default() += 1;
                    }
                    (Err(reason), _) => wrong.push(format!("{id}: {model}: {case:?}: {reason}")),
                }
            }
        }
    }
    println!("{same} costs are the same; explained: {differences:?}");
    let examples = wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    ensure!(wrong.is_empty(), "{} costs differ:\n{examples}", wrong.len());
    let explained = EXPLAINED.map(|(reason, _, count)| (reason.to_owned(), count));
    assert_eq!(differences, BTreeMap::from(explained), "make the table agree");
    ensure!(same > 50_000, "only {same} costs are the same");
    use ServiceTier::{Batch, Flex, Priority, Standard};
    let all = Seen {
        kinds: TokenKind::ALL.into(),
        service_tiers: [Standard, Batch, Flex, Priority].into(),
        has_context_tier: true,
    };
    assert_eq!(seen, all);
    Ok(())
}
