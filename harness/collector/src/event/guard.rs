//! Reads the events of guards: the running totals of a scope, and a scope that crossed a level.

use rust_decimal::Decimal;
use serde_json::Value;

use crate::event::members::Members;
use crate::event::top_up::Account;

/// The levels, from the mildest to the strictest.
pub(crate) const LEVELS: [&str; 4] = ["NONE", "L1_ALERT", "L2_THROTTLE", "L3_BLOCK"];

/// The last has no totals.
const KINDS: [&str; 3] = ["margin", "budget", "loop"];
const BASES: [&str; 1] = ["prepaid_balance"];
const MODES: [&str; 2] = ["enforce", "observe"];
const SCOPES: [&str; 8] =
    ["customer", "session", "product", "agent", "tool", "team", "user", "api_key"];
const PERIODS: [&str; 4] = ["hour", "day", "month", "session"];
const ACTIONS: [&str; 5] = ["none", "alert", "throttle", "block", "pause"];
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

/// The member that tells the team, the user or the key, if that is the scope.
pub(crate) fn identity_member(scope: &str) -> Option<&'static str> {
    let members = [("team", "team_id"), ("user", "user_id"), ("api_key", "api_key_hash")];
    members.into_iter().find(|(kind, _)| *kind == scope).map(|(_, member)| member)
}

/// What a guard watches, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The guard's id.
    pub guard: String,
    /// The kind of its guard: `margin`, `budget` or `loop`. The type of a change of level names it
    /// if the data does not.
    pub kind: &'static str,
    /// `enforce` or `observe`; `None` if a change of level does not say.
    pub mode: Option<&'static str>,
    /// `customer`, `session`, `product`, `agent`, `tool`, `team`, `user` or `api_key`.
    pub scope: &'static str,
    /// Empty for a product.
    pub customer: String,
    /// The product, if the scope has one.
    pub product: Option<String>,
    /// The agent, if the scope has one.
    pub agent: Option<String>,
    /// 32 hexadecimal digits, if the scope has one.
    pub session_key: Option<String>,
    /// The tool, if the scope has one.
    pub tool: Option<String>,
    /// The team, the user or the hash of the API key, if that is the scope.
    pub identity: Option<String>,
    /// What of the scope is watched.
    pub metric: Option<String>,
    /// 32 hexadecimal digits, the same from every source.
    pub key: String,
    /// `hour`, `day`, `month` or `session`.
    pub period: &'static str,
    /// When the period began, as it came and in milliseconds since 1970; `None` for a session.
    pub period_start: Option<(String, i64)>,
}

impl Scope {
    /// When the period began, in milliseconds since 1970; -1 for a session, which has one period,
    /// whenever it began.
    pub(crate) fn period_ms(&self) -> i64 {
        self.period_start.as_ref().map_or(-1, |(_, ms)| *ms)
    }
}

/// The totals that one source has of one scope in one period, from the period's start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardTotals {
    /// What they are the totals of.
    pub scope: Scope,
    /// What the generations cost the operator, in `currency`.
    pub provider_cost: Decimal,
    /// What was earned, in `currency`.
    pub revenue: Decimal,
    /// Calls.
    pub calls: i64,
    /// Tokens.
    pub tokens: i64,
    /// Such as `L1_ALERT`.
    pub level: &'static str,
    /// ISO 4217.
    pub currency: String,
    /// Whether the guard goes by what the scope paid in advance.
    pub is_prepaid: bool,
}

impl GuardTotals {
    /// The account that the guard goes by; `None` if it goes by none.
    pub(crate) fn account(&self) -> Option<Account> {
        let scope = &self.scope;
        let name = match scope.scope {
            "customer" => Some(String::new()),
            "team" => scope.identity.clone(),
            "agent" => scope.agent.clone(),
            _ => None,
        };
        let (customer, currency) = (scope.customer.clone(), self.currency.clone());
        let account = |name| Account { customer, scope: scope.scope, name, currency };
        name.filter(|_| self.is_prepaid).map(account)
    }
}

/// A scope that went from one level to another. Amounts are `None` if the event does not have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LevelChange {
    /// What the guard watches.
    pub scope: Scope,
    /// The new level, such as `L3_BLOCK`.
    pub level: &'static str,
    /// The names of the webhooks to post it to.
    pub notify: Vec<String>,
    /// What is left of the revenue, as a share of one.
    pub margin: Option<Decimal>,
    /// What the generations cost the operator, in `currency`.
    pub provider_cost: Option<Decimal>,
    /// What was earned, in `currency`.
    pub revenue: Option<Decimal>,
    /// ISO 4217; `None` if the event has no amounts.
    pub currency: Option<String>,
}

impl LevelChange {
    /// True if it is for a webhook of this name; the one named `*` gets all of them.
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
        is_prepaid: data.optional("basis", |data, member| data.one_of(member, &BASES))?.is_some(),
    })
}

/// Reads a change of level; `kind` is that of the guard if the data names none.
pub(crate) fn level_change(data: &Members<'_>, kind: &'static str) -> Result<LevelChange, String> {
    let named = data.optional("guard_kind", |data, member| data.one_of(member, &KINDS))?;
    let scope = scope(data, named.unwrap_or(kind))?;
    data.one_of("previous_level", &LEVELS)?;
    data.one_of("reason", &REASONS)?;
    data.one_of("action", &ACTIONS)?;
    let margin = data.optional("margin", Members::share)?;
    data.optional("threshold", Members::share)?;
    let provider_cost = data.optional("total_provider_cost", Members::money)?;
    let revenue = data.optional("total_revenue", Members::money)?;
    data.optional("period_ends_at", Members::time)?;
    Ok(LevelChange {
        scope,
        level: data.one_of("level", &LEVELS)?,
        notify: notify(data)?,
        margin,
        provider_cost,
        revenue,
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
    let scope = data.one_of("scope", &SCOPES)?;
    let identity = match identity_member(scope) {
        Some(member) => Some(data.text(member)?),
        None => None,
    };
    Ok(Scope {
        guard: data.name("guard_id")?,
        kind,
        mode: data.optional("mode", |data, member| data.one_of(member, &MODES))?,
        scope,
        customer: data.text("customer_id")?,
        product: data.optional("product_id", Members::text)?,
        agent: data.optional("agent_id", Members::text)?,
        session_key: data.optional("session_key", Members::hex32)?,
        tool: data.optional("tool_name", Members::text)?,
        identity,
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
