//! The guard of margins and budgets: totals by scope and period, the level that they are at, and what requests may do.
//!
//! The accountant adds up ([`table`]), finds the level ([`level`]) and publishes a verdict for each scope that is not
//! at ease ([`verdict`]); workers read verdicts and rule on requests ([`ruling`]), without waiting for anything.

pub mod holds;
pub mod level;
pub mod mark;
pub mod refusal;
pub mod repeats;
pub mod ruling;
pub mod scope;
pub mod stop;
pub mod table;
pub mod verdict;
