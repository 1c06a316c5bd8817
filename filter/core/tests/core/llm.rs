//! The golden bodies under `tests/fixtures/llm`, with the usage that must be read out of each, however it comes.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use agent_meter_core::domain::price_factors::ServiceTier;
use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::usage::{Completeness, FurtherRun, Usage};
use agent_meter_core::protocol::llm::provider::{self, Asked, Family, PRESETS};
use agent_meter_core::protocol::llm::{Generation, ResponseReader, Route};
use agent_meter_core::wire::http::{Headers, ResponseHead};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Deserialize;
use serde_json::Value;

use crate::dice::Dice;

/// A host that names no provider.
const GATEWAY: &str = "gateway.internal:8080";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    file: String,
    method: String,
    path: String,
    #[serde(default, rename = "request")]
    _request: Value,
    status: u16,
    content_type: String,
    response_headers: BTreeMap<String, String>,
    #[serde(default, rename = "aborted")]
    _is_aborted: bool,
    expect: Expected,
    #[serde(default, rename = "note")]
    _note: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    completeness: String,
    model: Option<String>,
    id: Option<String>,
    service_tier: ServiceTier,
    usage: BTreeMap<String, u64>,
    #[serde(default, rename = "inconsistent")]
    is_inconsistent: bool,
    /// The runs beside the response's own.
    #[serde(default)]
    further: Vec<FurtherRun>,
    /// What is billed beside tokens.
    #[serde(default)]
    units: BTreeMap<String, String>,
    reported_cost: Option<String>,
}

/// What counts of a response.
#[derive(Debug, PartialEq)]
struct Told {
    completeness: Option<Completeness>,
    model: Option<String>,
    id: Option<String>,
    service_tier: ServiceTier,
    usage: Usage,
    is_inconsistent: bool,
    further: Vec<FurtherRun>,
    units: BTreeMap<String, String>,
    reported_cost: Option<String>,
}

impl Told {
    fn new(generation: Generation, is_readable: bool) -> Self {
        let units = told_units(&generation);
        Self {
            completeness: generation.completeness(is_readable),
            model: generation.model,
            id: generation.id,
            service_tier: generation.service_tier.unwrap_or_default(),
            usage: generation.usage,
            is_inconsistent: generation.is_inconsistent,
            further: generation.further,
            units,
            reported_cost: generation.reported_cost.map(|cost| cost.to_string()),
        }
    }
}

fn told_units(generation: &Generation) -> BTreeMap<String, String> {
    let mut units = generation.units.clone();
    generation.look.qualify(&mut units);
    units.iter().map(|told| (told.name.to_string(), told.quantity.to_string())).collect()
}

fn folder(provider: Seller) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/llm");
    root.join(provider.name())
}

fn cases(provider: Seller) -> Vec<(Case, Vec<u8>)> {
    let folder = folder(provider);
    let text = fs::read_to_string(folder.join("cases.json")).expect("a table of cases");
    let cases: Vec<Case> = serde_json::from_str(&text).expect("cases as the README says");
    assert!(!cases.is_empty());
    let body = |case: &Case| fs::read(folder.join(&case.file)).expect("a body");
    cases.into_iter().map(|case| (body(&case), case)).map(|(body, case)| (case, body)).collect()
}

/// Every provider with bodies, with a host on which it answers: the file `host` in its folder, if
/// hosts name it. A seller whose bodies are those of its family has no folder.
fn folders() -> impl Iterator<Item = (Seller, Option<String>)> {
    let families = Family::ALL.iter().map(|family| family.seller());
    let presets = PRESETS.iter().filter_map(|preset| Seller::new(preset.name));
    let presets = presets.filter(|preset| folder(*preset).exists());
    families.chain(presets).map(|provider| {
        let host = fs::read_to_string(folder(provider).join("host")).ok();
        (provider, host.map(|host| host.trim_end().to_owned()))
    })
}

/// The route of a request to a provider that the configuration names, or does not.
fn route(seller: Option<Seller>, method: &str, host: &str, path: &str) -> Option<Route> {
    provider::route(Asked { seller, ..Asked::default() }, method, host, path)
}

