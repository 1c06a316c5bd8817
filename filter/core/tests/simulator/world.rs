//! A model of the host with faults: shared data with its odd rules, a clock that steps, VMs that die between any two
//! host calls, other VMs that run in between, and a collector that is slow, down, forgetful or picky.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::panic::panic_any;
use std::rc::Rc;

use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::host::spill::Spill;
use agent_meter_core::host::{Conflict, Expect, Host};
use agent_meter_core::sink::reply::{HttpReply, Reply};
use rust_decimal::Decimal;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::dice::Dice;

/// When schedules begin.
const BEGINNING_MS: u64 = 1_700_000_000_000;

/// A bug put in on purpose, as the host would see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// None.
    Nothing,
    /// Writes do not check the version, as if the code had passed none.
    VersionsIgnored,
    /// The redo record is not written: a commit is no longer all or nothing.
    RedoSkipped,
    /// The accountant forgets how far it has read.
    CursorsSkipped,
    /// Every second journal page is lost.
    PagesSkipped,
    /// What scopes of guards hold is not written.
    ScopesSkipped,
    /// Workers see the first verdict for ever.
    VerdictsSkipped,
    /// The next accountant does not know which answers were used.
    AnswersSkipped,
}

/// What a VM that dies unwinds with.
pub(crate) struct Died;

/// Everything outside the VMs.
pub(crate) struct World {
    pub(crate) dice: Dice,
    pub(crate) clock_ms: u64,
    pub(crate) sabotage: Sabotage,
    /// Whether faults happen; off while the dust settles.
    pub(crate) has_faults: bool,
    /// Whether the collector has faults of more kinds, the clock goes back further, and configurations
    /// come as in Envoy. The seeds that once failed are of other schedules, so that they stay what they
    /// were.
    pub(crate) is_harsh: bool,
    /// The time, by the clock, for which the collector is down.
    outage: Range<u64>,
    data: HashMap<String, (Vec<u8>, u32)>,
    /// Every value of the statuses of scopes, by the keys under which they were written.
    pub(crate) statuses: Vec<(String, Vec<u8>)>,
    last_version: u32,
    /// Host calls until the running VM dies.
    pub(crate) fuse: Option<u64>,
    pub(crate) host_calls: u64,
    /// Events that the collector has stored, by source and id.
    pub(crate) ledger: BTreeMap<(String, String), String>,
    /// Events that were written to the log.
    pub(crate) spilled: BTreeMap<(String, String), String>,
    /// Facts that were written to the log.
    pub(crate) spilled_facts: Vec<Value>,
    /// What must never happen.
    pub(crate) violations: Vec<String>,
    pub(crate) counters: HashMap<Counter, u64>,
    pub(crate) gauges: HashMap<Gauge, u64>,
    /// Requests that have arrived, for the record of how many there were.
    pub(crate) batches: u64,
    /// What the collector has told of the other Envoys' cost, the latest last.
    pub(crate) others: Vec<Decimal>,
}

impl World {
    pub(crate) fn new(seed: u64, sabotage: Sabotage) -> Self {
        Self {
            dice: Dice(seed),
            clock_ms: BEGINNING_MS,
            sabotage,
            has_faults: true,
            is_harsh: seed % 5 == 2,
            outage: outage(seed),
            data: HashMap::new(),
            statuses: Vec::new(),
            last_version: 0,
            fuse: None,
            host_calls: 0,
            ledger: BTreeMap::new(),
            spilled: BTreeMap::new(),
            spilled_facts: Vec::new(),
            violations: Vec::new(),
            counters: HashMap::new(),
            gauges: HashMap::new(),
            batches: 0,
            others: vec![Decimal::ZERO],
        }
    }

