//! Who pays for whom: merges of customers, as far as they are in force.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::event::correction::Change;
use crate::event::{self, Body};
use crate::sql::{self, Transaction};

/// Who pays, by who used. A merge that was made later takes the place of an earlier one of the same
/// customer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Merges(BTreeMap<String, String>);

impl Merges {
    /// Those in force.
    pub(crate) fn read(ledger: &Transaction<'_>) -> sql::Result<Merges> {
        let sql = "SELECT made_ms, correction_id, raw
             FROM corrections JOIN events USING (position)
             WHERE kind = 'merge' AND NOT EXISTS (SELECT 1 FROM corrections AS revert
              WHERE revert.kind = 'revert' AND revert.refers = corrections.correction_id)";
        let mut made: Vec<((i64, String), String)> = ledger
            .prepare_cached(sql)?
            .query_map(&[], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?;
        // By bytes, as everywhere else, and not by the order of a language.
        made.sort_unstable();
        let mut merges = BTreeMap::new();
        for (_, raw) in made {
            let Ok(raw) = RawValue::from_string(raw) else { continue };
            let Ok(event) = event::read(&raw) else { continue };
            let Body::Correction(correction) = event.body else { continue };
            if let Change::Merge { from, to } = correction.change {
                merges.insert(from, to);
            }
        }
        Ok(Merges(merges))
    }

    /// Who pays for what this customer used. Who would pay for itself in the end does so.
    pub(crate) fn payer<'a>(&'a self, customer: &'a str) -> &'a str {
        let mut payer = customer;
        // No way is longer than there are merges.
        for _ in 0..=self.0.len() {
            match self.0.get(payer) {
                Some(next) => payer = next,
                None => return payer,
            }
        }
        customer
    }

    /// For whom this customer pays, itself among them; empty if another one pays for it.
    pub(crate) fn paid_by(&self, payer: &str) -> Vec<String> {
        let users = self.0.keys().map(String::as_str).chain([payer]);
        let mut paid: Vec<String> =
            users.filter(|user| self.payer(user) == payer).map(str::to_owned).collect();
        paid.sort_unstable();
        paid.dedup();
        paid
    }
}
