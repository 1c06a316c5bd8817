//! The collector: takes the filter's events over HTTP into a ledger, in SQLite or PostgreSQL, and answers,
//! bills and alerts from it. It does not know Envoy or the rig that runs one.
//!
//! The rooms, in the order of the data. A room imports only from rooms above it.
//!
//! | room | what it does |
//! |---|---|
//! | `clock` | tells the time |
//! | `hex` | writes and reads hexadecimal digits |
//! | `http_client` | sends over HTTP with TLS, for the rooms that send |
//! | `csv_file` | writes CSV |
//! | `settings` | reads YAML or JSON in which no name stands twice |
//! | `money` | adds, reads and writes exact decimal amounts |
//! | `sql` | runs statements on SQLite and PostgreSQL alike |
//! | `query` | reads parameters, periods and pages, and builds the SQL conditions for them |
//! | `access` | decides who may write and read, and under which host |
//! | `event` | reads one event as `filter/EVENTS.md` describes it; shares no type with the filter |
//! | `contracts` | reads the operator's file of contracted revenue |
//! | `ledger` | stores each event once, and keeps the tables that are derived from events |
//! | `report` | answers from the ledger: usage, balances, sessions, events, guards, gaps, reconciliation |
//! | `invoice` | adds up what each customer owes, and what the customer's generations cost |
//! | `books` | corrects what was counted, closes periods, numbers their invoices, and writes top-ups |
//! | `export` | writes what customers owe as FOCUS, for FinOps |
//! | `proof` | signs what the events come to, proves single ones, and finds what was changed |
//! | `prices` | makes a rate card of a public price list; needs no ledger |
//! | `webhook` | posts each change of a guard's level to those who asked for it |
//! | `handover` | hands events over to billing systems, archives and telemetry |
//! | `recover` | brings events from an Envoy log into a ledger or to a collector |
//! | `access_log` | compares an access log of Envoy with a ledger |
//! | `bill` | compares the bill of a provider of models with a ledger |
//! | `page` | shows people what the reports say, as HTML, CSV and JSON |
//! | `routes` | the HTTP interface: decodes a request, asks a room above, encodes the answer |
//! | `server` | starts and stops all of it |

mod access;
pub mod access_log;
pub mod bill;
pub mod books;
mod clock;
mod contracts;
mod csv_file;
mod event;
mod export;
mod gzip;
mod handover;
mod hex;
mod http_client;
pub mod invoice;
mod ledger;
mod money;
mod page;
pub mod prices;
pub mod proof;
mod query;
pub mod recover;
mod report;
mod routes;
mod server;
mod settings;
mod sql;
mod webhook;

pub use access::{Secrets, SharedSecret};
pub use clock::Clock;
pub use contracts::{Contract, Contracts};
pub use event::billed::Billed;
pub use event::bounds::{Beyond, Reason};
pub use event::call::{Call, CallKind};
pub use event::correction::{Change, Correction, Rerate, Target};
pub use event::error::IngestError;
pub use event::generation::{Generation, Rated};
pub use event::guard::{GuardTotals, LevelChange, Scope};
pub use event::heartbeat::Heartbeat;
pub use event::identity::{ANONYMOUS, Identity};
pub use event::session::{Closing, SessionChange};
pub use event::tokens::{TokenTotals, Tokens};
pub use event::top_up::{Account, TopUp};
pub use event::totals::{ModelTotals, SessionState, ToolTotals, Totals};
pub use event::units::Units;
pub use event::{Body, Event};
pub use export::focus::{Exported, Month, export_focus};
pub use handover::{CLICKHOUSE_SCHEMA, Pace, Sinks};
pub use ledger::Ledger;
pub use ledger::decide::{Decision, QuarantinePage, Quarantined};
pub use ledger::fleet::FleetTotals;
pub use ledger::handover::{SetAsideEvent, SinkState};
pub use ledger::receipt::{Receipt, Rejected};
pub use money::known::CostKnown;
pub use query::{BadQuery, Page, Period};
pub use report::balances::{BalanceState, Balances, BalancesQuery, TopUpState};
pub use report::events::{EventsPage, EventsQuery};
pub use report::gaps::{Gaps, Range, SourceGaps, SourceState, States, Told};
pub use report::guards::{Alerts, GuardState, Guards, GuardsQuery};
pub use report::reconcile::{Mismatch, Reconciliation};
pub use report::sessions::{Session, Sessions, SessionsQuery};
pub use report::usage::{Dimension, Usage, UsageQuery, UsageRow};
pub use routes::{HttpRoute, http_routes};
pub use server::{Collector, Extras, Timeouts};
pub use settings::yaml_or_json;
pub use webhook::{Retry, Secret, Webhook, Webhooks};
