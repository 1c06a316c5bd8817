//! Recognises what Envoy's Wasm logger wrote. A line of an access log, or of another program, may
//! contain any text; it does not begin as a line of the logger does.

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value};

/// What the default formats of Envoy, of Envoy with `--enable-fine-grain-logging`, and of Istio's
/// proxies are, old and new.
const FORMATS: [&str; 4] = [
    "[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v",
    "[%Y-%m-%d %T.%e][%t][%l] [%g:%#] %v",
    "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t",
    "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n\t%v",
];

/// The level of spilled lines.
const LEVEL: &str = "warning";
/// The name of the logger.
const LOGGER: &str = "wasm";
/// The file that calls the logger.
const FILE: &str = "context.cc";

/// The members of Envoy's JSON log, in lower case: by Istio's names, those of Envoy's
/// documentation, and what else is usual.
const MESSAGE_MEMBERS: [&str; 3] = ["msg", "message", "@message"];
const LEVEL_MEMBERS: [&str; 4] = ["level", "severity", "lvl", "log.level"];
const LOGGER_MEMBERS: [&str; 9] = [
    "scope",
    "logger",
    "caller",
    "sourceline",
    "source_line",
    "component",
    "loggername",
    "logger_name",
    "log.logger",
];
/// What else may be there: of Envoy's log, and of what has carried and parsed it.
const OTHER_MEMBERS: [&str; 21] = [
    "time",
    "timestamp",
    "@timestamp",
    "ts",
    "date",
    "thread",
    "threadid",
    "thread_id",
    "tid",
    "pid",
    "log",
    "stream",
    "logtag",
    "_p",
    "attrs",
    "docker",
    "kubernetes",
    "labels",
    "tag",
    "container_id",
    "container_name",
];

/// The formats of Envoy's log.
#[derive(Debug, Clone)]
pub(super) struct Logger {
    lines: Vec<LineFormat>,
    objects: Vec<Members>,
}

/// The names of an object's members, in lower case.
#[derive(Debug, Clone)]
struct Members {
    message: Vec<String>,
    level: Vec<String>,
    logger: Vec<String>,
    other: Vec<String>,
}

impl Logger {
    /// The usual formats, and these.
    pub(super) fn new(further: &[Format]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let usual = Members {
            message: owned(&MESSAGE_MEMBERS),
            level: owned(&LEVEL_MEMBERS),
            logger: owned(&LOGGER_MEMBERS),
            other: owned(&OTHER_MEMBERS),
        };
        let lines = FORMATS.iter().filter_map(|format| LineFormat::parse(format).ok());
        let mut logger = Self { lines: lines.collect(), objects: vec![usual] };
        for format in further {
            match format.clone().0 {
                Kind::Line(line) => logger.lines.push(line),
                Kind::Object(members) => logger.objects.push(members),
            }
        }
        logger
    }

    /// What a VM wrote, if this text is a warning of the Wasm logger.
    pub(super) fn message<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        self.lines.iter().find_map(|format| said(format.message(text)?))
    }

    /// The same of one JSON object.
    pub(super) fn message_in<'a>(&self, object: &'a Map<String, Value>) -> Option<&'a str> {
        self.objects.iter().find_map(|members| members.message(object))
    }
}

impl Members {
    /// The message of an object. One with any other member is none: a JSON access log that is
    /// written as text escapes nothing, so a stranger can add members to it, but take none away.
    fn message<'a>(&self, object: &'a Map<String, Value>) -> Option<&'a str> {
        let all = [&self.message, &self.level, &self.logger, &self.other];
        let is_known = |name: &String| {
            let name = name.to_ascii_lowercase();
            all.iter().any(|names| names.contains(&name))
        };
        if !object.keys().all(is_known) {
            return None;
        }
        let member = |names: &[String], is_right: &dyn Fn(&str) -> bool| {
            object.iter().find_map(|(name, value)| {
                let is_named = names.contains(&name.to_ascii_lowercase());
                value.as_str().filter(|value| is_named && is_right(value))
            })
        };
        member(&self.level, &|level| level == LEVEL)?;
        member(&self.logger, &is_wasm)?;
        let message = member(&self.message, &|text| said(text.as_bytes()).is_some())?;
        std::str::from_utf8(said(message.as_bytes())?).ok()
    }
}

