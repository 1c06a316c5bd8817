//! The page for people: what customers used and owe, where money is lost, what happens now, and
//! whether anything is missing. Each view is made on the server, has a URL of its own, can be read
//! without a script, and its table can be had as CSV and JSON.
//!
//! `period` and `link` read and write URLs; `amount`, `table` and `chart` are what views are made
//! of; `front`, `usage`, `sessions`, `session`, `event` and `state` are the views; `layout` puts one
//! into a document. What is unknown or known in part is decided in `money/known.rs`, not here.
//!
//! To the next maintainer. Everything from outside goes through maud, which escapes it. A view reads
//! hours where it can, and lists no more than a bound, and says how many more there are.

mod amount;
mod chart;
mod event;
mod front;
mod layout;
mod link;
mod period;
mod session;
mod sessions;
mod state;
mod table;
mod usage;

use crate::ledger::Ledger;
use crate::query::BadQuery;
use crate::report::guards::Guards;

/// The style sheet, the script and the icon: the only files beside the document.
pub(crate) const STYLE: &str = include_str!("style.css");
pub(crate) const SCRIPT: &str = include_str!("live.js");
pub(crate) const ICON: &str = include_str!("icon.svg");

/// What a view answers.
#[derive(Debug)]
pub(crate) enum Answer {
    Html(String),
    /// Under this name.
    Csv(String, String),
    Json(String),
    /// There is no such session or event: a document that says so.
    NotFound(String),
}

/// Why a view does not answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A wrong parameter.
    Query(BadQuery),
    /// The ledger's failure.
    Ledger(anyhow::Error),
}

impl From<BadQuery> for Failure {
    fn from(error: BadQuery) -> Failure {
        Failure::Query(error)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::Ledger(error)
    }
}

/// The parameters of a URL.
type Pairs = Vec<(String, String)>;

/// Which view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Front,
    Usage,
    Sessions,
    Session,
    Event,
    Guards,
    Sources,
}

impl View {
    pub(crate) const ALL: [View; 7] = [
        View::Front,
        View::Usage,
        View::Sessions,
        View::Session,
        View::Event,
        View::Guards,
        View::Sources,
    ];

    /// What it shows.
    pub(crate) fn about(self) -> &'static str {
        match self {
            View::Front => "The page: what a period comes to, and whether anything is missing.",
            View::Usage => "What was used; as CSV or JSON too.",
            View::Sessions => "Sessions; as CSV or JSON too.",
            View::Session => "One session with its calls and generations.",
            View::Event => "One event.",
            View::Guards => "Scopes of guards; as CSV or JSON too.",
            View::Sources => {
                "Sources: whether they live, and what is missing of them; as CSV or JSON too."
            }
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            View::Front => "/",
            View::Usage => "/usage",
            View::Sessions => "/sessions",
            View::Session => "/session",
            View::Event => "/event",
            View::Guards => "/guards",
            View::Sources => "/sources",
        }
    }
}

/// Answers a view. `guards` lists at most so many scopes, with the contracts of their customers.
pub(crate) fn answer(
    view: View,
    ledger: &Ledger,
    pairs: Pairs,
    guards: impl Fn(i64) -> anyhow::Result<Guards>,
) -> Result<Answer, Failure> {
    // An input of a form that is left empty sets nothing.
    let pairs = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    match view {
        View::Front => front::answer(ledger, pairs, guards),
        View::Usage => usage::answer(ledger, pairs),
        View::Sessions => sessions::answer(ledger, pairs),
        View::Session => session::answer(ledger, pairs),
        View::Event => event::answer(ledger, pairs),
        View::Guards => state::guards(ledger, pairs, guards),
        View::Sources => state::sources(ledger, pairs),
    }
}

/// The document for a wrong parameter or a failure.
pub(crate) fn refusal(title: &str, error: &str) -> String {
    layout::message(title, error)
}
