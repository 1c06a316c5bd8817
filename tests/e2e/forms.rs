//! A request that is a form: its model comes into the event, and prices the generation.

use anyhow::ensure;
use serde_json::json;

use crate::Rig;
use crate::client::{Client, request};
use crate::llm::{generations, plugin, product};
use crate::upstream::{Step, Upstream};

#[tokio::test(flavor = "multi_thread")]
async fn a_transcription_is_priced_by_the_model_in_its_form() -> anyhow::Result<()> {
    let transcript = json!({ "text": "Hi.", "usage": { "type": "tokens", "input_tokens": 1000,
        "input_token_details": { "text_tokens": 0, "audio_tokens": 1000 },
        "output_tokens": 50, "total_tokens": 1050 } });
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{transcript}",
        transcript.to_string().len()
    );
    let upstream = Upstream::start(move |_| vec![Step::Send(answer.clone().into_bytes())]).await?;
    let product = product("tools.example", &json!({ "provider": "openai" }));
    let rig = Rig::start(upstream, plugin(&[product])).await?;
    // A file of several chunks stands before the model.
    let mut body = b"--b1\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\
        content-type: audio/wav\r\n\r\nRIFF"
        .to_vec();
    body.extend(b"\r\n--b0--b1\0\xFF".repeat(30_000));
    body.extend(
        b"\r\n--b1\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\ngpt-4o-mini\r\n--b1--\r\n",
    );
    let headers = [
        ("content-type", "multipart/form-data; boundary=b1"),
        ("x-customer-id", "acme"),
        ("x-agent-id", "listener"),
    ];
    let bytes = request("POST", "/v1/audio/transcriptions", &headers, &body);
    let answer = Client::connect(rig.listen()?).await?.exchange(&bytes).await?;
    ensure!(answer.status() == 200, "{answer:?}");
    let seen = rig.upstream.take_requests();
    ensure!(seen.first().is_some_and(|request| request.body == body), "the body was changed");
    let events = generations(&rig, 1).await?;
    for (member, expected) in [
        ("model", json!("gpt-4o-mini")),
        ("model_requested", json!("gpt-4o-mini")),
        ("completeness", json!("COMPLETE")),
        ("total_provider_cost", json!("0.00018")),
    ] {
        ensure!(events[0][member] == expected, "{member}: {}", events[0]);
    }
    ensure!(rig.metric("llm_requests_unseen").await? == 0);
    rig.finish().await
}
