//! The vendors' sides: what their schemas want of a request, and what they answer. Written from
//! their documents, without any code of the sinks.

use chrono::DateTime;
use serde_json::{Value, json};

use crate::receiver::Came;
use crate::{KEY, NOW_MS};

/// A status and a body.
pub(crate) type Answer = (u16, String);

/// What a vendor answers, and the records that it takes, by index.
pub(crate) type Taken = (Answer, Vec<usize>);

/// Gives tokens.
#[derive(Clone, Copy)]
pub(crate) struct Tokens {
    pub(crate) path: &'static str,
    /// Of a request, the number of the token, and whether it has ended.
    pub(crate) give: fn(&Came, u64, bool) -> Answer,
}

pub(crate) struct Vendor {
    /// The type of the sink, and its name in these tests.
    pub(crate) name: &'static str,
    /// Members of the sink beside `type`, `url` and `timeout`; `{url}` stands for the receiver's.
    pub(crate) members: &'static str,
    /// The most records and bytes of a request.
    pub(crate) records_max: usize,
    pub(crate) bytes_max: usize,
    /// How long it knows ids, in hours; 0 for ever, or never where it knows none.
    pub(crate) dedup_hours: i64,
    pub(crate) token: Option<Tokens>,
    /// Checks a request, and returns the id and the content of each record.
    pub(crate) records: fn(&Came) -> Vec<(String, String)>,
    /// What it answers to records with these ids, of which some are wrong and some known, and which
    /// it takes; all by index.
    pub(crate) answer: fn(&[&str], &[usize], &[usize]) -> Taken,
}

pub(crate) static ALL: &[Vendor] = &[
    Vendor {
        name: "openmeter",
        members: ", key_file: '{key}'",
        records_max: 100,
        bytes_max: 1 << 20,
        dedup_hours: 32 * 24,
        token: None,
        records: openmeter,
        answer: |ids, wrong, _| all_or_nothing(ids, wrong, (204, String::new()), 400),
    },
    Vendor {
        name: "metronome",
        members: ", key_file: '{key}'",
        records_max: 100,
        bytes_max: 1 << 20,
        dedup_hours: 34 * 24,
        token: None,
        records: metronome,
        answer: |ids, wrong, _| all_or_nothing(ids, wrong, (200, String::new()), 400),
    },
    Vendor {
        name: "lago",
        members: ", key_file: '{key}', customers: {acme: sub-1}",
        records_max: 100,
        bytes_max: 1 << 20,
        dedup_hours: 0,
        token: None,
        records: lago,
        answer: lago_answer,
    },
    Vendor {
        name: "orb",
        members: ", key_file: '{key}'",
        records_max: 500,
        bytes_max: 1 << 20,
        dedup_hours: 0,
        token: None,
        records: orb,
        answer: orb_answer,
    },
    Vendor {
        name: "amberflo",
        members: ", key_file: '{key}'",
        records_max: 1000,
        bytes_max: 1 << 20,
        dedup_hours: 0,
        token: None,
        records: amberflo,
        answer: |ids, wrong, _| {
            all_or_nothing(ids, wrong, (200, "1 records were ingested".into()), 400)
        },
    },
    Vendor {
        name: "stripe",
        members: ", key_file: '{key}', customers: {acme: cus_1}",
        records_max: 1,
        bytes_max: 1 << 20,
        dedup_hours: 24,
        token: None,
        records: stripe,
        answer: stripe_answer,
    },
    Vendor {
        name: "stripe_stream",
        members: ", key_file: '{key}', customers: {acme: cus_1}, session_url: '{url}'",
        records_max: 100,
        bytes_max: 1 << 20,
        dedup_hours: 24,
        token: Some(Tokens { path: "/v2/billing/meter_event_session", give: stripe_token }),
        records: stripe_stream,
        answer: |ids, wrong, _| all_or_nothing(ids, wrong, (200, "{}".into()), 400),
    },
    Vendor {
        name: "aforo",
        members: ", key_file: '{key}', tenant: tenant-1",
        records_max: 1000,
        bytes_max: 1 << 20,
        dedup_hours: 0,
        token: None,
        records: aforo,
        answer: aforo_answer,
    },
    Vendor {
        name: "otlp_logs",
        members: ", events: [tool_invocation, token_consumption], cost_attributes: true",
        records_max: 1000,
        bytes_max: 4 << 20,
        dedup_hours: 0,
        token: None,
        records: otlp_logs,
        answer: |ids, wrong, _| all_or_nothing(ids, wrong, (200, "{}".into()), 400),
    },
    Vendor {
        name: "otlp_metrics",
        members: "",
        records_max: 1000,
        bytes_max: 4 << 20,
        dedup_hours: 0,
        token: None,
        records: otlp_metrics,
        answer: |ids, wrong, _| all_or_nothing(ids, wrong, (200, "{}".into()), 400),
    },
    Vendor {
        name: "clickhouse",
        members: ", events: [tool_invocation, token_consumption], user: meter, key_file: '{key}'",
        records_max: 1000,
        bytes_max: 8 << 20,
        dedup_hours: 0,
        token: None,
        records: clickhouse,
        answer: |ids, wrong, _| {
            let (answer, taken) = all_or_nothing(ids, wrong, (200, String::new()), 400);
            let refused = "Code: 117. DB::Exception: Unknown field found while parsing JSONEachRow";
            if taken.is_empty() { ((400, refused.into()), taken) } else { (answer, taken) }
        },
    },
];

