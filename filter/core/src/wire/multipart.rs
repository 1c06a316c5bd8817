//! Reads the small fields of a form as its body passes: `multipart/form-data` (RFC 7578, framed as
//! in RFC 2046, section 5.1). It keeps no file, and of a field no more than a name and a value
//! have.
//!
//! To the next maintainer: a delimiter is a line that begins with `--` and the boundary. Some
//! servers want CRLF before it, some take LF too; where a body has both, or bytes that only some
//! servers take for a delimiter, they may read other fields than this reader: see
//! [`FormReader::is_doubtful`]. [`FormReader::feed`] may be cut at any byte; the only text that it
//! has to repeat when a line turns out to be no delimiter is a beginning of the delimiter itself.

use crate::base::limits::{FORM_BOUNDARY_BYTES_MAX, FORM_LINE_BYTES_MAX, VALUE_BYTES_MAX};
use crate::base::time::len_u64;

/// Bytes of the line break before a delimiter, which is no part of the content.
const BREAK_BYTES_MAX: usize = 2;

/// The delimiter of a form with this `content-type`; `None` if it is no form, or its boundary is
/// not certain.
pub(crate) fn delimiter(content_type: &[u8]) -> Option<Vec<u8>> {
    let mut parameters = Parameters::of(content_type);
    let is_form = parameters.value().eq_ignore_ascii_case(b"multipart/form-data");
    let mut found: Option<Vec<u8>> = None;
    while let Some((name, value)) = parameters.next().filter(|_| is_form) {
        if name.eq_ignore_ascii_case(b"boundary") && found.replace(value).is_some() {
            return None;
        }
    }
    let boundary = found.filter(|it| !it.is_empty() && it.len() <= FORM_BOUNDARY_BYTES_MAX)?;
    Some([b"--".as_slice(), &boundary].concat())
}

/// The parameters of a header such as `form-data; name="a"; filename="b"`.
struct Parameters<'a> {
    rest: &'a [u8],
}

impl<'a> Parameters<'a> {
    fn of(header: &'a [u8]) -> Self {
        Self { rest: header }
    }

    /// What stands before the first parameter.
    fn value(&mut self) -> &'a [u8] {
        let end = memchr::memchr(b';', self.rest).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        self.rest = rest;
        value.trim_ascii()
    }

    /// The next name and its value, without quotes.
    fn next(&mut self) -> Option<(&'a [u8], Vec<u8>)> {
        let text = self.rest.strip_prefix(b";")?;
        let end = memchr::memchr2(b'=', b';', text).unwrap_or(text.len());
        let (name, text) = text.split_at(end);
        let Some(text) = text.strip_prefix(b"=") else {
            self.rest = text;
            return Some((name.trim_ascii(), Vec::new()));
        };
        let text = text.trim_ascii_start();
        let Some(mut quoted) = text.strip_prefix(b"\"") else {
            let end = memchr::memchr(b';', text).unwrap_or(text.len());
            let (value, rest) = text.split_at(end);
            self.rest = rest;
            return Some((name.trim_ascii(), value.trim_ascii().to_vec()));
        };
        let mut value = Vec::new();
        while let Some((byte, behind)) = quoted.split_first() {
            quoted = behind;
            match (byte, behind.split_first()) {
                (b'"', _) => break,
                (b'\\', Some((escaped, behind))) if matches!(escaped, b'"' | b'\\') => {
                    value.push(*escaped);
                    quoted = behind;
                }
                _ => value.push(*byte),
            }
        }
        let end = memchr::memchr(b';', quoted).unwrap_or(quoted.len());
        self.rest = quoted.get(end..).unwrap_or_default();
        Some((name.trim_ascii(), value))
    }
}

/// A field that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FormField<'a> {
    pub(crate) name: &'a [u8],
    /// The beginning of its value, up to [`VALUE_BYTES_MAX`] bytes.
    pub(crate) value: &'a [u8],
    /// True if it is longer.
    pub(crate) is_truncated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before the first delimiter, or in the content of a part.
    Content,
    /// Behind a delimiter, in the same line.
    Delimiter,
    /// In the headers of a part.
    Headers,
    /// Behind the last delimiter.
    Epilogue,
}

/// Reads one form, chunk by chunk.
#[derive(Debug)]
pub(crate) struct FormReader {
    delimiter: Vec<u8>,
    state: State,
    /// How many bytes of the delimiter the line begins with; `None` if it is no delimiter.
    matched: Option<usize>,
    /// The header that is open, or what follows a delimiter.
    line: Vec<u8>,
    is_line_truncated: bool,
    /// The name of the part, if it is a field.
    name: Option<Vec<u8>>,
    is_file: bool,
    /// The beginning of the content of a field, with the line break behind it.
    value: Vec<u8>,
    content_bytes: u64,
    last_byte: u8,
    /// True if the content so far ends with CRLF.
    ends_in_crlf: bool,
    /// The kinds of line breaks around delimiters: CRLF, and LF alone.
    breaks: (bool, bool),
    is_doubtful: bool,
    field_bytes: u64,
    file_bytes: u64,
}

