//! Reads Envoy's log after a failure: the filter's error, and the last lines.

use std::fs;
use std::path::Path;

use anyhow::{Error, anyhow};

const TAIL_LINES: usize = 40;

/// An error for `what`: the filter's own error first, then the last lines of the log.
pub(super) fn failure(what: &str, log: &Path) -> Error {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|error| format!("cannot read {}: {error}", log.display()));
    describe(what, &text)
}

/// The same as [`failure`], from the text of a log.
pub(super) fn describe(what: &str, text: &str) -> Error {
    let lines: Vec<&str> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n  ");
    match filter_error(text) {
        Some(error) => anyhow!("{what}: {error}\n  {tail}"),
        None => anyhow!("{what}; the end of Envoy's log:\n  {tail}"),
    }
}

/// The first message that the filter logged as an error, without Envoy's prefix.
pub(super) fn filter_error(text: &str) -> Option<&str> {
    text.lines()
        .filter(|line| line.contains("[error][wasm]") || line.contains("[critical][wasm]"))
        .find_map(|line| line.split_once("wasm log ")?.1.split_once(": ").map(|(_, said)| said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_s_own_error_comes_first() {
        let log = "[t][1][info][wasm] [c.cc:1] wasm log agent-meter: hello: there\n\
                   [t][1][error][wasm] [c.cc:1] wasm log agent-meter agent-meter: products: missing\n\
                   [t][1][critical][main] [s.cc:1] error initializing config\n";
        assert_eq!(filter_error(log), Some("products: missing"));
        let text = describe("envoy stopped", log).to_string();
        assert!(text.starts_with("envoy stopped: products: missing\n"), "{text}");
        assert!(text.ends_with("error initializing config"), "{text}");
    }
}
