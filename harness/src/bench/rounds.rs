//! The measured rounds: in each, every listener gets the same calls, in shuffled order.

use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};

use super::cpu::CpuTime;
use super::load::Load;
use super::report::Slice;
use super::servers::{Received, Told};
use super::stats::{Random, percentile};
use super::variant::Variant;
use super::{Bench, SEED};
use crate::wait;

const DELIVERY_LIMIT: Duration = Duration::from_secs(30);

/// The measured rounds; `loads` has the order of `variants`.
#[derive(Debug)]
pub(super) struct Rounds {
    /// Envoy's process.
    pub(super) envoy: u32,
    /// The external processor's process.
    pub(super) processor: Option<u32>,
    pub(super) received: Received,
    pub(super) variants: Vec<Variant>,
    pub(super) loads: Vec<Load>,
}

impl Rounds {
    /// How many calls it has sent to the listeners that are asked for.
    pub(super) fn sent(&self, is_asked: impl Fn(Variant) -> bool) -> u32 {
        let loads = self.variants.iter().zip(&self.loads);
        loads.filter(|(variant, _)| is_asked(**variant)).map(|(_, load)| load.sent()).sum()
    }

    /// How many calls it has sent of which a collector is told this.
    pub(super) fn told(&self, of: Told) -> u32 {
        self.sent(|variant| variant.tells() == Some(of))
    }

    /// Plays all rounds; returns the slices of each variant, in the order of the rounds.
    pub(super) async fn play(&mut self, bench: &Bench) -> anyhow::Result<Vec<Vec<Slice>>> {
        let mut slices = vec![Vec::new(); self.variants.len()];
        let mut order: Vec<usize> = (0..slices.len()).collect();
        let mut random = Random(SEED);
        let progress = progress(bench, self.variants.len());
        for round in 0..=bench.rounds {
            random.shuffle(&mut order);
            for &place in &order {
                progress.set_message(self.variants[place].name());
                let slice = self.slice(place, bench.requests).await;
                let slice = slice.with_context(|| self.variants[place].name())?;
                // The first round warms up connections, compilers and caches.
                if round > 0 {
                    slices[place].push(slice);
                }
                progress.inc(1);
            }
        }
        progress.finish_and_clear();
        Ok(slices)
    }

    async fn slice(&mut self, place: usize, requests: u32) -> anyhow::Result<Slice> {
        let load = &mut self.loads[place];
        let latencies = load.latencies(requests).await?;
        self.delivered(place).await?;

        let before = self.used(place)?;
        self.loads[place].send(requests).await?;
        self.delivered(place).await?;
        let after = self.used(place)?;
        let (used, processor) = (after.0.since(before.0), after.1.since(before.1));

        let us = |time: Duration| time.as_secs_f64() * 1e6;
        let each = |time: Duration| us(time) / f64::from(requests);
        let at = |percent| us(percentile(&latencies, percent).unwrap_or_default());
        Ok(Slice {
            cpu_us: each(used.total),
            processor_us: each(processor.total),
            workers_us: each(used.workers),
            user_us: each(used.user),
            p50_us: at(50),
            p99_us: at(99),
        })
    }

    /// What Envoy has used, and the external processor where calls go through it.
    fn used(&self, place: usize) -> anyhow::Result<(CpuTime, CpuTime)> {
        let processor = self.processor.filter(|_| self.variants[place] == Variant::ExtProc);
        let processor = processor.map(CpuTime::of).transpose()?.unwrap_or_default();
        Ok((CpuTime::of(self.envoy)?, processor))
    }

    /// Waits until a collector knows of every call to this listener, so that nothing is delivered in the
    /// next slice.
    async fn delivered(&self, place: usize) -> anyhow::Result<()> {
        let Some(told) = self.variants[place].tells() else { return Ok(()) };
        let sent = usize::try_from(self.told(told))?;
        wait::until(DELIVERY_LIMIT, "every call has its event", async || {
            let received = self.received.told(told);
            ensure!(received >= sent, "{received} events for {sent} calls");
            Ok(())
        })
        .await
    }
}

/// A progress bar, on a terminal only.
fn progress(bench: &Bench, variants: usize) -> ProgressBar {
    let slices = (u64::from(bench.rounds) + 1) * u64::try_from(variants).unwrap_or(u64::MAX);
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} (eta {eta})");
    ProgressBar::new(slices).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
