//! What is no bill, or no whole one, is refused with one error that names the place.

use agent_meter_collector::bill::BillQuestion;

use crate::{ask, file, fixture, ledger, spent};

/// The only result of a page of OpenAI's costs.
fn openai(result: &str) -> String {
    format!(
        r#"{{"data": [{{"start_time": 1782864000, "end_time": 1782950400, "results": [
        {{"object": "organization.costs.result", {result}}}]}}], "has_more": false}}"#
    )
}

fn anthropic(result: &str) -> String {
    format!(
        r#"{{"data": [{{"starting_at": "2026-07-01T00:00:00Z", "ending_at": "2026-07-02T00:00:00Z",
        "results": [{result}]}}], "has_more": false}}"#
    )
}

const GOOD: &str = r#""amount": {"value": 1, "currency": "usd"}, "line_item": "gpt-5, input""#;
const CSV: &str = "start_time,amount_value,amount_currency,line_item\n";
const CUR: &str = "identity_line_item_id,line_item_line_item_type,line_item_usage_start_date,\
    line_item_usage_end_date,line_item_product_code,line_item_usage_type,\
    line_item_currency_code,line_item_unblended_cost\n";

#[track_caller]
fn refused(text: impl AsRef<[u8]>, expected: &str) {
    let (_dir, path) = file("bill", text);
    let error = ledger(&[]).compare_bills(&ask(std::slice::from_ref(&path))).expect_err(expected);
    let error = format!("{error:#}").replace(&format!("{}: ", path.display()), "");
    assert!(error.starts_with(expected), "{expected}\nbut found\n{error}");
}

