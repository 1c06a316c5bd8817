//! Who a request is for.

use serde::{Deserialize, Serialize};

use crate::base::hash::hash;

/// How a caller got its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Credential {
    /// For itself (RFC 6749, section 4.4).
    ClientCredentials,
    /// On behalf of a user, or in a way that its claims do not tell.
    BearerToken,
}

/// Who a request is for. `anonymous` stands where the request did not tell.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The billed customer.
    pub customer: String,
    /// The customer's team.
    pub team: String,
    /// The agent, or app, that called.
    pub agent: String,
    /// A keyed hash of the API key that the request was made with.
    pub api_key: Option<String>,
    /// How the caller got its token, where the product asks.
    pub credential: Option<Credential>,
}

/// What stands for a level of the identity that the request did not tell.
pub const ANONYMOUS: &str = "anonymous";

/// Names an identity within the products that share sessions.
pub fn identity_key(group: &str, identity: &Identity) -> [u8; 16] {
    hash(&[
        group.as_bytes(),
        identity.customer.as_bytes(),
        identity.team.as_bytes(),
        identity.agent.as_bytes(),
        identity.api_key.as_deref().unwrap_or_default().as_bytes(),
    ])
}
