//! The JSON-RPC reader on what servers accept and on what breaks parsers, cut at every byte.

use crate::dice::Dice;
use crate::support::{cuts, test};
use agent_meter_core::protocol::mcp::message::{Message, ResultType};
use agent_meter_core::protocol::mcp::message_reader::MessageReader;
use agent_meter_core::wire::json::Progress;

/// What a message says, in words: `call ID TOOL`, `answer ID OUTCOME`, `other`.
fn describe(message: &Message) -> String {
    let id = message.id.as_ref().map_or("-".to_owned(), |id| {
        let text = String::from_utf8_lossy(&id.text);
        if id.is_string { format!("{text:?}") } else { text.into_owned() }
    });
    let tool = message.tool.as_ref().map(|name| String::from_utf8_lossy(name).into_owned());
    if message.is_call() {
        format!("call {id} {}", tool.unwrap_or_default())
    } else if message.is_answer() && message.has_error {
        format!("answer {id} error {:?}", message.error_code)
    } else if message.is_answer() {
        let flags = [
            (message.is_error, "isError"),
            (message.has_task, "task"),
            (message.result_type != ResultType::Complete, "not complete"),
        ];
        let flags: Vec<&str> =
            flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
        format!("answer {id} {}", flags.join(" ")).trim_end().to_owned()
    } else {
        "other".to_owned()
    }
}

fn read(chunks: &[&[u8]]) -> (Vec<String>, Progress) {
    let mut reader = MessageReader::default();
    let mut found = Vec::new();
    for chunk in chunks {
        reader.feed(chunk, &mut |message| found.push(describe(&message)));
    }
    (found, reader.progress())
}

fn check(text: &[u8], want: &[&str], progress: Progress) {
    for cut in cuts(text) {
        let want: Vec<String> = want.iter().map(|&line| line.to_owned()).collect();
        let shown = String::from_utf8_lossy(text);
        assert_eq!(read(&cut), (want, progress), "{shown} cut into {} pieces", cut.len());
    }
}

