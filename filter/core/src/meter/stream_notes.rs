//! What the meter keeps of a stream beside its exchange: the payment in its headers, the ids by which
//! its events are joined with other systems, and what an access log is to tell of it.

use std::fmt::Write as _;

use rust_decimal::Decimal;

use crate::accountant::generations::charge_generation;
use crate::base::hash::hex;
use crate::base::limits::{LOGGED_CALLS_MAX, REQUEST_ID_BYTES_MAX};
use crate::base::stream_map::StreamMap;
use crate::config::Config;
use crate::domain::correlation::Correlation;
use crate::domain::payment::Payment;
use crate::domain::status::ExecutionStatus;
use crate::exchange::kind::Observed;
use crate::fact::Fact;
use crate::fact::call::{CallEnded, CallOpen};
use crate::fact::generation::GenerationEnded;
use crate::protocol::payment::{offered, settled};
use crate::protocol::trace_context::traces_of;
use crate::wire::http::{Headers, ResponseHead, is_success};

/// The notes of a VM's streams; a stream of which there is nothing to note has none.
#[derive(Debug, Default)]
pub(super) struct StreamNotes {
    by_stream: StreamMap<StreamNote>,
}

#[derive(Debug)]
struct StreamNote {
    /// What the request's head offers; once the response's head has come, what of it is settled.
    payment: Option<Payment>,
    correlation: Option<Correlation>,
    log: Option<LogNote>,
}

impl StreamNotes {
    /// Takes what a request's head tells.
    pub(super) fn request_head(&mut self, config: &Config, stream: u32, headers: Headers<'_>) {
        let rules = &config.correlation;
        let is_joined = rules.request_id || rules.trace_id;
        let note = StreamNote {
            payment: offered(headers),
            correlation: is_joined.then(|| {
                let request_id = headers.get("x-request-id").filter(|_| rules.request_id);
                let traces = if rules.trace_id { traces_of(headers) } else { Vec::new() };
                Correlation {
                    request_id: request_id.and_then(request_id_of),
                    trace_id: traces.first().map(|trace| hex(trace)),
                    rpc_id: None,
                }
            }),
            log: rules.access_log.then(LogNote::default),
        };
        if note.payment.is_some() || is_joined || rules.access_log {
            self.by_stream.insert(stream, note);
        }
    }

    /// Takes what a response's head tells. What is not settled by a success is forgotten.
    pub(super) fn response_head(&mut self, stream: u32, head: &ResponseHead<'_>) {
        let Some(note) = self.by_stream.get_mut(&stream) else { return };
        let offer = note.payment.take().filter(|_| is_success(head.status));
        let paid = offer.zip(settled(head.headers)).map(|(offer, told)| offer.settled_by(told));
        note.payment = paid.filter(Payment::is_settled);
    }

    /// Adds the notes of a stream to the facts about it.
    pub(super) fn add_to(&mut self, config: &Config, stream: u32, observed: &mut Observed) {
        let Some(note) = self.by_stream.get_mut(&stream) else { return };
        note.pay(observed);
        for fact in &mut observed.facts {
            let of_fact = match fact {
                Fact::Call(call) | Fact::Open(CallOpen { call, .. }) => {
                    if let Some(log) = &mut note.log {
                        log.call(call);
                    }
                    &mut call.correlation
                }
                Fact::Generation(generation) => {
                    if let Some(log) = &mut note.log {
                        log.generation(config, generation);
                    }
                    &mut generation.correlation
                }
                _ => continue,
            };
            if let Some(own) = &note.correlation {
                let rpc_id = of_fact.take().and_then(|told| told.rpc_id);
                *of_fact = Some(Box::new(Correlation { rpc_id, ..own.clone() }));
            }
        }
    }

    /// Forgets a stream that is over. Returns what an access log is to tell of it: names and values
    /// for Envoy's filter state.
    pub(super) fn take_log(&mut self, stream: u32) -> Vec<(&'static str, String)> {
        let note = self.by_stream.remove(&stream);
        note.and_then(|note| note.log).map(LogNote::properties).unwrap_or_default()
    }
}

impl StreamNote {
    /// Gives the payment to the first of the stream's calls that succeeded: one payment is for one
    /// call.
    fn pay(&mut self, observed: &mut Observed) {
        if !self.payment.as_ref().is_some_and(Payment::is_settled) {
            return;
        }
        let first = observed.facts.iter_mut().find_map(|fact| match fact {
            Fact::Call(call) if call.status == ExecutionStatus::Success && !call.is_paid() => {
                Some(call)
            }
            _ => None,
        });
        if let Some(call) = first {
            call.payment = self.payment.take().map(Box::new);
        }
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
