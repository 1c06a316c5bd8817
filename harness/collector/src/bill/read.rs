//! Recognises what a file is by what it contains, and reads it line by line.

use std::io::BufRead;
use std::path::Path;

use anyhow::{Context, anyhow, bail, ensure};
use serde::Serialize;

use crate::bill::amount::Amount;
use crate::bill::csv::Csv;
use crate::bill::fold::{Bills, Taken};
use crate::bill::input::Input;
use crate::bill::json::{self, Bucket, Members};
use crate::bill::line::{Entry, Provider};
use crate::bill::table::{Columns, Row};
use crate::bill::{anthropic, aws, openai};

/// What an export is. Those of OpenAI and Anthropic come as JSON or as CSV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// OpenAI's costs.
    OpenaiCosts,
    /// OpenAI's usage of completions.
    OpenaiUsage,
    /// Anthropic's cost report.
    AnthropicCosts,
    /// Anthropic's usage report for messages.
    AnthropicUsage,
    /// AWS' Cost and Usage Report.
    AwsCur,
    /// FOCUS with AWS' columns.
    AwsFocus,
}

use Format::{AnthropicCosts, AnthropicUsage, AwsCur, AwsFocus, OpenaiCosts, OpenaiUsage};

impl Format {
    /// All of them.
    pub const ALL: [Format; 6] =
        [OpenaiCosts, OpenaiUsage, AnthropicCosts, AnthropicUsage, AwsCur, AwsFocus];

    /// The name on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            OpenaiCosts => "openai_costs",
            OpenaiUsage => "openai_usage",
            AnthropicCosts => "anthropic_costs",
            AnthropicUsage => "anthropic_usage",
            AwsCur => "aws_cur",
            AwsFocus => "aws_focus",
        }
    }

    /// Who makes it.
    pub const fn provider(self) -> Provider {
        match self {
            OpenaiCosts | OpenaiUsage => Provider::OpenAi,
            AnthropicCosts | AnthropicUsage => Provider::Anthropic,
            AwsCur | AwsFocus => Provider::Aws,
        }
    }

    /// Whether it has amounts, and not only tokens.
    pub(super) const fn has_costs(self) -> bool {
        !matches!(self, OpenaiUsage | AnthropicUsage)
    }

    /// The columns without which a file of CSV is not this.
    const fn columns(self) -> &'static [&'static str] {
        match self {
            OpenaiCosts => &openai::COST_COLUMNS,
            OpenaiUsage => &openai::USAGE_COLUMNS,
            AnthropicCosts => &anthropic::COST_COLUMNS,
            AnthropicUsage => &anthropic::USAGE_COLUMNS,
            AwsCur => &aws::CUR_COLUMNS,
            AwsFocus => &aws::FOCUS_COLUMNS,
        }
    }

    /// The columns and members that do not tell one line from another.
    const fn amounts(self) -> &'static [&'static str] {
        match self {
            OpenaiCosts | OpenaiUsage => &openai::AMOUNTS,
            AnthropicCosts | AnthropicUsage => &anthropic::AMOUNTS,
            AwsCur | AwsFocus => &[],
        }
    }
}

/// What was read of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BillFile {
    /// Its path.
    pub file: String,
    /// What it is.
    pub format: Format,
    /// Lines that count.
    pub lines: u64,
    /// Lines of days that nobody asked for.
    pub lines_outside_days: u64,
    /// What the lines come to.
    pub amount: Amount,
    /// Whether it says that a next page follows.
    #[serde(skip)]
    pub(super) has_more: bool,
}

/// Reads a file into `bills`; `number` is how many came before.
pub(super) fn read_file(
    path: &Path,
    number: usize,
    wanted: Option<Format>,
    bills: &mut Bills,
) -> anyhow::Result<BillFile> {
    let file = path.display().to_string();
    let reading =
        Reading { number, format: wanted, bills, lines: 0, outside: 0, amount: Amount::ZERO };
    reading.file(path, &file).with_context(|| file.clone())
}

struct Reading<'a> {
    number: usize,
    format: Option<Format>,
    bills: &'a mut Bills,
    lines: u64,
    outside: u64,
    amount: Amount,
}

