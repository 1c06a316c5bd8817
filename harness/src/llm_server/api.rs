//! The APIs of the endpoint on the wire: reads what a request asks for, and makes the bytes of the
//! response with its report of tokens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::account::Tokens;

/// The APIs, by the format of their responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// OpenAI Chat Completions.
    Chat,
    /// OpenAI Responses.
    Responses,
    /// Anthropic Messages.
    Messages,
    /// Gemini generateContent.
    Gemini,
    /// Amazon Bedrock Converse.
    Converse,
    /// Ollama's chat.
    Ollama,
}

/// How a response is split into parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One JSON body.
    Plain,
    /// Server-sent events.
    Events,
    /// A JSON array, one member after another.
    Array,
    /// One JSON text a line.
    Lines,
}

/// One request to a model.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) api: Api,
    pub(super) form: Form,
    /// The model that answers.
    pub(super) model: String,
    pub(super) tokens: Tokens,
    /// True if a Chat Completions stream reports its tokens.
    include_usage: bool,
    /// Identifies the response: no two have the same number.
    number: u64,
    /// In seconds since 1970.
    created: u64,
}

/// A part of a response, and the tokens that the endpoint has reported once it is sent.
pub(super) type Part = (String, Option<Tokens>);

/// The words of every response.
const WORDS: [&str; 4] = ["All ", "is ", "well", "."];

impl Ask {
    /// Reads a request; `None` if the path is not one of an API, or the body is not a JSON object.
    pub(super) fn read(path: &str, query: &str, headers: &HeaderMap, body: &[u8]) -> Option<Ask> {
        let request: Value = serde_json::from_slice(body).ok()?;
        request.as_object()?;
        let (api, named) = api_of(path)?;
        let streamed = match api {
            Api::Gemini => path.ends_with(":streamGenerateContent"),
            Api::Ollama => request["stream"] != false,
            Api::Converse => false,
            Api::Chat | Api::Responses | Api::Messages => request["stream"] == true,
        };
        let events = query.split('&').any(|pair| pair == "alt=sse");
        let form = match (streamed, api) {
            (false, _) => Form::Plain,
            (true, Api::Gemini) if !events => Form::Array,
            (true, Api::Ollama) => Form::Lines,
            (true, _) => Form::Events,
        };
        let model = named.or_else(|| request["model"].as_str().map(str::to_owned))?;
        let tokens = api.reported(tokens(headers, &request));
        let include_usage = request["stream_options"]["include_usage"] == true;
        let model = answering(&model).to_owned();
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Some(Ask { api, form, model, tokens, include_usage, number: next_number(), created })
    }

    /// The response in the parts in which the endpoint sends it; a plain response has one part.
    pub(super) fn answer(&self) -> Vec<Part> {
        let whole = self.tokens;
        let parts: Vec<(Option<&str>, Value, Option<Tokens>)> = match (self.api, self.form) {
            (_, Form::Plain) => return vec![(self.plain().to_string(), Some(whole))],
            (Api::Chat, _) => self.chat_parts(),
            (Api::Responses, _) => self.response_parts(),
            (Api::Messages, _) => self.message_parts(),
            (Api::Gemini | Api::Converse, _) => self.gemini_parts(),
            (Api::Ollama, _) => self.ollama_parts(),
        };
        let last = parts.len() - 1;
        let mut written: Vec<Part> = parts
            .into_iter()
            .enumerate()
            .map(|(at, (name, part, reported))| {
                let text = match (self.form, name) {
                    (Form::Events, Some(name)) => format!("event: {name}\ndata: {part}\n\n"),
                    (Form::Events, None) => format!("data: {part}\n\n"),
                    (Form::Array, _) if at == 0 => format!("[{part}"),
                    (Form::Array, _) if at == last => format!(",\r\n{part}]"),
                    (Form::Array, _) => format!(",\r\n{part}"),
                    (Form::Lines | Form::Plain, _) => format!("{part}\n"),
                };
                (text, reported)
            })
            .collect();
        if self.api == Api::Chat {
            written.push(("data: [DONE]\n\n".to_owned(), None));
        }
        written
    }

