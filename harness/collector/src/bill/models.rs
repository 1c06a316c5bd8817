//! The names under which bills sell models, and the ids under which generations have them.
//!
//! An id is compared without what names the same model at the same price: the region of a Bedrock
//! profile, the version of an API, and the day of a snapshot of Anthropic's. Nothing is matched
//! because it looks alike: a name that no line here has, and no `--model`, stays by itself.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};

use crate::bill::line::{Item, Provider, Subject};

/// Models by the id that is compared, with the names in Anthropic's console and in AWS' marketplace,
/// and in the usage types of Bedrock; as exports and price lists of 2025 and 2026 write them.
const MODELS: &[(&str, &[&str])] = &[
    ("claude-instant", &["Claude Instant", "ClaudeInstant"]),
    ("claude-v2", &["Claude 2", "Claude2.0"]),
    ("claude-3-opus", &["Claude 3 Opus", "Claude Opus 3", "Claude3Opus"]),
    ("claude-3-sonnet", &["Claude 3 Sonnet", "Claude Sonnet 3", "Claude3Sonnet"]),
    ("claude-3-haiku", &["Claude 3 Haiku", "Claude Haiku 3", "Claude3Haiku"]),
    (
        "claude-3-5-sonnet",
        &["Claude 3.5 Sonnet", "Claude 3.5 Sonnet v2", "Claude Sonnet 3.5", "Claude3.5Sonnet"],
    ),
    ("claude-3-5-haiku", &["Claude 3.5 Haiku", "Claude Haiku 3.5", "Claude3.5Haiku"]),
    ("claude-3-7-sonnet", &["Claude 3.7 Sonnet", "Claude Sonnet 3.7", "Claude3.7Sonnet"]),
    ("claude-sonnet-4", &["Claude Sonnet 4", "Claude4Sonnet", "ClaudeSonnet4"]),
    ("claude-opus-4", &["Claude Opus 4", "Claude4Opus", "ClaudeOpus4"]),
    ("claude-opus-4-1", &["Claude Opus 4.1", "Claude4.1Opus"]),
    ("claude-sonnet-4-5", &["Claude Sonnet 4.5", "Claude4.5Sonnet"]),
    ("claude-haiku-4-5", &["Claude Haiku 4.5", "Claude4.5Haiku"]),
    ("claude-opus-4-5", &["Claude Opus 4.5", "Claude4.5Opus"]),
    ("claude-sonnet-4-6", &["Claude Sonnet 4.6", "Claude4.6Sonnet"]),
    ("claude-opus-4-6", &["Claude Opus 4.6", "Claude4.6Opus"]),
    ("claude-opus-4-7", &["Claude Opus 4.7", "Claude4.7Opus"]),
    ("claude-sonnet-5", &["Claude Sonnet 5"]),
    ("claude-opus-5", &["Claude Opus 5"]),
    ("amazon.nova-micro", &["Nova Micro", "NovaMicro"]),
    ("amazon.nova-lite", &["Nova Lite", "NovaLite"]),
    ("amazon.nova-pro", &["Nova Pro", "NovaPro"]),
    ("amazon.nova-premier", &["Nova Premier", "NovaPremier"]),
    ("amazon.nova-2-lite", &["Nova 2.0 Lite", "Nova2.0Lite"]),
    ("amazon.nova-2-pro", &["Nova 2.0 Pro", "Nova2.0Pro"]),
    ("amazon.nova-2-omni", &["Nova 2.0 Omni", "Nova2.0Omni"]),
    ("amazon.titan-embed-text-v2", &["TitanEmbeddingV2-Text"]),
];

/// Where a Bedrock profile may send a request, as its id begins.
const REGIONS: [&str; 10] =
    ["us.", "us-gov.", "eu.", "apac.", "global.", "jp.", "au.", "ca.", "sa.", "me."];

/// The tables, and what the caller adds to them.
#[derive(Debug, Default)]
pub(super) struct Names {
    given: BTreeMap<String, String>,
    unused: BTreeSet<String>,
}

/// An item of the comparison, as the tables have it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) name: String,
    /// False if nothing says which model of ours it is.
    pub(super) is_known: bool,
    /// True if no metered call makes it.
    pub(super) is_service: bool,
}

impl Names {
    /// Takes texts such as `Claude4Sonnet=claude-sonnet-4-20250514`.
    pub(super) fn new(given: &[String]) -> anyhow::Result<Names> {
        let mut names = Names::default();
        for text in given {
            let (name, id) = text
                .rsplit_once('=')
                .filter(|(name, id)| !name.is_empty() && !id.is_empty())
                .with_context(|| format!("--model: expected NAME=ID, found {text:?}"))?;
            let before = names.given.insert(name.to_owned(), id.to_owned());
            ensure!(before.is_none(), "--model: {name:?} is given twice");
            names.unused.insert(name.to_owned());
        }
        Ok(names)
    }

