//! Tests the books: corrections in any order, closed periods, invoices that stay as they are, and
//! what was paid in advance.

mod balances;
mod closing;
mod documents;
#[path = "../events/mod.rs"]
mod events;
#[path = "../ledgers/mod.rs"]
mod ledgers;
mod orders;
#[path = "../random/mod.rs"]
mod random;
mod refusals;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use agent_meter_collector::books::{Billing, Closing, Outcome, named_period};
use agent_meter_collector::invoice::Invoice;
use agent_meter_collector::{Clock, Ledger, Period};
use serde_json::{Value, json};

use events::SOURCE;
use ledgers::new_ledger;

const BATCH: &str = "application/cloudevents-batch+json";

/// 2026-07-02T12:00:00Z, in milliseconds since 1970.
const NOW_MS: i64 = 1_782_993_600_000;
const DAY_MS: i64 = 86_400_000;

/// A ledger, and its clock.
struct Books {
    ledger: Ledger,
    now_ms: Arc<AtomicI64>,
}

impl Books {
    fn new() -> Books {
        Books::open(&new_ledger())
    }

    fn open(url: &str) -> Books {
        let now_ms = Arc::new(AtomicI64::new(NOW_MS));
        let clock = now_ms.clone();
        let clock = Clock::new(move || clock.load(Ordering::Relaxed));
        let ledger = Ledger::open_at(url, clock);
        Books { ledger: ledger.expect("a ledger"), now_ms }
    }

    fn set_time(&self, ms: i64) {
        self.now_ms.store(ms, Ordering::Relaxed);
    }

    /// Stores events as a filter sends them. They must be accepted, or be there already.
    fn store(&self, events: &[Value]) {
        for events in events.chunks(1000) {
            let body = serde_json::to_vec(events).expect("JSON");
            let receipt = self.ledger.insert_batch(&body, BATCH).expect("a batch");
            assert!(receipt.rejected.is_empty(), "{:?}", receipt.rejected);
        }
    }

    /// Writes corrections, and waits until they are in force.
    fn correct(&self, corrections: &[Value]) -> Vec<Outcome> {
        let corrected = self.ledger.correct(corrections).expect("corrections");
        while self.ledger.follow_corrections().expect("a ledger") {}
        corrected.into_iter().map(|corrected| corrected.outcome).collect()
    }

    /// Why corrections are refused, with all causes.
    fn refusal(&self, corrections: &[Value]) -> String {
        format!("{:#}", self.ledger.correct(corrections).expect_err("a refusal"))
    }

    fn revenue(&self, customer: Option<&str>) -> String {
        let invoice = Invoice::for_customer(&self.ledger, customer, Period::default());
        let totals = invoice.expect("an invoice").totals;
        totals.first().map_or("0".to_owned(), |total| total.sums.revenue.to_string())
    }

    fn close(&self, name: &str) -> Vec<Billing> {
        self.ledger.close(&closing(name)).expect("a closed period")
    }

    /// The whole ledger must be as its events and corrections say.
    fn verify(&self) {
        let found = self.ledger.verify(None).expect("a ledger");
        assert_eq!(found.faults, 0, "{:?}", found.listed);
    }
}

fn closing(name: &str) -> Closing {
    Closing {
        period: named_period(name, "UTC").expect(name),
        time_zone: "UTC".to_owned(),
        closed_by: "jane".to_owned(),
        prefix: "INV-".to_owned(),
    }
}

/// A correction with this id; its other members are given.
fn correction(id: &str, members: Value) -> Value {
    let mut correction = json!({
        "correction_id": id,
        "made_at": "2026-07-02T12:00:00Z",
        "made_by": "jane",
        "reason": "as agreed",
    });
    events::merge(&mut correction, members);
    correction
}

fn void(id: &str, sequence: u64) -> Value {
    let target = format!("{sequence:020}");
    correction(id, json!({"kind": "void", "target_source": SOURCE, "target_id": target}))
}

fn amend(id: &str, sequence: u64, set: &Value) -> Value {
    let target = format!("{sequence:020}");
    let members =
        json!({"kind": "amend", "target_source": SOURCE, "target_id": target, "set": set});
    correction(id, members)
}

fn revert(id: &str, correction_id: &str) -> Value {
    correction(id, json!({"kind": "revert", "correction": correction_id}))
}

/// At this time, RFC 3339.
fn at(mut event: Value, time: &str) -> Value {
    event["time"] = time.into();
    event
}

/// Of this customer.
fn of(mut event: Value, customer: &str) -> Value {
    event["subject"] = customer.into();
    event["data"]["customer_id"] = customer.into();
    event
}
