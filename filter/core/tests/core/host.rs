//! A host without faults, for tests of one VM at a time. The simulator has one with faults.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter_core::accountant::outbox::Dispatch;
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::host::spill::Spill;
use agent_meter_core::host::{Conflict, Expect, Host};
use agent_meter_core::meter::Meter;
use agent_meter_core::meter::action::{HeadAction, VmInfo};
use agent_meter_core::sink::reply::{HttpReply, Reply};
use agent_meter_core::wire::http::Headers;
use serde_json::Value;

/// Shared data, log and stats of one Envoy process.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// What the host knows of the stream that is looked at, by the parts of its path joined with a blank.
    pub(crate) properties: BTreeMap<String, String>,
    /// Those of them in dynamic metadata that are numbers: their text is the bytes of a double.
    pub(crate) numbers: BTreeSet<String>,
    pub(crate) data: BTreeMap<String, (Vec<u8>, u32)>,
    pub(crate) calls: u64,
    pub(crate) spilled: Vec<(String, Value)>,
    pub(crate) lines: Vec<String>,
    pub(crate) warned: Vec<String>,
    pub(crate) counters: BTreeMap<Counter, u64>,
    pub(crate) gauges: BTreeMap<Gauge, u64>,
}

impl Memory {
    /// The dynamic metadata below `prefix` as Envoy serialises it: a `Metadata`, whose entries are
    /// `Struct`s, or with `wrap` a `Struct`, whose entries are `Value`s.
    fn metadata(&self, prefix: &str, wrap: Option<u8>) -> Vec<u8> {
        let below: BTreeSet<&str> = self
            .properties
            .keys()
            .filter_map(|key| key.strip_prefix(prefix)?.split(' ').next())
            .collect();
        let mut message = Vec::new();
        for name in below {
            let path = format!("{prefix}{name}");
            let value = match self.properties.get(&path) {
                Some(number) if self.numbers.contains(&path) => {
                    [&[2 << 3 | 1], number.as_bytes()].concat()
                }
                Some(text) => bytes_field(3, text.as_bytes()),
                None => {
                    let inner = self.metadata(&format!("{path} "), Some(5));
                    wrap.map_or(inner.clone(), |field| bytes_field(field, &inner))
                }
            };
            let entry = [bytes_field(1, name.as_bytes()), bytes_field(2, &value)].concat();
            message.extend(bytes_field(1, &entry));
        }
        message
    }
}

/// A protobuf field of text, bytes or a message.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length > 127 {
        field.push(u8::try_from(length & 127).unwrap() | 128);
        length >>= 7;
    }
    field.push(u8::try_from(length).unwrap());
    field.extend(bytes);
    field
}

impl Host for Memory {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.calls += 1;
        self.data.get(key).cloned()
    }

    fn set(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
        self.calls += 1;
        let found = self.data.get(key).map(|(_, version)| *version);
        match (found, expect) {
            (Some(_), Expect::Absent) => return Err(Conflict),
            (Some(version), Expect::Version(expected)) if version != expected => {
                return Err(Conflict);
            }
            _ => {}
        }
        let version = u32::try_from(self.calls).unwrap();
        self.data.insert(key.to_owned(), (value.to_vec(), version));
        Ok(())
    }

    fn property(&mut self, path: &[&str]) -> Option<Vec<u8>> {
        if path == ["metadata"] {
            return Some(self.metadata("metadata filter_metadata ", None));
        }
        self.properties.get(&path.join(" ")).map(|value| value.as_bytes().to_vec())
    }

    fn spill(&mut self, spill: &Spill<'_>) {
        self.spilled.push((spill.reason.to_owned(), serde_json::from_str(spill.text).unwrap()));
        self.lines.extend(spill.lines());
    }

    fn warn(&mut self, line: &str) {
        self.warned.push(line.to_owned());
    }

    fn count(&mut self, counter: Counter, by: u64) {
        *self.counters.entry(counter).or_default() += by;
    }

    fn gauge(&mut self, gauge: Gauge, value: u64) {
        self.gauges.insert(gauge, value);
    }
}

