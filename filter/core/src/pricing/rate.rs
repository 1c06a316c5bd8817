//! One entry of a rate card: whose tokens it prices, when, and each rate. The card finds the entry.

use core::fmt;

use rust_decimal::Decimal;
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IntoDeserializer, MapAccess, Visitor,
};

use crate::base::invalid::{ConfigError, error};
use crate::base::text::Price;
use crate::base::time::Timestamp;
use crate::domain::price_factors::{PriceFactors, ServiceTier};
use crate::domain::seller::Seller;
use crate::domain::units::UnitName;
use crate::domain::usage::TokenKind;
use crate::pricing::circumstances::Circumstances;
use crate::pricing::instant::Instant;
use crate::pricing::multipliers::Multipliers;
use crate::pricing::unit_rates::{GeneralRate, UnitRates};
use crate::pricing::unpriced::Unpriced;
use crate::pricing::when::When;
use crate::protocol::llm::provider::{Family, Provider};

/// The rates of a model at a provider.
///
/// A lookup tries the service tier's context tier, the service tier, the standard context tier and
/// the standard rates, in this order: a tier that does not name a kind leaves its rate unchanged.
#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    /// `None` stands for any provider.
    pub(super) provider: Option<Seller>,
    /// A name, or a pattern in which `*` stands for any text.
    pub(super) model: Box<str>,
    /// Further names and patterns.
    pub(super) aliases: Box<[Box<str>]>,
    from: Timestamp,
    to: Timestamp,
    standard: Table,
    service_tiers: Box<[(ServiceTier, Table)]>,
    multipliers: Multipliers,
    pub(super) when: When,
}

/// How well a rate fits a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It is of this provider.
    Own,
    /// It is of all that speak as OpenAI does.
    Compatible,
    /// It is of any provider.
    AnyProvider,
}

/// The named kinds, each with its rate for a million tokens. They are few, so a list is smallest
/// and fastest.
type Rates = Box<[(TokenKind, Decimal)]>;

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Table {
    rates: Rates,
    units: UnitRates,
    /// Sorted by ascending threshold.
    context_tiers: Box<[ContextTier]>,
}

/// Applies to requests with more than so many input tokens, and then to all tokens of the request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ContextTier {
    above_input_tokens: u64,
    rates: Rates,
}

impl Rate {
    /// The model as the card names it: a name or a pattern.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The provider; `None` stands for any.
    pub const fn provider(&self) -> Option<Seller> {
        self.provider
    }

    /// Whether it is in force, from its `effective_from` to before its `effective_to`, and its
    /// conditions hold.
    pub(crate) fn applies(&self, circumstances: &Circumstances) -> bool {
        let at = circumstances.started_at;
        self.from <= at && at < self.to && self.when.holds(circumstances)
    }

    /// How well it fits a provider, best first; `None` if it does not. A rate of
    /// `openai_compatible` is one of every provider with this format.
    pub(super) fn rank(&self, provider: Provider) -> Option<Rank> {
        match self.provider {
            None => Some(Rank::AnyProvider),
            Some(seller) if seller == provider.seller => Some(Rank::Own),
            Some(seller)
                if provider.family == Family::OpenAiCompatible
                    && seller == Family::OpenAiCompatible.seller() =>
            {
                Some(Rank::Compatible)
            }
            Some(_) => None,
        }
    }

    /// Whether it has the price of units only.
    pub(super) fn is_of_units_only(&self) -> bool {
        self.standard.rates.is_empty() && self.service_tiers.iter().all(|(_, t)| t.rates.is_empty())
    }

    /// The rate for one of a unit, and what it does not name of these factors. Without the tier it is
    /// the standard one.
    pub(super) fn general_rate(
        &self,
        name: UnitName,
        factors: &PriceFactors,
    ) -> Option<GeneralRate> {
        match self.in_force(factors, 0) {
            Ok(in_force) => in_force.unit_rate(name).map(|amount| (amount, None)),
            Err(lacks) => self.standard.units.rate(name).map(|amount| (amount, Some(lacks))),
        }
        .map(|(amount, lacks)| GeneralRate { amount, lacks })
    }

