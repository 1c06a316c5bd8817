//! The customer's document: lines with exact amounts, corrections, what is not billed and why, and a
//! payable total. It has no provider cost, no margin and nothing of guards.

use std::fmt;

use crate::books::calendar::shown_period;
use crate::books::document::{Billing, BillingTotal, PeriodCorrection};
use crate::books::lines::BilledLine;
use crate::invoice::document::BILLED_COLUMNS;
use crate::invoice::sheet::{Part, Sheet, Table, TotalLine};
use crate::invoice::text::{aligned, scale};
use crate::invoice::{Document, Record};
use crate::money::payable::payable_text;

impl fmt::Display for Billing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sheet().fmt(f)
    }
}

impl Document for Billing {
    const COLUMNS: &'static [&'static [&'static str]] = &[BILLED_COLUMNS];

    fn sheet(&self) -> Sheet {
        let Billing { period_from, period_to, time_zone, .. } = self;
        let period = shown_period(period_from.as_deref(), period_to.as_deref(), time_zone);
        let mut head = vec![
            ("Invoice", self.number.clone().unwrap_or_else(|| "(not closed)".to_owned())),
            ("Customer", self.customer.clone()),
            ("Period", period),
        ];
        head.extend(self.paid_by.clone().map(|payer| ("Paid by", payer)));
        let mut parts = self.parts(&self.lines, "");
        for PeriodCorrection { period_from, period_to, lines } in &self.corrections {
            let period = shown_period(Some(period_from), Some(period_to), time_zone);
            parts.extend(self.parts(lines, &format!("Corrections of {period}: ")));
        }
        parts.extend(self.not_billed_part());
        let mut totals: Vec<TotalLine> = self.totals.iter().flat_map(total_lines).collect();
        if totals.is_empty() {
            let value = "0".to_owned();
            totals.push(TotalLine { label: "Payable", value, is_sum: true });
        }
        Sheet { title: "INVOICE".to_owned(), head, parts, totals }
    }

    fn records(&self) -> Vec<Record> {
        let of_line = |record: Record, line: &BilledLine| {
            let about = &line.about;
            record
                .text("used_by", &about.customer)
                .text("product", &about.product)
                .number("product_type", &about.product_type)
                .number("kind", &about.kind)
                .text("name", &about.name)
                .text("tier", &about.tier)
                .number("currency", &about.currency)
                .known("unit_price", about.unit_price.map(|price| price.normalize()))
                .number("count", line.count)
                .number("billable_count", line.billable_count)
                .number("amount", line.amount.normalize())
        };
        let mut records: Vec<Record> =
            self.lines.iter().map(|line| of_line(self.record("line"), line)).collect();
        for PeriodCorrection { period_from, period_to, lines } in &self.corrections {
            let record = || {
                let record = self.record("correction").number("period_from", period_from);
                record.number("period_to", period_to)
            };
            records.extend(lines.iter().map(|line| of_line(record(), line)));
        }
        for line in &self.not_billed {
            let record = self.record("not_billed").text("used_by", &line.customer);
            let record = record.text("product", &line.product).number("kind", &line.unit);
            records.push(record.text("reason", &line.reason).number("count", line.count));
        }
        for total in &self.totals {
            let BillingTotal { currency, usage, corrections, brought_forward, .. } = total;
            for (row, amount) in [
                ("usage", usage),
                ("corrections", corrections),
                ("brought_forward", brought_forward),
                ("total", &total.total),
                ("carried_forward", &total.carried_forward),
            ] {
                let record = self.record(row).number("currency", currency);
                records.push(record.number("amount", amount.normalize()));
            }
            let payable = payable_text(total.payable, currency);
            let record = self.record("payable").number("currency", currency);
            records.push(record.number("amount", payable));
        }
        records
    }
}

impl Billing {
    /// The beginning of each record.
    pub(super) fn record(&self, row: &'static str) -> Record {
        let record = Record::default().known("number", self.number.as_ref());
        let record = record.text("customer", &self.customer).number("row", row);
        let record = record.known("period_from", self.period_from.as_ref());
        let record = record.known("period_to", self.period_to.as_ref());
        record.number("time_zone", &self.time_zone)
    }

