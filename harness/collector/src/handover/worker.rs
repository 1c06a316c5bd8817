//! The task of a sink: reads what is new, sends it, and writes down what became of it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_blocking};

use crate::handover::config::{Configured, Pace, Sinks, Target};
use crate::handover::deliver::{self, Outcome};
use crate::handover::line::{Done, Line};
use crate::handover::prepare::{Prepared, prepare, reason};
use crate::handover::sink::{Fate, Token, Verdict};
use crate::handover::store;
use crate::http_client::{self, HttpClient, ms};
use crate::ledger::Ledger;
use crate::ledger::handover::{Mark, Page, Progress, SetAside, Settled};

/// How long to wait when the ledger fails.
const LEDGER_RETRY: Duration = Duration::from_secs(5);
/// So many events may be refused one after the other without a wait. A receiver that refuses more
/// probably wants something of the operator.
const REFUSED_RUN_MAX: u32 = 20;
/// The part of the time for which a receiver knows ids again that is left unused, for clocks that
/// differ and requests that are slow.
const DEDUP_SLACK: u32 = 24;

/// The tasks of all sinks. Dropped without `stop`, they end at once.
#[derive(Debug)]
pub(crate) struct Handovers {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Handovers {
    /// Goes on where each sink has come to.
    ///
    /// # Errors
    ///
    /// If the ledger fails, or if a sink needs https and this machine trusts no authority.
    pub(crate) async fn start(ledger: &Ledger, sinks: &Sinks) -> anyhow::Result<Handovers> {
        let (stop, stopped) = watch::channel(false);
        let is_secure = |sink: &Arc<Configured>| match &sink.target {
            Target::Http { url, .. } => {
                let token_url = sink.sink.token_url();
                url.scheme() == "https" || token_url.is_some_and(|url| url.starts_with("https"))
            }
            Target::File(_) => false,
        };
        let client = http_client::client(sinks.sinks.iter().any(is_secure), "sinks")?;
        let mut tasks = JoinSet::new();
        for sink in &sinks.sinks {
            let (ledger, client) = (ledger.clone(), client.clone());
            let worker = Worker::open(ledger, sink.clone(), client, sinks.pace);
            let worker = worker.await.with_context(|| format!("the sink {}", sink.name))?;
            tasks.spawn(worker.work(stopped.clone()));
        }
        Ok(Handovers { stop, tasks })
    }

    /// Writes down what became of the requests under way, begins no other, and ends.
    pub(crate) async fn stop(mut self) {
        // Without receivers the tasks have ended.
        let _ = self.stop.send(true);
        while self.tasks.join_next().await.is_some() {}
    }
}

struct Worker {
    ledger: Ledger,
    sink: Arc<Configured>,
    client: HttpClient,
    pace: Pace,
    progress: Progress,
    /// New events, which end at this position.
    new: Line,
    end: i64,
    /// Events that are sent once more.
    again: Line,
    /// Whether a request has ended without a word on whether it was taken.
    is_uncertain: bool,
    /// Tries that failed since the last that did not, and events refused since the last taken.
    failures: u32,
    refused_run: u32,
    /// Why the last try failed; `None` if it did not.
    error: Option<String>,
    /// When to go on, in milliseconds since 1970.
    due_ms: i64,
    token: Option<Token>,
}

impl Worker {
    async fn open(
        ledger: Ledger,
        sink: Arc<Configured>,
        client: HttpClient,
        pace: Pace,
    ) -> anyhow::Result<Worker> {
        let (opened, named) = (ledger.clone(), sink.clone());
        let open = move || store::open(&opened, &named.name, named.from_first);
        let progress = spawn_blocking(open).await??;
        Ok(Worker {
            ledger,
            sink,
            client,
            pace,
            progress,
            new: Line::default(),
            end: progress.position,
            again: Line::default(),
            // Whatever was under way when the last collector ended.
            is_uncertain: progress.mark.is_some(),
            failures: 0,
            refused_run: 0,
            error: None,
            due_ms: 0,
            token: None,
        })
    }

