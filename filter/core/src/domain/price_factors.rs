//! What moves the price of a generation besides its tokens, in the provider's own words.

use core::fmt;

use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

/// The most bytes of a provider's word that count.
pub(crate) const WORD_BYTES_MAX: usize = 31;

/// Stands for a provider's word that is there and cannot be read. No rate names it.
pub(crate) const UNREADABLE: &str = "unreadable";

/// A word of a provider, in lower case, cut at [`WORD_BYTES_MAX`] bytes. Everything beyond letters,
/// digits and `-._:` is `_`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word {
    bytes: [u8; WORD_BYTES_MAX],
    length: u8,
}

impl Word {
    /// Takes over a provider's word.
    pub fn new(text: &str) -> Self {
        let mut word = Self { bytes: [0; WORD_BYTES_MAX], length: 0 };
        for (place, byte) in word.bytes.iter_mut().zip(text.trim().bytes()) {
            let is_plain = byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
            *place = if is_plain { byte.to_ascii_lowercase() } else { b'_' };
            word.length = word.length.saturating_add(1);
        }
        word
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        let bytes = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        core::str::from_utf8(bytes).unwrap_or_default()
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.as_str())
    }
}

#[cfg(feature = "schema")]
crate::base::schema::text_schema! {
    Word,
    "A word of a provider. The filter reads it in lower case, and 31 bytes of it.",
    "",
    ["fast", "eu"]
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self::new(&text))
    }
}

/// The tier that the provider says it used, else that the request asked for; it decides the rate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceTier {
    /// The list price.
    #[default]
    Standard,
    /// Cheaper; the provider finishes within a day.
    Batch,
    /// Cheaper; the provider processes it when it has spare capacity.
    Flex,
    /// More expensive; the provider processes it first.
    Priority,
    /// Any other, such as `fast` or `provisioned_throughput`.
    Other(Word),
}

impl ServiceTier {
    /// The tier of a provider's word. Only words that are known to mean the list price mean it.
    pub fn new(word: &str) -> Self {
        Self::of(bare(word))
    }

    fn of(word: Word) -> Self {
        match word.as_str() {
            "" | "standard" | "default" | "auto" | "on_demand" | "standard_only"
            | "unspecified" => Self::Standard,
            "batch" => Self::Batch,
            "flex" => Self::Flex,
            "priority" => Self::Priority,
            _ => Self::Other(word),
        }
    }

    /// The tier that a request or a response tells by a word; `None` if the word says nothing.
    pub fn told(word: &str) -> Option<Self> {
        let bare = bare(word);
        let is_silent = bare.as_str() == "unspecified" || word.trim().is_empty();
        (!is_silent).then(|| Self::of(bare))
    }

    /// The name in events and rate cards.
    pub fn name(&self) -> &str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
            Self::Other(word) => word.as_str(),
        }
    }
}

/// A tier without what Vertex AI puts before the names of its traffic types, and Gemini before the
/// tiers in its requests.
fn bare(tier: &str) -> Word {
    let prefixes = ["SERVICE_TIER_", "TRAFFIC_TYPE_", "ON_DEMAND_"];
    let tier = tier.trim();
    let bare = prefixes.into_iter().find_map(|prefix| tier.strip_prefix(prefix));
    Word::new(bare.unwrap_or(tier))
}

impl Serialize for ServiceTier {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for ServiceTier {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|word| Self::new(&word))
    }
}

macro_rules! modifiers {
    ($($(#[doc = $doc:literal])+
        $modifier:ident, $field:ident = $name:literal, standard $standard:expr;)+
    ) => {
        /// What a price is multiplied for, besides the tier.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Modifier { $($(#[doc = $doc])+ $modifier,)+ }

        impl Modifier {
            /// Every modifier.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$modifier),+];

            /// The name in events and rate cards.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$modifier => $name,)+ }
            }

            /// The words that mean the list price.
            const fn standard(self) -> &'static [&'static str] {
                match self { $(Self::$modifier => $standard,)+ }
            }
        }

        /// The modifiers of one generation; `None` is the list price.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub struct Modifiers {
            $($(#[doc = $doc])+ $field: Option<Word>,)+
        }

        impl Modifiers {
            /// The word for this modifier.
            pub const fn get(&self, modifier: Modifier) -> Option<Word> {
                match modifier { $(Modifier::$modifier => self.$field,)+ }
            }

            const fn place(&mut self, modifier: Modifier) -> &mut Option<Word> {
                match modifier { $(Modifier::$modifier => &mut self.$field,)+ }
            }

            /// These modifiers; `other` supplies the ones that are not told here.
            #[must_use]
            pub fn or(self, other: Self) -> Self {
                Self { $($field: self.$field.or(other.$field),)+ }
            }
        }
    };
}

