//! The header by which the collector knows that a batch comes from who shares its secret.

use core::fmt;

use serde::Deserialize;

use crate::base::hash::hex;
use crate::base::secret::Secret;

/// How a request shows that the filter knows the secret.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Authentication {
    /// By a signature of its body, which shows the secret to nobody on the way.
    #[default]
    Signature,
    /// By the secret itself, as a bearer token (RFC 6750), for collectors that check only that.
    Bearer,
}

/// A request's header with a signature or a token. No output shows the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The header's name, in lower case.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}: ..)", self.name)
    }
}

impl Credential {
    /// The header of a request with this body; `None` without a secret.
    pub fn of(secret: &Secret, authentication: Authentication, body: &[u8]) -> Option<Self> {
        secret.is_set().then(|| match authentication {
            Authentication::Signature => {
                let mac = secret.mac(&[b"agent-meter-batch.v1\n", body]);
                Self { name: "agent-meter-signature", value: format!("v1={}", hex(&mac)) }
            }
            Authentication::Bearer => {
                Self { name: "authorization", value: format!("Bearer {}", secret.reveal()) }
            }
        })
    }
}
