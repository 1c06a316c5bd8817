//! Reads the file of sinks: YAML or JSON, each sink under its name. Secrets stand in files of their
//! own, and no output shows them.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use axum::http::HeaderValue;
use reqwest::Url;
use serde_json::Value;

use crate::event::members::{Members, shown};
use crate::event::short_types;
use crate::handover::billing::{BILLED, Billing};
use crate::handover::sink::Sink;
use crate::handover::sinks::aforo::Aforo;
use crate::handover::sinks::amberflo::Amberflo;
use crate::handover::sinks::clickhouse::ClickHouse;
use crate::handover::sinks::json_lines::JsonLines;
use crate::handover::sinks::lago::Lago;
use crate::handover::sinks::metronome::Metronome;
use crate::handover::sinks::openmeter::OpenMeter;
use crate::handover::sinks::orb::Orb;
use crate::handover::sinks::otlp_logs::OtlpLogs;
use crate::handover::sinks::otlp_metrics::OtlpMetrics;
use crate::handover::sinks::stripe::{Stripe, Values};
use crate::handover::sinks::stripe_stream::{SESSION_PATH, StripeStream};
use crate::settings::yaml_or_json;

/// The most sinks of one collector. Each has a task and connections of its own.
const SINKS_MAX: usize = 32;
/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The most bytes of the file, and of a file with a secret.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const KEY_BYTES_MAX: u64 = 4096;
/// The most decimals of a price in whole units.
const DECIMALS_MAX: i64 = 12;
/// The largest file of JSON lines by default, and how many older ones are kept.
const ROTATE_BYTES: i64 = 256 * 1024 * 1024;
const KEEP: i64 = 10;
/// The members that every sink has.
const MEMBERS: [&str; 7] = ["type", "url", "key_file", "events", "from", "batch_events", "timeout"];

/// The sinks of a file, and how they are paced.
#[derive(Debug, Clone)]
pub struct Sinks {
    pub(crate) sinks: Vec<Arc<Configured>>,
    /// When to try again.
    pub pace: Pace,
}

/// How often a sink looks for events, and when it tries a receiver again that did not take some:
/// after `first`, then after twice as long, and so on up to `most`, each shortened by chance.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// How often it looks for events, and at the clock.
    pub poll: Duration,
    /// The first wait.
    pub first: Duration,
    /// The longest wait, unless the receiver asks for a longer one.
    pub most: Duration,
}

impl Default for Pace {
    fn default() -> Pace {
        Pace {
            poll: Duration::from_secs(1),
            first: Duration::from_secs(1),
            most: Duration::from_secs(300),
        }
    }
}

/// One sink.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) name: String,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) target: Target,
    /// The types of events that it gets.
    pub(crate) events: BTreeSet<String>,
    /// Whether a new one begins with the first event of the ledger.
    pub(crate) from_first: bool,
    /// Records in a request.
    pub(crate) records: usize,
    /// How long the receiver may take to answer.
    pub(crate) timeout: Duration,
}

/// Where a sink sends to.
#[derive(Debug)]
pub(crate) enum Target {
    /// The URL without what the sink appends.
    Http {
        url: Url,
        key: Option<Key>,
    },
    File(JsonLines),
}

/// A secret in a file, which is read again when the receiver no longer takes it.
pub(crate) struct Key {
    file: PathBuf,
    text: RwLock<String>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.file.display())
    }
}

impl Key {
    fn open(file: &Path) -> anyhow::Result<Key> {
        let text = RwLock::new(read_key(file)?);
        Ok(Key { file: file.to_owned(), text })
    }

