//! `agent-meter correct`: corrects what was counted.

use std::io::Read;
use std::path::{Path, PathBuf};

use agent_meter_collector::books::{Backfill, Outcome};
use agent_meter_collector::{Ledger, Page};
use agent_meter_core::base::document::Document;
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::execute::print;

/// Corrections are entries of their own: nothing that is stored is changed, and each can be reverted.
/// One that comes again, with the same id, changes nothing.
#[derive(Debug, Subcommand)]
pub(super) enum CorrectCommand {
    /// Count an event no more
    Void {
        #[command(flatten)]
        target: TargetArgs,
        #[command(flatten)]
        by: ByArgs,
    },
    /// Count an event with other members of its data
    Amend {
        #[command(flatten)]
        target: TargetArgs,
        /// The members, such as '{"price": "0.02"}'; null removes one
        #[arg(long, value_name = "JSON", value_parser = json)]
        set: Value,
        #[command(flatten)]
        by: ByArgs,
    },
    /// Give the billable calls of a time another price
    Rerate(RerateArgs),
    /// Take something off a closed invoice
    Credit {
        /// Its number, such as INV-000001
        #[arg(long, value_name = "NUMBER")]
        invoice: String,
        /// By how much
        #[arg(long, value_name = "DECIMAL")]
        amount: String,
        /// The currency, ISO 4217
        #[arg(long, value_name = "CODE")]
        currency: String,
        #[command(flatten)]
        by: ByArgs,
    },
    /// Let one customer pay for what another one used
    Merge {
        /// Who used it
        #[arg(long, value_name = "CUSTOMER")]
        from: String,
        /// Who pays
        #[arg(long, value_name = "CUSTOMER")]
        to: String,
        #[command(flatten)]
        by: ByArgs,
    },
    /// Bring calls and generations in later, whatever their age, so that they can be reverted together
    Backfill {
        /// The events: a JSON array, or one on each line; `-` is stdin
        file: PathBuf,
        /// Only say what would become of them
        #[arg(long)]
        preview: bool,
        #[command(flatten)]
        by: ByArgs,
    },
    /// Take a correction back
    Revert {
        /// Its id
        correction: String,
        #[command(flatten)]
        by: ByArgs,
    },
    /// Write the corrections of a file: one JSON object on each line, as `agent-meter correct list`
    /// shows them in `event.data`; all of them or none
    Apply {
        /// The file; `-` is stdin
        file: PathBuf,
        #[command(flatten)]
        ledger: LedgerArgs,
    },
    /// List the corrections, one line of JSON each
    List(LedgerArgs),
}

#[derive(Debug, Args)]
pub(super) struct TargetArgs {
    /// The source of the event
    #[arg(long, value_name = "SOURCE")]
    source: String,
    /// The id of the event
    #[arg(long, value_name = "ID")]
    event: String,
}

#[derive(Debug, Args)]
pub(super) struct RerateArgs {
    /// From when, such as 2026-07-01T00:00:00Z
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Until when; what happened then is not in
    #[arg(long, value_name = "TIME")]
    to: String,
    /// The price of one call, in the currency of each
    #[arg(long, value_name = "DECIMAL")]
    unit_price: String,
    /// Only of this customer
    #[arg(long, value_name = "CUSTOMER")]
    customer: Option<String>,
    /// Only of this product
    #[arg(long, value_name = "PRODUCT")]
    product: Option<String>,
    /// Only of this tool, route or operation
    #[arg(long, value_name = "TOOL")]
    tool: Option<String>,
    /// Only of this cost tier
    #[arg(long, value_name = "TIER")]
    tier: Option<String>,
    #[command(flatten)]
    by: ByArgs,
}

#[derive(Debug, Args)]
pub(super) struct ByArgs {
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Who makes it
    #[arg(long, value_name = "NAME", env = "USER", default_value = "operator")]
    by: String,
    /// Its id [default: made of what it says, so that the same one comes once]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    ledger: LedgerArgs,
}

#[derive(Debug, Args)]
pub(super) struct LedgerArgs {
    /// The ledger; a collector may have it open
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
}

impl LedgerArgs {
    fn open(&self) -> anyhow::Result<Ledger> {
        Ledger::open_existing(&self.ledger)
    }
}

