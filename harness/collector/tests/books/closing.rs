//! Periods that are closed, and what happens to them later.

use agent_meter_collector::books::Backfill;
use agent_meter_collector::{Page, SessionsQuery};
use serde_json::{Value, json};

use super::events::{SOURCE, call, generation};
use super::{Books, DAY_MS, NOW_MS, Outcome, amend, at, closing, correction, of, revert, void};

/// Calls of June and July, of two customers.
fn world() -> Vec<Value> {
    vec![
        at(call(1, json!({"price": "0.004"})), "2026-06-10T10:00:00Z"),
        at(call(2, json!({"price": "2.5"})), "2026-06-10T11:00:00Z"),
        of(at(call(3, json!({"price": "1"})), "2026-06-30T23:59:59.999Z"), "beta"),
        at(generation(4, 10, json!({"price": "0.02"})), "2026-06-11T10:00:00Z"),
        at(call(5, json!({"price": "0.5"})), "2026-07-01T00:00:00Z"),
    ]
}

/// What of an invoice counts here: its number, customer, and of each total what is used, corrected,
/// brought forward, to pay and carried forward.
fn shown(billings: &[agent_meter_collector::books::Billing]) -> Vec<String> {
    let shown = billings.iter().map(|billing| {
        let totals = billing.totals.iter().map(|total| {
            format!(
                "{} + {} + {} -> {} | {}",
                total.usage,
                total.corrections,
                total.brought_forward,
                total.payable,
                total.carried_forward
            )
        });
        let number = billing.number.as_deref().unwrap_or("-");
        format!("{number} {}: {}", billing.customer, totals.collect::<Vec<_>>().join("; "))
    });
    shown.collect()
}

#[test]
fn a_closed_period_has_numbered_invoices_that_stay_as_they_are() {
    let books = Books::new();
    books.store(&world());
    let preview = books.ledger.preview_close(&closing("2026-06")).expect("a preview");
    assert_eq!(
        shown(&preview),
        ["- acme: 2.524 + 0 + 0 -> 2.52 | 0", "- beta: 1 + 0 + 0 -> 1 | 0"]
    );
    let closed = books.close("2026-06");
    let expected =
        ["INV-000001 acme: 2.524 + 0 + 0 -> 2.52 | 0", "INV-000002 beta: 1 + 0 + 0 -> 1 | 0"];
    assert_eq!(shown(&closed), expected);
    books.correct(&[void("late", 2)]);
    books.store(&[at(call(6, json!({"price": "9"})), "2026-06-12T10:00:00Z")]);
    assert_eq!(books.close("2026-06"), closed, "closed is closed");
    let stored = books.ledger.closed_invoice("INV-000001").expect("a ledger");
    let stored = stored.expect("an invoice");
    assert_eq!(stored, closed[0]);
    let text = stored.to_string();
    assert!(text.contains("Invoice   INV-000001") && text.contains("Payable  2.52 USD"), "{text}");
    books.verify();
}

#[test]
fn a_period_is_closed_once_and_when_it_is_over() {
    let books = Books::new();
    books.store(&world());
    let refusal = |name| format!("{:#}", books.ledger.close(&closing(name)).expect_err("refused"));
    assert!(refusal("2026-07").contains("2026-08-01T00:00:00Z, which is not over"));
    books.close("2026-06");
    let overlap = refusal("2026-06-10");
    assert!(overlap.contains("INV-000001") && overlap.contains("billed twice"), "{overlap}");
    assert_eq!(books.ledger.closed_invoice("INV-000009").expect("a ledger"), None);
}

#[test]
fn what_is_corrected_after_the_close_is_on_the_next_invoice_and_names_its_period() {
    let books = Books::new();
    books.store(&world());
    books.close("2026-06");
    // One that is late, one that is void, one that cost less, and one that another customer used.
    books.store(&[at(call(6, json!({"price": "9", "tool_name": "late"})), "2026-06-12T10:00:00Z")]);
    books.correct(&[
        void("no-call", 1),
        amend("cheaper", 2, &json!({"price": "2"})),
        amend("not-mine", 4, &json!({"customer_id": "beta"})),
    ]);
    books.set_time(NOW_MS + 31 * DAY_MS);
    let closed = books.close("2026-07");
    assert_eq!(
        shown(&closed),
        [
            "INV-000003 acme: 0.5 + 8.476 + 0 -> 8.98 | 0",
            "INV-000004 beta: 0 + 0.02 + 0 -> 0.02 | 0"
        ]
    );
    let correction = &closed[0].corrections[0];
    assert_eq!(correction.period_from, "2026-06-01T00:00:00Z");
    let lines: Vec<String> = correction
        .lines
        .iter()
        .map(|line| format!("{} {} {}", line.names().2, line.count, line.amount))
        .collect();
    assert_eq!(
        lines,
        [
            "openai gpt-4o-2024-08-06 -1 -0.02",
            "late 1 9",
            "search -1 -0.004",
            "search 1 2",
            "search -1 -2.5"
        ]
        .map(str::to_owned),
        "{closed:?}"
    );
    // Nothing is left to correct.
    books.set_time(NOW_MS + 62 * DAY_MS);
    assert_eq!(books.close("2026-08"), []);
    books.verify();
}

