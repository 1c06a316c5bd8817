//! The plugin's configuration: JSON in, [`Config`] or one line that names the path out.
//! `envoy/filter.yaml` shows every option at its default; a test compares the two.

mod contracts;
mod guard;
mod identity;
mod llm;
mod matcher;
mod protobuf;
mod reported;
mod session;
mod text;

use std::rc::Rc;

use serde::Deserialize;
use serde_json::Value;

pub use self::contracts::{Contract, Contracts, Plan};
pub use self::guard::{
    BlockAction, Budget, Floors, Guard, LevelRule, LoopRule, Metric, Mode, OnCollectorLoss,
    Reserve, RevenueBasis, Share, ThrottleRate,
};
pub use self::identity::{
    Credential, IdentityRules, IdentitySource, OnMismatch, OnMissing, PeerName, Sources,
};
pub use self::llm::{IncompleteUsage, LlmRules};
pub use self::matcher::{HeaderMatch, Matcher};
pub(crate) use self::matcher::{is_template, without_query};
pub use self::reported::{Places, ReportedUsage};
pub use self::session::{SessionRules, SessionSource};
pub use self::text::{Duration, Price};
use crate::accept_encoding::ResponseEncoding;
use rust_decimal::Decimal;

use crate::fact::GenerationEnded;
use crate::guard::Level;
use crate::head::Headers;
use crate::pattern::is_fit;
use crate::pricing::Pricing;
use crate::rates::{Priced, RateCard, Unpriced, cost};

/// Why a configuration is refused: one line, `path: what was expected`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Where, such as `products[0].pricing.default.price`; empty for the whole text.
    pub path: String,
    /// What was expected and what was found.
    pub reason: String,
}

impl core::fmt::Display for ConfigError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

impl core::error::Error for ConfigError {}

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where events go.
    #[serde(default)]
    pub collector: Collector,
    /// How events go there.
    #[serde(default)]
    pub delivery: Delivery,
    /// The name in the `source` of events; empty means Envoy's node id.
    #[serde(default)]
    pub emitter: String,
    /// The most sessions kept at once; beyond it the least recently active is closed.
    #[serde(default = "sessions_max_default")]
    pub sessions_max: u32,
    /// What providers charge for tokens; the first card that names a model prices it.
    #[serde(default)]
    pub rate_cards: Vec<Rc<RateCard>>,
    /// Bytes of a request's body that are held at most where a guard or a plan has to know what the request asks. Below
    /// the limit of Envoy's buffers, beyond which Envoy answers 413.
    #[serde(default = "held_request_bytes_max_default")]
    pub held_request_bytes_max: u32,
    /// What customers have agreed to.
    #[serde(default)]
    pub contracts: Contracts,
    /// What is held against what, and what happens then.
    #[serde(default)]
    pub guards: Vec<Rc<Guard>>,
    /// What is metered; the first product that matches a request takes it.
    pub products: Vec<Rc<Product>>,
}

fn sessions_max_default() -> u32 {
    10_000
}

fn held_request_bytes_max_default() -> u32 {
    512 * 1024
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Collector {
    /// The Envoy cluster; under Istio `outbound|PORT||HOST`.
    pub cluster: String,
    /// The `:authority` of the callouts.
    pub authority: String,
    /// The path of the callouts.
    pub path: String,
    /// How long one callout may take.
    pub timeout: Duration,
}

impl Default for Collector {
    fn default() -> Self {
        Self {
            cluster: "agent_meter_collector".to_owned(),
            authority: "agent-meter-collector".to_owned(),
            path: "/v1/events".to_owned(),
            timeout: Duration::from_seconds(5),
        }
    }
}

/// How events go to the collector.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delivery {
    /// Events in one batch at most.
    pub batch_events_max: u32,
    /// The longest that an event waits for its batch to fill.
    pub flush_interval: Duration,
    /// Batches on their way at once.
    pub in_flight_max: u32,
    /// The wait after a first failure; it doubles with each further one.
    pub retry_initial: Duration,
    /// The longest wait between two tries.
    pub retry_max: Duration,
    /// The age at which an undelivered event is written to Envoy's log instead; keep it below the time for which the
    /// collector recognises a repeated event.
    pub retry_horizon: Duration,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            batch_events_max: 100,
            flush_interval: Duration::from_seconds(1),
            in_flight_max: 8,
            retry_initial: Duration::from_seconds(1),
            retry_max: Duration::from_seconds(60),
            retry_horizon: Duration::from_seconds(12 * 3600),
        }
    }
}

