//! The scopes whose totals a guard evaluates.

use serde::{Deserialize, Serialize};

use crate::base::hash::hash;
use crate::base::limits::OTHER;
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
        let SessionRef { product_id, identity, key, .. } = session;
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

    /// The scope for the rest of this customer's: those beyond the customer's share of the table.
    /// `None` where a customer has one scope only.
    pub(crate) fn rest(&self) -> Option<Self> {
        let other = |part: &Option<String>| part.as_ref().map(|_| OTHER.to_owned());
        (self.kind != ScopeKind::Customer).then(|| Self {
            kind: self.kind,
            customer: self.customer.clone(),
            agent: other(&self.agent),
            tool: other(&self.tool),
            product_id: other(&self.product_id),
            session: self.session.map(|_| [0; 16]),
        })
    }

    /// Whether the scope is the one for the rest.
    pub(crate) fn is_rest(&self) -> bool {
        let is_other = |part: &Option<String>| part.as_deref() == Some(OTHER);
        is_other(&self.agent)
            || is_other(&self.tool)
            || is_other(&self.product_id)
            || self.session == Some([0; 16])
    }

    /// The key of this scope for a guard.
    pub fn key(&self, guard: &Guard) -> ScopeKey {
        self.key_for(&guard.id)
    }

    pub(crate) fn key_for(&self, guard_id: &str) -> ScopeKey {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
        hash(&[
            b"agent-meter guard scope 1",
            guard_id.as_bytes(),
            self.kind.name().as_bytes(),
            self.customer.as_bytes(),
            text(&self.agent).as_bytes(),
            text(&self.tool).as_bytes(),
            text(&self.product_id).as_bytes(),
            self.session.as_ref().map_or(&[][..], |key| key),
        ])
    }
}
