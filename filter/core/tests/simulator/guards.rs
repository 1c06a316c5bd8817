//! Guards in schedules: what they are, and whether what they hold, tell and do is what was used.
//!
//! Half of the schedules have guards; half of these take room, and half are of a fleet. Costs are so small, and contracts so poor, that most of
//! them come to the end of what they may spend.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use agent_meter_core::base::hash::hex;
use agent_meter_core::config::{Config, Guard};
use agent_meter_core::domain::level::{Level, ScopeKind};
use agent_meter_core::domain::scope_totals::{ScopeKey, ScopeTotals};
use agent_meter_core::guard::scope::ScopeName;
use agent_meter_core::guard::scope_state::ScopeState;
use agent_meter_core::guard::scope_status::{bucket, counters, scope_status};
use agent_meter_core::meter::LAYOUT;
use agent_meter_core::shared_data::commit::read_slot;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::verdict::{Events, money};
use crate::world::{SimHost, World};

/// What keys begin with.
fn prefix() -> String {
    format!("{LAYOUT}.sim.")
}
/// The only customer.
pub(crate) const CUSTOMER: &str = match core::str::from_utf8(&[b'c'; 250]) {
    Ok(text) => text,
    Err(_) => "",
};

/// The guards of one schedule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guards {
    seed: u64,
}

impl Guards {
    /// Those of the schedule of a seed. The seeds that once failed have none, so that they stay what they were.
    pub(crate) fn of(seed: u64) -> Option<Self> {
        matches!(seed % 4, 0 | 3).then_some(Self { seed })
    }

    fn takes_room(self) -> bool {
        self.seed % 4 == 3
    }

    fn is_of_fleet(self) -> bool {
        self.seed % 8 < 4
    }

    /// Adds them to a configuration; every second one doubles what the customer pays.
    pub(crate) fn add_to(self, config: &mut Value, number: u32) {
        let revenue = self.revenue(number).to_string();
        config["contracts"] = json!({ "customers": { CUSTOMER: { "revenue": revenue } } });
        let mut margin = json!({
            "id": "margin", "revenue": "contracted", "fleet": self.is_of_fleet(),
            "actions": {
                "level_1": { "threshold": "50%" },
                "level_2": { "threshold": "20%", "throttle_rate": "5req/sec" },
                "level_3": { "threshold": "10%", "action": "block_request" },
            },
        });
        if self.takes_room() {
            margin["reserve"] = json!({ "estimate": "0.0001", "last_cost": true });
        }
        let alerts = json!({ "level_1": { "threshold": "50%" }, "level_3": { "threshold": "0%" } });
        let scope = ["product", "team", "api_key"][usize::try_from(self.seed % 3).unwrap()];
        config["guards"] = json!([
            margin,
            { "id": "calls", "scope": scope, "period": "hour", "budget": { "calls": 20 },
                "actions": alerts },
            { "id": "tokens", "scope": "session", "period": "session", "mode": "observe",
                "budget": { "tokens": 300 }, "actions": alerts },
        ]);
    }

    fn revenue(self, number: u32) -> Decimal {
        let base = Decimal::new(i64::try_from(1 + self.seed / 4 % 12).unwrap(), 4);
        if number.is_multiple_of(2) { base } else { base * Decimal::TWO }
    }

    /// The level at which the customer is, as every VM can read it.
    pub(crate) fn level(world: &Rc<RefCell<World>>, config: &Config) -> Level {
        let Some(scope) = customer(config) else { return Level::None };
        let found = scope_status(&mut SimHost::quiet(world), &prefix(), &scope);
        found.map(|status| status.level).unwrap_or_default()
    }

    /// A request was let pass or refused: `before` its head came the customer was at this level, and
    /// `since` then the statuses from this number on were written.
    pub(crate) fn check_ruling(
        self,
        world: &Rc<RefCell<World>>,
        config: &Config,
        (before, since): (Level, usize),
        is_refused: bool,
    ) {
        let mut levels = vec![before, Self::level(world, config)];
        let Some(scope) = customer(config) else { return };
        let key = format!("{}v{}", prefix(), bucket(&scope));
        let meanwhile = world.borrow().statuses[since..].to_vec();
        for (_, value) in meanwhile.iter().filter(|(written, _)| *written == key) {
            let past = Rc::new(RefCell::new(World::with_value(&key, value)));
            levels.push(Self::level(&past, config));
        }
        let (least, most) = (levels.iter().min().unwrap(), levels.iter().max().unwrap());
        let violation = match is_refused {
            false if *least == Level::Block => "a request passed at level 3",
            true if *most < Level::Throttle && !self.takes_room() => {
                "a request was refused below level 2"
            }
            _ => return,
        };
        world.borrow_mut().violations.push(format!("{violation}: {levels:?}"));
    }

