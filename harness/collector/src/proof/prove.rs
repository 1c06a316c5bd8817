//! Proofs that an event is in the ledger as it is, for customers: they need the public key, and no
//! ledger.

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::hex::{hex, unhex};
use crate::ledger::Ledger;
use crate::ledger::digest::Fields;
use crate::proof::key::PublicKey;
use crate::proof::merkle::{path, root_of_path};
use crate::proof::seal::{ROOTS, Root};
use crate::sql::{self, Row, values};

/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// What proves that an event is under a signed root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The event, as the ledger has it.
    event: Fields,
    /// The place of the event among those of the root, from 0.
    index: u64,
    /// The hashes beside the way from the event to the root, one behind the other, in base64.
    path: String,
    /// What was signed.
    statement: String,
    /// In base64.
    signature: String,
}

impl Ledger {
    /// Proves the event with this id. The source is needed where several have it.
    ///
    /// # Errors
    ///
    /// If there is no such event, or several, if no root covers it yet, or if the ledger fails.
    pub fn prove(&self, id: &str, source: Option<&str>) -> anyhow::Result<Proof> {
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(&format!(
                "{FIELDS} WHERE events.id = ?1 AND (CAST(?2 AS TEXT) IS NULL OR events.source = ?2)
                 LIMIT 2"
            ))?;
            let found = statement.query_map(values![id, source], of_row)?;
            ensure!(found.len() < 2, "several sources have an event {id}: name the source");
            let (position, _, event) = found.into_iter().next().with_context(|| {
                format!(
                    "no event {id} in the ledger{}",
                    if source.is_some() { " of this source" } else { "" }
                )
            })?;
            let covers = format!("{ROOTS} WHERE first <= ?1 AND last >= ?1");
            let root =
                ledger.prepare_cached(&covers)?.query_optional(values![position], Root::of_row)?;
            let root =
                root.context("no root covers the event yet: `agent-meter seal` signs one")?;
            let mut statement = ledger.prepare_cached(
                "SELECT position, digest FROM events
                 WHERE position BETWEEN ? AND ? AND digest IS NOT NULL ORDER BY position",
            )?;
            let leaves: Vec<(i64, String)> = statement
                .query_map(values![root.first, root.last], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let index = leaves.iter().position(|(other, _)| *other == position);
            let index = index.context("the event was stored before there were digests")?;
            let leaves: Vec<String> = leaves.into_iter().map(|(_, digest)| digest).collect();
            let path = path(&leaves, index).context("a digest that is none")?.concat();
            let path = STANDARD.encode(unhex(path.as_bytes()).context("a digest that is none")?);
            let (statement, signature) = (root.statement(), root.signature);
            Ok(Proof { event, index: u64::try_from(index)?, path, statement, signature })
        })
    }
}

impl Proof {
    /// Checks the proof, and returns the event as it came.
    ///
    /// # Errors
    ///
    /// Says what does not hold.
    pub fn check(&self, key: &PublicKey) -> anyhow::Result<&str> {
        ensure!(
            key.has_signed(&self.statement, &self.signature),
            "the statement is not signed with this key"
        );
        let line = |name: &str| {
            let mut lines = self.statement.lines().filter_map(|line| line.split_once(' '));
            lines.find(|(found, _)| *found == name).map(|(_, value)| value)
        };
        let leaves = line("events").and_then(|count| count.parse().ok());
        let leaves: u64 = leaves.context("the statement names no number of events")?;
        let path = STANDARD.decode(&self.path).context("the path is not base64")?;
        let path: Vec<String> = path.chunks(HASH_BYTES).map(hex).collect();
        let root = root_of_path(&self.event.digest(), self.index, leaves, &path);
        ensure!(root.as_deref() == line("root"), "the event is not under the signed root");
        Ok(&self.event.text)
    }
}

/// Selects what has a digest of an event: see [`of_row`].
pub(super) const FIELDS: &str = "SELECT events.position, events.digest, events.source, events.id,
    events.received_at, events.type, events.time, events.subject, events.sequence,
    CASE WHEN events.raw <> '' THEN events.raw ELSE coalesce(quarantine.raw, '') END, events.raw
    FROM events LEFT JOIN quarantine ON quarantine.position = events.position";

/// The position, the stored digest, and the fields.
pub(super) fn of_row(row: &Row<'_>) -> sql::Result<(i64, Option<String>, Fields)> {
    let fields = Fields {
        source: row.get(2)?,
        id: row.get(3)?,
        received_at: row.get(4)?,
        event_type: row.get(5)?,
        time: row.get(6)?,
        subject: row.get(7)?,
        sequence: row.get(8)?,
        text: row.get(9)?,
    };
    Ok((row.get(0)?, row.get(1)?, fields))
}
