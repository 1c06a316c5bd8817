//! The document around a view: head, navigation, the period, and the part that a script keeps up to
//! date.

use maud::{DOCTYPE, Markup, html};

use crate::page::View;
use crate::page::amount;
use crate::page::link::Link;
use crate::page::period::Span;
use crate::query::rfc3339;

/// A view before it is a document.
pub(super) struct Document<'a> {
    pub(super) title: &'a str,
    /// The view itself, as it was asked for.
    pub(super) link: &'a Link,
    /// `None` where the view has no period.
    pub(super) span: Option<&'a Span>,
    /// What led here: a name and a link each.
    pub(super) trail: Vec<(String, Link)>,
    /// What a script leaves alone, such as forms.
    pub(super) controls: Markup,
    /// What changes with the ledger.
    pub(super) live: Markup,
    pub(super) now_ms: i64,
}

impl Document<'_> {
    pub(super) fn html(&self) -> String {
        let period = self.link.pairs().iter().find(|(name, _)| *name == "period");
        let period = period.map(|(_, value)| value.as_str());
        let read_at = rfc3339(self.now_ms);
        let read_at = format!("As of {} UTC", amount::time(&read_at));
        let body = html! {
            (navigation(Some(self.link), period, &read_at))
            main id="main" {
                @if !self.trail.is_empty() {
                    nav aria-label="What led here" { ol.trail {
                        @for (name, link) in &self.trail { li { a href=(link) { bdi { (name) } } } }
                    } }
                }
                h1 { (self.title) }
                @if let Some(span) = self.span { (periods(self.link, span)) }
                (self.controls)
                div id="live" { (self.live) }
            }
        };
        document(self.title, &body, true)
    }
}

/// A document that only says something.
pub(super) fn message(title: &str, text: &str) -> String {
    let body = html! {
        (navigation(None, None, ""))
        main id="main" { h1 { (title) } p { (text) } }
    };
    document(title, &body, false)
}

fn document(title: &str, body: &Markup, is_live: bool) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) " · agent-meter" }
                link rel="icon" href="/page/icon.svg" type="image/svg+xml";
                link rel="stylesheet" href="/page/style.css";
                @if is_live { script src="/page/live.js" defer {} }
            }
            body { (body) }
        }
    };
    page.into_string()
}

fn navigation(current: Option<&Link>, period: Option<&str>, state: &str) -> Markup {
    let by = |by: &str| Link::new(View::Usage).with("by", by);
    let views = [
        ("Overview", Link::new(View::Front), true),
        ("Customers", by("customer"), true),
        ("Tools", by("tool"), true),
        ("Models", by("model"), true),
        ("Sessions", Link::new(View::Sessions), false),
        ("Guards", Link::new(View::Guards), false),
        ("Sources", Link::new(View::Sources), false),
    ];
    let is_current = |link: &Link| {
        let of = |link: &Link| {
            let by = link.pairs().iter().find(|(name, _)| *name == "by");
            (link.view(), by.map(|(_, by)| by.clone()))
        };
        current.is_some_and(|current| of(current) == of(link))
    };
    html! {
        a.skip href="#main" { "Skip to the content" }
        header.top {
            strong { "agent-meter" }
            nav aria-label="Views" { ul {
                @for (name, link, has_period) in views {
                    @let current = is_current(&link).then_some("page");
                    @let link = link.maybe("period", period.filter(|_| has_period));
                    li { a href=(link) aria-current=[current] { (name) } }
                }
            } }
            p id="state" role="status" { (state) }
        }
    }
}

/// The period, its neighbours, and the way to others.
fn periods(link: &Link, span: &Span) -> Markup {
    let link = link.clone().without("from").without("to");
    let to = |period: &str| link.clone().with("period", period);
    let [before, after] = span.neighbours();
    let current = |name: &str| (span.name == name).then_some("true");
    let day = |ms: i64| rfc3339(ms).get(..10).unwrap_or_default().to_owned();
    html! {
        div.bar {
            div.tabs role="group" aria-label="Period" {
                @for (name, title) in [("hour", "This hour"), ("day", "Today"), ("month", "This month")] {
                    a href=(to(name)) aria-current=[current(name)] { (title) }
                }
                a href=(to(&before)) title="The period before" aria-label="The period before" { "←" }
                a href=(to(&after)) title="The period after" aria-label="The period after" { "→" }
            }
            strong { (span.title) }
            form method="get" action=(link.view().path()) {
                @for (name, value) in link.pairs().iter().filter(|(name, _)| *name != "period") {
                    input type="hidden" name=(name) value=(value);
                }
                label { "From " input type="date" name="from" value=(day(span.from_ms)) required; }
                label { "to " input type="date" name="to" value=(day(span.to_ms - 1)) required; }
                button { "Show" }
            }
        }
    }
}

/// A search box for the rows of a view.
pub(super) fn search(link: &Link, label: &str, query: Option<&str>) -> Markup {
    html! {
        form method="get" action=(link.view().path()) role="search" {
            @for (name, value) in link.pairs() {
                @if *name != "q" && *name != "after" { input type="hidden" name=(name) value=(value); }
            }
            label { (label) " " input type="search" name="q" value=[query] maxlength="256"; }
            button { "Search" }
        }
    }
}
