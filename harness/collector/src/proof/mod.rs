//! Shows that the ledger is what it was: signed roots of the digests of all events, proofs of single
//! events for customers, and a check that finds what was changed.
//!
//! To the next maintainer. The digests are made when an event is stored (`ledger/digest.rs`). A root
//! covers the events since the last one; its statement names the hash of the statement before, so
//! that none can be left out. Whoever keeps the statements elsewhere need not trust the ledger.

mod key;
mod merkle;
mod prove;
mod seal;
mod verify;

pub use self::key::{PublicKey, SigningKey};
pub use self::prove::Proof;
pub use self::seal::Root;
pub use self::verify::Verification;
