//! One schedule: streams, ticks, replies, deaths, reloads and stops in an order that the seed decides.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use agent_meter_core::accountant::outbox::Dispatch;
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::Meter;
use agent_meter_core::meter::action::{BodyAction, HeadAction, VmInfo};
use agent_meter_core::sink::reply::Reply;
use agent_meter_core::wire::http::Headers;

use crate::guards::{CUSTOMER, Guards};
use crate::streams::{Late, Step, Stream};
use crate::verdict::{self, Truth};
use crate::world::{Between, Died, Sabotage, SimHost, World};

// The long identity makes facts large, so that journals turn their pages.
const CONFIG: &str = r#"{
    "delivery": {"batch_events_max": 20, "retry_horizon": "30m", "in_flight_max": 3},
    "sessions_max": 6,
    "products": [{
        "id": "mcp", "type": "MCP_SERVER", "match": {"path": "/mcp"},
        "identity": {"customer": {"trusted_header": "x-customer"}},
        "session": {"idle_timeout": "60s", "session_timeout": "10m"},
        "pricing": {"default": {"price": "0.001"}, "tools": [{"tool": "*7", "price": "0.05"}]}
    }, {
        "id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"},
        "identity": {"customer": {"trusted_header": "x-customer"}},
        "session": {"idle_timeout": "60s", "session_timeout": "10m"},
        "llm": {"provider": "openai"},
        "pricing": {"tokens": {"pass_through": true, "markup": "0.5"}}
    }],
    "rate_cards": [{"version": "1", "rates": [
        {"provider": "openai", "model": "*", "input": "2.5", "output": "10"},
        {"provider": "openai", "model": "gen-*3", "input": "0"}
    ]}]
}"#;

/// What schedules did, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) calls: u64,
    pub(crate) deaths: u64,
    pub(crate) takeovers: u64,
    /// Parts of ticks that were done later.
    pub(crate) pieces: u64,
    pub(crate) reloads: u64,
    /// Reloads after which the VMs of before served on.
    pub(crate) drains: u64,
    pub(crate) shutdowns: u64,
    pub(crate) interleavings: u64,
    pub(crate) batches: u64,
    pub(crate) batches_failed: u64,
    pub(crate) spilled: u64,
    pub(crate) sessions: u64,
    pub(crate) host_calls: u64,
    pub(crate) generations: u64,
    pub(crate) attributed: u64,
    /// Calls of steady schedules with an id that others have too, which were answered elsewhere.
    pub(crate) answers: u64,
    pub(crate) refused: u64,
    pub(crate) levels: u64,
    pub(crate) holds_leaked: u64,
    pub(crate) verdicts_unused: u64,
}

impl Report {
    pub(crate) fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.deaths += other.deaths;
        self.takeovers += other.takeovers;
        self.pieces += other.pieces;
        self.reloads += other.reloads;
        self.drains += other.drains;
        self.shutdowns += other.shutdowns;
        self.interleavings += other.interleavings;
        self.batches += other.batches;
        self.batches_failed += other.batches_failed;
        self.spilled += other.spilled;
        self.sessions += other.sessions;
        self.host_calls += other.host_calls;
        self.generations += other.generations;
        self.attributed += other.attributed;
        self.answers += other.answers;
        self.refused += other.refused;
        self.levels += other.levels;
        self.holds_leaked += other.holds_leaked;
        self.verdicts_unused += other.verdicts_unused;
    }
}

struct Vm {
    meter: Meter,
    streams: Vec<Stream>,
    /// Requests whose reply has not come yet.
    waiting: Vec<(u64, Reply)>,
}

