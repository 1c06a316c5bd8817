//! Who a request is for: where to read each level of the identity, and what to do with a request
//! that does not contain it.

use core::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::base::invalid::{ConfigError, error, is_header, not_empty};
use crate::base::limits::IDENTITY_BYTES_MAX;
use crate::config::challenge::Challenge;
use crate::domain::identity::Credential;
use crate::domain::names::is_reserved;

/// Where to read each level of the identity; a level without a source is `anonymous`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct IdentityRules {
    /// The billed customer.
    pub customer: Sources,
    /// The customer's team.
    pub team: Sources,
    /// The customer's user, for whom an agent or an app sends the request.
    pub user: Sources,
    /// The agent, or the app.
    pub agent: Sources,
    /// The key with which the client made the request; events contain its hash.
    pub api_key: Sources,
    /// The key of that hash, a secret of at least 16 bytes. Without it, anyone with a list of keys could look up the hashes.
    pub api_key_salt: String,
    /// The metadata key under which Envoy's `jwt_authn` puts verified claims, its
    /// `payload_in_metadata`.
    pub jwt_payload: String,
    /// What to do with a request whose configured customer or agent is not known. Without this, a
    /// request of a product with prices is rejected if its customer is not known, and any other is
    /// metered.
    pub on_missing: Option<OnMissing>,
    /// Levels without which a request is rejected, whatever `on_missing` says.
    pub required: Vec<String>,
    /// How the caller must have got its token. The filter checks this where claims are verified.
    pub credential: Option<Credential>,
    /// What to do with a request whose caller got its token in another way.
    pub on_credential_mismatch: OnMismatch,
    /// Requests that carry no identity by design: they pass without one, unmetered.
    pub exempt: Vec<Exempt>,
    /// What a 401 tells the client.
    pub challenge: Challenge,
    /// Request headers that clients must not set: the filter takes them out of the request.
    pub strip_headers: Vec<String>,
}

/// Requests that carry no identity by design.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Exempt {
    /// `OPTIONS` without a body, such as the preflight requests of browsers.
    Options,
    /// `GET` and `HEAD` of metadata below `/.well-known/`.
    WellKnown,
}

impl Default for IdentityRules {
    fn default() -> Self {
        Self {
            customer: Sources::default(),
            team: Sources::default(),
            user: Sources::default(),
            agent: Sources::default(),
            api_key: Sources::default(),
            api_key_salt: String::new(),
            jwt_payload: String::new(),
            on_missing: None,
            required: Vec::new(),
            credential: None,
            on_credential_mismatch: OnMismatch::default(),
            exempt: vec![Exempt::Options, Exempt::WellKnown],
            challenge: Challenge::default(),
            strip_headers: Vec::new(),
        }
    }
}

/// Places to look; the first that contains a value wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(pub Vec<IdentitySource>);

/// Where to read one level of the identity. Envoy verifies all but `value`, which the configuration
/// fixes, and `trusted_header`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum IdentitySource {
    /// The same value for every request.
    Value(String),
    /// A claim that `jwt_authn` has verified: a name, or a JSON pointer such as `/act/sub`.
    JwtClaim(String),
    /// A name in the client's certificate (mTLS).
    Peer(PeerName),
    /// Text that another filter put into filter state, such as Istio's `io.istio.peer_principal`.
    FilterState(String),
    /// Text that another filter put into dynamic metadata: its namespace, then the path of members.
    Metadata(Vec<String>),
    /// A request header that something in front of this filter sets and clients cannot.
    TrustedHeader(String),
}

/// A name in the client's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum PeerName {
    /// The first URI, such as a SPIFFE id.
    Uri,
    /// The first DNS name.
    Dns,
    /// The subject.
    Subject,
}

/// What to do with a request whose caller cannot be identified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum OnMissing {
    /// Meter it for `anonymous`.
    MeterAsAnonymous,
    /// Answer it with 401.
    Reject,
}

/// What to do with a request whose credential is not the product's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum OnMismatch {
    /// Meter it, and count it in `credential_mismatch`.
    #[default]
    Meter,
    /// Answer it with 401.
    Reject,
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Sources;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a source such as `jwt_claim: sub`, or a list of sources")
            }

            fn visit_unit<E: Error>(self) -> Result<Sources, E> {
                Ok(Sources::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Sources, A::Error> {
                let mut sources = Vec::new();
                while let Some(source) = list.next_element()? {
                    sources.push(source);
                }
                Ok(Sources(sources))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sources, A::Error> {
                let source = IdentitySource::deserialize(MapAccessDeserializer::new(&mut map))?;
                match map.next_key::<String>()? {
                    None => Ok(Sources(vec![source])),
                    Some(_) => Err(A::Error::custom("expected one source; several are a list")),
                }
            }
        }

        from.deserialize_any(OneOrMore)
    }
}

