//! Reads what OpenAI says about an organization's costs and its usage of models.
//!
//! - Costs: `GET /v1/organization/costs`, buckets of a day of `organization.costs.result`, as the API
//!   reference of 2026 describes it. `amount.value` comes as a number or as text, such as
//!   `"0E-6176"`. Group it by `line_item`: else a day is one sum for all models.
//! - Usage: `GET /v1/organization/usage/completions`, `organization.usage.completions.result`; group
//!   it by `model` (and by `batch`). `input_tokens` has the cached ones among them.
//! - The CSV that the dashboard's usage page exports, as it was in 2025 and 2026: the same members as
//!   columns, `amount_value` and `amount_currency` in place of `amount`. A day without costs is a row
//!   without them.
//!
//! The reference does not describe the names of line items. They are a model and a kind of tokens,
//! such as `gpt-4o-2024-08-06, cached input`, or the name of a service; what is neither stays by
//! itself. `quantity` counts the tokens.

use anyhow::{Context, bail, ensure};
use chrono::{DateTime, NaiveDate};

use crate::bill::amount::Amount;
use crate::bill::json::{Bucket, Members, below};
use crate::bill::line::{Cost, Entry, Kind, Nature, Provider, Subject, Usage};
use crate::bill::services::service;
use crate::bill::table::Row;

/// Seconds of a day.
const DAY_SECONDS: i64 = 24 * 60 * 60;
/// Members that do not tell one result of a bucket from another.
pub(super) const AMOUNTS: [&str; 4] = ["amount", "quantity", "amount_value", "object"];
/// The columns that the dashboard's exports of costs and of usage have.
pub(super) const COST_COLUMNS: [&str; 3] = ["start_time", "amount_value", "amount_currency"];
pub(super) const USAGE_COLUMNS: [&str; 5] =
    ["start_time", "model", "input_tokens", "output_tokens", "num_model_requests"];

/// The day of a bucket of costs, or of usage.
pub(super) fn day(bucket: &Bucket) -> anyhow::Result<NaiveDate> {
    let seconds = |member: &str| {
        let read = bucket.members.decimal(member, 0)?;
        let read = read.with_context(|| format!("{member}: missing"))?;
        unix_seconds(read.amount).with_context(|| format!("{member}: must be Unix seconds"))
    };
    day_of(seconds("start_time")?, seconds("end_time")?)
}

fn unix_seconds(amount: Amount) -> Option<i64> {
    amount.to_string().parse().ok()
}

fn day_of(start: i64, end: i64) -> anyhow::Result<NaiveDate> {
    let time = DateTime::from_timestamp(start, 0);
    let day = time.context("start_time: beyond the calendar")?.date_naive();
    let within = start.rem_euclid(DAY_SECONDS);
    ensure!(
        end > start && end - start <= DAY_SECONDS - within,
        "end_time: must be on the same day in UTC as start_time, found {start} to {end}"
    );
    Ok(day)
}

/// Reads a result of costs.
pub(super) fn cost(day: NaiveDate, result: &Members) -> anyhow::Result<Entry> {
    let amount = result.object("amount")?;
    let value = below("amount", amount.decimal("value", 0))?;
    let written = value.context("amount.value: missing")?;
    let currency = below("amount", amount.text("currency"))?;
    let currency = currency.context("amount.currency: missing")?.to_uppercase();
    let quantity = result.decimal("quantity", 0)?.map(|quantity| quantity.amount);
    let unit = result.text("quantity_unit")?.unwrap_or_default();
    let (subject, kind) = line_item(result.text("line_item")?.as_deref().unwrap_or_default());
    let tokens = quantity.and_then(|quantity| tokens(kind, quantity, &unit));
    let (is_batch, nature) = (false, Nature::Usage);
    Ok(Entry::Cost(Cost { day, subject, is_batch, nature, kind, written, currency, tokens }))
}

/// Reads a result of usage.
pub(super) fn usage(day: NaiveDate, result: &Members) -> anyhow::Result<Entry> {
    let count = |member: &str| result.count(member);
    let (input, output) = (count("input_tokens")?, count("output_tokens")?);
    let read = count("input_cached_tokens")?;
    let written = count("input_cache_write_tokens")?;
    let subject = result.text("model")?.map_or(Subject::All, Subject::Id);
    let tokens = kinds(input, read, written, output)?;
    Ok(Entry::Usage(Usage { day, subject, is_batch: result.flag("batch")?, tokens }))
}

/// Reads a row of the dashboard's costs; `None` for a day without any.
pub(super) fn cost_row(row: &Row<'_>) -> anyhow::Result<Option<Entry>> {
    let day = row_day(row)?;
    let (value, currency) = (row.get("amount_value"), row.get("amount_currency"));
    if value.is_empty() && currency.is_empty() {
        return Ok(None);
    }
    let written = row.decimal("amount_value", 0)?.context("amount_value: empty")?;
    let (subject, kind) = line_item(row.get("line_item"));
    let quantity = row.decimal("quantity", 0)?.map(|quantity| quantity.amount);
    let tokens = quantity.and_then(|quantity| tokens(kind, quantity, row.get("quantity_unit")));
    let (is_batch, nature, currency) = (false, Nature::Usage, currency.to_uppercase());
    Ok(Some(Entry::Cost(Cost { day, subject, is_batch, nature, kind, written, currency, tokens })))
}