    /// True in `percent` of 100 cases.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.dice.below(100) < percent
    }

    fn key(text: &str) -> (String, String) {
        let event: Value = serde_json::from_str(text).unwrap();
        let part = |name: &str| event[name].as_str().unwrap().to_owned();
        (part("source"), part("id"))
    }

    fn keep(
        violations: &mut Vec<String>,
        store: &mut BTreeMap<(String, String), String>,
        text: &str,
    ) {
        let key = Self::key(text);
        if let Some(stored) = store.get(&key)
            && stored != text
        {
            violations.push(format!("{key:?} was sent with other bytes: {stored} and {text}"));
        }
        store.insert(key, text.to_owned());
    }

    /// A world that holds nothing but this value.
    pub(crate) fn with_value(key: &str, value: &[u8]) -> Self {
        let mut world = Self::new(0, Sabotage::Nothing);
        world.data.insert(key.to_owned(), (value.to_vec(), 1));
        world
    }

    /// The keys of shared data.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &String> {
        self.data.keys()
    }

    fn is_out(&self) -> bool {
        self.has_faults && self.is_harsh && self.outage.contains(&self.clock_ms)
    }

    /// A batch arrives at the collector, or does not; gives its reply.
    pub(crate) fn collect(&mut self, body: &[u8]) -> Reply {
        self.batches += 1;
        let roll = if self.has_faults { self.dice.below(100) } else { 99 };
        // Down, or the request got lost.
        if roll < 15 || self.is_out() {
            return answered(503, b"upstream connect error");
        }
        let events: Vec<Box<RawValue>> = serde_json::from_slice(body).unwrap();
        if events.is_empty() || events.len() > 100 {
            self.violations.push(format!("a batch of {} events", events.len()));
        }
        // A proxy answers for the collector, or a login page.
        if roll == 15 && self.is_harsh {
            return answered(200, br#"{"accepted": "#);
        }
        if roll == 16 {
            return answered(200, b"<html>Log in</html>");
        }
        // Too large for a picky one.
        if roll < 20 && events.len() > 1 {
            return answered(413, b"");
        }
        // Only the first half is taken, and the answer says how many these are.
        if roll == 38 && self.is_harsh {
            let half = &events[..events.len() / 2];
            for event in half {
                Self::keep(&mut self.violations, &mut self.ledger, event.get());
            }
            let answer = serde_json::json!({"accepted": half.len(), "rejected": []});
            return answered(200, answer.to_string().as_bytes());
        }
        let mut refused = Vec::new();
        for event in &events {
            if roll < 23 && self.chance(10) {
                refused.push(Self::key(event.get()).1);
            } else {
                Self::keep(&mut self.violations, &mut self.ledger, event.get());
            }
        }
        match roll {
            // Stored, but the answer got lost or wrong.
            23..30 => answered(504, b""),
            30..33 => answered(200, br#"{"accepted":0,"duplicates":0,"rejected":[]}"#),
            // Stored, and the connection is cut.
            36..38 if self.is_harsh => answered(0, b""),
            33..36 => Reply::parse(&HttpReply {
                status: 429,
                retry_after: Some(b"2"),
                ..HttpReply::default()
            }),
            _ => {
                let rejected: Vec<Value> = refused
                    .iter()
                    .map(|id| serde_json::json!({"id": id, "reason": "picky"}))
                    .collect();
                let verdicts = self.verdicts(&events);
                let accepted = events.len() - refused.len();
                let answer = serde_json::json!({"accepted": accepted, "rejected": rejected,
                    "verdicts": verdicts});
                answered(200, answer.to_string().as_bytes())
            }
        }
    }

    /// What the collector tells of the scopes that a batch is about: the others spend too. Some answers are late, and
    /// some are of another period.
    fn verdicts(&mut self, events: &[Box<RawValue>]) -> Vec<Value> {
        let events = events.iter().map(|event| serde_json::from_str(event.get()).unwrap());
        let totals = events.filter(|event: &Value| event["data"]["event_type"] == "guard_totals");
        let totals: Vec<Value> = totals.collect();
        let mut verdicts = Vec::new();
        for event in totals {
            let data = &event["data"];
            let latest = self.others[self.others.len() - 1];
            let spent = if self.has_faults { self.dice.below(3) } else { 0 };
            self.others.push(latest + Decimal::new(i64::try_from(spent).unwrap(), 5));
            let at = if self.chance(30) {
                self.dice.below(self.others.len() as u64) as usize
            } else {
                self.others.len() - 1
            };
            let is_of_another = self.has_faults && self.chance(10);
            let period = &data["period_started_at"];
            let long_ago = Value::from("2001-01-01T00:00:00Z");
            verdicts.push(serde_json::json!({
                "guard_id": data["guard_id"], "scope_key": data["scope_key"],
                "period_started_at": if is_of_another { &long_ago } else { period },
                "total_provider_cost": if is_of_another { "1000".to_owned() } else { self.others[at].to_string() },
                "total_revenue": "0", "calls": 0, "tokens": 0,
            }));
        }
        verdicts
    }

    pub(crate) fn store_spilled(&mut self, kind: &str, body: &str) {
        if kind == "event" {
            Self::keep(&mut self.violations, &mut self.spilled, body);
        } else {
            self.spilled_facts.push(serde_json::from_str(body).unwrap());
        }
    }
}

/// When the collector is down in a harsh schedule: up to 20 s, or half an hour, in which the clock
/// may step. The seed's own dice decide about all else.
fn outage(seed: u64) -> Range<u64> {
    let mut dice = Dice(seed.wrapping_add(1 << 32));
    let start = BEGINNING_MS + dice.below(20_000);
    let length_ms = if dice.below(2) == 0 { 20_000 } else { 1_800_000 };
    start..start + dice.below(length_ms)
}

fn answered(status: u16, body: &[u8]) -> Reply {
    Reply::parse(&HttpReply { status, body, ..HttpReply::default() })
}

/// What happens between two host calls of one VM.
pub(crate) type Between = dyn Fn();

/// The host as one VM sees it.
pub(crate) struct SimHost {
    pub(crate) world: Rc<RefCell<World>>,
    pub(crate) between: Rc<Between>,
}

impl SimHost {
    /// A host in which nothing happens between two calls.
    pub(crate) fn quiet(world: &Rc<RefCell<World>>) -> Self {
        Self { world: Rc::clone(world), between: Rc::new(|| {}) }
    }

    fn step(&self) {
        {
            let mut world = self.world.borrow_mut();
            world.host_calls += 1;
            match world.fuse {
                Some(0) => {
                    world.fuse = None;
                    drop(world);
                    panic_any(Died);
                }
                Some(left) => world.fuse = Some(left - 1),
                None => {}
            }
        }
        (self.between)();
    }
}

impl Host for SimHost {
    fn property(&mut self, _path: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.step();
        self.world.borrow().data.get(key).cloned()
    }

    fn set(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
        self.step();
        let mut world = self.world.borrow_mut();
        let name = key.rsplit('.').next().unwrap_or_default();
        let is = |prefix: char| {
            name.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
        };
        match world.sabotage {
            Sabotage::RedoSkipped if is('r') => return Ok(()),
            Sabotage::CursorsSkipped if is('c') => return Ok(()),
            Sabotage::ScopesSkipped if is('k') => return Ok(()),
            Sabotage::AnswersSkipped if is('a') => return Ok(()),
            Sabotage::VerdictsSkipped if is('v') && world.data.contains_key(key) => return Ok(()),
            Sabotage::PagesSkipped
                if key.contains(".j") && name.parse::<u64>().is_ok_and(|slot| slot % 2 == 1) =>
            {
                return Ok(());
            }
            _ => {}
        }
        let expect = if world.sabotage == Sabotage::VersionsIgnored { Expect::Any } else { expect };
        // Envoy inserts a key that does not exist whatever version is given.
        let is_met = match (world.data.get(key), expect) {
            (None, _) | (_, Expect::Any) => true,
            (Some(_), Expect::Absent) => false,
            (Some((_, version)), Expect::Version(expected)) => *version == expected,
        };
        if !is_met {
            return Err(Conflict);
        }
        if is('v') {
            world.statuses.push((key.to_owned(), value.to_vec()));
        }
        world.last_version += 1;
        let version = world.last_version;
        world.data.insert(key.to_owned(), (value.to_vec(), version));
        Ok(())
    }

    fn spill(&mut self, spill: &Spill<'_>) {
        self.step();
        self.world.borrow_mut().store_spilled(spill.kind, spill.text);
    }

    fn warn(&mut self, _line: &str) {}

    fn count(&mut self, counter: Counter, by: u64) {
        *self.world.borrow_mut().counters.entry(counter).or_default() += by;
    }

    fn gauge(&mut self, gauge: Gauge, value: u64) {
        self.world.borrow_mut().gauges.insert(gauge, value);
    }
}
