//! Receivers that fail: what they have in the end, and what was set aside.

use std::time::Duration;

use serde_json::json;

use crate::receiver::{Act, Receiver};
use crate::{HOUR_MS, KEY, Rig, call, calls, each_vendor, set_aside, state, store, vendors};

/// True of receivers that know no ids, and count what comes twice.
fn knows_no_ids(name: &str) -> bool {
    name.starts_with("otlp")
}

#[tokio::test]
async fn what_fails_is_sent_again_with_the_same_ids_and_times() {
    for (vendor, receiver, sinks) in each_vendor().await {
        let rig = Rig::new();
        receiver.with(|inbox| {
            inbox.acts.extend([
                Act::Answer(500, None),
                Act::Answer(429, Some("40")),
                Act::Answer(302, None),
                Act::Hang,
                Act::Cut,
                Act::TakeAndCut,
            ]);
        });
        let collector = rig.start(&sinks).await;
        store(&collector.ledger(), &calls(1..=30));
        let state = rig.until_done(&collector, vendor.name).await;
        collector.stop().await;
        assert_eq!((state.handed, state.failures), (30, 6), "{}", vendor.name);
        assert_eq!((state.error, state.set_aside), (None, Vec::new()), "{}", vendor.name);
        receiver.with(|inbox| {
            assert!(inbox.again > 0 || knows_no_ids(vendor.name), "{}", vendor.name);
            let bodies: Vec<&String> = inbox.came[..7].iter().map(|came| &came.body).collect();
            assert!(bodies.iter().all(|body| *body == bodies[0]), "{}", vendor.name);
        });
        // Two of the metrics that say the same are one in this receiver.
        if vendor.name != "otlp_metrics" {
            assert_eq!(receiver.taken(), 30, "{}", vendor.name);
        }
    }
}

