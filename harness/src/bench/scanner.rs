//! Measures how fast the core reads a long call, compared with `serde_json`; natively, without
//! Envoy.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Instant;

use agent_meter_core::protocol::mcp::message_reader::MessageReader;
use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::messages::TOOL;
use super::stats::{Quartiles, tenths};

const BODY_BYTES: usize = 1_000_000;
/// Envoy reads this much from a socket at a time.
const CHUNK_BYTES: usize = 16 * 1024;
const PASSES: usize = 100;

/// Medians over the passes, in MB/s (10^6 bytes).
#[derive(Debug, Serialize)]
pub(super) struct Throughput {
    pub(super) body: &'static str,
    pub(super) bytes: usize,
    #[serde(serialize_with = "tenths")]
    pub(super) reader_mb_s: f64,
    #[serde(serialize_with = "tenths")]
    pub(super) serde_borrowed_mb_s: f64,
    #[serde(serialize_with = "tenths")]
    pub(super) serde_value_mb_s: f64,
}

/// Measures both bodies.
pub(super) fn measure() -> anyhow::Result<Vec<Throughput>> {
    let bodies =
        [("one long base64 string", long_string()), ("many small members", many_members())];
    bodies.into_iter().map(|(name, body)| of(name, &body)).collect()
}

fn of(body: &'static str, text: &str) -> anyhow::Result<Throughput> {
    Ok(Throughput {
        body,
        bytes: text.len(),
        reader_mb_s: mb_s(text, reader).context("MessageReader")?,
        serde_borrowed_mb_s: mb_s(text, serde_borrowed).context("serde_json, borrowed")?,
        serde_value_mb_s: mb_s(text, serde_value).context("serde_json, Value")?,
    })
}

fn mb_s(text: &str, tool: fn(&[u8]) -> Option<String>) -> anyhow::Result<f64> {
    let megabytes = f64::from(u32::try_from(text.len())?) / 1e6;
    let mut passes = Vec::with_capacity(PASSES);
    for _ in 0..PASSES {
        let start = Instant::now();
        let found = tool(black_box(text.as_bytes()));
        passes.push(megabytes / start.elapsed().as_secs_f64());
        ensure!(found.as_deref() == Some(TOOL), "found {found:?}");
    }
    Ok(Quartiles::median(&passes))
}

/// The tool of a call, read as the filter reads it.
fn reader(body: &[u8]) -> Option<String> {
    let (mut reader, mut tool) = (MessageReader::default(), None);
    for chunk in body.chunks(CHUNK_BYTES) {
        reader.feed(chunk, &mut |message| {
            tool = message.tool.clone().filter(|_| message.is_call());
        });
    }
    String::from_utf8(tool?).ok()
}

/// The tool of a call; `serde_json` reads every member that is not named here into an `IgnoredAny`.
fn serde_borrowed(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Call<'a> {
        id: Option<u64>,
        #[serde(borrow)]
        method: Cow<'a, str>,
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
    }
    let call: Call<'_> = serde_json::from_slice(body).ok()?;
    (call.method == "tools/call" && call.id.is_some()).then(|| call.params.name.into_owned())
}

fn serde_value(body: &[u8]) -> Option<String> {
    let call: Value = serde_json::from_slice(body).ok()?;
    let is_call = call["method"] == "tools/call" && !call["id"].is_null();
    call["params"]["name"].as_str().filter(|_| is_call).map(str::to_owned)
}

fn long_string() -> String {
    let alphabet: Vec<char> =
        ('A'..='Z').chain('a'..='z').chain('0'..='9').chain(['+', '/']).collect();
    let mut letters = alphabet.iter().cycle().step_by(7);
    call(|text| {
        text.push_str(r#"{"file":""#);
        while text.len() < BODY_BYTES {
            text.extend(letters.next());
        }
        text.push_str(r#""}"#);
    })
}

fn many_members() -> String {
    call(|text| {
        text.push_str(r#"{"rows":["#);
        for row in 0_u32.. {
            if text.len() >= BODY_BYTES {
                break;
            }
            let comma = if row == 0 { "" } else { "," };
            // A write to a String cannot fail.
            let _ = write!(
                text,
                r#"{comma}{{"id":{row},"name":"row {row}","ok":true,"share":0.25,"note":null}}"#
            );
        }
        text.push_str("]}");
    })
}

fn call(arguments: impl FnOnce(&mut String)) -> String {
    let mut text = format!(
        r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{{"name":"{TOOL}","arguments":"#
    );
    arguments(&mut text);
    text.push_str("}}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_find_the_tool_in_both_bodies() {
        for body in [long_string(), many_members()] {
            for tool in [reader, serde_borrowed, serde_value] {
                assert_eq!(tool(body.as_bytes()).as_deref(), Some(TOOL));
            }
            assert!(body.len() >= BODY_BYTES && body.len() < BODY_BYTES + 200);
        }
    }
}
