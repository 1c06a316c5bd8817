//! `agent-meter reconcile`: compares a ledger with what else tells of the same calls: Envoy's access
//! log, or the bill of a provider.

use std::path::PathBuf;

use agent_meter_collector::bill::{BillComparison, BillQuestion, Days, Format, Reason};
use agent_meter_collector::recover::Log;
use agent_meter_collector::{Ledger, access_log::Difference};
use anyhow::ensure;
use chrono::NaiveDate;
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use rust_decimal::Decimal;

use super::execute::print;

/// The access log is in JSON lines with the members `agent_meter.call_id`, `agent_meter.status` and
/// `agent_meter.generation_id`, and in a fleet `request_id`: see envoy/README.md.
///
/// A bill is an export of OpenAI's costs, of Anthropic's cost report, or of AWS (Cost and Usage Report
/// or FOCUS, for Bedrock), as JSON or CSV, gzip or not; reports of usage beside it tell the tokens:
/// see harness/collector/README.md.
#[derive(Debug, Args)]
pub(super) struct ReconcileArgs {
    /// An access log of Envoy, gzip or not; `-` is stdin
    #[arg(long, value_name = "FILE", required_unless_present = "bill", conflicts_with = "bill")]
    access_log: Vec<PathBuf>,
    /// The bill of a provider, or its report of usage; may be repeated
    #[arg(long, value_name = "FILE")]
    bill: Vec<PathBuf>,
    #[command(flatten)]
    of_bill: BillArgs,
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct BillArgs {
    /// What the bill is [default: what it contains tells]
    #[arg(long, value_name = "NAME", requires = "bill", conflicts_with = "access_log", value_parser = formats())]
    format: Option<Format>,
    /// The first day, in UTC [default: the bill's]
    #[arg(long, value_name = "YYYY-MM-DD", requires = "bill", conflicts_with = "access_log")]
    from: Option<NaiveDate>,
    /// The day behind the last one [default: the bill's]
    #[arg(long, value_name = "YYYY-MM-DD", requires = "bill", conflicts_with = "access_log")]
    to: Option<NaiveDate>,
    /// The provider of our generations that the bill is about; may be repeated [default: openai,
    /// anthropic or bedrock]
    #[arg(long, value_name = "NAME", requires = "bill", conflicts_with = "access_log")]
    provider: Vec<String>,
    /// A model's name on the bill, and its id in the ledger; may be repeated
    #[arg(long, value_name = "NAME=ID", requires = "bill", conflicts_with = "access_log")]
    model: Vec<String>,
    /// The share of a day's and model's amount that may be unexplained, such as 0.001
    #[arg(long, value_name = "RATIO", requires = "bill", conflicts_with = "access_log", default_value = "0", value_parser = ratio)]
    tolerance: Decimal,
    /// A reason for which to exit with 1, as for `unexplained`; may be repeated
    #[arg(long, value_name = "REASON", requires = "bill", conflicts_with = "access_log", value_parser = reasons())]
    fail_on: Vec<Reason>,
}

impl ReconcileArgs {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let ledger = Ledger::open_existing(&self.ledger)?;
        if self.bill.is_empty() {
            compare_logs(&ledger, &self.access_log, self.json)
        } else {
            self.of_bill.execute(&ledger, self.bill, self.json)
        }
    }
}

fn compare_logs(ledger: &Ledger, logs: &[PathBuf], json: bool) -> anyhow::Result<()> {
    let logs = logs.iter().map(|path| Log::open(path));
    let found = ledger.compare_access_logs(logs.collect::<anyhow::Result<_>>()?)?;
    if json {
        print(&serde_json::to_string(&found)?)?;
    } else {
        print(&format!(
            "{} lines of the log tell of calls or generations, {} do not; {} match",
            found.lines, found.other_lines, found.matched
        ))?;
        show("in the log only", &found.not_in_ledger)?;
        show("in the ledger only", &found.not_in_log)?;
        show("with another outcome", &found.other_status)?;
        if found.folded_calls > 0 {
            let folded = found.folded_calls;
            print(&format!("{folded} calls are in events that stand for several"))?;
        }
    }
    ensure!(found.lines > 0, "no line of the log tells of a call or a generation");
    ensure!(found.is_equal(), "the log and the ledger differ");
    Ok(())
}

fn show(what: &str, difference: &Difference) -> anyhow::Result<()> {
    if difference.count == 0 {
        return Ok(());
    }
    print(&format!("{} {what}:", difference.count))?;
    for id in &difference.first {
        print(&format!("  {id}"))?;
    }
    Ok(())
}

impl BillArgs {
    fn execute(self, ledger: &Ledger, files: Vec<PathBuf>, json: bool) -> anyhow::Result<()> {
        let BillArgs { format, from, to, provider, model, tolerance, fail_on } = self;
        let (days, models, sellers) = (Days { from, to }, model, provider);
        let question = BillQuestion { files, format, days, models, sellers };
        let found = ledger.compare_bills(&question)?;
        if json {
            print(&serde_json::to_string(&found)?)?;
        } else {
            print(&found.to_string())?;
        }
        let mut fatal = fail_on;
        fatal.push(Reason::Unexplained);
        check(&found, &fatal, tolerance)
    }
}

/// Fails where more than the tolerance has a reason that nobody accepts.
fn check(found: &BillComparison, fatal: &[Reason], tolerance: Decimal) -> anyhow::Result<()> {
    for reason in Reason::ALL.iter().filter(|reason| fatal.contains(reason)) {
        let rows = found.beyond(&[*reason], tolerance);
        let Some(first) = rows.first() else { continue };
        let (count, all, name) = (rows.len(), found.rows.len(), reason.name());
        let (day, model) = (first.day, &first.model);
        anyhow::bail!("{name} in {count} of {all} rows, the first of {day}, {model:?}");
    }
    ensure!(!found.has_other_currencies(), "amounts in other currencies are not compared");
    Ok(())
}

fn formats() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::name)).try_map(|name| {
        let known = Format::ALL.into_iter().find(|format| format.name() == name);
        known.ok_or("an unknown format")
    })
}

fn reasons() -> impl TypedValueParser<Value = Reason> {
    let names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    PossibleValuesParser::new(names).try_map(|name| {
        let known = Reason::ALL.iter().find(|reason| reason.name() == name);
        known.copied().ok_or("an unknown reason")
    })
}

/// Reads a share from 0 to 1.
fn ratio(text: &str) -> Result<Decimal, String> {
    let read = Decimal::from_str_exact(text).ok();
    let is_share = |ratio: &Decimal| (Decimal::ZERO..=Decimal::ONE).contains(ratio);
    read.filter(is_share).ok_or_else(|| format!("expected a share from 0 to 1, found {text:?}"))
}