/// Requests of a product that are not metered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exclude {
    /// Paths without query, or patterns in which `*` stands for any text.
    pub paths: Vec<String>,
    /// Methods such as `OPTIONS`.
    pub methods: Vec<String>,
    /// HTTP statuses of the response, under which an API call, or a step with `llm`, is not metered.
    pub statuses: Vec<u16>,
}

impl Exclude {
    fn is_match(&self, method: &[u8], path: &[u8]) -> bool {
        let path = String::from_utf8_lossy(path);
        self.methods.iter().any(|excluded| excluded.as_bytes() == method)
            || self.paths.iter().any(|pattern| is_fit(pattern, &path))
    }
}

/// The kind of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ProductType {
    /// An API that agents call: its requests make generations.
    AgenticApi,
    /// An agent: sessions, with generations and tool calls.
    AiAgent,
    /// A Model Context Protocol server: tool executions within sessions.
    McpServer,
    /// An API: its calls, by app.
    StandardApi,
}

impl ProductType {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AgenticApi => "AGENTIC_API",
            Self::AiAgent => "AI_AGENT",
            Self::McpServer => "MCP_SERVER",
            Self::StandardApi => "STANDARD_API",
        }
    }
}

/// One thing that is metered and billed.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Product {
    /// Its name in events; unique.
    pub id: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub product_type: ProductType,
    /// The requests that belong to it.
    #[serde(rename = "match")]
    pub matcher: Matcher,
    /// The requests among them that are not metered.
    #[serde(default)]
    pub exclude: Exclude,
    /// The forms of paths under which API calls are told, such as `/orders/{id}`; the first that fits.
    #[serde(default)]
    pub routes: Vec<String>,
    /// Who a request is for.
    #[serde(default)]
    pub identity: IdentityRules,
    /// How calls form sessions.
    #[serde(default)]
    pub session: SessionRules,
    /// Its requests ask for generations of large language models. Without this those of an `AI_AGENT` are A2A.
    #[serde(default)]
    pub llm: Option<LlmRules>,
    /// Usage that tools report of generations that they made inside.
    #[serde(default)]
    pub reported_usage: ReportedUsage,
    /// What calls cost the customer.
    #[serde(default)]
    pub pricing: Pricing,
    /// How long a call may go without an answer.
    #[serde(default = "call_timeout_default")]
    pub call_timeout: Duration,
    /// What is done about compressed responses.
    #[serde(default)]
    pub response_encoding: ResponseEncoding,
}

fn call_timeout_default() -> Duration {
    Duration::from_seconds(3600)
}

