//! Asks for the usage of an OpenAI-compatible stream, and removes from the response what the server
//! sends only because of that. Apart from guards that end streams, only this file changes bodies,
//! and only if the product allows it.
//!
//! To the next maintainer: because of `stream_options.include_usage` the server sends one more
//! chunk, with the usage and without choices, right before `[DONE]`. The filter holds an event back
//! only until the event ends, in practice within the chunk that it came in. If a request itself
//! sets `include_usage`, the filter changes neither the request nor its response.

use crate::base::limits::HELD_EVENT_BYTES_MAX;
use crate::protocol::document_reader::DocumentReader;
use crate::protocol::path_tree::PathTree;
use crate::protocol::paths::{Field, Paths};
use crate::wire::json::{Progress, Scalar, Scanner, Visitor, Want};
use crate::wire::sse::{EventType, Framer, SseHandler};

/// Adds the option to a request body as the body passes.
#[derive(Debug, Default)]
pub(super) struct UsageAsker {
    scanner: Scanner,
    seen: Seen,
    has_asked: bool,
}

/// What the scanner has found in the request so far.
#[derive(Debug, Default)]
struct Seen {
    is_streamed: bool,
    has_options: bool,
    has_option_member: bool,
    says_include_usage: bool,
    /// The object that ended with the last byte read: the options, or the whole request.
    ended: Option<u8>,
}

const REQUEST: u8 = 0;

const OPTIONS: u8 = 1;

const STREAM: u8 = 0;

const INCLUDE_USAGE: u8 = 1;

impl Visitor for Seen {
    fn top(&mut self) -> Want {
        Want::object(REQUEST)
    }

    fn member(&mut self, node: u8, key: &[u8]) -> Want {
        match (node, key) {
            (REQUEST, b"stream") => Want::scalar(STREAM),
            (REQUEST, b"stream_options") => {
                self.has_options = true;
                Want::object(OPTIONS)
            }
            (OPTIONS, b"include_usage") => {
                self.says_include_usage = true;
                Want::scalar(INCLUDE_USAGE)
            }
            (OPTIONS, _) => {
                self.has_option_member = true;
                Want::NOTHING
            }
            _ => Want::NOTHING,
        }
    }

    fn element(&mut self, _node: u8) -> Want {
        Want::NOTHING
    }

    fn scalar(&mut self, field: u8, value: Scalar<'_>) {
        if field == STREAM {
            self.is_streamed = !value.is_string && value.text == b"true";
        }
    }

    fn open(&mut self, _node: u8) {}

    fn close(&mut self, node: u8) {
        self.ended = Some(node);
    }
}

impl UsageAsker {
    /// Returns the bytes to send instead of `chunk`, or `None` to send it unchanged.
    pub(super) fn edit(&mut self, chunk: &[u8]) -> Option<Vec<u8>> {
        let mut edited: Option<Vec<u8>> = None;
        let mut rest = chunk;
        while !rest.is_empty() && self.scanner.progress() == Progress::Open {
            // A piece ends with the first `}`, so an object can end only with the last byte of a
            // piece.
            let end = memchr::memchr(b'}', rest).map_or(rest.len(), |at| at.saturating_add(1));
            let (piece, behind) = rest.split_at(end);
            self.scanner.feed(piece, &mut self.seen);
            let insert = self.seen.ended.take().and_then(|node| self.insertion(node));
            if let (Some(text), Some((bracket, before))) = (insert, piece.split_last()) {
                let at = chunk.len().saturating_sub(rest.len());
                let passed =
                    edited.get_or_insert_with(|| chunk.get(..at).unwrap_or_default().to_vec());
                passed.extend_from_slice(before);
                passed.extend_from_slice(text.as_bytes());
                passed.push(*bracket);
            } else if let Some(passed) = &mut edited {
                passed.extend_from_slice(piece);
            }
            rest = behind;
        }
        if let Some(passed) = &mut edited {
            passed.extend_from_slice(rest);
        }
        edited
    }

    /// Whether the filter added the option, and the request asks for a stream.
    pub(super) fn has_asked(&self) -> bool {
        self.has_asked && self.seen.is_streamed
    }