#[test]
fn no_invoice_is_below_zero_and_the_next_one_begins_with_the_rest() {
    let books = Books::new();
    books.store(&world());
    books.close("2026-06");
    books.correct(&[void("no-call", 2)]);
    books.set_time(NOW_MS + 31 * DAY_MS);
    let closed = books.close("2026-07");
    assert_eq!(shown(&closed), ["INV-000003 acme: 0.5 + -2.5 + 0 -> 0 | -2"]);
    let call = at(call(7, json!({"price": "5"})), "2026-08-01T00:00:00Z");
    books.set_time(NOW_MS + 62 * DAY_MS);
    books.store(&[call]);
    let closed = books.close("2026-08");
    assert_eq!(shown(&closed), ["INV-000004 acme: 5 + 0 + -2 -> 3 | 0"]);
    books.set_time(NOW_MS + 93 * DAY_MS);
    assert_eq!(books.close("2026-09"), [], "what was brought forward is used up");
}

#[test]
fn a_customer_who_is_merged_is_not_billed_again() {
    let books = Books::new();
    books.store(&world());
    books.close("2026-06");
    let merge = json!({"kind": "merge", "from_customer_id": "beta", "to_customer_id": "acme"});
    books.correct(&[correction("merge", merge)]);
    assert_eq!(books.revenue(Some("beta")), "0");
    assert_eq!(books.revenue(Some("acme")), "4.024");
    let july = of(at(call(8, json!({"price": "3"})), "2026-07-02T00:00:00Z"), "beta");
    let june = of(at(call(9, json!({"price": "7"})), "2026-06-02T00:00:00Z"), "beta");
    books.store(&[july, june]);
    books.set_time(NOW_MS + 31 * DAY_MS);
    assert_eq!(shown(&books.close("2026-07")), ["INV-000003 acme: 3.5 + 7 + 0 -> 10.5 | 0"]);
    books.correct(&[revert("not-merged", "merge")]);
    assert_eq!(books.revenue(Some("beta")), "11");
    // What beta used was billed to acme, and goes back to beta.
    books.set_time(NOW_MS + 62 * DAY_MS);
    assert_eq!(
        shown(&books.close("2026-08")),
        ["INV-000004 acme: 0 + -10 + 0 -> 0 | -10", "INV-000005 beta: 0 + 10 + 0 -> 10 | 0"]
    );
}

#[test]
fn credit_notes_take_at_most_what_is_owed() {
    let books = Books::new();
    books.store(&world());
    books.close("2026-06");
    let credit = |id: &str, amount: &str| {
        correction(
            id,
            json!({"kind": "credit", "invoice": "INV-000001", "amount": amount,
            "currency": "USD"}),
        )
    };
    let due = || {
        let invoices = books.ledger.closed_invoices(Some("acme")).expect("invoices");
        let total = &invoices[0].totals[0];
        format!("{} - {} = {}", total.payable, total.credited, total.due)
    };
    assert_eq!(due(), "2.52 - 0 = 2.52");
    books.correct(&[credit("some", "1.5")]);
    assert_eq!(due(), "2.52 - 1.5 = 1.02");
    books.correct(&[credit("more", "5"), credit("some", "1.5")]);
    assert_eq!(due(), "2.52 - 2.52 = 0");
    books.correct(&[revert("no", "more")]);
    assert_eq!(due(), "2.52 - 1.5 = 1.02");
    let refusal = books.refusal(&[correction(
        "eur",
        json!({"kind": "credit",
        "invoice": "INV-000001", "amount": "1", "currency": "EUR"}),
    )]);
    assert!(refusal.contains("no total in EUR"), "{refusal}");
    books.verify();
}

#[test]
fn another_price_holds_for_calls_before_and_after_it_and_can_be_taken_back() {
    let books = Books::new();
    books.store(&world());
    let rerate = correction(
        "cheap",
        json!({"kind": "rerate", "from": "2026-06-10T11:00:00Z",
        "to": "2026-07-01T00:00:00Z", "unit_price": "0.1", "customer_id": "acme",
        "tool_name": "search"}),
    );
    books.correct(&[rerate]);
    // 0.004 before it, 0.1, 1 of beta, 0.02 of tokens, and 0.5 after it.
    assert_eq!(books.revenue(None), "1.624");
    let folded = json!({"price": "9", "quantity": 3});
    let free = json!({"price": "0", "billable": false});
    books.store(&[
        at(call(6, folded), "2026-06-12T10:00:00Z"),
        at(call(7, free), "2026-06-12T10:00:00Z"),
        at(call(8, json!({"price": "9", "tool_name": "other"})), "2026-06-12T10:00:00Z"),
    ]);
    assert_eq!(books.revenue(None), "10.924");
    books.verify();
    books.correct(&[revert("dear", "cheap")]);
    assert_eq!(books.revenue(None), "22.024");
    books.verify();
}

