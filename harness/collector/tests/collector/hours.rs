//! Tests that usage and invoices by hour are those of the rows, for whatever events and periods.

use agent_meter_collector::invoice::Invoice;
use agent_meter_collector::{Ledger, Period, UsageQuery};
use serde_json::{Value, json};

use super::generations::generation;
use super::proof::{Place, execute};
use super::random::Random;
use super::schema::{BEFORE_11, BEFORE_12, BEFORE_13};
use super::{NOW_MS, SOURCE, call, insert, memory, merge, open, pairs};

/// Milliseconds of an hour.
const HOUR_MS: i64 = 3_600_000;
/// When the first of the random events may be.
const START_MS: i64 = NOW_MS - 6 * HOUR_MS;
/// How many events a ledger gets.
const EVENTS: u64 = 80;

/// The smallest amount.
const TINY: &str = "0.0000000000000000000000000001";

impl Random {
    fn one<T: Clone>(&mut self, choices: &[T]) -> T {
        let count = u64::try_from(choices.len()).expect("small");
        choices[usize::try_from(self.below(count)).expect("small")].clone()
    }

    /// A time of the random events, often at a whole hour or beside it.
    fn time_ms(&mut self) -> i64 {
        let hour = START_MS + i64::try_from(self.below(5)).expect("small") * HOUR_MS;
        let within = i64::try_from(self.below(3_600_000)).expect("small");
        hour + self.one(&[0, 1, HOUR_MS - 1, within, within])
    }

    fn period(&mut self) -> Period {
        let mut side = || match self.below(4) {
            0 => None,
            1 => Some(self.time_ms() / HOUR_MS * HOUR_MS),
            _ => Some(self.time_ms()),
        };
        let (one, other) = (side(), side());
        match (one, other) {
            (Some(one), Some(other)) => {
                Period { from_ms: Some(one.min(other)), to_ms: Some(one.max(other)) }
            }
            (from_ms, to_ms) => Period { from_ms, to_ms },
        }
    }

    fn events(&mut self) -> Vec<Value> {
        let mut events: Vec<Value> = (1..=EVENTS).map(|number| self.event(number)).collect();
        // In any order.
        for end in (1..events.len()).rev() {
            let chosen = usize::try_from(self.below(EVENTS)).expect("small") % (end + 1);
            events.swap(end, chosen);
        }
        events
    }

    fn event(&mut self, number: u64) -> Value {
        let mut event =
            if self.below(2) == 0 { self.call(number) } else { self.generation(number) };
        let customer = self.one(&["acme", "bolt"]);
        event["subject"] = customer.into();
        event["time"] = rfc3339(self.time_ms()).into();
        let owner = json!({
            "customer_id": customer,
            "team_id": self.one(&["blue", "red"]),
            "agent_id": self.one(&["agent-1", "agent-2"]),
            "product_id": self.one(&["tools", "more"]),
            "currency": self.one(&["USD", "USD", "EUR"]),
        });
        merge(&mut event["data"], owner);
        event
    }

    fn call(&mut self, number: u64) -> Value {
        let tool = self.one(&["search", "fetch"]);
        let tier = self.one(&["standard", "premium"]);
        if self.below(4) == 0 {
            let status = self.one(&["ERROR", "TIMEOUT"]);
            return call(
                number,
                json!({"tool_name": tool, "cost_tier": tier, "execution_status": status,
                    "billable": false, "price": "0"}),
            );
        }
        // A third of one is no decimal; the smallest amount and the largest fit in no one number.
        let price = self.one(&["0.001", "0.25", "1", "999999999999", TINY]);
        let quantity = self.one(&[1, 1, 2, 3, 1000]);
        call(
            number,
            json!({"tool_name": tool, "cost_tier": tier, "price": price, "quantity": quantity}),
        )
    }