    pub(super) fn content_type(&self) -> &'static str {
        match self.form {
            Form::Plain | Form::Array => "application/json",
            Form::Events => "text/event-stream",
            Form::Lines => "application/x-ndjson",
        }
    }

    fn plain(&self) -> Value {
        let (model, text, id) = (&self.model, WORDS.concat(), self.number);
        match self.api {
            Api::Chat => json!({
                "id": format!("chatcmpl-{id}"), "object": "chat.completion", "created": self.created,
                "model": model, "choices": [{"index": 0, "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text}}],
                "usage": self.chat_usage(), "service_tier": "default",
            }),
            Api::Responses => self.response("completed"),
            Api::Messages => json!({
                "id": format!("msg_{id}"), "type": "message", "role": "assistant", "model": model,
                "content": [{"type": "text", "text": text}], "stop_reason": "end_turn",
                "stop_sequence": null, "usage": self.message_usage(self.tokens.output),
            }),
            Api::Gemini => self.gemini_part(&text, self.tokens.output, true),
            Api::Converse => {
                let Tokens { input, output, cache_read, cache_write, .. } = self.tokens;
                json!({
                    "output": {"message": {"role": "assistant", "content": [{"text": text}]}},
                    "stopReason": "end_turn", "metrics": {"latencyMs": 12},
                    "usage": {"inputTokens": input - cache_read - cache_write, "outputTokens": output,
                        "totalTokens": input + output, "cacheReadInputTokens": cache_read,
                        "cacheWriteInputTokens": cache_write},
                })
            }
            Api::Ollama => self.ollama_part(&text, true),
        }
    }

    fn chat_usage(&self) -> Value {
        let Tokens { input, output, reasoning, cache_read, .. } = self.tokens;
        json!({
            "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": {"cached_tokens": cache_read, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": reasoning, "audio_tokens": 0,
                "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0},
        })
    }

    fn chat_parts(&self) -> Vec<(Option<&'static str>, Value, Option<Tokens>)> {
        let chunk = |choices: Value, usage: Option<Value>| {
            let mut chunk = json!({
                "id": format!("chatcmpl-{}", self.number), "object": "chat.completion.chunk",
                "created": self.created, "model": self.model, "choices": choices,
            });
            if self.include_usage {
                chunk["usage"] = usage.unwrap_or_default();
            }
            chunk
        };
        let delta = |delta: Value, reason: Option<&str>| {
            let choices = json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
            (None, chunk(choices, None), None)
        };
        let mut parts = vec![delta(json!({"role": "assistant", "content": ""}), None)];
        parts.extend(WORDS.map(|word| delta(json!({"content": word}), None)));
        parts.push(delta(json!({}), Some("stop")));
        if self.include_usage {
            parts.push((None, chunk(json!([]), Some(self.chat_usage())), Some(self.tokens)));
        }
        parts
    }

    fn response(&self, status: &str) -> Value {
        let Tokens { input, output, reasoning, cache_read, .. } = self.tokens;
        let done = status == "completed";
        let content = json!([{"type": "output_text", "text": WORDS.concat(), "annotations": []}]);
        let message = json!({"type": "message", "id": "msg_1", "status": "completed",
            "role": "assistant", "content": content});
        let usage = json!({
            "input_tokens": input, "input_tokens_details": {"cached_tokens": cache_read},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": reasoning},
            "total_tokens": input + output,
        });
        json!({
            "id": format!("resp_{}", self.number), "object": "response", "created_at": self.created,
            "status": status, "model": self.model, "service_tier": "default",
            "output": if done { json!([message]) } else { json!([]) },
            "usage": if done { usage } else { Value::Null },
        })
    }

    fn response_parts(&self) -> Vec<(Option<&'static str>, Value, Option<Tokens>)> {
        let event = |number: usize, name: &'static str, mut data: Value, reported| {
            data["type"] = json!(name);
            data["sequence_number"] = json!(number);
            (Some(name), data, reported)
        };
        let created = json!({"response": self.response("in_progress")});
        let mut parts = vec![event(0, "response.created", created, None)];
        parts.extend((1..).zip(WORDS).map(|(number, word)| {
            let delta =
                json!({"item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": word});
            event(number, "response.output_text.delta", delta, None)
        }));
        let completed = json!({"response": self.response("completed")});
        parts.push(event(parts.len(), "response.completed", completed, Some(self.tokens)));
        parts
    }

    fn message_usage(&self, output: u64) -> Value {
        let Tokens { input, cache_read, cache_write, .. } = self.tokens;
        json!({
            "input_tokens": input - cache_read - cache_write,
            "cache_creation_input_tokens": cache_write, "cache_read_input_tokens": cache_read,
            "cache_creation": {"ephemeral_5m_input_tokens": cache_write, "ephemeral_1h_input_tokens": 0},
            "output_tokens": output, "service_tier": "standard",
        })
    }

    /// Reports the input at the start, with one token of output, and all of the output at the end.
    fn message_parts(&self) -> Vec<(Option<&'static str>, Value, Option<Tokens>)> {
        let first = Tokens { output: self.tokens.output.min(1), ..self.tokens };
        let event = |name: &'static str, mut data: Value, reported| {
            data["type"] = json!(name);
            (Some(name), data, reported)
        };
        let message = json!({
            "id": format!("msg_{}", self.number), "type": "message", "role": "assistant",
            "model": self.model, "content": [], "stop_reason": null, "stop_sequence": null, "usage": self.message_usage(first.output),
        });
        let block = json!({"index": 0, "content_block": {"type": "text", "text": ""}});
        let mut parts = vec![
            event("message_start", json!({"message": message}), Some(first)),
            event("content_block_start", block, None),
            event("ping", json!({}), None),
        ];
        parts.extend(WORDS.map(|word| {
            let delta = json!({"index": 0, "delta": {"type": "text_delta", "text": word}});
            event("content_block_delta", delta, None)
        }));
        let end = json!({"delta": {"stop_reason": "end_turn", "stop_sequence": null},
            "usage": {"output_tokens": self.tokens.output}});
        parts.extend([
            event("content_block_stop", json!({"index": 0}), None),
            event("message_delta", end, Some(self.tokens)),
            event("message_stop", json!({}), None),
        ]);
        parts
    }

    fn gemini_part(&self, text: &str, output: u64, last: bool) -> Value {
        let Tokens { input, cache_read, .. } = self.tokens;
        let reasoning = self.tokens.reasoning.min(output);
        let mut candidate =
            json!({"index": 0, "content": {"role": "model", "parts": [{"text": text}]}});
        if last {
            candidate["finishReason"] = json!("STOP");
        }
        json!({
            "candidates": [candidate], "modelVersion": self.model,
            "responseId": format!("r-{}", self.number),
            "usageMetadata": {"promptTokenCount": input, "cachedContentTokenCount": cache_read,
                "candidatesTokenCount": output - reasoning, "thoughtsTokenCount": reasoning,
                "totalTokenCount": input + output},
        })
    }

    /// Each part reports the tokens generated so far.
    fn gemini_parts(&self) -> Vec<(Option<&'static str>, Value, Option<Tokens>)> {
        let count = WORDS.len() as u64;
        let part = |(at, word): (u64, &str)| {
            let output = self.tokens.output * at / count;
            let reasoning = self.tokens.reasoning.min(output);
            let reported = Tokens { output, reasoning, ..self.tokens };
            (None, self.gemini_part(word, output, at == count), Some(reported))
        };
        (1..).zip(WORDS).map(part).collect()
    }

    fn ollama_part(&self, text: &str, done: bool) -> Value {
        let mut part = json!({
            "model": self.model, "created_at": "2026-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": text}, "done": done,
        });
        if done {
            part["done_reason"] = json!("stop");
            part["total_duration"] = json!(12_000_000);
            part["prompt_eval_count"] = json!(self.tokens.input);
            part["eval_count"] = json!(self.tokens.output);
        }
        part
    }

    fn ollama_parts(&self) -> Vec<(Option<&'static str>, Value, Option<Tokens>)> {
        let mut parts: Vec<_> =
            WORDS.map(|word| (None, self.ollama_part(word, false), None)).into();
        parts.push((None, self.ollama_part("", true), Some(self.tokens)));
        parts
    }
}

