//! The records that a sink is about to send, in order, and which of them make the next request.
//!
//! When a receiver refuses a request without saying what is wrong in it, the line sends ever smaller
//! parts of it, until one record is left that it refuses alone.

use std::collections::VecDeque;

use crate::handover::sink::{Fate, Record};

/// Records in their order.
#[derive(Debug, Default)]
pub(super) struct Line {
    records: VecDeque<Record>,
    /// So many records at the front were refused together.
    suspects: usize,
}

/// What became of a request's records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// The positions of events of which the receiver has the last record.
    pub(super) taken: Vec<i64>,
    /// The positions of events of which it refused a record, and why.
    pub(super) refused: Vec<(i64, String)>,
}

impl Line {
    pub(super) fn new(records: Vec<Record>) -> Line {
        Line { records: records.into(), suspects: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The position of the first event of which a record is left.
    pub(super) fn first(&self) -> Option<i64> {
        self.records.front().map(|record| record.position)
    }

    /// The records of the next request: at most so many records and bytes, and at least one.
    pub(super) fn next(
        &mut self,
        records_max: usize,
        bytes_max: usize,
        between: usize,
    ) -> &[Record] {
        let most = match self.suspects {
            0 => records_max,
            suspects => records_max.min((suspects / 2).max(1)),
        };
        let mut bytes = 0;
        let fits = |record: &&Record| {
            bytes += record.body.len() + between;
            bytes <= bytes_max.saturating_add(between)
        };
        let count = self.records.iter().take(most).take_while(fits).count().max(1);
        self.records.make_contiguous().get(..count).unwrap_or_default()
    }

    /// The receiver refused the first `count` records together. Returns the record if it is alone.
    pub(super) fn refuse(&mut self, count: usize, reason: &str) -> Done {
        if count > 1 {
            self.suspects = count;
            return Done::default();
        }
        self.settle(vec![Fate::Refused(reason.to_owned())])
    }

    /// Takes the records at the front out that are done with; those to be sent again stay.
    pub(super) fn settle(&mut self, fates: Vec<Fate>) -> Done {
        let mut done = Done::default();
        let (mut again, mut taken) = (Vec::new(), Vec::new());
        let count = fates.len();
        for fate in fates {
            let Some(record) = self.records.pop_front() else { break };
            match fate {
                Fate::Taken => taken.push(record.position),
                Fate::Refused(reason) => done.refused.push((record.position, reason)),
                Fate::Again => again.push(record),
            }
        }
        self.suspects = match done.refused.is_empty() {
            true => self.suspects.saturating_sub(count),
            false => 0,
        };
        for record in again.into_iter().rev() {
            self.records.push_front(record);
        }
        taken.dedup();
        let left = |position: &i64| !self.records.iter().any(|record| record.position == *position);
        done.taken = taken.into_iter().filter(left).collect();
        done.refused.dedup_by_key(|(position, _)| *position);
        done
    }

    /// Takes all records out whose position is at most `to`, and returns their positions.
    pub(super) fn drop_to(&mut self, to: i64) -> Vec<i64> {
        let mut dropped = Vec::new();
        while let Some(record) = self.records.pop_front_if(|record| record.position <= to) {
            dropped.push(record.position);
        }
        dropped.dedup();
        self.suspects = 0;
        dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(count: usize) -> Line {
        let record = |index: usize| Record {
            position: i64::try_from(index).expect("small"),
            id: index.to_string(),
            body: "x".repeat(10),
        };
        Line::new((0..count).map(record).collect())
    }

    #[test]
    fn a_request_has_at_most_so_many_records_and_bytes() {
        for (records_max, bytes_max, expected) in
            [(3, 1000, 3), (100, 10, 1), (100, 21, 2), (100, 20, 1), (100, 1, 1), (100, 1000, 9)]
        {
            let found = line(9).next(records_max, bytes_max, 1).len();
            assert_eq!(found, expected, "{records_max} records, {bytes_max} bytes");
        }
    }

    #[test]
    fn one_wrong_record_is_found_wherever_it_stands() {
        for wrong in 0..100 {
            let (mut line, mut tries, mut refused) = (line(100), 0, Vec::new());
            while !line.is_empty() {
                tries += 1;
                let batch = line.next(100, 100_000, 1);
                let (count, is_wrong) = (batch.len(), batch.iter().any(|r| r.position == wrong));
                let done = match is_wrong {
                    true => line.refuse(count, "wrong"),
                    false => line.settle(vec![Fate::Taken; count]),
                };
                refused.extend(done.refused.into_iter().map(|(position, _)| position));
            }
            assert_eq!(refused, [wrong]);
            assert!(tries <= 16, "{tries} tries for {wrong}");
        }
    }
}
