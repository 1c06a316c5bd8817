//! What a configuration contains that never takes effect: what an earlier entry takes away, what has
//! nothing to work on, and variables that nobody replaces.

use crate::base::invalid::{ConfigError, error};
use crate::base::pattern::is_fit;
use crate::config::identity::OnMissing;
use crate::config::product::Product;
use crate::config::{Config, Contracts, Guard, Matcher, PathCase, RevenueBasis};
use crate::pricing::price_list::Pricing;

impl Config {
    /// What never takes effect, one warning each.
    pub(super) fn without_effect(&self) -> Vec<ConfigError> {
        let mut found = Vec::new();
        if is_variable(self.collector.secret.reveal()) {
            found.push(error("collector.secret", NOT_REPLACED));
        }
        for (at, product) in self.products.iter().enumerate() {
            let path = format!("products[{at}]");
            let mut earlier = self.products.iter().take(at);
            if let Some(first) = earlier.find(|first| takes_all(&first.matcher, &product.matcher)) {
                let reason = format!(
                    "product {:?} stands before it and takes all of its requests; put the narrower one first",
                    first.id
                );
                found.push(error(&format!("{path}.match"), &reason));
            }
            found.extend(unused_identity(product, &format!("{path}.identity")));
            found.extend(unused_prices(&product.pricing, &format!("{path}.pricing.tools")));
        }
        for (at, guard) in self.guards.iter().enumerate() {
            found.extend(self.has_no_revenue(guard, &format!("guards[{at}]")));
        }
        found
    }

    /// Why a guard of margins has nothing to compare cost with.
    fn has_no_revenue(&self, guard: &Guard, path: &str) -> Option<ConfigError> {
        if guard.kind() != "margin" {
            return None;
        }
        let (earns, is_contracted) = (self.earns(guard), has_revenue(&self.contracts));
        let no_contract =
            "no contract here names a revenue, so it acts only if the collector is given contracts";
        let no_price = "no product that it covers has a price, so there is no revenue to earn";
        let reason = match guard.revenue {
            RevenueBasis::Earned if !earns => no_price.to_owned(),
            RevenueBasis::Contracted if !is_contracted => no_contract.to_owned(),
            RevenueBasis::Larger if !earns && !is_contracted => {
                format!("no product that it covers has a price, and {no_contract}")
            }
            RevenueBasis::Earned | RevenueBasis::Contracted | RevenueBasis::Larger => return None,
        };
        Some(error(&format!("{path}.revenue"), &reason))
    }
}

fn has_revenue(contracts: &Contracts) -> bool {
    let of_plans = contracts.plans.values().map(|plan| plan.revenue);
    let mut all = of_plans.chain(contracts.customers.values().map(|contract| contract.revenue));
    all.any(|revenue| revenue.is_some())
}

const NOT_REPLACED: &str = "variables are not replaced, so this text itself is the secret, which whoever reads the file knows";

/// Whether a text is `${NAME}`, as shells and deployment tools write a variable.
fn is_variable(text: &str) -> bool {
    text.trim().strip_prefix("${").is_some_and(|rest| rest.ends_with('}'))
}

fn unused_identity(product: &Product, path: &str) -> Vec<ConfigError> {
    let rules = &product.identity;
    let mut found = Vec::new();
    if rules.on_missing == Some(OnMissing::Reject)
        && !rules.has_source("customer")
        && !rules.has_source("agent")
    {
        let reason = "nobody is rejected, as neither `customer` nor `agent` has a source from which it could be missing";
        found.push(error(&format!("{path}.on_missing"), reason));
    }
    if is_variable(&rules.api_key_salt) {
        found.push(error(&format!("{path}.api_key_salt"), NOT_REPLACED));
    }
    found
}

/// The patterns of tools that an earlier one leaves nothing. A name without `*` counts before all
/// patterns, wherever it stands.
fn unused_prices(pricing: &Pricing, path: &str) -> Vec<ConfigError> {
    let mut found = Vec::new();
    for (at, rule) in pricing.tools.iter().enumerate().filter(|(_, rule)| rule.tool.contains('*')) {
        let mut earlier = pricing.tools.iter().take(at);
        // What a star of the earlier pattern takes may be a star.
        if let Some(first) = earlier.find(|first| is_fit(&first.tool, &rule.tool)) {
            let reason = format!(
                "{:?} stands before it and takes all of its tools; put the narrower one first",
                first.tool
            );
            found.push(error(&format!("{path}[{at}].tool"), &reason));
        }
    }
    found
}

