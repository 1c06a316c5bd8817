//! Reads what AWS says about the costs of Amazon Bedrock.
//!
//! - Cost and Usage Report, CUR 2.0 of Data Exports (columns such as `line_item_usage_type`) and the
//!   legacy one (`lineItem/UsageType`), CSV, gzip or not, as AWS' table dictionary of 2026 has them.
//!   The amount is `line_item_unblended_cost`; discounts are lines of their own.
//! - FOCUS 1.0 and 1.2 "with AWS columns", CSV. The amount is `BilledCost`; the usage type is
//!   `x_UsageType`, or `SkuMeter` where that is missing.
//!
//! Both are about all of AWS: what is not Bedrock's is added up by itself. Values that a report has
//! in a column of JSON (`product`) are read from there.

use anyhow::{Context, ensure};
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta};

use crate::bill::bedrock::{UsageType, is_bedrock, tokens, usage_type};
use crate::bill::line::{Cost, Entry, Nature, Subject};
use crate::bill::table::Row;

/// The columns that the two formats have.
pub(super) const CUR_COLUMNS: [&str; 6] = [
    "line_item_usage_start_date",
    "line_item_line_item_type",
    "line_item_product_code",
    "line_item_usage_type",
    "line_item_unblended_cost",
    "line_item_currency_code",
];
pub(super) const FOCUS_COLUMNS: [&str; 5] =
    ["BilledCost", "BillingCurrency", "ChargePeriodStart", "ChargeCategory", "ServiceName"];

/// The name that CUR 2.0 has for a column of the legacy report, such as `line_item_usage_type` for
/// `lineItem/UsageType`.
pub(super) fn column(name: &str) -> String {
    if !name.contains('/') {
        return name.to_owned();
    }
    let mut snake = String::new();
    for (at, part) in name.split('/').enumerate() {
        if at > 0 {
            snake.push('_');
        }
        let mut was_upper = true;
        for letter in part.chars() {
            if letter.is_ascii_uppercase() && !was_upper {
                snake.push('_');
            }
            was_upper = letter.is_ascii_uppercase();
            snake.push(letter.to_ascii_lowercase());
        }
    }
    snake
}

/// What tells a line of the report from all others: its id, which is unique in a billing period.
pub(super) fn cur_identity(row: &Row<'_>) -> String {
    if row.has("identity_line_item_id") {
        let parts =
            ["identity_line_item_id", "identity_time_interval", "bill_billing_period_start_date"];
        return parts.map(|column| row.get(column)).join("\n");
    }
    row.identity(&[])
}

/// Reads a line of a Cost and Usage Report.
pub(super) fn cur_row(row: &Row<'_>) -> anyhow::Result<Option<Entry>> {
    let written = row.decimal("line_item_unblended_cost", 0)?;
    let written = written.context("line_item_unblended_cost: empty")?;
    let currency = row.get("line_item_currency_code").to_owned();
    let code = match row.get("product_servicecode") {
        "" => row.get("line_item_product_code"),
        code => code,
    };
    let product = product_name(row);
    if !is_bedrock(code, &product) && !is_bedrock(row.get("line_item_product_code"), &product) {
        return Ok(Some(Entry::Elsewhere(written.amount, currency)));
    }
    let day = day(row, "line_item_usage_start_date")?;
    let nature = match row.get("line_item_line_item_type") {
        "Usage" | "DiscountedUsage" | "SavingsPlanCoveredUsage" => Nature::Usage,
        "Tax" => Nature::Tax,
        "Credit" => Nature::Credit,
        "Refund" => Nature::Refund,
        kind if kind.ends_with("Discount") || kind == "SavingsPlanNegation" => Nature::Discount,
        _ => Nature::Fee,
    };
    if nature == Nature::Usage {
        within_a_day(row, "line_item_usage_start_date", "line_item_usage_end_date")?;
    }
    let UsageType { subject, kind, is_batch } =
        usage_type(row.get("line_item_usage_type"), &product);
    let quantity = row.decimal("line_item_usage_amount", 0)?.map(|quantity| quantity.amount);
    let unit = row.get("pricing_unit");
    let tokens = tokens(kind, quantity, unit);
    let subject = named(subject, nature, row.get("line_item_line_item_description"));
    Ok(Some(Entry::Cost(Cost { day, subject, is_batch, nature, kind, written, currency, tokens })))
}

