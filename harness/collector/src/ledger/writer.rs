//! The connection that writes. Batches that wait for each other are written together: each in its
//! turn, all in one transaction, so that the disk is waited for once, and a page that several of them
//! change is written once.
//!
//! To the next maintainer. Whoever has had its turn leaves the transaction open if another batch
//! waits, and waits until one of the others has committed it; nothing is acknowledged before. If one
//! of them fails, the transaction is rolled back for all, and the others run again, each alone.
//! Whatever is no batch commits an open transaction first.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use rusqlite::{Connection, TransactionBehavior};

use crate::sql::{self, Transaction};

/// Events after which a transaction is committed although others wait: so many that waiting for the
/// disk hardly counts, and few enough for the memory for pages, and for whoever waits.
const EVENTS_MAX: usize = 4000;

/// The lock's data is sound after a panic: an open transaction has rolled back by then.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The connection that writes, and who waits for it.
pub(super) struct Writer {
    turn: Mutex<Turn>,
    /// Told when a group is settled.
    settled: Condvar,
    /// Batches that wait for their turn.
    waiting: AtomicUsize,
}

struct Turn {
    connection: Connection,
    /// Batches whose transaction is open.
    open: Option<Group>,
}

/// Whether a group was committed, once it is settled.
type Settled = Arc<OnceLock<bool>>;

struct Group {
    events: usize,
    result: Settled,
}

impl Writer {
    pub(super) fn new(connection: Connection) -> Writer {
        let turn = Mutex::new(Turn { connection, open: None });
        Writer { turn, settled: Condvar::new(), waiting: AtomicUsize::new(0) }
    }

    /// The connection, without an open transaction.
    pub(super) fn alone(&self) -> Alone<'_> {
        let mut turn = lock(&self.turn);
        // A failure is told to those whose batches are in it, and they try again.
        let _ = self.commit(&mut turn);
        Alone(turn)
    }

    /// Runs `work` in a transaction that is committed when this returns, with other batches or
    /// without. It runs again if another batch fails. `events` is how large it is.
    pub(super) fn together<T, E: From<sql::Error>>(
        &self,
        events: usize,
        mut work: impl FnMut(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut turn = lock(&self.turn);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        let (done, result) = {
            let mut unfinished = Unfinished { writer: self, turn: &mut turn, is_settled: false };
            unfinished.run(events, &mut work)?
        };
        if let Some(result) = result {
            while result.get().is_none() {
                turn = self.settled.wait(turn).unwrap_or_else(PoisonError::into_inner);
            }
            drop(turn);
            if result.get() != Some(&true) {
                return self.alone().write(|transaction| work(transaction));
            }
        }
        Ok(done)
    }

    fn commit(&self, turn: &mut Turn) -> rusqlite::Result<()> {
        let Some(group) = turn.open.take() else { return Ok(()) };
        let committed = turn.connection.execute_batch("COMMIT");
        if committed.is_err() {
            roll_back(&turn.connection);
        }
        self.settle(&group, committed.is_ok());
        committed
    }

    fn settle(&self, group: &Group, is_committed: bool) {
        // Nobody else has it: the group was open until now.
        let _ = group.result.set(is_committed);
        self.settled.notify_all();
    }
}

/// SQLite has rolled back by itself after some errors; then this fails, which does not matter.
fn roll_back(connection: &Connection) {
    let _ = connection.execute_batch("ROLLBACK");
}

/// A turn that rolls the transaction back unless it comes to its end, whether by an error or a panic.
struct Unfinished<'a, 'b> {
    writer: &'a Writer,
    turn: &'a mut MutexGuard<'b, Turn>,
    is_settled: bool,
}

impl Unfinished<'_, '_> {
    /// Returns what `work` did, and what to wait for if the transaction is left open.
    fn run<T, E: From<sql::Error>>(
        &mut self,
        events: usize,
        work: &mut impl FnMut(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<(T, Option<Settled>), E> {
        let turn = &mut **self.turn;
        if turn.open.is_none() {
            turn.connection.execute_batch("BEGIN IMMEDIATE").map_err(sql::Error::from)?;
        }
        let group = turn.open.get_or_insert_with(|| Group { events: 0, result: Arc::default() });
        group.events += events;
        let (is_full, result) = (group.events >= EVENTS_MAX, group.result.clone());
        let done = work(&Transaction::Sqlite(&turn.connection))?;
        self.is_settled = true;
        if !is_full && self.writer.waiting.load(Ordering::SeqCst) > 0 {
            return Ok((done, Some(result)));
        }
        self.writer.commit(turn).map_err(sql::Error::from)?;
        Ok((done, None))
    }
}

impl Drop for Unfinished<'_, '_> {
    fn drop(&mut self) {
        if self.is_settled {
            return;
        }
        if let Some(group) = self.turn.open.take() {
            roll_back(&self.turn.connection);
            self.writer.settle(&group, false);
        }
    }
}

/// The connection, for one who has it alone.
pub(super) struct Alone<'a>(MutexGuard<'a, Turn>);

impl Alone<'_> {
    /// Does all of `work` or nothing.
    pub(super) fn write<T, E: From<sql::Error>>(
        mut self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.0.connection.transaction_with_behavior(behavior);
        let transaction = transaction.map_err(sql::Error::from)?;
        let done = work(&Transaction::Sqlite(&transaction))?;
        transaction.commit().map_err(sql::Error::from)?;
        Ok(done)
    }