/// Whether a text names the logger, or the place of its caller.
fn is_wasm(text: &str) -> bool {
    let file = text.rsplit_once(':').map_or(text, |(file, line)| {
        if line.bytes().all(|byte| byte.is_ascii_digit()) { file } else { text }
    });
    text.rsplit(' ').next() == Some(LOGGER) || is_file(file.as_bytes())
}

fn is_file(path: &[u8]) -> bool {
    let is_in_path = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._-".contains(byte);
    let name = path.rsplit(|byte| *byte == b'/').next();
    name == Some(FILE.as_bytes()) && path.iter().all(is_in_path)
}

/// What stands behind `wasm log NAME: `; the name is the operator's.
fn said(message: &[u8]) -> Option<&[u8]> {
    let rest = message.strip_prefix(b"wasm log")?;
    let end = memchr::memmem::find(rest, b": ")?;
    let (name, said) = (rest.get(..end)?, rest.get(end + 2..)?);
    (name.is_empty() || name.starts_with(b" ")).then_some(said)
}

/// A format of Envoy's log: of its lines, as `--log-format` takes it, or of its objects, as
/// `json_format` does.
#[derive(Debug, Clone)]
pub struct Format(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Line(LineFormat),
    Object(Members),
}

impl Format {
    /// Reads a format such as `[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v`, or
    /// `{"level":"%l","scope":"envoy %n","msg":"%j"}`.
    ///
    /// # Errors
    ///
    /// If it has a flag that is not known, no message, or does not tell by `%n`, `%g`, `%s` or `%@`
    /// which logger wrote: then strangers' text in an access log could not be told from it.
    pub fn parse(format: &str) -> anyhow::Result<Self> {
        if !format.trim_start().starts_with('{') {
            return LineFormat::parse(format).map(|line| Self(Kind::Line(line)));
        }
        let object: Map<String, Value> =
            serde_json::from_str(format).context("expected a JSON object of formats")?;
        let with = |flags: &[&str], what: &str| {
            let has = |value: &Value| {
                value.as_str().is_some_and(|text| flags.iter().any(|flag| text.contains(flag)))
            };
            let names = object.iter().filter(|(_, value)| has(value));
            let names: Vec<String> = names.map(|(name, _)| name.to_ascii_lowercase()).collect();
            ensure!(!names.is_empty(), "expected {what}");
            Ok(names)
        };
        Ok(Self(Kind::Object(Members {
            message: with(&["%j", "%v", "%_"], "%j, the message")?,
            level: with(&["%l"], "%l, the level")?,
            logger: with(
                &["%n", "%g", "%s", "%@"],
                "%n, %g, %s or %@, which tell who wrote a line",
            )?,
            other: object.keys().map(|name| name.to_ascii_lowercase()).collect(),
        })))
    }
}

