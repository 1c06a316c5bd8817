//! Products: what the filter meters and bills.

use std::rc::Rc;

use serde::Deserialize;

use crate::base::invalid::{ConfigError, error, is_positive, is_tool, not_empty};
use crate::base::pattern::is_fit;
use crate::base::text::Duration;
use crate::config::identity::IdentityRules;
use crate::config::llm::LlmRules;
use crate::config::matcher;
use crate::config::matcher::Matcher;
use crate::config::session::SessionRules;
use crate::config::trace::TraceRule;
use crate::domain::ids::ConfigId;
use crate::domain::status::ExecutionStatus;
use crate::pricing::price_list::Pricing;
use crate::protocol::mcp::reported_usage::ReportedUsage;
use crate::wire::accept_encoding::ResponseEncoding;
use crate::wire::target::Target;

/// Requests of a product that the filter does not meter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Exclude {
    /// Paths without query, or patterns in which `*` stands for any text.
    pub paths: Vec<String>,
    /// Methods such as `OPTIONS`.
    pub methods: Vec<String>,
    /// Response statuses with which the filter does not meter an API call, or a step with `llm`.
    pub statuses: Vec<u16>,
}

impl Exclude {
    /// A path is excluded if it is in each of its readings, and in this case: what is not certain is
    /// metered.
    pub(super) fn is_match(&self, method: &[u8], target: &Target<'_>) -> bool {
        let is_excluded = |path: &str| self.paths.iter().any(|pattern| is_fit(pattern, path));
        self.methods.iter().any(|excluded| excluded.as_bytes() == method)
            || (!self.paths.is_empty() && target.paths().all(is_excluded))
    }
}

macro_rules! product_types {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $traits:expr;)+) => {
        /// The kind of a product.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
        pub enum ProductType { $($(#[doc = $doc])+ #[serde(rename = $name)] $variant,)+ }

        impl ProductType {
            /// The name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What distinguishes this type.
            pub const fn traits(self) -> ProductTraits {
                match self { $(Self::$variant => $traits,)+ }
            }
        }
    };
}

/// The protocol of a product's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// A call of an API, and a generation if the product has `llm`.
    Api,
    /// A generation if the product has `llm`, else a message of the Agent2Agent protocol.
    Agent,
    /// A message of the Model Context Protocol.
    Mcp,
}

/// What distinguishes one type of products from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProductTraits {
    /// The protocol of its requests.
    pub speaks: Speaks,
    /// True if its products may have `llm`.
    pub(crate) may_have_llm: bool,
    /// The error code of a 401 in JSON-RPC. MCP leaves -32000 to -32019 to implementations
    /// (2026-07-28), and gives -32001 and -32002 a meaning. A2A gives -32001 to -32009 a meaning;
    /// -32005 is an unsupported media type.
    pub(crate) unauthorized_code: i32,
}

product_types! {
    /// An API that agents call: its requests make generations.
    AgenticApi = "AGENTIC_API",
        ProductTraits { speaks: Speaks::Api, may_have_llm: true, unauthorized_code: -32_000 };
    /// An agent: sessions, with generations and tool calls.
    AiAgent = "AI_AGENT",
        ProductTraits { speaks: Speaks::Agent, may_have_llm: true, unauthorized_code: -32_000 };
    /// A Model Context Protocol server: tool executions within sessions.
    McpServer = "MCP_SERVER",
        ProductTraits { speaks: Speaks::Mcp, may_have_llm: false, unauthorized_code: -32_005 };
    /// An API: its calls, by app.
    StandardApi = "STANDARD_API",
        ProductTraits { speaks: Speaks::Api, may_have_llm: false, unauthorized_code: -32_000 };
}

impl ProductType {
    /// Whether the third level of its callers' identity is an app, not an agent.
    pub(crate) fn is_called_by_apps(self) -> bool {
        self.traits().speaks == Speaks::Api
    }
}

/// What the filter does with a request that it does not understand for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum OnUnreadable {
    /// It answers 400, 413 or 415.
    Reject,
    /// It lets the request pass, and counts a call if the response is one that a call gets.
    Meter,
}

/// One thing that the filter meters and bills.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Its name in events; unique.
    pub id: String,
    /// The configuration that it is in: see [`Config::identify`](crate::config::Config::identify).
    #[serde(skip)]
    pub(crate) config_id: ConfigId,
    /// Its kind.
    #[serde(rename = "type")]
    pub product_type: ProductType,
    /// The requests that belong to it.
    #[serde(rename = "match")]
    pub matcher: Matcher,
    /// The requests among them that the filter does not meter.
    #[serde(default)]
    pub exclude: Exclude,
    /// Route templates such as `/orders/{id}`. The filter reports the first that fits an API call.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Who a request is for.
    #[serde(default)]
    pub identity: IdentityRules,
    /// How calls form sessions.
    #[serde(default)]
    pub session: SessionRules,
    /// How its calls are joined with the generations that they cause.
    #[serde(default)]
    pub trace: TraceRule,
    /// How to meter generations of large language models. Without it an `AI_AGENT` receives A2A.
    #[serde(default)]
    pub llm: Option<Rc<LlmRules>>,
    /// Where tools report the usage of generations that they make themselves.
    #[serde(default)]
    pub reported_usage: ReportedUsage,
    /// What the filter does with requests that it does not understand for certain. Without it, the
    /// filter rejects them where a guard or a plan acts on requests, and meters them elsewhere.
    #[serde(default)]
    pub on_unreadable: Option<OnUnreadable>,
    /// What the customer pays for calls.
    #[serde(default)]
    pub pricing: Pricing,
    /// How long a call may run without a response.
    #[serde(default = "call_timeout_default")]
    pub call_timeout: Duration,
    /// What the filter does about compressed responses.
    #[serde(default)]
    pub response_encoding: ResponseEncoding,
}

