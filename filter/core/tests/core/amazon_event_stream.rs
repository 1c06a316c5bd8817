//! Amazon event streams, cut at every byte.

use agent_meter_core::wire::amazon_event_stream::{FrameHandler, Framer, MessageHeaders};
use flate2::Crc;

use crate::dice::Dice;
use crate::support::{cuts, test};

/// A header's name, type, and value as it stands on the wire.
pub(crate) type Header<'a> = (&'a str, u8, &'a [u8]);

pub(crate) fn crc(bytes: &[u8]) -> [u8; 4] {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum().to_be_bytes()
}

/// One message with the right CRCs.
pub(crate) fn message(headers: &[Header<'_>], payload: &[u8]) -> Vec<u8> {
    let mut coded = Vec::new();
    for (name, number, value) in headers {
        coded.push(u8::try_from(name.len()).unwrap());
        coded.extend_from_slice(name.as_bytes());
        coded.push(*number);
        if matches!(number, 6 | 7) {
            coded.extend_from_slice(&u16::try_from(value.len()).unwrap().to_be_bytes());
        }
        coded.extend_from_slice(value);
    }
    framed(&coded, payload)
}

fn framed(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = u32::try_from(16 + headers.len() + payload.len()).unwrap();
    let mut bytes = prelude(total, u32::try_from(headers.len()).unwrap());
    bytes.extend_from_slice(headers);
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&crc(&bytes));
    bytes
}

fn prelude(total: u32, headers: u32) -> Vec<u8> {
    let mut bytes = [total.to_be_bytes(), headers.to_be_bytes()].concat();
    bytes.extend_from_slice(&crc(&bytes));
    bytes
}

/// An event as Bedrock sends it.
pub(crate) fn event(event_type: &str, payload: &[u8]) -> Vec<u8> {
    let headers: &[Header<'_>] = &[
        (":event-type", 7, event_type.as_bytes()),
        (":content-type", 7, b"application/json"),
        (":message-type", 7, b"event"),
    ];
    message(headers, payload)
}

#[derive(Default)]
struct Messages {
    payload: Vec<u8>,
    seen: Vec<String>,
}

impl FrameHandler for Messages {
    fn payload(&mut self, _headers: &MessageHeaders, piece: &[u8]) {
        self.payload.extend_from_slice(piece);
    }

    fn dispatch(&mut self, headers: &MessageHeaders) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let MessageHeaders { message_type, event_type, exception_type } = headers;
        self.seen.push(format!(
            "{}/{}/{} {}",
            text(message_type),
            text(event_type),
            text(exception_type),
            text(&core::mem::take(&mut self.payload)),
        ));
    }
}

fn read(chunks: &[&[u8]]) -> (Vec<String>, bool) {
    let mut framer = Framer::default();
    let mut messages = Messages::default();
    for chunk in chunks {
        framer.feed(chunk, &mut messages);
    }
    (messages.seen, framer.is_broken())
}

/// Of every type.
fn many_headers() -> Vec<Header<'static>> {
    vec![
        ("true", 0, b""),
        (":message-type", 7, b"event"),
        ("false", 1, b""),
        ("byte", 2, b"\x01"),
        ("short", 3, b"\x01\x02"),
        ("integer", 4, b"\x01\x02\x03\x04"),
        ("long", 5, b"\x01\x02\x03\x04\x05\x06\x07\x08"),
        ("bytes", 6, b":event-type\x07"),
        ("none", 6, b""),
        ("text", 7, b"hello"),
        (":exception-types-and-more", 7, b"no"),
        (":event-type", 7, b"chunk"),
        ("empty", 7, b""),
        ("time", 8, b"\x01\x02\x03\x04\x05\x06\x07\x08"),
        ("uuid", 9, b"0123456789abcdef"),
        (":exception-type", 6, b"bytes are no text"),
    ]
}

