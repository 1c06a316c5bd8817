//! The guard of margins and budgets: totals by scope and period, the level that they are at, and what requests may do.
//!
//! The accountant adds up ([`table`]), finds the level ([`level`]) and publishes a scope_status for each scope that is not
//! at ease ([`scope_status`]); workers read statuses and rule on requests ([`decision`]), without waiting for anything.

pub mod decision;
pub mod level;
pub mod loop_window;
pub mod mark;
pub mod refusal;
pub mod reservations;
pub mod scope;
pub mod scope_state;
pub mod scope_status;
pub mod stop;
pub mod table;
