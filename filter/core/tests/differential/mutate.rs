//! Makes requests that are almost `tools/call`s: what JSON, HTTP and codings allow, what lenient
//! readers accept beyond it, and what only looks like it. The dice decide everything.

use std::io::Write;

use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use crate::dice::Dice;

/// The tools of the servers, and what they cost.
pub(crate) const TOOLS: &[(&str, &str)] =
    &[("analyze_x", "0.10"), ("lookup_x", "0.002"), ("echo", "0.001")];

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Into how many pieces the body is cut.
    pub(crate) pieces: usize,
    /// The tools of its calls, if every reader reads the request in the same way.
    pub(crate) certain: Option<Vec<String>>,
}

/// A request; about one in ten is certain.
pub(crate) fn request(dice: &mut Dice) -> Request {
    let pieces = if one_in(dice, 2) { 1 } else { 2 + below(dice, 7) };
    if one_in(dice, 10) {
        return certain(dice, pieces);
    }
    let mut text = text(dice);
    // Few changes, so that the text remains a call to somebody.
    for _ in 0..below(dice, 3) {
        change(dice, &mut text);
    }
    let mut headers = vec![("content-type", media_type(dice))];
    let bytes = encoded(dice, &text, &mut headers);
    let mut body = coded(dice, bytes, &mut headers);
    if one_in(dice, 40) {
        change_byte(dice, &mut body);
    }
    if one_in(dice, 12) {
        headers.push(("mcp-method", "tools/call".to_owned()));
        headers.push(("mcp-name", "echo".to_owned()));
    }
    if one_in(dice, 60) {
        headers.push(("content-type", media_type(dice)));
    }
    let methods = ["PUT", "PATCH", "QUERY", "GET", "DELETE", "post"];
    let method = if one_in(dice, 40) { pick(dice, &methods) } else { "POST" };
    Request { method, headers, body, pieces, certain: None }
}

/// A request of an honest client.
fn certain(dice: &mut Dice, pieces: usize) -> Request {
    let mut tools = Vec::new();
    let count = if one_in(dice, 4) { 2 + below(dice, 4) } else { 1 };
    let messages: Vec<String> = (0..count)
        .map(|at| {
            let tool = pick(dice, TOOLS).0;
            let ids = [format!("{at}"), format!("\"{at}\""), format!("7{}{at}", "7".repeat(13))];
            let id = pick(dice, &ids);
            let method = pick(dice, &["tools/call", "tools\\/call", "tools\\u002Fcall"]);
            let arguments = argument(dice);
            let members = [
                "\"jsonrpc\":\"2.0\"".to_owned(),
                format!("\"id\":{id}"),
                format!("\"method\":\"{method}\""),
                format!("\"params\":{{\"name\":\"{tool}\",\"arguments\":{arguments}}}"),
            ];
            tools.push(tool.to_owned());
            format!("{{{}}}", shuffled(dice, members.to_vec()).join(","))
        })
        .collect();
    let text = if count == 1 && one_in(dice, 2) {
        format!("\u{FEFF}{}", messages.concat())
    } else if count == 1 {
        format!(" {}\r\n", messages.concat())
    } else {
        format!("[{}]", messages.join(" , "))
    };
    let mut headers = vec![("content-type", "application/json".to_owned())];
    let body = match below(dice, 5) {
        0 => {
            headers.push(("content-encoding", "gzip".to_owned()));
            gzip(text.as_bytes())
        }
        1 => {
            headers.push(("content-encoding", "deflate".to_owned()));
            zlib(text.as_bytes())
        }
        _ => text.into_bytes(),
    };
    Request { method: "POST", headers, body, pieces, certain: Some(tools) }
}

/// A body as text: one message, or a batch, with what stands around it.
fn text(dice: &mut Dice) -> String {
    let count = match below(dice, 8) {
        0 | 1 => 2 + below(dice, 3),
        _ => 1,
    };
    let messages: Vec<String> = (0..count).map(|at| message(dice, at)).collect();
    let body = match (count, below(dice, 12)) {
        (1, 0) => format!("[{}]", messages.concat()),
        (1, 1) => format!("[[{}]]", messages.concat()),
        (1, 2) => format!("\"{}\"", messages.concat().replace('\\', "\\\\").replace('"', "\\\"")),
        (1, _) => messages.concat(),
        (_, 0) => messages.join("\n"),
        (_, 1) => messages.concat(),
        (_, 2) => messages.join("\u{1E}"),
        _ => format!("[{}]", messages.join(",")),
    };
    match below(dice, 24) {
        0 => format!("\u{FEFF}{body}"),
        1 => format!("\u{FEFF}\u{FEFF}{body}"),
        2 => format!("{body}{{}}"),
        3 => format!("{body}\0"),
        4 => format!("// {{\n{body}"),
        5 => format!("/*\"*/{body}/*\"*/"),
        6 => format!("null {body}"),
        7 => format!("1\n{body}"),
        8 => format!("\"\"{body}"),
        9 => format!("{}{body}", " ".repeat(1 + below(dice, 3000))),
        10 => format!("{body}]"),
        11 => format!(")]}}',\n{body}"),
        _ => body,
    }
}

