//! Who pays for whom: merges of customers, as far as they are in force.

use std::collections::BTreeMap;

use crate::event::correction::Change;
use crate::ledger::in_force::in_force;
use crate::sql::{self, Transaction};

/// Who pays, by who used. A merge that was made later takes the place of an earlier one of the same
/// customer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Merges(BTreeMap<String, String>);

impl Merges {
    /// Those in force.
    pub(crate) fn read(ledger: &Transaction<'_>) -> sql::Result<Merges> {
        let mut made = in_force(ledger, "kind = 'merge'", &[])?;
        // By bytes, as everywhere else, and not by the order of a language.
        made.sort_unstable_by(|left, right| left.order.cmp(&right.order));
        let merges = made.into_iter().filter_map(|applied| match applied.change {
            Change::Merge { from, to } => Some((from, to)),
            _ => None,
        });
        Ok(Merges(merges.collect()))
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
