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
use crate::exchange::kind::{
    BodyInterest, Exchange, Observed, PolicyRequest, StreamEnd, Unmetered,
};
use crate::exchange::llm::LlmExchange;
use crate::exchange::starts::CallStarts;
use crate::fact::Fact;
use crate::fact::call::{ApiCall, CallEnded, CallKind};
use crate::guard::refusal::Refusal;
use crate::protocol::grpc::GrpcOutcome;
use crate::wire::boundary::Unit;
use crate::wire::http::{Headers, ResponseHead};
use crate::wire::media_type::MediaType;

/// The state of one such HTTP stream.
#[derive(Debug)]
pub(super) struct ApiExchange {
    call_id: String,
    product: Rc<Product>,
    session: SessionRef,
    starts: CallStarts,
    is_step: bool,
    method: String,
    /// Method and route of an API call, or the name of a step.
    operation: String,
    request_bytes: u64,
    response_bytes: u64,
    started_at: Timestamp,
    is_request_sent: bool,
    /// True if the filter answered it itself.
    is_refused: bool,
    http_status: u16,
    grpc: Option<GrpcOutcome>,
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
    ) -> Result<Self, Unmetered> {
        // There are few methods. The exchange reports any other name as `OTHER`.
        let method = match core::str::from_utf8(head.method).unwrap_or_default() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS") => known,
            _ => "OTHER",
        };
        let operation = format!("{method} {}", product.route(method, &head.target));
        let call_id = format!("{id}.0");
        let traces = head.traces.clone();
        let session = session_ref(&product, head.identity.clone(), head.session_key);
        let started_at = head.arrived_at;
        let generation = match product.llm.clone() {
            Some(rules) => {
                let caused_by = Some((call_id.clone(), operation.clone()));
                match LlmExchange::start(Rc::clone(&product), rules, caused_by, head, id) {
                    Ok(generation) => Some(generation),
                    // The call itself is an event.
                    Err(Unmetered::Free | Unmetered::Unseen { is_refused: false, .. }) => None,
                    Err(refused) => return Err(refused),
                }
            }
            None => None,
        };
        Ok(Self {
            // A call that is itself a generation causes no other.
            starts: match &generation {
                Some(_) => CallStarts::none(),
                None => CallStarts::new(config, &product, traces),
            },
            is_step: false,
            call_id,
            session,
            method: method.to_owned(),
            operation,
            request_bytes: 0,
            response_bytes: 0,
            started_at,
            is_request_sent: false,
            is_refused: false,
            http_status: 0,
            grpc: None,
            transport: Transport::None,
            generation: generation.map(Box::new),
            observed: Observed::default(),
            product,
        })
    }

    /// Starts a step that runs an agent, or returns `None` if the product's provider has no such
    /// request. The session of the step is that of its generation.
    pub(super) fn start_step(
        product: Rc<Product>,
        rules: Rc<LlmRules>,
        operation: &str,
        head: RequestHead<'_>,
        id: String,
    ) -> Result<Self, Unmetered> {
        let call_id = format!("{id}.0");
        let caused_by = Some((call_id.clone(), operation.to_owned()));
        let session = session_ref(&product, head.identity.clone(), head.session_key);
        let started_at = head.arrived_at;
        let generation = LlmExchange::start(Rc::clone(&product), rules, caused_by, head, id)?;
        Ok(Self {
            // The step causes only its own generation, so the accountant need not know its start.
            starts: CallStarts::none(),
            is_step: true,
            call_id,
            session,
            method: String::new(),
            operation: operation.to_owned(),
            request_bytes: 0,
            response_bytes: 0,
            started_at,
            is_request_sent: false,
            is_refused: false,
            http_status: 0,
            grpc: None,
            transport: Transport::None,
            generation: Some(Box::new(generation)),
            observed: Observed::default(),
            product,
        })
    }
}

impl Exchange for ApiExchange {
    fn wants_proof(&self) -> bool {
        self.starts.wants_proof()
    }

    fn set_proof(&mut self, proof: TraceId) {
        self.starts.set_proof(proof);
    }

    fn begin(&mut self) {
        let (call_id, tool, at) = (&self.call_id, &self.operation, self.started_at);
        self.observed.facts.extend(self.starts.started(call_id, &self.session, tool, None, at));
    }

    fn request_interest(&self) -> BodyInterest {
        if self.generation.is_some() { BodyInterest::Bytes } else { BodyInterest::Size }
    }

    fn request_body(&mut self, chunk: &[u8], now: Timestamp) -> Option<Vec<u8>> {
        self.request_size(chunk.len(), now);
        self.generation.as_mut()?.request_body(chunk, now)
    }

    fn request_size(&mut self, bytes: usize, _now: Timestamp) {
        self.request_bytes = self.request_bytes.saturating_add(len_u64(bytes));
    }

    fn request_end(&mut self, now: Timestamp) {
        self.is_request_sent = true;
        if let Some(generation) = &mut self.generation {
            generation.request_end(now);
        }
    }

    fn response_head(&mut self, head: &ResponseHead<'_>) -> BodyInterest {
        self.http_status = head.status;
        self.grpc = GrpcOutcome::of_head(head.headers);
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

    fn response_trailers(&mut self, trailers: Headers<'_>) {
        if let Some(grpc) = &mut self.grpc {
            grpc.read_trailers(trailers);
        }
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

    fn customer(&self) -> &str {
        &self.session.identity.customer
    }

    fn may_edit(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.may_edit())
    }

    fn wants_plain_frames(&self) -> bool {
        self.generation.as_ref().is_some_and(|generation| generation.wants_plain_frames())
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
        Some((session, self.started_at))
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
        self.is_request_sent = false;
        self.is_refused = true;
        // What starts with the head has not started.
        self.observed.facts.clear();
        if let Some(generation) = self.generation.take() {
            self.observed.add(generation.refuse(http_status, now));
        }
        self.end(StreamEnd::Complete, now)
    }

    fn end(mut self: Box<Self>, end: StreamEnd, now: Timestamp) -> Observed {
        let mut status = match self.grpc {
            _ if self.is_refused => ExecutionStatus::Blocked,
            Some(grpc) if self.http_status == 200 => grpc.status(),
            _ => ExecutionStatus::of_api(self.http_status, end),
        };
        if let Some(mut generation) = self.generation.take() {
            if generation.is_stopped() {
                status = ExecutionStatus::Cancelled;
            }
            if self.is_step {
                self.session = generation.session_at_end().clone();
            }
            self.observed.add(generation.end(end, now));
        }
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
                is_request_sent: self.is_request_sent,
                started_at: self.started_at.min(now),
                ended_at: now,
                answer: None,
                payment: None,
                correlation: None,
            }));
        }
        self.observed
    }
}

impl ExecutionStatus {
    /// The outcome of an API call, from HTTP alone: the body says nothing about it.
    fn of_api(http_status: u16, end: StreamEnd) -> Self {
        match (http_status, end) {
            (100..400, StreamEnd::Complete) => Self::Success,
            (100..400, StreamEnd::Aborted) => Self::Unknown,
            (0, StreamEnd::Aborted) => Self::Cancelled,
            _ => Self::of_http(http_status),
        }
    }
}
