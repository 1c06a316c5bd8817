//! The envelope of an event: CloudEvents 1.0, and what all events of a session carry.

use rust_decimal::Decimal;
use serde::Serialize;

use crate::base::hash::hex;
use crate::config::product::ProductType;
use crate::domain::identity::Credential;
use crate::session::Session;
use crate::sink::event::Stamp;

#[derive(Serialize)]
pub(super) struct Envelope<'a, D> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    r#type: String,
    time: String,
    subject: &'a str,
    sequence: &'a str,
    datacontenttype: &'static str,
    data: D,
}

#[derive(Serialize)]
pub(super) struct Common<'a> {
    pub(super) event_type: &'static str,
    pub(super) product_id: &'a str,
    pub(super) product_type: &'static str,
    pub(super) customer_id: &'a str,
    pub(super) team_id: &'a str,
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
}

pub(super) fn envelope(
    stamp: &Stamp<'_>,
    event_type: &str,
    session: &Session,
    data: impl Serialize,
) -> String {
    envelope_about(stamp, event_type, &session.session.identity.customer, data)
}

pub(super) fn envelope_about(
    stamp: &Stamp<'_>,
    event_type: &str,
    subject: &str,
    data: impl Serialize,
) -> String {
    let sequence = format!("{:020}", stamp.sequence);
    let envelope = Envelope {
        specversion: "1.0",
        id: &sequence,
        source: stamp.source,
        r#type: format!("agent-meter.{event_type}"),
        time: stamp.time.to_rfc3339(),
        subject,
        sequence: &sequence,
        datacontenttype: "application/json",
        data,
    };
    // Strings and numbers with string keys: serialising cannot fail.
    serde_json::to_string(&envelope).unwrap_or_default()
}

/// Of the session itself: of the product that it was opened by.
pub(super) fn of_session<'a>(
    event_type: &'static str,
    session: &'a Session,
    product_type: ProductType,
) -> Common<'a> {
    common(event_type, session, &session.session.product_id, product_type)
}

pub(super) fn common<'a>(
    event_type: &'static str,
    session: &'a Session,
    product_id: &'a str,
    product_type: ProductType,
) -> Common<'a> {
    let identity = &session.session.identity;
    let is_app = product_type.is_called_by_apps();
    Common {
        event_type,
        product_id,
        product_type: product_type.name(),
        customer_id: &identity.customer,
        team_id: &identity.team,
        agent_id: (!is_app).then_some(identity.agent.as_str()),
        app_id: is_app.then_some(identity.agent.as_str()),
        api_key_hash: identity.api_key.as_deref(),
        credential_type: identity.credential,
        session_id: hex(&session.id),
        session_key: hex(&session.session.key),
    }
}

/// A decimal string without trailing zeros.
pub(super) fn money(amount: Decimal) -> String {
    amount.normalize().to_string()
}
