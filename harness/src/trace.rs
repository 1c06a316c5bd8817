//! W3C trace context in the header `traceparent`: it links a request to an agent's call.

use std::sync::atomic::{AtomicU64, Ordering};

/// The name of the header, and of the member of MCP's `_meta`.
pub const TRACEPARENT: &str = "traceparent";

/// The name of the header with what others have added to the trace; applications carry it along.
pub const TRACESTATE: &str = "tracestate";

/// The first half of this program's trace ids: "agentmtr".
const ORIGIN: u64 = 0x6167_656e_746d_7472;

/// Makes a `traceparent` with a trace id that this process has not used before.
pub fn fresh() -> String {
    let number = next();
    format!("00-{ORIGIN:016x}{number:016x}-{number:016x}-01")
}

/// The `traceparent` of a request that serves another one: the same trace with a new parent; `None`
/// if the text is not a `traceparent`.
pub fn child_of(traceparent: &str) -> Option<String> {
    let mut parts = traceparent.split('-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let flags = parts.next()?;
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let valid = hex(version, 2) && hex(trace, 32) && hex(parent, 16) && hex(flags, 2);
    valid.then(|| format!("00-{trace}-{:016x}-{flags}", next()))
}

/// A number that is never 0, since no parent id may be.
fn next() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_keeps_the_trace_and_has_its_own_parent() {
        let (one, two) = (fresh(), fresh());
        assert_ne!(one[3..35], two[3..35]);
        let child = child_of(&one).expect("a traceparent");
        assert_eq!(child[..36], one[..36]);
        assert_ne!(child[36..52], one[36..52]);
        assert!(child_of(&child).is_some());
        for text in ["", "00-1-2-01", "traceparent", &one[..54], &one.replace('6', "g")] {
            assert_eq!(child_of(text), None, "{text}");
        }
    }
}
