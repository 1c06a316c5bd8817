//! The guard of margins and budgets: totals by scope and period, the level of each scope, and the
//! decision on each request.
//!
//! The accountant adds up totals ([`table`]), finds the level ([`level`]) and publishes a scope
//! status for each scope that is not within limits or whose guard reserves ([`scope_status`]).
//! Workers read the statuses and decide on requests ([`decision`]), without waiting for anything.

pub mod decision;
pub mod level;
pub(crate) mod loop_window;
pub mod mark;
pub mod refusal;
#[cfg(feature = "schema")]
pub mod refusal_list;
pub(crate) mod reservations;
pub mod scope;
pub mod scope_state;
pub mod scope_status;
pub mod stop;
pub mod table;
