//! What is billed beside tokens, from a request and its response to the events: searches, images, seconds and
//! the rest, and the cost that a provider reports itself.

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::host::counter::Counter;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::generations::{JSON, Mesh, Worker};
use crate::support::test;

const EVENTS: &str = "text/event-stream";
const OPENAI: &str = "api.openai.com";
const GATEWAY: &str = "gateway";
const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const IMAGES: &str = "/v1/images/generations";
const TRANSCRIPTIONS: &str = "/v1/audio/transcriptions";

fn config(llm: &Value) -> String {
    let product = |host: &str, provider: &str| {
        let mut llm = llm.clone();
        llm["provider"] = json!(provider);
        if llm["incomplete_usage"].is_null() {
            llm["incomplete_usage"] = json!("bill_observed");
        }
        json!({ "id": host, "type": "AI_AGENT", "match": { "host": host, "path_prefix": "/" }, "llm": llm })
    };
    json!({
        "rate_cards": [{ "version": "1", "rates": [
            { "provider": "openai", "model": "gpt-5.1", "input": "1.25", "output": "10",
                "units": { "code_sessions": "0.03" },
                "service_tiers": { "batch": { "input": "0.625", "output": "5", "units": { "web_searches": "0.005" } } } },
            { "provider": "openai", "model": "gpt-4o-search-preview", "input": "2.5", "output": "10",
                "units": { "web_searches:low": "0.03", "web_searches": "0.035", "web_searches:high": "0.05" } },
            { "provider": "openai", "model": "whisper-1", "units": { "input_audio_seconds": "0.0001" } },
            { "provider": "openai", "model": "dall-e-3", "units": { "output_images": "0.04",
                "output_images:hd": "0.08", "output_images:hd:1024x1792": "0.12" } },
            { "provider": "openai", "model": "gpt-image-1", "input": "5", "output": "40" },
            { "provider": "openai", "model": "image-by-number", "units": { "output_images": "0.02" } },
            // Whatever the model is.
            { "provider": "openai", "model": "*", "units": { "web_searches": "0.01" } },
            { "provider": "openai", "model": "tts-1", "units": { "input_characters": "0.000015" } },
            { "provider": "openai", "model": "gpt-4o-mini-tts", "input": "0.6", "output": "12" },
            { "provider": "openai", "model": "sora-2", "units": { "output_video_seconds": "0.1", "output_video_seconds:1280x720": "0.3" } },
            { "provider": "gemini", "model": "veo-3", "units": { "output_video_seconds": "0.4" } },
            { "provider": "gemini", "model": "imagen-4", "units": { "output_images": "0.04" } },
            { "provider": "gemini", "model": "gemini-2.5-flash", "input": "0.3", "output": "2.5",
                "units": { "searched_requests": "0.035" } },
            { "provider": "gemini", "model": "gemini-3.5-flash", "input": "0.3", "output": "2.5",
                "units": { "web_searches": "0.014" } },
            { "provider": "openai_compatible", "model": "sonar-pro", "input": "3", "output": "15",
                "units": { "requests:low": "0.006", "requests:high": "0.014" } },
            { "provider": "openai_compatible", "model": "by-request", "input": "1", "output": "1",
                "units": { "requests": "0.005" } },
            { "provider": "openai_compatible", "model": "sonar-deep-research", "input": "2", "output": "8",
                "reasoning": "3", "units": { "citation_tokens": "0.000002", "web_searches": "0.005" } },
            { "provider": "openai_compatible", "model": "gpt-4o", "input": "2.5", "output": "10" },
            { "provider": "mistral", "model": "mistral-ocr-latest", "units": { "pages": "0.001", "annotated_pages": "0.002" } },
            { "provider": "mistral", "model": "mistral-medium", "input": "0.4", "output": "2" },
            { "provider": "cohere", "model": "rerank-v4.0", "units": { "search_units": "0.002" } },
            { "provider": "cohere", "model": "command-a", "input": "1", "output": "1" },
            { "provider": "cohere", "model": "embed-by-image", "units": { "input_images": "0.0001" } },
        ]}],
        "products": [product(OPENAI, "openai"), product("gemini", "gemini"), product("mistral", "mistral"),
            product("cohere", "cohere"), product(GATEWAY, "openai_compatible")],
    })
    .to_string()
}

