//! What is measured: configurations, and exchanges as Envoy shows them.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::Cost;
use crate::host::Headers;
use crate::vm::{Program, Vm};

/// Units before the measurement: tables have their size, the journal its pages, and the filter no
/// longer asks each stream whether it is an attempt of a cluster.
const WARM_UP: u64 = 272;
/// Units over which most are measured. Those that take long have fewer, and fewer before.
const UNITS: u64 = 256;
/// Calls that an accountant's tick finds.
const CALLS_A_TICK: u64 = 64;
/// As in `agent-meter bench`.
const CALL_BYTES: usize = 420;
const RESULT_BYTES: usize = 470;

/// One HTTP exchange.
#[derive(Clone, Debug)]
pub struct Exchange {
    pub(crate) request: Headers,
    pub(crate) request_body: Vec<Vec<u8>>,
    pub(crate) response: Headers,
    pub(crate) response_body: Vec<Vec<u8>>,
}

/// What happens again and again.
#[derive(Clone, Copy, Debug)]
enum Unit {
    /// The exchange of this number.
    Exchange(fn(u64) -> anyhow::Result<Exchange>),
    /// A tick of the accountant behind this many calls, with the delivery of their events.
    Tick { calls: u64 },
}

/// One thing that is measured.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Its name in the file of costs.
    pub name: &'static str,
    configuration: fn() -> Value,
    unit: Unit,
    /// Over how many units it is measured.
    units: u64,
}

/// All of them.
pub const ALL: &[Workload] = &[
    exchanges("mcp_json", tools, json_call),
    exchanges("mcp_json_beside_llm", both, json_call),
    exchanges("mcp_json_guards_at_ease", guarded, json_call),
    exchanges("mcp_json_with_reservation", reserving, json_call),
    exchanges("mcp_json_new_session", tools, new_session),
    exchanges("mcp_json_joined", joined, json_call),
    exchanges("mcp_json_gzip", tools, gzip_call),
    exchanges("mcp_sse", tools, sse_call),
    exchanges("mcp_stateless", tools, stateless_call),
    exchanges("mcp_batch_of_10", tools, batch),
    Workload { units: 8, ..exchanges("mcp_json_1_mb", tools, large_call) },
    exchanges("mcp_tools_list", tools, list),
    exchanges("mcp_get_without_body", tools, get),
    exchanges("llm_plain", both, generation),
    Workload { units: 8, ..exchanges("llm_stream_of_2000_chunks", both, stream) },
    exchanges("api_call", api, api_call),
    exchanges("unmatched", tools, unmatched),
    Workload { unit: Unit::Tick { calls: 0 }, ..exchanges("tick_idle", tools, json_call) },
    Workload {
        unit: Unit::Tick { calls: CALLS_A_TICK },
        units: 16,
        ..exchanges("tick_with_64_calls", both, json_call)
    },
];

const fn exchanges(
    name: &'static str,
    configuration: fn() -> Value,
    exchange: fn(u64) -> anyhow::Result<Exchange>,
) -> Workload {
    Workload { name, configuration, unit: Unit::Exchange(exchange), units: UNITS }
}

impl Workload {
    /// Runs it until everything has its size.
    pub fn warm(&self, program: &Program) -> anyhow::Result<Vm> {
        let mut vm = Vm::start(program, &(self.configuration)())?;
        for _ in 0..16 {
            vm.tick()?;
        }
        let warm_up = if self.units < UNITS { self.units } else { WARM_UP };
        for number in 0..warm_up {
            self.once(&mut vm, number)?;
        }
        if matches!(self.unit, Unit::Exchange(_)) {
            for _ in 0..8 {
                vm.tick()?;
                vm.deliver()?;
            }
            // The journal's page begins anew.
            for number in warm_up..warm_up + 8 {
                self.once(&mut vm, number)?;
            }
        }
        vm.reset();
        Ok(vm)
    }

    /// Measures it.
    pub fn cost(&self, program: &Program) -> anyhow::Result<Cost> {
        let mut vm = self.warm(program)?;
        self.run(&mut vm)?;
        Ok(vm.cost(self.units))
    }

    pub(crate) fn units(&self) -> u64 {
        self.units
    }

    /// Runs all units that are measured.
    pub fn run(&self, vm: &mut Vm) -> anyhow::Result<()> {
        (1_000..1_000 + self.units).try_for_each(|number| self.once(vm, number))
    }

