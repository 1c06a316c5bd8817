//! What is left of what was paid in advance. A balance is never stored: it is a function of the
//! top-ups, of the calls and generations that count, and of the time, made when it is asked for. So a
//! late event, a correction or a revert is in it at once.

mod fold;
pub(crate) mod settled;
mod used;

use std::sync::PoisonError;

use crate::event::top_up::Account;
use crate::ledger::balance::fold::{Lot, Standing};
use crate::ledger::balance::settled::{Mark, Past, Settled};
use crate::ledger::balance::used::used;
use crate::ledger::merges::Merges;
use crate::ledger::top_ups::{self, Stored};
use crate::money::Exact;
use crate::sql::{self, Transaction};

/// What an account has come to.
#[derive(Debug, Clone)]
pub(crate) struct Balance {
    /// Who pays: another customer than the account's, if customers were merged.
    pub(crate) payer: String,
    pub(crate) standing: Standing,
    /// The top-ups, those that are taken back too, each with what is left of it.
    pub(crate) lots: Vec<(Stored, Exact)>,
    /// Whether more was read than is past, so that it is worth remembering.
    is_unsettled: bool,
}

impl Balance {
    /// That of an account at `now_ms`. What is remembered is used, and not changed.
    pub(crate) fn read(
        ledger: &Transaction<'_>,
        settled: Option<&Settled>,
        account: &Account,
        now_ms: i64,
    ) -> sql::Result<Balance> {
        let made_of = MadeOf::read(ledger, settled, account, now_ms)?;
        let is_unsettled =
            made_of.mark.is_some_and(|mark| mark.until_ms > made_of.unread_from_ms());
        // Usage may be ahead of the clock, and is taken from it nevertheless.
        let standing = made_of.standing(ledger, account, now_ms, i64::MAX)?;
        let MadeOf { payer, stored, .. } = made_of;
        let left = |stored: &Stored| match stored.is_void {
            true => Exact::ZERO,
            false if stored.from_ms > now_ms => stored.amount.into(),
            false => standing.left_of(&lot(stored)),
        };
        let lots = stored.into_iter().map(|stored| {
            let left = left(&stored);
            (stored, left)
        });
        let lots = lots.collect();
        Ok(Balance { payer, standing, lots, is_unsettled })
    }

    /// Whether [`remember`] would spare the next one reading.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.is_unsettled
    }
}

/// Remembers what an account had come to when its usage was past, as seen at `now_ms`. `ledger` must
/// have nothing that is not committed.
pub(crate) fn remember(
    ledger: &Transaction<'_>,
    settled: &Settled,
    account: &Account,
    now_ms: i64,
) -> sql::Result<()> {
    let made_of = MadeOf::read(ledger, Some(settled), account, now_ms)?;
    let Some(mark) = made_of.mark else { return Ok(()) };
    let until_ms = mark.until_ms;
    let standing = made_of.standing(ledger, account, until_ms.saturating_sub(1), until_ms)?;
    let MadeOf { customers, lots, .. } = made_of;
    let mut known = settled.0.lock().unwrap_or_else(PoisonError::into_inner);
    if known.len() >= settled::ACCOUNTS_MAX && !known.contains_key(account) {
        known.clear();
    }
    known.insert(account.clone(), Past { lots, customers, mark, standing });
    Ok(())
}

/// What a balance is made of.
struct MadeOf {
    payer: String,
    customers: Vec<String>,
    stored: Vec<Stored>,
    /// The top-ups that are not taken back.
    lots: Vec<Lot>,
    /// `None` if there is nothing to remember.
    mark: Option<Mark>,
    /// What is remembered, if it holds.
    past: Option<Past>,
}

impl MadeOf {
    fn read(
        ledger: &Transaction<'_>,
        settled: Option<&Settled>,
        account: &Account,
        now_ms: i64,
    ) -> sql::Result<MadeOf> {
        let (payer, customers) = payer(ledger, account)?;
        let stored = top_ups::of_account(ledger, account, &customers)?;
        let lots: Vec<Lot> = stored.iter().filter(|stored| !stored.is_void).map(lot).collect();
        let mark = if lots.is_empty() { None } else { Mark::read(ledger, &customers, now_ms)? };
        let past = settled.zip(mark).and_then(|(settled, mark)| {
            let known = settled.0.lock().unwrap_or_else(PoisonError::into_inner);
            let past = known.get(account)?;
            let until_ms = past.mark.until_ms;
            let holds = mark.follows(&past.mark)
                && past.customers == customers
                && begun(&past.lots, until_ms) == begun(&lots, until_ms);
            holds.then(|| past.clone())
        });
        Ok(MadeOf { payer, customers, stored, lots, mark, past })
    }

    /// From when usage has to be read.
    fn unread_from_ms(&self) -> i64 {
        self.past.as_ref().map_or(i64::MIN, |past| past.mark.until_ms)
    }

    /// What it has come to at `now_ms`, by what was used before `used_before_ms`.
    fn standing(
        &self,
        ledger: &Transaction<'_>,
        account: &Account,
        now_ms: i64,
        used_before_ms: i64,
    ) -> sql::Result<Standing> {
        let from_ms = self.unread_from_ms();
        let mut standing = self.past.as_ref().map(|past| past.standing.clone()).unwrap_or_default();
        let mut used = used(ledger, account, &self.customers, &self.lots, from_ms, now_ms)?;
        used.retain(|(at_ms, _)| *at_ms < used_before_ms);
        standing.play(&self.lots, &used, from_ms, now_ms);
        Ok(standing)
    }
}

/// The lots that had begun before a moment, by which what was remembered of it was made.
fn begun(lots: &[Lot], until_ms: i64) -> Vec<&Lot> {
    lots.iter().filter(|lot| lot.from_ms < until_ms).collect()
}

fn lot(stored: &Stored) -> Lot {
    Lot {
        top_up_id: stored.top_up_id.clone(),
        amount: stored.amount.into(),
        from_ms: stored.from_ms,
        expires_ms: stored.expires_ms,
    }
}

/// Who pays for an account's customer, and for whom that one pays. Teams and agents keep the names
/// that the traffic had.
fn payer(ledger: &Transaction<'_>, account: &Account) -> sql::Result<(String, Vec<String>)> {
    let customer = account.customer.clone();
    if account.scope != "customer" {
        return Ok((customer.clone(), vec![customer]));
    }
    let merges = Merges::read(ledger)?;
    let payer = merges.payer(&customer).to_owned();
    let customers = merges.paid_by(&payer);
    Ok((payer, customers))
}
