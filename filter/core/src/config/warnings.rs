//! What a configuration allows but seldom means: money that is billed to nobody, and doors past
//! meter and guards.

use std::rc::Rc;

use crate::base::invalid::{ConfigError, error};
use crate::config::delivery::DEFAULT_PATH;
use crate::config::product::{Product, Speaks};
use crate::config::{Config, CostSource, Guard, OnMismatch, PathCase, Unmatched};
use crate::domain::identity::ANONYMOUS;
use crate::sink::FormatName;

impl Config {
    /// Returns what an operator should know before this configuration meets traffic; each has the
    /// form of an error, and none stops the filter.
    pub fn warnings(&self) -> Vec<ConfigError> {
        let mut warnings = Vec::new();
        for (at, product) in self.products.iter().enumerate() {
            let path = format!("products[{at}].identity");
            let lets_in = lets_anonymous_in(product);
            if product.pricing.earns() && lets_in {
                warnings.push(if product.identity.customer.0.is_empty() {
                    let reason =
                        "calls or tokens have a price, and no source names who pays: all is billed to `anonymous`";
                    error(&format!("{path}.customer"), reason)
                } else {
                    let reason =
                        "calls or tokens have a price, and whoever names no customer is served at the expense of `anonymous`; `reject` answers 401";
                    error(&format!("{path}.on_missing"), reason)
                });
            }
            warnings.extend(self.unknown_costs(at, product));
            warnings.extend(challenge_warning(product, &path));
            warnings.extend(blind_guards(&self.guards, product));
            if lets_in {
                warnings.extend(self.open_guards(product));
            }
        }
        let already_metered = &self.already_metered;
        if already_metered.believes() && already_metered.trusted_peers.is_empty() {
            let reason = "everybody who can connect is believed, so a client that sends the header or the host is metered nowhere; name the proxies, or let nobody else connect";
            warnings.push(error("already_metered.trusted_peers", reason));
        }
        warnings.extend(self.ways_around());
        warnings.extend(self.format_warnings());
        warnings.extend(self.without_effect());
        warnings
    }

    /// What a format does not send, and what its receiver does not answer.
    fn format_warnings(&self) -> Vec<ConfigError> {
        let (name, left_out, path) = match self.collector.format {
            FormatName::CloudEvents => return Vec::new(),
            FormatName::OtlpLogs => ("otlp_logs", "", "/v1/logs"),
            FormatName::Aforo => (
                "aforo",
                "sessions, guards, heartbeats and calls that are not billed are not sent (`events_left_out`), nor generations of no tokens and those that take the place of earlier ones (`events_withheld`); ",
                "/v1/ingest/batch",
            ),
        };
        let reason = format!(
            "{left_out}events that cannot be delivered are in Envoy's log only, and nothing adds up sources: our collector does both"
        );
        let mut found = vec![error("collector.format", &reason)];
        if self.collector.path == DEFAULT_PATH {
            let reason = format!(
                "{DEFAULT_PATH:?} is the path of our collector; receivers of {name} have {path:?}"
            );
            found.push(error("collector.path", &reason));
        }
        for (at, guard) in self.guards.iter().enumerate().filter(|(_, guard)| guard.fleet) {
            let reason = format!(
                "guard {:?} never learns what other Envoys use: receivers of {name} give no totals",
                guard.id
            );
            found.push(error(&format!("guards[{at}].fleet"), &reason));
        }
        found
    }

