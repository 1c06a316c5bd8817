//! Sessions with their totals. The ledger makes their rows (`ledger/derive.rs`).

use std::collections::BTreeMap;

use serde::Serialize;

use crate::event::tokens::TokenTotals;
use crate::event::totals::{ModelTotals, SessionState, ToolTotals, Totals, add};
use crate::ledger::Ledger;
use crate::ledger::tables::{CALLS, GENERATIONS, SESSIONS};
use crate::money;
use crate::money::known::CostKnown;
use crate::query::{BadQuery, Conditions, Page, Parameters, count};
use crate::sql::{self, Row, Transaction, values};

/// One session as one source saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// 32 hexadecimal digits.
    pub session_id: String,
    /// The state in the session event with the highest sequence.
    pub state: SessionState,
    /// 32 hexadecimal digits, the same wherever the client's session is seen.
    pub session_key: String,
    /// Which Envoy process saw it.
    pub source: String,
    /// The matched product.
    pub product_id: String,
    /// The product's type, such as `MCP_SERVER`.
    pub product_type: String,
    /// Who pays.
    pub customer_id: String,
    /// The customer's team.
    pub team_id: String,
    /// The team's agent, or the app of an API.
    pub agent_id: String,
    /// 32 hexadecimal digits; `None` when the client showed no key.
    pub api_key_hash: Option<String>,
    /// `CLIENT_CREDENTIALS` or `BEARER_TOKEN`; `None` when it is neither.
    pub credential_type: Option<String>,
    /// RFC 3339; `None` when only calls of the session are stored.
    pub started_at: Option<String>,
    /// RFC 3339; `None` before the close.
    pub ended_at: Option<String>,
    /// `None` before the close.
    pub close_reason: Option<String>,
    /// Its totals.
    #[serde(flatten)]
    pub totals: Totals,
    /// How much of the provider cost is known. Where nothing is, it and the margin are `None`.
    pub cost_known: CostKnown,
    /// Revenue less known provider cost; `None` when there are several currencies.
    #[serde(serialize_with = "money::optional::serialize")]
    pub margin: Option<rust_decimal::Decimal>,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionsQuery {
    /// Only in this state.
    pub state: Option<SessionState>,
    /// Only of this customer.
    pub customer: Option<String>,
    /// Only of this team.
    pub team: Option<String>,
    /// Only of this agent.
    pub agent: Option<String>,
    /// Only with this id.
    pub session_id: Option<String>,
    /// Only with an id that begins so; no parameter of `/v1/sessions` sets it.
    pub session_prefix: Option<String>,
    /// Only of this source.
    pub source: Option<String>,
    /// True for the newest first; else in the order in which the ledger first saw them.
    pub newest_first: bool,
    /// Which page.
    pub page: Page,
}

impl SessionsQuery {
    /// Reads the parameters `state`, `customer`, `team`, `agent`, `session_id`, `source`, `order`
    /// (`oldest` or `newest`), `after` and `limit`.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<SessionsQuery, BadQuery> {
        let known = [
            "state",
            "customer",
            "team",
            "agent",
            "session_id",
            "source",
            "order",
            "after",
            "limit",
        ];
        let mut parameters = Parameters::new(pairs, &known)?;
        let state = match parameters.take("state") {
            None => None,
            Some(name) => Some(SessionState::from_name(&name).ok_or_else(|| {
                let names = SessionState::ALL.map(SessionState::name).join(", ");
                BadQuery::new(format!("state: must be one of {names}, found {name:?}"))
            })?),
        };
        let newest_first = match parameters.take("order").as_deref() {
            None | Some("oldest") => false,
            Some("newest") => true,
            Some(order) => {
                let message = format!("order: must be oldest or newest, found {order:?}");
                return Err(BadQuery::new(message));
            }
        };
        Ok(SessionsQuery {
            state,
            customer: parameters.take("customer"),
            team: parameters.take("team"),
            agent: parameters.take("agent"),
            session_id: parameters.take("session_id"),
            session_prefix: None,
            source: parameters.take("source"),
            newest_first,
            page: parameters.take_page()?,
        })
    }
}

