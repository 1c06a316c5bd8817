//! Reads the members that calls, generations and sessions share: whose they are.

use crate::event::members::Members;

/// The customer of requests that name none: nobody who can be sent an invoice.
pub const ANONYMOUS: &str = "anonymous";

const PRODUCT_TYPES: [&str; 4] = ["STANDARD_API", "AGENTIC_API", "AI_AGENT", "MCP_SERVER"];
const CREDENTIAL_TYPES: [&str; 2] = ["CLIENT_CREDENTIALS", "BEARER_TOKEN"];

/// Whose a call, a generation or a session is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The matched product.
    pub product: String,
    /// The product's type, such as `MCP_SERVER`.
    pub product_type: &'static str,
    /// Who pays.
    pub customer: String,
    /// The customer's team.
    pub team: String,
    /// The team's agent, or the app of an API.
    pub agent: String,
    /// 32 hexadecimal digits; `None` if the client showed no key.
    pub api_key_hash: Option<String>,
    /// `CLIENT_CREDENTIALS` or `BEARER_TOKEN`; `None` if it is neither.
    pub credential_type: Option<&'static str>,
    /// 32 hexadecimal digits.
    pub session_id: String,
    /// 32 hexadecimal digits, the same wherever the client's session is seen.
    pub session_key: String,
}

/// Reads the common members of `data`; an error begins with the path of the member.
pub(crate) fn identity(data: &Members<'_>) -> Result<Identity, String> {
    let product = data.text("product_id")?;
    let product_type = data.one_of("product_type", &PRODUCT_TYPES)?;
    Ok(Identity {
        product,
        product_type,
        customer: data.text("customer_id")?,
        team: data.text("team_id")?,
        agent: agent(data, product_type)?,
        api_key_hash: data.has("api_key_hash").then(|| data.hex32("api_key_hash")).transpose()?,
        credential_type: data
            .has("credential_type")
            .then(|| data.one_of("credential_type", &CREDENTIAL_TYPES))
            .transpose()?,
        session_id: data.hex32("session_id")?,
        session_key: data.hex32("session_key")?,
    })
}

/// The agent, or the app of an API; an event has exactly one of the two.
fn agent(data: &Members<'_>, product_type: &str) -> Result<String, String> {
    let (member, other) = match product_type {
        "STANDARD_API" => ("app_id", "agent_id"),
        // Filters that knew no apps named an agent here; what they sent stays billed.
        "AGENTIC_API" if !data.has("app_id") && data.has("agent_id") => ("agent_id", "app_id"),
        "AGENTIC_API" => ("app_id", "agent_id"),
        _ => ("agent_id", "app_id"),
    };
    if data.has(other) {
        return Err(data.wrong(other, &format!("absent, with {member} in its place")));
    }
    data.text(member)
}
