//! Reads what Anthropic says about an organization's costs and its usage of models.
//!
//! - Costs: `GET /v1/organizations/cost_report` of the Admin API, as its reference of 2026 describes
//!   it: buckets of a day in UTC; `amount` is text, a decimal in cents. Group it by `description`:
//!   else a day is one sum for all models.
//! - Usage: `GET /v1/organizations/usage_report/messages`; group it by `model` (and by
//!   `service_tier`).
//! - The CSV that the console exports for costs and for tokens, as it was in 2026: `cost_usd` in
//!   dollars, models under the names that people read.
//!
//! Costs of the service tier `priority` are in none of these, the provider says.

use anyhow::{Context, ensure};
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};

use crate::bill::amount::Amount;
use crate::bill::json::{Bucket, Members, below};
use crate::bill::line::{Cost, Entry, Kind, Nature, Provider, Subject, Usage};
use crate::bill::services::service;
use crate::bill::table::Row;

/// Members and columns that do not tell one result from another.
pub(super) const AMOUNTS: [&str; 4] = ["amount", "list_amount", "cost_usd", "list_price_usd"];
/// The columns of the console's exports of costs and of tokens.
pub(super) const COST_COLUMNS: [&str; 4] = ["usage_date_utc", "model", "token_type", "cost_usd"];
pub(super) const USAGE_COLUMNS: [&str; 4] =
    ["usage_date_utc", "model_version", "usage_input_tokens_no_cache", "usage_output_tokens"];
/// Amounts are cents.
const CENTS: i64 = -2;

/// The day of a bucket.
pub(super) fn day(bucket: &Bucket) -> anyhow::Result<NaiveDate> {
    let time = |member: &str| {
        let text = bucket.members.text(member)?.with_context(|| format!("{member}: missing"))?;
        let time = DateTime::parse_from_rfc3339(&text).ok();
        let time = time.with_context(|| format!("{member}: must be a time, found {text:.60?}"))?;
        Ok::<_, anyhow::Error>(time.with_timezone(&Utc).naive_utc())
    };
    let (start, end) = (time("starting_at")?, time("ending_at")?);
    let next = start.date().and_time(NaiveTime::MIN).checked_add_signed(TimeDelta::days(1));
    ensure!(
        end > start && next.is_some_and(|next| end <= next),
        "ending_at: must be on the same day in UTC as starting_at, found {start} to {end}"
    );
    Ok(start.date())
}

/// Reads a result of costs.
pub(super) fn cost(day: NaiveDate, result: &Members) -> anyhow::Result<Entry> {
    let written = result.decimal("amount", CENTS)?.context("amount: missing")?;
    let currency = result.text("currency")?.context("currency: missing")?;
    let description = result.text("description")?;
    let cost_type = result.text("cost_type")?.unwrap_or_default();
    let subject = match result.text("model")? {
        Some(model) => Subject::Id(model),
        None => unnamed(&cost_type, description.as_deref()),
    };
    let kind = kind(&result.text("token_type")?.unwrap_or_default());
    let is_batch = result.text("service_tier")?.as_deref() == Some("batch");
    let (nature, tokens) = (Nature::Usage, None);
    Ok(Entry::Cost(Cost { day, subject, is_batch, nature, kind, written, currency, tokens }))
}

/// What a result without the id of a model is about.
fn unnamed(cost_type: &str, description: Option<&str>) -> Subject {
    let Some(description) = description else {
        return if cost_type.is_empty() { Subject::All } else { of_type(cost_type, cost_type) };
    };
    if !cost_type.starts_with("token") {
        return of_type(cost_type, description);
    }
    match description.split_once(" Usage") {
        Some((name, _)) => Subject::Name(name.to_owned()),
        None => Subject::Unknown(description.to_owned()),
    }
}

/// What is billed beside tokens.
fn of_type(cost_type: &str, description: &str) -> Subject {
    let of = service(Provider::Anthropic, cost_type);
    let found = of.or_else(|| service(Provider::Anthropic, description));
    found.unwrap_or_else(|| Subject::Unknown(description.to_owned()))
}

/// Reads a result of usage.
pub(super) fn usage(day: NaiveDate, result: &Members) -> anyhow::Result<Entry> {
    let creation = result.object("cache_creation")?;
    let written = |member: &str| below("cache_creation", creation.count(member));
    let tokens = [
        result.count("uncached_input_tokens")?,
        result.count("cache_read_input_tokens")?,
        written("ephemeral_5m_input_tokens")? + written("ephemeral_1h_input_tokens")?,
        result.count("output_tokens")?,
    ];
    let subject = result.text("model")?.map_or(Subject::All, Subject::Id);
    let is_batch = result.text("service_tier")?.as_deref() == Some("batch");
    Ok(Entry::Usage(Usage { day, subject, is_batch, tokens }))
}

/// Reads a row of the console's costs.
pub(super) fn cost_row(row: &Row<'_>) -> anyhow::Result<Option<Entry>> {
    let day = row_day(row)?;
    let written = row.decimal("cost_usd", 0)?.context("cost_usd: empty")?;
    let cost_type = row.get("cost_type");
    let subject = match row.get("model") {
        _ if !(cost_type.is_empty() || cost_type.starts_with("token")) => {
            of_type(cost_type, cost_type)
        }
        "" => Subject::All,
        name => Subject::Name(name.to_owned()),
    };
    let is_batch = row.get("usage_type") == "batch";
    let kind = kind(row.get("token_type"));
    let (nature, currency, tokens) = (Nature::Usage, "USD".to_owned(), None);
    Ok(Some(Entry::Cost(Cost { day, subject, is_batch, nature, kind, written, currency, tokens })))
}

/// Reads a row of the console's tokens.
pub(super) fn usage_row(row: &Row<'_>) -> anyhow::Result<Option<Entry>> {
    let day = row_day(row)?;
    let written: Amount =
        ["usage_input_tokens_cache_write_5m", "usage_input_tokens_cache_write_1h"]
            .iter()
            .map(|column| row.count(column))
            .sum::<anyhow::Result<Amount>>()?;
    let tokens = [
        row.count("usage_input_tokens_no_cache")?,
        row.count("usage_input_tokens_cache_read")?,
        written,
        row.count("usage_output_tokens")?,
    ];
    let subject = match row.get("model_version") {
        "" => Subject::All,
        model => Subject::Id(model.to_owned()),
    };
    let is_batch = row.get("usage_type") == "batch";
    Ok(Some(Entry::Usage(Usage { day, subject, is_batch, tokens })))
}

/// The day of a row, which may be told with an hour.
fn row_day(row: &Row<'_>) -> anyhow::Result<NaiveDate> {
    let text = row.get("usage_date_utc");
    let day = NaiveDate::parse_from_str(text.get(..10).unwrap_or_default(), "%Y-%m-%d").ok();
    day.with_context(|| format!("usage_date_utc: must be a day, found {text:.60?}"))
}

/// The kind of a `token_type`, of the report or of the console.
fn kind(token_type: &str) -> Kind {
    match token_type {
        "uncached_input_tokens" | "input_no_cache" => Kind::Input,
        "output_tokens" | "output" => Kind::Output,
        "cache_read_input_tokens" | "input_cache_read" => Kind::CacheRead,
        "cache_creation.ephemeral_1h_input_tokens"
        | "cache_creation.ephemeral_5m_input_tokens"
        | "input_cache_write_5m"
        | "input_cache_write_1h" => Kind::CacheWrite,
        _ => Kind::Other,
    }
}
