//! The schema and the filter's reader are held against each other: each value of some configurations is
//! replaced by many others, and what the one takes or refuses for its form, the other must too.

use std::collections::BTreeSet;

use agent_meter_core::config::control::PluginConfig;
use agent_meter_core::config::schema::schema;
use anyhow::ensure;
use jsonschema::Validator;
use serde_json::{Value, json};

use crate::definitions::validator;
use crate::examples::{Example, examples};
use crate::read;

/// Beginnings of errors about the form of a value, which a schema knows.
const OF_FORM: [&str; 5] =
    ["unknown field", "unknown variant", "missing field", "invalid type", "invalid value: string"];

/// Numbers beyond what their readers take, to which the schema sets no bound.
const BOUNDS: [&str; 4] =
    ["1.0000000000000", "0.05000000000000000", "999999999999.5", "1000000000000"];

/// Has every option that `envoy/filter.yaml` leaves empty.
const RICH: &str = "filter/core/tests/schema/rich.yaml";

/// Values that options take, and such that few take.
fn replacements() -> Vec<Value> {
    let mut values = vec![
        json!(null),
        json!(4_294_967_295_u32),
        json!(true),
        json!(0),
        json!(1),
        json!(250),
        json!(-1),
        json!(1.5),
        json!([]),
        json!({}),
        json!(["x"]),
        json!([1]),
        json!({ "x": "1" }),
        json!({ "value": "acme" }),
        json!([{ "peer": "uri" }]),
        json!({ "peer": "sun" }),
        json!({ "jwt_claim": 1 }),
        json!({ "calls": 10, "window": "1m" }),
        json!({ "web_searches": "0.01" }),
        json!({ "web_search": "1" }),
    ];
    let texts = [
        "",
        "x",
        "*",
        "auto",
        "/x",
        "x-header",
        "0",
        "0.5",
        ".5",
        "1.",
        "1e3",
        "-1",
        "5%",
        "-5%",
        "12.5%",
        "5s",
        "0s",
        "5 s",
        "250ms",
        "1d",
        "s",
        "5req/sec",
        " +5 req/min",
        "5req/day",
        "req/s",
        "2026-01-01",
        "2026-0001-01",
        "2026-01-01T08:00:00Z",
        "2026-01-01T08:00:00",
        "01.01.2026",
        "16:30-00:30",
        "24:00-25:00",
        "\u{660}s",
        "5\n",
        "pass",
        "SUCCESS",
        "a2345678901234567890123456789012",
        "Open AI",
    ];
    values.extend(texts.map(Value::from));
    values.extend(BOUNDS.map(Value::from));
    values
}

/// Collects the words of all enums.
fn collect_words(schema: &Value, words: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            words.extend(members.get("const").and_then(Value::as_str).map(str::to_owned));
            members.values().for_each(|member| collect_words(member, words));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_words(item, words)),
        _ => {}
    }
}

/// Collects the JSON pointers of all values inside a value.
fn collect_places(at: &str, value: &Value, places: &mut Vec<String>) {
    let mut inside = |name: &str, member: &Value| {
        let place = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
        collect_places(&place, member, places);
        places.push(place);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, member)| inside(name, member)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(at, item)| inside(&at.to_string(), item));
        }
        _ => {}
    }
}

/// The configuration without the member at this place; `None` if it is in a list.
fn without(config: &Value, place: &str) -> Option<Value> {
    let (object, name) = place.rsplit_once('/')?;
    let mut changed = config.clone();
    let name = name.replace("~1", "/").replace("~0", "~");
    changed.pointer_mut(object)?.as_object_mut()?.remove(&name)?;
    Some(changed)
}

/// The configuration with a member that nobody knows in the object at this place.
fn with_unknown(config: &Value, place: &str) -> Option<Value> {
    let mut changed = config.clone();
    changed.pointer_mut(place)?.as_object_mut()?.insert("no_such_option".to_owned(), json!(1));
    Some(changed)
}

/// Counts of changed configurations that both took, and that both refused for their form.
#[derive(Default)]
struct Agreed {
    taken: u32,
    refused: u32,
}

/// Holds the two against each other.
fn compare(validator: &Validator, config: &Value, agreed: &mut Agreed) -> Result<(), String> {
    let fits = validator.is_valid(config);
    match PluginConfig::from_bytes(config.to_string().as_bytes()) {
        Ok(_) if fits => agreed.taken += 1,
        Ok(_) => {
            let why = validator.iter_errors(config).next();
            return Err(format!("the filter takes what the schema refuses: {why:?}"));
        }
        Err(error) if OF_FORM.iter().any(|form| error.reason.starts_with(form)) => {
            if fits && !BOUNDS.iter().any(|number| error.reason.contains(number)) {
                return Err(format!("the schema takes what the filter refuses: {error}"));
            }
            agreed.refused += 1;
        }
        Err(_) => {}
    }
    Ok(())
}

