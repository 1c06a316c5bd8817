//! Requests that are forms, and generations without tokens: which model they ask for, and what the
//! event says.

use agent_meter_core::exchange::kind::StreamEnd;
use agent_meter_core::protocol::llm::{LlmRequestBody, Requested};
use agent_meter_core::protocol::request_body::BodyHead;
use agent_meter_core::wire::http::Headers;
use serde_json::json;

use crate::generations::{JSON, Mesh, Worker};
use crate::support::{cuts, rate, route, test};

const FORM: &str = "multipart/form-data; boundary=\"x y\"";

fn form(parts: &[(&str, &str)]) -> String {
    let part = |(name, value): &(&str, &str)| {
        format!("--x y\r\nContent-Disposition: form-data; name={name}\r\n\r\n{value}\r\n")
    };
    parts.iter().map(part).collect::<String>() + "--x y--\r\n"
}

fn requested(media_type: &str, is_speech: bool, chunks: &[&[u8]]) -> Requested {
    let headers = [("content-type".to_owned(), media_type.as_bytes().to_vec())];
    let asks = route(None, "POST", "gw", "/v1/images/edits").expect("a route").format.asks;
    let mut reader = LlmRequestBody::new(BodyHead::read(Headers(&headers)), asks, is_speech);
    chunks.iter().for_each(|chunk| reader.feed(chunk));
    reader.requested()
}

#[test]
fn a_form_says_what_a_json_body_says() {
    let file = ("\"file\"; filename=\"a.wav\"", "RIFF\r\n--x\r\nmodel\r\n\r\ngpt\0\u{1F600}");
    for (parts, expected) in [
        (
            &[("model", "gpt-image-1"), ("n", "2"), ("size", "1024x1024"), ("quality", "high")][..],
            json!(["gpt-image-1", false, null, null, 2, "1024x1024", "high"]),
        ),
        (
            &[
                file,
                ("\"model\"", "gpt-4o-transcribe"),
                ("stream", "true"),
                ("response_format", "json"),
            ],
            json!(["gpt-4o-transcribe", true, null, "json", null, null, null]),
        ),
        (
            &[("model", "m"), ("service_tier", "flex"), ("n", "many"), ("stream", "True")],
            json!(["m", false, "flex", null, null, null, null]),
        ),
        (&[("model", "m"), ("model", "m")], json!(["m", false, null, null, null, null, null])),
        // One server takes the first, another the last.
        (
            &[("model", "m"), ("model", "cheap"), ("model", "m"), ("n", "1")],
            json!([null, false, null, null, 1, null, null]),
        ),
        (&[("model", "m"), ("Model", "m")], json!([null, false, null, null, null, null, null])),
        (&[("\"model\"; filename=a", "m")], json!([null, false, null, null, null, null, null])),
        (&[("prompt", "model=m")], json!([null, false, null, null, null, null, null])),
    ] {
        let body = form(parts);
        for cut in cuts(body.as_bytes()) {
            let told = requested(FORM, false, &cut);
            let tier = told.service_tier.map(|tier| serde_json::to_value(tier).unwrap());
            let [size, quality] = [told.look.size, told.look.quality]
                .map(|word| Some(word).filter(|w| !w.is_empty()));
            let told = json!([
                told.model,
                told.is_streamed,
                tier,
                told.response_format,
                told.number,
                size,
                quality
            ]);
            assert_eq!(told, expected, "{body}");
        }
    }
}

#[test]
fn the_characters_of_a_text_to_speak_are_counted() {
    let long = "\u{1F600}".repeat(300);
    for (input, characters) in [
        (json!("Hi."), 3),
        (json!("\u{e4}\u{20ac}\u{1F600}\n"), 4),
        (json!(long), 300),
        (json!(["no", "text"]), 0),
        (json!(7), 0),
    ] {
        let plain = json!({ "model": "tts-1", "input": input, "voice": "alloy" }).to_string();
        let escaped: String = plain
            .encode_utf16()
            .map(|unit| match u8::try_from(unit) {
                Ok(byte) if byte.is_ascii() => char::from(byte).to_string(),
                _ => format!("\\u{unit:04x}"),
            })
            .collect();
        for body in [plain, escaped] {
            for cut in cuts(body.as_bytes()) {
                let told = requested(JSON, true, &cut);
                assert_eq!(
                    (told.model.as_deref(), told.input_characters),
                    (Some("tts-1"), characters)
                );
            }
        }
    }
}