    /// Whether both may apply, and neither goes before the other.
    pub(super) fn is_overlapping(&self, other: &Self) -> bool {
        self.from < other.to && other.from < self.to && self.when == other.when
    }

    /// The model and its aliases.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        core::iter::once(&self.model).chain(&self.aliases).map(|name| &**name)
    }

    /// The rates of a generation with these factors and so many input tokens in one run of the
    /// model. What the rate does not name has no price.
    pub(super) fn in_force(
        &self,
        factors: &PriceFactors,
        input_tokens: u64,
    ) -> Result<InForce<'_>, Unpriced> {
        let tier = factors.service_tier;
        let own = self.service_tiers.iter().find(|(named, _)| *named == tier);
        let own = own.map(|(_, table)| table);
        if own.is_none() && tier != ServiceTier::Standard {
            return Err(Unpriced::NoRateForTier(tier));
        }
        let multiplier = self.multipliers.product(factors, &self.when)?;
        let own_tier = own.and_then(|table| table.context_tier(input_tokens));
        let standard_tier = self.standard.context_tier(input_tokens);
        Ok(InForce {
            multiplier,
            above_input_tokens: own_tier.or(standard_tier).map(|tier| tier.above_input_tokens),
            units: [own.map(|table| &table.units), Some(&self.standard.units)],
            sets: [
                own_tier.map(|tier| &tier.rates),
                own.map(|table| &table.rates),
                standard_tier.map(|tier| &tier.rates),
                Some(&self.standard.rates),
            ],
        })
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        if self.model.is_empty() {
            let reason = "expected a model's name or pattern, found an empty string";
            return Err(error(&format!("{path}.model"), reason));
        }
        if let Some(at) = self.aliases.iter().position(|alias| alias.is_empty()) {
            let reason = "expected a model's name or pattern, found an empty string";
            return Err(error(&format!("{path}.aliases[{at}]"), reason));
        }
        if self.to <= self.from {
            let reason = "expected a time after `effective_from`";
            return Err(error(&format!("{path}.effective_to"), reason));
        }
        self.standard.validate(path)?;
        for (tier, table) in &self.service_tiers {
            table.validate(&format!("{path}.service_tiers.{}", tier.name()))?;
        }
        Ok(())
    }
}

/// The rates that apply to one generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct InForce<'a> {
    multiplier: Decimal,
    pub(super) above_input_tokens: Option<u64>,
    sets: [Option<&'a Rates>; 4],
    units: [Option<&'a UnitRates>; 2],
}

impl InForce<'_> {
    /// The rate for a million tokens of this kind, if it has a rate of its own. A cache write for 1
    /// hour costs as much as one for 5 minutes if only that has a rate. Every other kind without a
    /// rate is charged as the kind that it is a part of.
    pub(super) fn rate(&self, kind: TokenKind) -> Option<Decimal> {
        let own = |kind: TokenKind| {
            self.sets
                .iter()
                .flatten()
                .find_map(|set| set.iter().find(|(named, _)| *named == kind))
                .map(|(_, rate)| *rate)
        };
        let rate = if kind == TokenKind::CacheWrite1h {
            own(kind).or_else(|| own(TokenKind::CacheWrite5m))
        } else {
            own(kind)
        };
        // A product that a decimal cannot hold has more places than a cost may have.
        rate.map(|rate| rate.checked_mul(self.multiplier).unwrap_or(Decimal::MAX).normalize())
    }

    /// The rate for one of a unit. Multipliers and context tiers are for tokens.
    pub(super) fn unit_rate(&self, name: UnitName) -> Option<Decimal> {
        self.units.iter().flatten().find_map(|units| units.rate(name))
    }
}

