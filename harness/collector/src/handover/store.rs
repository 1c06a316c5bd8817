//! Asks the ledger for what sinks need, each time on one snapshot.

use crate::ledger::Ledger;
use crate::ledger::handover::{self, Page, Progress, SetAsideEvent, Settled, SinkState, Stored};

pub(super) fn open(ledger: &Ledger, sink: &str, from_first: bool) -> anyhow::Result<Progress> {
    ledger.write(|ledger| handover::open(ledger, sink, from_first))
}

pub(super) fn page(ledger: &Ledger, after: i64) -> anyhow::Result<Page> {
    ledger.read(|ledger| handover::page(ledger, after))
}

pub(super) fn again(ledger: &Ledger, sink: &str) -> anyhow::Result<Page> {
    ledger.read(|ledger| handover::again(ledger, sink))
}

pub(super) fn position_of(
    ledger: &Ledger,
    source: &str,
    sequence: i64,
) -> anyhow::Result<Option<i64>> {
    ledger.read(|ledger| handover::position_of(ledger, source, sequence))
}

pub(super) fn superseded_by(
    ledger: &Ledger,
    session_id: &str,
    source: &str,
    sequence: i64,
    between: (i64, i64),
) -> anyhow::Result<Vec<Stored>> {
    ledger.read(|ledger| handover::superseded_by(ledger, session_id, source, sequence, between))
}

pub(super) fn settle(ledger: &Ledger, sink: &str, settled: &Settled) -> anyhow::Result<()> {
    let now_ms = ledger.now_ms();
    ledger.write(|ledger| handover::settle(ledger, sink, settled, now_ms))
}

impl Ledger {
    /// The sinks that the ledger knows, also those that are no longer configured.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn sinks(&self) -> anyhow::Result<Vec<SinkState>> {
        self.read(handover::sinks)
    }

    /// The events that a sink set aside, with a position behind `after`, at most `limit`.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn set_aside(
        &self,
        sink: &str,
        after: i64,
        limit: u32,
    ) -> anyhow::Result<Vec<SetAsideEvent>> {
        self.read(|ledger| handover::set_aside(ledger, sink, after, limit))
    }

    /// Has a sink send an event again that it set aside; `None` stands for all of them. Returns how
    /// many there are.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn send_again(&self, sink: &str, position: Option<i64>) -> anyhow::Result<usize> {
        self.write(|ledger| handover::send_again(ledger, sink, position))
    }
}
