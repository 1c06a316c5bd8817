//! Finds the tool call that caused a generation. Workers see the two on different streams, and
//! different workers may report them in any order.
//!
//! A generation belongs to the call whose proof it presents, as long as the accountant knows the
//! call: see [`crate::protocol::call_proof`]. The call may have ended a moment before: nobody else
//! has its proof, and a busy Envoy may see a request late. A trace that a client named
//! proves nothing, as any other client can name it too. It joins a generation only with calls of
//! the customer whom the generation's own request proves, or with calls without a customer. If
//! several calls remain, the generation belongs to none of them, but to their session if they share
//! one, else to their customer. If the application carries nothing along, the product may allow that
//! the generation belongs to the only call that was running in this Envoy at that moment.
//!
//! To the next maintainer: a worker reports the start of a call before the call goes on to the
//! server. So when a journal contains the start of a generation, some journal contains everything
//! that started before it, and the accountant has certainly found that once it has read all
//! journals one more time. Times of different workers are comparable, because they come from the
//! clock of one host.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::base::limits::{
    CAUSE_READINGS, LATE_READINGS, RUNNING_CALLS_MAX, RUNNING_GENERATIONS_MAX,
};
use crate::base::time::{Millis, Timestamp};
use crate::domain::identity::ANONYMOUS;
use crate::domain::ids::TraceId;
use crate::domain::session::SessionRef;
use crate::fact::call::CallStarted;
use crate::fact::generation::{Attribution, GenerationEnded, GenerationStarted};
use crate::shared_data::slots::Slots;

/// The cause of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cause {
    /// How the accountant knows the cause.
    pub attribution: Attribution,
    /// The session of the call or calls.
    pub session: SessionRef,
    /// True if the calls have only their customer in common; the session is then that of the first.
    pub is_customer_only: bool,
    /// The id and tool of the call, if it is a single one.
    pub call: Option<(String, String)>,
}

/// A call that generations may belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningCall {
    started: CallStarted,
    ended_at: Option<Timestamp>,
    /// When the accountant forgets the call, if no worker reports its end.
    expires_at: Timestamp,
}

/// A generation that runs, or waits until the accountant finds its cause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunningGeneration {
    started: GenerationStarted,
    expires_at: Timestamp,
    /// `None` until the accountant has looked for the cause; then what the cause is, if there is
    /// one.
    cause: Option<Option<Cause>>,
    ended: Option<Box<GenerationEnded>>,
}

/// A generation that has ended, with its cause if there is one.
pub(super) type Resolved = (Box<GenerationEnded>, Option<Cause>);

/// Slots of calls by an id that several calls may have.
type CallsById = HashMap<TraceId, BTreeSet<u32>>;

/// All running calls and generations that the accountant may have to join.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attributions {
    /// The calls, in slots of shared data.
    pub calls: Slots<RunningCall>,
    /// The generations, in slots of shared data.
    pub generations: Slots<RunningGeneration>,
    call_by_id: HashMap<String, u32>,
    generation_by_id: HashMap<String, u32>,
    calls_by_proof: CallsById,
    calls_by_trace: CallsById,
    call_due: BTreeSet<(Timestamp, u32)>,
    generation_due: BTreeSet<(Timestamp, u32)>,
    /// How often the accountant has read all journals.
    readings: u64,
    /// Calls that have ended, each with the reading that contained its end.
    ended_calls: BTreeSet<(u64, u32)>,
    /// Generations whose cause the accountant has yet to look for, each with the reading that
    /// contained its start.
    unresolved: BTreeSet<(u64, u32)>,
    /// Until then, calls may run that are not in the table, so the accountant infers nothing from
    /// it.
    is_complete_from: Timestamp,
}

impl Attributions {
    /// Records that a call runs. Returns `false` if the table is full.
    pub(crate) fn call_started(&mut self, started: CallStarted, time_max: Millis) -> bool {
        let expires_at = started.at.plus(time_max);
        if self.calls.len() >= RUNNING_CALLS_MAX {
            while self.forget_ended(0) {}
        }
        if self.calls.len() >= RUNNING_CALLS_MAX {
            self.is_complete_from = self.is_complete_from.max(expires_at);
            return false;
        }
        if !self.call_by_id.contains_key(&started.call_id) {
            let slot = self.calls.insert(RunningCall { started, ended_at: None, expires_at });
            self.index_call(slot);
        }
        true
    }

    /// Records that a call has ended.
    pub(crate) fn call_ended(&mut self, call_id: &str, at: Timestamp) {
        let Some(&slot) = self.call_by_id.get(call_id) else { return };
        if let Some(call) = self.calls.get_mut(slot)
            && call.ended_at.is_none()
        {
            call.ended_at = Some(at);
            self.ended_calls.insert((self.readings, slot));
        }
    }

