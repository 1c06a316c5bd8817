//! Usage by customer, team, agent, tool or model: each row leads to the next finer view, and at last
//! to sessions.

use std::cmp::Ordering;

use maud::{Markup, html};

use crate::ledger::Ledger;
use crate::page::amount::Bound;
use crate::page::layout::{Document, search};
use crate::page::link::Link;
use crate::page::period::{self, Span};
use crate::page::table::{Cell, Column, Format, Table, exports, name, number};
use crate::page::{Answer, Failure, Pairs, View, amount};
use crate::query::{BadQuery, Parameters};
use crate::report::usage::{Dimension, UsageQuery, UsageRow};

/// The most rows of one table.
const ROWS_MAX: usize = 200;

/// What usage can be shown by, each with its title, and what else names a row.
const BY: [(Dimension, &str, &[Dimension]); 6] = [
    (Dimension::Customer, "Customers", &[]),
    (Dimension::Team, "Teams", &[Dimension::Customer]),
    (Dimension::Agent, "Agents and apps", &[Dimension::Customer, Dimension::Team]),
    (Dimension::Tool, "Tools", &[]),
    (Dimension::Model, "Models", &[Dimension::Provider]),
    (Dimension::Product, "Products", &[]),
];

/// By what a view can be narrowed down.
const FILTERS: [Dimension; 8] = [
    Dimension::Customer,
    Dimension::Team,
    Dimension::Agent,
    Dimension::Tool,
    Dimension::Provider,
    Dimension::Model,
    Dimension::Product,
    Dimension::Currency,
];

const SORTS: [&str; 7] = [
    "name",
    "calls",
    "generations",
    "revenue",
    "provider_cost",
    "margin",
    "generations_without_cost",
];

/// A view of usage as it is asked for.
struct Asked {
    by: (Dimension, &'static str, &'static [Dimension]),
    filters: Vec<(Dimension, String)>,
    search: Option<String>,
    /// One of [`SORTS`], with a `-` before it for the largest first.
    sort: String,
    span: Span,
    format: Format,
    link: Link,
}

impl Asked {
    fn from_pairs(pairs: Pairs, now_ms: i64) -> Result<Asked, BadQuery> {
        let filters = FILTERS.map(Dimension::name);
        let known: Vec<&str> = period::PARAMETERS
            .into_iter()
            .chain(["by", "q", "sort", "format"])
            .chain(filters)
            .collect();
        let mut parameters = Parameters::new(pairs, &known)?;
        let span = Span::take(&mut parameters, now_ms)?;
        let by = parameters.take("by").unwrap_or_else(|| "customer".to_owned());
        let found = BY.into_iter().find(|(dimension, ..)| dimension.name() == by);
        let by = found.ok_or_else(|| {
            let names = BY.map(|(dimension, ..)| dimension.name()).join(", ");
            BadQuery::new(format!("by: must be one of {names}, found {by:?}"))
        })?;
        let sort = parameters.take("sort").unwrap_or_else(|| "-revenue".to_owned());
        if !SORTS.contains(&sort.strip_prefix('-').unwrap_or(&sort)) {
            let names = SORTS.join(", ");
            let message = format!(
                "sort: must be one of {names}, with a - before it for the largest first, found {sort:?}"
            );
            return Err(BadQuery::new(message));
        }
        let format = Format::take(&mut parameters)?;
        let search = parameters.take("q");
        let mut link = Link::new(View::Usage).with("by", by.0.name()).with("period", &*span.name);
        let mut filters = Vec::new();
        for dimension in FILTERS {
            if let Some(value) = parameters.take(dimension.name()) {
                link = link.with(dimension.name(), &*value);
                filters.push((dimension, value));
            }
        }
        let link = link.maybe("q", search.as_deref()).with("sort", &*sort);
        Ok(Asked { by, filters, search, sort, span, format, link })
    }

    fn query(&self) -> UsageQuery {
        let (dimension, _, others) = self.by;
        let group_by = [dimension].into_iter().chain(others.iter().copied());
        UsageQuery {
            group_by: group_by.chain([Dimension::Currency]).collect(),
            filters: self.filters.clone(),
            period: self.span.period(),
        }
    }

