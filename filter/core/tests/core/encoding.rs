//! Compressed responses are decoded on the side, bounded, as they stream by.

use std::io::Write;

use agent_meter_core::protocol::mcp::reported_usage::ReportedUsage;
use agent_meter_core::protocol::mcp::response_body::McpResponseBody;
use agent_meter_core::wire::accept_encoding::{ResponseEncoding, narrowed};
use agent_meter_core::wire::encoding::ContentCoding;
use agent_meter_core::wire::http::Headers;
use agent_meter_core::wire::media_type::MediaType;
use flate2::Compression;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

use crate::support::{cuts, test};

fn read(coding: &str, media_type: MediaType, chunks: &[&[u8]]) -> (usize, bool) {
    let coding =
        ContentCoding::of(Headers(&[("content-encoding".to_owned(), coding.as_bytes().to_vec())]));
    let mut reader = McpResponseBody::new(coding, media_type, &ReportedUsage::default()).unwrap();
    let answers = chunks.iter().map(|chunk| reader.feed(chunk).messages.len()).sum();
    (answers, reader.is_unreadable())
}

fn gzip(pieces: &[&[u8]]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    for piece in pieces {
        encoder.write_all(piece).unwrap();
        encoder.flush().unwrap();
    }
    encoder.finish().unwrap()
}

fn zlib(text: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn deflate(text: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

const ANSWER: &[u8] = br#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"hello hello hello"}]}}"#;

// 72: a body in gzip or deflate.
#[test]
fn a_compressed_json_answer_is_read_however_it_is_cut() {
    let two_members = [gzip(&[&ANSWER[..20]]), gzip(&[&ANSWER[20..]])].concat();
    for (coding, body) in [
        ("gzip", gzip(&[ANSWER])),
        ("GZIP", gzip(&[ANSWER])),
        ("x-gzip", gzip(&[ANSWER])),
        ("gzip", two_members),
        ("deflate", zlib(ANSWER)),
        ("deflate", deflate(ANSWER)),
        ("identity", ANSWER.to_vec()),
        ("", ANSWER.to_vec()),
    ] {
        for cut in cuts(&body) {
            let seen = read(coding, MediaType::Json, &cut);
            assert_eq!(seen, (1, false), "{coding} in {} pieces", cut.len());
        }
    }
}

// 73: events in gzip.
#[test]
fn compressed_events_are_read_as_they_are_flushed() {
    let events: Vec<Vec<u8>> = (0..5)
        .map(|id| format!("data: {{\"id\":{id},\"result\":{{}}}}\n\n").into_bytes())
        .collect();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    let mut reader = McpResponseBody::new(
        ContentCoding::Gzip,
        MediaType::EventStream,
        &ReportedUsage::default(),
    )
    .unwrap();
    for event in &events {
        encoder.write_all(event).unwrap();
        encoder.flush().unwrap();
        let flushed = core::mem::take(encoder.get_mut());
        assert_eq!(reader.feed(&flushed).messages.len(), 1, "each event is told when it has come");
    }
    assert!(reader.feed(&encoder.finish().unwrap()).messages.is_empty());
    assert!(!reader.is_unreadable());
}

#[test]
fn what_is_damaged_or_blows_up_is_given_up() {
    let mut damaged = gzip(&[ANSWER]);
    damaged[12] ^= 0xFF;
    assert!(read("gzip", MediaType::Json, &[&damaged]).1);
    assert!(read("gzip", MediaType::Json, &[ANSWER]).1);
    let bomb = gzip(&[&[b"{\"a\":\"".as_slice(), &vec![b'x'; 64 << 20]].concat()]);
    assert!(bomb.len() < 100_000);
    assert!(read("gzip", MediaType::Json, &[&bomb]).1);
    for coding in ["zstd", "gzip, br"] {
        let coding = ContentCoding::of(Headers(&[(
            "content-encoding".to_owned(),
            coding.as_bytes().to_vec(),
        )]));
        let rules = ReportedUsage::default();
        assert!(McpResponseBody::new(coding, MediaType::Json, &rules).is_none());
    }
}

#[test]
fn only_what_can_be_read_is_offered_to_the_server() {
    use ResponseEncoding::{Decode, Leave, Narrow};
    for (offered, rule, sent) in [
        ("gzip, deflate", Decode, None),
        ("gzip, deflate, br", Decode, Some("gzip, deflate")),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", Decode, Some("gzip;q=0.8")),
        ("zstd", Decode, Some("identity")),
        ("*", Decode, Some("identity")),
        ("identity", Decode, None),
        ("", Decode, None),
        ("GZip", Decode, None),
        ("gzip, deflate", Narrow, Some("identity")),
        ("identity;q=1, gzip;q=0", Narrow, Some("identity;q=1")),
        ("identity", Narrow, None),
        ("br, zstd", Leave, None),
    ] {
        assert_eq!(narrowed(Some(offered.as_bytes()), rule).as_deref(), sent, "{offered} {rule:?}");
    }
    assert_eq!(narrowed(None, Decode), None);
    assert_eq!(narrowed(Some(b"\xFF"), Decode).as_deref(), Some("identity"));
}

#[cfg(feature = "br")]
#[test]
fn with_the_feature_br_is_read_however_it_is_cut() {
    const BR: &str = "1b5900e82c0eecb61e5f388582d550ecce13fd112abd45f6b662368c0c599a641171699dbe2e962d320627d7036ee251de9812135225bb352161ea41463d5f70e21829a494a7c70032c9864bf502";
    let byte = |at: usize| u8::from_str_radix(&BR[at..at + 2], 16).unwrap();
    let body: Vec<u8> = (0..BR.len()).step_by(2).map(byte).collect();
    for cut in cuts(&body) {
        assert_eq!(read("br", MediaType::Json, &cut), (1, false));
    }
    assert!(read("br", MediaType::Json, &[b"\xFF\xFF\xFF\xFF"]).1);
}