    fn once(&self, vm: &mut Vm, number: u64) -> anyhow::Result<()> {
        match self.unit {
            Unit::Exchange(exchange) => vm.exchange(&exchange(number)?),
            Unit::Tick { calls } => {
                vm.uncounted(|vm| {
                    (0..calls)
                        .try_for_each(|call| vm.exchange(&json_call(number * CALLS_A_TICK + call)?))
                })?;
                vm.tick()?;
                vm.deliver()?;
                Ok(())
            }
        }
    }
}

/// The tools of the demo, as `agent-meter bench` meters them.
fn tools() -> Value {
    json!({ "products": [{
        "id": "crm-tools",
        "type": "MCP_SERVER",
        "match": { "path": "/mcp" },
        "identity": identity(),
        "pricing": {
            "currency": "USD",
            "billable_statuses": ["SUCCESS"],
            "default": { "price": "0.001", "cost_tier": "standard" },
            "tools": [
                { "tool": "lookup_*", "price": "0.001", "cost_tier": "lookup" },
                { "tool": "write_*", "price": "0.05", "cost_tier": "database-write" },
                { "tool": "analyze_*", "price": "0.10", "cost_tier": "analysis" },
            ],
        },
    }] })
}

fn identity() -> Value {
    json!({
        "customer": { "trusted_header": "x-customer-id" },
        "agent": { "trusted_header": "x-agent-id" },
    })
}

/// Tools and models: the calls of tools may cause generations, so they carry proofs.
fn both() -> Value {
    let mut plugin = tools();
    plugin["rate_cards"] = json!([{
        "version": "cost",
        "currency": "USD",
        "rates": [{
            "provider": "openai", "model": "gpt-4o", "aliases": ["gpt-4o-2024-08-06"],
            "input": "2.5", "cache_read": "1.25", "output": "10",
        }],
    }]);
    let mut caller = identity();
    caller["on_missing"] = json!("meter_as_anonymous");
    let product = json!({
        "id": "llm",
        "type": "AI_AGENT",
        "match": { "path_prefix": "/llm" },
        "identity": caller,
        "llm": { "provider": "openai" },
        "pricing": { "currency": "USD", "tokens": { "pass_through": true, "markup": "1.2" } },
    });
    plugin["products"].as_array_mut().into_iter().for_each(|all| all.push(product.clone()));
    plugin
}

/// Guards far from every level.
fn guarded() -> Value {
    let mut plugin = both();
    let actions = json!({
        "level_1": { "threshold": "50%" },
        "level_2": { "threshold": "30%", "throttle_rate": "20req/sec" },
        "level_3": { "threshold": "10%", "action": "block_request" },
    });
    plugin["contracts"] = json!({ "customers": { "acme": { "revenue": "1000000" } } });
    plugin["guards"] = json!([
        { "id": "margin", "revenue": "contracted", "actions": actions },
        { "id": "budget", "budget": { "calls": 1_000_000_000 }, "actions": actions },
    ]);
    plugin
}

fn reserving() -> Value {
    let mut plugin = guarded();
    plugin["guards"][0]["reserve"] = json!({ "estimate": "0.01", "last_cost": false });
    plugin
}

/// With ids of traces and logs in events, and fields for access logs.
fn joined() -> Value {
    let mut plugin = tools();
    plugin["correlation"] =
        json!({ "request_id": true, "trace_id": true, "rpc_id": true, "access_log": true });
    plugin
}

fn api() -> Value {
    json!({ "products": [{
        "id": "orders",
        "type": "AGENTIC_API",
        "match": { "path_prefix": "/orders" },
        "routes": ["/orders/{id}"],
        "identity": identity(),
        "pricing": {
            "currency": "USD",
            "tools": [{ "tool": "POST /orders/{id}", "price": "0.002", "cost_tier": "standard" }],
        },
    }] })
}

fn header(name: &str, value: &str) -> (String, Vec<u8>) {
    (name.to_owned(), value.as_bytes().to_vec())
}