    /// Whether one of its names has what is searched for.
    fn has(&self, row: &UsageRow) -> bool {
        // Calls have no model: they are no row among the models.
        if self.by.0 == Dimension::Model && row.generations == 0 {
            return false;
        }
        let Some(search) = &self.search else { return true };
        let search = search.to_lowercase();
        let mut names = row.dimensions.iter().filter(|(it, _)| *it != Dimension::Currency);
        names.any(|(_, value)| value.to_lowercase().contains(&search))
    }

    fn order(&self, left: &UsageRow, right: &UsageRow) -> Ordering {
        let (key, falls) = match self.sort.strip_prefix('-') {
            Some(key) => (key, true),
            None => (self.sort.as_str(), false),
        };
        let missing = |row: &UsageRow| {
            row.unpriced_generations.saturating_add(row.unpriced_units_generations)
        };
        // Amounts of two currencies have no order, so each currency has its own.
        let currency = |row: &UsageRow| row.dimension(Dimension::Currency).map(str::to_owned);
        let by_currency = || currency(left).cmp(&currency(right));
        let right_names = || right.dimensions.iter().map(|(_, name)| name);
        let by_names = || left.dimensions.iter().map(|(_, name)| name).cmp(right_names());
        let by_value = match key {
            "calls" => left.calls.cmp(&right.calls),
            "generations" => left.generations.cmp(&right.generations),
            "provider_cost" => left.provider_cost.cmp(&right.provider_cost),
            "margin" => left.margin.cmp(&right.margin),
            "generations_without_cost" => missing(left).cmp(&missing(right)),
            "revenue" => left.revenue.cmp(&right.revenue),
            _ => by_names(),
        };
        let by_value = if falls { by_value.reverse() } else { by_value };
        let is_money = ["revenue", "provider_cost", "margin"].contains(&key);
        let order =
            if is_money { by_currency().then(by_value) } else { by_value.then_with(by_currency) };
        order.then_with(by_names)
    }

    /// Where a row leads: a customer to its teams, a team to its agents, an agent to its sessions, a
    /// tool or a model to the customers that used it.
    fn next(&self, row: &UsageRow) -> Link {
        let of = |dimension: Dimension| row.dimension(dimension).map(str::to_owned);
        let (dimension, _, others) = self.by;
        let mut link = match dimension {
            Dimension::Agent => self.sessions(&[Dimension::Customer, Dimension::Team]),
            Dimension::Customer => self.link.clone().with("by", "team"),
            Dimension::Team => self.link.clone().with("by", "agent"),
            _ => self.link.clone().with("by", "customer"),
        };
        for it in FILTERS {
            if it == dimension || others.contains(&it) {
                link = link.maybe(it.name(), of(it));
            }
        }
        link.without("q").without("sort")
    }

    /// The sessions of what the view is narrowed down to, as far as these go.
    fn sessions(&self, dimensions: &[Dimension]) -> Link {
        let filters = self.filters.iter().filter(|(it, _)| dimensions.contains(it));
        filters.fold(Link::new(View::Sessions), |link, (it, value)| link.with(it.name(), &**value))
    }

    /// The way back: each filter without those that came after it.
    fn trail(&self) -> Vec<(String, Link)> {
        let all = Link::new(View::Usage).with("by", "customer").with("period", &*self.span.name);
        let mut trail = vec![("All customers".to_owned(), all)];
        let mut link = Link::new(View::Usage).with("period", &*self.span.name);
        for (dimension, value) in &self.filters {
            let name = dimension.name();
            let by = match dimension {
                Dimension::Customer => "team",
                Dimension::Team => "agent",
                _ => self.by.0.name(),
            };
            link = link.with("by", by).with(name, &**value);
            trail.push((format!("{name} {}", shown(value)), link.clone()));
        }
        if self.filters.is_empty() { Vec::new() } else { trail }
    }
}

/// What stands for nothing, in words.
pub(super) fn shown(value: &str) -> &str {
    match value {
        "__unattributed__" => "(no call)",
        "__none__" => "(none)",
        value => value,
    }
}

