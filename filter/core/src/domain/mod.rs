//! The nouns of metering: identity, session, usage and outcome.

pub mod call;
pub mod correlation;
pub mod identity;
pub mod ids;
pub mod level;
pub(crate) mod names;
pub mod payment;
pub mod period;
pub mod price_factors;
pub mod scope_totals;
pub mod seller;
pub mod session;
pub mod status;
pub mod units;
pub mod usage;
