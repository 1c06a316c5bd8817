//! `agent-meter reconcile --bill`: compares the bill of a provider of models with the ledger.
//!
//! A file goes `input` -> `csv` or `json` -> the provider's reader -> `fold`, line by line; the
//! ledger goes through `ours`; `compare` names each difference, and `report` shows them. For each
//! row, for each sum and in all: bill = ours + the amounts of all reasons, exactly.
//!
//! To add a provider, write its reader, a line of `Provider` and `Format`, and its names in
//! `models.rs` and `services.rs`.

mod amount;
mod anthropic;
mod aws;
mod bedrock;
mod compare;
mod csv;
mod fold;
mod input;
mod json;
mod kinds;
mod line;
mod models;
mod openai;
mod ours;
mod read;
mod reason;
mod report;
mod services;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

pub use self::amount::Amount;
pub use self::fold::{Aside, Days};
use self::fold::{Bills, CURRENCY};
pub use self::line::{Kind, Provider};
use self::models::Names;
pub use self::read::{BillFile, Format};
pub use self::reason::Reason;
pub use self::report::{BillComparison, Counts, Named, Row, Sum};
use crate::ledger::Ledger;

/// What to compare.
#[derive(Clone, Debug, Default)]
pub struct BillQuestion {
    /// The bills.
    pub files: Vec<PathBuf>,
    /// What they are; `None`: what each contains tells.
    pub format: Option<Format>,
    /// The days to compare; without an end, those of the bills.
    pub days: Days,
    /// Models as `NAME=ID`: the name on the bill, and the id in the ledger.
    pub models: Vec<String>,
    /// The `provider` of our generations that the bills are about; empty: the one of that name.
    pub sellers: Vec<String>,
}

impl Ledger {
    /// Compares bills with the cost of the generations that are in force.
    ///
    /// # Errors
    ///
    /// Names the file and the line or the JSON path of what cannot be read, is cut, comes twice, or
    /// is no decimal; and if the ledger fails, or corrections are not in force for all events yet.
    pub fn compare_bills(&self, question: &BillQuestion) -> anyhow::Result<BillComparison> {
        let mut bills = Bills::new(question.days, Names::new(&question.models)?);
        let mut files = Vec::new();
        for (number, path) in question.files.iter().enumerate() {
            files.push(read::read_file(path, number, question.format, &mut bills)?);
        }
        must_be_whole(&files)?;
        bills.finish()?;
        let providers: BTreeSet<Provider> =
            files.iter().map(|file| file.format.provider()).collect();
        let sellers = sellers(&providers, &question.sellers)?;
        let span = bills.span();
        let (from, to) = span.context("the bills have no line of these days to compare")?;
        let mut ours = ours::read(self, &ours::Wanted { from, to, sellers })?;
        let sums = bills.days_of_sums();
        ours.sum_days(|provider, day| sums.contains(&(provider, day)));
        let rows = compare::rows(&bills, &ours, from, to);
        let mut comparison = BillComparison {
            currency: CURRENCY,
            from,
            to,
            files,
            rows,
            by_day: BTreeMap::new(),
            by_model: BTreeMap::new(),
            total: Sum::default(),
            other_services: bills.elsewhere,
            other_currencies_on_bill: bills.other_currencies,
            other_currencies_here: ours.other_currencies,
        };
        comparison.add_up();
        let (bill, here) = (comparison.total.bill, comparison.total.ours);
        ensure!(
            bill == bills.total && here == ours.total,
            "the rows have {bill} and {here}, but the bill has {} and the ledger {}",
            bills.total,
            ours.total
        );
        Ok(comparison)
    }
}

/// A page that says that there is one more is followed by one of the same kind, and a report of
/// usage stands beside a bill.
fn must_be_whole(files: &[BillFile]) -> anyhow::Result<()> {
    let has_costs = |provider: Provider| {
        files.iter().any(|file| file.format.has_costs() && file.format.provider() == provider)
    };
    if let Some(usage) = files.iter().find(|file| !has_costs(file.format.provider())) {
        bail!("{}: a report of usage has no amounts: give the costs too", usage.file);
    }
    for (at, file) in files.iter().enumerate() {
        let next = files.get(at + 1).map(|next| next.format);
        if file.has_more && next != Some(file.format) {
            bail!("{}: the file is cut: has_more is true, and no next page follows", file.file);
        }
    }
    Ok(())
}

/// The bill's provider of each of ours.
fn sellers(
    providers: &BTreeSet<Provider>,
    given: &[String],
) -> anyhow::Result<BTreeMap<String, Provider>> {
    if given.is_empty() {
        let own = |provider: &Provider| (provider.seller().to_owned(), *provider);
        return Ok(providers.iter().map(own).collect());
    }
    let names: Vec<&str> = providers.iter().map(|provider| provider.name()).collect();
    let [only] = providers.iter().copied().collect::<Vec<_>>()[..] else {
        bail!("--provider: the bills are of {}: compare them one by one", names.join(", "));
    };
    Ok(given.iter().map(|seller| (seller.clone(), only)).collect())
}
