//! The columns of the ledger's tables, one a line, with what each row has in them.
//!
//! A new column also needs a new `SCHEMA_VERSION` in `schema.rs`, with the way from the last one.
//!
//! `position` is the order of insertion and the cursor of lists. Money is TEXT, a decimal without
//! trailing zeros. Times in `_ms` are milliseconds since 1970, UTC. What is not known, or does not
//! apply, is NULL, never 0.

use std::sync::OnceLock;

use chrono::DateTime;

use crate::event::Event;
use crate::event::call::Call;
use crate::event::generation::{Generation, Rated};
use crate::event::guard::Scope;
use crate::event::identity::Identity;
use crate::event::session::{Closing, SessionChange};
use crate::event::tokens::token_kinds;
use crate::event::totals::SessionState;
use crate::event::units::Units;
use crate::ledger::column::{Column, OnConflict, Row, Table, columns};
use crate::ledger::digest::text_if_plausible;
use crate::query::rfc3339;
use crate::sql::Value;

/// What the ledger adds to an event.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// RFC 3339, UTC.
    pub(crate) received_at: String,
    /// As in `digest.rs`.
    pub(crate) digest: String,
}

/// Every event. `digest` is NULL of what was stored before there were digests.
pub(crate) static EVENTS: Table<Arrival> = Table {
    name: "events",
    columns: &[columns! { row:
        "position" "INTEGER PRIMARY KEY" = row.position,
        "source" "TEXT NOT NULL" = &row.event.source,
        "id" "TEXT NOT NULL" = &row.event.id,
        "sequence" "INTEGER NOT NULL" = row.event.sequence,
        "type" "TEXT NOT NULL" = &row.event.event_type,
        "time" "TEXT NOT NULL" = &row.event.time,
        "subject" "TEXT NOT NULL" = &row.event.subject,
        "session_id" "TEXT" = row.event.session_id.as_deref(),
        "raw" "TEXT NOT NULL" = kept_text(row.event),
        "received_at" "TEXT NOT NULL" = &row.body.received_at,
        "digest" "TEXT" = &row.body.digest,
    }],
    constraint: "UNIQUE (source, id)",
    options: "STRICT",
    indexes: "CREATE INDEX events_session ON events (session_id);",
    on_conflict: OnConflict::Keep,
    insertion: OnceLock::new(),
};

/// The columns of calls.
const OF_CALL: &[&[Column<Call>]] = &[
    Column::<Call>::EVENT,
    columns! { row:
        "call_id" "TEXT NOT NULL" = &row.body.call_id,
    },
    Column::<Call>::OWNER,
    columns! { row:
        "kind" "TEXT NOT NULL" = row.body.kind.name(),
        "tool" "TEXT NOT NULL" = &row.body.tool,
        "status" "TEXT NOT NULL" = row.body.status,
        "tier" "TEXT NOT NULL" = &row.body.tier,
        "duration_ms" "INTEGER NOT NULL" = row.body.duration_ms,
        "http_status" "INTEGER NOT NULL" = row.body.http_status,
        "transport" "TEXT" = row.body.transport.as_deref(),
        "request_bytes" "INTEGER" = row.body.bytes.map(|(request, _)| request),
        "response_bytes" "INTEGER" = row.body.bytes.map(|(_, response)| response),
        "billable" "INTEGER NOT NULL" = row.body.billable,
        "price" "DECIMAL NOT NULL" = row.body.price,
        "currency" "TEXT NOT NULL" = &row.body.currency,
        "quantity" "INTEGER NOT NULL DEFAULT 1" = row.body.quantity,
    },
];

/// Every call that counts; derived from the events and their corrections.
pub(crate) static CALLS: Table<Call> = Table {
    name: "calls",
    columns: OF_CALL,
    constraint: "",
    options: "STRICT",
    indexes: "CREATE INDEX calls_session ON calls (session_id, source);
CREATE INDEX calls_time ON calls (time_ms);
CREATE INDEX calls_call ON calls (source, call_id);",
    on_conflict: OnConflict::Fail,
    insertion: OnceLock::new(),
};

