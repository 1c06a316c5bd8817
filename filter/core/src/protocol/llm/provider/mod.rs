//! How requests to large language models look, and their responses: one file and one row for each
//! family of formats. Who sells the models is another question: a family has the name of the
//! provider that it is of, and any other may speak it.
//!
//! To add a family: its file beside these, with a `SPEC` (hosts, paths, endpoints), the
//! `PRICE_LISTS` that name its provider, and a `Format` for each wire format that no other file has;
//! its `mod` line and its row in the table below; bodies with their expected costs under
//! `tests/fixtures/llm`. Rows stand in the order of their numbers in facts: add new ones at the
//! end.

mod anthropic;
mod azure_openai;
mod bedrock;
mod cloudflare;
mod cohere;
mod dashscope;
mod deepseek;
mod gemini;
mod llama_cpp;
mod mistral;
mod oci;
mod ollama;
pub(in crate::protocol::llm) mod openai;
mod openai_compatible;
mod operation;
mod own_path;
mod perplexity;
mod presets;
mod replicate;
mod tgi;
mod vertex;
mod vllm;
mod watsonx;

pub use self::operation::Operation;
pub use self::own_path::OwnPath;
pub use self::presets::{PRESETS, Preset};

use serde::{Deserialize, Serialize};

use crate::domain::seller::Seller;
use crate::protocol::llm::SocketApi;
use crate::protocol::llm::batch::Batch;
use crate::protocol::llm::endpoint::{Endpoint, PriceLists, Spec, segments};
use crate::protocol::llm::generation::Format;
use crate::wire::target::{host_and_port, percent_decoded};

macro_rules! providers {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $file:ident;)+) => {
        /// A family of formats, by the name of the provider that it is of.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum Family { $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+ }

        impl Family {
            /// Every family, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in the configuration, and of the provider in events and rate cards.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The provider's names in published price lists.
            pub const fn price_lists(self) -> PriceLists {
                match self { $(Self::$variant => $file::PRICE_LISTS,)+ }
            }

            const fn spec(self) -> &'static Spec {
                match self { $(Self::$variant => &$file::SPEC,)+ }
            }
        }
    };
}

providers! {
    /// OpenAI.
    OpenAi = "openai", openai;
    /// Azure OpenAI.
    AzureOpenAi = "azure_openai", azure_openai;
    /// Anthropic.
    Anthropic = "anthropic", anthropic;
    /// The Gemini API.
    Gemini = "gemini", gemini;
    /// Vertex AI.
    Vertex = "vertex", vertex;
    /// Amazon Bedrock.
    Bedrock = "bedrock", bedrock;
    /// Mistral.
    Mistral = "mistral", mistral;
    /// Cohere.
    Cohere = "cohere", cohere;
    /// DeepSeek.
    DeepSeek = "deepseek", deepseek;
    /// vLLM.
    Vllm = "vllm", vllm;
    /// Ollama.
    Ollama = "ollama", ollama;
    /// Any other server that is compatible with OpenAI.
    OpenAiCompatible = "openai_compatible", openai_compatible;
}

impl Family {
    /// The family of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|family| family.name() == name)
    }

    /// The family in which a seller of this name is spoken to, if the name is known.
    pub fn of(seller: Seller) -> Option<Self> {
        let of_preset = || Preset::named(seller.name()).map(|preset| preset.family);
        Self::named(seller.name()).or_else(of_preset)
    }

    /// The provider that this family is of, as a seller.
    pub fn seller(self) -> Seller {
        Seller::known(self.name())
    }
}

/// Who runs a model, and how it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    /// Who sells the use of the model: rates, events and the ledger go by it.
    pub seller: Seller,
    /// How requests and responses look.
    pub family: Family,
}

impl Provider {
    /// The provider of this name, which speaks as it is known to, else as OpenAI does.
    pub fn named(seller: Seller) -> Self {
        let family = Family::of(seller).unwrap_or(Family::OpenAiCompatible);
        Self { seller, family }
    }
}

