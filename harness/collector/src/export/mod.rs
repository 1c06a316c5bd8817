//! Writes what the ledger has in formats that others read.

pub(crate) mod focus;
