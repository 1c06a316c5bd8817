//! Reports over a ledger: each is a method of [`crate::Ledger`], takes a query and returns a type
//! that serializes to the JSON of its route. They change nothing.

pub(crate) mod balances;
pub(crate) mod events;
pub(crate) mod gaps;
pub(crate) mod guards;
pub(crate) mod overview;
pub(crate) mod reconcile;
pub(crate) mod sessions;
pub(crate) mod timeline;
pub(crate) mod usage;
