//! Compares costs with LiteLLM of PyPI: its own price list, imported as a rate card, must give the
//! costs of its own calculator. Each difference has a reason, and the table of them is in
//! `tests/fixtures/prices/README.md`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use agent_meter_collector::prices::{Edition, LeftOut, Report, Source, Wanted, import_text};
use agent_meter_core::base::pattern::is_fit;
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::domain::price_factors::{PriceFactors, ServiceTier, Word};
use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::units::{UnitName, Units};
use agent_meter_core::domain::usage::Usage;
use agent_meter_core::pricing::{Consumed, RateCard, Unpriced};
use agent_meter_core::protocol::llm::provider::{Provider, price_lists};
use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde::Deserialize;
use tokio::process::Command;

use crate::process::run;
use crate::tools;

/// The list, and what usages cost by LiteLLM.
#[derive(Deserialize)]
struct Theirs {
    list: String,
    models: Vec<Model>,
}

/// A model of the list.
#[derive(Deserialize)]
struct Model {
    name: String,
    provider: String,
    cases: Vec<Case>,
}

/// A usage and its cost.
#[derive(Debug, Deserialize)]
struct Case {
    kind: String,
    tier: ServiceTier,
    location: Option<Word>,
    at: Timestamp,
    usage: Usage,
    units: BTreeMap<UnitName, Decimal>,
    total: f64,
}

/// Their costs are floats, and a card's price has at most 12 places.
const TOLERANCE: f64 = 1e-8;

/// The share of their costs that ours must equal.
const EQUAL_AT_LEAST: f64 = 0.95;

/// What becomes of the costs.
#[derive(Default)]
struct Compared {
    all: usize,
    equal: usize,
    /// By reason: how many, and an example.
    explained: BTreeMap<String, (usize, String)>,
    unexplained: Vec<String>,
}

/// The seller and the model's name on the wire, as the filter sees them.
fn on_the_wire(model: &Model) -> anyhow::Result<(Seller, String)> {
    let is_it =
        |names: &'static [&'static str]| names.iter().any(|name| is_fit(name, &model.provider));
    let known = price_lists().find(|(_, lists)| is_it(lists.litellm));
    let (seller, prefix) = match known {
        Some((seller, lists)) => (Some(seller), lists.litellm_prefix.to_owned()),
        None => (Seller::new(&model.provider), format!("{}/", model.provider)),
    };
    let decoration = |part: &str| {
        matches!(part, "hd" | "standard" | "low" | "medium" | "high" | "xhigh")
            || part.split_once("-x-").is_some_and(|(width, _)| width.parse::<u32>().is_ok())
    };
    let mut name = model.name.strip_prefix(&prefix).unwrap_or(&model.name);
    while model.cases.iter().any(|case| case.kind == "images")
        && let Some((first, rest)) = name.split_once('/')
        && decoration(first)
    {
        name = rest.strip_prefix(&prefix).unwrap_or(rest);
    }
    let seller = seller.with_context(|| format!("{}: no seller's name", model.provider))?;
    Ok((seller, name.to_owned()))
}

