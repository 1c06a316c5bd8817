//! Reads one spilled line, and checks its mac; `filter/EVENTS.md` describes the form.

use anyhow::{Context, ensure};
use hmac::Mac;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::access::SharedSecret;
use crate::hex::{hex, unhex};

/// What spilled lines begin with.
pub(super) const SPILL: &[u8] = b"agent-meter spill ";
/// The most parts of one text; a closing event has a few.
const PARTS_MAX: u32 = 4096;

/// What a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Event,
    Fact,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Fact => "fact",
        }
    }
}

/// The place of a part in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// From 1.
    pub(super) number: u32,
    pub(super) count: u32,
    /// The first 16 digits of the SHA-256 of the whole text.
    pub(super) of: String,
}

/// One spilled line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) part: Option<Part>,
    mac: Option<String>,
    /// The text, or this part of it.
    pub(super) text: String,
}

/// What the mac of a line says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// The filter with this secret wrote the line.
    Valid,
    /// There is none.
    Unsigned,
    /// It is wrong.
    Forged,
}

impl Line {
    /// Reads a line that begins with [`SPILL`].
    ///
    /// # Errors
    ///
    /// If the line is cut or damaged.
    pub(super) fn parse(line: &[u8]) -> anyhow::Result<Self> {
        // The text has no control characters: what follows one is the log's own.
        let end = line.iter().position(u8::is_ascii_control).unwrap_or(line.len());
        let line = line.get(SPILL.len()..end).unwrap_or_default();
        let mut rest = std::str::from_utf8(line).context("damaged: not UTF-8")?;
        let (mut part, mut of, mut mac) = (None, None, None);
        loop {
            let (name, behind) = rest.split_once('=').context("cut: no event= or fact= in it")?;
            let kind = match name {
                "event" => Kind::Event,
                "fact" => Kind::Fact,
                _ => {
                    let cut = || format!("cut behind {name}=");
                    let (value, behind) = behind.split_once(' ').with_context(cut)?;
                    match name {
                        "part" => part = Some(value),
                        "of" => of = Some(value.to_owned()),
                        "mac" => mac = Some(value.to_owned()),
                        _ => {}
                    }
                    rest = behind;
                    continue;
                }
            };
            let part = part.map(|part| Part::parse(part, of.unwrap_or_default())).transpose()?;
            // A whole text ends where its JSON does; a log may have added something.
            let text = match part {
                Some(_) => behind.to_owned(),
                None => first_json(kind, behind)?.to_owned(),
            };
            return Ok(Self { kind, part, mac, text });
        }
    }

    /// Checks the mac; `None` if there is no secret to check it with.
    pub(super) fn check(&self, secrets: &[SharedSecret]) -> Option<Proof> {
        let Some(told) = &self.mac else {
            return (!secrets.is_empty()).then_some(Proof::Unsigned);
        };
        let proofs = secrets.iter().map(|secret| self.check_with(secret, told));
        proofs.reduce(|one, other| if one == Proof::Valid { one } else { other })
    }

    fn check_with(&self, secret: &SharedSecret, told: &str) -> Proof {
        let part = self.part.as_ref();
        let part = part.map(|part| format!("{}/{} {}", part.number, part.count, part.of));
        let part = part.unwrap_or_default();
        let mac = secret.mac(&[
            b"agent-meter-spill.v1\n",
            self.kind.name().as_bytes(),
            b"\n",
            part.as_bytes(),
            b"\n",
            self.text.as_bytes(),
        ]);
        let told = unhex(told.as_bytes()).filter(|told| told.len() == 16);
        let is_right =
            told.zip(mac).is_some_and(|(told, mac)| mac.verify_truncated_left(&told).is_ok());
        if is_right { Proof::Valid } else { Proof::Forged }
    }

    /// Whether it has a mac.
    pub(super) fn is_signed(&self) -> bool {
        self.mac.is_some()
    }
}

impl Part {
    fn parse(text: &str, of: String) -> anyhow::Result<Self> {
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let (number, count): (u32, u32) =
            numbers.with_context(|| format!("damaged: part={text} is no part"))?;
        ensure!((1..=count.min(PARTS_MAX)).contains(&number), "damaged: part={text} is no part");
        Ok(Self { number, count, of })
    }
}

/// The JSON value with which a text begins.
pub(super) fn first_json(kind: Kind, text: &str) -> anyhow::Result<&str> {
    let kind = kind.name();
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    let value = values.next().with_context(|| format!("no {kind} after {kind}="))?;
    Ok(value.with_context(|| format!("{kind} is not JSON"))?.get())
}

/// The first 16 digits of the SHA-256 of a text.
pub(super) fn id_of(text: &str) -> String {
    hex(Sha256::digest(text.as_bytes()).get(..8).unwrap_or_default())
}