pub(crate) fn vendor(name: &str) -> &'static Vendor {
    ALL.iter().find(|vendor| vendor.name == name).expect(name)
}

fn all_or_nothing(ids: &[&str], wrong: &[usize], ok: Answer, refused: u16) -> Taken {
    if wrong.is_empty() {
        return (ok, (0..ids.len()).collect());
    }
    ((refused, json!({ "message": "an event is wrong" }).to_string()), Vec::new())
}

fn bearer(came: &Came) {
    assert_eq!(came.header("authorization"), format!("Bearer {KEY}"));
}

fn is_json(came: &Came) {
    assert_eq!(came.header("content-type"), "application/json");
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_else(|| panic!("{member} must be text: {value}"))
}

fn only(value: &Value, known: &[&str]) {
    for member in value.as_object().expect("an object").keys() {
        assert!(known.contains(&member.as_str()), "{member} is unknown");
    }
}

/// RFC 3339 in UTC.
fn utc(time: &str) {
    assert!(time.ends_with('Z') && DateTime::parse_from_rfc3339(time).is_ok(), "{time}");
}

/// Each element with an id of its own.
fn each(list: &Value, id: impl Fn(&Value) -> String) -> Vec<(String, String)> {
    let list = list.as_array().expect("an array");
    let found: Vec<_> = list.iter().map(|entry| (id(entry), entry.to_string())).collect();
    let mut ids: Vec<&String> = found.iter().map(|(id, _)| id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), found.len(), "an id is twice in a request");
    found
}

/// CloudEvents 1.0, and what OpenMeter wants beside.
fn openmeter(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/api/v1/events");
    assert_eq!(came.header("content-type"), "application/cloudevents-batch+json");
    bearer(came);
    each(&came.json(), |event| {
        only(
            event,
            &["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"],
        );
        assert_eq!(text(event, "specversion"), "1.0");
        assert!(!text(event, "type").is_empty() && !text(event, "subject").is_empty());
        utc(text(event, "time"));
        let data = event["data"].as_object().expect("data");
        assert!(data.values().all(|value| !value.is_object() && !value.is_array()));
        format!("{}\n{}", text(event, "source"), text(event, "id"))
    })
}

fn metronome(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/v1/ingest");
    is_json(came);
    bearer(came);
    each(&came.json(), |event| {
        only(event, &["transaction_id", "customer_id", "event_type", "timestamp", "properties"]);
        utc(text(event, "timestamp"));
        assert!(!text(event, "customer_id").is_empty() && !text(event, "event_type").is_empty());
        let properties = event["properties"].as_object().expect("properties");
        assert!(properties.values().all(Value::is_string), "for exact decimals");
        text(event, "transaction_id").to_owned()
    })
}

fn lago(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/api/v1/events/batch");
    is_json(came);
    bearer(came);
    only(&came.json(), &["events"]);
    each(&came.json()["events"], |event| {
        let known =
            ["transaction_id", "external_subscription_id", "code", "timestamp", "properties"];
        only(event, &known);
        let (seconds, fraction) = text(event, "timestamp").split_once('.').expect("a point");
        assert!(seconds.parse::<i64>().is_ok() && fraction.len() == 3);
        assert_eq!(text(event, "external_subscription_id"), "sub-1");
        let properties = event["properties"].as_object().expect("properties");
        assert!(properties.values().all(|value| value.is_string() || value.is_number()));
        format!("{} {}", text(event, "transaction_id"), text(event, "timestamp"))
    })
}

