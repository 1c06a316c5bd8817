//! What the routes share.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::FromRef;
use tokio::sync::{Mutex as AsyncMutex, Notify, Semaphore, watch};

use crate::access::{Hosts, Secrets};
use crate::contracts::{Contract, Contracts};
use crate::ledger::Ledger;
use crate::routes::refusal::Refusals;

/// KiB of all bodies that are on their way or in work: a flood must not take the machine's memory.
const BODIES_KIB_MAX: usize = 64 * 1024;
/// Pages that may listen for changes at once: each holds a connection, and those who send events
/// need some too.
const LISTENERS_MAX: usize = 64;

/// The two ends of the connection that a request came by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
}

/// Who may come in.
#[derive(Debug, Default)]
pub(crate) struct Door {
    /// The names under which the collector may be reached.
    pub(crate) hosts: Hosts,
    /// Those who may write; with none, everybody may.
    pub(crate) writers: Secrets,
    /// Those who may read; with none, whoever is on this machine, or everybody if everybody may
    /// write too.
    pub(crate) readers: Secrets,
    /// Those who may write top-ups; with none, nobody may over HTTP.
    pub(crate) payers: Secrets,
}

/// When the ledger was last looked at, and what was wrong with it.
pub(super) type Finding = (Instant, Option<String>);

/// The state that the routes share.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) ledger: Ledger,
    pub(crate) contracts: Option<Arc<Contracts>>,
    pub(crate) webhooks: Arc<[String]>,
    /// Wakes up the tasks that post to webhooks.
    pub(crate) queued: Option<Arc<Notify>>,
    /// How long a body may take to come.
    pub(crate) body_timeout: Duration,
    pub(super) door: Arc<Door>,
    pub(super) refusals: Arc<Refusals>,
    /// The memory for bodies, in KiB.
    pub(super) bodies: Arc<Semaphore>,
    /// The places of pages that listen for changes.
    pub(super) listeners: Arc<Semaphore>,
    /// True once the collector stops.
    pub(super) stopped: watch::Receiver<bool>,
    pub(super) health: Arc<AsyncMutex<Option<Finding>>>,
    /// When the latest sessions were reconciled, and how many of them do not agree.
    pub(super) mismatches: Arc<Mutex<Option<(Instant, usize)>>>,
}

impl FromRef<Service> for Ledger {
    fn from_ref(service: &Service) -> Ledger {
        service.ledger.clone()
    }
}

impl Service {
    pub(crate) fn new(ledger: Ledger, door: Door, stopped: watch::Receiver<bool>) -> Service {
        Service {
            ledger,
            contracts: None,
            webhooks: Arc::default(),
            queued: None,
            body_timeout: Duration::MAX,
            door: Arc::new(door),
            refusals: Arc::default(),
            bodies: Arc::new(Semaphore::new(BODIES_KIB_MAX)),
            listeners: Arc::new(Semaphore::new(LISTENERS_MAX)),
            stopped,
            health: Arc::default(),
            mismatches: Arc::default(),
        }
    }

    /// The contract of a customer; a guard of a product has no customer.
    pub(super) fn contract(&self, customer: &str) -> Option<Contract> {
        self.contracts.as_ref()?.of(customer)
    }
}
