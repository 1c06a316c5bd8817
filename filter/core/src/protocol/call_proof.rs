//! The proof that a request was caused by a call: an id that the filter puts into the trace context
//! of a call's request (W3C Trace Context, Recommendation of 2021-11-23), and that applications
//! carry along to the requests that they make meanwhile.
//!
//! To the next maintainer: nobody verifies a proof. The accountant knows the proofs of the calls
//! that run, and looks up what a generation presents. So a proof only has to be hard to guess, and
//! no two VMs need to share a key.

use core::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::base::hash::{hash_halves, hex, unhex};
use crate::domain::ids::TraceId;
use crate::wire::http::Headers;

/// The name of the filter's member in `tracestate`.
const KEY: &str = "agent-meter";

/// Members that a `tracestate` may have.
const MEMBERS_MAX: usize = 32;

/// Bytes of a `tracestate` that every receiver passes on.
const STATE_BYTES_MAX: usize = 512;

/// Bytes above which a member is the first to go, if the `tracestate` gets too long.
const LONG_MEMBER_BYTES: usize = 128;

/// Proofs of which each one changes the secret, and how many of those behind share one.
const FIRST: u64 = 64;
const EVERY: u64 = 16;

/// Makes proofs, each by a keyed hash (SipHash-2-4 of 128 bits) under a secret. The secret absorbs the
/// random ids that Envoy gives to requests, since a VM has no source of randomness of its own: that of
/// each request at first, then that of every sixteenth.
#[derive(Debug)]
pub(crate) struct ProofMaker {
    secret: [u8; 16],
    made: u64,
}

impl ProofMaker {
    /// Starts from what differs between any two VMs.
    pub(crate) fn new(seeds: &[&[u8]]) -> Self {
        let [_, secret] = hash_halves(seeds);
        Self { secret, made: 0 }
    }

    /// Makes the proof of the exchange with this id. `request_id` is Envoy's `x-request-id`.
    pub(crate) fn next(&mut self, exchange_id: &str, request_id: &[u8]) -> TraceId {
        if self.made < FIRST || self.made.is_multiple_of(EVERY) {
            let [_, secret] = hash_halves(&[&self.secret, exchange_id.as_bytes(), request_id]);
            self.secret = secret;
        }
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(&self.made.to_le_bytes());
        hasher.write(exchange_id.as_bytes());
        self.made = self.made.wrapping_add(1);
        hasher.finish128().as_bytes()
    }
}

/// The call proof that a request presents.
pub(crate) fn presented(headers: Headers<'_>) -> Option<TraceId> {
    let texts = headers.all("tracestate").filter_map(|value| core::str::from_utf8(value).ok());
    let mut members =
        texts.flat_map(|text| text.split(',')).filter_map(|each| each.split_once('='));
    let (_, proof) = members.find(|(key, _)| key.trim_ascii() == KEY)?;
    unhex(proof.trim_ascii())
}

/// Returns the headers to set so that a request carries `proof`. The client's trace stays as it is,
/// unless `replaces_trace`; without one, the proof itself is the trace.
pub(crate) fn carried(
    headers: Headers<'_>,
    proof: TraceId,
    replaces_trace: bool,
) -> Vec<(&'static str, String)> {
    let id = hex(&proof);
    let span = id.get(..16).unwrap_or_default();
    let mut edit = Vec::new();
    let mut parents = headers.all("traceparent");
    let parent = match (parents.next(), parents.next()) {
        (Some(only), None) => core::str::from_utf8(only).ok().and_then(Parent::read),
        _ => None,
    };
    let mut others = Vec::new();
    match (parent, Parent::of_b3(headers)) {
        (Some(_), _) if !replaces_trace => others = other_members(headers),
        (None, Some(Parent { trace, span, flags })) if !replaces_trace => {
            edit.push(("traceparent", format!("00-{trace:0>32}-{span}-{flags}")));
        }
        (parent, of_b3) => {
            // Without a client's wish, the application decides by its own default, which is to
            // sample every trace.
            let flags = parent.as_ref().or(of_b3.as_ref()).map_or("01", |parent| parent.flags);
            edit.push(("traceparent", format!("00-{id}-{span}-{flags}")));
        }
    }
    if replaces_trace {
        if headers.get("x-b3-traceid").is_some() {
            edit.push(("x-b3-traceid", id.clone()));
        }
        let b3 = headers.get("b3").and_then(|value| core::str::from_utf8(value).ok());
        if let Some((_, rest)) = b3.and_then(|value| value.split_once('-')) {
            edit.push(("b3", format!("{id}-{rest}")));
        }
    }
    let mut state = format!("{KEY}={id}");
    for member in fitting(others, state.len()) {
        state.push(',');
        state.push_str(member);
    }
    edit.push(("tracestate", state));
    edit
}

