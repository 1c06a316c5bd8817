//! Payments on the wire (x402, MPP): a challenge is no execution, and what was paid is not charged
//! again. The forms are those of the published SDKs (x402 2.25, pympp 0.16).

use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::Headers;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::accountant::kinds;
use crate::guarded::{self, Became, Guarded};
use crate::host::Envoy;
use crate::products::{Pairs, headers};
use crate::support::{cuts, test};

const ACCEPTED: &str = r#"{"scheme":"exact","network":"eip155:84532","asset":"0xUSDC","amount":"10000","payTo":"0xp","maxTimeoutSeconds":60,"extra":{}}"#;
const SETTLED: &str =
    r#"{"success":true,"payer":"0xc","transaction":"0xabc","network":"eip155:84532"}"#;

/// A product of each type that has calls, at a price.
fn config(bill_paid_calls: bool) -> String {
    let product = |id: &str, kind: &str| {
        json!({
            "id": id, "type": kind, "match": {"path_prefix": format!("/{id}")},
            "pricing": {"default": {"price": "0.5"}, "bill_paid_calls": bill_paid_calls},
        })
    };
    let products =
        [product("mcp", "MCP_SERVER"), product("api", "STANDARD_API"), product("a2a", "AI_AGENT")];
    json!({"products": products}).to_string()
}

/// One stream whose answer comes in these pieces. Gives the data of its calls.
fn play(
    config: &str,
    request: Pairs<'_>,
    body: &str,
    response: Pairs<'_>,
    answer: &[&[u8]],
) -> Vec<Value> {
    let mut envoy = Envoy::new(config);
    let Envoy { worker, host, now, .. } = &mut envoy;
    let head = headers(request);
    let HeadAction::Follow(edit) = worker.request_head(host, 9, Headers(&head), *now) else {
        panic!("{request:?}")
    };
    if edit.body_interest == BodyInterest::Bytes {
        worker.request_body(host, 9, body.as_bytes(), true, *now);
    } else {
        worker.request_body(host, 9, &[], true, *now);
    }
    if worker.response_head(9, Headers(&headers(response))) == BodyInterest::Bytes {
        for piece in answer {
            worker.response_body(host, 9, piece, false, *now);
        }
    }
    worker.stream_end(host, 9, StreamEnd::Complete, *now);
    let events = envoy.deliver(2000);
    ["tool_invocation", "api_call", "agent_step"]
        .iter()
        .flat_map(|kind| kinds(&events, kind))
        .collect()
}

const JSON: Pairs<'_> = &[(":status", "200"), ("content-type", "application/json")];
const MCP: Pairs<'_> = &[(":method", "POST"), (":path", "/mcp")];
const A2A: Pairs<'_> = &[(":method", "POST"), (":path", "/a2a")];
const API: Pairs<'_> = &[(":method", "GET"), (":path", "/api")];

fn call(meta: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"t","arguments":{{}},"_meta":{{{meta}}}}}}}"#
    )
}

fn result(members: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{{members}}}}}"#)
}

