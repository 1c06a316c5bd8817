//! The operator's document: what a customer owes, and what that cost, with what is not known of it.

use std::fmt;

use rust_decimal::Decimal;

use crate::invoice::csv::Record;
use crate::invoice::document::{BILLED_COLUMNS, Document};
use crate::invoice::sheet::{Block, Part, Sheet, Table, TotalLine};
use crate::invoice::text::{aligned, scale};
use crate::invoice::{Generations, Invoice, Line, ModelCost, ProductUse, Sums, TokenLine};
use crate::money::known::CostKnown;
use crate::query::rfc3339;

impl fmt::Display for Invoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sheet().fmt(f)
    }
}

impl Document for Invoice {
    const COLUMNS: &'static [&'static [&'static str]] = &[
        BILLED_COLUMNS,
        &[
            "provider_cost",
            "cost_known",
            "margin",
            "margin_percent",
            "unpriced_generations",
            "unknown_usage_generations",
            "unpriced_units_generations",
            "inconsistent_generations",
        ],
    ];

    fn sheet(&self) -> Sheet {
        let from = self.period.from_ms.map_or("the beginning".to_owned(), rfc3339);
        let to = self.period.to_ms.map_or("now".to_owned(), rfc3339);
        let mut head = vec![
            ("Customer", self.customer.clone().unwrap_or_else(|| "all".to_owned())),
            ("Period", format!("{from} to {to}")),
        ];
        head.extend(self.paid_by.clone().map(|payer| ("Paid by", payer)));
        let sum = |value| TotalLine { label: "Total", value, is_sum: true };
        let mut totals: Vec<TotalLine> = self
            .totals
            .iter()
            .map(|total| sum(format!("{} {}", total.sums.revenue, total.currency)))
            .collect();
        if totals.is_empty() {
            totals.push(sum("0".to_owned()));
        }
        Sheet {
            title: "INVOICE, the operator's: not for the customer".to_owned(),
            head,
            parts: self.products.iter().map(|product| self.part(product)).collect(),
            totals,
        }
    }

    fn records(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for product in &self.products {
            let of_product = |row| {
                let record = self.record(row).text("used_by", &product.customer);
                let record = record.text("product", &product.product);
                let record = record.number("product_type", &product.product_type);
                record.number("currency", &product.currency)
            };
            records.extend(product.lines.iter().map(|line| of_line(of_product("line"), line)));
            let tokens = product.token_lines.iter();
            records.extend(tokens.map(|line| of_tokens(of_product("line"), line)));
            let not_billed = &product.not_billed;
            for line in not_billed.lines("", "", not_billed.uncharged_generations) {
                let record = of_product("not_billed").number("kind", &line.unit);
                records.push(record.text("reason", &line.reason).number("count", line.count));
            }
            for cost in &product.cost_by_tool {
                let record = of_product("cost_by_tool");
                let record = record.text("name", cost.tool.as_deref().unwrap_or_default());
                records.push(of_cost(record, cost.generations, cost.provider_cost));
            }
            for cost in &product.cost_by_model {
                let record = of_product("cost_by_model");
                let record = record.text("name", &format!("{} {}", cost.provider, cost.model));
                records.push(of_cost(record, cost.generations, cost.provider_cost));
            }
            records.push(of_sums(of_product("product_margin"), product.generations, &product.sums));
        }
        for total in &self.totals {
            let record = self.record("margin").number("currency", &total.currency);
            records.push(of_sums(record, total.generations, &total.sums));
        }
        records
    }
}

fn of_line(record: Record, line: &Line) -> Record {
    let record = record.number("kind", &line.kind).text("name", &line.tool);
    let price = line.unit_price.map(|price| price.normalize());
    let record = record.text("tier", &line.tier).known("unit_price", price);
    let record = record.number("count", line.calls).number("billable_count", line.billable_calls);
    record.number("amount", line.amount.normalize())
}

fn of_tokens(record: Record, line: &TokenLine) -> Record {
    let record = record.number("kind", "tokens");
    let record = record.text("name", &format!("{} {}", line.provider, line.model));
    let record = record.number("count", line.generations);
    let record = record.number("billable_count", line.generations - line.uncharged_generations);
    record.number("amount", line.amount.normalize())
}

