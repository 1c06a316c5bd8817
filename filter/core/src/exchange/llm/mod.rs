//! A request that makes a generation of a large language model, or asks for an earlier one, and its
//! response.
//!
//! To the next maintainer: an exchange reports a generation once, when its response has ended,
//! whatever the outcome. If the provider refuses a request with an HTTP error and without usage,
//! there was no generation. If the provider works in the background, the exchange of a later
//! response reports the generation.

pub(super) mod ask_for_usage;
mod results;
mod unmetered;

mod socket;
mod told;

use std::rc::Rc;

use crate::admission::head::RequestHead;
use crate::admission::session::{SessionKey, session_ref};
use crate::base::time::{Timestamp, len_u64};
use crate::config::product::{Product, Speaks};
use crate::config::{IncompleteUsage, LlmRules, OnWebSocket};
use crate::domain::identity::ANONYMOUS;
use crate::domain::names::escaped;
use crate::domain::price_factors::Word;
use crate::domain::session::SessionRef;
use crate::domain::usage::{Completeness, Usage, UsageSource};
use crate::exchange::kind::{
    BodyInterest, Exchange, Observed, PolicyRequest, StreamEnd, Unmetered,
};
use crate::exchange::link::generation_link;
use crate::exchange::llm::ask_for_usage::{UsageAsker, UsageRemover};
use crate::exchange::llm::results::{Fetch, Results};
use crate::exchange::llm::socket::{Socket, socket_of, step};
use crate::exchange::llm::told::{Told, bounded, estimate, is_by_text, named, told_units};
use crate::exchange::llm::unmetered::unmetered;
use crate::fact::Fact;
use crate::fact::generation::{GenerationEnded, GenerationStarted};
use crate::guard::refusal::Refusal;
use crate::host::counter::Counter;
use crate::protocol::llm::location::location;
use crate::protocol::llm::provider::{agent_run, conversation_in, is_creation, is_speech, route};
use crate::protocol::llm::{
    Generation, LlmRequestBody, Requested, ResponseReader, Route, Stage, read_token_usage,
};
use crate::shared_data::shares::holder_of;
use crate::wire::boundary::Unit;
use crate::wire::decode_budget::DecodeShare;
use crate::wire::encoding::ContentCoding;
use crate::wire::http::ResponseHead;

/// The state of one such HTTP stream.
#[derive(Debug)]
pub(super) struct LlmExchange {
    id: String,
    /// If the request is itself a call: the id of that call, and its tool.
    caused_by: Option<(String, String)>,
    product: Rc<Product>,
    rules: Rc<LlmRules>,
    route: Route,
    /// Where the model runs, as far as the request's head or the configuration tells it.
    location: Option<Word>,
    session: SessionRef,
    /// True if the body may name a conversation, and with it the session. It then takes precedence
    /// over the head.
    may_body_name: bool,
    is_poll: bool,
    /// True if the request makes a generation, false if it asks for one that exists.
    is_creation: bool,
    started_at: Timestamp,
    request: LlmRequestBody,
    asker: Option<Box<UsageAsker>>,
    remover: Option<Box<UsageRemover>>,
    response: Option<ResponseReader>,
    /// The results of a batch, if the request fetches some.
    batch: Option<Box<Results>>,
    response_bytes: u64,
    /// What is said on the WebSocket, if the request asks for one.
    socket: Option<Box<Socket>>,
    envoy: Option<Usage>,
    /// How much of its bodies the worker decodes.
    share: DecodeShare,
    /// True if the filter has ended the response.
    is_stopped: bool,
    http_status: u16,
    observed: Observed,
}