    fn generation(&mut self, number: u64) -> Value {
        let mut event = generation(number, json!({"model": self.one(&["gpt-4o", "claude"])}));
        let data = &mut event["data"];
        match self.below(4) {
            0 => {
                merge(
                    data,
                    json!({"priced": false, "unpriced_reason": "no_rate",
                    "cost_lines": [], "rate_card": null}),
                );
                data["total_provider_cost"] = Value::Null;
            }
            1 => merge(
                data,
                json!({"tokens": {"input": 10_000_000_000_u64}, "quantity": 10_000_000_000_u64}),
            ),
            _ => {}
        }
        match self.below(4) {
            0 => merge(data, json!({"units": {"pages": "0"}, "unpriced_units": ["pages"]})),
            1 => {
                merge(data, json!({"units": {"pages": "0.5", "images": "2"}, "inconsistent": true}))
            }
            _ => {}
        }
        if self.below(2) == 0 {
            let call = format!("call-{}", 1 + self.below(EVENTS));
            merge(data, json!({"call_id": call, "tool_name": "search", "attribution": "trace"}));
        }
        if self.below(3) == 0 && number > 1 {
            let other = format!("generation-{}", 1 + self.below(number - 1));
            merge(data, json!({"supersedes": other}));
        }
        merge(data, json!({"price": self.one(&["0", "0.0114", "3"])}));
        event
    }
}

