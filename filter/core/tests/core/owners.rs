//! Who bears the cost of a generation when somebody is hostile. The numbers are those of the attempts of a hostile
//! tenant that these rows repeat.

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::generations::{Mesh, TRACE_A, TRACE_B, Worker, config, traced};
use crate::support::test;

/// What an application carries on of the headers of a call.
const NOTHING: &[&str] = &[];
const TRACE_ONLY: &[&str] = &["traceparent"];
const CONTEXT: &[&str] = &["traceparent", "tracestate"];

/// A call of this customer, whose request has gone up.
fn call(mesh: &mut Mesh, customer: &str, more: &[(&str, &str)]) -> u32 {
    let body = r#"{"id":1,"method":"tools/call","params":{"name":"summarise"}}"#;
    call_with(mesh, customer, more, body)
}

fn call_with(mesh: &mut Mesh, customer: &str, more: &[(&str, &str)], body: &str) -> u32 {
    let mut head = vec![(":method", "POST"), (":path", "/mcp"), ("x-customer-id", customer)];
    head.extend(more);
    mesh.send(Worker::First, &head, body)
}

/// The chat completions that were asked for come to their ends, and then the calls.
fn finish(mesh: &mut Mesh, asked: &[u32], calls: &[u32]) -> (Vec<Value>, Vec<Value>) {
    asked.iter().for_each(|stream| mesh.answer_chat(*stream));
    calls.iter().for_each(|stream| mesh.answer_call(*stream));
    mesh.events()
}

#[test]
fn a_call_without_a_trace_bears_the_cost_of_what_its_tool_asks_for() {
    let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
    // 98, and the same with a trace that is none.
    for (rule, sent, carries, payer) in [
        ("state", vec![], CONTEXT, "acme"),
        ("state", vec![], TRACE_ONLY, "acme"),
        ("state", vec![("traceparent", zero)], TRACE_ONLY, "acme"),
        ("state", vec![("traceparent", "")], CONTEXT, "acme"),
        ("state", vec![("tracestate", "a=1,a=1")], CONTEXT, "acme"),
        ("state", vec![("traceparent", TRACE_A)], CONTEXT, "acme"),
        ("own", vec![("traceparent", TRACE_A)], TRACE_ONLY, "acme"),
        ("own", vec![], TRACE_ONLY, "acme"),
        // What carries nothing along proves nothing.
        ("state", vec![], NOTHING, "anonymous"),
        ("trust", vec![], CONTEXT, "anonymous"),
    ] {
        let mut mesh = Mesh::new(&traced(rule, &json!({})));
        let call = call(&mut mesh, "acme", &sent);
        let asked = mesh.ask_in(call, carries);
        let (tokens, calls) = finish(&mut mesh, &[asked], &[call]);
        let shown = format!("{rule} {sent:?} {carries:?}");
        assert_eq!(tokens[0]["customer_id"], payer, "{shown}");
        assert_eq!(tokens[0]["total_provider_cost"], "0.003", "{shown}");
        let call_id = if payer == "acme" { calls[0]["call_id"].clone() } else { Value::Null };
        assert_eq!(tokens[0]["call_id"], call_id, "{shown}");
    }
}

#[test]
fn a_neighbour_under_the_same_trace_changes_nothing() {
    // 100
    for (rule, carries) in [("state", CONTEXT), ("own", CONTEXT), ("own", TRACE_ONLY)] {
        let mut mesh = Mesh::new(&traced(rule, &json!({})));
        let trace = [("traceparent", TRACE_A)];
        let running = [call(&mut mesh, "acme", &trace), call(&mut mesh, "mallory", &trace)];
        let asked = running.map(|call| mesh.ask_in(call, carries));
        let (tokens, calls) = finish(&mut mesh, &asked, &running);
        for (generation, call) in tokens.iter().zip(&calls) {
            assert_eq!(generation["call_id"], call["call_id"], "{rule} {carries:?}");
            assert_eq!(generation["customer_id"], call["customer_id"], "{rule} {carries:?}");
        }
        assert_eq!((tokens.len(), calls.len()), (2, 2));
    }
}