impl Reading<'_> {
    fn file(mut self, path: &Path, name: &str) -> anyhow::Result<BillFile> {
        let input = Input::open(path)?;
        let has_more =
            if input.is_json { self.json(input.reader)? } else { self.csv(input.reader)? };
        let Reading { format, lines, outside, amount, .. } = self;
        let format = format.context("nothing says what it is: it has no result")?;
        let (file, lines_outside_days) = (name.to_owned(), outside);
        Ok(BillFile { file, format, lines, lines_outside_days, amount, has_more })
    }

    fn take(
        &mut self,
        format: Format,
        entry: Entry,
        identity: impl FnOnce() -> String,
    ) -> anyhow::Result<()> {
        // A report of AWS is in several files, which do not overlap.
        if let (Entry::Cost(_) | Entry::Usage(_), true) =
            (&entry, format.provider() != Provider::Aws)
        {
            let day = match &entry {
                Entry::Cost(cost) => cost.day,
                Entry::Usage(usage) => usage.day,
                Entry::Elsewhere(..) => return Ok(()),
            };
            self.bills.must_be_in_one_file(format.name(), day, self.number)?;
        }
        let identity = || format!("{}\n{}", format.name(), identity());
        match self.bills.add(format.provider(), entry, identity)? {
            Taken::Counted(amount) => {
                self.lines += 1;
                self.amount += amount;
            }
            Taken::OutsideDays => self.outside += 1,
            Taken::Aside => {}
        }
        Ok(())
    }

    fn json(&mut self, reader: impl BufRead) -> anyhow::Result<bool> {
        json::read(reader, |bucket| {
            self.bucket(&bucket).map_err(|error| anyhow!("{}{error:#}", bucket.path))
        })
    }

    /// Reads a bucket; an error begins with what follows its path.
    fn bucket(&mut self, bucket: &Bucket) -> anyhow::Result<()> {
        let is_openai = bucket.members.has("start_time");
        ensure!(
            is_openai || bucket.members.has("starting_at"),
            ": neither start_time, as OpenAI's, nor starting_at, as Anthropic's"
        );
        let day = if is_openai { openai::day(bucket) } else { anthropic::day(bucket) };
        let day = day.map_err(|error| anyhow!(".{error:#}"))?;
        let begin = bucket.members.identity(&[])
            + &bucket
                .members
                .decimal("start_time", 0)
                .ok()
                .flatten()
                .map_or_else(String::new, |start| start.amount.to_string());
        let mut is_first = true;
        for (at, result) in bucket.results.iter().enumerate() {
            let format = format_of(is_openai, result)
                .and_then(|found| self.settle(found))
                .map_err(|error| anyhow!(".results[{at}]{error:#}"))?;
            if std::mem::take(&mut is_first) {
                let bucket = format!("{} bucket {begin}", format.name());
                self.bills.must_be_new(&bucket).map_err(|_| anyhow!(": the bucket comes again"))?;
            }
            let entry = match format {
                OpenaiCosts => openai::cost(day, result),
                OpenaiUsage => openai::usage(day, result),
                AnthropicCosts => anthropic::cost(day, result),
                _ => anthropic::usage(day, result),
            };
            let identity = || format!("{begin}\n{}", result.identity(format.amounts()));
            let taken = entry.and_then(|entry| self.take(format, entry, identity));
            taken.map_err(|error| anyhow!(".results[{at}]{}", joined(&error)))?;
        }
        Ok(())
    }

    /// Holds a file to one format.
    fn settle(&mut self, found: Format) -> anyhow::Result<Format> {
        let expected = *self.format.get_or_insert(found);
        ensure!(
            expected == found,
            ": is {}, in a file that should be {}",
            found.name(),
            expected.name()
        );
        Ok(found)
    }

    fn csv(&mut self, reader: impl BufRead) -> anyhow::Result<bool> {
        let mut csv = Csv::new(reader)?;
        let columns = Columns::new(csv.header(), aws::column)?;
        let format = match self.format {
            Some(format) => {
                if let Some(column) = columns.missing(format.columns()) {
                    bail!("line 1: not {}: no column {column}", format.name());
                }
                format
            }
            None => recognised(&columns)?,
        };
        self.format = Some(format);
        loop {
            let record = csv.next()?;
            let Some(record) = record else { return Ok(false) };
            let row = Row { columns: &columns, record };
            let entry = match format {
                OpenaiCosts => openai::cost_row(&row),
                OpenaiUsage => openai::usage_row(&row),
                AnthropicCosts => anthropic::cost_row(&row),
                AnthropicUsage => anthropic::usage_row(&row),
                AwsCur => aws::cur_row(&row),
                AwsFocus => aws::focus_row(&row),
            };
            let identity = || match format {
                AwsCur => aws::cur_identity(&row),
                format => row.identity(format.amounts()),
            };
            let taken = entry.and_then(|entry| match entry {
                Some(entry) => self.take(format, entry, identity),
                None => Ok(()),
            });
            taken.map_err(|error| anyhow!("line {}: {error:#}", csv.line()))?;
        }
    }
}

/// The error of a member, behind a path.
fn joined(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let is_member = text.split(':').next().is_some_and(|head| !head.contains(' '));
    if is_member { format!(".{text}") } else { format!(": {text}") }
}

/// The format whose columns are all there.
fn recognised(columns: &Columns) -> anyhow::Result<Format> {
    let found = Format::ALL.into_iter().find(|format| columns.have(format.columns()));
    found.context(
        "line 1: the columns are not those of an export that is read: costs or usage of OpenAI or \
         Anthropic, AWS' Cost and Usage Report, FOCUS of AWS",
    )
}

/// What a result is, by its members.
fn format_of(is_openai: bool, result: &Members) -> anyhow::Result<Format> {
    if !is_openai {
        return match () {
            () if result.has("amount") => Ok(AnthropicCosts),
            () if result.has("uncached_input_tokens") => Ok(AnthropicUsage),
            () => bail!(": neither amount nor uncached_input_tokens"),
        };
    }
    match result.text("object").map_err(|error| anyhow!(".{error}"))?.as_deref() {
        Some("organization.costs.result") => Ok(OpenaiCosts),
        Some("organization.usage.completions.result") => Ok(OpenaiUsage),
        Some(other) => bail!(
            ".object: expected organization.costs.result or \
             organization.usage.completions.result, found {other:.60?}"
        ),
        None if result.has("amount") => Ok(OpenaiCosts),
        None if result.has("input_tokens") => Ok(OpenaiUsage),
        None => bail!(": neither amount nor input_tokens"),
    }
}