pub(super) fn answer(ledger: &Ledger, pairs: Pairs) -> Result<Answer, Failure> {
    let now_ms = ledger.now_ms();
    let asked = Asked::from_pairs(pairs, now_ms)?;
    let (rows, all) = ledger.ranked_usage(
        &asked.query(),
        ROWS_MAX,
        |row| asked.has(row),
        |left, right| asked.order(left, right),
    )?;
    let table = table(&asked, &rows);
    if let Some(file) = asked.format.file(&table)? {
        return Ok(file);
    }
    let title = match asked.filters.as_slice() {
        [] => asked.by.1.to_owned(),
        [.., (dimension, value)] => {
            format!("{} of {} {}", asked.by.1, dimension.name(), shown(value))
        }
    };
    let live = html! {
        (table.html(Some((&asked.link, &SORTS, &asked.sort))))
        @if all > rows.len() as u64 {
            p.note { "The first " (amount::count(rows.len() as u64)) " of " (amount::count(all)) ": search, or narrow it down." }
        }
        (exports(&asked.link))
    };
    let document = Document {
        title: &title,
        link: &asked.link,
        span: Some(&asked.span),
        trail: asked.trail(),
        controls: controls(&asked),
        live,
        now_ms,
    };
    Ok(Answer::Html(document.html()))
}

fn controls(asked: &Asked) -> Markup {
    let of_sessions = asked.sessions(&[Dimension::Customer, Dimension::Team, Dimension::Agent]);
    html! {
        div.bar {
            div.tabs role="group" aria-label="Shown by" {
                @for (dimension, title, _) in BY {
                    @let current = (dimension == asked.by.0).then_some("true");
                    a href=(asked.link.clone().with("by", dimension.name())) aria-current=[current] { (title) }
                }
                a href=(of_sessions) { "Sessions" }
            }
            (search(&asked.link, "Name", asked.search.as_deref()))
        }
    }
}

fn table(asked: &Asked, rows: &[UsageRow]) -> Table {
    let (dimension, title, others) = asked.by;
    let first = Column { key: "name", title: dimension_title(dimension), is_number: false };
    let others_columns = others.iter().map(|it| name(it.name(), dimension_title(*it)));
    let counted = [
        number("calls", "Calls"),
        number("generations", "Generations"),
        number("input", "Tokens in"),
        number("output", "Tokens out"),
        number("revenue", "Revenue"),
        number("provider_cost", "Provider cost"),
        number("margin", "Margin"),
        number("generations_without_cost", "Cost unknown"),
        name("currency", "Currency"),
    ];
    let columns: Vec<Column> = [first].into_iter().chain(others_columns).chain(counted).collect();
    let cells = rows.iter().map(|row| {
        let value = row.dimension(dimension).unwrap_or_default();
        let others = others.iter().map(|it| Cell::maybe(row.dimension(*it)));
        let currency = row.dimension(Dimension::Currency).unwrap_or_default();
        let sums = [row.provider_cost, row.margin];
        let [cost, margin] = Cell::cost_and_margin(sums, row.cost_known(), currency);
        let counted = [
            Cell::count(row.calls),
            Cell::count(row.generations),
            Cell::count(row.tokens.input),
            Cell::count(row.tokens.output),
            Cell::money(row.revenue, currency, Bound::Exact),
            cost,
            margin,
            Cell::count(row.unpriced_generations.saturating_add(row.unpriced_units_generations)),
            Cell::word(currency),
        ];
        let name = Cell::link(value, shown(value), &asked.next(row));
        [name].into_iter().chain(others).chain(counted).collect()
    });
    Table::new(&format!("{title}, {}", asked.span.title), &columns, cells.collect())
}

fn dimension_title(dimension: Dimension) -> &'static str {
    match dimension {
        Dimension::Customer => "Customer",
        Dimension::Team => "Team",
        Dimension::Agent => "Agent or app",
        Dimension::Tool => "Tool",
        Dimension::Provider => "Provider",
        Dimension::Model => "Model",
        _ => "Product",
    }
}
