//! What a configuration allows but seldom means: money that is billed to nobody, and doors past
//! meter and guards.

use crate::base::invalid::{ConfigError, error};
use crate::config::product::Product;
use crate::config::{Config, Guard};
use crate::domain::identity::ANONYMOUS;
use crate::domain::level::ScopeKind;

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
            if lets_in {
                warnings.extend(self.open_guards(product));
            }
        }
        let already_metered = &self.already_metered;
        if already_metered.believes() && already_metered.trusted_peers.is_empty() {
            let reason = "everybody who can connect is believed, so a client that sends the header or the host is metered nowhere; name the proxies, or let nobody else connect";
            warnings.push(error("already_metered.trusted_peers", reason));
        }
        warnings
    }

    /// The guards that cover a product, but not its callers who are not known.
    fn open_guards(&self, product: &Product) -> impl Iterator<Item = ConfigError> {
        let is_open = |guard: &Guard| {
            let covers = guard.products.is_empty() || guard.products.contains(&product.id);
            covers && guard.customers.is_empty() && guard.scope != ScopeKind::Product
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

/// Whether a product serves a request of which no customer is known.
fn lets_anonymous_in(product: &Product) -> bool {
    let identity = &product.identity;
    let is_named = !identity.customer.0.is_empty();
    !is_named || !identity.rejects_missing(true, false, product.pricing.earns())
}