    /// Corrects the session of a call that belongs to another session than its request said.
    pub(crate) fn call_belongs_to(&mut self, call_id: &str, session: &SessionRef) {
        let Some(&slot) = self.call_by_id.get(call_id) else { return };
        if self.calls.get(slot).is_some_and(|call| call.started.session != *session)
            && let Some(call) = self.calls.get_mut(slot)
        {
            call.started.session = session.clone();
        }
    }

    /// Records that a client has asked for a generation. Returns `false` if the table is full.
    pub(crate) fn generation_started(
        &mut self,
        started: GenerationStarted,
        time_max: Millis,
    ) -> bool {
        if self.generations.len() >= RUNNING_GENERATIONS_MAX {
            return false;
        }
        if !self.generation_by_id.contains_key(&started.generation_id) {
            let expires_at = started.at.plus(time_max);
            let generation = RunningGeneration { started, expires_at, cause: None, ended: None };
            let slot = self.generations.insert(generation);
            self.index_generation(slot);
        }
        true
    }

    /// Records that a generation has ended. Returns it with its cause, unless the accountant has
    /// yet to look for the cause: then [`Attributions::next_resolved`] returns it later.
    pub(crate) fn generation_ended(&mut self, ended: Box<GenerationEnded>) -> Option<Resolved> {
        let Some(&slot) = self.generation_by_id.get(&ended.generation_id) else {
            return Some((ended, None));
        };
        match self.generations.get_mut(slot) {
            Some(generation) if generation.cause.is_none() => {
                generation.ended = Some(ended);
                None
            }
            _ => {
                let cause = self.remove_generation(slot).and_then(|generation| generation.cause);
                Some((ended, cause.flatten()))
            }
        }
    }

    /// Records that all journals have been read: [`Attributions::next_resolved`] is to be called
    /// next, until it returns `None`.
    pub(crate) fn all_read(&mut self) {
        self.readings = self.readings.saturating_add(1);
    }

    /// Finds the cause of the next generation whose cause can be found by now. Returns the
    /// generation if it has ended.
    pub(crate) fn next_resolved(&mut self) -> Option<Option<Resolved>> {
        let due = self
            .unresolved
            .first()
            .filter(|(reading, _)| reading.saturating_add(CAUSE_READINGS) <= self.readings);
        let &(_, slot) = due?;
        self.unresolved.pop_first();
        let started = self.generations.get(slot).map(|generation| &generation.started);
        let cause = started.and_then(|started| self.cause_of(started));
        let Some(generation) = self.generations.get_mut(slot) else { return Some(None) };
        let Some(ended) = generation.ended.take() else {
            generation.cause = Some(cause);
            return Some(None);
        };
        self.remove_generation(slot);
        Some(Some((ended, cause)))
    }

    /// Forgets the next call that ended so many readings ago that nothing that was written before can
    /// name it. Returns whether there was one.
    pub(crate) fn forget_late(&mut self) -> bool {
        self.forget_ended(LATE_READINGS)
    }

    /// The same after this many readings more.
    fn forget_ended(&mut self, late: u64) -> bool {
        let late = late.saturating_add(CAUSE_READINGS);
        let is_over = |(reading, _): &(u64, u32)| reading.saturating_add(late) < self.readings;
        let Some((_, slot)) = self.ended_calls.first().copied().filter(is_over) else {
            return false;
        };
        self.ended_calls.pop_first();
        self.remove_call(slot);
        true
    }

