//! The prices of tokens in LiteLLM's list: by kind, service tier and length of the context.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter_core::domain::usage::TokenKind;
use anyhow::Context;
use serde_json::value::RawValue;

use crate::prices::builder::Builder;
use crate::prices::card::{ContextTier, Rates, Table};
use crate::prices::list::{Object, count};

/// Price lists by the range of input tokens.
pub(super) const TIERED_PRICING: &str = "tiered_pricing";

/// From how many input tokens on such a list applies, and to how many.
const RANGE: &str = "range";

/// What names of prices end with, and the service tiers that it means.
const TIERS: [(&str, &str); 6] = [
    ("_batches", "batch"),
    ("_flex", "flex"),
    ("_priority", "priority"),
    ("_ultrafast", "ultrafast"),
    ("_fast", "fast"),
    ("_balanced", "balanced"),
];

/// The prices of a model by service tier and threshold; 0 is no threshold.
#[derive(Default)]
pub(super) struct Prices(BTreeMap<(Option<&'static str>, u64), Rates>);

/// A member that is a price of a kind of tokens.
pub(super) struct Name {
    pub(super) kind: TokenKind,
    pub(super) service_tier: Option<&'static str>,
    pub(super) above: u64,
}

impl Name {
    /// Reads names such as `input_cost_per_token` and
    /// `cache_creation_input_token_cost_above_1hr_above_200k_tokens_batches`.
    pub(super) fn parse(name: &str) -> Option<Self> {
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
            "input_cost_per_video_token" => TokenKind::InputVideo,
            "cache_read_input_image_token_cost" => TokenKind::CacheReadImage,
            "output_cost_per_video_token" => TokenKind::OutputVideo,
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
    /// Reads the prices of tokens.
    pub(super) fn read(
        listed: &str,
        model: &Object,
        builder: &mut Builder<'_>,
    ) -> anyhow::Result<Self> {
        let mut prices = Self::default();
        for (name, value) in model.iter() {
            if let Some(Name { kind, service_tier, above }) = Name::parse(name)
                && let Some(rate) = builder.price_of_million(listed, name, value, 0)?
            {
                prices.0.entry((service_tier, above)).or_default().insert(kind, rate);
            }
        }
        if let Some(tiers) = model.read::<Vec<Object>>(TIERED_PRICING)? {
            prices.read_tiers(&tiers, listed, builder).context(TIERED_PRICING)?;
        }
        prices.price_images_only();
        Ok(prices)
    }

    /// Reads price lists by the range of input tokens, which go before all others.
    fn read_tiers(
        &mut self,
        tiers: &[Object],
        listed: &str,
        builder: &mut Builder<'_>,
    ) -> anyhow::Result<()> {
        let mut read: Vec<(u64, Rates)> = Vec::new();
        for tier in tiers {
            let Some(range) = tier.read::<Vec<Box<RawValue>>>(RANGE)? else {
                builder.leave_out_price(TIERED_PRICING, "not by input tokens", listed);
                return Ok(());
            };
            let above = count(range.first().context("range: expected two numbers")?)?;
            let mut rates = Rates::new();
            for (name, value) in tier.iter().filter(|(name, _)| *name != RANGE) {
                let member = format!("{TIERED_PRICING}.{name}");
                let Some(Name { kind, service_tier: None, above: 0 }) = Name::parse(name) else {
                    builder.leave_out_price(&member, "no kind of tokens in a card", listed);
                    continue;
                };
                if let Some(rate) = builder.price_of_million(listed, &member, value, 0)? {
                    rates.insert(kind, rate);
                }
            }
            if !rates.contains_key(&TokenKind::Input) {
                builder.leave_out_price(TIERED_PRICING, "without a price of input", listed);
                return Ok(());
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
                    | TokenKind::CacheReadImage
                    | TokenKind::InputVideo
                    | TokenKind::OutputAudio
                    | TokenKind::OutputImage
                    | TokenKind::OutputVideo => standard.get(&kind).copied(),
                };
                if let Some(instead) = instead {
                    rates.entry(kind).or_insert(instead);
                }
            }
            self.0.insert((None, above), rates);
        }
        Ok(())
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

    /// Lets thresholds be the first count of the tier and not the last one below it.
    pub(super) fn begin_earlier(&mut self) {
        let prices = std::mem::take(&mut self.0);
        self.0.extend(
            prices
                .into_iter()
                .map(|((tier, above), rates)| ((tier, above.saturating_sub(1)), rates)),
        );
    }

    /// All of it in the form of a card.
    pub(super) fn table(&self) -> Table {
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
