//! A request that several filters see: it is metered once, and whatever a client says of it counts
//! for nothing unless the configuration trusts those who can say it.

use agent_meter_core::admission::already_metered::MARK;
use agent_meter_core::host::counter::Counter;
use agent_meter_core::meter::action::{HeadAction, RequestEdit};
use agent_meter_core::wire::http::Headers;
use serde_json::{Value, json};

use crate::host::Envoy;
use crate::products::{Pairs, headers};
use crate::support::test;

const URI: &str = "connection uri_san_peer_certificate";
const DNS: &str = "connection dns_san_peer_certificate";

fn config(already_metered: &Value) -> String {
    json!({
        "already_metered": already_metered,
        "products": [{
            "id": "p", "type": "MCP_SERVER", "match": {"host": "x.test", "path": "/p"},
            "identity": {"strip_headers": ["x-stripped"]},
        }],
    })
    .to_string()
}

fn head(envoy: &mut Envoy, id: u32, more: Pairs<'_>) -> HeadAction {
    let own: Pairs<'_> = &[(":method", "POST"), (":path", "/p"), ("x-stripped", "1")];
    let request = headers(&[own, more].concat());
    let Envoy { worker, host, now, .. } = envoy;
    worker.request_head(host, id, Headers(&request), *now)
}

/// What becomes of a request, in one word, with the headers that are taken out.
fn fate(action: &HeadAction) -> (&'static str, Vec<&str>) {
    let removed = |edit: &'static str, found: &'_ RequestEdit| (edit, found.remove.clone());
    let (word, removed) = match action {
        HeadAction::Pass => ("unmatched", Vec::new()),
        HeadAction::Forget(edit) => removed("skipped", edit),
        HeadAction::Follow(edit) => removed("metered", edit),
        HeadAction::Answer(_) => ("answered", Vec::new()),
    };
    let known = ["x-metered", "x-mark", "x-stripped"];
    (word, known.into_iter().filter(|name| removed.iter().any(|other| other == name)).collect())
}

