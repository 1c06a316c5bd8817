//! What was paid in advance: top-ups, calls, generations that supersede others, voids and reverts in
//! random orders, many of them more than once, each compared with an account of its own.

use std::collections::BTreeMap;

use agent_meter_collector::books::{Outcome, TopUpError};
use agent_meter_collector::{BalanceState, BalancesQuery, Ledger};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::events::{SOURCE, call, event, generation, merge};
use super::ledgers::new_ledger;
use super::random::Random;
use super::{BATCH, Books, DAY_MS, NOW_MS, at, correction, of};

const GUARD: &str = "urn:agent-meter:envoy-2:0001";
const SCOPE_KEY: &str = "00112233445566778899aabbccddeeff";
const HOUR_MS: i64 = 3_600_000;
/// 2026-07-01T00:00:00Z.
const FIRST_MS: i64 = NOW_MS - 36 * HOUR_MS;
const BOOKS: &str = "urn:agent-meter:books";

/// A ledger that can be opened again; the directory is that of a file.
fn place() -> (Option<TempDir>, String) {
    if std::env::var_os("LEDGER_SERVER").is_some() {
        return (None, new_ledger());
    }
    let dir = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite:{}", dir.path().join("ledger.db").display());
    (Some(dir), url)
}

fn time(ms: i64) -> String {
    let since = ms - FIRST_MS;
    let (day, hour) = (since / DAY_MS, since % DAY_MS / HOUR_MS);
    let (minute, second) = (since % HOUR_MS / 60_000, since % 60_000 / 1000);
    format!("2026-07-{:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", day + 1, since % 1000)
}

fn cents(cents: i64) -> Decimal {
    Decimal::new(cents, 2).normalize()
}

fn balances(ledger: &Ledger, customer: &str) -> Vec<BalanceState> {
    let customer = Some(customer.to_owned());
    let query = BalancesQuery { customer, ..BalancesQuery::default() };
    ledger.balances(&query).expect("balances").balances
}

/// `balance`, `spent` and `expired` of the customer's own account.
fn shown(ledger: &Ledger, customer: &str) -> [String; 3] {
    let found = balances(ledger, customer);
    let own = found.iter().find(|state| state.scope == "customer").expect("a balance");
    [own.balance, own.spent, own.expired].map(|amount| amount.to_string())
}

fn top_up(id: &str, amount: &str, members: Value) -> Value {
    let mut told = json!({"top_up_id": id, "customer_id": "acme", "amount": amount,
        "currency": "USD", "from": time(FIRST_MS)});
    merge(&mut told, members);
    told
}

/// What a guard's totals ask, and the balance of the verdict.
fn verdict(books: &Books, sequence: u64, members: Value) -> Value {
    let mut asked = event(sequence, "guard_totals", json!({}));
    asked["source"] = GUARD.into();
    asked["data"] = json!({
        "event_type": "guard_totals", "guard_id": "prepaid", "guard_kind": "budget",
        "mode": "enforce", "scope": "customer", "customer_id": "acme", "scope_key": SCOPE_KEY,
        "period": "day", "period_started_at": "2026-07-01T00:00:00Z", "basis": "prepaid_balance",
        "total_provider_cost": "0", "total_revenue": "0.25", "calls": 1, "tokens": 0,
        "currency": "USD", "level": "NONE",
    });
    merge(&mut asked["data"], members);
    asked["subject"] = asked["data"]["customer_id"].clone();
    let body = serde_json::to_vec(&[asked]).expect("JSON");
    let receipt = books.ledger.insert_batch(&body, BATCH).expect("a batch");
    assert!(receipt.rejected.is_empty(), "{:?}", receipt.rejected);
    serde_json::to_value(&receipt.verdicts).expect("JSON")[0].take()
}

/// One lot of the account of its own, in cents.
#[derive(Debug, Clone)]
struct Lot {
    id: usize,
    team: bool,
    left: i64,
    from_ms: i64,
    expires_ms: Option<i64>,
    is_void: bool,
}

/// Something that was used, in cents.
#[derive(Debug, Clone)]
struct Use {
    at_ms: i64,
    price: i64,
    is_of_team: bool,
    counts: bool,
}

enum Step {
    Event(Value),
    Correct(Value),
    TopUp(Value),
}

struct Plan {
    steps: Vec<Step>,
    lots: Vec<Lot>,
    uses: Vec<Use>,
}