/// Takes all or nothing: what it knows already is an error as well.
fn lago_answer(ids: &[&str], wrong: &[usize], known: &[usize]) -> Taken {
    let mut details = serde_json::Map::new();
    for index in wrong {
        details.insert(index.to_string(), json!({ "code": ["value_is_mandatory"] }));
    }
    // Wrong ones are found before it looks for known ones.
    for index in known.iter().filter(|_| wrong.is_empty()) {
        details.insert(index.to_string(), json!({ "transaction_id": ["value_already_exist"] }));
    }
    if details.is_empty() {
        return ((200, json!({ "events": [] }).to_string()), (0..ids.len()).collect());
    }
    let body = json!({ "status": 422, "error": "Unprocessable Entity",
        "code": "validation_errors", "error_details": details });
    ((422, body.to_string()), Vec::new())
}

fn orb(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/v1/ingest");
    is_json(came);
    bearer(came);
    only(&came.json(), &["events"]);
    each(&came.json()["events"], |event| {
        let known =
            ["event_name", "external_customer_id", "timestamp", "idempotency_key", "properties"];
        only(event, &known);
        assert!(!text(event, "event_name").contains(' '));
        assert_eq!(text(event, "external_customer_id"), "acme");
        utc(text(event, "timestamp"));
        let properties = event["properties"].as_object().expect("properties");
        assert!(properties.values().all(|value| !value.is_object() && !value.is_array()));
        assert!(properties["quantity"].is_number() && properties["price"].is_number());
        text(event, "idempotency_key").to_owned()
    })
}

/// Names what is wrong and takes the rest.
fn orb_answer(ids: &[&str], wrong: &[usize], _: &[usize]) -> Taken {
    let failed: Vec<Value> = wrong
        .iter()
        .map(
            |index| json!({ "idempotency_key": ids[*index], "validation_errors": ["no customer"] }),
        )
        .collect();
    let status = if failed.is_empty() { 200 } else { 400 };
    let taken = (0..ids.len()).filter(|index| !wrong.contains(index)).collect();
    ((status, json!({ "validation_failed": failed }).to_string()), taken)
}

fn amberflo(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/ingest");
    is_json(came);
    assert_eq!(came.header("x-api-key"), KEY);
    each(&came.json(), |record| {
        let known = [
            "uniqueId",
            "meterApiName",
            "customerId",
            "meterValue",
            "meterTimeInMillis",
            "dimensions",
        ];
        only(record, &known);
        assert!(record["meterValue"].is_number() && record["meterTimeInMillis"].is_i64());
        assert!(!text(record, "customerId").is_empty() && !text(record, "meterApiName").is_empty());
        let dimensions = record["dimensions"].as_object().expect("dimensions");
        assert!(dimensions.values().all(Value::is_string));
        text(record, "uniqueId").to_owned()
    })
}

/// What Stripe wants of a value, whichever version of its API.
fn stripe_event(identifier: &str, customer: &str, value: &str, time_ms: i64) {
    assert!(identifier.len() <= 100 && customer == "cus_1", "{identifier} {customer}");
    assert!(value.parse::<i64>().is_ok(), "{value} must be whole");
    // As long as the clock of a test may run.
    let (oldest, newest) = (NOW_MS - 35 * 24 * 3_600_000, NOW_MS + 60 * 24 * 3_600_000);
    assert!((oldest..newest).contains(&time_ms), "{time_ms}");
}

fn stripe(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/v1/billing/meter_events");
    assert_eq!(came.header("content-type"), "application/x-www-form-urlencoded");
    assert_eq!(came.header("stripe-version"), "2024-09-30.acacia");
    assert_eq!(came.header("idempotency-key"), "", "it would repeat an answer of 500");
    bearer(came);
    let members: Vec<(String, String)> = url_decoded(&came.body);
    let of = |name: &str| {
        let found: Vec<_> = members.iter().filter(|(member, _)| member == name).collect();
        assert_eq!(found.len(), 1, "{name}");
        found[0].1.clone()
    };
    let identifier = of("identifier");
    let seconds: i64 = of("timestamp").parse().expect("seconds");
    stripe_event(
        &identifier,
        &of("payload[stripe_customer_id]"),
        &of("payload[value]"),
        seconds * 1000,
    );
    assert_eq!(members.len(), 5);
    assert!(!of("event_name").is_empty());
    vec![(identifier, came.body.clone())]
}

