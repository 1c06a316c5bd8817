//! What all rooms that send over HTTP share: a connector with TLS, and when a receiver wants to be
//! asked again.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::http::{HeaderMap, header};
use chrono::{DateTime, Utc};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

pub(crate) type HttpClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// A client that follows no redirect. `secure` asks for the machine's authorities, which plain HTTP
/// does not need and a small image may lack.
///
/// # Errors
///
/// If it is to be secure and this machine trusts no authority; the error begins with `what`.
pub(crate) fn client(secure: bool, what: &str) -> anyhow::Result<HttpClient> {
    let builder = HttpsConnectorBuilder::new();
    let builder = if secure {
        let builder = builder.with_provider_and_native_roots(default_provider());
        builder.with_context(|| format!("{what} by https: this machine trusts no authority"))?
    } else {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()));
        let config = config.with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(RootCertStore::empty());
        builder.with_tls_config(config.with_no_client_auth())
    };
    let connector = builder.https_or_http().enable_http1().build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// `Retry-After`, in seconds or as a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = DateTime::parse_from_rfc2822(text).ok()?;
    then.signed_duration_since(now).to_std().ok()
}

/// Milliseconds, and the most there are if it is longer.
pub(crate) fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
