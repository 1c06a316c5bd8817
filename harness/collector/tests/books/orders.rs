//! Plays events and corrections in random orders, many of them more than once, and compares each with
//! an account of its own.

use std::collections::{BTreeMap, BTreeSet};

use agent_meter_collector::Period;
use agent_meter_collector::invoice::Invoice;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::events::{SOURCE, call, generation};
use super::random::Random;
use super::{Books, at, correction, of};

impl Random {
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            let other = self.below(end as u64 + 1) as usize;
            items.swap(end, other);
        }
    }
}

/// Events and corrections, and what they come to.
struct Plan {
    events: Vec<Value>,
    corrections: Vec<Value>,
    /// What each customer owes in the end.
    owed: BTreeMap<String, Decimal>,
}

const CUSTOMERS: u64 = 4;
const TOOLS: [&str; 3] = ["search", "write", "read"];

/// A call as the account knows it.
struct Counted {
    customer: String,
    tool: &'static str,
    hour: u64,
    price: Decimal,
}

fn cents(cents: u64) -> Decimal {
    Decimal::new(i64::try_from(cents).expect("small"), 2).normalize()
}

fn time(hour: u64, minute: u64) -> String {
    format!("2026-07-01T{hour:02}:{minute:02}:00.000Z")
}

/// A correction that was made at this minute.
fn made(id: u64, minute: u64, members: Value) -> Value {
    let mut made = correction(&format!("c{id:07}"), members);
    made["made_at"] = format!("2026-07-02T{:02}:{:02}:00Z", 10 + minute / 60, minute % 60).into();
    made
}

/// Makes events, and corrections of some of them. The account follows the corrections in the order in
/// which they were made, which is that of their minute and id.
fn plan(random: &mut Random, events: u64, corrections: u64) -> Plan {
    let mut counted = Vec::new();
    let mut told = Vec::new();
    for sequence in 1..=events {
        let customer = format!("customer-{}", random.below(CUSTOMERS));
        let tool = TOOLS[random.below(3) as usize];
        let (hour, price) = (random.below(24), cents(random.below(100)));
        let members = json!({"tool_name": tool, "price": price.to_string()});
        let event = at(call(sequence, members), &time(hour, sequence % 60));
        told.push(of(event, &customer));
        counted.push(Counted { customer, tool, hour, price });
    }
    let mut made_corrections = Vec::new();
    let mut reverted = BTreeSet::new();
    for id in 0..corrections {
        let minute = random.below(120);
        let target = random.below(events) + 1;
        let members = match random.below(100) {
            0..40 => json!({"kind": "void", "target_source": SOURCE,
                "target_id": format!("{target:020}")}),
            40..80 => {
                let set = match random.below(3) {
                    0 => json!({"price": cents(random.below(100)).to_string()}),
                    1 => json!({"customer_id": format!("customer-{}", random.below(CUSTOMERS))}),
                    _ => json!({"tool_name": TOOLS[random.below(3) as usize]}),
                };
                json!({"kind": "amend", "target_source": SOURCE,
                    "target_id": format!("{target:020}"), "set": set})
            }
            80..82 if id < 200 => {
                let from = random.below(20);
                json!({"kind": "rerate", "from": time(from, 0), "to": time(from + 3, 0),
                    "tool_name": TOOLS[random.below(3) as usize],
                    "unit_price": cents(random.below(100)).to_string()})
            }
            _ if id > 0 => {
                let other = random.below(id);
                reverted.insert(other);
                made_corrections.push((
                    minute,
                    id,
                    json!({"kind": "revert",
                    "correction": format!("c{other:07}")}),
                ));
                continue;
            }
            _ => continue,
        };
        made_corrections.push((minute, id, members));
    }
    // A revert of a revert is refused, so none is made.
    let kinds: BTreeMap<u64, String> = made_corrections
        .iter()
        .map(|(_, id, members)| (*id, members["kind"].as_str().expect("a kind").to_owned()))
        .collect();
    let is_of_revert = |members: &Value| {
        let other = members["correction"].as_str().and_then(|id| id[1..].parse().ok());
        other.is_some_and(|id: u64| kinds.get(&id).is_none_or(|kind| kind == "revert"))
    };
    made_corrections.retain(|(_, _, members)| !is_of_revert(members));
    let corrections =
        made_corrections.iter().map(|(minute, id, members)| made(*id, *minute, members.clone()));
    let corrections = corrections.collect();
    made_corrections.sort_by_key(|(minute, id, _)| (*minute, *id));
    made_corrections.retain(|(_, id, _)| !reverted.contains(id));
    let owed = account(counted, &made_corrections);
    Plan { events: told, corrections, owed }
}

