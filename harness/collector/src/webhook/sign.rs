//! Signs events after the Standard Webhooks specification 1.0.0 (symmetric, `v1`).

use std::fmt;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::hex::hex;

/// The key that the collector shares with the receivers. No output shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl Secret {
    /// Reads `whsec_` and base64, or any other text, whose bytes are the key; without the white
    /// space around it. An error does not show it.
    pub fn parse(text: &str) -> anyhow::Result<Secret> {
        let text = text.trim();
        let key = match text.strip_prefix("whsec_") {
            Some(encoded) => {
                BASE64_STANDARD.decode(encoded).ok().context("must be base64 behind whsec_")?
            }
            None => text.as_bytes().to_vec(),
        };
        ensure!(!key.is_empty(), "must not be empty");
        Ok(Secret(key))
    }

    /// The value of `webhook-signature`; `timestamp` in seconds since 1970.
    pub(super) fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        // An HMAC takes keys of any length.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return String::new() };
        mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
    }
}

/// The value of `webhook-id`: the same each time the event is sent, so that a receiver can skip
/// events that it has already. A hash, because a source may contain bytes that a header or the
/// signed text cannot.
pub(super) fn message_id(source: &str, id: &str) -> String {
    let hash = Sha256::digest(format!("{source}\n{id}").as_bytes());
    format!("msg_{}", hex(hash.get(..16).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's reference libraries.
    #[test]
    fn the_example_of_the_specification_is_signed_as_it_says() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").expect("a secret");
        let signature =
            secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_is_never_empty_and_never_shown() {
        for (text, expected) in [
            ("", "must not be empty"),
            (" \n", "must not be empty"),
            ("whsec_", "must not be empty"),
            ("whsec_not base64", "must be base64 behind whsec_"),
        ] {
            let error = Secret::parse(text).expect_err(text);
            assert_eq!(error.to_string(), expected, "{text:?}");
        }
        assert_eq!(format!("{:?}", Secret::parse("plain").expect("a secret")), "Secret(..)");
    }
}
