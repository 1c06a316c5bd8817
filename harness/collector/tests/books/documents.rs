//! The two documents of a customer and a period, in every format: what the customer's has and has not,
//! what the operator's adds, and that both are exact.

use agent_meter_collector::Period;
use agent_meter_collector::books::{Billing, OperatorBilling, named_period};
use agent_meter_collector::invoice::{Document, Format, Invoice, invoices_of, render};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::events::{call, generation};
use super::{Books, DAY_MS, NOW_MS, at, closing, correction, of, void};

const EVIL: &str = "=1+1<script>alert(1)</script>&\u{202e}\u{1b}[2J";

/// What acme used in June: calls at two prices, free ones, refused ones, one that is voided, and
/// generations that are charged, that cannot be, and that nobody charges.
fn world() -> Books {
    let books = Books::new();
    let unpriced = json!({"priced": false, "unpriced_reason": "no_rate", "cost_lines": [],
        "rate_card": null, "price": "0", "total_provider_cost": null});
    let mut without_rate = generation(7, 10, unpriced.clone());
    without_rate["data"]["total_provider_cost"] = Value::Null;
    let mut hidden = generation(8, 10, unpriced);
    hidden["data"]["total_provider_cost"] = Value::Null;
    super::events::merge(&mut hidden["data"], json!({"model": "secret-model"}));
    let events = [
        call(1, json!({"price": "0.0015"})),
        call(2, json!({"price": "2.5"})),
        call(3, json!({"price": "0", "tool_name": EVIL})),
        call(
            4,
            json!({"price": "0", "billable": false, "execution_status": "BLOCKED",
            "quantity": 40}),
        ),
        call(5, json!({"price": "77"})),
        generation(6, 10, json!({"price": "0.0235", "total_provider_cost": "0.008"})),
        without_rate,
        hidden,
        of(call(9, json!({"price": "5"})), "anonymous"),
    ];
    let june = |event: &Value| at(event.clone(), "2026-06-10T10:00:00Z");
    books.store(&events.iter().map(june).collect::<Vec<_>>());
    books.correct(&[void("a-test", 5)]);
    books
}

fn june() -> Period {
    named_period("2026-06", "Europe/Berlin").expect("a period")
}

fn invoice(books: &Books, customer: &str) -> Invoice {
    Invoice::for_customer(&books.ledger, Some(customer), june()).expect("an invoice")
}

fn customers(books: &Books) -> Billing {
    Billing::of_usage(&invoice(books, "acme"), "Europe/Berlin").expect("a document")
}

fn printed<D: Document>(document: &D, format: Format) -> String {
    render(std::slice::from_ref(document), format).expect("a document")
}

fn rows(csv_text: &str) -> Vec<std::collections::BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_reader(csv_text.as_bytes());
    reader.deserialize().collect::<Result<_, _>>().expect("CSV")
}

