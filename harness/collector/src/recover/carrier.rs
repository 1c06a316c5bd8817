//! Undoes what carries the lines of a log: docker's JSON, CRI, what kubectl and docker compose put
//! in front, and the JSON of Loki, fluent-bit and their like; joins the parts of a line that docker
//! or CRI have cut.
//!
//! To the next maintainer: a line that was cut is looked at as a whole only. What follows in its
//! next part may be a stranger's text, placed there by its length.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::input::Place;
use super::line::SPILL;
use super::logger::Logger;

/// How often one form may carry another: Loki, docker's JSON, Envoy's JSON.
const DEPTH_MAX: usize = 4;
/// At this size docker and CRI cut a line.
const CUT_BYTES: usize = 16 * 1024;
/// The most cut lines of one log at once, one for each stream.
const STREAMS_MAX: usize = 64;
/// The most bytes of a line that is joined; what is longer is cut.
const JOINED_BYTES_MAX: usize = 1024 * 1024;

/// What docker writes for a part of a character.
const SPOILED: &[u8] = "\u{fffd}".as_bytes();

/// The members that hold a line, the likeliest first.
const TEXT_MEMBERS: [&str; 10] =
    ["log", "message", "msg", "line", "MESSAGE", "@message", "body", "text", "textPayload", "_raw"];
/// The members that tell streams in one log apart.
const STREAM_MEMBERS: [&str; 8] =
    ["stream", "labels", "kubernetes", "container_id", "partial_id", "file", "filename", "path"];

/// Members that access logs have, of which each has some; in lower case, letters and digits alone.
const ACCESS_MEMBERS: [&str; 32] = [
    "agent",
    "authority",
    "bytesreceived",
    "bytessent",
    "clientip",
    "downstreamremoteaddress",
    "duration",
    "httpmethod",
    "httpstatus",
    "httpuseragent",
    "method",
    "protocol",
    "referer",
    "referrer",
    "remoteaddr",
    "remoteip",
    "requestid",
    "requestmethod",
    "requestpath",
    "requesturi",
    "responsecode",
    "responseflags",
    "statuscode",
    "ua",
    "upstreamcluster",
    "upstreamhost",
    "uri",
    "url",
    "useragent",
    "verb",
    "xforwardedfor",
    "xrequestid",
];

/// What a line of a log turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    /// What the filter spilled, from the words `agent-meter spill ` on.
    Spilled(Place, Vec<u8>),
    /// A line with those words that Envoy's Wasm logger did not write.
    Foreign(Place),
    /// A line that was cut and whose rest did not come.
    Cut(Place),
}

/// The lines of one log that were cut and are not complete yet, by stream.
#[derive(Debug, Default)]
pub(super) struct Carrier {
    pending: BTreeMap<String, (Place, Vec<u8>)>,
}

/// A part of a line, or a whole one.
struct Piece<'a> {
    stream: String,
    text: Cow<'a>,
    is_last: bool,
}

type Cow<'a> = std::borrow::Cow<'a, [u8]>;

impl Carrier {
    /// Reads the next line; gives what of interest is complete by it.
    pub(super) fn read(&mut self, logger: &Logger, place: &Place, line: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        // Most lines are none of ours, and not the part of one.
        let may_matter = line.len() >= CUT_BYTES || !self.pending.is_empty() || has_spill(line);
        if may_matter || cri(line).is_some_and(|piece| !piece.is_last) {
            self.open(logger, "", place, line, 0, &mut found);
        }
        found
    }

