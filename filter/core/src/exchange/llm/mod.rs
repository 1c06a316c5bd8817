//! A request that makes a generation of a large language model, or asks for one, and its response.
//!
//! To the next maintainer: a generation is told of once, when its response has ended, whatever came of it. What a
//! provider refuses with an HTTP error and without usage was no generation; what it works on in the background is one
//! only when a later response tells of it.

pub(super) mod ask_for_usage;

use std::rc::Rc;

use crate::admission::head::RequestHead;
use crate::admission::session::{Rung, session_ref};
use crate::base::limits::{BYTES_PER_TOKEN, VALUE_BYTES_MAX};
use crate::base::time::Timestamp;
use crate::config::product::{Product, ProductType};
use crate::config::{IncompleteUsage, LlmRules};
use crate::domain::identity::Identity;
use crate::domain::ids::TraceId;
use crate::domain::session::SessionRef;
use crate::domain::usage::{Completeness, Usage, UsageSource};
use crate::exchange::link::generation_link;
use crate::exchange::llm::ask_for_usage::{UsageAsker, UsageRemover};
use crate::exchange::observed::{Asked, Observed};
use crate::fact::Fact;
use crate::fact::generation::{GenerationEnded, GenerationStarted};
use crate::guard::refusal::Refusal;
use crate::host::counter::Counter;
use crate::protocol::llm::provider::{agent_run, conversation_in, route, takes_stream_options};
use crate::protocol::llm::{
    Generation, RequestReader, Requested, ResponseReader, Route, read_token_usage,
};
use crate::protocol::trace_context::traces_of;
use crate::wire::boundary::Unit;
use crate::wire::encoding::ContentCoding;
use crate::wire::http::Headers;
use crate::wire::media_type::MediaType;

/// One such HTTP stream.
#[derive(Debug)]
pub struct LlmExchange {
    id: String,
    /// The call that this is, where it is one, and its tool.
    caused_by: Option<(String, String)>,
    product: Rc<Product>,
    rules: LlmRules,
    route: Route,
    session: SessionRef,
    /// The body may name a conversation, and that the session, before anything that the head does.
    may_body_name: bool,
    traces: Vec<TraceId>,
    is_poll: bool,
    /// The first bytes of the request's body, or its end.
    started_at: Option<Timestamp>,
    request: RequestReader,
    asker: Option<Box<UsageAsker>>,
    remover: Option<Box<UsageRemover>>,
    response: Option<ResponseReader>,
    envoy: Option<Usage>,
    /// The filter has ended the response.
    is_stopped: bool,
    http_status: u16,
    observed: Observed,
}