fn url_decoded(form: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://form/?{form}")).expect("a form");
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn stripe_answer(ids: &[&str], wrong: &[usize], known: &[usize]) -> Taken {
    if !known.is_empty() {
        let message = format!("An event already exists with identifier {}.", ids[0]);
        return ((400, json!({ "error": { "message": message } }).to_string()), Vec::new());
    }
    all_or_nothing(ids, wrong, (200, json!({ "object": "billing.meter_event" }).to_string()), 400)
}

fn stripe_token(came: &Came, number: u64, has_ended: bool) -> Answer {
    bearer(came);
    assert_eq!(came.header("stripe-version"), "2024-09-30.acacia");
    let minutes = if has_ended { -1 } else { 15 };
    let ends = DateTime::from_timestamp_millis(NOW_MS + 400 * 24 * 3_600_000 + minutes * 60_000);
    let ends = if has_ended { DateTime::from_timestamp_millis(0) } else { ends };
    let body = json!({
        "object": "v2.billing.meter_event_session",
        "authentication_token": format!("token_{number}"),
        "expires_at": ends.expect("a time").to_rfc3339(),
    });
    (200, body.to_string())
}

fn stripe_stream(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/v2/billing/meter_event_stream");
    is_json(came);
    assert!(came.header("authorization").starts_with("Bearer token_"));
    only(&came.json(), &["events"]);
    each(&came.json()["events"], |event| {
        only(event, &["identifier", "event_name", "timestamp", "payload"]);
        only(&event["payload"], &["stripe_customer_id", "value"]);
        let time = text(event, "timestamp");
        utc(time);
        let time = DateTime::parse_from_rfc3339(time).expect("a time").timestamp_millis();
        let payload = &event["payload"];
        let (customer, value) = (text(payload, "stripe_customer_id"), text(payload, "value"));
        stripe_event(text(event, "identifier"), customer, value, time);
        text(event, "identifier").to_owned()
    })
}

fn aforo(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/v1/ingest/batch");
    is_json(came);
    bearer(came);
    assert_eq!(came.header("x-tenant-id"), "tenant-1");
    only(&came.json(), &["events"]);
    each(&came.json()["events"], |event| {
        let known = [
            "customerId",
            "metricName",
            "quantity",
            "idempotencyKey",
            "occurredAt",
            "productType",
            "agentId",
            "sessionId",
            "toolName",
            "executionStatus",
            "executionDurationMs",
            "traceId",
            "metadata",
        ];
        only(event, &known);
        assert!(event["quantity"].is_number() && !text(event, "metricName").is_empty());
        assert_eq!(text(event, "productType"), "MCP_SERVER");
        utc(text(event, "occurredAt"));
        let metadata = event["metadata"].as_object().expect("metadata");
        assert!(metadata.values().all(|value| !value.is_object() && !value.is_array()));
        text(event, "idempotencyKey").to_owned()
    })
}

fn aforo_answer(ids: &[&str], wrong: &[usize], known: &[usize]) -> Taken {
    let errors: Vec<Value> =
        wrong.iter().map(|index| json!({ "index": index, "error": "unknown metric" })).collect();
    let taken: Vec<usize> = (0..ids.len()).filter(|index| !wrong.contains(index)).collect();
    let body = json!({ "accepted": taken.len() - known.len(), "duplicates": known.len(),
        "failed": wrong.len(), "errors": errors, "killedSessionIds": ["session-9"] });
    ((202, body.to_string()), taken)
}

fn otlp_logs(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/v1/logs");
    is_json(came);
    let body = came.json();
    let resource = &body["resourceLogs"][0];
    assert_eq!(resource["resource"]["attributes"][0]["key"], "service.name");
    each(&resource["scopeLogs"][0]["logRecords"], |record| {
        let known = [
            "timeUnixNano",
            "observedTimeUnixNano",
            "severityNumber",
            "severityText",
            "eventName",
            "body",
            "attributes",
            "traceId",
        ];
        only(record, &known);
        assert!(text(record, "timeUnixNano").parse::<u64>().is_ok());
        attributes(&record["attributes"])
    })
}

/// Attributes of OTLP, each once; returns the id among them.
fn attributes(list: &Value) -> String {
    let list = list.as_array().expect("attributes");
    let mut keys: Vec<&str> = list.iter().map(|attribute| text(attribute, "key")).collect();
    keys.sort_unstable();
    let count = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), count, "an attribute is there twice");
    for attribute in list {
        let value = attribute["value"].as_object().expect("a value");
        assert_eq!(value.len(), 1);
        assert!(value.get("intValue").is_none_or(Value::is_string), "64 bits are text in JSON");
    }
    let id = list.iter().find(|attribute| attribute["key"] == "agent_meter.event.id");
    id.map_or_else(String::new, |id| text(&id["value"], "stringValue").to_owned())
}

