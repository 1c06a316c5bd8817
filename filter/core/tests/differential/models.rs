//! Servers that read a request in ways of their own, written without the filter's reader: what each
//! takes for a call of a tool.

use std::collections::BTreeSet;
use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

use crate::mutate::{Request, TOOLS};

/// A JSON value with its members as they were written.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Other,
    Text(String),
    List(Vec<Value>),
    Members(Vec<(String, Value)>),
}

/// How a reader takes a member out of an object.
#[derive(Clone, Copy, Debug)]
enum Pick {
    Last,
    First,
    /// The last in any case, as `encoding/json` of Go.
    AnyCase,
    /// Names end at the first NUL, and white space around them is cut off.
    CString,
}

/// What a server does about a text that goes on, or about a value that is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Refuse,
    /// The first value counts, as with a decoder of a stream.
    Ignore,
    /// Each value is a message, as in lines of JSON.
    Each,
}

/// What one server made of one request: for each message, the tool that it ran, if it did.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reading {
    /// The id as the answer repeats it, and the tool.
    pub(crate) messages: Vec<(String, Option<String>)>,
    pub(crate) is_batch: bool,
}

impl Reading {
    /// The tools that were run.
    pub(crate) fn tools(&self) -> Vec<&str> {
        self.messages.iter().filter_map(|(_, tool)| tool.as_deref()).collect()
    }
}

/// All the ways in which servers that run a tool for this request read it.
pub(crate) fn readings(request: &Request) -> BTreeSet<Reading> {
    let mut found = BTreeSet::new();
    let mut texts = Vec::new();
    for bytes in decoded(request) {
        for text in decoded_text(request, &bytes) {
            if !texts.contains(&text) {
                texts.push(text);
            }
        }
    }
    for text in &texts {
        for (is_lenient, rest) in [
            (false, Rest::Refuse),
            (false, Rest::Ignore),
            (false, Rest::Each),
            (true, Rest::Refuse),
            (true, Rest::Ignore),
        ] {
            let Some(values) = values(text, is_lenient, rest) else { continue };
            for pick in [Pick::Last, Pick::First, Pick::AnyCase, Pick::CString] {
                found.extend(reading(&values, pick));
            }
        }
        found.extend(
            serde_json::from_str(text)
                .ok()
                .map(of_serde)
                .and_then(|value| reading(&[value], Pick::Last)),
        );
    }
    found
}

/// The body without its coding, as servers that know it, and as those that do not look.
fn decoded(request: &Request) -> Vec<Vec<u8>> {
    const BYTES_MAX: u64 = 1024 * 1024;
    let told = request.headers.iter().filter(|(name, _)| *name == "content-encoding");
    let codings: Vec<String> = told
        .flat_map(|(_, line)| line.split(','))
        .map(|coding| coding.trim().to_ascii_lowercase())
        .filter(|coding| !coding.is_empty() && coding != "identity")
        .collect();
    let mut all = vec![request.body.clone()];
    let mut body = request.body.clone();
    for coding in codings.iter().rev() {
        let mut text = Vec::new();
        // What came before a failure counts for a server that does not check the end.
        let _ = match coding.as_str() {
            "gzip" | "x-gzip" => {
                MultiGzDecoder::new(body.as_slice()).take(BYTES_MAX).read_to_end(&mut text)
            }
            "deflate" => {
                let read = ZlibDecoder::new(body.as_slice()).take(BYTES_MAX).read_to_end(&mut text);
                if text.is_empty() {
                    DeflateDecoder::new(body.as_slice()).take(BYTES_MAX).read_to_end(&mut text)
                } else {
                    read
                }
            }
            _ => return all,
        };
        all.push(text.clone());
        body = text;
    }
    all
}

/// The bytes as text: by their look, as `json.loads` of Python, and by the charset that is told.
fn decoded_text(request: &Request, bytes: &[u8]) -> Vec<String> {
    let told = request.headers.iter().filter(|(name, _)| *name == "content-type");
    let told: String = told.map(|(_, value)| value.to_ascii_lowercase()).collect();
    let mut texts = vec![String::from_utf8_lossy(bytes).trim_start_matches('\u{FEFF}').to_owned()];
    if told.contains("utf-7") {
        texts.push(String::from_utf8_lossy(bytes).replace("+AG0-", "m"));
    }
    let looks_wide = bytes.iter().take(4).any(|byte| *byte == 0)
        || bytes.starts_with(&[0xFF, 0xFE])
        || bytes.starts_with(&[0xFE, 0xFF]);
    if looks_wide || told.contains("utf-16") {
        let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        let fours = || bytes.chunks_exact(4).map(|four| [four[0], four[1], four[2], four[3]]);
        let wide = |units: Vec<u16>| String::from_utf16_lossy(&units);
        let wider = |points: Vec<u32>| points.into_iter().filter_map(char::from_u32).collect();
        texts.extend([
            wide(pairs().map(u16::from_le_bytes).collect()),
            wide(pairs().map(u16::from_be_bytes).collect()),
            wider(fours().map(u32::from_le_bytes).collect()),
            wider(fours().map(u32::from_be_bytes).collect()),
        ]);
    }
    texts.iter().map(|text| text.trim_start_matches('\u{FEFF}').to_owned()).collect()
}

