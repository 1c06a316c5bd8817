//! The name of a session, and why it ends.

use serde::{Deserialize, Serialize};

use crate::domain::identity::Identity;
use crate::domain::ids::ConfigId;

/// The session that a call belongs to: the product, the identity, and a hash of the session key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionRef {
    /// The product's id in the configuration.
    pub product_id: String,
    /// The configuration by which it is priced.
    #[serde(default)]
    pub config: ConfigId,
    /// On whose behalf the client opened the session.
    pub identity: Identity,
    /// See [`crate::admission::session`].
    #[serde(with = "serde_bytes")]
    pub key: [u8; 16],
}

/// Why a session ends before its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, Hash)]
pub enum SessionEnd {
    /// The client sent a `DELETE`, and the server answered it with 2xx.
    ClientDelete,
    /// The server answered a request of the session with 404.
    SessionGone,
    /// The client sent a request to the product's `close_path`.
    Closed,
}
