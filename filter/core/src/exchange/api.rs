//! One request and its response, whatever they hold: an API call, or a request that runs an agent, which is a step.
//! Where the product has `llm` and the request makes a generation, that is told too, as caused by the call.

use std::rc::Rc;

use crate::admission::head::RequestHead;
use crate::base::time::{Timestamp, count};
use crate::config::product::Product;
use crate::config::{Config, LlmRules};
use crate::domain::call::Transport;
use crate::domain::identity::Identity;
use crate::domain::ids::TraceId;
use crate::domain::session::SessionRef;
use crate::domain::status::ExecutionStatus;
use crate::exchange::llm::LlmExchange;
use crate::exchange::observed::{Asked, Observed, Show, StreamEnd};
use crate::fact::Fact;
use crate::fact::call::{ApiCall, CallEnded, CallKind, CallStarted};
use crate::guard::refusal::Refusal;
use crate::host::counter::Counter;
use crate::protocol::trace_context::traces_of;
use crate::wire::boundary::Unit;
use crate::wire::http::Headers;
use crate::wire::media_type::MediaType;

/// One such HTTP stream.
#[derive(Debug)]
pub struct ApiExchange {
    call_id: String,
    product: Rc<Product>,
    session: SessionRef,
    traces: Vec<TraceId>,
    tells_start: bool,
    is_step: bool,
    method: String,
    /// Method and route of an API call, the name of a step.
    operation: String,
    request_bytes: u64,
    response_bytes: u64,
    started_at: Option<Timestamp>,
    http_status: u16,
    transport: Transport,
    generation: Option<Box<LlmExchange>>,
    observed: Observed,
}