/// A time within the first day, often at the beginning of an hour.
fn moment(random: &mut Random) -> i64 {
    let hour_ms = i64::try_from(random.below(24)).expect("small") * HOUR_MS;
    let within = i64::try_from(random.below(HOUR_MS.unsigned_abs())).expect("small");
    FIRST_MS + hour_ms + if random.below(3) == 0 { 0 } else { within }
}

fn plan(random: &mut Random) -> Plan {
    let (mut steps, mut lots, mut uses) = (Vec::new(), Vec::new(), Vec::new());
    for sequence in 1..=60_u64 {
        let (at_ms, is_of_team) = (moment(random), random.below(2) == 0);
        let price = i64::try_from(random.below(300)).expect("small");
        let members = json!({"team_id": if is_of_team { "blue" } else { "red" },
            "price": cents(price).to_string()});
        let told = if random.below(3) == 0 {
            let mut told = generation(sequence, 5, members);
            // Some take the place of one before, which counts no more.
            let earlier = usize::try_from(random.below(sequence)).expect("small");
            if random.below(2) == 0 && earlier > 0 {
                told["data"]["supersedes"] = format!("0.1.{earlier}").into();
            }
            told
        } else {
            call(sequence, members)
        };
        steps.push(Step::Event(at(told, &time(at_ms))));
        uses.push(Use { at_ms, price, is_of_team, counts: true });
    }
    for step in &steps {
        let Step::Event(told) = step else { continue };
        let Some(earlier) = told["data"]["supersedes"].as_str() else { continue };
        let place: usize = earlier["0.1.".len()..].parse().expect("a number");
        let Some(Step::Event(other)) = steps.get(place - 1) else { continue };
        if !other["data"]["generation_id"].is_null() {
            uses[place - 1].counts = false;
        }
    }
    for id in 0..12 {
        let (from_ms, team) = (moment(random), random.below(3) == 0);
        let left = i64::try_from(1 + random.below(2000)).expect("small");
        let long = i64::try_from(1 + random.below(12 * HOUR_MS.unsigned_abs())).expect("small");
        let expires_ms = match random.below(3) {
            0 => None,
            1 => Some(from_ms + long),
            // At a moment that others may share.
            _ => Some(FIRST_MS + (from_ms - FIRST_MS) / HOUR_MS * HOUR_MS + 3 * HOUR_MS),
        };
        let mut told = top_up(&format!("t{id}"), &cents(left).to_string(), json!({}));
        told["from"] = time(from_ms).into();
        if let Some(expires_ms) = expires_ms {
            told["expires_at"] = time(expires_ms).into();
        }
        if team {
            merge(&mut told, json!({"scope": "team", "team_id": "blue"}));
        }
        steps.push(Step::TopUp(told));
        lots.push(Lot { id, team, left, from_ms, expires_ms, is_void: false });
    }
    for id in 0..20 {
        let place = usize::try_from(random.below(60)).expect("small");
        let void = json!({"kind": "void", "target_source": SOURCE,
            "target_id": format!("{:020}", place + 1)});
        steps.push(Step::Correct(correction(&format!("v{id}"), void)));
        match random.below(2) {
            // Some are taken back.
            0 => steps.push(Step::Correct(correction(
                &format!("r{id}"),
                json!({"kind": "revert", "correction": format!("v{id}")}),
            ))),
            _ => uses[place].counts = false,
        }
    }
    Plan { steps, lots, uses }
}

