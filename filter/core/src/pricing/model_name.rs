//! What providers and gateways put around the name of a model, so that a rate is found by its plain
//! name.

/// The most names of one model.
pub(super) const NAMES_MAX: usize = 3;

/// The names under which a rate of this model may stand, the most exact first: as it is told, without
/// what stands before it, and without its date.
///
/// | told | without what stands before it |
/// |---|---|
/// | `models/gemini-2.5-flash` (Gemini) | `gemini-2.5-flash` |
/// | `publishers/google/models/gemini-2.5-flash` (Vertex AI) | `gemini-2.5-flash` |
/// | `google/gemini-2.5-flash` (Vertex AI behind OpenAI's paths, and gateways) | `gemini-2.5-flash` |
/// | `arn:aws:bedrock:...:inference-profile/us.anthropic.claude-x` | `us.anthropic.claude-x` |
pub(super) fn names(told: &str) -> impl Iterator<Item = &str> {
    let bare = told.rsplit('/').next().filter(|bare| !bare.is_empty()).unwrap_or(told);
    let undated = without_date(bare);
    let names = [Some(told), (bare != told).then_some(bare), (undated != bare).then_some(undated)];
    names.into_iter().flatten()
}

/// A name without a date at its end, such as `-2025-11-13` or `-20250929`.
fn without_date(name: &str) -> &str {
    ["dddd-dd-dd", "dddddddd"]
        .into_iter()
        .find_map(|form| {
            let at = name.len().checked_sub(form.len())?;
            let (rest, date) = name.split_at_checked(at)?;
            let fits = |(byte, form): (u8, u8)| match form {
                b'd' => byte.is_ascii_digit(),
                _ => byte == form,
            };
            let rest = rest.strip_suffix('-').filter(|rest| !rest.is_empty())?;
            date.bytes().zip(form.bytes()).all(fits).then_some(rest)
        })
        .unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn what_stands_around_a_name_is_left_out_last() {
        for (told, expected) in [
            ("gpt-4o", &["gpt-4o"][..]),
            ("gpt-4o-2024-08-06", &["gpt-4o-2024-08-06", "gpt-4o"]),
            ("claude-sonnet-4-5-20250929", &["claude-sonnet-4-5-20250929", "claude-sonnet-4-5"]),
            ("models/gemini-2.5-flash", &["models/gemini-2.5-flash", "gemini-2.5-flash"]),
            (
                "publishers/google/models/gemini-2.5-flash",
                &["publishers/google/models/gemini-2.5-flash", "gemini-2.5-flash"],
            ),
            (
                "anthropic/claude-4.5-sonnet-20250929",
                &[
                    "anthropic/claude-4.5-sonnet-20250929",
                    "claude-4.5-sonnet-20250929",
                    "claude-4.5-sonnet",
                ],
            ),
            (
                "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0",
                &[
                    "arn:aws:bedrock:us-east-1:1:inference-profile/us.amazon.nova-pro-v1:0",
                    "us.amazon.nova-pro-v1:0",
                ],
            ),
            ("20250929", &["20250929"]),
            ("-20250929", &["-20250929"]),
            ("x/", &["x/"]),
            ("", &[""]),
            ("\u{e4}-2025-09-2\u{e4}", &["\u{e4}-2025-09-2\u{e4}"]),
        ] {
            assert_eq!(names(told).collect::<Vec<_>>(), expected, "{told}");
        }
    }
}