/// A request's head as Envoy shows it, with what Envoy adds.
fn head(method: &str, path: &str, number: u64, size: Option<usize>) -> Headers {
    let mut headers = vec![
        header(":authority", "gateway.example.com"),
        header(":path", path),
        header(":method", method),
        header(":scheme", "https"),
        header("user-agent", "python-httpx/0.28.1"),
        header("accept", "application/json, text/event-stream"),
        header("accept-encoding", "gzip, deflate"),
        header("content-type", "application/json"),
        header("x-customer-id", "acme"),
        header("x-agent-id", "support-bot"),
        header("x-forwarded-proto", "https"),
        header("x-request-id", &format!("5ab7cd21-0000-4000-8000-{number:012}")),
    ];
    headers.extend(size.map(|size| header("content-length", &size.to_string())));
    headers
}

fn mcp(
    number: u64,
    session: &str,
    body: String,
    answer: Vec<String>,
    media_type: &str,
) -> Exchange {
    let mut request = head("POST", "/mcp", number, Some(body.len()));
    request.push(header("mcp-session-id", session));
    request.push(header("mcp-protocol-version", "2025-11-25"));
    Exchange {
        request,
        request_body: vec![body.into_bytes()],
        response: answered(media_type),
        response_body: answer.into_iter().map(String::into_bytes).collect(),
    }
}

fn answered(media_type: &str) -> Headers {
    vec![
        header(":status", "200"),
        header("content-type", media_type),
        header("server", "envoy"),
        header("date", "Sat, 28 Nov 2026 10:00:00 GMT"),
        header("x-envoy-upstream-service-time", "3"),
    ]
}

fn padded(bytes: usize, start: &str, end: &str) -> String {
    let text = "The customer asks which invoices are open, and since when. ".chars().cycle();
    let text = text.take(bytes.saturating_sub(start.len() + end.len()));
    start.chars().chain(text).chain(end.chars()).collect()
}

/// Ids have eight digits, so that every exchange has the same size.
fn id(number: u64) -> u64 {
    10_000_000 + number
}

fn call(number: u64, bytes: usize) -> String {
    let id = id(number);
    let start = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"lookup_customer","_meta":{{"progressToken":"p-1"}},"arguments":{{"customer_id":"c-1042","reason":""#
    );
    padded(bytes, &start, r#""}}}"#)
}

fn result(number: u64) -> String {
    let id = id(number);
    let start =
        format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"content":[{{"type":"text","text":""#);
    padded(RESULT_BYTES, &start, r#""}],"isError":false}}"#)
}

const SESSION: &str = "9f2c1a7e-5d1b-4c0e-8a34-0c51f0e7d2aa";
const JSON: &str = "application/json";

fn json_call(number: u64) -> anyhow::Result<Exchange> {
    Ok(mcp(number, SESSION, call(number, CALL_BYTES), vec![result(number)], JSON))
}

fn new_session(number: u64) -> anyhow::Result<Exchange> {
    let session = format!("9f2c1a7e-5d1b-4c0e-8a34-{number:012}");
    Ok(mcp(number, &session, call(number, CALL_BYTES), vec![result(number)], JSON))
}

fn sse_call(number: u64) -> anyhow::Result<Exchange> {
    let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"p-1","progress":1,"total":2,"message":"looking"}}"#;
    let answer = vec![
        "id: 1\ndata: \n\n".to_owned(),
        format!("data: {progress}\n\n"),
        format!("id: 2\ndata: {}\n\n", result(number)),
    ];
    Ok(mcp(number, SESSION, call(number, CALL_BYTES), answer, "text/event-stream"))
}

/// The revision of MCP without sessions.
fn stateless_call(number: u64) -> anyhow::Result<Exchange> {
    let mut exchange = mcp(number, "", call(number, CALL_BYTES), vec![result(number)], JSON);
    exchange.request.truncate(exchange.request.len() - 2);
    exchange.request.extend([
        header("mcp-protocol-version", "2026-07-28"),
        header("mcp-method", "tools/call"),
        header("mcp-name", "lookup_customer"),
    ]);
    Ok(exchange)
}

fn batch(number: u64) -> anyhow::Result<Exchange> {
    let list = |each: fn(u64) -> String| {
        let all: Vec<String> = (0..10).map(|at| each(number * 10 + at)).collect();
        format!("[{}]", all.join(","))
    };
    let calls = list(|number| call(number, CALL_BYTES));
    Ok(mcp(number, SESSION, calls, vec![list(result)], JSON))
}

/// Arguments of 1 MB in chunks of 16 KiB.
fn large_call(number: u64) -> anyhow::Result<Exchange> {
    let body = call(number, 1_000_000);
    let mut exchange = mcp(number, SESSION, body, vec![result(number)], JSON);
    let body = exchange.request_body.concat();
    exchange.request_body = body.chunks(16_384).map(<[u8]>::to_vec).collect();
    Ok(exchange)
}

fn gzip_call(number: u64) -> anyhow::Result<Exchange> {
    let mut exchange = json_call(number)?;
    let mut coder = GzEncoder::new(Vec::new(), Compression::default());
    coder.write_all(&exchange.response_body.concat())?;
    exchange.response_body = vec![coder.finish()?];
    exchange.response.push(header("content-encoding", "gzip"));
    Ok(exchange)
}

fn list(number: u64) -> anyhow::Result<Exchange> {
    let id = id(number);
    let request = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/list"}}"#);
    let tool = r#"{"name":"lookup_customer","description":"Finds a customer by name or number.","inputSchema":{"type":"object","properties":{"customer_id":{"type":"string"}}}}"#;
    let tools = vec![tool; 20].join(",");
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"tools":[{tools}]}}}}"#);
    Ok(mcp(number, SESSION, request, vec![answer], JSON))
}

