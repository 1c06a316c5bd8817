//! Signs roots: what all events since the last one come to.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::hex::hex;
use crate::ledger::Ledger;
use crate::proof::key::SigningKey;
use crate::proof::merkle::Tree;
use crate::query::rfc3339;
use crate::sql::{self, Row, Transaction, values};

/// A signed root of the events in a range of positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Root {
    /// From 1.
    pub number: i64,
    /// The positions of the first and the last event.
    pub first: i64,
    /// The position of the last event.
    pub last: i64,
    /// How many events have a digest.
    pub events: i64,
    /// 64 hexadecimal digits.
    pub root: String,
    /// The hash of the statement of the root before; empty for the first.
    pub previous: String,
    /// RFC 3339, UTC.
    pub sealed_at: String,
    /// Which key signed it.
    pub key_id: String,
    /// Of the statement, in base64.
    pub signature: String,
}

pub(super) const ROOTS: &str = "SELECT number, first, last, events, root, previous, sealed_at,
    key_id, signature FROM roots";

impl Root {
    /// The text that is signed.
    pub fn statement(&self) -> String {
        let Root { number, first, last, events, root, previous, sealed_at, .. } = self;
        format!(
            "agent-meter root v1\nnumber {number}\nfirst {first}\nlast {last}\nevents {events}\n\
             root {root}\nprevious {previous}\nsealed_at {sealed_at}\n"
        )
    }

    /// The hash that the next root names.
    pub(super) fn statement_hash(&self) -> String {
        hex(&Sha256::digest(self.statement()))
    }

    pub(super) fn of_row(row: &Row<'_>) -> sql::Result<Root> {
        Ok(Root {
            number: row.get(0)?,
            first: row.get(1)?,
            last: row.get(2)?,
            events: row.get(3)?,
            root: row.get(4)?,
            previous: row.get(5)?,
            sealed_at: row.get(6)?,
            key_id: row.get(7)?,
            signature: row.get(8)?,
        })
    }
}

impl Ledger {
    /// The last signed root.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn last_root(&self) -> anyhow::Result<Option<Root>> {
        self.read(|ledger| Ok(last_root(ledger)?))
    }

    /// Signs a root of all events since the last one; `None` if there are none, or if another
    /// program has just done it.
    ///
    /// # Errors
    ///
    /// If the ledger fails.
    pub fn seal(&self, key: &SigningKey) -> anyhow::Result<Option<Root>> {
        let now_ms = self.now_ms();
        let Some(mut root) = self.read(|ledger| unsigned(ledger, now_ms))? else { return Ok(None) };
        root.key_id = key.public().id();
        root.signature = key.sign(&root.statement());
        let stored = self.write(|ledger| store(ledger, &root))?;
        Ok(stored.then_some(root))
    }
}

fn last_root(ledger: &Transaction<'_>) -> sql::Result<Option<Root>> {
    let sql = format!("{ROOTS} ORDER BY number DESC LIMIT 1");
    ledger.prepare_cached(&sql)?.query_optional(&[], Root::of_row)
}

/// The next root, but for its signature.
fn unsigned(ledger: &Transaction<'_>, now_ms: i64) -> anyhow::Result<Option<Root>> {
    let before = last_root(ledger)?;
    let after = before.as_ref().map_or(0, |root| root.last);
    let mut statement = ledger.prepare_cached(
        "SELECT position, digest FROM events WHERE position > ? AND digest IS NOT NULL
         ORDER BY position",
    )?;
    let mut rows = statement.query(values![after])?;
    let (mut tree, mut range) = (Tree::default(), None);
    while let Some(row) = &rows.next_row()? {
        let position: i64 = row.get(0)?;
        anyhow::ensure!(tree.add(row.get(1)?), "the event at {position} has a digest that is none");
        range = Some((range.map_or(position, |(first, _)| first), position));
    }
    let (Some((first, last)), Some(root)) = (range, tree.root()) else { return Ok(None) };
    Ok(Some(Root {
        number: before.as_ref().map_or(1, |root| root.number + 1),
        first,
        last,
        events: i64::try_from(tree.leaves())?,
        root,
        previous: before.map(|root| root.statement_hash()).unwrap_or_default(),
        sealed_at: rfc3339(now_ms),
        key_id: String::new(),
        signature: String::new(),
    }))
}

/// False if there is a root with this number already.
fn store(ledger: &Transaction<'_>, root: &Root) -> sql::Result<bool> {
    let rows = ledger.execute(
        "INSERT INTO roots (number, first, last, events, root, previous, sealed_at, key_id,
          signature) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        values![
            root.number,
            root.first,
            root.last,
            root.events,
            &root.root,
            &root.previous,
            &root.sealed_at,
            &root.key_id,
            &root.signature,
        ],
    )?;
    Ok(rows > 0)
}
