//! The price of a tool call for the customer: the first rule that names the tool exactly, else the
//! first pattern that matches, else the default.

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::base::invalid::{ConfigError, error};
use crate::base::pattern::is_fit;
use crate::base::text::Price;
use crate::domain::call::UNNAMED_TOOL;
use crate::domain::status::ExecutionStatus;
use crate::pricing::charge::CallCharge;

/// A product's price list.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Pricing {
    /// ISO 4217 code of every price here.
    pub currency: String,
    /// The outcomes that the customer pays for.
    pub billable_statuses: Vec<ExecutionStatus>,
    /// The outcomes without an answer that the customer pays for too, if the whole request had gone
    /// on to the server, which may have executed the call.
    pub billable_after_request_sent: Vec<ExecutionStatus>,
    /// True if calls that were paid for on the wire (x402, MPP) are charged all the same.
    pub bill_paid_calls: bool,
    /// The price of a tool that no rule matches.
    pub default: ToolPrice,
    /// Rules by tool.
    pub tools: Vec<ToolRule>,
    /// The price of tokens for the customer.
    pub tokens: TokenPricing,
}

/// The price of tokens for the customer; by default they cost nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct TokenPricing {
    /// True if the customer pays the provider cost.
    pub pass_through: bool,
    /// The markup on the provider cost, as a share of it: `"0.2"` adds a fifth.
    pub markup: Price,
}

impl TokenPricing {
    /// The price of tokens with this provider cost; `None` if a decimal cannot hold it.
    pub fn charge(&self, provider_cost: Decimal) -> Option<Decimal> {
        if !self.pass_through {
            return Some(Decimal::ZERO);
        }
        provider_cost.checked_mul(self.markup.amount().checked_add(Decimal::ONE)?)
    }
}

impl Default for Pricing {
    fn default() -> Self {
        Self {
            currency: "USD".to_owned(),
            billable_statuses: vec![ExecutionStatus::Success],
            billable_after_request_sent: Vec::new(),
            bill_paid_calls: false,
            default: ToolPrice::default(),
            tools: Vec::new(),
            tokens: TokenPricing::default(),
        }
    }
}

/// The price of one call.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct ToolPrice {
    /// The price of one billable call.
    pub price: Price,
    /// A label that events carry.
    pub cost_tier: String,
}

impl Default for ToolPrice {
    fn default() -> Self {
        Self { price: Price::default(), cost_tier: "standard".to_owned() }
    }
}

/// The price of the tools that a name or pattern matches.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ToolRule {
    /// A name, or a pattern in which `*` stands for any text.
    pub tool: String,
    /// The price of one billable call.
    pub price: Price,
    /// A label that events carry.
    #[serde(default = "standard")]
    pub cost_tier: String,
}

fn standard() -> String {
    ToolPrice::default().cost_tier
}

impl Pricing {
    fn is_billable(&self, status: ExecutionStatus, is_request_sent: bool) -> bool {
        self.billable_statuses.contains(&status)
            || (is_request_sent && self.billable_after_request_sent.contains(&status))
    }

    /// The charge for a call of `tool` with this outcome. `is_request_sent` is true if the whole
    /// request went on to the server.
    pub fn charge(
        &self,
        tool: &str,
        status: ExecutionStatus,
        is_request_sent: bool,
    ) -> CallCharge<'_> {
        let is_billable = self.is_billable(status, is_request_sent);
        if tool == UNNAMED_TOOL {
            return self.dearest(is_billable);
        }
        let exact = self.tools.iter().find(|rule| rule.tool == tool);
        let rule = exact.or_else(|| self.tools.iter().find(|rule| is_fit(&rule.tool, tool)));
        let (price, cost_tier) = match rule {
            Some(rule) => (rule.price, rule.cost_tier.as_str()),
            None => (self.default.price, self.default.cost_tier.as_str()),
        };
        let price = if is_billable { price.amount() } else { Decimal::ZERO };
        CallCharge { is_billable, calls: 1, price, cost_tier }
    }

    /// The charge for a call whose tool is not certain: that of the dearest tool.
    fn dearest(&self, is_billable: bool) -> CallCharge<'_> {
        let rules = self.tools.iter().map(|rule| (rule.price.amount(), rule.cost_tier.as_str()));
        let of_default = (self.default.price.amount(), self.default.cost_tier.as_str());
        let (price, cost_tier) =
            rules.fold(of_default, |dearest, rule| if rule.0 > dearest.0 { rule } else { dearest });
        let price = if is_billable { price } else { Decimal::ZERO };
        CallCharge { is_billable, calls: 1, price, cost_tier }
    }

    /// Whether any call has a price, or the customer pays for tokens.
    pub fn earns(&self) -> bool {
        let prices = self.tools.iter().map(|rule| rule.price);
        let mut prices = prices.chain([self.default.price]);
        self.tokens.pass_through || prices.any(|price| !price.amount().is_zero())
    }

    pub(crate) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        if self.currency.len() != 3 || !self.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            let reason =
                format!("expected an ISO 4217 code such as \"USD\", found {:?}", self.currency);
            return Err(error(&format!("{path}.currency"), &reason));
        }
        for (at, status) in self.billable_after_request_sent.iter().enumerate() {
            let place = format!("{path}.billable_after_request_sent[{at}]");
            if !matches!(status, ExecutionStatus::Cancelled | ExecutionStatus::Unknown) {
                let reason = format!("expected CANCELLED or UNKNOWN, found {}", status.name());
                return Err(error(&place, &reason));
            }
            if self.billable_statuses.contains(status) {
                let name = status.name();
                let reason = format!("expected {name} here or in billable_statuses, found both");
                return Err(error(&place, &reason));
            }
        }
        for (at, rule) in self.tools.iter().enumerate() {
            if rule.tool.is_empty() {
                let reason = "expected a tool name or pattern, found an empty string";
                return Err(error(&format!("{path}.tools[{at}].tool"), reason));
            }
            if self.tools.iter().take(at).any(|earlier| earlier.tool == rule.tool) {
                let reason = format!("expected each tool once, found {:?} again", rule.tool);
                return Err(error(&format!("{path}.tools[{at}].tool"), &reason));
            }
        }
        Ok(())
    }
}