fn read(case: &Case, route: &Route, coding: &str, chunks: &[&[u8]]) -> (Generation, bool) {
    let mut headers = vec![
        ("content-type".to_owned(), case.content_type.clone().into_bytes()),
        ("content-encoding".to_owned(), coding.as_bytes().to_vec()),
    ];
    let more = case.response_headers.iter();
    headers.extend(more.map(|(name, value)| (name.clone(), value.clone().into_bytes())));
    let mut reader = ResponseReader::new(route.format, &ResponseHead::read(Headers(&headers)));
    for chunk in chunks {
        reader.feed(chunk);
    }
    reader.end()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body).expect("memory");
    encoder.finish().expect("memory")
}

/// At most about this many places at which a body is cut in two.
fn cuts(body: &[u8], places_max: usize) -> Vec<Vec<&[u8]>> {
    let mut cuts = vec![body.chunks(1).collect(), body.chunks(7).collect()];
    for at in (1..body.len()).step_by(body.len() / places_max + 1) {
        cuts.push(vec![&body[..at], &body[at..]]);
    }
    cuts
}

/// What is wrong with what a route makes of a case.
fn complaint(case: &Case, body: &[u8], route: Option<&Route>) -> Option<String> {
    let expected = &case.expect;
    let Some(route) = route else {
        return (expected.completeness != "NONE").then(|| "no route".to_owned());
    };
    let (generation, is_readable) = read(case, route, "", &[body]);
    let told = Told::new(generation, is_readable);
    if case.status >= 400 {
        let is_none = expected.completeness == "NONE" && told.usage.is_unknown();
        return (!is_none).then(|| format!("an error tells {told:?}"));
    }
    let completeness = match expected.completeness.as_str() {
        "NONE" => None,
        word => Some(serde_json::from_value(word.into()).expect("a completeness")),
    };
    let usage = serde_json::to_value(&expected.usage).expect("JSON");
    let wanted = Told {
        completeness,
        model: expected.model.clone(),
        id: expected.id.clone(),
        service_tier: expected.service_tier,
        usage: serde_json::from_value(usage).expect("members of a usage"),
        is_inconsistent: expected.is_inconsistent,
        further: expected.further.clone(),
        units: expected.units.clone(),
        reported_cost: expected.reported_cost.clone(),
    };
    (told != wanted).then(|| format!("\n    told   {told:?}\n    wanted {wanted:?}"))
}