fn call_timeout_default() -> Duration {
    Duration::from_seconds(3600)
}

impl Product {
    /// Stands for a product that the configuration no longer contains, while facts about it are
    /// still under way: every option is at its default, and calls have no price.
    pub(crate) fn unknown() -> Self {
        Self {
            id: String::new(),
            config_id: 0,
            product_type: ProductType::McpServer,
            matcher: Matcher::default(),
            exclude: Exclude::default(),
            routes: Vec::new(),
            trace: TraceRule::default(),
            llm: None,
            reported_usage: ReportedUsage::default(),
            identity: IdentityRules::default(),
            session: SessionRules::default(),
            on_unreadable: None,
            pricing: Pricing::default(),
            call_timeout: call_timeout_default(),
            response_encoding: ResponseEncoding::default(),
        }
    }

    /// The group that shares sessions with this product; the product's own id if it has none.
    pub fn group(&self) -> &str {
        self.session.group_of(&self.id)
    }

    /// The version of the rate card that alone has the rates of its generations.
    pub(crate) fn rate_card(&self) -> Option<&str> {
        self.llm.as_ref()?.rate_card.as_deref()
    }

    /// Whether its clients use JSON-RPC.
    pub(crate) fn is_json_rpc(&self) -> bool {
        match self.product_type.traits().speaks {
            Speaks::Mcp => true,
            Speaks::Agent => self.llm.is_none(),
            Speaks::Api => false,
        }
    }

    /// The route template reported for a request. Always one from the configuration or empty, so
    /// clients cannot inflate the number of routes. Of several, which an odd path may mean, the
    /// dearest.
    pub(crate) fn route(&self, method: &str, target: &Target<'_>) -> &str {
        let routes = |path| self.routes.iter().find(|route| self.matcher.is_template(route, path));
        let price = |route: &str| {
            self.pricing.charge(&format!("{method} {route}"), ExecutionStatus::Success, true).price
        };
        let mut found: Option<&String> = None;
        for route in target.paths().filter_map(routes) {
            match found {
                Some(before) if before == route || price(before) >= price(route) => {}
                _ => found = Some(route),
            }
        }
        let matcher = &self.matcher;
        let of_match = matcher.path.as_ref().or(matcher.path_template.as_ref());
        let of_match = of_match.or(matcher.path_prefix.as_ref());
        found.or(of_match).map_or("", String::as_str)
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        not_empty(&format!("{path}.id"), &self.id)?;
        if self.id.len() > 64 {
            return Err(error(&format!("{path}.id"), "expected at most 64 bytes"));
        }
        self.matcher.validate(&format!("{path}.match"))?;
        for (at, pattern) in self.exclude.paths.iter().enumerate() {
            // A pattern may begin with its star.
            if pattern.starts_with('/') {
                matcher::is_decoded_path(&format!("{path}.exclude.paths[{at}]"), pattern)?;
            }
        }
        for (at, route) in self.routes.iter().enumerate() {
            matcher::validate_template(&format!("{path}.routes[{at}]"), route)?;
        }
        if let Some(llm) = &self.llm {
            llm.validate(&format!("{path}.llm"), &self.pricing.currency)?;
            if !self.product_type.traits().may_have_llm {
                let name = self.product_type.name();
                let reason = format!("expected none for a product of type {name:?}");
                return Err(error(&format!("{path}.llm"), &reason));
            }
            if self.reported_usage != ReportedUsage::default() {
                let reason = "expected none beside `llm`, which reads the usage itself";
                return Err(error(&format!("{path}.reported_usage"), reason));
            }
        }
        self.reported_usage.validate(&format!("{path}.reported_usage"))?;
        self.identity.validate(&format!("{path}.identity"))?;
        self.session.validate(&format!("{path}.session"))?;
        is_positive(&format!("{path}.call_timeout"), self.call_timeout)?;
        if self.is_json_rpc() {
            for (at, rule) in self.pricing.tools.iter().enumerate() {
                is_tool(&format!("{path}.pricing.tools[{at}].tool"), &rule.tool)?;
            }
        }
        self.pricing.validate(&format!("{path}.pricing"))
    }
}
