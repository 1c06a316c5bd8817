//! Who sells models, by name: the hosts of each, how it is spoken to, and its names in published
//! price lists (their documents, read 2026-11). Data only: another seller is another row. The table
//! in `filter/README.md` is this one; a test compares them.
//!
//! The families of formats have names and hosts of their own, in their files.

use crate::base::pattern::{is_fit, is_pattern};
use crate::domain::seller::Seller;
use crate::protocol::llm::endpoint::{PriceLists, is_at};
use crate::protocol::llm::provider::Family;
use crate::protocol::llm::provider::operation::Operation;

/// A seller that is known by name.
#[derive(Debug)]
pub struct Preset {
    /// Its name in the configuration, events and rate cards.
    pub name: &'static str,
    /// Its domains, each with its subdomains; or patterns of hosts, in which `*` stands for any
    /// text. None for what everyone runs on hosts of their own.
    pub hosts: &'static [&'static str],
    /// How it is spoken to.
    pub family: Family,
    /// How paths end that only it has, and what a request to them does.
    pub paths: &'static [(&'static str, Operation)],
    /// Its names in published price lists.
    pub price_lists: PriceLists,
}

impl Preset {
    /// The preset of this name.
    pub(super) fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The preset with this host: its name in lower case, without a dot at its end.
    pub(super) fn at(host: &str) -> Option<&'static Self> {
        let is_it =
            |name: &&str| if is_pattern(name) { is_fit(name, host) } else { is_at(host, name) };
        PRESETS.iter().find(|preset| preset.hosts.iter().any(is_it))
    }

    /// As a seller.
    pub(super) fn seller(&self) -> Seller {
        Seller::known(self.name)
    }
}

/// A row without paths of its own.
const fn row(
    name: &'static str,
    hosts: &'static [&'static str],
    price_lists: PriceLists,
) -> Preset {
    Preset { name, hosts, family: Family::OpenAiCompatible, paths: &[], price_lists }
}

/// Names in LiteLLM's list (the first is the prefix of models there too, with a slash), in the list
/// of models.dev, and in that of genai-prices.
const fn lists(
    litellm: &'static [&'static str],
    litellm_prefix: &'static str,
    models_dev: &'static [&'static str],
    genai_prices: &'static [&'static str],
) -> PriceLists {
    PriceLists { litellm, litellm_prefix, models_dev, genai_prices }
}