/// Whether every request of the other matcher is one of `first` too.
fn takes_all(first: &Matcher, other: &Matcher) -> bool {
    let host = first.host.is_empty()
        || first.host.eq_ignore_ascii_case(&other.host)
        || (!other.host.is_empty() && first.is_host(other.host.as_bytes()));
    let headers = first.headers.iter().all(|wanted| {
        let is_wanted = |value: &Option<String>| wanted.value.is_none() || wanted.value == *value;
        other.headers.iter().any(|has| has.name == wanted.name && is_wanted(&has.value))
    });
    let case = first.case == PathCase::Insensitive || other.case == PathCase::Sensitive;
    let path = match (&other.path, &other.path_prefix, &other.path_template) {
        (Some(path), _, _) => first.has_path(path),
        (None, Some(prefix), _) => first.path_prefix.is_some() && first.has_path(prefix),
        // A segment `{name}` of the template is some text for a segment of the other.
        (None, None, Some(template)) => first.path.is_none() && first.has_path(template),
        (None, None, None) => false,
    };
    host && headers && case && path
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::Config;

    /// The places of the warnings.
    fn places(config: &Value) -> Vec<String> {
        let config = Config::from_bytes(config.to_string().as_bytes()).unwrap();
        config.without_effect().into_iter().map(|warning| warning.path).collect()
    }

    #[test]
    fn a_product_that_an_earlier_one_shadows_is_named() {
        for (first, second, is_shadowed) in [
            (json!({ "path_prefix": "/" }), json!({ "path": "/mcp" }), true),
            (json!({ "path_prefix": "/mcp" }), json!({ "path_prefix": "/MCP/a" }), true),
            (json!({ "path_prefix": "/mcp" }), json!({ "path_template": "/mcp/{id}" }), true),
            (json!({ "path_template": "/a/{x}" }), json!({ "path_template": "/a/{id}" }), true),
            (json!({ "path_template": "/a/{x}" }), json!({ "path": "/a/b" }), true),
            (json!({ "path": "/mcp" }), json!({ "path": "/mcp" }), true),
            (json!({ "path": "/mcp" }), json!({ "path_prefix": "/mcp" }), false),
            (json!({ "path_template": "/a/{x}" }), json!({ "path_prefix": "/a/b" }), false),
            (json!({ "path_template": "/a/b" }), json!({ "path_template": "/a/{x}" }), false),
            (json!({ "path_prefix": "/mcp" }), json!({ "path_prefix": "/mcpx" }), false),
            (json!({ "path_prefix": "/a/b" }), json!({ "path_prefix": "/a" }), false),
            (
                json!({ "path_prefix": "/", "case": "sensitive" }),
                json!({ "path_prefix": "/a" }),
                false,
            ),
            (
                json!({ "path_prefix": "/", "host": "a.example" }),
                json!({ "path_prefix": "/", "host": "A.example" }),
                true,
            ),
            (
                json!({ "path_prefix": "/", "host": "*.example" }),
                json!({ "path_prefix": "/", "host": "a.example" }),
                true,
            ),
            (
                json!({ "path_prefix": "/", "host": "a.example" }),
                json!({ "path_prefix": "/" }),
                false,
            ),
            (
                json!({ "path_prefix": "/", "host": "a.example" }),
                json!({ "path_prefix": "/", "host": "*.example" }),
                false,
            ),
            (
                json!({ "path_prefix": "/", "headers": [{ "name": "x" }] }),
                json!({ "path_prefix": "/", "headers": [{ "name": "x", "value": "1" }] }),
                true,
            ),
            (
                json!({ "path_prefix": "/", "headers": [{ "name": "x", "value": "1" }] }),
                json!({ "path_prefix": "/", "headers": [{ "name": "x" }] }),
                false,
            ),
        ] {
            let product = |id: &str, matcher: &Value| json!({ "id": id, "type": "STANDARD_API", "match": matcher });
            let products = [product("a", &first), product("b", &second)];
            let expected = is_shadowed.then(|| "products[1].match".to_owned());
            let found = places(&json!({ "products": products }));
            assert_eq!(found, Vec::from_iter(expected), "{first} {second}");
        }
    }

    fn product() -> Value {
        json!({ "id": "p", "type": "MCP_SERVER", "match": { "path": "/mcp" } })
    }

    #[test]
    fn a_pattern_that_an_earlier_one_leaves_nothing_is_named() {
        for (tools, expected) in [
            (&["*", "read_*", "read"][..], &[1][..]),
            (&["read_*", "*"], &[]),
            (&["read_*", "read_db_*", "write_*"], &[1]),
            (&["*_a", "*_b_*_a"], &[1]),
            (&["a*b", "a*"], &[]),
        ] {
            let rules = tools.iter();
            let rules = rules.map(|tool| json!({ "tool": tool, "price": "1", "cost_tier": "t" }));
            let mut product = product();
            product["pricing"] = json!({ "tools": rules.collect::<Vec<Value>>() });
            let place = |at: &usize| format!("products[0].pricing.tools[{at}].tool");
            let expected: Vec<String> = expected.iter().map(place).collect();
            assert_eq!(places(&json!({ "products": [product] })), expected, "{tools:?}");
        }
    }

    #[test]
    fn a_guard_without_any_revenue_is_named() {
        let (free, priced) = (json!({}), json!({ "default": { "price": "0.1" } }));
        let (none, plan) = (json!({}), json!({ "plans": { "pro": { "revenue": "2" } } }));
        let margin = |revenue: &str| json!({ "revenue": revenue });
        let (earned, contracted, larger) =
            (margin("earned"), margin("contracted"), margin("larger"));
        let budget = json!({ "budget": { "calls": 5 } });
        for (pricing, contracts, guard, is_named) in [
            (&free, &none, &larger, true),
            (&priced, &none, &larger, false),
            (&free, &plan, &larger, false),
            (&free, &plan, &earned, true),
            (&priced, &none, &earned, false),
            (&priced, &none, &contracted, true),
            (&free, &plan, &contracted, false),
            (&free, &none, &budget, false),
        ] {
            let (mut product, mut guard) = (product(), guard.clone());
            product["pricing"] = pricing.clone();
            guard["id"] = json!("g");
            guard["actions"] = json!({ "level_1": { "threshold": "0.2" } });
            let config =
                json!({ "products": [product], "contracts": contracts, "guards": [guard] });
            let expected = is_named.then(|| "guards[0].revenue".to_owned());
            assert_eq!(places(&config), Vec::from_iter(expected), "{config}");
        }
    }

    #[test]
    fn an_identity_that_cannot_work_is_named() {
        let header = json!({ "trusted_header": "x-customer-id" });
        let key = json!({ "trusted_header": "x-key" });
        let (on_missing, salt) = ("on_missing", "api_key_salt");
        for (identity, expected) in [
            (json!({ "on_missing": "reject" }), Some(on_missing)),
            (json!({ "on_missing": "reject", "team": header }), Some(on_missing)),
            (json!({ "on_missing": "reject", "agent": header }), None),
            (json!({ "on_missing": "reject", "customer": header }), None),
            (json!({ "on_missing": "meter_as_anonymous" }), None),
            (json!({ "api_key": key, "api_key_salt": "${METER_API_KEY_SALT}" }), Some(salt)),
            (json!({ "api_key": key, "api_key_salt": "0123456789abcdef" }), None),
        ] {
            let mut product = product();
            product["identity"] = identity.clone();
            let expected = expected.map(|name| format!("products[0].identity.{name}"));
            let found = places(&json!({ "products": [product] }));
            assert_eq!(found, Vec::from_iter(expected), "{identity}");
        }
        let collector = json!({ "secret": "${METER_COLLECTOR_SECRET}" });
        let config = json!({ "products": [product()], "collector": collector });
        assert_eq!(places(&config), ["collector.secret"]);
    }
}
