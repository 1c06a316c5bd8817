//! The whole core over a host in memory, as the input says: heads, bodies in pieces, ticks, replies
//! of the collector, ends and stops, in any order. `seeds.py` writes the first inputs, and says what
//! an input looks like.
//!
//! It holds that nothing panics, that an event has one content, that nothing is delivered which was
//! not made, and that each call that the filter counted is an event or a loss with a name.

#![no_main]

use std::collections::BTreeMap;

use agent_meter_core::accountant::outbox::Dispatch;
use agent_meter_core::base::time::Timestamp;
use agent_meter_core::config::Config;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::host::spill::Spill;
use agent_meter_core::host::{Conflict, Expect, Host};
use agent_meter_core::meter::Meter;
use agent_meter_core::meter::action::{BodyAction, HeadAction, VmInfo};
use agent_meter_core::sink::reply::{HttpReply, Reply};
use agent_meter_core::wire::http::Headers;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Stands between the steps of an input.
const SEPARATOR: &[u8] = b"\n\x1E";
const STREAMS: u32 = 8;
const CONFIGS: &[&str] =
    &[include_str!("configs/metered.json"), include_str!("configs/guarded.json")];

#[derive(Default)]
struct Memory {
    data: BTreeMap<String, (Vec<u8>, u32)>,
    versions: u32,
    counters: BTreeMap<Counter, u64>,
    /// Events that left the filter, by source and id.
    events: BTreeMap<(String, String), Value>,
    facts_spilled: u64,
}

impl Memory {
    fn take(&mut self, event: Value) {
        let key = (event["source"].to_string(), event["id"].to_string());
        if let Some(before) = self.events.get(&key) {
            assert_eq!(*before, event, "an event was sent with another content");
        }
        self.events.insert(key, event);
    }

    fn count(&self, counter: Counter) -> u64 {
        self.counters.get(&counter).copied().unwrap_or_default()
    }
}

impl Host for Memory {
    fn get(&mut self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.data.get(key).cloned()
    }

    fn set(&mut self, key: &str, value: &[u8], expect: Expect) -> Result<(), Conflict> {
        let found = self.data.get(key).map(|(_, version)| *version);
        match (found, expect) {
            (Some(_), Expect::Absent) => return Err(Conflict),
            (Some(found), Expect::Version(expected)) if found != expected => return Err(Conflict),
            _ => {}
        }
        self.versions += 1;
        self.data.insert(key.to_owned(), (value.to_vec(), self.versions));
        Ok(())
    }

    fn property(&mut self, _path: &[&str]) -> Option<Vec<u8>> {
        None
    }

    fn spill(&mut self, spill: &Spill<'_>) {
        let value = serde_json::from_str(spill.text).expect("what is spilled is JSON");
        assert!(spill.lines().all(|line| line.len() < 6200), "a line is long");
        match spill.kind {
            "event" => self.take(value),
            _ => self.facts_spilled += 1,
        }
    }

    fn warn(&mut self, _line: &str) {}

    fn count(&mut self, counter: Counter, by: u64) {
        *self.counters.entry(counter).or_default() += by;
    }

    fn gauge(&mut self, _gauge: Gauge, _value: u64) {}
}

struct Envoy {
    config: &'static str,
    host: Memory,
    main: Meter,
    worker: Meter,
    now: Timestamp,
    waiting: Vec<Dispatch>,
    is_new: bool,
}

/// When the VMs start.
const START: Timestamp = Timestamp(1_795_000_000_000);

fn meter(host: &mut Memory, config: &str, seed: u64) -> Meter {
    let place = VmInfo { plugin: "fuzz".to_owned(), node: "node".to_owned(), seed, piece: 64 };
    let read = Config::from_bytes(config.as_bytes()).expect("a configuration of this target");
    Meter::new(host, read, config.as_bytes(), place, START)
}

impl Envoy {
    fn new(config: &'static str) -> Self {
        let mut host = Memory::default();
        let main = meter(&mut host, config, 1);
        let worker = meter(&mut host, config, 2);
        let now = START;
        Self { config, host, main, worker, now, waiting: Vec::new(), is_new: true }
    }

