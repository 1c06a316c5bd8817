//! The plugin's configuration: reads JSON into [`Config`], or returns one line with the path of the
//! error. `envoy/filter.yaml` shows every option with its default; a test compares the two.

pub mod control;
pub mod delivery;
pub mod product;

mod already_metered;
mod challenge;
mod contracts;
mod correlation;
mod cors;
mod guard;
mod guard_checks;
mod identity;
mod llm;
mod matcher;
mod no_effect;
mod protobuf;
#[cfg(feature = "schema")]
pub mod schema;
mod session;
mod trace;
mod warnings;

pub(crate) use self::already_metered::{AlreadyMetered, SameStream};
pub use self::contracts::{Contract, Contracts};
pub(crate) use self::correlation::CorrelationRules;
pub(crate) use self::cors::Cors;
pub use self::guard::{Action, Guard, Mode};
pub(crate) use self::guard::{Budget, LoopRule, Metric, OnCollectorLoss, RevenueBasis, Unit};
pub(crate) use self::identity::{
    Exempt, IdentityRules, IdentitySource, OnMismatch, PeerName, Sources,
};
pub(crate) use self::llm::{
    CostSource, IncompleteUsage, LlmRules, OnUnseen, OnWebSocket, REPORTED_CURRENCY,
};
pub use self::matcher::{Matcher, PathCase};
pub(crate) use self::session::{SessionRules, SessionSource};
pub(crate) use self::trace::TraceRule;

use std::rc::Rc;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;

use crate::base::document::{self, Document};
use crate::base::invalid::{ConfigError, error, in_range};
use crate::config::delivery::{Collector, Delivery};
use crate::config::product::{OnUnreadable, Product};
use crate::domain::ids::ConfigId;
use crate::domain::level::Level;
use crate::pricing::rate_card::RateCard;
use crate::protocol::mcp::reported_usage::ReportedUsage;
use crate::sink::FormatName;
use crate::wire::http::Headers;
use crate::wire::target::Target;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Its name; zero until [`Self::identify`].
    #[serde(skip)]
    pub(crate) id: ConfigId,
    /// Where the filter sends events.
    #[serde(default)]
    pub collector: Collector,
    /// How the filter sends events.
    #[serde(default)]
    pub delivery: Delivery,
    /// The name in the `source` of events; empty means Envoy's node id.
    #[serde(default)]
    pub emitter: String,
    /// The most sessions at once, 1 to 1000000; beyond it the accountant closes the least recently active one.
    #[serde(default = "sessions_max_default")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = SESSIONS_END)))]
    pub sessions_max: u32,
    /// What providers charge for tokens; the first card that names a model prices it.
    #[serde(default)]
    pub rate_cards: Vec<Rc<RateCard>>,
    /// The most bytes of a request's body that the filter buffers if a guard or a plan must know
    /// what the request asks for. Keep it below the limit of Envoy's buffers, or Envoy answers 413.
    #[serde(default = "held_request_bytes_max_default")]
    #[cfg_attr(feature = "schema", schemars(range(min = HELD_BYTES_MIN, max = HELD_BYTES_END)))]
    pub held_request_bytes_max: u32,
    /// What becomes of requests that match no product.
    #[serde(default)]
    pub unmatched: Unmatched,
    /// The pages in browsers that may read the filter's own answers.
    #[serde(default)]
    pub(crate) cors: Cors,
    /// The customers' plans and contracts.
    #[serde(default)]
    pub contracts: Contracts,
    /// The guards of margins, budgets and loops.
    #[serde(default)]
    pub guards: Vec<Rc<Guard>>,
    /// The ids by which events are joined with traces and logs.
    #[serde(default)]
    pub(crate) correlation: CorrelationRules,
    /// Requests that are metered elsewhere.
    #[serde(default)]
    pub(crate) already_metered: AlreadyMetered,
    /// What the filter meters; the first product that matches a request takes it.
    pub products: Vec<Rc<Product>>,
}

/// What becomes of requests that match no product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Unmatched {
    /// They pass, unmetered.
    #[default]
    Pass,
    /// The filter answers 403.
    Reject,
}