    /// A part for each product; lines are in their order.
    fn parts(&self, lines: &[BilledLine], before: &str) -> Vec<Part> {
        let product = |line: &BilledLine| {
            let about = &line.about;
            (about.currency.clone(), about.customer.clone(), about.product.clone())
        };
        let products = lines.chunk_by(|left, right| product(left) == product(right));
        let parts = products.filter_map(|lines| {
            let about = &lines.first()?.about;
            let mut title = format!(
                "{before}Product {} ({}), {}",
                about.product, about.product_type, about.currency
            );
            if about.customer != self.customer {
                title.push_str(&format!(", used by {}", about.customer));
            }
            let mut part = Part { title, blocks: Vec::new() };
            part.table(calls(lines));
            part.table(tokens(lines));
            Some(part)
        });
        parts.collect()
    }

    fn not_billed_part(&self) -> Option<Part> {
        let rows = self.not_billed.iter().map(|line| {
            let user = if line.customer == self.customer { "" } else { &line.customer };
            let product = if user.is_empty() {
                line.product.clone()
            } else {
                format!("{}, used by {user}", line.product)
            };
            let why = format!("{}: {}", line.reason, line.why());
            vec![product, line.unit.clone(), why, line.count.to_string()]
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return None;
        }
        let mut part = Part { title: "Not billed".to_owned(), blocks: Vec::new() };
        let head = vec!["Product", "What", "Why", "Count"];
        part.table(Table { caption: None, head, rows, names: 3 });
        Some(part)
    }
}

const TOKENS: &str = "tokens";

fn calls(lines: &[BilledLine]) -> Table {
    let lines: Vec<&BilledLine> = lines.iter().filter(|line| line.about.kind != TOKENS).collect();
    let price_scale = scale(lines.iter().filter_map(|line| line.about.unit_price));
    let amount_scale = scale(lines.iter().map(|line| line.amount));
    let row = |line: &&BilledLine| {
        let price = line.about.unit_price;
        vec![
            line.about.name.clone(),
            line.about.tier.clone(),
            price.map_or("-".to_owned(), |price| aligned(price, price_scale)),
            line.count.to_string(),
            line.billable_count.to_string(),
            aligned(line.amount, amount_scale),
        ]
    };
    let rows = lines.iter().map(row).collect();
    let head = vec!["Tool", "Tier", "Unit price", "Calls", "Billed", "Amount"];
    Table { caption: None, head, rows, names: 2 }
}

fn tokens(lines: &[BilledLine]) -> Table {
    let lines: Vec<&BilledLine> = lines.iter().filter(|line| line.about.kind == TOKENS).collect();
    let amount_scale = scale(lines.iter().map(|line| line.amount));
    let row = |line: &&BilledLine| {
        let amount = aligned(line.amount, amount_scale);
        vec![line.about.name.clone(), line.count.to_string(), amount]
    };
    let rows = lines.iter().map(row).collect();
    Table { caption: None, head: vec!["Model", "Generations", "Amount"], rows, names: 1 }
}

fn total_lines(total: &BillingTotal) -> Vec<TotalLine> {
    let BillingTotal { currency, usage, corrections, brought_forward, carried_forward, .. } = total;
    let line = |label, amount: &rust_decimal::Decimal| TotalLine {
        label,
        value: format!("{amount} {currency}"),
        is_sum: false,
    };
    let mut lines = vec![line("Usage", usage)];
    for (label, amount) in [
        ("Corrections", corrections),
        ("Brought forward", brought_forward),
        ("Carried forward", carried_forward),
    ] {
        if !amount.is_zero() {
            lines.push(line(label, amount));
        }
    }
    let value = format!("{} {currency}", payable_text(total.payable, currency));
    lines.push(TotalLine { label: "Payable", value, is_sum: true });
    lines
}