impl FormReader {
    /// Creates a reader for a form with this delimiter.
    pub(crate) fn new(delimiter: Vec<u8>) -> Self {
        Self {
            delimiter,
            state: State::Content,
            matched: Some(0),
            line: Vec::new(),
            is_line_truncated: false,
            name: None,
            is_file: false,
            value: Vec::new(),
            content_bytes: 0,
            last_byte: 0,
            ends_in_crlf: false,
            breaks: (false, false),
            is_doubtful: false,
            field_bytes: 0,
            file_bytes: 0,
        }
    }

    /// Whether another reader may see other fields.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.is_doubtful || self.breaks == (true, true)
    }

    /// The bytes of fields, and of files, that have ended.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        (self.field_bytes, self.file_bytes)
    }

    /// Reads the next bytes and calls `found` with each field that ends in them.
    pub(crate) fn feed(&mut self, chunk: &[u8], found: &mut dyn FnMut(FormField<'_>)) {
        let mut rest = chunk;
        while let Some((byte, tail)) = rest.split_first() {
            rest = match (self.state, self.matched) {
                (State::Epilogue, _) => return,
                (State::Content, Some(matched)) => {
                    if self.delimiter.get(matched) != Some(byte) {
                        self.matched = None;
                        let passed = self.delimiter.get(..matched).unwrap_or_default().to_vec();
                        self.content(&passed);
                        continue;
                    }
                    let matched = matched.saturating_add(1);
                    self.matched = Some(matched);
                    if matched == self.delimiter.len() {
                        self.end_part(found);
                    }
                    tail
                }
                (State::Content, None) => {
                    let line_break = memchr::memchr(b'\n', rest);
                    let end = line_break.map_or(rest.len(), |at| at.saturating_add(1));
                    let (line, behind) = rest.split_at(end);
                    self.content(line);
                    self.matched = line_break.map(|_| 0);
                    behind
                }
                (State::Delimiter | State::Headers, _) if *byte == b'\n' => {
                    self.end_line();
                    tail
                }
                (State::Delimiter | State::Headers, _) => {
                    if self.line.len() < FORM_LINE_BYTES_MAX {
                        self.line.push(*byte);
                    } else {
                        self.is_line_truncated = true;
                    }
                    if self.state == State::Delimiter && self.line == b"--" {
                        self.state = State::Epilogue;
                    }
                    tail
                }
            };
        }
    }

    fn content(&mut self, bytes: &[u8]) {
        self.content_bytes = self.content_bytes.saturating_add(len_u64(bytes.len()));
        if self.name.is_some() {
            let kept_max = VALUE_BYTES_MAX.saturating_add(BREAK_BYTES_MAX);
            let room = kept_max.saturating_sub(self.value.len());
            self.value.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        }
        // A line break that ends in these bytes may have begun in those before.
        if let Some((last, before)) = bytes.split_last() {
            let before = before.last().copied().unwrap_or(self.last_byte);
            self.ends_in_crlf = (before, *last) == (b'\r', b'\n');
            self.last_byte = *last;
        }
    }

    /// Notes the kind of a line break that belongs to a delimiter.
    fn see_break(&mut self, is_crlf: bool) {
        if is_crlf {
            self.breaks.0 = true;
        } else {
            self.breaks.1 = true;
        }
    }

    /// Ends the content at a delimiter, whose line break before it is no part of the content.
    fn end_part(&mut self, found: &mut dyn FnMut(FormField<'_>)) {
        self.state = State::Delimiter;
        if self.content_bytes > 0 {
            self.see_break(self.ends_in_crlf);
            let break_bytes = if self.ends_in_crlf { 2 } else { 1 };
            self.content_bytes = self.content_bytes.saturating_sub(break_bytes);
        }
        let size = if self.is_file { &mut self.file_bytes } else { &mut self.field_bytes };
        *size = size.saturating_add(self.content_bytes);
        if let Some(name) = self.name.take() {
            let bytes = usize::try_from(self.content_bytes).unwrap_or(usize::MAX);
            let value = self.value.get(..bytes.min(VALUE_BYTES_MAX)).unwrap_or(&self.value);
            let is_truncated = bytes > VALUE_BYTES_MAX;
            found(FormField { name: &name, value, is_truncated });
        }
        self.line.clear();
        self.value.clear();
        self.is_file = false;
        self.content_bytes = 0;
        self.last_byte = 0;
        self.ends_in_crlf = false;
    }

    /// Ends the line of a delimiter or a header.
    fn end_line(&mut self) {
        let line = core::mem::take(&mut self.line);
        let is_truncated = core::mem::take(&mut self.is_line_truncated);
        let is_crlf = line.ends_with(b"\r");
        let text = line.strip_suffix(b"\r").unwrap_or(&line);
        if self.state == State::Delimiter {
            self.see_break(is_crlf);
            // Only white space may follow a delimiter.
            self.is_doubtful |= is_truncated || !text.trim_ascii().is_empty();
            self.state = State::Headers;
        } else if text.is_empty() && !is_truncated {
            self.state = State::Content;
            self.matched = Some(0);
            self.name = self.name.take().filter(|_| !self.is_file);
        } else {
            self.header(text, is_truncated);
        }
    }

    fn header(&mut self, text: &[u8], is_truncated: bool) {
        let colon = memchr::memchr(b':', text).unwrap_or(text.len());
        let (name, value) = text.split_at(colon);
        let name = name.trim_ascii();
        let value = value.strip_prefix(b":").unwrap_or_default().trim_ascii();
        // Readers differ about a header that goes on in the next line, and about encodings.
        self.is_doubtful |= text.first().is_some_and(u8::is_ascii_whitespace);
        if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            let plain: &[&[u8]] = &[b"7bit", b"8bit", b"binary"];
            self.is_doubtful |= !plain.iter().any(|plain| value.eq_ignore_ascii_case(plain));
        }
        if !name.eq_ignore_ascii_case(b"content-disposition") {
            return;
        }
        let mut parameters = Parameters::of(value);
        parameters.value();
        let mut found = None;
        while let Some((name, value)) = parameters.next() {
            if name.eq_ignore_ascii_case(b"name") {
                self.is_doubtful |= found.replace(value).is_some();
            }
            // `filename` and `filename*`: a file, which is none of the fields.
            self.is_file |= name.len() >= 8 && name.get(..8).is_some_and(is_filename);
        }
        // A name that is cut is unknown; what is left out of a long line may be the file's name.
        self.is_doubtful |= is_truncated && !self.is_file;
        self.is_doubtful |= self.name.is_some();
        self.name = found.filter(|name| name.len() <= VALUE_BYTES_MAX);
    }
}

