//! The form of a path for people who read logs: what looks like an id, a name or a number becomes
//! `{}`, so that many requests have one form.

/// Segments that a template shows.
const SEGMENTS_MAX: usize = 12;

/// Bytes of a word that a template shows.
const WORD_BYTES_MAX: usize = 48;

/// The template of a path, without its query: `/v1/models/gpt-5.1:speak` is `/v1/models/{}:speak`.
/// It holds no character that could end a line.
pub(crate) fn template(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let mut template = String::new();
    for (number, segment) in path.split('/').filter(|segment| !segment.is_empty()).enumerate() {
        if number >= SEGMENTS_MAX {
            template.push_str("/..");
            break;
        }
        for (place, word) in segment.splitn(3, ':').enumerate() {
            template.push(if place == 0 { '/' } else { ':' });
            template.push_str(if is_word(word) { word } else { "{}" });
        }
    }
    if template.is_empty() { "/".to_owned() } else { template }
}

/// Whether a text is a word of a path rather than a value in it: short, of letters, with digits only
/// as a version.
fn is_word(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    !text.is_empty()
        && text.len() <= WORD_BYTES_MAX
        && is_plain
        && text.split('.').all(|part| is_version(part) || !part.bytes().any(|b| b.is_ascii_digit()))
}

fn is_version(text: &str) -> bool {
    text.strip_prefix('v')
        .is_some_and(|rest| rest.len() <= 8 && rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::template;

    #[test]
    fn a_template_keeps_the_words_of_a_path() {
        for (path, expected) in [
            ("/v1/batches", "/v1/batches"),
            ("/v1beta1/models/gemini-2.5-flash:speak?key=secret", "/v1beta1/models/{}:speak"),
            ("/v1/videos/video_68f0/remix", "/v1/videos/{}/remix"),
            ("/v1/things/0f8fad5b-d9cb-469f-a165-70867728950e", "/v1/things/{}"),
            ("/ai/run/@cf/meta/llama-3.1-8b", "/ai/run/{}/meta/{}"),
            ("//double//", "/double"),
            ("/a\nb/%6d", "/{}/{}"),
            ("/v123456789", "/{}"),
            ("/abcdefghijabcdefghijabcdefghijabcdefghijabcdefghi", "/{}"),
            ("/a/b/c/d/e/f/g/h/i/j/k/l/m/n", "/a/b/c/d/e/f/g/h/i/j/k/l/.."),
            ("/google.ai.v1.PredictionService/Predict", "/google.ai.v1.PredictionService/Predict"),
            ("", "/"),
        ] {
            assert_eq!(template(path), expected, "{path}");
        }
    }
}