/// Metrics have no ids, so each is known by what it says and where it stands.
fn otlp_metrics(came: &Came) -> Vec<(String, String)> {
    assert_eq!(came.path, "/v1/metrics");
    is_json(came);
    let body = came.json();
    let metrics = &body["resourceMetrics"][0]["scopeMetrics"][0]["metrics"];
    let metrics = metrics.as_array().expect("metrics");
    let check = |metric: &Value| {
        if metric.get("histogram").is_some() {
            return histogram(metric);
        }
        only(metric, &["name", "unit", "sum"]);
        let sum = &metric["sum"];
        assert_eq!(
            (&sum["aggregationTemporality"], &sum["isMonotonic"]),
            (&json!(1), &json!(false))
        );
        let point = &sum["dataPoints"][0];
        assert!(point["asInt"].is_i64());
        assert!(text(point, "timeUnixNano").parse::<u64>().is_ok());
        attributes(&point["attributes"]);
    };
    metrics.iter().for_each(check);
    metrics.iter().map(|metric| (metric.to_string(), metric.to_string())).collect()
}

/// A histogram of one observation, in the bucket whose bounds it lies between.
fn histogram(metric: &Value) {
    only(metric, &["name", "unit", "histogram"]);
    assert_eq!(metric["histogram"]["aggregationTemporality"], 1);
    let point = &metric["histogram"]["dataPoints"][0];
    let numbers = |list: &Value| -> Vec<f64> {
        let list = list.as_array().expect("a list").iter();
        list.map(|one| one.as_f64().unwrap_or_else(|| one.as_str().unwrap().parse().unwrap()))
            .collect()
    };
    let (counts, bounds) = (numbers(&point["bucketCounts"]), numbers(&point["explicitBounds"]));
    assert_eq!((counts.len(), counts.iter().sum::<f64>()), (bounds.len() + 1, 1.0));
    let value = point["sum"].as_f64().expect("a sum");
    let bucket = counts.iter().position(|count| *count == 1.0).expect("a bucket");
    assert!(bucket == 0 || value > bounds[bucket - 1], "{metric}");
    assert!(bucket == bounds.len() || value <= bounds[bucket], "{metric}");
    assert_eq!(
        (&point["count"], &point["min"], &point["max"]),
        (&json!("1"), &point["sum"], &point["sum"])
    );
    assert!(text(point, "timeUnixNano").parse::<u64>().is_ok());
    attributes(&point["attributes"]);
}

fn clickhouse(came: &Came) -> Vec<(String, String)> {
    let query = "/?query=INSERT%20INTO%20agent_meter_events%20FORMAT%20JSONEachRow\
                 &date_time_input_format=best_effort";
    assert_eq!(came.path, query);
    assert_eq!(came.header("x-clickhouse-user"), "meter");
    assert_eq!(came.header("x-clickhouse-key"), KEY);
    let schema = agent_meter_collector::CLICKHOUSE_SCHEMA;
    let columns: Vec<&str> = schema
        .lines()
        .filter_map(|line| line.strip_prefix("    ")?.split_whitespace().next())
        .collect();
    let lines = came.body.lines().map(|line| {
        let row: Value = serde_json::from_str(line).expect("a row");
        only(&row, &columns);
        let id = format!("{} {} {}", text(&row, "source"), text(&row, "id"), row["version"]);
        (id, line.to_owned())
    });
    lines.collect()
}
