//! What a comparison of bills found: rows, their sums by day, by model and in all, as JSON and as
//! text for people.

use std::collections::BTreeMap;
use std::fmt;

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde::{Serialize, Serializer};

use crate::bill::amount::Amount;
use crate::bill::fold::Aside;
use crate::bill::line::{Kind, Provider};
use crate::bill::read::BillFile;
use crate::bill::reason::Reason;
use crate::invoice::text::printable;
use crate::money::Exact;

/// A difference by its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// Why.
    pub reason: Reason,
    /// By how much the bill is more, in US dollars.
    pub amount: Amount,
    /// The numbers that it was decided on; empty if there is nothing to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How many tokens each side counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// The provider; `None` if it does not tell.
    pub bill: Option<Amount>,
    /// The ledger.
    pub ours: Amount,
}

/// A model, or what is billed beside models, on a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Who sends the bill.
    pub provider: Provider,
    /// The day in UTC.
    #[serde(serialize_with = "as_text")]
    pub day: NaiveDate,
    /// The id of the model without region, version and day of a snapshot; or the bill's own name of
    /// something that is none; `*` for all models.
    pub model: String,
    /// What the bill calls it.
    pub names: Vec<String>,
    /// What the provider wants, in US dollars.
    pub bill: Amount,
    /// What the ledger has as the cost.
    pub ours: Amount,
    /// `bill` less `ours`: the sum of the reasons.
    pub difference: Amount,
    /// Generations of the ledger.
    pub generations: u64,
    /// Those whose usage was estimated.
    pub estimated_generations: u64,
    /// Those whose cost is not known.
    pub unpriced_generations: u64,
    /// Tokens by kind.
    pub tokens: BTreeMap<Kind, Counts>,
    /// Empty if the two agree.
    pub reasons: Vec<Named>,
    #[serde(skip)]
    pub(super) is_there: bool,
}

/// A sum of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sum {
    /// What the providers want.
    pub bill: Amount,
    /// What the ledger has.
    pub ours: Amount,
    /// `bill` less `ours`.
    pub difference: Amount,
    /// The difference by reason.
    pub reasons: BTreeMap<Reason, Amount>,
}

impl Sum {
    fn add(&mut self, row: &Row) {
        self.bill += row.bill;
        self.ours += row.ours;
        self.difference += row.difference;
        for named in &row.reasons {
            *self.reasons.entry(named.reason).or_default() += named.amount;
        }
    }
}

/// What bills and the ledger have in common, and what they differ by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BillComparison {
    /// ISO 4217, of all amounts.
    pub currency: &'static str,
    /// The first day.
    #[serde(serialize_with = "as_text")]
    pub from: NaiveDate,
    /// The day behind the last one.
    #[serde(serialize_with = "as_text")]
    pub to: NaiveDate,
    /// What was read.
    pub files: Vec<BillFile>,
    /// Sorted by provider, day and model.
    pub rows: Vec<Row>,
    /// By day.
    pub by_day: BTreeMap<String, Sum>,
    /// By provider and model.
    pub by_model: BTreeMap<String, Sum>,
    /// All rows.
    pub total: Sum,
    /// Lines of a bill that is about more than models, by currency: not compared.
    pub other_services: BTreeMap<String, Aside>,
    /// Lines in another currency: not compared.
    pub other_currencies_on_bill: BTreeMap<String, Aside>,
    /// Generations in another currency: not compared.
    pub other_currencies_here: BTreeMap<String, Aside>,
}

impl BillComparison {
    pub(super) fn add_up(&mut self) {
        for row in &self.rows {
            self.by_day.entry(row.day.to_string()).or_default().add(row);
            let model = format!("{} {}", row.provider.name(), row.model);
            self.by_model.entry(model).or_default().add(row);
            self.total.add(row);
        }
    }

    /// The rows on which the amount of one of these reasons is more than a share of the larger of
    /// the two amounts.
    pub fn beyond(&self, reasons: &[Reason], tolerance: Decimal) -> Vec<&Row> {
        let is_beyond = |row: &&Row| {
            let most = row.bill.abs().max(row.ours.abs());
            let tolerance = Amount::from(Exact::from(tolerance));
            let bound = most.share(tolerance, Amount::from(1)).unwrap_or_default();
            let named = row.reasons.iter().filter(|named| reasons.contains(&named.reason));
            let mut amounts = named.map(|named| named.amount.abs());
            amounts.any(|amount| amount > bound)
        };
        self.rows.iter().filter(is_beyond).collect()
    }

