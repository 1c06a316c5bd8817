//! `agent-meter check`: a plugin configuration as the filter reads it, a module as Envoy loads it.

use std::path::Path;

use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::pricing::card_age::CardAge;
use anyhow::{Context, anyhow, bail};
use chrono::Utc;
use iso_currency::Currency;

use crate::envoy::{self, Bootstrap};
use crate::plugin;
use crate::stack::{ANY_PORT, WorkDir};
use crate::suggest;
use crate::wasm::Module;

/// Lets the real filter in a real Envoy read a plugin configuration; opens no port.
///
/// Returns what the filter takes but an operator should know, one line each. The error is the filter's
/// own line where it refused.
pub async fn config(file: &Path, wasm: &Path) -> anyhow::Result<Vec<String>> {
    let plugin = plugin::read(file)?;
    let text = plugin.to_string();
    let program = envoy::find().await?;
    let mut dir = WorkDir::create()?;
    let bootstrap = Bootstrap {
        node_id: "agent-meter".to_owned(),
        listen: ANY_PORT,
        admin: ANY_PORT,
        upstream: ANY_PORT.into(),
        collector: ANY_PORT.into(),
        wasm: Some(wasm.to_owned()),
        plugin,
        settings: Vec::new(),
    };
    let valid = envoy::validate(&program, &bootstrap, dir.path()).await;
    let valid = valid.map_err(|error| dir.named_in(error));
    valid.with_context(|| file.display().to_string())?;
    dir.done = true;
    let config = Config::from_bytes(text.as_bytes())
        .map_err(|refused| anyhow!("{}", suggest::with_name(&refused.to_string())))?;
    let warnings = config.warnings().iter().map(ToString::to_string).collect();
    Ok([warnings, unknown_currencies(&config), old_prices(&config)].concat())
}

/// Names the currencies that ISO 4217 does not have. The filter takes any three letters: the list
/// changes.
fn unknown_currencies(config: &Config) -> Vec<String> {
    let products = config.products.iter().enumerate().map(|(at, product)| {
        (format!("products[{at}].pricing.currency"), &product.pricing.currency[..])
    });
    let cards = config.rate_cards.iter().enumerate();
    let cards = cards.map(|(at, card)| (format!("rate_cards[{at}].currency"), card.currency()));
    let unknown = products.chain(cards).filter(|(_, code)| Currency::from_code(code).is_none());
    unknown.map(|(path, code)| format!("{path}: ISO 4217 has no currency {code:?}")).collect()
}

/// Names the rate cards whose prices are old.
fn old_prices(config: &Config) -> Vec<String> {
    let now = Timestamp(u64::try_from(Utc::now().timestamp_millis()).unwrap_or_default());
    let cards = config.rate_cards.iter().enumerate();
    let old = cards.filter(|(_, card)| card.age(now) == CardAge::Over90Days);
    old.map(|(at, card)| {
        let version = card.version();
        format!(
            "rate_cards[{at}].date: the prices of card {version:?} are more than 90 days old; `agent-meter prices check` tells what has changed since"
        )
    })
    .collect()
}

/// Checks that a binary is a module that Envoy can run as this filter.
///
/// The error has a line for each problem.
pub fn module(file: &Path) -> anyhow::Result<Module> {
    let name = file.display();
    let binary = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
    let module = Module::parse(&binary).with_context(|| name.to_string())?;
    match &module.problems()[..] {
        [] => Ok(module),
        problems => bail!("{name}: {}", problems.join(&format!("\n{name}: "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_currency_that_iso_4217_does_not_have_is_named() {
        let product = |id: &str, currency: &str| {
            format!(
                r#"{{ "id": "{id}", "type": "STANDARD_API", "match": {{ "path": "/{id}" }},
                     "pricing": {{ "currency": "{currency}" }} }}"#
            )
        };
        let products = [product("a", "USD"), product("b", "UDS"), product("c", "CHF")].join(",");
        let card = |currency: &str| {
            format!(
                r#"[{{ "version": "1", "currency": "{currency}", "rates": [{{
                     "provider": "openai", "model": "m", "input": "1", "output": "2" }}] }}]"#
            )
        };
        for (card, expected) in [
            (card("EUR"), &["products[1].pricing.currency: ISO 4217 has no currency \"UDS\""][..]),
            (
                card("ERU"),
                &[
                    "products[1].pricing.currency: ISO 4217 has no currency \"UDS\"",
                    "rate_cards[0].currency: ISO 4217 has no currency \"ERU\"",
                ],
            ),
        ] {
            let config = format!(r#"{{ "products": [{products}], "rate_cards": {card} }}"#);
            let config = Config::from_bytes(config.as_bytes()).expect("a configuration");
            assert_eq!(unknown_currencies(&config), expected);
        }
    }
}
