//! The configuration: what is taken, and the one line that refuses the rest.

use agent_meter_core::config::{Action, Config, Matcher};
use agent_meter_core::domain::status::ExecutionStatus;
use agent_meter_core::pricing::price_list::Pricing;
use agent_meter_core::protocol::llm::provider::Family;
use agent_meter_core::wire::http::Headers;
use agent_meter_core::wire::target::Target;
use rust_decimal::Decimal;
use serde_json::{Value, json};

use crate::support::test;

const FILTER_YAML: &str = include_str!("../../../../envoy/filter.yaml");

fn minimal() -> Value {
    json!({"products": [{"id": "mcp", "type": "MCP_SERVER", "match": {"path": "/mcp"}}]})
}

fn read(value: &Value) -> Result<Config, String> {
    Config::from_bytes(value.to_string().as_bytes()).map_err(|refused| refused.to_string())
}

#[test]
fn filter_yaml_shows_every_option_at_its_default() {
    let shown: Value = serde_yaml_ng::from_str(FILTER_YAML).unwrap();
    let mut least = minimal();
    let llm = json!({"id": "llm", "type": "AI_AGENT", "match": {"path_prefix": "/v1"}, "llm": {}});
    least["products"].as_array_mut().unwrap().push(llm);
    assert_eq!(read(&shown).unwrap(), read(&least).unwrap());
    // Each option that the code knows is there: taking one out leaves a file without it, adding one is refused.
    let mut without = Vec::new();
    collect_paths("", &shown, &mut without);
    let known = [
        "collector.cluster",
        "collector.authority",
        "collector.format",
        "collector.path",
        "collector.timeout",
        "collector.secret",
        "collector.authentication",
        "collector.cost_attributes",
        "delivery.batch_events_max",
        "delivery.flush_interval",
        "delivery.in_flight_max",
        "delivery.retry_initial",
        "delivery.retry_max",
        "delivery.retry_horizon",
        "delivery.heartbeat_interval",
        "delivery.outbox_bytes_max",
        "emitter",
        "sessions_max",
        "rate_cards",
        "held_request_bytes_max",
        "correlation.request_id",
        "correlation.trace_id",
        "correlation.rpc_id",
        "correlation.access_log",
        "already_metered.same_stream",
        "already_metered.mark_header",
        "already_metered.trusted_header",
        "already_metered.skip_shadow_hosts",
        "already_metered.trusted_peers",
        "unmatched",
        "cors.allow_origins",
        "cors.allow_credentials",
        "contracts.default_plan",
        "guards",
        "products[0].id",
        "products[0].type",
        "products[0].match.host",
        "products[0].match.path",
        "products[0].match.case",
        "products[0].match.headers",
        "products[0].exclude.paths",
        "products[0].exclude.methods",
        "products[0].exclude.statuses",
        "products[0].routes",
        "products[0].identity.customer",
        "products[0].identity.team",
        "products[0].identity.user",
        "products[0].identity.agent",
        "products[0].identity.api_key",
        "products[0].identity.api_key_salt",
        "products[0].identity.jwt_payload",
        "products[0].identity.on_missing",
        "products[0].identity.required",
        "products[0].identity.credential",
        "products[0].identity.on_credential_mismatch",
        "products[0].identity.exempt",
        "products[0].identity.challenge.realm",
        "products[0].identity.challenge.resource_metadata",
        "products[0].identity.challenge.scope",
        "products[0].identity.strip_headers",
        "products[0].session.group",
        "products[0].session.ladder",
        "products[0].session.headers",
        "products[0].session.close_path",
        "products[0].session.per_identity_max",
        "products[0].session.idle_timeout",
        "products[0].session.session_timeout",
        "products[0].pricing.currency",
        "products[0].pricing.bill_paid_calls",
        "products[0].pricing.billable_after_request_sent",
        "products[0].pricing.billable_statuses",
        "products[0].pricing.default.price",
        "products[0].pricing.default.cost_tier",
        "products[0].pricing.tools",
        "products[0].pricing.tokens.pass_through",
        "products[0].pricing.tokens.markup",
        "products[0].reported_usage.provider",
        "products[0].reported_usage.result.model",
        "products[0].reported_usage.result.input",
        "products[0].reported_usage.result.output",
        "products[0].reported_usage.result.cache_read",
        "products[0].reported_usage.result.cache_write",
        "products[0].reported_usage.result.cache_write_1h",
        "products[0].reported_usage.result.reasoning",
        "products[0].reported_usage.trusted_headers.model",
        "products[0].reported_usage.trusted_headers.input",
        "products[0].reported_usage.trusted_headers.output",
        "products[0].reported_usage.trusted_headers.cache_read",
        "products[0].reported_usage.trusted_headers.cache_write",
        "products[0].reported_usage.trusted_headers.cache_write_1h",
        "products[0].reported_usage.trusted_headers.reasoning",
        "products[0].call_timeout",
        "products[0].on_unreadable",
        "products[0].response_encoding",
        "products[0].trace",
        "products[1].id",
        "products[1].type",
        "products[1].match.path_prefix",
        "products[1].llm.provider",
        "products[1].llm.format",
        "products[1].llm.paths",
        "products[1].llm.rate_card",
        "products[1].llm.ask_for_usage",
        "products[1].llm.cost",
        "products[1].llm.cost_difference_above",
        "products[1].llm.incomplete_usage",
        "products[1].llm.location",
        "products[1].llm.infer_when_unambiguous",
        "products[1].llm.envoy_metadata",
        "products[1].llm.unseen",
        "products[1].llm.websocket",
    ];
    without.sort();
    let mut known = known.map(str::to_owned);
    known.sort();
    assert_eq!(without, known);
}

