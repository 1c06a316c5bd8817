//! What a request to a model does, by names that the configuration takes: each is one wire format.

use serde::Deserialize;

use crate::protocol::llm::endpoint::Endpoint;
use crate::protocol::llm::generation::Format;
use crate::protocol::llm::provider::Family;
use crate::protocol::llm::provider::{
    anthropic, bedrock, cloudflare, cohere, dashscope, gemini, llama_cpp, mistral, oci, ollama,
    openai, openai_compatible, perplexity, replicate, tgi, vertex, watsonx,
};

macro_rules! operations {
    ($($(#[doc = $doc:literal])+
        $variant:ident = $name:literal, $family:ident, $format:expr, $again:expr;)+
    ) => {
        /// What a request does, and so how its response reports usage.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
        pub enum Operation { $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+ }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in the configuration.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The family that has this operation, where nothing else tells it.
            pub(super) const fn family(self) -> Family {
                match self { $(Self::$variant => Family::$family,)+ }
            }

            const fn format(self) -> &'static Format {
                match self { $(Self::$variant => &$format,)+ }
            }

            /// True if a later request may report the same generation again.
            pub(super) const fn reports_again(self) -> bool {
                match self { $(Self::$variant => $again,)+ }
            }
        }
    };
}

operations! {
    /// OpenAI's Chat Completions.
    Chat = "chat", OpenAiCompatible, openai_compatible::CHAT, false;
    /// OpenAI's legacy Completions.
    Completions = "completions", OpenAiCompatible, openai_compatible::CHAT, false;
    /// OpenAI's Embeddings.
    Embeddings = "embeddings", OpenAiCompatible, openai_compatible::EMBED, false;
    /// A rerank, as Jina, Voyage and vLLM have it.
    Rerank = "rerank", OpenAiCompatible, openai_compatible::EMBED, false;
    /// OpenAI's Responses.
    Responses = "responses", OpenAiCompatible, openai::RESPONSES, true;
    /// Runs of OpenAI's Assistants.
    Runs = "runs", OpenAiCompatible, openai::RUNS, true;
    /// OpenAI's images.
    Images = "images", OpenAiCompatible, openai::IMAGES, false;
    /// OpenAI's transcriptions.
    Transcriptions = "transcriptions", OpenAiCompatible, openai::MEDIA, false;
    /// Anthropic's Messages.
    Messages = "messages", Anthropic, anthropic::MESSAGES, false;
    /// Gemini's generateContent, plain and streamed.
    GenerateContent = "generate_content", Gemini, gemini::GENERATE, false;
    /// Gemini's embedContent.
    EmbedContent = "embed_content", Gemini, gemini::EMBED, false;
    /// Gemini's Interactions.
    Interactions = "interactions", Gemini, gemini::INTERACTION, true;
    /// Embeddings by Vertex AI's predict.
    Predict = "predict", Vertex, vertex::PREDICT, false;
    /// Bedrock's Converse, plain and streamed.
    Converse = "converse", Bedrock, bedrock::CONVERSE, false;
    /// Bedrock's InvokeModel, plain and streamed, whatever the model's vendor is.
    Invoke = "invoke", Bedrock, bedrock::INVOKE, false;
    /// Mistral's conversations.
    Conversations = "conversations", Mistral, mistral::CONVERSATION, false;
    /// Cohere's chat, generate, embed and rerank.
    CohereChat = "cohere_chat", Cohere, cohere::NATIVE, false;
    /// Ollama's chat, generate and embed.
    OllamaChat = "ollama_chat", Ollama, ollama::NATIVE, false;
    /// Perplexity's asynchronous chat.
    AsyncChat = "async_chat", OpenAiCompatible, perplexity::ASYNC_CHAT, true;
    /// Cloudflare's run of a model.
    CloudflareRun = "cloudflare_run", OpenAiCompatible, cloudflare::RUN, false;
    /// DashScope's native generation.
    DashscopeGeneration = "dashscope_generation", OpenAiCompatible, dashscope::GENERATION, false;
    /// llama.cpp's completion.
    LlamaCppCompletion = "llama_cpp_completion", OpenAiCompatible, llama_cpp::COMPLETION, false;
    /// OCI's chat.
    OciChat = "oci_chat", OpenAiCompatible, oci::CHAT, false;
    /// Replicate's predictions.
    ReplicatePrediction = "replicate_prediction", OpenAiCompatible, replicate::PREDICTION, true;
    /// Generation by Text Generation Inference or SGLang, or by any server on SageMaker.
    TgiGenerate = "tgi_generate", OpenAiCompatible, tgi::GENERATE, false;
    /// Chat, generation and embeddings of watsonx.
    WatsonxText = "watsonx_text", OpenAiCompatible, watsonx::TEXT, false;
}

impl Operation {
    /// The endpoint of a request for it, whose path names this model.
    pub(super) fn endpoint(self, model: Option<String>) -> Endpoint {
        Endpoint { format: self.format(), model, reports_again: self.reports_again() }
    }

    /// Whether a request for it may set `stream_options.include_usage`.
    pub(super) const fn takes_stream_options(self) -> bool {
        matches!(self, Self::Chat | Self::Completions)
    }
}