#[tokio::test]
async fn a_receiver_that_asks_to_wait_is_left_alone() {
    let receiver = Receiver::start(vendors::vendor("metronome")).await;
    receiver.with(|inbox| inbox.acts.push_back(Act::Answer(429, Some("100"))));
    let rig = Rig::new();
    let collector = rig.start(&receiver.sinks("")).await;
    store(&collector.ledger(), &calls(1..=1));
    rig.until(0, "the first try", || receiver.with(|i| (i.came.len() == 1).then_some(()))).await;
    rig.until(0, "the failure", || {
        (state(&collector.ledger(), "metronome").failures == 1).then_some(())
    })
    .await;
    for _ in 0..9 {
        rig.time.advance(11_000);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(receiver.with(|inbox| inbox.came.len()), 1, "99 s later");
    rig.until_done(&collector, "metronome").await;
    collector.stop().await;
}

#[tokio::test]
async fn a_poison_event_is_set_aside_and_holds_up_nothing() {
    for (vendor, receiver, sinks) in each_vendor().await {
        let rig = Rig::new();
        receiver.with(|inbox| inbox.poison.insert("wormwood".to_owned()));
        let collector = rig.start(&sinks).await;
        let ledger = collector.ledger();
        let poison =
            json!({"tool_name": "wormwood", "agent_id": "wormwood", "quantity": 7_777_777});
        let mut events = calls(1..=40);
        events[16] = call(17, poison.clone());
        events[39] = call(40, poison);
        if vendor.name.starts_with("stripe") {
            // Stripe has nothing of an event but its value.
            receiver.with(|inbox| inbox.poison.insert("7777777".to_owned()));
        }
        store(&ledger, &events);
        let state = rig.until_done(&collector, vendor.name).await;
        assert_eq!((state.handed, state.failures), (38, 0), "{}", vendor.name);
        assert_eq!(state.set_aside, [("refused".to_owned(), 2)], "{}", vendor.name);
        let aside = set_aside(&ledger, vendor.name);
        let ids: Vec<&str> = aside.iter().map(|event| event.id.as_str()).collect();
        assert_eq!(ids, ["00000000000000000017", "00000000000000000040"], "{}", vendor.name);
        assert!(aside.iter().all(|event| event.detail.starts_with("answered ")), "{aside:?}");

        // The receiver is mended, and the operator has one sent again, then all.
        receiver.with(|inbox| inbox.poison.clear());
        assert_eq!(ledger.send_again(vendor.name, Some(aside[0].position)).expect("again"), 1);
        let left = |count: usize| (set_aside(&ledger, vendor.name).len() == count).then_some(());
        rig.until(1000, "one", || left(1)).await;
        assert_eq!(ledger.send_again(vendor.name, None).expect("again"), 1);
        rig.until(1000, "all", || left(0)).await;
        assert_eq!(crate::state(&ledger, vendor.name).handed, 40, "{}", vendor.name);
        collector.stop().await;
    }
}

#[tokio::test]
async fn an_outage_of_an_hour_costs_nothing_and_few_tries() {
    for (vendor, receiver, sinks) in each_vendor().await {
        let rig = Rig::new();
        let down = receiver.down().await;
        let collector = rig.start(&sinks).await;
        let ledger = collector.ledger();
        store(&ledger, &calls(1..=20));
        let start_ms = rig.time.now_ms();
        let mut sequence = 20;
        rig.until(20_000, "an hour", || {
            // The intake goes on.
            sequence += 1;
            store(&ledger, &calls([sequence]));
            (rig.time.now_ms() - start_ms >= HOUR_MS).then_some(())
        })
        .await;
        let state = state(&ledger, vendor.name);
        assert_eq!((state.handed, state.position), (0, 0), "{}", vendor.name);
        assert_eq!(state.lag_events, sequence, "{}", vendor.name);
        assert!((5..=40).contains(&state.failures), "{}: {}", vendor.name, state.failures);
        assert!(state.error.is_some_and(|error| !error.contains(KEY)), "{}", vendor.name);
        let receiver = down.up().await;
        let state = rig.until_done(&collector, vendor.name).await;
        collector.stop().await;
        assert_eq!((state.handed, state.set_aside), (sequence, Vec::new()), "{}", vendor.name);
        let again = receiver.with(|inbox| inbox.again);
        assert!(again == 0 || vendor.name == "otlp_metrics", "{}: nothing twice", vendor.name);
    }
}

#[tokio::test]
async fn a_restart_goes_on_at_the_cursor() {
    for (vendor, receiver, sinks) in each_vendor().await {
        let rig = Rig::new();
        let more = sinks.replace("timeout: 1", "batch_events: 1, timeout: 1");
        for begun in 0..5_u64 {
            let collector = rig.start(&more).await;
            store(&collector.ledger(), &calls(begun * 20 + 1..=begun * 20 + 20));
            if begun == 2 {
                receiver.with(|inbox| inbox.acts.push_back(Act::TakeAndCut));
            }
            let wanted = receiver.with(|inbox| inbox.came.len()) + 7;
            rig.until(1000, "some", || receiver.with(|i| (i.came.len() >= wanted).then_some(())))
                .await;
            collector.stop().await;
        }
        let collector = rig.start(&more).await;
        let state = rig.until_done(&collector, vendor.name).await;
        collector.stop().await;
        assert_eq!((state.handed, state.set_aside), (100, Vec::new()), "{}", vendor.name);
        if vendor.name != "otlp_metrics" {
            assert_eq!(receiver.taken(), 100, "{}", vendor.name);
        }
        // At most what was under way, once.
        assert!(receiver.with(|inbox| inbox.again) <= 1 || knows_no_ids(vendor.name));
    }
}

#[tokio::test]
async fn what_may_have_been_taken_is_not_sent_again_when_ids_are_forgotten() {
    for (vendor, receiver, sinks) in each_vendor().await {
        let rig = Rig::new();
        receiver.with(|inbox| {
            inbox.acts.push_back(Act::TakeAndCut);
            // A refusal by the door says nothing about what came before it.
            inbox.always = Some(Act::Answer(403, None));
        });
        let more = sinks.replace("timeout: 1", "batch_events: 1, timeout: 1");
        let collector = rig.start(&more).await;
        let ledger = collector.ledger();
        store(&ledger, &calls(1..=2));
        let failed = |count: u64| (state(&ledger, vendor.name).failures >= count).then_some(());
        rig.until(1000, "failures", || failed(2)).await;
        rig.time.advance(vendor.dedup_hours.max(24 * 40) * HOUR_MS);
        let aside = || set_aside(&ledger, vendor.name);
        if vendor.dedup_hours == 0 {
            rig.until(60_000, "more failures", || failed(9)).await;
            assert_eq!(aside(), [], "{}: it never forgets, or never knows", vendor.name);
        } else {
            rig.until(1000, "set aside", || (!aside().is_empty()).then_some(())).await;
            let found = aside();
            assert_eq!(found.len(), 1, "{}: only the one that was sent", vendor.name);
            assert_eq!((found[0].position, &*found[0].state), (1, "uncertain"), "{}", vendor.name);
            let hours = format!("knows ids for {} h", vendor.dedup_hours);
            assert!(found[0].detail.contains(&hours), "{}", found[0].detail);
            assert_eq!(receiver.with(|inbox| inbox.again), 0);
        }
        collector.stop().await;
    }
}

#[tokio::test]
async fn what_was_under_way_when_a_collector_ended_is_not_sent_again_after_that_time_either() {
    let vendor = vendors::vendor("stripe_stream");
    for (hours, expected) in [(1, 0), (23, 3), (30, 3)] {
        let receiver = Receiver::start(vendor).await;
        receiver.with(|inbox| inbox.always = Some(Act::Hang));
        let rig = Rig::new();
        let collector = rig.start(&receiver.sinks("").replace("timeout: 1", "timeout: 600")).await;
        store(&collector.ledger(), &calls(1..=3));
        rig.until(0, "a try", || receiver.with(|i| (i.came.len() == 1).then_some(()))).await;
        // As if it were killed: nobody writes down anything.
        drop(collector);
        rig.time.advance(hours * HOUR_MS);
        receiver.with(|inbox| inbox.always = None);
        let collector = rig.start(&receiver.sinks("")).await;
        store(&collector.ledger(), &calls(4..=4));
        let state = rig.until_done(&collector, vendor.name).await;
        let aside = set_aside(&collector.ledger(), vendor.name);
        assert_eq!(aside.len(), expected, "{hours} h");
        assert!(aside.iter().all(|event| event.state == "uncertain"), "{aside:?}");
        assert_eq!(state.handed, 4 - expected as u64, "{hours} h");
        collector.stop().await;
    }
}

#[tokio::test]
async fn what_certainly_did_not_arrive_may_wait_for_ever() {
    for name in ["stripe", "stripe_stream", "openmeter"] {
        let receiver = Receiver::start(vendors::vendor(name)).await;
        // Refused by the door: nobody has looked at it.
        receiver.with(|inbox| inbox.always = Some(Act::Answer(403, None)));
        let rig = Rig::new();
        let collector = rig.start(&receiver.sinks("")).await;
        let ledger = collector.ledger();
        store(&ledger, &calls(1..=3));
        let failed = |count: u64| (state(&ledger, name).failures >= count).then_some(());
        rig.until(1000, "failures", || failed(2)).await;
        let down = receiver.down().await;
        rig.until(HOUR_MS / 4, "more failures", || failed(4)).await;
        collector.stop().await;
        // 33 days; of Stripe the events are 34 days old then, and just in time.
        rig.time.advance(33 * 24 * HOUR_MS - (rig.time.now_ms() - crate::NOW_MS));
        let receiver = down.up().await;
        receiver.with(|inbox| inbox.always = None);
        let collector = rig.start(&receiver.sinks("")).await;
        let state = rig.until_done(&collector, name).await;
        assert_eq!((state.handed, state.set_aside), (3, Vec::new()), "{name}");
        collector.stop().await;
    }
}

#[tokio::test]
async fn an_event_that_is_too_old_for_its_receiver_is_set_aside() {
    for (name, days) in [("stripe", 35), ("stripe_stream", 35), ("metronome", 34)] {
        let receiver = Receiver::start(vendors::vendor(name)).await;
        let rig = Rig::new();
        store(&rig.ledger(), &calls(1..=2));
        rig.time.advance((days - 1) * 24 * HOUR_MS);
        let mut late = call(3, json!({}));
        late["time"] = json!("2026-07-30T10:00:00.000Z");
        store(&rig.ledger(), &[late]);
        let collector = rig.start(&receiver.sinks(", from: first")).await;
        let state = rig.until_done(&collector, name).await;
        assert_eq!(state.handed, 1, "{name}");
        assert_eq!(state.set_aside, [("too_old".to_owned(), 2)], "{name}");
        let detail = &set_aside(&collector.ledger(), name)[0].detail;
        assert!(detail.ends_with(&format!("more than {days} days ago")), "{detail}");
        collector.stop().await;
    }
}

#[tokio::test]
async fn a_receiver_that_refuses_everything_is_asked_slowly() {
    let receiver = Receiver::start(vendors::vendor("metronome")).await;
    receiver.with(|inbox| inbox.poison.insert("search".to_owned()));
    let rig = Rig::new();
    let collector = rig.start(&receiver.sinks("")).await;
    let ledger = collector.ledger();
    store(&ledger, &calls(1..=200));
    // The clock stands still, so whatever waits, waits.
    tokio::time::sleep(Duration::from_millis(800)).await;
    let aside = set_aside(&ledger, "metronome").len();
    assert!((20..=22).contains(&aside), "{aside}");
    receiver.with(|inbox| inbox.poison.clear());
    let state = rig.until_done(&collector, "metronome").await;
    collector.stop().await;
    assert!(state.handed >= 178, "{state:?}");
}

#[tokio::test]
async fn a_sink_that_is_down_holds_back_no_other() {
    let (good, bad) = (
        Receiver::start(vendors::vendor("orb")).await,
        Receiver::start(vendors::vendor("lago")).await,
    );
    bad.with(|inbox| inbox.always = Some(Act::Hang));
    let rig = Rig::new();
    let of = |receiver: &Receiver| {
        let text = receiver.sinks("");
        text.trim_start_matches("sinks: {").strip_suffix('}').expect("braces").to_owned()
    };
    let collector = rig.start(&format!("sinks: {{{}, {}}}", of(&good), of(&bad))).await;
    store(&collector.ledger(), &calls(1..=50));
    let state = rig.until_done(&collector, "orb").await;
    assert_eq!((state.handed, good.taken()), (50, 50));
    let url = format!("http://{}/metrics", collector.addr());
    let text = reqwest::get(url).await.expect("metrics").text().await.expect("text");
    for line in [
        "agent_meter_collector_sink_handed_total{sink=\"orb\"} 50",
        "agent_meter_collector_sink_lag_events{sink=\"orb\"} 0",
        "agent_meter_collector_sink_lag_seconds{sink=\"orb\"} 0.000",
        "agent_meter_collector_sink_lag_events{sink=\"lago\"} 50",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    let lag = text.lines().find(|line| line.contains("lag_seconds{sink=\"lago\"}"));
    assert!(lag.is_some_and(|line| !line.ends_with(" 0.000")), "{lag:?}");
    collector.stop().await;
}

#[tokio::test]
async fn a_token_that_has_ended_is_renewed() {
    let receiver = Receiver::start(vendors::vendor("stripe_stream")).await;
    let rig = Rig::new();
    let collector = rig.start(&receiver.sinks("")).await;
    store(&collector.ledger(), &calls(1..=1));
    rig.until_done(&collector, "stripe_stream").await;
    receiver.with(|inbox| inbox.acts.push_back(Act::Answer(401, None)));
    store(&collector.ledger(), &calls(2..=2));
    let state = rig.until_done(&collector, "stripe_stream").await;
    assert_eq!((state.handed, state.failures, receiver.with(|inbox| inbox.tokens)), (2, 1, 2));
    // Tokens that end at once are asked for each time.
    receiver.with(|inbox| {
        inbox.tokens_end = true;
        inbox.acts.push_back(Act::Answer(401, None));
    });
    store(&collector.ledger(), &calls(3..=3));
    rig.until_done(&collector, "stripe_stream").await;
    assert!(receiver.with(|inbox| inbox.tokens) >= 3);
    collector.stop().await;
}
