//! The filter changes no byte: everything passes an Envoy with it as it passes one without it. The
//! same requests and responses go through both; afterwards the VM that saw them still meters.

use std::time::Duration;

use agent_meter::stack::Options;
use agent_meter::wait;
use anyhow::{Context, ensure};
use serde_json::{Value, json};

use crate::client::{Agent, Client, request};
use crate::http1::Message;
use crate::upstream::{
    SSE_HEAD, Step, Upstream, chunk, json_response, response, sse_event, success,
};
use crate::{LIMIT, Rig, impatient_plugin, plain_plugin};

/// Apart from trailers, both Envoys are configured here as in `envoy/envoy.yaml`.
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";
const UPSTREAM: &str = "/static_resources/clusters/0";

/// Bytes that are not UTF-8.
const NO_TEXT: &[u8] = b"\xff\xfe caf\xe9";
/// A small JSON-RPC answer, compressed with gzip.
const GZIP: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\xca\x2a\xce\xcf\x2b\x2a\x48\x56\xb2\x52\
    \x32\xd2\x33\x50\xd2\x51\xca\x4c\x51\xb2\x32\xd4\x51\x2a\x4a\x2d\x2e\xcd\x29\x51\xb2\xaa\x56\x4a\xce\xcf\
    \x2b\x49\xcd\x03\x32\xa3\x63\x6b\x6b\x01\x36\x7d\xe6\x01\x30\x00\x00\x00";

/// One request, its response, and the call that it is billed as.
#[derive(Debug)]
struct Case {
    name: &'static str,
    request: Vec<u8>,
    answer: Vec<Step>,
    /// Tool and status.
    billed: Option<(&'static str, &'static str)>,
    /// What the client does.
    client: Behaviour,
}

#[derive(Debug, Clone, Copy)]
enum Behaviour {
    /// Sends everything and reads everything.
    Patient,
    /// Leaves once the upstream has seen this many bytes of the body.
    LeavesAt(usize),
    /// Lets the upstream continue once the client has seen this many bytes of the response's body.
    GoesOnAt(usize),
}

/// A `POST` of a body to the metered path.
fn post(headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let agent = [
        ("x-customer-id", "acme"),
        ("x-agent-id", "agent-1"),
        ("content-type", "application/json"),
    ];
    request("POST", "/mcp", &[&agent, headers].concat(), body)
}

fn call(tool: &str, arguments: &str) -> Vec<u8> {
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{arguments}}}}}"#
    );
    text.into_bytes()
}

/// A `POST` in chunks, with trailers.
fn post_chunks(chunks: &[&[u8]], trailers: &str) -> Vec<u8> {
    let mut bytes = b"POST /mcp HTTP/1.1\r\nhost: tools.example\r\nx-customer-id: acme\r\n\
        x-agent-id: agent-1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
        .to_vec();
    for bytes_of_chunk in chunks {
        bytes.extend(chunk(bytes_of_chunk));
    }
    bytes.extend(format!("0\r\n{trailers}\r\n").into_bytes());
    bytes
}

/// The pieces one after another, with a short pause in between so that Envoy reads them one by one.
fn in_pieces(head: &str, pieces: &[&[u8]], end: &str) -> Vec<Step> {
    let mut steps = vec![Step::Send(head.as_bytes().to_vec())];
    for piece in pieces {
        steps.push(Step::Work(Duration::from_millis(1)));
        steps.push(Step::Send(chunk(piece)));
    }
    steps.push(Step::Send(format!("0\r\n{end}\r\n").into_bytes()));
    steps
}

fn done() -> Value {
    success(&json!(1))
}

