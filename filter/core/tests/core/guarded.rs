//! A filter with guards, two workers and a collector, as tests of guards drive it.

use agent_meter_core::domain::level::Level;
use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::Meter;
use agent_meter_core::meter::action::{BodyAction, HeadAction};
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::host::{Envoy, Memory, answered, meter};

/// Two workers, one product of tools and one of generations at 0.10 USD each, and these guards.
pub(crate) struct Guarded {
    pub(crate) envoy: Envoy,
    pub(crate) second: Meter,
    pub(crate) next_stream: u32,
    /// In the order in which they were made.
    pub(crate) told: Vec<Value>,
    /// The `tracestate` with which the last request went up.
    pub(crate) carried: String,
}

/// What became of a call.
#[derive(Debug)]
pub(crate) enum Became {
    /// It went on, with this mark, after having been held or not.
    Passed(u32, Level, bool),
    /// It was answered with this status, these headers and this body.
    Refused(u16, Vec<(&'static str, String)>, Value),
}

impl Became {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Passed(..) => 200,
            Self::Refused(status, ..) => *status,
        }
    }

    pub(crate) fn stream(&self) -> u32 {
        match self {
            Self::Passed(stream, ..) => *stream,
            Self::Refused(..) => panic!("refused: {self:?}"),
        }
    }

    pub(crate) fn mark(&self) -> Level {
        match self {
            Self::Passed(_, mark, _) => *mark,
            Self::Refused(..) => panic!("refused: {self:?}"),
        }
    }
}

pub(crate) fn config(guards: &Value, more: &Value) -> String {
    let mut config = json!({
        "emitter": "edge-1",
        "delivery": { "retry_initial": "250ms", "retry_max": "500ms" },
        "rate_cards": [{"version": "1", "currency": "USD", "rates": [
            {"provider": "openai", "model": "gpt-4o", "input": "100", "output": "100", "reasoning": "50"},
        ]}],
        "contracts": { "customers": { "acme": { "revenue": "2" } } },
        "guards": guards,
        "products": [
            {
                "id": "crm", "type": "MCP_SERVER", "match": {"path": "/mcp"},
                "identity": {"customer": {"trusted_header": "x-customer-id"}},
            },
            {
                "id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"},
                "identity": {"customer": {"trusted_header": "x-customer-id"}},
                "llm": {},
            },
        ],
    });
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    config.to_string()
}

pub(crate) fn guard(more: &Value) -> Value {
    let mut guard = json!({
        "id": "margin",
        "actions": {
            "level_1": { "threshold": "30%", "notify": ["finance"] },
            "level_2": { "threshold": "20%", "throttle_rate": "5req/sec" },
            "level_3": { "threshold": "10%", "action": "block_request" },
        },
    });
    for (name, value) in more.as_object().unwrap() {
        guard[name] = value.clone();
    }
    guard
}

impl Guarded {
    pub(crate) fn new(guards: &Value) -> Self {
        Self::with(guards, &json!({}))
    }

    pub(crate) fn with(guards: &Value, more: &Value) -> Self {
        let config = config(guards, more);
        let mut envoy = Envoy::new(&config);
        let second = meter(&mut envoy.host, &config);
        Self { envoy, second, next_stream: 100, told: Vec::new(), carried: String::new() }
    }

    /// A request of this customer, on one of two workers by turns; the body comes in two pieces.
    pub(crate) fn send(&mut self, head: &[(&str, &str)], body: &str) -> Became {
        let stream = self.next_stream;
        self.next_stream += 1;
        let headers: Vec<_> =
            head.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        let Envoy { host, worker, now, .. } = &mut self.envoy;
        let meter = if stream.is_multiple_of(2) { worker } else { &mut self.second };
        let edit = match meter.request_head(host, stream, Headers(&headers), *now) {
            HeadAction::Follow(edit) => edit,
            HeadAction::Answer(reply) => {
                let body = serde_json::from_str(&reply.body).unwrap();
                return Became::Refused(reply.status, reply.headers, body);
            }
            other => panic!("{other:?}"),
        };
        if let Some((_, state)) = edit.set.last() {
            self.carried.clone_from(state);
        }
        let (first, rest) = body.split_at(body.len() / 2);
        match meter.request_body(host, stream, first.as_bytes(), false, *now) {
            BodyAction::Hold => assert!(edit.is_held, "held without notice"),
            BodyAction::Go(_) => assert!(!edit.is_held, "let go in the middle"),
            BodyAction::Answer(reply) => panic!("{reply:?}"),
        }
        match meter.request_body(host, stream, rest.as_bytes(), true, *now) {
            BodyAction::Go(_) => Became::Passed(stream, edit.mark, edit.is_held),
            BodyAction::Answer(reply) => {
                let body = serde_json::from_str(&reply.body).unwrap();
                Became::Refused(reply.status, reply.headers, body)
            }
            BodyAction::Hold => panic!("held at the end"),
        }
    }

    pub(crate) fn call(&mut self, customer: &str, tool: &str) -> Became {
        self.call_with(customer, tool, &[])
    }