impl LlmExchange {
    /// Starts an exchange, or `None` if the request makes no generation.
    pub(super) fn start(
        product: Rc<Product>,
        rules: LlmRules,
        identity: Identity,
        caused_by: Option<(String, String)>,
        headers: Headers<'_>,
        id: String,
    ) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|text| core::str::from_utf8(text).ok());
        let method = text(":method")?;
        let host = text(":authority").unwrap_or_default();
        let path = text(":path")?;
        let route = route(rules.provider, method, host, path)?;
        let RequestHead { mut session, may_message_name, .. } =
            RequestHead::read(&product, identity, headers);
        let may_name = may_message_name && product.product_type == ProductType::AiAgent;
        let conversation = conversation_in(path).filter(|_| may_name);
        if let Some(conversation) = conversation {
            session = session_ref(&product, session.identity, Rung::Meta(conversation.as_bytes()));
        }
        let may_body_name = may_name && conversation.is_none() && agent_run(method, path).is_some();
        let coding = ContentCoding::parse(headers.get("content-encoding"));
        let can_ask = rules.ask_for_usage && coding == ContentCoding::Identity;
        let asker = (can_ask && takes_stream_options(route.provider, path)).then(Box::default);
        Some(Self {
            id,
            caused_by,
            product,
            rules,
            route,
            session,
            may_body_name,
            traces: traces_of(headers),
            is_poll: method == "GET",
            started_at: None,
            request: RequestReader::new(coding),
            asker,
            remover: None,
            response: None,
            envoy: None,
            is_stopped: false,
            http_status: 0,
            observed: Observed { facts: Vec::new(), counts: vec![Counter::Generations] },
        })
    }

    /// The next bytes of the request's body. Gives what is to pass instead of them, if they may not pass as they are.
    pub(super) fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        self.starts(now);
        self.request.feed(chunk);
        self.asker.as_mut()?.edit(chunk)
    }

    /// Whether the request's body may be edited, so that its length is not known, and the response's may have to be.
    pub(super) fn may_edit(&self) -> bool {
        self.asker.is_some()
    }

    /// The request has ended.
    pub(super) fn request_end(&mut self, now: Timestamp) {
        self.starts(now);
        self.name_session();
    }

    /// The session, or `None` while the request's body may still name another.
    pub(super) fn session(&self) -> Option<&SessionRef> {
        (!self.may_body_name).then_some(&self.session)
    }

    /// The session, of which no more is told.
    pub(super) fn session_at_end(&mut self) -> &SessionRef {
        self.name_session();
        &self.session
    }

    /// The request has told what it tells.
    fn name_session(&mut self) {
        if core::mem::take(&mut self.may_body_name)
            && let Some(conversation) = self.request.requested().conversation
        {
            let identity = self.session.identity.clone();
            let rung = Rung::Meta(conversation.as_bytes());
            self.session = session_ref(&self.product, identity, rung);
        }
    }

    /// The response's head.
    pub(super) fn response_head(&mut self, headers: Headers<'_>) {
        let has_asked = self.asker.as_ref().is_some_and(|asker| asker.has_asked());
        let is_events =
            headers.get("content-type").map(MediaType::parse) == Some(MediaType::EventStream);
        let coding = ContentCoding::parse(headers.get("content-encoding"));
        if has_asked && is_events && coding == ContentCoding::Identity {
            self.remover = Some(Box::default());
        }
        let status = headers.get(":status").and_then(|text| core::str::from_utf8(text).ok());
        self.http_status = status.and_then(|text| text.parse().ok()).unwrap_or(0);
        self.response = Some(ResponseReader::new(self.route.format, headers));
    }

    /// Whether something may be taken out of the response.
    pub(super) fn shortens_response(&self) -> bool {
        self.remover.is_some()
    }

    /// The next bytes of the response's body; `is_end` with the last. Gives what is to pass instead of them, if they
    /// may not pass as they are.
    pub(super) fn response_body(&mut self, chunk: &[u8], is_end: bool) -> Option<Vec<u8>> {
        if let Some(response) = &mut self.response {
            response.feed(chunk);
        }
        self.remover.as_mut().map(|remover| remover.edit(chunk, is_end))
    }

    /// What the response may be cut behind, if it is a stream that can be ended in the middle.
    pub(super) fn stream_unit(&self) -> Option<Unit> {
        self.response.as_ref().filter(|_| self.http_status == 200)?.unit()
    }

    /// The filter ends the response: gives the last events, or `None` if the generation has come to its end. What still
    /// comes is read nevertheless, as it costs.
    pub(super) fn stop(&mut self, refusal: &Refusal) -> Option<Vec<u8>> {
        let response = self.response.as_mut()?;
        if response.is_finished() {
            return None;
        }
        let (unit, error) = (response.unit()?, self.route.format.error);
        self.is_stopped = true;
        Some(error.bytes(unit, refusal.code(), refusal.message()))
    }

    /// Whether the filter has ended the response.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// What has been observed since the last time.
    pub(super) fn take_observed(&mut self) -> Observed {
        core::mem::take(&mut self.observed)
    }

    pub(super) fn product(&self) -> &Rc<Product> {
        &self.product
    }

    /// Whether what Envoy has extracted is asked for.
    pub(super) fn wants_envoy_usage(&self) -> bool {
        self.rules.envoy_metadata && self.response.is_some()
    }

    /// What Envoy's own filter has extracted.
    pub(super) fn envoy_usage(&mut self, record: &[u8]) {
        self.envoy = read_token_usage(record);
    }

    /// What the request asks: a generation, unless it polls one.
    pub(super) fn asked(&self) -> Asked {
        let calls = if self.is_poll { Vec::new() } else { vec![(self.id.clone(), String::new())] };
        Asked {
            session: self.session.clone(),
            calls,
            ids: None,
            is_in_message: false,
            may_message_name: false,
        }
    }

    /// The request is answered by the filter: it made nothing.
    pub(super) fn refuse(mut self) -> Observed {
        self.observed.counts.push(Counter::GenerationsRefused);
        self.observed
    }

    /// The stream has ended, however that came about.
    pub(super) fn end(mut self, now: Timestamp) -> Observed {
        if let Some(ended) = self.ended(now) {
            self.observed.facts.push(Fact::Generation(Box::new(ended)));
        }
        self.observed
    }

    fn ended(&mut self, now: Timestamp) -> Option<GenerationEnded> {
        self.name_session();
        // The request never came to its body: it made nothing.
        let started_at = self.started_at?;
        let requested = self.request.requested();
        let is_streamed = self.response.as_ref().is_some_and(ResponseReader::is_streamed);
        let (generation, is_readable) =
            self.response.take().map_or((Generation::default(), true), ResponseReader::end);
        let completeness = generation.completeness(is_readable)?;
        let (mut usage, completeness, source) = self.with_envoy(generation.usage, completeness);
        if usage.is_unknown() {
            if self.http_status >= 400 {
                self.observed.counts.push(Counter::GenerationsRefused);
                return None;
            }
            // What is made in the background is told by a later response.
            if self.is_poll || requested.is_background {
                return None;
            }
        }
        // What the filter itself has cut off the provider charges nevertheless.
        let estimates = self.is_stopped || self.rules.incomplete_usage == IncompleteUsage::Estimate;
        let is_estimated = completeness != Completeness::Complete
            && estimates
            && self.estimate(&mut usage, &generation);
        let told_again = self.route.is_told_again.then_some(generation.id.as_deref()).flatten();
        let told_again =
            told_again.map(|id| (generation_link(self.route.provider, id), generation.created_at));
        let Requested { model, service_tier, .. } = requested;
        Some(GenerationEnded {
            generation_id: core::mem::take(&mut self.id),
            session: self.session.clone(),
            product_id: self.product.id.clone(),
            told_by: self.caused_by.take(),
            provider: self.route.provider,
            model: generation.model,
            model_requested: model.or_else(|| self.route.model.clone()).map(bounded),
            service_tier: generation.service_tier.or(service_tier).unwrap_or_default(),
            usage,
            completeness,
            is_estimated,
            source,
            told_again,
            http_status: self.http_status,
            is_streamed,
            started_at: started_at.min(now),
            ended_at: now,
        })
    }

    /// What Envoy's own filter has extracted counts where this has no complete usage of its own, or the same.
    /// It publishes nothing of a stream that was cut, and takes a first count for the last where a server stops early.
    fn with_envoy(
        &mut self,
        usage: Usage,
        completeness: Completeness,
    ) -> (Usage, Completeness, UsageSource) {
        let Some(envoy) = self.envoy.take() else {
            return (usage, completeness, UsageSource::Body);
        };
        if completeness != Completeness::Complete {
            let completeness = match completeness {
                Completeness::Partial => Completeness::Partial,
                _ => Completeness::Complete,
            };
            return (usage.or(envoy), completeness, UsageSource::EnvoyMetadata);
        }
        if envoy.input == usage.input && envoy.output == usage.output {
            return (usage, completeness, UsageSource::EnvoyMetadata);
        }
        self.observed.counts.push(Counter::UsageDisagreement);
        (usage, completeness, UsageSource::Body)
    }

    /// Fills in what is unknown by the bytes that passed. Gives whether something was.
    fn estimate(&self, usage: &mut Usage, generation: &Generation) -> bool {
        let tokens = |bytes: u64| Some(bytes.div_ceil(BYTES_PER_TOKEN)).filter(|count| *count > 0);
        let before = *usage;
        if usage.input.is_none() {
            usage.input = tokens(self.request.bytes());
        }
        // A cut stream may have told a first count, which more text has followed.
        let output = tokens(generation.text_bytes);
        usage.output = usage.output.max(output);
        *usage != before
    }

    fn starts(&mut self, now: Timestamp) {
        if self.started_at.is_some() {
            return;
        }
        self.started_at = Some(now);
        let may_infer = self.rules.infer_when_unambiguous;
        if self.caused_by.is_none() && (!self.traces.is_empty() || may_infer) {
            let (generation_id, traces) = (self.id.clone(), self.traces.clone());
            self.observed.facts.push(Fact::GenerationStarted(GenerationStarted {
                generation_id,
                traces,
                may_infer,
                at: now,
            }));
        }
    }
}

fn bounded(mut model: String) -> String {
    let mut end = model.len().min(VALUE_BYTES_MAX);
    while !model.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    model.truncate(end);
    model
}
