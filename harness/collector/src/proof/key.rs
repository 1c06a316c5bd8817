//! Keys of Ed25519 (RFC 8032), in PEM as `openssl genpkey -algorithm ed25519` writes them.

use std::fmt;
use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use sha2::{Digest, Sha256};

use crate::hex::hex;

/// What stands before the 32 bytes of a public key in its SubjectPublicKeyInfo (RFC 8410).
const PUBLIC_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Signs roots. No output shows it.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

impl SigningKey {
    /// Reads a file with a private key.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is no such key. The error does not show it.
    pub fn read(path: &Path) -> anyhow::Result<SigningKey> {
        let key = of_pem(path, "PRIVATE KEY")?;
        let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&key);
        let key = key.map_err(|_| anyhow!("{}: no private key of Ed25519", path.display()))?;
        Ok(SigningKey(key))
    }

    /// The key that shows what this one signed.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().as_ref().to_vec())
    }

    /// In base64.
    pub(super) fn sign(&self, statement: &str) -> String {
        STANDARD.encode(self.0.sign(statement.as_bytes()))
    }
}

/// Shows whether a root was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(Vec<u8>);

impl PublicKey {
    /// Reads a file with a public key.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or is no such key.
    pub fn read(path: &Path) -> anyhow::Result<PublicKey> {
        let der = of_pem(path, "PUBLIC KEY")?;
        let key = der.strip_prefix(&PUBLIC_PREFIX).filter(|key| key.len() == 32);
        let key = key.with_context(|| format!("{}: no public key of Ed25519", path.display()))?;
        Ok(PublicKey(key.to_vec()))
    }

    /// As a file of it.
    pub fn to_pem(&self) -> String {
        let der = [PUBLIC_PREFIX.as_slice(), &self.0].concat();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der))
    }

    /// The first 16 hexadecimal digits of the hash of the key.
    pub(super) fn id(&self) -> String {
        hex(&Sha256::digest(&self.0)[..8])
    }

    /// Whether the key's owner signed a statement.
    pub(super) fn has_signed(&self, statement: &str, signature: &str) -> bool {
        let Ok(signature) = STANDARD.decode(signature) else { return false };
        UnparsedPublicKey::new(&ED25519, &self.0).verify(statement.as_bytes(), &signature).is_ok()
    }
}

/// The bytes of a PEM file (RFC 7468) with one block of this label.
fn of_pem(path: &Path, label: &str) -> anyhow::Result<Vec<u8>> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let block = text.split_once(&begin).and_then(|(_, rest)| Some(rest.split_once(&end)?.0));
    let block = block.with_context(|| format!("{}: no PEM block {label:?}", path.display()))?;
    let digits: String = block.split_whitespace().collect();
    let bytes = STANDARD.decode(digits);
    let bytes = bytes.map_err(|_| anyhow!("{}: not base64 in {label:?}", path.display()))?;
    ensure!(!bytes.is_empty(), "{}: nothing in {label:?}", path.display());
    Ok(bytes)
}
