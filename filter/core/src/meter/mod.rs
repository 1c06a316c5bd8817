//! State of one VM. Every VM is a worker, which observes streams. One VM of the Envoy process also
//! holds the accountant's lease; the others stand by for it. Callbacks come in and requests go out;
//! the meter sees the host through [`Host`].

pub mod action;
pub mod control;
mod control_action;

mod facts;
mod folded;
mod guarded;
mod head;
mod others;
mod overflow;
mod pauses;
pub mod recovered;
mod stream_notes;
mod succession;
mod unseen;

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use crate::accountant::outbox::Dispatch;
use crate::accountant::{Accountant, Handover};
use crate::admission::already_metered::Attempts;
use crate::base::hash::{hash, hex};
use crate::base::limits::RUNNING_INTERVAL_MS_MAX;
use crate::base::stream_map::StreamMap;
use crate::base::text::numbered;
use crate::base::time::{Millis, Timestamp, len_u64};
use crate::config::Config;
use crate::domain::ids::ConfigId;
use crate::exchange::Exchange;
use crate::exchange::kind::{BodyInterest, StreamEnd};
use crate::fact::Fact;
use crate::guard::stop::StreamStop;
use crate::host::counter::Counter;
use crate::host::{Conflict, Host};
use crate::meter::action::{BodyAction, VmInfo};
use crate::meter::folded::Folds;
use crate::meter::others::Others;
use crate::meter::overflow::Overflow;
use crate::meter::stream_notes::StreamNotes;
use crate::meter::unseen::UnseenPlaces;
use crate::protocol::call_proof::ProofMaker;
use crate::shared_data::commit::{Candidate, Lease};
use crate::shared_data::configurations::{announce, announced};
use crate::shared_data::drain::DrainOrder;
use crate::shared_data::journal::Writer;
use crate::shared_data::pauses::{self as shared_pauses, Pause};
use crate::shared_data::vms::Seat;
use crate::sink::reply::Reply;
use crate::wire::decode_budget::DecodeBudget;
use crate::wire::http::{Headers, ResponseHead};

/// The version of the layout of everything in shared data. Raise it when the layout changes, so
/// that two versions of the module in one Envoy do not read each other's data.
pub const LAYOUT: &str = "agent-meter.15";

#[derive(Debug)]
enum Role {
    Candidate(Candidate),
    Accountant(Box<Accountant>),
}

/// A request that waits for its message.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// The bytes of the body that have arrived.
    bytes: u64,
    /// See [`HeadDecision::needs_message`](crate::guard::decision::HeadDecision::needs_message).
    needs_message: bool,
}

/// The filter's state in one VM.
#[derive(Debug)]
pub struct Meter {
    config: Rc<Config>,
    vm: VmInfo,
    prefix: String,
    seat: Seat,
    others: Others,
    serves_streams: bool,
    attempts: Attempts,
    exchanges: StreamMap<Box<dyn Exchange>>,
    /// The origins of exchanges that a page in a browser began, if it may read what the filter
    /// answers.
    origins: StreamMap<String>,
    /// Exchanges whose request waits for its message.
    held: StreamMap<Held>,
    /// Exchanges that hold a reservation for a generation, with the fact that releases it. Possibly
    /// no other fact ever reports the generation.
    reserved: StreamMap<Fact>,
    /// What is kept of streams beside their exchanges.
    notes: StreamNotes,
    /// Exchanges whose response streams, and which a guard may end in the middle.
    stops: StreamMap<StreamStop>,
    /// Exchanges whose calls started since the last tick. Most calls have ended by the next.
    started: Vec<u32>,
    /// Exchanges with a running call, and when each next reports activity; the earliest first.
    running: VecDeque<(Timestamp, u32)>,
    running_interval: Millis,
    decode_budget: DecodeBudget,
    journal: Option<Writer>,
    ids_made: u64,
    proofs: ProofMaker,
    overflow: Overflow,
    folds: Folds,
    unseen: UnseenPlaces,
    /// The order to drain that holds, as of the last tick.
    drain: Option<DrainOrder>,
    /// What an operator has paused, as of the last tick.
    pauses: Vec<Pause>,
    role: Role,
}