    async fn work(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let wait = match self.step().await {
                Ok(true) => Duration::ZERO,
                Ok(false) => self.pace.poll,
                Err(error) => {
                    tracing::error!(sink = self.sink.name, "ledger failed: {error:#}");
                    LEDGER_RETRY
                }
            };
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Sends one request if there is one to send now; false if there is none.
    async fn step(&mut self) -> anyhow::Result<bool> {
        let now_ms = self.ledger.now_ms();
        if now_ms < self.due_ms {
            return Ok(false);
        }
        self.fill().await?;
        if !self.again.is_empty() {
            self.send(true, now_ms).await?;
            return Ok(true);
        }
        if self.new.is_empty() {
            return Ok(false);
        }
        if self.drop_uncertain(now_ms).await? {
            return Ok(true);
        }
        self.send(false, now_ms).await?;
        Ok(true)
    }

    /// Reads events where none are left.
    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.again.is_empty() {
            let (ledger, name) = (self.ledger.clone(), self.sink.name.clone());
            let page = spawn_blocking(move || store::again(&ledger, &name)).await??;
            if !page.events.is_empty() {
                let (page, prepared) = self.prepare(page).await?;
                let positions = page.events.iter().map(|stored| stored.position);
                let left = |position: &i64| {
                    let is_it =
                        |record: &crate::handover::sink::Record| record.position == *position;
                    !prepared.records.iter().any(is_it)
                };
                let cleared = positions.filter(left).collect();
                self.again = Line::new(prepared.records);
                let set_aside = prepared.set_aside;
                self.settle(Settled { set_aside, cleared, ..Settled::default() }).await?;
            }
        }
        if !self.new.is_empty() {
            return Ok(());
        }
        let (ledger, after) = (self.ledger.clone(), self.progress.position);
        let page = spawn_blocking(move || store::page(&ledger, after)).await??;
        if page.end == after {
            return Ok(());
        }
        self.end = page.end;
        let (page, prepared) = self.prepare(page).await?;
        self.new = Line::new(prepared.records);
        if self.new.is_empty() || !prepared.set_aside.is_empty() || !page.held.is_empty() {
            let (set_aside, held) = (prepared.set_aside, page.held);
            self.settle(Settled { set_aside, held, ..Settled::default() }).await?;
        }
        Ok(())
    }

    async fn prepare(&self, page: Page) -> anyhow::Result<(Page, Prepared)> {
        let (ledger, sink, progress) = (self.ledger.clone(), self.sink.clone(), self.progress);
        let work = move || {
            let prepared = prepare(&ledger, &sink, &progress, &page.events)?;
            anyhow::Ok((page, prepared))
        };
        spawn_blocking(work).await?
    }

    /// Sets aside what may have been taken so long ago that the receiver would not know it again.
    async fn drop_uncertain(&mut self, now_ms: i64) -> anyhow::Result<bool> {
        let (Some(dedup), Some(mark)) = (self.sink.sink.limits().dedup, self.progress.mark) else {
            return Ok(false);
        };
        let ends_ms = mark.since_ms.saturating_add(ms(dedup - dedup / DEDUP_SLACK));
        if !self.is_uncertain || now_ms < ends_ms {
            return Ok(false);
        }
        let hours = dedup.as_secs() / 3600;
        let detail = format!(
            "first sent at {}, without an answer whether it was taken; the receiver knows ids for \
             {hours} h",
            crate::query::rfc3339(mark.since_ms)
        );
        let dropped = self.new.drop_to(mark.to).into_iter();
        let set_aside: Vec<SetAside> = dropped
            .map(|position| SetAside { position, state: reason::UNCERTAIN, detail: detail.clone() })
            .collect();
        tracing::error!(
            sink = self.sink.name,
            events = set_aside.len(),
            "set aside, perhaps taken: {detail}"
        );
        self.unmark();
        self.settle(Settled { set_aside, ..Settled::default() }).await?;
        Ok(true)
    }

    fn unmark(&mut self) {
        self.progress.mark = None;
        self.is_uncertain = false;
    }

