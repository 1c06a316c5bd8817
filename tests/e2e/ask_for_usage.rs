//! Streams for which the filter asks the server for usage: the one option that changes bodies
//! changes nothing else.

use std::io::Cursor;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent_meter::stack::{ANY_PORT, Options, Upstream as Server};
use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::client::Client;
use crate::http1::Message;
use crate::llm::{
    by_agent, chat, chat_chunk, counts, events, generations, head, plugin, post, product,
    usage_chunk,
};
use crate::streams::lock;
use crate::upstream::{SSE_HEAD, Step, Upstream, chunk, json_response, response};
use crate::{Rig, release_module};

const PATH: &str = "/v1/chat/completions";

fn asking() -> Value {
    let llm =
        json!({ "provider": "openai", "ask_for_usage": true, "incomplete_usage": "bill_observed" });
    plugin(&[product("", &llm)])
}

/// The stream of a server that was asked for usage, or was not; if asked, each chunk has the
/// member.
fn stream(is_asked: bool) -> String {
    let member = |mut chunk: Value| {
        if is_asked {
            chunk["usage"] = Value::Null;
        }
        chunk
    };
    let texts = ["All ", "is ", "w\u{e9}ll", "."];
    let mut data: Vec<String> =
        texts.iter().map(|text| member(chat_chunk(text)).to_string()).collect();
    if is_asked {
        data.push(usage_chunk(30, 4).to_string());
    }
    data.push("[DONE]".to_owned());
    events(data)
}

/// What a client gets of the stream if it did not ask for usage.
fn without_the_usage() -> String {
    stream(true).replace(&events([usage_chunk(30, 4)]), "")
}

/// Answers as OpenAI does; refuses a body that is not JSON.
fn answer(body: &[u8]) -> Vec<Step> {
    let Ok(request) = serde_json::from_slice::<Value>(body) else {
        return vec![Step::Send(response("400 Bad Request", &[], b""))];
    };
    if request["stream"] != true {
        return vec![Step::Send(json_response(&chat(30, 4)))];
    }
    let text = stream(request["stream_options"]["include_usage"] == true);
    let bytes = [SSE_HEAD.as_bytes(), &chunk(text.as_bytes()), b"0\r\n\r\n"].concat();
    vec![Step::Send(bytes)]
}

/// Name, body, and the options that the upstream must get; `None` if the body must pass unchanged.
type Row<'a> = (&'a str, Vec<u8>, Option<Value>);