fn challenge() -> String {
    format!(r#"{{"x402Version":2,"error":"Payment required","accepts":[{ACCEPTED}]}}"#)
}

#[test]
fn a_challenge_over_mcp_is_neither_an_execution_nor_an_error() {
    let challenge = challenge();
    let in_text = json!([{"type": "text", "text": challenge}]).to_string();
    let later = json!([{"type": "text", "text": "no"}, {"type": "text", "text": challenge}]);
    let error = |code: i64, data: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"error":{{"code":{code},"message":"m","data":{data}}}}}"#
        )
    };
    let challenges = r#"{"httpStatus":402,"challenges":[{"id":"c","method":"tempo"}]}"#;
    for (name, answer, status) in [
        (
            "both places, as the SDK's server writes them",
            result(&format!(
                r#""content":{in_text},"structuredContent":{challenge},"isError":true"#
            )),
            "PAYMENT_REQUIRED",
        ),
        (
            "isError first",
            result(&format!(r#""isError":true,"content":{in_text}"#)),
            "PAYMENT_REQUIRED",
        ),
        (
            "structured content alone",
            result(&format!(r#""content":[],"structuredContent":{challenge},"isError":true"#)),
            "PAYMENT_REQUIRED",
        ),
        (
            "_meta",
            result(r#""content":[],"isError":true,"_meta":{"x402/error":{"x402Version":1}}"#),
            "PAYMENT_REQUIRED",
        ),
        (
            "a second text is no challenge",
            result(&format!(r#""content":{later},"isError":true"#)),
            "ERROR",
        ),
        (
            "a text that only tells of x402",
            result(
                r#""content":[{"type":"text","text":"set \"x402Version\" to 2"}],"isError":true"#,
            ),
            "ERROR",
        ),
        (
            "another structure",
            result(r#""content":[],"structuredContent":{"code":1},"isError":true"#),
            "ERROR",
        ),
        (
            "a result that tells of a challenge",
            result(&format!(r#""content":{in_text},"structuredContent":{challenge}"#)),
            "SUCCESS",
        ),
        (
            "a member again, the last one counts",
            result(&format!(
                r#""isError":true,"structuredContent":{challenge},"structuredContent":{{}}"#
            )),
            "ERROR",
        ),
        ("code 402", error(402, &challenge), "PAYMENT_REQUIRED"),
        ("MPP", error(-32042, challenges), "PAYMENT_REQUIRED"),
        ("MPP, rejected", error(-32043, challenges), "PAYMENT_REQUIRED"),
        ("MPP, by its status", error(-32042, r#"{"httpStatus":402}"#), "PAYMENT_REQUIRED"),
        ("a visit elsewhere", error(-32042, r#"{"elicitations":[]}"#), "HITL_REQUIRED"),
        ("no challenges", error(-32042, r#"{"challenges":[]}"#), "HITL_REQUIRED"),
        ("another error of that number", error(-32043, "{}"), "ERROR"),
    ] {
        for pieces in cuts(answer.as_bytes()) {
            let calls = play(&config(false), MCP, &call(""), JSON, &pieces);
            assert_eq!(calls.len(), 1, "{name}");
            assert_eq!(calls[0]["execution_status"], status, "{name} {pieces:?}");
            assert_eq!(calls[0]["billable"], status == "SUCCESS", "{name}");
            assert_eq!(calls[0].get("payment"), None, "{name}");
        }
    }
}

#[test]
fn a_challenge_over_http_is_the_same_for_every_type() {
    let http = &[(":status", "402"), ("payment-required", "e30="), ("content-type", "text/html")];
    let mpp = &[(":status", "402"), ("www-authenticate", "Payment id=\"c\"")];
    for (request, body) in [(MCP, call("")), (API, String::new())] {
        for response in [&http[..], &mpp[..]] {
            let calls = play(&config(false), request, &body, response, &[b"<html></html>"]);
            assert_eq!(calls[0]["execution_status"], "PAYMENT_REQUIRED", "{request:?}");
            assert_eq!(calls[0]["price"], "0", "{request:?}");
        }
    }
}

fn a2a_message(metadata: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"message/send","params":{{"message":{{"messageId":"m","role":"user","parts":[],"metadata":{{{metadata}}}}}}}}}"#
    )
}

fn a2a_task(state: &str, metadata: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"kind":"task","id":"t","contextId":"c","status":{{"state":"{state}","message":{{"kind":"message","role":"agent","parts":[],"messageId":"n","metadata":{{{metadata}}}}}}}}}}}"#
    )
}

#[test]
fn an_agent_asks_for_a_payment_and_tells_that_it_came() {
    let asks = format!(
        r#""x402.payment.status":"payment-required","x402.payment.required":{}"#,
        challenge()
    );
    let receipts = format!(
        r#""x402.payment.status":"payment-completed","x402.payment.receipts":[{{"success":false,"transaction":"","network":"n"}},{SETTLED}]"#
    );
    let offer = format!(
        r#""x402.payment.status":"payment-submitted","x402.payment.payload":{{"x402Version":2,"payload":{{}},"accepted":{ACCEPTED}}}"#
    );
    let paid = json!({
        "protocol": "x402", "network": "eip155:84532", "currency": "0xUSDC",
        "amount_atomic": "10000", "receipt": "0xabc",
    });
    for (name, request, answer, status, payment, price) in [
        ("asks", "", a2a_task("input-required", &asks), "PAYMENT_REQUIRED", None, "0"),
        ("asks for a word", "", a2a_task("input-required", ""), "HITL_REQUIRED", None, "0"),
        ("paid", &offer, a2a_task("completed", &receipts), "SUCCESS", Some(&paid), "0"),
        ("paid by nobody", "", a2a_task("completed", &receipts), "SUCCESS", None, "0.5"),
        ("not settled", &offer, a2a_task("completed", ""), "SUCCESS", None, "0.5"),
    ] {
        for pieces in cuts(answer.as_bytes()) {
            let calls = play(&config(false), A2A, &a2a_message(request), JSON, &pieces);
            assert_eq!(calls.len(), 1, "{name}");
            assert_eq!(calls[0]["execution_status"], status, "{name}");
            assert_eq!(calls[0].get("payment"), payment, "{name}");
            assert_eq!(calls[0]["price"], price, "{name}");
        }
    }
}

const OFFER: &str = r#""x402/payment":{"x402Version":2,"payload":{"signature":"0x1"},"accepted":"#;

#[test]
fn what_was_paid_over_mcp_is_told_and_not_charged_again() {
    let x402 = format!("{OFFER}{ACCEPTED}}}");
    let of_version_1 = r#""x402/payment":{"x402Version":1,"scheme":"exact","network":"base","payload":{"authorization":{"value":"10000"}}}"#;
    let mpp = r#""org.paymentauth/credential":{"challenge":{"id":"c","realm":"r","method":"tempo","intent":"charge","request":{"amount":"1000","currency":"usd"}},"payload":{}}"#;
    let receipt = |settled: &str| {
        result(&format!(r#""content":[],"_meta":{{"x402/payment-response":{settled}}}"#))
    };
    let mpp_receipt = |status: &str| {
        result(&format!(
            r#""content":[],"_meta":{{"org.paymentauth/receipt":{{"status":"{status}","method":"tempo","reference":"pi_1","challengeId":"c"}}}}"#
        ))
    };
    let of_x402 = json!({
        "protocol": "x402", "network": "eip155:84532", "currency": "0xUSDC",
        "amount_atomic": "10000", "receipt": "0xabc",
    });
    let less = r#"{"success":true,"transaction":"0xabc","network":"eip155:84532","amount":"7000"}"#;
    let of_less = json!({
        "protocol": "x402", "network": "eip155:84532", "currency": "0xUSDC",
        "amount_atomic": "7000", "receipt": "0xabc",
    });
    let of_1 = json!({"protocol": "x402", "network": "eip155:84532", "receipt": "0xabc"});
    let of_mpp = json!({
        "protocol": "mpp", "network": "tempo", "currency": "usd", "amount_atomic": "1000",
        "receipt": "pi_1",
    });
    let failed = r#"{"success":false,"errorReason":"insufficient_funds","transaction":"0xabc","network":"n"}"#;
    let untold = r#"{"success":true,"transaction":"","network":"n"}"#;
    let as_text = r#"{"success":"true","transaction":"0xabc","network":"n"}"#;
    let error = format!(
        r#"{{"jsonrpc":"2.0","id":1,"result":{{"isError":true,"content":[],"_meta":{{"x402/payment-response":{SETTLED}}}}}}}"#
    );
    for (name, meta, answer, payment) in [
        ("x402", &*x402, receipt(SETTLED), Some(&of_x402)),
        ("what was settled, not what was offered", &x402, receipt(less), Some(&of_less)),
        ("version 1", of_version_1, receipt(SETTLED), Some(&of_1)),
        ("MPP", mpp, mpp_receipt("success"), Some(&of_mpp)),
        ("no offer", "", receipt(SETTLED), None),
        ("an offer in another case", r#""X402/Payment":{}"#, receipt(SETTLED), None),
        ("no receipt", &x402, result(r#""content":[]"#), None),
        ("not settled", &x402, receipt(failed), None),
        ("no transaction", &x402, receipt(untold), None),
        ("a text for true", &x402, receipt(as_text), None),
        ("a receipt of another protocol", &x402, mpp_receipt("success"), None),
        ("MPP, not settled", mpp, mpp_receipt("failed"), None),
        ("an error", &x402, error, None),
    ] {
        let body = call(meta);
        for pieces in cuts(answer.as_bytes()) {
            let calls = play(&config(false), MCP, &body, JSON, &pieces);
            assert_eq!(calls.len(), 1, "{name}");
            assert_eq!(calls[0].get("payment"), payment, "{name}");
            let is_charged = payment.is_none() && name != "an error";
            assert_eq!(calls[0]["billable"], is_charged, "{name}");
            assert_eq!(calls[0]["price"], if is_charged { "0.5" } else { "0" }, "{name}");
        }
    }
    let calls = play(&config(true), MCP, &call(&x402), JSON, &[receipt(SETTLED).as_bytes()]);
    assert_eq!((&calls[0]["price"], &calls[0]["payment"]), (&json!("0.5"), &of_x402));
}

#[test]
fn what_was_paid_in_headers_is_told_and_not_charged_again() {
    let base64 = |text: &str| BASE64_STANDARD.encode(text);
    let offer = base64(&format!(r#"{{"x402Version":2,"payload":{{}},"accepted":{ACCEPTED}}}"#));
    let settled = base64(SETTLED);
    let terms = BASE64_URL_SAFE_NO_PAD.encode(r#"{"amount":"1000","currency":"usd"}"#);
    let credential = BASE64_URL_SAFE_NO_PAD.encode(format!(
        r#"{{"challenge":{{"id":"c","method":"stripe","request":"{terms}"}},"payload":{{"spt":"?>?"}}}}"#
    ));
    let authorization = format!("Payment {credential}");
    let receipt = BASE64_URL_SAFE_NO_PAD.encode(
        r#"{"status":"success","method":"stripe","timestamp":"2026-11-25T00:00:00Z","reference":"pi_?>1"}"#,
    );
    let of_x402 = json!({
        "protocol": "x402", "network": "eip155:84532", "currency": "0xUSDC",
        "amount_atomic": "10000", "receipt": "0xabc",
    });
    let unread = json!({"protocol": "x402", "network": "eip155:84532", "receipt": "0xabc"});
    let of_mpp = json!({
        "protocol": "mpp", "network": "stripe", "currency": "usd", "amount_atomic": "1000",
        "receipt": "pi_?>1",
    });
    let v2 = [("payment-signature", &*offer)];
    let v1 = [("x-payment", "not base64")];
    let mpp = [("authorization", &*authorization)];
    let told = ("payment-response", &*settled);
    let none: Pairs<'_> = &[];
    // The request's headers, the status and the response's headers, and what is told.
    let rows: [(&str, Pairs<'_>, &str, Pairs<'_>, Option<&Value>); 8] = [
        ("x402", &v2, "200", &[told], Some(&of_x402)),
        ("version 1", &v1, "200", &[("x-payment-response", &settled)], Some(&unread)),
        ("MPP", &mpp, "200", &[("payment-receipt", &receipt)], Some(&of_mpp)),
        ("no offer", none, "200", &[told], None),
        ("no receipt", &v2, "200", none, None),
        ("no base64", &v2, "200", &[("payment-response", "{}")], None),
        ("two receipts", &v2, "200", &[told, told], None),
        ("elsewhere", &v2, "302", &[told], None),
    ];
    for (name, more, http_status, receipts, payment) in rows {
        for (request, body) in [(API, String::new()), (MCP, call(""))] {
            let answer = result(r#""content":[]"#);
            let request = [request, more].concat();
            let head = [(":status", http_status), ("content-type", "application/json")];
            let response = [&head, receipts].concat();
            let calls = play(&config(false), &request, &body, &response, &[answer.as_bytes()]);
            // A redirect is no outcome of a call over MCP.
            assert_eq!(calls.len(), usize::from(http_status == "200" || body.is_empty()), "{name}");
            for call in calls {
                assert_eq!(call.get("payment"), payment, "{name} {request:?}");
                assert_eq!(call["billable"], payment.is_none(), "{name}");
            }
        }
    }
}

#[test]
fn one_payment_in_a_header_is_for_one_call() {
    let offer = BASE64_STANDARD.encode(format!(r#"{{"accepted":{ACCEPTED}}}"#));
    let settled = BASE64_STANDARD.encode(SETTLED);
    let calls = |id: u32| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "t"}});
    let answers = |id: u32| json!({"jsonrpc": "2.0", "id": id, "result": {"content": []}});
    let request = [MCP, &[("payment-signature", &*offer)]].concat();
    let response = [JSON, &[("payment-response", &*settled)]].concat();
    let body = json!([calls(1), calls(2)]).to_string();
    let answer = json!([answers(1), answers(2)]).to_string();
    let calls = play(&config(false), &request, &body, &response, &[answer.as_bytes()]);
    let prices: Vec<&Value> = calls.iter().map(|call| &call["price"]).collect();
    assert_eq!(prices, ["0", "0.5"]);
    assert_eq!(calls.iter().filter(|call| call.get("payment").is_some()).count(), 1);
}

#[test]
fn a_challenge_feeds_no_guard() {
    let guards = json!([
        {
            "id": "loops", "scope": "session", "period": "session",
            "loop": {"calls": 3, "window": "60s"},
            "actions": {"level_2": {"throttle_rate": "1req/s"}},
        },
        {
            "id": "five", "scope": "customer", "period": "day", "budget": {"calls": 5},
            "actions": {"level_3": {"threshold": "0%", "action": "block_request"}},
        },
    ]);
    let mut guarded = Guarded::new(&guards);
    for _ in 0..20 {
        let Became::Passed(stream, ..) = guarded.call("acme", "t") else { panic!("refused") };
        let answer = result(&format!(r#""isError":true,"structuredContent":{}"#, challenge()));
        guarded.answer(stream, &answer);
        guarded.settle();
    }
    let told = guarded.told.iter().map(|event| &event["data"]["execution_status"]);
    assert_eq!(told.filter(|status| **status == "PAYMENT_REQUIRED").count(), 20);
}

#[test]
fn what_was_paid_on_the_wire_is_worth_its_price_to_a_margin() {
    let more = |bill_paid_calls: bool| {
        let mut products: Value =
            serde_json::from_str(&guarded::config(&json!([]), &json!({}))).unwrap();
        let mut products = products["products"].take();
        products[0]["pricing"] =
            json!({"default": {"price": "0.5"}, "bill_paid_calls": bill_paid_calls});
        json!({ "products": products })
    };
    for (bill_paid_calls, charged) in [(false, "0"), (true, "0.5")] {
        let guards = json!([guarded::guard(&json!({}))]);
        let mut guarded = Guarded::with(&guards, &more(bill_paid_calls));
        let offer = BASE64_STANDARD.encode(format!(r#"{{"accepted":{ACCEPTED}}}"#));
        let paid = guarded.call_with("globex", "t", &[("payment-signature", &offer)]).stream();
        let settled = BASE64_STANDARD.encode(SETTLED);
        guarded.answer_with(paid, &[("payment-response", &settled)], &result(r#""content":[]"#));
        assert_eq!(guarded.generate("globex", 1000), 200);
        guarded.settle();
        assert_eq!(guarded.last("tool_invocation")["price"], charged);
        assert_eq!(guarded.call("globex", "t").status(), 200, "a margin of 80 %");
    }
}

#[test]
fn a_receipt_that_comes_on_another_stream_settles_the_payment() {
    let mut envoy = Envoy::new(&config(false));
    let session = ("mcp-session-id", "s");
    let body = call(&format!("{OFFER}{ACCEPTED}}}"));
    let Envoy { worker, host, now, .. } = &mut envoy;
    let post = headers(&[MCP, &[session]].concat());
    worker.request_head(host, 1, Headers(&post), *now);
    worker.request_body(host, 1, body.as_bytes(), true, *now);
    worker.response_head(1, Headers(&headers(&[(":status", "202")])));
    worker.stream_end(host, 1, StreamEnd::Complete, *now);
    let get = headers(&[(":method", "GET"), (":path", "/mcp"), session]);
    worker.request_without_body(host, 2, Headers(&get), *now);
    let events = [(":status", "200"), ("content-type", "text/event-stream")];
    worker.response_head(2, Headers(&headers(&events)));
    let answer = result(&format!(r#""content":[],"_meta":{{"x402/payment-response":{SETTLED}}}"#));
    worker.response_body(host, 2, format!("data: {answer}\n\n").as_bytes(), false, *now);
    let calls = kinds(&envoy.deliver(2000), "tool_invocation");
    assert_eq!(calls.len(), 1);
    assert_eq!(
        (&calls[0]["price"], &calls[0]["payment"]["receipt"]),
        (&json!("0"), &json!("0xabc"))
    );
}
