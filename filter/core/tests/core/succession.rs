//! Two configurations at a time: while a listener drains, for as long as an operator likes, and in any
//! order of stops. Each call is priced by the configuration under which it came, whoever accounts;
//! nothing is lost.

use std::collections::BTreeMap;

use agent_meter_core::base::time::Timestamp;
use agent_meter_core::exchange::kind::{BodyInterest, StreamEnd};
use agent_meter_core::host::counter::{Counter, Gauge};
use agent_meter_core::meter::Meter;
use agent_meter_core::meter::action::HeadAction;
use agent_meter_core::wire::http::Headers;
use serde_json::Value;

use crate::host::{Memory, START, events, meter_at, taken};
use crate::support::test;

/// A configuration with one product of this id at this price.
fn config(product: &str, price: &str) -> String {
    format!(
        r#"{{"products": [{{"id": "{product}", "type": "MCP_SERVER", "match": {{"path": "/mcp"}},
            "identity": {{"customer": {{"trusted_header": "x-customer-id"}}}},
            "pricing": {{"default": {{"price": "{price}"}}}}}}]}}"#
    )
}

/// The VMs of one configuration: on the main thread, and of a worker.
struct Vms {
    main: Option<Meter>,
    worker: Option<Meter>,
}

/// An Envoy with several configurations.
struct Envoy {
    host: Memory,
    now: Timestamp,
    next_stream: u32,
    vms: Vec<Vms>,
    /// What the collector has, by id.
    ledger: BTreeMap<String, Value>,
    collector_is_up: bool,
}

impl Envoy {
    fn new() -> Self {
        let host = Memory::default();
        let (now, next_stream, vms) = (START, 1, Vec::new());
        Self { host, now, next_stream, vms, ledger: BTreeMap::new(), collector_is_up: true }
    }

    /// A configuration comes. Returns its number. Envoy first tries it in a VM that it throws away
    /// without a word.
    fn configure(&mut self, config: &str) -> usize {
        drop(meter_at(&mut self.host, config, self.now));
        let main = meter_at(&mut self.host, config, self.now);
        let mut worker = meter_at(&mut self.host, config, self.now);
        let headers = [(":path".to_owned(), b"/elsewhere".to_vec())];
        worker.request_head(&mut self.host, 0, Headers(&headers), self.now);
        self.vms.push(Vms { main: Some(main), worker: Some(worker) });
        self.vms.len() - 1
    }

    /// Ticks everybody every 250 ms for a while.
    fn run(&mut self, during_ms: u64) {
        for _ in 0..=during_ms / 250 {
            self.now.0 += 250;
            let Self { vms, host, now, ledger, collector_is_up, .. } = self;
            for vm in vms.iter_mut().flat_map(|vms| [&mut vms.worker, &mut vms.main]).flatten() {
                let mut waiting = vm.tick(host, *now);
                while let Some(dispatch) = waiting.pop() {
                    if *collector_is_up {
                        let events = events(&dispatch).into_iter();
                        ledger.extend(
                            events.map(|event| (event["id"].as_str().unwrap().to_owned(), event)),
                        );
                        waiting.extend(vm.reply(host, dispatch.part, taken(), *now));
                    }
                }
            }
        }
    }

