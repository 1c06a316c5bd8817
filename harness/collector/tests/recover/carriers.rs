//! Writes a log as docker, containerd, kubectl and others keep it.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

/// Where docker and CRI cut a line.
const CUT: usize = 16 * 1024;
const TIME: &str = "2026-11-27T16:26:48.920123456Z";

/// What keeps a log: its name, and how it writes one.
pub(crate) type Carrier = (&'static str, fn(&[u8]) -> Vec<u8>);

pub(crate) const CARRIERS: [Carrier; 20] = [
    ("a file", |log| log.to_vec()),
    ("a file with CRLF", |log| joined(log, |line| [line, b"\r"].concat())),
    ("a file with colours", |log| joined(log, |line| [b"\x1b[1;33m", line, b"\x1b[0m"].concat())),
    ("a file with bytes that are not UTF-8", |log| {
        joined(log, |line| [b"\xff\xfe\x80 \xc3(\n", line].concat())
    }),
    ("kubectl logs --prefix", |log| {
        joined(log, |line| [b"[pod/mcp-6f/istio-proxy] ", line].concat())
    }),
    ("kubectl logs --timestamps", |log| joined(log, with_time)),
    ("kubectl logs --prefix --timestamps", |log| {
        joined(log, |line| [b"[pod/mcp-6f/istio-proxy] ", &with_time(line)[..]].concat())
    }),
    ("docker compose logs", |log| joined(log, |line| [b"envoy-1  | ", line].concat())),
    ("docker json-file", docker),
    ("containerd", |log| cri(log, "stdout")),
    ("containerd, another stream in between", |log| {
        let own = cri(log, "stderr");
        joined(&own, |line| [line, format!("\n{TIME} stdout P part of a line").as_bytes()].concat())
    }),
    ("CRI-O with further tags", |log| {
        let own = String::from_utf8(cri(log, "stdout")).expect("text");
        own.replace(" stdout F ", " stdout F:x ").replace(" stdout P ", " stdout P:y ").into_bytes()
    }),
    ("logcli --output jsonl", |log| {
        of_objects(log, |line| json!({"labels": {"pod": "p"}, "line": line, "timestamp": TIME}))
    }),
    ("fluent-bit", |log| {
        of_objects(
            log,
            |line| json!({"date": 1.5, "log": line, "stream": "stderr", "kubernetes": {"pod_name": "p"}}),
        )
    }),
    ("fluent-bit, an array in each line", |log| {
        of_objects(log, |line| json!([{"date": 1.5, "message": line}]))
    }),
    ("fluent-bit with the parts of CRI", |log| {
        let lines = lines(log).flat_map(|line| {
            let parts = parts(line);
            let last = parts.len() - 1;
            parts.into_iter().enumerate().map(move |(at, part)| {
                let tag = if at == last { "F" } else { "P" };
                json!({"time": TIME, "stream": "stdout", "logtag": tag, "log": text(part)})
            })
        });
        written(lines)
    }),
    ("a record in a record", |log| {
        of_objects(log, |line| json!({"@timestamp": TIME, "record": {"message": line}}))
    }),
    ("docker json-file in Loki", |log| {
        of_objects(&docker(log), |line| json!({"labels": {"job": "docker"}, "line": line}))
    }),
    ("gzip", gzip),
    ("containerd, rotated and compressed in two", |log| {
        let log = cri(log, "stdout");
        let middle = log.len() / 2;
        [gzip(&log[..middle]), gzip(&log[middle..])].concat()
    }),
];

fn lines(log: &[u8]) -> impl Iterator<Item = &[u8]> {
    log.strip_suffix(b"\n").unwrap_or(log).split(|byte| *byte == b'\n')
}

fn joined(log: &[u8], write: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    lines(log).flat_map(|line| [write(line), b"\n".to_vec()].concat()).collect()
}

fn with_time(line: &[u8]) -> Vec<u8> {
    [TIME.as_bytes(), b" ", line].concat()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

fn of_objects(log: &[u8], object: impl Fn(&str) -> Value) -> Vec<u8> {
    written(lines(log).map(|line| object(text(line))))
}

fn written(objects: impl Iterator<Item = Value>) -> Vec<u8> {
    objects.flat_map(|object| format!("{object}\n").into_bytes()).collect()
}

/// A line as its parts of 16 KiB, between characters as JSON needs it.
fn parts(line: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    let mut rest = line;
    while rest.len() > CUT {
        let at = text(rest).floor_char_boundary(CUT);
        // docker cuts within characters too, and spoils them; the samples have none there.
        assert_eq!(at, CUT, "move the text of the sample by a byte");
        parts.push(&rest[..at]);
        rest = &rest[at..];
    }
    parts.push(rest);
    parts
}

/// `{"log":"...\n","stream":"stdout","time":"..."}`; only the last part has the line's end.
pub(crate) fn docker(log: &[u8]) -> Vec<u8> {
    let entries = lines(log).flat_map(|line| {
        let parts = parts(line);
        let last = parts.len() - 1;
        parts.into_iter().enumerate().map(move |(at, part)| {
            let end = if at == last { "\n" } else { "" };
            json!({"log": format!("{}{end}", text(part)), "stream": "stdout", "time": TIME})
        })
    });
    written(entries)
}

/// `TIME stdout P|F TEXT`, cut at bytes.
pub(crate) fn cri(log: &[u8], stream: &str) -> Vec<u8> {
    let mut written = Vec::new();
    for line in lines(log) {
        let mut rest = line;
        loop {
            let (part, behind) = rest.split_at(rest.len().min(CUT));
            let tag = if behind.is_empty() { "F" } else { "P" };
            written.extend_from_slice(format!("{TIME} {stream} {tag} ").as_bytes());
            written.extend_from_slice(part);
            written.push(b'\n');
            if behind.is_empty() {
                break;
            }
            rest = behind;
        }
    }
    written
}

pub(crate) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).expect("compressed");
    encoder.finish().expect("compressed")
}
