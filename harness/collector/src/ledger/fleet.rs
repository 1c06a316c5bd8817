//! Keeps the latest totals and level that each source sent of a scope, and sums the totals of all
//! other sources for a source that asks: an Envoy by itself knows only its own share.
//!
//! To the next maintainer. Events come in any order and more than once. So a row keeps two things,
//! the totals and the level, each from the event with the highest sequence that has it. Totals run
//! from the start of the period, so that the sum over the latest of each source is the sum over the
//! fleet, whatever was lost or repeated on the way. A restarted Envoy is a new source, and the
//! totals of its earlier life stay in the sum.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::event::guard::{GuardTotals, LevelChange, Scope, strictness};
use crate::event::top_up::Account;
use crate::event::{Body, Event};
use crate::ledger::balance::Balance;
use crate::ledger::balance::settled::Settled;
use crate::ledger::column::Row;
use crate::ledger::tables::GUARD_TOTALS;
use crate::money;
use crate::sql::{self, Transaction, values};

/// How long to keep the totals of earlier periods of a scope after its newest began: longer than a
/// month, so that an event of the period before still finds the totals of the others.
const PERIODS_KEPT_MS: i64 = 35 * 24 * 3600 * 1000;

/// The totals of all other sources of one scope in one period. On the wire it is a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FleetTotals {
    /// The guard.
    pub guard_id: String,
    /// 32 hexadecimal digits, the same from every source for the same guard and scope.
    pub scope_key: String,
    /// As in the event; `None` for a session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub period_started_at: Option<String>,
    /// What the others' generations cost the operator, in the currency of the guard.
    #[serde(serialize_with = "money::as_text")]
    pub total_provider_cost: Decimal,
    /// What the others earned, in the currency of the guard.
    #[serde(serialize_with = "money::as_text")]
    pub total_revenue: Decimal,
    /// Calls of the others.
    pub calls: u64,
    /// Tokens of the others.
    pub tokens: u64,
    /// How many other sources sent totals.
    pub emitters: u64,
    /// What the customer's contract brings in a period of the guard; `None` if none is known.
    #[serde(
        serialize_with = "money::optional::serialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub contracted_revenue: Option<Decimal>,
    /// What is left of what the scope paid in advance, in the currency of the guard; below zero, what
    /// it owes. `None` if the guard does not go by that.
    #[serde(
        serialize_with = "money::optional::serialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepaid_balance: Option<Decimal>,
    /// What of this source's revenue in the period the balance contains, in the same currency.
    #[serde(
        serialize_with = "money::optional::serialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepaid_known_revenue: Option<Decimal>,
    /// The account of the balance, if it is worth remembering what that had come to.
    #[serde(skip)]
    pub(crate) unsettled: Option<Account>,
    /// The customer of the scope; empty for a product.
    #[serde(skip)]
    pub customer_id: String,
}

/// Asks for the totals of one scope in one period, of all sources but one.
#[derive(Debug)]
pub(crate) struct TotalsQuery {
    source: String,
    guard: String,
    scope_key: String,
    period_ms: i64,
    period_start: Option<String>,
    customer: String,
    currency: Option<String>,
    prepaid: Option<Account>,
}

impl TotalsQuery {
    /// The query of an event; `None` if the event is not about a guard.
    pub(crate) fn of(event: &Event<'_>) -> Option<TotalsQuery> {
        let (scope, currency) = match &event.body {
            Body::GuardTotals(totals) => (&totals.scope, Some(totals.currency.clone())),
            Body::LevelChange(change) => (&change.scope, change.currency.clone()),
            Body::Call(_)
            | Body::Generation(_)
            | Body::Session(_)
            | Body::Heartbeat(_)
            | Body::Correction(_)
            | Body::Billed(_)
            | Body::TopUp(_)
            | Body::Unknown => return None,
        };
        Some(TotalsQuery {
            source: event.source.clone(),
            guard: scope.guard.clone(),
            scope_key: scope.key.clone(),
            period_ms: scope.period_ms(),
            period_start: scope.period_start.as_ref().map(|(text, _)| text.clone()),
            customer: scope.customer.clone(),
            currency,
            prepaid: match &event.body {
                Body::GuardTotals(totals) => totals.account(),
                _ => None,
            },
        })
    }

