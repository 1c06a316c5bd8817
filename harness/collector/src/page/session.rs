//! One session: its totals, what caused its cost, and its calls and generations one after another.

use maud::{Markup, html};

use crate::ledger::Ledger;
use crate::money::known::CostKnown;
use crate::page::amount::Bound;
use crate::page::layout::{Document, message};
use crate::page::link::Link;
use crate::page::table::{Cell, Format, Table, exports, name, number};
use crate::page::{Answer, Failure, Pairs, View, amount, front, sessions};
use crate::query::{BadQuery, Page, Parameters, rfc3339};
use crate::report::sessions::{Session, SessionsQuery};
use crate::report::timeline::{After, Step};

/// The most calls and generations of one page.
const STEPS_MAX: usize = 200;

pub(super) fn answer(ledger: &Ledger, pairs: Pairs) -> Result<Answer, Failure> {
    let mut parameters = Parameters::new(pairs, &["source", "session_id", "after", "format"])?;
    let format = Format::take(&mut parameters)?;
    let mut needed = |name: &str| {
        parameters.take(name).ok_or_else(|| BadQuery::new(format!("{name}: is missing")))
    };
    let (source, session_id) = (needed("source")?, needed("session_id")?);
    let after = parameters.take("after").map(|text| after(&text)).transpose()?;
    let query = SessionsQuery {
        session_id: Some(session_id.clone()),
        source: Some(source.clone()),
        page: Page { limit: 1, ..Page::default() },
        ..SessionsQuery::default()
    };
    let Some(session) = ledger.sessions(&query)?.sessions.pop() else {
        let text = format!("No session {session_id} of {source} is in the ledger.");
        return Ok(Answer::NotFound(message("No such session", &text)));
    };
    let (steps, next) = ledger.timeline(&source, &session_id, after, STEPS_MAX)?;
    let table = timeline(&source, &steps);
    if let Some(file) = format.file(&table)? {
        return Ok(file);
    }
    let link = sessions::link(&source, &session_id);
    let shown = link.clone().maybe("after", after.map(|After(time, at)| format!("{time}.{at}")));
    let live = html! {
        (facts(&session))
        (causes(&session))
        h2 { "Time line" }
        (table.html(None))
        @if let Some(After(time, at)) = next {
            p.note { a href=(link.with("after", format!("{time}.{at}"))) { "Further calls and generations" } }
        }
        (exports(&shown))
    };
    let title = format!("Session {session_id}");
    let document = Document {
        title: &title,
        link: &shown,
        span: None,
        trail: trail(&session),
        controls: html! {},
        live,
        now_ms: ledger.now_ms(),
    };
    Ok(Answer::Html(document.html()))
}

/// Reads where a page of steps begins: the time and the position of the last one before it.
fn after(text: &str) -> Result<After, BadQuery> {
    let read = || {
        let (time_ms, position) = text.split_once('.')?;
        Some(After(time_ms.parse().ok()?, position.parse().ok()?))
    };
    read().ok_or_else(|| {
        BadQuery::new(format!("after: must be a cursor of the page, found {text:?}"))
    })
}

fn trail(session: &Session) -> Vec<(String, Link)> {
    let (customer, team) = (&session.customer_id, &session.team_id);
    let mut trail = sessions::trail(Some(customer), Some(team));
    let of_agent = Link::new(View::Sessions).with("customer", &**customer).with("team", &**team);
    let agent = &session.agent_id;
    trail.push((format!("agent {agent}"), of_agent.with("agent", &**agent)));
    trail
}

fn facts(session: &Session) -> Markup {
    let totals = &session.totals;
    let duration = |ms: Option<u64>| ms.map(amount::duration);
    let time = |text: Option<&str>| text.map(|text| format!("{} UTC", amount::time(text)));
    let facts = [
        ("State", Some(session.state.name().to_owned())),
        ("Customer", Some(session.customer_id.clone())),
        ("Team", Some(session.team_id.clone())),
        ("Agent or app", Some(session.agent_id.clone())),
        ("Product", Some(format!("{} ({})", session.product_id, session.product_type))),
        ("Started", time(session.started_at.as_deref())),
        ("Ended", time(session.ended_at.as_deref())),
        ("Ended because of", session.close_reason.clone()),
        ("Duration", duration(totals.wall_duration_ms)),
        ("Of that in calls", duration(totals.active_duration_ms)),
        ("Source", Some(session.source.clone())),
    ];
    let count =
        |title: &str, count: u64| html! { div { dt { (title) } dd { (amount::count(count)) } } };
    let currency = totals.currency.as_deref().unwrap_or_default();
    let [least, most] = amount::bounds(session.cost_known);
    let sum = |title: &str, sum: Option<rust_decimal::Decimal>, bound: Bound| {
        html! {
            div {
                dt { (title) @if !currency.is_empty() { ", " (currency) } }
                dd { @match sum {
                    Some(sum) => (amount::money(sum, currency, bound)),
                    None if currency.is_empty() => "several currencies",
                    None => span.bad { "unknown" },
                } }
            }
        }
    };
    html! {
        dl.cards {
            (count("Calls", totals.total_tool_calls))
            (count("Generations", totals.generations))
            (front::tokens(totals.total_tokens))
            (sum("Revenue", totals.total_revenue, Bound::Exact))
            (sum("Provider cost", totals.total_provider_cost, least))
            (sum("Margin", session.margin, most))
            @if totals.unpriced_generations > 0 { (count("Generations without a known cost", totals.unpriced_generations)) }
        }
        dl.facts {
            @for (title, value) in facts { @if let Some(value) = value { dt { (title) } dd { bdi { (value) } } } }
        }
    }
}

