//! Generations that were asked for and that only a later response tells: the client polls for it,
//! maybe days later. Those that were told are forgotten.

use serde::{Deserialize, Serialize};

use crate::accountant::linked::Linked;
use crate::base::time::Timestamp;
use crate::domain::ids::Link;
use crate::shared_data::shares::Holder;

/// A generation that is awaited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Awaited {
    /// What the response that tells it carries.
    pub link: Link,
    /// The customer who asked for it.
    pub holder: Holder,
    /// When its request was answered.
    pub at: Timestamp,
}

impl Linked for Awaited {
    fn link(&self) -> Link {
        self.link
    }

    fn holder(&self) -> Holder {
        self.holder
    }

    fn at(&self) -> Timestamp {
        self.at
    }
}