    fn insertion(&mut self, node: u8) -> Option<&'static str> {
        let seen = &self.seen;
        let text = match node {
            OPTIONS if !seen.says_include_usage && seen.has_option_member => {
                ",\"include_usage\":true"
            }
            OPTIONS if !seen.says_include_usage => "\"include_usage\":true",
            REQUEST if seen.is_streamed && !seen.has_options => {
                ",\"stream_options\":{\"include_usage\":true}"
            }
            _ => return None,
        };
        self.has_asked = true;
        Some(text)
    }
}

const CHUNK: &Paths = &[("usage.prompt_tokens", Field::Input), ("choices[].index", Field::Extra)];

/// Removes the chunk with the usage from an event stream as the stream passes.
#[derive(Debug)]
pub(super) struct UsageRemover {
    framer: Framer,
    event: Event,
    /// The bytes received so far of an event that has not ended.
    held: Vec<u8>,
    /// True if the event is too large to be the chunk with the usage: the rest of it passes.
    is_passing: bool,
    /// Set if the last event ended in a CR, which one LF may follow. True if the filter removed
    /// that event.
    ended_in_carriage_return: Option<bool>,
}

#[derive(Debug)]
struct Event {
    reader: DocumentReader,
    /// Set when the event has ended. True if the event is the chunk with the usage.
    ended: Option<bool>,
}

impl SseHandler for Event {
    fn data(&mut self, piece: &[u8]) {
        self.reader.feed(piece, &mut |_| {});
    }

    fn dispatch(&mut self, _event_type: EventType) {
        let chunk = self.reader.document();
        let is_whole = self.reader.progress() == Progress::Complete;
        let has_usage = chunk.count(Field::Input).is_some();
        self.ended = Some(is_whole && has_usage && !chunk.has(Field::Extra));
        self.reader.restart();
    }
}

impl Default for UsageRemover {
    fn default() -> Self {
        let reader = DocumentReader::new(PathTree::new(&[CHUNK]));
        Self {
            framer: Framer::default(),
            event: Event { reader, ended: None },
            held: Vec::new(),
            is_passing: false,
            ended_in_carriage_return: None,
        }
    }
}

impl UsageRemover {
    /// Returns the bytes to send instead of `chunk`. With `is_end`, they include everything still
    /// held.
    pub(super) fn edit(&mut self, chunk: &[u8], is_end: bool) -> Vec<u8> {
        let mut passed = Vec::with_capacity(chunk.len());
        let mut rest = chunk;
        // If two chunks split a CRLF, its second half belongs to the event before.
        let is_cut = core::mem::take(&mut self.ended_in_carriage_return);
        if let (Some(is_removed), Some(behind)) = (is_cut, rest.strip_prefix(b"\n")) {
            passed.extend_from_slice(if is_removed { b"" } else { b"\n" });
            self.framer.feed(b"\n", &mut self.event);
            rest = behind;
        }
        while !rest.is_empty() {
            let end = line_end(rest);
            let (line, behind) = rest.split_at(end);
            rest = behind;
            self.framer.feed(line, &mut self.event);
            self.held.extend_from_slice(line);
            let Some(is_the_chunk) = self.event.ended.take() else {
                self.is_passing |= self.held.len() > HELD_EVENT_BYTES_MAX;
                if self.is_passing {
                    passed.append(&mut self.held);
                }
                continue;
            };
            let is_removed = is_the_chunk && !self.is_passing;
            if is_removed {
                self.held.clear();
            }
            passed.append(&mut self.held);
            self.is_passing = false;
            if line.ends_with(b"\r") && rest.is_empty() {
                self.ended_in_carriage_return = Some(is_removed);
            }
        }
        if is_end {
            passed.append(&mut self.held);
        }
        passed
    }
}

/// Returns where the first line ends, including its LF, CRLF or CR.
fn line_end(bytes: &[u8]) -> usize {
    let end = memchr::memchr2(b'\n', b'\r', bytes).map(|at| at.saturating_add(1));
    match end {
        None => bytes.len(),
        Some(end) => {
            let (line, behind) = bytes.split_at(end);
            let is_crlf = line.ends_with(b"\r") && behind.starts_with(b"\n");
            end.saturating_add(usize::from(is_crlf))
        }
    }
}
