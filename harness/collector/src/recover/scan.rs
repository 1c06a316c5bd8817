//! Turns the lines of logs into events and facts: recognises, checks, joins.

use std::collections::HashMap;
use std::sync::Arc;

use super::carrier::{Carrier, Found};
use super::input::Place;
use super::line::{Kind, Line, Proof, first_json};
use super::logger::{Format, Logger};
use super::parts::Parts;
use super::summary::Recovered;
use crate::access::SharedSecret;

/// Reads lines of any number of logs.
#[derive(Debug)]
pub(super) struct Scan {
    logger: Logger,
    secrets: Vec<SharedSecret>,
    carriers: HashMap<Arc<str>, Carrier>,
    parts: Parts,
}

/// An event or a fact, as JSON text, byte for byte as the filter wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spilled {
    Event(String),
    Fact(String),
}

impl Scan {
    pub(super) fn new(secrets: Vec<SharedSecret>, formats: &[Format]) -> Self {
        Self {
            logger: Logger::new(formats),
            secrets,
            carriers: HashMap::new(),
            parts: Parts::default(),
        }
    }

    /// Reads a line; gives what is complete by it, and notes in the summary what is not usable.
    pub(super) fn read(
        &mut self,
        place: &Place,
        line: &[u8],
        summary: &mut Recovered,
    ) -> Vec<Spilled> {
        let carrier = match self.carriers.get_mut(&place.log) {
            Some(carrier) => carrier,
            None => self.carriers.entry(Arc::clone(&place.log)).or_default(),
        };
        let found = carrier.read(&self.logger, place, line);
        found.into_iter().filter_map(|found| self.take(found, summary)).collect()
    }

    /// Ends a log: what it has cut stays so.
    pub(super) fn end_log(&mut self, log: &Arc<str>, summary: &mut Recovered) {
        if let Some(mut carrier) = self.carriers.remove(log) {
            for found in carrier.finish() {
                self.take(found, summary);
            }
        }
    }

    /// Goes on with `next` where `log` ends: it may hold the rest of a line.
    pub(super) fn continue_log(&mut self, log: &Arc<str>, next: &Arc<str>) {
        if let Some(carrier) = self.carriers.remove(log) {
            self.carriers.insert(Arc::clone(next), carrier);
        }
    }

    /// Gives up the texts whose other parts did not come within this many calls.
    pub(super) fn end_parts(&mut self, rounds: u32, into: &mut Recovered) {
        for reason in self.parts.finish(rounds) {
            into.unreadable.push(reason);
        }
    }

    /// The first byte of a log that is needed for what is not complete yet.
    pub(super) fn needed_from(&self, log: &Arc<str>) -> Option<u64> {
        let cut = self.carriers.values().flat_map(Carrier::places);
        let places = self.parts.places().chain(cut).filter(|place| place.log == *log);
        places.map(|place| place.offset).min()
    }

    fn take(&mut self, found: Found, summary: &mut Recovered) -> Option<Spilled> {
        match found {
            Found::Spilled(place, line) => {
                summary.lines += 1;
                self.take_line(&place, &line, summary).unwrap_or_else(|error| {
                    summary.unreadable.push(format!("{place}: {error:#}"));
                    None
                })
            }
            Found::Foreign(place) => {
                summary.foreign.push(place.to_string());
                None
            }
            Found::Cut(place) => {
                summary.lines += 1;
                summary.unreadable.push(format!("{place}: cut: the rest of the line did not come"));
                None
            }
        }
    }

    fn take_line(
        &mut self,
        place: &Place,
        line: &[u8],
        summary: &mut Recovered,
    ) -> anyhow::Result<Option<Spilled>> {
        let line = Line::parse(line)?;
        match line.check(&self.secrets) {
            Some(Proof::Valid) => {}
            Some(Proof::Unsigned) => {
                summary.untrusted.push(format!("{place}: unsigned"));
                return Ok(None);
            }
            Some(Proof::Forged) => {
                summary.untrusted.push(format!("{place}: forged, or signed with another secret"));
                return Ok(None);
            }
            None => summary.unchecked += u64::from(line.is_signed()),
        }
        let Line { kind, part, text, .. } = line;
        let text = match part {
            None => Some(text),
            Some(part) => self.parts.add(place, kind, &part, text)?,
        };
        for reason in self.parts.shed() {
            summary.unreadable.push(reason);
        }
        let Some(text) = text else { return Ok(None) };
        first_json(kind, &text)?;
        Ok(Some(match kind {
            Kind::Event => Spilled::Event(text),
            Kind::Fact => Spilled::Fact(text),
        }))
    }
}