    pub(crate) fn call_with(
        &mut self,
        customer: &str,
        tool: &str,
        more: &[(&str, &str)],
    ) -> Became {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":"one","method":"tools/call","params":{{"name":"{tool}"}}}}"#
        );
        let mut head = vec![(":method", "POST"), (":path", "/mcp"), ("x-customer-id", customer)];
        head.extend(more);
        self.send(&head, &body)
    }

    /// A generation of `tokens` tokens, at 0.0001 USD each.
    pub(crate) fn generate(&mut self, customer: &str, tokens: u64) -> u16 {
        self.generate_with(customer, tokens, 0, &[])
    }

    pub(crate) fn generate_with(
        &mut self,
        customer: &str,
        tokens: u64,
        reasoning: u64,
        more: &[(&str, &str)],
    ) -> u16 {
        let usage = json!({
            "prompt_tokens": tokens, "completion_tokens": reasoning,
            "total_tokens": tokens + reasoning,
            "completion_tokens_details": { "reasoning_tokens": reasoning },
        });
        self.generate_of(customer, &usage, more)
    }

    /// A generation with this usage.
    pub(crate) fn generate_of(
        &mut self,
        customer: &str,
        usage: &Value,
        more: &[(&str, &str)],
    ) -> u16 {
        let mut head = vec![
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api.openai.com"),
            ("x-customer-id", customer),
        ];
        head.extend(more);
        let became = self.send(&head, r#"{"model":"gpt-4o"}"#);
        if let Became::Passed(stream, ..) = became {
            let body = json!({ "id": "c", "object": "chat.completion", "model": "gpt-4o",
                "choices": [{ "index": 0, "finish_reason": "stop" }], "usage": usage });
            self.answer(stream, &body.to_string());
        }
        became.status()
    }

    pub(crate) fn answer(&mut self, stream: u32, body: &str) {
        self.answer_with(stream, &[], body);
    }

    /// An answer with these headers besides.
    pub(crate) fn answer_with(&mut self, stream: u32, more: &[(&str, &str)], body: &str) {
        self.envoy.now.0 += 1;
        let headers = [&[(":status", "200"), ("content-type", "application/json")], more].concat();
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        let Envoy { host, worker, now, .. } = &mut self.envoy;
        let meter = if stream.is_multiple_of(2) { worker } else { &mut self.second };
        let _ = meter.response_head(stream, Headers(&headers));
        meter.response_body(host, stream, body.as_bytes(), true, *now);
        meter.stream_end(host, stream, StreamEnd::Complete, *now);
    }

    /// The worker of a stream, and the host.
    pub(crate) fn meter_of(&mut self, stream: u32) -> (&mut Meter, &mut Memory) {
        let Envoy { host, worker, .. } = &mut self.envoy;
        (if stream.is_multiple_of(2) { worker } else { &mut self.second }, host)
    }

    pub(crate) fn finish(&mut self, stream: u32) {
        self.answer(stream, r#"{"jsonrpc":"2.0","id":"one","result":{"content":[]}}"#);
    }

    /// Lets the accountant read everything, and the collector take it with this reply.
    pub(crate) fn settle_with(&mut self, verdicts: &Value) {
        for _ in 0..8 {
            self.envoy.now.0 += 250;
            let now = self.envoy.now;
            assert!(self.second.tick(&mut self.envoy.host, now).is_empty());
            let mut waiting = self.envoy.tick(0);
            while let Some(dispatch) = waiting.pop() {
                let mut events = crate::host::events(&dispatch);
                events.sort_by_key(|event| event["sequence"].as_str().map(str::to_owned));
                self.told.extend(events);
                let body = json!({ "verdicts": verdicts }).to_string();
                let reply = answered(200, body.as_bytes());
                waiting.extend(self.envoy.reply(&dispatch, reply));
            }
        }
    }

    pub(crate) fn settle(&mut self) {
        self.settle_with(&json!([]));
    }

    /// From, to and reason of the changes of level that were told so far.
    pub(crate) fn levels(&self) -> Vec<(String, String, String)> {
        let text = |event: &Value, name: &str| event["data"][name].as_str().unwrap().to_owned();
        let changes = self.told.iter().filter(|event| {
            event["type"].as_str().is_some_and(|name| name.ends_with("_level_changed"))
        });
        let change = |e: &Value| (text(e, "previous_level"), text(e, "level"), text(e, "reason"));
        changes.map(change).collect()
    }

    pub(crate) fn last(&self, kind: &str) -> &Value {
        let is = |event: &&Value| event["data"]["event_type"] == kind;
        &self.told.iter().rev().find(is).unwrap()["data"]
    }

    pub(crate) fn count(&self, counter: Counter) -> u64 {
        self.envoy.host.counters.get(&counter).copied().unwrap_or_default()
    }
}

pub(crate) fn levels(expected: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    let owned =
        |(a, b, c): &(&str, &str, &str)| ((*a).to_owned(), (*b).to_owned(), (*c).to_owned());
    expected.iter().map(owned).collect()
}
