//! Finds who a request is for, from what Envoy has verified: claims, certificates, filter state. It
//! reads a plain header only where the configuration trusts it.

use sha2::{Digest, Sha256};

use crate::base::hash::hex;
use crate::base::limits::IDENTITY_BYTES_MAX;
use crate::config::{IdentityRules, IdentitySource, PeerName, Sources};
use crate::domain::identity::{ANONYMOUS, Credential, Identity};
use crate::wire::http::Headers;

/// The dynamic metadata of Envoy's `jwt_authn`.
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";

/// Reads what Envoy knows about a stream: see [`crate::host::Host::property`].
pub(crate) type Properties<'a> = &'a mut dyn FnMut(&[&str]) -> Option<Vec<u8>>;

/// The identity of a request, and whether it is what the product expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityResult {
    /// Who it is for.
    pub identity: Identity,
    /// True if the request does not contain a configured customer or agent.
    pub(crate) is_missing: bool,
    /// True if the caller got its token in another way than the product expects.
    pub(crate) is_credential_mismatch: bool,
}

/// Reads the identity of a request.
pub fn find(
    rules: &IdentityRules,
    headers: Headers<'_>,
    properties: Properties<'_>,
) -> IdentityResult {
    let mut level = |sources: &Sources| {
        let found = sources.0.iter().find_map(|source| read(rules, source, headers, properties));
        let is_missing = found.is_none() && !sources.0.is_empty();
        (found.unwrap_or_else(|| ANONYMOUS.to_owned()), is_missing)
    };
    let (customer, has_no_customer) = level(&rules.customer);
    let (team, _) = level(&rules.team);
    let (agent, has_no_agent) = level(&rules.agent);
    let (api_key, has_no_key) = level(&rules.api_key);
    let has_key = !rules.api_key.0.is_empty() && !has_no_key;
    let api_key = has_key.then(|| keyed_hash(&rules.api_key_salt, &api_key));
    let credential = credential(rules, properties);
    IdentityResult {
        identity: Identity { customer, team, agent, api_key, credential },
        is_missing: has_no_customer || has_no_agent,
        is_credential_mismatch: rules.credential.is_some() && rules.credential != credential,
    }
}

/// How the caller got its token, as far as its verified claims say.
fn credential(rules: &IdentityRules, properties: Properties<'_>) -> Option<Credential> {
    rules.credential?;
    let mut claim = |name: &str| claim(rules, name, properties);
    let subject = claim("sub")?;
    // Auth0 and Entra say it. By RFC 9068, the subject of a client that acts for itself is its id.
    let says_so = claim("gty").as_deref() == Some("client-credentials")
        || claim("idtyp").as_deref() == Some("app");
    let is_client = ["client_id", "azp", "appid", "cid"]
        .into_iter()
        .any(|name| claim(name).is_some_and(|client| client == subject));
    let is_for_itself = says_so || is_client;
    Some(if is_for_itself { Credential::ClientCredentials } else { Credential::BearerToken })
}

fn read(
    rules: &IdentityRules,
    source: &IdentitySource,
    headers: Headers<'_>,
    properties: Properties<'_>,
) -> Option<String> {
    match source {
        IdentitySource::Value(value) => Some(value.clone()),
        IdentitySource::JwtClaim(name) => claim(rules, name, properties),
        IdentitySource::Peer(name) => {
            // The listener's TLS context must ask for a certificate and verify it.
            let name = match name {
                PeerName::Uri => "uri_san_peer_certificate",
                PeerName::Dns => "dns_san_peer_certificate",
                PeerName::Subject => "subject_peer_certificate",
            };
            text(&properties(&["connection", name])?)
        }
        IdentitySource::FilterState(key) => text(&properties(&["filter_state", key])?),
        IdentitySource::Metadata(members) => {
            let path: Vec<&str> = ["metadata", "filter_metadata"]
                .into_iter()
                .chain(members.iter().map(String::as_str))
                .collect();
            text(&properties(&path)?)
        }
        IdentitySource::TrustedHeader(name) => text(headers.get(name)?),
    }
}

/// A claim that `jwt_authn` has verified.
fn claim(rules: &IdentityRules, name: &str, properties: Properties<'_>) -> Option<String> {
    let mut path = vec!["metadata".to_owned(), "filter_metadata".to_owned(), JWT_AUTHN.to_owned()];
    path.push(rules.jwt_payload.clone());
    match name.strip_prefix('/') {
        Some(pointer) => {
            path.extend(pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")));
        }
        None => path.push(name.to_owned()),
    }
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    text(&properties(&path)?)
}

/// The text of one level, or `None` if it cannot be used. Text that is too long is not cut, because
/// two customers must not become one.
fn text(bytes: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(bytes).ok()?.trim();
    let is_usable =
        !text.is_empty() && text.len() <= IDENTITY_BYTES_MAX && !text.chars().any(char::is_control);
    is_usable.then(|| text.to_owned())
}

/// The first 16 bytes of HMAC-SHA256 (RFC 2104), in hexadecimal digits.
fn keyed_hash(key: &str, text: &str) -> String {
    const BLOCK: usize = 64;
    let mut block = [0_u8; BLOCK];
    let digest = Sha256::digest(key.as_bytes());
    let key = if key.len() > BLOCK { digest.as_slice() } else { key.as_bytes() };
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c));
    let outer = outer.chain_update(inner.finalize()).finalize();
    hex(outer.get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::keyed_hash;

    #[test]
    fn a_key_is_hashed_as_in_rfc_4231() {
        assert_eq!(
            keyed_hash("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c7"
        );
        let key = String::from_utf8(vec![0x0b; 20]).unwrap();
        assert_eq!(keyed_hash(&key, "Hi There"), "b0344c61d8db38535ca8afceaf0bf12b");
    }
}