impl Api {
    /// The provider's name in the account.
    pub(super) fn provider(self) -> &'static str {
        match self {
            Api::Chat | Api::Responses => "openai",
            Api::Messages => "anthropic",
            Api::Gemini => "gemini",
            Api::Converse => "bedrock",
            Api::Ollama => "ollama",
        }
    }

    /// Keeps the counts for which this API has a member.
    fn reported(self, tokens: Tokens) -> Tokens {
        let reasoning = match self {
            Api::Chat | Api::Responses | Api::Gemini => tokens.reasoning,
            Api::Messages | Api::Converse | Api::Ollama => 0,
        };
        let cache_read = if self == Api::Ollama { 0 } else { tokens.cache_read };
        let cache_write = match self {
            Api::Messages | Api::Converse => tokens.cache_write,
            Api::Chat | Api::Responses | Api::Gemini | Api::Ollama => 0,
        };
        Tokens { reasoning, cache_read, cache_write, ..tokens }
    }
}

fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// The API of a path, and the model if the path names it.
fn api_of(path: &str) -> Option<(Api, Option<String>)> {
    let api = match path {
        "/v1/chat/completions" => Api::Chat,
        "/v1/responses" => Api::Responses,
        "/v1/messages" => Api::Messages,
        "/api/chat" => Api::Ollama,
        path => {
            if let Some(model) = path.strip_prefix("/model/") {
                let model = model.strip_suffix("/converse")?.replace("%3A", ":");
                return Some((Api::Converse, Some(model)));
            }
            let (model, method) = path.strip_prefix("/v1beta/models/")?.split_once(':')?;
            let known = ["generateContent", "streamGenerateContent"].contains(&method);
            return known.then(|| (Api::Gemini, Some(model.to_owned())));
        }
    };
    Some((api, None))
}

