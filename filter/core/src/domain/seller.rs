//! Who sells the use of a model.

use core::fmt;

use serde::de::{Deserialize, Deserializer, Error};
use serde::{Serialize, Serializer};

use crate::domain::price_factors::{WORD_BYTES_MAX, Word};

/// The name of who sells the use of a model, and bills for it. Rates, events, the ledger and
/// invoices go by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seller(Word);

impl Seller {
    /// The seller of this name; `None` if it is no name: 1 to 31 lower-case letters, digits, `-`,
    /// `_` and `.`.
    pub fn new(name: &str) -> Option<Self> {
        let is_plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte);
        let is_name = (1..=WORD_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain);
        is_name.then(|| Self(Word::new(name)))
    }

    /// The seller of a name that the code holds.
    pub(crate) fn known(name: &'static str) -> Self {
        debug_assert!(Self::new(name).is_some(), "{name}");
        Self(Word::new(name))
    }

    /// The name.
    pub fn name(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Debug for Seller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Seller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Seller {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

#[cfg(feature = "schema")]
crate::base::schema::text_schema! {
    Seller,
    "The name of who sells the use of a model: 1 to 31 lower-case letters, digits, `-`, `_` and `.`.",
    "^[a-z0-9_.-]{1,31}$",
    ["openai", "anthropic", "groq"]
}

impl<'de> Deserialize<'de> for Seller {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        Self::new(&name).ok_or_else(|| {
            D::Error::custom(format!(
                "expected a provider's name of 1 to {WORD_BYTES_MAX} lower-case letters, digits, `-`, `_` and `.`, found {name:?}"
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Seller;

    #[test]
    fn a_name_is_plain_and_short() {
        for (name, is_name) in [
            ("groq", true),
            ("vercel_ai_gateway", true),
            ("z.ai-2", true),
            ("a234567890123456789012345678901", true),
            ("a2345678901234567890123456789012", false),
            ("", false),
            ("Groq", false),
            ("a b", false),
            ("a:b", false),
            ("caf\u{e9}", false),
            ("*", false),
        ] {
            let seller = Seller::new(name);
            assert_eq!(seller.is_some(), is_name, "{name:?}");
            assert!(seller.is_none_or(|seller| seller.name() == name), "{name:?}");
        }
    }
}
