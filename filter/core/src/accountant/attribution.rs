//! Which tool call caused a generation. The two are seen on different streams, maybe by different workers, and told
//! of in any order.
//!
//! A generation belongs to the call that names one of its traces and was running when it was asked for. If several
//! were, it belongs to none of them, but to their session if they share one. Where the application does not pass the
//! trace on, the product may let it belong to the only call that was running in this Envoy at that moment.
//!
//! To the next maintainer: a worker tells of a call's start before the call goes on to the server, so whatever started
//! before a generation is in some journal when the generation's start is; it is found for certain once all journals
//! have been read one more time. Times of different workers are comparable: they are one host's clock.

use std::collections::{BTreeSet, HashMap};

use serde::{Deserialize, Serialize};

use crate::base::limits::{CAUSE_READINGS, RUNNING_CALLS_MAX, RUNNING_GENERATIONS_MAX};
use crate::base::time::{Millis, Timestamp};
use crate::domain::ids::TraceId;
use crate::domain::session::SessionRef;
use crate::fact::call::CallStarted;
use crate::fact::generation::{Attribution, GenerationEnded, GenerationStarted};
use crate::shared_data::slots::Slots;

/// What caused a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// How it is known.
    pub attribution: Attribution,
    /// The session of the call or calls.
    pub session: SessionRef,
    /// The call and its tool, if it is one.
    pub call: Option<(String, String)>,
}

/// A call that generations may belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCall {
    started: CallStarted,
    ended_at: Option<Timestamp>,
    /// It is forgotten then, if its end is never told.
    expires_at: Timestamp,
}

/// A generation that runs, or waits for its cause to be found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningGeneration {
    started: GenerationStarted,
    expires_at: Timestamp,
    /// Whether its cause has been looked for, and what it is.
    cause: Option<Option<Cause>>,
    ended: Option<Box<GenerationEnded>>,
}

/// Everything that runs and may have to be joined.
#[derive(Clone, Debug, Default)]
pub struct Attributions {
    /// The calls, in slots of shared data.
    pub calls: Slots<RunningCall>,
    /// The generations, in slots of shared data.
    pub generations: Slots<RunningGeneration>,
    call_by_id: HashMap<String, u32>,
    generation_by_id: HashMap<String, u32>,
    call_by_trace: HashMap<TraceId, BTreeSet<u32>>,
    call_due: BTreeSet<(Timestamp, u32)>,
    generation_due: BTreeSet<(Timestamp, u32)>,
    /// How often all journals have been read.
    readings: u64,
    /// Calls that have ended, and the reading in which that was told.
    ended_calls: BTreeSet<(u64, u32)>,
    /// Generations whose cause is to be looked for, and the reading in which their start was told.
    unresolved: BTreeSet<(u64, u32)>,
    /// Until then, calls may run that are not in the table: nothing can be inferred from it.
    is_complete_from: Timestamp,
}

