//! Writes what the ledger has in formats that others read.

mod csv;
pub(crate) mod focus;
