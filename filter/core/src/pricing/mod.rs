//! What tokens cost: rate cards, the rate of a generation, and its exact cost.
//!
//! A card's rates are decimal text per million tokens; a cost is the exact product, never rounded.
//! Tokens without a rate are [`Unpriced`] and never cost zero: a rate of `"0"` is a price. Other
//! modules count the tokens and the units beside them: see [`crate::domain::usage`] and
//! [`crate::domain::units`].

pub mod card_age;
pub mod charge;
pub mod price_list;
pub mod rate_card;

mod circumstances;
mod cost;
mod instant;
mod model_name;
mod multipliers;
mod rate;
#[cfg(feature = "schema")]
mod schema;
mod unit_rates;
mod unpriced;
mod when;

pub use self::circumstances::Circumstances;
pub use self::cost::{Consumed, Line, Priced, UnitLine, cost};
pub use self::rate::Rate;
pub use self::rate_card::RateCard;
pub use self::unpriced::Unpriced;