    /// How requests that reach a product's server may match no product, and pass unmetered.
    fn ways_around(&self) -> Vec<ConfigError> {
        let takes_all = self.products.iter().any(|product| {
            let matcher = &product.matcher;
            let is_any = matcher.host.is_empty() && matcher.headers.is_empty();
            is_any && matcher.path_prefix.as_deref() == Some("/")
        });
        if takes_all || self.unmatched == Unmatched::Reject {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (at, product) in self.products.iter().enumerate() {
            let matcher = &product.matcher;
            let mut note = |place: &str, what: &str| {
                let reason = format!("{what} passes {:?} by, unmetered", product.id);
                found.push(error(&format!("products[{at}].match.{place}"), &reason));
            };
            if !matcher.host.is_empty() {
                note("host", "a request with another host");
            }
            if !matcher.headers.is_empty() {
                note("headers", "a request without these headers");
            }
            if matcher.path.is_some() && product.product_type.traits().speaks == Speaks::Api {
                note("path", "a request to a path below this one");
            }
            if matcher.case == PathCase::Sensitive {
                note("case", "a path in another case, if the server does not distinguish it,");
            }
        }
        if !found.is_empty() {
            let reason = "`reject` refuses all that matches no product; `pass` is right only if routes keep it from the servers";
            found.push(error("unmatched", reason));
        }
        found
    }

    /// Why tokens that a product passes through at their cost are billed at nothing: no card can tell
    /// the cost, nor may the provider.
    fn unknown_costs(&self, at: usize, product: &Product) -> Option<ConfigError> {
        let is_reported = product.llm.as_ref().is_some_and(|llm| llm.cost != CostSource::Computed);
        let passes_through = product.pricing.tokens.pass_through;
        if !passes_through || is_reported || !self.rate_cards.is_empty() {
            return None;
        }
        let reason = "no rate card tells what tokens cost, so customers pay nothing for them, and no line of an invoice says so; add `rate_cards`";
        Some(error(&format!("products[{at}].pricing.tokens.pass_through"), reason))
    }

    /// The guards that cover a product, but not its callers who are not known.
    fn open_guards(&self, product: &Product) -> impl Iterator<Item = ConfigError> {
        let is_open = |guard: &Guard| {
            let covers = guard.products.is_empty() || guard.products.contains(&product.id);
            covers && guard.customers.is_empty() && guard.scope.is_of_customer()
        };
        self.guards.iter().enumerate().filter(move |(_, guard)| is_open(guard)).map(|(at, _)| {
            let id = &product.id;
            let reason = format!(
                "callers of product {id:?} who are not known pass outside of this guard, which covers known customers; list {ANONYMOUS:?} too, or let the product reject them"
            );
            error(&format!("guards[{at}].customers"), &reason)
        })
    }
}

/// The guards by a level of the identity that requests of a product need not name.
fn blind_guards(guards: &[Rc<Guard>], product: &Product) -> Vec<ConfigError> {
    let (id, rules) = (&product.id, &product.identity);
    let covers = |guard: &Guard| guard.products.is_empty() || guard.products.contains(id);
    let guards = guards.iter().enumerate();
    let warning = |(at, guard): (usize, &Rc<Guard>)| {
        let level = guard.scope.name();
        if !guard.scope.is_named_level() || !covers(guard) || rules.requires(level) {
            return None;
        }
        let what = if rules.has_source(level) {
            format!(
                "those without a `{level}` share one scope of their customer, so who leaves it out goes by another limit; `identity.required` rejects them"
            )
        } else {
            format!("all of a customer share one scope, as `identity.{level}` has no source")
        };
        Some(error(
            &format!("guards[{at}].scope"),
            &format!("of the callers of product {id:?} {what}"),
        ))
    };
    guards.filter_map(warning).collect()
}

/// Why the challenge of a product is of no use to its clients.
fn challenge_warning(product: &Product, path: &str) -> Option<ConfigError> {
    let rules = &product.identity;
    if rules.challenge.is_empty() {
        return None;
    }
    let (customer, agent) = (!rules.customer.0.is_empty(), !rules.agent.0.is_empty());
    let rejects = rules.rejects_missing(customer, agent, product.pricing.earns())
        || (rules.credential.is_some() && rules.on_credential_mismatch == OnMismatch::Reject);
    if !rejects {
        let reason = "no client without identity gets it: `on_missing: reject` answers 401";
        return Some(error(&format!("{path}.challenge"), reason));
    }
    rules.challenge.is_insecure().then(|| {
        let reason = "clients refuse metadata over http, except of their own machine; use https";
        error(&format!("{path}.challenge.resource_metadata"), reason)
    })
}

/// Whether a product serves a request of which no customer is known.
fn lets_anonymous_in(product: &Product) -> bool {
    let identity = &product.identity;
    let is_named = !identity.customer.0.is_empty();
    !is_named || !identity.rejects_missing(true, false, product.pricing.earns())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::config::Config;

    fn places(matcher: &Value, unmatched: &str, more: &[Value]) -> Vec<String> {
        let product = json!({ "id": "p", "type": "STANDARD_API", "match": matcher });
        let products = [&[product], more].concat();
        let config = json!({ "unmatched": unmatched, "products": products }).to_string();
        let config = Config::from_bytes(config.as_bytes()).unwrap();
        config.ways_around().into_iter().map(|warning| warning.path).collect()
    }

    #[test]
    fn what_passes_a_product_by_is_named_once_for_each_reason() {
        let host = json!({ "host": "a.example", "path_prefix": "/" });
        let headers = json!({ "headers": [{ "name": "x-plan" }], "path_prefix": "/p" });
        let all = json!({ "id": "all", "type": "MCP_SERVER", "match": { "path_prefix": "/" } });
        for (matcher, unmatched, more, expected) in [
            (&json!({ "path_prefix": "/p" }), "pass", &[][..], &[][..]),
            (&host, "pass", &[], &["products[0].match.host", "unmatched"]),
            (&headers, "pass", &[], &["products[0].match.headers", "unmatched"]),
            (&json!({ "path": "/p" }), "pass", &[], &["products[0].match.path", "unmatched"]),
            (
                &json!({ "path_prefix": "/p", "case": "sensitive" }),
                "pass",
                &[],
                &["products[0].match.case", "unmatched"],
            ),
            (&host, "reject", &[], &[]),
            (&host, "pass", &[all], &[]),
        ] {
            assert_eq!(places(matcher, unmatched, more), expected, "{matcher}");
        }
    }

    #[test]
    fn tokens_that_are_passed_through_at_a_cost_that_nobody_tells_are_named() {
        let card = json!([{ "version": "1", "currency": "USD",
            "rates": [{ "provider": "openai", "model": "m", "input": "1", "output": "2" }] }]);
        let (none, through) = (json!([]), json!({ "pass_through": true }));
        let place = "products[0].pricing.tokens.pass_through";
        for (cards, tokens, cost, expected) in [
            (&none, &through, "computed", Some(place)),
            (&none, &json!({}), "computed", None),
            (&none, &through, "reported", None),
            (&none, &through, "reported_else_computed", None),
            (&card, &through, "computed", None),
        ] {
            let product = json!({
                "id": "p", "type": "AI_AGENT", "match": { "path_prefix": "/" },
                "identity": { "customer": { "trusted_header": "x-customer-id" },
                    "on_missing": "reject" },
                "llm": { "provider": "openai", "cost": cost }, "pricing": { "tokens": tokens },
            });
            let config = json!({ "products": [product], "rate_cards": cards }).to_string();
            let warnings = Config::from_bytes(config.as_bytes()).unwrap().warnings();
            let found: Vec<&str> = warnings.iter().map(|warning| &warning.path[..]).collect();
            assert_eq!(found, Vec::from_iter(expected), "{tokens} {cost} {cards}");
        }
    }

    #[test]
    fn a_challenge_that_is_of_no_use_is_named() {
        let customer = json!({ "trusted_header": "x-customer-id" });
        let challenge = |url: &str| json!({ "resource_metadata": url });
        let of_no_use = "products[0].identity.challenge";
        let insecure = "products[0].identity.challenge.resource_metadata";
        for (customer, on_missing, challenge, expected) in [
            (&customer, "reject", challenge("https://a.example/x"), None),
            (&customer, "reject", challenge("http://127.0.0.1:10000/x"), None),
            (&customer, "reject", challenge("http://localhost/x"), None),
            (&customer, "reject", challenge("http://localhost.example/x"), Some(insecure)),
            (&customer, "meter_as_anonymous", challenge("https://a.example/x"), Some(of_no_use)),
            (&Value::Null, "reject", json!({ "realm": "tools" }), Some(of_no_use)),
            (&customer, "meter_as_anonymous", json!({}), None),
        ] {
            let identity = json!({
                "customer": customer, "on_missing": on_missing, "challenge": challenge,
            });
            let product = json!({
                "id": "p", "type": "MCP_SERVER", "match": { "path_prefix": "/" },
                "identity": identity,
            });
            let config = json!({ "products": [product] }).to_string();
            let warnings = Config::from_bytes(config.as_bytes()).unwrap().warnings();
            let found = warnings.iter().map(|warning| &warning.path[..]);
            let found: Vec<&str> = found.filter(|path| path.contains(".challenge")).collect();
            assert_eq!(found, Vec::from_iter(expected), "{identity}");
        }
    }
}