    fn step(&mut self, step: &[u8]) {
        let [what, stream, rest @ ..] = step else { return };
        let stream = u32::from(*stream) % STREAMS;
        self.is_new = false;
        let Self { host, worker, now, .. } = self;
        match what {
            b'H' => {
                // Envoy gives a stream's number to no other while it is open.
                worker.stream_end(host, stream, StreamEnd::Aborted, *now);
                let action = worker.request_head(host, stream, Headers(&headers(rest)), *now);
                if let HeadAction::Answer(reply) = action {
                    assert!((200..600).contains(&reply.status));
                }
            }
            b'Q' | b'q' => {
                let is_end = *what == b'q';
                let action = worker.request_body(host, stream, rest, is_end, *now);
                if let BodyAction::Answer(reply) = action {
                    assert!((400..600).contains(&reply.status));
                }
            }
            b'n' => worker.request_size(stream, rest.len(), *now),
            b'R' => drop(worker.response_head(stream, Headers(&headers(rest)))),
            b'A' | b'a' => {
                let _ = worker.shortens_response(stream);
                let _ = worker.response_body(host, stream, rest, *what == b'a', *now);
            }
            b'N' => worker.response_size(stream, rest.len()),
            b'U' => worker.envoy_usage(stream, rest),
            b'E' => worker.stream_end(host, stream, StreamEnd::Complete, *now),
            b'X' => worker.stream_end(host, stream, StreamEnd::Aborted, *now),
            b'T' => {
                self.now.0 += number(rest) % 4_000_000;
                self.tick();
            }
            b'Y' => self.reply(rest),
            b'S' => self.stop(),
            _ => {}
        }
    }

    fn tick(&mut self) {
        let Self { host, worker, main, now, waiting, .. } = self;
        for meter in [worker, main] {
            let _ = meter.closes(*now);
            waiting.extend(meter.tick(host, *now));
        }
    }

    /// The collector takes the oldest batch, or answers it with this.
    fn reply(&mut self, text: &[u8]) {
        if self.waiting.is_empty() {
            return;
        }
        let Dispatch { part, body, .. } = self.waiting.remove(0);
        let (status, answer) = text.split_at(text.len().min(3));
        let status = if status.is_empty() { 200 } else { number(status) };
        let status = u16::try_from(status).unwrap_or_default();
        let events: Vec<Value> = serde_json::from_slice(&body).expect("a batch is a list");
        // What was refused did leave the filter.
        events.into_iter().for_each(|event| self.host.take(event));
        let reply = Reply::parse(&HttpReply { status, body: answer, ..HttpReply::default() });
        let Self { host, worker, main, now, waiting, .. } = self;
        for meter in [worker, main] {
            waiting.extend(meter.reply(host, part, reply.clone(), *now));
        }
    }

    /// Envoy stops, and starts again with an empty host.
    fn stop(&mut self) {
        if self.is_new {
            return;
        }
        let Self { host, worker, main, now, .. } = self;
        worker.stop(host, *now);
        main.stop(host, *now);
        self.check();
        *self = Self { now: self.now, ..Self::new(self.config) };
    }

    /// What holds when everything has stopped.
    fn check(&self) {
        let host = &self.host;
        let mut called: u64 = 0;
        for event in host.events.values() {
            let data = &event["data"];
            let event_type = data["event_type"].as_str().expect("an event has a type");
            if matches!(event_type, "tool_invocation" | "api_call" | "agent_step") {
                called += data["quantity"].as_u64().unwrap_or(1);
            }
        }
        let counted = host.count(Counter::Calls);
        let lost = host.count(Counter::CallsOverLimit) + host.count(Counter::FactsUnreadable);
        let lost = lost + host.facts_spilled;
        assert!(called <= counted, "{called} calls in events, {counted} in the counter");
        assert!(
            counted <= called + lost,
            "{counted} calls counted, {called} in events, {lost} lost"
        );
    }
}

fn headers(text: &[u8]) -> Vec<(String, Vec<u8>)> {
    let line = |line: &[u8]| {
        // Names of pseudo headers begin with a colon.
        let at = line.iter().skip(1).position(|byte| *byte == b':')? + 1;
        let name = String::from_utf8_lossy(&line[..at]).to_lowercase();
        Some((name, line[at + 1..].trim_ascii().to_vec()))
    };
    text.split(|byte| *byte == b'\n').filter_map(line).collect()
}

fn number(text: &[u8]) -> u64 {
    let digits = text.iter().take(9).filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

fn steps(mut input: &[u8]) -> Vec<&[u8]> {
    let mut steps = Vec::new();
    while let Some(at) = input.windows(SEPARATOR.len()).position(|part| part == SEPARATOR) {
        steps.push(&input[..at]);
        input = &input[at + SEPARATOR.len()..];
    }
    steps.push(input);
    steps
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let mut envoy = Envoy::new(CONFIGS[usize::from(*first) % CONFIGS.len()]);
    envoy.tick();
    for step in steps(rest) {
        envoy.step(step);
    }
    envoy.stop();
});