impl Config {
    /// Reads the plugin's configuration: JSON, or a serialised `google.protobuf.Struct`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        // A `Struct` begins with the tag of its only field, which is a line feed in text; one that reads as a
        // `Struct` to its end is no JSON.
        let as_struct = bytes.starts_with(b"\n").then(|| protobuf::read_struct(bytes)).flatten();
        let value = match as_struct {
            Some(value) => value,
            None if bytes.trim_ascii().is_empty() => Value::Null,
            None => serde_json::from_slice(bytes)
                .map_err(|failure| error("", &format!("expected JSON, but {failure}")))?,
        };
        if !value.is_object() {
            let kind = match value {
                Value::Null => "nothing",
                _ => "something else",
            };
            return Err(error("", &format!("expected an object with `products`, found {kind}")));
        }
        let config: Self = serde_path_to_error::deserialize(value).map_err(|failure| {
            let path = failure.path().to_string();
            let path = if path == "." { "" } else { path.as_str() };
            error(path, &failure.inner().to_string().replace(['\n', '\r'], " "))
        })?;
        config.validate()?;
        Ok(config)
    }

    /// The product that a request to this `:authority` and `:path` belongs to, unless it is excluded there.
    pub fn product_for(
        &self,
        authority: &[u8],
        path: &[u8],
        headers: Headers<'_>,
    ) -> Option<&Rc<Product>> {
        let is_match = |product: &&Rc<Product>| product.matcher.is_match(authority, path, headers);
        let product = self.products.iter().find(is_match)?;
        let method = headers.get(":method").unwrap_or_default();
        (!product.exclude.is_match(method, without_query(path))).then_some(product)
    }

    /// What a generation costs by the first card that names its model, and the card's version.
    pub fn price(&self, generation: &GenerationEnded) -> Result<(Priced, &str), Unpriced> {
        let GenerationEnded { provider, started_at: at, service_tier: tier, usage, .. } =
            generation;
        let answered = generation.model.as_deref().unwrap_or_default();
        let requested = generation.model_requested.as_deref().unwrap_or_default();
        let found = self.rate_cards.iter().find_map(|card| {
            card.find(*provider, answered, requested, *at).map(|rate| (card, rate))
        });
        let (card, rate) = found.ok_or_else(|| Unpriced::NoRate {
            provider: *provider,
            model: generation.model_name().to_owned(),
        })?;
        cost(usage, rate, *tier).map(|priced| (priced, card.version()))
    }

    /// The guards of a customer's calls of a product.
    pub fn guards_for(&self, product_id: &str, customer: &str) -> impl Iterator<Item = &Rc<Guard>> {
        let plan = self.contracts.plan_name(customer);
        self.guards.iter().filter(move |guard| guard.is_for(product_id, customer, plan))
    }

    /// The guard with this id.
    pub fn guard(&self, id: &str) -> Option<&Rc<Guard>> {
        self.guards.iter().find(|guard| guard.id == id)
    }

    /// Whether a guard looks for loops, so that calls are told apart by their arguments.
    pub fn has_loops(&self) -> bool {
        self.guards.iter().any(|guard| guard.repeats.is_some())
    }

    /// Whether anything earns among what a guard looks at.
    pub fn earns(&self, guard: &Guard) -> bool {
        let is_of = |product: &&Rc<Product>| {
            guard.products.is_empty() || guard.products.contains(&product.id)
        };
        self.products.iter().filter(is_of).any(|product| product.pricing.earns())
    }

    /// The provider cost at which requests are blocked, by what is paid or granted.
    pub fn cost_limit(&self, guard: &Guard, customer: &str, whole: Decimal) -> Option<Decimal> {
        let plan = self.contracts.plan_name(customer);
        let threshold = guard.threshold(Level::Block, customer, plan)?;
        whole.checked_mul(Decimal::ONE.checked_sub(threshold)?)
    }

    /// Whether generations are metered, so that tool calls may have caused some.
    pub fn has_generations(&self) -> bool {
        self.products.iter().any(|product| product.llm.is_some())
    }

    /// Whether a generation may be inferred to belong to a call that names no trace.
    pub fn may_infer(&self) -> bool {
        let may_infer = |llm: &LlmRules| llm.infer_when_unambiguous;
        self.products.iter().any(|product| product.llm.as_ref().is_some_and(may_infer))
    }

    /// The product with this id.
    pub fn product(&self, id: &str) -> Option<&Rc<Product>> {
        self.products.iter().find(|product| product.id == id)
    }

    fn validate(&self) -> Result<(), ConfigError> {
        let collector = &self.collector;
        not_empty("collector.cluster", &collector.cluster)?;
        not_empty("collector.authority", &collector.authority)?;
        is_path("collector.path", &collector.path)?;
        is_positive("collector.timeout", collector.timeout)?;
        let delivery = &self.delivery;
        in_range("delivery.batch_events_max", delivery.batch_events_max, 1, 1000)?;
        in_range("delivery.in_flight_max", delivery.in_flight_max, 1, IN_FLIGHT_MAX)?;
        is_positive("delivery.flush_interval", delivery.flush_interval)?;
        is_positive("delivery.retry_initial", delivery.retry_initial)?;
        is_positive("delivery.retry_horizon", delivery.retry_horizon)?;
        if delivery.retry_max < delivery.retry_initial {
            let reason = "expected at least `retry_initial`";
            return Err(error("delivery.retry_max", reason));
        }
        in_range("sessions_max", self.sessions_max, 1, 1_000_000)?;
        for (at, card) in self.rate_cards.iter().enumerate() {
            card.validate(&format!("rate_cards[{at}]"))?;
        }
        if self.products.is_empty() {
            return Err(error("products", "expected at least one product, found none"));
        }
        for (at, product) in self.products.iter().enumerate() {
            let path = format!("products[{at}]");
            product.validate(&path)?;
            if self.products.iter().take(at).any(|earlier| earlier.id == product.id) {
                let reason = format!(
                    "expected an id that no other product has, found {:?} again",
                    product.id
                );
                return Err(error(&format!("{path}.id"), &reason));
            }
        }
        in_range("held_request_bytes_max", self.held_request_bytes_max, 1024, 16 * 1024 * 1024)?;
        self.contracts.validate()?;
        for (at, guard) in self.guards.iter().enumerate() {
            let path = format!("guards[{at}]");
            guard.validate(&path)?;
            if self.guards.iter().take(at).any(|earlier| earlier.id == guard.id) {
                let reason =
                    format!("expected an id that no other guard has, found {:?} again", guard.id);
                return Err(error(&format!("{path}.id"), &reason));
            }
            self.validate_names(guard, &path)?;
            guard.validate_currency(&self.products, &path)?;
        }
        self.validate_groups()?;
        self.validate_currencies()
    }

    /// What a guard names has to be there: a misspelt name would leave it without effect.
    fn validate_names(&self, guard: &Guard, path: &str) -> Result<(), ConfigError> {
        for (at, id) in guard.products.iter().enumerate() {
            if self.product(id).is_none() {
                let reason = format!("expected the id of a product, found {id:?}");
                return Err(error(&format!("{path}.products[{at}]"), &reason));
            }
        }
        let floors = guard.floors.plans.keys().map(|name| (format!("floors.plans.{name}"), name));
        let plans = guard.plans.iter().enumerate();
        for (place, name) in plans.map(|(at, name)| (format!("plans[{at}]"), name)).chain(floors) {
            if !self.contracts.plans.contains_key(name) {
                let reason = format!("expected a plan of `contracts.plans`, found {name:?}");
                return Err(error(&format!("{path}.{place}"), &reason));
            }
        }
        Ok(())
    }

    /// Products that share sessions share the sums and the limits of them.
    fn validate_groups(&self) -> Result<(), ConfigError> {
        for (at, product) in self.products.iter().enumerate() {
            let mut earlier = self.products.iter().take(at);
            let Some(first) = earlier.find(|earlier| earlier.group() == product.group()) else {
                continue;
            };
            let in_group = |found: &str, first_found: &str| {
                let (group, first) = (product.group(), first.id.as_str());
                format!(
                    "expected {first_found} as in {first:?}, whose sessions it shares by the group {group:?}, found {found}"
                )
            };
            let (found, expected) = (&product.pricing.currency, &first.pricing.currency);
            if found != expected {
                let reason = in_group(&format!("{found:?}"), &format!("{expected:?}"));
                return Err(error(&format!("products[{at}].pricing.currency"), &reason));
            }
            let found = product.session.per_identity_max;
            let expected = first.session.per_identity_max;
            if found != expected {
                let reason = in_group(&found.to_string(), &expected.to_string());
                return Err(error(&format!("products[{at}].session.per_identity_max"), &reason));
            }
        }
        Ok(())
    }

    /// Provider cost is held against revenue, and a generation may belong to a call of any product.
    fn validate_currencies(&self) -> Result<(), ConfigError> {
        let Some(first) = self.rate_cards.first() else { return Ok(()) };
        let expected = |found: &str| {
            format!(
                "expected {:?} as in rate_cards[0].currency, found {found:?}: amounts are not converted",
                first.currency()
            )
        };
        for (at, card) in self.rate_cards.iter().enumerate() {
            if card.currency() != first.currency() {
                let path = format!("rate_cards[{at}].currency");
                return Err(error(&path, &expected(card.currency())));
            }
        }
        for (at, product) in self.products.iter().enumerate() {
            let has_cost =
                self.has_generations() || product.reported_usage != ReportedUsage::default();
            if has_cost && product.pricing.currency != first.currency() {
                let path = format!("products[{at}].pricing.currency");
                return Err(error(&path, &expected(&product.pricing.currency)));
            }
        }
        Ok(())
    }
}