#[test]
fn messages_are_framed_however_they_are_cut() {
    let exception: &[Header<'_>] =
        &[(":message-type", 7, b"exception"), (":exception-type", 7, b"throttlingException")];
    let stream = [
        event("messageStart", br#"{"role":"assistant"}"#),
        message(&many_headers(), b"{}"),
        message(&[], b""),
        message(&[("last", 0, b"")], b"x"),
        message(exception, b"{}"),
    ]
    .concat();
    let want = [
        r#"event/messageStart/ {"role":"assistant"}"#,
        "event/chunk/ {}",
        "// ",
        "// x",
        "exception//throttlingException {}",
    ];
    for cut in cuts(&stream) {
        let (seen, is_broken) = read(&cut);
        assert_eq!(seen, want, "in {} pieces", cut.len());
        assert!(!is_broken);
    }
    assert_eq!(read(&[&stream[..stream.len() - 1]]).0, want[..4], "the end cuts the last off");
}

// The example of botocore's tests: an independent encoding.
#[test]
fn a_message_of_another_encoder_is_read() {
    let bytes =
        b"\x00\x00\x00=\x00\x00\x00 \x07\xFD\x83\x96\x0Ccontent-type\x07\x00\x10application/json\
        {'foo':'bar'}\x8D\x9C\x08\xB1";
    assert_eq!(read(&[bytes]), (vec!["// {'foo':'bar'}".to_owned()], false));
}

#[test]
fn every_damaged_byte_breaks_the_stream() {
    let first = event("a", b"{}");
    let damaged = message(&many_headers(), b"payload");
    let last = event("b", b"{}");
    for at in 0..damaged.len() {
        for mask in [0x01, 0x80, 0xFF] {
            let mut damaged = damaged.clone();
            damaged[at] ^= mask;
            let stream = [first.clone(), damaged, last.clone()].concat();
            let single: Vec<&[u8]> = stream.chunks(1).collect();
            for cut in [vec![stream.as_slice()], single] {
                let (seen, is_broken) = read(&cut);
                assert_eq!(seen, ["event/a/ {}"], "byte {at}");
                assert!(is_broken, "byte {at}");
            }
        }
    }
}

#[test]
fn nonsense_with_the_right_checksums_breaks_the_stream() {
    let cases: &[(&str, Vec<u8>)] = &[
        ("too short", prelude(15, 0)),
        ("headers longer than the message", prelude(20, 5)),
        ("headers too long", prelude(200_000, 128 * 1024 + 1)),
        ("payload too long", prelude(16 + 24 * 1024 * 1024 + 1, 0)),
        ("longest lengths", prelude(u32::MAX, u32::MAX)),
        ("unknown type", framed(b"\x01a\x0A", b"")),
        ("no name", framed(b"\x00\x00", b"")),
        ("cut in a name", framed(b"\x05a", b"bcd\x00")),
        ("cut before a type", framed(b"\x01a", b"\x00")),
        ("cut before a length", framed(b"\x01a\x07", b"\x00\x00")),
        ("cut in a length", framed(b"\x01a\x07\x00", b"\x00")),
        ("cut before a value", framed(b"\x01a\x07\x00\x02", b"xx")),
        ("cut in a value", framed(b"\x01a\x09xx", b"xxxxxxxxxxxxxx")),
    ];
    for (name, bytes) in cases {
        let stream = [bytes.as_slice(), &event("a", b"{}")].concat();
        for cut in cuts(&stream) {
            assert_eq!(read(&cut), (Vec::new(), true), "{name} in {} pieces", cut.len());
        }
    }
    assert_eq!(read(&[&prelude(16 + 24 * 1024 * 1024, 0)]), (Vec::new(), false), "the longest");
}

#[test]
fn any_bytes_are_framed_alike_however_they_are_cut() {
    let mut dice = Dice(7);
    for round in 0..5_000 {
        let mut stream = Vec::new();
        for _ in 0..dice.below(4) {
            let all = many_headers();
            let from = usize::try_from(dice.below(all.len() as u64)).unwrap();
            let payload = vec![b'x'; usize::try_from(dice.below(20)).unwrap()];
            stream.extend(message(&all[from..], &payload));
        }
        if !stream.is_empty() && dice.below(3) == 0 {
            let at = usize::try_from(dice.below(stream.len() as u64)).unwrap();
            stream[at] = stream[at].wrapping_add(1);
        }
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        assert_eq!(read(&single), read(&[&stream]), "round {round}");
    }
}