impl Meter {
    /// Creates the state of a VM that has read its configuration. The hash of `config_json`
    /// distinguishes one configuration from the next.
    pub fn new(
        host: &mut impl Host,
        mut config: Config,
        config_json: &[u8],
        vm: VmInfo,
        now: Timestamp,
    ) -> Self {
        let prefix = format!("{LAYOUT}.{}.", vm.plugin);
        let config_hash = hash(&[config_json]);
        let [a, b, c, d, e, f, g, h, ..] = config_hash;
        let config_id = ConfigId::from_be_bytes([a, b, c, d, e, f, g, h]);
        config.identify(config_id);
        let shortest_idle = config.products.iter().map(|p| p.session.idle_timeout.millis().0 / 2);
        let running_interval = shortest_idle.min().unwrap_or(0).clamp(1, RUNNING_INTERVAL_MS_MAX);
        let seat = Seat::announce(host, &prefix, (vm.seed, config_id), now);
        announce(host, &prefix, config_id, || Config::without_secrets(config_json));
        let seeds = [vm.seed.to_be_bytes().as_slice(), &config_hash, vm.node.as_bytes()].concat();
        Self {
            proofs: ProofMaker::new(&[b"agent-meter proofs 1", &seeds]),
            config: Rc::new(config),
            vm,
            prefix,
            seat,
            others: Others::default(),
            serves_streams: false,
            attempts: Attempts::default(),
            exchanges: StreamMap::default(),
            origins: StreamMap::default(),
            held: StreamMap::default(),
            reserved: StreamMap::default(),
            notes: StreamNotes::default(),
            stops: StreamMap::default(),
            started: Vec::new(),
            running: VecDeque::new(),
            running_interval: Millis(running_interval),
            decode_budget: DecodeBudget::default(),
            journal: None,
            ids_made: 0,
            overflow: Overflow::default(),
            folds: Folds::default(),
            unseen: UnseenPlaces::default(),
            drain: None,
            pauses: Vec::new(),
            role: Role::Candidate(Candidate::default()),
        }
    }

    /// The configuration in force in this VM.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether this VM holds the accountant's lease.
    pub fn is_accountant(&self) -> bool {
        matches!(self.role, Role::Accountant(_))
    }

    /// Handles the next bytes of a request's body. `is_end` is true for the last ones.
    pub fn request_body(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        chunk: &[u8],
        is_end: bool,
        now: Timestamp,
    ) -> BodyAction {
        self.decode_budget.tick(now);
        let Some(exchange) = self.exchanges.get_mut(&stream) else { return BodyAction::Go(None) };
        let bytes = if chunk.is_empty() { None } else { exchange.request_body(chunk, now) };
        if is_end {
            exchange.request_end(now);
            if exchange.running().is_some() {
                self.started.push(stream);
            }
        }
        let observed = exchange.take_observed();
        self.record(host, stream, observed);
        if let Some(refused) = self.refuse_unreadable(host, stream, now) {
            return refused;
        }
        let Some(held) = self.held.get_mut(&stream) else {
            return BodyAction::Go(bytes);
        };
        held.bytes = held.bytes.saturating_add(len_u64(chunk.len()));
        if !is_end && held.bytes < u64::from(self.config.held_request_bytes_max) {
            return BodyAction::Hold;
        }
        self.guard_message(host, stream, is_end, now)
    }

    /// Counts the next bytes of a request's body, if the meter wants only its size.
    pub fn request_size(&mut self, stream: u32, bytes: usize, now: Timestamp) {
        if let Some(exchange) = self.exchanges.get_mut(&stream) {
            exchange.request_size(bytes, now);
        }
    }

    /// Handles a response's head. Returns what the meter wants of the response's body.
    pub fn response_head(&mut self, stream: u32, headers: Headers<'_>) -> BodyInterest {
        let Some(exchange) = self.exchanges.get_mut(&stream) else { return BodyInterest::None };
        let head = ResponseHead::read(headers);
        self.notes.response_head(stream, &head);
        let body_interest = exchange.response_head(&head);
        self.follow_stream(stream);
        body_interest
    }

    /// Counts the next bytes of a response's body, if the meter wants only its size.
    pub fn response_size(&mut self, stream: u32, bytes: usize) {
        if let Some(exchange) = self.exchanges.get_mut(&stream) {
            exchange.response_size(bytes);
        }
    }

