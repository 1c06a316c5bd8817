//! Finds the call that an answer on another stream is for. It does so once all journals have been
//! read up to the time of the answer: by then it is known which answers were used on their own
//! streams before.

use crate::accountant::Accountant;
use crate::accountant::fold::Activity;
use crate::accountant::joins::Join;
use crate::base::limits::{EVIDENCE_SLACK_MS, JOINS_MAX};
use crate::base::time::{Millis, Timestamp};
use crate::domain::status::ExecutionStatus;
use crate::fact::call::{AnswerKind, CallEnded, CallOpen, CallUpdate, Observation};
use crate::host::Host;
use crate::host::counter::Counter;

impl Accountant {
    /// Lets a call wait for updates from other streams.
    pub(super) fn fold_open(&mut self, host: &mut impl Host, open: CallOpen, now: Timestamp) {
        let CallOpen { call, links, expires_at } = open;
        let slot = self.open(host, &call.session, call.started_at, now);
        self.touch(host, slot, Activity::Call, call.ended_at, now);
        self.lives(&call);
        self.attributions.call_belongs_to(&call.call_id, &call.session);
        if self.joins.len() >= JOINS_MAX {
            self.match_updates(host, now, now);
        }
        if self.joins.len() >= JOINS_MAX
            && let Some(oldest) = self.joins.take_for(&call)
        {
            host.count(Counter::JoinsOverLimit, 1);
            self.fold_call(host, &oldest.call.unanswered(), now);
        }
        self.joins.insert(Join { call, links, expires_at });
        self.evidence.look_again();
    }

    /// Keeps an update for its call.
    pub(super) fn fold_update(&mut self, host: &mut impl Host, update: CallUpdate, now: Timestamp) {
        // The call's own stream may stay open this long before a worker reports how the call ended.
        let waits = self.configurations.all().flat_map(|config| &config.products);
        let waits = waits.map(|product| product.call_timeout.millis().0);
        // What can end no call is not kept for so long.
        let is_of_other = update.answer.is_some_and(|answer| answer.kind == AnswerKind::OfOther);
        let wait = waits.max().filter(|_| !is_of_other).unwrap_or_default();
        let wait = wait.saturating_add(EVIDENCE_SLACK_MS);
        let dropped = self.evidence.keep(update, Millis(wait), now);
        host.count(Counter::EvidenceUnused, dropped);
    }

    /// Applies the updates of workers up to `until` whose calls are known.
    pub(super) fn match_updates(&mut self, host: &mut impl Host, until: Timestamp, now: Timestamp) {
        let Some(mut held) = self.evidence.take_new(until) else { return };
        let all = held.len();
        // An update may make a task of a call, which earlier ones are about.
        while held
            .retain(|held| held.update.at > until || !self.is_update_used(host, &held.update, now))
            > 0
        {}
        let are_some_used = held.len() != all;
        self.evidence.put_back(held, are_some_used);
    }

    /// Applies an update, if it can be. Returns whether nothing is left of it.
    fn is_update_used(
        &mut self,
        host: &mut impl Host,
        update: &CallUpdate,
        now: Timestamp,
    ) -> bool {
        let CallUpdate { links, at, answer, .. } = update;
        if let Some(answer) = answer {
            let is_for_call = answer.kind == AnswerKind::OfCall;
            let other = if is_for_call { None } else { self.evidence.take_other(links, *at) };
            if let Some(link) = other {
                self.evidence.used_elsewhere(link, answer.look, *at);
                return true;
            }
            if self.evidence.is_same_event(links, answer.look) {
                host.count(Counter::EvidenceUnused, 1);
                return true;
            }
            if answer.kind == AnswerKind::OfOther {
                // Its request's own stream may not have ended yet.
                return false;
            }
        }
        let evidence = &self.evidence;
        let is_own = |call: &CallEnded| {
            answer.is_none_or(|answer| !evidence.is_repeat(links, answer.look, call.started_at))
        };
        let found = links
            .iter()
            .find_map(|link| self.joins.take(link, *at, is_own).map(|join| (*link, join)));
        let Some((link, join)) = found else {
            // If a call has ended, it does not matter that its task is still alive.
            return matches!(update.observation, Observation::Alive { .. });
        };
        if let Some(answer) = answer {
            self.evidence.used_elsewhere(link, answer.look, *at);
        }
        if let Some(waiting) = self.apply(host, join, update, now) {
            self.joins.insert(waiting);
        }
        true
    }

    /// Applies an update to a call. Returns the call if it still waits.
    fn apply(
        &mut self,
        host: &mut impl Host,
        mut join: Join,
        update: &CallUpdate,
        now: Timestamp,
    ) -> Option<Join> {
        match update.observation.clone() {
            Observation::Ended { status, http_status, transport, receipt } => {
                let ended_at = update.at.max(join.call.started_at);
                let call = CallEnded { status, http_status, transport, ended_at, ..join.call };
                let call = call.settled_by(receipt.map(|receipt| *receipt));
                self.fold_call(host, &call, now);
                None
            }
            Observation::BecameTask(link) => {
                join.links = vec![link];
                join.call.status = ExecutionStatus::Pending;
                Some(join)
            }
            Observation::Alive { expires_at } => {
                join.expires_at = join.expires_at.max(expires_at);
                Some(join)
            }
            Observation::Cancelled => {
                // A response may still arrive, and then decides the outcome.
                join.call.status = ExecutionStatus::Cancelled;
                Some(join)
            }
        }
    }
}