/// Balance, spent and expired, in cents, by going through the uses one by one.
fn expected(plan: &Plan, of_team: bool, now_ms: i64) -> Option<[i64; 3]> {
    let mut lots: Vec<Lot> =
        plan.lots.iter().filter(|lot| lot.team == of_team && !lot.is_void).cloned().collect();
    if lots.is_empty() {
        return None;
    }
    lots.sort_by_key(|lot| (lot.expires_ms.unwrap_or(i64::MAX), lot.from_ms, lot.id));
    // What is to come has not happened, but for what was used by a clock that is ahead.
    lots.retain(|lot| lot.from_ms <= now_ms);
    lots.iter_mut().for_each(|lot| lot.expires_ms = lot.expires_ms.filter(|at| *at <= now_ms));
    let first_ms = lots.iter().map(|lot| lot.from_ms).min().unwrap_or(i64::MAX);
    let mut uses: Vec<&Use> = plan.uses.iter().collect();
    uses.retain(|used| used.counts && (used.is_of_team || !of_team) && used.at_ms >= first_ms);
    uses.sort_by_key(|used| used.at_ms);
    let (mut spent, mut expired, mut debt) = (0, 0, 0);
    let mut moments: Vec<i64> = uses.iter().map(|used| used.at_ms).collect();
    let ends = lots.iter().flat_map(|lot| [Some(lot.from_ms), lot.expires_ms]).flatten();
    moments.extend(ends.filter(|at_ms| *at_ms <= now_ms));
    moments.sort_unstable();
    moments.dedup();
    for moment in moments {
        for lot in lots.iter_mut().filter(|lot| lot.expires_ms == Some(moment)) {
            expired += std::mem::take(&mut lot.left);
        }
        let used: i64 =
            uses.iter().filter(|used| used.at_ms == moment).map(|used| used.price).sum();
        spent += used;
        debt += used;
        let lives = |lot: &&mut Lot| {
            lot.from_ms <= moment && lot.expires_ms.is_none_or(|expires_ms| expires_ms > moment)
        };
        for lot in lots.iter_mut().filter(lives) {
            let paid = lot.left.min(debt);
            lot.left -= paid;
            debt -= paid;
        }
    }
    let left: i64 = lots.iter().filter(|lot| lot.from_ms <= now_ms).map(|lot| lot.left).sum();
    Some([left - debt, spent, expired])
}

fn assert_conserved(ledger: &Ledger) -> BTreeMap<&'static str, [Decimal; 3]> {
    let found = balances(ledger, "acme");
    let sums = found.iter().map(|state| {
        let BalanceState { granted, spent, expired, balance, .. } = state;
        assert_eq!(*granted, *spent + *expired + *balance, "{state:?}");
        (state.scope, [*balance, *spent, *expired])
    });
    sums.collect()
}

