//! Envoy, as the core sees it. Only this file names host calls. The SDK's trait methods panic on
//! text that is not UTF-8, so this file uses the byte forms throughout.

use std::time::Duration;

use agent_meter_core::accountant::outbox::Dispatch;
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::delivery::Collector;
use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::host::spill::Spill;
use agent_meter_core::host::{Conflict, Expect, Host};
use agent_meter_core::wire::http::{HeaderBytes, LocalReply};
use proxy_wasm::hostcalls;
use proxy_wasm::types::{Action, BufferType, MapType, MetricType, Status};

use crate::raw;

/// A version that Envoy never gives to a value. A write with it succeeds only if the key does not
/// exist.
const NO_VERSION: u32 = u32::MAX;

/// Makes the host calls, and holds the numbers of the metrics in this VM.
#[derive(Debug)]
pub(crate) struct Envoy {
    /// A counter's number in Envoy, and the sum of its counts since the last tick. A host call for
    /// each count would cost a request more than its scanning.
    counters: Vec<(Option<u32>, u64)>,
    gauges: Vec<Option<u32>>,
}

impl Envoy {
    /// Defines the metrics in Envoy.
    pub(crate) fn new() -> Self {
        let define = |kind: MetricType, name: &str| {
            hostcalls::define_metric(kind, &format!("agent_meter.{name}")).ok()
        };
        let counter = |counter: &Counter| define(MetricType::Counter, counter.name());
        let gauge = |gauge: &Gauge| define(MetricType::Gauge, gauge.name());
        Self {
            counters: Counter::ALL.iter().map(|each| (counter(each), 0)).collect(),
            gauges: Gauge::ALL.iter().map(gauge).collect(),
        }
    }
}

impl Envoy {
    /// Adds the counts since the last time to Envoy's stats.
    pub(crate) fn flush_counters(&mut self) {
        for (id, pending) in &mut self.counters {
            let by = i64::try_from(core::mem::take(pending)).unwrap_or(i64::MAX);
            if let (Some(id), true) = (*id, by > 0) {
                // If Envoy does not accept a metric, traffic goes on undisturbed.
                let _ = hostcalls::increment_metric(id, by);
            }
        }
    }
}

impl Host for Envoy {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        #[cfg(feature = "crash-test")]
        crate::crash::host_call();
        // Envoy returns an empty value without bytes, and a key that was never written without a
        // version.
        let (value, version) = hostcalls::get_shared_data(key).ok()?;
        version.map(|version| (value.unwrap_or_default(), version))
    }

    fn set(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
        #[cfg(feature = "crash-test")]
        crate::crash::host_call();
        let version = match expect {
            Expect::Any => None,
            Expect::Absent => Some(NO_VERSION),
            Expect::Version(version) => Some(version),
        };
        hostcalls::set_shared_data(key, Some(value), version).map_err(|_| Conflict)
    }

    fn property(&mut self, path: &[&str]) -> Option<Vec<u8>> {
        property_bytes(path)
    }

    fn spill(&mut self, spill: &Spill<'_>) {
        for line in spill.lines() {
            log::warn!("{line}");
        }
    }

    fn warn(&mut self, line: &str) {
        log::warn!("{line}");
    }

    fn count(&mut self, counter: Counter, by: u64) {
        // The numbers of the variants are their places in the list.
        if let Some((_, pending)) = self.counters.get_mut(counter as usize) {
            *pending = pending.saturating_add(by);
        }
    }

    fn gauge(&mut self, gauge: Gauge, value: u64) {
        if let Some(id) = self.gauges.get(gauge as usize).copied().flatten() {
            let _ = hostcalls::record_metric(id, value);
        }
    }
}

/// The host's wall clock in milliseconds since 1970.
pub(crate) fn now() -> Timestamp {
    Timestamp(now_ns() / 1_000_000)
}

/// The host's wall clock in nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    raw::current_time_ns()
}

/// Asks Envoy for ticks.
pub(crate) fn set_tick_period(period: Duration) {
    // Envoy accepts any period. Without ticks the filter would deliver nothing, which the gauges
    // would show.
    let _ = hostcalls::set_tick_period(period);
}