/// One page of sessions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sessions {
    /// One for each source and session id.
    pub sessions: Vec<Session>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<String>,
}

impl Ledger {
    /// How many sessions are not closed.
    pub(crate) fn count_open_sessions(&self) -> anyhow::Result<u64> {
        self.read(|ledger| {
            let mut statement = ledger.prepare_cached(
                "SELECT count(*) FROM sessions WHERE state IN ('CREATED', 'ACTIVE', 'IDLE')",
            )?;
            let count: i64 = statement.query_row(&[], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    /// The sessions that a query selects.
    pub fn sessions(&self, query: &SessionsQuery) -> anyhow::Result<Sessions> {
        let mut conditions = Conditions::default();
        conditions.and_equal("state", query.state.map(SessionState::name));
        conditions.and_equal("customer", query.customer.as_deref());
        conditions.and_equal("team", query.team.as_deref());
        conditions.and_equal("agent", query.agent.as_deref());
        conditions.and_equal("session_id", query.session_id.as_deref());
        conditions.and_equal("source", query.source.as_deref());
        if let Some(prefix) = &query.session_prefix {
            let digits = prefix.chars().count();
            conditions.and(&format!("substr(session_id, 1, {digits}) = ?"), prefix.clone());
        }
        let (beyond, order) =
            if query.newest_first { ("position < ?", "DESC") } else { ("position > ?", "ASC") };
        if let Some(after) = query.page.after {
            conditions.and(beyond, after);
        }
        let tail = format!("ORDER BY position {order} LIMIT {}", query.page.limit + 1);
        self.read(|ledger| {
            let mut rows = select(ledger, &conditions, &tail)?;
            let next = query.page.cut(&mut rows);
            let mut sessions = Vec::with_capacity(rows.len());
            for (_, (mut session, totals)) in rows {
                session.totals = match totals {
                    Some(told) if is_corrected(ledger, &session)? => Totals {
                        wall_duration_ms: told.wall_duration_ms,
                        active_duration_ms: told.active_duration_ms,
                        ..so_far(ledger, &session)?
                    },
                    Some(told) => told,
                    None => so_far(ledger, &session)?,
                };
                session.cost_known = session.totals.cost_known();
                session.margin = session.totals.margin();
                session.totals.hide_unknown_costs();
                sessions.push(session);
            }
            Ok(Sessions { sessions, next })
        })
    }
}

/// A row of `sessions`: its position, then the session with its final totals where it is closed.
pub(crate) type SessionRow = (i64, (Session, Option<Totals>));

pub(crate) fn select(
    ledger: &Transaction<'_>,
    conditions: &Conditions,
    tail: &str,
) -> anyhow::Result<Vec<SessionRow>> {
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT {} FROM sessions{} {tail}",
        SESSIONS.selection(),
        conditions.sql()
    ))?;
    Ok(statement.query_map(&conditions.values, session)?)
}

fn session(row: &Row<'_>) -> sql::Result<SessionRow> {
    let bad = |reason: String| sql::Error::Column(reason);
    let state: String = row.get("state")?;
    let state = SessionState::from_name(&state)
        .ok_or_else(|| bad(format!("state: unknown state {state:?}")))?;
    let totals: Option<String> = row.get("totals")?;
    let totals = totals.map(|text| serde_json::from_str(&text)).transpose();
    let totals = totals.map_err(|error| bad(format!("totals: {error}")))?;
    let session = Session {
        session_id: row.get("session_id")?,
        state,
        session_key: row.get("session_key")?,
        source: row.get("source")?,
        product_id: row.get("product")?,
        product_type: row.get("product_type")?,
        customer_id: row.get("customer")?,
        team_id: row.get("team")?,
        agent_id: row.get("agent")?,
        api_key_hash: row.get("api_key_hash")?,
        credential_type: row.get("credential_type")?,
        started_at: row.get("started_at")?,
        ended_at: row.get("ended_at")?,
        close_reason: row.get("close_reason")?,
        totals: Totals::default(),
        cost_known: CostKnown::default(),
        margin: None,
    };
    Ok((row.get("position")?, (session, totals)))
}

/// Whether calls or generations of a closed session count otherwise than when it told its totals.
fn is_corrected(ledger: &Transaction<'_>, session: &Session) -> anyhow::Result<bool> {
    let mut statement = ledger.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM superseded JOIN sessions USING (source, session_id)
          WHERE session_id = ?1 AND source = ?2 AND superseded_by > fold_order)
         OR EXISTS (SELECT 1 FROM corrected_calls WHERE session_id = ?1 AND source = ?2)
         OR EXISTS (SELECT 1 FROM corrected_generations WHERE session_id = ?1 AND source = ?2)",
    )?;
    Ok(statement.query_row(values![&session.session_id, &session.source], |row| row.get(0))?)
}