impl ByArgs {
    /// The whole correction of these members.
    fn correction(&self, mut members: Map<String, Value>) -> Value {
        members.insert("made_by".to_owned(), self.by.as_str().into());
        members.insert("reason".to_owned(), self.reason.as_str().into());
        let id = self.id.clone().unwrap_or_else(|| {
            let text = Value::Object(members.clone()).to_string();
            let digits: Vec<String> =
                Sha256::digest(text).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            digits.concat()
        });
        members.insert("correction_id".to_owned(), id.into());
        Value::Object(members)
    }

    fn write(&self, kind: &str, members: Value) -> anyhow::Result<()> {
        let Value::Object(mut members) = members else { bail!("a correction is an object") };
        members.retain(|_, value| !value.is_null());
        members.insert("kind".to_owned(), kind.into());
        write(&self.ledger.open()?, &[self.correction(members)])
    }
}

/// Writes corrections, waits until they are in force, and says what became of each.
fn write(ledger: &Ledger, corrections: &[Value]) -> anyhow::Result<()> {
    let corrected = ledger.correct(corrections)?;
    while ledger.follow_corrections()? {}
    for corrected in corrected {
        print(&serde_json::to_string(&corrected)?)?;
        if corrected.outcome == Outcome::Waiting {
            let id = corrected.correction_id;
            eprintln!("{id}: the ledger does not have what it is about; it waits for that");
        }
    }
    Ok(())
}

/// Reads an option that is JSON.
fn json(text: &str) -> Result<Value, serde_json::Error> {
    let Document(value) = serde_json::from_str(text)?;
    Ok(value)
}

fn read(file: &Path) -> anyhow::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
        return Ok(text);
    }
    std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

impl CorrectCommand {
    pub(super) fn execute(self) -> anyhow::Result<()> {
        match self {
            CorrectCommand::Void { target, by } => by.write("void", target.members(&Value::Null)),
            CorrectCommand::Amend { target, set, by } => by.write("amend", target.members(&set)),
            CorrectCommand::Rerate(args) => args.execute(),
            CorrectCommand::Credit { invoice, amount, currency, by } => by.write(
                "credit",
                json!({"invoice": invoice, "amount": amount, "currency": currency}),
            ),
            CorrectCommand::Merge { from, to, by } => {
                by.write("merge", json!({"from_customer_id": from, "to_customer_id": to}))
            }
            CorrectCommand::Revert { correction, by } => {
                by.write("revert", json!({"correction": correction}))
            }
            CorrectCommand::Backfill { file, preview, by } => backfill(&file, preview, &by),
            CorrectCommand::Apply { file, ledger } => {
                let text = read(&file)?;
                let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty());
                let corrections = lines.map(|(line, number): (&str, usize)| {
                    json(line).with_context(|| format!("{}, line {number}", file.display()))
                });
                let corrections = corrections.collect::<anyhow::Result<Vec<Value>>>()?;
                write(&ledger.open()?, &corrections)
            }
            CorrectCommand::List(ledger) => list(&ledger.open()?),
        }
    }
}

impl TargetArgs {
    fn members(&self, set: &Value) -> Value {
        json!({"target_source": self.source, "target_id": self.event, "set": set})
    }
}

impl RerateArgs {
    fn execute(self) -> anyhow::Result<()> {
        let RerateArgs { from, to, unit_price, customer, product, tool, tier, by } = self;
        by.write(
            "rerate",
            json!({
                "from": from, "to": to, "unit_price": unit_price, "customer_id": customer,
                "product_id": product, "tool_name": tool, "cost_tier": tier,
            }),
        )
    }
}

fn backfill(file: &Path, is_preview: bool, by: &ByArgs) -> anyhow::Result<()> {
    let text = read(file)?;
    let named = by.correction(Map::from_iter([("text".to_owned(), text.as_str().into())]));
    let correction_id = named["correction_id"].as_str().unwrap_or_default().to_owned();
    let backfill = Backfill { correction_id, made_by: by.by.clone(), reason: by.reason.clone() };
    let backfilled = by.ledger.open()?.backfill(&backfill, &text, is_preview)?;
    let mut told = serde_json::to_value(&backfilled)?;
    told["correction_id"] = backfill.correction_id.into();
    print(&told.to_string())
}

fn list(ledger: &Ledger) -> anyhow::Result<()> {
    let mut page = Page::default();
    loop {
        let found = ledger.corrections(page)?;
        for correction in &found.corrections {
            print(&serde_json::to_string(correction)?)?;
        }
        match found.next {
            Some(next) => page.after = Some(next.parse()?),
            None => return Ok(()),
        }
    }
}
