//! Images in LiteLLM's list: their size and quality stand before the model's name, in entries of
//! their own, such as `hd/1024-x-1024/dall-e-3`. A card has them as variants of one model's unit.

use std::collections::BTreeMap;

use agent_meter_core::domain::seller::Seller;
use rust_decimal::Decimal;

use crate::prices::builder::{Builder, Model};

/// The unit.
const IMAGES: &str = "output_images";

/// Words of quality that stand before names.
const QUALITIES: [&str; 8] =
    ["hd", "standard", "low", "medium", "high", "xhigh", "auto", "premium"];

/// A name of the list, without what stands before it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Decorated {
    /// The model.
    pub(super) model: String,
    /// Quality, size and steps, as far as they are named.
    words: [Option<String>; 3],
    /// The pixels of the size.
    pub(super) pixels: Option<u64>,
}

impl Decorated {
    pub(super) fn parse(name: &str, prefix: &str, mode: &str) -> Self {
        let bare = name.strip_prefix(prefix).unwrap_or(name);
        let mut found = Self::default();
        let is_image = matches!(mode, "image_generation" | "image_edit");
        let mut rest = bare;
        while is_image && let Some((first, behind)) = rest.split_once('/') {
            let size = first.split_once("-x-");
            let place = if QUALITIES.contains(&first) {
                0
            } else if size.is_some() {
                1
            } else if first.ends_with("-steps") {
                2
            } else {
                break;
            };
            if let Some((width, height)) = size
                && let (Ok(width), Ok(height)) = (width.parse::<u64>(), height.parse::<u64>())
            {
                found.pixels = width.checked_mul(height);
            }
            found.words[place] = Some(first.replace("-x-", "x"));
            rest = behind.strip_prefix(prefix).unwrap_or(behind);
        }
        found.model = rest.to_owned();
        found
    }

    /// The name of the unit with this variant.
    fn unit(&self) -> Option<String> {
        let words: Vec<&str> = self.words.iter().flatten().map(String::as_str).collect();
        (!words.is_empty()).then(|| format!("{IMAGES}:{}", words.join(":")))
    }
}

/// Entries by seller and name, of models that have such variants or may have them.
#[derive(Default)]
pub(super) struct Images {
    variants: BTreeMap<(Seller, String), Vec<(String, Model)>>,
    others: Vec<Model>,
}

impl Images {
    /// Takes an entry.
    pub(super) fn take(&mut self, decorated: &Decorated, model: Model, builder: &mut Builder<'_>) {
        let Some(unit) = decorated.unit() else {
            self.others.push(model);
            return;
        };
        if !model.table.units.contains_key(IMAGES) {
            builder.leave_out("no price of images of this size or quality", &model.listed);
            return;
        }
        let name = model.names.first().cloned().unwrap_or_default();
        self.variants.entry((model.provider, name)).or_default().push((unit, model));
    }

    /// Gives each model its variants.
    pub(super) fn finish(mut self, builder: &mut Builder<'_>) {
        for mut model in self.others {
            let name = model.names.first().cloned().unwrap_or_default();
            if let Some(variants) = self.variants.remove(&(model.provider, name)) {
                if model.table.is_empty() || model.table.units.contains_key(IMAGES) {
                    add(&mut model, variants);
                } else {
                    for (_, variant) in variants {
                        let reason = "images beside the price of their tokens, which is taken";
                        builder.leave_out(reason, &variant.listed);
                    }
                }
            }
            builder.push(model);
        }
        for variants in self.variants.into_values() {
            let Some((_, first)) = variants.first() else { continue };
            let mut model = first.clone();
            model.table.units.clear();
            add(&mut model, variants);
            builder.push(model);
        }
    }
}

/// Adds variants. Images of which neither size nor quality is told cost as much as the dearest, if
/// the model has no price without them.
fn add(model: &mut Model, variants: Vec<(String, Model)>) {
    let units = &mut model.table.units;
    for (unit, variant) in variants {
        if let Some(rate) = variant.table.units.get(IMAGES) {
            units.insert(unit, *rate);
        }
    }
    let dearest: Option<Decimal> = units.values().max().copied();
    if let Some(dearest) = dearest {
        units.entry(IMAGES.to_owned()).or_insert(dearest);
    }
}