    /// Where the lines begin that are not complete.
    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.pending.values().map(|(place, _)| place)
    }

    /// Gives up what is not complete.
    pub(super) fn finish(&mut self) -> Vec<Found> {
        let pending = std::mem::take(&mut self.pending);
        let ours = pending.into_values().filter(|(_, text)| has_spill(text));
        ours.map(|(place, _)| Found::Cut(place)).collect()
    }

    fn open(
        &mut self,
        logger: &Logger,
        stream: &str,
        place: &Place,
        text: &[u8],
        depth: usize,
        found: &mut Vec<Found>,
    ) {
        let plain = without_colours(text);
        let text = plain.strip_suffix(b"\r").unwrap_or(&plain);
        if let Some(message) = logger.message(text) {
            push_message(message, place, found);
            return;
        }
        let object = json(text).filter(|objects| !objects.iter().any(is_access_log));
        for object in object.iter().flatten() {
            // Also one level below, where others put what they have parsed.
            let inner = object.values().filter_map(Value::as_object);
            let said = std::iter::once(object).chain(inner).find_map(|it| logger.message_in(it));
            if let Some(message) = said {
                push_message(message.as_bytes(), place, found);
                return;
            }
        }
        let pieces = match &object {
            Some(objects) => objects.iter().filter_map(piece_of_object).collect(),
            None => cri(text).or_else(|| prefixed(text)).into_iter().collect::<Vec<_>>(),
        };
        if pieces.is_empty() || depth >= DEPTH_MAX {
            if has_spill(text) {
                found.push(Found::Foreign(place.clone()));
            }
            return;
        }
        for piece in pieces {
            let stream = format!("{stream}/{}", piece.stream);
            if let Some((place, text)) = self.join(&stream, place, piece, found) {
                self.open(logger, &stream, &place, &text, depth + 1, found);
            }
        }
    }

    /// Puts a part behind those before it; gives the whole line with its last part.
    fn join<'a>(
        &mut self,
        stream: &str,
        place: &Place,
        piece: Piece<'a>,
        found: &mut Vec<Found>,
    ) -> Option<(Place, Cow<'a>)> {
        let Some((first, mut text)) = self.pending.remove(stream) else {
            if piece.is_last {
                return Some((place.clone(), piece.text));
            }
            if self.pending.len() < STREAMS_MAX {
                self.pending.insert(stream.to_owned(), (place.clone(), piece.text.into_owned()));
            } else if has_spill(&piece.text) {
                found.push(Found::Cut(place.clone()));
            }
            return None;
        };
        if text.ends_with(SPOILED) || piece.text.starts_with(SPOILED) {
            // docker has cut within a character, and lost it: let what is read end here.
            text.push(0);
        }
        if text.len() + piece.text.len() <= JOINED_BYTES_MAX {
            text.extend_from_slice(&piece.text);
        }
        if piece.is_last {
            return Some((first, text.into()));
        }
        self.pending.insert(stream.to_owned(), (first, text));
        None
    }
}

fn push_message(message: &[u8], place: &Place, found: &mut Vec<Found>) {
    if message.starts_with(SPILL) {
        found.push(Found::Spilled(place.clone(), message.to_vec()));
    }
}

fn has_spill(text: &[u8]) -> bool {
    memchr::memmem::find(text, SPILL).is_some()
}

/// A text without the escape sequences of terminals, such as `ESC [ 1 ; 33 m`.
fn without_colours(text: &[u8]) -> Cow<'_> {
    const ESCAPE: u8 = 0x1b;
    if memchr::memchr(ESCAPE, text).is_none() {
        return text.into();
    }
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memchr(ESCAPE, rest) {
        plain.extend_from_slice(rest.get(..at).unwrap_or_default());
        let behind = rest.get(at + 1..).unwrap_or_default();
        rest = match behind.strip_prefix(b"[") {
            Some(sequence) => {
                let end = sequence.iter().position(|byte| (0x40..=0x7e).contains(byte));
                end.and_then(|end| sequence.get(end + 1..)).unwrap_or_default()
            }
            None => behind,
        };
    }
    plain.extend_from_slice(rest);
    plain.into()
}

/// Whether an object is of an access log, by its members. What it says is strangers'; it may be
/// written as text, without escapes, so that they can even add members.
fn is_access_log(object: &Map<String, Value>) -> bool {
    let is_of_request = |(name, value): (&String, &Value)| {
        let letters: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let is_plain = value.is_string() || value.is_number();
        is_plain && ACCESS_MEMBERS.contains(&&*letters.to_ascii_lowercase())
    };
    object.iter().any(is_of_request)
}