/// A format of lines.
#[derive(Debug, Clone)]
struct LineFormat {
    head: Vec<Token>,
    /// What stands behind the message, up to the next flag.
    tail: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Token {
    Literal(Vec<u8>),
    /// One byte or more of these.
    Run(fn(u8) -> bool),
    /// The path of the file that calls the logger.
    Path,
}

impl LineFormat {
    fn parse(format: &str) -> anyhow::Result<Self> {
        let mut head = Vec::new();
        let mut rest = format;
        let mut names_logger = false;
        loop {
            let (literal, behind) = rest.split_once('%').context("expected %v, the message")?;
            push_literal(&mut head, literal);
            let flag = behind.chars().next().context("expected a flag behind the last %")?;
            rest = behind.get(flag.len_utf8()..).unwrap_or_default();
            names_logger |= "ngs@".contains(flag);
            match flag {
                'v' | '_' | 'j' => break,
                '^' | '$' => {}
                '%' => push_literal(&mut head, "%"),
                'Y' | 'm' | 'd' | 'H' | 'M' | 'S' | 'e' | 'f' | 'F' | 'E' | 't' | 'P' | '#' => {
                    head.push(Token::Run(|byte| byte.is_ascii_digit()));
                }
                'T' | 'X' | 'R' | 'r' | 'D' | 'x' | 'z' | 'c' | 'a' | 'A' | 'b' | 'B' | 'p' => {
                    head.push(Token::Run(|byte| {
                        byte.is_ascii_alphanumeric() || b":/+- ".contains(&byte)
                    }));
                }
                'l' => push_literal(&mut head, LEVEL),
                'L' => push_literal(&mut head, "W"),
                'n' => push_literal(&mut head, LOGGER),
                'g' | 's' => head.push(Token::Path),
                '@' => {
                    head.push(Token::Path);
                    push_literal(&mut head, ":");
                    head.push(Token::Run(|byte| byte.is_ascii_digit()));
                }
                other => bail!("%{other} is no flag that is known here"),
            }
        }
        ensure!(names_logger, "expected %n, %g, %s or %@, which tell who wrote a line");
        let tail = rest.split('%').next().unwrap_or_default().as_bytes().to_vec();
        Ok(Self { head, tail })
    }

    /// The message of a line in this format.
    fn message<'a>(&self, line: &'a [u8]) -> Option<&'a [u8]> {
        let mut rest = line;
        for token in &self.head {
            rest = match token {
                Token::Literal(literal) => rest.strip_prefix(&literal[..])?,
                Token::Run(is_in) => {
                    let length = rest.iter().take_while(|byte| is_in(**byte)).count();
                    rest.get(length..).filter(|_| length > 0)?
                }
                Token::Path => {
                    let is_end = |byte: &u8| matches!(byte, b':' | b']' | b' ' | b'\t');
                    let length = rest.iter().take_while(|byte| !is_end(byte)).count();
                    let (path, behind) = rest.split_at_checked(length)?;
                    is_file(path).then_some(behind)?
                }
            };
        }
        if self.tail.is_empty() {
            return Some(rest);
        }
        let end = memchr::memmem::rfind(rest, &self.tail).unwrap_or(rest.len());
        rest.get(..end)
    }
}

