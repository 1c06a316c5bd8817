//! Tests the page: what it shows of a ledger, that each view leads to the next, that its files have
//! what it shows, and that it does all of this in a browser.

mod browser;
#[path = "../events/mod.rs"]
mod events;
#[path = "../ledgers/mod.rs"]
mod ledgers;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use agent_meter_collector::{Clock, Collector, Extras, Secrets, SharedSecret};
use serde_json::{Value, json};

use self::events::{SESSION, SOURCE, call, event, generation, merge};
use self::ledgers::new_ledger;

/// 2026-07-02T12:00:00Z.
const NOW_MS: i64 = 1_782_993_600_000;
/// When the events of these tests happened.
const DAY: &str = "/?period=2026-07-01";

/// A collector with these events, whose clock stands still.
async fn collector_of(events: &[Value]) -> Collector {
    collector_with(events, Extras::default()).await
}

async fn collector_with(events: &[Value], extras: Extras) -> Collector {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let extras = Extras { clock: Clock::new(|| NOW_MS), ..extras };
    let collector = Collector::start_with(listen, &new_ledger(), extras).await.expect("collector");
    store(&collector, events);
    collector
}

fn store(collector: &Collector, events: &[Value]) {
    let body = serde_json::to_vec(events).expect("JSON");
    let stored = std::thread::scope(|scope| {
        let ledger = collector.ledger();
        let media_type = "application/cloudevents-batch+json";
        scope.spawn(move || ledger.insert_batch(&body, media_type)).join().expect("no panic")
    });
    assert_eq!(stored.expect("stored").rejected, [], "events of a test are valid");
}

async fn get(collector: &Collector, path: &str) -> reqwest::Response {
    let url = format!("http://{}{path}", collector.addr());
    reqwest::get(&url).await.expect(&url)
}

async fn html(collector: &Collector, path: &str) -> String {
    let response = get(collector, path).await;
    assert_eq!(response.status(), 200, "{path}");
    response.text().await.expect(path)
}