/// Plays a plan in a random order, with repetitions, in pieces of random size, and checks that what
/// guards are told is the balance after each piece.
fn play(plan: &Plan, random: &mut Random, url: &str) -> Books {
    let mut books = Books::open(url);
    let mut order: Vec<&Step> = plan.steps.iter().collect();
    order.extend(plan.steps.iter().filter(|_| random.below(8) == 0));
    random.shuffle(&mut order);
    // Top-ups that are written down before they expire, and told again later.
    books.set_time(FIRST_MS);
    for step in &plan.steps {
        if let Step::TopUp(told) = step
            && random.below(2) == 0
        {
            books.ledger.top_up(told, "jane").expect("a top-up");
        }
    }
    books.set_time(NOW_MS);
    let (mut rest, mut asked) = (&order[..], 0);
    while !rest.is_empty() {
        let size = 1 + usize::try_from(random.below(30)).expect("small");
        let (piece, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        let mut events = Vec::new();
        for step in piece {
            match step {
                Step::Event(told) => events.push(told.clone()),
                Step::Correct(told) => drop(books.correct(std::slice::from_ref(told))),
                Step::TopUp(told) => {
                    books.set_time(FIRST_MS);
                    drop(books.ledger.top_up(told, "joe").expect("a top-up"));
                    books.set_time(NOW_MS);
                }
            }
        }
        books.store(&events);
        let sums = assert_conserved(&books.ledger);
        // Twice: the second time, what is past is remembered.
        for scope in ["customer", "team", "customer", "team"] {
            asked += 1;
            let members = match scope {
                "team" => json!({"scope": "team", "team_id": "blue"}),
                _ => json!({}),
            };
            let told = verdict(&books, asked, members);
            let balance = sums.get(scope).map_or(Decimal::ZERO, |[balance, ..]| *balance);
            assert_eq!(told["prepaid_balance"], balance.normalize().to_string(), "{scope}");
            assert_eq!(told["prepaid_known_revenue"], "0.25");
        }
        if random.below(4) == 0 {
            drop(books);
            books = Books::open(url);
            assert_eq!(assert_conserved(&books.ledger), sums, "after it was opened again");
        }
    }
    books
}

#[test]
fn balances_are_the_same_in_any_order_and_nothing_is_lost() {
    for seed in 0..5 {
        let mut random = Random(seed);
        let plan = plan(&mut random);
        let (_dir, url) = place();
        let books = play(&plan, &mut random, &url);
        for now_ms in [NOW_MS, FIRST_MS + 7 * HOUR_MS, FIRST_MS + 13 * HOUR_MS + 1] {
            books.set_time(now_ms);
            let sums = assert_conserved(&books.ledger);
            for (scope, of_team) in [("customer", false), ("team", true)] {
                let expected = expected(&plan, of_team, now_ms).map(|sums| sums.map(cents));
                let found = sums.get(scope).map(|sums| sums.map(|sum| sum.normalize()));
                assert_eq!(found, expected, "seed {seed}, {scope}, at {}", time(now_ms));
            }
        }
        books.verify();
    }
}

#[test]
fn a_top_up_that_is_void_was_never_there_until_the_void_is_reverted() {
    let books = Books::new();
    for told in [top_up("a", "10", json!({})), top_up("b", "5", json!({}))] {
        books.ledger.top_up(&told, "jane").expect("a top-up");
    }
    books.store(&[at(call(1, json!({"price": "12"})), &time(FIRST_MS))]);
    assert_eq!(shown(&books.ledger, "acme"), ["3", "12", "0"]);
    assert_eq!(verdict(&books, 1, json!({}))["prepaid_balance"], "3");
    let found = balances(&books.ledger, "acme");
    let first = &found[0].top_ups.as_ref().expect("top-ups")[0];
    let void = json!({"kind": "void", "target_source": BOOKS, "target_id": first.event_id});
    books.correct(&[correction("v", void.clone())]);
    assert_eq!(shown(&books.ledger, "acme"), ["-7", "12", "0"]);
    assert_eq!(verdict(&books, 2, json!({}))["prepaid_balance"], "-7");
    let again = books.ledger.top_up(&top_up("a", "10", json!({})), "jane");
    assert!(again.expect_err("void").to_string().contains("is void"));
    books.correct(&[correction("r", json!({"kind": "revert", "correction": "v"}))]);
    assert_eq!(shown(&books.ledger, "acme"), ["3", "12", "0"]);
    assert_eq!(verdict(&books, 3, json!({}))["prepaid_balance"], "3");
    let mut amend = void;
    merge(&mut amend, json!({"kind": "amend", "set": {"amount": "1"}}));
    assert!(books.refusal(&[correction("x", amend)]).contains("a top-up is not amended"));
    books.verify();
}

#[test]
fn what_is_remembered_goes_on_from_hour_to_hour_and_misses_no_late_call() {
    let books = Books::new();
    books.set_time(FIRST_MS);
    let expiring = top_up("b", "3", json!({"expires_at": time(FIRST_MS + 6 * HOUR_MS)}));
    for told in [top_up("a", "100", json!({})), expiring] {
        books.ledger.top_up(&told, "jane").expect("a top-up");
    }
    books.set_time(NOW_MS);
    let mut spent = 0;
    for hour in 0..10 {
        let used_ms = FIRST_MS + hour * HOUR_MS + 1;
        // The third hour gets a call when the seventh has come.
        let late = (hour == 7).then_some(FIRST_MS + 3 * HOUR_MS + 2);
        for at_ms in [used_ms].into_iter().chain(late) {
            spent += 1;
            books.store(&[at(call(spent, json!({"price": "1"})), &time(at_ms))]);
        }
        // The lot that has expired paid first, as far as it went.
        let left = (100 - (i64::try_from(spent).expect("few") - 3).max(0)).to_string();
        for turn in 1..4 {
            let told = verdict(&books, u64::try_from(hour).expect("few") * 10 + turn, json!({}));
            assert_eq!(told["prepaid_balance"], left, "hour {hour}, turn {turn}");
        }
    }
    books.verify();
}

#[test]
fn who_pays_for_another_has_the_balances_of_both() {
    let books = Books::new();
    books.ledger.top_up(&top_up("a", "10", json!({})), "jane").expect("a top-up");
    let other = top_up("b", "5", json!({"customer_id": "old"}));
    books.ledger.top_up(&other, "jane").expect("a top-up");
    let used = [(1, "acme", "1"), (2, "old", "2")].map(|(sequence, customer, price)| {
        of(at(call(sequence, json!({"price": price})), &time(FIRST_MS)), customer)
    });
    books.store(&used);
    assert_eq!(shown(&books.ledger, "old"), ["3", "2", "0"]);
    let merge = json!({"kind": "merge", "from_customer_id": "old", "to_customer_id": "acme"});
    books.correct(&[correction("m", merge)]);
    for customer in ["acme", "old"] {
        assert_eq!(shown(&books.ledger, customer), ["12", "3", "0"], "{customer}");
    }
    assert_eq!(verdict(&books, 1, json!({}))["prepaid_balance"], "12");
    let told = verdict(&books, 2, json!({"customer_id": "old"}));
    assert_eq!(told["prepaid_balance"], "12", "of the customer whom traffic names");
}

#[test]
fn only_a_guard_that_goes_by_the_balance_is_told_it_and_in_its_currency() {
    let books = Books::new();
    books.ledger.top_up(&top_up("a", "10", json!({})), "jane").expect("a top-up");
    for (sequence, members, expected) in [
        (1, json!({}), json!("10")),
        (2, json!({"basis": null}), Value::Null),
        (3, json!({"currency": "EUR"}), json!("0")),
        (4, json!({"scope": "agent", "agent_id": "agent-1"}), json!("0")),
        (5, json!({"scope": "product", "product_id": "tools"}), Value::Null),
    ] {
        let told = verdict(&books, sequence, members.clone());
        assert_eq!(told["prepaid_balance"], expected, "{members}");
    }
}

#[test]
fn a_top_up_that_is_wrong_is_refused_with_the_place_and_changes_nothing() {
    let books = Books::new();
    books.set_time(FIRST_MS);
    let known = top_up("known", "10", json!({"expires_at": time(FIRST_MS + 1000)}));
    books.ledger.top_up(&known, "jane").expect("a top-up");
    books.set_time(NOW_MS);
    let outcome = |told: &Value| books.ledger.top_up(told, "joe").map(|done| done.outcome);
    assert_eq!(outcome(&known).expect("known"), Outcome::Duplicate, "also when it has expired");
    let mut without_from = known.clone();
    merge(&mut without_from, json!({"from": null, "amount": "10.00"}));
    assert_eq!(outcome(&without_from).expect("known"), Outcome::Duplicate);
    for (told, expected) in [
        (json!(7), "must be an object, found 7"),
        (json!({}), "amount: missing"),
        (top_up("", "1", json!({})), "top_up_id: must be a string, not empty"),
        (top_up("x", "1", json!({"customer_id": ""})), "customer_id: must be a string"),
        (top_up("x", "0", json!({})), "amount: must be more than 0"),
        (top_up("x", "-1", json!({})), "amount: must be a decimal string"),
        (top_up("x", "1000000000000.01", json!({})), "amount: must be more than 0, and at most"),
        (top_up("x", "1", json!({"amount": 1})), "amount: must be a decimal string"),
        (top_up("x", "1", json!({"currency": "usd"})), "currency: must be an ISO 4217 code"),
        (top_up("x", "1", json!({"scope": "user"})), "scope: must be one of customer, team, agent"),
        (top_up("x", "1", json!({"scope": "team"})), "team_id: missing"),
        (top_up("x", "1", json!({"team_id": "blue"})), "team_id: unknown"),
        (top_up("x", "1", json!({"from": "now"})), "from: must be an RFC 3339 time"),
        (
            top_up("x", "1", json!({"expires_at": time(FIRST_MS)})),
            "expires_at: must be later than from",
        ),
        (
            top_up("x", "1", json!({"expires_at": time(NOW_MS)})),
            "expires_at: must be later than now",
        ),
        (top_up("x", "1", json!({"made_by": "me"})), "made_by: unknown"),
        (top_up("x", "1", json!({"expiry": "never"})), "expiry: unknown"),
        (top_up("known", "11", json!({})), "the ledger has another one with this id"),
        (top_up("known", "10", json!({})), "the ledger has another one with this id"),
    ] {
        let refusal = outcome(&told).expect_err(expected);
        assert!(refusal.to_string().contains(expected), "{told}: {refusal}");
        assert_eq!(matches!(refusal, TopUpError::Conflict(_)), expected.contains("another one"));
    }
    assert_eq!(shown(&books.ledger, "acme"), ["0", "0", "10"]);
    let mut forged =
        event(9, "top_up", top_up("x", "1", json!({"scope": "customer", "made_by": "me"})));
    forged["data"] = top_up("x", "1", json!({"scope": "customer", "made_by": "me"}));
    forged["data"]["event_type"] = "top_up".into();
    let body = serde_json::to_vec(&[forged]).expect("JSON");
    let receipt = books.ledger.insert_batch(&body, BATCH).expect("a batch");
    assert!(receipt.rejected[0].reason.contains("only the ledger itself"), "{receipt:?}");
}
