//! The front: a period's figures, its course, its largest shares, guards, and the health of the
//! delivery.

use maud::{Markup, html};
use rust_decimal::Decimal;
use serde_json::Value;

use crate::event::tokens::TokenTotals;
use crate::ledger::Ledger;
use crate::money;
use crate::money::known::CostKnown;
use crate::page::amount::Bound;
use crate::page::layout::Document;
use crate::page::link::Link;
use crate::page::period::{self, Span};
use crate::page::{Answer, Failure, Pairs, View, amount, chart, sessions, state};
use crate::query::{Page, Parameters};
use crate::report::gaps::{Delivery, SourceState};
use crate::report::guards::Guards;
use crate::report::overview::{ByCurrency, Overview, OverviewQuery, Shares, Sums};
use crate::report::sessions::{Session, SessionsQuery};

/// The most currencies that the front shows; further ones are in the views.
const CURRENCIES_MAX: usize = 3;
/// The most entries of each list.
const ENTRIES_MAX: usize = 6;
/// The most scopes of guards that are counted by level.
const GUARDS_MAX: i64 = 1000;

/// All that the front shows.
struct Front {
    span: Span,
    query: OverviewQuery,
    overview: Overview,
    open_sessions: u64,
    sessions: Vec<Session>,
    guards: Guards,
    alerts: Vec<Value>,
    delivery: Delivery,
    held: u64,
}

pub(super) fn answer(
    ledger: &Ledger,
    pairs: Pairs,
    guards: impl Fn(i64) -> anyhow::Result<Guards>,
) -> Result<Answer, Failure> {
    let now_ms = ledger.now_ms();
    let mut parameters = Parameters::new(pairs, &period::PARAMETERS)?;
    let span = Span::take(&mut parameters, now_ms)?;
    let query = span.overview(now_ms);
    let page = |limit: usize| Page { limit: i64::try_from(limit).unwrap_or(1), ..Page::default() };
    let newest =
        SessionsQuery { newest_first: true, page: page(ENTRIES_MAX), ..SessionsQuery::default() };
    let alerts = ledger.alerts(page(ENTRIES_MAX))?.alerts;
    let front = Front {
        overview: ledger.overview(&query)?,
        open_sessions: ledger.count_open_sessions()?,
        sessions: ledger.sessions(&newest)?.sessions,
        guards: guards(GUARDS_MAX)?,
        alerts: alerts.iter().filter_map(|raw| serde_json::from_str(raw.get()).ok()).collect(),
        delivery: ledger.delivery(ENTRIES_MAX)?,
        held: ledger.count_quarantined()?.iter().map(|(_, count)| count).sum(),
        span,
        query,
    };
    let link = Link::new(View::Front).with("period", &*front.span.name);
    let document = Document {
        title: "Overview",
        link: &link,
        span: Some(&front.span),
        trail: Vec::new(),
        controls: html! {},
        live: front.html(),
        now_ms,
    };
    Ok(Answer::Html(document.html()))
}

impl Front {
    fn html(&self) -> Markup {
        let currencies: Vec<(&str, &Sums)> =
            self.overview.totals.iter().map(|(code, sums)| (code.as_str(), sums)).collect();
        let shown = currencies.get(..CURRENCIES_MAX).unwrap_or(&currencies);
        html! {
            (self.figures(shown))
            @if currencies.len() > shown.len() {
                p.note { (currencies.len() - shown.len()) " more currencies are in the view of customers." }
            }
            @if currencies.is_empty() { (self.nothing()) }
            @for (currency, _) in shown { (self.course(currency)) }
            @for (currency, _) in shown { (self.shares(currency)) }
            h2 { "Now" }
            @if self.sessions.is_empty() { p.empty { "No session yet." } }
            @else { (sessions::table("The newest sessions", &self.sessions).html(None)) }
            (self.guarded())
            (self.health())
        }
    }

