//! Sends one request, and reads the reply as far as it matters.

use std::time::Duration;

use anyhow::anyhow;
use axum::http::{HeaderMap, Request, StatusCode, header};
use chrono::Utc;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;

use crate::handover::config::{Configured, Key, Target};
use crate::handover::sink::{Headers, Record, Reply, Token, Verdict};
use crate::handover::sinks::json_lines::JsonLines;
use crate::http_client::{HttpClient, ms, retry_after};

/// The most bytes of a reply that are read.
const REPLY_BYTES_MAX: usize = 1024 * 1024;
/// The longest that a receiver may ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);
/// How long before its end a token is no longer used.
const TOKEN_SLACK: Duration = Duration::from_secs(30);

/// What became of a try.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    /// How long the receiver wants to be left alone.
    pub(super) after: Option<Duration>,
}

impl Outcome {
    fn later(reason: String, is_unsent: bool) -> Outcome {
        Outcome { verdict: Verdict::Later { reason, is_unsent }, after: None }
    }
}

/// Why no reply came.
struct Failure {
    reason: String,
    /// Whether the receiver has nothing of the request for certain.
    is_unsent: bool,
}

/// Sends records. `token` is kept between requests for receivers that give some.
pub(super) async fn send(
    sink: &Configured,
    client: &HttpClient,
    token: &mut Option<Token>,
    records: Vec<Record>,
    now_ms: i64,
) -> Outcome {
    let body = sink.sink.frame().body(records.iter());
    let (url, key) = match &sink.target {
        Target::File(file) => return append(file.clone(), body).await,
        Target::Http { url, key } => (url.as_str().trim_end_matches('/'), key.as_ref()),
    };
    let secret = key.map(Key::text);
    let mut shown = secret.clone();
    if let Some(token_url) = sink.sink.token_url() {
        if token.as_ref().is_none_or(|token| token.ends_ms - ms(TOKEN_SLACK) <= now_ms) {
            match new_token(sink, client, token_url, secret.as_deref()).await {
                Ok(new) => *token = Some(new),
                Err(failure) => return refused_key(key, failure),
            }
        }
        shown = token.as_ref().map(|token| token.text.clone());
    }
    let headers = sink.sink.headers(shown.as_deref());
    let url = format!("{url}{}", sink.sink.path());
    let (reply, head) = match post(sink, client, &url, headers, body).await {
        Ok(answered) => answered,
        Err(failure) => return Outcome::later(failure.reason, failure.is_unsent),
    };
    if matches!(reply.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        key.inspect(|key| key.refresh());
    }
    let after = retry_after(&head, Utc::now()).map(|after| after.min(RETRY_AFTER_MAX));
    let verdict = match sink.sink.read(&reply, &records) {
        Verdict::Renew(reason) => {
            *token = None;
            Verdict::Later { reason, is_unsent: true }
        }
        Verdict::Later { reason, is_unsent } => {
            Verdict::Later { reason: hidden(reason, &[secret, shown]), is_unsent }
        }
        Verdict::Refused(reason) => Verdict::Refused(hidden(reason, &[secret, shown])),
        verdict => verdict,
    };
    Outcome { verdict, after }
}

fn refused_key(key: Option<&Key>, failure: Failure) -> Outcome {
    key.inspect(|key| key.refresh());
    // Without a token nothing was sent.
    Outcome::later(failure.reason, true)
}

/// A reason without secrets, which some receivers repeat.
fn hidden(reason: String, secrets: &[Option<String>]) -> String {
    let secrets = secrets.iter().flatten().filter(|secret| !secret.is_empty());
    secrets.fold(reason, |reason, secret| reason.replace(secret.as_str(), "***"))
}

async fn append(file: JsonLines, lines: String) -> Outcome {
    let name = file.file.display().to_string();
    let appended = tokio::task::spawn_blocking(move || file.append(&lines)).await;
    match appended.map_err(anyhow::Error::from).and_then(|done| Ok(done?)) {
        Ok(()) => Outcome { verdict: Verdict::Taken { unnamed: 0 }, after: None },
        Err(error) => Outcome::later(format!("{name}: {error:#}"), false),
    }
}

async fn new_token(
    sink: &Configured,
    client: &HttpClient,
    url: &str,
    secret: Option<&str>,
) -> Result<Token, Failure> {
    let headers = sink.sink.headers(secret);
    let (reply, _) = post(sink, client, url, headers, String::new()).await?;
    let token = sink.sink.token(&reply.body).filter(|_| reply.status.is_success());
    token.ok_or_else(|| {
        let reason = hidden(reply.shown(), &[secret.map(str::to_owned)]);
        Failure { reason: format!("no token: {reason}"), is_unsent: true }
    })
}

async fn post(
    sink: &Configured,
    client: &HttpClient,
    url: &str,
    headers: Headers,
    body: String,
) -> Result<(Reply, HeaderMap), Failure> {
    let unsent = |reason: String| Failure { reason, is_unsent: true };
    let mut request = Request::post(url)
        .header(header::USER_AGENT, concat!("agent-meter/", env!("CARGO_PKG_VERSION")));
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Full::new(Bytes::from(body)));
    let request = request.map_err(|error| unsent(format!("{error:#}")))?;
    let whole = async {
        let answer = client.request(request).await.map_err(|error| {
            let is_unsent = error.is_connect();
            Failure { reason: format!("{:#}", anyhow!(error)), is_unsent }
        })?;
        let (head, body) = answer.into_parts();
        // A body that breaks off says no less than none: the status came.
        let body = Limited::new(body, REPLY_BYTES_MAX).collect().await;
        let body = body.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
        Ok((Reply { status: head.status, body }, head.headers))
    };
    let late =
        || Failure { reason: format!("no answer within {:?}", sink.timeout), is_unsent: false };
    tokio::time::timeout(sink.timeout, whole).await.unwrap_or_else(|_| Err(late()))
}