    /// A name that the caller gave and no line has.
    pub(super) fn unused(&self) -> Option<&str> {
        self.unused.first().map(String::as_str)
    }

    /// What a line is about.
    pub(super) fn resolve(&mut self, provider: Provider, subject: &Subject) -> Resolved {
        let (text, known) = match subject {
            Subject::Id(id) => (id.as_str(), Some(compared(provider, id))),
            Subject::Name(name) => (name.as_str(), known(provider, name)),
            Subject::All => (Item::ALL, Some(Item::ALL.to_owned())),
            Subject::Unit(unit) => (*unit, Some((*unit).to_owned())),
            Subject::Service(name) | Subject::Unknown(name) => (name.as_str(), None),
        };
        if let Some(id) = self.given.get(text) {
            self.unused.remove(text);
            let name = compared(provider, id);
            return Resolved { name, is_known: true, is_service: false };
        }
        let is_known = known.is_some();
        let is_service = matches!(subject, Subject::Service(_));
        Resolved { name: known.unwrap_or_else(|| text.to_owned()), is_known, is_service }
    }
}

fn known(provider: Provider, name: &str) -> Option<String> {
    let found = MODELS.iter().find(|(_, names)| names.contains(&name));
    found.map(|(id, _)| compared(provider, id))
}

/// The part of a model's id that is compared.
pub(super) fn compared(provider: Provider, id: &str) -> String {
    match provider {
        Provider::OpenAi => id.to_owned(),
        Provider::Anthropic => without_day(id).to_owned(),
        Provider::Aws => {
            // An ARN has the id behind its last slash.
            let id = id.rsplit('/').next().unwrap_or(id);
            let id = REGIONS.iter().find_map(|region| id.strip_prefix(region)).unwrap_or(id);
            // InvokeModel answers with Anthropic's own id.
            let id = id.strip_prefix("anthropic.").unwrap_or(id);
            without_day(without_version(id)).to_owned()
        }
    }
}

/// Without `-20250514`.
fn without_day(id: &str) -> &str {
    let is_day = |day: &str| day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit());
    match id.rsplit_once('-') {
        Some((rest, day)) if is_day(day) && !rest.is_empty() => rest,
        _ => id,
    }
}

/// Without `-v1:0`, or the `:0` of a model whose version is part of its name.
fn without_version(id: &str) -> &str {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let Some((named, minor)) = id.rsplit_once(':') else { return id };
    if !is_number(minor) {
        return id;
    }
    match named.rsplit_once("-v") {
        Some((rest, major)) if major == "1" || (is_number(major) && without_day(rest) != rest) => {
            rest
        }
        _ => named,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_one_model_are_compared_as_one() {
        for (provider, id, expected) in [
            (Provider::OpenAi, "gpt-4o-2024-08-06", "gpt-4o-2024-08-06"),
            (Provider::Anthropic, "claude-opus-4-20250514", "claude-opus-4"),
            (Provider::Anthropic, "claude-opus-4-5", "claude-opus-4-5"),
            (Provider::Aws, "us.anthropic.claude-sonnet-4-20250514-v1:0", "claude-sonnet-4"),
            (Provider::Aws, "claude-sonnet-4-5-20250929", "claude-sonnet-4-5"),
            (
                Provider::Aws,
                "arn:aws:bedrock:eu-west-1:111122223333:inference-profile/eu.amazon.nova-lite-v1:0",
                "amazon.nova-lite",
            ),
            (Provider::Aws, "anthropic.claude-v2:1", "claude-v2"),
            (Provider::Aws, "anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5-sonnet"),
            (Provider::Aws, "amazon.titan-embed-text-v2:0", "amazon.titan-embed-text-v2"),
            (Provider::Aws, "openai.gpt-oss-120b", "openai.gpt-oss-120b"),
        ] {
            assert_eq!(compared(provider, id), expected, "{id}");
        }
    }

    #[test]
    fn each_name_is_of_one_model() {
        let mut seen = BTreeSet::new();
        for (id, names) in MODELS {
            for name in *names {
                assert!(seen.insert(name), "{name} twice, {id}");
            }
        }
    }

    #[test]
    fn a_name_that_no_table_has_stays_by_itself_unless_the_caller_knows_it() {
        let mut names = Names::new(&["Zap9=claude-opus-5".to_owned()]).expect("names");
        let mut of = |name: &str| {
            let found = names.resolve(Provider::Aws, &Subject::Name(name.to_owned()));
            (found.name, found.is_known)
        };
        assert_eq!(of("Claude4Sonnet"), ("claude-sonnet-4".to_owned(), true));
        assert_eq!(of("Claude4Sonett"), ("Claude4Sonett".to_owned(), false));
        assert_eq!(of("Zap9"), ("claude-opus-5".to_owned(), true));
        assert_eq!(names.unused(), None);
        for text in ["Zap9", "=id", "name="] {
            assert!(Names::new(&[text.to_owned()]).is_err(), "{text}");
        }
    }
}
