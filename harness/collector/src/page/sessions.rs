//! Sessions, the newest or the oldest first.

use maud::html;

use crate::event::totals::SessionState;
use crate::ledger::Ledger;
use crate::page::amount::Bound;
use crate::page::layout::{Document, search};
use crate::page::link::Link;
use crate::page::table::{Cell, Format, Table, exports, name, number};
use crate::page::{Answer, Failure, Pairs, View, amount};
use crate::query::{Page, Parameters};
use crate::report::sessions::{Session, SessionsQuery};

/// The most sessions of one page.
const ROWS_MAX: i64 = 50;
/// Hexadecimal digits of an id that are shown.
const ID_SHOWN: usize = 8;

const FILTERS: [&str; 4] = ["customer", "team", "agent", "state"];

pub(super) fn answer(ledger: &Ledger, pairs: Pairs) -> Result<Answer, Failure> {
    let known: Vec<&str> = ["q", "order", "after", "format"].into_iter().chain(FILTERS).collect();
    let mut parameters = Parameters::new(pairs, &known)?;
    let format = Format::take(&mut parameters)?;
    let prefix = parameters.take("q");
    let taken: Vec<(&'static str, String)> = FILTERS
        .into_iter()
        .chain(["order", "after"])
        .filter_map(|name| Some((name, parameters.take(name)?)))
        .collect();
    let link = taken
        .iter()
        .fold(Link::new(View::Sessions), |link, (name, value)| link.with(name, &**value));
    let link = link.maybe("q", prefix.as_deref());
    let is_ordered = taken.iter().any(|(name, _)| *name == "order");
    let mut query = SessionsQuery::from_pairs(taken.clone())?;
    query.newest_first |= !is_ordered;
    query.session_prefix = prefix.clone();
    query.page = Page { limit: ROWS_MAX, ..query.page };
    let found = ledger.sessions(&query)?;
    let table = table("Sessions", &found.sessions);
    if let Some(file) = format.file(&table)? {
        return Ok(file);
    }
    let other_order = if query.newest_first {
        ("oldest", "The oldest first")
    } else {
        ("newest", "The newest first")
    };
    let other_order = (link.clone().without("after").with("order", other_order.0), other_order.1);
    let states = SessionState::ALL.map(SessionState::name);
    let of_state = |state: &str| link.clone().without("after").with("state", state);
    let current = query.state.map(SessionState::name);
    let controls = html! {
        div.bar {
            div.tabs role="group" aria-label="State" {
                a href=(link.clone().without("after").without("state")) aria-current=[current.is_none().then_some("true")] { "All" }
                @for state in states {
                    a href=(of_state(state)) aria-current=[(current == Some(state)).then_some("true")] { (state.to_lowercase()) }
                }
            }
            (search(&link, "Id begins with", prefix.as_deref()))
            a href=(other_order.0) { (other_order.1) }
        }
    };
    let live = html! {
        (table.html(None))
        @if let Some(next) = found.next { p.note { a href=(link.clone().with("after", next)) { "Further sessions" } } }
        (exports(&link))
    };
    let of =
        |name: &str| taken.iter().find(|(known, _)| *known == name).map(|(_, value)| value.clone());
    let narrow = ["customer", "team", "agent"].into_iter().filter_map(of).collect::<Vec<_>>();
    let title = if narrow.is_empty() {
        "Sessions".to_owned()
    } else {
        format!("Sessions of {}", narrow.join(", "))
    };
    let document = Document {
        title: &title,
        link: &link,
        span: None,
        trail: trail(of("customer").as_deref(), of("team").as_deref()),
        controls,
        live,
        now_ms: ledger.now_ms(),
    };
    Ok(Answer::Html(document.html()))
}

/// The way from all customers to a team's agents.
pub(super) fn trail(customer: Option<&str>, team: Option<&str>) -> Vec<(String, Link)> {
    let Some(customer) = customer else { return Vec::new() };
    let by = |by: &str| Link::new(View::Usage).with("by", by);
    let of_customer = by("team").with("customer", customer);
    let mut trail = vec![
        ("All customers".to_owned(), by("customer")),
        (format!("customer {customer}"), of_customer.clone()),
    ];
    if let Some(team) = team {
        trail.push((format!("team {team}"), of_customer.with("by", "agent").with("team", team)));
    }
    trail
}

/// Sessions as a table, each with the way to its time line.
pub(super) fn table(title: &str, sessions: &[Session]) -> Table {
    let columns = [
        name("session_id", "Session"),
        name("state", "State"),
        name("customer", "Customer"),
        name("team", "Team"),
        name("agent", "Agent or app"),
        name("product", "Product"),
        name("started_at", "Started, UTC"),
        number("calls", "Calls"),
        number("generations", "Generations"),
        number("revenue", "Revenue"),
        number("provider_cost", "Provider cost"),
        number("margin", "Margin"),
        name("currency", "Currency"),
        name("source", "Source"),
    ];
    let rows = sessions.iter().map(|session| {
        let totals = &session.totals;
        let started = session.started_at.as_deref();
        let several =
            || Cell::shown("several currencies", html! { span.dim { "several currencies" } });
        let [revenue, cost, margin] = match (&totals.currency, totals.total_revenue) {
            (Some(currency), Some(revenue)) => {
                let cost = totals.total_provider_cost.unwrap_or_default();
                let margin = session.margin.unwrap_or_default();
                let [cost, margin] =
                    Cell::cost_and_margin([cost, margin], session.cost_known, currency);
                [Cell::money(revenue, currency, Bound::Exact), cost, margin]
            }
            _ if totals.total_tool_calls == 0 && totals.generations == 0 => {
                [Cell::absent(), Cell::absent(), Cell::absent()]
            }
            _ => [several(), Cell::absent(), Cell::absent()],
        };
        let short = session.session_id.get(..ID_SHOWN).unwrap_or(&session.session_id);
        vec![
            Cell::link(&session.session_id, short, &link(&session.source, &session.session_id)),
            Cell::word(session.state.name()),
            Cell::text(&session.customer_id),
            Cell::text(&session.team_id),
            Cell::text(&session.agent_id),
            Cell::text(&session.product_id),
            started.map_or_else(Cell::absent, |at| {
                Cell::shown(at, html! { span.short { (amount::time(at)) } })
            }),
            Cell::count(totals.total_tool_calls),
            Cell::count(totals.generations),
            revenue,
            cost,
            margin,
            totals.currency.as_deref().map_or_else(Cell::absent, Cell::word),
            Cell::shown(
                &session.source,
                html! { span.short.dim title=(session.source) { (last_part(&session.source)) } },
            ),
        ]
    });
    Table::new(title, &columns, rows.collect())
}

/// The end of a source's name, which tells processes apart: its last two parts.
pub(super) fn last_part(source: &str) -> &str {
    let mut parts = source.rmatch_indices([':', '/']).map(|(at, _)| at + 1);
    parts.nth(1).and_then(|at| source.get(at..)).unwrap_or(source)
}

/// The time line of a session.
pub(super) fn link(source: &str, session_id: &str) -> Link {
    Link::new(View::Session).with("source", source).with("session_id", session_id)
}
