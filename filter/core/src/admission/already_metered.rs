//! Recognises a request that another filter of this kind meters, so that it is counted once.
//!
//! On the same stream, the first filter leaves a mark in Envoy's filter state, which no client
//! reaches. Across proxies there is only what a request says of itself, a header or a host: the
//! filter believes it where the configuration says so, and only from the peers that it names.

use crate::admission::identity::Properties;
use crate::base::pattern::is_fit;
use crate::config::{AlreadyMetered, SameStream};
use crate::host::counter::Counter;
use crate::wire::http::Headers;

/// The name under which Envoy's filter state keeps the mark of a stream that is metered: the id of
/// its exchange, with which the ids of its calls begin. Access logs show it as
/// `%FILTER_STATE(wasm.agent_meter.metered:PLAIN)%`.
pub const MARK: &str = "agent_meter.metered";

/// The end that Envoy gives to the host of a request that it mirrors.
const SHADOW: &[u8] = b"-shadow";

/// Says by which counter the filter leaves a request of a product to another; `None` if it meters
/// the request.
pub(super) fn already_metered(
    rules: &AlreadyMetered,
    headers: Headers<'_>,
    properties: Properties<'_>,
) -> Option<Counter> {
    if rules.same_stream == SameStream::Skip && has_mark(properties) {
        return Some(Counter::RequestsAlreadyMetered);
    }
    let authority = headers.get(":authority").unwrap_or_default();
    let is_shadow = rules.skip_shadow_hosts && without_shadow(authority).is_some();
    if (is_shadow || has_trusted_header(rules, headers)) && is_trusted_peer(rules, properties) {
        let counter =
            if is_shadow { Counter::RequestsShadowed } else { Counter::RequestsAlreadyMetered };
        return Some(counter);
    }
    None
}

/// The host for which products are looked up: of a mirrored request, the one that the client named.
pub(super) fn matched_host<'a>(rules: &AlreadyMetered, authority: &'a [u8]) -> &'a [u8] {
    let original = without_shadow(authority).filter(|_| rules.skip_shadow_hosts);
    original.unwrap_or(authority)
}

/// The headers that tell other proxies that a request is metered, as far as this request has them.
pub(crate) fn believed_headers(rules: &AlreadyMetered, headers: Headers<'_>) -> Vec<String> {
    let names = [&rules.mark_header, &rules.trusted_header];
    let is_sent = |name: &&&String| !name.is_empty() && headers.get(name).is_some();
    let mut sent: Vec<String> = names.iter().filter(is_sent).map(|name| (*name).clone()).collect();
    sent.dedup();
    sent
}

/// The mark of a stream that this filter meters as the exchange `id`.
///
/// A filter of a cluster sees each attempt of a request as a stream of its own, and they share the
/// filter state. Its mark holds for its attempt only: the next attempt is metered too.
pub(crate) fn mark(id: &str, attempts: &mut Attempts, properties: Properties<'_>) -> String {
    match attempts.number(properties) {
        0 => id.to_owned(),
        attempt => format!("{id}@{attempt}"),
    }
}

fn has_mark(properties: Properties<'_>) -> bool {
    let Some(mark) = properties(&[MARK]).filter(|mark| !mark.is_empty()) else { return false };
    let mark = String::from_utf8_lossy(&mark);
    match mark.rsplit_once('@') {
        Some((_, marked)) => marked.parse() == Ok(attempt(properties)),
        None => true,
    }
}

/// Whether streams of a VM are attempts of a cluster. To ask costs a quarter of all that a call
/// costs, so a VM that has seen none asks for its first streams, and then for every sixteenth.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Attempts {
    streams: u32,
    has_some: bool,
}

impl Attempts {
    const FIRST: u32 = 256;
    const EVERY: u32 = 16;

    fn number(&mut self, properties: Properties<'_>) -> u64 {
        self.streams = self.streams.saturating_add(1);
        let is_due = self.streams <= Self::FIRST || self.streams.is_multiple_of(Self::EVERY);
        if !self.has_some && !is_due {
            return 0;
        }
        let number = attempt(properties);
        self.has_some |= number > 0;
        number
    }
}

/// The number of the attempt that a filter of a cluster sees; 0 for a filter of a listener.
fn attempt(properties: Properties<'_>) -> u64 {
    let bytes = properties(&["upstream", "request_attempt_count"]);
    let number = bytes.and_then(|bytes| bytes.try_into().ok());
    number.map_or(0, u64::from_le_bytes)
}

/// Whether the trusted header is there, once. A proxy that tells it replaces what a client sent, so
/// two of them are a client's.
fn has_trusted_header(rules: &AlreadyMetered, headers: Headers<'_>) -> bool {
    let mut values = headers.all(&rules.trusted_header);
    !rules.trusted_header.is_empty()
        && values.next().is_some_and(|value| !value.is_empty())
        && values.next().is_none()
}

fn is_trusted_peer(rules: &AlreadyMetered, properties: Properties<'_>) -> bool {
    let peers = &rules.trusted_peers;
    peers.is_empty()
        || ["uri_san_peer_certificate", "dns_san_peer_certificate"].iter().any(|name| {
            let name = properties(&["connection", name]);
            let name = name.and_then(|name| String::from_utf8(name).ok());
            name.is_some_and(|name| peers.iter().any(|peer| is_fit(peer, &name)))
        })
}

/// The host without port of a mirrored request, as the client named it; `None` for any other.
fn without_shadow(authority: &[u8]) -> Option<&[u8]> {
    let host = authority.split(|byte| *byte == b':').next()?;
    host.strip_suffix(SHADOW).or_else(|| authority.strip_suffix(SHADOW))
}

#[cfg(test)]
mod tests {
    use super::{Attempts, without_shadow};

    #[test]
    fn a_vm_that_has_seen_no_attempt_seldom_asks_and_one_that_has_always() {
        let mut attempts = Attempts::default();
        let mut asked = 0;
        for _ in 0..Attempts::FIRST + 160 {
            assert_eq!(
                attempts.number(&mut |_| {
                    asked += 1;
                    None
                }),
                0
            );
        }
        assert_eq!(asked, 256 + 10);
        let second = || Some(2_u64.to_le_bytes().to_vec());
        let numbers = [(); 16].map(|()| attempts.number(&mut |_| second()));
        assert!(numbers.contains(&2), "{numbers:?}");
        assert_eq!([(); 3].map(|()| attempts.number(&mut |_| second())), [2, 2, 2]);
    }

    #[test]
    fn a_mirrored_host_is_told_from_others() {
        for (authority, expected) in [
            ("x.test-shadow", Some("x.test")),
            ("x.test-shadow:8080", Some("x.test")),
            ("[::1]:80-shadow", Some("[::1]:80")),
            ("x.test", None),
            ("x-shadow.test", None),
            ("shadow", None),
            ("", None),
        ] {
            let found = without_shadow(authority.as_bytes());
            assert_eq!(found, expected.map(str::as_bytes), "{authority}");
        }
    }
}
