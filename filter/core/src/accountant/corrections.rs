//! Generations that were billed before everything about them was told: by an estimate, by what came
//! of a response that was cut, or as unknown. When a later response tells more, its event takes the
//! place of theirs.

use serde::{Deserialize, Serialize};

use crate::accountant::attribution::Cause;
use crate::accountant::linked::{LinkTable, Linked};
use crate::base::limits::PROVISIONAL_MAX;
use crate::base::time::Timestamp;
use crate::domain::ids::Link;
use crate::fact::generation::{GenerationEnded, Told};
use crate::pricing::charge::Charged;
use crate::session::Session;
use crate::shared_data::shares::{Holder, holder_of};

/// The session in which a generation was billed, which may have been closed since.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BilledIn {
    pub id: [u8; 16],
    pub started_at: Timestamp,
    pub currency: String,
}

impl BilledIn {
    pub(crate) fn new(session: &Session) -> Self {
        let Session { id, started_at, currency, .. } = session;
        Self { id: *id, started_at: *started_at, currency: currency.clone() }
    }
}

/// A generation that was billed, and may be billed otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Provisional {
    /// What the truth will carry.
    pub link: Link,
    /// What was billed.
    pub generation: Box<GenerationEnded>,
    /// Who bears the cost.
    pub cause: Cause,
    /// What was charged for its own run and each further one, in order.
    pub charges: Vec<Charged>,
    pub session: BilledIn,
    pub billed_at: Timestamp,
}

impl Linked for Provisional {
    fn link(&self) -> Link {
        self.link
    }

    fn holder(&self) -> Holder {
        holder_of(&self.cause.session.identity.customer)
    }

    fn at(&self) -> Timestamp {
        self.billed_at
    }
}

impl LinkTable<Provisional> {
    /// How far what was billed under this link was told.
    pub(crate) fn told(&self, link: &Link) -> Option<Told> {
        self.get(link).map(|billed| billed.generation.told())
    }

    /// Remembers one. Returns whether that forgot one, which may be this.
    pub(crate) fn remember(&mut self, billed: Provisional) -> bool {
        // A response that stopped is rarely continued: it takes no room from what is not whole.
        let is_stopped = billed.generation.told() == Told::Stopped;
        if is_stopped && self.len() >= PROVISIONAL_MAX / 2 {
            return true;
        }
        self.insert(billed, PROVISIONAL_MAX)
    }
}