    async fn send(&mut self, is_again: bool, now_ms: i64) -> anyhow::Result<()> {
        let (limits, frame) = (self.sink.sink.limits(), self.sink.sink.frame());
        let room = limits.bytes.saturating_sub(frame.bytes());
        let line = if is_again { &mut self.again } else { &mut self.new };
        let records = line.next(self.sink.records, room, frame.between.len()).to_vec();
        let (count, last) = (records.len(), records.last().map_or(0, |record| record.position));
        if limits.dedup.is_some() && !is_again {
            self.mark(last, now_ms).await?;
        }
        let outcome = deliver::send(&self.sink, &self.client, &mut self.token, records, now_ms);
        let Outcome { verdict, after } = outcome.await;
        let line = if is_again { &mut self.again } else { &mut self.new };
        let (done, unnamed) = match verdict {
            Verdict::Taken { unnamed } => (line.settle(vec![Fate::Taken; count]), unnamed),
            Verdict::Each(fates) => (line.settle(fates), 0),
            Verdict::Refused(why) => (line.refuse(count, &why), 0),
            Verdict::Later { reason, is_unsent } => {
                return self.failed(reason, is_unsent, last, after).await;
            }
            Verdict::Renew(reason) => return self.failed(reason, true, last, after).await,
        };
        self.failures = 0;
        self.error = None;
        self.done(is_again, done, unnamed).await
    }

    /// Writes down that these events may arrive from now on, unless that is written already.
    async fn mark(&mut self, last: i64, now_ms: i64) -> anyhow::Result<()> {
        if self.progress.mark.is_some_and(|mark| mark.to >= last) {
            return Ok(());
        }
        let mark = match self.progress.mark.filter(|_| self.is_uncertain) {
            Some(mark) => Mark { to: last, ..mark },
            None => Mark { to: self.end, since_ms: now_ms },
        };
        self.progress.mark = Some(mark);
        self.settle(Settled::default()).await
    }

    async fn done(&mut self, is_again: bool, done: Done, unnamed: u64) -> anyhow::Result<()> {
        if !done.taken.is_empty() {
            self.refused_run = 0;
        }
        let refused = u32::try_from(done.refused.len()).unwrap_or(u32::MAX);
        self.refused_run = self.refused_run.saturating_add(refused);
        if refused > 0 && self.refused_run > REFUSED_RUN_MAX {
            self.wait(self.refused_run - REFUSED_RUN_MAX, None);
        }
        for (position, why) in &done.refused {
            tracing::warn!(sink = self.sink.name, position, why, "set aside");
        }
        let set_aside: Vec<SetAside> = done
            .refused
            .into_iter()
            .map(|(position, detail)| SetAside { position, state: reason::REFUSED, detail })
            .collect();
        let (handed, cleared) = (done.taken.len(), if is_again { done.taken } else { Vec::new() });
        self.settle(Settled { handed, unnamed, set_aside, cleared, ..Settled::default() }).await
    }

    async fn failed(
        &mut self,
        why: String,
        is_unsent: bool,
        last: i64,
        after: Option<Duration>,
    ) -> anyhow::Result<()> {
        self.failures = self.failures.saturating_add(1);
        tracing::info!(sink = self.sink.name, failures = self.failures, why, "not taken yet");
        self.wait(self.failures, after);
        if let (Some(mark), false) = (self.progress.mark, self.is_uncertain) {
            self.progress.mark = (!is_unsent).then_some(Mark { to: last, ..mark });
            self.is_uncertain = !is_unsent;
        }
        self.error = Some(why);
        self.settle(Settled { failures: 1, ..Settled::default() }).await
    }

    /// Puts off the next request: twice as long for each failure, a part of it by chance, and not
    /// before the receiver wants it.
    fn wait(&mut self, failures: u32, after: Option<Duration>) {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        let longest = ms(self.pace.first.saturating_mul(factor).min(self.pace.most));
        let chance = RandomState::new().build_hasher().finish() % 1000;
        let backoff = longest / 2 + longest / 2 * chance.cast_signed() / 1000;
        let wait = backoff.max(after.map_or(0, ms));
        self.due_ms = self.ledger.now_ms().saturating_add(wait);
    }

    /// Writes down what a step has come to, with how far the sink is.
    async fn settle(&mut self, mut settled: Settled) -> anyhow::Result<()> {
        self.progress.position = match self.new.first() {
            Some(first) => first - 1,
            None => self.end,
        };
        if self.progress.mark.is_some_and(|mark| mark.to <= self.progress.position) {
            self.unmark();
        }
        settled.position = self.progress.position;
        settled.mark = self.progress.mark;
        settled.error = self.error.clone();
        let (ledger, name) = (self.ledger.clone(), self.sink.name.clone());
        spawn_blocking(move || store::settle(&ledger, &name, &settled)).await?
    }
}
