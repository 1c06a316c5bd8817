//! One request and its response, whatever they contain: an API call, or a request that runs an
//! agent and is therefore a step. If the product has `llm` and the request makes a generation, the
//! exchange reports that generation too, as caused by the call.

use std::rc::Rc;

use crate::admission::head::RequestHead;
use crate::admission::session::session_ref;
use crate::base::time::{Timestamp, len_u64};
use crate::config::product::Product;
use crate::config::{Config, LlmRules};
use crate::domain::call::{Certainty, Transport};
use crate::domain::ids::TraceId;
use crate::domain::session::SessionRef;
use crate::domain::status::ExecutionStatus;
use crate::exchange::kind::{BodyInterest, Exchange, Observed, PolicyRequest, StreamEnd};
use crate::exchange::llm::LlmExchange;
use crate::fact::Fact;
use crate::fact::call::{ApiCall, CallEnded, CallKind, CallStarted};
use crate::guard::refusal::Refusal;
use crate::host::counter::Counter;
use crate::wire::boundary::Unit;
use crate::wire::http::ResponseHead;
use crate::wire::media_type::MediaType;

/// The state of one such HTTP stream.
#[derive(Debug)]
pub(super) struct ApiExchange {
    call_id: String,
    product: Rc<Product>,
    session: SessionRef,
    traces: Vec<TraceId>,
    tells_start: bool,
    is_step: bool,
    method: String,
    /// Method and route of an API call, or the name of a step.
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
        head: RequestHead<'_>,
        id: String,
    ) -> Self {
        // There are few methods. The exchange reports any other name as `OTHER`.
        let method = match core::str::from_utf8(head.method).unwrap_or_default() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
            _ => "OTHER",
        };
        let operation = format!("{method} {}", product.route(method, &head.target));
        let call_id = format!("{id}.0");
        let has_generations = config.has_generations();
        let traces = if has_generations { head.traces.clone() } else { Vec::new() };
        let session = session_ref(&product, head.identity.clone(), head.session_key);
        let generation = product.llm.clone().and_then(|rules| {
            let caused_by = Some((call_id.clone(), operation.clone()));
            LlmExchange::start(Rc::clone(&product), rules, caused_by, head, id)
        });
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

    /// Starts a step that runs an agent, or returns `None` if the product's provider has no such
    /// request. The session of the step is that of its generation.
    pub(super) fn start_step(
        product: Rc<Product>,
        rules: LlmRules,
        operation: &str,
        head: RequestHead<'_>,
        id: String,
    ) -> Option<Self> {
        let call_id = format!("{id}.0");
        let caused_by = Some((call_id.clone(), operation.to_owned()));
        let session = session_ref(&product, head.identity.clone(), head.session_key);
        let generation = LlmExchange::start(Rc::clone(&product), rules, caused_by, head, id)?;
        Some(Self {
            // The step causes only its own generation, so the accountant need not know its start.
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
}

impl Exchange for ApiExchange {
    fn request_interest(&self) -> BodyInterest {
        if self.generation.is_some() { BodyInterest::Bytes } else { BodyInterest::Size }
    }

    fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        self.request_size(chunk.len(), now);
        self.generation.as_mut()?.request_body(chunk, now)
    }

    fn request_size(&mut self, bytes: usize, now: Timestamp) {
        self.starts(now);
        self.request_bytes = self.request_bytes.saturating_add(len_u64(bytes));
    }

    fn request_end(&mut self, now: Timestamp) {
        self.starts(now);
        if let Some(generation) = &mut self.generation {
            generation.request_end(now);
        }
    }

    fn response_head(&mut self, head: &ResponseHead<'_>) -> BodyInterest {
        self.http_status = head.status;
        if self.is_step {
            self.transport = match head.media_type {
                MediaType::Json => Transport::Json,
                MediaType::EventStream => Transport::Sse,
                _ => Transport::None,
            };
        }
        match &mut self.generation {
            Some(generation) => generation.response_head(head),
            None => BodyInterest::Size,
        }
    }

    fn response_body(&mut self, chunk: &[u8], is_end: bool, now: Timestamp) -> Option<Vec<u8>> {
        self.response_size(chunk.len());
        self.generation.as_mut()?.response_body(chunk, is_end, now)
    }

    fn response_size(&mut self, bytes: usize) {
        self.response_bytes = self.response_bytes.saturating_add(len_u64(bytes));
    }

    fn take_observed(&mut self) -> Observed {
        let mut observed = core::mem::take(&mut self.observed);
        if let Some(generation) = &mut self.generation {
            observed.add(generation.take_observed());
        }
        observed
    }

    fn product(&self) -> &Rc<Product> {
        &self.product
    }

    fn may_edit(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.may_edit())
    }

    fn shortens_response(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.shortens_response())
    }

    fn stream_unit(&self) -> Option<Unit> {
        self.generation.as_ref()?.stream_unit()
    }

    fn stop(&mut self, refusal: &Refusal, now: Timestamp) -> Option<Vec<u8>> {
        self.generation.as_mut()?.stop(refusal, now)
    }

    fn wants_envoy_usage(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.wants_envoy_usage())
    }

    fn envoy_usage(&mut self, record: &[u8]) {
        if let Some(generation) = &mut self.generation {
            generation.envoy_usage(record);
        }
    }

    fn running(&self) -> Option<(&SessionRef, Timestamp)> {
        let session = match &self.generation {
            Some(generation) if self.is_step => generation.session()?,
            _ => &self.session,
        };
        self.started_at.map(|started_at| (session, started_at))
    }

    fn policy_request(&self) -> PolicyRequest {
        PolicyRequest {
            session: self.session.clone(),
            calls: vec![(self.call_id.clone(), self.operation.clone())],
            ids: None,
            is_in_body: false,
            may_body_name: false,
        }
    }

    fn refuse(mut self: Box<Self>, http_status: u16, now: Timestamp) -> Observed {
        self.http_status = http_status;
        self.started_at = Some(now);
        self.generation = None;
        self.end(StreamEnd::Complete, now)
    }

    fn end(mut self: Box<Self>, end: StreamEnd, now: Timestamp) -> Observed {
        let mut status = ExecutionStatus::of_api(self.http_status, end);
        if let Some(mut generation) = self.generation.take() {
            if generation.is_stopped() {
                status = ExecutionStatus::Cancelled;
            }
            if self.is_step {
                self.session = generation.session_at_end().clone();
            }
            self.observed.add(generation.end(end, now));
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
                certainty: Certainty::Certain,
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
}

impl ApiExchange {
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
    /// The outcome of an API call, from HTTP alone: the body says nothing about it.
    fn of_api(http_status: u16, end: StreamEnd) -> Self {
        match (http_status, end) {
            (100..400, StreamEnd::Complete) => Self::Success,
            (0, StreamEnd::Aborted) => Self::Cancelled,
            _ => Self::of_http(http_status),
        }
    }
}
