//! Reads the api.json of models.dev: US dollars for a million tokens, by provider and model.

use agent_meter_core::domain::usage::TokenKind;
use anyhow::Context;

use crate::prices::builder::{Builder, Fit, Model, ours};
use crate::prices::card::{ContextTier, Rates, Table, When};
use crate::prices::list::{Object, count};

pub(super) fn read(text: &str, builder: &mut Builder<'_>) -> anyhow::Result<()> {
    let list: Object = serde_json::from_str(text)?;
    for (id, provider) in list.iter() {
        let provider: Object = serde_json::from_str(provider.get()).context(id.to_owned())?;
        let models: Option<Object> = provider.read("models").context(id.to_owned())?;
        for (name, model) in models.unwrap_or_default().iter() {
            let place = || format!("{id}.models.{name}");
            let model: Object = serde_json::from_str(model.get()).with_context(place)?;
            read_model(id, name, &model, builder).with_context(place)?;
        }
    }
    Ok(())
}

fn read_model(
    id: &str,
    name: &str,
    model: &Object,
    builder: &mut Builder<'_>,
) -> anyhow::Result<()> {
    let listed = format!("{id}/{name}");
    let providers = builder.sellers(id, &listed, &ours(id, |lists| lists.models_dev));
    if providers.is_empty() {
        return Ok(());
    }
    let Some(cost) = model.read::<Object>("cost")? else {
        builder.leave_out("no price", &listed);
        return Ok(());
    };
    let table = read_cost(&cost, &listed, builder).context("cost")?;
    for provider in providers {
        builder.push(Model {
            listed: listed.clone(),
            provider,
            names: vec![name.to_owned()],
            effective: (None, None),
            when: When::default(),
            table: table.clone(),
            fit: Fit::Own,
        });
    }
    Ok(())
}

fn read_cost(cost: &Object, listed: &str, builder: &mut Builder<'_>) -> anyhow::Result<Table> {
    let rates = read_rates(cost, listed, "", builder)?;
    let mut context_tiers = Vec::new();
    if let Some(tiers) = cost.read::<Vec<Object>>("tiers")? {
        for tier in &tiers {
            let what: Object = tier.read("tier")?.context("tiers: expected `tier`, found none")?;
            if what.read::<String>("type")?.as_deref() != Some("context") {
                builder.leave_out_price("tiers", "not by context", listed);
                continue;
            }
            let size = what.get("size").context("tiers: expected `size`, found none")?;
            let above_input_tokens = count(size)?;
            let rates = read_rates(tier, listed, "tiers.", builder)?;
            context_tiers.push(ContextTier { above_input_tokens, rates });
        }
        context_tiers.sort_by_key(|tier| tier.above_input_tokens);
    } else if let Some(tier) = cost.read::<Object>(OVER_200K)? {
        let rates = read_rates(&tier, listed, "context_over_200k.", builder)?;
        context_tiers.push(ContextTier { above_input_tokens: 200_000, rates });
    }
    Ok(Table { rates, context_tiers, ..Table::default() })
}

/// The older name of a context tier.
const OVER_200K: &str = "context_over_200k";

/// Reads the rates of a table that stands below `place`.
fn read_rates(
    cost: &Object,
    listed: &str,
    place: &str,
    builder: &mut Builder<'_>,
) -> anyhow::Result<Rates> {
    let mut rates = Rates::new();
    for (name, value) in cost.iter() {
        let member = format!("{place}{name}");
        let kind = match name {
            "input" => TokenKind::Input,
            "output" => TokenKind::Output,
            "reasoning" => TokenKind::Reasoning,
            "cache_read" => TokenKind::CacheRead,
            "cache_write" => TokenKind::CacheWrite5m,
            "input_audio" => TokenKind::InputAudio,
            "output_audio" => TokenKind::OutputAudio,
            "tier" | "tiers" | OVER_200K => continue,
            _ => {
                builder.leave_out_price(&member, "no price that the import knows", listed);
                continue;
            }
        };
        if let Some(rate) = builder.price_of_million(listed, &member, value, 6)? {
            rates.insert(kind, rate);
        }
    }
    Ok(rates)
}