    /// Forgets calls and generations that should have ended long ago: their worker has died.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        while let Some(&(at, slot)) = self.call_due.first()
            && at <= now
        {
            self.ended_calls.retain(|(_, other)| *other != slot);
            self.remove_call(slot);
        }
        while let Some(&(at, slot)) = self.generation_due.first()
            && at <= now
        {
            self.generation_due.pop_first();
            // A generation that has ended only waits for its cause.
            if self.generations.get(slot).is_some_and(|generation| generation.ended.is_none()) {
                self.unresolved.retain(|(_, other)| *other != slot);
                self.remove_generation(slot);
            }
        }
    }

    /// Puts a call back that was read from shared data.
    pub(crate) fn restore_call(&mut self, slot: u32, call: Option<RunningCall>) {
        self.calls.restore(slot, call);
        self.index_call(slot);
    }

    /// Puts a generation back that was read from shared data.
    pub(crate) fn restore_generation(&mut self, slot: u32, generation: Option<RunningGeneration>) {
        self.generations.restore(slot, generation);
        self.index_generation(slot);
    }

    fn cause_of(&self, started: &GenerationStarted) -> Option<Cause> {
        let customer = started.customer.as_deref();
        let is_known = |call: &RunningCall| call.customer() != ANONYMOUS;
        // A client may also send on a trace that the filter made.
        let proofs = started.proof.iter().chain(&started.traces);
        let proven = self.known(&self.calls_by_proof, proofs, started.at);
        if !proven.is_empty() {
            // Who is known to be another customer does not spend this one's money.
            let is_theirs =
                |call: &&RunningCall| customer.is_none_or(|name| name == call.customer());
            return proven.iter().all(is_theirs).then(|| cause(&proven, Attribution::Trace))?;
        }
        let mut claimed = self.known(&self.calls_by_trace, &started.traces, started.at);
        claimed.retain(|call| call.is_running_at(started.at));
        match customer {
            Some(customer) => claimed.retain(|call| call.customer() == customer),
            None if claimed.iter().any(|call| is_known(call)) => claimed.clear(),
            None => {}
        }
        if !claimed.is_empty() {
            return cause(&claimed, Attribution::Trace);
        }
        if !started.may_infer || started.at < self.is_complete_from {
            return None;
        }
        let mut running = self.calls.iter().filter(|(_, call)| call.is_running_at(started.at));
        match (running.next(), running.next()) {
            (Some((_, only)), None) if customer.is_none_or(|name| name == only.customer()) => {
                cause(&[only], Attribution::Inferred)
            }
            _ => None,
        }
    }

    /// The calls with one of these ids that had started at `at`.
    fn known<'a>(
        &self,
        calls: &CallsById,
        ids: impl IntoIterator<Item = &'a TraceId>,
        at: Timestamp,
    ) -> Vec<&RunningCall> {
        let slots: BTreeSet<u32> =
            ids.into_iter().filter_map(|id| calls.get(id)).flatten().copied().collect();
        let calls = slots.into_iter().filter_map(|slot| self.calls.get(slot));
        calls.filter(|call| call.started.at <= at).collect()
    }

    fn index_call(&mut self, slot: u32) {
        let Some(call) = self.calls.get(slot) else { return };
        self.call_by_id.insert(call.started.call_id.clone(), slot);
        let CallStarted { proofs, traces, .. } = &call.started;
        for (calls, ids) in [(&mut self.calls_by_proof, proofs), (&mut self.calls_by_trace, traces)]
        {
            for id in ids {
                calls.entry(*id).or_default().insert(slot);
            }
        }
        self.call_due.insert((call.expires_at, slot));
        if call.ended_at.is_some() {
            self.ended_calls.insert((self.readings, slot));
        }
    }

    fn index_generation(&mut self, slot: u32) {
        let Some(generation) = self.generations.get(slot) else { return };
        self.generation_by_id.insert(generation.started.generation_id.clone(), slot);
        self.generation_due.insert((generation.expires_at, slot));
        if generation.cause.is_none() {
            self.unresolved.insert((self.readings, slot));
        }
    }

    fn remove_call(&mut self, slot: u32) {
        let Some(call) = self.calls.remove(slot) else { return };
        self.call_by_id.remove(&call.started.call_id);
        let CallStarted { proofs, traces, .. } = &call.started;
        for (calls, ids) in [(&mut self.calls_by_proof, proofs), (&mut self.calls_by_trace, traces)]
        {
            for id in ids {
                if let Some(slots) = calls.get_mut(id) {
                    slots.remove(&slot);
                    if slots.is_empty() {
                        calls.remove(id);
                    }
                }
            }
        }
        self.call_due.remove(&(call.expires_at, slot));
    }

    fn remove_generation(&mut self, slot: u32) -> Option<RunningGeneration> {
        let generation = self.generations.remove(slot)?;
        self.generation_by_id.remove(&generation.started.generation_id);
        self.generation_due.remove(&(generation.expires_at, slot));
        Some(generation)
    }
}

impl RunningCall {
    fn customer(&self) -> &str {
        &self.started.session.identity.customer
    }

    fn is_running_at(&self, at: Timestamp) -> bool {
        self.started.at <= at && self.ended_at.is_none_or(|ended_at| at <= ended_at)
    }
}

/// Returns the call, if there is only one. Otherwise returns what the calls share, their session or
/// their customer, with the product of the call that started first, because calls of several
/// products may share a session.
fn cause(running: &[&RunningCall], attribution: Attribution) -> Option<Cause> {
    let first = running.iter().min_by_key(|call| (call.started.at, &call.started.call_id))?;
    let session = first.started.session.clone();
    if running.len() == 1 {
        let call = Some((first.started.call_id.clone(), first.started.tool.clone()));
        return Some(Cause { attribution, session, is_customer_only: false, call });
    }
    let is_customer_only = running.iter().any(|call| call.started.session.key != session.key);
    let is_shared = !is_customer_only
        || (first.customer() != ANONYMOUS
            && running.iter().all(|call| call.customer() == first.customer()));
    let attribution = Attribution::None;
    is_shared.then_some(Cause { attribution, session, is_customer_only, call: None })
}
