//! Decides who comes in, before any route looks at a request: under which host, from which page,
//! with which secret.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::access::Writer;
use crate::access::hosts::is_cross_site;
use crate::routes::refusal::{Reason, Refusal};
use crate::routes::service::{Door, Ends, Service};

/// The header with the signature of a batch.
const SIGNATURE: &str = "agent-meter-signature";

/// The only value of a header; `None` without one, an error with several.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|value| value.as_bytes())),
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("{name}: must be given once"))),
    }
}

impl Door {
    /// Who writes, by the headers alone; `None` if only the signature of the body can tell.
    pub(super) fn writer(&self, headers: &HeaderMap) -> Result<Option<Writer>, Refusal> {
        if self.writers.is_empty() {
            return Ok(Some(Writer::Anyone));
        }
        if only(headers, SIGNATURE)?.is_some() {
            return Ok(None);
        }
        let told = only(headers, header::AUTHORIZATION.as_str())?;
        let known = told.and_then(|told| self.writers.of_bearer(told));
        known.map(|name| Some(Writer::Named(name.to_owned()))).ok_or_else(unauthorized)
    }

    /// Who signed a body.
    pub(super) fn signer(&self, headers: &HeaderMap, body: &[u8]) -> Result<Writer, Refusal> {
        let signature = only(headers, SIGNATURE)?.unwrap_or_default();
        let known = self.writers.of_signature(body, signature);
        known.map(|name| Writer::Named(name.to_owned())).ok_or_else(unauthorized)
    }

    /// Who writes a top-up: the name of the secret.
    pub(super) fn payer(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        if self.payers.is_empty() {
            let error = "top-ups over HTTP need a secret: start the collector with \
                         --top-up-secret-file";
            return Err(Refusal::new(StatusCode::FORBIDDEN, error));
        }
        let told = only(headers, header::AUTHORIZATION.as_str())?;
        let known = told.and_then(|told| self.payers.of_bearer(told));
        known.map(str::to_owned).ok_or_else(|| {
            let error = "the secret for top-ups is missing or wrong: expected authorization: \
                         Bearer SECRET";
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, error);
            refusal.with(header::WWW_AUTHENTICATE, "Bearer realm=\"agent-meter\"")
        })
    }

    /// True if only totals of sources that wrote with a secret count for guards.
    pub(super) fn is_closed(&self) -> bool {
        !self.writers.is_empty()
    }
}

fn unauthorized() -> Refusal {
    let error = "the secret is missing or wrong: expected agent-meter-signature: v1=HEX of the \
                 body, or authorization: Bearer SECRET";
    let refusal = Refusal::of_write(Reason::Unauthorized, StatusCode::UNAUTHORIZED, error);
    refusal.with(header::WWW_AUTHENTICATE, "Bearer realm=\"agent-meter\"")
}

/// Refuses what comes under a host that is not the collector's, and writes from other sites' pages.
pub(super) async fn came_by_a_known_name(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    let writes = request.method() != Method::GET && request.method() != Method::HEAD;
    match check_name(&service.door, &request, writes) {
        Ok(()) => Ok(next.run(request).await),
        Err(refusal) => {
            if let Some(reason) = refusal.reason().filter(|_| writes) {
                service.refusals.count(reason);
            }
            Err(refusal)
        }
    }
}

fn check_name(door: &Door, request: &Request, writes: bool) -> Result<(), Refusal> {
    let text = |name| {
        let value = only(request.headers(), name)?;
        Ok::<_, Refusal>(value.map(|value| std::str::from_utf8(value).unwrap_or("?")))
    };
    let ends = request.extensions().get::<Ends>();
    // A request may name the host in its first line too.
    let named = [request.uri().authority().map(|name| name.as_str()), text("host")?];
    let is_known = |name: &str| ends.is_some_and(|ends| door.hosts.allows(name, ends.local));
    let mut named = named.into_iter().flatten();
    let host = named.next().filter(|name| is_known(name));
    let (Some(host), true) = (host, named.all(is_known)) else {
        let error = "host: is not a name of this collector; --allow-host adds one";
        return Err(Refusal::of_write(Reason::Host, StatusCode::MISDIRECTED_REQUEST, error));
    };
    if writes && is_cross_site(host, text("origin")?, text("sec-fetch-site")?) {
        let error = "origin: pages of other sites may not write";
        return Err(Refusal::of_write(Reason::Origin, StatusCode::FORBIDDEN, error));
    }
    Ok(())
}

/// Refuses readers who may not read.
pub(super) async fn may_read(
    State(service): State<Service>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    // POST /v1/events is of another route with the same path.
    let door = &service.door;
    if !door.readers.is_empty() {
        let told = only(request.headers(), header::AUTHORIZATION.as_str())?;
        let known = told.and_then(|told| {
            door.readers.of_bearer(told).or_else(|| door.readers.of_password(told))
        });
        if known.is_none() {
            let error = "reading needs authorization: Bearer SECRET, or the secret as a password";
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, error);
            return Err(refusal.with(header::WWW_AUTHENTICATE, "Basic realm=\"agent-meter\""));
        }
    } else if door.is_closed() {
        let ends = request.extensions().get::<Ends>();
        if !ends.is_some_and(|ends| ends.peer.ip().to_canonical().is_loopback()) {
            let error = "reading is open on the collector's own machine only; \
                         --read-secret-file opens it to others";
            return Err(Refusal::new(StatusCode::FORBIDDEN, error));
        }
    }
    Ok(next.run(request).await)
}
