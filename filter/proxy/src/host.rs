//! Envoy as the core sees it. The only file that names host calls: the SDK's trait methods panic on text that is no
//! UTF-8, so the byte forms are used throughout.

use std::time::{Duration, UNIX_EPOCH};

use agent_meter_core::accountant::outbox::Dispatch;
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::delivery::Collector;
use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::host::{Conflict, Expect, Host};
use agent_meter_core::wire::http::LocalReply;
use proxy_wasm::hostcalls;
use proxy_wasm::types::{Action, BufferType, MapType, MetricType, Status};

/// A version that Envoy never gives to a value: writing with it succeeds only if the key does not exist.
const NO_VERSION: u32 = u32::MAX;

/// The host calls, and the numbers of the metrics in this VM.
#[derive(Debug)]
pub(crate) struct Envoy {
    /// A counter's number in Envoy, and what has been added since the last tick: a host call for each count would
    /// cost a request more than its scanning.
    counters: Vec<(Option<u32>, u64)>,
    gauges: Vec<Option<u32>>,
}

impl Envoy {
    /// Makes the metrics known to Envoy.
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
    /// Adds what has been counted since the last time to Envoy's stats.
    pub(crate) fn flush_counters(&mut self) {
        for (id, pending) in &mut self.counters {
            let by = i64::try_from(core::mem::take(pending)).unwrap_or(i64::MAX);
            if let (Some(id), true) = (*id, by > 0) {
                // A metric that Envoy does not take is no reason to disturb traffic.
                let _ = hostcalls::increment_metric(id, by);
            }
        }
    }
}

fn place<T: PartialEq>(all: &[T], one: &T) -> usize {
    all.iter().position(|other| other == one).unwrap_or(usize::MAX)
}

impl Host for Envoy {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        #[cfg(feature = "crash-test")]
        crate::crash::host_call();
        // An empty value comes without bytes, a key that was never written comes without a version.
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

    fn spill(&mut self, reason: &str, kind: &str, body: &str) {
        log::warn!("agent-meter spill reason={reason} {kind}={body}");
    }

    fn count(&mut self, counter: Counter, by: u64) {
        if let Some((_, pending)) = self.counters.get_mut(place(Counter::ALL, &counter)) {
            *pending = pending.saturating_add(by);
        }
    }

    fn gauge(&mut self, gauge: Gauge, value: u64) {
        if let Some(id) = self.gauges.get(place(Gauge::ALL, &gauge)).copied().flatten() {
            let _ = hostcalls::record_metric(id, value);
        }
    }
}

/// The host's wall clock.
pub(crate) fn now() -> Timestamp {
    Timestamp(u64::try_from(since_1970().as_millis()).unwrap_or(u64::MAX))
}

/// The host's wall clock in nanoseconds since 1970.
pub(crate) fn now_ns() -> u64 {
    u64::try_from(since_1970().as_nanos()).unwrap_or(u64::MAX)
}

fn since_1970() -> Duration {
    hostcalls::get_current_time()
        .ok()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .unwrap_or_default()
}

/// Asks for ticks.
pub(crate) fn set_tick_period(period: Duration) {
    // Envoy takes any period; without ticks nothing would be delivered, which shows in the gauges.
    let _ = hostcalls::set_tick_period(period);
}

/// Up to `size` bytes of a buffer, from `start` on.
pub(crate) fn buffer(buffer_type: BufferType, start: usize, size: usize) -> Vec<u8> {
    hostcalls::get_buffer(buffer_type, start, size).ok().flatten().unwrap_or_default()
}

/// All headers of a map, in one call: three single reads would cost more.
pub(crate) fn headers(map_type: MapType) -> Vec<(String, Vec<u8>)> {
    hostcalls::get_map_bytes(map_type).unwrap_or_default()
}

/// Replaces a request header. Envoy chooses the route anew then, so this is done only where something changes.
pub(crate) fn set_request_header(name: &str, value: &str) {
    // What Envoy refuses stays as the client sent it; the response tells whether it can be read.
    let _ =
        hostcalls::set_map_value_bytes(MapType::HttpRequestHeaders, name, Some(value.as_bytes()));
}

/// Sets a response header.
pub(crate) fn add_response_header(name: &str, value: &str) {
    // A response without the header is better than none.
    let _ =
        hostcalls::set_map_value_bytes(MapType::HttpResponseHeaders, name, Some(value.as_bytes()));
}

/// Answers a request instead of the server.
pub(crate) fn answer(reply: &LocalReply) -> Action {
    let headers = reply.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = Some(reply.body.as_bytes()).filter(|body| !body.is_empty());
    match hostcalls::send_http_response(u32::from(reply.status), headers, body) {
        Ok(()) => Action::Pause,
        // Traffic goes on whatever metering does.
        Err(_) => Action::Continue,
    }
}

/// Takes a header out.
pub(crate) fn remove_header(map: MapType, name: &str) {
    // Without this Envoy would cut a body that has become longer, and a client wait for one that has become shorter.
    let _ = hostcalls::remove_map_value(map, name);
}

/// Puts `bytes` in the place of the first `size` bytes of a buffer.
pub(crate) fn replace(buffer_type: BufferType, size: usize, bytes: &[u8]) {
    // What Envoy refuses passes as it is.
    let _ = hostcalls::set_buffer(buffer_type, 0, size, bytes);
}

/// Resets a stream, which is that of another context than the one that was called.
pub(crate) fn close(context_id: u32) {
    // A stream that has ended in between needs no end.
    if hostcalls::set_effective_context(context_id).is_ok() {
        let _ = hostcalls::reset_http_response();
    }
}

/// A property of the host as bytes.
pub(crate) fn property_bytes(path: &[&str]) -> Option<Vec<u8>> {
    hostcalls::get_property(path.to_vec()).ok().flatten()
}

/// A text property of the host, or nothing.
pub(crate) fn property(path: &[&str]) -> String {
    String::from_utf8_lossy(&property_bytes(path).unwrap_or_default()).into_owned()
}

/// Sends a batch; gives the token with which the reply will come.
pub(crate) fn dispatch(collector: &Collector, request: &Dispatch) -> Result<u32, Status> {
    let format = collector.format.format();
    let mut headers = vec![
        (":method", "POST"),
        (":path", collector.path.as_str()),
        (":authority", collector.authority.as_str()),
        ("content-type", format.media_type()),
    ];
    headers.extend_from_slice(format.headers());
    let timeout = Duration::from_millis(collector.timeout.millis().0);
    hostcalls::dispatch_http_call(
        &collector.cluster,
        headers,
        Some(&request.body),
        Vec::new(),
        timeout,
    )
}