/// Whose a request is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Owner<'a> {
    /// A product's.
    Product(&'a Rc<Product>),
    /// A product's, which excludes it.
    Excluded,
    /// No product's.
    Nobody,
    /// It depends on how the server reads the path.
    Several,
}

fn sessions_max_default() -> u32 {
    10_000
}

fn held_request_bytes_max_default() -> u32 {
    512 * 1024
}

/// Reads the JSON of a configuration: text, or a `Struct`.
fn value_of(bytes: &[u8]) -> Result<Value, ConfigError> {
    // A `Struct` begins with the tag of its only field, which is a line feed in text. Bytes
    // that read as a `Struct` to their end are not JSON.
    let as_struct = bytes.starts_with(b"\n").then(|| protobuf::read_struct(bytes)).flatten();
    let value = match as_struct {
        Some(value) => value,
        None if bytes.trim_ascii().is_empty() => Value::Null,
        None => {
            let read = serde_json::from_slice(bytes).map(|Document(value)| value);
            read.map_err(|failure| error("", &format!("expected JSON, but {failure}")))?
        }
    };
    if !value.is_object() {
        let kind = match value {
            Value::Null => "nothing",
            _ => "something else",
        };
        return Err(error("", &format!("expected an object with `products`, found {kind}")));
    }
    Ok(value)
}

