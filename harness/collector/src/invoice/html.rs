//! Documents as one page of HTML, made for print. It asks for nothing beyond itself, and what stands in
//! it from outside is text: maud escapes each value.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use crate::invoice::sheet::{Block, Part, Sheet, Table, TotalLine};
use crate::invoice::text::printable;

const STYLE: &str = "
@page { size: A4; margin: 18mm 16mm; }
:root { --line: #c9cdd3; --dim: #59616c; }
* { box-sizing: border-box; }
body { font: 10pt/1.4 system-ui, 'Liberation Sans', 'DejaVu Sans', sans-serif; color: #15181d;
  margin: 0 auto; max-width: 178mm; padding: 8mm 0; }
article + article { break-before: page; margin-top: 20mm; }
h1 { font-size: 17pt; margin: 0 0 5mm; }
h2 { font-size: 10.5pt; margin: 7mm 0 1.5mm; break-after: avoid; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .6mm 6mm; margin: 0; }
dt, caption { color: var(--dim); }
dd { margin: 0; }
dd, td, h2 { overflow-wrap: anywhere; unicode-bidi: isolate; }
table { border-collapse: collapse; width: 100%; margin: 0 0 2.5mm; }
caption { text-align: left; padding: 1mm 0; }
thead { display: table-header-group; }
tr, dl { break-inside: avoid; }
th, td { text-align: left; vertical-align: top; padding: 1mm 4mm 1mm 0;
  border-bottom: .25mm solid var(--line); }
th { color: var(--dim); font-weight: 600; }
.word { white-space: nowrap; }
.number { text-align: right; white-space: nowrap; padding: 1mm 0 1mm 4mm;
  font-variant-numeric: tabular-nums; }
p { margin: 0 0 1.5mm; }
.totals { margin: 7mm 0 0 auto; width: auto; min-width: 80mm; break-inside: avoid; }
.totals .sum td { border-top: .5mm solid #15181d; border-bottom: 0; font-size: 12pt; font-weight: 700; }
@media print { body { max-width: none; padding: 0; } article + article { margin-top: 0; } }
";

/// A name of up to so many characters is not broken, at a hyphen for instance, to make room for others.
const WORD_CHARS_MAX: usize = 28;

/// The page of some documents.
pub(super) fn to_html(sheets: &[Sheet]) -> String {
    let title = sheets.first().map_or("Invoices", |sheet| &*sheet.title);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="Content-Security-Policy"
                    content="default-src 'none'; style-src 'unsafe-inline'";
                title { (printable(title)) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                @if sheets.is_empty() { p { "Nothing to bill." } }
                @for sheet in sheets { (article(sheet)) }
            }
        }
    };
    page.into_string()
}

fn article(sheet: &Sheet) -> Markup {
    html! {
        article {
            h1 { (printable(&sheet.title)) }
            dl {
                @for (label, value) in &sheet.head { dt { (label) } dd { (printable(value)) } }
            }
            @for part in &sheet.parts { (section(part)) }
            @if !sheet.totals.is_empty() { (totals(&sheet.totals)) }
        }
    }
}

fn section(part: &Part) -> Markup {
    // Facts that follow one another share a list, so that their values align.
    let runs = part.blocks.chunk_by(|a, b| matches!((a, b), (Block::Fact(..), Block::Fact(..))));
    html! {
        section {
            h2 { (printable(&part.title)) }
            @for run in runs {
                @match run {
                    [Block::Table(made)] => (table(made)),
                    [Block::Note(text)] => p { (printable(text)) },
                    facts => dl {
                        @for fact in facts {
                            @if let Block::Fact(label, value) = fact {
                                dt { (label) } dd { (printable(value)) }
                            }
                        }
                    },
                }
            }
        }
    }
}

fn table(table: &Table) -> Markup {
    let class = |column: usize| (column >= table.names).then_some("number");
    html! {
        table {
            @if let Some(caption) = &table.caption { caption { (printable(caption)) } }
            @if !table.head.is_empty() {
                thead { tr {
                    @for (column, name) in table.head.iter().enumerate() {
                        th scope="col" class=[class(column)] { (name) }
                    }
                } }
            }
            tbody {
                @for row in &table.rows {
                    tr {
                        @for (column, value) in row.iter().enumerate() {
                            @let short = value.chars().count() <= WORD_CHARS_MAX;
                            td class=[class(column).or(short.then_some("word"))] {
                                (printable(value))
                            }
                        }
                    }
                }
            }
        }
    }
}

fn totals(lines: &[TotalLine]) -> Markup {
    html! {
        table class="totals" {
            tbody {
                @for line in lines {
                    tr class=[line.is_sum.then_some("sum")] {
                        td { (line.label) }
                        td class="number" { (line.value) }
                    }
                }
            }
        }
    }
}
