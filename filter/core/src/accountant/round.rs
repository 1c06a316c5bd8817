//! A round: the accountant reads all journals once, and then does what has waited for that. It works
//! in pieces, and between two of them its thread serves others: Envoy's main thread, or streams
//! where the accountant is a worker's VM. Each piece is committed, so a VM that dies between two of
//! them leaves what any accountant can go on from.

use crate::base::limits::{DUE_PER_TICK_MAX, PIECE_MAX};
use crate::base::time::Timestamp;

/// The round that is under way, or the last one.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) stage: Stage,
    /// When its reading of all journals began. Everything that workers had written by then has been
    /// read when the reading is complete.
    pub(super) began_at: Timestamp,
    /// Whether its last piece left nothing in the journals.
    pub(super) is_drained: bool,
    /// What a piece does at most, and the least that this may be.
    piece: usize,
    piece_min: usize,
    /// Sessions that may still become idle or time out in it.
    pub(super) due_left: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Reading,
    /// All journals have been read.
    Settling,
    Over,
}

impl Round {
    /// None yet. Pieces have this size, and a larger one while that is too little.
    pub(super) fn new(piece: usize) -> Self {
        let (began_at, is_drained) = (Timestamp::default(), false);
        let piece = piece.clamp(1, PIECE_MAX);
        Self { stage: Stage::Over, began_at, is_drained, piece, piece_min: piece, due_left: 0 }
    }

    /// Begins a round, unless one is under way: then larger pieces are needed to be done in time.
    /// Returns whether it has begun one.
    pub(super) fn begin(&mut self, now: Timestamp) -> bool {
        if self.is_under_way() {
            self.piece = self.piece.saturating_mul(2).min(PIECE_MAX);
            return false;
        }
        self.stage = Stage::Reading;
        self.began_at = now;
        self.piece = (self.piece / 2).max(self.piece_min);
        self.due_left = DUE_PER_TICK_MAX;
        true
    }

    /// Lets no session become idle or time out in it.
    pub(super) fn leave_due(&mut self) {
        self.due_left = 0;
    }

    /// Whether something is left of it.
    pub(super) fn is_under_way(&self) -> bool {
        self.stage != Stage::Over
    }

    /// What the next piece may do.
    pub(super) fn piece(&self) -> Piece {
        Piece { left: self.piece }
    }
}

/// What a piece may still do.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) left: usize,
}

impl Piece {
    pub(super) fn has_room(&self) -> bool {
        self.left > 0
    }

    pub(super) fn spend(&mut self, units: usize) {
        self.left = self.left.saturating_sub(units);
    }
}
