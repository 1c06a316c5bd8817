//! What a part of the benchmark needs around Envoy: an upstream, a collector that counts, and where it keeps
//! its files.

use anyhow::ensure;

use super::Bench;
use super::listeners::Listeners;
use super::messages::Scenario;
use super::processor::Processor;
use super::servers::{self, Received, Server};
use crate::envoy::{self, Program};
use crate::stack::WorkDir;

/// The servers of one part and the listeners in front of them; they stop when it is dropped.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) program: Program,
    pub(super) listeners: Listeners,
    pub(super) received: Received,
    /// The external processor, of parts that compare it.
    pub(super) processor: Option<Processor>,
    pub(super) dir: WorkDir,
    _upstream: Server,
    _collector: Server,
}

impl Rig {
    /// Starts the servers; the upstream answers in this format.
    pub(super) async fn start(bench: &Bench, scenario: Scenario) -> anyhow::Result<Self> {
        let program = envoy::find().await?;
        // With Docker, the measured process would be Docker's client.
        ensure!(program != Program::Docker, "bench needs an Envoy binary: set ENVOY_BIN");
        let dir = WorkDir::create()?;
        let upstream = servers::upstream(scenario).await?;
        let (collector, received) = servers::collector().await?;
        let listeners = Listeners::of(bench, upstream.addr, collector.addr, dir.path())?;
        let (_upstream, _collector) = (upstream, collector);
        Ok(Self { program, listeners, received, processor: None, dir, _upstream, _collector })
    }

    /// The same with this external processor, so that there is a listener for it.
    pub(super) fn with(mut self, processor: Processor) -> Self {
        self.listeners.processor = Some(processor.addr);
        self.processor = Some(processor);
        self
    }
}