    /// Differs between the queries of a batch.
    pub(crate) fn key(&self) -> (String, String, String, i64) {
        (self.source.clone(), self.guard.clone(), self.scope_key.clone(), self.period_ms)
    }

    /// Takes the currency and the account of a later query: a change of level may lack them.
    pub(crate) fn learn(&mut self, later: TotalsQuery) {
        self.currency = later.currency.or(self.currency.take());
        self.prepaid = later.prepaid.or(self.prepaid.take());
    }

    /// Adds up the totals, and makes the balance at `now_ms`, if it is asked for. With `proven_only`,
    /// the totals of sources count that wrote with a secret.
    pub(crate) fn run(
        self,
        ledger: &Transaction<'_>,
        proven_only: bool,
        settled: Option<&Settled>,
        now_ms: i64,
    ) -> sql::Result<FleetTotals> {
        let prepaid = self.prepaid(ledger, settled, now_ms)?;
        let mut statement = ledger.prepare_cached(
            "SELECT provider_cost, revenue, calls, tokens FROM guard_totals
             WHERE guard_id = ?1 AND scope_key = ?2 AND period_ms = ?3 AND source <> ?4
               AND sequence > 0 AND (CAST(?5 AS TEXT) IS NULL OR currency = ?5)
               AND (NOT ?6 OR EXISTS (SELECT 1 FROM sources
                WHERE sources.source = guard_totals.source AND writer IS NOT NULL))",
        )?;
        let mut rows = statement.query(values![
            &self.guard,
            &self.scope_key,
            self.period_ms,
            &self.source,
            self.currency.as_deref(),
            proven_only,
        ])?;
        let mut totals = FleetTotals {
            guard_id: self.guard.clone(),
            scope_key: self.scope_key.clone(),
            period_started_at: self.period_start,
            total_provider_cost: Decimal::ZERO,
            total_revenue: Decimal::ZERO,
            calls: 0,
            tokens: 0,
            emitters: 0,
            contracted_revenue: None,
            prepaid_balance: None,
            prepaid_known_revenue: None,
            unsettled: None,
            customer_id: self.customer,
        };
        while let Some(row) = &rows.next_row()? {
            let cost = (row.get(0)?, row.get(1)?);
            let counts = (row.get::<_, i64>(2)?, row.get::<_, i64>(3)?);
            totals.add(cost, counts);
        }
        if let Some((balance, known_revenue)) = prepaid {
            totals.prepaid_balance = Some(balance.standing.balance().rounded());
            totals.prepaid_known_revenue = Some(known_revenue);
            totals.unsettled = self.prepaid.filter(|_| balance.is_unsettled());
        }
        Ok(totals)
    }

    /// The balance, and what of the source's own revenue it contains. Both are of one moment: events
    /// of calls come before the totals that they are in, so that at any other moment what was spent
    /// would be missing in both.
    fn prepaid(
        &self,
        ledger: &Transaction<'_>,
        settled: Option<&Settled>,
        now_ms: i64,
    ) -> sql::Result<Option<(Balance, Decimal)>> {
        let Some(account) = &self.prepaid else { return Ok(None) };
        let balance = Balance::read(ledger, settled, account, now_ms)?;
        let sql = "SELECT revenue FROM guard_totals WHERE guard_id = ? AND scope_key = ?
             AND period_ms = ? AND source = ? AND sequence > 0 AND currency = ?";
        let own =
            values![&self.guard, &self.scope_key, self.period_ms, &self.source, &account.currency];
        let known = ledger.prepare_cached(sql)?.query_optional(own, |row| row.get(0))?;
        Ok(Some((balance, known.unwrap_or_default())))
    }
}

impl FleetTotals {
    fn add(&mut self, (cost, revenue): (Decimal, Decimal), (calls, tokens): (i64, i64)) {
        self.total_provider_cost = money::sum(self.total_provider_cost, cost);
        self.total_revenue = money::sum(self.total_revenue, revenue);
        self.calls = self.calls.saturating_add(calls.unsigned_abs());
        self.tokens = self.tokens.saturating_add(tokens.unsigned_abs());
        self.emitters += 1;
    }
}

