//! What is refused, with the reason; and that nothing has changed then.

use serde_json::{Value, json};

use super::events::{SOURCE, call, event};
use super::{BATCH, Books, Outcome, amend, correction, revert, void};

#[test]
fn a_correction_that_is_wrong_is_refused_with_the_place() {
    let books = Books::new();
    books.store(&[call(1, json!({}))]);
    books.correct(&[void("known", 9), revert("taken-back", "unknown")]);
    let rerate = |members: Value| {
        let mut rerate = correction(
            "r",
            json!({"kind": "rerate", "from": "2026-07-01T00:00:00Z",
            "to": "2026-08-01T00:00:00Z", "unit_price": "0.5"}),
        );
        super::events::merge(&mut rerate, members);
        rerate
    };
    for (told, expected) in [
        (json!(7), "correction 1: must be an object, found 7"),
        (json!({}), "correction 1: kind: missing"),
        (correction("", json!({"kind": "revert", "correction": "x"})), "correction_id: must be"),
        (correction("a", json!({"kind": "forget"})), "kind: must be void, amend, rerate"),
        (correction("a", json!({"kind": "void"})), "target_source: missing"),
        (correction("a", json!({"kind": "revert", "correction": "x", "why": 1})), "why: unknown"),
        (
            correction("a", json!({"kind": "revert", "correction": "x", "reason": null})),
            "reason: missing",
        ),
        (
            correction("a", json!({"kind": "revert", "correction": "x", "made_at": "now"})),
            "made_at: must be an RFC 3339 time",
        ),
        (amend("a", 1, &json!({})), "set: must have a member"),
        (amend("a", 1, &json!({"session_id": "x"})), "set.session_id: cannot be amended"),
        (amend("a", 1, &json!({"price": 0.5})), "data.price: must be a decimal string"),
        (amend("a", 1, &json!({"price": "-1"})), "data.price: must be a decimal string"),
        (amend("a", 1, &json!({"price": "9999999999999"})), "data.price"),
        (amend("a", 1, &json!({"billable": false})), "data.price: must be \"0\""),
        (rerate(json!({"to": "2026-07-01T00:00:00Z"})), "to: must be later than from"),
        (rerate(json!({"unit_price": "free"})), "unit_price: must be a decimal string"),
        (rerate(json!({"tool": "search"})), "tool: unknown"),
        (
            correction(
                "a",
                json!({"kind": "credit", "invoice": "INV-000001", "amount": "1",
            "currency": "USD"}),
            ),
            "invoice: no \"INV-000001\" is closed",
        ),
        (
            correction(
                "a",
                json!({"kind": "credit", "invoice": "INV-000001", "amount": "0",
            "currency": "USD"}),
            ),
            "amount: must be more than 0",
        ),
        (
            correction(
                "a",
                json!({"kind": "merge", "from_customer_id": "a", "to_customer_id": "a"}),
            ),
            "to_customer_id: must be another",
        ),
        (revert("a", "taken-back"), "a revert cannot be reverted"),
        (void("known", 8), "correction \"known\": the ledger has another one with this id"),
    ] {
        let refusal = books.refusal(&[void("good", 1), told.clone()]);
        let refusal = refusal.replace("correction 2: ", "correction 1: ");
        assert!(refusal.contains(expected), "{told}: {refusal}");
        assert_eq!(books.revenue(None), "0.001", "{told} changed something");
    }
    books.verify();
}

#[test]
fn customers_cannot_pay_for_each_other_in_a_circle() {
    let books = Books::new();
    let merge = |id: &str, from: &str, to: &str| {
        correction(id, json!({"kind": "merge", "from_customer_id": from, "to_customer_id": to}))
    };
    books.correct(&[merge("1", "a", "b"), merge("2", "b", "c")]);
    let refusal = books.refusal(&[merge("3", "c", "a")]);
    assert!(refusal.contains("\"c\" pays for \"a\" already"), "{refusal}");
}

#[test]
fn only_the_ledger_itself_writes_corrections_and_invoices() {
    let books = Books::new();
    let mut correction = event(
        1,
        "correction",
        json!({
            "correction_id": "c", "made_by": "mallory", "reason": "why not", "kind": "void",
            "target_source": SOURCE, "target_id": "00000000000000000002",
        }),
    );
    for member in [
        "product_id",
        "product_type",
        "customer_id",
        "team_id",
        "agent_id",
        "session_id",
        "session_key",
    ] {
        correction["data"].as_object_mut().expect("data").remove(member);
    }
    correction["subject"] = "mallory".into();
    let invoice = event(
        3,
        "invoice",
        json!({"number": "INV-000001", "document": {},
        "period_from": "2026-07-01T00:00:00Z", "period_to": "2026-08-01T00:00:00Z"}),
    );
    let mut of_books = call(1, json!({}));
    of_books["source"] = "urn:agent-meter:books".into();
    let body = json!([correction, invoice, of_books, call(2, json!({}))]).to_string();
    let receipt = books.ledger.insert_batch(body.as_bytes(), BATCH).expect("a batch");
    let reasons: Vec<_> = receipt.rejected.iter().map(|rejected| &rejected.reason).collect();
    assert_eq!(receipt.accepted, 1, "{reasons:?}");
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    assert!(reasons.iter().all(|reason| reason.contains("only the ledger itself")), "{reasons:?}");
    assert_eq!(books.revenue(None), "0.001");
}

#[test]
fn a_correction_that_comes_again_changes_nothing_and_one_for_later_waits() {
    let books = Books::new();
    assert_eq!(books.correct(&[void("c", 1)]), [Outcome::Waiting]);
    assert_eq!(books.correct(&[void("c", 1), void("c", 1)]), [Outcome::Duplicate; 2]);
    books.store(&[call(1, json!({})), call(2, json!({}))]);
    assert_eq!(books.revenue(None), "0.001");
    assert_eq!(books.correct(&[void("d", 2)]), [Outcome::Accepted]);
    assert_eq!(books.revenue(None), "0");
    books.verify();
}