/// The name, the options, the request, a property of its stream, what becomes of it, and the headers
/// that are taken out.
type Row<'a> = (&'a str, &'a Value, Pairs<'a>, Option<(&'a str, &'a str)>, &'a str, &'a [&'a str]);

#[test]
fn what_proxies_and_clients_say_is_believed_only_where_the_configuration_trusts_them() {
    let off = json!({});
    let header = json!({"trusted_header": "x-metered"});
    let peers = json!({"trusted_header": "x-metered", "trusted_peers": ["spiffe://mesh/gateway*"]});
    let shadow = json!({"skip_shadow_hosts": true});
    let shadow_of_peers = json!({"skip_shadow_hosts": true, "trusted_peers": ["gateway.test"]});
    let says: Pairs<'_> = &[(":authority", "x.test"), ("x-metered", "0.1")];
    let twice: Pairs<'_> = &[(":authority", "x.test"), ("x-metered", "0.1"), ("x-metered", "0.2")];
    let empty: Pairs<'_> = &[(":authority", "x.test"), ("x-metered", "")];
    let plain: Pairs<'_> = &[(":authority", "x.test")];
    let mirrored: Pairs<'_> = &[(":authority", "x.test-shadow:80")];
    let gateway = (URI, "spiffe://mesh/gateway-1");
    let dns = (DNS, "gateway.test");
    let other = (URI, "spiffe://mesh/tenant");
    let rows: [Row<'_>; 16] = [
        ("a client's header", &off, says, None, "metered", &[]),
        ("a client's shadow host", &off, mirrored, None, "unmatched", &[]),
        ("a trusted header", &header, says, None, "skipped", &[]),
        ("a trusted header twice", &header, twice, None, "metered", &["x-metered"]),
        ("an empty header", &header, empty, None, "metered", &["x-metered"]),
        ("no header", &header, plain, None, "metered", &[]),
        ("a peer's header", &peers, says, Some(gateway), "skipped", &[]),
        ("a peer without the header", &peers, plain, Some(gateway), "metered", &[]),
        ("another peer's header", &peers, says, Some(other), "metered", &["x-metered"]),
        ("nobody's header", &peers, says, None, "metered", &["x-metered"]),
        ("a mirrored request", &shadow, mirrored, None, "skipped", &[]),
        ("a request that is not mirrored", &shadow, plain, None, "metered", &[]),
        ("a peer's mirrored request", &shadow_of_peers, mirrored, Some(dns), "skipped", &[]),
        ("a client's mirrored request", &shadow_of_peers, mirrored, None, "metered", &[]),
        ("a tenant's mirrored request", &shadow_of_peers, mirrored, Some(other), "metered", &[]),
        (
            "a mirrored request elsewhere",
            &shadow,
            &[(":authority", "y.test-shadow")],
            None,
            "unmatched",
            &[],
        ),
    ];
    for (name, rules, request, peer, word, removed) in rows {
        let mut envoy = Envoy::new(&config(rules));
        if let Some((property, value)) = peer {
            envoy.host.properties.insert(property.to_owned(), value.to_owned());
        }
        let action = head(&mut envoy, 9, request);
        let mut expected = removed.to_vec();
        expected.extend((word != "unmatched").then_some("x-stripped"));
        assert_eq!(fate(&action), (word, expected), "{name}");
        let skipped = |counter| envoy.host.counters.get(&counter).copied().unwrap_or(0);
        let counts = (skipped(Counter::RequestsAlreadyMetered), skipped(Counter::RequestsShadowed));
        let is_mirrored = request[0].1.contains("-shadow");
        let expected = match word {
            "skipped" if is_mirrored => (0, 1),
            "skipped" => (1, 0),
            _ => (0, 0),
        };
        assert_eq!(counts, expected, "{name}");
    }
}

#[test]
fn a_request_is_marked_for_proxies_behind_and_a_clients_mark_goes_no_further() {
    let rules = json!({"mark_header": "x-mark", "trusted_header": "x-metered"});
    let mut envoy = Envoy::new(&config(&rules));
    let forged: Pairs<'_> = &[(":authority", "x.test"), ("x-mark", "1"), ("x-metered", "")];
    let action = head(&mut envoy, 9, forged);
    assert_eq!(fate(&action), ("metered", vec!["x-metered", "x-mark", "x-stripped"]));
    let HeadAction::Follow(edit) = action else { panic!() };
    let [(name, id)] = edit.set.try_into().unwrap();
    assert_eq!(name, "x-mark");
    assert_eq!(edit.metered_as, Some(id));
    // Of a request that belongs to no product too: the proxy behind may have another.
    let elsewhere: Pairs<'_> = &[(":authority", "y.test"), ("x-mark", "1"), ("x-metered", "1")];
    let action = head(&mut envoy, 10, elsewhere);
    assert_eq!(fate(&action), ("skipped", vec!["x-metered", "x-mark"]));
}

/// Two filters on one stream share Envoy's filter state.
#[test]
fn a_second_filter_on_the_same_stream_leaves_the_request_to_the_first() {
    for (same_stream, word) in [("skip", "skipped"), ("meter", "metered")] {
        let rules = json!({"same_stream": same_stream, "mark_header": "x-mark"});
        let mut envoy = Envoy::new(&config(&rules));
        let HeadAction::Follow(edit) = head(&mut envoy, 9, &[(":authority", "x.test")]) else {
            panic!()
        };
        let [(name, value)] = edit.set.try_into().unwrap();
        let id = edit.metered_as.unwrap();
        envoy.host.properties.insert(MARK.to_owned(), id);
        // The mark for the proxies behind is the first filter's, and stays.
        let behind: Pairs<'_> = &[(":authority", "x.test"), (&name, &value)];
        let action = head(&mut envoy, 10, behind);
        assert_eq!(fate(&action).0, word, "{same_stream}");
        if word == "skipped" {
            assert_eq!(fate(&action).1, ["x-stripped"]);
            assert_eq!(envoy.host.counters[&Counter::RequestsAlreadyMetered], 1);
        }
    }
}

/// Envoy gives the filters of a cluster a stream for each attempt, and one filter state to all.
#[test]
fn each_attempt_is_metered_where_only_a_filter_of_the_cluster_meters() {
    const ATTEMPT: &str = "upstream request_attempt_count";
    let number = |attempt: u64| String::from_utf8(attempt.to_le_bytes().to_vec()).unwrap();
    let request: Pairs<'_> = &[(":authority", "x.test")];
    // The attempt at which the mark was made, by a filter of the listener (0) or of the cluster,
    // and the one that looks.
    for (marked, looks, word) in [
        (0, 0, "skipped"),
        (0, 1, "skipped"),
        (0, 2, "skipped"),
        (1, 1, "skipped"),
        (1, 2, "metered"),
    ] {
        let mut envoy = Envoy::new(&config(&json!({})));
        envoy.host.properties.insert(ATTEMPT.to_owned(), number(marked));
        let HeadAction::Follow(edit) = head(&mut envoy, 9, request) else { panic!() };
        envoy.host.properties.insert(MARK.to_owned(), edit.metered_as.unwrap());
        envoy.host.properties.insert(ATTEMPT.to_owned(), number(looks));
        assert_eq!(fate(&head(&mut envoy, 10, request)).0, word, "{marked} {looks}");
    }
}

#[test]
fn a_request_that_is_not_metered_is_not_marked() {
    let config = json!({
        "already_metered": {"mark_header": "x-mark"},
        "products": [{
            "id": "p", "type": "AI_AGENT", "match": {"path_prefix": "/p"}, "llm": {},
        }],
    });
    let mut envoy = Envoy::new(&config.to_string());
    let action = head(&mut envoy, 9, &[("x-mark", "1")]);
    let HeadAction::Forget(edit) = action else { panic!("{action:?}") };
    assert_eq!(
        (edit.set, edit.metered_as, edit.remove),
        (Vec::new(), None, vec!["x-mark".to_owned()])
    );
}
