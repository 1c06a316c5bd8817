//! The table of what is read of whom, made from the golden bodies: `tests/fixtures/llm/COVERAGE.md`.
//! `AGENT_METER_WRITE=1 cargo test -p agent-meter-core --test core coverage` writes it anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde_json::Value;

const HEAD: &str = "# What is read of whom

Made from the golden bodies in this folder; a test compares. Each number is that of bodies, whole and streamed, which are
read whole, byte by byte and at each split, also compressed. A seller without a row of its own speaks the format of its row in
`filter/README.md`. What a format without tokens tells (speech, pages, videos, forms, WebSockets) is in `filter/core/tests/core`:
`units.rs`, `forms.rs`, `websocket.rs`, `batches.rs`; every price of a unit in `units.rs`, of modifiers in `bills.rs` and
`when.rs`.

| provider | endpoint | whole | streamed | beside tokens | tiers, cost | parts of tokens |
|---|---|---|---|---|---|---|
";

#[derive(Default)]
struct Row {
    whole: u32,
    streamed: u32,
    units: BTreeSet<String>,
    prices: BTreeSet<String>,
    parts: BTreeSet<String>,
}

/// A path with what differs from request to request left out.
fn template(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let is_name = |segment: &str, before: &str| {
        let rooms = [
            "models",
            "deployments",
            "endpoints",
            "serving-endpoints",
            "projects",
            "locations",
            "publishers",
            "threads",
            "runs",
            "responses",
            "interactions",
            "predictions",
            "accounts",
            "model",
        ];
        rooms.contains(&before)
            && !["runs", "input_tokens", "openapi", "compact"].contains(&segment)
    };
    let mut before = "";
    let mut told = Vec::new();
    for segment in path.split('/') {
        let verb = segment.rsplit_once(':').filter(|_| before == "models").map(|(_, verb)| verb);
        told.push(match verb {
            Some(verb) => format!("{{model}}:{verb}"),
            None if is_name(segment, before) => "*".to_owned(),
            None => segment.to_owned(),
        });
        before = segment;
    }
    told.join("/")
}

fn add(row: &mut Row, case: &Value) {
    let expect = &case["expect"];
    let file = case["file"].as_str().expect("a file");
    let is_streamed = [".sse", ".ndjson", ".bin"].iter().any(|end| file.ends_with(end));
    *(if is_streamed { &mut row.streamed } else { &mut row.whole }) += 1;
    let names = |member: &str| {
        let object = expect[member].as_object().into_iter().flatten();
        object.map(|(name, _)| name.split(':').next().unwrap_or_default().to_owned())
    };
    row.units.extend(names("units"));
    row.parts.extend(
        names("usage")
            .filter(|name| !["input", "output", "provider_total"].contains(&name.as_str())),
    );
    let tier = expect["service_tier"].as_str().filter(|tier| *tier != "standard");
    row.prices.extend(tier.map(str::to_owned));
    row.prices.extend(expect.get("reported_cost").map(|_| "reported cost".to_owned()));
}

#[test]
fn the_table_says_what_the_golden_bodies_show() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llm");
    let mut rows: BTreeMap<(String, String), Row> = BTreeMap::new();
    for entry in fs::read_dir(&folder).expect("a folder").map(|entry| entry.expect("an entry")) {
        let Ok(text) = fs::read_to_string(entry.path().join("cases.json")) else { continue };
        let cases: Vec<Value> = serde_json::from_str(&text).expect("cases");
        let provider = entry.file_name().into_string().expect("UTF-8");
        for case in cases.iter().filter(|case| case["expect"]["completeness"] != "NONE") {
            let text = |member: &str| case[member].as_str().expect(member);
            let endpoint = format!("{} {}", text("method"), template(text("path")));
            add(rows.entry((provider.clone(), endpoint)).or_default(), case);
        }
    }
    let mut table = HEAD.to_owned();
    for ((provider, endpoint), row) in &rows {
        let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
        let (units, prices, parts) = (list(&row.units), list(&row.prices), list(&row.parts));
        let Row { whole, streamed, .. } = row;
        writeln!(
            table,
            "| {provider} | `{endpoint}` | {whole} | {streamed} | {units} | {prices} | {parts} |"
        )
        .expect("memory");
    }
    let file = folder.join("COVERAGE.md");
    if std::env::var_os("AGENT_METER_WRITE").is_some() {
        fs::write(&file, &table).expect("a file");
    }
    let written = fs::read_to_string(&file).expect("the table");
    assert!(written == table, "the table is old: AGENT_METER_WRITE=1 writes it anew");
}
