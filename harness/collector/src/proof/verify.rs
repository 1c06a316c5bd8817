//! Looks at every event, chain and root, and at what was derived of the events, and names what is not
//! as it was stored.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::{self, Body};
use crate::ledger::Ledger;
use crate::ledger::column::{Row as TableRow, Table};
use crate::ledger::corrected::{Corrected, Corrections};
use crate::ledger::digest::chained;
use crate::ledger::hours;
use crate::ledger::in_force::{PENDING, is_pending};
use crate::ledger::tables::{CALLS, CORRECTED_CALLS, CORRECTED_GENERATIONS, GENERATIONS};
use crate::ledger::top_ups;
use crate::proof::key::PublicKey;
use crate::proof::merkle::Tree;
use crate::proof::prove::{FIELDS, of_row};
use crate::proof::seal::{ROOTS, Root};
use crate::sql::{self, Transaction};

/// The most faults that are listed; all are counted.
const LISTED_MAX: usize = 100;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verification {
    /// Events that have a digest.
    pub events: u64,
    /// Events that were stored before there were digests: nothing is known of them.
    pub events_without_digest: u64,
    /// Events that no root covers yet.
    pub events_not_sealed: u64,
    /// Signed roots.
    pub roots: u64,
    /// How many faults there are.
    pub faults: u64,
    /// The first of them.
    pub listed: Vec<String>,
}

impl Verification {
    fn fault(&mut self, what: String) {
        self.faults += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(what);
        }
    }
}

impl Ledger {
    /// Looks at the whole ledger. Without a key it cannot tell whether the roots are genuine.
    ///
    /// # Errors
    ///
    /// If the ledger cannot be read; a fault in what it holds is no error.
    pub fn verify(&self, key: Option<&PublicKey>) -> anyhow::Result<Verification> {
        self.read(|ledger| {
            let mut found = Verification::default();
            let roots = ledger.prepare_cached(&format!("{ROOTS} ORDER BY number"))?;
            let roots = { roots }.query_map(&[], Root::of_row)?;
            let chains = events(ledger, &roots, &mut found)?;
            heads(ledger, &chains, &mut found)?;
            self::roots(&roots, key, &mut found);
            corrections(ledger, &mut found)?;
            let corrections = Corrections::all(ledger)?;
            derived(
                ledger,
                &CALLS,
                &[CALLS.name],
                CORRECTED_CALLS.name,
                &corrections,
                |body| match body {
                    Body::Call(call) => Some(&**call),
                    _ => None,
                },
                &mut found,
            )?;
            derived(
                ledger,
                &GENERATIONS,
                &[GENERATIONS.name, "superseded"],
                CORRECTED_GENERATIONS.name,
                &corrections,
                |body| match body {
                    Body::Generation(generation) => Some(&**generation),
                    _ => None,
                },
                &mut found,
            )?;
            for difference in
                hours::differences(ledger)?.into_iter().chain(top_ups::differences(ledger)?)
            {
                found.fault(difference);
            }
            Ok(found)
        })
    }
}

/// Compares each event with its digest, and each range with its root. Returns the chain of each
/// source.
fn events(
    ledger: &Transaction<'_>,
    roots: &[Root],
    found: &mut Verification,
) -> sql::Result<HashMap<String, String>> {
    let mut chains: HashMap<String, String> = HashMap::new();
    let mut roots = roots.iter().peekable();
    let mut tree = Tree::default();
    let mut statement = ledger.prepare_cached(&format!("{FIELDS} ORDER BY events.position"))?;
    let mut rows = statement.query(&[])?;
    while let Some(row) = &rows.next_row()? {
        let (position, digest, fields) = of_row(row)?;
        while let Some(root) = roots.next_if(|root| root.last < position) {
            compare_root(root, &std::mem::take(&mut tree), found);
        }
        let Some(digest) = digest else {
            found.events_without_digest += 1;
            continue;
        };
        found.events += 1;
        if fields.digest() != digest {
            let (source, id) = (&fields.source, &fields.id);
            found.fault(format!("event {id} of {source}, at {position}: it was changed"));
        }
        match roots.peek() {
            Some(_) => drop(tree.add(digest.clone())),
            None => found.events_not_sealed += 1,
        }
        let chain = chains.entry(fields.source).or_default();
        *chain = chained(chain, &digest);
    }
    for root in roots {
        compare_root(root, &std::mem::take(&mut tree), found);
    }
    Ok(chains)
}