    /// Whether the filter may shorten a response's body, so that the proxy must remove the length
    /// from the response's head.
    pub fn shortens_response(&self, stream: u32) -> bool {
        self.stops.contains_key(&stream)
            || self.exchanges.get(&stream).is_some_and(|exchange| exchange.shortens_response())
    }

    /// Handles the next bytes of a response's body. `is_end` is true for the last ones, if the
    /// proxy knows that. When this returns, shared data contains what ended in these bytes. Returns
    /// the bytes to send instead, or `None` to send the chunk unchanged.
    pub fn response_body(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        chunk: &[u8],
        is_end: bool,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        self.decode_budget.tick(now);
        let exchange = self.exchanges.get_mut(&stream)?;
        let edited = exchange.response_body(chunk, is_end, now);
        let observed = exchange.take_observed();
        self.record(host, stream, observed);
        if self.stops.is_empty() {
            return edited;
        }
        let passes = edited.as_deref().unwrap_or(chunk);
        self.stop_stream(host, stream, passes, is_end, now).or(edited)
    }

    /// Handles a response's trailers.
    pub fn response_trailers(&mut self, stream: u32, trailers: Headers<'_>) {
        if let Some(exchange) = self.exchanges.get_mut(&stream) {
            exchange.response_trailers(trailers);
        }
    }

    /// Whether the proxy must pass the record of Envoy's own filter to [`Meter::envoy_usage`]
    /// before the end.
    pub fn wants_envoy_usage(&self, stream: u32) -> bool {
        self.exchanges.get(&stream).is_some_and(|exchange| exchange.wants_envoy_usage())
    }

    /// Takes the record of token usage that Envoy's own filter made of a stream's response.
    pub fn envoy_usage(&mut self, stream: u32, record: &[u8]) {
        if let Some(exchange) = self.exchanges.get_mut(&stream) {
            exchange.envoy_usage(record);
        }
    }

    /// Handles the end of a stream. A second end of the same stream changes nothing.
    pub fn stream_end(
        &mut self,
        host: &mut impl Host,
        stream: u32,
        end: StreamEnd,
        now: Timestamp,
    ) {
        self.origins.remove(&stream);
        self.held.remove(&stream);
        self.stops.remove(&stream);
        if let Some(exchange) = self.exchanges.remove(&stream) {
            let observed = exchange.end(end, now);
            self.record(host, stream, observed);
        }
        if let Some(released) = self.reserved.remove(&stream) {
            self.record_fact(host, &released);
        }
    }

    /// Forgets a stream that has ended or was answered; the proxy must call it then. Returns what an
    /// access log is to tell of the stream: names and values for Envoy's filter state.
    pub fn take_log(&mut self, stream: u32) -> Vec<(&'static str, String)> {
        self.notes.take_log(stream)
    }

    /// Does the work that is due: every 250 ms. Returns the requests to send. If [`Meter::has_work`]
    /// then, [`Meter::go_on`] does the rest in pieces.
    pub fn tick(&mut self, host: &mut impl Host, now: Timestamp) -> Vec<Dispatch> {
        self.show_running(host, now);
        self.drain = DrainOrder::read(host, &self.prefix, now);
        self.pauses = shared_pauses::read(host, &self.prefix, now);
        self.beat(host);
        self.seat.beat(host, &self.prefix, now);
        self.write_waiting(host, now);
        let announced = announced(host, &self.prefix);
        self.succeed(host, &announced, now);
        let Role::Accountant(accountant) = &mut self.role else { return Vec::new() };
        let done = accountant.tick(host, &announced, self.drain, now);
        self.requests_of(host, done)
    }

    /// Whether the last tick has left work, to be done soon.
    pub fn has_work(&self) -> bool {
        matches!(&self.role, Role::Accountant(accountant) if accountant.has_work())
    }

    /// Does a piece of what the last tick has left. Returns the requests to send.
    pub fn go_on(&mut self, host: &mut impl Host, now: Timestamp) -> Vec<Dispatch> {
        let announced = announced(host, &self.prefix);
        let Role::Accountant(accountant) = &mut self.role else { return Vec::new() };
        let done = accountant.go_on(host, &announced, self.drain, now);
        self.requests_of(host, done)
    }

    fn requests_of(
        &mut self,
        host: &mut impl Host,
        done: Result<Vec<Dispatch>, Conflict>,
    ) -> Vec<Dispatch> {
        done.unwrap_or_else(|Conflict| {
            host.count(Counter::LeaseLost, 1);
            self.role = Role::Candidate(Candidate::default());
            Vec::new()
        })
    }