    /// While the dust settles: room is taken by calls that wait for their answer, and by at most so many `lost` ones, of
    /// whose end nobody could tell.
    pub(crate) fn check_holds(world: &Rc<RefCell<World>>, lost: usize) {
        let mut host = SimHost::quiet(world);
        // The room of a call that has ended is given back three readings later.
        let is_open =
            |key: &String| read_slot(&mut host, key).is_some_and(|hold| hold.last() == Some(&0));
        let holds = slots(world, 'l').into_iter().filter(is_open).count();
        let joins = full(world, &mut host, 'q').len();
        if holds > joins + lost {
            let violation = format!("{holds} calls hold room, {joins} wait, {lost} were lost");
            world.borrow_mut().violations.push(violation);
        }
    }

    /// Checks that scopes hold what events say, that levels change only with an event, and that no room stays taken.
    /// `number` is that of the last configuration. Gives how many levels have changed.
    pub(crate) fn check(
        self,
        world: &Rc<RefCell<World>>,
        config: &Config,
        number: u32,
        events: &Events,
        has_settled: bool,
    ) -> Result<u64, String> {
        let mut host = SimHost::quiet(world);
        let scopes = scopes(world, &mut host)?;
        let (told, changes) = told_levels(events)?;
        check_reasons(events, number)?;
        // Whoever has used something has a scope.
        let is_used = events.values().any(|event| added(&event["data"]) != ScopeTotals::default());
        if is_used && !scopes.iter().any(|scope| scope.guard_id == "margin") {
            return Err("the customer's scope is missing".to_owned());
        }
        for scope in &scopes {
            let (id, key) = (scope.guard_id.as_str(), hex(&scope.key));
            if id == "tokens" {
                return Err(format!("a scope of a closed session is left: {scope:?}"));
            }
            check_sums(scope, events)?;
            if !world.borrow().others.contains(&scope.others.provider_cost) {
                return Err(format!("nobody told of such others: {scope:?}"));
            }
            let told = told.get(&key).map_or("NONE", String::as_str);
            if told != scope.level.name() {
                return Err(format!("{id} is at {:?}, but told was {told}", scope.level));
            }
            let published = scope_status(&mut host, &prefix(), &scope.key);
            let published = published.map(|verdict| verdict.level).unwrap_or_default();
            if published != scope.level {
                return Err(format!("{id} is at {:?}, but workers see {published:?}", scope.level));
            }
            if has_settled {
                let guard = config.guard(id).ok_or("a guard is gone")?;
                let now = world.borrow().clock_ms;
                let period = (scope.period_started_at.0, scope.period_ends_at.map(|end| end.0));
                if now < period.0 || period.1.is_none_or(|end| end <= now) {
                    return Err(format!("it is {now}, but the period is {period:?}"));
                }
                self.check_level(scope, guard, number)?;
                self.check_room(scope, &mut host)?;
                if self.is_of_fleet() && id == "margin" {
                    check_told(scope, events)?;
                }
            }
        }
        if has_settled && let Some(key) = full(world, &mut host, 'l').first() {
            return Err(format!("room is still taken: {key}"));
        }
        Ok(changes)
    }

    /// The level is that of the totals, as they are now.
    fn check_level(self, scope: &ScopeState, guard: &Guard, number: u32) -> Result<(), String> {
        let (whole, used) = match guard.budget.and_then(|budget| budget.calls) {
            Some(limit) => (Decimal::from(limit), Decimal::from(scope.own.calls)),
            None => (self.revenue(number), scope.own.provider_cost + scope.others.provider_cost),
        };
        let left = (whole - used) / whole;
        let strictest = |slack: Decimal| {
            let is_at = |level: &&Level| {
                let threshold = guard.threshold(**level, CUSTOMER, "");
                threshold.is_some_and(|threshold| left <= threshold + slack)
            };
            Level::ALL.iter().rev().find(is_at).copied().unwrap_or_default()
        };
        let (least, most) = (strictest(Decimal::ZERO), strictest(guard.hysteresis.0));
        if (least..=most).contains(&scope.level) {
            return Ok(());
        }
        Err(format!("{used} of {whole} is gone: expected {least:?} to {most:?}, found {scope:?}"))
    }

    /// Everything that was ever taken has become cost or was given back.
    fn check_room(self, scope: &ScopeState, host: &mut SimHost) -> Result<(), String> {
        let counters = counters(host, &prefix(), bucket(&scope.key));
        let counter = counters.into_iter().find(|counter| counter.key == scope.key);
        let taken = counter.map(|counter| counter.reserved).unwrap_or_default();
        if taken == scope.settled {
            return Ok(());
        }
        Err(format!("{taken} of room was taken, {} given back: {scope:?}", scope.settled))
    }
}

/// The scope of the only customer's margin, if there is one.
fn customer(config: &Config) -> Option<ScopeKey> {
    let margin = config.guard("margin")?;
    let customer = CUSTOMER.to_owned();
    let kind = ScopeKind::Customer;
    let none = || None;
    let name = ScopeName {
        kind,
        customer,
        agent: none(),
        tool: none(),
        product_id: none(),
        session: None,
        identity: none(),
    };
    Some(name.key(margin))
}

fn slots(world: &Rc<RefCell<World>>, kind: char) -> Vec<String> {
    let is_slot = |key: &&String| {
        let slot = key.strip_prefix(&prefix()).and_then(|name| name.strip_prefix(kind));
        slot.is_some_and(|slot| slot.parse::<u32>().is_ok())
    };
    world.borrow().keys().filter(is_slot).cloned().collect()
}