impl Table {
    fn context_tier(&self, input_tokens: u64) -> Option<&ContextTier> {
        self.context_tiers.iter().rfind(|tier| tier.above_input_tokens < input_tokens)
    }

    fn validate(&self, path: &str) -> Result<(), ConfigError> {
        if self.rates.is_empty() && self.units.is_empty() {
            return Err(error(path, "expected at least one rate such as `input`, found none"));
        }
        let mut below = None;
        for (at, tier) in self.context_tiers.iter().enumerate() {
            let path = format!("{path}.context_tiers[{at}]");
            if tier.rates.is_empty() {
                let reason = "expected at least one rate such as `input`, found none";
                return Err(error(&path, reason));
            }
            if below >= Some(tier.above_input_tokens) {
                let reason = "expected more than in the context tier before";
                return Err(error(&format!("{path}.above_input_tokens"), reason));
            }
            below = Some(tier.above_input_tokens);
        }
        Ok(())
    }
}

/// A provider, or `*` for any.
struct AnyProvider(Option<Seller>);

impl<'de> Deserialize<'de> for AnyProvider {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        if text == "*" {
            return Ok(Self(None));
        }
        Seller::deserialize(text.into_deserializer()).map(|seller| Self(Some(seller)))
    }
}

/// All members of an entry, a service tier or a context tier, which have the rates in common.
#[derive(Default)]
struct Members {
    rates: Vec<(TokenKind, Decimal)>,
    provider: Option<AnyProvider>,
    model: Option<Box<str>>,
    aliases: Option<Box<[Box<str>]>>,
    effective_from: Option<Instant>,
    effective_to: Option<Instant>,
    above_input_tokens: Option<u64>,
    context_tiers: Option<Box<[ContextTier]>>,
    service_tiers: Option<ServiceTiers>,
    multipliers: Option<Multipliers>,
    units: Option<UnitRates>,
    when: Option<When>,
}

/// The special tiers of an entry. The standard rates stand beside this object.
#[derive(Default)]
struct ServiceTiers(Vec<(ServiceTier, Table)>);

impl<'de> Deserialize<'de> for ServiceTiers {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(TiersReader)
    }
}

struct TiersReader;

impl<'de> Visitor<'de> for TiersReader {
    type Value = ServiceTiers;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of service tiers such as `priority`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ServiceTiers, A::Error> {
        let mut tiers: Vec<(ServiceTier, Table)> = Vec::new();
        while let Some(TierName(tier)) = map.next_key()? {
            if tiers.iter().any(|(named, _)| *named == tier) {
                return Err(A::Error::custom(format!("duplicate tier `{}`", tier.name())));
            }
            tiers.push((tier, map.next_value()?));
        }
        Ok(ServiceTiers(tiers))
    }
}

/// The name of a tier other than the standard one.
struct TierName(ServiceTier);

impl<'de> Deserialize<'de> for TierName {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = String::deserialize(from)?;
        let tier = ServiceTier::new(&name);
        if tier == ServiceTier::Standard || tier.name() != name {
            let expected = "the name of a tier as events tell it, such as `priority`; the standard rates stand beside `service_tiers`";
            return Err(D::Error::custom(format!("unknown tier `{name}`, expected {expected}")));
        }
        Ok(Self(tier))
    }
}

/// The names of an entry's [`Members`], except the rates.
pub(super) const RATE: &[&str] = &[
    "provider",
    "model",
    "aliases",
    "effective_from",
    "effective_to",
    "context_tiers",
    "service_tiers",
    "multipliers",
    "units",
    "when",
];

pub(super) const TABLE: &[&str] = &["context_tiers", "units"];

pub(super) const CONTEXT_TIER: &[&str] = &["above_input_tokens"];

/// Reads an object that may have these members, and any rate.
struct Reader(&'static [&'static str]);