impl Attributions {
    /// A call runs. `false` if there is no room for it.
    pub fn call_started(&mut self, started: CallStarted, time_max: Millis) -> bool {
        let expires_at = started.at.plus(time_max);
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

    /// A call has ended.
    pub fn call_ended(&mut self, call_id: &str, at: Timestamp) {
        let Some(&slot) = self.call_by_id.get(call_id) else { return };
        if let Some(call) = self.calls.get_mut(slot)
            && call.ended_at.is_none()
        {
            call.ended_at = Some(at);
            self.ended_calls.insert((self.readings, slot));
        }
    }

    /// A call turns out to belong to another session than its request told.
    pub fn call_belongs_to(&mut self, call_id: &str, session: &SessionRef) {
        let Some(&slot) = self.call_by_id.get(call_id) else { return };
        if self.calls.get(slot).is_some_and(|call| call.started.session != *session)
            && let Some(call) = self.calls.get_mut(slot)
        {
            call.started.session = session.clone();
        }
    }

    /// A generation has been asked for. `false` if there is no room for it.
    pub fn generation_started(&mut self, started: GenerationStarted, time_max: Millis) -> bool {
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

    /// A generation has ended. Gives it back with its cause, unless that is still to be found: then
    /// [`Attributions::all_read`] gives it later.
    pub fn generation_ended(
        &mut self,
        ended: Box<GenerationEnded>,
    ) -> Option<(Box<GenerationEnded>, Option<Cause>)> {
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

    /// All journals have been read: finds causes that can be found now, and gives the generations that have ended
    /// meanwhile.
    pub fn all_read(&mut self) -> Vec<(Box<GenerationEnded>, Option<Cause>)> {
        self.readings = self.readings.saturating_add(1);
        let mut ended = Vec::new();
        while let Some(&(reading, slot)) = self.unresolved.first()
            && reading.saturating_add(CAUSE_READINGS) <= self.readings
        {
            self.unresolved.pop_first();
            let started = self.generations.get(slot).map(|generation| &generation.started);
            let cause = started.and_then(|started| self.cause_of(started));
            let Some(generation) = self.generations.get_mut(slot) else { continue };
            match generation.ended.take() {
                None => generation.cause = Some(cause),
                Some(told) => {
                    ended.push((told, cause));
                    self.remove_generation(slot);
                }
            }
        }
        while let Some(&(reading, slot)) = self.ended_calls.first()
            && reading.saturating_add(CAUSE_READINGS) < self.readings
        {
            self.ended_calls.pop_first();
            self.remove_call(slot);
        }
        ended
    }

    /// Forgets what should have ended long ago: its worker has died.
    pub fn expire(&mut self, now: Timestamp) {
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
            // One that has ended is only waiting for its cause.
            if self.generations.get(slot).is_some_and(|generation| generation.ended.is_none()) {
                self.unresolved.retain(|(_, other)| *other != slot);
                self.remove_generation(slot);
            }
        }
    }

    /// Puts a call back that was read from shared data.
    pub fn restore_call(&mut self, slot: u32, call: Option<RunningCall>) {
        self.calls.restore(slot, call);
        self.index_call(slot);
    }

    /// Puts a generation back that was read from shared data.
    pub fn restore_generation(&mut self, slot: u32, generation: Option<RunningGeneration>) {
        self.generations.restore(slot, generation);
        self.index_generation(slot);
    }

    fn cause_of(&self, started: &GenerationStarted) -> Option<Cause> {
        let slots: BTreeSet<u32> = started
            .traces
            .iter()
            .filter_map(|trace| self.call_by_trace.get(trace))
            .flatten()
            .copied()
            .collect();
        let traced = slots.into_iter().filter_map(|slot| self.calls.get(slot));
        let running: Vec<&RunningCall> =
            traced.filter(|call| call.is_running_at(started.at)).collect();
        if !running.is_empty() {
            return cause(&running, Attribution::Trace);
        }
        if !started.may_infer || started.at < self.is_complete_from {
            return None;
        }
        let mut running = self.calls.iter().filter(|(_, call)| call.is_running_at(started.at));
        match (running.next(), running.next()) {
            (Some((_, only)), None) => cause(&[only], Attribution::Inferred),
            _ => None,
        }
    }

    fn index_call(&mut self, slot: u32) {
        let Some(call) = self.calls.get(slot) else { return };
        self.call_by_id.insert(call.started.call_id.clone(), slot);
        for trace in &call.started.traces {
            self.call_by_trace.entry(*trace).or_default().insert(slot);
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
        for trace in &call.started.traces {
            if let Some(slots) = self.call_by_trace.get_mut(trace) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.call_by_trace.remove(trace);
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
    fn is_running_at(&self, at: Timestamp) -> bool {
        self.started.at <= at && self.ended_at.is_none_or(|ended_at| at <= ended_at)
    }
}

/// The call, if it is one; else the session, if it is one, by the product of the call that started first: calls of
/// several products may share a session.
fn cause(running: &[&RunningCall], attribution: Attribution) -> Option<Cause> {
    let first = running.iter().min_by_key(|call| (call.started.at, &call.started.call_id))?;
    let session = first.started.session.clone();
    if running.len() == 1 {
        let call = Some((first.started.call_id.clone(), first.started.tool.clone()));
        return Some(Cause { attribution, session, call });
    }
    let is_shared = running.iter().all(|call| call.started.session.key == session.key);
    is_shared.then_some(Cause { attribution: Attribution::None, session, call: None })
}
