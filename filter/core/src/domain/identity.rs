//! On whose behalf a client sends a request.

use serde::{Deserialize, Serialize};

use crate::base::hash::hash;

/// How a caller obtained its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Credential {
    /// The caller asked for itself (RFC 6749, section 4.4).
    ClientCredentials,
    /// The caller asked on behalf of a user, or the token's claims do not say how.
    BearerToken,
}

/// On whose behalf a client sends a request. A level that the request does not contain is
/// `anonymous`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The billed customer.
    pub customer: String,
    /// The customer's team.
    pub team: String,
    /// The user for whom the agent, or app, sent the request.
    pub user: Option<String>,
    /// The agent, or app, that sent the request.
    pub agent: String,
    /// A keyed hash of the API key in the request.
    pub api_key: Option<String>,
    /// How the caller obtained its token, if the product asks for this.
    pub credential: Option<Credential>,
}

/// Stands for a level of the identity that the request does not contain.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// The key of an identity among the products of a group, which share sessions.
pub(crate) fn identity_key(group: &str, identity: &Identity) -> [u8; 16] {
    hash(&[
        group.as_bytes(),
        identity.customer.as_bytes(),
        identity.team.as_bytes(),
        identity.agent.as_bytes(),
        identity.api_key.as_deref().unwrap_or_default().as_bytes(),
        identity.user.as_deref().unwrap_or_default().as_bytes(),
    ])
}
