//! The scopes whose totals a guard evaluates.

use serde::{Deserialize, Serialize};

use crate::base::hash::hash;
use crate::base::limits::OTHER;
use crate::config::Guard;
use crate::domain::identity::ANONYMOUS;
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
    /// The team, the user or the keyed hash of the API key, as the kind says; `anonymous` for all of
    /// a customer's requests that name none.
    pub identity: Option<String>,
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
            identity: match kind {
                ScopeKind::Team => Some(identity.team.clone()),
                ScopeKind::User => Some(named(&identity.user)),
                ScopeKind::ApiKey => Some(named(&identity.api_key)),
                _ => None,
            },
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
            identity: other(&self.identity),
        })
    }

    /// Whether the scope is the one for the rest.
    pub(crate) fn is_rest(&self) -> bool {
        let is_other = |part: &Option<String>| part.as_deref() == Some(OTHER);
        is_other(&self.agent)
            || is_other(&self.tool)
            || is_other(&self.product_id)
            || is_other(&self.identity)
            || self.session == Some([0; 16])
    }

    /// The key of this scope for a guard.
    pub fn key(&self, guard: &Guard) -> ScopeKey {
        self.key_for(&guard.id)
    }

    pub(crate) fn key_for(&self, guard_id: &str) -> ScopeKey {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
        // The kind tells these two apart, so that scopes of other kinds keep their keys.
        let agent = text(if self.identity.is_some() { &self.identity } else { &self.agent });
        hash(&[
            b"agent-meter guard scope 1",
            guard_id.as_bytes(),
            self.kind.name().as_bytes(),
            self.customer.as_bytes(),
            agent.as_bytes(),
            text(&self.tool).as_bytes(),
            text(&self.product_id).as_bytes(),
            self.session.as_ref().map_or(&[][..], |key| key),
        ])
    }
}

/// A level of the identity, or the name of what has none.
fn named(level: &Option<String>) -> String {
    level.as_deref().unwrap_or(ANONYMOUS).to_owned()
}
