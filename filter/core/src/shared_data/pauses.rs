//! Whose calls an operator has paused, until a time or until they are resumed. Nothing else happens
//! to who is paused: streams run on, and sessions stay open.
//!
//! To the next maintainer: the key, after the plugin's prefix, is `P`. Only control listeners write
//! it, with compare-and-swap, as several VMs may; every VM reads it on its tick. Shared data lives as
//! long as the Envoy process. It is JSON, as answers to the operator are: readers and writers of its
//! own would be 20 KB of the module.

use serde_json::{Map, Value};

use crate::base::limits::{COUNTER_TRIES_MAX, PAUSES_MAX};
use crate::base::time::Timestamp;
use crate::domain::session::SessionRef;
use crate::host::{Expect, Host};

/// What may be named, as events name it.
pub(crate) const NAMES: [&str; 6] =
    ["product", "customer", "team", "user", "agent", "api_key_hash"];

/// Until when a pause holds, in milliseconds since 1970; absent until it is resumed.
const UNTIL: &str = "until_ms";

/// An operator's order to refuse calls for a while.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pause {
    /// A name for each of [`NAMES`], or an empty one; a call that has all of them is paused.
    pub(crate) names: [String; NAMES.len()],
    /// Until when; `None` means until it is resumed.
    pub(crate) until: Option<Timestamp>,
}

impl Pause {
    /// Whether it holds now.
    pub(crate) fn is_present(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Whether it is for calls of this session.
    pub(crate) fn is_for(&self, session: &SessionRef) -> bool {
        let SessionRef { product_id, identity, .. } = session;
        let of_call = [
            Some(product_id),
            Some(&identity.customer),
            Some(&identity.team),
            identity.user.as_ref(),
            Some(&identity.agent),
            identity.api_key.as_ref(),
        ];
        let agrees =
            |(name, of_call): (&String, Option<&String>)| name.is_empty() || of_call == Some(name);
        !self.is_empty() && self.names.iter().zip(of_call).all(agrees)
    }

    /// Whether it names nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.iter().all(String::is_empty)
    }

    /// The names that it has, with what they are.
    pub(crate) fn to_json(&self) -> Map<String, Value> {
        let mut all = Map::new();
        // One by one: to collect a map takes 6 KB of the module.
        for (kind, name) in NAMES.iter().zip(&self.names).filter(|(_, name)| !name.is_empty()) {
            all.insert((*kind).to_owned(), name.as_str().into());
        }
        all
    }

    fn stored(&self) -> Value {
        let mut stored = self.to_json();
        if let Some(until) = self.until {
            stored.insert(UNTIL.to_owned(), until.0.into());
        }
        Value::Object(stored)
    }

    fn read(stored: &Value) -> Self {
        let name = |kind| stored.get(kind).and_then(Value::as_str).unwrap_or_default().to_owned();
        let until = stored.get(UNTIL).and_then(Value::as_u64).map(Timestamp);
        Self { names: NAMES.map(name), until }
    }
}

fn key(prefix: &str) -> String {
    format!("{prefix}P")
}

/// All that hold now.
pub(crate) fn read(host: &mut impl Host, prefix: &str, now: Timestamp) -> Vec<Pause> {
    let bytes = host.get(&key(prefix)).map(|(bytes, _)| bytes).unwrap_or_default();
    if bytes.is_empty() {
        return Vec::new();
    }
    let stored: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let mut pauses: Vec<Pause> = stored.as_array().into_iter().flatten().map(Pause::read).collect();
    pauses.retain(|pause| pause.is_present(now));
    pauses
}

/// Why an order was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotDone {
    /// There are as many pauses as there may be.
    TooMany,
    /// Nothing is paused by these names.
    NotPaused,
    /// Others wrote all the time.
    Contended,
}

/// Puts a pause in the place of one with the same names, or takes that away if `is_resumed`. Returns
/// all that hold then.
pub(crate) fn change(
    host: &mut impl Host,
    prefix: &str,
    pause: &Pause,
    is_resumed: bool,
    now: Timestamp,
) -> Result<Vec<Pause>, NotDone> {
    for _ in 0..COUNTER_TRIES_MAX {
        let version = host.get(&key(prefix)).map(|(_, version)| version);
        let mut pauses = read(host, prefix, now);
        let before = pauses.len();
        pauses.retain(|earlier| earlier.names != pause.names);
        if is_resumed && pauses.len() == before {
            return Err(NotDone::NotPaused);
        }
        if !is_resumed {
            if pauses.len() >= PAUSES_MAX {
                return Err(NotDone::TooMany);
            }
            pauses.push(pause.clone());
        }
        let stored = Value::Array(pauses.iter().map(Pause::stored).collect()).to_string();
        let expect = version.map_or(Expect::Absent, Expect::Version);
        if host.set(&key(prefix), stored.as_bytes(), expect).is_ok() {
            return Ok(pauses);
        }
    }
    Err(NotDone::Contended)
}