/// The columns of generations.
const OF_GENERATION: &[&[Column<Generation>]] = &[
    Column::<Generation>::EVENT,
    columns! { row:
        "generation_id" "TEXT NOT NULL" = &row.body.generation_id,
        "call_id" "TEXT" = row.body.call.as_ref().map(|(call_id, _)| call_id),
        "tool" "TEXT" = row.body.call.as_ref().map(|(_, tool)| tool),
        "attribution" "TEXT NOT NULL" = row.body.attribution,
    },
    Column::<Generation>::OWNER,
    columns! { row:
        "provider" "TEXT NOT NULL" = &row.body.provider,
        "model" "TEXT NOT NULL" = &row.body.model,
        "service_tier" "TEXT NOT NULL" = &row.body.service_tier,
        "completeness" "TEXT NOT NULL" = row.body.completeness,
        "estimated" "INTEGER NOT NULL" = row.body.estimated,
    },
    Column::TOKENS,
    columns! { row:
        "provider_cost" "DECIMAL" = row.body.rate.cost(),
        "unpriced_reason" "TEXT" = unpriced_reason(&row.body.rate),
        "rate_card" "TEXT" = rate_card(&row.body.rate),
        "price" "DECIMAL NOT NULL" = row.body.price,
        "currency" "TEXT NOT NULL" = &row.body.currency,
        "units" "TEXT" = units(&row.body.units),
        "has_unpriced_units" "INTEGER NOT NULL DEFAULT 0" = row.body.has_unpriced_units,
        "is_unknown" "INTEGER NOT NULL DEFAULT 0" = row.body.is_unknown(),
        "reported_cost" "DECIMAL" = row.body.reported_cost,
        "supersedes" "TEXT" = row.body.supersedes.as_ref(),
        "is_inconsistent" "INTEGER NOT NULL DEFAULT 0" = row.body.is_inconsistent,
    },
];

/// Every generation that counts; derived from the events and their corrections. One that another
/// supersedes is in `superseded`.
pub(crate) static GENERATIONS: Table<Generation> = Table {
    name: "generations",
    columns: OF_GENERATION,
    constraint: "",
    options: "STRICT",
    indexes: "CREATE INDEX generations_session ON generations (session_id, source);
CREATE INDEX generations_time ON generations (time_ms);
CREATE INDEX generations_generation ON generations (source, generation_id);
CREATE INDEX generations_supersedes ON generations (source, supersedes)
    WHERE supersedes IS NOT NULL;",
    on_conflict: OnConflict::Fail,
    insertion: OnceLock::new(),
};

/// The calls that do not count as they came, as they came: what a session told of them is compared
/// with these.
pub(crate) static CORRECTED_CALLS: Table<Call> = Table {
    name: "corrected_calls",
    columns: OF_CALL,
    constraint: "",
    options: "STRICT",
    indexes: "CREATE INDEX corrected_calls_session ON corrected_calls (session_id, source);",
    on_conflict: OnConflict::Fail,
    insertion: OnceLock::new(),
};

/// The same for generations.
pub(crate) static CORRECTED_GENERATIONS: Table<Generation> = Table {
    name: "corrected_generations",
    columns: OF_GENERATION,
    constraint: "",
    options: "STRICT",
    indexes: "CREATE INDEX corrected_generations_session
    ON corrected_generations (session_id, source);
CREATE INDEX corrected_generations_generation ON corrected_generations (source, generation_id);
CREATE INDEX corrected_generations_supersedes ON corrected_generations (source, supersedes)
    WHERE supersedes IS NOT NULL;",
    on_conflict: OnConflict::Fail,
    insertion: OnceLock::new(),
};

/// The generations that count no more, with the `sequence` of the event that supersedes each. No
/// sum reads them, but for the totals that a session had told before.
pub(crate) fn superseded_schema() -> String {
    let columns = GENERATIONS.column_types().join(",\n    ");
    format!(
        "CREATE TABLE superseded (\n    {columns},\n    superseded_by INTEGER NOT NULL\n) STRICT;
CREATE INDEX superseded_session ON superseded (session_id, source);
CREATE INDEX superseded_supersedes ON superseded (source, supersedes)
    WHERE supersedes IS NOT NULL;\n"
    )
}

/// The part of an event that belongs to a session.
pub(crate) trait OfSession: 'static {
    /// Whose it is.
    fn identity(&self) -> &Identity;

    /// What it says about the session's life; `None` for a call or a generation.
    fn change(&self) -> Option<&SessionChange> {
        None
    }
}

