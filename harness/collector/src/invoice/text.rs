//! The invoice as text: tables with aligned decimal points, and names that cannot move a terminal's
//! cursor.

use std::fmt;

use rust_decimal::Decimal;

use crate::invoice::{Generations, Invoice, Line, ProductUse, Sums, TokenLine};
use crate::query::rfc3339;

impl fmt::Display for Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let customer = self.customer.as_deref().map_or("all".to_owned(), printable);
        let from = self.period.from_ms.map_or("the beginning".to_owned(), rfc3339);
        let to = self.period.to_ms.map_or("now".to_owned(), rfc3339);
        writeln!(f, "INVOICE\nCustomer  {customer}\nPeriod    {from} to {to}")?;
        if let Some(payer) = &self.paid_by {
            writeln!(f, "Paid by   {}", printable(payer))?;
        }
        f.write_str("\n")?;
        for product in &self.products {
            self.write_product(f, product)?;
        }
        if self.totals.is_empty() {
            return writeln!(f, "Total  0");
        }
        for total in &self.totals {
            writeln!(f, "Total  {} {}", total.sums.revenue, total.currency)?;
        }
        Ok(())
    }
}

impl Invoice {
    fn write_product(&self, f: &mut fmt::Formatter<'_>, product: &ProductUse) -> fmt::Result {
        let (name, kind) = (printable(&product.product), printable(&product.product_type));
        write!(f, "Product {name} ({kind}), {}", product.currency)?;
        if self.customer.as_ref() != Some(&product.customer) {
            write!(f, ", customer {}", printable(&product.customer))?;
        }
        f.write_str("\n")?;
        if !product.lines.is_empty() || product.generations.generations == 0 {
            write_lines(f, noun(product), &product.lines)?;
        }
        if !product.token_lines.is_empty() {
            write_token_lines(f, &product.token_lines)?;
        }
        let not_billed: Vec<String> =
            product.not_billed.iter().map(|(status, calls)| format!("{status} {calls}")).collect();
        let not_billed =
            if not_billed.is_empty() { "none".to_owned() } else { not_billed.join(", ") };
        let (sums, currency) = (&product.sums, &product.currency);
        writeln!(f, "  Not billed       {not_billed}")?;
        writeln!(f, "  Sessions closed  {}", product.sessions_closed)?;
        writeln!(f, "  Provider cost    {} {currency}", sums.provider_cost)?;
        write_costs(f, product)?;
        writeln!(f, "  Revenue          {} {currency}", sums.revenue)?;
        let Generations { unpriced_generations, unpriced_units_generations, .. } =
            product.generations;
        let unpriced = unpriced_generations + unpriced_units_generations > 0;
        let caveat = if unpriced { ", the unknown cost not counted" } else { "" };
        writeln!(f, "  Margin           {}{caveat}\n", sums.margin_text(currency))
    }
}

/// One word for what the calls of a product call.
fn noun(product: &ProductUse) -> &'static str {
    let mut kinds = product.lines.iter().map(|line| line.kind.as_str());
    let first = kinds.next();
    match first {
        Some(first) if kinds.any(|kind| kind != first) => "Call",
        Some("api_call") => "Route",
        Some("agent_step") => "Operation",
        _ => "Tool",
    }
}

fn write_lines(f: &mut fmt::Formatter<'_>, noun: &str, lines: &[Line]) -> fmt::Result {
    let price_scale = scale(lines.iter().filter_map(|line| line.unit_price));
    let amount_scale = scale(lines.iter().map(|line| line.amount));
    let mut table =
        vec![[noun, "Tier", "Unit price", "Calls", "Billable", "Amount"].map(str::to_owned)];
    table.extend(lines.iter().map(|line| {
        [
            printable(&line.tool),
            printable(&line.tier),
            line.unit_price.map_or("-".to_owned(), |price| aligned(price, price_scale)),
            line.calls.to_string(),
            line.billable_calls.to_string(),
            aligned(line.amount, amount_scale),
        ]
    }));
    write_table(f, "  ", &table, 2)
}

fn write_token_lines(f: &mut fmt::Formatter<'_>, lines: &[TokenLine]) -> fmt::Result {
    let amount_scale = scale(lines.iter().map(|line| line.amount));
    let head = ["Provider", "Model", "Generations", "Input tokens", "Output tokens", "Amount"];
    let mut table = vec![head.map(str::to_owned)];
    table.extend(lines.iter().map(|line| {
        [
            printable(&line.provider),
            printable(&line.model),
            line.generations.to_string(),
            line.consumed.tokens.input.to_string(),
            line.consumed.tokens.output.to_string(),
            aligned(line.amount, amount_scale),
        ]
    }));
    write_table(f, "  ", &table, 2)
}

