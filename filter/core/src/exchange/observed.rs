//! What an exchange observes, what it asks of the guards, and what it wants of a body.

use crate::domain::session::SessionRef;
use crate::fact::Fact;
use crate::host::counter::Counter;
use crate::wire::json_rpc::Id;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The response came to its end.
    Complete,
    /// The client left, or the stream was reset, before the response's end.
    Aborted,
}

/// What an exchange has observed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// For the accountant, in the order in which they came about.
    pub facts: Vec<Fact>,
    /// For the stats.
    pub counts: Vec<Counter>,
}

impl Observed {
    pub(super) fn add(&mut self, further: Self) {
        self.facts.extend(further.facts);
        self.counts.extend(further.counts);
    }
}

/// What a request asks of the guards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyRequest {
    /// The session it belongs to.
    pub session: SessionRef,
    /// The ids and tools of the calls that it makes.
    pub calls: Vec<(String, String)>,
    /// The ids of these as JSON-RPC requests; `None` if its client does not speak that.
    pub ids: Option<Vec<Id>>,
    /// Whether its body says which calls it makes.
    pub is_in_body: bool,
    /// Whether its body may name the session.
    pub may_body_name: bool,
}

/// What the meter wants of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BodyInterest {
    /// Nothing.
    #[default]
    None,
    /// Its size: the bytes need not be copied.
    Size,
    /// Its bytes.
    Bytes,
}

impl BodyInterest {
    pub(super) fn bytes_if(is_of_interest: bool) -> Self {
        if is_of_interest { Self::Bytes } else { Self::None }
    }
}