/// A client that opens the stream of its session, which the server does not offer.
fn get(number: u64) -> anyhow::Result<Exchange> {
    let mut exchange = mcp(number, SESSION, String::new(), Vec::new(), JSON);
    exchange.request_body.clear();
    for (name, value) in &mut exchange.request {
        if name == ":method" {
            *value = b"GET".to_vec();
        }
    }
    exchange.response = vec![header(":status", "405"), header("content-length", "0")];
    Ok(exchange)
}

fn chat(number: u64, more: &str) -> Exchange {
    let text = padded(2_000, "", "");
    let body =
        format!(r#"{{"model":"gpt-4o",{more}"messages":[{{"role":"user","content":"{text}"}}]}}"#);
    let path = "/llm/v1/chat/completions";
    let mut request = head("POST", path, number, Some(body.len()));
    request.push(header("authorization", "Bearer sk-of-the-caller"));
    let request_body = vec![body.into_bytes()];
    Exchange { request, request_body, response: answered(JSON), response_body: Vec::new() }
}

const USAGE: &str = r#""usage":{"prompt_tokens":419,"completion_tokens":2000,"total_tokens":2419,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}}"#;

fn generation(number: u64) -> anyhow::Result<Exchange> {
    let text = padded(1_500, "", "");
    let answer = format!(
        r#"{{"id":"chatcmpl-{number:012}","object":"chat.completion","created":1780000000,"model":"gpt-4o-2024-08-06","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null}},"logprobs":null,"finish_reason":"stop"}}],{USAGE},"service_tier":"default","system_fingerprint":"fp_11aa22bb33"}}"#
    );
    Ok(Exchange { response_body: vec![answer.into_bytes()], ..chat(number, "") })
}

fn stream(number: u64) -> anyhow::Result<Exchange> {
    let chunk = |choices: &str, usage: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-{number:012}\",\"object\":\"chat.completion.chunk\",\"created\":1780000000,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_11aa22bb33\",\"choices\":[{choices}],{usage}}}\n\n"
        )
    };
    let delta = r#"{"index":0,"delta":{"content":" kettle"},"logprobs":null,"finish_reason":null}"#;
    let mut chunks = vec![chunk(delta, r#""usage":null"#).into_bytes(); 2_000];
    chunks.push(chunk("", USAGE).into_bytes());
    chunks.push(b"data: [DONE]\n\n".to_vec());
    let asked = r#""stream":true,"stream_options":{"include_usage":true},"#;
    let response = answered("text/event-stream");
    Ok(Exchange { response, response_body: chunks, ..chat(number, asked) })
}

fn api_call(number: u64) -> anyhow::Result<Exchange> {
    let body = padded(CALL_BYTES, r#"{"note":""#, r#""}"#);
    let path = format!("/orders/{}", id(number));
    Ok(Exchange {
        request: head("POST", &path, number, Some(body.len())),
        request_body: vec![body.into_bytes()],
        response: answered(JSON),
        response_body: vec![padded(RESULT_BYTES, r#"{"note":""#, r#""}"#).into_bytes()],
    })
}

fn unmatched(number: u64) -> anyhow::Result<Exchange> {
    let mut exchange = api_call(number)?;
    exchange.request = head("POST", "/elsewhere", number, Some(CALL_BYTES));
    Ok(exchange)
}