/// A valid parent in a request's head.
struct Parent<'a> {
    trace: &'a str,
    span: &'a str,
    flags: &'a str,
}

impl<'a> Parent<'a> {
    /// Reads a `traceparent` as strictly as propagators do.
    fn read(value: &'a str) -> Option<Self> {
        let mut parts = value.trim_ascii().split('-');
        let version = parts.next().filter(|version| is_hex(version, 2) && *version != "ff")?;
        let trace = parts.next().filter(|trace| is_id(trace, 32))?;
        let span = parts.next().filter(|span| is_id(span, 16))?;
        let flags = parts.next().filter(|flags| is_hex(flags, 2))?;
        // Later versions may have more parts.
        (version != "00" || parts.next().is_none()).then_some(Self { trace, span, flags })
    }

    /// Reads Zipkin's B3 propagation, single or multiple.
    fn of_b3(headers: Headers<'a>) -> Option<Self> {
        let text = |name: &str| core::str::from_utf8(headers.get(name)?).ok();
        let single = text("b3").map(|value| {
            let mut parts = value.split('-');
            (parts.next(), parts.next(), parts.next())
        });
        let (trace, span, sampled) = single
            .unwrap_or_else(|| (text("x-b3-traceid"), text("x-b3-spanid"), text("x-b3-sampled")));
        let trace = trace.filter(|trace| is_id(trace, 32) || is_id(trace, 16))?;
        let span = span.filter(|span| is_id(span, 16))?;
        let flags = if sampled.is_some_and(|sampled| sampled == "0") { "00" } else { "01" };
        Some(Self { trace, span, flags })
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_id(text: &str, length: usize) -> bool {
    is_hex(text, length) && text.bytes().any(|digit| digit != b'0')
}

/// The members of the client's `tracestate`, without one of the filter's; none if it is malformed.
fn other_members<'a>(headers: Headers<'a>) -> Vec<&'a str> {
    let mut members: Vec<(&str, &'a str)> = Vec::new();
    for value in headers.all("tracestate") {
        let Ok(text) = core::str::from_utf8(value) else { return Vec::new() };
        for member in text.split(',').map(str::trim_ascii).filter(|member| !member.is_empty()) {
            let key = key_of(member).filter(|key| members.iter().all(|(other, _)| other != key));
            let Some(key) = key.filter(|_| members.len() < MEMBERS_MAX) else { return Vec::new() };
            members.push((key, member));
        }
    }
    members.into_iter().filter(|(key, _)| *key != KEY).map(|(_, member)| member).collect()
}

/// The key of a well-formed member, `key=value`.
fn key_of(member: &str) -> Option<&str> {
    let (key, value) = member.split_once('=')?;
    let is_key_byte =
        |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let is_key = key.bytes().next().is_some_and(|first| matches!(first, b'a'..=b'z' | b'0'..=b'9'))
        && key.len() <= 256
        && key.bytes().all(is_key_byte);
    let is_value = (1..=256).contains(&value.len())
        && value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'=');
    (is_key && is_value).then_some(key)
}

/// The members that fit behind the filter's own, which has `own_bytes`.
fn fitting(mut members: Vec<&str>, own_bytes: usize) -> Vec<&str> {
    members.truncate(MEMBERS_MAX.saturating_sub(1));
    let length = |members: &[&str]| {
        members
            .iter()
            .fold(own_bytes, |sum, member| sum.saturating_add(member.len()).saturating_add(1))
    };
    while length(&members) > STATE_BYTES_MAX {
        let is_long = |member: &&str| member.len() > LONG_MEMBER_BYTES;
        match members.iter().rposition(is_long) {
            Some(at) => drop(members.remove(at)),
            None => drop(members.pop()),
        }
    }
    members
}

#[cfg(test)]
mod tests {
    use super::{Headers, ProofMaker, carried, presented};

    const OWN: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

    fn edit(head: &[(&str, &str)], replaces_trace: bool) -> Vec<(&'static str, String)> {
        let headers: Vec<_> = head
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        carried(Headers(&headers), [0x5a; 16], replaces_trace)
    }

