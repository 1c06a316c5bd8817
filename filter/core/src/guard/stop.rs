//! Ends a response that is a stream of events, lines or messages: what is whole passes, then the last events that say why, then
//! nothing more. A moment later the stream is closed, so that the server stops working on what nobody gets.
//!
//! To the next maintainer: from Wasm Envoy lets a response's end not be told, only its stream be reset. So clients get
//! the moment to leave by themselves, as those do that read an error; to the others the response is cut.

use crate::base::limits::{STOP_GRACE_MS, STOP_LOOK_INTERVAL_MS};
use crate::base::time::{Millis, Timestamp};
use crate::guard::refusal::Refusal;
use crate::wire::boundary::{Boundaries, Unit};

/// One response that may be ended.
#[derive(Debug)]
pub struct StreamStop {
    boundaries: Boundaries,
    looks_at: Timestamp,
    /// A guard that only observes has been told of.
    pub is_observed: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Running,
    /// To be ended behind the next whole event.
    Due(Box<Refusal>),
    Stopped {
        closes_at: Timestamp,
    },
    Closed,
}

/// What passes of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutPoint {
    /// All of it.
    Nothing,
    /// These bytes: the stream ends with them.
    Here(Vec<u8>),
    /// Nothing: the stream has ended.
    Everything,
}

impl StreamStop {
    /// A response of this kind has begun.
    pub fn new(unit: Unit) -> Self {
        Self {
            boundaries: Boundaries::new(unit),
            looks_at: Timestamp::default(),
            is_observed: false,
            state: State::Running,
        }
    }

    /// Whether guards are to be asked now; not at every chunk, as some streams have one for each token.
    pub fn looks(&mut self, now: Timestamp) -> bool {
        // A clock that was set back must not keep a stream running for long.
        let is_ahead = self.looks_at.saturating_since(now) > Millis(STOP_LOOK_INTERVAL_MS);
        let is_due = matches!(self.state, State::Running) && (now >= self.looks_at || is_ahead);
        if is_due {
            self.looks_at = now.plus(Millis(STOP_LOOK_INTERVAL_MS));
        }
        is_due
    }

    /// A guard wants the stream to end.
    pub fn end(&mut self, refusal: Refusal) {
        if matches!(self.state, State::Running) {
            self.state = State::Due(Box::new(refusal));
        }
    }

    /// The next bytes to pass; `is_end` with the last of the response. `last` gives the last events, or `None` if the
    /// response has told all that it was asked for.
    pub fn pass(
        &mut self,
        chunk: &[u8],
        is_end: bool,
        now: Timestamp,
        last: impl FnOnce(&Refusal) -> Option<Vec<u8>>,
    ) -> CutPoint {
        if let State::Stopped { .. } | State::Closed = self.state {
            return CutPoint::Everything;
        }
        let begins_at_boundary = self.boundaries.is_at_boundary().then_some(0);
        let end = self.boundaries.feed(chunk).or(begins_at_boundary);
        let (State::Due(refusal), Some(end), false) = (&self.state, end, is_end) else {
            return CutPoint::Nothing;
        };
        let Some(last) = last(refusal) else {
            self.state = State::Running;
            return CutPoint::Nothing;
        };
        let mut passed = chunk.get(..end).unwrap_or_default().to_vec();
        passed.extend(last);
        self.state = State::Stopped { closes_at: now.plus(Millis(STOP_GRACE_MS)) };
        CutPoint::Here(passed)
    }

    /// Whether the stream is to be closed now, which is told once.
    pub fn closes(&mut self, now: Timestamp) -> bool {
        let is_due = matches!(&self.state, State::Stopped { closes_at } if *closes_at <= now);
        if is_due {
            self.state = State::Closed;
        }
        is_due
    }
}