impl<'de> Visitor<'de> for Reader {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with rates such as `input`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key_seed(KeyReader(self.0))? {
            let name = match name {
                Key::Member(name) => name,
                Key::Kind(kind) => {
                    if members.rates.iter().any(|(named, _)| *named == kind) {
                        return Err(A::Error::duplicate_field(kind.name()));
                    }
                    members.rates.push((kind, map.next_value::<Price>()?.amount()));
                    continue;
                }
            };
            let is_new = match name {
                "provider" => members.provider.replace(map.next_value()?).is_none(),
                "model" => members.model.replace(map.next_value()?).is_none(),
                "aliases" => members.aliases.replace(map.next_value()?).is_none(),
                "effective_from" => members.effective_from.replace(map.next_value()?).is_none(),
                "effective_to" => members.effective_to.replace(map.next_value()?).is_none(),
                "context_tiers" => members.context_tiers.replace(map.next_value()?).is_none(),
                "service_tiers" => members.service_tiers.replace(map.next_value()?).is_none(),
                "when" => members.when.replace(map.next_value()?).is_none(),
                "units" => members.units.replace(map.next_value()?).is_none(),
                "multipliers" => members.multipliers.replace(map.next_value()?).is_none(),
                _ => members.above_input_tokens.replace(map.next_value()?).is_none(),
            };
            if !is_new {
                return Err(A::Error::duplicate_field(name));
            }
        }
        members.rates.sort_unstable_by_key(|(kind, _)| *kind);
        Ok(members)
    }
}

enum Key {
    Kind(TokenKind),
    Member(&'static str),
}

/// Reads a member's name. Refuses an unknown name here and not at its value, so that the error
/// gives its place.
struct KeyReader(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KeyReader {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Key, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl Visitor<'_> for KeyReader {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
        if let Some(kind) = TokenKind::ALL.into_iter().find(|kind| kind.name() == name) {
            return Ok(Key::Kind(kind));
        }
        if let Some(member) = self.0.iter().find(|member| **member == name) {
            return Ok(Key::Member(member));
        }
        let known = self.0.iter().copied().chain(TokenKind::ALL.map(TokenKind::name));
        let known = known.collect::<Vec<_>>().join("`, `");
        Err(E::custom(format!("unknown field `{name}`, expected one of `{known}`")))
    }
}

impl<'de> Deserialize<'de> for Rate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let members = from.deserialize_map(Reader(RATE))?;
        Ok(Self {
            provider: members.provider.ok_or_else(|| D::Error::missing_field("provider"))?.0,
            model: members.model.ok_or_else(|| D::Error::missing_field("model"))?,
            aliases: members.aliases.unwrap_or_default(),
            from: members.effective_from.map_or(Timestamp(0), |from| from.0),
            to: members.effective_to.map_or(Timestamp(u64::MAX), |to| to.0),
            standard: Table {
                rates: members.rates.into_boxed_slice(),
                units: members.units.unwrap_or_default(),
                context_tiers: members.context_tiers.unwrap_or_default(),
            },
            service_tiers: members.service_tiers.unwrap_or_default().0.into_boxed_slice(),
            multipliers: members.multipliers.unwrap_or_default(),
            when: members.when.unwrap_or_default(),
        })
    }
}

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let members = from.deserialize_map(Reader(TABLE))?;
        Ok(Self {
            rates: members.rates.into_boxed_slice(),
            units: members.units.unwrap_or_default(),
            context_tiers: members.context_tiers.unwrap_or_default(),
        })
    }
}

impl<'de> Deserialize<'de> for ContextTier {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let members = from.deserialize_map(Reader(CONTEXT_TIER))?;
        let above = members.above_input_tokens;
        Ok(Self {
            above_input_tokens: above
                .ok_or_else(|| D::Error::missing_field("above_input_tokens"))?,
            rates: members.rates.into_boxed_slice(),
        })
    }
}