impl LlmExchange {
    /// Starts an exchange, unless the request makes no generation that the filter can read, and asks
    /// for none.
    pub(super) fn start(
        product: Rc<Product>,
        rules: Rc<LlmRules>,
        caused_by: Option<(String, String)>,
        head: RequestHead<'_>,
        id: String,
    ) -> Result<Self, Unmetered> {
        if head.is_websocket && rules.websocket == OnWebSocket::Reject {
            return Err(Unmetered::WebSocket);
        }
        let host = core::str::from_utf8(head.authority).unwrap_or_default();
        let socket =
            head.is_websocket.then(|| socket_of(rules.asked(), host, &head.target)).flatten();
        let socket_api = socket.as_ref().map(|(_, api)| *api);
        let found = head.methods().find_map(|method| {
            head.target.paths().find_map(|path| {
                route(rules.asked(), method, host, path).map(|route| (method, path, route))
            })
        });
        let Some((method, path, route)) = socket.map(|(found, _)| found).or(found) else {
            return Err(unmetered(&product, &rules, &head));
        };
        let batch = Results::of(&route, path);
        let is_agent = product.product_type.traits().speaks == Speaks::Agent;
        let may_name = head.may_body_name && is_agent;
        let conversation = conversation_in(path).filter(|_| may_name);
        let session_key = match &conversation {
            Some(conversation) => SessionKey::Meta(conversation.as_bytes()),
            None => head.session_key,
        };
        let may_body_name = may_name && conversation.is_none() && agent_run(method, path).is_some();
        let can_ask = rules.ask_for_usage && head.body.coding == ContentCoding::Identity;
        let asker = (can_ask && route.takes_stream_options).then(Box::default);
        let share = head.body.share.clone();
        let request = LlmRequestBody::new(head.body, route.format.asks, is_speech(path));
        let started_at = head.arrived_at;
        let session = session_ref(&product, head.identity, session_key);
        let started = GenerationStarted {
            generation_id: id.clone(),
            customer: Some(session.identity.customer.clone()).filter(|name| name != ANONYMOUS),
            proof: head.proof,
            traces: head.traces,
            may_infer: rules.infer_when_unambiguous,
            at: started_at,
        };
        let started = looked_for(started, caused_by.is_none() && batch.is_none());
        let (socket, started) = match socket_api {
            Some(api) => (Some(Box::new(Socket::new(api, started, is_agent))), None),
            None => (None, started),
        };
        let counts = first_count(socket.is_some(), batch.is_some()).into_iter().collect();
        let facts = started.map(Fact::GenerationStarted).into_iter().collect();
        Ok(Self {
            id,
            caused_by,
            location: rules.location.or_else(|| location(host, path)),
            rules,
            route,
            session,
            product,
            may_body_name,
            is_poll: method == "GET" && socket.is_none(),
            is_creation: socket.is_some() || is_creation(method, path),
            started_at,
            request,
            share,
            asker,
            remover: None,
            response: None,
            batch,
            response_bytes: 0,
            socket,
            envoy: None,
            is_stopped: false,
            http_status: 0,
            observed: Observed { facts, counts },
        })
    }
}

/// What counts when a request comes. Of a batch each result counts.
fn first_count(is_socket: bool, is_batch: bool) -> Option<Counter> {
    let count = if is_socket { Counter::WebSockets } else { Counter::Generations };
    Some(count).filter(|_| !is_batch)
}

/// What is reported of the start of a generation, if its cause has to be looked for. It exists with
/// its request's head: whether a body follows is up to others.
fn looked_for(started: GenerationStarted, is_alone: bool) -> Option<GenerationStarted> {
    let has_trace = started.proof.is_some() || !started.traces.is_empty();
    Some(started).filter(|started| is_alone && (has_trace || started.may_infer))
}