#[test]
fn the_schema_and_the_filter_agree() -> anyhow::Result<()> {
    let validator = validator()?;
    let replacements = replacements();
    let mut words = BTreeSet::new();
    collect_words(&schema(), &mut words);
    let words: Vec<Value> = words.into_iter().map(Value::from).collect();
    let shown = ["envoy/filter.yaml", RICH, "envoy/control-listener.yaml"];
    let mut agreed = Agreed::default();
    let mut apart = Vec::new();
    for Example { place: file, config } in examples()? {
        if !shown.iter().any(|name| file.starts_with(name)) {
            continue;
        }
        let mut places = vec![String::new()];
        collect_places("", &config, &mut places);
        for place in places {
            // Words of all enums where there is one.
            let is_word = config.pointer(&place).is_some_and(|value| words.contains(value));
            let words = words.iter().filter(|_| is_word);
            let replaced = replacements.iter().chain(words).filter_map(|value| {
                let mut changed = config.clone();
                *changed.pointer_mut(&place)? = value.clone();
                Some((value.to_string(), changed))
            });
            let removed = without(&config, &place).map(|changed| ("nothing".to_owned(), changed));
            let unknown = with_unknown(&config, &place).map(|changed| ("more".to_owned(), changed));
            for (what, changed) in replaced.chain(removed).chain(unknown) {
                if let Err(fault) = compare(&validator, &changed, &mut agreed) {
                    apart.push(format!("{file} {place} with {what}: {fault}"));
                }
            }
        }
    }
    ensure!(apart.is_empty(), "{} differences:\n{}", apart.len(), apart.join("\n"));
    ensure!(agreed.taken > 1000, "only {} taken", agreed.taken);
    ensure!(agreed.refused > 1000, "only {} refused", agreed.refused);
    Ok(())
}

#[test]
fn the_bounds_of_numbers_are_those_of_the_filter() -> anyhow::Result<()> {
    let validator = validator()?;
    let mut bounds = 0;
    for Example { config, .. } in
        examples()?.into_iter().filter(|one| one.place == "envoy/filter.yaml")
    {
        let mut places = Vec::new();
        collect_places("", &config, &mut places);
        for place in places.iter().filter(|place| config.pointer(place).is_some_and(Value::is_u64))
        {
            let with = |number: u64| {
                let mut changed = config.clone();
                if let Some(value) = changed.pointer_mut(place) {
                    *value = number.into();
                }
                changed
            };
            let refused = PluginConfig::from_bytes(with(4_294_967_295).to_string().as_bytes());
            let Err(error) = refused else { continue };
            let told =
                error.reason.strip_prefix("expected ").and_then(|told| told.split_once(", "));
            let (least, most) =
                told.and_then(|(told, _)| told.split_once(" to ")).unwrap_or_default();
            let (least, most): (u64, u64) = (least.parse()?, most.parse()?);
            ensure!(validator.is_valid(&with(least)) && validator.is_valid(&with(most)), "{place}");
            ensure!(!validator.is_valid(&with(most + 1)), "{place} has no highest value");
            let below = least.checked_sub(1);
            ensure!(
                below.is_none_or(|below| !validator.is_valid(&with(below))),
                "{place} has no lowest value"
            );
            bounds += 1;
        }
    }
    ensure!(bounds >= 6, "only {bounds} options with bounds");
    Ok(())
}

#[test]
fn every_option_of_the_schema_is_in_an_example() -> anyhow::Result<()> {
    let mut named = BTreeSet::new();
    collect_options(&schema(), &mut named);
    let shown = format!(
        "{}{}{}",
        read("envoy/filter.yaml")?,
        read(RICH)?,
        read("envoy/control-listener.yaml")?
    );
    let words: BTreeSet<&str> =
        shown.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).collect();
    let missing: Vec<&String> =
        named.iter().filter(|name| !words.contains(name.as_str())).collect();
    ensure!(missing.is_empty(), "no example has {missing:?}: add them to {RICH}");
    Ok(())
}

/// Collects the names of all options.
fn collect_options(schema: &Value, named: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            let options = members.get("properties").and_then(Value::as_object);
            named.extend(options.into_iter().flat_map(|options| options.keys().cloned()));
            members.values().for_each(|member| collect_options(member, named));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_options(item, named)),
        _ => {}
    }
}