fn of_cost(record: Record, generations: Generations, cost: Decimal) -> Record {
    let known = generations.cost_known();
    let record = record.known("provider_cost", known.told(cost).map(|cost| cost.normalize()));
    record
        .number("cost_known", known)
        .number("count", generations.generations)
        .number("unpriced_generations", generations.unpriced_generations)
        .number("unknown_usage_generations", generations.unknown_usage_generations)
        .number("unpriced_units_generations", generations.unpriced_units_generations)
        .number("inconsistent_generations", generations.inconsistent_generations)
}

fn of_sums(record: Record, generations: Generations, sums: &Sums) -> Record {
    let margin = generations.cost_known().told(sums.margin).map(|margin| margin.normalize());
    of_cost(record, generations, sums.provider_cost)
        .number("amount", sums.revenue.normalize())
        .known("margin", margin)
        .number("margin_percent", &sums.margin_percent)
}

impl Invoice {
    fn record(&self, row: &'static str) -> Record {
        let record = Record::default().text("customer", self.customer.as_deref().unwrap_or("all"));
        let record = record.known("period_from", self.period.from_ms.map(rfc3339));
        record.known("period_to", self.period.to_ms.map(rfc3339)).number("row", row)
    }

    fn part(&self, product: &ProductUse) -> Part {
        let ProductUse { product: name, product_type, currency, sums, generations, .. } = product;
        let mut title = format!("Product {name} ({product_type}), {currency}");
        if self.customer.as_ref() != Some(&product.customer) {
            title.push_str(&format!(", customer {}", product.customer));
        }
        let mut part = Part { title, blocks: Vec::new() };
        if !product.lines.is_empty() || generations.generations == 0 {
            // Without a line, the head says what there is none of.
            part.blocks.push(Block::Table(lines(noun(product), &product.lines)));
        }
        part.table(token_lines(&product.token_lines));
        part.fact("Not billed", product.not_billed.sentence());
        part.fact("Sessions closed", product.sessions_closed.to_string());
        let cost = match generations.cost_known() {
            CostKnown::All => format!("{} {currency}", sums.provider_cost),
            CostKnown::Part => format!("at least {} {currency}", sums.provider_cost),
            CostKnown::None => "unknown".to_owned(),
        };
        part.fact("Provider cost", cost);
        add_costs(&mut part, product);
        part.fact("Revenue", format!("{} {currency}", sums.revenue));
        part.fact("Margin", margin(*generations, sums, currency));
        part
    }
}

fn margin(generations: Generations, sums: &Sums, currency: &str) -> String {
    let unit = if sums.margin_percent == "n/a" { "" } else { " %" };
    let margin = format!("{} {currency} ({}{unit})", sums.margin, sums.margin_percent);
    match generations.cost_known() {
        CostKnown::All => margin,
        CostKnown::Part => format!("at most {margin}, {}", missing(generations)),
        CostKnown::None => format!("unknown, {}", missing(generations)),
    }
}