/// Writes the default, which is that there are none.
#[cfg(feature = "schema")]
impl serde::Serialize for Sources {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [] => to.serialize_none(),
            _ => Err(serde::ser::Error::custom("sources are read and not written")),
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for Sources {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Sources".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let one = generator.subschema_for::<IdentitySource>();
        schemars::json_schema!({
            "description": "Places to look, one or a list; the first that contains a value wins. Null means none.",
            "anyOf": [one, { "type": "array", "items": one }, { "type": "null" }],
            "examples": [{ "jwt_claim": "sub" }, [{ "jwt_claim": "/act/sub" }, { "jwt_claim": "azp" }]],
        })
    }
}

impl IdentityRules {
    /// Every level, with its name and its sources.
    pub(crate) fn levels(&self) -> [(&'static str, &Sources); 5] {
        [
            ("customer", &self.customer),
            ("team", &self.team),
            ("user", &self.user),
            ("agent", &self.agent),
            ("api_key", &self.api_key),
        ]
    }

    /// Whether a request without this level is rejected, whatever `on_missing` says.
    pub(crate) fn requires(&self, level: &str) -> bool {
        self.required.iter().any(|required| required == level)
    }

    /// Whether some source names a level.
    pub(crate) fn has_source(&self, level: &str) -> bool {
        self.levels().iter().any(|(name, sources)| *name == level && !sources.0.is_empty())
    }

    /// Whether a request is rejected that does not contain a configured customer or agent.
    pub(crate) fn rejects_missing(&self, customer: bool, agent: bool, has_prices: bool) -> bool {
        match self.on_missing {
            Some(OnMissing::Reject) => customer || agent,
            Some(OnMissing::MeterAsAnonymous) => false,
            None => customer && has_prices,
        }
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        for (level, Sources(sources)) in self.levels() {
            for (at, source) in sources.iter().enumerate() {
                let place =
                    if sources.len() > 1 { format!("{level}[{at}]") } else { level.to_owned() };
                self.validate_source(source, &format!("{path}.{place}"))?;
            }
        }
        self.challenge.validate(&format!("{path}.challenge"))?;
        for (at, header) in self.strip_headers.iter().enumerate() {
            is_header(&format!("{path}.strip_headers[{at}]"), header)?;
        }
        for (at, level) in self.required.iter().enumerate() {
            if !self.has_source(level) {
                let reason = format!(
                    "expected one of customer, team, user, agent and api_key, with a source here, found {level:?}"
                );
                return Err(error(&format!("{path}.required[{at}]"), &reason));
            }
        }
        if !self.api_key.0.is_empty() && self.api_key_salt.len() < SALT_BYTES_MIN {
            let reason = format!("expected a secret of at least {SALT_BYTES_MIN} bytes");
            return Err(error(&format!("{path}.api_key_salt"), &reason));
        }
        if self.credential.is_some() && self.jwt_payload.is_empty() {
            let reason = "expected none without `jwt_payload`: only claims tell it";
            return Err(error(&format!("{path}.credential"), reason));
        }
        Ok(())
    }

    fn validate_source(&self, source: &IdentitySource, path: &str) -> Result<(), ConfigError> {
        match source {
            IdentitySource::Value(value) => is_name(&format!("{path}.value"), value),
            IdentitySource::JwtClaim(claim) => {
                not_empty(&format!("{path}.jwt_claim"), claim)?;
                if self.jwt_payload.is_empty() {
                    let reason = "expected none without `jwt_payload`, which says where claims are";
                    return Err(error(&format!("{path}.jwt_claim"), reason));
                }
                Ok(())
            }
            IdentitySource::FilterState(key) => not_empty(&format!("{path}.filter_state"), key),
            IdentitySource::Metadata(members) if members.len() < 2 => {
                let reason = "expected a namespace and at least one member";
                Err(error(&format!("{path}.metadata"), reason))
            }
            IdentitySource::TrustedHeader(name) => {
                let path = format!("{path}.trusted_header");
                is_header(&path, name)?;
                if self.strip_headers.contains(name) {
                    let reason =
                        "expected a header that is not in `strip_headers`: clients set those";
                    return Err(error(&path, reason));
                }
                Ok(())
            }
            IdentitySource::Metadata(_) | IdentitySource::Peer(_) => Ok(()),
        }
    }
}

/// Refuses a name that the filter would refuse in a request too.
fn is_name(path: &str, name: &str) -> Result<(), ConfigError> {
    not_empty(path, name)?;
    let is_long = name.len() > IDENTITY_BYTES_MAX;
    if is_long || name.chars().any(char::is_control) || is_reserved(name) {
        let reason = format!(
            "expected printable text of at most {IDENTITY_BYTES_MAX} bytes that is neither \"anonymous\" nor of the form \"__x__\", found {name:?}"
        );
        return Err(error(path, &reason));
    }
    Ok(())
}

/// In bytes: a secret of this length cannot be guessed.
const SALT_BYTES_MIN: usize = 16;
