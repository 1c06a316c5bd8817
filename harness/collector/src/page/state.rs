//! What is now: the scopes of guards with their levels, and the sources with their gaps.

use maud::{Markup, html};
use serde_json::Value;

use crate::ledger::Ledger;
use crate::page::amount::Bound;
use crate::page::layout::Document;
use crate::page::link::Link;
use crate::page::table::{Cell, Format, Table, exports, name, number};
use crate::page::{Answer, Failure, Pairs, View, amount, sessions};
use crate::query::Parameters;
use crate::report::gaps::{Delivery, SourceGaps, SourceState};
use crate::report::guards::{GuardState, Guards};

/// The most rows of one table.
const ROWS_MAX: usize = 200;

/// The levels of guards, in words.
pub(super) const LEVELS: [(&str, &str); 4] = [
    ("L3_BLOCK", "Blocked"),
    ("L2_THROTTLE", "Throttled"),
    ("L1_ALERT", "Alerted"),
    ("NONE", "Within limits"),
];

/// A level in words; a guard that only observes stops nobody.
fn level(level: &str, mode: Option<&str>) -> Markup {
    let word =
        LEVELS.into_iter().find(|(known, _)| *known == level).map_or(level, |(_, word)| word);
    let would = mode == Some("observe") && ["L3_BLOCK", "L2_THROTTLE"].contains(&level);
    let class = match level {
        "NONE" => "dim",
        "L3_BLOCK" => "bad",
        _ => "warn",
    };
    html! { span class=(class) { (word) @if would { " if it enforced" } } }
}

/// A change of a level in one line.
pub(super) fn alert(event: &Value) -> Markup {
    let data = &event["data"];
    let text = |member: &str| data[member].as_str().unwrap_or_default();
    let time = event["time"].as_str().unwrap_or_default();
    html! {
        (amount::time(time)) " " (text("guard_id")) ": "
        (level(text("level"), data["mode"].as_str())) " "
        span.dim { bdi { (text("customer_id")) } }
    }
}

pub(super) fn guards(
    ledger: &Ledger,
    pairs: Pairs,
    read: impl Fn(i64) -> anyhow::Result<Guards>,
) -> Result<Answer, Failure> {
    let format = Format::take(&mut Parameters::new(pairs, &["format"])?)?;
    let Guards { guards, more } = read(i64::try_from(ROWS_MAX).unwrap_or(1))?;
    let table = guard_table(&guards);
    if let Some(file) = format.file(&table)? {
        return Ok(file);
    }
    let link = Link::new(View::Guards);
    let live = html! {
        p.note { "The strictest level first. The sums are those of the scope's latest period, over all sources." }
        (table.html(None))
        @if more { p.note { "The first " (ROWS_MAX) ": there are more." } }
        (exports(&link))
    };
    Ok(document("Guards", &link, live, ledger))
}

fn document(title: &str, link: &Link, live: Markup, ledger: &Ledger) -> Answer {
    let (span, trail, controls, now_ms) = (None, Vec::new(), html! {}, ledger.now_ms());
    Answer::Html(Document { title, link, span, trail, controls, live, now_ms }.html())
}