    #[test]
    fn the_clients_trace_stays_and_the_proof_goes_first() {
        let many: Vec<String> = (0..32).map(|number| format!("k{number}=v")).collect();
        let (all, without_last) = (many.join(","), many[..31].join(","));
        let long = format!("l={}", "x".repeat(200));
        let wide: Vec<String> =
            (0..5).map(|number| format!("w{number}={}", "x".repeat(97))).collect();
        for (sent, kept) in [
            (vec!["a=1"], "a=1"),
            (vec![" a=1 ,, b@c=2 "], "a=1,b@c=2"),
            (vec!["a=1", "b=2"], "a=1,b=2"),
            (vec!["a=1", "agent-meter=00000000000000000000000000000001"], "a=1"),
            (vec![], ""),
            (vec![""], ""),
            // Malformed, as a whole.
            (vec!["a=1,a=2"], ""),
            (vec!["a=1,B=2"], ""),
            (vec!["a=1,b"], ""),
            (vec!["a=1,b="], ""),
            (vec!["a=1,b=2=3"], ""),
            (vec!["a=\u{e9}"], ""),
            (vec![&format!("{all},k32=v")], ""),
            // Too much.
            (vec![&all], &without_last),
            (vec![&long, &wide[..4].join(",")], &wide[..4].join(",")),
            (vec![&wide.join(",")], &wide[..4].join(",")),
        ] {
            let mut head = vec![("traceparent", PARENT)];
            head.extend(sent.iter().map(|value| ("tracestate", *value)));
            let comma = if kept.is_empty() { "" } else { "," };
            let state = ("tracestate", format!("agent-meter={OWN}{comma}{kept}"));
            assert_eq!(edit(&head, false), [state], "{sent:?}");
        }
    }

    #[test]
    fn a_trace_of_the_filter_stands_where_none_is_or_where_it_is_asked_for() {
        let own = |flags: &str| ("traceparent", format!("00-{OWN}-5a5a5a5a5a5a5a5a-{flags}"));
        let b3 = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0";
        let of_b3 = || ("traceparent", PARENT.to_owned());
        let short =
            ("traceparent", "00-00000000000000004bf92f3577b34da6-00f067aa0ba902b7-01".to_owned());
        for (head, replaces_trace, edited) in [
            (vec![], false, vec![own("01")]),
            (vec![("tracestate", "a=1")], false, vec![own("01")]),
            (vec![("traceparent", "")], false, vec![own("01")]),
            (vec![("traceparent", &PARENT[..54])], false, vec![own("01")]),
            (vec![("traceparent", &PARENT.replace('f', "F"))], false, vec![own("01")]),
            (vec![("traceparent", &format!("{PARENT}-more"))], false, vec![own("01")]),
            (vec![("traceparent", &format!("ff{}", &PARENT[2..]))], false, vec![own("01")]),
            (vec![("traceparent", &format!("cc{}-more", &PARENT[2..]))], false, vec![]),
            (
                vec![("traceparent", "00-00000000000000000000000000000000-00f067aa0ba902b7-01")],
                false,
                vec![own("01")],
            ),
            (vec![("traceparent", PARENT), ("traceparent", PARENT)], false, vec![own("01")]),
            (vec![("b3", b3)], false, vec![of_b3()]),
            (vec![("b3", "0")], false, vec![own("01")]),
            (
                vec![("x-b3-traceid", "4bf92f3577b34da6"), ("x-b3-spanid", "00f067aa0ba902b7")],
                false,
                vec![short],
            ),
            (vec![("traceparent", PARENT), ("tracestate", "a=1")], true, vec![own("00")]),
            (vec![("b3", b3)], true, vec![own("00"), ("b3", format!("{OWN}-00f067aa0ba902b7-0"))]),
            (
                vec![("traceparent", PARENT), ("x-b3-traceid", "4bf92f3577b34da6")],
                true,
                vec![own("00"), ("x-b3-traceid", OWN.to_owned())],
            ),
        ] {
            let mut edited = edited;
            edited.push(("tracestate", format!("agent-meter={OWN}")));
            assert_eq!(edit(&head, replaces_trace), edited, "{head:?} {replaces_trace}");
        }
    }

    #[test]
    fn what_is_carried_is_presented() {
        for (state, proof) in [
            (format!("agent-meter={OWN}"), Some([0x5a; 16])),
            (format!("other=1, agent-meter={OWN} ,b=2"), Some([0x5a; 16])),
            (format!("agent-meter={}", &OWN[1..]), None),
            (format!("agent-meter2={OWN}"), None),
            (String::new(), None),
        ] {
            let headers = [("tracestate".to_owned(), state.clone().into_bytes())];
            assert_eq!(presented(Headers(&headers)), proof, "{state}");
        }
    }

    #[test]
    fn no_two_proofs_are_the_same() {
        let mut maker = ProofMaker::new(&[b"seed"]);
        let mut other = ProofMaker::new(&[b"other"]);
        let proofs = [maker.next("0.1", b""), maker.next("0.1", b""), other.next("0.1", b"")];
        assert!(proofs[0] != proofs[1] && proofs[0] != proofs[2] && proofs[1] != proofs[2]);
        // Whoever learns the seed, but not every request, guesses no later proof.
        let mut guess = ProofMaker::new(&[b"seed"]);
        guess.next("0.1", b"another request's id");
        guess.next("0.1", b"");
        assert_ne!(guess.next("0.2", b""), maker.next("0.2", b""));
        let mut proofs: Vec<_> = (0..1_000).map(|_| maker.next("0.3", b"")).collect();
        proofs.sort_unstable();
        proofs.dedup();
        assert_eq!(proofs.len(), 1_000);
    }
}