fn config() -> String {
    let rate = |model, rates| rate("openai", model, rates);
    json!({
        "rate_cards": [{ "version": "1", "rates": [
            rate("gpt-4o-transcribe", json!({ "input": "2.5", "input_audio": "6", "output": "10" })),
            rate("gpt-4o-mini-tts", json!({ "input": "0.6", "output": "1", "output_audio": "12" })),
            rate("tts-1", json!({ "input": "15", "output": "0" })),
            rate("sora-2", json!({ "input": "1", "output": "1" })),
        ]}],
        "products": [{ "id": "openai", "type": "AI_AGENT",
            "match": { "host": "api.openai.com", "path_prefix": "/v1" },
            "llm": { "provider": "openai", "incomplete_usage": "bill_observed" } }],
    })
    .to_string()
}

#[test]
fn what_makes_no_tokens_is_a_generation_of_its_model() {
    let transcript = json!({ "text": "Hi.", "usage": { "type": "tokens", "input_tokens": 100,
        "input_token_details": { "text_tokens": 10, "audio_tokens": 90 }, "output_tokens": 50, "total_tokens": 150 } });
    let spoken = "data: {\"type\":\"speech.audio.delta\",\"audio\":\"AAAA\"}\n\n\
        data: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":14,\"output_tokens\":101,\"total_tokens\":115}}\n\n";
    let speech =
        |model: &str| json!({ "model": model, "input": "Hi.", "voice": "alloy" }).to_string();
    let file = ("file; filename=a.wav", "RIFF");
    let rows = [
        (
            "a transcription",
            "/v1/audio/transcriptions",
            (FORM, form(&[file, ("model", "gpt-4o-transcribe")])),
            (JSON, transcript.to_string()),
            "gpt-4o-transcribe COMPLETE 0.001065",
        ),
        (
            "a transcription of a model that is not certain",
            "/v1/audio/transcriptions",
            (FORM, form(&[("model", "tts-1"), file, ("model", "gpt-4o-transcribe")])),
            (JSON, transcript.to_string()),
            "__unknown__ COMPLETE no_rate",
        ),
        (
            "speech that tells its usage",
            "/v1/audio/speech",
            (JSON, speech("gpt-4o-mini-tts")),
            ("text/event-stream", spoken.to_owned()),
            "gpt-4o-mini-tts COMPLETE 0.0012204",
        ),
        (
            "speech, which begins like JSON",
            "/v1/audio/speech",
            (JSON, speech("tts-1")),
            ("audio/mpeg", "{ID3".repeat(1000)),
            "tts-1 COMPLETE no_rate_for_unit",
        ),
        (
            "speech in no known form",
            "/v1/audio/speech",
            (JSON, speech("tts-1")),
            ("application/octet-stream", "\0\0\0\u{10}".repeat(1000)),
            "tts-1 COMPLETE no_rate_for_unit",
        ),
        (
            "a video",
            "/v1/videos",
            (FORM, form(&[("prompt", "A cat."), ("model", "sora-2"), ("seconds", "8")])),
            (JSON, json!({ "id": "video_1", "object": "video", "status": "queued" }).to_string()),
            "sora-2 MISSING unknown_usage",
        ),
        (
            "pages",
            "/v1/ocr",
            (JSON, json!({ "model": "mistral-ocr-latest" }).to_string()),
            (
                JSON,
                json!({ "model": "mistral-ocr-2505", "usage_info": { "pages_processed": 3 } })
                    .to_string(),
            ),
            "mistral-ocr-2505 COMPLETE no_rate",
        ),
    ];
    for (name, path, (asked_as, asked), (told_as, told), expected) in rows {
        for estimate in ["bill_observed", "estimate"] {
            let config = config().replace("bill_observed", estimate);
            let mut mesh = Mesh::new(&config);
            let ask = [
                (":method", "POST"),
                (":path", path),
                (":authority", "api.openai.com"),
                ("content-type", asked_as),
            ];
            let stream = mesh.send(Worker::First, &ask, &asked);
            let head = [(":status", "200"), ("content-type", told_as)];
            mesh.answer(Worker::First, stream, &head, &told, StreamEnd::Complete);
            let (tokens, _) = mesh.events();
            assert_eq!(tokens.len(), 1, "{name}");
            let event = &tokens[0];
            let text = |member: &str| event[member].as_str().unwrap_or("null").to_owned();
            let cost = if event["total_provider_cost"].is_null() {
                text("unpriced_reason")
            } else {
                text("total_provider_cost")
            };
            let found = format!("{} {} {cost}", text("model"), text("completeness"));
            // The text to speak is tokens to some models; nothing else is estimated.
            if estimate == "estimate" && path.ends_with("speech") && told_as != "text/event-stream"
            {
                assert!(event["tokens"]["output"].is_null(), "{name}: {event}");
                assert!(event["tokens"]["input"].as_u64() < Some(20), "{name}: {event}");
            } else {
                assert_eq!(found, expected, "{name}: {event}");
            }
        }
    }
}