/// The session's cost by what it was for, and by model.
fn causes(session: &Session) -> Markup {
    let totals = &session.totals;
    let Some(currency) = totals.currency.as_deref().filter(|_| totals.generations > 0) else {
        return html! {};
    };
    // Which tool a cost without a price was for is not counted: each sum is the least that it is.
    let [least, _] = amount::bounds(session.cost_known);
    let known = |cost: Option<rust_decimal::Decimal>| match cost {
        Some(cost) if session.cost_known != CostKnown::None => Cell::money(cost, currency, least),
        _ => Cell::unknown(),
    };
    let tools = totals.calls_by_tool.iter();
    let mut rows: Vec<Vec<Cell>> = tools
        .map(|tool| {
            vec![Cell::text(&tool.tool_name), Cell::count(tool.calls), known(tool.provider_cost)]
        })
        .collect();
    let of_none = known(totals.unattributed_provider_cost);
    rows.push(vec![Cell::text("(no call)"), Cell::absent(), of_none]);
    let columns = [name("tool", "Tool"), number("calls", "Calls"), number("cost", "Provider cost")];
    let by_tool = Table::new("By the call that it was for", &columns, rows);
    let rows = totals.usage_by_model.iter().map(|model| {
        let known = CostKnown::of(model.generations, model.unpriced_generations, 0);
        let cost = model.provider_cost.unwrap_or_default();
        let [cost, _] = Cell::cost_and_margin([cost, cost], known, currency);
        let name = format!("{} {}", model.provider, model.model);
        vec![
            Cell::text(&name),
            Cell::count(model.generations),
            Cell::count(model.tokens.input),
            Cell::count(model.tokens.output),
            cost,
        ]
    });
    let columns = [
        name("model", "Model"),
        number("generations", "Generations"),
        number("input", "Tokens in"),
        number("output", "Tokens out"),
        number("cost", "Provider cost"),
    ];
    let by_model = Table::new("By model", &columns, rows.collect());
    html! {
        h2 { "Provider cost by cause, " (currency) }
        div.columns { section { (by_tool.html(None)) } section { (by_model.html(None)) } }
    }
}

fn timeline(source: &str, steps: &[Step]) -> Table {
    let columns = [
        name("time", "Ended, UTC"),
        name("kind", "Kind"),
        name("name", "Call or model"),
        name("status", "Status"),
        number("duration_ms", "Duration"),
        number("input", "Tokens in"),
        number("output", "Tokens out"),
        number("price", "Price"),
        number("provider_cost", "Provider cost"),
        name("currency", "Currency"),
        name("cause", "For the call"),
        name("event_id", "Event"),
    ];
    let rows = steps.iter().map(|step| {
        let is_call = step.kind != "token_consumption";
        let time = rfc3339(step.time_ms);
        let count = |count: Option<i64>| match count {
            Some(count) => Cell::count(count.unsigned_abs()),
            None if is_call => Cell::absent(),
            None => Cell::unknown(),
        };
        let cost = match (step.cost, &step.unpriced_reason) {
            _ if is_call => Cell::absent(),
            (Some(cost), _) => {
                let bound = if step.has_unpriced_units { Bound::Least } else { Bound::Exact };
                Cell::money(cost, &step.currency, bound)
            }
            (None, reason) => match reason {
                Some(reason) => Cell::shown(reason, html! { span.bad { "unknown: " (reason) } }),
                None => Cell::unknown(),
            },
        };
        let cause = step.tool.as_deref().zip(step.call_id.as_deref()).filter(|_| !is_call);
        let event = Link::new(View::Event).with("source", source).with("id", &*step.id);
        let is_well = ["SUCCESS", "COMPLETE"].contains(&step.status.as_str());
        vec![
            Cell::shown(&time, html! { span.short { (amount::time(&time)) (time.get(19..23).filter(|rest| rest.starts_with('.')).unwrap_or_default()) } }),
            Cell::word(kind(&step.kind)),
            Cell::link(&step.name, &step.name, &event),
            Cell::shown(&step.status, html! { span.short.warn[!is_well] { (step.status) } }),
            Cell::duration(step.duration_ms),
            count(step.tokens[0]),
            count(step.tokens[1]),
            Cell::money(step.price, &step.currency, Bound::Exact),
            cost,
            Cell::word(&step.currency),
            cause.map_or_else(Cell::absent, |(tool, call)| Cell::shown(&format!("{tool} {call}"), html! { bdi { (tool) } " " span.dim { (call) } })),
            Cell::link(&step.id, step.id.trim_start_matches('0'), &event),
        ]
    });
    Table::new("Calls and generations by their ends", &columns, rows.collect())
}

fn kind(kind: &str) -> &str {
    match kind {
        "tool_invocation" => "tool",
        "api_call" => "API",
        "agent_step" => "agent",
        "token_consumption" => "model",
        other => other,
    }
}