/// Returns up to `size` bytes of a buffer, beginning at `start`.
pub(crate) fn buffer(buffer_type: BufferType, start: usize, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(buffer_type, start, size).ok().flatten().unwrap_or_default()
}

/// Returns all headers of a map, in one host call: three single reads would cost more.
pub(crate) fn headers(map_type: MapType) -> HeaderBytes {
    HeaderBytes::new(raw::header_map(map_type))
}

/// Replaces a request header. Envoy then chooses the route again, so call this only if something
/// changes.
pub(crate) fn set_request_header(name: &str, value: &str) {
    // If Envoy refuses this, the header stays as the client sent it. The response shows whether the
    // filter can read it.
    let _ =
        hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value.as_bytes()));
}

/// Sets a response header.
pub(crate) fn add_response_header(name: &str, value: &str) {
    // A response without the header is better than no response.
    let _ =
        hostcalls::set_map_value_bytes(MapType::HttpResponseHeaders, name, Some(value.as_bytes()));
}

/// Answers a request in place of the server.
pub(crate) fn answer(reply: &LocalReply) -> Action {
    let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = Some(reply.body.as_bytes()).filter(|body| !body.is_empty());
    match hostcalls::send_http_response(u32::from(reply.status), headers, body) {
        Ok(()) => Action::Pause,
        // Traffic goes on, whatever metering does.
        Err(_) => Action::Continue,
    }
}

/// Removes a header.
pub(crate) fn remove_header(map: MapType, name: &str) {
    // With an outdated length, Envoy would cut a body that the filter has lengthened, and the
    // client would wait for the rest of one that the filter has shortened.
    let _ = hostcalls::remove_map_value(map, name);
}

/// Replaces the first `size` bytes of a buffer with `bytes`.
pub(crate) fn replace(buffer_type: BufferType, size: usize, bytes: &[u8]) {
    // If Envoy refuses this, the bytes pass unchanged.
    let _ = hostcalls::set_buffer(buffer_type, 0, size, bytes);
}

/// Answers a request whose context is another one than the one that Envoy called.
pub(crate) fn answer_later(context_id: u32, reply: &LocalReply) {
    // A stream that has ended in between needs no answer.
    if hostcalls::set_effective_context(context_id).is_ok() {
        answer(reply);
    }
}

/// Resets a stream. Its context is another one than the one that Envoy called.
pub(crate) fn close(context_id: u32) {
    // A stream that has ended in between needs no reset.
    if hostcalls::set_effective_context(context_id).is_ok() {
        let _ = hostcalls::reset_http_response();
    }
}

/// Returns a property of the host as bytes.
pub(crate) fn property_bytes(path: &[&str]) -> Option<Vec<u8>> {
    raw::property(path)
}

/// Returns a text property of the host, or an empty string if there is none.
pub(crate) fn property(path: &[&str]) -> String {
    String::from_utf8_lossy(&property_bytes(path).unwrap_or_default()).into_owned()
}

/// Sets a property of the current stream. Envoy keeps it in the stream's filter state, where other
/// filters and access logs find it.
pub(crate) fn set_property(name: &str, value: &str) {
    // Envoy refuses it once the stream is gone. Without the mark another filter on the same stream
    // would meter the request again.
    let _ = raw::set_property(name, value.as_bytes());
}

/// Sends a batch. Returns the token with which Envoy will deliver the reply.
pub(crate) fn dispatch(collector: &Collector, request: &Dispatch) -> Result<u32, Status> {
    let format = collector.format.format();
    let mut headers = vec![
        (":method", "POST"),
        (":path", collector.path.as_str()),
        (":authority", collector.authority.as_str()),
        ("content-type", format.media_type()),
    ];
    headers.extend_from_slice(format.headers());
    headers.extend(collector.own_headers());
    let credential = request.credential.as_ref();
    headers.extend(credential.map(|header| (header.name, header.value.as_str())));
    let timeout = Duration::from_millis(collector.timeout.millis().0);
    hostcalls::dispatch_http_call(
        &collector.cluster,
        headers,
        Some(&request.body),
        Vec::new(),
        timeout,
    )
}