impl Exchange for LlmExchange {
    fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        if let Some(socket) = &mut self.socket {
            socket.client_said(chunk, now);
            return None;
        }
        self.request.feed(chunk);
        self.asker.as_mut()?.edit(chunk)
    }

    fn may_edit(&self) -> bool {
        self.asker.is_some()
    }

    fn request_end(&mut self, _now: Timestamp) {
        self.request.end();
        self.name_session();
    }

    fn response_head(&mut self, head: &ResponseHead<'_>) -> BodyInterest {
        let has_asked = self.asker.as_ref().is_some_and(|asker| asker.has_asked());
        if has_asked && head.is_plain_event_stream() {
            self.remover = Some(Box::default());
        }
        self.http_status = head.status;
        if let Some(socket) = &mut self.socket {
            return BodyInterest::bytes_if(socket.opens(head));
        }
        if let Some(batch) = &mut self.batch {
            return batch.response_head(head, &self.share);
        }
        let mut response = ResponseReader::new(self.route.format, head);
        response.limit(&self.share);
        self.response = Some(response);
        BodyInterest::Bytes
    }

    fn shortens_response(&self) -> bool {
        self.remover.is_some()
    }

    fn response_body(&mut self, chunk: &[u8], is_end: bool, now: Timestamp) -> Option<Vec<u8>> {
        if let Some(batch) = &mut self.batch {
            let fetch = Fetch {
                id: &self.id,
                session: &self.session,
                product_id: &self.product.id,
                caused_by: self.caused_by.as_ref(),
                provider: self.route.provider,
                location: self.location,
                http_status: self.http_status,
                started_at: self.started_at.min(now),
            };
            batch.read(chunk, &fetch, now, &mut self.observed);
            return None;
        }
        self.response_bytes = self.response_bytes.saturating_add(len_u64(chunk.len()));
        if let Some(socket) = &mut self.socket {
            let said = socket.server_said(&self.id, chunk, now, &mut self.observed);
            self.report_said(said, now);
            return None;
        }
        if let Some(response) = &mut self.response {
            response.feed(chunk);
        }
        self.remover.as_mut().map(|remover| remover.edit(chunk, is_end))
    }

    fn stream_unit(&self) -> Option<Unit> {
        self.response.as_ref().filter(|_| self.http_status == 200)?.unit()
    }

    fn stop(&mut self, refusal: &Refusal, _now: Timestamp) -> Option<Vec<u8>> {
        let response = self.response.as_mut()?;
        if response.is_finished() {
            return None;
        }
        let (unit, error) = (response.unit()?, self.route.format.error);
        // The exchange still reads what the server sends, because the provider charges for it.
        self.is_stopped = true;
        Some(error.bytes(unit, refusal.code(), refusal.message()))
    }

    fn take_observed(&mut self) -> Observed {
        core::mem::take(&mut self.observed)
    }

    fn product(&self) -> &Rc<Product> {
        &self.product
    }

    fn customer(&self) -> &str {
        &self.session.identity.customer
    }

    fn wants_envoy_usage(&self) -> bool {
        self.rules.envoy_metadata && self.response.is_some()
    }

    fn envoy_usage(&mut self, record: &[u8]) {
        self.envoy = read_token_usage(record);
    }

    fn policy_request(&self) -> PolicyRequest {
        let calls = if self.is_poll { Vec::new() } else { vec![(self.id.clone(), String::new())] };
        PolicyRequest {
            session: self.session.clone(),
            calls,
            ids: None,
            is_in_body: false,
            may_body_name: false,
        }
    }

    fn refuse(mut self: Box<Self>, _http_status: u16, _now: Timestamp) -> Observed {
        // What starts with the head has not started.
        self.observed.facts.clear();
        self.observed.counts.push(Counter::GenerationsRefused);
        self.observed
    }

    fn wants_plain_frames(&self) -> bool {
        self.socket.is_some()
    }

    fn end(mut self: Box<Self>, _end: StreamEnd, now: Timestamp) -> Observed {
        if let Some(mut socket) = self.socket.take() {
            let said = socket.ended(&self.id, self.started_at, &mut self.observed);
            self.report_said(said, now);
        } else if let Some(batch) = self.batch.take() {
            self.observed.counts.extend(batch.ended());
        } else if let Some(ended) = self.ended(now) {
            self.observed.facts.push(Fact::Generation(Box::new(ended)));
        }
        self.observed
    }
}

impl LlmExchange {
    /// The session, or `None` while the request's body may still name another.
    pub(super) fn session(&self) -> Option<&SessionRef> {
        (!self.may_body_name).then_some(&self.session)
    }

    /// Returns the session, when the exchange can learn nothing more about it.
    pub(super) fn session_at_end(&mut self) -> &SessionRef {
        self.name_session();
        &self.session
    }

    /// Names the session by the conversation in the request, when the request is complete.
    fn name_session(&mut self) {
        if core::mem::take(&mut self.may_body_name)
            && let Some(conversation) = self.request.requested().conversation
        {
            let identity = self.session.identity.clone();
            let session_key = SessionKey::Meta(conversation.as_bytes());
            self.session = session_ref(&self.product, identity, session_key);
        }
    }

    /// Whether the filter has ended the response.
    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    fn ended(&mut self, now: Timestamp) -> Option<GenerationEnded> {
        self.name_session();
        let is_streamed = self.response.as_mut().is_some_and(ResponseReader::is_streamed);
        let (mut generation, is_readable) =
            self.response.take().map_or((Generation::default(), true), ResponseReader::end);
        generation.is_streamed = is_streamed;
        let mut requested = self.request.requested();
        // Where the path names the model, the server looks at no other name.
        requested.model = self.route.model.clone().or(requested.model);
        let told = Told {
            id: core::mem::take(&mut self.id),
            caused_by: self.caused_by.take(),
            generation,
            is_readable,
            requested,
            requested_tokens: self.request.tokens(),
            started_at: self.started_at,
            is_step: false,
        };
        self.report(told, now)
    }