/// One message: what decides may be absent, odd, repeated, or named almost so.
fn message(dice: &mut Dice, at: usize) -> String {
    let tool = pick(dice, TOOLS).0;
    let decoy = pick(dice, TOOLS).0;
    let id = id(dice, at);
    let method = method(dice);
    let params = params(dice, tool, decoy);
    let mut members = vec![
        format!("{}:\"2.0\"", key(dice, "jsonrpc")),
        format!("{}:{id}", key(dice, "id")),
        format!("{}:{method}", key(dice, "method")),
        format!("{}:{params}", key(dice, "params")),
    ];
    if one_in(dice, 8) {
        members.remove(below(dice, 4));
    }
    for _ in 0..below(dice, 3) {
        let further = match below(dice, 10) {
            0 => format!("{}:\"ping\"", key(dice, "method")),
            1 => format!("{}:\"tools/call\"", odd_key(dice, "method")),
            2 => format!("{}:{{\"name\":\"{decoy}\"}}", odd_key(dice, "params")),
            3 => format!("{}:{{\"name\":\"{decoy}\"}}", key(dice, "params")),
            4 => format!("{}:{{\"content\":[]}}", key(dice, "result")),
            5 => format!("{}:{{\"code\":1}}", key(dice, "error")),
            6 => format!("{}:{}", key(dice, "id"), self::id(dice, at)),
            7 => format!("\"x\":{}", argument(dice)),
            8 => {
                format!("\"__proto__\":{{\"method\":\"ping\",\"params\":{{\"name\":\"{decoy}\"}}}}")
            }
            _ => {
                let name = pick_text(dice, &["id", "result", "error"]);
                format!("{}:\"x\"", odd_key(dice, name))
            }
        };
        members.push(further);
    }
    let members = if one_in(dice, 2) { shuffled(dice, members) } else { members };
    let separator = match below(dice, 40) {
        0 => ",,",
        1 => ";",
        2 => " ",
        3 => ",/*x*/",
        4 => ",//x\n",
        5 => ",#x\n",
        _ => ",",
    };
    let tail = if one_in(dice, 30) { "," } else { "" };
    format!("{{{}{tail}}}", members.join(separator))
}

fn id(dice: &mut Dice, at: usize) -> String {
    match below(dice, 16) {
        0 => "null".to_owned(),
        1 => "true".to_owned(),
        2 => "{\"a\":1}".to_owned(),
        3 => "[]".to_owned(),
        4 => "1e400".to_owned(),
        5 => format!("\"{}\"", "i".repeat(100 + below(dice, 100))),
        6 => "1".to_owned(),
        7 => "-0.5".to_owned(),
        8 => "NaN".to_owned(),
        9 => format!("\"{at}\""),
        _ => at.to_string(),
    }
}

fn method(dice: &mut Dice) -> String {
    match below(dice, 24) {
        0 => "\"Tools/Call\"".to_owned(),
        1 => "\"tools/call \"".to_owned(),
        2 => "\"tools/call\\u0000x\"".to_owned(),
        3 => "[\"tools/call\"]".to_owned(),
        4 => "\"ping\"".to_owned(),
        5 => "'tools/call'".to_owned(),
        6 => "\"tools\\x2fcall\"".to_owned(),
        7 => "\"tools\\u002fcall\"".to_owned(),
        8 => "\"tool\u{17F}/call\"".to_owned(),
        9 => "tools/call".to_owned(),
        10 => "\"tools/list\"".to_owned(),
        11 => "\"tools/ca\\\nll\"".to_owned(),
        _ => "\"tools/call\"".to_owned(),
    }
}