    /// Applies the collector's reply to a request. Returns the requests to send next.
    pub fn reply(
        &mut self,
        host: &mut impl Host,
        part: u64,
        reply: Reply,
        now: Timestamp,
    ) -> Vec<Dispatch> {
        match &mut self.role {
            Role::Accountant(accountant) => accountant.reply(host, part, reply, now),
            // This VM lost the lease in between. The VM that holds it now sends the batch again.
            Role::Candidate(_) => Vec::new(),
        }
    }

    /// Ends the work of this VM, because Envoy has a new configuration in force, or stops.
    pub fn stop(&mut self, host: &mut impl Host, now: Timestamp) {
        // In order of their ids, so that the same history always makes the same events.
        let streams: BTreeSet<u32> = self.exchanges.keys().copied().collect();
        for stream in streams {
            self.stream_end(host, stream, StreamEnd::Aborted, now);
        }
        self.write_last(host, now);
        self.seat.leave(host, &self.prefix);
        let announced = announced(host, &self.prefix);
        let leave = if self.is_in_force(host, &announced, 0, now) {
            Handover::Nothing
        } else {
            Handover::ToSuccessor
        };
        match core::mem::replace(&mut self.role, Role::Candidate(Candidate::default())) {
            Role::Accountant(accountant) => accountant.stop(host, now, leave),
            // The accountant has already stopped, and this VM may just have written its last facts.
            Role::Candidate(mut candidate) if leave == Handover::Nothing => {
                if let Some(lease) = candidate.take_last(host, &self.prefix) {
                    self.accountant(host, lease, now).stop(host, now, leave);
                }
            }
            Role::Candidate(candidate) => candidate.free_dead(host, &self.prefix),
        }
    }

    fn accountant(&self, host: &mut impl Host, lease: Lease, now: Timestamp) -> Accountant {
        let config = Rc::clone(&self.config);
        let source = self.source(now);
        let VmInfo { seed, piece, .. } = self.vm;
        Accountant::resume(host, config, self.prefix.clone(), lease, &source, seed, piece)
    }

    /// Returns a name that no other exchange of this Envoy process has. A journal has one owner at
    /// a time.
    fn next_id(&mut self, host: &mut impl Host) -> String {
        self.claim_journal(host);
        let number = self.ids_made;
        self.ids_made = number.saturating_add(1);
        match &self.journal {
            Some(journal) => numbered(journal.name(), number),
            None => format!("{:x}.{number}", self.vm.seed),
        }
    }

    fn beat(&mut self, host: &mut impl Host) {
        if let Some(journal) = &mut self.journal
            && journal.beat(host, &self.prefix).is_err()
        {
            self.journal = None;
        }
    }

    fn show_running(&mut self, host: &mut impl Host, now: Timestamp) {
        for stream in core::mem::take(&mut self.started) {
            if self.exchanges.get(&stream).is_some_and(|exchange| exchange.running().is_some()) {
                self.running.push_back((now.plus(self.running_interval), stream));
            }
        }
        while let Some(&(due, stream)) = self.running.front() {
            if due > now {
                return;
            }
            self.running.pop_front();
            let Some(exchange) = self.exchanges.get_mut(&stream) else { continue };
            exchange.time_out(now);
            let running = exchange.running().map(|(session, started_at)| Fact::Running {
                session: session.clone(),
                started_at,
                at: now,
            });
            let observed = exchange.take_observed();
            self.record(host, stream, observed);
            if let Some(fact) = running {
                self.running.push_back((now.plus(self.running_interval), stream));
                self.record_fact(host, &fact);
            }
        }
    }

    /// Returns the name of a new series of events.
    fn source(&self, now: Timestamp) -> String {
        let configured = &self.config.emitter;
        let emitter = if configured.is_empty() { &self.vm.node } else { configured };
        let emitter: String = emitter
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || "-._~".contains(c) { c } else { '_' })
            .collect();
        let epoch = hash(&[&now.0.to_be_bytes(), &self.vm.seed.to_be_bytes()]);
        let epoch = hex(epoch.get(..8).unwrap_or_default());
        let emitter = if emitter.is_empty() { "envoy" } else { emitter.as_str() };
        format!("urn:agent-meter:{emitter}:{epoch}")
    }
}