/// Why a cost differs; `None` if it must not.
fn reason(
    model: &Model,
    case: &Case,
    ours: &Result<Decimal, Unpriced>,
    report: &Report,
) -> Option<String> {
    let left_out = |member: &str| {
        let is_it = |one: &&LeftOut| one.member.as_deref() == Some(member);
        report.left_out().iter().filter(is_it).collect::<Vec<_>>()
    };
    let has_name = format!("{} has the name", model.name);
    let is_doubled = |one: &&LeftOut| one.model == model.name || one.reason.starts_with(&has_name);
    let reason = if let Some(reason) = report.reason_of(&model.name) {
        return Some(format!("left out of the card: {reason}"));
    } else if left_out("name").iter().any(is_doubled) {
        "two entries of the list have the name, and LiteLLM takes the one with fewer prices"
    } else if left_out("off_peak_pricing").iter().any(is_doubled) {
        "hours of weekdays in another zone than UTC, which a card cannot say"
    } else if model.provider == "fireworks_ai" && case.tier != ServiceTier::Standard {
        "LiteLLM's code for Fireworks ignores the tiers that the list prices"
    } else if model.provider == "fireworks_ai" && case.kind.contains("cache") {
        "no price in the list; LiteLLM's code takes half of the input's for cached input of Fireworks"
    } else if model.provider == "perplexity" {
        "LiteLLM's code for Perplexity ignores fees of requests, cache writes and long contexts"
    } else if let Err(Unpriced::NoRateForKind(kind)) = ours {
        let kind = kind.name();
        return Some(format!(
            "the list has no price of {kind}: LiteLLM charges nothing, a card claims no cost"
        ));
    } else if matches!(ours, Err(Unpriced::NoRateForUnit(_))) && !case.units.is_empty() {
        "the list prices the tokens too, which the card charges alone"
    } else if case.tier == ServiceTier::Batch {
        "the list has only some prices of batches, and LiteLLM halves the others"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

fn compare(theirs: &Theirs) -> anyhow::Result<Compared> {
    let wanted = Wanted::default();
    let imported = import_text(Source::Litellm, &theirs.list, &wanted, Edition::today())?;
    let card: RateCard = imported.card.to_rate_card()?;
    let mut compared = Compared::default();
    for model in &theirs.models {
        let (seller, name) = on_the_wire(model)?;
        for case in &model.cases {
            let mut units = Units::default();
            for (name, quantity) in &case.units {
                units.raise(*name, *quantity);
            }
            let consumed = Consumed { usage: &case.usage, units: Some(&units) };
            let factors = PriceFactors {
                service_tier: case.tier,
                location: case.location,
                ..PriceFactors::default()
            };
            let provider = Provider::named(seller);
            let priced = card.price(provider, &name, "", case.at, factors, consumed);
            let ours = priced.map(|priced| priced.total);
            compared.all += 1;
            let total: Option<f64> = ours.as_ref().ok().and_then(|total| (*total).try_into().ok());
            let is_near = |total: f64| (total - case.total).abs() <= TOLERANCE * case.total;
            if total.is_some_and(is_near) {
                compared.equal += 1;
            } else if let Some(reason) = reason(model, case, &ours, &imported.report) {
                let (count, _) = compared
                    .explained
                    .entry(reason)
                    .or_insert_with(|| (0, format!("{}, {}", model.name, case.kind)));
                *count += 1;
            } else {
                let kind = (&case.kind, case.tier.name());
                let (name, theirs) = (&model.name, case.total);
                compared
                    .unexplained
                    .push(format!("{name} {kind:?}: {theirs} there, {ours:?} here"));
            }
        }
    }
    Ok(compared)
}

impl Compared {
    /// The table of the documentation.
    fn table(&self) -> String {
        let Self { all, equal, explained, .. } = self;
        let share = Decimal::from(*equal * 10_000 / *all) / Decimal::ONE_HUNDRED;
        let mut text = format!("{equal} of {all} costs are equal: {share} %.\n\n");
        text += "| costs | why they differ | such as |\n|---|---|---|\n";
        let mut by_count: Vec<_> = explained.iter().collect();
        by_count.sort_by_key(|(reason, (count, _))| (std::cmp::Reverse(*count), *reason));
        for (reason, (count, example)) in by_count {
            writeln!(text, "| {count} | {reason} | `{example}` |").expect("a text");
        }
        text
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_usage_costs_what_litellm_says_or_differs_for_a_named_reason() -> anyhow::Result<()> {
    let pins = tools::here("requirements-litellm.txt");
    let mut command = Command::new(tools::python_with("litellm-venv", &pins).await?);
    let printed = run(command.arg(tools::here("litellm_prices.py"))).await?;
    let compared = compare(&serde_json::from_str(&printed)?)?;
    let examples = compared.unexplained.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    let count = compared.unexplained.len();
    ensure!(count == 0, "{count} costs differ for no named reason:\n{examples}");
    let share = compared.equal as f64 / compared.all as f64;
    ensure!(share >= EQUAL_AT_LEAST, "only {share} of the costs are equal");
    let table = compared.table();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/prices/README.md");
    let text = std::fs::read_to_string(file)?;
    ensure!(text.contains(&table), "let tests/fixtures/prices/README.md say:\n\n{table}");
    Ok(())
}