    /// What to say instead of figures.
    fn nothing(&self) -> Markup {
        let newest = self.overview.newest_ms.map(crate::query::rfc3339);
        let day = newest.as_deref().and_then(|newest| newest.get(..10));
        html! {
            p.empty {
                "No call and no generation in this period. "
                @if let Some(day) = day {
                    "The newest of the ledger is of " a href=(Link::new(View::Front).with("period", day)) { (day) } "."
                } @else { "The ledger has none yet." }
            }
        }
    }

    fn figures(&self, currencies: &[(&str, &Sums)]) -> Markup {
        let all = |sums: &ByCurrency, count: fn(&Sums) -> u64| {
            sums.values().map(count).fold(0, u64::saturating_add)
        };
        let counted = |title: &str, count: fn(&Sums) -> u64| {
            let change = self.overview.compared.as_ref().and_then(|(now, before)| {
                amount::change(all(now, count).into(), all(before, count).into())
            });
            let total = all(&self.overview.totals, count);
            figure(title, &html! { (amount::count(total)) }, change.map(signed))
        };
        html! {
            @for (currency, sums) in currencies {
                dl.cards { (self.money_figures(currency, sums)) }
            }
            dl.cards {
                (counted("Calls", |sums| sums.calls))
                (counted("Generations", |sums| sums.generations))
                (figure("Sessions open now", &html! { (amount::count(self.open_sessions)) }, None))
            }
            @if let Some(against) = self.span.compared_with(&self.query) {
                p.note { "Changes are " (against) "." }
            } @else {
                p.note { "A change is told once an hour of the period is over." }
            }
        }
    }

    /// Revenue, provider cost and margin, each with its change where both sides are known.
    fn money_figures(&self, currency: &str, sums: &Sums) -> Markup {
        let compared = self.overview.compared.as_ref().map(|(now, before)| {
            let of = |sums: &ByCurrency| sums.get(currency).copied().unwrap_or_default();
            (of(now), of(before))
        });
        let change = |amount: fn(&Sums) -> Decimal| {
            let (now, before) = compared?;
            let (now, before) = (amount(&now), amount(&before));
            match amount::change(now, before) {
                Some(share) => Some(signed(share)),
                None if now == before => None,
                None => {
                    let more = money::difference(now, before);
                    let plus = if more.is_sign_positive() { "+" } else { "" };
                    Some(format!("{plus}{} {currency}", amount::rounded(more, currency)))
                }
            }
        };
        let is_known = compared.is_some_and(|(now, before)| {
            [now, before].iter().all(|sums| sums.cost_known() == CostKnown::All)
        });
        let of_cost = |amount: fn(&Sums) -> Decimal| match compared {
            Some(_) if !is_known => Some("no change told: costs are missing".to_owned()),
            _ => change(amount),
        };
        let known = sums.cost_known();
        let [least, most] = amount::bounds(known);
        let told = |sum, bound| match known.told(sum) {
            Some(sum) => amount::money(sum, currency, bound),
            None => html! { span.bad { "unknown" } },
        };
        let share = known.told(sums.margin()).and_then(|margin| margin.checked_div(sums.revenue()));
        let lost = sums.margin().is_sign_negative();
        let margin = html! { span.bad[lost] { (told(sums.margin(), most)) } };
        html! {
            (figure(&format!("Revenue, {currency}"), &amount::money(sums.revenue(), currency, Bound::Exact), change(Sums::revenue)))
            (figure(&format!("Provider cost, {currency}"), &told(sums.cost(), least), of_cost(Sums::cost)))
            (figure(&format!("Margin, {currency}"), &margin, of_cost(Sums::margin)))
            @if let Some(share) = share {
                (figure("Margin of revenue", &html! { (amount::percent(share, most)) }, None))
            }
        }
    }