/// What a reader sees of a document, without its tags.
fn text_of(html: &str) -> String {
    let mut text = String::new();
    for part in html.split('<').skip(1) {
        text.push_str(part.split_once('>').map_or("", |(_, text)| text));
        text.push(' ');
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The address of the first link in a document whose text is this.
fn link_to(html: &str, text: &str) -> String {
    let links = html.split("<a ").skip(1).filter_map(|rest| rest.split_once("</a>"));
    let found = links.map(|(link, _)| link).find(|link| text_of(&format!("<a {link}")) == text);
    let found = found.unwrap_or_else(|| panic!("no link {text:?} in {}", text_of(html)));
    let (_, rest) = found.split_once("href=\"").expect("an address");
    rest.split('"').next().expect("an end").replace("&amp;", "&")
}

/// An event of another customer, whose name is in its subject too.
fn of(customer: &str, mut event: Value) -> Value {
    event["data"]["customer_id"] = json!(customer);
    event["subject"] = json!(customer);
    event
}

/// A generation whose model has no price.
fn unpriced(sequence: u64, data: Value) -> Value {
    let members = json!({"priced": false, "unpriced_reason": "no_rate", "cost_lines": [],
        "rate_card": null, "model": "new-model"});
    let mut event = generation(sequence, 10, members);
    merge(&mut event["data"], data);
    event["data"]["total_provider_cost"] = Value::Null;
    event
}

fn costing(cost: &str) -> Value {
    let line = json!({"kind": "output", "tokens": 1, "rate_per_million": cost, "cost": cost});
    json!({"price": "0", "total_provider_cost": cost, "cost_lines": [line]})
}

/// Two calls of a session, a generation for one of them, one without a price, and a call of another
/// customer in another currency.
fn traffic() -> Vec<Value> {
    let for_call = json!({"attribution": "trace", "call_id": "call-1", "tool_name": "search"});
    let other_session = json!({"session_id": "f".repeat(32), "currency": "EUR", "price": "7"});
    vec![
        call(1, json!({"price": "1234.5678"})),
        call(2, json!({"execution_status": "ERROR", "billable": false, "price": "0"})),
        generation(3, 1000, for_call),
        unpriced(4, json!({})),
        of("umbrella", call(5, other_session)),
    ]
}

#[tokio::test]
async fn the_front_tells_what_each_customer_owes_and_what_is_not_known() {
    let collector = collector_of(&traffic()).await;
    let page = html(&collector, DAY).await;
    let text = text_of(&page);
    for expected in [
        "Revenue, EUR 7.00",
        "Revenue, USD 1,234.59",
        // One of two generations has no price: the cost is the least, the margin the most.
        "Provider cost, USD ≥ 0.00",
        "Margin, USD ≤ 1,234.59 no change told: costs are missing Margin of revenue ≤ 100 %",
        "Calls 3",
        "Generations 2",
        "Generations without a known cost 1",
        "Customers by revenue, EUR umbrella 7.00",
        "Events missing 0",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(page.contains("title=\"1,234.5924 USD\""), "the exact amount");
    assert!(!text.contains("1,241"), "amounts of two currencies have no sum");
    // Ends within an hour: exactly what is between them.
    let text =
        text_of(&html(&collector, "/?from=2026-07-01T10:00:02Z&to=2026-07-01T10:00:04Z").await);
    assert!(text.contains("Calls 1 0 % Generations 1 Sessions"), "{text}");
    let day = text_of(&html(&collector, "/?from=2026-07-01&to=2026-07-01").await);
    assert!(day.contains("Calls 3 Generations 2 Sessions"), "a day at the end is in it: {day}");
    collector.stop().await;
}

#[tokio::test]
async fn a_loss_without_revenue_is_a_loss_and_an_unknown_cost_is_none() {
    let free = generation(1, 10, costing("681.5575"));
    let collector = collector_of(&[free, of("umbrella", unpriced(2, json!({"price": "0"})))]).await;
    let page = html(&collector, DAY).await;
    let text = text_of(&page);
    assert!(text.contains("Losing money, USD acme −681.56 All by margin"), "{text}");
    assert!(page.contains("title=\"−681.5575 USD\""), "{page}");
    let usage = html(&collector, "/usage?period=2026-07-01&sort=margin").await;
    assert!(
        text_of(&usage).contains("umbrella 1 10 10 unknown unknown 1 USD"),
        "{}",
        text_of(&usage)
    );
    collector.stop().await;
}

#[tokio::test]
async fn changes_are_told_against_the_same_hours_before() {
    let at = |mut event: Value, time: &str| {
        event["time"] = json!(time);
        event
    };
    let events = [
        at(call(1, json!({"price": "2"})), "2026-07-01T11:30:00.000Z"),
        // Later than the whole hours of today.
        at(call(2, json!({"price": "100"})), "2026-07-01T12:30:00.000Z"),
        at(call(3, json!({"price": "3"})), "2026-07-02T11:59:59.000Z"),
    ];
    let collector = collector_of(&events).await;
    let text = text_of(&html(&collector, "/").await);
    assert!(text.contains("Revenue, USD 3.00 +50 %"), "{text}");
    let against = "until 2026-07-02 12:00 UTC, against the same hours of the day before";
    assert!(text.contains(against), "{text}");
    let text = text_of(&html(&collector, DAY).await);
    assert!(text.contains("Revenue, USD 102.00 +102.00 USD"), "{text}");
    store(&collector, &[unpriced(4, json!({"price": "0"}))]);
    let text = text_of(&html(&collector, DAY).await);
    assert!(text.contains("Margin, USD unknown no change told: costs are missing"), "{text}");
    collector.stop().await;
}

#[tokio::test]
async fn each_view_leads_to_the_next_down_to_one_event_as_it_came() {
    let collector = collector_of(&traffic()).await;
    let mut page = html(&collector, DAY).await;
    // Customer, team, agent, session.
    for step in ["acme", "blue", "agent-1", &SESSION[..8]] {
        page = html(&collector, &link_to(&page, step)).await;
    }
    let text = text_of(&page);
    for expected in [
        "Provider cost by cause, USD",
        "search 2 ≥ 0.00",
        "2026-07-01 10:00:01 tool search SUCCESS 12 ms",
        "model openai gpt-4o-2024-08-06 COMPLETE 2.3 s 1,000 1,000 0.01 0.01 USD search call-1",
        "unknown: no_rate",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let path = link_to(&page, "openai gpt-4o-2024-08-06");
    let shown = text_of(&html(&collector, &path).await);
    assert!(shown.contains("agent-meter.token_consumption"), "{shown}");
    let stored = get(&collector, &format!("{path}&format=json")).await.text().await.expect("text");
    let events = collector.ledger().events(&Default::default()).expect("events").events;
    assert!(events.iter().any(|raw| raw.get() == stored), "byte for byte");
    collector.stop().await;
}

#[tokio::test]
async fn files_have_the_rows_of_the_table() {
    let mut events = traffic();
    events.push(of("=cmd()", call(6, json!({"price": "0.001"}))));
    let collector = collector_of(&events).await;
    let view = "/usage?period=2026-07-01&sort=name";
    let csv = get(&collector, &format!("{view}&format=csv")).await.text().await.expect("text");
    let expected = "name,calls,generations,input,output,revenue,provider_cost,margin,\
        generations_without_cost,currency\r\n\
        '=cmd(),1,0,0,0,0.001,0,0.001,0,USD\r\n\
        acme,2,2,1010,1010,1234.5924,0.008,1234.5844,1,USD\r\n\
        umbrella,1,0,0,0,7,0,7,0,EUR\r\n";
    assert_eq!(csv, expected);
    let json: Value =
        get(&collector, &format!("{view}&q=UMBR&format=json")).await.json().await.expect("JSON");
    // Columns of zeros are left out.
    let expected =
        json!([{"name": "umbrella", "calls": 1, "revenue": "7", "margin": "7", "currency": "EUR"}]);
    assert_eq!(json, expected);
    for view in ["/sessions?", "/guards?", "/sources?"] {
        let rows: Value =
            get(&collector, &format!("{view}format=json")).await.json().await.expect(view);
        assert!(rows.is_array(), "{view}");
    }
    collector.stop().await;
}

#[tokio::test]
async fn nothing_from_outside_is_markup_and_nothing_comes_from_elsewhere() {
    let name = "<script>alert(1)</script>\"'&";
    let data = json!({"team_id": name, "agent_id": name, "tool_name": name});
    let collector = collector_of(&[of(name, call(1, data))]).await;
    let mut paths = vec![DAY.to_owned()];
    let page = html(&collector, DAY).await;
    let shown = "&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;";
    for (path, step) in [(DAY, shown), ("/sessions", &SESSION[..8])] {
        let page = html(&collector, path).await;
        paths.push(link_to(&page, step));
    }
    assert!(page.contains(shown), "{page}");
    paths.extend(["/usage", "/sessions", "/guards", "/sources"].map(str::to_owned));
    for path in paths {
        let response = get(&collector, &path).await;
        let header = |name: &str| response.headers()[name].to_str().expect(name).to_owned();
        assert!(header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert!(!header("content-security-policy").contains("unsafe"), "{path}");
        assert_eq!(header("x-content-type-options"), "nosniff");
        let page = response.text().await.expect("text");
        assert!(!page.contains("<script>") && !page.contains("style=\""), "{path}: {page}");
        assert!(!page.contains("http://") && !page.contains("https://"), "{path}: {page}");
    }
    collector.stop().await;
}

#[tokio::test]
async fn long_lists_are_cut_and_say_how_much_more_there_is() {
    let customer = |number: u64| {
        let data = json!({"customer_id": format!("customer-{number:03}"),
            "session_id": format!("{number:032x}"), "price": number.to_string()});
        of(&format!("customer-{number:03}"), call(number, data))
    };
    let events: Vec<Value> = (1..=450).map(customer).collect();
    let collector = collector_of(&events).await;
    let page = html(&collector, "/usage?period=2026-07-01").await;
    let text = text_of(&page);
    assert!(text.contains("The first 200 of 450"), "{text}");
    assert!(text.contains("customer-450") && text.contains("customer-251"), "the largest");
    assert!(!text.contains("customer-250"), "{text}");
    let front = html(&collector, DAY).await;
    assert!(text_of(&front).contains("All 450") && front.len() < 60_000, "{}", front.len());
    let sessions = html(&collector, "/sessions").await;
    let further = html(&collector, &link_to(&sessions, "Further sessions")).await;
    assert!(
        text_of(&sessions).contains("customer-401") && text_of(&further).contains("customer-400")
    );
    collector.stop().await;
}

#[tokio::test]
async fn a_session_of_many_calls_has_pages() {
    let events: Vec<Value> = (1..=450).map(|number| call(number, json!({}))).collect();
    let collector = collector_of(&events).await;
    let mut path = format!("/session?source={SOURCE}&session_id={SESSION}");
    let mut seen = Vec::new();
    for expected in [200, 200, 50] {
        let rows: Vec<Value> =
            get(&collector, &format!("{path}&format=json")).await.json().await.expect("JSON");
        assert_eq!(rows.len(), expected);
        seen.extend(rows.iter().map(|row| row["event_id"].as_str().expect("an id").to_owned()));
        if expected == 200 {
            path = link_to(&html(&collector, &path).await, "Further calls and generations");
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 450);
    collector.stop().await;
}

#[tokio::test]
async fn what_cannot_be_shown_is_said_with_its_place() {
    let collector = collector_of(&[]).await;
    for (path, status, expected) in [
        ("/?period=week", 400, "period: expected hour, day"),
        ("/?x=1", 400, "x: unknown parameter"),
        ("/usage?by=colour", 400, "by: must be one of customer"),
        ("/usage?sort=colour", 400, "sort: must be one of name"),
        ("/usage?format=xml", 400, "format: must be html, csv or json"),
        ("/sessions?state=ASLEEP", 400, "state: must be one of"),
        ("/session?source=a", 400, "session_id: is missing"),
        ("/session?source=a&session_id=b&after=c", 400, "after: must be a cursor"),
        ("/session?source=a&session_id=b", 404, "No session b of a"),
        ("/event?source=a&id=b", 404, "No event b of a"),
    ] {
        let response = get(&collector, path).await;
        assert_eq!(response.status(), status, "{path}");
        let text = text_of(&response.text().await.expect("text"));
        assert!(text.contains(expected), "{path}: {text}");
    }
    assert!(text_of(&html(&collector, "/?period=").await).contains("The ledger has none yet."));
    collector.stop().await;
}

#[tokio::test]
async fn only_who_may_read_sees_the_page_and_its_files() {
    let secrets = |text: &str| {
        Secrets::new(vec![SharedSecret::new("one", text).expect("a secret")]).expect("secrets")
    };
    let readers = secrets("the reader's secret, abcdef");
    let writers = secrets("the edge's secret, 0123456789");
    let collector = collector_with(&[], Extras { readers, writers, ..Extras::default() }).await;
    for path in [
        "/",
        "/usage",
        "/sessions",
        "/session",
        "/event",
        "/guards",
        "/sources",
        "/page/changes",
        "/page/live.js",
        "/page/style.css",
    ] {
        assert_eq!(get(&collector, path).await.status(), 401, "{path}");
    }
    collector.stop().await;
}

#[tokio::test]
async fn listeners_hear_of_changes_are_bounded_and_hold_up_no_stop() {
    let collector = collector_of(&[]).await;
    let mut listeners = Vec::new();
    for _ in 0..64 {
        let listener = get(&collector, "/page/changes").await;
        assert_eq!(listener.status(), 200);
        listeners.push(listener);
    }
    assert_eq!(get(&collector, "/page/changes").await.status(), 503, "one too many");
    let listener = listeners.last_mut().expect("a listener");
    let first = listener.chunk().await.expect("a chunk").expect("data");
    store(&collector, &traffic());
    let second = listener.chunk().await.expect("a chunk").expect("data");
    assert!(first.starts_with(b"data: 0") && second.starts_with(b"data: ") && first != second);
    let begun = Instant::now();
    collector.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn guards_and_gaps_are_on_the_front() {
    let mut crossed = event(4, "margin_level_changed", json!({}));
    crossed["data"] = json!({
        "event_type": "margin_level_changed", "guard_id": "floor", "guard_kind": "margin",
        "mode": "enforce", "scope": "customer", "customer_id": "acme",
        "scope_key": "00112233445566778899aabbccddeeff", "period": "hour",
        "period_started_at": "2026-07-01T10:00:00.000Z", "total_provider_cost": "9",
        "period_ends_at": "2026-07-01T11:00:00.000Z", "total_revenue": "10", "currency": "USD",
        "level": "L3_BLOCK", "previous_level": "NONE", "reason": "threshold", "margin": "0.1",
        "threshold": "0.2", "action": "block", "notify": [],
    });
    let collector = collector_of(&[call(1, json!({})), crossed]).await;
    let text = text_of(&html(&collector, DAY).await);
    for expected in ["Blocked 1", "floor: Blocked acme", "Events missing 2"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let text = text_of(&html(&collector, "/guards").await);
    // The level came without totals: what nobody told is unknown.
    assert!(text.contains("floor Blocked enforce acme customer hour"), "{text}");
    assert!(text.contains("unknown"), "{text}");
    assert!(text_of(&html(&collector, "/sources").await).contains("2 events are missing"));
    collector.stop().await;
}