impl OfSession for Call {
    fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl OfSession for Generation {
    fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl OfSession for SessionChange {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn change(&self) -> Option<&SessionChange> {
        Some(self)
    }
}

impl<B: OfSession> Column<B> {
    /// Which event the row is derived from.
    const EVENT: &[Column<B>] = columns! { row:
        "position" "INTEGER PRIMARY KEY REFERENCES events (position)" = row.position,
        "source" "TEXT NOT NULL" = &row.event.source,
        "sequence" "INTEGER NOT NULL" = row.event.sequence,
        "session_id" "TEXT NOT NULL" = &row.body.identity().session_id,
    };

    /// When it was, and whose it is.
    const OWNER: &[Column<B>] = columns! { row:
        "time_ms" "INTEGER NOT NULL" = row.event.time_ms,
        "day" "TEXT NOT NULL" = day(row.event),
        "customer" "TEXT NOT NULL" = &row.body.identity().customer,
        "team" "TEXT NOT NULL" = &row.body.identity().team,
        "agent" "TEXT NOT NULL" = &row.body.identity().agent,
        "api_key_hash" "TEXT" = row.body.identity().api_key_hash.as_deref(),
        "credential_type" "TEXT" = row.body.identity().credential_type,
        "product" "TEXT NOT NULL" = &row.body.identity().product,
        "product_type" "TEXT NOT NULL" = row.body.identity().product_type,
    };
}

macro_rules! token_columns {
    ($($(#[$doc:meta])* $kind:ident of $members:tt,)*) => {
        impl Column<Generation> {
            /// The token counts, a column for each kind.
            const TOKENS: &[Column<Generation>] = &[$(Column {
                name: stringify!($kind),
                sql: "INTEGER",
                cell: |row| Value::from(row.body.tokens.$kind),
            },)*];
        }
    };
}

token_kinds!(token_columns);

/// Every session; derived from the events of the session and, where these are late or lost,
/// from its calls and generations. The row keeps what the event with the highest `fold_order`
/// says, so events may come in any order. `state_before` is the state in which the session was when
/// its source was taken for lost; see `lost.rs`.
pub(crate) static SESSIONS: Table<dyn OfSession> = Table {
    name: "sessions",
    columns: &[columns! { row:
        "position" "INTEGER PRIMARY KEY" = Value::Null,
        "source" "TEXT NOT NULL" = &row.event.source,
        "session_id" "TEXT NOT NULL" = &row.body.identity().session_id,
        "fold_order" "INTEGER NOT NULL" = fold_order(row),
        "state" "TEXT NOT NULL" = state(row).name(),
        "session_key" "TEXT NOT NULL" = &row.body.identity().session_key,
        "product" "TEXT NOT NULL" = &row.body.identity().product,
        "product_type" "TEXT NOT NULL" = row.body.identity().product_type,
        "customer" "TEXT NOT NULL" = &row.body.identity().customer,
        "team" "TEXT NOT NULL" = &row.body.identity().team,
        "agent" "TEXT NOT NULL" = &row.body.identity().agent,
        "api_key_hash" "TEXT" = row.body.identity().api_key_hash.as_deref(),
        "credential_type" "TEXT" = row.body.identity().credential_type,
        "started_at" "TEXT" = row.body.change().map(|change| &change.started_at),
        "ended_at" "TEXT" = closing(row).map(|closing| &closing.ended_at),
        "ended_ms" "INTEGER" = closing(row).map(|closing| closing.ended_ms),
        "close_reason" "TEXT" = closing(row).map(|closing| &closing.close_reason),
        "totals" "TEXT" = closing(row).map(|closing| closing.totals.to_json()),
        "currency" "TEXT" = closing(row).and_then(|closing| closing.totals.currency.as_deref()),
        "state_before" "TEXT" = Value::Null,
    }],
    constraint: "UNIQUE (source, session_id)",
    options: "STRICT",
    indexes: "CREATE INDEX sessions_state ON sessions (state);
CREATE INDEX sessions_lost ON sessions (source) WHERE state_before IS NOT NULL;",
    on_conflict: OnConflict::Replace {
        key: &["source", "session_id"],
        condition: "excluded.fold_order > sessions.fold_order",
    },
    insertion: OnceLock::new(),
};

/// The totals and the level of each scope of a guard, period and source. `sequence` is that of the
/// event that the totals are from, 0 before there was one; `level_sequence` that of the event that
/// the level is from. `period_ms` is when the period began, -1 for a session. Levels count from 0,
/// the mildest. Unlike the tables above this one cannot be made again: of `guard_totals` the ledger
/// keeps only the id, in an event with an empty `raw`.
pub(crate) static GUARD_TOTALS: Table<Scope> = Table {
    name: "guard_totals",
    columns: &[columns! { row:
        "guard_id" "TEXT NOT NULL" = &row.body.guard,
        "scope_key" "TEXT NOT NULL" = &row.body.key,
        "period_ms" "INTEGER NOT NULL" = row.body.period_ms(),
        "source" "TEXT NOT NULL" = &row.event.source,
        "kind" "TEXT NOT NULL" = row.body.kind,
        "mode" "TEXT" = row.body.mode,
        "scope" "TEXT NOT NULL" = row.body.scope,
        "customer" "TEXT NOT NULL" = &row.body.customer,
        "product" "TEXT" = row.body.product.as_deref(),
        "agent" "TEXT" = row.body.agent.as_deref(),
        "session_key" "TEXT" = row.body.session_key.as_deref(),
        "tool" "TEXT" = row.body.tool.as_deref(),
        "metric" "TEXT" = row.body.metric.as_deref(),
        "period" "TEXT NOT NULL" = row.body.period,
        "period_start" "TEXT" = row.body.period_start.as_ref().map(|(text, _)| text),
        "sequence" "INTEGER NOT NULL" = 0,
        "provider_cost" "DECIMAL NOT NULL" = "0",
        "revenue" "DECIMAL NOT NULL" = "0",
        "calls" "INTEGER NOT NULL" = 0,
        "tokens" "INTEGER NOT NULL" = 0,
        "currency" "TEXT" = Value::Null,
        "level_sequence" "INTEGER NOT NULL" = 0,
        "level" "INTEGER NOT NULL" = 0,
        "told_ms" "INTEGER NOT NULL" = 0,
        "identity" "TEXT" = row.body.identity.as_deref(),
    }],
    constraint: "PRIMARY KEY (guard_id, scope_key, period_ms, source)",
    options: "STRICT, WITHOUT ROWID",
    indexes: "CREATE INDEX events_alerts ON events (position) WHERE type IN
    ('agent-meter.margin_level_changed', 'agent-meter.budget_level_changed',
     'agent-meter.loop_level_changed');",
    on_conflict: OnConflict::Keep,
    insertion: OnceLock::new(),
};

/// The event as it came, as far as it is kept here: one that is kept apart is in `quarantine`.
fn kept_text<'a>(event: &'a Event<'a>) -> &'a str {
    if event.beyond.is_some() { "" } else { text_if_plausible(event) }
}

/// The day in UTC, such as `2026-07-01`.
fn day(event: &Event<'_>) -> String {
    match DateTime::from_timestamp_millis(event.time_ms) {
        Some(time) => time.date_naive().to_string(),
        None => rfc3339(event.time_ms),
    }
}

fn units(units: &Units) -> Option<String> {
    (!units.is_empty()).then(|| units.to_json())
}

fn unpriced_reason(rate: &Rated) -> Option<&'static str> {
    match rate {
        Rated::Priced { .. } => None,
        Rated::Unpriced { reason } => Some(reason),
    }
}

fn rate_card(rate: &Rated) -> Option<&String> {
    match rate {
        Rated::Priced { rate_card, .. } => Some(rate_card),
        Rated::Unpriced { .. } => None,
    }
}

/// Negative for a call or a generation, so that each event of the session wins over each of them,
/// and of them the first one wins.
pub(super) fn fold_order(row: &Row<'_, dyn OfSession>) -> i64 {
    match row.body.change() {
        Some(_) => row.event.sequence,
        None => -row.event.sequence,
    }
}

fn state(row: &Row<'_, dyn OfSession>) -> SessionState {
    row.body.change().map_or(SessionState::Active, |change| change.state)
}

fn closing<'a>(row: &Row<'a, dyn OfSession>) -> Option<&'a Closing> {
    row.body.change()?.closing.as_ref()
}
