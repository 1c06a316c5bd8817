//! How a provider's stream reports that it ends with an error, in the forms on which the providers'
//! own clients raise one. Read from the providers' references and clients, 2026-11.

use serde_json::{Value, json};

use crate::wire::amazon_event_stream;
use crate::wire::boundary::Unit;

/// The form of an error in the middle of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// Chat Completions and compatible APIs: a chunk with `error`, and `[DONE]`.
    OpenAi,
    /// Responses, images, transcriptions and Assistants: an event `error`.
    OpenAiEvent,
    /// Messages: an event `error`.
    Anthropic,
    /// A `google.rpc.Status` under `error`.
    Google,
    /// Gemini's interactions: an event of type `error`.
    GoogleInteraction,
    /// Mistral's conversations: an event of type `conversation.response.error`.
    MistralConversation,
    /// Chat: `message-end` with a finish reason that reports the error.
    Cohere,
    /// A line with `error`.
    Ollama,
    /// An exception that reports throttling.
    Bedrock,
}

impl StreamError {
    /// The last events, lines or messages of a stream. Programs act on `code`.
    pub fn bytes(self, unit: Unit, code: &str, message: &str) -> Vec<u8> {
        let (event, data, behind) = self.parts(code, message);
        match unit {
            Unit::Line => format!("{data}\n").into_bytes(),
            Unit::Event if event.is_empty() => format!("data: {data}\n\n{behind}").into_bytes(),
            Unit::Event => format!("event: {event}\ndata: {data}\n\n{behind}").into_bytes(),
            Unit::Message => {
                let headers = [
                    (":message-type", "exception"),
                    (":exception-type", event),
                    (":content-type", "application/json"),
                ];
                amazon_event_stream::message(&headers, data.to_string().as_bytes())
            }
        }
    }

    /// The event's type, its data, and what follows it.
    fn parts(self, code: &str, message: &str) -> (&'static str, Value, &'static str) {
        match self {
            Self::OpenAi => {
                ("", json!({ "error": openai_error(code, message) }), "data: [DONE]\n\n")
            }
            Self::OpenAiEvent => {
                // Both forms are in use: the reference has the flat one, clients raise on the
                // other.
                let data = json!({
                    "type": "error", "code": code, "message": message, "param": null,
                    "error": openai_error(code, message),
                });
                ("error", data, "")
            }
            Self::Anthropic => {
                let error = json!({ "type": "rate_limit_error", "message": message });
                ("error", json!({ "type": "error", "error": error }), "")
            }
            Self::Google => {
                let reason = json!({
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code,
                });
                let error = json!({
                    "code": 429, "message": message, "status": "RESOURCE_EXHAUSTED",
                    "details": [reason],
                });
                ("", json!({ "error": error }), "")
            }
            Self::GoogleInteraction => {
                let error = json!({ "code": code, "message": message });
                ("error", json!({ "event_type": "error", "error": error }), "")
            }
            Self::MistralConversation => {
                const TYPE: &str = "conversation.response.error";
                (TYPE, json!({ "type": TYPE, "message": message, "code": 429 }), "")
            }
            Self::Cohere => {
                let delta = json!({ "finish_reason": "ERROR", "error": message });
                ("message-end", json!({ "type": "message-end", "delta": delta }), "")
            }
            Self::Ollama => ("", json!({ "error": message }), ""),
            Self::Bedrock => ("throttlingException", json!({ "message": message }), ""),
        }
    }
}

fn openai_error(code: &str, message: &str) -> Value {
    json!({ "message": message, "type": "rate_limit_error", "param": null, "code": code })
}