/// Well below the batches that the outbox holds, which would leave none to fill.
const IN_FLIGHT_MAX: u32 = 64;

impl Product {
    /// Stands for a product that the configuration no longer has, while facts of it are still on their way: everything
    /// at its default, and every call at no price.
    pub(crate) fn unknown() -> Self {
        Self {
            id: String::new(),
            product_type: ProductType::McpServer,
            matcher: Matcher::default(),
            exclude: Exclude::default(),
            routes: Vec::new(),
            llm: None,
            reported_usage: ReportedUsage::default(),
            identity: IdentityRules::default(),
            session: SessionRules::default(),
            pricing: Pricing::default(),
            call_timeout: call_timeout_default(),
            response_encoding: ResponseEncoding::default(),
        }
    }

    /// What names it among the products where sessions are told apart: its group, else its own id.
    pub fn group(&self) -> &str {
        self.session.group_of(&self.id)
    }

    /// Whether its clients speak JSON-RPC.
    pub fn is_json_rpc(&self) -> bool {
        self.product_type == ProductType::McpServer
            || (self.product_type == ProductType::AiAgent && self.llm.is_none())
    }

    /// Whether its requests are API calls.
    pub fn is_api(&self) -> bool {
        matches!(self.product_type, ProductType::StandardApi | ProductType::AgenticApi)
    }