impl From<Family> for Provider {
    fn from(family: Family) -> Self {
        Self { seller: family.seller(), family }
    }
}

/// The providers that are known, each with its names in published price lists.
pub fn price_lists() -> impl Iterator<Item = (Seller, PriceLists)> {
    let of_families = Family::ALL.iter().map(|family| (family.seller(), family.price_lists()));
    let of_presets = PRESETS.iter().map(|preset| (preset.seller(), preset.price_lists));
    of_families.chain(of_presets)
}

/// Who is asked, as far as the configuration says it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// The seller. Without one the host decides, and then the path.
    pub seller: Option<Seller>,
    /// The family of formats. Without one the seller decides, and then the path.
    pub family: Option<Family>,
    /// Paths that go before all others.
    pub paths: &'a [OwnPath],
}

impl From<Family> for Asked<'_> {
    fn from(family: Family) -> Self {
        Self { seller: Some(family.seller()), family: Some(family), paths: &[] }
    }
}

/// A request that starts a generation or fetches one.
#[derive(Clone, Debug)]
pub struct Route {
    /// Who runs the model.
    pub provider: Provider,
    /// How the response reports its usage.
    pub format: &'static Format,
    /// The model, if the path names it.
    pub model: Option<String>,
    /// True if another response may report the same generation again: the filter counts it by its
    /// id.
    pub reports_again: bool,
    /// True if the request may set `stream_options.include_usage`, and needs it to get usage in its
    /// stream.
    pub(crate) takes_stream_options: bool,
    /// How the response is read, if it holds the results of a batch.
    pub batch: Option<&'static Batch>,
}

/// The route of a request; `None` if it does not concern a generation. The words of a path are those
/// of a provider in any case, as many servers do not distinguish it.
pub fn route(asked: Asked<'_>, method: &str, host: &str, path: &str) -> Option<Route> {
    let known = Known::of(asked, host);
    let route_to = |path: &str| known.route(method, segments(path).as_slice());
    let own = asked.paths.iter().find_map(|own| {
        let path = segments(path);
        let endpoint = own.endpoint(method, &path)?;
        let family = known.family.or_else(|| by_path(&path)).unwrap_or(own.operation.family());
        let takes_stream_options = own.operation.takes_stream_options();
        Some(Route { takes_stream_options, ..known.to(family, endpoint) })
    });
    own.or_else(|| route_to(path)).or_else(|| route_to(&in_lower_case(path)?))
}

/// What is known about who is asked, before a path is looked at.
#[derive(Clone, Copy, Debug)]
struct Known {
    seller: Option<Seller>,
    preset: Option<&'static Preset>,
    family: Option<Family>,
    /// True if the configuration or the seller's own format says it: then no path does.
    is_family_certain: bool,
}

impl Known {
    fn of(asked: Asked<'_>, host: &str) -> Self {
        let Asked { seller, family, .. } = asked;
        let is_at = |seller: Option<Seller>| seller.is_none().then(|| host_name(host)).flatten();
        let (of_host, preset) = match (seller, is_at(seller)) {
            (Some(seller), _) => (Family::named(seller.name()), Preset::named(seller.name())),
            (None, Some((name, port))) => {
                let family = by_host(&name, port);
                (family, if family.is_none() { Preset::at(&name) } else { None })
            }
            (None, None) => (None, None),
        };
        let of_preset = preset.map(Preset::seller);
        Self {
            seller: seller.or(of_preset).or_else(|| of_host.or(family).map(Family::seller)),
            preset,
            family: family.or(of_host).or_else(|| preset.map(|preset| preset.family)),
            is_family_certain: family.is_some() || of_host.is_some(),
        }
    }