fn scopes(world: &Rc<RefCell<World>>, host: &mut SimHost) -> Result<Vec<ScopeState>, String> {
    let mut scopes = Vec::new();
    let mut keys: Vec<ScopeKey> = Vec::new();
    for slot in slots(world, 'k') {
        let Some(bytes) = read_slot(host, &slot) else { continue };
        let scope: ScopeState =
            postcard::from_bytes(&bytes).map_err(|error| format!("{slot}: {error}"))?;
        if keys.contains(&scope.key) {
            return Err(format!("a scope is there twice: {scope:?}"));
        }
        keys.push(scope.key);
        scopes.push(scope);
    }
    Ok(scopes)
}

/// The slots of a kind that are in use.
fn full(world: &Rc<RefCell<World>>, host: &mut SimHost, kind: char) -> Vec<String> {
    slots(world, kind).into_iter().filter(|key| read_slot(host, key).is_some()).collect()
}

/// The level of each scope that was told last, and how many changes were told. Sessions come again under their name,
/// with new scopes.
fn told_levels(events: &Events) -> Result<(BTreeMap<String, String>, u64), String> {
    let mut levels: BTreeMap<String, String> = BTreeMap::new();
    let mut changes = 0;
    for event in events.values() {
        let data = &event["data"];
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        if !text("event_type").ends_with("_level_changed") {
            continue;
        }
        changes += 1;
        let (from, to) = (text("previous_level"), text("level"));
        let last = levels.insert(text("scope_key"), to.clone());
        let is_session = text("scope") == "session";
        if from == to || (!is_session && from != last.as_deref().unwrap_or("NONE")) {
            return Err(format!("a level that was {last:?} changes so: {data}"));
        }
    }
    Ok((levels, changes))
}

/// A level changes for a reason that there was: a VM that takes over from one that died is no new configuration. What
/// was spent is spent, so the customer's level falls for no other reason.
fn check_reasons(events: &Events, number: u32) -> Result<(), String> {
    for event in events.values() {
        let data = &event["data"];
        let by_configuration = data["reason"] == "configuration";
        let rank = |name: &str| Level::ALL.iter().position(|level| data[name] == level.name());
        let falls = rank("level") < rank("previous_level");
        let is_margin = data["event_type"] == "margin_level_changed";
        if (by_configuration && number == 0) || (is_margin && falls && !by_configuration) {
            return Err(format!("a level changed for no reason of {number} reloads: {data}"));
        }
    }
    Ok(())
}

/// What a scope has added up is what the events of its period say. A period that has ended is over with a tick, so the
/// events of one that began while the schedule ran are some of the last.
fn check_sums(scope: &ScopeState, events: &Events) -> Result<(), String> {
    let mut sums = ScopeTotals::default();
    let has_all = scope.guard_id == "margin";
    let mut is_found = !has_all && sums == scope.own;
    let of_scope = |data: &Value| {
        let product = scope.name.product_id.as_deref();
        product.is_none_or(|product| data["product_id"] == product)
    };
    for event in events.values().rev() {
        let data = &event["data"];
        let is_added = of_scope(data) && sums.add(&added(data));
        is_found |= !has_all && is_added && sums == scope.own;
    }
    if is_found || sums == scope.own {
        return Ok(());
    }
    Err(format!("{scope:?} should hold {sums:?}, or what its last events say"))
}

/// What the collector was told last of a scope is what it holds.
fn check_told(scope: &ScopeState, events: &Events) -> Result<(), String> {
    let key = hex(&scope.key);
    let is_total =
        |data: &&Value| data["event_type"] == "guard_totals" && data["scope_key"] == *key;
    let mut told = events.values().rev().map(|event| &event["data"]).filter(is_total);
    let sums = told.next().map(|data| ScopeTotals {
        provider_cost: money(&data["total_provider_cost"]),
        revenue: money(&data["total_revenue"]),
        calls: data["calls"].as_u64().unwrap(),
        tokens: data["tokens"].as_u64().unwrap(),
    });
    if sums.as_ref() == Some(&scope.own) || (sums.is_none() && scope.own == ScopeTotals::default())
    {
        return Ok(());
    }
    Err(format!("the collector was told {sums:?} of {scope:?}"))
}

/// What an event adds to a scope.
fn added(data: &Value) -> ScopeTotals {
    let cost = &data["total_provider_cost"];
    match data["event_type"].as_str().unwrap_or_default() {
        "tool_invocation" if data["execution_status"] != "BLOCKED" => {
            ScopeTotals { revenue: money(&data["price"]), calls: 1, ..ScopeTotals::default() }
        }
        "token_consumption" => ScopeTotals {
            provider_cost: if cost.is_null() { Decimal::ZERO } else { money(cost) },
            revenue: money(&data["price"]),
            calls: 0,
            tokens: data["quantity"].as_u64().unwrap(),
        },
        _ => ScopeTotals::default(),
    }
}
