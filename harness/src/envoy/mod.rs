//! Real Envoy: finds a binary, renders a bootstrap, runs the process, reads its log.

mod bootstrap;
mod find;
mod log;
mod process;
mod route;

pub use bootstrap::{Bootstrap, Endpoint};
pub use find::{Program, VERSION, find};
pub use log::Failure;
pub use process::{Counters, Envoy, Launch, Succession, validate};
pub use route::Route;