/// What several events tell of scopes: of each scope the last totals and the last level of a source,
/// so that a scope is written once, however many events are about it.
#[derive(Default)]
pub(super) struct ScopeFolds<'a>(BTreeMap<(&'a str, &'a str, i64, &'a str), ScopeFold<'a>>);

struct ScopeFold<'a> {
    first: &'a Event<'a>,
    scope: &'a Scope,
    totals: Option<(i64, &'a GuardTotals)>,
    /// With the time of the event that told it.
    level: (i64, &'a str, i64),
}

impl<'a> ScopeFolds<'a> {
    pub(super) fn fold_totals(&mut self, event: &'a Event<'a>, totals: &'a GuardTotals) {
        let fold = self.fold(event, &totals.scope, totals.level);
        if fold.totals.is_none_or(|(sequence, _)| sequence < event.sequence) {
            fold.totals = Some((event.sequence, totals));
        }
    }

    pub(super) fn fold_level(&mut self, event: &'a Event<'a>, change: &'a LevelChange) {
        self.fold(event, &change.scope, change.level);
    }

    fn fold(
        &mut self,
        event: &'a Event<'a>,
        scope: &'a Scope,
        level: &'a str,
    ) -> &mut ScopeFold<'a> {
        let key = (scope.guard.as_str(), scope.key.as_str(), scope.period_ms(), &*event.source);
        let level = (event.sequence, level, event.time_ms);
        let new = ScopeFold { first: event, scope, totals: None, level };
        let fold = self.0.entry(key).or_insert(new);
        if fold.level.0 < event.sequence {
            fold.level = level;
        }
        fold
    }

    /// Writes them, unless the source told later ones before.
    pub(super) fn store(self, ledger: &Transaction<'_>) -> sql::Result<()> {
        for fold in self.0.into_values() {
            make_row(ledger, fold.first, fold.scope)?;
            let source = &fold.first.source;
            if let Some((sequence, totals)) = fold.totals {
                set_totals(ledger, source, sequence, totals)?;
            }
            set_level(ledger, source, fold.scope, fold.level)?;
        }
        Ok(())
    }
}

fn set_totals(
    ledger: &Transaction<'_>,
    source: &str,
    sequence: i64,
    totals: &GuardTotals,
) -> sql::Result<()> {
    let scope = &totals.scope;
    ledger.execute(
        "UPDATE guard_totals SET
          (sequence, provider_cost, revenue, calls, tokens, currency, kind, mode)
          = (?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)
         WHERE guard_id = ?1 AND scope_key = ?2 AND period_ms = ?3 AND source = ?4
           AND sequence < ?5",
        values![
            &scope.guard,
            &scope.key,
            scope.period_ms(),
            source,
            sequence,
            totals.provider_cost,
            totals.revenue,
            totals.calls,
            totals.tokens,
            &totals.currency,
            scope.kind,
            scope.mode,
        ],
    )?;
    Ok(())
}

/// Makes the row of a source and a scope if there is none, with totals of 0.
fn make_row(ledger: &Transaction<'_>, event: &Event<'_>, scope: &Scope) -> sql::Result<()> {
    let made = GUARD_TOTALS.insert(ledger, &Row { position: None, event, body: scope })?;
    if made > 0 {
        // A period that begins in years must not delete the totals of the others. The event's own time
        // is plausible.
        let newest_ms = scope.period_ms().min(event.time_ms);
        ledger
            .prepare_cached(
                "DELETE FROM guard_totals
                 WHERE guard_id = ?1 AND scope_key = ?2 AND period_ms BETWEEN 0 AND ?3",
            )?
            .execute(values![&scope.guard, &scope.key, newest_ms - PERIODS_KEPT_MS])?;
    }
    Ok(())
}

fn set_level(
    ledger: &Transaction<'_>,
    source: &str,
    scope: &Scope,
    (sequence, level, told_ms): (i64, &str, i64),
) -> sql::Result<()> {
    ledger.execute(
        "UPDATE guard_totals SET (level_sequence, level, told_ms) = (?5, ?6, ?7)
         WHERE guard_id = ?1 AND scope_key = ?2 AND period_ms = ?3 AND source = ?4
           AND level_sequence < ?5",
        values![
            &scope.guard,
            &scope.key,
            scope.period_ms(),
            source,
            sequence,
            strictness(level),
            told_ms,
        ],
    )?;
    Ok(())
}