#[test]
fn json_is_refused_with_its_path() {
    for (text, expected) in [
        (String::new(), "line 1: the file is empty"),
        ("[]".to_owned(), "the file is empty"),
        ("{}".to_owned(), "data: missing"),
        (r#"{"data": [{}]}"#.to_owned(), "data[0].results: missing"),
        (r#"{"data": []}"#.to_owned(), "nothing says what it is: it has no result"),
        (
            r#"{"data": [{"results": []}]}"#.to_owned(),
            "data[0]: neither start_time, as OpenAI's, nor starting_at, as Anthropic's",
        ),
        (
            openai(GOOD).replace("1782950400", "1783036800"),
            "data[0].end_time: must be on the same day in UTC as start_time",
        ),
        (
            openai(GOOD).replace("1782864000", "1782867600").replace("1782950400", "1782954000"),
            "data[0].end_time: must be on the same day in UTC as start_time",
        ),
        (openai(r#""amount": null"#), "data[0].results[0].amount.value: missing"),
        (openai(r#""amount": 5"#), "data[0].results[0].amount: must be an object, found 5"),
        (
            openai(r#""amount": {"value": "1,5", "currency": "usd"}"#),
            "data[0].results[0].amount.value: must be a decimal number, found \"1,5\"",
        ),
        (
            openai(r#""amount": {"value": 1e-30, "currency": "usd"}"#),
            "data[0].results[0].amount.value: must have at most 28 digits behind the point",
        ),
        (
            openai(r#""amount": {"value": 1, "currency": "zzz"}"#),
            "data[0].results[0].currency: must be an ISO 4217 code, found \"ZZZ\"",
        ),
        (
            openai(r#""amount": {"value": 1, "currency": "usd"}, "amount": null"#),
            "data[0].results[0].amount: stands there twice",
        ),
        (
            openai(GOOD).replace("organization.costs.result", "organization.usage.images.result"),
            "data[0].results[0].object: expected organization.costs.result or",
        ),
        (openai(GOOD).replace("false", "true"), "the file is cut: has_more is true"),
        (openai(GOOD).trim_end_matches(['}', ' ']).to_owned(), "the file is cut: EOF"),
        (openai(GOOD).repeat(2), "page 2, data[0]: the bucket comes again"),
        (
            openai(&format!("{GOOD}}}, {{{GOOD}")),
            "data[0].results[1]: repeats a line that came before",
        ),
        (
            openai(&format!("{GOOD}}}, {{\"amount\": null, \"line_item\": \"\", {GOOD}")),
            "data[0].results[1].amount: stands there twice",
        ),
        (
            anthropic(r#"{"amount": "1.2.3", "currency": "USD"}"#),
            "data[0].results[0].amount: must be a decimal number, found \"1.2.3\"",
        ),
        (anthropic(r#"{"amount": "1"}"#), "data[0].results[0].currency: missing"),
        (
            anthropic(r#"{"uncached_input_tokens": -1}"#),
            "data[0].results[0].uncached_input_tokens: must not be below zero, found -1",
        ),
        (
            anthropic(
                r#"{"uncached_input_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": "x"}}"#,
            ),
            "data[0].results[0].cache_creation.ephemeral_1h_input_tokens: must be a decimal",
        ),
        (
            anthropic(r#"{"amount": "1", "currency": "USD"}, {"uncached_input_tokens": 1}"#),
            "data[0].results[1]: is anthropic_usage, in a file that should be anthropic_costs",
        ),
        (
            anthropic(
                r#"{"amount": "1", "currency": "USD"}, {"amount": "2", "currency": "USD", "model": "m"}"#,
            ),
            "2026-07-01: some lines of anthropic name a model, and some are the sum of all",
        ),
    ] {
        refused(text, expected);
    }
}

#[test]
fn csv_is_refused_with_its_line() {
    let row = "1782864000,1,usd,\"gpt-5, input\"\n";
    for (text, expected) in [
        ("a,b\n1,2\n".to_owned(), "line 1: the columns are not those of an export that is read"),
        ("start_time,start_time\n".to_owned(), "line 1: two columns are named \"start_time\""),
        (format!("{CSV}{row}{row}"), "line 3: repeats a line that came before"),
        (format!("{CSV}{}", row.replace(",1,", ",2,")) + row, "line 3: repeats a line"),
        (format!("{CSV}{row}1782950400,1"), "line 3: the last line does not end"),
        (format!("{CSV}1782864000,abc,usd,\n"), "line 2: amount_value: must be a decimal number"),
        (
            format!("{CSV}1782864000,1,,\n"),
            "line 2: currency: must be an ISO 4217 code, found \"\"",
        ),
        (format!("{CSV}1782864000,,usd,\n"), "line 2: amount_value: empty"),
        (format!("{CSV}soon,1,usd,\n"), "line 2: start_time: must be a decimal number"),
        (format!("{CSV}1.5,1,usd,\n"), "line 2: start_time: must be Unix seconds"),
        (format!("{CSV}{row}{row}").replace("3,1,usd", "3"), "line 3"),
        (
            format!(
                "{CUR}a,Usage,2026-07-01T00:00:00Z,2026-08-01T00:00:00Z,AmazonBedrock,\
                 USE1-NovaLite-input-tokens,USD,1\n"
            ),
            "line 2: line_item_usage_end_date: more than a day behind line_item_usage_start_date",
        ),
        (
            format!("{CUR}a,Usage,yesterday,,AmazonBedrock,USE1-NovaLite-input-tokens,USD,1\n"),
            "line 2: line_item_usage_start_date: must be a time, found \"yesterday\"",
        ),
        (
            format!("{CUR}a,Usage,,,AmazonEC2,BoxUsage,USD,\n"),
            "line 2: line_item_unblended_cost: empty",
        ),
        (
            format!("{CUR}a,Usage,2026-07-01T00:00:00Z,,AmazonEC2,BoxUsage,USD,1\n"),
            "the bills have no line of these days to compare",
        ),
        (
            "usage_date_utc,model,token_type,cost_usd\nAugust,m,output,1\n".to_owned(),
            "line 2: usage_date_utc: must be a day, found \"August\"",
        ),
    ] {
        refused(text, expected);
    }
    refused(b"PK\x03\x04zip", "a zip file: unpack it");
    refused(b"PAR1parquet", "a Parquet file: export CSV instead");
    refused([CSV.as_bytes(), b"\xff,1,usd,\n"].concat(), "line 2: no UTF-8");
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let ledger = ledger(&[spent(1, "2026-07-01T12:00:00Z", "openai", "gpt-5", [1, 0, 0, 0])]);
    let ask_for = |change: &dyn Fn(&mut BillQuestion), files: &[&str]| {
        let files: Vec<_> = files.iter().map(|name| fixture(name)).collect();
        let mut question = ask(&files);
        change(&mut question);
        format!("{:#}", ledger.compare_bills(&question).expect_err("a refusal"))
    };
    let costs = "openai-costs.csv";
    let twice = ask_for(&|_| (), &[costs, costs]);
    assert!(
        twice.ends_with("the day 2026-07-01 is in another file of openai_costs too"),
        "{twice}"
    );
    assert!(twice.contains("openai-costs.csv: line 3: "), "{twice}");
    let again = ask_for(&|_| (), &["aws-cur2.csv", "aws-cur2.csv"]);
    assert!(again.ends_with("aws-cur2.csv: line 2: repeats a line that came before"), "{again}");
    let providers = ask_for(
        &|question| question.sellers = vec!["mine".to_owned()],
        &[costs, "anthropic-costs.csv"],
    );
    let expected = "--provider: the bills are of openai, anthropic: compare them one by one";
    assert_eq!(providers, expected);
    let usage = ask_for(&|_| (), &["openai-usage.csv", "anthropic-costs.csv"]);
    assert!(usage.ends_with("a report of usage has no amounts: give the costs too"), "{usage}");
    let later = ask_for(&|question| question.days.from = "2026-08-01".parse().ok(), &[costs]);
    assert_eq!(later, "the bills have no line of these days to compare");
    let missing = ask_for(&|_| (), &["nowhere.csv"]);
    assert!(missing.contains("nowhere.csv: cannot be read: "), "{missing}");
    let backward = ask_for(
        &|question| {
            question.days.from = "2026-07-01".parse().ok();
            question.days.to = "2026-07-01".parse().ok();
        },
        &[costs],
    );
    assert_eq!(backward, "the bills have no line of these days to compare");
    let behind = ask_for(&|question| question.days.to = "2026-06-01".parse().ok(), &[costs]);
    assert_eq!(behind, "the bills have no line of these days to compare");
}