fn compare_root(root: &Root, tree: &Tree, found: &mut Verification) {
    let leaves = i64::try_from(tree.leaves()).unwrap_or(i64::MAX);
    if leaves != root.events || tree.root().as_ref() != Some(&root.root) {
        let Root { number, first, last, events, sealed_at, .. } = root;
        found.fault(format!(
            "root {number} of {sealed_at}: the {leaves} events at {first} to {last} are not the \
             {events} that it was made of"
        ));
    }
}

/// Compares the chain of each source with the one that was kept.
fn heads(
    ledger: &Transaction<'_>,
    chains: &HashMap<String, String>,
    found: &mut Verification,
) -> sql::Result<()> {
    let mut statement =
        ledger.prepare_cached("SELECT source, chain FROM sources ORDER BY source")?;
    let heads: Vec<(String, Option<String>)> =
        statement.query_map(&[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    for (source, head) in &heads {
        if chains.get(source) != head.as_ref() {
            found.fault(format!(
                "source {source}: its events are not those that were stored, or not in that order"
            ));
        }
    }
    let mut strange: Vec<&String> =
        chains.keys().filter(|source| heads.iter().all(|(known, _)| known != *source)).collect();
    strange.sort_unstable();
    for source in strange {
        found.fault(format!("source {source}: it has events, and no row of its own"));
    }
    Ok(())
}

fn roots(roots: &[Root], key: Option<&PublicKey>, found: &mut Verification) {
    let mut previous = String::new();
    for (root, number) in roots.iter().zip(1..) {
        found.roots += 1;
        let name = format!("root {} of {}", root.number, root.sealed_at);
        if root.number != number || root.previous != previous {
            found.fault(format!("{name}: it does not follow the one before it"));
        }
        if key.is_some_and(|key| !key.has_signed(&root.statement(), &root.signature)) {
            found.fault(format!("{name}: it is not signed with this key"));
        }
        previous = root.statement_hash();
    }
}

/// Names the corrections that have no row, or another one than they say.
fn corrections(ledger: &Transaction<'_>, found: &mut Verification) -> anyhow::Result<()> {
    anyhow::ensure!(!is_pending(ledger)?, PENDING);
    let sql = "SELECT events.position, raw, correction_id, kind, target_source, target_id, refers
         FROM events LEFT JOIN corrections USING (position)
         WHERE type = 'agent-meter.correction' ORDER BY events.position";
    let mut statement = ledger.prepare_cached(sql)?;
    let mut rows = statement.query(&[])?;
    while let Some(row) = &rows.next_row()? {
        let (position, raw): (i64, String) = (row.get(0)?, row.get(1)?);
        let raw = RawValue::from_string(raw).ok();
        let event = raw.as_ref().and_then(|raw| event::read(raw).ok());
        // One that cannot be read was changed, which its digest tells.
        let Some(Body::Correction(told)) = event.map(|event| event.body) else { continue };
        let target = told.change.target();
        let expected = [
            Some(told.correction_id.as_str()),
            Some(told.change.kind()),
            target.map(|target| target.source.as_str()),
            target.map(|target| target.id.as_str()),
            told.change.refers_to(),
        ];
        for (expected, place) in expected.into_iter().zip(2..) {
            if row.text(place)?.as_deref() != expected {
                found.fault(format!("corrections, row {position}: it is not what the event says"));
                break;
            }
        }
    }
    Ok(())
}

/// Compares the rows of a table with what the events and their corrections say, and counts those
/// without an event. `as_they_came` is the table of those that are corrected.
fn derived<B: 'static>(
    ledger: &Transaction<'_>,
    table: &'static Table<B>,
    tables: &[&str],
    as_they_came: &str,
    corrections: &Corrections,
    body_of: impl for<'e> Fn(&'e Body) -> Option<&'e B>,
    found: &mut Verification,
) -> sql::Result<()> {
    let columns = table.selection();
    let mut kept = HashSet::new();
    for name in [&as_they_came].into_iter().chain(tables) {
        let sql = format!(
            "SELECT events.raw, {} FROM {name} AS derived
             LEFT JOIN events ON events.position = derived.position
             WHERE events.digest IS NOT NULL OR events.position IS NULL ORDER BY derived.position",
            columns
                .split(", ")
                .map(|column| format!("derived.{column}"))
                .collect::<Vec<_>>()
                .join(", "),
        );
        let mut statement = ledger.prepare_cached(&sql)?;
        let mut rows = statement.query(&[])?;
        while let Some(row) = &rows.next_row()? {
            let position: i64 = row.get(1)?;
            let raw: Option<String> = row.get(0)?;
            let raw = raw.and_then(|raw| RawValue::from_string(raw).ok());
            let event = raw.as_ref().and_then(|raw| event::read(raw).ok());
            let corrected = event.as_ref().map(|event| corrections.on(event, position));
            if *name == as_they_came {
                kept.insert(position);
            } else if matches!(corrected, Some(Corrected::Amended(_))) && !kept.contains(&position)
            {
                found.fault(format!("{as_they_came}: row {position} is missing"));
            }
            let event = match &corrected {
                // That table has the events as they came.
                Some(Corrected::AsItCame) if *name == as_they_came => None,
                Some(Corrected::Withdrawn) => None,
                Some(Corrected::Voided) if *name == table.name => None,
                Some(Corrected::Amended(raw)) if *name != as_they_came => event::read(raw).ok(),
                _ => event,
            };
            let told = event.as_ref().and_then(|event| Some((event, body_of(&event.body)?)));
            let Some((event, body)) = told else {
                found.fault(format!("{name}, row {position}: no event says so"));
                continue;
            };
            let expected = table.texts(&TableRow { position: Some(position), event, body });
            for ((column, expected), place) in expected.into_iter().zip(1..) {
                if row.text(place)? != expected {
                    found.fault(format!(
                        "{name}, row {position}: {column} is not what the event says"
                    ));
                }
            }
        }
    }
    missing(ledger, table.name, tables, (corrections, &kept), found)
}