#[test]
fn events_that_are_brought_in_later_are_previewed_and_can_be_taken_back() {
    let books = Books::new();
    let run = json!({"generation_id": "g", "price": "1"});
    books.store(&[at(call(1, json!({})), "2026-06-10T10:00:00Z"), generation(2, 10, run)]);
    let before = books.revenue(None);
    let later = [
        at(call(10, json!({"price": "4"})), "2020-01-01T00:00:00Z"),
        generation(11, 10, json!({"generation_id": "h", "supersedes": "g", "price": "0.25"})),
        at(call(1, json!({})), "2026-06-10T10:00:00Z"),
        json!({"id": "x"}),
    ];
    let text = later.map(|event| event.to_string()).join("\n");
    let backfill = Backfill {
        correction_id: "lost-log".to_owned(),
        made_by: "jane".to_owned(),
        reason: "found a log".to_owned(),
    };
    let preview = books.ledger.backfill(&backfill, &text, true).expect("a preview");
    assert_eq!((preview.receipt.accepted, preview.receipt.duplicates), (2, 1));
    assert_eq!(preview.receipt.rejected.len(), 1);
    assert_eq!(preview.after[0].sums.revenue.to_string(), "4.251");
    assert_eq!(books.revenue(None), before, "a preview stores nothing");
    books.ledger.backfill(&backfill, &text, false).expect("a backfill");
    assert_eq!(books.revenue(None), "4.251");
    books.verify();
    let again = books.ledger.backfill(&backfill, &text, false).expect("the same again");
    assert_eq!((again.receipt.accepted, again.receipt.duplicates), (0, 3));
    let more = call(12, json!({})).to_string();
    let refusal = books.ledger.backfill(&backfill, &more, false).expect_err("another");
    assert!(
        format!("{refusal:#}").contains("another one with this id")
            || format!("{refusal:#}").contains("without 1 of these"),
        "{refusal:#}"
    );
    assert_eq!(books.correct(&[revert("no-log", "lost-log")]), [Outcome::Accepted]);
    assert_eq!(books.revenue(None), before, "all of it is taken back");
    books.verify();
}

#[test]
fn a_session_shows_what_counts_and_is_compared_with_what_it_told() {
    let books = Books::new();
    books.store(&[call(1, json!({})), call(2, json!({})), generation(3, 10, json!({}))]);
    books.correct(&[void("v", 1), amend("a", 3, &json!({"price": "0.5"}))]);
    let page = Page::default();
    let query = SessionsQuery { page, ..SessionsQuery::default() };
    let sessions = books.ledger.sessions(&query).expect("sessions").sessions;
    let totals = &sessions[0].totals;
    assert_eq!(totals.total_tool_calls, 1);
    assert_eq!(totals.total_revenue.expect("money").to_string(), "0.501");
    assert_eq!(sessions[0].source, SOURCE);
    let listed = books.ledger.corrections(page).expect("corrections").corrections;
    assert_eq!(listed.iter().map(|c| c.kind.as_str()).collect::<Vec<_>>(), ["void", "amend"]);
    assert!(listed.iter().all(|correction| correction.is_in_force));
}

#[test]
fn who_had_no_invoice_is_billed_for_a_closed_period_too() {
    let books = Books::new();
    books.store(&world());
    books.close("2026-06");
    books.store(&[of(at(call(6, json!({"price": "4"})), "2026-06-12T10:00:00Z"), "late")]);
    books.set_time(NOW_MS + 31 * DAY_MS);
    assert_eq!(
        shown(&books.close("2026-07")),
        ["INV-000003 acme: 0.5 + 0 + 0 -> 0.5 | 0", "INV-000004 late: 0 + 4 + 0 -> 4 | 0"]
    );
}

#[test]
fn a_period_that_several_close_at_once_has_its_invoices_once() {
    let books = Books::new();
    books.store(&world());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let ledger = books.ledger.clone();
            scope.spawn(move || match ledger.close(&closing("2026-06")) {
                Ok(closed) => assert_eq!(closed.len(), 2),
                Err(error) => {
                    assert!(format!("{error:#}").contains("closed meanwhile"), "{error:#}")
                }
            });
        }
    });
    let numbers = books.ledger.closed_invoices(None).expect("invoices");
    let numbers: Vec<String> = numbers.into_iter().map(|invoice| invoice.number).collect();
    assert_eq!(numbers, ["INV-000001", "INV-000002"]);
    books.verify();
}
