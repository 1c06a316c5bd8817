//! The token counts of a generation, and their sums: one table, from which the reader of events,
//! the ledger's columns, reports and invoices are made.

use serde::{Deserialize, Serialize};

use crate::event::members::Members;

/// The table: a line for each kind that the ledger has a column for, with the members of `tokens`
/// in events that add up to it. A new line also needs a new `SCHEMA_VERSION` in `ledger/schema.rs`.
macro_rules! token_kinds {
    ($use:ident) => {
        $use! {
            /// Tokens that the model read, from a cache or not.
            input of ["input"],
            /// Tokens that the model generated.
            output of ["output"],
            /// Of `output`: reasoning.
            reasoning of ["reasoning"],
            /// Of `input`: read from a cache.
            cache_read of ["cache_read"],
            /// Of `input`: written to a cache, for any time.
            cache_write of ["cache_write_5m", "cache_write_1h"],
        }
    };
}

pub(crate) use token_kinds;

macro_rules! token_counts {
    ($($(#[$doc:meta])* $kind:ident of $members:tt,)*) => {
        /// The token counts of one generation; `None` is unknown, which is not zero.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Tokens {
            $($(#[$doc])* pub $kind: Option<i64>,)*
        }

        impl Tokens {
            /// The counts that are known; 0 for the others.
            pub fn known(&self) -> TokenTotals {
                TokenTotals { $($kind: self.$kind.unwrap_or(0).unsigned_abs(),)* }
            }

            /// Reads the counts of an event; an error begins with the path of the member.
            pub(crate) fn read(tokens: &Members<'_>) -> Result<Tokens, String> {
                for kind in tokens.object.keys() {
                    tokens.count(kind)?;
                }
                Ok(Tokens { $($kind: sum(tokens, &$members)?,)* })
            }
        }

        /// Tokens by kind, as far as they are known; all but `input` and `output` are part of these
        /// two.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct TokenTotals {
            $($(#[$doc])* pub $kind: u64,)*
        }

        impl TokenTotals {
            /// The names of the kinds, which are those of the ledger's columns.
            pub(crate) const KINDS: &[&str] = &[$(stringify!($kind)),*];

            /// Makes totals of a count for each kind.
            pub fn from_counts(mut count: impl FnMut(&'static str) -> u64) -> TokenTotals {
                TokenTotals { $($kind: count(stringify!($kind)),)* }
            }

            /// Makes totals of a count for each kind, as far as each can be read.
            pub(crate) fn try_from_counts<E>(
                mut count: impl FnMut(&'static str) -> Result<u64, E>,
            ) -> Result<TokenTotals, E> {
                Ok(TokenTotals { $($kind: count(stringify!($kind))?,)* })
            }

            /// Each kind with its count.
            pub(crate) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($kind), self.$kind)),*].into_iter()
            }

            /// Adds the counts of `other`; a sum that does not fit stays at the most that does.
            pub fn add(&mut self, other: TokenTotals) {
                $(self.$kind = self.$kind.saturating_add(other.$kind);)*
            }
        }
    };
}

token_kinds!(token_counts);

impl Tokens {
    /// True if neither the input nor the output is known.
    pub(crate) fn is_unknown(&self) -> bool {
        self.input.is_none() && self.output.is_none()
    }
}

/// The sum of the members that are there; `None` if none is.
fn sum(tokens: &Members<'_>, members: &[&str]) -> Result<Option<i64>, String> {
    let mut sum = None;
    for member in members.iter().filter(|member| tokens.has(member)) {
        let total = sum.unwrap_or(0_i64).checked_add(tokens.count(member)?);
        sum = Some(total.ok_or_else(|| tokens.wrong(member, "countable"))?);
    }
    Ok(sum)
}
