//! The reports on guards: the totals and level of each scope in the whole fleet, and the changes of
//! level.

use rust_decimal::Decimal;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::event::guard::{LEVELS, identity_member, strictness};
use crate::ledger::Ledger;
use crate::ledger::tables::GUARD_TOTALS;
use crate::money;
use crate::query::{BadQuery, Conditions, Page, Parameters, count, rfc3339};
use crate::sql::{self, Row, values};

/// Digits behind the point of a margin, a share of one.
const MARGIN_DIGITS: u32 = 4;

/// How far the clock of an Envoy, which says when a period began, may be ahead of ours: a day. A
/// clock that is years ahead must not hide the totals of the others.
const AHEAD_MS: i64 = 24 * 3600 * 1000;

/// Which scopes to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GuardsQuery {
    /// Only of this guard.
    pub guard_id: Option<String>,
    /// Only at this level, such as `L3_BLOCK`: the strictest of the fleet's.
    pub level: Option<String>,
    /// Only of this customer.
    pub customer_id: Option<String>,
    /// How many; it has no further pages.
    pub page: Page,
    /// Only what sources told that wrote with a secret; no parameter sets it.
    pub proven_only: bool,
}

/// The totals of sources that wrote with a secret.
const PROVEN: &str = "(SELECT * FROM guard_totals AS proven WHERE EXISTS
    (SELECT 1 FROM sources WHERE sources.source = proven.source AND writer IS NOT NULL))";

impl GuardsQuery {
    /// Reads the parameters `guard_id`, `level`, `customer_id` and `limit`.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<GuardsQuery, BadQuery> {
        let mut parameters =
            Parameters::new(pairs, &["guard_id", "level", "customer_id", "limit"])?;
        let level = parameters.take("level");
        if let Some(level) = level.as_deref().filter(|level| !LEVELS.contains(level)) {
            let expected = LEVELS.join(", ");
            return Err(BadQuery::new(format!(
                "level: must be one of {expected}, found {level:?}"
            )));
        }
        Ok(GuardsQuery {
            guard_id: parameters.take("guard_id"),
            level,
            customer_id: parameters.take("customer_id"),
            page: parameters.take_page()?,
            proven_only: false,
        })
    }
}

/// Scopes, the strictest level first, and within a level the one with the latest event first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Guards {
    /// At most as many as asked for.
    pub guards: Vec<GuardState>,
    /// True if there are more.
    pub more: bool,
}

/// The totals and level of one scope in its latest period, over all sources.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GuardState {
    /// The guard.
    pub guard_id: String,
    /// `margin`, `budget` or `loop`.
    pub guard_kind: String,
    /// `enforce` if any source does, else `observe`; `None` if no source says.
    pub mode: Option<String>,
    /// `customer`, `session`, `product`, `agent`, `tool`, `team`, `user` or `api_key`.
    pub scope: String,
    /// 32 hexadecimal digits, the same from every source.
    pub scope_key: String,
    /// Empty for a product.
    pub customer_id: String,
    /// The product, if the scope has one.
    pub product_id: Option<String>,
    /// The agent, if the scope has one.
    pub agent_id: Option<String>,
    /// The team, if that is the scope; `anonymous` for all requests that name none.
    pub team_id: Option<String>,
    /// The user, in the same way.
    pub user_id: Option<String>,
    /// The hash of the API key, in the same way.
    pub api_key_hash: Option<String>,
    /// 32 hexadecimal digits, if the scope has one.
    pub session_key: Option<String>,
    /// The tool, if the scope has one.
    pub tool_name: Option<String>,
    /// What of the scope is watched.
    pub metric: Option<String>,
    /// `hour`, `day`, `month` or `session`.
    pub period: String,
    /// RFC 3339; `None` for a session.
    pub period_started_at: Option<String>,
    /// The strictest of all sources'.
    pub level: &'static str,
    /// How many sources sent events on it in this period.
    pub emitters: u64,
    /// Those of them that sent a level and no totals, as for a guard without `fleet` or of the kind
    /// `loop`: the sums lack what they counted.
    pub emitters_without_totals: u64,
    /// Calls of all that sent totals; `None`, as the other sums, if none did: nobody told, and 0
    /// would be a claim.
    pub calls: Option<u64>,
    /// Tokens of all of them.
    pub tokens: Option<u64>,
    /// Sum of all of them, in `currency`.
    #[serde(serialize_with = "money::optional::serialize")]
    pub total_provider_cost: Option<Decimal>,
    /// Sum of what was earned, in `currency`.
    #[serde(serialize_with = "money::optional::serialize")]
    pub total_revenue: Option<Decimal>,
    /// The share of `total_revenue` that is left over the cost, to 4 digits behind the point;
    /// `None` without revenue.
    #[serde(with = "money::optional")]
    pub margin: Option<Decimal>,
    /// What the customer's contract brings in a period of the guard; `None` if none is known.
    #[serde(with = "money::optional")]
    pub contracted_revenue: Option<Decimal>,
    /// The plan that the contract names.
    pub plan: Option<String>,
    /// ISO 4217; `None` if no source sent totals.
    pub currency: Option<String>,
    /// RFC 3339, UTC: when the last event on it was made.
    pub told_at: String,
}

