//! Reads the trace that a request belongs to, which links a tool call to the generations that it
//! causes: W3C Trace Context (`traceparent`, Recommendation of 2021-11-23) and Zipkin's B3
//! propagation, single and multiple.

use crate::domain::ids::TraceId;
use crate::wire::http::Headers;

/// The traces that a request's headers name: one, or several if propagators disagree.
pub(crate) fn traces_of(headers: Headers<'_>) -> Vec<TraceId> {
    let mut traces = Vec::new();
    for trace in [
        headers.get("traceparent").and_then(traceparent),
        headers.get("b3").and_then(b3),
        headers.get("x-b3-traceid").and_then(trace_id),
    ] {
        add(&mut traces, trace);
    }
    traces
}

/// Adds a trace, unless `traces` already contains it.
pub(crate) fn add(traces: &mut Vec<TraceId>, trace: Option<TraceId>) {
    if let Some(trace) = trace
        && !traces.contains(&trace)
    {
        traces.push(trace);
    }
}

/// The trace id of a `traceparent`: `{version}-{trace-id}-{parent-id}-{flags}`.
pub(crate) fn traceparent(value: &[u8]) -> Option<TraceId> {
    let mut parts = value.trim_ascii().split(|byte| *byte == b'-');
    let version = parts.next().filter(|version| version.len() == 2 && *version != b"ff")?;
    let trace = parts.next().filter(|trace| trace.len() == 32)?;
    let _parent = parts.next().filter(|parent| parent.len() == 16)?;
    version.iter().all(u8::is_ascii_hexdigit).then(|| trace_id(trace))?
}

/// The trace id of a single `b3` header: `{trace-id}-{span-id}-...`, or a bare sampling state,
/// which names no trace.
fn b3(value: &[u8]) -> Option<TraceId> {
    trace_id(value.split(|byte| *byte == b'-').next()?)
}

/// Reads 16 or 32 hexadecimal digits that are not all zero.
fn trace_id(digits: &[u8]) -> Option<TraceId> {
    let digits = digits.trim_ascii();
    if !matches!(digits.len(), 16 | 32) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let number = u128::from_str_radix(core::str::from_utf8(digits).ok()?, 16).ok()?;
    (number != 0).then(|| number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::{Headers, TraceId, traces_of};

    const TRACE: TraceId = [
        0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47,
        0x36,
    ];

    #[test]
    fn a_trace_is_named_in_any_of_its_headers() {
        let short = 0x00f0_67aa_0ba9_02b7_u128.to_be_bytes();
        for (name, value, trace) in [
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", Some(TRACE)),
            (
                "traceparent",
                "cc-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01-later",
                Some(TRACE),
            ),
            ("traceparent", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", None),
            ("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", None),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01", None),
            ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736", None),
            ("traceparent", "", None),
            ("b3", "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1", Some(TRACE)),
            ("b3", "0", None),
            ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736", Some(TRACE)),
            ("x-b3-traceid", "00f067aa0ba902b7", Some(short)),
            ("x-trace", "4bf92f3577b34da6a3ce929d0e0e4736", None),
        ] {
            let headers = [(name.to_owned(), value.as_bytes().to_vec())];
            assert_eq!(traces_of(Headers(&headers)), Vec::from_iter(trace), "{name}: {value}");
        }
    }
}
