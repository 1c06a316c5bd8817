//! The scopes whose totals a guard evaluates.

use serde::{Deserialize, Serialize};

use crate::base::hash::hash;
use crate::config::Guard;
use crate::domain::level::ScopeKind;
use crate::domain::scope_totals::ScopeKey;
use crate::domain::session::SessionRef;

/// One scope. It contains only what its kind needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScopeName {
    /// Its kind.
    pub kind: ScopeKind,
    /// The customer; empty for a product.
    pub customer: String,
    /// The agent.
    pub agent: Option<String>,
    /// The tool.
    pub tool: Option<String>,
    /// The product.
    pub product_id: Option<String>,
    /// The session's key.
    pub session: Option<[u8; 16]>,
}

impl ScopeName {
    /// The scope of this kind to which a call of `tool` in this session belongs.
    pub fn of(kind: ScopeKind, session: &SessionRef, tool: &str) -> Self {
        let SessionRef { product_id, identity, key } = session;
        let is = |wanted: &[ScopeKind]| wanted.contains(&kind);
        Self {
            kind,
            customer: if is(&[ScopeKind::Product]) {
                String::new()
            } else {
                identity.customer.clone()
            },
            agent: is(&[ScopeKind::Agent]).then(|| identity.agent.clone()),
            tool: is(&[ScopeKind::Tool]).then(|| tool.to_owned()),
            product_id: is(&[ScopeKind::Product]).then(|| product_id.clone()),
            session: is(&[ScopeKind::Session]).then_some(*key),
        }
    }

    /// The key of this scope for a guard.
    pub fn key(&self, guard: &Guard) -> ScopeKey {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
        hash(&[
            b"agent-meter guard scope 1",
            guard.id.as_bytes(),
            self.kind.name().as_bytes(),
            self.customer.as_bytes(),
            text(&self.agent).as_bytes(),
            text(&self.tool).as_bytes(),
            text(&self.product_id).as_bytes(),
            self.session.as_ref().map_or(&[][..], |key| key),
        ])
    }
}