/// Reads a row of the dashboard's usage; `None` for a day without any.
pub(super) fn usage_row(row: &Row<'_>) -> anyhow::Result<Option<Entry>> {
    let day = row_day(row)?;
    if row.get("model").is_empty() && row.get("input_tokens").is_empty() {
        return Ok(None);
    }
    let subject = match row.get("model") {
        "" => Subject::All,
        model => Subject::Id(model.to_owned()),
    };
    let input = row.count("input_tokens")?;
    let (read, written) = (row.count("input_cached_tokens")?, Amount::ZERO);
    let tokens = kinds(input, read, written, row.count("output_tokens")?)?;
    let is_batch = row.get("batch").eq_ignore_ascii_case("true");
    Ok(Some(Entry::Usage(Usage { day, subject, is_batch, tokens })))
}

fn row_day(row: &Row<'_>) -> anyhow::Result<NaiveDate> {
    let seconds = |column: &str| {
        let read = row.decimal(column, 0)?.with_context(|| format!("{column}: empty"))?;
        unix_seconds(read.amount).with_context(|| format!("{column}: must be Unix seconds"))
    };
    let start = seconds("start_time")?;
    let end = if row.has("end_time") { seconds("end_time")? } else { start + DAY_SECONDS };
    day_of(start, end)
}

fn kinds(
    input: Amount,
    read: Amount,
    written: Amount,
    output: Amount,
) -> anyhow::Result<[Amount; 4]> {
    let fresh = input - read - written;
    if fresh.is_negative() {
        bail!("input_tokens: must have the cached tokens among them, found {input}");
    }
    Ok([fresh, read, written, output])
}

/// What a line item is about.
fn line_item(text: &str) -> (Subject, Kind) {
    if text.is_empty() {
        return (Subject::All, Kind::Other);
    }
    if let Some(subject) = service(Provider::OpenAi, text) {
        return (subject, Kind::Other);
    }
    let Some((model, of)) = text.rsplit_once(", ") else {
        // Without a space it can be the id of a model, else it says something to people.
        let is_id = !text.contains(' ');
        let subject = if is_id { Subject::Id } else { Subject::Unknown };
        return (subject(text.to_owned()), Kind::Other);
    };
    let model = [" text", " image", " audio"]
        .iter()
        .find_map(|modality| model.strip_suffix(modality))
        .unwrap_or(model);
    let of = of.to_lowercase();
    let kind = match () {
        () if of.contains("cache") && of.contains("write") => Kind::CacheWrite,
        () if of.contains("cache") => Kind::CacheRead,
        () if of.contains("input") => Kind::Input,
        () if of.contains("output") => Kind::Output,
        () => Kind::Other,
    };
    let subject = if model.contains(' ') { Subject::Unknown } else { Subject::Id };
    let name = if model.contains(' ') { text } else { model };
    (subject(name.to_owned()), kind)
}

/// How many tokens a quantity is.
fn tokens(kind: Kind, quantity: Amount, unit: &str) -> Option<Amount> {
    let is_tokens = kind != Kind::Other && (unit.is_empty() || unit == "tokens");
    let thousands = unit == "1000_tokens";
    match (is_tokens, thousands) {
        (true, _) => Some(quantity),
        (_, true) => quantity.share(Amount::from(1000), Amount::from(1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_items_are_models_services_or_themselves() {
        let id = |id: &str| Subject::Id(id.to_owned());
        let unknown = |text: &str| Subject::Unknown(text.to_owned());
        for (text, expected) in [
            ("", (Subject::All, Kind::Other)),
            ("gpt-4o-2024-08-06, input", (id("gpt-4o-2024-08-06"), Kind::Input)),
            ("gpt-4o-2024-08-06, cached input", (id("gpt-4o-2024-08-06"), Kind::CacheRead)),
            ("gpt-5-nano, output_tokens", (id("gpt-5-nano"), Kind::Output)),
            ("gpt-6-astra, cache writes", (id("gpt-6-astra"), Kind::CacheWrite)),
            ("gpt-image-2-2026-04-21 image, output", (id("gpt-image-2-2026-04-21"), Kind::Output)),
            ("gpt-4o, images", (id("gpt-4o"), Kind::Other)),
            ("gpt-4", (id("gpt-4"), Kind::Other)),
            ("web search tool calls", (Subject::Unit("web_searches"), Kind::Other)),
            (
                "evals | gpt-4o-mini-2024-07-18, input",
                (Subject::Service("evals | gpt-4o-mini-2024-07-18, input".to_owned()), Kind::Other),
            ),
            ("image models", (unknown("image models"), Kind::Other)),
            ("some thing new, input", (unknown("some thing new, input"), Kind::Input)),
        ] {
            assert_eq!(line_item(text), expected, "{text:?}");
        }
    }
}
