//! Reads Envoy's log after a failure: why Envoy did not start or ended, in one line.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::suggest;

/// What the filter says of a configuration that it does not take.
const REFUSED: &str = "agent-meter configuration refused: ";
/// What Envoy says of an address on which it cannot listen.
const CANNOT_BIND: &str = "cannot bind ";

/// Why Envoy did not start, or ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What happened to Envoy.
    what: String,
    /// The filter's reason, or Envoy's own.
    reason: Option<String>,
    /// The log, which stays.
    log: PathBuf,
}

impl Failure {
    /// Reads the reason from the log.
    pub(super) fn read(what: &str, log: &Path) -> Self {
        let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let reason = match &text {
            Ok(text) => filter_error(text).or_else(|| last_words(text)).map(suggest::with_name),
            Err(error) => Some(format!("cannot read {}: {error}", log.display())),
        };
        Self { what: what.to_owned(), reason, log: log.to_owned() }
    }

    /// The filter's own line, if it refused the configuration.
    pub fn refusal(&self) -> Option<&str> {
        self.reason.as_deref().filter(|reason| reason.starts_with(REFUSED))
    }

    /// True if the reason says it all, so that nobody needs the log.
    pub fn is_plain(&self) -> bool {
        let is_plain =
            |reason: &str| reason.starts_with(REFUSED) || reason.starts_with(CANNOT_BIND);
        self.reason.as_deref().is_some_and(is_plain)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Some(reason) if self.is_plain() => f.write_str(reason),
            Some(reason) => {
                write!(f, "{}: {reason}; Envoy's log is {}", self.what, self.log.display())
            }
            None => write!(f, "{}; Envoy's log is {}", self.what, self.log.display()),
        }
    }
}

impl std::error::Error for Failure {}

/// The first message that the filter logged as an error, without Envoy's prefix.
fn filter_error(text: &str) -> Option<&str> {
    text.lines()
        .filter(|line| line.contains("[error][wasm]") || line.contains("[critical][wasm]"))
        .find_map(|line| line.split_once("wasm log ")?.1.split_once(": ").map(|(_, said)| said))
}

/// What Envoy prints without the prefix of its log when it gives up.
fn last_words(text: &str) -> Option<&str> {
    let last = text.lines().rev().find(|line| !line.trim().is_empty())?;
    (!last.starts_with('[')).then(|| last.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The failure that this log tells.
    fn failure(log: &str) -> Failure {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("envoy.log");
        fs::write(&file, log).expect("a log");
        Failure { log: "LOG".into(), ..Failure::read("Envoy stopped", &file) }
    }

    #[test]
    fn the_reason_is_one_line_and_the_log_is_named_where_it_helps() {
        let start = "[t][1][info][wasm] [c.cc:1] wasm log agent-meter: hello: there\n";
        for (end, expected, is_plain) in [
            (
                "[t][1][error][wasm] [c.cc:1] wasm log agent-meter agent-meter: agent-meter configuration refused: products: missing\n\
                 [t][1][critical][main] [s.cc:1] error initializing config\n\
                 Unable to create Wasm plugin agent-meter\n",
                "agent-meter configuration refused: products: missing",
                true,
            ),
            (
                "[t][1][info][main] [s.cc:1] exiting\ncannot bind '127.0.0.1:1': Address already in use\n",
                "cannot bind '127.0.0.1:1': Address already in use",
                true,
            ),
            (
                "[t][1][error][wasm] [c.cc:1] wasm log a: agent-meter panicked at x\n",
                "Envoy stopped: agent-meter panicked at x; Envoy's log is LOG",
                false,
            ),
            (
                "[t][1][info][main] [s.cc:1] exiting\nProtobuf message (x) has unknown fields\n\n",
                "Envoy stopped: Protobuf message (x) has unknown fields; Envoy's log is LOG",
                false,
            ),
            ("[t][1][info][main] [s.cc:1] exiting\n", "Envoy stopped; Envoy's log is LOG", false),
        ] {
            let failure = failure(&format!("{start}{end}"));
            assert_eq!(failure.to_string(), expected);
            assert_eq!(failure.is_plain(), is_plain, "{expected}");
            assert_eq!(failure.refusal().is_some(), expected.starts_with(REFUSED), "{expected}");
        }
    }

    #[test]
    fn a_log_that_is_gone_is_a_reason_too() {
        let failure = Failure::read("Envoy stopped", Path::new("/nowhere/envoy.log"));
        let text = failure.to_string();
        assert!(text.starts_with("Envoy stopped: cannot read /nowhere/envoy.log: "), "{text}");
    }
}
