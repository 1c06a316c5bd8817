//! The messages of `envoy.service.ext_proc.v3` that are read and written, derived by hand: what is not
//! listed is skipped, as Protocol Buffers allow.
//!
//! Source: `api/envoy/service/ext_proc/v3/external_processor.proto` and
//! `api/envoy/config/core/v3/base.proto` (`HeaderMap`, `HeaderValue`) of Envoy 1.40.0.

use bytes::Bytes;
use prost::{Message, Oneof};

/// The path of the only method, as gRPC names it.
pub(crate) const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// What Envoy tells about an exchange, step by step.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProcessingRequest {
    #[prost(oneof = "Step", tags = "2, 3, 4, 5")]
    pub(crate) step: Option<Step>,
}

/// One step of an exchange.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Step {
    #[prost(message, tag = "2")]
    RequestHeaders(HttpHeaders),
    #[prost(message, tag = "3")]
    ResponseHeaders(HttpHeaders),
    #[prost(message, tag = "4")]
    RequestBody(HttpBody),
    #[prost(message, tag = "5")]
    ResponseBody(HttpBody),
}

/// A head.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpHeaders {
    #[prost(message, optional, tag = "1")]
    pub(crate) headers: Option<HeaderMap>,
}

/// The headers of a head, pseudo-headers too.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderMap {
    #[prost(message, repeated, tag = "1")]
    pub(crate) headers: Vec<HeaderValue>,
}

/// One header; its name is in lower case.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HeaderValue {
    #[prost(string, tag = "1")]
    pub(crate) key: String,
    /// Envoy sends values here, and none in `value`.
    #[prost(bytes = "bytes", tag = "3")]
    pub(crate) raw_value: Bytes,
}

/// A whole body, as it is sent in the mode `BUFFERED`.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct HttpBody {
    #[prost(bytes = "bytes", tag = "1")]
    pub(crate) body: Bytes,
    #[prost(bool, tag = "2")]
    pub(crate) end_of_stream: bool,
}

/// The answer to a step.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProcessingResponse {
    #[prost(oneof = "Answer", tags = "1, 2, 3, 4")]
    pub(crate) answer: Option<Answer>,
}

/// The answer to a step, under the number of its kind.
#[derive(Clone, PartialEq, Oneof)]
pub(crate) enum Answer {
    #[prost(message, tag = "1")]
    RequestHeaders(Continue),
    #[prost(message, tag = "2")]
    ResponseHeaders(Continue),
    #[prost(message, tag = "3")]
    RequestBody(Continue),
    #[prost(message, tag = "4")]
    ResponseBody(Continue),
}

/// `HeadersResponse` or `BodyResponse` without a `CommonResponse`: its status is `CONTINUE`, and nothing is
/// changed.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Continue {}

/// Messages as Envoy sends them, for the tests.
#[cfg(test)]
pub(crate) mod samples {
    use bytes::Bytes;

    use super::{HeaderMap, HeaderValue, HttpBody, HttpHeaders};

    pub(crate) fn head(headers: &[(&str, &str)]) -> HttpHeaders {
        let header = |&(key, value): &(&str, &str)| HeaderValue {
            key: key.to_owned(),
            raw_value: Bytes::copy_from_slice(value.as_bytes()),
        };
        HttpHeaders { headers: Some(HeaderMap { headers: headers.iter().map(header).collect() }) }
    }

    pub(crate) fn body(text: &str) -> HttpBody {
        HttpBody { body: Bytes::copy_from_slice(text.as_bytes()), end_of_stream: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_from_its_bytes_and_what_is_unknown_is_skipped() {
        // request_headers (2) { headers (1) { headers (1) { key: "a", raw_value: "b" } }, end_of_stream (3) },
        // then observability_mode (10), which this does not list.
        let bytes = b"\x12\x0c\x0a\x08\x0a\x06\x0a\x01a\x1a\x01b\x18\x01\x50\x00";
        let read = ProcessingRequest::decode(&bytes[..]).expect("a message");
        assert_eq!(read.step, Some(Step::RequestHeaders(samples::head(&[("a", "b")]))));
    }

    #[test]
    fn each_answer_has_the_number_of_its_step() {
        for (answer, bytes) in [
            (Answer::RequestHeaders(Continue {}), b"\x0a\x00"),
            (Answer::ResponseHeaders(Continue {}), b"\x12\x00"),
            (Answer::RequestBody(Continue {}), b"\x1a\x00"),
            (Answer::ResponseBody(Continue {}), b"\x22\x00"),
        ] {
            let response = ProcessingResponse { answer: Some(answer) };
            assert_eq!(response.encode_to_vec(), bytes, "{response:?}");
        }
    }
}