fn params(dice: &mut Dice, tool: &str, decoy: &str) -> String {
    let arguments = argument(dice);
    let name = match below(dice, 24) {
        0 => format!("'{tool}'"),
        1 => format!("[\"{tool}\"]"),
        2 => format!("\"{}\"", tool.replace('_', "\\u005f")),
        3 => format!("\"{}\"", tool.replace('_', "\\x5f")),
        4 => format!("\"{tool}\\u0000{decoy}\""),
        5 => format!("\" {tool}\""),
        6 => tool.to_owned(),
        _ => format!("\"{tool}\""),
    };
    let (name_key, arguments_key) = (key(dice, "name"), key(dice, "arguments"));
    let mut members = vec![format!("{name_key}:{name}"), format!("{arguments_key}:{arguments}")];
    match below(dice, 20) {
        0 => members.push(format!("\"name\":\"{decoy}\"")),
        1 => members.insert(0, format!("\"name\":\"{decoy}\"")),
        2 => members.push(format!("{}:\"{decoy}\"", odd_key(dice, "name"))),
        3 => return format!("[\"{tool}\",{arguments}]"),
        4 => return format!("\"{{\\\"name\\\":\\\"{tool}\\\"}}\""),
        5 => return "null".to_owned(),
        6 => members.push("\"_meta\":{\"progressToken\":1}".to_owned()),
        _ => {}
    }
    format!("{{{}}}", shuffled(dice, members).join(","))
}

/// A value that decides nothing, and may hide what does.
fn argument(dice: &mut Dice) -> String {
    let values = [
        "{}",
        "{\"a\":[1.5e-3,true,null,NaN,\"\\ud83d\\ude00 ' // /* \\\\ \\\"\"]}",
        "{\"method\":\"ping\",\"name\":\"echo\",\"id\":7}",
        "{\"a\":\"\\\\\"}",
        "{\"a\":\"}}]]\"}",
        "[[[[[[[[[[{\"a\":\"\\\\\\\"\"}]]]]]]]]]]",
    ];
    pick(dice, &values).to_owned()
}

/// A member's name in quotes, or almost.
fn key(dice: &mut Dice, name: &str) -> String {
    match below(dice, 20) {
        0 => odd_key(dice, name),
        1 => format!("\"\\u{:04x}{}\"", u32::from(name.as_bytes()[0]), &name[1..]),
        2 => format!("\"{name}\" "),
        _ => format!("\"{name}\""),
    }
}

/// A name that only some readers take for this one.
fn odd_key(dice: &mut Dice, name: &str) -> String {
    let capital = name[..1].to_uppercase();
    match below(dice, 12) {
        0 | 1 => format!("\"{capital}{}\"", &name[1..]),
        2 => format!("\"{}\"", name.to_uppercase()),
        3 => format!("\"{}\"", name.replace('s', "\u{17F}")),
        4 => format!("\"{name}\\u0000\""),
        5 => format!("\"{name}\\u0000{}\"", "x".repeat(70)),
        6 => format!("\" {name}\""),
        7 => format!("\"{name}{}\"", " ".repeat(80)),
        8 => format!("'{name}'"),
        9 => name.to_owned(),
        10 => format!("\"\\x{:02x}{}\"", name.as_bytes()[0], &name[1..]),
        _ => format!("\"{}\"", name.replace('i', "\u{131}")),
    }
}

/// Changes a text in one place, without regard to what it says.
fn change(dice: &mut Dice, text: &mut String) {
    let mut characters: Vec<char> = text.chars().collect();
    let at = below(dice, characters.len().max(1));
    match below(dice, 8) {
        0 if !characters.is_empty() => drop(characters.remove(at)),
        1 if !characters.is_empty() => {
            let end = (at + 1 + below(dice, 30)).min(characters.len());
            let part: Vec<char> = characters[at..end].to_vec();
            characters.splice(at..at, part);
        }
        2 if !characters.is_empty() => {
            let other = below(dice, characters.len());
            characters.swap(at, other);
        }
        _ => {
            let pieces = [
                "\"",
                "'",
                "\\",
                "/*",
                "*/",
                "//",
                "\n",
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                "#",
                " ",
                "\u{FEFF}",
                "\u{A0}",
                "\u{2028}",
                "\0",
                "\u{B}",
                "\u{C}",
                "`",
                "1",
                "a",
                "+",
                "-",
                "\"method\":\"tools/call\",",
                "\"method\":\"ping\",",
                "\"\"\"",
                "<!--",
                "=",
            ];
            characters.splice(at..at, pick(dice, &pieces).chars());
        }
    }
    *text = characters.into_iter().collect();
}