    pub(crate) fn text(&self) -> String {
        self.text.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again; a wrong one leaves the key as it was.
    pub(crate) fn refresh(&self) {
        match read_key(&self.file) {
            Ok(text) => *self.text.write().unwrap_or_else(PoisonError::into_inner) = text,
            Err(error) => tracing::warn!("the key stays as it was: {error:#}"),
        }
    }
}

fn read_key(file: &Path) -> anyhow::Result<String> {
    let text = read_text(file, KEY_BYTES_MAX)?;
    let text = text.trim();
    let name = file.display();
    ensure!(!text.is_empty(), "{name}: must not be empty");
    // The error does not show it.
    ensure!(HeaderValue::from_str(text).is_ok(), "{name}: must be one line of ASCII");
    Ok(text.to_owned())
}

fn read_text(file: &Path, bytes_max: u64) -> anyhow::Result<String> {
    let name = file.display();
    let mut text = String::new();
    let opened = File::open(file).with_context(|| format!("cannot read {name}"))?;
    let read = opened.take(bytes_max + 1).read_to_string(&mut text);
    read.with_context(|| format!("cannot read {name}"))?;
    ensure!(text.len() as u64 <= bytes_max, "{name}: must be at most {bytes_max} bytes");
    Ok(text)
}

impl Sinks {
    /// Reads a file in YAML or JSON.
    ///
    /// # Errors
    ///
    /// Names the file, the place in it and the value found there.
    pub fn read(file: &Path) -> anyhow::Result<Sinks> {
        let name = file.display();
        let text = read_text(file, FILE_BYTES_MAX)?;
        let root =
            yaml_or_json(&text).with_context(|| format!("{name} is neither YAML nor JSON"))?;
        let Value::Object(root) = &root else {
            bail!("{name}: must be a mapping with `sinks`, found {}", shown(&root));
        };
        let root = Members { path: "".into(), object: root };
        let sinks = root.only(&["sinks"]).and_then(|()| root.members("sinks"));
        let sinks = sinks.map_err(|reason| anyhow!("{name}: {reason}"))?;
        ensure!(
            (1..=SINKS_MAX).contains(&sinks.object.len()),
            "{name}: sinks: must be 1 to {SINKS_MAX}, found {}",
            sinks.object.len()
        );
        let sinks = sinks.object.keys().map(|sink| {
            let members = sinks.members(sink).map_err(|reason| anyhow!("{name}: {reason}"))?;
            configured(sink, &members).map(Arc::new).with_context(|| format!("{name}"))
        });
        Ok(Sinks { sinks: sinks.collect::<anyhow::Result<_>>()?, pace: Pace::default() })
    }

    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.sinks.iter().map(|sink| sink.name.clone()).collect()
    }
}

/// What a type of sink wants of its members.
struct Kind {
    name: &'static str,
    /// The receiver's own URL, where it has one.
    url: Option<&'static str>,
    needs_key: bool,
    members: &'static [&'static str],
}

const BILLING: [&str; 3] = Billing::MEMBERS;

const KINDS: [Kind; 12] = [
    Kind { name: "openmeter", url: None, needs_key: false, members: &["path"] },
    kind("metronome", Some("https://api.metronome.com"), true, &[]),
    kind("lago", Some("https://api.getlago.com"), true, &[]),
    kind("orb", Some("https://api.withorb.com"), true, &[]),
    kind("amberflo", Some("https://app.amberflo.io"), true, &[]),
    kind("stripe", Some("https://api.stripe.com"), true, &["decimals"]),
    kind(
        "stripe_stream",
        Some("https://meter-events.stripe.com"),
        true,
        &["decimals", "session_url"],
    ),
    kind("aforo", Some("https://ingest.aforo.ai"), true, &["tenant", "case"]),
    kind("json_lines", None, false, &["file", "rotate_bytes", "keep"]),
    kind("otlp_logs", None, false, &["cost_attributes"]),
    kind("otlp_metrics", None, false, &[]),
    kind("clickhouse", None, false, &["table", "user"]),
];

const fn kind(
    name: &'static str,
    url: Option<&'static str>,
    needs_key: bool,
    members: &'static [&'static str],
) -> Kind {
    Kind { name, url, needs_key, members }
}

impl Kind {
    fn bills(&self) -> bool {
        !["json_lines", "otlp_logs", "otlp_metrics", "clickhouse"].contains(&self.name)
    }

