//! Finds who a request is for, from what Envoy has verified: claims, certificates, filter state. It
//! reads a plain header only where the configuration trusts it.
//!
//! What a request contains but cannot be read for certain is not taken for nothing: a header that
//! comes twice could be the client's own, and `anonymous` may pay less than the one who is meant.

use sha2::{Digest, Sha256};

use crate::admission::claims::is_text;
use crate::base::hash::hex;
use crate::base::limits::{API_KEY_BYTES_MAX, IDENTITY_BYTES_MAX};
use crate::config::{IdentityRules, IdentitySource, PeerName, Sources};
use crate::domain::identity::{ANONYMOUS, Credential, Identity};
use crate::domain::names::is_reserved;
use crate::wire::http::Headers;

/// The dynamic metadata of Envoy's `jwt_authn`.
const JWT_AUTHN: &str = "envoy.filters.http.jwt_authn";

/// Reads what Envoy knows about a stream: see [`crate::host::Host::property`].
pub(crate) type Properties<'a> = &'a mut dyn FnMut(&[&str]) -> Option<Vec<u8>>;

/// The identity of a request, and whether it is what the product expects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IdentityResult {
    /// Who it is for.
    pub(crate) identity: Identity,
    /// True if the request does not contain a configured customer.
    pub(crate) has_no_customer: bool,
    /// True if the request does not contain a configured agent.
    pub(crate) has_no_agent: bool,
    /// True if the request does not contain a level that the product requires.
    pub(crate) fails_required: bool,
    /// True if the caller got its token in another way than the product expects.
    pub(crate) is_credential_mismatch: bool,
}

/// Why what a request contains names nobody for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// True if a header is at fault, which is the request's; else the caller's token or certificate
    /// is.
    pub(crate) is_header: bool,
    /// The reason, for the client.
    pub(crate) reason: &'static str,
}

const TWICE: &str = "a header that names the caller comes twice";
const EMPTY: &str = "a header that names the caller is empty";
const HOP_BY_HOP: &str = "the header connection lists a header that names the caller";
const TOO_LONG: &str = "the name of the caller is too long";
const NOT_PRINTABLE: &str = "the name of the caller is not printable text";
const NOT_TEXT: &str = "a claim that names the caller is not text";
const RESERVED: &str = "the name of the caller is one that nobody can have";

/// Reads the identity of a request.
pub(crate) fn find(
    rules: &IdentityRules,
    headers: Headers<'_>,
    properties: Properties<'_>,
) -> Result<IdentityResult, Unusable> {
    let mut reader = Reader { rules, headers, properties };
    reader.refuse_hop_by_hop()?;
    let customer = reader.level(&rules.customer, name)?;
    let team = reader.level(&rules.team, name)?;
    let user = reader.level(&rules.user, name)?;
    let agent = reader.level(&rules.agent, name)?;
    let api_key = reader.level(&rules.api_key, key)?;
    let credential = reader.credential();
    let is_missing =
        |sources: &Sources, found: &Option<String>| found.is_none() && !sources.0.is_empty();
    let known = |name: Option<String>| name.unwrap_or_else(|| ANONYMOUS.to_owned());
    let is_there = |level: &String| match level.as_str() {
        "customer" => customer.is_some(),
        "team" => team.is_some(),
        "user" => user.is_some(),
        "agent" => agent.is_some(),
        _ => api_key.is_some(),
    };
    Ok(IdentityResult {
        fails_required: !rules.required.iter().all(is_there),
        has_no_customer: is_missing(&rules.customer, &customer),
        has_no_agent: is_missing(&rules.agent, &agent),
        is_credential_mismatch: rules.credential.is_some() && rules.credential != credential,
        identity: Identity {
            customer: known(customer),
            team: known(team),
            user,
            agent: known(agent),
            api_key: api_key.map(|key| keyed_hash(&rules.api_key_salt, &key)),
            credential,
        },
    })
}

struct Reader<'a, 'h, 'p> {
    rules: &'a IdentityRules,
    headers: Headers<'h>,
    properties: Properties<'p>,
}

