//! Who may write, who may read, and under which name a request may reach the collector.
//! It decides on the parts of a request; `routes` takes these from HTTP.

pub(crate) mod hosts;
pub(crate) mod secret;

pub(crate) use hosts::Hosts;
pub use secret::{Secrets, SharedSecret};

/// Who sends events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Writer {
    /// Whoever has the ledger's file: it may write for every source, and takes none.
    Operator,
    /// Whoever reaches a collector without secrets.
    Anyone,
    /// Who knows the secret of this name.
    Named(String),
}

impl Writer {
    /// The name under which a source is bound to this writer.
    pub(crate) fn name(&self) -> Option<&str> {
        match self {
            Writer::Named(name) => Some(name),
            Writer::Operator | Writer::Anyone => None,
        }
    }

    /// Whether it may write for a source that the writer of this name wrote first.
    pub(crate) fn may_write_for(&self, owner: Option<&str>) -> bool {
        match (self, owner) {
            (Writer::Operator, _) | (_, None) => true,
            (Writer::Named(name), Some(owner)) => name == owner,
            (Writer::Anyone, Some(_)) => false,
        }
    }
}
