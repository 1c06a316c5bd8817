//! Ends a response that is a stream of events, lines or messages: the filter passes what is
//! complete, then the last events, which say why, then nothing more. A moment later it closes the
//! stream, so that the server stops working on what nobody gets.
//!
//! To the next maintainer: Envoy does not let a Wasm filter end a response, only reset its stream.
//! So the filter gives clients a moment to leave by themselves, as clients do that read an error;
//! for the others the reset cuts the response off.

use crate::base::limits::{STOP_GRACE_MS, STOP_LOOK_INTERVAL_MS};
use crate::base::time::{Millis, Timestamp};
use crate::guard::refusal::Refusal;
use crate::wire::boundary::{Boundaries, Unit};

/// One response that a guard may end.
#[derive(Debug)]
pub(crate) struct StreamStop {
    boundaries: Boundaries,
    looks_at: Timestamp,
    /// True if an observe-only guard was already counted for this stream.
    pub(crate) is_observed: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Running,
    /// To end after the next complete event.
    Due(Box<Refusal>),
    Stopped {
        closes_at: Timestamp,
    },
    Closed,
}

/// How much of a chunk passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CutPoint {
    /// The whole chunk passes.
    Nothing,
    /// Only these bytes pass, and the stream ends with them.
    Here(Vec<u8>),
    /// Nothing passes: the stream has ended.
    Everything,
}

impl StreamStop {
    /// A response in these units begins.
    pub(crate) fn new(unit: Unit) -> Self {
        Self {
            boundaries: Boundaries::new(unit),
            looks_at: Timestamp::default(),
            is_observed: false,
            state: State::Running,
        }
    }

    /// Whether to evaluate guards now; not at every chunk, as some streams have one for each token.
    pub(crate) fn looks(&mut self, now: Timestamp) -> bool {
        // A clock that was set back must not keep a stream running for long.
        let is_ahead = self.looks_at.saturating_since(now) > Millis(STOP_LOOK_INTERVAL_MS);
        let is_due = matches!(self.state, State::Running) && (now >= self.looks_at || is_ahead);
        if is_due {
            self.looks_at = now.plus(Millis(STOP_LOOK_INTERVAL_MS));
        }
        is_due
    }

    /// Ends the stream after the next complete event, with a guard's refusal.
    pub(crate) fn end(&mut self, refusal: Refusal) {
        if matches!(self.state, State::Running) {
            self.state = State::Due(Box::new(refusal));
        }
    }

    /// Cuts the next chunk; `is_end` is true with the last chunk of the response. `last` returns
    /// the last events, or `None` if the response already contains all that the client asked for.
    pub(crate) fn pass(
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

    /// Whether to close the stream now. True only once.
    pub(crate) fn closes(&mut self, now: Timestamp) -> bool {
        let is_due = matches!(&self.state, State::Stopped { closes_at } if *closes_at <= now);
        if is_due {
            self.state = State::Closed;
        }
        is_due
    }
}
