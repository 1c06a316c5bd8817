//! The prices of units beside tokens in LiteLLM's list.

use agent_meter_core::domain::units::UnitName;
use agent_meter_core::domain::usage::TokenKind;
use anyhow::Context;
use rust_decimal::Decimal;
use serde_json::value::RawValue;

use super::hours::OFF_PEAK;
use super::images::Decorated;
use super::tokens::{Name, TIERED_PRICING};
use crate::prices::builder::Builder;
use crate::prices::card::Table;
use crate::prices::list::{Object, PLACES_MAX};

/// The price of a search, by the size of its context.
const SEARCH: &str = "search_context_cost_per_query";

/// The prices of a guardrail, by policy.
const GUARDRAIL: &str = "guardrail_cost_per_unit";

/// The price of a container for code.
const SESSION: &str = "code_interpreter_cost_per_session";

/// The end of a member that is for batches.
const BATCHES: &str = "_batches";

/// Members with other endings than those that [`Reader::unit`] knows, which are sizes.
const SIZED: [&str; 2] = ["output_cost_per_second_", "output_cost_per_image_"];

/// Further members that are units in some entries.
const READ: [&str; 21] = [
    SEARCH,
    GUARDRAIL,
    SESSION,
    "google_maps_grounding_cost_per_query",
    "web_search_billing_unit",
    "input_cost_per_query",
    "output_cost_per_image",
    "input_cost_per_image",
    "input_cost_per_pixel",
    "input_cost_per_second",
    "output_cost_per_second",
    "output_cost_per_video_per_second",
    "input_cost_per_video_per_second",
    "input_cost_per_audio_per_second",
    "input_cost_per_character",
    "output_cost_per_character",
    "ocr_cost_per_page",
    "annotation_cost_per_page",
    "file_search_cost_per_1k_calls",
    "citation_cost_per_token",
    "input_cost_per_request",
];

/// Whether a member is read here, or named as left out.
pub(super) fn is_read(name: &str) -> bool {
    let name = name.strip_suffix(BATCHES).unwrap_or(name);
    READ.contains(&name) || size(name).is_some()
}

/// Whether an entry prices units of all models of its seller: it has no price of anything else,
/// which would be one of all models too.
pub(super) fn is_general(model: &Object) -> bool {
    let is_price = |name: &str| {
        is_read(name) || Name::parse(name).is_some() || matches!(name, TIERED_PRICING | OFF_PEAK)
    };
    let mut prices = model.iter().filter(|(name, value)| is_price(name) && value.get() != "null");
    let mut has_price = false;
    prices.all(|(name, _)| {
        has_price = true;
        matches!(name, SESSION | GUARDRAIL)
    }) && has_price
}

/// The member without a size behind it, and the size.
fn size(name: &str) -> Option<(&str, String)> {
    let prefix = SIZED.into_iter().find(|prefix| name.starts_with(prefix))?;
    let size = name.strip_prefix(prefix)?;
    let is_size = size.bytes().next().is_some_and(|byte| byte.is_ascii_digit());
    is_size.then(|| (prefix.trim_end_matches('_'), size.to_ascii_lowercase()))
}

/// Reads the units of one entry.
pub(super) struct Reader<'a> {
    /// The entry's name.
    pub(super) listed: &'a str,
    /// What the model does.
    pub(super) mode: &'a str,
    /// The list's name of the seller.
    pub(super) provider: &'a str,
    pub(super) model: &'a Object,
    pub(super) decorated: &'a Decorated,
}