/// The generations that counted when their session was closed, for the reader of its totals: what
/// was superseded later, and not what superseded it.
fn at_closing() -> String {
    let columns = GENERATIONS.selection();
    let closing = "(SELECT fold_order FROM sessions
         WHERE sessions.session_id = entry.session_id AND sessions.source = entry.source)";
    let was_there = format!("(supersedes IS NULL OR sequence < {closing})");
    let as_it_came = "NOT EXISTS (SELECT 1 FROM corrected_generations AS corrected
         WHERE corrected.position = entry.position)";
    format!(
        "(SELECT {columns} FROM generations AS entry WHERE {was_there} AND {as_it_came} UNION ALL
         SELECT {columns} FROM superseded AS entry
         WHERE {was_there} AND {as_it_came} AND superseded_by > {closing} UNION ALL
         SELECT {columns} FROM corrected_generations AS entry WHERE {was_there} AND NOT EXISTS
          (SELECT 1 FROM superseded WHERE superseded.position = entry.position
           AND superseded_by <= {closing}))"
    )
}

/// The calls as they came, before any correction.
fn calls_as_they_came() -> String {
    let columns = CALLS.selection();
    format!(
        "(SELECT {columns} FROM calls AS entry WHERE NOT EXISTS
          (SELECT 1 FROM corrected_calls AS corrected WHERE corrected.position = entry.position)
         UNION ALL SELECT {columns} FROM corrected_calls)"
    )
}

/// The sums of the stored calls and generations of a session.
pub(crate) fn so_far(ledger: &Transaction<'_>, session: &Session) -> anyhow::Result<Totals> {
    sums(ledger, session, CALLS.name, GENERATIONS.name)
}

/// The same as it was when the session was closed.
pub(crate) fn until_closing(ledger: &Transaction<'_>, session: &Session) -> anyhow::Result<Totals> {
    sums(ledger, session, &calls_as_they_came(), &at_closing())
}

fn sums(
    ledger: &Transaction<'_>,
    session: &Session,
    calls: &str,
    generations: &str,
) -> anyhow::Result<Totals> {
    let mut sums = Sums { totals: Totals::new(), ..Sums::default() };
    sums.add_calls(ledger, session, calls)?;
    sums.add_generations(ledger, session, generations)?;
    let Sums { mut totals, tools, models, mixed } = sums;
    totals.calls_by_tool = tools.into_values().collect();
    totals.usage_by_model = models.into_values().collect();
    if mixed {
        // Amounts in different currencies have no sum.
        (totals.currency, totals.total_revenue, totals.total_provider_cost) = (None, None, None);
        totals.unattributed_provider_cost = None;
        for tool in &mut totals.calls_by_tool {
            (tool.revenue, tool.provider_cost) = (None, None);
        }
        for model in &mut totals.usage_by_model {
            (model.revenue, model.provider_cost) = (None, None);
        }
    }
    Ok(totals)
}

