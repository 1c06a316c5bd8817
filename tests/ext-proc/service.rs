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

#[cfg(test)]
mod tests {
    use bytes::{BufMut, Bytes, BytesMut};
    use http_body_util::{BodyExt, Full};
    use prost::Message;

    use super::*;
    use crate::wire::samples::{body, head};

    fn call() -> Vec<Step> {
        let identity = [("mcp-session-id", "s"), ("x-customer-id", "c"), ("x-agent-id", "a")];
        let status = [(":status", "200"), ("content-type", "application/json")];
        vec![
            Step::RequestHeaders(head(&identity)),
            Step::RequestBody(body(r#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#)),
            Step::ResponseHeaders(head(&status)),
            Step::ResponseBody(body(r#"{"id":1,"result":{}}"#)),
        ]
    }

    /// Sends messages as gRPC frames them; returns the status and the answers' bytes.
    async fn send(processor: &Processor, path: &str, steps: Vec<Option<Step>>) -> (String, Bytes) {
        let mut frames = BytesMut::new();
        for step in steps {
            let message = ProcessingRequest { step }.encode_to_vec();
            frames.put_u8(0);
            frames.put_u32(u32::try_from(message.len()).expect("short"));
            frames.extend_from_slice(&message);
        }
        let request = Request::post(path).header("content-type", "application/grpc");
        let request = request.body(Body::new(Full::new(frames.freeze()))).expect("a request");
        let response = processor.clone().call(request).await.expect("never fails");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a whole body");
        // A failure before the first message is told in the head.
        let mut trailers = body.trailers().cloned().unwrap_or_default();
        trailers.extend(parts.headers);
        let status = trailers.get("grpc-status").expect("a status");
        (status.to_str().expect("text").to_owned(), body.to_bytes())
    }

    #[tokio::test]
    async fn each_step_is_answered_and_the_call_counted_once() {
        let processor = Processor::default();
        let steps = || call().into_iter().map(Some).collect();
        let (status, answers) = send(&processor, PROCESS, steps()).await;
        assert_eq!(status, "0");
        let expected = b"\0\0\0\0\x02\x0a\0\0\0\0\0\x02\x1a\0\0\0\0\0\x02\x12\0\0\0\0\0\x02\x22\0";
        assert_eq!(&answers[..], expected, "{answers:?}");
        assert_eq!(processor.understood(), 1);
        send(&processor, PROCESS, steps()).await;
        assert_eq!(processor.understood(), 2);
    }

    #[tokio::test]
    async fn what_is_unknown_is_refused_and_counts_nothing() {
        let processor = Processor::default();
        let unimplemented = send(&processor, "/envoy.other/Process", vec![]).await;
        assert_eq!(unimplemented.0, "12");
        let invalid = send(&processor, PROCESS, vec![None]).await;
        assert_eq!(invalid.0, "3");
        let cut = call().into_iter().take(3).map(Some).collect();
        assert_eq!(send(&processor, PROCESS, cut).await.0, "0");
        assert_eq!(processor.understood(), 0);
    }
}