impl Reader<'_> {
    pub(super) fn read(&self, table: &mut Table, builder: &mut Builder<'_>) -> anyhow::Result<()> {
        for (member, value) in self.model.iter() {
            match member {
                SEARCH => self.read_searches(table, builder)?,
                GUARDRAIL => self.read_guardrails(table, builder)?,
                _ => {}
            }
            let (bare, is_batch) = match member.strip_suffix(BATCHES) {
                Some(bare) => (bare, true),
                None => (member, false),
            };
            let (bare, size) = size(bare).map_or((bare, None), |(bare, size)| (bare, Some(size)));
            if !READ.contains(&bare)
                || matches!(bare, SEARCH | GUARDRAIL | "web_search_billing_unit")
            {
                continue;
            }
            let Some(rate) = self.price(bare, member, value, builder)? else { continue };
            let unit = match self.unit(bare, table) {
                Ok(unit) => unit,
                Err(reason) => {
                    builder.leave_out_price(member, reason, self.listed);
                    continue;
                }
            };
            let name = size.map_or(unit.to_owned(), |size| format!("{unit}:{size}"));
            let units = if is_batch {
                &mut table.service_tiers.entry("batch").or_default().units
            } else {
                &mut table.units
            };
            put(units, name, rate, member, self.listed, builder);
        }
        let dearest_video = dearest(table, "output_video_seconds:");
        if let Some(dearest) = dearest_video {
            table.units.entry("output_video_seconds".to_owned()).or_insert(dearest);
        }
        if let Some(dearest) = dearest(table, "output_images:") {
            table.units.entry("output_images".to_owned()).or_insert(dearest);
        }
        Ok(())
    }

    /// The price of one unit of a member; `None` if it is zero or null.
    fn price(
        &self,
        bare: &str,
        member: &str,
        value: &RawValue,
        builder: &mut Builder<'_>,
    ) -> anyhow::Result<Option<Decimal>> {
        let rate = match (bare, self.decorated.pixels) {
            ("input_cost_per_pixel", Some(pixels)) => {
                let rate = builder.price_of_million(self.listed, member, value, 0)?;
                let megapixels = Decimal::new(i64::try_from(pixels)?, 6);
                let product = rate.map(|rate| rate.checked_mul(megapixels).context("too large"));
                product.transpose()?.map(|rate| rate.round_dp(PLACES_MAX).normalize())
            }
            ("file_search_cost_per_1k_calls", _) => {
                builder.price_of_one(self.listed, member, value, 3)?
            }
            _ => builder.price_of_one(self.listed, member, value, 0)?,
        };
        Ok(rate.filter(|rate| !rate.is_zero()))
    }

    /// The unit of a member in this entry, or why it has none.
    fn unit(&self, member: &str, table: &Table) -> Result<&'static str, &'static str> {
        use TokenKind::{Input, InputAudio, InputImage, Output, OutputAudio, OutputImage};
        const TWICE: &str = "beside the price of the same tokens, which is taken";
        let mode = self.mode;
        let is_image = matches!(mode, "image_generation" | "image_edit");
        let is_embedding = mode == "embedding";
        let charges = |kinds: &[TokenKind]| kinds.iter().any(|kind| table.charges(*kind));
        let unless = |kinds: &[TokenKind], unit| if charges(kinds) { Err(TWICE) } else { Ok(unit) };
        let makes_images = || {
            let member = self.model.get("output_cost_per_image");
            member.is_some_and(|value| value.get().parse::<f64>().is_ok_and(|price| price > 0.0))
        };
        match member {
            SESSION => Ok("code_sessions"),
            "google_maps_grounding_cost_per_query" => Ok("maps_queries"),
            "file_search_cost_per_1k_calls" => Ok("file_searches"),
            "citation_cost_per_token" => Ok("citation_tokens"),
            "input_cost_per_request" => Ok("requests"),
            "ocr_cost_per_page" => Ok("pages"),
            "annotation_cost_per_page" => Ok("annotated_pages"),
            "input_cost_per_query" if mode == "rerank" => Ok("search_units"),
            "input_cost_per_query" if mode == "search" => Ok("requests"),
            "input_cost_per_query" => Err("for a query of another unit"),
            "input_cost_per_image" if is_image && !makes_images() => {
                unless(&[Input, Output, OutputImage], "output_images")
            }
            "input_cost_per_image" if is_embedding => unless(&[InputImage], "input_images"),
            "input_cost_per_image" => unless(&[Input, InputImage], "input_images"),
            "input_cost_per_pixel" if self.decorated.pixels.is_some() && !makes_images() => {
                // The list has some of these prices twice, by the image too.
                if self.model.get("input_cost_per_image").is_some() {
                    return Err("the same price, for an image");
                }
                unless(&[Input, Output, OutputImage], "output_images")
            }
            "input_cost_per_pixel" => Err("for a pixel, without a size"),
            "output_cost_per_image" => unless(&[Output, OutputImage], "output_images"),
            "output_cost_per_video_per_second" => unless(&[Output], "output_video_seconds"),
            "input_cost_per_video_per_second" if is_embedding => Ok("input_video_seconds"),
            "input_cost_per_video_per_second" => unless(&[Input], "input_video_seconds"),
            "input_cost_per_audio_per_second" if is_embedding => {
                unless(&[InputAudio], "input_audio_seconds")
            }
            "input_cost_per_audio_per_second" => {
                unless(&[Input, InputAudio], "input_audio_seconds")
            }
            "input_cost_per_character" => unless(&[Input], "input_characters"),
            "output_cost_per_character" => unless(&[Output], "output_characters"),
            "input_cost_per_second" => match mode {
                "audio_transcription" | "realtime" | "audio_speech" | "" => {
                    unless(&[Input, InputAudio], "input_audio_seconds")
                }
                _ => unless(&[Input], "compute_seconds"),
            },
            "output_cost_per_second" => match mode {
                "video_generation" => unless(&[Output], "output_video_seconds"),
                // Of the audio that is transcribed.
                "audio_transcription" => unless(&[Input, InputAudio], "input_audio_seconds"),
                "realtime" | "audio_speech" => {
                    unless(&[Output, OutputAudio], "output_audio_seconds")
                }
                _ => unless(&[Output], "compute_seconds"),
            },
            _ => Err("no unit of a card"),
        }
    }

    /// Searches of the web. Gemini 2 bills requests that search, Perplexity's own models each
    /// request by the size of its search.
    fn read_searches(&self, table: &mut Table, builder: &mut Builder<'_>) -> anyhow::Result<()> {
        let Some(sizes) = self.model.read::<Object>(SEARCH)? else { return Ok(()) };
        let mut rates: Vec<(String, Decimal)> = Vec::new();
        for (name, value) in sizes.iter() {
            let member = format!("{SEARCH}.{name}");
            let Some(size) = name.strip_prefix("search_context_size_") else {
                builder.leave_out_price(&member, "no size that the import knows", self.listed);
                continue;
            };
            if let Some(rate) = builder.price_of_one(self.listed, &member, value, 0)? {
                rates.push((size.to_owned(), rate));
            }
        }
        let model = &self.decorated.model;
        let billed = self.model.read::<String>("web_search_billing_unit")?;
        let bare = model.rsplit('/').next().unwrap_or_default();
        let is_gemini = self.provider == "gemini" || bare.starts_with("gemini");
        let unit = if self.provider == "perplexity"
            && model.starts_with("sonar")
            && self.model.get("citation_cost_per_token").is_none()
        {
            "requests"
        } else if billed.as_deref() == Some("per_prompt") || (is_gemini && billed.is_none()) {
            "searched_requests"
        } else {
            "web_searches"
        };
        let medium = rates.iter().find(|(size, _)| size == "medium").or(rates.first());
        let Some((_, standard)) = medium.cloned() else { return Ok(()) };
        for (size, rate) in rates.iter().filter(|(_, rate)| *rate != standard) {
            if unit == "searched_requests" {
                let member = format!("{SEARCH}.search_context_size_{size}");
                let reason = "by the size of a search, which is not told; that of medium is taken";
                builder.leave_out_price(&member, reason, self.listed);
            } else {
                table.units.insert(format!("{unit}:{size}"), *rate);
            }
        }
        table.units.insert(unit.to_owned(), standard);
        Ok(())
    }

    fn read_guardrails(&self, table: &mut Table, builder: &mut Builder<'_>) -> anyhow::Result<()> {
        for (name, value) in self.model.read::<Object>(GUARDRAIL)?.unwrap_or_default().iter() {
            let member = format!("{GUARDRAIL}.{name}");
            if let Some(rate) = builder.price_of_one(self.listed, &member, value, 0)? {
                let unit = format!("guardrail_units:{}", name.to_ascii_lowercase());
                put(&mut table.units, unit, rate, &member, self.listed, builder);
            }
        }
        Ok(())
    }
}

/// The dearest of units with variants whose names begin so.
fn dearest(table: &Table, prefix: &str) -> Option<Decimal> {
    let named = table.units.iter().filter(|(name, _)| name.starts_with(prefix));
    named.map(|(_, rate)| *rate).max()
}

/// Takes a price of a unit, unless the unit has another one.
fn put(
    units: &mut crate::prices::card::Units,
    name: String,
    rate: Decimal,
    member: &str,
    listed: &str,
    builder: &mut Builder<'_>,
) {
    if UnitName::parse(&name).is_none() {
        builder.leave_out_price(member, "a variant with a name that is too long", listed);
        return;
    }
    if let Some(other) = units.get(&name).copied() {
        if other != rate {
            let reason = "another price of the same unit, which is taken";
            builder.leave_out_price(member, reason, listed);
        }
        return;
    }
    units.insert(name, rate);
}