fn is_filename(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"filename")
}

#[cfg(test)]
mod tests {
    use super::{FormReader, delimiter};

    /// The fields, one line each, and what else the reader says, for chunks of this size.
    fn read(body: &[u8], chunks: &[&[u8]]) -> String {
        let mut reader = FormReader::new(delimiter(b"multipart/form-data; boundary=xyz").unwrap());
        let mut text = String::new();
        for chunk in chunks {
            reader.feed(chunk, &mut |field| {
                let (name, value) = (field.name, field.value);
                let (name, value) = (String::from_utf8_lossy(name), String::from_utf8_lossy(value));
                let value = value.replace('\r', "<CR>").replace('\n', "<LF>");
                let rest = if field.is_truncated { ".." } else { "" };
                text.push_str(&format!("{name}={value}{rest} "));
            });
        }
        let (fields, files) = reader.sizes();
        let doubt = if reader.is_doubtful() { " doubtful" } else { "" };
        assert!(reader.value.len() <= super::VALUE_BYTES_MAX + 2, "{body:?}");
        format!("{text}| {fields} {files}{doubt}")
    }

    fn part(name: &str, more: &str, value: &str) -> String {
        format!(
            "--xyz\r\nContent-Disposition: form-data; name={name}{more}\r\n\
             Content-Type: text/plain\r\n\r\n{value}\r\n"
        )
    }