/// The objects of a text that is a JSON object, or an array of them.
fn json(text: &[u8]) -> Option<Vec<Map<String, Value>>> {
    let text = text.trim_ascii_start();
    if text.starts_with(b"{") {
        return serde_json::from_slice(text).ok().map(|object| vec![object]);
    }
    text.starts_with(b"[{").then(|| serde_json::from_slice(text).ok()).flatten()
}

fn piece_of_object(object: &Map<String, Value>) -> Option<Piece<'static>> {
    let text_in = |object: &Map<String, Value>| {
        TEXT_MEMBERS.iter().find_map(|name| Some(object.get(*name)?.as_str()?.to_owned()))
    };
    let inner = || object.values().filter_map(Value::as_object).find_map(text_in);
    let text = text_in(object).or_else(inner)?;
    let member = |name: &str| object.get(name).and_then(Value::as_str);
    // docker cuts at its buffer's size only; a shorter line without an end was the program's last.
    let is_docker =
        object.keys().all(|name| ["log", "stream", "time", "attrs"].contains(&&name[..]));
    let is_last = match (member("logtag"), member("partial_message")) {
        (Some(tag), _) => !is_partial(tag.as_bytes()),
        (None, Some(_)) => member("partial_last") == Some("true"),
        (None, None) => !is_docker || text.ends_with('\n') || text.len() < CUT_BYTES,
    };
    let streams = STREAM_MEMBERS.iter().filter_map(|name| object.get(*name));
    let stream = streams.map(Value::to_string).collect();
    // Only the one at the end is docker's.
    let text = text.strip_suffix('\n').map(str::to_owned).unwrap_or(text);
    Some(Piece { stream, text: text.into_bytes().into(), is_last })
}

/// The text of a CRI line: `TIME STREAM TAGS TEXT`.
fn cri(line: &[u8]) -> Option<Piece<'_>> {
    let (time, rest) = split(line)?;
    let (stream, rest) = split(rest)?;
    let (tags, text) = split(rest).unwrap_or((rest, b""));
    let is_tag = matches!(tags.split(|byte| *byte == b':').next(), Some(b"P" | b"F"));
    let is_stream = matches!(stream, b"stdout" | b"stderr");
    (is_stream && is_tag && is_time(time)).then(|| Piece {
        stream: String::from_utf8_lossy(stream).into_owned(),
        text: text.into(),
        is_last: !is_partial(tags),
    })
}

fn is_partial(tags: &[u8]) -> bool {
    tags.split(|byte| *byte == b':').next() == Some(b"P")
}

/// The text behind what kubectl (`--prefix`, `--timestamps`) and docker (`--timestamps`, compose)
/// put in front of a line.
fn prefixed(line: &[u8]) -> Option<Piece<'_>> {
    let (first, rest) = split(line)?;
    let kubectl = first.strip_prefix(b"[pod/").and_then(|name| name.strip_suffix(b"]"));
    let is_name = |name: &[u8]| {
        name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(byte))
    };
    let rest = match kubectl {
        Some(name) if is_name(name) => rest,
        Some(_) => return None,
        // With nine digits, as both write it. Envoy's access log writes three: what stands behind
        // them may be a stranger's.
        None if is_time(first) && fraction_digits(first) == 9 => rest,
        None => rest.trim_ascii_start().strip_prefix(b"| ").filter(|_| is_name(first))?,
    };
    let stream = String::from_utf8_lossy(kubectl.unwrap_or_default()).into_owned();
    Some(Piece { stream, text: rest.into(), is_last: true })
}

/// What stands before the first blank, and behind it.
fn split(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr::memchr(b' ', text)?;
    Some((text.get(..at)?, text.get(at + 1..)?))
}

/// Whether this looks like RFC 3339.
fn is_time(text: &[u8]) -> bool {
    let is_in_time = |byte: &u8| byte.is_ascii_digit() || b"-:.+TZ".contains(byte);
    text.len() >= 20 && text.get(10) == Some(&b'T') && text.iter().all(is_in_time)
}

fn fraction_digits(time: &[u8]) -> usize {
    let fraction = time.split(|byte| *byte == b'.').nth(1).unwrap_or_default();
    fraction.iter().take_while(|byte| byte.is_ascii_digit()).count()
}
