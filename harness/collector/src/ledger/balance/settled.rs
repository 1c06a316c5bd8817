//! Remembers what accounts had come to at an hour that is past, so that a guard that asks every few
//! seconds makes the ledger read a few hours and not years.
//!
//! To the next maintainer. The ledger counts how often past usage of a customer changed
//! (`hours/late.rs`). What was remembered holds as long as that number is the same, whichever
//! collector wrote. Only what is committed is remembered: a transaction that is taken back would
//! leave a number that the next one uses again.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::event::top_up::Account;
use crate::ledger::balance::fold::{Lot, Standing};
use crate::ledger::hours::late::{head_ms, late_of};
use crate::ledger::hours::{HOUR_MS, hour_of};
use crate::sql::{self, Transaction};

/// Accounts that are remembered; beyond, all are read anew.
pub(super) const ACCOUNTS_MAX: usize = 10_000;

/// What is remembered of accounts.
#[derive(Debug, Default)]
pub(crate) struct Settled(pub(super) Mutex<HashMap<Account, Past>>);

/// What an account had come to.
#[derive(Debug, Clone)]
pub(super) struct Past {
    /// What it was made of: it holds for these lots, for these customers and this mark.
    pub(super) lots: Vec<Lot>,
    pub(super) customers: Vec<String>,
    pub(super) mark: Mark,
    pub(super) standing: Standing,
}

/// Up to where usage is past, and how often it changed nevertheless.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The beginning of an hour, in milliseconds since 1970, UTC.
    pub(super) until_ms: i64,
    late: i64,
}

impl Mark {
    /// That of customers at `now_ms`; `None` if late usage of one of them is not counted.
    pub(super) fn read(
        ledger: &Transaction<'_>,
        customers: &[String],
        now_ms: i64,
    ) -> sql::Result<Option<Mark>> {
        let Some(head_ms) = head_ms(ledger)? else { return Ok(None) };
        let mut late = 0;
        for customer in customers {
            match late_of(ledger, std::slice::from_ref(&customer.as_str()))?.get(customer) {
                Some(count) => late += count,
                None => return Ok(None),
            }
        }
        // An event may be ahead of the clock; what is to come is not past.
        let until_ms = head_ms.saturating_sub(HOUR_MS).min(hour_of(now_ms));
        Ok(Some(Mark { until_ms, late }))
    }

    /// Whether what was remembered at an earlier mark holds at this one.
    pub(super) fn follows(&self, earlier: &Mark) -> bool {
        self.late == earlier.late && self.until_ms >= earlier.until_ms
    }
}
