//! Reports over a ledger, each a method of [`crate::Ledger`] with a query to ask and a type to answer.
//! They change nothing.

pub(crate) mod events;
pub(crate) mod gaps;
pub(crate) mod guards;
pub(crate) mod reconcile;
pub(crate) mod sessions;
pub(crate) mod usage;