#[test]
fn requests_are_read_as_tolerantly_as_servers_read_them() {
    let complete: &[(&[u8], &[&str])] = &[
        (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}"#, &["call 1 echo"]),
        // 74, 75: escapes in values and keys.
        (br#"{"id":1,"method":"tools\/c\u0061ll","params":{"name":"echo"}}"#, &["call 1 echo"]),
        (br#"{"id":1,"\u006dethod":"tools/call","params":{"n\u0061me":"echo"}}"#, &["call 1 echo"]),
        // 76: any order.
        (br#"{"params":{"arguments":{},"name":"echo"},"id":"a","method":"tools/call"}"#, &[r#"call "a" echo"#]),
        // 77, 78: the last duplicate wins.
        (br#"{"id":1,"method":"tools/list","method":"tools/call","params":{"name":"a","name":"b"}}"#, &["call 1 b"]),
        (br#"{"id":1,"method":"tools/call","method":"tools/list"}"#, &["other"]),
        (br#"{"id":1,"method":"tools/call","params":{"name":"a"},"params":{}}"#, &["call 1 "]),
        (br#"{"id":1,"method":"tools/call","params":{"name":"a"},"params":null}"#, &["call 1 "]),
        (br#"{"id":1,"id":null,"method":"tools/call"}"#, &["other"]),
        (br#"{"id":1,"method":"tools/call","method":7}"#, &["other"]),
        // 79: a byte order mark.
        (b"\xEF\xBB\xBF {\"id\":1,\"method\":\"tools/call\"}", &["call 1 "]),
        // 81: a lone surrogate, and a pair.
        (br#"{"id":1,"method":"tools/call","params":{"name":"\ud800x\ud83d\ude00","arguments":"\udc00"}}"#, &["call 1 \u{FFFD}x\u{1F600}"]),
        // 82: NaN and its like.
        (br#"{"id":1,"method":"tools/call","params":{"arguments":[NaN,-Infinity,1e999],"name":"n"}}"#, &["call 1 n"]),
        // 30: a long integer stays as it is.
        (br#"{"id":123456789012345678901234567890,"method":"tools/call"}"#, &["call 123456789012345678901234567890 "]),
        // 19, 20: a notification, and a null id.
        (br#"{"method":"tools/call","params":{"name":"echo"}}"#, &["other"]),
        (br#"{"id":null,"method":"tools/call"}"#, &["other"]),
        // 22: the words elsewhere.
        (br#"{"id":1,"method":"tools/list","params":{"method":"tools/call","name":"tools/call"}}"#, &["other"]),
        (br#"{"id":1,"method":"tools/call","params":{"name":"tools/call","arguments":{"method":"tools/list","id":2,"name":"no"}}}"#, &["call 1 tools/call"]),
        // 86: member names are case-sensitive.
        (br#"{"id":1,"Method":"tools/call"}"#, &["other"]),
        // 37: a batch.
        (br#"[{"id":1,"method":"tools/call","params":{"name":"a"}},{"method":"notifications/x"},7,[{"id":3,"method":"tools/call"}],{"id":2,"method":"tools/call","params":{"name":"b"}}]"#, &["call 1 a", "other", "call 2 b"]),
        (b"[]", &[]),
        (b"{}", &["other"]),
        (b" {\r\n\t\"id\" : 1 , \"method\" : \"tools/call\" }\n", &["call 1 "]),
        // What follows the first text is passed over.
        (br#"{"id":1,"method":"tools/call"}{"id":2,"method":"tools/call"}"#, &["call 1 "]),
    ];
    for (text, want) in complete {
        check(text, want, Progress::Complete);
    }
}

#[test]
fn answers_are_read_with_their_outcome() {
    let cases: &[(&[u8], &[&str])] = &[
        (
            br#"{"result":{"content":[{"type":"text","text":"hi"}]},"jsonrpc":"2.0","id":1}"#,
            &["answer 1"],
        ),
        (br#"{"id":1,"result":{"isError":true}}"#, &["answer 1 isError"]),
        (br#"{"id":1,"result":{"isError":"true"}}"#, &["answer 1"]),
        (br#"{"id":1,"result":{"isError":true,"isError":false}}"#, &["answer 1"]),
        (br#"{"id":1,"result":{"isError":true},"result":{}}"#, &["answer 1"]),
        (
            br#"{"id":1,"result":{"structuredContent":{"isError":true,"resultType":"x"}}}"#,
            &["answer 1"],
        ),
        (br#"{"id":1,"result":null}"#, &["answer 1"]),
        (br#"{"id":1,"result":{"resultType":"complete"}}"#, &["answer 1"]),
        (br#"{"id":1,"result":{"resultType":"input_required"}}"#, &["answer 1 not complete"]),
        (br#"{"id":1,"result":{"resultType":7}}"#, &["answer 1 not complete"]),
        (br#"{"id":1,"result":{"task":{"taskId":"t"}}}"#, &["answer 1 task"]),
        (
            br#"{"error":{"message":"no","code":-32602},"id":"1"}"#,
            &[r#"answer "1" error Some(-32602)"#],
        ),
        (br#"{"error":{"code":-32000.5},"id":null}"#, &["other"]),
        (br#"{"error":{"code":-32000.5},"id":1}"#, &["answer 1 error None"]),
        (br#"{"error":"text"}"#, &["other"]),
        (br#"{"id":1}"#, &["other"]),
        // A request of the server with the id of a call is not its answer.
        (br#"{"id":1,"method":"sampling/createMessage","params":{}}"#, &["other"]),
    ];
    for (text, want) in cases {
        check(text, want, Progress::Complete);
    }
}

#[test]
fn what_is_no_json_fails_and_what_is_cut_stays_open() {
    for text in [
        b"<html>".as_slice(),
        b"\x1F\x8B\x08\x00",
        b"{]",
        b"[}",
        b"{\"a\" 1}",
        b"{1:2}",
        b"[1 2]",
        b":",
    ] {
        check(text, &[], Progress::Failed);
    }
    for text in [
        b"".as_slice(),
        b"  ",
        b"{\"id\":1,\"method\":\"tools/call\"",
        b"[{\"id\":1",
        b"{\"a\":\"\\",
        b"[[[",
    ] {
        let (_, progress) = read(&[text]);
        assert_eq!(progress, Progress::Open, "{}", String::from_utf8_lossy(text));
    }
}

// 80: any depth.
#[test]
fn depth_and_size_cost_no_memory() {
    let head = br#"{"id":1,"method":"tools/call","params":{"arguments":"#;
    let tail = br#","name":"deep"}}"#;
    let depth = 100_000;
    let nested = [head.as_slice(), &b"[".repeat(depth), &b"]".repeat(depth), tail].concat();
    assert_eq!(read(&[&nested]).0, ["call 1 deep"]);
    let long = [head.as_slice(), b"\"", &b"\\\"x".repeat(1_000_000), b"\"", tail].concat();
    let chunks: Vec<&[u8]> = long.chunks(16_384).collect();
    assert_eq!(read(&chunks).0, ["call 1 deep"]);
    let long_key =
        [b"{\"".as_slice(), &b"k".repeat(100_000), b"\":1,\"id\":1,\"method\":\"tools/call\"}"]
            .concat();
    assert_eq!(read(&[&long_key]).0, ["call 1 "]);
    let long_name = [
        br#"{"id":1,"method":"tools/call","params":{"name":""#.as_slice(),
        &b"n".repeat(100_000),
        b"\"}}",
    ]
    .concat();
    assert_eq!(read(&[&long_name]).0, [format!("call 1 {}", "n".repeat(256))]);
}

#[test]
fn any_bytes_are_read_alike_however_they_are_cut() {
    let words: &[&[u8]] = &[
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\"",
        b"\\",
        b"\\u",
        b"d83d",
        b"\"id\":",
        b"\"method\"",
        b"\"tools/call\"",
        b"1",
        b"null",
        b" ",
        b"\n",
        b"\xEF\xBB\xBF",
        b"\xFF",
        b"\"params\":{\"name\":\"x\"}",
        b"\"result\":{",
        b"\"error\":",
        b"-32602",
        b"{\"id\":1,\"method\":\"tools/call\"}",
        b"0",
        b"true",
    ];
    let mut dice = Dice(1);
    for round in 0..20_000_u64 {
        let count = dice.below(24);
        let text: Vec<u8> = (0..count)
            .flat_map(|_| words[usize::try_from(dice.below(words.len() as u64)).unwrap()].to_vec())
            .collect();
        let whole = read(&[&text]);
        let single: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(read(&single), whole, "round {round}: {}", String::from_utf8_lossy(&text));
        let at = usize::try_from(dice.below(text.len() as u64 + 1)).unwrap();
        assert_eq!(read(&[&text[..at], &text[at..]]), whole, "round {round} cut at {at}");
    }
}