#[test]
fn the_customers_document_has_exact_lines_what_is_not_billed_and_a_payable_total() {
    let text = "\
INVOICE
Invoice   (not closed)
Customer  acme
Period    2026-06-01T00:00:00+02:00 to 2026-07-01T00:00:00+02:00 (Europe/Berlin)

Product tools (MCP_SERVER), USD
  Tool                                             Tier      Unit price  Calls  Billed  Amount
  =1+1<script>alert(1)</script>&\\u{202e}\\u{1b}[2J  standard      0.0000      1       1  0.0000
  search                                           standard           -     40       0  0.0000
  search                                           standard      0.0015      1       1  0.0015
  search                                           standard      2.5000      1       1  2.5000
  Model                     Generations  Amount
  openai gpt-4o-2024-08-06            2  0.0235

Not billed
  Product  What         Why                                                           Count
  tools    calls        BLOCKED: refused                                                 40
  tools    calls        free: free of charge                                              1
  tools    calls        voided: taken back by a correction                                1
  tools    generations  unpriced: have no price, because what they cost is not known      1

  Usage            2.525 USD
Payable  2.53 USD
";
    assert_eq!(printed(&customers(&world()), Format::Text), text);
}

#[test]
fn no_format_of_the_customers_document_tells_what_it_cost() {
    let books = world();
    let closed = books.close("2026-06").remove(0);
    for document in [customers(&books), closed] {
        for format in [Format::Text, Format::Csv, Format::Json, Format::Html] {
            let text = printed(&document, format);
            for word in ["cost\"", "provider_cost", "margin", "0.008", "secret-model", "guard"] {
                let told = text.split("<style>").map(|part| part.split("</style>").last());
                let told: String = told.flatten().collect();
                assert!(!told.contains(word), "{word} in {format:?}: {text}");
            }
            assert!(text.contains("2.53"), "{format:?}: {text}");
        }
    }
}

#[test]
fn csv_has_one_header_exact_decimals_and_no_formulas() {
    let books = world();
    let documents = [customers(&books), customers(&books)];
    let text = render(&documents, Format::Csv).expect("CSV");
    assert_eq!(text.matches("number,customer,used_by").count(), 1);
    let found = rows(&printed(&documents[0], Format::Csv));
    let amount = |row: &str| -> Decimal {
        let of_row = found.iter().filter(|found| found["row"] == row);
        of_row.map(|found| found["amount"].parse::<Decimal>().expect("a decimal")).sum()
    };
    assert_eq!(amount("line").to_string(), "2.5250");
    assert_eq!((amount("total"), amount("usage")), (amount("line"), amount("line")));
    assert_eq!(amount("payable").to_string(), "2.53");
    assert!(found.iter().any(|row| row["name"].starts_with("'=1+1")), "{text}");
    assert!(found.iter().all(|row| row["period_from"] == "2026-05-31T22:00:00Z"), "{text}");
    let not_billed: Vec<_> = found.iter().filter(|row| row["row"] == "not_billed").collect();
    assert_eq!(not_billed.len(), 4);
    assert_eq!((&*not_billed[0]["reason"], &*not_billed[0]["count"]), ("BLOCKED", "40"));
}

#[test]
fn html_is_one_page_that_asks_for_nothing_and_runs_nothing() {
    let books = world();
    let operator = invoice(&books, "acme");
    for html in [printed(&customers(&books), Format::Html), printed(&operator, Format::Html)] {
        assert!(html.starts_with("<!DOCTYPE html>") && html.contains("@page"), "{html}");
        for forbidden in
            ["<script", "http:", "https:", "src=", "url(", "<link", "\u{1b}", "\u{202e}"]
        {
            assert!(!html.contains(forbidden), "{forbidden}: {html}");
        }
        assert!(html.contains("=1+1&lt;script&gt;alert(1)&lt;/script&gt;&amp;"), "{html}");
    }
    let none: [Billing; 0] = [];
    let html = render(&none, Format::Html).expect("a page");
    assert!(html.contains("Nothing to bill."), "{html}");
}

#[test]
fn the_operators_document_says_how_much_its_sums_miss() {
    let books = world();
    let operator = invoice(&books, "acme");
    let text = printed(&operator, Format::Text);
    for line in [
        "INVOICE, the operator's: not for the customer",
        "  Not billed       BLOCKED 40, free calls 1, voided calls 1, unpriced generations 2",
        "  Provider cost    at least 0.008 USD",
        "    2 generations without a rate: cost unknown",
        "  Margin           at most 2.517 USD (99.7 %), 2 of 3 generations without a cost",
        "Total  2.525 USD",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let json: Value = serde_json::from_str(&printed(&operator, Format::Json)).expect("JSON");
    let total = &json[0]["totals"][0];
    assert_eq!(total["cost_known"], "part");
    assert_eq!((&total["unpriced_generations"], &total["generations"]), (&json!(2), &json!(3)));
    let unknown = &json[0]["products"][0]["cost_by_model"][1];
    assert_eq!(
        (&unknown["model"], &unknown["cost_known"]),
        (&json!("secret-model"), &json!("none"))
    );
    assert_eq!(unknown["provider_cost"], Value::Null);
    let found = rows(&printed(&operator, Format::Csv));
    let margin = found.iter().find(|row| row["row"] == "margin").expect("a total");
    assert_eq!((&*margin["margin"], &*margin["cost_known"]), ("2.517", "part"));
    assert_eq!((&*margin["unpriced_generations"], &*margin["count"]), ("2", "3"));
}

#[test]
fn nothing_is_told_of_a_margin_whose_cost_is_not_known() {
    let books = world();
    books.correct(&[void("b", 6)]);
    let operator = invoice(&books, "acme");
    let text = printed(&operator, Format::Text);
    assert!(text.contains("  Provider cost    unknown\n"), "{text}");
    assert!(
        text.contains("  Margin           unknown, 2 of 2 generations without a cost\n"),
        "{text}"
    );
    let total = &operator.to_json()["totals"][0];
    for member in ["provider_cost", "margin"] {
        assert_eq!(total[member], Value::Null, "{member}");
    }
    assert_eq!((&total["cost_known"], &total["margin_percent"]), (&json!("none"), &json!("n/a")));
    let found = rows(&printed(&operator, Format::Csv));
    let margin = found.iter().find(|row| row["row"] == "margin").expect("a total");
    assert_eq!((&*margin["margin"], &*margin["provider_cost"]), ("", ""));
}

#[test]
fn a_closed_invoice_keeps_what_was_not_billed_and_the_operator_sees_its_cost() {
    let books = world();
    let closed = books.close("2026-06");
    assert_eq!(closed.len(), 1, "{closed:?}");
    let stored = books.ledger.closed_invoice("INV-000001").expect("a ledger").expect("an invoice");
    assert_eq!(stored, closed[0]);
    let reasons: Vec<_> =
        stored.not_billed.iter().map(|line| (line.reason.as_str(), line.count)).collect();
    assert_eq!(reasons, [("BLOCKED", 40), ("free", 1), ("voided", 1), ("unpriced", 1)]);
    // One of before there was such a member.
    let mut old = serde_json::to_value(&stored).expect("JSON");
    old.as_object_mut().expect("an object").remove("not_billed");
    let old: Billing = serde_json::from_value(old).expect("an older document");
    assert_eq!((old.not_billed.len(), &old.totals), (0, &stored.totals));

    let operator = OperatorBilling::of(&books.ledger, stored).expect("a document");
    let text = printed(&operator, Format::Text);
    for line in
        ["Invoice   INV-000001", "not for the customer", "at least 0.008 USD", "Payable  2.53 USD"]
    {
        assert!(text.contains(line), "{line}\n{text}");
    }
    let json: Value = serde_json::from_str(&printed(&operator, Format::Json)).expect("JSON");
    assert_eq!(json[0]["number"], "INV-000001");
    assert_eq!(json[0]["operator"]["totals"][0]["provider_cost"], "0.008");
    let found = rows(&printed(&operator, Format::Csv));
    let of = |row: &str| found.iter().filter(|found| found["row"] == row).count();
    assert_eq!((of("payable"), of("line"), of("margin")), (1, 5, 1));
    books.verify();
}

#[test]
fn whoever_named_no_customer_gets_no_document_until_another_one_pays() {
    let books = world();
    let error = Billing::of_usage(&invoice(&books, "anonymous"), "UTC").expect_err("no document");
    assert!(error.to_string().contains("named no customer: nobody can be sent"), "{error}");
    let preview = books.ledger.preview_close(&closing("2026-06")).expect("a preview");
    let billed: Vec<_> = preview.iter().map(|billing| billing.customer.as_str()).collect();
    assert_eq!(billed, ["acme"]);
    books.close("2026-06");
    // Nothing of it is lost: who pays for it later is billed for the closed period.
    let merge = json!({"kind": "merge", "from_customer_id": "anonymous", "to_customer_id": "acme"});
    books.correct(&[correction("merge", merge)]);
    books.set_time(NOW_MS + 31 * DAY_MS);
    let closed = books.close("2026-07");
    assert_eq!(closed.len(), 1);
    assert_eq!(closed[0].totals[0].corrections.to_string(), "5");
    let text = printed(&closed[0], Format::Text);
    assert!(text.contains("Corrections of 2026-06-01T00:00:00Z to 2026-07-01T00:00:00Z (UTC): Product tools (MCP_SERVER), USD, used by anonymous"), "{text}");
    books.verify();
}

#[test]
fn a_payable_total_has_the_digits_of_its_currency() {
    let books = Books::new();
    for (sequence, price, currency) in [(1, "1234.5", "JPY"), (2, "0.0005", "KWD"), (3, "7", "EUR")]
    {
        let event = call(sequence, json!({"price": price, "currency": currency}));
        books.store(&[at(event, "2026-06-10T10:00:00Z")]);
    }
    let text = printed(&customers(&books), Format::Text);
    for line in ["Payable  1235 JPY", "Payable  0.001 KWD", "Payable  7.00 EUR"] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn the_invoices_of_all_are_those_of_each() {
    let books = world();
    let events = [(11, "beta"), (12, "gamma"), (13, "only-void")]
        .map(|(sequence, user)| of(at(call(sequence, json!({})), "2026-06-11T10:00:00Z"), user));
    books.store(&events);
    let merge = json!({"kind": "merge", "from_customer_id": "gamma", "to_customer_id": "acme"});
    books.correct(&[correction("merge", merge), void("only", 13)]);
    for period in [june(), Period::default(), named_period("2026-07", "UTC").expect("a period")] {
        let all = invoices_of(&books.ledger, period).expect("invoices");
        for invoice in &all {
            let customer = invoice.customer.as_deref();
            let alone = Invoice::for_customer(&books.ledger, customer, period);
            assert_eq!(*invoice, alone.expect("an invoice"), "{customer:?}");
        }
        let customers: Vec<_> = all.iter().filter_map(|one| one.customer.as_deref()).collect();
        let is_july = period.from_ms.is_some_and(|from_ms| from_ms > NOW_MS - 2 * DAY_MS);
        let expected: &[&str] =
            if is_july { &[] } else { &["acme", "anonymous", "beta", "only-void"] };
        assert_eq!(customers, expected, "{period:?}");
    }
}
