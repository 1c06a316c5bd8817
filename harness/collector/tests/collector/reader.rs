//! Tests the reader of all events: it parses them, reads all pages, and keeps the text as it came.

use agent_meter_collector::{Body, EventsQuery, Page, SessionState};
use serde_json::json;

use super::{call, event, ledger_of, state};

#[test]
fn each_event_is_read_over_all_pages() {
    let unknown = event(4, "weather_changed", json!({}));
    let events = [call(1, json!({"price": "0.25"})), state(2, "IDLE"), call(3, json!({})), unknown];
    let ledger = ledger_of(&events);
    for limit in [1, 2, Page::LIMIT_MAX] {
        let page = Page { limit, ..Page::default() };
        let mut found = Vec::new();
        let query = EventsQuery { page, ..EventsQuery::default() };
        let read = ledger.each_event(query, |event| {
            assert_eq!(event.raw, events[found.len()].to_string());
            found.push(match &event.body {
                Body::Call(call) => format!("{} {} {}", event.sequence, call.tool, call.price),
                Body::Session(change) => {
                    assert_eq!(change.state, SessionState::Idle);
                    format!("{} {}", event.sequence, change.identity.customer)
                }
                Body::Unknown => format!("{} {}", event.sequence, event.event_type),
                other => panic!("{other:?}"),
            });
            // `each` may query the ledger while the reader runs.
            ledger.count_events().map(|count| assert_eq!(count, 4))
        });
        read.expect("readable");
        assert_eq!(
            found,
            ["1 search 0.25", "2 acme", "3 search 0.001", "4 agent-meter.weather_changed"]
        );
    }
}

#[test]
fn the_reader_stops_at_the_first_error() {
    let ledger = ledger_of(&[call(1, json!({})), call(2, json!({}))]);
    let mut seen = 0;
    let read = ledger.each_event(EventsQuery::default(), |_| {
        seen += 1;
        anyhow::bail!("enough")
    });
    assert_eq!((read.expect_err("an error").to_string(), seen), ("enough".to_owned(), 1));
}
