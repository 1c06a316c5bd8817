//! The pieces of a round, in order: first all facts, then what has waited until all were read.

use crate::accountant::Accountant;
use crate::accountant::pending_ends::PendingEnd;
use crate::accountant::round::{Piece, Stage};
use crate::base::time::Timestamp;
use crate::host::Host;
use crate::host::counter::Counter;
use crate::session::CloseReason;

impl Accountant {
    /// Begins a round, unless one is under way.
    pub(super) fn begin_round(&mut self, now: Timestamp) {
        if self.round.begin(now) {
            self.ends.reading_begins();
        }
    }

    /// Does the next piece of the round that is under way. If the round is over with it: returns up
    /// to when everything that workers have written is known.
    pub(super) fn work(&mut self, host: &mut impl Host, now: Timestamp) -> Option<Timestamp> {
        let mut piece = self.round.piece();
        if self.round.stage == Stage::Reading && self.read(host, &mut piece, now) {
            self.round.stage = Stage::Settling;
        }
        let until = self.round.began_at;
        if self.round.stage != Stage::Settling || !self.do_waiting(host, &mut piece, until, now) {
            return None;
        }
        self.guard_all_read(host, now);
        self.round.stage = Stage::Over;
        Some(until)
    }

    /// Folds the facts of the next pages. Returns whether all journals have been read.
    fn read(&mut self, host: &mut impl Host, piece: &mut Piece, now: Timestamp) -> bool {
        let poll = self.journals.poll(host, &self.prefix, piece.left);
        piece.spend(poll.facts.len());
        for fact in poll.facts {
            self.fold(host, &fact, now);
        }
        if poll.is_complete {
            self.attributions.all_read();
        }
        self.round.is_drained = poll.is_drained;
        poll.is_complete
    }

    /// Does what has waited until everything was read that workers had written by `until`. What
    /// happened later may not have been read. Returns whether nothing is left.
    fn do_waiting(
        &mut self,
        host: &mut impl Host,
        piece: &mut Piece,
        until: Timestamp,
        now: Timestamp,
    ) -> bool {
        if piece.has_room() {
            self.match_updates(host, until, now);
        }
        while piece.has_room()
            && let Some(resolved) = self.attributions.next_resolved()
        {
            piece.spend(1);
            if let Some((generation, cause)) = resolved {
                self.fold_generation(host, generation, cause, now);
            }
        }
        while piece.has_room() && self.attributions.forget_late() {
            piece.spend(1);
        }
        while piece.has_room()
            && let Some(end) = self.ends.next_due(now)
        {
            piece.spend(1);
            self.end_session(host, &end, now);
        }
        while piece.has_room()
            && let Some(join) = self.joins.take_expired(until)
        {
            piece.spend(1);
            self.fold_call(host, &join.call.unanswered(), now);
        }
        while piece.has_room()
            && let Some(estimate) = self.estimates.take_expired(until)
        {
            piece.spend(1);
            self.bill_estimate(host, estimate, now);
        }
        // The rest stays due at the same time, and a later round handles it.
        while piece.has_room() && self.round.due_left > 0 && self.next_due(host, until, now) {
            piece.spend(1);
            self.round.due_left = self.round.due_left.saturating_sub(1);
        }
        if piece.has_room() {
            self.attributions.expire(until);
            host.count(Counter::EvidenceUnused, self.evidence.drop_expired(until));
        }
        piece.has_room()
    }

    fn end_session(&mut self, host: &mut impl Host, end: &PendingEnd, now: Timestamp) {
        let PendingEnd { session, reason, .. } = end;
        let product = self.product(host, session);
        match self.sessions.find(session, &product.pricing.currency) {
            Some(slot) => self.close(host, slot, CloseReason::Ended(*reason), now, now),
            // The session had no calls, or is already closed.
            None => host.count(Counter::SessionEndUnused, 1),
        }
    }
}
