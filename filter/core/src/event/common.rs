//! The members that all events of a session share.

use rust_decimal::Decimal;
use serde::Serialize;

use crate::base::hash::hex;
use crate::config::product::ProductType;
use crate::domain::correlation::Correlation;
use crate::domain::identity::Credential;
use crate::event::EventStamp;
use crate::session::Session;
use crate::sink::stored_event::StoredEvent;

#[derive(Serialize)]
pub(super) struct Common<'a> {
    pub(super) event_type: &'static str,
    pub(super) product_id: &'a str,
    pub(super) product_type: &'static str,
    pub(super) customer_id: &'a str,
    pub(super) team_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) agent_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) app_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) api_key_hash: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) credential_type: Option<Credential>,
    pub(super) session_id: String,
    pub(super) session_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rpc_id: Option<&'a str>,
}

impl<'a> Common<'a> {
    /// The same with the ids by which the event is joined with other systems.
    pub(super) fn joined(self, correlation: Option<&'a Correlation>) -> Self {
        Self {
            request_id: correlation.and_then(|told| told.request_id.as_deref()),
            trace_id: correlation.and_then(|told| told.trace_id.as_deref()),
            rpc_id: correlation.and_then(|told| told.rpc_id.as_deref()),
            ..self
        }
    }
}

/// Makes an event of a session.
pub(super) fn stored(
    stamp: EventStamp,
    event_type: &str,
    session: &Session,
    data: impl Serialize,
) -> StoredEvent {
    stored_about(stamp, event_type, &session.reference.identity.customer, data)
}

/// Makes an event about a customer.
pub(super) fn stored_about(
    stamp: EventStamp,
    event_type: &str,
    subject: &str,
    data: impl Serialize,
) -> StoredEvent {
    // The data are strings, and numbers with string keys, so serialising cannot fail.
    let data = serde_json::to_string(&data).unwrap_or_default();
    let EventStamp { sequence, time } = stamp;
    let (event_type, subject) = (event_type.into(), subject.into());
    StoredEvent { sequence, time, event_type, subject, data: data.into() }
}

/// The shared members of an event about the session itself, whose product is the one that opened
/// the session.
pub(super) fn of_session<'a>(
    event_type: &'static str,
    session: &'a Session,
    product_type: ProductType,
) -> Common<'a> {
    common(event_type, session, &session.reference.product_id, product_type)
}

pub(super) fn common<'a>(
    event_type: &'static str,
    session: &'a Session,
    product_id: &'a str,
    product_type: ProductType,
) -> Common<'a> {
    let identity = &session.reference.identity;
    let is_app = product_type.is_called_by_apps();
    Common {
        event_type,
        product_id,
        product_type: product_type.name(),
        customer_id: &identity.customer,
        team_id: &identity.team,
        user_id: identity.user.as_deref(),
        agent_id: (!is_app).then_some(identity.agent.as_str()),
        app_id: is_app.then_some(identity.agent.as_str()),
        api_key_hash: identity.api_key.as_deref(),
        credential_type: identity.credential,
        session_id: hex(&session.id),
        session_key: hex(&session.reference.key),
        request_id: None,
        trace_id: None,
        rpc_id: None,
    }
}

/// Formats an amount as a decimal string without trailing zeros.
pub(super) fn money(amount: Decimal) -> String {
    amount.normalize().to_string()
}