/// Where the provider cost comes from; nothing without generations.
fn write_costs(f: &mut fmt::Formatter<'_>, product: &ProductUse) -> fmt::Result {
    let Generations {
        generations,
        unpriced_generations,
        unknown_usage_generations,
        unpriced_units_generations,
        inconsistent_generations,
    } = product.generations;
    if generations == 0 {
        return Ok(());
    }
    let noun = noun(product).to_lowercase();
    writeln!(f, "    By {noun}")?;
    let cost_scale = scale(product.cost_by_tool.iter().map(|cost| cost.provider_cost));
    let tools = product.cost_by_tool.iter().map(|cost| {
        let tool = cost.tool.as_deref().map(printable);
        let tool = tool.unwrap_or_else(|| {
            let article = if noun == "operation" { "an" } else { "a" };
            format!("(not attributed to {article} {noun})")
        });
        [tool, known(cost.generations, cost.provider_cost, cost_scale)]
    });
    write_table(f, "      ", &tools.collect::<Vec<_>>(), 1)?;
    writeln!(f, "    By model")?;
    let cost_scale = scale(product.cost_by_model.iter().map(|cost| cost.provider_cost));
    let models = product.cost_by_model.iter().map(|cost| {
        let cost_text = known(cost.generations, cost.provider_cost, cost_scale);
        [printable(&cost.provider), printable(&cost.model), cost_text]
    });
    write_table(f, "      ", &models.collect::<Vec<_>>(), 2)?;
    let without_rate = unpriced_generations - unknown_usage_generations.min(unpriced_generations);
    write_note(f, without_rate, "without a rate: cost unknown")?;
    write_note(f, unknown_usage_generations, "of unknown usage: cost unknown")?;
    write_units(f, product)?;
    write_note(f, unpriced_units_generations, "with units without a price: cost too low")?;
    write_note(f, inconsistent_generations, "with inconsistent counts: cost uncertain")
}

/// What is to be known about the cost of some generations; nothing if there are none.
fn write_note(f: &mut fmt::Formatter<'_>, count: u64, what: &str) -> fmt::Result {
    let noun = if count == 1 { "generation" } else { "generations" };
    if count > 0 { writeln!(f, "    {count} {noun} {what}") } else { Ok(()) }
}

/// What was used beside tokens; nothing if there is none.
fn write_units(f: &mut fmt::Formatter<'_>, product: &ProductUse) -> fmt::Result {
    let units = product.cost_by_model.iter().flat_map(|cost| {
        let name = [printable(&cost.provider), printable(&cost.model)];
        cost.consumed.units.iter().map(move |(unit, quantity)| {
            let [provider, model] = name.clone();
            [provider, model, printable(unit), quantity.to_string()]
        })
    });
    let units: Vec<_> = units.collect();
    if !units.is_empty() {
        writeln!(f, "    Beside tokens")?;
    }
    write_table(f, "      ", &units, 3)
}

/// A cost, or `unknown` if no generation has one.
fn known(generations: Generations, cost: Decimal, scale: u32) -> String {
    if generations.unpriced_generations == generations.generations {
        return "unknown".to_owned();
    }
    aligned(cost, scale)
}

impl Sums {
    fn margin_text(&self, currency: &str) -> String {
        let unit = if self.margin_percent == "n/a" { "" } else { " %" };
        format!("{} {currency} ({}{unit})", self.margin, self.margin_percent)
    }
}

/// Writes a table. The first columns are names, aligned to the left; the others are numbers,
/// aligned to the right.
pub(crate) fn write_table<const COLUMNS: usize>(
    f: &mut fmt::Formatter<'_>,
    indent: &str,
    table: &[[String; COLUMNS]],
    names: usize,
) -> fmt::Result {
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
    let widths = std::array::from_fn::<usize, COLUMNS, _>(|column| width(column).unwrap_or(0));
    for row in table {
        f.write_str(indent)?;
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = if column == 0 { "" } else { "  " };
            if column < names {
                write!(f, "{gap}{cell:<width$}")?;
            } else {
                write!(f, "{gap}{cell:>width$}")?;
            }
        }
        f.write_str("\n")?;
    }
    Ok(())
}

/// The most digits behind the point.
fn scale(amounts: impl Iterator<Item = Decimal>) -> u32 {
    amounts.map(|amount| amount.scale()).max().unwrap_or(0)
}

/// The same amount with zeros added, so that the decimal points of a column align.
fn aligned(amount: Decimal, scale: u32) -> String {
    let mut text = amount.to_string();
    if scale > amount.scale() {
        if amount.scale() == 0 {
            text.push('.');
        }
        text.extend((amount.scale()..scale).map(|_| '0'));
    }
    text
}

/// A name from outside, without characters that could move a terminal's cursor.
pub(crate) fn printable(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if character.is_control() {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}