/// Every seller that is known by name, besides those that families are of.
pub const PRESETS: &[Preset] = &[
    row("groq", &["api.groq.com"], lists(&["groq"], "groq/", &["groq"], &["groq"])),
    row(
        "together",
        &["api.together.xyz", "api.together.ai"],
        lists(&["together_ai"], "together_ai/", &["togetherai"], &["together"]),
    ),
    row(
        "fireworks",
        &["api.fireworks.ai"],
        lists(
            &["fireworks_ai", "fireworks_ai-embedding-models"],
            "fireworks_ai/",
            &["fireworks-ai"],
            &["fireworks"],
        ),
    ),
    row(
        "openrouter",
        &["openrouter.ai"],
        lists(&["openrouter"], "openrouter/", &["openrouter"], &["openrouter"]),
    ),
    row(
        "deepinfra",
        &["api.deepinfra.com"],
        lists(&["deepinfra"], "deepinfra/", &["deepinfra"], &["deepinfra"]),
    ),
    row("xai", &["api.x.ai"], lists(&["xai"], "xai/", &["xai"], &["x-ai"])),
    Preset {
        paths: &[
            ("async/chat/completions", Operation::AsyncChat),
            ("async/chat/completions/*", Operation::AsyncChat),
        ],
        ..row(
            "perplexity",
            &["api.perplexity.ai"],
            lists(&["perplexity"], "perplexity/", &["perplexity"], &["perplexity"]),
        )
    },
    row(
        "moonshot",
        &["api.moonshot.ai", "api.moonshot.cn"],
        lists(&["moonshot"], "moonshot/", &["moonshotai"], &["moonshotai"]),
    ),
    row("zai", &["api.z.ai"], lists(&["zai"], "zai/", &["zai"], &["zai"])),
    row(
        "bigmodel",
        &["open.bigmodel.cn"],
        lists(&["bigmodel"], "bigmodel/", &["zhipuai"], &["zhipuai"]),
    ),
    Preset {
        paths: &[
            ("aigc/text-generation/generation", Operation::DashscopeGeneration),
            ("aigc/multimodal-generation/generation", Operation::DashscopeGeneration),
            ("embeddings/text-embedding/text-embedding", Operation::DashscopeGeneration),
            (
                "embeddings/multimodal-embedding/multimodal-embedding",
                Operation::DashscopeGeneration,
            ),
        ],
        ..row(
            "dashscope",
            &["dashscope.aliyuncs.com", "dashscope-*.aliyuncs.com"],
            lists(&["dashscope"], "dashscope/", &["alibaba"], &[]),
        )
    },
    row(
        "cerebras",
        &["api.cerebras.ai"],
        lists(&["cerebras"], "cerebras/", &["cerebras"], &["cerebras"]),
    ),
    row(
        "sambanova",
        &["api.sambanova.ai"],
        lists(&["sambanova"], "sambanova/", &["sambanova"], &["sambanova"]),
    ),
    row(
        "nebius",
        &["api.studio.nebius.com", "api.studio.nebius.ai", "tokenfactory.nebius.com"],
        lists(&["nebius"], "nebius/", &["nebius"], &["nebius"]),
    ),
    row("novita", &["api.novita.ai"], lists(&["novita"], "novita/", &["novita-ai"], &["novita"])),
    Preset {
        paths: &[
            ("text/chatcompletion_v2", Operation::Chat),
            ("text/chatcompletion_pro", Operation::Chat),
        ],
        ..row(
            "minimax",
            &["api.minimax.io", "api.minimaxi.com", "api.minimax.chat", "api.minimaxi.chat"],
            lists(&["minimax"], "minimax/", &["minimax"], &["minimax"]),
        )
    },
    Preset {
        paths: &[("serving-endpoints/{model}/invocations", Operation::Chat)],
        ..row(
            "databricks",
            &["cloud.databricks.com", "azuredatabricks.net", "gcp.databricks.com"],
            lists(&["databricks"], "databricks/", &["databricks"], &["databricks"]),
        )
    },
    Preset {
        paths: &[
            ("cortex/inference:complete", Operation::Chat),
            ("cortex/inference:embed", Operation::Embeddings),
        ],
        ..row(
            "snowflake",
            &["snowflakecomputing.com"],
            lists(&["snowflake"], "snowflake/", &["snowflake-cortex"], &[]),
        )
    },
    Preset {
        paths: &[("endpoints/{model}/invocations", Operation::TgiGenerate)],
        ..row(
            "sagemaker",
            &["runtime.sagemaker.*.amazonaws.com", "runtime-fips.sagemaker.*.amazonaws.com"],
            lists(&["sagemaker"], "sagemaker/", &[], &[]),
        )
    },
    Preset {
        paths: &[
            ("ml/v1/text/chat", Operation::WatsonxText),
            ("ml/v1/text/chat_stream", Operation::WatsonxText),
            ("ml/v1/text/generation", Operation::WatsonxText),
            ("ml/v1/text/generation_stream", Operation::WatsonxText),
            ("ml/v1/text/embeddings", Operation::WatsonxText),
            ("ml/v1/text/rerank", Operation::WatsonxText),
            ("ml/v1/deployments/{model}/text/chat", Operation::WatsonxText),
            ("ml/v1/deployments/{model}/text/chat_stream", Operation::WatsonxText),
            ("ml/v1/deployments/{model}/text/generation", Operation::WatsonxText),
            ("ml/v1/deployments/{model}/text/generation_stream", Operation::WatsonxText),
        ],
        ..row("watsonx", &["ml.cloud.ibm.com"], lists(&["watsonx"], "watsonx/", &[], &[]))
    },
    Preset {
        paths: &[("ai/run/{model}", Operation::CloudflareRun)],
        ..row(
            "cloudflare",
            &["api.cloudflare.com"],
            lists(&["cloudflare"], "cloudflare/", &["cloudflare-workers-ai"], &["cloudflare"]),
        )
    },
    Preset {
        paths: &[("actions/chat", Operation::OciChat), ("actions/embedText", Operation::OciChat)],
        ..row(
            "oci",
            &["inference.generativeai.*.oci.oraclecloud.com"],
            lists(&["oci"], "oci/", &[], &[]),
        )
    },
    Preset {
        paths: &[
            ("models/{model}/predictions", Operation::ReplicatePrediction),
            ("deployments/{model}/predictions", Operation::ReplicatePrediction),
            ("predictions", Operation::ReplicatePrediction),
            ("predictions/*", Operation::ReplicatePrediction),
            ("predictions/*/cancel", Operation::ReplicatePrediction),
        ],
        ..row("replicate", &["api.replicate.com"], lists(&["replicate"], "replicate/", &[], &[]))
    },
    Preset {
        paths: &[("generate", Operation::TgiGenerate), ("generate_stream", Operation::TgiGenerate)],
        ..row("tgi", &[], PriceLists::NONE)
    },
    Preset {
        paths: &[
            ("completion", Operation::LlamaCppCompletion),
            ("infill", Operation::LlamaCppCompletion),
        ],
        ..row("llama_cpp", &[], PriceLists::NONE)
    },
    Preset {
        paths: &[
            ("multimodalembeddings", Operation::Embeddings),
            ("contextualizedembeddings", Operation::Embeddings),
        ],
        ..row(
            "voyage",
            &["api.voyageai.com"],
            lists(&["voyage"], "voyage/", &["voyage"], &["voyageai"]),
        )
    },
    Preset {
        paths: &[("embeddings/multimodal", Operation::Embeddings)],
        ..row(
            "volcengine",
            &["ark.*.volces.com", "ark.*.bytepluses.com"],
            lists(&["volcengine"], "volcengine/", &["volcengine"], &[]),
        )
    },
    row(
        "vercel_ai_gateway",
        &["ai-gateway.vercel.sh"],
        lists(&["vercel_ai_gateway"], "vercel_ai_gateway/", &["vercel"], &[]),
    ),
    row("litellm", &[], PriceLists::NONE),
    row("portkey", &["api.portkey.ai"], PriceLists::NONE),
    row(
        "nvidia",
        &["integrate.api.nvidia.com"],
        lists(&["nvidia_nim"], "nvidia_nim/", &["nvidia"], &[]),
    ),
    row(
        "huggingface",
        &["router.huggingface.co"],
        lists(&["huggingface"], "huggingface/", &["huggingface"], &[]),
    ),
    row(
        "baseten",
        &["inference.baseten.co"],
        lists(&["baseten"], "baseten/", &["baseten"], &["baseten"]),
    ),
    row(
        "hyperbolic",
        &["api.hyperbolic.xyz"],
        lists(&["hyperbolic"], "hyperbolic/", &["hyperbolic"], &[]),
    ),
    row("lambda", &["api.lambda.ai"], lists(&["lambda_ai"], "lambda_ai/", &["lambda"], &[])),
    row(
        "friendli",
        &["api.friendli.ai"],
        lists(&["friendliai"], "friendliai/", &["friendli"], &[]),
    ),
    row("wandb", &["api.inference.wandb.ai"], lists(&["wandb"], "wandb/", &["wandb"], &[])),
    row("nscale", &["inference.api.nscale.com"], lists(&["nscale"], "nscale/", &["nscale"], &[])),
    row("scaleway", &["api.scaleway.ai"], lists(&["scaleway"], "scaleway/", &["scaleway"], &[])),
    row(
        "ovhcloud",
        &["endpoints.kepler.ai.cloud.ovh.net"],
        lists(&["ovhcloud"], "ovhcloud/", &["ovhcloud"], &["ovhcloud"]),
    ),
    row(
        "featherless",
        &["api.featherless.ai"],
        lists(&["featherless_ai"], "featherless_ai/", &["featherless"], &[]),
    ),
    row("jina", &["api.jina.ai"], lists(&["jina_ai"], "jina_ai/", &["jina"], &[])),
    row("ai21", &["api.ai21.com"], lists(&["ai21"], "ai21/", &["ai21"], &[])),
    row("meta", &["api.meta.ai"], lists(&["meta"], "meta/", &["meta"], &["meta"])),
];