fn rfc3339(ms: i64) -> String {
    let time = chrono::DateTime::from_timestamp_millis(ms).expect("a time");
    time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

fn insert_all(ledger: &Ledger, events: &[Value], batch: usize) {
    for events in events.chunks(batch) {
        assert_eq!(insert(ledger, events).rejected, [], "events of a test are valid");
    }
}

fn usage(ledger: &Ledger, query: &str, period: Period) -> Value {
    let mut query = UsageQuery::from_pairs(pairs(query)).expect(query);
    query.period = period;
    serde_json::to_value(ledger.usage(&query).expect("usage")).expect("json")
}

fn invoice(ledger: &Ledger, customer: Option<&str>, period: Period) -> Value {
    let invoice = Invoice::for_customer(ledger, customer, period).expect("an invoice");
    let mut invoice = invoice.to_json();
    merge(&mut invoice, json!({"from": null, "to": null}));
    invoice
}

#[test]
fn usage_by_hour_is_that_of_the_rows_in_every_period() {
    let mut random = Random(1);
    for round in 0..3 {
        let ledger = memory();
        insert_all(&ledger, &random.events(), 7);
        for _ in 0..25 {
            let period = random.period();
            for query in [
                "",
                "group_by=tool",
                "group_by=customer,team,agent,product,product_type,currency",
                "group_by=kind,provider,model,day",
                "group_by=tool,tier,status",
                "group_by=day&customer=acme&tool=search",
                "group_by=model&kind=token_consumption",
                "group_by=status&kind=tool_invocation",
            ] {
                // Hours do not tell sources apart.
                let of_rows = usage(&ledger, &format!("{query}&source={SOURCE}"), period);
                let found = usage(&ledger, query, period);
                assert_eq!(found, of_rows, "round {round}, {query}, {period:?}");
            }
        }
    }
}

#[test]
fn an_invoice_by_hour_is_that_of_the_rows_in_every_period() {
    let mut random = Random(2);
    let part_of_an_hour =
        Period { from_ms: Some(START_MS + 900_000), to_ms: Some(START_MS + 2_700_000) };
    let (inside, outside) = (START_MS + 1_800_000, START_MS + 8 * HOUR_MS - 1);
    for round in 0..2 {
        let events = random.events();
        let ledger = memory();
        insert_all(&ledger, &events, 11);
        for _ in 0..8 {
            let period = random.period();
            // The same events, those of the period within a part of an hour.
            let moved = events.iter().cloned().map(|mut event| {
                let time = event["time"].as_str().expect("a time");
                let ms =
                    chrono::DateTime::parse_from_rfc3339(time).expect("a time").timestamp_millis();
                let is_in = period.from_ms.is_none_or(|from_ms| ms >= from_ms)
                    && period.to_ms.is_none_or(|to_ms| ms < to_ms);
                event["time"] = rfc3339(if is_in { inside } else { outside.min(NOW_MS) }).into();
                event
            });
            let rows = memory();
            insert_all(&rows, &moved.collect::<Vec<_>>(), 1000);
            for customer in [None, Some("acme"), Some("nobody")] {
                let of_rows = invoice(&rows, customer, part_of_an_hour);
                let found = invoice(&ledger, customer, period);
                assert_eq!(found, of_rows, "round {round}, {customer:?}, {period:?}");
            }
        }
    }
}

#[test]
fn hours_are_the_sums_of_the_rows_after_each_batch_and_an_upgrade() {
    let place = Place::new();
    let mut random = Random(3);
    let events = random.events();
    let ledger = open(&place.url);
    for (events, batch) in events.chunks(20).zip([1, 3, 7, 20]) {
        insert_all(&ledger, events, batch);
        assert_eq!(place.verify().listed, Vec::<String>::new(), "batches of {batch}");
    }
    drop(ledger);
    let before = (usage(&open(&place.url), "", Period::default()), place.verify());
    let version = match place.url.starts_with("sqlite:") {
        true => "PRAGMA user_version = 10;",
        false => {
            "UPDATE ledger SET version = 10; DROP AGGREGATE count_sum(numeric);
            CREATE AGGREGATE count_sum(bigint) (sfunc = int8_sum, stype = numeric);
            DROP FUNCTION decimal_add(numeric, numeric);"
        }
    };
    execute(&place.url, &format!("{BEFORE_13} {BEFORE_12} {BEFORE_11} {version}"));
    for _ in 0..2 {
        let after = (usage(&open(&place.url), "", Period::default()), place.verify());
        assert_eq!(after, before);
    }
    // Version 11 had the hours, and no guards by team, user and key.
    let version = match place.url.starts_with("sqlite:") {
        true => "PRAGMA user_version = 11;",
        false => "UPDATE ledger SET version = 11;",
    };
    execute(&place.url, &format!("{BEFORE_13} {BEFORE_12} {version}"));
    assert_eq!((usage(&open(&place.url), "", Period::default()), place.verify()), before);
    // Version 12 had these, and no top-ups.
    let version = match place.url.starts_with("sqlite:") {
        true => "PRAGMA user_version = 12;",
        false => "UPDATE ledger SET version = 12;",
    };
    execute(&place.url, &format!("{BEFORE_13} {version}"));
    assert_eq!((usage(&open(&place.url), "", Period::default()), place.verify()), before);
    let told = json!({"top_up_id": "t", "customer_id": "acme", "amount": "1", "currency": "USD"});
    open(&place.url).top_up(&told, "jane").expect("a top-up");
    // It has books too.
    let void = json!({"correction_id": "v", "made_by": "jane", "reason": "a test", "kind": "void",
        "target_source": SOURCE, "target_id": "00000000000000000001"});
    open(&place.url).correct(&[void]).expect("a correction");
    assert_eq!(place.verify().faults, 0);
}

#[test]
fn a_name_that_postgresql_cannot_keep_counts_and_is_taken_back() {
    let place = Place::new();
    let named = |number: u64, name: &str| {
        let units = json!({"units": {name: "1"}, "model": name});
        generation(number, units)
    };
    let events = [named(1, "a\0"), named(2, "a\u{fffd}"), call(3, json!({"tool_name": "\0"}))];
    let ledger = open(&place.url);
    assert_eq!(insert(&ledger, &events).accepted, 3);
    assert_eq!(place.verify().listed, Vec::<String>::new());
    let newer = json!({"supersedes": "generation-1", "price": "2"});
    assert_eq!(insert(&ledger, &[generation(4, newer)]).accepted, 1);
    assert_eq!(place.verify().listed, Vec::<String>::new());
    let found = usage(&ledger, "", Period::default());
    assert_eq!(
        (&found["rows"][0]["generations"], &found["rows"][0]["revenue"]),
        (&json!(2), &json!("2.001"))
    );
}