impl Config {
    /// Reads the plugin's configuration: JSON, or a serialised `google.protobuf.Struct`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        Self::of_value(value_of(bytes)?)
    }

    fn of_value(value: Value) -> Result<Self, ConfigError> {
        let config: Self = document::read(value)?;
        config.validate()?;
        Ok(config)
    }

    /// The text of a configuration for whoever prices by it, without secrets: other plugins of the
    /// same Envoy can read what VMs share.
    pub(crate) fn without_secrets(bytes: &[u8]) -> Vec<u8> {
        let Ok(mut value) = value_of(bytes) else { return Vec::new() };
        if let Some(members) = value.as_object_mut() {
            members.remove("collector");
        }
        let products = value.get_mut("products").and_then(Value::as_array_mut);
        for product in products.into_iter().flatten() {
            if let Some(salt) = product.pointer_mut("/identity/api_key_salt") {
                *salt = Value::from("another salt, that is as good");
            }
        }
        serde_json::to_vec(&value).unwrap_or_default()
    }

    /// Names the configuration, and marks its products with the name: sessions carry it to whoever
    /// prices their calls.
    pub(crate) fn identify(&mut self, id: ConfigId) {
        self.id = id;
        for product in &mut self.products {
            Rc::make_mut(product).config_id = id;
        }
    }

    /// Whose a request is: the first product that matches takes it, in each reading of its path.
    pub(crate) fn owner(&self, target: &Target<'_>, headers: Headers<'_>) -> Owner<'_> {
        let mut found: Option<&Rc<Product>> = None;
        for path in target.paths() {
            let is_match = |product: &&Rc<Product>| {
                product.matcher.has_path(path) && product.matcher.has_rest(target, headers)
            };
            match (found, self.products.iter().find(is_match)) {
                (_, None) => {}
                (Some(before), Some(product)) if before.id != product.id => return Owner::Several,
                (_, Some(product)) => found = Some(product),
            }
        }
        let method = headers.get(":method").unwrap_or_default();
        match found {
            None => Owner::Nobody,
            Some(product) if product.exclude.is_match(method, target) => Owner::Excluded,
            Some(product) => Owner::Product(product),
        }
    }

    /// The guards that cover a customer's calls to a product.
    pub(crate) fn guards_for(
        &self,
        product_id: &str,
        customer: &str,
    ) -> impl Iterator<Item = &Rc<Guard>> {
        let plan = self.contracts.plan_name(customer);
        self.guards.iter().filter(move |guard| guard.is_for(product_id, customer, plan))
    }

    /// Whether the filter rejects a customer's requests to a product that it does not understand for
    /// certain.
    pub(crate) fn rejects_unreadable(&self, product: &Product, customer: &str) -> bool {
        match product.on_unreadable {
            Some(OnUnreadable::Reject) => true,
            Some(OnUnreadable::Meter) => false,
            None => {
                let mut guards = self.guards_for(&product.id, customer);
                self.contracts.lists_tools(customer)
                    || guards.any(|guard| guard.mode == Mode::Enforce && guard.acts_on_requests())
            }
        }
    }

    /// The guard with this id.
    pub fn guard(&self, id: &str) -> Option<&Rc<Guard>> {
        self.guards.iter().find(|guard| guard.id == id)
    }

    /// Whether a guard looks for loops: the filter must then distinguish calls by their arguments.
    pub(crate) fn has_loops(&self) -> bool {
        self.guards.iter().any(|guard| guard.loop_rule.is_some())
    }

    /// Whether any product that a guard covers earns revenue.
    pub fn earns(&self, guard: &Guard) -> bool {
        let is_of = |product: &&Rc<Product>| {
            guard.products.is_empty() || guard.products.contains(&product.id)
        };
        self.products.iter().filter(is_of).any(|product| product.pricing.earns())
    }

    /// The cost, calls or tokens at which a guard blocks; `whole` is the revenue or the limit.
    pub(crate) fn limit(&self, guard: &Guard, customer: &str, whole: Decimal) -> Option<Decimal> {
        let plan = self.contracts.plan_name(customer);
        let threshold = guard.threshold(Level::Block, customer, plan)?;
        whole.checked_mul(Decimal::ONE.checked_sub(threshold)?)
    }

    /// Whether a product meters generations, which tool calls may cause.
    pub(crate) fn has_generations(&self) -> bool {
        self.products.iter().any(|product| product.llm.is_some())
    }

    /// Whether the accountant may attribute a generation to a call that names no trace.
    pub(crate) fn may_infer(&self) -> bool {
        let may_infer = |llm: &LlmRules| llm.infer_when_unambiguous;
        self.products.iter().any(|product| product.llm.as_deref().is_some_and(may_infer))
    }

    /// The product with this id.
    pub fn product(&self, id: &str) -> Option<&Rc<Product>> {
        self.products.iter().find(|product| product.id == id)
    }

    /// The rate cards that price a product's generations.
    pub(crate) fn rate_cards_of<'a>(
        &'a self,
        product: &'a Product,
    ) -> impl Iterator<Item = &'a RateCard> + Clone {
        let only = product.rate_card();
        let cards = self.rate_cards.iter().map(Rc::as_ref);
        cards.filter(move |card| only.is_none_or(|version| card.version() == version))
    }

    fn validate(&self) -> Result<(), ConfigError> {
        self.collector.validate()?;
        self.delivery.validate()?;
        in_range("sessions_max", self.sessions_max, 1, SESSIONS_END)?;
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
        self.validate_card_names()?;
        self.already_metered.validate("already_metered")?;
        self.cors.validate("cors")?;
        let held = self.held_request_bytes_max;
        in_range("held_request_bytes_max", held, HELD_BYTES_MIN, HELD_BYTES_END)?;
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
            if guard.is_prepaid() && self.collector.format != FormatName::CloudEvents {
                let reason = "expected the format cloudevents: only our collector tells balances";
                return Err(error(&format!("{path}.budget.prepaid_balance"), reason));
            }
        }
        self.validate_groups()?;
        self.validate_currencies()
    }

    /// The rate card that a product names must exist.
    fn validate_card_names(&self) -> Result<(), ConfigError> {
        for (at, product) in self.products.iter().enumerate() {
            let Some(version) = product.rate_card() else { continue };
            if !self.rate_cards.iter().any(|card| card.version() == version) {
                let reason = format!("expected the version of a rate card, found {version:?}");
                return Err(error(&format!("products[{at}].llm.rate_card"), &reason));
            }
        }
        Ok(())
    }

    /// The names in a guard must exist: a misspelt name would leave the guard without effect.
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

    /// Products that share sessions share totals and limits, so their currencies and limits must
    /// agree.
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

    /// Guards compare provider cost with revenue, and a call of any product may cause a generation,
    /// so currencies must agree.
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

/// The most sessions that `sessions_max` may allow.
const SESSIONS_END: u32 = 1_000_000;

/// The bounds of `held_request_bytes_max`, in bytes.
const HELD_BYTES_MIN: u32 = 1024;
const HELD_BYTES_END: u32 = 16 * 1024 * 1024;