    /// Reports the generations that were made on a WebSocket.
    fn report_said(&mut self, said: Vec<Told>, now: Timestamp) {
        for mut told in said {
            let is_step = told.is_step && self.caused_by.is_none();
            let step = is_step.then(|| step(&told, &self.session, self.http_status, now));
            let own = step.as_ref().map(|step| (step.call_id.clone(), step.tool.clone()));
            told.caused_by = self.caused_by.clone().or(own);
            told.requested.model = told.requested.model.or_else(|| self.route.model.clone());
            let ended = self.report(told, now).map(|ended| Fact::Generation(Box::new(ended)));
            self.observed.facts.extend(ended.into_iter().chain(step.map(Fact::Call)));
        }
    }

    /// What the accountant gets to know of a generation that has ended; `None` if there is none.
    fn report(&mut self, told: Told, now: Timestamp) -> Option<GenerationEnded> {
        let Told { id, caused_by, generation, is_readable, requested, .. } = told;
        if requested.is_unclear {
            self.observed.counts.push(Counter::RequestUnparsed);
        }
        let stage = generation.stage;
        let Some(completeness) = generation.completeness(is_readable) else {
            self.await_polls(generation.id.as_deref(), now);
            return None;
        };
        let (mut usage, completeness, source) = self.with_envoy(generation.usage, completeness);
        if usage.is_unknown() && completeness != Completeness::Complete {
            if self.http_status >= 400 {
                self.observed.counts.push(Counter::GenerationsRefused);
                return None;
            }
            // The response to a later request reports a generation that the provider makes in the
            // background. Once it is over, none reports more.
            if stage != Stage::Final && (self.is_poll || requested.is_background) {
                self.await_polls(generation.id.as_deref(), now);
                return None;
            }
        }
        // If the filter itself has cut the response off, the provider charges for it nevertheless.
        let estimates = self.is_stopped || self.rules.incomplete_usage == IncompleteUsage::Estimate;
        // Of a response that the filter cannot read, all may be text.
        let all_bytes = if is_readable { 0 } else { self.response_bytes };
        let text_bytes = generation.text_bytes.max(all_bytes);
        let is_estimated = completeness != Completeness::Complete
            && estimates
            && !generation.is_without_tokens
            && !is_by_text(&generation, &requested)
            && estimate(&mut usage, told.requested_tokens, text_bytes);
        let seen_as = self.route.reports_again.then_some(generation.id.as_deref()).flatten();
        // What a request has made is new, whatever time the server reports: some report none, or
        // that of a recording.
        let created_at = generation.created_at.filter(|at| !self.is_creation && *at > 0);
        let seen_as =
            seen_as.map(|id| (generation_link(self.route.provider.seller, id), created_at));
        let is_told = !usage.is_unknown();
        let (units, completeness) = told_units(&generation, &requested, is_told, completeness);
        let Requested { model, service_tier, modifiers, is_thinking, is_unclear, .. } = requested;
        let doubts = requested.models_in_doubt.into_iter().map(bounded).map(escaped).collect();
        Some(GenerationEnded {
            generation_id: id,
            session: self.session.clone(),
            product_id: self.product.id.clone(),
            caused_by,
            provider: self.route.provider,
            model: generation.model.map(escaped),
            models_in_doubt: if model.is_none() { doubts } else { Vec::new() },
            model_requested: model.map(bounded).map(escaped),
            service_tier: generation.service_tier.or(service_tier).unwrap_or_default(),
            modifiers: generation.modifiers.or(modifiers),
            location: self.location,
            is_thinking: is_thinking || usage.reasoning.is_some_and(|tokens| tokens > 0),
            usage,
            is_inconsistent: generation.is_inconsistent || units.is_over_limit() || is_unclear,
            units,
            reported_cost: generation.reported_cost,
            completeness,
            is_estimated,
            may_go_on: generation.may_go_on,
            further: generation.further.into_iter().map(named).collect(),
            source,
            seen_as,
            correlation: None,
            is_of_batch: false,
            http_status: self.http_status,
            is_streamed: generation.is_streamed,
            started_at: told.started_at.min(now),
            ended_at: now,
        })
    }

    /// Tells the accountant of a generation that this request has made and that only a later
    /// response reports.
    fn await_polls(&mut self, id: Option<&str>, now: Timestamp) {
        if let Some(id) = id
            && self.is_creation
            && self.route.reports_again
            && self.http_status < 400
        {
            let link = generation_link(self.route.provider.seller, id);
            let holder = holder_of(&self.session.identity.customer);
            self.observed.facts.push(Fact::GenerationAwaited { link, holder, at: now });
        }
    }

    /// Uses the record of Envoy's own filter if this exchange has no complete usage of its own, or
    /// the same usage. That filter publishes nothing about a stream that was cut, and takes a first
    /// count for the last one if a server stops early.
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
}