    /// The form under which calls to this path are told: bounded, whatever clients ask for.
    pub fn route(&self, path: &[u8]) -> &str {
        let path = without_query(path);
        let found = self.routes.iter().find(|route| is_template(route, path));
        let matcher = &self.matcher;
        let of_match = matcher.path.as_ref().or(matcher.path_template.as_ref());
        let of_match = of_match.or(matcher.path_prefix.as_ref());
        found.or(of_match).map_or("", String::as_str)
    }

    fn validate(&self, path: &str) -> Result<(), ConfigError> {
        not_empty(&format!("{path}.id"), &self.id)?;
        if self.id.len() > 64 {
            return Err(error(&format!("{path}.id"), "expected at most 64 bytes"));
        }
        self.matcher.validate(&format!("{path}.match"))?;
        for (at, route) in self.routes.iter().enumerate() {
            matcher::validate_template(&format!("{path}.routes[{at}]"), route)?;
        }
        match (self.product_type, &self.llm) {
            (ProductType::McpServer | ProductType::StandardApi, Some(_)) => {
                let name = self.product_type.name();
                let reason = format!("expected none for a product of type {name:?}");
                return Err(error(&format!("{path}.llm"), &reason));
            }
            (ProductType::AgenticApi | ProductType::AiAgent, Some(_))
                if self.reported_usage != ReportedUsage::default() =>
            {
                let reason = "expected none beside `llm`, which reads the usage itself";
                return Err(error(&format!("{path}.reported_usage"), reason));
            }
            _ => {}
        }
        self.reported_usage.validate(&format!("{path}.reported_usage"))?;
        self.identity.validate(&format!("{path}.identity"))?;
        self.session.validate(&format!("{path}.session"))?;
        is_positive(&format!("{path}.call_timeout"), self.call_timeout)?;
        self.pricing.validate(&format!("{path}.pricing"))
    }
}

pub(crate) fn error(path: &str, reason: &str) -> ConfigError {
    ConfigError { path: path.to_owned(), reason: reason.to_owned() }
}

fn not_empty(path: &str, value: &str) -> Result<(), ConfigError> {
    if value.is_empty() {
        return Err(error(path, "expected a name, found an empty string"));
    }
    Ok(())
}

fn is_path(path: &str, value: &str) -> Result<(), ConfigError> {
    if value.starts_with('/') {
        return Ok(());
    }
    Err(error(path, &format!("expected a path that starts with `/`, found {value:?}")))
}

fn is_header(path: &str, value: &str) -> Result<(), ConfigError> {
    let is_token = |byte: u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(&byte);
    if !value.is_empty() && value.bytes().all(|b| is_token(b) && !b.is_ascii_uppercase()) {
        return Ok(());
    }
    Err(error(path, &format!("expected a header name in lower case, found {value:?}")))
}

fn is_positive(path: &str, value: Duration) -> Result<(), ConfigError> {
    if value.millis().0 > 0 {
        return Ok(());
    }
    Err(error(path, "expected more than zero, found \"0s\""))
}

fn in_range(path: &str, value: u32, min: u32, max: u32) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(error(path, &format!("expected {min} to {max}, found {value}")))
}
