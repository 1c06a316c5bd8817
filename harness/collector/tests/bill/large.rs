//! A report of AWS with many lines is added up as it is read.

use std::io::{BufWriter, Write};

use agent_meter_collector::bill::BillQuestion;
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::{ask, conserved, file, ledger};

/// So many lines of Bedrock, and as many of something else.
const LINES: u64 = 60_000;
/// What each of them says that nobody reads, in bytes.
const TAGS: usize = 600;
/// The most that reading may take beside what there was before, in MiB. The text has 80 MiB.
const MEMORY_MIB_MAX: u64 = 32;

/// The most memory that this process has had, in KiB.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

fn write_report(to: impl Write) -> std::io::Result<()> {
    let mut to = BufWriter::new(GzEncoder::new(to, Compression::fast()));
    writeln!(
        to,
        "identity_line_item_id,bill_billing_period_start_date,line_item_line_item_type,\
         line_item_usage_start_date,line_item_product_code,line_item_usage_type,\
         line_item_usage_amount,line_item_currency_code,line_item_unblended_cost,pricing_unit,tags"
    )?;
    let tags = "t".repeat(TAGS);
    for line in 0..LINES {
        let (day, hour) = (1 + line % 31, line % 24);
        let model = ["ClaudeSonnet4", "NovaLite", "Claude4.5Haiku"][(line % 3) as usize];
        let time = format!("2026-07-{day:02}T{hour:02}:00:00.000Z");
        writeln!(
            to,
            "b{line},2026-07-01,Usage,{time},AmazonBedrock,USE1-{model}-input-tokens,1,USD,\
             0.003,1K tokens,\"{tags}\""
        )?;
        writeln!(
            to,
            "e{line},2026-07-01,Usage,{time},AmazonEC2,USE1-BoxUsage,1,USD,0.1,Hrs,\"{tags}\""
        )?;
    }
    to.flush()
}

#[test]
fn a_report_takes_as_much_memory_as_it_has_days_and_models() {
    let mut compressed = Vec::new();
    write_report(&mut compressed).expect("a report");
    let report = file("cur.csv.gz", &compressed);
    let question: BillQuestion = ask(std::slice::from_ref(&report.1));
    let ledger = ledger(&[]);
    let before = peak_kib();
    let found = ledger.compare_bills(&question).expect("a comparison");
    if let (Some(before), Some(after)) = (before, peak_kib()) {
        assert!(after - before < MEMORY_MIB_MAX * 1024, "{} KiB", after - before);
    }
    conserved(&found);
    assert_eq!((found.rows.len(), found.total.bill.to_string()), (93, "180".to_owned()));
    let elsewhere = &found.other_services["USD"];
    assert_eq!((elsewhere.count, elsewhere.amount.to_string()), (LINES, "6000".to_owned()));
}