impl Ledger {
    /// Each scope in its latest period. It leaves contracts out, which the ledger does not know.
    pub fn guards(&self, query: &GuardsQuery) -> anyhow::Result<Guards> {
        let mut conditions = Conditions::default();
        conditions.and_equal("guard_id", query.guard_id.as_deref());
        conditions.and_equal("customer", query.customer_id.as_deref());
        let begun_ms = self.now_ms() + AHEAD_MS;
        let mut values = vec![begun_ms.into()];
        values.append(&mut conditions.values);
        let mut having = String::new();
        if let Some(level) = &query.level {
            having = "HAVING max(level) = ?".to_owned();
            values.push(strictness(level).into());
        }
        // The names are the same in each row of a scope. A source that sent a level and no totals
        // need not know the currency.
        let table = if query.proven_only { PROVEN } else { GUARD_TOTALS.name };
        let sql = format!(
            "WITH latest AS (
               SELECT *, coalesce(currency, max(currency) OVER (PARTITION BY guard_id, scope_key))
                AS unit
               FROM {table} AS told
               WHERE period_ms = (SELECT max(period_ms) FROM {table} AS other
                WHERE other.guard_id = told.guard_id AND other.scope_key = told.scope_key
                 AND other.period_ms < ?)
             )
             SELECT guard_id, max(kind), min(mode), max(scope), scope_key, max(customer),
              max(product), max(agent), max(session_key), max(tool), max(metric), max(period),
              max(period_start), max(level), count(*), count_sum(calls), count_sum(tokens),
              decimal_sum(provider_cost), decimal_sum(revenue), unit, max(told_ms),
              max(identity), count(*) FILTER (WHERE sequence > 0)
             FROM latest{} GROUP BY guard_id, scope_key, unit {having}
             ORDER BY max(level) DESC, max(told_ms) DESC, guard_id, scope_key LIMIT {}",
            conditions.sql(),
            query.page.limit + 1
        );
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(&sql)?;
            let mut guards = statement.query_map(&values, state)?;
            let limit = usize::try_from(query.page.limit)?;
            let more = guards.len() > limit;
            guards.truncate(limit);
            Ok(Guards { guards, more })
        })
    }

    /// The events of scopes that crossed a level, byte for byte as they came, the newest first;
    /// `after` of the page is the `next` of the one before it.
    pub fn alerts(&self, page: Page) -> anyhow::Result<Alerts> {
        // SQLite uses the index `events_alerts` only if these types are the same, in the same
        // order, as in the index.
        let sql = format!(
            "SELECT position, raw FROM events WHERE type IN
              ('agent-meter.margin_level_changed', 'agent-meter.budget_level_changed',
               'agent-meter.loop_level_changed')
              AND position < ? ORDER BY position DESC LIMIT {}",
            page.limit + 1
        );
        let before = page.after.unwrap_or(i64::MAX);
        let (alerts, next) = self.page_of_events(&sql, values![before], page)?;
        Ok(Alerts { alerts, next })
    }
}

/// One page of events of scopes that crossed a level.
#[derive(Debug, Serialize)]
pub struct Alerts {
    /// Each event's own JSON text.
    pub alerts: Vec<Box<RawValue>>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

fn state(row: &Row<'_>) -> sql::Result<GuardState> {
    let level: i64 = row.get(13)?;
    let level = LEVELS.into_iter().find(|name| strictness(name) == level);
    let (emitters, told) = (count(row, 14)?, count(row, 22)?);
    // A row without totals has zeros in their columns.
    let is_told = told > 0;
    let (cost, revenue): (Decimal, Decimal) = (row.get(17)?, row.get(18)?);
    let scope: String = row.get(3)?;
    let identity: Option<String> = row.get(21)?;
    let named = |member: &str| match identity_member(&scope) {
        Some(found) if found == member => identity.clone(),
        _ => None,
    };
    Ok(GuardState {
        guard_id: row.get(0)?,
        guard_kind: row.get(1)?,
        mode: row.get(2)?,
        scope_key: row.get(4)?,
        customer_id: row.get(5)?,
        product_id: row.get(6)?,
        agent_id: row.get(7)?,
        team_id: named("team_id"),
        user_id: named("user_id"),
        api_key_hash: named("api_key_hash"),
        scope,
        session_key: row.get(8)?,
        tool_name: row.get(9)?,
        metric: row.get(10)?,
        period: row.get(11)?,
        period_started_at: row.get(12)?,
        level: level.unwrap_or("NONE"),
        emitters,
        emitters_without_totals: emitters.saturating_sub(told),
        calls: is_told.then_some(count(row, 15)?),
        tokens: is_told.then_some(count(row, 16)?),
        total_provider_cost: is_told.then_some(cost),
        total_revenue: is_told.then_some(revenue),
        margin: margin(revenue, cost),
        contracted_revenue: None,
        plan: None,
        currency: row.get(19)?,
        told_at: rfc3339(row.get(20)?),
    })
}

/// `None` without revenue, and if the share does not fit.
fn margin(revenue: Decimal, cost: Decimal) -> Option<Decimal> {
    let share = revenue.checked_sub(cost)?.checked_div(revenue)?;
    Some(share.round_dp(MARGIN_DIGITS))
}