/// Names the events that count in no table, but for those that corrections take out. `kept` are those
/// that are kept as they came.
fn missing(
    ledger: &Transaction<'_>,
    kind: &str,
    tables: &[&str],
    (corrections, kept): (&Corrections, &HashSet<i64>),
    found: &mut Verification,
) -> sql::Result<()> {
    let types = match kind {
        "calls" => {
            "'agent-meter.tool_invocation', 'agent-meter.api_call', 'agent-meter.agent_step'"
        }
        _ => "'agent-meter.token_consumption'",
    };
    let absent: Vec<String> = tables
        .iter()
        .map(|table| {
            format!("NOT EXISTS (SELECT 1 FROM {table} AS derived WHERE derived.position = events.position)")
        })
        .collect();
    let sql = format!(
        "SELECT position, raw FROM events WHERE type IN ({types}) AND raw <> ''
          AND digest IS NOT NULL AND {} ORDER BY position",
        absent.join(" AND ")
    );
    let mut statement = ledger.prepare_cached(&sql)?;
    let mut rows = statement.query(&[])?;
    while let Some(row) = &rows.next_row()? {
        let (position, raw): (i64, String) = (row.get(0)?, row.get(1)?);
        let raw = RawValue::from_string(raw).ok();
        let event = raw.as_ref().and_then(|raw| event::read(raw).ok());
        let corrected = event.map(|event| corrections.on(&event, position));
        let is_out = match corrected {
            Some(Corrected::Voided) => kept.contains(&position),
            Some(Corrected::Withdrawn) => true,
            _ => false,
        };
        if !is_out {
            found.fault(format!("event at {position}: it is in none of {}", tables.join(", ")));
        }
    }
    Ok(())
}
