//! Names a session.

use serde::{Deserialize, Serialize};

use crate::domain::identity::Identity;

/// The session that a call belongs to: the product and a hash of what names the session.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SessionRef {
    /// The product's id in the configuration.
    pub product_id: String,
    /// Who the session is for.
    pub identity: Identity,
    /// See [`crate::admission::session`].
    pub key: [u8; 16],
}

/// Why a session ends before its timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SessionEnd {
    /// A `DELETE` that the server answered 2xx.
    ClientDelete,
    /// The server answered 404 to a request of the session.
    SessionGone,
    /// A request to the product's `close_path`.
    Closed,
}