fn chat(model: &str, usage: &Value) -> String {
    let choice = json!({ "index": 0, "finish_reason": "stop" });
    json!({ "object": "chat.completion", "model": model, "choices": [choice], "usage": usage })
        .to_string()
}

fn response(model: &str, output: &Value) -> Value {
    json!({ "object": "response", "id": "resp_1", "status": "completed", "model": model, "output": output,
        "usage": { "input_tokens": 2000, "output_tokens": 50, "total_tokens": 2050 } })
}

fn search(action: &str) -> Value {
    json!({ "type": "web_search_call", "id": "ws", "status": "completed", "action": { "type": action } })
}

/// The event of the generation that a request and its response make.
fn event(llm: &Value, [host, path]: [&str; 2], request: &Value, answer: &str) -> (Mesh, Value) {
    let media_type = match answer {
        "ID3" => "audio/mpeg",
        _ if answer.starts_with("data:") => EVENTS,
        _ => JSON,
    };
    let mut mesh = Mesh::new(&config(llm));
    let ask = [(":method", "POST"), (":path", path), (":authority", host)];
    let stream = mesh.send(Worker::First, &ask, &request.to_string());
    let head = [(":status", "200"), ("content-type", media_type)];
    mesh.answer(Worker::First, stream, &head, answer, StreamEnd::Complete);
    let (tokens, _) = mesh.events();
    assert_eq!(tokens.len(), 1, "{path} {answer}");
    (mesh, tokens[0].clone())
}

/// Completeness, units, cost or why there is none, and the units without a price.
fn bill(place: [&str; 2], request: &Value, answer: &str) -> String {
    let (_, event) = event(&json!({}), place, request, answer);
    let cost = event["total_provider_cost"].as_str().or_else(|| event["unpriced_reason"].as_str());
    let units = event["units"].as_object().into_iter().flatten();
    let units: Vec<_> =
        units.map(|(name, count)| format!("{name}={}", count.as_str().unwrap())).collect();
    let unpriced = event["unpriced_units"].as_array().into_iter().flatten();
    let unpriced: Vec<_> = unpriced.map(|name| name.as_str().unwrap()).collect();
    let lines = event["cost_lines"].as_array().unwrap().iter();
    let sum: Decimal =
        lines.map(|line| line["cost"].as_str().unwrap().parse::<Decimal>().unwrap()).sum();
    if event["priced"] == true {
        assert_eq!(sum.normalize().to_string(), cost.unwrap(), "{event}");
    }
    let completeness = event["completeness"].as_str().unwrap();
    [completeness, &units.join(" "), cost.unwrap(), &unpriced.join(" ")].join(" | ")
}