impl ApiExchange {
    /// Starts an API call.
    pub(super) fn start(
        config: &Config,
        product: Rc<Product>,
        identity: Identity,
        headers: Headers<'_>,
        id: String,
    ) -> Self {
        let method = String::from_utf8_lossy(headers.get(":method").unwrap_or_default());
        // Names of methods are few; what is none is not kept.
        let method = match method.as_ref() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
            _ => "OTHER",
        };
        let operation =
            format!("{method} {}", product.route(headers.get(":path").unwrap_or_default()));
        let call_id = format!("{id}.0");
        let generation = product.llm.clone().and_then(|rules| {
            let product = Rc::clone(&product);
            let caused_by = Some((call_id.clone(), operation.clone()));
            LlmExchange::start(product, rules, identity.clone(), caused_by, headers, id)
        });
        let RequestHead { session, .. } = RequestHead::read(&product, identity, headers);
        let traces = if config.has_generations() { traces_of(headers) } else { Vec::new() };
        Self {
            tells_start: generation.is_none() && (!traces.is_empty() || config.may_infer()),
            is_step: false,
            call_id,
            session,
            traces,
            method: method.to_owned(),
            operation,
            request_bytes: 0,
            response_bytes: 0,
            started_at: None,
            http_status: 0,
            transport: Transport::None,
            generation: generation.map(Box::new),
            observed: Observed { facts: Vec::new(), counts: vec![Counter::Calls] },
            product,
        }
    }

    /// Starts a step that runs an agent, or `None` if the product's provider knows no such request. Its session is its
    /// generation's.
    pub(super) fn start_step(
        product: Rc<Product>,
        rules: LlmRules,
        identity: Identity,
        operation: &str,
        headers: Headers<'_>,
        id: String,
    ) -> Option<Self> {
        let call_id = format!("{id}.0");
        let caused_by = Some((call_id.clone(), operation.to_owned()));
        let RequestHead { session, .. } = RequestHead::read(&product, identity.clone(), headers);
        let generation =
            LlmExchange::start(Rc::clone(&product), rules, identity, caused_by, headers, id)?;
        Some(Self {
            // Its own generation is all that it causes.
            tells_start: false,
            is_step: true,
            call_id,
            session,
            traces: Vec::new(),
            method: String::new(),
            operation: operation.to_owned(),
            request_bytes: 0,
            response_bytes: 0,
            started_at: None,
            http_status: 0,
            transport: Transport::None,
            generation: Some(Box::new(generation)),
            observed: Observed { facts: Vec::new(), counts: vec![Counter::Calls] },
            product,
        })
    }

    /// What is to be shown of the bodies.
    pub(super) fn show(&self) -> Show {
        if self.generation.is_some() { Show::Bytes } else { Show::Size }
    }

    /// The next bytes of the request's body. Gives what is to pass instead of them, if they may not pass as they are.
    pub(super) fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        self.request_size(chunk.len(), now);
        self.generation.as_mut()?.request_body(chunk, now)
    }

    /// The size of the next bytes of the request's body, which are not shown.
    pub(super) fn request_size(&mut self, bytes: usize, now: Timestamp) {
        self.starts(now);
        self.request_bytes = self.request_bytes.saturating_add(count(bytes));
    }

    /// The request has ended.
    pub(super) fn request_end(&mut self, now: Timestamp) {
        self.starts(now);
        if let Some(generation) = &mut self.generation {
            generation.request_end(now);
        }
    }

    /// The response's head.
    pub(super) fn response_head(&mut self, headers: Headers<'_>) {
        let status = headers.get(":status").and_then(|text| core::str::from_utf8(text).ok());
        self.http_status = status.and_then(|text| text.parse().ok()).unwrap_or(0);
        if self.is_step {
            self.transport = match headers.get("content-type").map(MediaType::parse) {
                Some(MediaType::Json) => Transport::Json,
                Some(MediaType::EventStream) => Transport::Sse,
                _ => Transport::None,
            };
        }
        if let Some(generation) = &mut self.generation {
            generation.response_head(headers);
        }
    }

    /// The next bytes of the response's body; `is_end` with the last. Gives what is to pass instead of them, if they
    /// may not pass as they are.
    pub(super) fn response_body(&mut self, chunk: &[u8], is_end: bool) -> Option<Vec<u8>> {
        self.response_size(chunk.len());
        self.generation.as_mut()?.response_body(chunk, is_end)
    }

    /// The size of the next bytes of the response's body, which are not shown.
    pub(super) fn response_size(&mut self, bytes: usize) {
        self.response_bytes = self.response_bytes.saturating_add(count(bytes));
    }

    /// What has been observed since the last time.
    pub(super) fn take_observed(&mut self) -> Observed {
        let mut observed = core::mem::take(&mut self.observed);
        if let Some(generation) = &mut self.generation {
            observed.add(generation.take_observed());
        }
        observed
    }

    pub(super) fn product(&self) -> &Rc<Product> {
        &self.product
    }

    pub(super) fn generation(&mut self) -> Option<&mut LlmExchange> {
        self.generation.as_deref_mut()
    }

    pub(super) fn may_edit(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.may_edit())
    }

    pub(super) fn shortens_response(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.shortens_response())
    }

    pub(super) fn stream_unit(&self) -> Option<Unit> {
        self.generation.as_ref()?.stream_unit()
    }

    pub(super) fn stop(&mut self, refusal: &Refusal) -> Option<Vec<u8>> {
        self.generation.as_mut()?.stop(refusal)
    }

    pub(super) fn wants_envoy_usage(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.wants_envoy_usage())
    }

    /// The session while the call runs, and when it started.
    pub(super) fn running(&self) -> Option<(&SessionRef, Timestamp)> {
        let session = match &self.generation {
            Some(generation) if self.is_step => generation.session()?,
            _ => &self.session,
        };
        self.started_at.map(|started_at| (session, started_at))
    }

    /// What the request asks: one call.
    pub(super) fn asked(&self) -> Asked {
        Asked {
            session: self.session.clone(),
            calls: vec![(self.call_id.clone(), self.operation.clone())],
            ids: None,
            is_in_message: false,
            may_message_name: false,
        }
    }

    /// The request is answered by the filter.
    pub(super) fn refuse(mut self, http_status: u16, now: Timestamp) -> Observed {
        self.http_status = http_status;
        self.started_at = Some(now);
        self.generation = None;
        self.end(StreamEnd::Complete, now)
    }

    /// The stream has ended, however that came about.
    pub(super) fn end(mut self, end: StreamEnd, now: Timestamp) -> Observed {
        let mut status = ExecutionStatus::of_api(self.http_status, end);
        if let Some(mut generation) = self.generation.take() {
            if generation.is_stopped() {
                status = ExecutionStatus::Cancelled;
            }
            if self.is_step {
                self.session = generation.session_at_end().clone();
            }
            self.observed.add(generation.end(now));
        }
        let Some(started_at) = self.started_at else { return self.observed };
        if !self.product.exclude.statuses.contains(&self.http_status) {
            let kind = if self.is_step {
                CallKind::Step
            } else {
                CallKind::Api(ApiCall {
                    method: self.method,
                    request_bytes: self.request_bytes,
                    response_bytes: self.response_bytes,
                })
            };
            self.observed.facts.push(Fact::Call(CallEnded {
                call_id: self.call_id,
                kind,
                session: self.session,
                tool: self.operation,
                arguments: None,
                status,
                http_status: self.http_status,
                transport: self.transport,
                started_at: started_at.min(now),
                ended_at: now,
            }));
        }
        self.observed
    }

    fn starts(&mut self, now: Timestamp) {
        if self.started_at.is_some() {
            return;
        }
        self.started_at = Some(now);
        if self.tells_start {
            self.observed.facts.push(Fact::CallStarted(CallStarted {
                call_id: self.call_id.clone(),
                session: self.session.clone(),
                tool: self.operation.clone(),
                traces: self.traces.clone(),
                at: now,
            }));
        }
    }
}

impl ExecutionStatus {
    /// The outcome of an API call, of which the body says nothing.
    fn of_api(http_status: u16, end: StreamEnd) -> Self {
        match (http_status, end) {
            (100..400, StreamEnd::Complete) => Self::Success,
            (0, StreamEnd::Aborted) => Self::Cancelled,
            _ => Self::of_http(http_status),
        }
    }
}