/// The sums of one session while its rows are read.
#[derive(Default)]
struct Sums {
    totals: Totals,
    tools: BTreeMap<String, ToolTotals>,
    models: BTreeMap<(String, String), ModelTotals>,
    mixed: bool,
}

impl Sums {
    fn tool(&mut self, name: String) -> &mut ToolTotals {
        self.tools.entry(name.clone()).or_insert_with(|| ToolTotals::new(name))
    }

    fn in_currency(&mut self, currency: &str) {
        self.mixed |= self.totals.currency.get_or_insert_with(|| currency.to_owned()) != currency;
    }

    fn add_calls(
        &mut self,
        ledger: &Transaction<'_>,
        session: &Session,
        calls: &str,
    ) -> anyhow::Result<()> {
        let mut statement = ledger.prepare_cached(&format!(
            "SELECT tool, status, currency, count_sum(quantity), count_sum(billable * quantity),
             decimal_sum(price) FROM {calls} AS used
             WHERE session_id = ? AND source = ? GROUP BY tool, status, currency"
        ))?;
        let mut rows = statement.query(values![&session.session_id, &session.source])?;
        while let Some(row) = &rows.next_row()? {
            self.in_currency(&row.get::<_, String>(2)?);
            let calls = count(row, 3)?;
            let billable_calls = count(row, 4)?;
            let revenue = Some(row.get(5)?);
            let totals = &mut self.totals;
            totals.total_tool_calls = totals.total_tool_calls.saturating_add(calls);
            totals.billable_tool_calls = totals.billable_tool_calls.saturating_add(billable_calls);
            let by_status = totals.calls_by_status.entry(row.get(1)?).or_default();
            *by_status = by_status.saturating_add(calls);
            add(&mut totals.total_revenue, revenue);
            let tool = self.tool(row.get(0)?);
            tool.calls = tool.calls.saturating_add(calls);
            tool.billable_calls = tool.billable_calls.saturating_add(billable_calls);
            add(&mut tool.revenue, revenue);
        }
        Ok(())
    }

    fn add_generations(
        &mut self,
        ledger: &Transaction<'_>,
        session: &Session,
        generations: &str,
    ) -> anyhow::Result<()> {
        let mut statement = ledger.prepare_cached(&format!(
            "SELECT tool, provider, model, currency, count(*),
             count(*) FILTER (WHERE provider_cost IS NULL), count_sum(is_unknown),
             decimal_sum(provider_cost),
             decimal_sum(price), {} FROM {generations} AS used WHERE session_id = ? AND source = ?
             GROUP BY tool, provider, model, currency",
            TokenTotals::columns()
        ))?;
        let mut rows = statement.query(values![&session.session_id, &session.source])?;
        while let Some(row) = &rows.next_row()? {
            self.in_currency(&row.get::<_, String>(3)?);
            let (generations, unpriced) = (count(row, 4)?, count(row, 5)?);
            let cost = Some(row.get(7)?);
            let revenue = Some(row.get(8)?);
            let tokens = TokenTotals::of_row(row)?;
            let totals = &mut self.totals;
            totals.generations += generations;
            totals.unpriced_generations += unpriced;
            totals.unknown_usage_generations += count(row, 6)?;
            totals.total_tokens.add(tokens);
            add(&mut totals.total_revenue, revenue);
            add(&mut totals.total_provider_cost, cost);
            match row.get::<_, Option<String>>(0)? {
                Some(tool) => add(&mut self.tool(tool).provider_cost, cost),
                None => add(&mut totals.unattributed_provider_cost, cost),
            }
            let key: (String, String) = (row.get(1)?, row.get(2)?);
            let model = self.models.entry(key.clone());
            let model = model.or_insert_with(|| ModelTotals::new(key.0, key.1));
            model.generations += generations;
            model.unpriced_generations += unpriced;
            model.tokens.add(tokens);
            add(&mut model.provider_cost, cost);
            add(&mut model.revenue, revenue);
        }
        Ok(())
    }
}
