//! A request that fetches the results of a batch: each is a generation of its own, and none is the
//! request's.

use crate::base::hash::hash;
use crate::base::limits::BATCH_RESULTS_PER_CHUNK_MAX;
use crate::base::time::Timestamp;
use crate::domain::ids::Link;
use crate::domain::names::escaped;
use crate::domain::price_factors::{ServiceTier, Word};
use crate::domain::session::SessionRef;
use crate::domain::usage::{Completeness, UsageSource};
use crate::exchange::kind::{BodyInterest, Observed};
use crate::exchange::link::generation_link;
use crate::exchange::llm::told::{bounded, named};
use crate::fact::Fact;
use crate::fact::generation::GenerationEnded;
use crate::host::counter::Counter;
use crate::protocol::llm::Route;
use crate::protocol::llm::batch::{Batch, BatchReader, BatchResult};
use crate::protocol::llm::provider::Provider;
use crate::wire::decode_budget::DecodeShare;
use crate::wire::http::{ResponseHead, is_success};

/// The results that one request fetches.
#[derive(Debug)]
pub(super) struct Results {
    batch: &'static Batch,
    /// Names what the request asks for.
    target: Link,
    reader: Option<BatchReader>,
}

impl Results {
    /// Those of a request to this path; `None` if it fetches none.
    pub(super) fn of(route: &Route, path: &str) -> Option<Box<Self>> {
        let batch = route.batch?;
        let seller = route.provider.seller.name();
        let target = hash(&[b"target", seller.as_bytes(), path.as_bytes()]);
        Some(Box::new(Self { batch, target, reader: None }))
    }

    pub(super) fn response_head(
        &mut self,
        head: &ResponseHead<'_>,
        share: &DecodeShare,
    ) -> BodyInterest {
        if !is_success(head.status) {
            return BodyInterest::None;
        }
        let mut reader = BatchReader::new(self.batch, head.coding, BATCH_RESULTS_PER_CHUNK_MAX);
        reader.limit(share);
        self.reader = Some(reader);
        BodyInterest::Bytes
    }

    /// Reports the results in the next bytes of the file.
    pub(super) fn read(
        &mut self,
        chunk: &[u8],
        fetch: &Fetch<'_>,
        now: Timestamp,
        observed: &mut Observed,
    ) {
        let Some(reader) = &mut self.reader else { return };
        reader.feed(chunk);
        let (results, left_out) = reader.take();
        let left_out = (0..left_out).map(|_| Counter::BatchResultsUnread);
        observed.counts.extend(left_out);
        for result in results {
            let generation = fetch.generation(result, self.target, now);
            observed.counts.push(Counter::Generations);
            observed.facts.push(Fact::Generation(Box::new(generation)));
        }
    }

    /// What counts at the end: whether the file could not be read.
    pub(super) fn ended(self) -> Option<Counter> {
        let is_broken = self.reader.is_some_and(|mut reader| reader.is_broken());
        is_broken.then_some(Counter::BatchResultsUnread)
    }
}

/// What all results of a request have in common.
pub(super) struct Fetch<'a> {
    pub(super) id: &'a str,
    pub(super) session: &'a SessionRef,
    pub(super) product_id: &'a str,
    pub(super) caused_by: Option<&'a (String, String)>,
    pub(super) provider: Provider,
    pub(super) location: Option<Word>,
    pub(super) http_status: u16,
    pub(super) started_at: Timestamp,
}

impl Fetch<'_> {
    /// The generation of a result. It is the one with its id, else the one at its place in the file.
    fn generation(&self, result: BatchResult, target: Link, now: Timestamp) -> GenerationEnded {
        let BatchResult { number, generation } = result;
        let completeness = generation.completeness(true).unwrap_or(Completeness::Missing);
        let mut units = generation.units;
        generation.look.qualify(&mut units);
        let link = match &generation.id {
            Some(id) => generation_link(self.provider.seller, id),
            None => hash(&[b"result", &target, &number.to_be_bytes()]),
        };
        GenerationEnded {
            generation_id: format!("{}.{number}", self.id),
            session: self.session.clone(),
            product_id: self.product_id.to_owned(),
            caused_by: self.caused_by.cloned(),
            provider: self.provider,
            model: generation.model.map(bounded).map(escaped),
            model_requested: None,
            models_in_doubt: Vec::new(),
            service_tier: ServiceTier::new("batch"),
            modifiers: generation.modifiers,
            location: self.location,
            is_thinking: generation.usage.reasoning.is_some_and(|tokens| tokens > 0),
            usage: generation.usage,
            is_inconsistent: generation.is_inconsistent || units.is_over_limit(),
            units,
            reported_cost: generation.reported_cost,
            completeness,
            is_estimated: false,
            may_go_on: false,
            further: generation.further.into_iter().map(named).collect(),
            source: UsageSource::Body,
            seen_as: Some((link, None)),
            correlation: None,
            is_of_batch: true,
            http_status: self.http_status,
            is_streamed: false,
            started_at: self.started_at,
            ended_at: now,
        }
    }
}
