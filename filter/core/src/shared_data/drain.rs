//! An operator's order to drain, and how far the accountant is with it.
//!
//! To the next maintainer: the keys, after the plugin's prefix, are `D` for the order and `E` for the
//! progress. An order holds until its deadline, or until another takes its place.

use serde::{Deserialize, Serialize};

use crate::base::encoded::encoded;
use crate::base::time::Timestamp;
use crate::host::{Expect, Host};

/// The order to drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrainOrder {
    /// Tells it from others.
    pub(crate) id: u64,
    /// When it was given.
    pub(crate) at: Timestamp,
    /// Until when it holds.
    pub(crate) deadline: Timestamp,
    /// True if every session is to be closed.
    pub(crate) closes_sessions: bool,
    /// True if requests whose heads name no session are to be refused.
    pub(crate) stops_intake: bool,
}

/// An order that the accountant carries out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drain {
    pub(crate) order: DrainOrder,
    /// Once all journals have been read, from a time after the order on, and the sessions are closed
    /// if the order says so: the first batch that has nothing of that.
    pub(crate) until_batch: Option<u64>,
}

/// How far the accountant is with an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DrainProgress {
    /// The order's id.
    pub(crate) id: u64,
    /// Sessions that are not closed.
    pub(crate) open_sessions: u64,
    /// Events that the collector has not acknowledged.
    pub(crate) events_waiting: u64,
    /// True once the collector has acknowledged everything that had ended before the order, and the
    /// ends of the sessions if the order closes them.
    pub(crate) is_done: bool,
}

fn order_key(prefix: &str) -> String {
    format!("{prefix}D")
}

fn progress_key(prefix: &str) -> String {
    format!("{prefix}E")
}

impl DrainOrder {
    /// The order that holds now, if there is one.
    pub(crate) fn read(host: &mut impl Host, prefix: &str, now: Timestamp) -> Option<Self> {
        let (bytes, _) = host.get(&order_key(prefix))?;
        let order: Self = postcard::from_bytes(&bytes).ok()?;
        (now <= order.deadline).then_some(order)
    }

    /// Gives the order.
    pub(crate) fn give(&self, host: &mut impl Host, prefix: &str) {
        // With `Expect::Any` the host refuses nothing.
        let _ = host.set(&order_key(prefix), &encoded(self), Expect::Any);
    }
}

impl DrainProgress {
    /// How far the accountant is with the order of this id; `None` if it has not seen it.
    pub(crate) fn read(host: &mut impl Host, prefix: &str, id: u64) -> Option<Self> {
        let (bytes, _) = host.get(&progress_key(prefix))?;
        let progress: Self = postcard::from_bytes(&bytes).ok()?;
        (progress.id == id).then_some(progress)
    }

    /// Tells the progress.
    pub(crate) fn tell(&self, host: &mut impl Host, prefix: &str) {
        // With `Expect::Any` the host refuses nothing.
        let _ = host.set(&progress_key(prefix), &encoded(self), Expect::Any);
    }
}
