//! What the meter keeps of a stream beside its exchange: the payment in its headers, the ids by which
//! its events are joined with other systems, and what an access log is to tell of it.

use std::collections::HashMap;
use std::fmt::Write as _;

use rust_decimal::Decimal;

use crate::accountant::generations::charge_generation;
use crate::base::hash::hex;
use crate::base::limits::{LOGGED_CALLS_MAX, REQUEST_ID_BYTES_MAX};
use crate::config::Config;
use crate::domain::correlation::Correlation;
use crate::exchange::kind::Observed;
use crate::fact::Fact;
use crate::fact::call::{CallEnded, CallOpen};
use crate::fact::generation::GenerationEnded;
use crate::meter::payments::HeaderPayments;
use crate::protocol::trace_context::traces_of;
use crate::wire::http::{Headers, ResponseHead};

/// The notes of all streams of a VM.
#[derive(Debug, Default)]
pub(super) struct StreamNotes {
    payments: HeaderPayments,
    correlations: HashMap<u32, Correlation>,
    logs: HashMap<u32, LogNote>,
}

impl StreamNotes {
    /// Takes what a request's head tells.
    pub(super) fn request_head(&mut self, config: &Config, stream: u32, headers: Headers<'_>) {
        self.payments.request_head(stream, headers);
        let rules = &config.correlation;
        if rules.request_id || rules.trace_id {
            let request_id = headers.get("x-request-id").filter(|_| rules.request_id);
            let trace_id = if rules.trace_id { traces_of(headers).first().copied() } else { None };
            let correlation = Correlation {
                request_id: request_id.and_then(request_id_of),
                trace_id: trace_id.map(|trace| hex(&trace)),
                rpc_id: None,
            };
            self.correlations.insert(stream, correlation);
        }
        if rules.access_log {
            self.logs.insert(stream, LogNote::default());
        }
    }

    /// Takes what a response's head tells.
    pub(super) fn response_head(&mut self, stream: u32, head: &ResponseHead<'_>) {
        self.payments.response_head(stream, head);
    }

    /// Adds the notes of a stream to the facts about it.
    pub(super) fn add_to(&mut self, config: &Config, stream: u32, observed: &mut Observed) {
        self.payments.pay(stream, observed);
        if let Some(own) = self.correlations.get(&stream) {
            for fact in &mut observed.facts {
                let of_fact = match fact {
                    Fact::Call(call) | Fact::Open(CallOpen { call, .. }) => &mut call.correlation,
                    Fact::Generation(generation) => &mut generation.correlation,
                    _ => continue,
                };
                let rpc_id = of_fact.take().and_then(|told| told.rpc_id);
                *of_fact = Some(Box::new(Correlation { rpc_id, ..own.clone() }));
            }
        }
        if let Some(log) = self.logs.get_mut(&stream) {
            for fact in &observed.facts {
                match fact {
                    Fact::Call(call) | Fact::Open(CallOpen { call, .. }) => log.call(call),
                    Fact::Generation(generation) => log.generation(config, generation),
                    _ => {}
                }
            }
        }
    }

    /// What an access log is to tell of a stream: names and values for Envoy's filter state.
    pub(super) fn take_log(&mut self, stream: u32) -> Vec<(&'static str, String)> {
        self.logs.remove(&stream).map(LogNote::properties).unwrap_or_default()
    }

    /// Forgets a stream that is over.
    pub(super) fn stream_end(&mut self, stream: u32) {
        self.payments.stream_end(stream);
        self.correlations.remove(&stream);
    }
}

/// An id that Envoy or a client gave to the request, if it is short and printable.
fn request_id_of(value: &[u8]) -> Option<String> {
    let is_fit = value.len() <= REQUEST_ID_BYTES_MAX && value.iter().all(u8::is_ascii_graphic);
    let text = core::str::from_utf8(value).ok()?;
    (is_fit && !text.is_empty()).then(|| text.to_owned())
}

/// What was counted of a stream.
#[derive(Debug, Default)]
struct LogNote {
    calls: u64,
    call_ids: String,
    tools: String,
    statuses: String,
    generation_ids: String,
    tokens: Option<u64>,
    provider_cost: Option<Decimal>,
}

impl LogNote {
    fn call(&mut self, call: &CallEnded) {
        self.calls = self.calls.saturating_add(1);
        if self.calls > LOGGED_CALLS_MAX {
            return;
        }
        add(&mut self.call_ids, &call.call_id);
        add(&mut self.tools, &call.tool);
        add(&mut self.statuses, call.status.name());
    }

    fn generation(&mut self, config: &Config, generation: &GenerationEnded) {
        if self.generation_ids.len() < REQUEST_ID_BYTES_MAX {
            add(&mut self.generation_ids, &generation.generation_id);
        }
        let tokens = self.tokens.unwrap_or_default().saturating_add(generation.usage.total());
        self.tokens = Some(tokens);
        if let Some(product) = config.product(&generation.product_id) {
            let further = generation.further_generations();
            let further =
                further.map(|(_, further)| charge_generation(config, product, &further).total);
            let own = charge_generation(config, product, generation).total;
            let cost = further.fold(own, Decimal::saturating_add);
            self.provider_cost = Some(self.provider_cost.unwrap_or_default().saturating_add(cost));
        }
    }

    fn properties(self) -> Vec<(&'static str, String)> {
        let texts = [
            ("agent_meter.call_id", self.call_ids),
            ("agent_meter.tool", self.tools),
            ("agent_meter.status", self.statuses),
            ("agent_meter.generation_id", self.generation_ids),
        ];
        let tokens = self.tokens.map(|tokens| ("agent_meter.tokens", tokens.to_string()));
        let cost = self.provider_cost.map(|cost| cost.normalize().to_string());
        let cost = cost.map(|cost| ("agent_meter.provider_cost", cost));
        let texts = texts.into_iter().filter(|(_, text)| !text.is_empty());
        texts.chain(tokens).chain(cost).collect()
    }
}

/// Adds one of several values, with a comma between them. What a client can choose must not end the
/// field or the line of a log.
fn add(list: &mut String, value: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    for c in value.chars() {
        let is_plain = c.is_ascii_graphic() && !matches!(c, '"' | '\\' | ',');
        // Writing to memory cannot fail.
        let _ = list.write_char(if is_plain { c } else { '_' });
    }
}
