//! The secrets that the filter, or a reader, shares with the collector. No output shows them.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::hex::{hex, unhex};

/// The fewest bytes of a secret.
const SECRET_BYTES_MIN: usize = 16;
/// The most bytes of a file with a secret.
const FILE_BYTES_MAX: u64 = 4096;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The name of a secret without one.
const DEFAULT_NAME: &str = "default";
/// What the signature of a batch begins with, and the text before the body that it signs.
const SIGNATURE_VERSION: &str = "v1=";
const SIGNED_PREFIX: &[u8] = b"agent-meter-batch.v1\n";
/// What both sides of a comparison sign, so that its time tells nothing of the secret.
const COMPARED: &[u8] = b"agent-meter-bearer";

/// A secret with the name under which sources are bound to it.
#[derive(Clone)]
pub struct SharedSecret {
    name: String,
    key: Vec<u8>,
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedSecret({:?})", self.name)
    }
}

impl SharedSecret {
    /// A secret of this name; without the white space around it.
    ///
    /// # Errors
    ///
    /// If the name is not 1 to 64 of `A-Z a-z 0-9 - _ .`, or the secret has fewer than 16 bytes. The
    /// error does not show the secret.
    pub fn new(name: &str, text: &str) -> anyhow::Result<SharedSecret> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        ensure!(
            (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain),
            "the name of a secret must be 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - _ ., found {name:?}"
        );
        let key = text.trim().as_bytes().to_vec();
        ensure!(
            key.len() >= SECRET_BYTES_MIN,
            "the secret {name}: must be at least {SECRET_BYTES_MIN} bytes, found {}",
            key.len()
        );
        Ok(SharedSecret { name: name.to_owned(), key })
    }

    /// A secret named `default`.
    ///
    /// # Errors
    ///
    /// As [`SharedSecret::new`].
    pub fn unnamed(text: &str) -> anyhow::Result<SharedSecret> {
        SharedSecret::new(DEFAULT_NAME, text)
    }

    /// Reads `FILE`, or `NAME=FILE`.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or has more than 4096 bytes, and as [`SharedSecret::new`].
    pub fn read(option: &str) -> anyhow::Result<SharedSecret> {
        let (name, file) = option.split_once('=').unwrap_or((DEFAULT_NAME, option));
        let open = || -> anyhow::Result<String> {
            let mut text = String::new();
            File::open(Path::new(file))?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = open().with_context(|| format!("cannot read {file}"))?;
        ensure!(
            u64::try_from(text.len())? <= FILE_BYTES_MAX,
            "{file}: must be at most {FILE_BYTES_MAX} bytes"
        );
        SharedSecret::new(name, &text).with_context(|| file.to_owned())
    }

    /// The value of `authorization` that proves it.
    pub(crate) fn bearer(&self) -> Vec<u8> {
        [b"Bearer ".as_slice(), &self.key].concat()
    }

    /// The HMAC-SHA256 of the joined parts.
    pub(crate) fn mac(&self, parts: &[&[u8]]) -> Option<Hmac<Sha256>> {
        let mut mac = mac(&self.key)?;
        parts.iter().for_each(|part| mac.update(part));
        Some(mac)
    }

    /// The value of `agent-meter-signature` that proves it.
    pub(crate) fn signature(&self, body: &[u8]) -> String {
        let mac = self.mac(&[SIGNED_PREFIX, body]).map(|mac| mac.finalize().into_bytes());
        format!("{SIGNATURE_VERSION}{}", hex(&mac.unwrap_or_default()))
    }

    fn signs(&self, body: &[u8], signature: &[u8]) -> bool {
        let mac = self.mac(&[SIGNED_PREFIX, body]);
        mac.is_some_and(|mac| mac.verify_slice(signature).is_ok())
    }

    fn is(&self, presented: &[u8]) -> bool {
        let (Some(mut own), Some(mut other)) = (mac(&self.key), mac(presented)) else {
            return false;
        };
        own.update(COMPARED);
        other.update(COMPARED);
        let same = own.verify_slice(&other.finalize().into_bytes()).is_ok();
        // An HMAC takes a short key and the same with zeros behind it for one.
        same && presented.len() == self.key.len()
    }
}

/// An HMAC takes keys of any length, so there always is one.
fn mac(key: &[u8]) -> Option<Hmac<Sha256>> {
    Hmac::<Sha256>::new_from_slice(key).ok()
}

/// Secrets, several of one name while they are exchanged.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Vec<SharedSecret>);

