//! Which part of a list an import takes.

/// Which part of a list is wanted; empty is all.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Names of ours, or of the list.
    pub providers: Vec<String>,
    /// Names of models, or patterns in which `*` matches any text.
    pub models: Vec<String>,
}