/// Reads a row of FOCUS.
pub(super) fn focus_row(row: &Row<'_>) -> anyhow::Result<Option<Entry>> {
    let written = row.decimal("BilledCost", 0)?.context("BilledCost: empty")?;
    let currency = row.get("BillingCurrency").to_owned();
    let product = row.get("ServiceName");
    if !is_bedrock(row.get("x_ServiceCode"), product) {
        return Ok(Some(Entry::Elsewhere(written.amount, currency)));
    }
    let day = day(row, "ChargePeriodStart")?;
    let nature = match row.get("ChargeCategory") {
        "Usage" => Nature::Usage,
        "Tax" => Nature::Tax,
        "Credit" => Nature::Credit,
        "Adjustment" => Nature::Refund,
        _ => Nature::Fee,
    };
    if nature == Nature::Usage {
        within_a_day(row, "ChargePeriodStart", "ChargePeriodEnd")?;
    }
    let sold_as = if row.has("x_UsageType") { "x_UsageType" } else { "SkuMeter" };
    let UsageType { subject, kind, is_batch } = usage_type(row.get(sold_as), product);
    let (quantity, unit) = match row.has("PricingQuantity") {
        true => ("PricingQuantity", "PricingUnit"),
        false => ("ConsumedQuantity", "ConsumedUnit"),
    };
    let quantity = row.decimal(quantity, 0)?.map(|quantity| quantity.amount);
    let tokens = tokens(kind, quantity, row.get(unit));
    let subject = named(subject, nature, row.get("ChargeDescription"));
    Ok(Some(Entry::Cost(Cost { day, subject, is_batch, nature, kind, written, currency, tokens })))
}

/// A line that no usage type names has at least a description.
fn named(subject: Subject, nature: Nature, description: &str) -> Subject {
    let is_unnamed = matches!(&subject, Subject::Unknown(name) if name.is_empty());
    match (is_unnamed, nature) {
        (false, _) => subject,
        (true, Nature::Usage) => Subject::Unknown(format!("Amazon Bedrock: {description}")),
        (true, _) => Subject::Unknown("Amazon Bedrock".to_owned()),
    }
}

/// The name of the product, in a column of its own or in one of JSON.
fn product_name(row: &Row<'_>) -> String {
    let name = row.get("product_product_name");
    if !name.is_empty() {
        return name.to_owned();
    }
    let map = serde_json::from_str::<serde_json::Value>(row.get("product")).unwrap_or_default();
    map["product_name"].as_str().unwrap_or_default().to_owned()
}

fn day(row: &Row<'_>, column: &str) -> anyhow::Result<NaiveDate> {
    Ok(time(row, column)?.date())
}

/// Refuses usage of more than a day, which cannot be compared by days.
fn within_a_day(row: &Row<'_>, start: &str, end: &str) -> anyhow::Result<()> {
    if !row.has(end) {
        return Ok(());
    }
    let (from, to) = (time(row, start)?, time(row, end)?);
    ensure!(
        to - from <= TimeDelta::days(1),
        "{end}: more than a day behind {start}: export by the day or by the hour"
    );
    Ok(())
}

/// A time in UTC, as `2026-07-01T00:00:00Z` or `2026-07-01 00:00:00.000`.
fn time(row: &Row<'_>, column: &str) -> anyhow::Result<NaiveDateTime> {
    let text = row.get(column);
    let plain = text.trim_end_matches(" UTC");
    let zoned = DateTime::parse_from_rfc3339(text).ok().map(|time| time.naive_utc());
    let local = || NaiveDateTime::parse_from_str(plain, "%Y-%m-%d %H:%M:%S%.f").ok();
    let bare = || NaiveDateTime::parse_from_str(plain, "%Y-%m-%dT%H:%M:%S%.f").ok();
    let found = zoned.or_else(local).or_else(bare);
    found.with_context(|| format!("{column}: must be a time, found {text:.60?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_the_legacy_report_have_the_names_of_the_new_one() {
        for (legacy, expected) in [
            ("lineItem/UsageType", "line_item_usage_type"),
            ("lineItem/LineItemType", "line_item_line_item_type"),
            ("lineItem/UnblendedCost", "line_item_unblended_cost"),
            ("bill/BillingPeriodStartDate", "bill_billing_period_start_date"),
            ("identity/LineItemId", "identity_line_item_id"),
            ("product/ProductName", "product_product_name"),
            ("product/servicecode", "product_servicecode"),
            ("pricing/unit", "pricing_unit"),
            ("line_item_usage_type", "line_item_usage_type"),
            ("x_UsageType", "x_UsageType"),
        ] {
            assert_eq!(column(legacy), expected);
        }
    }
}