/// The trace of every request.
const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// An Envoy with an accountant on its main thread and one worker, driven by hand.
pub(crate) struct Envoy {
    pub(crate) host: Memory,
    pub(crate) main: Meter,
    pub(crate) worker: Meter,
    pub(crate) now: Timestamp,
    next_stream: u32,
    /// The trace context with which the last call went up.
    carried: Vec<(String, String)>,
}

/// What the accountant does in one piece.
const PIECE: usize = 64;

/// When an [`Envoy`] starts.
pub(crate) const START: Timestamp = Timestamp(1_763_890_200_000);

pub(crate) fn meter(host: &mut Memory, config: &str) -> Meter {
    meter_at(host, config, START)
}

/// A VM that reads its configuration at this time.
pub(crate) fn meter_at(host: &mut Memory, config: &str, now: Timestamp) -> Meter {
    let place =
        VmInfo { plugin: "test".to_owned(), node: "node".to_owned(), seed: 1, piece: PIECE };
    let read = Config::from_bytes(config.as_bytes()).unwrap();
    Meter::new(host, read, config.as_bytes(), place, now)
}

impl Envoy {
    pub(crate) fn new(config: &str) -> Self {
        let mut host = Memory::default();
        let main = meter(&mut host, config);
        let worker = meter(&mut host, config);
        let now = START;
        let carried = Vec::new();
        let mut envoy = Self { host, main, worker, now, next_stream: 1, carried };
        // A VM that has served a stream leaves the lease to the one on the main thread.
        let headers = [(":path".to_owned(), b"/elsewhere".to_vec())];
        let action = envoy.worker.request_head(&mut envoy.host, 0, Headers(&headers), now);
        assert!(!matches!(action, HeadAction::Follow(_)));
        assert!(envoy.tick(0).is_empty());
        assert!(envoy.main.is_accountant());
        envoy
    }

    fn is_followed(&mut self, stream: u32, headers: &[(String, Vec<u8>)]) -> bool {
        let Self { host, worker, now, .. } = self;
        match worker.request_head(host, stream, Headers(&headers), *now) {
            HeadAction::Follow(edit) => {
                self.carried.extend(edit.set);
                true
            }
            _ => false,
        }
    }

    /// Lets milliseconds pass, then ticks the worker and the accountant.
    pub(crate) fn tick(&mut self, after_ms: u64) -> Vec<Dispatch> {
        let mut requests = Vec::new();
        self.tick_in_pieces(after_ms, |of_piece| requests.extend(of_piece));
        requests
    }

    /// The same; hands over what each piece sends.
    pub(crate) fn tick_in_pieces(&mut self, after_ms: u64, mut take: impl FnMut(Vec<Dispatch>)) {
        self.now.0 += after_ms;
        assert!(self.worker.tick(&mut self.host, self.now).is_empty());
        take(self.main.tick(&mut self.host, self.now));
        while self.main.has_work() {
            take(self.main.go_on(&mut self.host, self.now));
        }
    }

    /// One call of 5 ms in `session`.
    pub(crate) fn call(&mut self, session: &str, tool: &str, result: &str) {
        let stream = self.start(session, tool);
        self.finish(stream, result);
    }