fn cases() -> Vec<Case> {
    let case = |name, request, answer, billed| Case {
        name,
        request,
        answer,
        billed,
        client: Behaviour::Patient,
    };
    let plain = |bytes| vec![Step::Send(bytes)];
    let json = || plain(json_response(&done()));
    let html = |status| plain(response(status, &[("content-type", "text/html")], b"<h1>no</h1>"));
    let success = |tool| Some((tool, "SUCCESS"));

    let event = sse_event(&done());
    let event_bytes: Vec<&[u8]> = event.as_bytes().chunks(1).collect();
    let crlf = event.replace('\n', "\r\n");
    let large = call("large", &format!(r#"{{"text":"{}"}}"#, "x".repeat(10_000_000)));
    let deep = call("deep", &format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)));
    let mut long_line = done();
    long_line["result"]["content"][0]["text"] = json!("y".repeat(1_000_000));
    let long_line = sse_event(&long_line);
    let long_line: Vec<&[u8]> = long_line.as_bytes().chunks(300_000).collect();
    let mut strange =
        b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\nx-strange: ".to_vec();
    strange.extend([NO_TEXT, b"\r\ncontent-type: application/json; x=", NO_TEXT].concat());
    let body = done().to_string();
    strange.extend(format!("\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes());
    let mut strange_request =
        b"POST /mcp HTTP/1.1\r\nhost: tools.example\r\nx-customer-id: acme\r\nx-strange: ".to_vec();
    let body = call("strange", "{}");
    strange_request.extend(
        [NO_TEXT, b"\r\nmcp-session-id: ", NO_TEXT, b"\r\nx-agent-id: agent-1\r\n"].concat(),
    );
    strange_request.extend(format!("content-length: {}\r\n\r\n", body.len()).into_bytes());
    strange_request.extend(body);
    let chunked = call("chunked", "{}");
    let (first, second) = chunked.split_at(17);
    let cut = call("cut", &format!(r#""{}""#, "z".repeat(5000)));
    let half_answer = |tail: Step| {
        let head = "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
            content-type: application/json\r\ncontent-length: 1000\r\n\r\n{\"jsonrpc\":";
        vec![Step::Send(head.as_bytes().to_vec()), Step::Gate, tail]
    };

    vec![
        case("JSON", post(&[], &call("json", "{}")), json(), success("json")),
        case(
            "chunked both ways",
            post_chunks(&[first, second], ""),
            in_pieces(JSON_HEAD, &[b"{\"jsonrpc\":\"2.0\",\"id\":1,", b"\"result\":{}}"], ""),
            success("chunked"),
        ),
        case(
            "66: an event stream byte by byte",
            post(&[], &call("bytewise", "{}")),
            in_pieces(SSE_HEAD, &event_bytes, ""),
            success("bytewise"),
        ),
        case(
            "66: an event stream cut between CR and LF",
            post(&[], &call("crlf", "{}")),
            in_pieces(
                SSE_HEAD,
                &crlf.split_inclusive('\r').map(str::as_bytes).collect::<Vec<_>>(),
                "",
            ),
            success("crlf"),
        ),
        case("83: 10 MB of arguments", post(&[], &large), json(), success("large")),
        case("80: 100,000 levels", post(&[], &deep), json(), success("deep")),
        case(
            "71: an event of 1 MB in one line",
            post(&[], &call("long", "{}")),
            in_pieces(SSE_HEAD, &long_line, ""),
            success("long"),
        ),
        case("no body", post(&[], b""), json(), None),
        case(
            "136: a body that is no JSON",
            post(&[], b"{\"method\":\"tools/call\",,"),
            json(),
            success("__unnamed__"),
        ),
        case("a body in gzip", post(&[("content-encoding", "gzip")], GZIP), json(), None),
        case(
            "header values that are no UTF-8",
            strange_request,
            plain(strange),
            success("strange"),
        ),
        case(
            "72: an answer in gzip",
            post(&[], &call("gzip", "{}")),
            plain(response(
                "200 OK",
                &[("content-type", "application/json"), ("content-encoding", "gzip")],
                GZIP,
            )),
            Some(("gzip", "SUCCESS")),
        ),
        case("HTML", post(&[], &call("html", "{}")), html("200 OK"), Some(("html", "UNKNOWN"))),
        case(
            "an HTML error",
            post(&[], &call("html_502", "{}")),
            html("502 Bad Gateway"),
            Some(("html_502", "ERROR")),
        ),
        case(
            "trailers both ways",
            post_chunks(&[&call("trailers", "{}")], "x-checksum: 1\r\n"),
            in_pieces(SSE_HEAD, &[event.as_bytes()], "x-checksum: 2\r\n"),
            success("trailers"),
        ),
        case(
            "an event stream that is asked for",
            request(
                "GET",
                "/mcp",
                &[("x-customer-id", "acme"), ("accept", "text/event-stream")],
                b"",
            ),
            in_pieces(SSE_HEAD, &[event.as_bytes()], ""),
            None,
        ),
        case(
            "no content",
            request("DELETE", "/mcp", &[("x-customer-id", "acme")], b""),
            plain(
                b"HTTP/1.1 204 No Content\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n".to_vec(),
            ),
            None,
        ),
        case(
            "135: another path",
            request("POST", "/other", &[], &call("other", "{}")),
            json(),
            None,
        ),
        Case {
            client: Behaviour::LeavesAt(3000),
            ..case(
                "a client that leaves in its request",
                post(&[], &cut)[..3200].to_vec(),
                json(),
                None,
            )
        },
        Case {
            client: Behaviour::GoesOnAt(11),
            ..case(
                "an upstream that resets",
                post(&[], &call("reset", "{}")),
                half_answer(Step::Reset),
                Some(("reset", "UNKNOWN")),
            )
        },
        Case {
            client: Behaviour::GoesOnAt(11),
            ..case(
                "an upstream that closes",
                post(&[], &call("closed", "{}")),
                half_answer(Step::Close),
                Some(("closed", "UNKNOWN")),
            )
        },
    ]
}

const JSON_HEAD: &str = "HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
    content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";

/// An Envoy that passes on trailers; its upstream answers the request of the case named in
/// `x-case`.
async fn start(wasm: bool) -> anyhow::Result<Rig> {
    let answers: Vec<Vec<Step>> = cases().into_iter().map(|case| case.answer).collect();
    let upstream = Upstream::start(move |request| {
        let place = request.header("x-case").and_then(|text| text.parse::<usize>().ok());
        place.and_then(|place| answers.get(place)).cloned().unwrap_or_default()
    });
    let module = if wasm { Some(crate::release_module()?) } else { None };
    // One worker, so that every case uses the same VM.
    let options = Options { concurrency: 1, ..Options::new(impatient_plugin(), module) };
    let trailers = json!({ "enable_trailers": true });
    let protocol = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http_protocol_options": trailers },
        },
    });
    let settings = vec![
        (format!("{MANAGER}/http_protocol_options"), trailers),
        (format!("{UPSTREAM}/typed_extension_protocol_options"), protocol),
    ];
    Rig::with(upstream.await?, Options { settings, ..options }).await
}

/// Plays one case; returns what the upstream and the client got.
async fn play(rig: &Rig, place: usize, case: &Case) -> anyhow::Result<(Message, Message)> {
    let mut client = Client::connect(rig.listen()?).await?;
    // The case's number goes after the first line.
    let line = case.request.windows(2).position(|bytes| bytes == b"\r\n").context("no line")? + 2;
    let (line, rest) = case.request.split_at(line);
    client.send(&[line, format!("x-case: {place}\r\n").as_bytes(), rest].concat()).await?;
    let received = match case.client {
        Behaviour::Patient => client.receive(|_| ()).await?,
        Behaviour::LeavesAt(bytes) => {
            wait::until(LIMIT, "the upstream sees the request", async || {
                let seen = rig.upstream.body_bytes();
                ensure!(seen >= bytes, "{seen} bytes of the body");
                Ok(())
            })
            .await?;
            drop(client);
            Message::default()
        }
        Behaviour::GoesOnAt(bytes) => {
            let mut is_closed = false;
            let go_on = |seen: usize| {
                if seen >= bytes && !std::mem::replace(&mut is_closed, true) {
                    rig.upstream.go_on();
                }
            };
            client.receive(go_on).await?
        }
    };
    wait::until(LIMIT, "the upstream's request ends", async || {
        ensure!(rig.upstream.requests_len() > 0, "none has ended");
        Ok(())
    })
    .await?;
    let mut requests = rig.upstream.take_requests();
    ensure!(requests.len() == 1, "{} requests", requests.len());
    Ok((requests.remove(0), received))
}

/// Shows only where bytes differ, and not the whole 10 MB.
fn check_same(what: &str, with: &Message, without: &Message) {
    let head = |message: &Message| String::from_utf8_lossy(&message.head).into_owned();
    assert_eq!(head(with), head(without), "{what}: head");
    assert!(with.head == without.head, "{what}: head");
    let place = with.body.iter().zip(&without.body).position(|(one, other)| one != other);
    assert_eq!(place, None, "{what}: first byte of the body that differs");
    assert_eq!(with.body.len(), without.body.len(), "{what}: length of the body");
    assert_eq!(with.trailers, without.trailers, "{what}: trailers");
    assert_eq!(with.is_complete, without.is_complete, "{what}: completeness");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_byte_differs_from_an_envoy_without_the_filter() -> anyhow::Result<()> {
    let (with, without) = tokio::try_join!(start(true), start(false))?;
    let cases = cases();
    let mut billed = Vec::new();
    for (place, case) in cases.iter().enumerate() {
        let name = case.name;
        let (metered, bare) = tokio::join!(play(&with, place, case), play(&without, place, case));
        let (metered, bare) = (metered.context(name)?, bare.context(name)?);
        check_same(&format!("{name}: request"), &metered.0, &bare.0);
        check_same(&format!("{name}: answer"), &metered.1, &bare.1);
        billed.extend(case.billed);
        // The VM lives, and still meters.
        let (after, _) = tokio::try_join!(play(&with, 0, &cases[0]), play(&without, 0, &cases[0]))?;
        assert_eq!(after.1.status(), 200, "after {name}");
        billed.extend(cases[0].billed);
    }
    let books = with
        .settled("all calls are in the ledger", |books| {
            let count = books.tool_invocations().count();
            ensure!(count >= billed.len(), "{count} of {} calls", billed.len());
            Ok(())
        })
        .await?;
    let mut booked: Vec<_> = books
        .tool_invocations()
        .map(|call| (call["tool_name"].as_str(), call["execution_status"].as_str()))
        .collect();
    let mut billed: Vec<_> =
        billed.iter().map(|(tool, status)| (Some(*tool), Some(*status))).collect();
    // Calls whose response may have come on another stream have their events later.
    booked.sort_unstable();
    billed.sort_unstable();
    assert_eq!(booked, billed);
    books.check(&with.stack()?.ledger()?).await?;
    let strange = books.tool_invocations().find(|call| call["tool_name"] == "strange");
    assert_eq!(strange.map(|call| &call["customer_id"]), Some(&json!("acme")));
    without.finish().await?;
    with.finish().await
}

/// Envoy passes on event streams event by event, and does not wait for their end.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_the_client_while_the_stream_goes_on() -> anyhow::Result<()> {
    let event = sse_event(&done());
    let (first, length) = (chunk(event.as_bytes()), event.len());
    let steps = move |_: &Message| {
        vec![
            Step::Send(SSE_HEAD.as_bytes().to_vec()),
            Step::Send(first.clone()),
            Step::Gate,
            Step::Send(b"0\r\n\r\n".to_vec()),
        ]
    };
    let rig = Rig::start(Upstream::start(steps).await?, plain_plugin()).await?;
    let mut client = Client::connect(rig.listen()?).await?;
    client.send(&Agent::new("reader").call(1, "stream")).await?;
    rig.settled("the call is billed while its stream is open", |books| {
        ensure!(books.tool_invocations().count() == 1, "not yet");
        Ok(())
    })
    .await?;
    // The gate is after the event: if Envoy buffered the event, the response would never end.
    let mut is_open = false;
    let answer = client.receive(|bytes| {
        if bytes >= length && !std::mem::replace(&mut is_open, true) {
            rig.upstream.go_on();
        }
    });
    let answer = tokio::time::timeout(LIMIT, answer).await.context("the event is held back")??;
    assert_eq!(answer.body, event.as_bytes());
    rig.finish().await
}