fn account(
    mut counted: Vec<Counted>,
    corrections: &[(u64, u64, Value)],
) -> BTreeMap<String, Decimal> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut voided = BTreeSet::new();
    for (_, _, members) in corrections {
        let target = members["target_id"].as_str();
        let target = target.map(|id| id.parse::<usize>().expect("a number") - 1);
        match members["kind"].as_str() {
            Some("void") => drop(voided.insert(target.expect("a target"))),
            Some("amend") => {
                let call = &mut counted[target.expect("a target")];
                let set = &members["set"];
                if let Some(price) = set["price"].as_str() {
                    call.price = price.parse().expect("money");
                }
                if !set["customer_id"].is_null() {
                    call.customer = text(&set["customer_id"]);
                }
                if let Some(tool) = set["tool_name"].as_str() {
                    call.tool = TOOLS.into_iter().find(|known| *known == tool).expect("a tool");
                }
            }
            Some("rerate") => {
                let hour = |member: &str| text(&members[member])[11..13].parse::<u64>().expect("h");
                let (from, to) = (hour("from"), hour("to"));
                for call in &mut counted {
                    if (from..to).contains(&call.hour) && members["tool_name"] == call.tool {
                        call.price = text(&members["unit_price"]).parse().expect("money");
                    }
                }
            }
            _ => {}
        }
    }
    let mut owed = BTreeMap::new();
    for (place, call) in counted.into_iter().enumerate() {
        if !voided.contains(&place) {
            *owed.entry(call.customer).or_insert(Decimal::ZERO) += call.price;
        }
    }
    owed
}

/// Plays a plan in a random order, with repetitions, in pieces of random size.
fn play(plan: &Plan, random: &mut Random, pieces: u64) -> Books {
    let books = Books::new();
    let mut steps: Vec<(bool, Value)> = Vec::new();
    for (is_event, all) in [(true, &plan.events), (false, &plan.corrections)] {
        for one in all {
            steps.push((is_event, one.clone()));
            if random.below(10) == 0 {
                steps.push((is_event, one.clone()));
            }
        }
    }
    random.shuffle(&mut steps);
    let mut rest = &steps[..];
    while !rest.is_empty() {
        let size = 1 + random.below(pieces) as usize;
        let (piece, later) = rest.split_at(size.min(rest.len()));
        let of_kind = |wanted: bool| -> Vec<Value> {
            let kind = piece.iter().filter(|(is_event, _)| *is_event == wanted);
            kind.map(|(_, step)| step.clone()).collect()
        };
        let corrections = of_kind(false);
        for corrections in corrections.chunks(10_000) {
            books.ledger.correct(corrections).expect("corrections");
        }
        // Sometimes the rows of events follow late.
        if random.below(3) == 0 {
            books.ledger.follow_corrections().expect("a ledger");
        }
        books.store(&of_kind(true));
        rest = later;
    }
    while books.ledger.follow_corrections().expect("a ledger") {}
    books
}

fn owed(books: &Books) -> BTreeMap<String, Decimal> {
    let invoice = Invoice::for_customer(&books.ledger, None, Period::default());
    let mut owed = BTreeMap::new();
    for product in invoice.expect("an invoice").products {
        *owed.entry(product.customer).or_insert(Decimal::ZERO) += product.sums.revenue;
    }
    owed
}

fn compare(plan: &Plan, books: &Books, seed: u64) {
    let normal = |owed: &BTreeMap<String, Decimal>| -> BTreeMap<String, String> {
        owed.iter().map(|(name, sum)| (name.clone(), sum.normalize().to_string())).collect()
    };
    assert_eq!(normal(&owed(books)), normal(&plan.owed), "seed {seed}");
}

#[test]
fn corrections_in_any_order_end_at_the_same_invoice() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let plan = plan(&mut random, 60, 120);
        for _ in 0..3 {
            let books = play(&plan, &mut random, 40);
            compare(&plan, &books, seed);
            books.verify();
        }
    }
}

/// `cargo test --release -p agent-meter-collector --test books a_million -- --ignored`
#[test]
#[ignore = "takes minutes"]
fn a_million_corrections_in_any_order_end_at_the_same_invoice() {
    let mut random = Random(1);
    let plan = plan(&mut random, 200_000, 1_000_000);
    for _ in 0..2 {
        let books = play(&plan, &mut random, 20_000);
        compare(&plan, &books, 1);
        books.verify();
    }
}

#[test]
fn generations_that_supersede_others_can_be_corrected_in_any_order() {
    let runs = |sequence: u64, id: &str, supersedes: Option<&str>, price: &str| {
        let mut members = json!({"generation_id": id, "price": price});
        if let Some(other) = supersedes {
            members["supersedes"] = other.into();
        }
        (true, generation(sequence, 10, members))
    };
    let target = |id: u64| {
        json!({"kind": "void", "target_source": SOURCE,
        "target_id": format!("{id:020}")})
    };
    let amend = |id: u64| {
        let mut amend = target(id);
        amend["kind"] = "amend".into();
        amend["set"] = json!({"price": "7"});
        amend
    };
    for (corrections, expected) in [
        (vec![], "2"),
        // The first one counts no more anyway, nor if what superseded it is void.
        (vec![target(1)], "2"),
        (vec![target(3)], "0"),
        (vec![amend(3)], "7"),
        (vec![amend(1), target(2)], "2"),
    ] {
        let corrections = corrections.iter().zip(0..);
        let corrections = corrections.map(|(members, id)| (false, made(id, id, members.clone())));
        let mut steps =
            vec![runs(1, "g", None, "1"), runs(2, "g.1", None, "1"), runs(3, "h", Some("g"), "2")];
        steps.extend(corrections);
        let mut random = Random(7);
        for _ in 0..12 {
            random.shuffle(&mut steps);
            let books = Books::new();
            for (is_event, step) in &steps {
                let one = std::slice::from_ref(step);
                if *is_event { books.store(one) } else { drop(books.correct(one)) }
            }
            assert_eq!(books.revenue(None), expected, "{steps:?}");
            books.verify();
        }
    }
}
