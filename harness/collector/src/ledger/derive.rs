//! Makes the derived tables of the ledger from one event, in whatever order events come.

use rusqlite::{Transaction, params};

use crate::event::call::Call;
use crate::event::generation::{Generation, Rated};
use crate::event::identity::Identity;
use crate::event::session::Closing;
use crate::event::totals::SessionState;
use crate::event::{Body, Event};
use crate::ledger::fleet;
use crate::query;

/// Takes an event that is stored at `position` into calls, generations and sessions.
pub(crate) fn derive(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    position: i64,
) -> rusqlite::Result<()> {
    match &event.body {
        Body::Call(call) => insert_call(ledger, event, call, position),
        Body::Generation(generation) => insert_generation(ledger, event, generation, position),
        Body::Session(change) => fold(
            ledger,
            &Fold {
                source: &event.source,
                order: event.sequence,
                state: change.state,
                identity: &change.identity,
                started_at: Some(&change.started_at),
                closing: change.closing.as_ref(),
            },
        ),
        Body::GuardTotals(totals) => fleet::fold_totals(ledger, event, totals),
        Body::LevelChange(change) => fleet::fold_level(ledger, event, change),
        Body::Unknown => Ok(()),
    }
}

fn insert_call(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    call: &Call,
    position: i64,
) -> rusqlite::Result<()> {
    let identity = &call.identity;
    ledger
        .prepare_cached(
            "INSERT INTO calls
             (position, source, sequence, session_id, call_id, time_ms, day, customer, team, agent,
              api_key_hash, credential_type, product, product_type, kind, tool, status, tier,
              duration_ms, http_status, transport, request_bytes, response_bytes, billable, price,
              currency)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            position,
            event.source,
            event.sequence,
            identity.session_id,
            call.call_id,
            event.time_ms,
            day(event),
            identity.customer,
            identity.team,
            identity.agent,
            identity.api_key_hash,
            identity.credential_type,
            identity.product,
            identity.product_type,
            call.kind.name(),
            call.tool,
            call.status,
            call.tier,
            call.duration_ms,
            call.http_status,
            call.transport,
            call.bytes.map(|(request, _)| request),
            call.bytes.map(|(_, response)| response),
            call.billable,
            call.price.to_string(),
            call.currency,
        ])?;
    fold_use(ledger, event, identity)
}

fn insert_generation(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    generation: &Generation,
    position: i64,
) -> rusqlite::Result<()> {
    let (identity, tokens) = (&generation.identity, &generation.tokens);
    let (call_id, tool) = match &generation.call {
        Some((call_id, tool)) => (Some(call_id), Some(tool)),
        None => (None, None),
    };
    let (cost, rate_card, unpriced_reason) = match &generation.rate {
        Rated::Priced { cost, rate_card } => (Some(cost.to_string()), Some(rate_card), None),
        Rated::Unpriced { reason } => (None, None, Some(reason)),
    };
    ledger
        .prepare_cached(
            "INSERT INTO generations
             (position, source, sequence, session_id, generation_id, call_id, tool, attribution,
              time_ms, day, customer, team, agent, api_key_hash, credential_type, product,
              product_type, provider, model, service_tier, completeness, estimated, input, output,
              reasoning, cache_read, cache_write, provider_cost, unpriced_reason, rate_card, price,
              currency)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?,
              ?, ?, ?, ?, ?, ?)",
        )?
        .execute(params![
            position,
            event.source,
            event.sequence,
            identity.session_id,
            generation.generation_id,
            call_id,
            tool,
            generation.attribution,
            event.time_ms,
            day(event),
            identity.customer,
            identity.team,
            identity.agent,
            identity.api_key_hash,
            identity.credential_type,
            identity.product,
            identity.product_type,
            generation.provider,
            generation.model,
            generation.service_tier,
            generation.completeness,
            generation.estimated,
            tokens.input,
            tokens.output,
            tokens.reasoning,
            tokens.cache_read,
            tokens.cache_write,
            cost,
            unpriced_reason,
            rate_card,
            generation.price.to_string(),
            generation.currency,
        ])?;
    fold_use(ledger, event, identity)
}

/// The day in UTC, such as `2026-07-01`.
fn day(event: &Event<'_>) -> String {
    query::rfc3339(event.time_ms).split('T').next().unwrap_or_default().to_owned()
}

/// A session whose own events are late or lost is told by its calls and generations. Negative, so
/// that each session event wins over each of them, and of them the first one wins.
fn fold_use(
    ledger: &Transaction<'_>,
    event: &Event<'_>,
    identity: &Identity,
) -> rusqlite::Result<()> {
    fold(
        ledger,
        &Fold {
            source: &event.source,
            order: -event.sequence,
            state: SessionState::Active,
            identity,
            started_at: None,
            closing: None,
        },
    )
}

struct Fold<'a> {
    source: &'a str,
    order: i64,
    state: SessionState,
    identity: &'a Identity,
    started_at: Option<&'a str>,
    closing: Option<&'a Closing>,
}

/// Keeps for a session what the event with the highest order tells, in whatever order they come.
fn fold(ledger: &Transaction<'_>, fold: &Fold<'_>) -> rusqlite::Result<()> {
    let (identity, closing) = (fold.identity, fold.closing);
    let totals = closing.map(|closing| serde_json::to_string(&closing.totals)).transpose();
    let totals = totals.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    ledger
        .prepare_cached(
            "INSERT INTO sessions
             (source, session_id, fold_order, state, session_key, product, product_type, customer,
              team, agent, api_key_hash, credential_type, started_at, ended_at, ended_ms,
              close_reason, totals, currency)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (source, session_id) DO UPDATE SET
              (fold_order, state, session_key, product, product_type, customer, team, agent,
               api_key_hash, credential_type, started_at, ended_at, ended_ms, close_reason, totals,
               currency)
              = (excluded.fold_order, excluded.state, excluded.session_key, excluded.product,
               excluded.product_type, excluded.customer, excluded.team, excluded.agent,
               excluded.api_key_hash, excluded.credential_type,
               excluded.started_at, excluded.ended_at, excluded.ended_ms, excluded.close_reason,
               excluded.totals, excluded.currency)
             WHERE excluded.fold_order > sessions.fold_order",
        )?
        .execute(params![
            fold.source,
            identity.session_id,
            fold.order,
            fold.state.name(),
            identity.session_key,
            identity.product,
            identity.product_type,
            identity.customer,
            identity.team,
            identity.agent,
            identity.api_key_hash,
            identity.credential_type,
            fold.started_at,
            closing.map(|closing| &closing.ended_at),
            closing.map(|closing| closing.ended_ms),
            closing.map(|closing| &closing.close_reason),
            totals,
            closing.and_then(|closing| closing.totals.currency.as_ref()),
        ])?;
    Ok(())
}