    /// A call that succeeds, through a worker of the configuration with this number.
    fn call(&mut self, number: usize, session: &str) {
        let stream = self.next_stream;
        self.next_stream += 1;
        let Self { host, now, vms, .. } = self;
        let worker = vms[number].worker.as_mut().unwrap();
        let headers = [
            (":method", "POST"),
            (":path", "/mcp"),
            ("mcp-session-id", session),
            ("x-customer-id", "acme"),
        ]
        .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()));
        let action = worker.request_head(host, stream, Headers(&headers), *now);
        assert!(matches!(action, HeadAction::Follow(_)), "{action:?}");
        let body = br#"{"id":1,"method":"tools/call","params":{"name":"t"}}"#;
        worker.request_body(host, stream, body, true, *now);
        let headers = [(":status".to_owned(), b"200".to_vec())];
        assert_eq!(worker.response_head(stream, Headers(&headers)), BodyInterest::Bytes);
        let body = br#"{"id":1,"result":{}}"#;
        worker.response_body(host, stream, body, true, *now);
        worker.stream_end(host, stream, StreamEnd::Complete, *now);
    }

    fn stop(&mut self, number: usize, is_main: bool) {
        let vms = &mut self.vms[number];
        let vm = if is_main { vms.main.take() } else { vms.worker.take() };
        vm.unwrap().stop(&mut self.host, self.now);
    }

    fn accountants(&self) -> Vec<usize> {
        let is_one = |vm: &Option<Meter>| vm.as_ref().is_some_and(Meter::is_accountant);
        let vms = self.vms.iter().enumerate();
        vms.filter(|(_, vms)| is_one(&vms.main) || is_one(&vms.worker)).map(|(at, _)| at).collect()
    }

    /// The prices of all calls, by product, and how many sessions were closed: in the ledger, and in
    /// the log.
    fn books(&self) -> (BTreeMap<String, Vec<String>>, usize) {
        let mut all = self.ledger.clone();
        for (_, event) in &self.host.spilled {
            all.insert(event["id"].as_str().unwrap().to_owned(), event.clone());
        }
        let mut prices: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut closed = 0;
        for event in all.values() {
            let data = &event["data"];
            match data["event_type"].as_str().unwrap() {
                "tool_invocation" => {
                    let product = data["product_id"].as_str().unwrap().to_owned();
                    prices.entry(product).or_default().push(data["price"].as_str().unwrap().into());
                }
                "session_closed" => closed += 1,
                _ => {}
            }
        }
        prices.values_mut().for_each(|prices| prices.sort());
        (prices, closed)
    }
}

fn books(rows: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
    let prices = |prices: &[&str]| prices.iter().map(|price| (*price).to_owned()).collect();
    rows.iter().map(|(product, row)| ((*product).to_owned(), prices(row))).collect()
}

#[test]
fn what_comes_under_a_configuration_is_priced_by_it_while_another_drains() {
    let mut envoy = Envoy::new();
    let old = envoy.configure(&config("mcp", "0.01"));
    envoy.run(1_000);
    envoy.call(old, "s");
    envoy.run(1_000);
    assert_eq!(envoy.accountants(), [old]);

    // The same product at another price, and the same session.
    let raised = envoy.configure(&config("mcp", "0.05"));
    envoy.call(raised, "s");
    envoy.call(old, "s");
    envoy.run(500);
    assert_eq!(envoy.accountants(), [raised], "it took more than two ticks");
    // The product with a new name.
    let renamed = envoy.configure(&config("mcp-v2", "0.07"));
    for number in [old, raised, renamed] {
        envoy.call(number, "s");
    }
    envoy.run(600_000);
    assert_eq!(envoy.accountants(), [renamed]);
    for number in [old, raised, renamed] {
        envoy.call(number, "s");
    }
    envoy.run(2_000);
    let expected = books(&[
        ("mcp", &["0.01", "0.01", "0.01", "0.01", "0.05", "0.05", "0.05"]),
        ("mcp-v2", &["0.07", "0.07"]),
    ]);
    assert_eq!(envoy.books().0, expected);
    assert_eq!(envoy.host.counters.get(&Counter::ProductUnknown), Some(&0));
    assert_eq!(envoy.host.counters.get(&Counter::LeaseHandedOver), Some(&2));
    assert!(envoy.host.spilled.is_empty());
}

#[test]
fn two_configurations_under_one_name_are_noticed_once() {
    let mut envoy = Envoy::new();
    let [one, other] = ["0.01", "0.07"].map(|price| envoy.configure(&config("mcp", price)));
    for _ in 0..10 {
        envoy.call(one, "s");
        envoy.call(other, "t");
        envoy.run(60_000);
    }
    let warned: Vec<&String> =
        envoy.host.warned.iter().filter(|line| line.contains("two configurations")).collect();
    assert!(matches!(warned.as_slice(), [line] if line.contains("name=test")), "{warned:?}");
    assert_eq!(envoy.host.gauges.get(&Gauge::ConfigurationsLive), Some(&2));
    assert_eq!(envoy.books().0, books(&[("mcp", &[["0.01"; 10], ["0.07"; 10]].concat())]));
    envoy.stop(one, false);
    envoy.stop(one, true);
    envoy.run(10_000);
    assert_eq!(envoy.host.gauges.get(&Gauge::ConfigurationsLive), Some(&1));
}

