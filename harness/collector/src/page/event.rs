//! One event as it came.

use maud::html;

use crate::ledger::Ledger;
use crate::page::layout::{Document, message};
use crate::page::link::Link;
use crate::page::{Answer, Failure, Pairs, View, amount, sessions};
use crate::query::{BadQuery, Parameters};

/// The deepest that a text is indented.
const DEPTH_MAX: usize = 32;

pub(super) fn answer(ledger: &Ledger, pairs: Pairs) -> Result<Answer, Failure> {
    let mut parameters = Parameters::new(pairs, &["source", "id", "format"])?;
    let format = parameters.take("format");
    if let Some(format) = format.as_deref().filter(|format| !["html", "json"].contains(format)) {
        return Err(BadQuery::new(format!("format: must be html or json, found {format:?}")).into());
    }
    let mut needed = |name: &str| {
        parameters.take(name).ok_or_else(|| BadQuery::new(format!("{name}: is missing")))
    };
    let (source, id) = (needed("source")?, needed("id")?);
    let Some(event) = ledger.stored_event(&source, &id)? else {
        let text = format!("No event {id} of {source} is in the ledger.");
        return Ok(Answer::NotFound(message("No such event", &text)));
    };
    if format.as_deref() == Some("json") {
        return Ok(Answer::Json(event.raw));
    }
    let link = Link::new(View::Event).with("source", &*source).with("id", &*id);
    let session = event.session_id.as_deref().map(|session_id| sessions::link(&source, session_id));
    let live = html! {
        dl.facts {
            dt { "Type" } dd { (event.event_type) }
            dt { "Time" } dd { (event.time) }
            dt { "Came" } dd { (amount::time(&event.received_at)) " UTC" }
            dt { "Source" } dd { bdi { (source) } }
            dt { "Id" } dd { (id) }
            @if let Some(session) = &session { dt { "Session" } dd { a href=(session) { (event.session_id.as_deref().unwrap_or_default()) } } }
            @if let Some((state, why)) = &event.kept_apart { dt { "Kept apart" } dd.warn { (state) ": " (why) } }
        }
        @if event.raw.is_empty() { p.empty { "The ledger keeps the number of this event, and not its text." } }
        @else {
            pre tabindex="0" aria-label="The event's text" { (indented(&event.raw)) }
            p.exports { a href=(link.clone().with("format", "json")) { "JSON" } ", byte for byte as it came" }
        }
    };
    let trail = session.map(|session| ("Its session".to_owned(), session)).into_iter().collect();
    let title = format!("Event {}", id.trim_start_matches('0'));
    let now_ms = ledger.now_ms();
    let (span, controls) = (None, html! {});
    let document = Document { title: &title, link: &link, span, trail, controls, live, now_ms };
    Ok(Answer::Html(document.html()))
}

/// JSON with line breaks: it adds and takes away nothing but the space between its parts, so that
/// each number and text stands as it came.
fn indented(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let (mut depth, mut is_text, mut is_escaped) = (0_usize, false, false);
    let mut last = ' ';
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("  ", depth.min(DEPTH_MAX)));
    };
    for letter in json.chars() {
        if is_text {
            out.push(letter);
            (is_escaped, is_text) = match letter {
                _ if is_escaped => (false, true),
                '\\' => (true, true),
                letter => (false, letter != '"'),
            };
            continue;
        }
        match letter {
            ' ' | '\t' | '\r' | '\n' => continue,
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                if !['{', '['].contains(&last) {
                    line(&mut out, depth);
                }
            }
            _ if ['{', '[', ','].contains(&last) => line(&mut out, depth),
            _ => {}
        }
        out.push(letter);
        match letter {
            '{' | '[' => depth += 1,
            ':' => out.push(' '),
            '"' => is_text = true,
            _ => {}
        }
        last = letter;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_indented_event_has_each_number_and_text_as_it_came() {
        let json = r#"{"a":1.50,"b":["x, {y} \" :",{}],"a":[]}"#;
        let expected =
            "{\n  \"a\": 1.50,\n  \"b\": [\n    \"x, {y} \\\" :\",\n    {}\n  ],\n  \"a\": []\n}";
        assert_eq!(indented(json), expected);
        assert_eq!(indented(expected), expected);
        assert_eq!(indented(&"[".repeat(100_000)).lines().count(), 100_000);
        assert_eq!(indented("}}\""), "\n}\n}\"");
    }
}