/// What a server makes of the values of a body; `None` if it runs nothing.
fn reading(values: &[Value], pick: Pick) -> Option<Reading> {
    let mut all = Vec::new();
    let mut is_batch = values.len() > 1;
    for value in values {
        match value {
            Value::List(messages) => {
                is_batch = true;
                all.extend(messages.iter().map(|message| one(message, pick)));
            }
            message => all.push(one(message, pick)),
        }
    }
    let reading = Reading { messages: all, is_batch };
    (!reading.tools().is_empty()).then_some(reading)
}

/// The id of a message, and the tool that it runs.
fn one(message: &Value, pick: Pick) -> (String, Option<String>) {
    let Value::Members(_) = message else { return ("null".to_owned(), None) };
    let id = match member(message, "id", pick) {
        Some(Value::Text(text)) => serde_json::to_string(text).unwrap(),
        // Numbers are kept as they were written, in a text of their own.
        Some(Value::List(one)) => match one.as_slice() {
            [Value::Text(number)] => number.clone(),
            _ => "null".to_owned(),
        },
        _ => "null".to_owned(),
    };
    let is_call = match (member(message, "method", pick), pick) {
        (Some(Value::Text(method)), Pick::CString) => plain(method) == "tools/call",
        (Some(Value::Text(method)), Pick::AnyCase) => method.eq_ignore_ascii_case("tools/call"),
        (Some(Value::Text(method)), _) => method == "tools/call",
        _ => false,
    };
    let name = match member(message, "params", pick) {
        Some(params @ Value::Members(_)) => member(params, "name", pick),
        Some(Value::List(by_position)) => by_position.first(),
        _ => None,
    };
    let tool = match name {
        Some(Value::Text(name)) if matches!(pick, Pick::CString) => plain(name).to_owned(),
        Some(Value::Text(name)) => name.clone(),
        _ => String::new(),
    };
    let is_known = TOOLS.iter().any(|(known, _)| *known == tool);
    (id, (is_call && is_known).then_some(tool))
}

fn member<'a>(object: &'a Value, name: &str, pick: Pick) -> Option<&'a Value> {
    let Value::Members(members) = object else { return None };
    let is = |(key, _): &&(String, Value)| match pick {
        Pick::Last | Pick::First => key == name,
        Pick::AnyCase => folded(key) == name,
        Pick::CString => plain(key) == name,
    };
    let found = match pick {
        Pick::First => members.iter().find(is),
        Pick::Last | Pick::AnyCase | Pick::CString => members.iter().rev().find(is),
    };
    found.map(|(_, value)| value)
}

/// Simple case folding, as Go's.
fn folded(key: &str) -> String {
    let fold = |c: char| match c {
        '\u{17F}' => 's',
        '\u{212A}' => 'k',
        '\u{131}' | '\u{130}' => 'i',
        c => c.to_ascii_lowercase(),
    };
    key.chars().map(fold).collect()
}

fn plain(text: &str) -> &str {
    text.split('\0').next().unwrap_or_default().trim()
}

/// A number, by how it was written: what an answer repeats.
fn number(text: &str) -> Value {
    let is_number = serde_json::from_str::<serde_json::Number>(text).is_ok();
    if is_number { Value::List(vec![Value::Text(text.to_owned())]) } else { Value::Other }
}

fn of_serde(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::String(text) => Value::Text(text),
        serde_json::Value::Array(values) => Value::List(values.into_iter().map(of_serde).collect()),
        serde_json::Value::Object(members) => {
            Value::Members(members.into_iter().map(|(key, value)| (key, of_serde(value))).collect())
        }
        serde_json::Value::Number(written) => number(&written.to_string()),
        serde_json::Value::Null | serde_json::Value::Bool(_) => Value::Other,
    }
}

/// The values of a text.
fn values(text: &str, is_lenient: bool, rest: Rest) -> Option<Vec<Value>> {
    let characters: Vec<char> = text.chars().collect();
    let mut reader = Reader { text: &characters, at: 0, is_lenient };
    let mut values = Vec::new();
    loop {
        reader.blank();
        if reader.at == characters.len() {
            return (!values.is_empty()).then_some(values);
        }
        if !values.is_empty() && rest != Rest::Each {
            return (rest == Rest::Ignore).then_some(values);
        }
        match reader.value(0) {
            Some(value) => values.push(value),
            // The lines before a bad one are done.
            None => return (!values.is_empty() && rest == Rest::Each).then_some(values),
        }
    }
}