    /// Runs queries on one snapshot.
    pub(super) fn read<T>(
        mut self,
        work: impl FnOnce(&Transaction<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        work(&Transaction::Sqlite(&*self.0.connection.transaction()?))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::thread;

    use super::*;
    use crate::sql::values;

    fn writer() -> Writer {
        let connection = Connection::open_in_memory().expect("a database");
        connection.execute_batch("CREATE TABLE numbers (number INTEGER UNIQUE)").expect("a table");
        Writer::new(connection)
    }

    fn insert(ledger: &Transaction<'_>, number: u32) -> sql::Result<()> {
        ledger.execute("INSERT INTO numbers VALUES (?)", values![i64::from(number)]).map(drop)
    }

    fn numbers_of(connection: &Transaction<'_>) -> sql::Result<Vec<u32>> {
        let sql = "SELECT number FROM numbers ORDER BY number";
        connection.prepare_cached(sql)?.query_map(&[], |row| row.get(0))
    }

    fn numbers(writer: &Writer) -> Vec<u32> {
        writer.alone().read(|ledger| Ok(numbers_of(ledger)?)).expect("numbers")
    }

    /// Holds the writer until all others wait, so that they have their turns one after another.
    fn eight_at_once(writer: &Writer, work: impl Fn(u32) -> bool + Sync) -> Vec<bool> {
        let work = &work;
        let barrier = Barrier::new(2);
        thread::scope(|scope| {
            let holder = scope.spawn(|| {
                let mut is_first = true;
                let wait = |_: &Transaction<'_>| -> sql::Result<()> {
                    // It runs again if another fails.
                    if std::mem::take(&mut is_first) {
                        barrier.wait();
                        while writer.waiting.load(Ordering::SeqCst) < 8 {
                            thread::yield_now();
                        }
                    }
                    Ok(())
                };
                writer.together(1, wait).expect("the holder's");
            });
            barrier.wait();
            let all: Vec<_> = (0..8).map(|number| scope.spawn(move || work(number))).collect();
            let all = all.into_iter().map(|one| one.join().unwrap_or(false)).collect();
            holder.join().expect("the holder");
            all
        })
    }

    #[test]
    fn batches_that_wait_are_all_stored() {
        let writer = writer();
        let together = AtomicUsize::new(0);
        let stored = eight_at_once(&writer, |number| {
            let work = |connection: &Transaction<'_>| {
                // What was stored before this in the same transaction, nobody else sees yet.
                let stored = numbers_of(connection)?.len();
                together.fetch_max(stored, Ordering::SeqCst);
                insert(connection, number)
            };
            writer.together(1, work).is_ok()
        });
        assert_eq!(together.into_inner(), 7);
        assert_eq!(stored, [true; 8]);
        assert_eq!(numbers(&writer), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_batch_that_fails_or_panics_takes_no_other_with_it() {
        for panics in [false, true] {
            let writer = writer();
            let stored = eight_at_once(&writer, |number| {
                let work = |connection: &Transaction<'_>| {
                    insert(connection, number)?;
                    assert!(!panics || number != 3, "a panic");
                    if number == 3 { insert(connection, number) } else { Ok(()) }
                };
                writer.together(1, work).is_ok()
            });
            let expected: Vec<bool> = (0..8).map(|number| number != 3).collect();
            assert_eq!(stored, expected, "panics: {panics}");
            assert_eq!(numbers(&writer), [0, 1, 2, 4, 5, 6, 7], "panics: {panics}");
        }
    }

    #[test]
    fn whoever_needs_the_writer_alone_finds_no_open_transaction() {
        let writer = writer();
        let stored = eight_at_once(&writer, |number| {
            if number % 2 == 0 {
                return writer.together(1, |connection| insert(connection, number)).is_ok();
            }
            // Counts as one that waits, which the batches before it take for a batch.
            writer.waiting.fetch_add(1, Ordering::SeqCst);
            let alone = writer.alone();
            writer.waiting.fetch_sub(1, Ordering::SeqCst);
            alone.write(|connection| insert(connection, number)).is_ok()
        });
        assert_eq!(stored, [true; 8]);
        assert_eq!(numbers(&writer), (0..8).collect::<Vec<_>>());
    }

    #[test]
    fn a_large_batch_is_committed_although_others_wait() {
        let writer = writer();
        writer.waiting.fetch_add(1, Ordering::SeqCst);
        let done = writer.together(EVENTS_MAX, |connection| insert(connection, 1));
        assert!(done.is_ok() && lock(&writer.turn).open.is_none());
    }
}