    /// Whether something is in another currency, which is not compared.
    pub fn has_other_currencies(&self) -> bool {
        !self.other_currencies_on_bill.is_empty() || !self.other_currencies_here.is_empty()
    }
}

fn as_text<S: Serializer>(day: &NaiveDate, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(day)
}

/// Rows that agree are only counted; JSON has all.
impl fmt::Display for BillComparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for file in &self.files {
            let BillFile { file, format, lines, lines_outside_days, amount, .. } = file;
            write!(f, "{file}: {}, {lines} lines, {amount} USD", format.name())?;
            if *lines_outside_days > 0 {
                write!(f, ", {lines_outside_days} lines of other days")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "from {} to {}, USD\n", self.from, self.to)?;
        let rows = self.rows.iter().map(|row| {
            let model = printable(&row.model);
            let name = format!("{}  {} {model}", row.day, row.provider.name());
            (name, row.bill, row.ours, row.difference, &*row.reasons)
        });
        let agree = self.rows.iter().filter(|row| row.reasons.is_empty()).count();
        table(f, "day         model", rows.filter(|row| !row.4.is_empty()))?;
        writeln!(f, "{agree} of {} rows agree\n", self.rows.len())?;
        let sums = |sums: &BTreeMap<String, Sum>| -> Vec<_> {
            let each = sums.iter();
            each.map(|(name, sum)| (printable(name), sum.bill, sum.ours, sum.difference)).collect()
        };
        let by_model = sums(&self.by_model);
        table(f, "model", by_model.into_iter().map(|sum| (sum.0, sum.1, sum.2, sum.3, &[][..])))?;
        writeln!(f)?;
        let by_day = sums(&self.by_day);
        table(f, "day", by_day.into_iter().map(|sum| (sum.0, sum.1, sum.2, sum.3, &[][..])))?;
        writeln!(f)?;
        let Sum { bill, ours, difference, reasons } = &self.total;
        write!(f, "bill {bill} = ours {ours} + difference {difference}")?;
        for (reason, amount) in reasons {
            write!(f, "\n  {amount} {}", reason.name())?;
        }
        self.write_aside(f)
    }
}

impl BillComparison {
    fn write_aside(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, all) in [
            ("lines of other services", &self.other_services),
            ("lines of the bill", &self.other_currencies_on_bill),
            ("generations", &self.other_currencies_here),
        ] {
            for (currency, aside) in all {
                let Aside { count, amount } = aside;
                write!(f, "\nnot compared: {count} {what}, {amount} {currency}")?;
            }
        }
        Ok(())
    }
}

type Line<'a> = (String, Amount, Amount, Amount, &'a [Named]);

fn table<'a>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    lines: impl Iterator<Item = Line<'a>>,
) -> fmt::Result {
    let lines: Vec<Line<'_>> = lines.collect();
    if lines.is_empty() {
        return Ok(());
    }
    let longest = lines.iter().map(|line| line.0.chars().count()).max().unwrap_or(0);
    let width = longest.max(title.len());
    let of = |amount: fn(&Line<'_>) -> Amount, title: &str| {
        let longest = lines.iter().map(|line| amount(line).to_string().len()).max();
        longest.unwrap_or(0).max(title.len())
    };
    let widths =
        [of(|line| line.1, "bill"), of(|line| line.2, "ours"), of(|line| line.3, "difference")];
    let [a, b, c] = widths;
    writeln!(f, "{title:width$}  {:>a$}  {:>b$}  {:>c$}", "bill", "ours", "difference")?;
    for (name, bill, ours, difference, reasons) in &lines {
        writeln!(f, "{name:width$}  {bill:>a$}  {ours:>b$}  {difference:>c$}")?;
        for Named { reason, amount, detail } in *reasons {
            let colon = if detail.is_empty() { "" } else { ": " };
            writeln!(f, "  {amount} {}{colon}{detail}", reason.name())?;
        }
    }
    Ok(())
}
