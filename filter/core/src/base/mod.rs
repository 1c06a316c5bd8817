//! What everything else stands on: time, text, money, hashes, bounds, and why a configuration is refused.

pub mod hash;
pub mod invalid;
pub mod limits;
pub mod money;
pub mod pattern;
pub mod text;
pub mod time;