fn guard_table(guards: &[GuardState]) -> Table {
    let columns = [
        name("guard_id", "Guard"),
        name("level", "Level"),
        name("mode", "Mode"),
        name("customer", "Customer"),
        name("scope", "Scope"),
        name("period", "Period"),
        name("period_started_at", "Since, UTC"),
        number("calls", "Calls"),
        number("tokens", "Tokens"),
        number("revenue", "Revenue"),
        number("contracted_revenue", "Contract"),
        number("provider_cost", "Provider cost"),
        number("margin", "Margin"),
        name("currency", "Currency"),
        number("emitters", "Sources"),
        number("emitters_without_totals", "Without totals"),
        name("told_at", "Told, UTC"),
    ];
    let rows = guards.iter().map(|guard| {
        // What no source told is unknown; where some did not, a sum is the least that it is.
        let bound = if guard.emitters_without_totals > 0 { Bound::Least } else { Bound::Exact };
        let currency = guard.currency.as_deref().unwrap_or_default();
        let told = |sum: Option<rust_decimal::Decimal>| {
            sum.map_or_else(Cell::unknown, |sum| Cell::money(sum, currency, bound))
        };
        let count = |count: Option<u64>| count.map_or_else(Cell::unknown, Cell::count);
        let contract = guard.contracted_revenue;
        let margin = guard.margin.map(|share| {
            Cell::shown(
                &share.normalize().to_string(),
                html! { (amount::percent(share, Bound::Exact)) },
            )
        });
        let time = |text: &str| {
            let shown = amount::time(text);
            let minutes = shown.get(..16).unwrap_or(&shown).to_owned();
            Cell::shown(text, html! { span.short { (minutes) } })
        };
        vec![
            Cell::text(&guard.guard_id),
            Cell::shown(guard.level, level(guard.level, guard.mode.as_deref())),
            guard.mode.as_deref().map_or_else(Cell::absent, Cell::word),
            Cell::text(&guard.customer_id),
            Cell::text(&scope(guard)),
            Cell::text(&guard.period),
            guard.period_started_at.as_deref().map_or_else(Cell::absent, time),
            count(guard.calls),
            count(guard.tokens),
            told(guard.total_revenue),
            contract.map_or_else(Cell::absent, |sum| Cell::money(sum, currency, Bound::Exact)),
            told(guard.total_provider_cost),
            margin.unwrap_or_else(Cell::absent),
            Cell::maybe(guard.currency.as_deref()),
            Cell::count(guard.emitters),
            Cell::count(guard.emitters_without_totals),
            time(&guard.told_at),
        ]
    });
    Table::new("Scopes of guards", &columns, rows.collect())
}

fn scope(guard: &GuardState) -> String {
    let session = guard.session_key.as_deref().map(|key| key.get(..8).unwrap_or(key));
    let names = [
        guard.product_id.as_deref(),
        guard.agent_id.as_deref(),
        guard.team_id.as_deref(),
        guard.user_id.as_deref(),
        guard.api_key_hash.as_deref(),
        guard.tool_name.as_deref(),
        session,
        guard.metric.as_deref(),
    ];
    let names = names.into_iter().flatten().filter(|name| !name.is_empty());
    [guard.scope.as_str()].into_iter().chain(names).collect::<Vec<_>>().join(" · ")
}

pub(super) fn sources(ledger: &Ledger, pairs: Pairs) -> Result<Answer, Failure> {
    let format = Format::take(&mut Parameters::new(pairs, &["format"])?)?;
    let delivery = ledger.delivery(ROWS_MAX)?;
    let table = source_table("Sources", delivery.sources.iter());
    if let Some(file) = format.file(&table)? {
        return Ok(file);
    }
    let Delivery { missing, all, states, sources, .. } = &delivery;
    let link = Link::new(View::Sources);
    let live = html! {
        p {
            (amount::count(*missing)) " events are missing. Of " (amount::count(*all as u64)) " sources "
            @for (at, state) in SourceState::ALL.into_iter().enumerate() {
                @if at > 0 { ", " } (amount::count(states.count(state))) " " (state.name())
            }
            ". " a href="/v1/gaps" { "The ranges that are missing" } "."
        }
        (table.html(None))
        @if *all > sources.len() { p.note { "The first " (sources.len()) ", those with gaps and the silent ones before others." } }
        (exports(&link))
    };
    Ok(document("Sources", &link, live, ledger))
}

pub(super) fn source_table<'a>(
    title: &str,
    sources: impl Iterator<Item = &'a SourceGaps>,
) -> Table {
    let columns = [
        name("source", "Source"),
        name("state", "State"),
        name("last_event_at", "Last event, UTC"),
        number("received", "Events"),
        number("missing_events", "Missing"),
        number("open_sessions", "Open sessions"),
        name("writer", "Secret"),
    ];
    let rows = sources.map(|source| {
        let is_silent = source.state == SourceState::Silent;
        let missing = source.missing_events;
        vec![
            Cell::shown(
                &source.source,
                html! { bdi title=(source.source) { (sessions::last_part(&source.source)) } },
            ),
            Cell::shown(
                source.state.name(),
                html! { span.bad[is_silent] { (source.state.name()) } },
            ),
            Cell::shown(
                &source.last_event_at,
                html! { span.short { (amount::time(&source.last_event_at)) } },
            ),
            Cell::count(source.received.unsigned_abs()),
            Cell::count(missing).marked(missing > 0),
            Cell::count(source.open_sessions),
            Cell::maybe(source.writer.as_deref()),
        ]
    });
    Table::new(title, &columns, rows.collect())
}
