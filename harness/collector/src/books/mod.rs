//! The books: corrections of what was counted, periods that are closed, the invoices of them, and
//! what was paid in advance.
//!
//! Nothing that is stored is changed. A correction is an event of the ledger's own, and so is a
//! closed invoice, so that the chain and the roots of the room `proof` cover both. What counts is made
//! of the events and of all their corrections, in whatever order they come (`ledger/corrected.rs`).
//! What is corrected of a period that is closed goes to the next invoice, in lines that name it:
//! the difference between what the period comes to now and all that was billed for it so far.
//!
//! `correct` and `backfill` write corrections; `close` makes a `document` of the lines of `lines`,
//! which `customer` and `operator` print, each for its reader; `top_up` writes what was paid in advance.

mod backfill;
mod calendar;
mod close;
mod correct;
mod customer;
mod document;
mod lines;
mod operator;
mod top_up;

pub use self::backfill::{Backfill, Backfilled};
pub use self::calendar::named_period;
pub use self::close::{Closing, InvoiceState};
pub use self::correct::{Corrected, Outcome};
pub use self::document::{Billing, BillingTotal, PeriodCorrection};
pub use self::lines::BilledLine;
pub use self::operator::OperatorBilling;
pub use self::top_up::{TopUpError, ToppedUp};