fn collect_paths(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let dot = if path.is_empty() { "" } else { "." };
                collect_paths(&format!("{path}{dot}{name}"), member, found);
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            for (at, item) in items.iter().enumerate() {
                collect_paths(&format!("{path}[{at}]"), item, found);
            }
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn the_configurations_in_the_readme_are_accepted() {
    let readme = include_str!("../../../../README.md");
    let shown = readme.split("```yaml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let config = read(&serde_yaml_ng::from_str(shown).unwrap()).unwrap();
    assert_eq!(config.products[0].pricing.tools.len(), 3);
    let shown = readme.split("```yaml").nth(2).and_then(|rest| rest.split("```").next()).unwrap();
    let config = read(&serde_yaml_ng::from_str(shown).unwrap()).unwrap();
    assert_eq!(config.rate_cards[0].rates().len(), 2);
    let shown = readme.split("```yaml").nth(3).and_then(|rest| rest.split("```").next()).unwrap();
    let config = read(&serde_yaml_ng::from_str(shown).unwrap()).unwrap();
    assert_eq!(config.products[0].identity.agent.0.len(), 4);
}

#[test]
fn what_does_not_fit_is_refused_with_its_place() {
    // Where, what stands there, and the line.
    let rows = [
        (
            "/colector",
            json!({}),
            "colector: unknown field `colector`, expected one of `collector`, `delivery`, `emitter`, `sessions_max`, `rate_cards`, `held_request_bytes_max`, `unmatched`, `cors`, `contracts`, `guards`, `correlation`, `already_metered`, `products`",
        ),
        (
            "/products/0/prise",
            json!("1"),
            "products[0].prise: unknown field `prise`, expected one of `id`, `type`, `match`, `exclude`, `routes`, `identity`, `session`, `trace`, `llm`, `reported_usage`, `on_unreadable`, `pricing`, `call_timeout`, `response_encoding`",
        ),
        (
            "/products/0/type",
            json!("MCP"),
            "products[0].type: unknown variant `MCP`, expected one of `AGENTIC_API`, `AI_AGENT`, `MCP_SERVER`, `STANDARD_API`",
        ),
        (
            "/products/0/match",
            json!({"glob": "*"}),
            "products[0].match.glob: unknown field `glob`, expected one of `host`, `path`, `path_prefix`, `path_template`, `case`, `headers`",
        ),
        (
            "/products/0/match/path",
            json!("mcp"),
            "products[0].match.path: expected a path that starts with `/`, found \"mcp\"",
        ),
        (
            "/products/0/match",
            json!({}),
            "products[0].match: expected one of `path`, `path_prefix` and `path_template`",
        ),
        (
            "/products/0/match",
            json!({"path": "/a", "path_prefix": "/b"}),
            "products[0].match: expected one of `path`, `path_prefix` and `path_template`",
        ),
        (
            "/products/0/match",
            json!({"path": "/a", "host": "https://api.openai.com"}),
            "products[0].match.host: expected a host without port such as \"api.openai.com\" or \"*.openai.azure.com\", found \"https://api.openai.com\"",
        ),
        (
            "/products/0/llm",
            json!({}),
            "products[0].llm: expected none for a product of type \"MCP_SERVER\"",
        ),
        (
            "/products/0/match",
            json!({"path_template": "/a/{b}c"}),
            "products[0].match.path_template: expected a path in which whole segments are `{name}`, such as \"/orders/{id}\", found \"/a/{b}c\"",
        ),
        (
            "/products/0/identity",
            json!({"customer": {"jwt_claim": "sub"}}),
            "products[0].identity.customer.jwt_claim: expected none without `jwt_payload`, which says where claims are",
        ),
        (
            "/products/0/identity",
            json!({"customer": {"trusted_header": "x-customer", "value": "acme"}}),
            "products[0].identity.customer: expected one source; several are a list",
        ),
        (
            "/products/0/identity",
            json!({"agent": [{"value": "a"}, {"trusted_header": "X-A"}]}),
            "products[0].identity.agent[1].trusted_header: expected a header name in lower case, found \"X-A\"",
        ),
        (
            "/products/0/identity",
            json!({"agent": {"trusted_header": "x-a"}, "strip_headers": ["x-a"]}),
            "products[0].identity.agent.trusted_header: expected a header that is not in `strip_headers`: clients set those",
        ),
        (
            "/products/0/identity",
            json!({"api_key": {"trusted_header": "x-api-key"}}),
            "products[0].identity.api_key_salt: expected a secret of at least 16 bytes",
        ),
        (
            "/products/0/identity",
            json!({"user": {"trusted_header": "x-user"}, "required": ["user", "team"]}),
            "products[0].identity.required[1]: expected one of customer, team, user, agent and api_key, with a source here, found \"team\"",
        ),
        (
            "/products/0/identity",
            json!({"credential": "CLIENT_CREDENTIALS"}),
            "products[0].identity.credential: expected none without `jwt_payload`: only claims tell it",
        ),
        (
            "/products/0/session",
            json!({"ladder": ["header", "header"]}),
            "products[0].session.ladder[1]: expected each once",
        ),
        (
            "/products/0/reported_usage",
            json!({"provider": "openai", "result": {"input": "usage"}}),
            "products[0].reported_usage.result.input: expected a JSON pointer such as \"/_meta/usage/input_tokens\", found \"usage\"",
        ),
        (
            "/products/0/reported_usage",
            json!({"result": {"input": "/usage"}}),
            "products[0].reported_usage.provider: expected a provider, found none",
        ),
        (
            "/products/0/reported_usage",
            json!({"provider": "openai", "trusted_headers": {"input": "X-Usage"}}),
            "products[0].reported_usage.trusted_headers.input: expected a header name in lower case, found \"X-Usage\"",
        ),
        (
            "/rate_cards",
            json!([{"version": "1", "currency": "USD", "rates": []}, {"version": "2", "currency": "EUR", "rates": []}]),
            "rate_cards[1].currency: expected \"USD\" as in rate_cards[0].currency, found \"EUR\": amounts are not converted",
        ),
        (
            "/rate_cards",
            json!([{"version": "", "rates": []}]),
            "rate_cards[0].version: expected a text that tells cards apart, found an empty string",
        ),
        ("/products/0/id", json!(""), "products[0].id: expected a name, found an empty string"),
        (
            "/products/0/pricing",
            json!({"tools": [{"tool": "n".repeat(257), "price": "1"}]}),
            "products[0].pricing.tools[0].tool: expected at most 256 bytes, found 257",
        ),
        (
            "/products/0/id",
            json!(7),
            "products[0].id: invalid type: integer `7`, expected a string",
        ),
        (
            "/products/0/session",
            json!({"idle_timeout": 60}),
            "products[0].session.idle_timeout: invalid type: integer `60`, expected a duration such as \"250ms\", \"60s\", \"5m\" or \"1h\", at most a year",
        ),
        (
            "/products/0/session",
            json!({"idle_timeout": "60"}),
            "products[0].session.idle_timeout: invalid value: string \"60\", expected a duration such as \"250ms\", \"60s\", \"5m\" or \"1h\", at most a year",
        ),
        (
            "/products/0/session",
            json!({"idle_timeout": "0s"}),
            "products[0].session.idle_timeout: expected more than zero, found \"0s\"",
        ),
        (
            "/products/0/session",
            json!({"idle_timeout": "2h"}),
            "products[0].session.session_timeout: expected at least `idle_timeout`",
        ),
        (
            "/products/0/session",
            json!({"headers": ["X-Session"]}),
            "products[0].session.headers[0]: expected a header name in lower case, found \"X-Session\"",
        ),
        (
            "/products/0/identity",
            json!({"customer": {"header": "x"}}),
            "products[0].identity.customer.header: unknown variant `header`, expected one of `value`, `jwt_claim`, `peer`, `filter_state`, `metadata`, `trusted_header`",
        ),
        (
            "/products/0/pricing",
            json!({"default": {"price": "-1"}}),
            "products[0].pricing.default.price: invalid value: string \"-1\", expected a decimal string from 0 to below 1000000000000 with at most 12 places, such as \"0.05\"",
        ),
        (
            "/products/0/pricing",
            json!({"default": {"price": 0.05}}),
            "products[0].pricing.default.price: invalid type: floating point `0.05`, expected a decimal string from 0 to below 1000000000000 with at most 12 places, such as \"0.05\"",
        ),
        (
            "/products/0/pricing",
            json!({"tools": [{"tool": "a", "price": "1e3"}]}),
            "products[0].pricing.tools[0].price: invalid value: string \"1e3\", expected a decimal string from 0 to below 1000000000000 with at most 12 places, such as \"0.05\"",
        ),
        (
            "/products/0/pricing",
            json!({"tools": [{"tool": "a"}]}),
            "products[0].pricing.tools[0]: missing field `price`",
        ),
        (
            "/products/0/pricing",
            json!({"tools": [{"tool": "a", "price": "1"}, {"tool": "a", "price": "2"}]}),
            "products[0].pricing.tools[1].tool: expected each tool once, found \"a\" again",
        ),
        (
            "/products/0/pricing",
            json!({"currency": "usd"}),
            "products[0].pricing.currency: expected an ISO 4217 code such as \"USD\", found \"usd\"",
        ),
        (
            "/products/0/pricing",
            json!({"billable_statuses": ["OK"]}),
            "products[0].pricing.billable_statuses[0]: unknown variant `OK`, expected one of `SUCCESS`, `ERROR`, `VALIDATION_FAILED`, `BLOCKED`, `PAYMENT_REQUIRED`, `TIMEOUT`, `CANCELLED`, `HITL_REQUIRED`, `PENDING`, `UNKNOWN`",
        ),
        (
            "/products/0/pricing",
            json!({"billable_after_request_sent": ["UNKNOWN", "ERROR"]}),
            "products[0].pricing.billable_after_request_sent[1]: expected CANCELLED or UNKNOWN, found ERROR",
        ),
        (
            "/products/0/pricing",
            json!({"billable_statuses": ["CANCELLED"], "billable_after_request_sent": ["CANCELLED"]}),
            "products[0].pricing.billable_after_request_sent[0]: expected CANCELLED here or in billable_statuses, found both",
        ),
        ("/products", json!([]), "products: expected at least one product, found none"),
        (
            "/products/1",
            minimal()["products"][0].clone(),
            "products[1].id: expected an id that no other product has, found \"mcp\" again",
        ),
        (
            "/delivery",
            json!({"batch_events_max": 0}),
            "delivery.batch_events_max: expected 1 to 1000, found 0",
        ),
        (
            "/delivery",
            json!({"retry_max": "10ms"}),
            "delivery.retry_max: expected at least `retry_initial`",
        ),
        (
            "/collector",
            json!({"cluster": ""}),
            "collector.cluster: expected a name, found an empty string",
        ),
        (
            "/collector",
            json!({"timeout": "1y"}),
            "collector.timeout: invalid value: string \"1y\", expected a duration such as \"250ms\", \"60s\", \"5m\" or \"1h\", at most a year",
        ),
        ("/sessions_max", json!(0), "sessions_max: expected 1 to 1000000, found 0"),
    ];
    for (place, value, line) in rows {
        let mut config = minimal();
        match config.pointer_mut(place) {
            Some(found) => *found = value,
            None => {
                let (parent, name) = place.rsplit_once('/').unwrap();
                match config.pointer_mut(parent).unwrap() {
                    Value::Array(items) => items.push(value),
                    other => other[name] = value,
                }
            }
        }
        assert_eq!(read(&config), Err(line.to_owned()), "{place}");
    }
    for (text, line) in [
        ("", "expected an object with `products`, found nothing"),
        ("  \n", "expected an object with `products`, found nothing"),
        ("[]", "expected an object with `products`, found something else"),
        ("{}", "missing field `products`"),
        ("{\"products\": ", "expected JSON, but EOF while parsing a value at line 1 column 13"),
        (
            "{\"products\": [],\n \"products\": []}",
            "expected JSON, but \"products\" stands there twice at line 2 column 11",
        ),
        (
            "{\"products\": [{\"pricing\": {\"default\": {\"price\": \"0.10\", \"price\": \"0.001\"}}}]}",
            "expected JSON, but \"price\" stands there twice at line 1 column 63",
        ),
        ("{\"products\": []} x", "expected JSON, but trailing characters at line 1 column 18"),
    ] {
        let refused = Config::from_bytes(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(refused, line, "{text:?}");
        assert!(!refused.contains('\n'));
    }
}

/// A `google.protobuf.Struct` as protobuf writes it.
fn protobuf(value: &Value) -> Vec<u8> {
    fn varint(mut value: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        while value >= 0x80 {
            bytes.push(u8::try_from(value & 0x7F).unwrap() | 0x80);
            value >>= 7;
        }
        bytes.push(u8::try_from(value).unwrap());
        bytes
    }
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [vec![number << 3 | 2], varint(bytes.len() as u64), bytes.to_vec()].concat()
    }
    fn any(value: &Value) -> Vec<u8> {
        match value {
            Value::Null => vec![1 << 3, 0],
            Value::Bool(flag) => vec![4 << 3, u8::from(*flag)],
            Value::Number(number) => {
                [vec![2 << 3 | 1], number.as_f64().unwrap().to_le_bytes().to_vec()].concat()
            }
            Value::String(text) => field(3, text.as_bytes()),
            Value::Object(_) => field(5, &protobuf(value)),
            Value::Array(items) => {
                let items: Vec<u8> = items.iter().flat_map(|item| field(1, &any(item))).collect();
                field(6, &items)
            }
        }
    }
    let members = value.as_object().unwrap();
    members
        .iter()
        .flat_map(|(name, member)| {
            field(1, &[field(1, name.as_bytes()), field(2, &any(member))].concat())
        })
        .collect()
}

#[test]
fn a_struct_reads_as_its_json_does() {
    let shown: Value = serde_yaml_ng::from_str(FILTER_YAML).unwrap();
    let bytes = protobuf(&shown);
    assert_eq!(Config::from_bytes(&bytes).unwrap(), read(&shown).unwrap());
    let mut wrong = minimal();
    wrong["products"][0]["session"] = json!({"idle_timeout": 1.5});
    assert_eq!(
        Config::from_bytes(&protobuf(&wrong)).unwrap_err().to_string(),
        "products[0].session.idle_timeout: invalid type: floating point `1.5`, expected a duration such as \"250ms\", \"60s\", \"5m\" or \"1h\", at most a year",
    );
    // Cut behind a member it is still a `Struct`, of fewer members; anywhere else it is refused.
    let refused = (0..bytes.len()).filter(|&length| Config::from_bytes(&bytes[..length]).is_err());
    assert!(refused.count() >= bytes.len() - 5);
    // JSON may begin with the same byte.
    assert!(Config::from_bytes(format!("\n{}", minimal()).as_bytes()).is_ok());
}

#[test]
fn paths_match_whole_segments() {
    let below =
        |prefix: &str| Matcher { path_prefix: Some(prefix.to_owned()), ..Matcher::default() };
    let (prefix, root) = (below("/mcp"), below("/"));
    let exact = Matcher { path: Some("/mcp".to_owned()), ..Matcher::default() };
    for (path, by_prefix, by_exact) in [
        ("/mcp", true, true),
        ("/mcp?a=/b", true, true),
        ("/mcp#x", true, true),
        ("/mcp/", true, true),
        ("/mcp/a/b", true, false),
        ("/mcpx", false, false),
        ("/MCP", true, true),
        ("/", false, false),
    ] {
        let target = Target::read(b"", path.as_bytes());
        assert_eq!(prefix.is_match(&target, Headers(&[])), by_prefix, "prefix on {path}");
        assert_eq!(exact.is_match(&target, Headers(&[])), by_exact, "exact on {path}");
        assert!(root.is_match(&target, Headers(&[])), "root on {path}");
    }
}

#[test]
fn hosts_match_without_port_and_case() {
    for (host, authority, is_match) in [
        ("", "anything:80", true),
        ("api.openai.com", "api.openai.com", true),
        ("api.openai.com", "API.OpenAI.com:443", true),
        ("api.openai.com", "api.openai.com.:443", true),
        ("api.openai.com", "user:pass@api.openai.com", true),
        ("api.openai.com.", "api.openai.com", true),
        ("api.openai.com", "api.openai.com.evil.test", false),
        ("*.openai.azure.com", "east.openai.azure.com", true),
        ("*.openai.azure.com", "openai.azure.com", false),
        ("*.openai.azure.com", "evilopenai.azure.com", false),
        ("[::1]", "[::1]:8080", true),
        ("127.0.0.1", "127.0.0.1:11434", true),
    ] {
        let path = Some("/".to_owned());
        let matcher = Matcher { host: host.to_owned(), path, ..Matcher::default() };
        let target = Target::read(authority.as_bytes(), b"/");
        assert_eq!(matcher.is_match(&target, Headers(&[])), is_match, "{host} on {authority}");
    }
}

fn pricing(value: Value) -> Pricing {
    let mut config = minimal();
    config["products"][0]["pricing"] = value;
    read(&config).unwrap().products[0].pricing.clone()
}

fn amount(text: &str) -> Decimal {
    Decimal::from_str_exact(text).unwrap()
}

#[test]
fn the_documented_prices_add_up_to_the_last_digit() {
    // A lookup for 0.001, a database write for 0.05 and an analysis for 0.10 USD in one subscription.
    let pricing = pricing(json!({"tools": [
        {"tool": "lookup_customer", "price": "0.001", "cost_tier": "lookup"},
        {"tool": "write_record", "price": "0.05", "cost_tier": "database-write"},
        {"tool": "analyze_report", "price": "0.10", "cost_tier": "analysis"},
    ]}));
    let charge = |tool, status| pricing.charge(tool, status, true).price;
    let success = ExecutionStatus::Success;
    assert_eq!(charge("lookup_customer", success), amount("0.001"));
    assert_eq!(charge("write_record", success), amount("0.05"));
    assert_eq!(charge("analyze_report", success), amount("0.10"));
    let month: Decimal = [("lookup_customer", 3000), ("write_record", 70), ("analyze_report", 7)]
        .iter()
        .map(|&(tool, calls)| charge(tool, success) * Decimal::from(calls))
        .sum();
    assert_eq!(month.normalize().to_string(), "7.2");
    assert_eq!(pricing.charge("analyze_report", success, true).cost_tier, "analysis");
    for status in ExecutionStatus::ALL.into_iter().filter(|&status| status != success) {
        let charge = pricing.charge("analyze_report", status, true);
        assert_eq!((charge.is_billable, charge.price), (false, Decimal::ZERO), "{status:?}");
        assert_eq!(charge.cost_tier, "analysis");
    }
}

#[test]
fn an_exact_name_comes_before_the_first_pattern_that_fits() {
    let pricing = pricing(json!({
        "billable_statuses": ["SUCCESS", "ERROR"],
        "default": {"price": "9", "cost_tier": "default"},
        "tools": [
            {"tool": "db_*", "price": "1"},
            {"tool": "*_write", "price": "2", "cost_tier": "write"},
            {"tool": "db_write", "price": "3"},
        ],
    }));
    for (tool, price, tier) in [
        ("db_write", "3", "standard"),
        ("db_read", "1", "standard"),
        ("file_write", "2", "write"),
        ("db_x_write", "1", "standard"),
        ("other", "9", "default"),
    ] {
        let charge = pricing.charge(tool, ExecutionStatus::Error, true);
        assert_eq!((charge.price, charge.cost_tier), (amount(price), tier), "{tool}");
        assert!(!pricing.charge(tool, ExecutionStatus::Timeout, true).is_billable);
    }
}

#[test]
fn products_that_share_sessions_agree_in_what_a_session_adds_up_and_limits() {
    let product = |id: &str, group: &str, currency: &str, most: u32| {
        json!({
            "id": id, "type": "MCP_SERVER", "match": {"path": format!("/{id}")},
            "session": {"group": group, "per_identity_max": most},
            "pricing": {"currency": currency},
        })
    };
    let currency = "products[1].pricing.currency: expected \"USD\" as in \"a\", whose sessions it shares by the group";
    let limit = "products[1].session.per_identity_max: expected 0 as in \"a\", whose sessions it shares by the group";
    for (first, second, line) in [
        (product("a", "g", "USD", 0), product("b", "g", "USD", 0), None),
        (product("a", "", "USD", 0), product("b", "", "EUR", 2), None),
        (product("a", "g", "USD", 0), product("b", "h", "EUR", 2), None),
        (
            product("a", "g", "USD", 0),
            product("b", "g", "EUR", 0),
            Some(format!("{currency} \"g\", found \"EUR\"")),
        ),
        // A product without a group is alone in one of its own name.
        (
            product("a", "", "USD", 0),
            product("b", "a", "EUR", 0),
            Some(format!("{currency} \"a\", found \"EUR\"")),
        ),
        (
            product("a", "g", "USD", 0),
            product("b", "g", "USD", 2),
            Some(format!("{limit} \"g\", found 2")),
        ),
        (
            product("a", &"g".repeat(65), "USD", 0),
            product("b", "", "USD", 0),
            Some("products[0].session.group: expected at most 64 bytes".to_owned()),
        ),
    ] {
        let config = json!({"products": [first, second]});
        assert_eq!(read(&config).err(), line, "{config}");
    }
}

/// The lines of a comment in `filter.yaml` that show `section`.
fn example(section: &str) -> Value {
    let lines = FILTER_YAML.lines().skip_while(|line| *line != format!("#   {section}:"));
    let lines = lines.map_while(|line| line.strip_prefix("#   "));
    let text: Vec<&str> = lines.collect();
    serde_yaml_ng::from_str(&text.join("\n")).unwrap()
}

#[test]
fn the_examples_of_contracts_and_guards_are_read() {
    let mut config = minimal();
    for section in ["contracts", "guards"] {
        config[section] = example(section)[section].clone();
    }
    let read_config = read(&config).unwrap();
    assert_eq!(read_config.contracts.plan_name("acme"), "pro");
    assert!(read_config.contracts.allows_tool("anyone", "read_all"));
    assert!(!read_config.contracts.allows_tool("anyone", "write"));
    // What the example says to be a default is one.
    let mut least = config.clone();
    let shown = config["guards"][0].as_object().unwrap();
    let mut needed = shown.clone();
    needed.retain(|name, _| ["id", "actions", "reserve"].contains(&name.as_str()));
    least["guards"][0] = Value::Object(needed);
    assert_eq!(read(&least).unwrap(), read_config);
}

#[test]
fn guards_as_the_billing_domain_documents_them_are_read_as_they_stand() {
    let mut config = minimal();
    let documented = r#"
guards:
  - id: reasoning-token-safety
    metric: ai_reasoning_tokens
    min_margin: 25%
    actions:
      level_1: { threshold: 30%, notify: [engineering-alerts, finance-ops] }
      level_2: { threshold: 20%, throttle_rate: 5req/sec }
      level_3: { threshold: 10%, action: block_request }
"#;
    let yaml: Value = serde_yaml_ng::from_str(documented).unwrap();
    config["guards"] = yaml["guards"].clone();
    assert!(read(&config).unwrap().guards[0].does(Action::Block));
}

#[test]
fn a_guard_that_cannot_be_meant_is_refused_with_its_place() {
    let level = |threshold: &str| json!({ "threshold": threshold });
    let block = json!({ "threshold": "10%", "action": "block_request" });
    for (guard, expected) in [
        (
            json!({ "id": "" , "actions": { "level_3": block } }),
            "guards[0].id: expected a name, found an empty string",
        ),
        (
            json!({ "id": "g", "actions": {} }),
            "guards[0].actions: expected at least one of `level_1`, `level_2` and `level_3`",
        ),
        (
            json!({ "id": "g", "actions": { "level_1": {} } }),
            "guards[0].actions.level_1.threshold: expected a share such as \"30%\", found none",
        ),
        (
            json!({ "id": "g", "actions": { "level_1": level("10%"), "level_2": level("20%") } }),
            "guards[0].actions.level_2.threshold: expected at most the threshold of the level before",
        ),
        (
            json!({ "id": "g", "actions": { "level_1": { "threshold": "1%", "action": "block_request" } } }),
            "guards[0].actions.level_1.action: expected none: requests are blocked at level 3",
        ),
        (
            json!({ "id": "g", "actions": { "level_3": block, "level_1": { "threshold": "30%", "throttle_rate": "1req/s" } } }),
            "guards[0].actions.level_1.throttle_rate: expected none: requests are throttled at level 2",
        ),
        (
            json!({ "id": "g", "actions": { "level_3": { "threshold": "1%", "stop_streams": true } } }),
            "guards[0].actions.level_3.stop_streams: expected none without the action of level 3: what runs ends with what is blocked",
        ),
        (
            json!({ "id": "g", "actions": { "level_3": { "threshold": "1%", "action": "pause_request", "stop_streams": true } } }),
            "guards[0].actions.level_3.stop_streams: expected none with `pause_request`: what runs goes on",
        ),
        (
            json!({ "id": "g", "loop": { "calls": 5, "window": "1m" }, "actions": { "level_2": {} } }),
            "guards[0].scope: expected \"session\" with `loop`: calls are compared within a session",
        ),
        (
            json!({ "id": "g", "scope": "session", "period": "session", "budget": { "calls": 1 },
                "loop": { "calls": 5, "window": "1m" }, "actions": { "level_2": {} } }),
            "guards[0].loop: expected none beside `budget`, `reserve` or `metric`",
        ),
        (
            json!({ "id": "g", "scope": "session", "period": "session",
                "loop": { "calls": 5, "window": "100ms" }, "actions": { "level_2": {} } }),
            "guards[0].loop: expected at least 1 call and a window of at least 1 s",
        ),
        (
            json!({ "id": "g", "scope": "session", "period": "session",
                "loop": { "calls": 5, "window": "1m" }, "actions": { "level_3": block } }),
            "guards[0].actions.level_3: expected none: a loop goes to level 2",
        ),
        (
            json!({ "id": "g", "scope": "session", "period": "session",
                "loop": { "calls": 5, "window": "1m" }, "actions": { "level_2": level("1%") } }),
            "guards[0].actions.level_2.threshold: expected none: `loop` says when the level is reached",
        ),
        (
            json!({ "id": "g", "reserve": {}, "actions": { "level_1": level("10%") } }),
            "guards[0].reserve: expected none without a level 3 that blocks",
        ),
        (
            json!({ "id": "g", "budget": { "calls": 5 }, "reserve": { "estimate": "0.01" },
                "actions": { "level_3": block } }),
            "guards[0].reserve: expected {} for a budget of calls: each call reserves one",
        ),
        (
            json!({ "id": "g", "budget": { "tokens": 5 }, "reserve": {},
                "actions": { "level_3": block } }),
            "guards[0].reserve: expected only `estimate_tokens`, at least 1, for a budget of tokens",
        ),
        (
            json!({ "id": "g", "reserve": { "estimate_tokens": 5 },
                "actions": { "level_3": block } }),
            "guards[0].reserve.estimate_tokens: expected none: this guard counts provider cost",
        ),
        (
            json!({ "id": "g", "budget": { "prepaid_balance": true }, "actions": { "level_3": block } }),
            "guards[0].fleet: expected true with `prepaid_balance`: the collector tells it",
        ),
        (
            json!({ "id": "g", "budget": { "prepaid_balance": true, "calls": 1 }, "actions": { "level_3": block } }),
            "guards[0].budget: expected exactly one of `calls`, `tokens`, `provider_cost` and `prepaid_balance`",
        ),
        (
            json!({ "id": "g", "budget": { "prepaid_balance": true }, "fleet": true, "scope": "product", "actions": { "level_3": block } }),
            "guards[0].scope: expected customer, team or agent with `prepaid_balance`",
        ),
        (
            json!({ "id": "g", "budget": { "prepaid_balance": true }, "fleet": true, "metric": "ai_tokens", "actions": { "level_3": block } }),
            "guards[0].budget.prepaid_balance: expected none beside `metric` and `reserve`: all prices are taken from it",
        ),
        (
            json!({ "id": "g", "budget": { "prepaid_balance": true }, "fleet": true, "top_up_url": "http://pay.example.com", "actions": { "level_3": block } }),
            "guards[0].top_up_url: expected a URL such as \"https://pay.example.com\"",
        ),
        (
            json!({ "id": "g", "budget": { "prepaid_balance": true }, "fleet": true, "actions": { "level_3": { "action": "pause_request" } } }),
            "guards[0].actions.level_3.action: expected `block_request` with `prepaid_balance`: it takes a top-up",
        ),
        (
            json!({ "id": "g", "on_unknown_balance": "pass", "actions": { "level_3": block } }),
            "guards[0].top_up_url: expected none without `budget: { prepaid_balance: true }`",
        ),
        (
            json!({ "id": "g", "budget": {}, "actions": { "level_3": block } }),
            "guards[0].budget: expected exactly one of `calls`, `tokens`, `provider_cost` and `prepaid_balance`",
        ),
        (
            json!({ "id": "g", "budget": { "calls": 1, "tokens": 1 }, "actions": { "level_3": block } }),
            "guards[0].budget: expected exactly one of `calls`, `tokens`, `provider_cost` and `prepaid_balance`",
        ),
        (
            json!({ "id": "g", "scope": "session", "actions": { "level_3": block } }),
            "guards[0].period: expected \"session\" for the scope \"session\", and for no other",
        ),
        (
            json!({ "id": "g", "scope": "session", "period": "session", "fleet": true, "actions": { "level_3": block } }),
            "guards[0].fleet: expected none for sessions: each Envoy has its own",
        ),
        (
            json!({ "id": "g", "products": ["nope"], "actions": { "level_3": block } }),
            "guards[0].products[0]: expected the id of a product, found \"nope\"",
        ),
        (
            json!({ "id": "g", "plans": ["nope"], "actions": { "level_3": block } }),
            "guards[0].plans[0]: expected a plan of `contracts.plans`, found \"nope\"",
        ),
        (
            json!({ "id": "g", "hysteresis": "-1%", "actions": { "level_3": block } }),
            "guards[0].hysteresis: expected zero or more",
        ),
        (
            json!({ "id": "g", "actions": { "level_3": { "threshold": "a lot" } } }),
            "guards[0].actions.level_3.threshold: invalid value: string \"a lot\", expected a share such as \"25%\" or \"0.25\", between -1000% and 1000%",
        ),
        (
            json!({ "id": "g", "actions": { "level_2": { "threshold": "1%", "throttle_rate": "fast" } } }),
            "guards[0].actions.level_2.throttle_rate: invalid value: string \"fast\", expected a rate such as \"5req/sec\", \"300req/min\" or \"1000req/hour\"",
        ),
    ] {
        let mut config = minimal();
        config["guards"] = json!([guard]);
        assert_eq!(read(&config).map(drop), Err(expected.to_owned()), "{guard}");
    }
    let mut twice = minimal();
    let guard = json!({ "id": "g", "actions": { "level_3": block } });
    twice["guards"] = json!([guard, guard]);
    let expected = "guards[1].id: expected an id that no other guard has, found \"g\" again";
    assert_eq!(read(&twice).map(drop), Err(expected.to_owned()));
    let mut plans = minimal();
    plans["contracts"] = json!({ "customers": { "acme": { "plan": "pro" } } });
    let expected =
        "contracts.customers.acme.plan: expected a plan of `contracts.plans`, found \"pro\"";
    assert_eq!(read(&plans).map(drop), Err(expected.to_owned()));
}

#[test]
fn a_guard_looks_at_products_of_one_currency() {
    let product = |id: &str, currency: &str| {
        json!({
            "id": id, "type": "MCP_SERVER", "match": {"path": format!("/{id}")},
            "pricing": {"currency": currency},
        })
    };
    let products = [product("a", "USD"), product("b", "EUR"), product("c", "EUR")];
    let mixed = r#"guards[0].products: expected products of one currency, found "USD" in "a" and "EUR" in "b": amounts are not converted"#;
    for (looks_at, expected) in [
        (json!([]), Some(mixed)),
        (json!(["b", "a"]), Some(mixed)),
        (json!(["a"]), None),
        (json!(["c", "b"]), None),
    ] {
        let mut config = minimal();
        config["products"] = json!(products);
        let levels = json!({ "level_1": { "threshold": "30%" } });
        config["guards"] = json!([{ "id": "g", "products": looks_at, "actions": levels }]);
        let found = read(&config).map(drop);
        assert_eq!(found, expected.map_or(Ok(()), |text| Err(text.to_owned())), "{looks_at}");
        config["guards"][0]["budget"] = json!({ "calls": 10 });
        assert_eq!(read(&config).map(drop), Ok(()), "calls have no currency");
    }
}

#[test]
fn what_tools_report_costs_in_the_currency_of_their_product() {
    let mut config = minimal();
    config["products"][0]["pricing"]["currency"] = json!("EUR");
    config["rate_cards"] = json!([{ "version": "1", "currency": "USD", "rates": [] }]);
    assert!(read(&config).is_ok(), "nothing is reported");
    config["products"][0]["reported_usage"] =
        json!({ "provider": "openai", "result": { "input": "/usage" } });
    let expected = "products[0].pricing.currency: expected \"USD\" as in rate_cards[0].currency, found \"EUR\": amounts are not converted";
    assert_eq!(read(&config).map(drop), Err(expected.to_owned()));
}

#[test]
fn who_sells_a_model_and_how_it_speaks() {
    let names = Family::ALL.iter().map(|family| format!("`{}`", family.name()));
    let names = names.collect::<Vec<_>>().join(", ");
    assert!(names.contains("`openai`, `azure_openai`, `anthropic`"), "{names}");
    let no_format = format!(
        "products[0].llm.format: expected the format of \"openia\", whose name tells none, found `auto`: one of {names}"
    );
    let no_name = |found: &str| {
        format!(
            "products[0].llm.provider: expected a provider's name of 1 to 31 lower-case letters, digits, `-`, `_` and `.`, found {found:?}"
        )
    };
    let no_card = "products[0].llm.rate_card: expected the version of a rate card, found \"eu\"";
    for (llm, refused) in [
        (json!({ "provider": "auto", "format": "auto" }), None),
        (json!({ "provider": "auto", "format": "anthropic" }), None),
        (json!({ "provider": "anthropic" }), None),
        (json!({ "provider": "acme", "format": "anthropic" }), None),
        (json!({ "provider": "openia" }), Some(no_format.as_str())),
        (json!({ "provider": "Acme", "format": "openai" }), Some(&no_name("Acme"))),
        (json!({ "provider": "", "format": "openai" }), Some(&no_name(""))),
        (json!({ "rate_card": "us" }), None),
        (json!({ "rate_card": null }), None),
        (json!({ "rate_card": "eu" }), Some(no_card)),
    ] {
        let mut config = minimal();
        config["rate_cards"] = json!([{ "version": "us", "rates": [] }]);
        config["products"][0]["type"] = json!("AI_AGENT");
        config["products"][0]["llm"] = llm;
        assert_eq!(read(&config).err().as_deref(), refused, "{}", config["products"][0]["llm"]);
    }
    let mut config = minimal();
    config["products"][0]["type"] = json!("AI_AGENT");
    config["products"][0]["llm"] = json!({ "format": "opanai" });
    let reason = read(&config).unwrap_err();
    let expected = "products[0].llm.format: unknown variant `opanai`, expected one of `openai`";
    assert!(reason.starts_with(expected), "{reason}");
}
