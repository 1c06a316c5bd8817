//! The gRPC service: one stream for each exchange, one answer to each step, which changes nothing.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::{Stream, stream};
use http::{Request, Response};
use tonic::body::Body;
use tonic::server::{Grpc, StreamingService};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;
use tower_service::Service;

use crate::exchange::{Exchange, Outcome};
use crate::wire::{Answer, Continue, PROCESS, ProcessingRequest, ProcessingResponse, Step};

type Answers = Pin<Box<dyn Stream<Item = Result<ProcessingResponse, Status>> + Send>>;

/// The processor; clones count together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Processor {
    understood: Arc<AtomicU64>,
}

impl Processor {
    /// How many successful calls it has understood, from head to outcome.
    pub(crate) fn understood(&self) -> u64 {
        self.understood.load(Ordering::Relaxed)
    }

    fn answer(&self, exchange: &mut Exchange, step: &Step) -> ProcessingResponse {
        if exchange.take(step).is_some_and(|call| call.outcome == Outcome::Success) {
            self.understood.fetch_add(1, Ordering::Relaxed);
        }
        let answer = match step {
            Step::RequestHeaders(_) => Answer::RequestHeaders(Continue {}),
            Step::ResponseHeaders(_) => Answer::ResponseHeaders(Continue {}),
            Step::RequestBody(_) => Answer::RequestBody(Continue {}),
            Step::ResponseBody(_) => Answer::ResponseBody(Continue {}),
        };
        ProcessingResponse { answer: Some(answer) }
    }
}

impl Service<Request<Body>> for Processor {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() != PROCESS {
            return Box::pin(ready(Ok(Status::unimplemented("no such method").into_http())));
        }
        let process = Process(self.clone());
        let mut grpc = Grpc::new(ProstCodec::default());
        Box::pin(async move { Ok(grpc.streaming(process, request).await) })
    }
}

/// The method `Process`.
struct Process(Processor);

impl StreamingService<ProcessingRequest> for Process {
    type Response = ProcessingResponse;
    type ResponseStream = Answers;
    type Future = Ready<Result<tonic::Response<Answers>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<ProcessingRequest>>) -> Self::Future {
        let start = (self.0.clone(), Exchange::default(), request.into_inner());
        let answers = stream::try_unfold(start, async |(processor, mut exchange, mut steps)| {
            let Some(request) = steps.message().await? else { return Ok(None) };
            let step = request.step.ok_or_else(|| Status::invalid_argument("no known step"))?;
            let answer = processor.answer(&mut exchange, &step);
            Ok(Some((answer, (processor, exchange, steps))))
        });
        ready(Ok(tonic::Response::new(Box::pin(answers))))
    }
}