    /// A call whose request has gone up.
    pub(crate) fn start(&mut self, session: &str, tool: &str) -> u32 {
        let stream = self.next_stream;
        self.next_stream += 1;
        let headers = [
            (":method", "POST"),
            (":path", "/mcp"),
            ("mcp-session-id", session),
            ("x-customer-id", "acme"),
            ("traceparent", TRACE),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let body = format!(r#"{{"id":1,"method":"tools/call","params":{{"name":"{tool}"}}}}"#);
        assert!(self.is_followed(stream, &headers));
        self.worker.request_body(&mut self.host, stream, body.as_bytes(), true, self.now);
        stream
    }

    /// A chat completion of 3 ms, asked for by whatever runs.
    pub(crate) fn generate(&mut self, answer: &str) {
        let stream = self.next_stream;
        self.next_stream += 1;
        let mut headers: Vec<(String, Vec<u8>)> = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api.openai.com"),
            ("traceparent", TRACE),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
        .into();
        let carried = self.carried.drain(..);
        headers.extend(carried.map(|(name, value)| (name.to_owned(), value.into_bytes())));
        assert!(self.is_followed(stream, &headers));
        let body = br#"{"model":"gpt-4o"}"#;
        self.worker.request_body(&mut self.host, stream, body, true, self.now);
        self.now.0 += 3;
        let headers = [(":status".to_owned(), b"200".to_vec())];
        assert_eq!(self.worker.response_head(stream, Headers(&headers)), BodyInterest::Bytes);
        self.worker.response_body(&mut self.host, stream, answer.as_bytes(), true, self.now);
        self.worker.stream_end(&mut self.host, stream, StreamEnd::Complete, self.now);
    }

    /// The answer to a call, 5 ms later.
    pub(crate) fn finish(&mut self, stream: u32, result: &str) {
        self.now.0 += 5;
        let headers = [(":status".to_owned(), b"200".to_vec())];
        assert_eq!(self.worker.response_head(stream, Headers(&headers)), BodyInterest::Bytes);
        let body = format!(r#"{{"id":1,"result":{result}}}"#);
        self.worker.response_body(&mut self.host, stream, body.as_bytes(), false, self.now);
        self.worker.stream_end(&mut self.host, stream, StreamEnd::Complete, self.now);
    }

    /// A `DELETE` of a session that the server agreed to.
    pub(crate) fn delete(&mut self, session: &str) {
        let stream = self.next_stream;
        self.next_stream += 1;
        let headers = [
            (":method", "DELETE"),
            (":path", "/mcp"),
            ("mcp-session-id", session),
            ("x-customer-id", "acme"),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        assert!(self.is_followed(stream, &headers));
        self.worker.request_body(&mut self.host, stream, &[], true, self.now);
        let _ =
            self.worker.response_head(stream, Headers(&[(":status".to_owned(), b"200".to_vec())]));
        self.worker.stream_end(&mut self.host, stream, StreamEnd::Complete, self.now);
    }

    pub(crate) fn reply(&mut self, dispatch: &Dispatch, reply: Reply) -> Vec<Dispatch> {
        self.main.reply(&mut self.host, dispatch.part, reply, self.now)
    }

    /// The collector takes these batches, and those that follow upon them.
    pub(crate) fn take(&mut self, mut waiting: Vec<Dispatch>) -> Vec<Value> {
        let mut events = Vec::new();
        while let Some(dispatch) = waiting.pop() {
            events.extend(self::events(&dispatch));
            waiting.extend(self.reply(&dispatch, taken()));
        }
        events
    }

    /// Ticks every 250 ms for a while, with a collector that takes everything; gives the events in order.
    pub(crate) fn deliver(&mut self, during_ms: u64) -> Vec<Value> {
        let mut events = Vec::new();
        for _ in 0..=during_ms / 250 {
            let waiting = self.tick(250);
            events.extend(self.take(waiting));
        }
        events.sort_by_key(|event| event["id"].as_str().map(str::to_owned));
        events
    }
}

pub(crate) fn taken() -> Reply {
    answered(204, b"")
}

/// A reply of the collector without further headers.
pub(crate) fn answered(status: u16, body: &[u8]) -> Reply {
    Reply::parse(&HttpReply { status, body, ..HttpReply::default() })
}

pub(crate) fn events(dispatch: &Dispatch) -> Vec<Value> {
    serde_json::from_slice(&dispatch.body).unwrap()
}