    /// The members that a sink of this type may have.
    fn known(&self) -> Vec<&'static str> {
        let billing: &[&str] = if self.bills() { &BILLING } else { &[] };
        let is_file = self.name == "json_lines";
        let shared = MEMBERS
            .into_iter()
            .filter(|member| !is_file || !["url", "key_file", "timeout"].contains(member));
        shared.chain(billing.iter().copied()).chain(self.members.iter().copied()).collect()
    }
}

fn configured(name: &str, members: &Members<'_>) -> anyhow::Result<Configured> {
    let place = members.path.trim_end_matches('.').to_owned();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    ensure!(
        (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain),
        "{place}: the name must be 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - _ ."
    );
    let kind = kind_of(members).map_err(anyhow::Error::msg)?;
    members.only(&kind.known()).map_err(anyhow::Error::msg)?;
    let sink = sink(kind, members).map_err(anyhow::Error::msg)?;
    let target = target(kind, members)?;
    let (events, from_first) = chosen(members, &*sink).map_err(anyhow::Error::msg)?;
    let limits = sink.limits();
    let records = number(members, "batch_events", (1, as_i64(limits.records_max)))
        .map_err(anyhow::Error::msg)?;
    let seconds = number(members, "timeout", (1, 600)).map_err(anyhow::Error::msg)?.unwrap_or(30);
    Ok(Configured {
        name: name.to_owned(),
        sink,
        target,
        events,
        from_first,
        records: records.and_then(|n| usize::try_from(n).ok()).unwrap_or(limits.records),
        timeout: Duration::from_secs(seconds.unsigned_abs()),
    })
}

fn kind_of(members: &Members<'_>) -> Result<&'static Kind, String> {
    let names: Vec<&'static str> = KINDS.iter().map(|kind| kind.name).collect();
    let name = members.one_of("type", &names)?;
    let kind = KINDS.iter().find(|kind| kind.name == name);
    kind.ok_or_else(|| members.wrong("type", "known"))
}

/// The types of events, and whether it begins with the first.
fn chosen(members: &Members<'_>, sink: &dyn Sink) -> Result<(BTreeSet<String>, bool), String> {
    let all = || short_types().chain(["other"]);
    let billed = || BILLED.iter().map(|(kind, _)| *kind);
    let known: Vec<&str> = if sink.takes_all() { all().collect() } else { billed().collect() };
    let chosen = match members.optional("events", Members::names)? {
        None => known.iter().map(|kind| (*kind).to_owned()).collect(),
        Some(names) => {
            if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
                let known = known.join(", ");
                return Err(format!(
                    "{}events: {unknown:?} is unknown, expected some of {known}",
                    members.path
                ));
            }
            names.into_iter().map(str::to_owned).collect()
        }
    };
    let from = members.optional("from", |members, name| members.one_of(name, &["now", "first"]))?;
    Ok((chosen, from == Some("first")))
}

fn number(
    members: &Members<'_>,
    member: &str,
    (least, most): (i64, i64),
) -> Result<Option<i64>, String> {
    members.optional(member, |members, member| {
        let number = members.count(member).ok().filter(|n| (least..=most).contains(n));
        number.ok_or_else(|| members.wrong(member, &format!("{least} to {most}")))
    })
}

