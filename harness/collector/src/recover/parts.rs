//! Joins the parts of texts that were too long for one line.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use anyhow::ensure;

use super::input::Place;
use super::line::{Kind, Part, first_json, id_of};

/// The most bytes of parts whose texts are not complete.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a part takes besides its text, about.
const PIECE_BYTES: usize = 200;

/// Texts of which parts are missing.
#[derive(Debug, Default)]
pub(super) struct Parts {
    open: BTreeMap<(Kind, String, u32), Open>,
    bytes: usize,
    /// Counts the texts, so that the oldest can be found.
    begun: u64,
}

#[derive(Debug)]
struct Open {
    number: u64,
    place: Place,
    /// For how many calls of [`Parts::finish`] it has waited.
    rounds: u32,
    pieces: BTreeMap<u32, String>,
}

impl Open {
    fn bytes(&self) -> usize {
        self.pieces.values().map(|piece| piece.len() + PIECE_BYTES).sum()
    }
}

impl Parts {
    /// Adds a part; gives the whole text with the last one that was missing.
    ///
    /// # Errors
    ///
    /// If the parts do not make up the text that each of them names.
    pub(super) fn add(
        &mut self,
        place: &Place,
        kind: Kind,
        part: &Part,
        text: String,
    ) -> anyhow::Result<Option<String>> {
        let key = (kind, part.of.clone(), part.count);
        self.begun += 1;
        let number = self.begun;
        let open = self.open.entry(key.clone()).or_insert_with(|| Open {
            number,
            place: place.clone(),
            rounds: 0,
            pieces: BTreeMap::new(),
        });
        if let Entry::Vacant(piece) = open.pieces.entry(part.number) {
            self.bytes += text.len() + PIECE_BYTES;
            piece.insert(text);
        }
        if open.pieces.len() as u64 != u64::from(part.count) {
            return Ok(None);
        }
        let Some(open) = self.open.remove(&key) else { return Ok(None) };
        self.bytes -= open.bytes();
        let whole: String = open.pieces.into_values().collect();
        ensure!(
            id_of(&whole) == part.of,
            "damaged: the {} parts of {} do not make up the {} that they name",
            part.count,
            part.of,
            kind.name()
        );
        ensure!(first_json(kind, &whole)?.len() == whole.len(), "damaged: text behind the JSON");
        Ok(Some(whole))
    }

    /// The places at which texts begin that are not complete.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.open.values().map(|open| &open.place)
    }

    /// Gives up the oldest texts for which there is no room, with a reason for each.
    pub(super) fn shed(&mut self) -> Vec<String> {
        let mut missing = Vec::new();
        while self.bytes > BYTES_MAX {
            let oldest = self.open.iter().min_by_key(|(_, open)| open.number);
            let Some(key) = oldest.map(|(key, _)| key.clone()) else { break };
            missing.extend(self.give_up(&key));
        }
        missing
    }

    /// Gives up what has waited for this many calls of [`Self::finish`], with a reason for each.
    pub(super) fn finish(&mut self, rounds: u32) -> Vec<String> {
        let mut over = Vec::new();
        for (key, open) in &mut self.open {
            if open.rounds >= rounds {
                over.push(key.clone());
            }
            open.rounds += 1;
        }
        over.iter().filter_map(|key| self.give_up(key)).collect()
    }

    fn give_up(&mut self, key: &(Kind, String, u32)) -> Option<String> {
        let open = self.open.remove(key)?;
        self.bytes -= open.bytes();
        let (kind, of, count) = key;
        let missing = (1..=*count).filter(|number| !open.pieces.contains_key(number));
        let missing: Vec<String> = missing.take(8).map(|number| number.to_string()).collect();
        Some(format!(
            "{}: {} {of} is incomplete: part {} of {count} is missing",
            open.place,
            kind.name(),
            missing.join(", ")
        ))
    }
}