/// Reads JSON, or what readers of JSON5 take for it.
struct Reader<'a> {
    text: &'a [char],
    at: usize,
    is_lenient: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<char> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, wanted: char) -> bool {
        let is_there = self.peek() == Some(wanted);
        self.at += usize::from(is_there);
        is_there
    }

    fn starts(&self, text: &str) -> bool {
        text.chars().enumerate().all(|(at, c)| self.text.get(self.at + at) == Some(&c))
    }

    fn blank(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\n' | '\r') => self.at += 1,
                Some('\u{B}' | '\u{C}' | '\u{A0}' | '\u{FEFF}' | '\u{2028}') if self.is_lenient => {
                    self.at += 1;
                }
                Some('/') if self.is_lenient && self.starts("//") => self.line(),
                Some('#') if self.is_lenient => self.line(),
                Some('/') if self.is_lenient && self.starts("/*") => {
                    self.at += 2;
                    while self.peek().is_some() && !self.starts("*/") {
                        self.at += 1;
                    }
                    self.at += 2;
                }
                _ => return,
            }
        }
    }

    fn line(&mut self) {
        while self.peek().is_some_and(|c| !matches!(c, '\n' | '\r' | '\u{2028}')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        if depth > 100 {
            return None;
        }
        self.blank();
        match self.peek()? {
            '{' => self.members(depth),
            '[' => self.list(depth),
            '"' => self.string('"').map(Value::Text),
            '\'' if self.is_lenient => self.string('\'').map(Value::Text),
            _ => self.word(),
        }
    }

    fn members(&mut self, depth: usize) -> Option<Value> {
        self.at += 1;
        let mut members = Vec::new();
        loop {
            self.blank();
            if self.peek() == Some('}') && (members.is_empty() || self.is_lenient) {
                self.at += 1;
                return Some(Value::Members(members));
            }
            let key = match self.peek()? {
                '"' => self.string('"')?,
                '\'' if self.is_lenient => self.string('\'')?,
                _ if self.is_lenient => self.name()?,
                _ => return None,
            };
            self.blank();
            if !self.take(':') {
                return None;
            }
            members.push((key, self.value(depth + 1)?));
            self.blank();
            if !self.take(',') {
                return self.take('}').then_some(Value::Members(members));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        self.at += 1;
        let mut values = Vec::new();
        loop {
            self.blank();
            if self.peek() == Some(']') && (values.is_empty() || self.is_lenient) {
                self.at += 1;
                return Some(Value::List(values));
            }
            values.push(self.value(depth + 1)?);
            self.blank();
            if !self.take(',') {
                return self.take(']').then_some(Value::List(values));
            }
        }
    }

    fn name(&mut self) -> Option<String> {
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_alphanumeric() || "_$".contains(c)) {
            self.at += 1;
        }
        (self.at > begin).then(|| self.text[begin..self.at].iter().collect())
    }

    fn word(&mut self) -> Option<Value> {
        let begin = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || "+-./_".contains(c)) {
            self.at += 1;
        }
        let word: String = self.text[begin..self.at].iter().collect();
        match word.as_str() {
            "" => None,
            "true" | "false" | "null" | "NaN" | "Infinity" | "-Infinity" => Some(Value::Other),
            word if word.parse::<f64>().is_ok() => Some(number(word)),
            // Text without quotes, as in YAML and Hjson.
            word => self.is_lenient.then(|| Value::Text(word.to_owned())),
        }
    }

    fn string(&mut self, quote: char) -> Option<String> {
        self.at += 1;
        let mut units: Vec<u16> = Vec::new();
        let push = |units: &mut Vec<u16>, c: char| {
            units.extend_from_slice(c.encode_utf16(&mut [0; 2]));
        };
        loop {
            let c = self.peek()?;
            self.at += 1;
            if c == quote {
                return Some(String::from_utf16_lossy(&units));
            }
            if c != '\\' {
                push(&mut units, c);
                continue;
            }
            let escape = self.peek()?;
            self.at += 1;
            match escape {
                'u' => units.push(self.hex(4)?),
                'x' if self.is_lenient => units.push(self.hex(2)?),
                'b' => units.push(8),
                'f' => units.push(12),
                'n' => units.push(10),
                'r' => units.push(13),
                't' => units.push(9),
                '"' | '\\' | '/' => push(&mut units, escape),
                '\n' if self.is_lenient => {}
                other if self.is_lenient => push(&mut units, other),
                _ => return None,
            }
        }
    }

    fn hex(&mut self, digits: usize) -> Option<u16> {
        let text: String = self.text.get(self.at..self.at + digits)?.iter().collect();
        self.at += digits;
        u16::from_str_radix(&text, 16).ok()
    }
}