fn bodies() -> Vec<Row<'static>> {
    let include = json!({ "include_usage": true });
    let asked = |text: &str| (text.as_bytes().to_vec(), Some(include.clone()));
    let left = |text: &str| (text.as_bytes().to_vec(), None);
    let message =
        json!([{ "role": "user", "content": "}{\"stream\":true}\\ \"stream_options\" \u{1f600}" }]);
    let plain = json!({ "model": "gpt-4o", "messages": message, "stream": true });
    let pretty = serde_json::to_string_pretty(&plain).unwrap_or_default();
    let huge = json!({ "messages": "m}".repeat(3_000_000), "stream": true }).to_string();
    let options = |options: &str| format!(r#"{{"stream_options":{options},"stream":true}}"#);
    let both = json!({ "include_obfuscation": false, "include_usage": true });
    let rows = [
        ("plain", asked(&plain.to_string())),
        ("pretty printed", asked(&pretty)),
        ("pretty printed, with an end", asked(&format!("\n\t {pretty} \r\n\n"))),
        ("huge", asked(&huge)),
        ("empty options", asked(&options("{}"))),
        ("empty options with a space", asked(&options("{ \n }"))),
        ("options behind", asked(r#"{"stream":true,"stream_options":{}}"#)),
        (
            "another option",
            (options(r#"{ "include_obfuscation" : false }"#).into_bytes(), Some(both)),
        ),
        ("asks itself", left(&options(r#"{"include_usage":true}"#))),
        ("asks not to", left(&options(r#"{"include_usage":false}"#))),
        // The filter would have to replace the value, and part of the body may already have passed.
        ("null options", left(&options("null"))),
        ("no stream", left(r#"{"model":"gpt-4o","messages":[]}"#)),
        ("no stream, told so", left(r#"{"stream": false}"#)),
        ("no stream, pretty printed", left("{\n  \"stream\": false\n}\n")),
        ("a stream below", left(r#"{"metadata":{"stream":true},"x":[{"stream":true}]}"#)),
        ("a stream by name", left(r#"{"stream":"true"}"#)),
        ("nothing", left("")),
        ("no JSON", left(r#"{"stream":true,,}"#)),
        ("cut", left(r#"{"stream":true"#)),
    ];
    rows.map(|(name, (body, expected))| (name, body, expected)).into()
}

/// Checks the body at the upstream: valid JSON with the option, and all of the client's own bytes
/// around it.
fn check_body(name: &str, sent: &[u8], got: &[u8], expected: Option<&Value>) -> anyhow::Result<()> {
    let Some(options) = expected else {
        ensure!(sent == got, "{name}: {:?}", String::from_utf8_lossy(got));
        return Ok(());
    };
    let (mut sent_json, got_json): (Value, Value) =
        (serde_json::from_slice(sent)?, serde_json::from_slice(got).context(name.to_owned())?);
    sent_json["stream_options"] = options.clone();
    ensure!(sent_json == got_json, "{name}: the upstream got something else");
    let same = |one: &mut dyn Iterator<Item = (&u8, &u8)>| one.take_while(|(a, b)| a == b).count();
    let before = same(&mut sent.iter().zip(got));
    let behind = same(&mut sent.iter().rev().zip(got.iter().rev()));
    ensure!(before + behind >= sent.len(), "{name}: the client's bytes were changed");
    Ok(())
}

/// True if the message has its length in exactly one valid way.
fn is_framed(message: &Message) -> bool {
    let length = message.header("content-length").map(|it| it == message.body.len().to_string());
    let is_chunked = message.header("transfer-encoding").is_some_and(|it| it == "chunked");
    message.is_complete && if is_chunked { length.is_none() } else { length == Some(true) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_asked_for_its_usage_and_the_client_sees_nothing_of_it() -> anyhow::Result<()> {
    let upstream = Upstream::start(|request: &Message| answer(&request.body));
    let rig = Rig::start(upstream.await?, asking()).await?;
    let rows = bodies();
    for (name, body, expected) in &rows {
        let agent = name.replace(' ', "-");
        let mut client = Client::connect(rig.listen()?).await?;
        let answer = client.exchange(&post("any.test", &agent, PATH, &[], body)).await?;
        let got = rig.upstream.take_requests();
        let [got] = &got[..] else { anyhow::bail!("{name}: {} requests", got.len()) };
        ensure!(is_framed(got), "{name}: {:?}", String::from_utf8_lossy(&got.head));
        check_body(name, body, &got.body, expected.as_ref())?;
        // The same request without Envoy.
        let direct = Client::connect(rig.upstream.addr())
            .await?
            .exchange(&post("any.test", &agent, PATH, &[], body))
            .await?;
        rig.upstream.take_requests();
        assert_eq!(answer.status(), direct.status(), "{name}");
        let answered = String::from_utf8_lossy(&answer.body);
        if expected.is_some() {
            // The members that OpenAI adds to the other chunks stay.
            assert_eq!(answered, without_the_usage(), "{name}");
            assert_eq!(answered.replace(",\"usage\":null", ""), stream(false), "{name}");
        } else {
            assert_eq!(answered, String::from_utf8_lossy(&direct.body), "{name}");
        }
        // The connection still works.
        let again = client.exchange(&post("any.test", "again", PATH, &[], b"{}")).await?;
        assert_eq!(again.body, chat(30, 4).to_string().into_bytes(), "{name}");
        rig.upstream.take_requests();
    }
    // A request that the upstream refused is not a generation.
    let refused =
        rows.iter().filter(|row| serde_json::from_slice::<Value>(&row.1).is_err()).count();
    let found = generations(&rig, 2 * rows.len() - refused).await?;
    let found = by_agent(found.iter().filter(|event| event["agent_id"] != "again"))?;
    for (name, body, _) in &rows {
        let Some(event) = found.get(&name.replace(' ', "-")) else {
            assert!(serde_json::from_slice::<Value>(body).is_err(), "{name}");
            continue;
        };
        let has_usage = !["asks not to", "null options"].contains(name);
        let (tokens, completeness) =
            if has_usage { ([30, 4, 0, 0, 0], "COMPLETE") } else { ([0; 5], "MISSING") };
        assert_eq!(counts(event), tokens, "{name}: {event}");
        assert_eq!(event["completeness"], completeness, "{name}: {event}");
    }
    rig.finish().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_be_cut_anywhere() -> anyhow::Result<()> {
    let upstream = Upstream::start(|request: &Message| answer(&request.body));
    let rig = Rig::start(upstream.await?, asking()).await?;
    let texts =
        [r#"{"stream":true,"a":"}"}"#, r#"{ "stream" : true, "stream_options" : {"o":{}} } "#];
    let options = [json!({ "include_usage": true }), json!({ "o": {}, "include_usage": true })];
    let mut client = Client::connect(rig.listen()?).await?;
    let mut count = 0;
    for (text, options) in texts.into_iter().zip(options) {
        let bytewise = (1..text.len()).collect();
        let places: Vec<Vec<usize>> =
            (1..text.len()).map(|at| vec![at]).chain([bytewise]).collect();
        for places in places {
            let start = head("POST", "any.test", "cut", PATH, &[("transfer-encoding", "chunked")]);
            client.send(&[&start[..], b"\r\n"].concat()).await?;
            let mut from = 0;
            for at in places.iter().copied().chain([text.len()]) {
                client.send(&chunk(&text.as_bytes()[from..at])).await?;
                // The pause makes Envoy read the pieces one by one.
                tokio::time::sleep(Duration::from_millis(1)).await;
                from = at;
            }
            client.send(b"0\r\n\r\n").await?;
            let answer = client.receive(|_| ()).await?;
            let got = rig.upstream.take_requests().pop().context("a request")?;
            check_body(&format!("{places:?}"), text.as_bytes(), &got.body, Some(&options))?;
            ensure!(answer.body == without_the_usage().as_bytes(), "{places:?}: {answer:?}");
            count += 1;
        }
    }
    for event in generations(&rig, count).await? {
        assert_eq!(counts(&event), [30, 4, 0, 0, 0], "{event}");
    }
    rig.finish().await
}

/// Responses of a server that was asked for usage, and what the client must get of each.
fn answers() -> Vec<(&'static str, Vec<Step>, String)> {
    let (whole, rest) = (stream(true), without_the_usage());
    let pieces = |text: &str, length: usize| {
        let mut steps = vec![Step::Send(SSE_HEAD.into())];
        for piece in text.as_bytes().chunks(length) {
            steps.extend([Step::Send(chunk(piece)), Step::Work(Duration::from_millis(1))]);
        }
        steps.push(Step::Send(b"0\r\n\r\n".into()));
        steps
    };
    let ended = |end: &str| (whole.replace('\n', end), rest.replace('\n', end));
    let (crlf, cr) = (ended("\r\n"), ended("\r"));
    let length = response("200 OK", &[("content-type", "text/event-stream")], whole.as_bytes());
    let until_close = format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/event-stream\r\n\r\n{whole}"
    );
    let comment = |text: &str| format!(": hello\n\nretry: 5\n{text}: bye");
    let event_lines = whole.replace("data: ", "event: x\nid: 1\ndata:");
    let no_done = whole.replace("data: [DONE]\n\n", "");
    let trailers = {
        let mut steps = pieces(&whole, whole.len());
        steps.pop();
        steps.push(Step::Send(b"0\r\nx-checksum: 1\r\n\r\n".into()));
        steps
    };
    vec![
        ("bytewise", pieces(&whole, 1), rest.clone()),
        ("in sevens", pieces(&whole, 7), rest.clone()),
        ("CRLF", pieces(&crlf.0, 5), crlf.1),
        ("CR", pieces(&cr.0, 5), cr.1),
        ("with a length", vec![Step::Send(length)], rest.clone()),
        ("until it closes", vec![Step::Send(until_close.into()), Step::Close], rest.clone()),
        ("comments, and an end in one", pieces(&comment(&whole), 11), comment(&rest)),
        (
            "other fields",
            pieces(&event_lines, 64),
            event_lines.replace(&format!("event: x\nid: 1\ndata:{}\n\n", usage_chunk(30, 4)), ""),
        ),
        ("no end", pieces(&no_done, 50), rest.replace("data: [DONE]\n\n", "")),
        ("trailers", trailers, rest.clone()),
        ("was not asked", pieces(&stream(false), 100), stream(false)),
        ("only the usage", pieces(&events([usage_chunk(30, 4)]), 1000), String::new()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_chunk_with_the_usage_is_taken_out_however_the_stream_is_sent()
-> anyhow::Result<()> {
    let steps: Vec<_> = answers().into_iter().map(|(_, steps, _)| steps).collect();
    let upstream = Upstream::start(move |request: &Message| {
        let place = request.header("x-agent-id").and_then(|it| it.parse::<usize>().ok());
        place.and_then(|place| steps.get(place)).cloned().unwrap_or_default()
    });
    let rig = Rig::start(upstream.await?, asking()).await?;
    let answers = answers();
    for (place, (name, _, expected)) in answers.iter().enumerate() {
        let mut client = Client::connect(rig.listen()?).await?;
        let request = post("any.test", &place.to_string(), PATH, &[], br#"{"stream":true}"#);
        let answer = tokio::time::timeout(Duration::from_secs(10), client.exchange(&request));
        let answer = answer.await.context(*name)?.context(*name)?;
        assert_eq!(String::from_utf8_lossy(&answer.body), *expected, "{name}");
        assert!(is_framed(&answer), "{name}: {:?}", String::from_utf8_lossy(&answer.head));
    }
    let found = generations(&rig, answers.len()).await?;
    let found = by_agent(found.iter())?;
    for (place, (name, ..)) in answers.iter().enumerate() {
        let event = found.get(&place.to_string()).context("an event of each")?;
        let tokens = if *name == "was not asked" { [0; 5] } else { [30, 4, 0, 0, 0] };
        assert_eq!(counts(event), tokens, "{name}: {event}");
    }
    rig.finish().await
}

/// The head and the body of each request.
type Seen = Arc<Mutex<Vec<(http::HeaderMap, Vec<u8>)>>>;

/// An HTTP/2 server that answers as the others do.
async fn serve_http2(seen: Seen) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(ANY_PORT).await?;
    let addr = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let seen = Arc::clone(&seen);
            tokio::spawn(async move {
                let server = h2::server::Builder::new();
                let mut connection = server.handshake::<_, Cursor<Vec<u8>>>(stream).await?;
                while let Some(request) = connection.accept().await {
                    let (request, respond) = request?;
                    let seen = Arc::clone(&seen);
                    tokio::spawn(answer_http2(request, respond, seen));
                }
                anyhow::Ok(())
            });
        }
    });
    Ok(addr)
}

async fn answer_http2(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Cursor<Vec<u8>>>,
    seen: Seen,
) -> anyhow::Result<()> {
    let (head, mut stream_of_bytes) = request.into_parts();
    let mut body = Vec::new();
    while let Some(bytes) = stream_of_bytes.data().await {
        let bytes = bytes?;
        stream_of_bytes.flow_control().release_capacity(bytes.len())?;
        body.extend(&bytes[..]);
    }
    let is_asked = serde_json::from_slice::<Value>(&body)
        .is_ok_and(|body| body["stream_options"]["include_usage"] == true);
    lock(&seen).push((head.headers, body));
    let head = http::Response::builder().header("content-type", "text/event-stream").body(())?;
    let mut sender = respond.send_response(head, false)?;
    sender.send_data(Cursor::new(stream(is_asked).into_bytes()), true)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_of_http2_is_asked_the_same() -> anyhow::Result<()> {
    let seen = Seen::default();
    let server = serve_http2(Arc::clone(&seen)).await?;
    let protocol = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    let at = "/static_resources/clusters/0/typed_extension_protocol_options";
    let rig = Rig::with_own_server(Options {
        upstream: Server::At(server.into()),
        settings: vec![(at.to_owned(), protocol)],
        ..Options::new(asking(), Some(release_module()?))
    })
    .await?;
    let large = json!({ "messages": "m".repeat(1_000_000), "stream": true }).to_string();
    let bodies = [r#"{"stream":true}"#, &large, r#"{"stream":true,"stream_options":{}}"#];
    for body in bodies {
        let request = post("any.test", "a", PATH, &[], body.as_bytes());
        let answer = Client::connect(rig.listen()?).await?.exchange(&request).await?;
        assert_eq!(String::from_utf8_lossy(&answer.body), without_the_usage());
        let (head, got) = lock(&seen).pop().context("a request")?;
        // The server would reset a stream whose length differs from its `content-length`.
        let length = head.get("content-length");
        assert!(length.is_none(), "{length:?}");
        check_body("HTTP/2", body.as_bytes(), &got, Some(&json!({ "include_usage": true })))?;
    }
    for event in generations(&rig, bodies.len()).await? {
        assert_eq!(counts(&event), [30, 4, 0, 0, 0], "{event}");
    }
    rig.finish().await
}