    /// The route of a request to this path.
    fn route(self, method: &str, path: &[&str]) -> Option<Route> {
        let endpoint_in = |family: Family| {
            if let Some(batch) = (family.spec().batch)(method, path) {
                let (format, model, reports_again) = (batch.format, None, true);
                let endpoint = Endpoint { format, model, reports_again };
                return Some(Route { batch: Some(batch), ..self.to(family, endpoint) });
            }
            let endpoint = (family.spec().endpoint)(method, path)?;
            let is_completion = path.last() == Some(&"completions");
            let takes_stream_options = is_completion && !family.spec().tells_usage_unasked;
            Some(Route { takes_stream_options, ..self.to(family, endpoint) })
        };
        if let Some(preset) = self.preset
            && let Some(endpoint) = own_path::endpoint_of(preset.paths, method, path)
        {
            return Some(self.to(preset.family, endpoint));
        }
        if self.is_family_certain {
            return endpoint_in(self.family?);
        }
        // A seller, or a gateway, may speak the formats of others too, on paths as these have.
        let of_path = by_path(path);
        let of_others = || endpoint_in(of_path?);
        if let Some(family) = self.family {
            return endpoint_in(family).or_else(of_others);
        }
        let of_preset = |preset: &'static Preset| {
            let endpoint = own_path::endpoint_of(preset.paths, method, path)?;
            let seller = self.seller.unwrap_or_else(|| preset.seller());
            Some(Self { seller: Some(seller), ..self }.to(preset.family, endpoint))
        };
        of_others()
            .or_else(|| PRESETS.iter().find_map(of_preset))
            .or_else(|| endpoint_in(Family::OpenAiCompatible))
    }

    fn to(self, family: Family, endpoint: Endpoint) -> Route {
        let Endpoint { format, model, reports_again } = endpoint;
        let seller = self.seller.unwrap_or_else(|| family.seller());
        let provider = Provider { seller, family };
        Route { provider, format, model, reports_again, takes_stream_options: false, batch: None }
    }
}

/// The route of a request for a WebSocket on which generations are made, and the API that is spoken
/// there; `None` for any other. The query may name the model.
pub(crate) fn socket_route(
    asked: Asked<'_>,
    host: &str,
    path: &str,
    query: &str,
) -> Option<(Route, SocketApi)> {
    let path = path.to_ascii_lowercase();
    let segments = segments(&path);
    let api = match *segments.last()? {
        "responses" => SocketApi::Responses,
        "realtime" => SocketApi::Realtime,
        _ => return None,
    };
    let known = Known::of(asked, host);
    let family = known.family.unwrap_or(Family::OpenAiCompatible);
    let pairs = query.trim_start_matches('?').split('&').filter_map(|pair| pair.split_once('='));
    let model = pairs
        .filter(|(name, _)| matches!(*name, "model" | "deployment"))
        .map(|(_, model)| percent_decoded(model))
        .next();
    let reports_again = api == SocketApi::Responses;
    let endpoint = Endpoint { format: api.format(), model, reports_again };
    Some((known.to(family, endpoint), api))
}

/// Whether the provider charges nothing for a `POST` to this path: it counts tokens, or keeps files,
/// threads and the like. What is stored for a price, such as caches and stores of vectors, is not
/// free.
pub(crate) fn is_free(asked: Asked<'_>, host: &str, path: &str) -> bool {
    let path = path.to_ascii_lowercase();
    let segments = segments(&path);
    let family = Known::of(asked, host).family;
    match segments.as_slice() {
        [.., "messages", "count_tokens"] | [.., "responses", "input_tokens"] => true,
        [.., "tokenize" | "detokenize" | "apply-template" | "apply_template"] => true,
        // Mistral charges for them.
        [.., "moderations"] => family.is_some_and(|family| family != Family::Mistral),
        [.., "files" | "uploads" | "assistants" | "threads"]
        | [.., "uploads", _, "parts" | "complete" | "cancel"]
        | [.., "assistants" | "threads", _]
        | [.., "threads", _, "messages"]
        | [.., "threads", _, "messages" | "runs", _] => true,
        // With Mistral, and whoever passes requests on to it, they make generations.
        [.., "conversations"] | [.., "conversations", _] | [.., "conversations", _, "items"] => {
            matches!(family, Some(Family::OpenAi | Family::AzureOpenAi))
        }
        // What is stored of a completion is changed.
        [.., "chat", "completions", _] => true,
        [.., "api", "show" | "pull" | "push" | "copy" | "create"] => true,
        [.., call] => {
            let verb = call.rsplit(':').next().unwrap_or_default();
            ["counttokens", "computetokens", "count-tokens", "fetchpredictoperation"]
                .contains(&verb)
        }
        [] => false,
    }
}

