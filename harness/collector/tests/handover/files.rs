//! The sink that writes files.

use serde_json::Value;

use crate::{Rig, calls, set_aside, state, store};

fn sinks(rig: &Rig, more: &str) -> String {
    let file = rig.path("events.jsonl");
    format!("sinks: {{archive: {{type: json_lines, file: '{}'{more}}}}}", file.display())
}

fn lines(rig: &Rig, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(rig.path(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn each_event_is_a_line_as_it_came() {
    let rig = Rig::new();
    let collector = rig.start(&sinks(&rig, "")).await;
    let events = calls(1..=3);
    store(&collector.ledger(), &events);
    // A text that came over several lines is one here.
    let pretty = serde_json::to_vec_pretty(&calls(4..=4)).expect("json");
    collector.ledger().insert_batch(&pretty, crate::BATCH).expect("batch");
    rig.until_done(&collector, "archive").await;
    collector.stop().await;
    let found = lines(&rig, "events.jsonl");
    let found: Vec<Value> =
        found.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(found, calls(1..=4));
}

#[tokio::test]
async fn a_file_that_is_full_is_renamed_and_the_oldest_is_removed() {
    let rig = Rig::new();
    let collector = rig.start(&sinks(&rig, ", rotate_bytes: 5000, keep: 2, batch_events: 2")).await;
    store(&collector.ledger(), &calls(1..=40));
    rig.until_done(&collector, "archive").await;
    collector.stop().await;
    let mut all = Vec::new();
    for name in ["events.jsonl.2", "events.jsonl.1", "events.jsonl"] {
        let length = std::fs::metadata(rig.path(name)).expect(name).len();
        assert!(length <= 5000, "{name}: {length}");
        all.extend(lines(&rig, name));
    }
    assert!(!rig.path("events.jsonl.3").exists());
    let last: Value = serde_json::from_str(all.last().expect("a line")).expect("JSON");
    assert_eq!(last["id"], "00000000000000000040");
    let ids: Vec<Value> = all
        .iter()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["sequence"].clone())
        .collect();
    assert!(ids.is_sorted_by(|left, right| left.as_str() < right.as_str()), "{ids:?}");
}

#[tokio::test]
async fn half_a_line_is_cut_off_and_a_file_that_cannot_be_written_waits() {
    let rig = Rig::new();
    std::fs::write(rig.path("events.jsonl"), "{\"whole\":1}\n{\"half").expect("a file");
    let collector = rig.start(&sinks(&rig, "")).await;
    store(&collector.ledger(), &calls(1..=1));
    rig.until_done(&collector, "archive").await;
    assert_eq!(lines(&rig, "events.jsonl").len(), 2);
    assert_eq!(lines(&rig, "events.jsonl")[0], "{\"whole\":1}");
    // A folder stands where the file was.
    std::fs::remove_file(rig.path("events.jsonl")).expect("removed");
    std::fs::create_dir(rig.path("events.jsonl")).expect("a folder");
    store(&collector.ledger(), &calls(2..=2));
    let ledger = collector.ledger();
    rig.until(1000, "failures", || (state(&ledger, "archive").failures > 2).then_some(())).await;
    std::fs::remove_dir(rig.path("events.jsonl")).expect("removed");
    rig.until_done(&collector, "archive").await;
    assert_eq!(lines(&rig, "events.jsonl").len(), 1);
    assert_eq!(set_aside(&ledger, "archive"), []);
    collector.stop().await;
}