fn push_literal(tokens: &mut Vec<Token>, text: &str) {
    if !text.is_empty() {
        tokens.push(Token::Literal(text.as_bytes().to_vec()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_the_loggers_only_if_it_begins_as_one() {
        let logger = Logger::new(&[Format::parse("%^%L%$ %n %v (%t)").expect("a format")]);
        let at = "source/extensions/common/wasm/context.cc:1154";
        for (line, expected) in [
            (format!("[2026-11-27 16:13:35.510][27309][warning][wasm] [{at}] wasm log a: x"), true),
            (
                format!("[2026-11-27 16:13:35.510][27309][warning][wasm] [{at}] wasm log a b c: x"),
                true,
            ),
            (format!("[2026-11-27 16:13:35.510][27309][warning][wasm] [{at}] wasm log: x"), true),
            (format!("[2026-11-27 16:13:35.510][27309][warning] [{at}] wasm log a: x"), true),
            (
                format!(
                    "2026-11-27T16:13:37.821513Z\twarning\tenvoy wasm {at}\twasm log a: x\tthread=2"
                ),
                true,
            ),
            (
                format!(
                    "2026-11-27T16:13:37.821513Z\twarning\tenvoy wasm external/envoy/{at}\twasm log a: x"
                ),
                true,
            ),
            ("2026-11-27T16:13:37.821513Z\twarning\tenvoy wasm\twasm log a: x".to_owned(), true),
            ("W wasm wasm log a: x (12)".to_owned(), true),
            (
                format!(" [2026-11-27 16:13:35.510][27309][warning][wasm] [{at}] wasm log a: x"),
                false,
            ),
            (format!("[2026-11-27 16:13:35.510][27309][info][wasm] [{at}] wasm log a: x"), false),
            (
                format!("[2026-11-27 16:13:35.510][27309][warning][http] [{at}] wasm log a: x"),
                false,
            ),
            (
                format!(
                    "[2026-11-27 16:13:35.510][27309][warning][wasm] [{at}] said wasm log a: x"
                ),
                false,
            ),
            (
                format!("[2026-11-27 16:13:35.510][27309][warning][wasm] [a b/{at}] wasm log a: x"),
                false,
            ),
            (
                format!(
                    "[2026-11-27T16:13:34.994Z] \"GET / HTTP/1.1\" \"[2026-11-27 16:13:35.510][27309][warning][wasm] [{at}] wasm log a: x"
                ),
                false,
            ),
            ("wasm log a: x".to_owned(), false),
        ] {
            let found = logger.message(line.as_bytes());
            assert_eq!(found, expected.then_some(&b"x"[..]), "{line}");
        }
    }

    #[test]
    fn a_json_object_is_the_loggers_by_its_level_and_its_logger() {
        let format = r#"{"l": "%l", "n": "%n", "m": "%j", "fixed": "y"}"#;
        let logger = Logger::new(&[Format::parse(format).expect("a format")]);
        for (json, expected) in [
            (
                r#"{"caller":"source/extensions/common/wasm/context.cc:1154","level":"warning","msg":"wasm log a: x"}"#,
                true,
            ),
            (r#"{"scope":"envoy wasm","level":"warning","msg":"wasm log a: x"}"#, true),
            (
                r#"{"SourceLine":"context.cc:1154","Level":"warning","Message":"wasm log a: x"}"#,
                true,
            ),
            (r#"{"scope":"envoy http","level":"warning","msg":"wasm log a: x"}"#, false),
            (r#"{"scope":"envoy wasm","level":"info","msg":"wasm log a: x"}"#, false),
            (r#"{"authority":"wasm","x-level":"warning","user_agent":"wasm log a: x"}"#, false),
            (r#"{"level":"warning","msg":"wasm log a: x"}"#, false),
            // A stranger has added members to an access log that is text, and no JSON for Envoy.
            (r#"{"ua":"","scope":"envoy wasm","level":"warning","msg":"wasm log a: x"}"#, false),
            (r#"{"l":"warning","n":"wasm","m":"wasm log a: x","fixed":"y"}"#, true),
            (r#"{"l":"warning","n":"http","m":"wasm log a: x","fixed":"y"}"#, false),
            (r#"{"scope":"envoy wasm","level":"warning","msg":"said wasm log a: x"}"#, false),
        ] {
            let object: Map<String, Value> = serde_json::from_str(json).expect(json);
            assert_eq!(logger.message_in(&object), expected.then_some("x"), "{json}");
        }
    }

    #[test]
    fn a_format_that_does_not_tell_the_logger_is_refused() {
        for (format, expected) in [
            ("%v", "expected %n, %g, %s or %@, which tell who wrote a line"),
            ("[%n] %Q %v", "%Q is no flag that is known here"),
            ("[%n]", "expected %v, the message"),
            ("[%n] %", "expected a flag behind the last %"),
            (
                r#"{"msg": "%j", "level": "%l"}"#,
                "expected %n, %g, %s or %@, which tell who wrote a line",
            ),
            (r#"{"msg": "%j", "scope": "%n"}"#, "expected %l, the level"),
            ("{", "expected a JSON object of formats"),
        ] {
            assert_eq!(Format::parse(format).expect_err(format).to_string(), expected);
        }
    }
}
