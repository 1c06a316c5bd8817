//! Shapes in which providers and gateways tell usage, beside those of the golden bodies.

use crate::support::test;
use crate::unread::check;

const CHAT: &str = "/v1/chat/completions";
const CONTENT: &str = "/v1beta/models/m:generateContent";
const RESPONSES: &str = "/v1/responses";

#[test]
fn cache_writes_have_the_lifetime_that_is_told() {
    check(&[
        (
            "a compaction's writes, for 12 hours",
            "openai",
            "/v1/responses/compact",
            r#"{"id":"resp_1","object":"response.compaction","output":[],"usage":{"input_tokens":90000,
                "input_tokens_details":{"cached_tokens":0,"cache_write_tokens":80000,
                    "cache_write_tokens_details":{"ttl_30m_tokens":0,"ttl_12h_tokens":80000}},
                "output_tokens":2000,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":92000}}"#,
            "Complete in=90000 out=2000 read=0 5m=0 1h=80000",
        ),
        (
            "behind a gateway, by lifetime",
            "openai_compatible",
            CHAT,
            r#"{"choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":10010,"completion_tokens":5,
                "total_tokens":10015,"cache_creation_input_tokens":10000,"prompt_tokens_details":{"cached_tokens":0,
                    "cache_creation_tokens":10000,
                    "cache_creation_token_details":{"ephemeral_1h_input_tokens":10000}}}}"#,
            "Complete in=10010 out=5 read=0 1h=10000",
        ),
        (
            "behind a gateway, without a lifetime",
            "openai_compatible",
            CHAT,
            r#"{"choices":[{"index":0,"finish_reason":"stop"}],"usage":{"prompt_tokens":10010,"completion_tokens":5,
                "total_tokens":10015,"prompt_tokens_details":{"cache_creation_tokens":10000}}}"#,
            "Complete in=10010 out=5 5m=10000",
        ),
    ]);
}

#[test]
fn the_counts_of_a_stream_of_messages_are_those_of_all_turns() {
    let stream = |start: &str, delta: &str| {
        format!(
            "data: {{\"type\":\"message_start\",\"message\":{{\"type\":\"message\",\"usage\":{start}}}}}\n\n\
             data: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"end_turn\"}},\"usage\":{delta}}}\n\n"
        )
    };
    let turn = |writes: u64| {
        format!(
            r#"{{"type":"message","input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":{writes},"cache_creation":{{"ephemeral_1h_input_tokens":{writes},"ephemeral_5m_input_tokens":0}}}}"#
        )
    };
    let (first, second) = (turn(3000), turn(15000));
    let by_turns = stream(
        r#"{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":3000,"cache_creation":{"ephemeral_1h_input_tokens":3000,"ephemeral_5m_input_tokens":0}}"#,
        &format!(
            r#"{{"input_tokens":2,"output_tokens":2,"cache_creation_input_tokens":18000,"iterations":[{first},{second}]}}"#
        ),
    );
    let moved = stream(
        r#"{"input_tokens":12,"output_tokens":0}"#,
        r#"{"input_tokens":1,"cache_read_input_tokens":11,"output_tokens":5}"#,
    );
    let zero = stream(
        r#"{"input_tokens":15000,"output_tokens":1}"#,
        r#"{"input_tokens":0,"output_tokens":40}"#,
    );
    let messages = "/v1/messages";
    check(&[
        (
            "each turn tells the lifetime of its writes",
            "anthropic",
            messages,
            &by_turns,
            "Complete in=18002 out=2 5m=0 1h=18000",
        ),
        (
            "what was input first is read from the cache later",
            "anthropic",
            messages,
            &moved,
            "Complete in=12 out=5 read=11",
        ),
        ("no input later", "anthropic", messages, &zero, "Complete in=15000 out=40"),
    ]);
}

#[test]
fn thoughts_are_within_the_candidates_where_the_total_says_so() {
    let usage = |total: u64| {
        format!(
            r#"{{"candidates":[{{"finishReason":"STOP"}}],"usageMetadata":{{"promptTokenCount":100,
                "candidatesTokenCount":1000,"thoughtsTokenCount":900,"totalTokenCount":{total}}}}}"#
        )
    };
    let (within, beside) = (usage(1100), usage(2000));
    check(&[
        ("within", "gemini", CONTENT, &within, "Complete in=100 out=1000"),
        ("beside", "gemini", CONTENT, &beside, "Complete in=100 out=1900"),
    ]);
}

#[test]
fn searches_that_are_billed_take_the_place_of_those_that_were_made() {
    let call = r#"{"type":"web_search_call","action":{"type":"search"}}"#;
    let body = |billed: &str| {
        format!(
            r#"{{"object":"response","status":"completed","output":[{call},{call},{call}],
                "usage":{{"input_tokens":1,"output_tokens":1,"total_tokens":2}}{billed}}}"#
        )
    };
    let (all, one, none) = (
        body(""),
        body(r#","tool_usage":{"web_search":{"num_requests":1}}"#),
        body(r#","tool_usage":{"web_search":{"num_requests":0}}"#),
    );
    let streamed = format!(
        "event: response.output_item.done\ndata: {{\"type\":\"response.output_item.done\",\"item\":{call}}}\n\n\
         event: response.completed\ndata: {{\"type\":\"response.completed\",\"response\":{}}}\n\n",
        none.replace('\n', " ")
    );
    let streamed = ["data: {\"type\":\"response.created\"}\n\n", &streamed].concat();
    check(&[
        ("all", "openai", RESPONSES, &all, "Complete in=1 out=1 web_searches=3"),
        ("one of them", "openai", RESPONSES, &one, "Complete in=1 out=1 web_searches=1"),
        ("none of them", "openai", RESPONSES, &none, "Complete in=1 out=1"),
        ("none of them, in a stream", "openai", RESPONSES, &streamed, "Complete in=1 out=1"),
        (
            "of an agent",
            "perplexity",
            RESPONSES,
            r#"{"object":"response","status":"completed","usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2,
                "tool_calls_details":{"search_web":{"invocation":3},"fetch_url":{"invocation":2}}}}"#,
            "Complete in=1 out=1 web_searches=3 other:fetch_url.invocation=2",
        ),
    ]);
}

#[test]
fn tokens_of_pictures_stand_beside_the_text() {
    check(&[(
        "embeddings",
        "cohere",
        "/v2/embed",
        r#"{"id":"e","embeddings":{},"meta":{"billed_units":{"input_tokens":50,"text_tokens":50,"images":1,"image_tokens":700}}}"#,
        "Complete in=750 image=700 input_images=1",
    )]);
}

#[test]
fn an_empty_reason_is_no_end() {
    check(&[
        (
            "cut after it",
            "openai_compatible",
            CHAT,
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"\"}],\
             \"object\":\"chat.completion.chunk\",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"total_tokens\":10}}\n\n",
            "Partial in=9 out=1",
        ),
        (
            "and then the end",
            "openai_compatible",
            CHAT,
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"x\"},\"finish_reason\":\"\"}],\
             \"object\":\"chat.completion.chunk\"}\n\n\
             data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\
             \"object\":\"chat.completion.chunk\",\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1,\"total_tokens\":10}}\n\n",
            "Complete in=9 out=1",
        ),
    ]);
}