#[test]
fn who_stops_last_closes_the_sessions_whatever_the_order_and_whether_the_lease_went_over() {
    // Each order of the two mains and the two workers.
    let who = [(0, true), (0, false), (1, true), (1, false)];
    let orders = permutations(&who);
    assert_eq!(orders.len(), 24);
    for order in orders {
        for (ticks_ms, collector_is_up) in [(0, true), (0, false), (250, false), (3_000, true)] {
            let what = format!("{order:?} after {ticks_ms} ms, {collector_is_up}");
            let mut envoy = Envoy::new();
            let old = envoy.configure(&config("mcp", "0.01"));
            envoy.run(1_000);
            envoy.call(old, "a");
            envoy.run(2_000);
            envoy.collector_is_up = collector_is_up;
            let new = envoy.configure(&config("mcp-v2", "0.05"));
            envoy.call(new, "b");
            if ticks_ms > 0 {
                envoy.run(ticks_ms);
            }
            envoy.call(old, "a");
            envoy.call(new, "b");
            for (number, is_main) in order.iter().copied() {
                envoy.stop(number, is_main);
            }
            let (prices, closed) = envoy.books();
            let expected = books(&[("mcp", &["0.01", "0.01"]), ("mcp-v2", &["0.05", "0.05"])]);
            assert_eq!(prices, expected, "{what}");
            assert_eq!(closed, 2, "{what}");
        }
    }
}

#[test]
fn a_configuration_whose_vms_are_gone_is_not_in_force() {
    let mut envoy = Envoy::new();
    let first = envoy.configure(&config("mcp", "0.01"));
    envoy.run(1_000);
    let second = envoy.configure(&config("mcp", "0.05"));
    envoy.run(1_000);
    assert_eq!(envoy.accountants(), [second]);
    envoy.stop(second, false);
    envoy.stop(second, true);
    envoy.run(1_000);
    assert_eq!(envoy.accountants(), [first]);
    envoy.call(first, "s");
    envoy.run(2_000);
    assert_eq!(envoy.books().0, books(&[("mcp", &["0.01"])]));
    // A VM of the first that crashed and came again takes over; the second's live on.
    let third = envoy.configure(&config("mcp", "0.07"));
    envoy.run(1_000);
    envoy.vms[first].worker = None;
    let again = envoy.configure(&config("mcp", "0.01"));
    envoy.vms[third].main = None;
    envoy.vms[third].worker = None;
    envoy.run(15_000);
    assert!(envoy.accountants() == [again] || envoy.accountants() == [first]);
}

#[test]
fn shared_data_holds_no_secret_and_calls_are_priced_nevertheless() {
    let with_secrets = |price: &str| {
        let mut config: Value = serde_json::from_str(&config("mcp", price)).unwrap();
        config["collector"] = serde_json::json!({ "secret": "nobody-may-read-this" });
        let identity = &mut config["products"][0]["identity"];
        identity["api_key"] = serde_json::json!({ "trusted_header": "x-api-key" });
        identity["api_key_salt"] = "nobody-may-read-that".into();
        config.to_string()
    };
    let mut envoy = Envoy::new();
    let old = envoy.configure(&with_secrets("0.01"));
    envoy.run(1_000);
    let _new = envoy.configure(&with_secrets("0.05"));
    envoy.run(1_000);
    envoy.call(old, "s");
    envoy.run(2_000);
    assert_eq!(envoy.books().0, books(&[("mcp", &["0.01"])]));
    for (key, (value, _)) in &envoy.host.data {
        let text = String::from_utf8_lossy(value);
        assert!(!text.contains("nobody-may-read"), "{key}: {text}");
    }
}

#[test]
fn shared_data_keeps_the_texts_of_few_configurations() {
    let mut envoy = Envoy::new();
    for number in 0..30 {
        let at = envoy.configure(&config("mcp", &format!("0.{number:02}")));
        envoy.run(500);
        if at > 0 {
            envoy.stop(at - 1, false);
            envoy.stop(at - 1, true);
        }
        envoy.run(500);
    }
    let texts = envoy.host.data.iter().filter(|(key, _)| key.contains(".f"));
    let kept = texts.filter(|(_, (text, _))| !text.is_empty()).count();
    assert_eq!(kept, 4);
    let seats = envoy.host.data.keys().filter(|key| key.contains(".z")).count();
    // Those of the VMs of two configurations, and of nobody.
    assert!(seats <= 6, "{seats} seats");
}

fn permutations<T: Copy>(all: &[T]) -> Vec<Vec<T>> {
    if all.is_empty() {
        return vec![Vec::new()];
    }
    let mut found = Vec::new();
    for at in 0..all.len() {
        let mut rest = all.to_vec();
        let first = rest.remove(at);
        for mut other in permutations(&rest) {
            other.insert(0, first);
            found.push(other);
        }
    }
    found
}