/// The name in events of a request that runs an agent (Responses and Assistants runs); `None` if
/// the request runs none.
pub(crate) fn agent_run(method: &str, path: &str) -> Option<&'static str> {
    let run_of = |path: &str| openai::agent_run(method, segments(path).as_slice());
    run_of(path).or_else(|| run_of(&in_lower_case(path)?))
}

/// Whether a request of a route makes a generation, and does not ask for one that exists.
pub(crate) fn is_creation(method: &str, path: &str) -> bool {
    let last = segments(path).last().copied().unwrap_or_default();
    method == "POST" && !last.eq_ignore_ascii_case("cancel")
}

/// The conversation that a path names.
pub(crate) fn conversation_in(path: &str) -> Option<String> {
    let thread_of = |path: &str| openai::thread(segments(path).as_slice()).map(str::to_owned);
    thread_of(path).or_else(|| thread_of(&in_lower_case(path)?))
}

/// Whether a request to this path asks for a text to be spoken.
pub(crate) fn is_speech(path: &str) -> bool {
    segments(path).last().is_some_and(|word| word.eq_ignore_ascii_case("speech"))
}

/// A path in lower case, if that makes a difference.
fn in_lower_case(path: &str) -> Option<String> {
    path.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| path.to_ascii_lowercase())
}

/// The name of a host in lower case, and its port or an empty text.
fn host_name(host: &str) -> Option<(String, &str)> {
    let (name, port) = host_and_port(host.as_bytes());
    let name = core::str::from_utf8(name).ok()?.to_ascii_lowercase();
    Some((name, core::str::from_utf8(port).ok()?))
}

fn by_host(name: &str, port: &str) -> Option<Family> {
    Family::ALL.iter().copied().find(|family| family.spec().has_host(name, port))
}

/// The family whose paths look like this one.
fn by_path(segments: &[&str]) -> Option<Family> {
    Family::ALL.iter().copied().find(|family| (family.spec().is_path)(segments))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::TRACKED_DEPTH_MAX;
    use crate::protocol::path_tree::PathTree;

    #[test]
    fn the_tables_of_results_fit_a_tree() {
        let paths = [
            "/v1/files/f/content",
            "/v1/messages/batches/b/results",
            "/v1beta/batches/b",
            "/v1beta/files/f:download",
        ];
        let mut found = 0;
        for family in Family::ALL {
            for path in paths {
                let batch = (family.spec().batch)("GET", segments(path).as_slice());
                let Some(Batch { bodies, format }) = batch else { continue };
                let tree = PathTree::within(bodies, format.paths);
                assert!(tree.nodes.len() < 254, "{} {path}", family.name());
                assert!(tree.depth() <= TRACKED_DEPTH_MAX, "{} {path}", family.name());
                found += 1;
            }
        }
        assert_eq!(found, 9);
    }

    // A document may be an element of an array.
    #[test]
    fn every_member_of_a_format_is_within_what_the_scanner_follows() {
        for operation in Operation::ALL {
            let format = operation.endpoint(None).format;
            let tree = PathTree::new(format.paths);
            assert!(tree.nodes.len() < 254, "{}", operation.name());
            assert!(tree.depth() < TRACKED_DEPTH_MAX, "{}", operation.name());
        }
    }
}