#[test]
fn what_two_customers_may_have_caused_stands_on_the_products_own_line() {
    // 100, where the application carries the trace alone, and says who asks or not.
    for (rule, caller, payer, product) in [
        ("state", "", "anonymous", "llm"),
        ("trust", "", "anonymous", "llm"),
        ("state", "acme", "acme", "crm"),
        ("state", "mallory", "mallory", "crm"),
        ("state", "other", "other", "llm"),
    ] {
        let mut config: Value = serde_json::from_str(&traced(rule, &json!({}))).unwrap();
        config["products"][1]["identity"] = json!({
            "customer": {"trusted_header": "x-caller"}, "on_missing": "meter_as_anonymous",
        });
        let mut mesh = Mesh::new(&config.to_string());
        let trace = ("traceparent", TRACE_A);
        let running = [call(&mut mesh, "acme", &[trace]), call(&mut mesh, "mallory", &[trace])];
        let mut head = vec![
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api.openai.com"),
            trace,
        ];
        head.extend(Some(("x-caller", caller)).filter(|_| !caller.is_empty()));
        let asked = mesh.send(Worker::Second, &head, r#"{"model":"gpt-4o"}"#);
        let (tokens, _) = finish(&mut mesh, &[asked], &running);
        assert_eq!(tokens[0]["customer_id"], payer, "{rule} {caller}");
        assert_eq!(tokens[0]["product_id"], product, "{rule} {caller}");
        assert_eq!(tokens[0]["total_provider_cost"], "0.003", "{rule} {caller}");
    }
}

#[test]
fn who_knows_a_running_trace_spends_its_own_money() {
    let forged = "agent-meter=4bf92f3577b34da6a3ce929d0e0e4736";
    let mut mesh = Mesh::new(&config(&json!({})));
    let over = call(&mut mesh, "acme", &[("traceparent", TRACE_A)]);
    let stale = mesh.carried[&over].clone();
    mesh.answer_call(over);
    mesh.envoy.now.0 += 1;
    let victim = call(&mut mesh, "acme", &[("traceparent", TRACE_A)]);
    // 101, and proofs that prove nothing.
    for state in ["", forged, &stale[1].1] {
        let head = [
            (":method", "POST"),
            (":path", "/v1/chat/completions"),
            (":authority", "api.openai.com"),
            ("traceparent", TRACE_A),
            ("tracestate", state),
        ];
        let asked = mesh.send(Worker::Second, &head, r#"{"model":"gpt-4o"}"#);
        mesh.answer_chat(asked);
        let (tokens, _) = mesh.events();
        assert_eq!(tokens[0]["customer_id"], "anonymous", "{state}");
        assert_eq!(tokens[0]["attribution"], "none", "{state}");
    }
    mesh.answer_call(victim);
    assert_eq!(
        mesh.envoy
            .deliver(4_000_000)
            .iter()
            .filter(|event| {
                event["data"]["event_type"] == "session_closed"
                    && event["data"]["customer_id"] == "acme"
            })
            .map(|event| event["data"]["total_provider_cost"].clone())
            .collect::<Vec<_>>(),
        ["0"]
    );
}

#[test]
fn a_proof_that_a_client_sends_to_a_tool_is_replaced() {
    let mut mesh = Mesh::new(&config(&json!({})));
    let victim = call(&mut mesh, "acme", &[]);
    // A tool server's own call carries the proof of the call that runs it, and gets its own.
    let state = mesh.carried[&victim][1].1.clone();
    let nested = call(&mut mesh, "tools", &[("traceparent", TRACE_B), ("tracestate", &state)]);
    let asked = [mesh.ask_in(victim, CONTEXT), mesh.ask_in(nested, CONTEXT)];
    let (tokens, _) = finish(&mut mesh, &asked, &[victim, nested]);
    assert_eq!([&tokens[0]["customer_id"], &tokens[1]["customer_id"]], ["acme", "tools"]);
}

#[test]
fn the_proof_decides_where_head_and_message_name_different_traces() {
    // 102
    let body = json!({"id": 1, "method": "tools/call", "params": {
        "name": "summarise", "_meta": {"traceparent": TRACE_B},
    }});
    let mut mesh = Mesh::new(&config(&json!({})));
    let other = call(&mut mesh, "mallory", &[("traceparent", TRACE_B)]);
    let call = call_with(&mut mesh, "acme", &[("traceparent", TRACE_A)], &body.to_string());
    let asked = mesh.ask_in(call, CONTEXT);
    let (tokens, _) = finish(&mut mesh, &[asked], &[call, other]);
    assert_eq!(tokens[0]["customer_id"], "acme");
    assert_eq!(tokens[0]["attribution"], "trace");
}

#[test]
fn a_proof_names_a_request_and_not_one_of_its_calls() {
    let body = r#"[{"id":1,"method":"tools/call","params":{"name":"a"}},{"id":2,"method":"tools/call","params":{"name":"b"}}]"#;
    let mut mesh = Mesh::new(&config(&json!({})));
    let batch = call_with(&mut mesh, "acme", &[], body);
    let asked = mesh.ask_in(batch, CONTEXT);
    mesh.answer_chat(asked);
    let (tokens, _) = mesh.events();
    assert_eq!(tokens[0]["attribution"], "none");
    assert_eq!(tokens[0].get("call_id"), None);
    assert_eq!(
        (&tokens[0]["customer_id"], &tokens[0]["product_id"]),
        (&json!("acme"), &json!("crm"))
    );
}

#[test]
fn what_nobody_owns_counts_in_the_guards_of_its_product() {
    let mut config: Value = serde_json::from_str(&config(&json!({}))).unwrap();
    config["guards"] = json!([{
        "id": "unowned", "scope": "product", "products": ["llm"], "budget": {"provider_cost": "0.005"},
        "actions": {"level_3": {"threshold": "0%", "action": "block_request"}},
    }]);
    let mut mesh = Mesh::new(&config.to_string());
    // 98, with a tool that carries nothing along.
    for _ in 0..2 {
        let call = call(&mut mesh, "acme", &[]);
        let asked = mesh.ask_in(call, NOTHING);
        finish(&mut mesh, &[asked], &[call]);
    }
    let head =
        [(":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "api.openai.com")]
            .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
    let crate::host::Envoy { host, worker, now, .. } = &mut mesh.envoy;
    let answer = worker.request_head(host, 1, Headers(&head), *now);
    assert!(matches!(answer, HeadAction::Answer(reply) if reply.status == 429));
}

#[test]
fn what_is_left_before_the_usage_is_estimated_by_default() {
    // 103
    let chunk = r#"data: {"object":"chat.completion.chunk","model":"gpt-4o","choices":[{"index":0,"delta":{"content":"twelve bytes"}}]}

"#;
    let events = [(":status", "200"), ("content-type", "text/event-stream")];
    for end in [
        StreamEnd::Aborted,
        // 104: the stream ends without usage.
        StreamEnd::Complete,
    ] {
        let mut mesh = Mesh::new(&config(&json!({})));
        let call = call(&mut mesh, "acme", &[]);
        let asked = mesh.ask_in(call, CONTEXT);
        mesh.answer(Worker::Second, asked, &events, chunk, end);
        mesh.answer_call(call);
        let made = mesh.envoy.deliver(2000);
        let tokens = &kinds(&made, "token_consumption")[0];
        assert_eq!(tokens["customer_id"], "acme", "{end:?}");
        assert_eq!((&tokens["estimated"], &tokens["priced"]), (&json!(true), &json!(true)));
        assert_eq!(tokens["tokens"], json!({"input": 5, "output": 3}), "{end:?}");
        assert_eq!(tokens["price"], "0.000051", "{end:?}");
    }
}

#[test]
fn a_picture_in_a_request_is_not_estimated_as_text() {
    let events = [(":status", "200"), ("content-type", "text/event-stream")];
    let head =
        [(":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "api.openai.com")];
    for (content, input) in [
        // 100 KiB of each; 33 bytes stand around it.
        ("iVBORw0KGgo+/AAA".repeat(6400), 199..=500),
        ("A few words... ".repeat(6827), 25_600..=25_620),
        ("\u{4e2d}\u{6587}".repeat(17_067), 25_600..=25_620),
    ] {
        let mut mesh = Mesh::new(&config(&json!({})));
        let body = format!(r#"{{"model":"gpt-4o","content":"{content}"}}"#);
        let asked = mesh.send(Worker::Second, &head, &body);
        mesh.answer(Worker::Second, asked, &events, "", StreamEnd::Aborted);
        let (tokens, _) = mesh.events();
        let estimated = tokens[0]["tokens"]["input"].as_u64().unwrap();
        assert!(input.contains(&estimated), "{estimated}");
    }
}

/// A stream of Responses that its client has left in the middle.
fn left_response(mesh: &mut Mesh) {
    let created = mesh.envoy.now.0 / 1000;
    let head = [(":method", "POST"), (":path", "/v1/responses"), (":authority", "api.openai.com")];
    let body = r#"{"model":"gpt-4o","stream":true}"#;
    let asked = mesh.send(Worker::Second, &head, body);
    let events = [(":status", "200"), ("content-type", "text/event-stream")];
    let text = format!(
        "data: {}\n\ndata: {}\n\n",
        json!({"type": "response.created", "response": {"id": "resp_1", "status": "in_progress",
            "model": "gpt-4o", "created_at": created}}),
        json!({"type": "response.output_text.delta", "delta": "twelve bytes"}),
    );
    mesh.answer(Worker::Second, asked, &events, &text, StreamEnd::Aborted);
}

/// The client asks what became of it.
fn poll(mesh: &mut Mesh) {
    let created = mesh.envoy.now.0 / 1000;
    let head =
        [(":method", "GET"), (":path", "/v1/responses/resp_1"), (":authority", "api.openai.com")];
    let body = json!({"id": "resp_1", "object": "response", "status": "completed",
        "model": "gpt-4o-2024-08-06", "created_at": created,
        "usage": {"input_tokens": 10, "output_tokens": 20, "total_tokens": 30}});
    let asked = mesh.send(Worker::Second, &head, "");
    let plain = [(":status", "200"), ("content-type", "application/json")];
    mesh.answer(Worker::Second, asked, &plain, &body.to_string(), StreamEnd::Complete);
}

#[test]
fn an_estimate_gives_way_to_the_truth_and_is_billed_without_it() {
    let estimated = json!([true, {"input": 8, "output": 3}]);
    let told = json!([false, {"input": 10, "output": 20, "provider_total": 30}]);
    // When the client polls, if it does; whether the accountant dies meanwhile; what is billed.
    for (polls_after_ms, dies, expected) in [
        (Some(0), false, &told),
        (Some(5_000), false, &told),
        (Some(5_000), true, &told),
        (Some(60_000), false, &told),
        (None, false, &estimated),
        (None, true, &estimated),
    ] {
        let json = config(&json!({}));
        let mut mesh = Mesh::new(&json);
        left_response(&mut mesh);
        let mut made = Vec::new();
        if polls_after_ms != Some(0) {
            made.extend(mesh.envoy.deliver(2_000));
        }
        if dies {
            mesh.envoy.main = crate::host::meter(&mut mesh.envoy.host, &json);
            while !mesh.envoy.main.is_accountant() {
                let waiting = mesh.envoy.tick(250);
                made.extend(mesh.envoy.take(waiting));
            }
        }
        if let Some(after_ms) = polls_after_ms {
            made.extend(mesh.envoy.deliver(after_ms));
            poll(&mut mesh);
        }
        if polls_after_ms.is_some() {
            // However often it asks.
            poll(&mut mesh);
        }
        made.extend(mesh.envoy.deliver(4_000_000));
        let shown = format!("{polls_after_ms:?} {dies}");
        let tokens = kinds(&made, "token_consumption");
        // What comes when the estimate was billed takes its place.
        let is_late = polls_after_ms == Some(60_000);
        assert_eq!(tokens.len(), 1 + usize::from(is_late), "{shown}");
        let last = &tokens[tokens.len() - 1];
        let supersedes = is_late.then(|| &tokens[0]["generation_id"]);
        assert_eq!(last.get("supersedes"), supersedes, "{shown}");
        assert_eq!(json!([last["estimated"], last["tokens"]]), *expected, "{shown}");
        let closed = kinds(&made, "session_closed");
        assert_eq!(closed.len(), 1, "{shown}");
        assert_eq!(closed[0]["total_provider_cost"], last["total_provider_cost"], "{shown}");
    }
}