impl Secrets {
    /// Takes any number of secrets; with none, nobody is asked.
    ///
    /// # Errors
    ///
    /// If two names have the same secret: then it names nobody.
    pub fn new(secrets: Vec<SharedSecret>) -> anyhow::Result<Secrets> {
        for (index, secret) in secrets.iter().enumerate() {
            let twice = secrets.iter().take(index).find(|other| secret.is(&other.key));
            if let Some(other) = twice {
                ensure!(
                    other.name == secret.name,
                    "the secrets {} and {} are the same",
                    other.name,
                    secret.name
                );
            }
        }
        Ok(Secrets(secrets))
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the secret that signed a body; `signature` is the value of the header.
    pub(crate) fn of_signature(&self, body: &[u8], signature: &[u8]) -> Option<&str> {
        let digits = signature.strip_prefix(SIGNATURE_VERSION.as_bytes())?;
        let signature = unhex(digits).filter(|signature| signature.len() == 32)?;
        self.find(|secret| secret.signs(body, &signature))
    }

    /// The name of the secret in a header `authorization`.
    pub(crate) fn of_bearer(&self, authorization: &[u8]) -> Option<&str> {
        let (scheme, presented) = authorization.split_at_checked("Bearer ".len())?;
        let presented = presented.trim_ascii();
        let is_bearer = scheme.eq_ignore_ascii_case(b"Bearer ");
        self.find(|secret| is_bearer && secret.is(presented))
    }

    /// The name of the secret that is the password of a header `authorization` of the scheme Basic,
    /// which browsers send.
    pub(crate) fn of_password(&self, authorization: &[u8]) -> Option<&str> {
        use base64::Engine;
        let (scheme, encoded) = authorization.split_at_checked("Basic ".len())?;
        let told = base64::prelude::BASE64_STANDARD.decode(encoded.trim_ascii()).ok()?;
        let at = told.iter().position(|byte| *byte == b':')?;
        let password = told.get(at + 1..)?;
        let is_basic = scheme.eq_ignore_ascii_case(b"Basic ");
        self.find(|secret| is_basic && secret.is(password))
    }

    /// Tries each secret, whether one before it fits or not.
    fn find(&self, fits: impl Fn(&SharedSecret) -> bool) -> Option<&str> {
        let mut found = None;
        for secret in &self.0 {
            if fits(secret) {
                found = Some(secret.name.as_str());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    #[test]
    fn a_secret_has_a_name_and_sixteen_bytes_and_is_never_shown() {
        for (name, text, expected) in [
            ("edge", "0123456789abcde", "the secret edge: must be at least 16 bytes, found 15"),
            ("edge", " 0123456789abcde\n", "the secret edge: must be at least 16 bytes, found 15"),
            ("", SECRET, "the name of a secret must be 1 to 64 of A-Z a-z 0-9 - _ ., found \"\""),
            (
                "a b",
                SECRET,
                "the name of a secret must be 1 to 64 of A-Z a-z 0-9 - _ ., found \"a b\"",
            ),
        ] {
            let error = SharedSecret::new(name, text).expect_err(name);
            assert_eq!(error.to_string(), expected);
        }
        let secret = SharedSecret::new("edge", SECRET).expect("a secret");
        let secrets = Secrets::new(vec![secret.clone()]).expect("secrets");
        assert_eq!(
            format!("{secret:?} {secrets:?}"),
            "SharedSecret(\"edge\") Secrets([SharedSecret(\"edge\")])"
        );
        let other = SharedSecret::new("other", SECRET).expect("a secret");
        let error = Secrets::new(vec![secret, other]).expect_err("one secret, two names");
        assert_eq!(error.to_string(), "the secrets edge and other are the same");
    }

    /// Signed by `openssl dgst -sha256 -hmac 0123456789abcdef`.
    #[test]
    fn a_signature_is_of_the_whole_body_and_of_one_secret() {
        let secret = |name, text| SharedSecret::new(name, text).expect(name);
        let secrets = vec![secret("edge", SECRET), secret("hub", "fedcba9876543210")];
        let secrets = Secrets::new(secrets).expect("secrets");
        let good = b"v1=a64c8348bb62c679f04701a2574f8567dd353c4c353bed29e94740822aee9a8c";
        assert_eq!(secrets.of_signature(b"[]", good), Some("edge"));
        for (body, signature) in [
            (b"[ ]".as_slice(), good.to_vec()),
            (b"[]", good.to_ascii_uppercase()),
            (b"[]", good[3..].to_vec()),
            (b"[]", good[..66].to_vec()),
            (b"[]", [good.as_slice(), b"0"].concat()),
            (b"[]", b"v1=".to_vec()),
            (b"[]", vec![]),
        ] {
            assert_eq!(secrets.of_signature(body, &signature), None, "{signature:?}");
        }
    }

    #[test]
    fn a_bearer_and_a_password_are_the_whole_secret() {
        let secrets = Secrets::new(vec![SharedSecret::unnamed(SECRET).expect("a secret")]);
        let secrets = secrets.expect("secrets");
        for (header, is_known) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer  0123456789abcdef ", true),
            ("Bearer 0123456789abcdef\0", false),
            ("Bearer 0123456789abcde", false),
            ("Bearer", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("", false),
        ] {
            assert_eq!(secrets.of_bearer(header.as_bytes()).is_some(), is_known, "{header:?}");
        }
        // `any:0123456789abcdef`, and `any:` alone.
        for (header, is_known) in
            [("Basic YW55OjAxMjM0NTY3ODlhYmNkZWY=", true), ("Basic YW55Og==", false)]
        {
            assert_eq!(secrets.of_password(header.as_bytes()).is_some(), is_known, "{header:?}");
        }
    }
}
