//! Reads the events of guards: the running totals of a scope, and a scope that crossed a level.
//! What becomes of them is in `verdict.rs` and `guards.rs`.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::event::members::Members;

/// The levels, from the mildest to the strictest.
pub(crate) const LEVELS: [&str; 4] = ["NONE", "L1_ALERT", "L2_THROTTLE", "L3_BLOCK"];

/// The last has no totals.
const KINDS: [&str; 3] = ["margin", "budget", "loop"];
const MODES: [&str; 2] = ["enforce", "observe"];
const SCOPES: [&str; 5] = ["customer", "session", "product", "agent", "tool"];
const PERIODS: [&str; 4] = ["hour", "day", "month", "session"];
const ACTIONS: [&str; 4] = ["none", "alert", "throttle", "block"];
const REASONS: [&str; 8] = [
    "threshold",
    "recovered",
    "period_started",
    "configuration",
    "fleet",
    "collector_lost",
    "collector_back",
    "repeated_call",
];

/// A level as the ledger keeps it: 0 is the mildest, and the strictest is the greatest.
pub(crate) fn strictness(level: &str) -> i64 {
    (0..).zip(LEVELS).find(|(_, name)| *name == level).map_or(0, |(strictness, _)| strictness)
}

/// What a guard watches, and since when.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) guard: String,
    /// The kind of its guard, which a change of level may tell by its type alone.
    pub(crate) kind: &'static str,
    /// A change of level need not tell it.
    pub(crate) mode: Option<&'static str>,
    pub(crate) scope: &'static str,
    /// Empty for a product.
    pub(crate) customer: String,
    pub(crate) product: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) session_key: Option<String>,
    pub(crate) tool: Option<String>,
    pub(crate) metric: Option<String>,
    /// 32 hexadecimal digits, the same from every source.
    pub(crate) key: String,
    pub(crate) period: &'static str,
    /// As it came, and in milliseconds since 1970; `None` for a session.
    pub(crate) period_start: Option<(String, i64)>,
}

impl Scope {
    /// The period as the ledger's keys have it: a session's is one, whenever it began.
    pub(crate) fn period_ms(&self) -> i64 {
        self.period_start.as_ref().map_or(-1, |(_, ms)| *ms)
    }
}

/// The totals that one source has of one scope in one period, from the period's start.
#[derive(Debug)]
pub(crate) struct GuardTotals {
    pub(crate) scope: Scope,
    pub(crate) provider_cost: Decimal,
    pub(crate) revenue: Decimal,
    pub(crate) calls: i64,
    pub(crate) tokens: i64,
    pub(crate) level: &'static str,
    pub(crate) currency: String,
}

/// A scope that went from one level to another.
#[derive(Debug)]
pub(crate) struct LevelChange {
    pub(crate) scope: Scope,
    pub(crate) level: &'static str,
    /// The webhooks that want to know.
    pub(crate) notify: Vec<String>,
    pub(crate) currency: Option<String>,
}

impl LevelChange {
    /// Whether a webhook of this name is to be told; `*` is told of all.
    pub(crate) fn is_for(&self, webhook: &str) -> bool {
        webhook == "*" || self.notify.iter().any(|name| name == webhook)
    }
}

pub(crate) fn totals(data: &Members<'_>) -> Result<GuardTotals, String> {
    let scope = scope(data, data.one_of("guard_kind", &KINDS[..2])?)?;
    data.one_of("mode", &MODES)?;
    Ok(GuardTotals {
        scope,
        provider_cost: data.money("total_provider_cost")?,
        revenue: data.money("total_revenue")?,
        calls: data.count("calls")?,
        tokens: data.count("tokens")?,
        level: data.one_of("level", &LEVELS)?,
        currency: data.currency("currency")?,
    })
}

/// Reads the change of a guard that its event's type calls a `kind`. Amounts are checked where they are told, and stay in the
/// event.
pub(crate) fn level_change(data: &Members<'_>, kind: &'static str) -> Result<LevelChange, String> {
    let told = data.optional("guard_kind", |data, member| data.one_of(member, &KINDS))?;
    let scope = scope(data, told.unwrap_or(kind))?;
    data.one_of("previous_level", &LEVELS)?;
    data.one_of("reason", &REASONS)?;
    data.one_of("action", &ACTIONS)?;
    for member in ["margin", "threshold"] {
        data.optional(member, Members::share)?;
    }
    for member in ["total_provider_cost", "total_revenue"] {
        data.optional(member, Members::money)?;
    }
    data.optional("period_ends_at", Members::time)?;
    Ok(LevelChange {
        scope,
        level: data.one_of("level", &LEVELS)?,
        notify: notify(data)?,
        currency: data.optional("currency", Members::currency)?,
    })
}

fn scope(data: &Members<'_>, kind: &'static str) -> Result<Scope, String> {
    let period = data.one_of("period", &PERIODS)?;
    let period_start = if period != "session" {
        Some(data.time("period_started_at")?)
    } else if data.has("period_started_at") {
        return Err(data.wrong("period_started_at", "absent when period is session"));
    } else {
        None
    };
    if period_start.as_ref().is_some_and(|(_, ms)| *ms < 0) {
        return Err(data.wrong("period_started_at", "a time since 1970"));
    }
    Ok(Scope {
        guard: data.name("guard_id")?,
        kind,
        mode: data.optional("mode", |data, member| data.one_of(member, &MODES))?,
        scope: data.one_of("scope", &SCOPES)?,
        customer: data.text("customer_id")?,
        product: data.optional("product_id", Members::text)?,
        agent: data.optional("agent_id", Members::text)?,
        session_key: data.optional("session_key", Members::hex32)?,
        tool: data.optional("tool_name", Members::text)?,
        metric: data.optional("metric", Members::text)?,
        key: data.hex32("scope_key")?,
        period,
        period_start,
    })
}

fn notify(data: &Members<'_>) -> Result<Vec<String>, String> {
    let expected = "an array of strings";
    let Value::Array(names) = data.get("notify")? else {
        return Err(data.wrong("notify", expected));
    };
    let names = names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<_>>();
    names.ok_or_else(|| data.wrong("notify", expected))
}
