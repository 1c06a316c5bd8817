//! Customers' contracts: their plans, what they pay, and which tools a plan lets them call.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::base::invalid::{ConfigError, error, is_tool};
use crate::base::pattern::is_fit;
use crate::base::text::Price;

/// The plans, and which customer has which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Contracts {
    /// The plan of customers whose contract names none; empty means that they have none.
    pub default_plan: String,
    /// Plans by name.
    pub plans: BTreeMap<String, Plan>,
    /// Contracts by customer.
    pub customers: BTreeMap<String, Contract>,
}

/// The terms of one plan.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Plan {
    /// What each customer pays for one period of a guard.
    pub revenue: Option<Price>,
    /// The tools that customers may call, names or patterns with `*`; without this, all tools.
    pub tools: Option<Vec<String>>,
}

/// The contract of one customer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Contract {
    /// The customer's plan; empty means the default plan.
    pub plan: String,
    /// What the customer pays for one period of a guard. It overrides the plan's revenue.
    pub revenue: Option<Price>,
}

impl Contracts {
    /// The name of a customer's plan; empty if the customer has none.
    pub fn plan_name(&self, customer: &str) -> &str {
        let contract = self.customers.get(customer).filter(|contract| !contract.plan.is_empty());
        contract.map_or(self.default_plan.as_str(), |contract| contract.plan.as_str())
    }

    /// What a customer pays for one period of a guard.
    pub fn revenue(&self, customer: &str) -> Option<Decimal> {
        let own = self.customers.get(customer).and_then(|contract| contract.revenue);
        let of_plan = self.plans.get(self.plan_name(customer)).and_then(|plan| plan.revenue);
        own.or(of_plan).map(Price::amount)
    }

    /// Whether a customer's plan lists the tools that it may call.
    pub(crate) fn lists_tools(&self, customer: &str) -> bool {
        self.tools(customer).is_some()
    }

    /// Whether a customer may call a tool.
    pub fn allows_tool(&self, customer: &str, tool: &str) -> bool {
        self.tools(customer).is_none_or(|tools| tools.iter().any(|each| is_fit(each, tool)))
    }

    fn tools(&self, customer: &str) -> Option<&[String]> {
        self.plans.get(self.plan_name(customer))?.tools.as_deref()
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let known = |path: &str, plan: &str| {
            if plan.is_empty() || self.plans.contains_key(plan) {
                return Ok(());
            }
            Err(error(path, &format!("expected a plan of `contracts.plans`, found {plan:?}")))
        };
        known("contracts.default_plan", &self.default_plan)?;
        for (customer, contract) in &self.customers {
            known(&format!("contracts.customers.{customer}.plan"), &contract.plan)?;
        }
        for (name, plan) in &self.plans {
            for (at, tool) in plan.tools.iter().flatten().enumerate() {
                is_tool(&format!("contracts.plans.{name}.tools[{at}]"), tool)?;
            }
        }
        Ok(())
    }
}