/// How much a sum of costs misses.
fn missing(generations: Generations) -> String {
    let Generations { generations, unpriced_generations, unpriced_units_generations, .. } =
        generations;
    let of = |count: u64, what: &str| {
        let noun = if generations == 1 { "generation" } else { "generations" };
        (count > 0).then(|| format!("{count} of {generations} {noun} {what}"))
    };
    let without = of(unpriced_generations, "without a cost");
    let in_part = of(unpriced_units_generations, "with a part of it");
    without.into_iter().chain(in_part).collect::<Vec<_>>().join(", ")
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

fn lines(noun: &'static str, lines: &[Line]) -> Table {
    let price_scale = scale(lines.iter().filter_map(|line| line.unit_price));
    let amount_scale = scale(lines.iter().map(|line| line.amount));
    let rows = lines.iter().map(|line| {
        vec![
            line.tool.clone(),
            line.tier.clone(),
            line.unit_price.map_or("-".to_owned(), |price| aligned(price, price_scale)),
            line.calls.to_string(),
            line.billable_calls.to_string(),
            aligned(line.amount, amount_scale),
        ]
    });
    let head = vec![noun, "Tier", "Unit price", "Calls", "Billable", "Amount"];
    Table { caption: None, head, rows: rows.collect(), names: 2 }
}

fn token_lines(lines: &[TokenLine]) -> Table {
    let amount_scale = scale(lines.iter().map(|line| line.amount));
    let rows = lines.iter().map(|line| {
        vec![
            line.provider.clone(),
            line.model.clone(),
            line.generations.to_string(),
            line.consumed.tokens.input.to_string(),
            line.consumed.tokens.output.to_string(),
            aligned(line.amount, amount_scale),
        ]
    });
    let head = vec!["Provider", "Model", "Generations", "Input tokens", "Output tokens", "Amount"];
    Table { caption: None, head, rows: rows.collect(), names: 2 }
}

/// Where the provider cost comes from; nothing without generations.
fn add_costs(part: &mut Part, product: &ProductUse) {
    if product.generations.generations == 0 {
        return;
    }
    let noun = noun(product).to_lowercase();
    let cost_scale = scale(product.cost_by_tool.iter().map(|cost| cost.provider_cost));
    let tools = product.cost_by_tool.iter().map(|cost| {
        let tool = cost.tool.clone().unwrap_or_else(|| {
            let article = if noun == "operation" { "an" } else { "a" };
            format!("(not attributed to {article} {noun})")
        });
        vec![tool, told(cost.generations, cost.provider_cost, cost_scale)]
    });
    let (rows, caption) = (tools.collect(), Some(format!("By {noun}")));
    part.table(Table { caption, rows, names: 1, ..Table::default() });
    let cost_scale = scale(product.cost_by_model.iter().map(|cost| cost.provider_cost));
    let models = product.cost_by_model.iter().map(|cost| {
        let cost_text = told(cost.generations, cost.provider_cost, cost_scale);
        vec![cost.provider.clone(), cost.model.clone(), cost_text]
    });
    let (rows, caption) = (models.collect(), Some("By model".to_owned()));
    part.table(Table { caption, rows, names: 2, ..Table::default() });
    for (reason, count) in &product.not_billed.unpriced_by_reason {
        add_note(part, *count, &format!("{}: cost unknown", why_unpriced(reason)));
    }
    let units = product.cost_by_model.iter().flat_map(units);
    let (rows, caption) = (units.collect(), Some("Beside tokens".to_owned()));
    part.table(Table { caption, rows, names: 3, ..Table::default() });
    let Generations { unpriced_units_generations, inconsistent_generations, .. } =
        product.generations;
    let too_low = "with units without a price: cost too low";
    add_note(part, unpriced_units_generations, too_low);
    add_note(part, inconsistent_generations, "with inconsistent counts: cost uncertain");
}

/// What an `unpriced_reason` says of generations.
fn why_unpriced(reason: &str) -> &str {
    match reason {
        "no_rate" => "without a rate",
        "no_rate_for_kind" => "without a rate for a kind of their tokens",
        "no_rate_for_tier" => "without a rate for their service tier",
        "no_rate_for_modifier" => "without a rate for what moved their price",
        "no_rate_for_unit" => "without a rate for their units",
        "no_reported_cost" => "of which the provider told no cost",
        "unknown_usage" => "of unknown usage",
        "money_overflow" => "whose cost is too large to be told",
        _ => "without a cost",
    }
}

/// What is to be known about the cost of some generations; nothing if there are none.
fn add_note(part: &mut Part, count: u64, what: &str) {
    let noun = if count == 1 { "generation" } else { "generations" };
    if count > 0 {
        part.blocks.push(Block::Note(format!("{count} {noun} {what}")));
    }
}

/// What a model used beside tokens.
fn units(cost: &ModelCost) -> impl Iterator<Item = Vec<String>> {
    cost.consumed.units.iter().map(|(unit, quantity)| {
        vec![cost.provider.clone(), cost.model.clone(), unit.to_string(), quantity.to_string()]
    })
}

/// A cost, or `unknown` if nothing of it is known.
fn told(generations: Generations, cost: Decimal, scale: u32) -> String {
    match generations.cost_known() {
        CostKnown::All => aligned(cost, scale),
        CostKnown::Part => format!("at least {}", aligned(cost, scale)),
        CostKnown::None => "unknown".to_owned(),
    }
}
