//! Names what a misspelt name in a configuration was probably meant to be.

use std::borrow::Cow;

use strsim::damerau_levenshtein;

/// Before the name that nobody knows, in the words of serde.
const UNKNOWN: [&str; 2] = ["unknown field `", "unknown variant `"];

/// Adds `did you mean ...?` to an error that tells an unknown name and the names that it expected, if one
/// of these is near; leaves any other text as it is.
pub fn with_name(error: &str) -> String {
    let meant = meant(error);
    let question = meant.map_or(Cow::default(), |name| format!("; did you mean `{name}`?").into());
    format!("{error}{question}")
}

/// The expected name that is nearest to the unknown one.
fn meant(error: &str) -> Option<&str> {
    let at = UNKNOWN.iter().find_map(|words| Some(error.find(words)? + words.len()))?;
    let (found, rest) = error.get(at..)?.split_once("`, expected ")?;
    let found = found.to_lowercase();
    // Every second part is between backquotes.
    let expected = rest.split('`').skip(1).step_by(2);
    let near = expected.map(|name| (distance(&found, &name.to_lowercase()), name));
    let (distance, name) = near.min_by_key(|(distance, _)| *distance)?;
    (distance <= tolerance(&found, name)).then_some(name)
}

/// How many letters have to change; none, if only the words stand in another order or number.
fn distance(found: &str, name: &str) -> usize {
    let parts = |text: &str| {
        let words = text.split(['_', '-', ' ']).map(|word| word.trim_end_matches('s').to_owned());
        let mut words: Vec<String> = words.collect();
        words.sort();
        words
    };
    if parts(found) == parts(name) { 0 } else { damerau_levenshtein(found, name) }
}

/// How many letters may differ: a third of the shorter name, and one at least.
fn tolerance(found: &str, name: &str) -> usize {
    (found.chars().count().min(name.chars().count()) / 3).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_expected_name_is_suggested_if_it_is_near() {
        for (error, suggested) in [
            (
                "unknown field `colector`, expected one of `collector`, `delivery`, `products`",
                Some("collector"),
            ),
            ("a.b: unknown field `prize`, expected `price` or `cost_tier`", Some("price")),
            (
                "unknown field `path_prfix`, expected one of `path`, `path_prefix`",
                Some("path_prefix"),
            ),
            ("unknown field `timeout_idle`, expected `idle_timeout`", Some("idle_timeout")),
            ("unknown field `rate_card`, expected `rate_cards`", Some("rate_cards")),
            (
                "unknown variant `MCP-SERVER`, expected `MCP_SERVER` or `AI_AGENT`",
                Some("MCP_SERVER"),
            ),
            ("unknown variant `mcp_server`, expected `MCP_SERVER`", Some("MCP_SERVER")),
            ("unknown field `hsot`, expected one of `host`, `path`", Some("host")),
            ("unknown field `zebra`, expected one of `host`, `path`", None),
            ("unknown field `x`, expected one of `host`, `path`", None),
            ("unknown field `x`, there are no fields", None),
            ("missing field `products`", None),
            ("unknown field `a", None),
        ] {
            let question = suggested.map(|name| format!("; did you mean `{name}`?"));
            assert_eq!(with_name(error), format!("{error}{}", question.unwrap_or_default()));
        }
    }
}