fn check(complaints: &[String]) {
    assert!(complaints.is_empty(), "{}:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn each_golden_body_tells_what_it_must() {
    let mut complaints = Vec::new();
    for (provider, host) in folders() {
        for (case, body) in cases(provider) {
            let Case { name, method, path, expect, .. } = &case;
            let known = ["COMPLETE", "PARTIAL", "MISSING", "FAILED", "NONE"];
            assert!(known.contains(&expect.completeness.as_str()), "{name}");
            let usage: Usage = serde_json::to_value(&expect.usage)
                .and_then(serde_json::from_value)
                .expect("members of a usage");
            let members = serde_json::to_value(usage).expect("JSON");
            let is_member = |name: &String| members.get(name).is_some();
            assert!(expect.usage.keys().all(is_member), "{name}: {:?}", expect.usage);

            let configured = route(Some(provider), method, GATEWAY, path);
            let by_host = host.as_deref().map(|host| route(None, method, host, path));
            let by_path = route(None, method, GATEWAY, path);
            let ways = [("configured", Some(configured)), ("host", by_host)];
            let ways = ways.into_iter().chain([("path", Some(by_path))]);
            for (way, found) in ways.filter_map(|(way, found)| Some((way, found?))) {
                let complaint = complaint(&case, &body, found.as_ref());
                complaints.extend(
                    complaint.map(|text| format!("{} {name} ({way}): {text}", provider.name())),
                );
                let is_its = found.is_none_or(|Route { provider: found, .. }| {
                    [found.seller, found.family.seller()].contains(&provider)
                });
                assert!(way == "path" || is_its, "{} {name} ({way})", provider.name());
            }
        }
    }
    check(&complaints);
}

#[test]
fn a_golden_body_tells_the_same_however_it_comes() {
    let mut complaints = Vec::new();
    for (provider, _) in folders() {
        for (case, body) in cases(provider) {
            let Some(route) = route(Some(provider), &case.method, GATEWAY, &case.path) else {
                continue;
            };
            let whole = read(&case, &route, "", &[&body]);
            let places_max = if body.len() > 8192 { 500 } else { usize::MAX };
            let coded = gzip(&body);
            let plain = cuts(&body, places_max).into_iter().map(|cut| ("", cut));
            let coded = cuts(&coded, 50).into_iter().map(|cut| ("gzip", cut));
            for (coding, cut) in plain.chain(coded) {
                if read(&case, &route, coding, &cut) != whole {
                    let first = cut.first().map_or(0, |chunk| chunk.len());
                    let name = &case.name;
                    complaints.push(format!("{} {name} {coding} at {first}", provider.name()));
                }
            }
        }
    }
    check(&complaints);
}

/// The tokens of all runs.
fn of_all_runs(generation: &Generation) -> u64 {
    let further = generation.further.iter().map(|run| run.usage);
    further.fold(generation.usage, Usage::plus).total()
}

#[test]
fn a_golden_body_that_is_cut_tells_no_more_than_the_whole() {
    let mut complaints = Vec::new();
    for (provider, _) in folders() {
        for (case, body) in cases(provider) {
            let Some(route) = route(Some(provider), &case.method, GATEWAY, &case.path) else {
                continue;
            };
            let has_end = case.content_type == "application/json" && !case._is_aborted;
            let is_told_by_head = !case.response_headers.is_empty();
            let (whole, _) = read(&case, &route, "", &[&body]);
            let trimmed = body.trim_ascii_end().len();
            for at in (1..trimmed).step_by(body.len() / 2000 + 1) {
                let (cut, is_readable) = read(&case, &route, "", &[&body[..at]]);
                let completeness = cut.completeness(is_readable);
                let is_early = completeness == Some(Completeness::Complete)
                    && has_end
                    && !is_told_by_head
                    && body.starts_with(b"{");
                let is_more = of_all_runs(&cut) > of_all_runs(&whole);
                if is_early || is_more || cut.text_bytes > whole.text_bytes {
                    complaints.push(format!("{} {} at {at}", provider.name(), case.name));
                }
            }
        }
    }
    check(&complaints);
}

#[test]
fn a_golden_body_that_is_damaged_harms_nothing() {
    let mut dice = Dice(20_261_123);
    for (provider, _) in folders() {
        for (case, body) in cases(provider) {
            let Some(route) = route(Some(provider), &case.method, GATEWAY, &case.path) else {
                continue;
            };
            for _ in 0..200 {
                let mut damaged = body.clone();
                for _ in 0..dice.below(4) {
                    let at = dice.below(damaged.len() as u64) as usize;
                    let byte = dice.next().to_le_bytes()[0];
                    match (damaged.get_mut(at), dice.below(3)) {
                        (Some(place), 0) => *place = byte,
                        (Some(place), 1) => *place = b"{}[]\",:0\n"[usize::from(byte) % 9],
                        (Some(_), _) => drop(damaged.drain(at..damaged.len().min(at + 9))),
                        (None, _) => {}
                    }
                }
                damaged.truncate(dice.below(damaged.len() as u64 + 1) as usize);
                // What is told is told; there is no wrong answer but a panic.
                let (generation, is_readable) = read(&case, &route, "", &[&damaged]);
                let _ = generation.completeness(is_readable);
                let middle = damaged.len() / 2;
                let halves = [&damaged[..middle], &damaged[middle..]];
                let again = read(&case, &route, "", &halves);
                assert_eq!(again, (generation, is_readable), "{}", case.name);
            }
        }
    }
}