/// One Envoy process.
pub(crate) struct Envoy {
    pub(crate) world: Rc<RefCell<World>>,
    /// The first is on the main thread. Behind those that serve come those of a listener that drains,
    /// in the same order. `None`: dead, or running at this moment.
    vms: RefCell<Vec<Option<Vm>>>,
    serving: Cell<usize>,
    pub(crate) truth: RefCell<Truth>,
    depth: Cell<u32>,
    pub(crate) next_stream: Cell<u32>,
    pub(crate) next_call: Cell<u64>,
    report: RefCell<Report>,
    config_number: Cell<u32>,
    /// Answers that come on other streams than their calls' own.
    pub(crate) elsewhere: RefCell<Vec<Late>>,
    /// The traces of calls, in the order in which they were made.
    pub(crate) traces: RefCell<Vec<(u32, Vec<String>)>>,
    /// The `tracestate` of calls, by the number that stands for their trace.
    states: RefCell<HashMap<u32, Vec<u8>>>,
    guards: Option<Guards>,
    /// Whether the clock never steps and no session ends early: every answer comes before its call's
    /// end.
    pub(crate) is_steady: bool,
    /// Whether VMs may serve on after a reload. What guards do then is another question.
    drains: bool,
}

impl Envoy {
    fn host(self: &Rc<Self>) -> SimHost {
        let envoy = Rc::clone(self);
        let between: Rc<Between> = Rc::new(move || envoy.between());
        SimHost { world: Rc::clone(&self.world), between }
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.world.borrow().clock_ms)
    }

    pub(crate) fn roll(&self, end: u64) -> u64 {
        self.world.borrow_mut().dice.below(end)
    }

    pub(crate) fn chance(&self, percent: u64) -> bool {
        self.world.borrow_mut().chance(percent)
    }

    /// Between two host calls of one VM any other VM may run: threads are not in step.
    fn between(self: &Rc<Self>) {
        if self.depth.get() >= 3 || !self.world.borrow().has_faults || !self.chance(2) {
            return;
        }
        self.report.borrow_mut().interleavings += 1;
        // The fuse belongs to the VM that stands still.
        let fuse = self.world.borrow_mut().fuse.take();
        for _ in 0..=self.roll(6) {
            self.act();
        }
        self.world.borrow_mut().fuse = fuse;
    }

    /// Runs `what` in one VM, which may die in it. Gives `None` if it is dead, runs already, or dies.
    fn within<T>(
        self: &Rc<Self>,
        vm: usize,
        what: impl FnOnce(&mut Vm, &mut SimHost) -> T,
    ) -> Option<T> {
        let mut taken = self.vms.borrow_mut().get_mut(vm)?.take()?;
        self.depth.set(self.depth.get() + 1);
        let may_die = self.world.borrow().has_faults && self.chance(3);
        if may_die {
            let fuse = self.roll(30);
            self.world.borrow_mut().fuse = Some(fuse);
        }
        let mut host = self.host();
        let outcome = catch_unwind(AssertUnwindSafe(|| what(&mut taken, &mut host)));
        self.world.borrow_mut().fuse = None;
        self.depth.set(self.depth.get() - 1);
        match outcome {
            Ok(value) => {
                self.vms.borrow_mut()[vm] = Some(taken);
                Some(value)
            }
            Err(payload) if payload.is::<Died>() => {
                self.report.borrow_mut().deaths += 1;
                for stream in taken.streams {
                    self.truth.borrow_mut().maybe(&stream.calls);
                }
                None
            }
            Err(payload) => resume_unwind(payload),
        }
    }

    /// The configuration in force.
    fn config_json(&self) -> String {
        // With every other reload the products share their sessions, or no longer do; while the VMs of
        // before serve on, the answer to a call of theirs may come to another.
        let number = self.config_number.get();
        let group = if number.is_multiple_of(2) || self.drains {
            r#""session": {"#
        } else {
            r#""session": {"group": "g","#
        };
        let config = CONFIG.replace(r#""session": {"#, group);
        // A session that has to make room ends its calls, so in steady schedules there is enough.
        let room = if self.is_steady { r#""sessions_max": 60"# } else { r#""sessions_max": 6"# };
        let config = config.replace(r#""sessions_max": 6"#, room);
        let config = match self.guards {
            Some(guards) => {
                let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
                guards.add_to(&mut config, number);
                config.to_string()
            }
            None => config,
        };
        format!("{config}{}", " ".repeat(number as usize))
    }

    fn new_meter(self: &Rc<Self>) -> Meter {
        let json = self.config_json();
        let config = Config::from_bytes(json.as_bytes()).unwrap();
        let seed = self.world.borrow_mut().dice.next();
        // Small enough that a round takes several pieces, or as large as in Envoy.
        let piece = [1, 2, 5, 64][self.roll(4) as usize];
        let place = VmInfo { plugin: "sim".into(), node: "node".into(), seed, piece };
        let mut host = SimHost::quiet(&self.world);
        let now = Timestamp(self.world.borrow().clock_ms);
        Meter::new(&mut host, config, json.as_bytes(), place, now)
    }

    fn new_vm(self: &Rc<Self>) -> Vm {
        Vm { meter: self.new_meter(), streams: Vec::new(), waiting: Vec::new() }
    }

    /// Something happens somewhere.
    fn act(self: &Rc<Self>) {
        let passed_ms = self.roll(80);
        self.world.borrow_mut().clock_ms += passed_ms;
        let count = self.vms.borrow().len() as u64;
        let vm = self.roll(count) as usize;
        match self.roll(100) {
            0..45 => self.stream_step(vm),
            45..70 => self.tick(vm),
            70..80 => drop(self.go_on(vm)),
            80..96 => self.reply(vm),
            96..98 if !self.is_steady => self.step_clock(),
            _ => {}
        }
    }

    fn step_clock(&self) {
        let mut world = self.world.borrow_mut();
        let by = match world.dice.below(10) {
            0..6 => 1_000 + world.dice.below(20_000),
            6..9 => 60_000 + world.dice.below(600_000),
            _ => {
                let back = world.dice.below(100_000);
                // What guards hold for calls that run is given back as late as the clock goes back.
                let is_far = world.is_harsh && self.guards.is_none();
                world.clock_ms -= if is_far { 10 * back } else { back };
                drop(world);
                self.truth.borrow_mut().answers.is_clock_back = true;
                return;
            }
        };
        world.clock_ms += by;
    }

    fn tick(self: &Rc<Self>, vm: usize) {
        let requests = self.within(vm, |vm, host| vm.meter.tick(host, self.now()));
        self.send(vm, requests.unwrap_or_default());
        // The next tick may come before the pieces of this one are done.
        for _ in 0..self.roll(8) {
            self.go_on(vm);
        }
    }

    /// Does a piece of what the last tick has left, if it has. Returns whether there was any.
    fn go_on(self: &Rc<Self>, vm: usize) -> bool {
        if !self.vms.borrow()[vm].as_ref().is_some_and(|vm| vm.meter.has_work()) {
            return false;
        }
        self.report.borrow_mut().pieces += 1;
        let requests = self.within(vm, |vm, host| vm.meter.go_on(host, self.now()));
        self.send(vm, requests.unwrap_or_default());
        true
    }

    /// A tick, and all its pieces.
    fn whole_tick(self: &Rc<Self>, vm: usize) {
        self.tick(vm);
        while self.go_on(vm) {}
    }

    /// Sends requests; the replies come later, or never if the VM has died by then.
    fn send(self: &Rc<Self>, vm: usize, requests: Vec<Dispatch>) {
        for request in requests {
            let reply = self.world.borrow_mut().collect(&request.body);
            if let Some(Some(vm)) = self.vms.borrow_mut().get_mut(vm) {
                let is_doubled = self.world.borrow_mut().chance(3);
                vm.waiting.push((request.part, reply.clone()));
                if is_doubled {
                    vm.waiting.push((request.part, reply));
                }
            }
        }
    }

    fn reply(self: &Rc<Self>, vm: usize) {
        let requests = self.within(vm, |vm, host| {
            if vm.waiting.is_empty() {
                return Vec::new();
            }
            let at = self.roll(vm.waiting.len() as u64) as usize;
            let (part, reply) = vm.waiting.swap_remove(at);
            vm.meter.reply(host, part, reply, self.now())
        });
        self.send(vm, requests.unwrap_or_default());
    }

    fn stream_step(self: &Rc<Self>, vm: usize) {
        if vm == 0 || vm == self.serving.get() {
            return;
        }
        // A worker whose VM has died gets a new one with the next stream.
        let is_serving = vm < self.serving.get();
        let is_dead = is_serving && self.depth.get() == 0 && self.vms.borrow()[vm].is_none();
        if is_dead {
            let fresh = self.new_vm();
            self.vms.borrow_mut()[vm] = Some(fresh);
        }
        self.within(vm, |vm, host| {
            if vm.streams.is_empty() || (vm.streams.len() < 4 && self.chance(30)) {
                let stream = self.new_stream();
                vm.streams.push(stream);
            }
            let at = self.roll(vm.streams.len() as u64) as usize;
            let step = vm.streams[at].steps.remove(0);
            self.perform(vm, host, at, step);
            if vm.streams[at].steps.is_empty() {
                vm.streams.swap_remove(at);
            }
        });
    }

    fn perform(self: &Rc<Self>, vm: &mut Vm, host: &mut SimHost, at: usize, step: Step) {
        let now = self.now();
        let id = vm.streams[at].id;
        match step {
            Step::Head { method, path, session, trace } => {
                let traceparent = format!("00-{trace:032x}-00f067aa0ba902b7-01");
                // Every second application carries on what the filter has added.
                let states = self.states.borrow();
                let state = states.get(&trace).filter(|_| trace.is_multiple_of(2));
                let state = state.cloned().unwrap_or_default();
                drop(states);
                let headers = [
                    ("tracestate".to_owned(), state),
                    (":method".to_owned(), method.as_bytes().to_vec()),
                    (":path".to_owned(), path.as_bytes().to_vec()),
                    ("traceparent".to_owned(), traceparent.into_bytes()),
                    ("x-customer".to_owned(), CUSTOMER.as_bytes().to_vec()),
                    ("mcp-session-id".to_owned(), format!("session-{session}").into_bytes()),
                ];
                let level = Guards::level(&self.world, vm.meter.config());
                vm.streams[at].level = (level, self.world.borrow().statuses.len());
                let head = vm.meter.request_head(host, id, Headers(&headers), now);
                match head {
                    HeadAction::Follow(edit) => {
                        for (name, value) in edit.set {
                            if name == "tracestate" {
                                self.states.borrow_mut().insert(trace, value.into_bytes());
                            }
                        }
                    }
                    // A generation that is refused never was.
                    HeadAction::Answer(_) => self.refused(vm, at, false),
                    other => panic!("{other:?}"),
                }
            }
            Step::Request(chunk, is_end) => {
                match vm.meter.request_body(host, id, &chunk, is_end, now) {
                    BodyAction::Answer(_) => self.refused(vm, at, true),
                    BodyAction::Hold | BodyAction::Go(_) if !is_end => {}
                    _ => self.check_ruling(vm, at, false),
                }
            }
            Step::ResponseHead { media_type, http_status } => {
                let headers = [
                    (":status".to_owned(), http_status.to_string().into_bytes()),
                    ("content-type".to_owned(), media_type.as_bytes().to_vec()),
                ];
                vm.meter.response_head(id, Headers(&headers));
            }
            Step::Response(chunk, completed) => {
                self.truth.borrow_mut().answers.comes(&completed);
                vm.meter.response_body(host, id, &chunk, false, now);
                self.truth.borrow_mut().answers.has_come(&completed);
                self.done(vm, at, &completed);
            }
            Step::Elsewhere(late) => self.elsewhere.borrow_mut().push(late),
            Step::Answer(late) => {
                let tool = [late.tool];
                self.truth.borrow_mut().answers.comes(&tool);
                vm.meter.response_body(host, id, late.event.as_bytes(), false, now);
                self.truth.borrow_mut().answers.has_come(&tool);
            }
            Step::End(end) => {
                vm.meter.stream_end(host, id, end, now);
                let left = vm.streams[at].calls.clone();
                self.done(vm, at, &left);
            }
        }
    }

    /// The filter has answered the request itself. Its calls are told of as refused.
    fn refused(&self, vm: &mut Vm, at: usize, are_told: bool) {
        self.report.borrow_mut().refused += 1;
        self.check_ruling(vm, at, true);
        let calls = core::mem::take(&mut vm.streams[at].calls);
        if are_told {
            self.truth.borrow_mut().done(&calls);
        }
        vm.streams[at].steps.clear();
    }

    fn check_ruling(&self, vm: &Vm, at: usize, is_refused: bool) {
        let stream = &vm.streams[at];
        // What makes no call passes always.
        if let Some(guards) = self.guards.filter(|_| !stream.calls.is_empty()) {
            guards.check_ruling(&self.world, vm.meter.config(), stream.level, is_refused);
        }
    }

    /// The host call has returned: from here on these calls must not get lost.
    fn done(&self, vm: &mut Vm, at: usize, calls: &[String]) {
        self.truth.borrow_mut().done(calls);
        vm.streams[at].calls.retain(|call| !calls.contains(call));
    }

    /// A new configuration: new meters come, then the old ones are stopped, and their streams with them;
    /// or they serve on while their listener drains.
    fn reload(self: &Rc<Self>) {
        self.report.borrow_mut().reloads += 1;
        self.config_number.set(self.config_number.get() + 1);
        self.end_drain();
        if self.world.borrow().is_harsh {
            // Envoy tries a configuration first in a VM that it throws away without a word.
            drop(self.new_meter());
        }
        let fresh: Vec<Vm> = (0..self.serving.get()).map(|_| self.new_vm()).collect();
        let old = self.vms.replace(fresh.into_iter().map(Some).collect());
        if self.drains && self.chance(70) {
            self.report.borrow_mut().drains += 1;
            self.vms.borrow_mut().extend(old);
            return;
        }
        for vm in old.into_iter().flatten() {
            self.stop(vm);
        }
    }

    /// The VMs of a listener that drains stop, in any order.
    fn end_drain(self: &Rc<Self>) {
        // Threads are not so far out of step that a successor seems dead.
        for vm in 0..self.serving.get() {
            self.tick(vm);
        }
        let old = self.vms.borrow_mut().split_off(self.serving.get());
        for vm in self.shuffled(old) {
            self.stop(vm);
        }
    }

    fn shuffled(&self, vms: Vec<Option<Vm>>) -> Vec<Vm> {
        let mut vms: Vec<Vm> = vms.into_iter().flatten().collect();
        let mut order = Vec::new();
        while !vms.is_empty() {
            let at = self.roll(vms.len() as u64) as usize;
            order.push(vms.swap_remove(at));
        }
        order
    }

    /// Envoy stops: the workers first, the main thread last; while a listener drains, in any order.
    fn shutdown(self: &Rc<Self>) {
        self.report.borrow_mut().shutdowns += 1;
        self.world.borrow_mut().has_faults = false;
        // A crash of the accountant within a second of the end is one fault too many: nobody knows of it.
        self.revive();
        let count = self.vms.borrow().len();
        // A worker that held the lease finds that out with the first tick.
        for _ in 0..6 {
            for vm in 1..count {
                self.tick(vm);
            }
        }
        // A configuration may come at the very last, before any of its VMs has ticked.
        let is_harsh = self.world.borrow().is_harsh;
        if self.drains && is_harsh && self.chance(50) {
            self.reload();
        }
        let mut old: Vec<Option<Vm>> = self.vms.replace(Vec::new());
        if old.len() > self.serving.get() {
            for vm in self.shuffled(old) {
                self.stop(vm);
            }
            return;
        }
        old.rotate_left(1);
        for vm in old.into_iter().flatten() {
            self.stop(vm);
        }
    }

    /// Gives every worker a VM, as the next stream would. If no VM is left, nobody can tell what was lost.
    fn revive(self: &Rc<Self>) {
        for vm in 1..self.serving.get() {
            if self.vms.borrow()[vm].is_none() {
                let fresh = self.new_vm();
                self.vms.borrow_mut()[vm] = Some(fresh);
            }
        }
    }

    fn stop(self: &Rc<Self>, mut vm: Vm) {
        let mut host = SimHost::quiet(&self.world);
        vm.meter.stop(&mut host, self.now());
        for stream in &vm.streams {
            // No answer on another stream finds a call that has ended with its configuration.
            self.truth.borrow_mut().answers.cut_short(&stream.calls);
            // A call whose request was on its way yet never came to be.
            let has_begun = !stream.steps.iter().any(|step| matches!(step, Step::Request(..)));
            if has_begun {
                self.truth.borrow_mut().done(&stream.calls);
            } else {
                self.truth.borrow_mut().maybe(&stream.calls);
            }
        }
    }

    /// No more faults and no more calls: everything that can be delivered is.
    fn settle(self: &Rc<Self>) {
        self.world.borrow_mut().has_faults = false;
        self.revive();
        let count = self.vms.borrow().len();
        for vm in 1..count {
            while self.vms.borrow()[vm].as_ref().is_some_and(|vm| !vm.streams.is_empty()) {
                self.within(vm, |vm, host| {
                    let step = vm.streams[0].steps.remove(0);
                    self.perform(vm, host, 0, step);
                    if vm.streams[0].steps.is_empty() {
                        vm.streams.swap_remove(0);
                    }
                });
            }
        }
        for round in 0..60 {
            // The second half sees every session time out, and the end of all that a call may have
            // taken; the last rounds take what was told then, between two heartbeats.
            let is_short = !(30..57).contains(&round);
            self.world.borrow_mut().clock_ms += if is_short { 2_500 } else { 150_000 };
            for vm in 0..count {
                self.whole_tick(vm);
                while self.vms.borrow()[vm].as_ref().is_some_and(|vm| !vm.waiting.is_empty()) {
                    self.reply(vm);
                }
            }
            if round == 29 && self.guards.is_some() {
                Guards::check_holds(&self.world, self.truth.borrow().maybe_len());
            }
        }
    }
}

/// Runs the schedule of one seed.
pub(crate) fn run(seed: u64, sabotage: Sabotage) -> Result<Report, String> {
    let world = Rc::new(RefCell::new(World::new(seed, sabotage)));
    let envoy = Rc::new(Envoy {
        world: Rc::clone(&world),
        vms: RefCell::new(Vec::new()),
        serving: Cell::new(0),
        truth: RefCell::default(),
        depth: Cell::new(0),
        next_stream: Cell::new(1),
        next_call: Cell::new(0),
        report: RefCell::default(),
        config_number: Cell::new(0),
        elsewhere: RefCell::default(),
        traces: RefCell::default(),
        states: RefCell::default(),
        guards: Guards::of(seed),
        is_steady: seed % 4 == 1,
        drains: Guards::of(seed).is_none() && seed % 8 < 6,
    });
    let workers = 1 + envoy.roll(3);
    envoy.serving.set(1 + workers as usize);
    for _ in 0..=workers {
        let fresh = envoy.new_vm();
        envoy.vms.borrow_mut().push(Some(fresh));
    }
    // What is spent adds up in the longer ones.
    let actions = (100 + envoy.roll(500)) * if envoy.guards.is_some() { 2 } else { 1 };
    for _ in 0..actions {
        envoy.act();
        if envoy.roll(300) == 0 {
            envoy.reload();
        }
        if envoy.roll(100) == 0 {
            envoy.end_drain();
        }
    }
    if envoy.chance(30) {
        envoy.shutdown();
    } else {
        envoy.settle();
    }
    let mut report = envoy.report.borrow().clone();
    let has_settled = report.shutdowns == 0;
    let events = verdict::events(&world.borrow())?;
    let verdict = verdict::check(&world.borrow(), &envoy.truth.borrow(), &events, has_settled)?;
    let is_exact = has_settled && envoy.is_steady;
    report.answers = envoy.truth.borrow().check_answers(&world.borrow(), &events, is_exact)?;
    if let Some(guards) = envoy.guards {
        let config = Config::from_bytes(envoy.config_json().as_bytes()).unwrap();
        let number = envoy.config_number.get();
        report.levels = guards.check(&world, &config, number, &events, has_settled)?;
    }
    let world = world.borrow();
    report.holds_leaked = world.counters.get(&Counter::HoldsLeaked).copied().unwrap_or(0);
    if report.holds_leaked > 0 && report.deaths == 0 && world.spilled_facts.is_empty() {
        return Err("room leaked, though no VM died".to_owned());
    }
    report.calls = verdict.calls;
    report.sessions = verdict.sessions;
    report.generations = verdict.generations;
    report.attributed = verdict.attributed;
    report.verdicts_unused = world.counters.get(&Counter::VerdictsUnused).copied().unwrap_or(0);
    report.takeovers = world.counters.get(&Counter::LeaseTaken).copied().unwrap_or(0);
    report.batches = world.batches;
    report.batches_failed = world.counters.get(&Counter::BatchesFailed).copied().unwrap_or(0);
    report.spilled = world.spilled.len() as u64;
    report.host_calls = world.host_calls;
    Ok(report)
}