    fn course(&self, currency: &str) -> Markup {
        let of = |sums: &ByCurrency| sums.get(currency).copied().unwrap_or_default();
        let steps: Vec<Sums> = self.overview.steps.iter().map(of).collect();
        let used = (0_i64..).zip(&steps).filter(|(_, sums)| **sums != Sums::default());
        html! {
            h2 { "Revenue and provider cost, " (currency) }
            p.note { span.key.revenue {} "revenue " span.key.cost {} "provider cost, as far as it is known" }
            (chart::course(&steps, currency, self.query.from_ms, self.query.step_ms))
            details {
                summary { "The figures of the chart" }
                table role="table" {
                    thead role="rowgroup" { tr role="row" {
                        th role="columnheader" scope="col" { "Begins, UTC" }
                        @for title in ["Revenue", "Provider cost", "Margin"] {
                            th.number role="columnheader" scope="col" { (title) }
                        }
                    } }
                    tbody role="rowgroup" {
                        @for (at, sums) in used {
                            @let known = sums.cost_known();
                            @let [least, most] = amount::bounds(known);
                            tr role="row" {
                                th role="rowheader" scope="row" {
                                    (chart::label(self.query.from_ms + at * self.query.step_ms, self.query.step_ms))
                                }
                                @for (title, sum, bound) in [
                                    ("Revenue", Some(sums.revenue()), Bound::Exact),
                                    ("Provider cost", known.told(sums.cost()), least),
                                    ("Margin", known.told(sums.margin()), most),
                                ] {
                                    td.number role="cell" data-label=(title) {
                                        @if let Some(sum) = sum { (amount::money(sum, currency, bound)) }
                                        @else { "unknown" }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }

    /// The largest shares in one currency, and who loses money.
    fn shares(&self, currency: &str) -> Markup {
        let Overview { customers, tools, models, .. } = &self.overview;
        let usage =
            |by: &str| Link::new(View::Usage).with("by", by).with("period", &*self.span.name);
        let of = |value: Decimal| (value > Decimal::ZERO).then_some(value);
        let losers = customers.first(currency, ENTRIES_MAX, |sums| {
            let lost = sums.cost_known().told(-sums.margin())?;
            (lost > Decimal::ZERO).then_some(lost)
        });
        let list = Shown { currency, link: &|_| usage("customer"), all: usage("customer") };
        let customer = |name: &str| usage("team").with("customer", name);
        let tool = |name: &str| usage("customer").with("tool", name);
        let model = |name: &str| match name.split_once(' ') {
            Some((provider, model)) => {
                usage("customer").with("provider", provider).with("model", model)
            }
            None => usage("model"),
        };
        html! {
            div.columns {
                (list.with(&customer, usage("customer")).top("Customers by revenue", customers, "revenue", |sums| of(sums.revenue())))
                (list.with(&tool, usage("tool")).top("Tools by revenue", tools, "revenue", |sums| of(sums.revenue())))
                (list.with(&model, usage("model")).top("Models by cost", models, "cost", |sums| sums.cost_known().told(sums.cost()).and_then(of)))
                @if !losers.is_empty() {
                    section {
                        h2 { "Losing money, " (currency) }
                        ol.top { @for (name, sums) in &losers { li {
                            span.name { a href=(customer(name)) { bdi { (name) } } }
                            span.number.bad { (amount::money(sums.margin(), currency, amount::bounds(sums.cost_known())[1])) }
                        } } }
                        p.note { a href=(usage("customer").with("sort", "margin")) { "All by margin" } }
                    }
                }
            }
        }
    }

    fn guarded(&self) -> Markup {
        if self.guards.guards.is_empty() && self.alerts.is_empty() {
            return html! {};
        }
        let strict = self.guards.guards.iter().filter(|guard| guard.level != "NONE");
        let strict: Vec<_> = strict.collect();
        let at = |level: &str| strict.iter().filter(|guard| guard.level == level).count();
        let least = if self.guards.more { "at least " } else { "" };
        html! {
            h2 { a href=(Link::new(View::Guards)) { "Guards" } }
            dl.cards {
                @for (level, title) in state::LEVELS { @if level != "NONE" {
                    (figure(title, &html! { (least) (at(level)) }, None))
                } }
                (figure("Within limits", &html! { (least) (self.guards.guards.len() - strict.len()) }, None))
            }
            @if !self.alerts.is_empty() {
                ul.plain { @for alert in &self.alerts { li { (state::alert(alert)) } } }
            }
        }
    }

    fn health(&self) -> Markup {
        let Delivery { missing, states, unwell, all, sources } = &self.delivery;
        let without_cost = self.overview.totals.values().map(Sums::without_cost);
        let without_cost = without_cost.fold(0, u64::saturating_add);
        let warn = |count: u64| html! { span.bad[count > 0] { (amount::count(count)) } };
        let silent = states.count(SourceState::Silent);
        html! {
            h2 { a href=(Link::new(View::Sources)) { "Is anything missing?" } }
            dl.cards {
                (figure("Events missing", &warn(*missing), None))
                (figure("Sources silent", &html! { (warn(silent)) " of " (amount::count(*all as u64)) }, None))
                (figure("Events kept apart", &warn(self.held), None))
                (figure("Generations without a known cost", &warn(without_cost), None))
            }
            @if *unwell > 0 {
                (state::source_table("Sources with gaps, or silent", sources.iter().filter(|source| !source.is_well())).html(None))
                @if *unwell > ENTRIES_MAX { p.note { (unwell - ENTRIES_MAX) " more." } }
            }
        }
    }
}

/// How a list of shares is shown.
struct Shown<'a> {
    currency: &'a str,
    link: &'a dyn Fn(&str) -> Link,
    all: Link,
}

impl<'a> Shown<'a> {
    fn with<'b>(&self, link: &'b dyn Fn(&str) -> Link, all: Link) -> Shown<'b>
    where
        'a: 'b,
    {
        Shown { currency: self.currency, link, all }
    }

    fn top(
        &self,
        title: &str,
        shares: &Shares,
        class: &str,
        value: impl Fn(&Sums) -> Option<Decimal>,
    ) -> Markup {
        let first = shares.first(self.currency, ENTRIES_MAX, &value);
        let most = first.first().and_then(|(_, sums)| value(sums)).unwrap_or_default();
        let Shown { currency, link, all } = self;
        html! {
            @if !first.is_empty() {
                section {
                    h2 { (title) ", " (currency) }
                    ol.top {
                        @for (name, sums) in &first {
                            @let sum = value(sums).unwrap_or_default();
                            @let bound = if class == "cost" { amount::bounds(sums.cost_known())[0] } else { Bound::Exact };
                            li {
                                span.name { a href=(link(name)) { bdi { (super::usage::shown(name)) } } }
                                span.number { (amount::money(sum, currency, bound)) }
                                (chart::bar(sum, most, class))
                            }
                        }
                    }
                    @if shares.count(currency) > first.len() {
                        p.note { a href=(all) { "All " @if shares.is_cut { "of more than " } (amount::count(shares.count(currency) as u64)) } }
                    }
                }
            }
        }
    }
}

fn signed(share: Decimal) -> String {
    let plus = if share.is_sign_positive() && !share.is_zero() { "+" } else { "" };
    format!("{plus}{}", amount::percent(share, Bound::Exact))
}

fn figure(title: &str, value: &Markup, change: Option<String>) -> Markup {
    html! {
        div {
            dt { (title) }
            dd { (value) }
            @if let Some(change) = change { dd.small { (change) } }
        }
    }
}

/// Tokens as two figures.
pub(super) fn tokens(tokens: TokenTotals) -> Markup {
    html! {
        (figure("Tokens in", &html! { (amount::count(tokens.input)) }, None))
        (figure("Tokens out", &html! { (amount::count(tokens.output)) }, None))
    }
}