modifiers! {
    /// How fast the model runs: Anthropic's `speed`.
    Speed, speed = "speed", standard &["standard", "default"];
    /// Where the model runs: Anthropic's `inference_geo`.
    InferenceGeo, inference_geo = "inference_geo", standard &["global", "not_available"];
    /// How soon the answer comes: `performanceConfig.latency` of Bedrock.
    Latency, latency = "latency", standard &["standard"];
}

impl Modifiers {
    /// Takes over a provider's word. One that means the list price stays here too, so that it is
    /// known that it was told.
    pub fn tell(&mut self, modifier: Modifier, word: &str) {
        *self.place(modifier) = Some(Word::new(word));
    }

    /// Those that do not mean the list price.
    pub fn special(&self) -> impl Iterator<Item = (Modifier, Word)> {
        let modifiers = *self;
        let told = move |modifier: Modifier| {
            let word = modifiers.get(modifier)?;
            let is_standard =
                word.as_str().is_empty() || modifier.standard().contains(&word.as_str());
            (!is_standard).then_some((modifier, word))
        };
        Modifier::ALL.into_iter().filter_map(told)
    }
}

/// All that moves the price of a generation besides its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PriceFactors {
    /// The tier.
    pub service_tier: ServiceTier,
    /// What the price is multiplied for.
    pub modifiers: Modifiers,
    /// Where the model ran, if the host, the path or the configuration tells it.
    pub location: Option<Word>,
    /// Whether the model thought before it answered.
    pub is_thinking: bool,
}

impl From<ServiceTier> for PriceFactors {
    fn from(service_tier: ServiceTier) -> Self {
        Self { service_tier, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_not_known_is_not_the_list_price() {
        for (word, name) in [
            ("default", "standard"),
            ("auto", "standard"),
            ("ON_DEMAND", "standard"),
            ("SERVICE_TIER_STANDARD", "standard"),
            ("TRAFFIC_TYPE_UNSPECIFIED", "standard"),
            ("", "standard"),
            ("Priority", "priority"),
            ("ON_DEMAND_FLEX", "flex"),
            ("ON_DEMAND_OFFPEAK", "offpeak"),
            ("PROVISIONED_THROUGHPUT", "provisioned_throughput"),
            ("platinum", "platinum"),
            (" Ultra Fast\n", "ultra_fast"),
            ("ein\u{e4}", "ein__"),
            ("a-word-that-is-longer-than-any-provider-uses", "a-word-that-is-longer-than-any-"),
        ] {
            assert_eq!(ServiceTier::new(word).name(), name, "{word:?}");
        }
    }

    #[test]
    fn a_word_that_says_nothing_tells_no_tier() {
        for word in ["", " ", "\n", "TRAFFIC_TYPE_UNSPECIFIED", "SERVICE_TIER_UNSPECIFIED"] {
            assert_eq!(ServiceTier::told(word), None, "{word:?}");
        }
        assert_eq!(ServiceTier::told("default"), Some(ServiceTier::Standard));
    }

    #[test]
    fn modifiers_that_mean_the_list_price_are_not_special() {
        let mut modifiers = Modifiers::default();
        modifiers.tell(Modifier::Speed, "standard");
        modifiers.tell(Modifier::InferenceGeo, "not_available");
        assert_eq!(modifiers.special().count(), 0);
        modifiers.tell(Modifier::InferenceGeo, "us");
        let special: Vec<_> = modifiers.special().collect();
        assert_eq!(special, [(Modifier::InferenceGeo, Word::new("us"))]);
    }
}