impl Reader<'_, '_, '_> {
    /// Returns one level by the first source that the request contains; `None` without any.
    fn level(
        &mut self,
        sources: &Sources,
        usable: fn(Vec<u8>) -> Result<String, &'static str>,
    ) -> Result<Option<String>, Unusable> {
        for source in &sources.0 {
            let is_header = matches!(source, IdentitySource::TrustedHeader(_));
            let found = self.read(source).and_then(|found| found.map(usable).transpose());
            let found = found.map_err(|reason| Unusable { is_header, reason })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Returns what a source contains; `None` if there is nothing, or only blanks.
    fn read(&mut self, source: &IdentitySource) -> Result<Option<Vec<u8>>, &'static str> {
        let found = match source {
            IdentitySource::TrustedHeader(name) => {
                let mut values = self.headers.all(name);
                let (first, second) = (values.next(), values.next());
                let value = first.map(<[u8]>::trim_ascii);
                return match (value, second) {
                    (_, Some(_)) => Err(TWICE),
                    (Some([]), None) => Err(EMPTY),
                    (value, None) => Ok(value.map(<[u8]>::to_vec)),
                };
            }
            IdentitySource::Value(value) => Some(value.clone().into_bytes()),
            IdentitySource::JwtClaim(name) => self.claim(name)?,
            IdentitySource::Peer(name) => {
                // The listener's TLS context must ask for a certificate and verify it.
                let name = match name {
                    PeerName::Uri => "uri_san_peer_certificate",
                    PeerName::Dns => "dns_san_peer_certificate",
                    PeerName::Subject => "subject_peer_certificate",
                };
                (self.properties)(&["connection", name])
            }
            IdentitySource::FilterState(key) => (self.properties)(&["filter_state", key]),
            IdentitySource::Metadata(members) => {
                let path: Vec<&str> = members.iter().map(String::as_str).collect();
                self.metadata(&path)?
            }
        };
        Ok(found.filter(|bytes| !bytes.trim_ascii().is_empty()))
    }

    /// A claim that `jwt_authn` has verified.
    fn claim(&mut self, name: &str) -> Result<Option<Vec<u8>>, &'static str> {
        let mut path = vec![JWT_AUTHN.to_owned(), self.rules.jwt_payload.clone()];
        match name.strip_prefix('/') {
            Some(pointer) => {
                let steps = pointer.split('/');
                path.extend(steps.map(|step| step.replace("~1", "/").replace("~0", "~")));
            }
            None => path.push(name.to_owned()),
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        self.metadata(&path)
    }

    /// Text in dynamic metadata: its namespace, then the path of members.
    fn metadata(&mut self, path: &[&str]) -> Result<Option<Vec<u8>>, &'static str> {
        let whole: Vec<&str> =
            ["metadata", "filter_metadata"].iter().chain(path).copied().collect();
        let Some(value) = (self.properties)(&whole) else { return Ok(None) };
        // Envoy gives a number as the eight bytes of a double, and those of some spell text.
        let may_be_number = value.len() == size_of::<f64>();
        if may_be_number && !(self.properties)(&["metadata"]).is_some_and(|all| is_text(&all, path))
        {
            return Err(NOT_TEXT);
        }
        Ok(Some(value))
    }

    /// How the caller got its token, as far as its verified claims say.
    fn credential(&mut self) -> Option<Credential> {
        self.rules.credential?;
        let mut claim = |claim: &str| {
            let bytes = self.claim(claim).ok().flatten()?;
            name(bytes).ok()
        };
        let subject = claim("sub")?;
        // Auth0 and Entra say it. By RFC 9068, the subject of a client that acts for itself is its
        // id.
        let says_so = claim("gty").as_deref() == Some("client-credentials")
            || claim("idtyp").as_deref() == Some("app");
        let is_client = ["client_id", "azp", "appid", "cid"]
            .into_iter()
            .any(|name| claim(name).is_some_and(|client| client == subject));
        let is_for_itself = says_so || is_client;
        Some(if is_for_itself { Credential::ClientCredentials } else { Credential::BearerToken })
    }

    /// Refuses a request whose `connection` lists a trusted header: a proxy that obeys takes the
    /// header out. Envoy itself has done so before the filter sees the head of an HTTP/1 request.
    fn refuse_hop_by_hop(&self) -> Result<(), Unusable> {
        let rules = self.rules;
        let is_trusted = |listed: &[u8]| {
            rules.levels().iter().flat_map(|(_, sources)| &sources.0).any(|source| {
                matches!(source, IdentitySource::TrustedHeader(name)
                    if name.as_bytes().eq_ignore_ascii_case(listed.trim_ascii()))
            })
        };
        let mut listed =
            self.headers.all("connection").flat_map(|value| value.split(|b| *b == b','));
        if listed.any(is_trusted) {
            return Err(Unusable { is_header: true, reason: HOP_BY_HOP });
        }
        Ok(())
    }
}

/// The name in these bytes. A name that is too long is not cut, because two customers must not
/// become one.
fn name(bytes: Vec<u8>) -> Result<String, &'static str> {
    if bytes.len() > IDENTITY_BYTES_MAX {
        return Err(TOO_LONG);
    }
    let name = printable(bytes)?;
    if is_reserved(&name) { Err(RESERVED) } else { Ok(name) }
}

/// The API key in these bytes.
fn key(bytes: Vec<u8>) -> Result<String, &'static str> {
    if bytes.len() > API_KEY_BYTES_MAX { Err(TOO_LONG) } else { printable(bytes) }
}

fn printable(bytes: Vec<u8>) -> Result<String, &'static str> {
    let text = String::from_utf8(bytes).map_err(|_| NOT_PRINTABLE)?;
    let is_plain = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_plain && text.chars().any(char::is_control) { Err(NOT_PRINTABLE) } else { Ok(text) }
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