/// Maps a model name without a date to the dated model that answers.
fn answering(model: &str) -> &str {
    match model {
        "gpt-4o" => "gpt-4o-2024-08-06",
        "gpt-4o-mini" => "gpt-4o-mini-2024-07-18",
        "claude-sonnet-4-0" => "claude-sonnet-4-20250514",
        model => model,
    }
}

/// The tokens that the header `x-tokens: in=9,out=8,cached=3,written=2,reasoning=1` asks for;
/// without it, tokens by the length of the request.
fn tokens(headers: &HeaderMap, request: &Value) -> Tokens {
    let prompt = ["messages", "input", "contents"].map(|member| &request[member]);
    let length = prompt.iter().map(|part| part.to_string().len() as u64).sum::<u64>();
    let mut tokens = Tokens {
        input: length / 4 + 1,
        output: length % 64 + 16,
        reasoning: length % 16,
        cache_read: length / 16,
        cache_write: 0,
    };
    let asked = headers.get("x-tokens").and_then(|value| value.to_str().ok());
    if let Some(asked) = asked {
        tokens = Tokens::default();
        for (name, count) in asked.split(',').filter_map(|pair| pair.trim().split_once('=')) {
            // Small enough that no sum overflows.
            let count = count.parse::<u32>().unwrap_or(0).into();
            match name {
                "in" => tokens.input = count,
                "out" => tokens.output = count,
                "cached" => tokens.cache_read = count,
                "written" => tokens.cache_write = count,
                "reasoning" => tokens.reasoning = count,
                _ => {}
            }
        }
    }
    tokens.cache_read = tokens.cache_read.min(tokens.input);
    tokens.cache_write = tokens.cache_write.min(tokens.input - tokens.cache_read);
    tokens.reasoning = tokens.reasoning.min(tokens.output);
    tokens
}