#[test]
fn each_unit_has_its_price_or_is_named() {
    let none = json!({});
    let tokens = json!({ "prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100 });
    let images = json!({ "created": 1, "data": [{ "url": "a" }, { "url": "b" }] });
    let with_tokens = json!({ "created": 1, "data": [{ "url": "a" }], "usage": { "input_tokens": 50,
        "output_tokens": 4160, "total_tokens": 4210 } });
    let grounded = json!({ "candidates": [{ "finishReason": "STOP", "groundingMetadata": {
        "webSearchQueries": ["a", "b", "c"] } }],
        "usageMetadata": { "promptTokenCount": 1000, "candidatesTokenCount": 100, "totalTokenCount": 1100 } });
    let google = |model: &str| format!("/v1beta/models/{model}:generateContent");
    let [flash_2, flash_3] = ["gemini-2.5-flash", "gemini-3.5-flash"].map(google);
    let searched = [
        search("search"),
        search("open_page"),
        search("search"),
        json!({ "type": "code_interpreter_call", "container_id": "c1" }),
        json!({ "type": "code_interpreter_call", "container_id": "c1" }),
        json!({ "type": "file_search_call" }),
    ];
    let sonar = |model: &str, context: &str| {
        let mut usage = tokens.clone();
        usage["search_context_size"] = json!(context);
        chat(model, &usage)
    };
    let deep = json!({ "prompt_tokens": 7, "completion_tokens": 3256, "total_tokens": 3263, "reasoning_tokens": 193_944,
        "citation_tokens": 3856, "num_search_queries": 3 });
    let conversation = json!({ "object": "conversation.response", "conversation_id": "c",
        "outputs": [{ "type": "message.output", "model": "mistral-medium", "content": "Hot." }],
        "usage": { "prompt_tokens": 188, "completion_tokens": 55, "total_tokens": 243, "connectors": { "web_search": 1 } } });
    let imagined = json!({ "model": "mistral-medium", "outputs": [], "usage": { "prompt_tokens": 188,
        "completion_tokens": 55, "total_tokens": 243, "connectors": { "image_generation": 2, "video_maker": 3 } } });
    let embedded = json!({ "id": "e", "embeddings": {}, "meta": { "billed_units": { "input_tokens": 3, "images": 1000 } } });
    let without_tokens = json!({ "input_tokens": 0, "output_tokens": 0, "total_tokens": 0 });
    let mut by_xai = tokens.clone();
    by_xai["server_side_tool_usage_details"] = json!({ "web_search_calls": 0, "x_search_calls": 7, "mcp_calls": 2, "odd": "word", "none": null });
    let streamed = json!({ "type": "response.completed", "response": { "status": "completed", "model": "gpt-5.1",
        "usage": { "input_tokens": 2000, "output_tokens": 50, "total_tokens": 2050,
            "server_tool_use": { "web_search_requests": 2, "page_reads": "4" },
            "server_side_tool_usage_details": { "x_search_calls": 7 } } } });
    let called = [
        search("browse"),
        search("find_in_page"),
        json!({ "type": "video_search_call" }),
        json!({ "type": "function_call" }),
        json!({ "type": "mcp_call" }),
        json!({ "type": "message" }),
        json!({ "type": "shell_call", "environment": { "type": "local" } }),
        json!({ "type": "shell_call", "environment": { "type": "container_reference", "container_id": "c1" } }),
        json!({ "type": "code_interpreter_call", "container_id": "c1" }),
    ];
    let mut with_tools = response("gpt-5.1", &json!([]));
    with_tools["tool_usage"] = json!({ "video_gen": { "output_tokens": 900, "none": 0 }, "web_search": { "num_requests": 2 } });
    let interaction = json!({ "object": "interaction", "status": "completed", "model": "gemini-2.5-flash",
        "usage": { "total_input_tokens": 1000, "total_output_tokens": 100, "total_tokens": 1100,
            "grounding_tool_count": [{ "type": "enterprise_web_search", "count": 3 }] } });
    let rerank =
        json!({ "id": "r", "results": [], "meta": { "billed_units": { "search_units": 2 } } });
    let rows: Vec<(&str, [&str; 2], Value, String, &str)> = vec![
        (
            "searches have a price whatever the model is, containers one of this model, files none",
            [OPENAI, RESPONSES],
            none.clone(),
            response("gpt-5.1", &json!(searched)).to_string(),
            "COMPLETE | code_sessions=1 file_searches=1 web_searches=2 | 0.053 | file_searches",
        ),
        (
            "a tier has prices of its own",
            [OPENAI, RESPONSES],
            json!({ "service_tier": "batch" }),
            response("gpt-5.1", &json!([search("search")])).to_string(),
            "COMPLETE | web_searches=1 | 0.0065 | ",
        ),
        (
            "a model that searches before it answers",
            [OPENAI, CHAT],
            json!({ "web_search_options": {} }),
            chat("gpt-4o-search-preview", &tokens),
            "COMPLETE | web_searches=1 | 0.0385 | ",
        ),
        (
            "the same with a context of a size",
            [OPENAI, CHAT],
            json!({ "web_search_options": { "search_context_size": "high" } }),
            chat("gpt-4o-search-preview", &tokens),
            "COMPLETE | web_searches:high=1 | 0.0535 | ",
        ),
        (
            "a model without a rate whose searches have one",
            [OPENAI, RESPONSES],
            none.clone(),
            response("gpt-9", &json!([search("search")])).to_string(),
            "COMPLETE | web_searches=1 | no_rate | ",
        ),
        (
            "seconds of audio",
            [OPENAI, TRANSCRIPTIONS],
            json!({ "model": "whisper-1" }),
            json!({ "text": "x", "usage": { "type": "duration", "seconds": 600.5 } }).to_string(),
            "COMPLETE | input_audio_seconds=600.5 | 0.06005 | ",
        ),
        (
            "images of a size and a quality",
            [OPENAI, IMAGES],
            json!({ "model": "dall-e-3", "size": "1024x1792", "quality": "hd" }),
            images.to_string(),
            "COMPLETE | output_images:hd:1024x1792=2 | 0.24 | ",
        ),
        (
            "images of a quality",
            [OPENAI, IMAGES],
            json!({ "model": "dall-e-3", "quality": "hd" }),
            images.to_string(),
            "COMPLETE | output_images:hd=2 | 0.16 | ",
        ),
        (
            "images of a size without a price of its own",
            [OPENAI, IMAGES],
            json!({ "model": "dall-e-3", "size": "1024x1024" }),
            images.to_string(),
            "COMPLETE | output_images:1024x1024=2 | 0.08 | ",
        ),
        (
            "images that are billed by their tokens",
            [OPENAI, IMAGES],
            json!({ "model": "gpt-image-1" }),
            with_tokens.to_string(),
            "COMPLETE | output_images=1 | 0.16665 | ",
        ),
        (
            "images with tokens that are billed by the image",
            [OPENAI, IMAGES],
            json!({ "model": "image-by-number" }),
            with_tokens.to_string(),
            "COMPLETE | output_images=1 | no_rate_for_kind | ",
        ),
        (
            "images of a model without a rate",
            [OPENAI, IMAGES],
            json!({ "model": "dall-e-9" }),
            images.to_string(),
            "COMPLETE | output_images=2 | no_rate | ",
        ),
        (
            "a grounded request at a model that bills these",
            ["gemini", &flash_2],
            none.clone(),
            grounded.to_string(),
            "COMPLETE | web_searches=3 | 0.03555 | ",
        ),
        (
            "queries at a model that bills each",
            ["gemini", &flash_3],
            none.clone(),
            grounded.to_string(),
            "COMPLETE | web_searches=3 | 0.04255 | ",
        ),
        (
            "the fee of a request with a small context",
            [GATEWAY, CHAT],
            none.clone(),
            sonar("sonar-pro", "low"),
            "COMPLETE | requests:low=1 | 0.0105 | ",
        ),
        (
            "the fee of a request that the card does not have",
            [GATEWAY, CHAT],
            none.clone(),
            sonar("sonar-pro", "medium"),
            "COMPLETE | requests:medium=1 | 0.0045 | requests:medium",
        ),
        (
            "each request has a fee, told or not",
            [GATEWAY, CHAT],
            none.clone(),
            chat("by-request", &tokens),
            "COMPLETE |  | 0.0061 | ",
        ),
        (
            "citations and searches",
            [GATEWAY, CHAT],
            none.clone(),
            chat("sonar-deep-research", &deep),
            "COMPLETE | citation_tokens=3856 web_searches=3 | 0.630606 | ",
        ),
        (
            "what a connector did has no price",
            ["mistral", "/v1/conversations"],
            none.clone(),
            conversation.to_string(),
            "COMPLETE | web_searches=1 | 0.0001852 | web_searches",
        ),
        (
            "pages that are annotated",
            ["mistral", "/v1/ocr"], json!({ "model": "mistral-ocr-latest", "document_annotation_format": { "type": "json_schema" } }),
            json!({ "model": "mistral-ocr-latest", "pages": [], "usage_info": { "pages_processed": 29 } }).to_string(),
            "COMPLETE | annotated_pages=29 pages=29 | 0.087 | ",
        ),
        (
            "speech that is billed by its text",
            [OPENAI, "/v1/audio/speech"], json!({ "model": "tts-1", "input": "Gr\u{fc}\u{df}e" }), "ID3".to_owned(),
            "COMPLETE | input_characters=5 | 0.000075 | ",
        ),
        (
            "speech that is billed by tokens, and tells none",
            [OPENAI, "/v1/audio/speech"], json!({ "model": "gpt-4o-mini-tts", "input": "Hello" }), "ID3".to_owned(),
            "COMPLETE | input_characters=5 | no_rate_for_unit | ",
        ),
        (
            "a video",
            [OPENAI, "/v1/videos"], json!({ "model": "sora-2", "seconds": "8", "size": "1280x720" }),
            json!({ "id": "video_1", "object": "video", "model": "sora-2", "status": "queued", "seconds": "8", "size": "1280x720" }).to_string(),
            "COMPLETE | output_video_seconds:1280x720=8 | 2.4 | ",
        ),
        (
            "videos of which only the request tells",
            ["gemini", "/v1beta/models/veo-3:predictLongRunning"],
            json!({ "instances": [], "parameters": { "durationSeconds": 8, "sampleCount": 2 } }),
            json!({ "name": "models/veo-3/operations/1" }).to_string(),
            "COMPLETE | output_video_seconds=16 | 6.4 | ",
        ),
        (
            "images of Imagen",
            ["gemini", "/v1beta/models/imagen-4:predict"], json!({ "parameters": { "sampleCount": 2 } }),
            json!({ "predictions": [{ "mimeType": "image/png", "bytesBase64Encoded": "aGk=" }, { "bytesBase64Encoded": "aGk=" }] }).to_string(),
            "COMPLETE | output_images=2 | 0.08 | ",
        ),
        (
            "searches of a reranker",
            ["cohere", "/v2/rerank"],
            json!({ "model": "rerank-v4.0" }),
            rerank.to_string(),
            "COMPLETE | search_units=2 | 0.004 | ",
        ),
        (
            "images that have no price, and no tokens either",
            [OPENAI, IMAGES],
            json!({ "model": "gpt-image-1" }),
            json!({ "data": [{ "url": "a" }], "usage": without_tokens }).to_string(),
            "COMPLETE | output_images=1 | no_rate_for_unit | ",
        ),
        (
            "images that are all of the tokens",
            [OPENAI, IMAGES],
            json!({ "model": "image-by-number" }),
            json!({ "data": [{ "url": "a" }], "usage": { "input_tokens": 0, "output_tokens": 4160,
                "total_tokens": 4160 } })
            .to_string(),
            "COMPLETE | output_images=1 | 0.02 | ",
        ),
        (
            "the tokens of a text are no image's",
            ["mistral", "/v1/conversations"],
            none.clone(),
            imagined.to_string(),
            "COMPLETE | other:video_maker=3 output_images=2 | 0.0001852 | output_images other:video_maker",
        ),
        (
            "images beside a text that has a price",
            ["cohere", "/v2/embed"],
            json!({ "model": "command-a" }),
            embedded.to_string(),
            "COMPLETE | input_images=1000 | 0.000003 | input_images",
        ),
        (
            "a text beside images that have a price",
            ["cohere", "/v2/embed"],
            json!({ "model": "embed-by-image" }),
            embedded.to_string(),
            "COMPLETE | input_images=1000 | no_rate_for_kind | ",
        ),
        (
            "seconds beside tokens of which there are none",
            [OPENAI, TRANSCRIPTIONS],
            json!({ "model": "whisper-1" }),
            json!({ "text": "x", "duration": 600, "usage": without_tokens }).to_string(),
            "COMPLETE | input_audio_seconds=600 | 0.06 | ",
        ),
        (
            "images of which the response repeats the quality only",
            [OPENAI, IMAGES],
            json!({ "model": "dall-e-3", "size": "1024x1792", "quality": "hd" }),
            json!({ "quality": "hd", "size": null, "data": [{ "url": "a" }] }).to_string(),
            "COMPLETE | output_images:hd:1024x1792=1 | 0.12 | ",
        ),
        (
            "images that are not as they were asked for",
            [OPENAI, IMAGES],
            json!({ "model": "dall-e-3", "size": "1024x1792", "quality": "standard" }),
            json!({ "quality": "hd", "data": [{ "url": "a" }] }).to_string(),
            "COMPLETE | output_images:hd:1024x1792=1 | 0.12 | ",
        ),
        (
            "what a provider lists under a name of its own",
            [GATEWAY, CHAT],
            none.clone(),
            chat("gpt-4o", &by_xai),
            "COMPLETE | other:x_search_calls=7 | 0.0035 | other:x_search_calls",
        ),
        (
            "the same in the last event of a stream",
            [OPENAI, RESPONSES],
            none.clone(),
            format!("data: {streamed}\n\n"),
            "COMPLETE | other:page_reads=4 other:x_search_calls=7 web_searches=2 | 0.023 | other:x_search_calls other:page_reads",
        ),
        (
            "calls of which some are free, and some are of no kind that is known",
            [OPENAI, RESPONSES],
            none.clone(),
            response("gpt-5.1", &json!(called)).to_string(),
            "COMPLETE | code_sessions=1 other:video_search_call=1 web_searches=1 | 0.043 | other:video_search_call",
        ),
        (
            "images that a tool made without telling its tokens",
            [OPENAI, RESPONSES],
            none.clone(),
            response("gpt-5.1", &json!([{ "type": "image_generation_call" }, { "type": "image_generation_call" }]))
                .to_string(),
            "COMPLETE | output_images=2 | 0.003 | output_images",
        ),
        (
            "the usage of a tool that nobody knows",
            [OPENAI, RESPONSES],
            none.clone(),
            with_tools.to_string(),
            "COMPLETE | other:video_gen.output_tokens=900 web_searches=2 | 0.023 | other:video_gen.output_tokens",
        ),
        (
            "a grounding of another kind",
            ["gemini", "/v1beta/interactions"],
            none.clone(),
            interaction.to_string(),
            "COMPLETE | other:enterprise_web_search=3 | 0.00055 | other:enterprise_web_search",
        ),
        (
            "all that Cohere bills for a chat",
            ["cohere", "/v2/chat"],
            json!({ "model": "command-a" }),
            json!({ "id": "c", "finish_reason": "COMPLETE", "usage": { "billed_units": {
                "input_tokens": 5, "output_tokens": 2, "search_units": 1, "classifications": 4 } } })
            .to_string(),
            "COMPLETE | other:classifications=4 search_units=1 | 0.000007 | search_units other:classifications",
        ),
        (
            "a stream that ends behind a search, without usage",
            [OPENAI, RESPONSES],
            json!({ "model": "gpt-5.1" }),
            format!(
                "data: {}\n\n",
                json!({ "type": "response.output_item.done", "item": search("search") })
            ),
            "MISSING | web_searches=1 | unknown_usage | ",
        ),
    ];
    for (name, place, request, answer, expected) in rows {
        assert_eq!(bill(place, &request, &answer), expected, "{name}");
    }
}

#[test]
fn speech_by_the_character_has_its_price_however_incomplete_usage_is_billed() {
    for rule in ["estimate", "bill_observed", "waive"] {
        for (model, expected) in [("tts-1", "0.000075"), ("gpt-4o-mini-tts", "no_rate_for_unit")] {
            let ask = json!({ "model": model, "input": "Hello" });
            let llm = json!({ "incomplete_usage": rule });
            let (_, event) = event(&llm, [OPENAI, "/v1/audio/speech"], &ask, "ID3");
            let told =
                if event["priced"] == true { "total_provider_cost" } else { "unpriced_reason" };
            assert_eq!(
                (&event[told], &event["units"]["input_characters"]),
                (&json!(expected), &json!("5")),
                "{rule} {model}"
            );
        }
    }
}

#[test]
fn a_cost_that_leaves_out_what_another_provider_takes_is_none() {
    for (own_key, upstream, expected) in [
        (json!(true), json!(0.02), "0.0201"),
        (json!(true), json!(null), ""),
        (json!(true), json!({}), ""),
        (json!("true"), json!(null), ""),
        (json!(1), json!(0.02), "0.0201"),
        (json!(false), json!(null), "0.0001"),
        (json!(null), json!(0.02), "0.0001"),
    ] {
        let more = json!({ "cost": 0.0001, "is_byok": own_key,
            "cost_details": { "upstream_inference_cost": upstream } });
        let mut usage = json!({ "prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11 });
        let mut of_response = json!({ "input_tokens": 10, "output_tokens": 1, "total_tokens": 11 });
        for (name, value) in more.as_object().unwrap() {
            usage[name] = value.clone();
            of_response[name] = value.clone();
        }
        let ended = json!({ "type": "response.completed", "response": { "status": "completed",
            "model": "gpt-4o", "usage": of_response } });
        for (path, answer) in
            [(CHAT, chat("gpt-4o", &usage)), (RESPONSES, format!("data: {ended}\n\n"))]
        {
            let (_, event) = event(&json!({}), [GATEWAY, path], &json!({}), &answer);
            let reported = event["reported_cost"].as_str().unwrap_or_default();
            assert_eq!(reported, expected, "{path} {own_key} {upstream}");
        }
    }
}

#[test]
fn units_without_a_price_are_counted() {
    let answer = response("gpt-5.1", &json!([{ "type": "file_search_call" }])).to_string();
    let (mesh, event) = event(&json!({}), [OPENAI, RESPONSES], &json!({}), &answer);
    assert_eq!(event["priced"], true);
    assert_eq!(mesh.envoy.host.counters.get(&Counter::UnitsUnpriced), Some(&1));
}

#[test]
fn the_cost_that_counts_is_the_configured_one() {
    let usage = |cost: &Value| json!({ "prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "cost": cost });
    let (known, unknown) = ("gpt-4o", "x-1");
    for (source, model, cost, expected) in [
        ("computed", known, json!(0.0036), ("0.0035", "1", "0.0036", false)),
        ("computed", known, json!(0.0034), ("0.0035", "1", "0.0034", false)),
        ("computed", known, json!(0.004), ("0.0035", "1", "0.004", true)),
        ("computed", known, json!(0), ("0.0035", "1", "0", true)),
        ("reported", known, json!(0), ("0", "reported", "0", true)),
        ("reported", unknown, json!(0), ("0", "reported", "0", false)),
        ("computed", known, json!(null), ("0.0035", "1", "", false)),
        ("computed", known, json!(-1), ("0.0035", "1", "", false)),
        ("computed", unknown, json!(0.004), ("no_rate", "", "0.004", false)),
        ("reported", known, json!(0.004), ("0.004", "reported", "0.004", true)),
        ("reported", unknown, json!(0.004), ("0.004", "reported", "0.004", false)),
        ("reported", known, json!(null), ("no_reported_cost", "", "", false)),
        ("reported_else_computed", known, json!(0.004), ("0.004", "reported", "0.004", true)),
        ("reported_else_computed", known, json!(null), ("0.0035", "1", "", false)),
        ("reported_else_computed", unknown, json!(null), ("no_rate", "", "", false)),
    ] {
        let answer = chat(model, &usage(&cost));
        let (mesh, event) = event(&json!({ "cost": source }), [GATEWAY, CHAT], &json!({}), &answer);
        let text = |name: &str| event[name].as_str().unwrap_or_default();
        let total = if event["priced"] == true { "total_provider_cost" } else { "unpriced_reason" };
        let is_disputed = mesh.envoy.host.counters.get(&Counter::CostDisputed) == Some(&1);
        let told = (text(total), text("rate_card"), text("reported_cost"), is_disputed);
        assert_eq!(told, expected, "{source} {model} {cost}");
    }
}

#[test]
fn a_share_decides_which_costs_differ() {
    let usage = json!({ "prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "cost": 0.004 });
    for (share, is_disputed) in [("13%", false), ("12%", true), ("0", true)] {
        let llm = json!({ "cost_difference_above": share });
        let (mesh, _) = event(&llm, [GATEWAY, CHAT], &json!({}), &chat("gpt-4o", &usage));
        let counted = mesh.envoy.host.counters.get(&Counter::CostDisputed) == Some(&1);
        assert_eq!(counted, is_disputed, "{share}");
    }
}
