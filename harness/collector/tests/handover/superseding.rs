//! Generations that take the place of others: what receivers that add up have in the end is what
//! the ledger counts, in whichever order events came and whenever they were sent.

use rust_decimal::Decimal;
use serde_json::{Value, json};

use agent_meter_collector::{Decision, Page, UsageQuery};

use crate::receiver::Receiver;
use crate::{Rig, call, generation, set_aside, state, store, vendors};

/// Generation 3 takes the place of 1, 5 of 3, and 6 of 2 with its run.
fn chain() -> Vec<Value> {
    vec![
        generation(1, 1000, json!({"price": "0.10"})),
        generation(2, 500, json!({"price": "0.20"})),
        generation(3, 800, json!({"supersedes": "0.1.1", "price": "0.40"})),
        generation(4, 70, json!({"generation_id": "0.1.2.1", "price": "0.03"})),
        generation(5, 900, json!({"supersedes": "0.1.3", "price": "0.07"})),
        generation(6, 40, json!({"supersedes": "0.1.2", "price": "0.05"})),
    ]
}

/// The sums of a property over all that a receiver took.
fn sum(receiver: &Receiver, property: &str) -> Decimal {
    receiver.with(|inbox| {
        let amounts = inbox.taken.values().map(|content| {
            let event: Value = serde_json::from_str(content).expect("JSON");
            let value = &event["properties"][property];
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text.parse::<Decimal>().expect(property)
        });
        amounts.sum()
    })
}

fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for smaller in permutations(count - 1) {
        for at in 0..=smaller.len() {
            let mut order = smaller.clone();
            order.insert(at, count - 1);
            all.push(order);
        }
    }
    all
}

#[tokio::test]
async fn sums_are_the_ledgers_in_every_order() {
    let orders = permutations(6);
    for (number, order) in orders.iter().enumerate().step_by(19) {
        let receiver = Receiver::start(vendors::vendor("metronome")).await;
        let rig = Rig::new();
        let collector = rig.start(&receiver.sinks("")).await;
        let ledger = collector.ledger();
        let chain = chain();
        for (index, event) in order.iter().map(|index| &chain[*index]).enumerate() {
            store(&ledger, std::slice::from_ref(event));
            // Some come before those before them were sent, some after.
            if (number + index) % 2 == 0 {
                rig.until_done(&collector, "metronome").await;
            }
        }
        rig.until_done(&collector, "metronome").await;
        let usage = ledger.usage(&UsageQuery::default()).expect("usage");
        let usage = serde_json::to_value(usage).expect("JSON");
        let row = &usage["rows"][0];
        assert_eq!(
            sum(&receiver, "input_tokens").to_string(),
            row["input"].to_string(),
            "{order:?}"
        );
        assert_eq!(sum(&receiver, "output_tokens").to_string(), row["output"].to_string());
        let price = sum(&receiver, "price").normalize().to_string();
        assert_eq!(price, row["revenue"].as_str().expect("revenue"), "{order:?}");
        collector.stop().await;
    }
}

#[tokio::test]
async fn a_row_that_was_superseded_is_marked_in_clickhouse() {
    for order in [[0, 1], [1, 0]] {
        let receiver = Receiver::start(vendors::vendor("clickhouse")).await;
        let rig = Rig::new();
        let collector = rig.start(&receiver.sinks("")).await;
        let events =
            [generation(1, 1000, json!({})), generation(2, 700, json!({"supersedes": "0.1.1"}))];
        for index in order {
            store(&collector.ledger(), &events[index..=index]);
            rig.until_done(&collector, "clickhouse").await;
        }
        collector.stop().await;
        // As ReplacingMergeTree: of each source and id the row with the highest version.
        let mut rows = std::collections::BTreeMap::new();
        receiver.with(|inbox| {
            for content in inbox.taken.values() {
                let row: Value = serde_json::from_str(content).expect("JSON");
                let (id, version) = (row["id"].to_string(), row["version"].as_u64());
                let kept = rows.entry(id).or_insert_with(|| row.clone());
                if version > kept["version"].as_u64() {
                    *kept = row;
                }
            }
        });
        let counted: Vec<_> = rows
            .values()
            .map(|row| (row["superseded"].as_u64(), row["input_tokens"].as_u64()))
            .collect();
        assert_eq!(counted, [(Some(1), Some(1000)), (Some(0), Some(700))], "{order:?}");
    }
}

#[tokio::test]
async fn an_event_of_another_currency_cannot_be_told_as_a_difference() {
    let receiver = Receiver::start(vendors::vendor("orb")).await;
    let rig = Rig::new();
    let collector = rig.start(&receiver.sinks("")).await;
    let euros = json!({"supersedes": "0.1.1", "currency": "EUR"});
    store(&collector.ledger(), &[generation(1, 1, json!({})), generation(2, 2, euros)]);
    rig.until_done(&collector, "orb").await;
    let aside = set_aside(&collector.ledger(), "orb");
    assert_eq!((aside.len(), &*aside[0].state), (1, "unfit"));
    assert!(aside[0].detail.contains("another currency"), "{}", aside[0].detail);
    collector.stop().await;
}

#[tokio::test]
async fn an_event_that_is_released_is_handed_over_although_the_sink_came_by() {
    let receiver = Receiver::start(vendors::vendor("orb")).await;
    let rig = Rig::new();
    let collector = rig.start(&receiver.sinks("")).await;
    let ledger = collector.ledger();
    let huge = json!({"price": "2000000000000"});
    store(&ledger, &[call(1, json!({})), call(2, huge), call(3, json!({}))]);
    rig.until_done(&collector, "orb").await;
    assert_eq!(receiver.taken(), 2, "one is kept apart");
    let held = ledger.quarantine("held", Page::default()).expect("held");
    ledger.decide(held.events[0].position, Decision::Release).expect("released");
    rig.until(1000, "released", || (receiver.taken() == 3).then_some(())).await;
    rig.until(1000, "counted", || (state(&ledger, "orb").handed == 3).then_some(())).await;
    collector.stop().await;
}

#[tokio::test]
async fn a_new_sink_begins_with_the_next_event_or_with_the_first() {
    for (from, expected) in [("", 2), (", from: now", 2), (", from: first", 5)] {
        let receiver = Receiver::start(vendors::vendor("orb")).await;
        let rig = Rig::new();
        store(&rig.ledger(), &crate::calls(1..=3));
        let collector = rig.start(&receiver.sinks(from)).await;
        store(&collector.ledger(), &crate::calls(4..=5));
        let state = rig.until_done(&collector, "orb").await;
        assert_eq!((state.handed, receiver.taken()), (expected, expected as usize), "{from}");
        collector.stop().await;
    }
}
