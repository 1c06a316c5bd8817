//! Reads the api.json of models.dev: US dollars for a million tokens, by provider and model.

use agent_meter_core::domain::usage::TokenKind;
use anyhow::Context;

use crate::prices::list::{Object, Price, count, price};
use crate::prices::{Builder, ContextTier, Model, Rates, Table, ours};

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
    let providers = builder.providers(id, &ours(id, |lists| lists.models_dev));
    if providers.is_empty() {
        return Ok(());
    }
    let Some(cost) = model.read::<Object>("cost")? else {
        builder.leave_out("no token price", &listed);
        return Ok(());
    };
    let Some(table) = read_cost(&cost, &listed, builder).context("cost")? else {
        return Ok(());
    };
    for provider in providers {
        builder.push(Model {
            listed: &listed,
            provider,
            names: vec![name.to_owned()],
            effective: (None, None),
            table: table.clone(),
        });
    }
    Ok(())
}

fn read_cost(
    cost: &Object,
    listed: &str,
    builder: &mut Builder<'_>,
) -> anyhow::Result<Option<Table>> {
    let Some(rates) = read_rates(cost, listed, builder)? else { return Ok(None) };
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
            let Some(rates) = read_rates(tier, listed, builder)? else { return Ok(None) };
            context_tiers.push(ContextTier { above_input_tokens, rates });
        }
        context_tiers.sort_by_key(|tier| tier.above_input_tokens);
    } else if let Some(tier) = cost.read::<Object>("context_over_200k")? {
        let Some(rates) = read_rates(&tier, listed, builder)? else { return Ok(None) };
        context_tiers.push(ContextTier { above_input_tokens: 200_000, rates });
    }
    Ok(Some(Table { rates, context_tiers, ..Table::default() }))
}

/// `None` if the model is left out.
fn read_rates(
    cost: &Object,
    listed: &str,
    builder: &mut Builder<'_>,
) -> anyhow::Result<Option<Rates>> {
    let mut rates = Rates::new();
    for (name, value) in cost.iter() {
        let kind = match name {
            "input" => TokenKind::Input,
            "output" => TokenKind::Output,
            "reasoning" => TokenKind::Reasoning,
            "cache_read" => TokenKind::CacheRead,
            "cache_write" => TokenKind::CacheWrite5m,
            "input_audio" => TokenKind::InputAudio,
            "output_audio" => TokenKind::OutputAudio,
            "tier" | "tiers" | "context_over_200k" => continue,
            _ => {
                builder.leave_out_price(name, "not a price of tokens", listed);
                continue;
            }
        };
        match price(value, 6).context(name.to_owned())? {
            Some(Price::PerMillion(rate)) => {
                rates.insert(kind, rate);
            }
            Some(Price::TooManyPlaces) => {
                builder.leave_out("a price of more than 12 places", listed);
                return Ok(None);
            }
            None => {}
        }
    }
    Ok(Some(rates))
}
