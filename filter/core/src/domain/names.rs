//! Names that the filter and the collector give themselves, such as `anonymous` and `__other__`. No
//! client can take one: an identity with such a name is refused, and a tool or a model that a
//! client names so has a backslash before it in events.

use crate::domain::identity::ANONYMOUS;

/// Whether a name is one that the filter or the collector gives, or may give: `anonymous` in any
/// case, and all of the form `__x__`.
pub(crate) fn is_reserved(name: &str) -> bool {
    name.eq_ignore_ascii_case(ANONYMOUS) || is_placeholder(name)
}

/// Whether a name has the form `__x__`, as those under which the filter meters what has no name.
fn is_placeholder(name: &str) -> bool {
    let inner = name.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"));
    inner.is_some_and(|inner| !inner.is_empty())
}

/// The name of a tool or a model as events tell it. A name of the form `__x__` gets a backslash,
/// and so does one that has backslashes before that form, so that two names never become one.
pub(crate) fn escaped(name: String) -> String {
    if is_placeholder(name.trim_start_matches('\\')) { format!("\\{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::{escaped, is_reserved};

    #[test]
    fn the_filters_own_names_are_reserved() {
        for (name, expected) in [
            ("anonymous", true),
            ("Anonymous", true),
            ("__other__", true),
            ("__x__", true),
            ("____", false),
            ("__x", false),
            ("x__", false),
            ("anonymous-1", false),
            ("acme", false),
            ("", false),
        ] {
            assert_eq!(is_reserved(name), expected, "{name}");
        }
    }

    #[test]
    fn two_names_never_become_one() {
        for (name, expected) in [
            ("__other__", "\\__other__"),
            ("\\__other__", "\\\\__other__"),
            ("__init", "__init"),
            ("\\n", "\\n"),
            ("search", "search"),
            ("anonymous", "anonymous"),
        ] {
            assert_eq!(escaped(name.to_owned()), expected);
        }
    }
}
