//! What a generation used beside tokens, such as searches, images and seconds, and the sums of it.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::event::members::Members;
use crate::money;

/// Quantities by the name of their unit, which may have a variant behind it, such as
/// `output_images:hd`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Units(BTreeMap<String, Decimal>);

impl Units {
    /// True if there is nothing beside tokens.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each unit with its quantity, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Decimal)> {
        self.0.iter().map(|(name, quantity)| (name.as_str(), *quantity))
    }

    /// Reads the member `units` of an event; an error begins with the path of the member.
    pub(crate) fn read(units: &Members<'_>) -> Result<Units, String> {
        let mut read = BTreeMap::new();
        for name in units.object.keys() {
            read.insert(name.clone(), units.money(name)?);
        }
        Ok(Units(read))
    }

    /// The quantities as decimal strings.
    pub(crate) fn to_json(&self) -> String {
        // Strings by string keys: there is nothing that can fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Adds the quantities of `other`, as [`money::sum`] does.
    pub(crate) fn add(&mut self, other: Units) {
        for (name, quantity) in other.0 {
            let sum = self.0.entry(name).or_default();
            *sum = money::sum(*sum, quantity);
        }
    }
}

impl FromIterator<(String, Decimal)> for Units {
    fn from_iter<I: IntoIterator<Item = (String, Decimal)>>(units: I) -> Units {
        Units(units.into_iter().collect())
    }
}

impl Serialize for Units {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.0.len()))?;
        for (name, quantity) in &self.0 {
            map.serialize_entry(name, &quantity.normalize().to_string())?;
        }
        map.end()
    }
}
