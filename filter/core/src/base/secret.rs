//! A secret that the filter shares with the collector, and what it signs.

use core::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use sha2::Sha256;

/// A secret text; empty where there is none. No output and no error shows it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret of this text, or `None` if the text is empty.
    pub fn new(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// Whether there is one.
    pub(crate) fn is_set(&self) -> bool {
        !self.0.is_empty()
    }

    /// The text. Whoever takes it must not write it anywhere.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// HMAC-SHA256 of the joined parts, with the bytes of the secret as the key.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        hmac_sha256(self.0.as_bytes(), parts)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() { "Secret(..)" } else { "Secret()" })
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // serde's own error would show what it found instead of a text.
        let text = String::deserialize(from);
        text.map(Self).map_err(|_| D::Error::custom("expected a text, which is not shown"))
    }
}

/// Texts under names, each name once. A text may be a secret: no output and no error shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(Vec<(String, Secret)>);

impl Secrets {
    /// The names with their texts, in the order in which they stand. Whoever takes them must not write
    /// a text anywhere.
    pub(crate) fn reveal(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.reveal()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Secrets {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Secrets;

            fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
                to.write_str("an object of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Secrets, A::Error> {
                let mut all = Vec::<(String, Secret)>::new();
                while let Some(entry) = map.next_entry::<String, Secret>()? {
                    if all.iter().any(|(name, _)| *name == entry.0) {
                        return Err(A::Error::custom("a name is there twice"));
                    }
                    all.push(entry);
                }
                Ok(Secrets(all))
            }
        }
        from.deserialize_map(Names)
    }
}

#[cfg(feature = "schema")]
mod schema {
    use std::borrow::Cow;

    use schemars::{JsonSchema, Schema, SchemaGenerator};
    use serde::{Serialize, Serializer};

    use super::{Secret, Secrets};
    use crate::base::schema::{map, text_schema};

    text_schema! { Secret, "A secret text; empty means none.", "", [] }

    /// Shows whether there is a secret, and never which.
    impl Serialize for Secret {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.serialize_str(if self.is_set() { "(not shown)" } else { "" })
        }
    }

    impl Serialize for Secrets {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_map(self.0.iter().map(|(name, secret)| (name, secret)))
        }
    }

    impl JsonSchema for Secrets {
        fn schema_name() -> Cow<'static, str> {
            "Secrets".into()
        }

        fn json_schema(generator: &mut SchemaGenerator) -> Schema {
            map("Texts under names, each name once.", "", generator.subschema_for::<String>())
        }
    }
}

/// HMAC-SHA256 (RFC 2104) of the joined parts.
fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // An HMAC takes keys of any length, so this is no case that happens.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash::hex;

    #[test]
    fn the_vectors_of_rfc_4231_come_out() {
        let long = [0xaa; 131];
        let counting: Vec<u8> = (1..=25).collect();
        let text = b"This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.";
        for (case, key, data, expected) in [
            (
                1,
                &[0x0b; 20][..],
                &b"Hi There"[..],
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
            (
                2,
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                3,
                &[0xaa; 20],
                &[0xdd; 50],
                "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe",
            ),
            (
                4,
                &counting,
                &[0xcd; 50],
                "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b",
            ),
            (
                6,
                &long,
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
            ),
            (7, &long, text, "9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2"),
        ] {
            assert_eq!(hex(&hmac_sha256(key, &[data])), expected, "case {case}");
            let (first, rest) = data.split_at(data.len() / 2);
            assert_eq!(hex(&hmac_sha256(key, &[first, rest])), expected, "case {case}, in parts");
        }
        // Case 5 compares only the first half.
        let half = hex(&hmac_sha256(&[0x0c; 20], &[b"Test With Truncation"])[..16]);
        assert_eq!(half, "a3b6167473100ee06e0c796c2955552b");
    }

    #[test]
    fn a_secret_is_not_shown() {
        let secret = Secret::new("a secret of 25 characters").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        assert_eq!(Secret::new(""), None);
        let error = serde_json::from_str::<Secret>("1234567890123456").unwrap_err().to_string();
        assert!(!error.contains("1234567890123456"), "{error}");
    }
}
