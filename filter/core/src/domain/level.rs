//! The levels of a guard, and the kinds of its scopes.

use serde::{Deserialize, Serialize};

/// How far a scope has gone; the names are those of the billing domain.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Level {
    /// The scope is within limits.
    #[default]
    None,
    /// Somebody should know.
    Alert,
    /// The application should take a cheaper path, and the filter may slow it down.
    Throttle,
    /// The filter may refuse further requests.
    Block,
}

impl Level {
    /// Every level, from the mildest to the strictest.
    pub const ALL: [Self; 4] = [Self::None, Self::Alert, Self::Throttle, Self::Block];

    /// The name in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Alert => "L1_ALERT",
            Self::Throttle => "L2_THROTTLE",
            Self::Block => "L3_BLOCK",
        }
    }

    /// The short name in headers.
    pub const fn short_name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Alert => "L1",
            Self::Throttle => "L2",
            Self::Block => "L3",
        }
    }
}

/// What kind of thing a scope stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// A customer.
    #[default]
    Customer,
    /// A session.
    Session,
    /// An agent, or app, of a customer.
    Agent,
    /// A tool, for each customer that uses it.
    Tool,
    /// A product, for all customers together.
    Product,
    /// A team of a customer.
    Team,
    /// A user of a customer.
    User,
    /// An API key of a customer, by its keyed hash.
    ApiKey,
}

impl ScopeKind {
    /// The name in the configuration and in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Session => "session",
            Self::Agent => "agent",
            Self::Tool => "tool",
            Self::Product => "product",
            Self::Team => "team",
            Self::User => "user",
            Self::ApiKey => "api_key",
        }
    }

    /// Whether it goes by the customer alone, or by something that means nothing without one. The
    /// other kinds cover callers of whom no customer is known too.
    pub const fn is_of_customer(self) -> bool {
        matches!(self, Self::Customer | Self::Session | Self::Agent | Self::Tool)
    }

    /// Whether it is a level of the identity below the customer that may be missing in a request.
    pub const fn is_named_level(self) -> bool {
        matches!(self, Self::Team | Self::User | Self::ApiKey)
    }
}
