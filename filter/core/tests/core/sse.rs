//! Server-sent events by the WHATWG rules, cut at every byte.

use crate::dice::Dice;
use crate::support::{cuts, test};
use agent_meter_core::wire::sse::{EventType, Framer, SseHandler};

#[derive(Default)]
struct Events {
    data: Vec<u8>,
    seen: Vec<String>,
}

impl SseHandler for Events {
    fn data(&mut self, piece: &[u8]) {
        self.data.extend_from_slice(piece);
    }

    fn dispatch(&mut self, event_type: EventType) {
        let data = String::from_utf8_lossy(&core::mem::take(&mut self.data)).into_owned();
        self.seen.push(match event_type {
            EventType::Message => data,
            EventType::Endpoint => format!("endpoint: {data}"),
            EventType::Other => format!("not a message: {data}"),
        });
    }
}

fn read(chunks: &[&[u8]]) -> Vec<String> {
    let mut framer = Framer::default();
    let mut events = Events::default();
    for chunk in chunks {
        framer.feed(chunk, &mut events);
    }
    events.seen
}

#[test]
fn events_are_framed_as_browsers_frame_them() {
    let cases: &[(&str, &[&str])] = &[
        ("data: a\n\ndata: b\n\n", &["a", "b"]),
        ("event: message\r\ndata: a\r\n\r\n", &["a"]),
        ("data: a\r\rdata: b\r\r", &["a", "b"]),
        ("data: a\r\n\r\ndata: b\n\n", &["a", "b"]),
        ("\u{FEFF}data: a\n\n", &["a"]),
        ("data:a\n\n", &["a"]),
        ("data:  a\n\n", &[" a"]),
        ("data: {\ndata: \"a\": 1\ndata: }\n\n", &["{\n\"a\": 1\n}"]),
        (": comment\n\n: more\ndata: a\n: inside\n\n", &["a"]),
        ("data: a\nid: 1\nretry: 3000\n\n", &["a"]),
        ("id: 1\ndata:\n\n", &[""]),
        ("id: 1\nretry: 3000\n\n", &[]),
        ("event: endpoint\ndata: /message?x=1\n\n", &["endpoint: /message?x=1"]),
        ("event: endpoint\n\ndata: a\n\n", &["a"]),
        ("event: messages\ndata: a\n\n", &["not a message: a"]),
        ("event: result\nevent: message\ndata: a\n\n", &["a"]),
        ("data: a\nevent: result\n\n", &["not a message: a"]),
        ("data: a\n", &[]),
        ("data: a", &[]),
        ("data\n\n", &[""]),
        ("data\ndata\n\n", &["\n"]),
        ("datax: no\ndatadatadata: no\nDATA: no\ndata: yes\n\n", &["yes"]),
        ("\n\n\ndata: \u{1F600}\n\n\n\n", &["\u{1F600}"]),
        ("data: a:b: c\n\n", &["a:b: c"]),
    ];
    for (text, want) in cases {
        for cut in cuts(text.as_bytes()) {
            assert_eq!(&read(&cut), want, "{text:?} in {} pieces", cut.len());
        }
    }
}

#[test]
fn any_bytes_are_framed_alike_however_they_are_cut() {
    let words = [
        "data",
        ":",
        " ",
        "\n",
        "\r",
        "\r\n",
        "event",
        "message",
        "x",
        "\u{FEFF}",
        "id",
        "\n\n",
        "data: y\n\n",
    ];
    let mut dice = Dice(2);
    for round in 0..20_000 {
        let count = dice.below(20);
        let text: String = (0..count)
            .map(|_| words[usize::try_from(dice.below(words.len() as u64)).unwrap()])
            .collect();
        let bytes = text.as_bytes();
        let whole = read(&[bytes]);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(&single), whole, "round {round}: {text:?}");
    }
}
