//! Aforo: a batch of usage events for a tenant.
//!
//! Source: aforoai/SDKs 2157ffc (2026-06-30), `mcp-proxy/src/types.ts`, `IngestorClient.ts` and
//! `python-mcp/client.py`: `POST /v1/ingest/batch` with `{"events": [...]}`, a bearer token and
//! `X-Tenant-Id`. Its SDKs send 50 events; a bound is not told. The reply lists wrong events in
//! `errors` by their index, and sessions that the tenant wants ended in `killedSessionIds`: this
//! program cannot end one, so it says so in its log. How long it knows an `idempotencyKey` is not
//! told, so no retry is given up. Members are in camelCase, or in snake_case for an ingestor that
//! wants them so.
//!
//! The catalogue's units read tool, agent, session and outcome from `metadata`: without `tool_name`
//! there every call has the base rate. The filter sends the same events where it has no collector.
//!
//! An event that takes the place of another has the difference, which may be negative.

use agent_meter_core::sink::aforo::{execution_status, tool_name};
use serde_json::Value;

use crate::event::Body;
use crate::handover::billing::Billing;
use crate::handover::json::Object;
use crate::handover::sink::{
    BODY_BYTES, Fate, Frame, Headers, Limits, Record, Reply, Sink, Verdict, by_status, json_headers,
};
use crate::handover::usage::{Property, Usage};

/// The most sessions that one line of the log names.
const SESSIONS_SHOWN_MAX: usize = 10;

#[derive(Debug)]
pub(crate) struct Aforo {
    pub(crate) billing: Billing,
    pub(crate) tenant: String,
    /// Whether members are in `snake_case`.
    pub(crate) is_snake: bool,
}

impl Aforo {
    /// A member's name, which is given in camelCase.
    fn name(&self, camel: &str) -> String {
        if !self.is_snake {
            return camel.to_owned();
        }
        let snake = |c: char| match c {
            'A'..='Z' => format!("_{}", c.to_ascii_lowercase()),
            c => c.to_string(),
        };
        camel.chars().map(snake).collect()
    }

    fn metadata(&self, usage: &Usage<'_>) -> String {
        let rest = usage.properties().into_iter().filter(|(name, _)| *name != "quantity");
        let metadata = rest.fold(Object::new(), |all, (name, value)| match (name, value) {
            ("execution_status", value) => {
                let all = all.text(name, execution_status(&value.text()));
                match &usage.event.body {
                    Body::Call(call) => {
                        all.raw("execution_duration_ms", &call.duration_ms.to_string())
                    }
                    _ => all,
                }
            }
            (_, value @ (Property::Count(_) | Property::Flag(_))) => all.raw(name, &value.text()),
            (_, value) => all.text(name, &value.text()),
        });
        metadata.end()
    }
}

impl Sink for Aforo {
    fn limits(&self) -> Limits {
        Limits { records: 50, records_max: 1000, bytes: BODY_BYTES, dedup: None, oldest: None }
    }

    fn records(&self, usage: &Usage<'_>) -> Result<Vec<Record>, String> {
        if !self.billing.takes(usage) {
            return Ok(Vec::new());
        }
        let Some(identity) = usage.event.body.identity() else { return Ok(Vec::new()) };
        let customer = self.billing.customer(usage)?;
        let record = |(meter, what, value): (&str, &str, _)| {
            let id = match what {
                "quantity" => usage.id.clone(),
                what => format!("{}_{what}", usage.id),
            };
            let mut body = Object::new()
                .text(&self.name("customerId"), customer)
                .text(&self.name("metricName"), meter)
                .number("quantity", value)
                .text(&self.name("idempotencyKey"), &id)
                .text(&self.name("occurredAt"), &usage.time())
                .text(&self.name("productType"), identity.product_type)
                .text(&self.name("agentId"), &identity.agent)
                .text(&self.name("sessionId"), &identity.session_id);
            if let Body::Call(call) = &usage.event.body {
                body = body
                    .text(&self.name("toolName"), tool_name(&call.tool))
                    .text(&self.name("executionStatus"), execution_status(call.status))
                    .raw(&self.name("executionDurationMs"), &call.duration_ms.to_string());
            }
            if let Some(trace) = usage.data().get("trace_id").and_then(Value::as_str) {
                body = body.text(&self.name("traceId"), trace);
            }
            let body = body.raw("metadata", &self.metadata(usage)).end();
            Record { position: usage.position, id, body }
        };
        Ok(self.billing.values(usage).into_iter().map(record).collect())
    }

    fn frame(&self) -> Frame {
        Frame::EVENTS
    }

    fn path(&self) -> String {
        "/v1/ingest/batch".to_owned()
    }

    fn headers(&self, key: Option<&str>) -> Headers {
        let mut headers = json_headers(key);
        headers.push(("x-tenant-id", self.tenant.clone()));
        headers
    }

    fn read(&self, reply: &Reply, records: &[Record]) -> Verdict {
        if !reply.status.is_success() {
            return by_status(reply);
        }
        let body = reply.json();
        let killed = body["killedSessionIds"].as_array().map_or(&[][..], Vec::as_slice);
        if !killed.is_empty() {
            let shown: Vec<&str> =
                killed.iter().filter_map(Value::as_str).take(SESSIONS_SHOWN_MAX).collect();
            tracing::warn!(count = killed.len(), ?shown, "Aforo wants sessions ended");
        }
        let errors = body["errors"].as_array().map_or(&[][..], Vec::as_slice);
        let mut fates = vec![Fate::Taken; records.len()];
        let mut named = 0;
        for error in errors {
            let index = error["index"].as_u64().and_then(|index| usize::try_from(index).ok());
            if let Some(fate) = index.and_then(|index| fates.get_mut(index)) {
                *fate = Fate::Refused(format!("answered {}: {}", reply.status, error["error"]));
                named += 1;
            }
        }
        match body["failed"].as_u64().unwrap_or(0) {
            failed if failed > named => Verdict::Taken { unnamed: failed },
            _ if named == 0 => Verdict::Taken { unnamed: 0 },
            _ => Verdict::Each(fates),
        }
    }
}