    /// What a row is about, a body, and what is read.
    type Row = (&'static str, String, String);

    fn plain_rows() -> Vec<Row> {
        let model = part("\"model\"", "", "whisper-1");
        let file = |content: &str| part("\"file\"", "; filename=\"a.mp3\"", content);
        vec![
            ("one field", format!("{model}--xyz--\r\n"), "model=whisper-1 | 9 0".to_owned()),
            (
                "without the last line break",
                format!("{model}--xyz--"),
                "model=whisper-1 | 9 0".to_owned(),
            ),
            (
                "a preamble and an epilogue",
                format!("This is a form.\r\n--xy\r\n{model}--xyz--\r\n--xyz\r\nmodel"),
                "model=whisper-1 | 30 0".to_owned(),
            ),
            (
                "a name without quotes, and other parameters",
                format!("{}--xyz--", part("model", "; charset=utf-8", "a;b")),
                "model=a;b | 3 0".to_owned(),
            ),
            (
                "LF alone",
                format!("{model}--xyz--\r\n").replace("\r\n", "\n"),
                "model=whisper-1 | 9 0".to_owned(),
            ),
            (
                "a file before the field, with the delimiter in its lines",
                format!("{}{model}--xyz--", file("a--xyz\r\n--xy\r\n -\r\n\r\r\n-\r\n--xy--xyz\r")),
                "model=whisper-1 | 9 34".to_owned(),
            ),
            (
                "a file with the delimiter behind LF alone",
                format!("{}{model}--xyz--", file("ID3\n--xyz\r\nmore")),
                "model=whisper-1 | 9 3 doubtful".to_owned(),
            ),
            (
                "an empty field and one of line breaks",
                format!("{}{}--xyz--", part("a", "", ""), part("b", "", "\r\n\r\n\r\n")),
                "a= b=<CR><LF><CR><LF><CR><LF> | 6 0".to_owned(),
            ),
            (
                "a field without its own line break",
                "--xyz\r\nContent-Disposition: form-data; name=a\r\n\r\n--xyz--".to_owned(),
                "a= | 0 0".to_owned(),
            ),
            (
                "padding behind the delimiter",
                format!("{}--xyz--", model.replace("--xyz", "--xyz \t")),
                "model=whisper-1 | 9 0".to_owned(),
            ),
            (
                "a boundary that begins like this one",
                format!("{}--xyz--", model.replace("--xyz", "--xyzzy")),
                "model=whisper-1 | 9 0 doubtful".to_owned(),
            ),
        ]
    }

    fn odd_rows() -> Vec<Row> {
        let model = part("\"model\"", "", "whisper-1");
        vec![
            (
                "an escaped name",
                format!("{}--xyz--", part(r#""a\"; filename=\"b""#, "", "c")),
                "a\"; filename=\"b=c | 1 0".to_owned(),
            ),
            (
                "a file by its extended name, called like a field",
                format!("{}--xyz--", part("model", "; FileName*=UTF-8''a", "gpt")),
                "| 0 3".to_owned(),
            ),
            (
                "an encoded field",
                format!(
                    "{}--xyz--",
                    model.replace("Content-Type: text/plain", "Content-Transfer-Encoding: base64")
                ),
                "model=whisper-1 | 9 0 doubtful".to_owned(),
            ),
            (
                "a folded header",
                format!("{}--xyz--", model.replace("form-data; ", "form-data;\r\n ")),
                "| 9 0 doubtful".to_owned(),
            ),
            (
                "two names",
                format!("{}--xyz--", part("model", "; name=other", "gpt")),
                "other=gpt | 3 0 doubtful".to_owned(),
            ),
            ("a form that is cut", model.clone(), "| 0 0".to_owned()),
            (
                "a value that is too long",
                format!("{}--xyz--", part("a", "", &"v".repeat(300))),
                format!("a={}.. | 300 0", "v".repeat(256)),
            ),
            (
                "a value that just fits",
                format!("{}--xyz--", part("a", "", &"v".repeat(256))),
                format!("a={} | 256 0", "v".repeat(256)),
            ),
            (
                "a header that is too long",
                format!("{}--xyz--", part("a", &format!("; x={}", "y".repeat(2000)), "v")),
                "a=v | 1 0 doubtful".to_owned(),
            ),
        ]
    }

    #[test]
    fn fields_are_read_whole_byte_by_byte_and_at_each_split() {
        for (name, body, expected) in plain_rows().into_iter().chain(odd_rows()) {
            let body = body.as_bytes();
            assert_eq!(read(body, &[body]), expected, "{name}");
            assert_eq!(read(body, &body.chunks(1).collect::<Vec<_>>()), expected, "{name}: bytes");
            for at in 0..body.len() {
                let (start, end) = body.split_at(at);
                assert_eq!(read(body, &[start, end]), expected, "{name} at {at}");
            }
        }
    }

    #[test]
    fn the_boundary_is_read_out_of_the_media_type() {
        for (media_type, expected) in [
            ("multipart/form-data; boundary=abc", Some("--abc")),
            ("Multipart/Form-Data;charset=utf-8;BOUNDARY=\"a b;c\" ", Some("--a b;c")),
            ("multipart/form-data; boundary=\"a\\\"b\"; x", Some("--a\"b")),
            ("multipart/form-data", None),
            ("multipart/form-data; boundary=", None),
            ("multipart/form-data; boundary=a; boundary=b", None),
            ("multipart/mixed; boundary=abc", None),
            ("application/json; boundary=abc", None),
        ] {
            let found = delimiter(media_type.as_bytes());
            let found = found.map(|found| String::from_utf8(found).unwrap());
            assert_eq!(found.as_deref(), expected, "{media_type}");
        }
    }
}