fn as_i64(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn sink(kind: &Kind, members: &Members<'_>) -> Result<Box<dyn Sink>, String> {
    let billing = |splits| Billing::read(members, splits);
    let values = || {
        let decimals = number(members, "decimals", (0, DECIMALS_MAX))?.unwrap_or(0);
        let decimals = u32::try_from(decimals).unwrap_or(0);
        Ok::<_, String>(Values { billing: billing(true)?, decimals })
    };
    Ok(match kind.name {
        "openmeter" => {
            let path = members.optional("path", Members::name)?;
            let path = path.unwrap_or_else(|| "/api/v1/events".to_owned());
            Box::new(OpenMeter { billing: billing(false)?, path })
        }
        "metronome" => Box::new(Metronome(billing(false)?)),
        "lago" => Box::new(Lago(billing(false)?)),
        "orb" => Box::new(Orb(billing(false)?)),
        "amberflo" => Box::new(Amberflo(billing(true)?)),
        "stripe" => Box::new(Stripe(values()?)),
        "stripe_stream" => {
            let url = members.optional("session_url", Members::name)?;
            let url = url.unwrap_or_else(|| "https://api.stripe.com".to_owned());
            if !members.has("customers") {
                return Err(format!("{}customers: missing", members.path));
            }
            let session_url = format!("{}{SESSION_PATH}", url.trim_end_matches('/'));
            Box::new(StripeStream { values: values()?, session_url })
        }
        "aforo" => {
            let case = members
                .optional("case", |members, name| members.one_of(name, &["camel", "snake"]))?;
            let is_snake = case == Some("snake");
            Box::new(Aforo {
                billing: billing(true)?,
                tenant: header(members, "tenant")?,
                is_snake,
            })
        }
        "json_lines" => Box::new(json_lines(members)?),
        "otlp_logs" => {
            let with_costs = members.optional("cost_attributes", Members::flag)?.unwrap_or(false);
            Box::new(OtlpLogs { with_costs })
        }
        "otlp_metrics" => Box::new(OtlpMetrics),
        _ => {
            let table = members.optional("table", Members::name)?;
            let table = table.unwrap_or_else(|| "agent_meter_events".to_owned());
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
            if !table.bytes().all(is_plain) {
                return Err(members.wrong("table", "of A-Z a-z 0-9 _ ."));
            }
            let user = members.optional("user", header)?;
            Box::new(ClickHouse { table, user })
        }
    })
}

/// A text that may stand in a header.
fn header(members: &Members<'_>, member: &str) -> Result<String, String> {
    let text = members.name(member)?;
    let is_header = HeaderValue::from_str(&text).is_ok();
    if is_header { Ok(text) } else { Err(members.wrong(member, "one line of ASCII")) }
}

fn json_lines(members: &Members<'_>) -> Result<JsonLines, String> {
    let file = PathBuf::from(members.name("file")?);
    let rotate = number(members, "rotate_bytes", (1, i64::MAX))?.unwrap_or(ROTATE_BYTES);
    let keep = number(members, "keep", (0, 1000))?.unwrap_or(KEEP);
    let keep = u32::try_from(keep).unwrap_or(0);
    Ok(JsonLines { file, rotate_bytes: rotate.unsigned_abs(), keep })
}

fn target(kind: &Kind, members: &Members<'_>) -> anyhow::Result<Target> {
    if kind.name == "json_lines" {
        return json_lines(members).map(Target::File).map_err(anyhow::Error::msg);
    }
    let url = members.optional("url", Members::name).map_err(anyhow::Error::msg)?;
    let path = &members.path;
    let url = url.or(kind.url.map(str::to_owned)).with_context(|| format!("{path}url: missing"))?;
    let Ok(parsed) = Url::parse(&url) else {
        bail!("{path}url: must be a URL such as https://example.com, found {url:?}");
    };
    ensure!(
        ["http", "https"].contains(&parsed.scheme()) && parsed.has_host(),
        "{path}url: must begin with http:// or https://, found {url:?}"
    );
    // The error does not show the URL, which contains a password.
    ensure!(
        parsed.username().is_empty() && parsed.password().is_none(),
        "{path}url: must hold no user and no password; give key_file"
    );
    ensure!(
        parsed.query().is_none() && parsed.fragment().is_none(),
        "{path}url: must have no query, found {url:?}"
    );
    let file = members.optional("key_file", Members::name).map_err(anyhow::Error::msg)?;
    ensure!(file.is_some() || !kind.needs_key, "{path}key_file: missing");
    let key = file.map(|file| Key::open(Path::new(&file))).transpose();
    Ok(Target::Http { url: parsed, key: key.with_context(|| format!("{path}key_file"))? })
}