fn change_byte(dice: &mut Dice, body: &mut Vec<u8>) {
    if body.is_empty() {
        return;
    }
    let at = below(dice, body.len());
    match below(dice, 3) {
        0 => body[at] = u8::try_from(below(dice, 256)).unwrap(),
        1 => body.insert(at, u8::try_from(below(dice, 256)).unwrap()),
        _ => body.truncate(at),
    }
}

fn media_type(dice: &mut Dice) -> String {
    let odd = [
        "application/json; charset=utf-16",
        "application/json; charset=utf-16le",
        "application/json; charset=utf-7",
        "application/json; charset=\"utf-8\"",
        "application/json;charset=UTF8",
        "application/json; charset=iso-8859-1",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json, text/plain",
        "text/plain",
        "application/vnd.api+json",
        "application/json5",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
    ];
    if one_in(dice, 8) { pick(dice, &odd).to_owned() } else { "application/json".to_owned() }
}

/// The bytes of a text: UTF-8 for the most part.
fn encoded(dice: &mut Dice, text: &str, headers: &mut [(&'static str, String)]) -> Vec<u8> {
    let utf16 = |to: fn(u16) -> [u8; 2], mark: bool| {
        let mark = if mark { "\u{FEFF}" } else { "" };
        mark.encode_utf16().chain(text.encode_utf16()).flat_map(to).collect()
    };
    match below(dice, 40) {
        0 => utf16(u16::to_le_bytes, true),
        1 => utf16(u16::to_be_bytes, true),
        2 => utf16(u16::to_le_bytes, false),
        3 => utf16(u16::to_be_bytes, false),
        4 => text.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect(),
        5 => text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect(),
        6 => {
            headers[0].1 = "application/json; charset=utf-7".to_owned();
            text.replace('m', "+AG0-").into_bytes()
        }
        7 => text.replace('/', "\u{1}/").bytes().map(|b| if b == 1 { 0xC0 } else { b }).collect(),
        _ => text.as_bytes().to_vec(),
    }
}

/// The body with a content coding, true or told.
fn coded(dice: &mut Dice, text: Vec<u8>, headers: &mut Vec<(&'static str, String)>) -> Vec<u8> {
    let mut tell = |coding: &str| headers.push(("content-encoding", coding.to_owned()));
    match below(dice, 40) {
        0 => {
            tell("gzip");
            gzip(&text)
        }
        1 => {
            tell("deflate");
            zlib(&text)
        }
        2 => {
            tell("deflate");
            deflate(&text)
        }
        3 => {
            tell("gzip, gzip");
            gzip(&gzip(&text))
        }
        4 => {
            tell("gzip");
            tell("gzip");
            gzip(&gzip(&text))
        }
        5 => {
            tell("gzip");
            let half = text.len() / 2;
            [gzip(&text[..half]), gzip(&text[half..])].concat()
        }
        6 => {
            tell("gzip");
            [gzip(&text), b"x".to_vec()].concat()
        }
        7 => {
            tell("gzip");
            let mut body = gzip(&text);
            body.truncate(body.len().saturating_sub(1 + below(dice, 12)));
            body
        }
        8 => {
            tell(pick_text(dice, &["br", "zstd", "compress", "aws-chunked", "x"]));
            text
        }
        9 => {
            tell(pick_text(dice, &["gzip", "deflate"]));
            text
        }
        10 => {
            tell(pick_text(dice, &["identity", "", "identity, identity", "GZIP,"]));
            text
        }
        11 => {
            tell("X-GZIP");
            gzip(&text)
        }
        _ => text,
    }
}

/// gzip (RFC 1952).
pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn below(dice: &mut Dice, end: usize) -> usize {
    usize::try_from(dice.below(u64::try_from(end).unwrap())).unwrap()
}

fn one_in(dice: &mut Dice, count: usize) -> bool {
    below(dice, count) == 0
}

fn pick<T: Clone>(dice: &mut Dice, from: &[T]) -> T {
    from[below(dice, from.len())].clone()
}

fn pick_text(dice: &mut Dice, from: &[&'static str]) -> &'static str {
    pick(dice, from)
}

fn shuffled(dice: &mut Dice, mut members: Vec<String>) -> Vec<String> {
    for at in (1..members.len()).rev() {
        members.swap(at, below(dice, at + 1));
    }
    members
}
