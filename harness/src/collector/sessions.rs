//! Sessions as the ledger has folded them, and the check of their totals against their calls.
//! The fold itself is in `ledger.rs`.

use std::collections::BTreeMap;

use rusqlite::types::Type;
use rusqlite::{Transaction, params_from_iter};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ledger::Ledger;
use super::money;
use super::query::{BadQuery, Conditions, Page, Parameters};

/// Where a session is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SessionState {
    /// Its first call came.
    Created,
    /// Further calls came, or calls are all that the ledger has of it.
    Active,
    /// No call for a while.
    Idle,
    /// Over, with final totals.
    Closed,
}

impl SessionState {
    const ALL: [SessionState; 4] =
        [SessionState::Created, SessionState::Active, SessionState::Idle, SessionState::Closed];

    /// The name on the wire, such as `CLOSED`.
    pub fn name(self) -> &'static str {
        match self {
            SessionState::Created => "CREATED",
            SessionState::Active => "ACTIVE",
            SessionState::Idle => "IDLE",
            SessionState::Closed => "CLOSED",
        }
    }

    fn from_name(name: &str) -> Option<SessionState> {
        SessionState::ALL.into_iter().find(|state| state.name() == name)
    }
}

/// What a session came to; for one that is not closed, what its stored calls come to so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Calls of all outcomes.
    pub total_tool_calls: u64,
    /// Calls whose price is charged.
    pub billable_tool_calls: u64,
    /// Calls for each `execution_status` that occurred.
    pub calls_by_status: BTreeMap<String, u64>,
    /// Sorted by name.
    pub calls_by_tool: Vec<ToolTotals>,
    /// Tokens; `None` before the session is closed.
    pub total_tokens: Option<TokenTotals>,
    /// Milliseconds from the first call's start to the last call's end; `None` before the close.
    pub wall_duration_ms: Option<u64>,
    /// Milliseconds during which at least one call ran; `None` before the close.
    pub active_duration_ms: Option<u64>,
    /// In `currency`; `None` when the calls have several currencies.
    #[serde(with = "money::optional")]
    pub total_provider_cost: Option<Decimal>,
    /// In `currency`; `None` when the calls have several currencies.
    #[serde(with = "money::optional")]
    pub total_revenue: Option<Decimal>,
    /// ISO 4217; `None` when there is no call yet, or the calls have several currencies.
    pub currency: Option<String>,
}

/// What the calls of one tool came to in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolTotals {
    /// As the client named it.
    pub tool_name: String,
    /// Calls of all outcomes.
    pub calls: u64,
    /// Calls whose price is charged.
    pub billable_calls: u64,
    /// In the session's currency; `None` when it has several.
    #[serde(with = "money::optional")]
    pub revenue: Option<Decimal>,
    /// In the session's currency; `None` when it has several.
    #[serde(with = "money::optional")]
    pub provider_cost: Option<Decimal>,
}

/// Tokens by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenTotals {
    /// Tokens read by the model, those of the cache apart.
    pub input: u64,
    /// Tokens written by the model.
    pub output: u64,
    /// Tokens of reasoning.
    pub reasoning: u64,
    /// Tokens read from a cache.
    pub cache_read: u64,
    /// Tokens written to a cache.
    pub cache_write: u64,
}

/// One session as one source saw it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Session {
    /// 32 hexadecimal digits.
    pub session_id: String,
    /// The state that the session event with the highest sequence tells.
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
    /// The team's agent.
    pub agent_id: String,
    /// RFC 3339; `None` when only calls of the session are stored.
    pub started_at: Option<String>,
    /// RFC 3339; `None` before the close.
    pub ended_at: Option<String>,
    /// `None` before the close.
    pub close_reason: Option<String>,
    /// What it came to.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Which sessions to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SessionsQuery {
    /// Only in this state.
    pub state: Option<SessionState>,
    /// Only of this customer.
    pub customer: Option<String>,
    /// Only of this agent.
    pub agent: Option<String>,
    /// Only with this id.
    pub session_id: Option<String>,
    /// Only of this source.
    pub source: Option<String>,
    /// Newest first; else in the order in which the ledger came to know them.
    pub newest_first: bool,
    /// Which page.
    pub page: Page,
}

impl SessionsQuery {
    /// Reads the parameters `state`, `customer`, `agent`, `session_id`, `source`, `order`
    /// (`oldest` or `newest`), `after` and `limit`.
    pub fn from_pairs<N: Into<String>, V: Into<String>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<SessionsQuery, BadQuery> {
        let known =
            ["state", "customer", "agent", "session_id", "source", "order", "after", "limit"];
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
            agent: parameters.take("agent"),
            session_id: parameters.take("session_id"),
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

/// Whether the final events of closed sessions agree with their stored calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reconciliation {
    /// Closed sessions compared.
    pub sessions: u64,
    /// Empty when all agree.
    pub mismatches: Vec<Mismatch>,
}

/// One total on which the final event and the calls differ.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mismatch {
    /// The member of `session_closed`.
    pub field: &'static str,
    /// The session.
    pub session_id: String,
    /// The source that closed it.
    pub source: String,
    /// What the final event tells.
    pub event: Value,
    /// What the stored calls come to.
    pub calls: Value,
}

impl Ledger {
    /// The sessions that a query selects.
    pub fn sessions(&self, query: &SessionsQuery) -> anyhow::Result<Sessions> {
        let mut conditions = Conditions::default();
        conditions.and_equal("state", query.state.map(SessionState::name));
        conditions.and_equal("customer", query.customer.as_deref());
        conditions.and_equal("agent", query.agent.as_deref());
        conditions.and_equal("session_id", query.session_id.as_deref());
        conditions.and_equal("source", query.source.as_deref());
        let (beyond, order) =
            if query.newest_first { ("position < ?", "DESC") } else { ("position > ?", "ASC") };
        if let Some(after) = query.page.after {
            conditions.and(beyond, after);
        }
        let tail = format!("ORDER BY position {order} LIMIT {}", query.page.limit + 1);
        self.read(|ledger| {
            let mut rows = select(ledger, conditions, &tail)?;
            let next = query.page.cut(&mut rows);
            let mut sessions = Vec::with_capacity(rows.len());
            for (_, (mut session, totals)) in rows {
                session.totals = match totals {
                    Some(totals) => totals,
                    None => calls_so_far(ledger, &session)?,
                };
                sessions.push(session);
            }
            Ok(Sessions { sessions, next })
        })
    }

    /// Compares each closed session's final totals with the sum of its stored calls.
    pub fn reconcile(&self) -> anyhow::Result<Reconciliation> {
        self.read(|ledger| {
            let mut conditions = Conditions::default();
            conditions.and_equal("state", Some(SessionState::Closed.name()));
            let mut reconciliation = Reconciliation { sessions: 0, mismatches: Vec::new() };
            for (_, (session, totals)) in select(ledger, conditions, "ORDER BY position")? {
                let told = totals.unwrap_or_default();
                let mut calls = calls_so_far(ledger, &session)?;
                fold_unnamed_tools(&told, &mut calls)?;
                reconciliation.sessions += 1;
                reconciliation.mismatches.extend(mismatches(&session, &told, &calls)?);
            }
            Ok(reconciliation)
        })
    }
}

/// The name under which a final event adds up the tools of a session that used too many.
const OTHER: &str = "__other__";

/// Adds up the calls of the tools that the final event does not name, as it does.
fn fold_unnamed_tools(told: &Totals, calls: &mut Totals) -> anyhow::Result<()> {
    let is_named = |tool: &ToolTotals| {
        told.calls_by_tool.iter().any(|named| named.tool_name == tool.tool_name)
    };
    if !told.calls_by_tool.iter().any(|tool| tool.tool_name == OTHER) {
        return Ok(());
    }
    let (mut tools, unnamed): (Vec<_>, Vec<_>) =
        core::mem::take(&mut calls.calls_by_tool).into_iter().partition(is_named);
    let mut other = ToolTotals {
        tool_name: OTHER.to_owned(),
        calls: 0,
        billable_calls: 0,
        revenue: Some(Decimal::ZERO),
        provider_cost: Some(Decimal::ZERO),
    };
    for tool in unnamed {
        other.calls += tool.calls;
        other.billable_calls += tool.billable_calls;
        add(&mut other.revenue, tool.revenue)?;
        add(&mut other.provider_cost, tool.provider_cost)?;
    }
    let at = tools.partition_point(|tool| tool.tool_name.as_str() < OTHER);
    tools.insert(at, other);
    calls.calls_by_tool = tools;
    Ok(())
}

fn mismatches(session: &Session, told: &Totals, calls: &Totals) -> anyhow::Result<Vec<Mismatch>> {
    let (event, stored) = (serde_json::to_value(told)?, serde_json::to_value(calls)?);
    let mut mismatches = Vec::new();
    for field in [
        "total_tool_calls",
        "billable_tool_calls",
        "calls_by_status",
        "calls_by_tool",
        "total_provider_cost",
        "total_revenue",
        "currency",
    ] {
        // A session without calls has no currency to compare.
        let nothing = field == "currency" && calls.total_tool_calls == 0;
        if event[field] != stored[field] && !nothing {
            mismatches.push(Mismatch {
                field,
                session_id: session.session_id.clone(),
                source: session.source.clone(),
                event: event[field].clone(),
                calls: stored[field].clone(),
            });
        }
    }
    Ok(mismatches)
}

/// A row of `sessions`: its position, then the session with its final totals where it is closed.
type SessionRow = (i64, (Session, Option<Totals>));

fn select(
    ledger: &Transaction<'_>,
    conditions: Conditions,
    tail: &str,
) -> anyhow::Result<Vec<SessionRow>> {
    let mut statement = ledger.prepare_cached(&format!(
        "SELECT position, session_id, state, session_key, source, product, product_type, customer,
         team, agent, started_at, ended_at, close_reason, totals FROM sessions{} {tail}",
        conditions.sql()
    ))?;
    let rows = statement.query_map(params_from_iter(conditions.values), |row| {
        let state: String = row.get(2)?;
        let bad = |index, error: Box<dyn std::error::Error + Send + Sync>| {
            rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error)
        };
        let state = SessionState::from_name(&state)
            .ok_or_else(|| bad(2, format!("unknown state {state:?}").into()))?;
        let session = Session {
            session_id: row.get(1)?,
            state,
            session_key: row.get(3)?,
            source: row.get(4)?,
            product_id: row.get(5)?,
            product_type: row.get(6)?,
            customer_id: row.get(7)?,
            team_id: row.get(8)?,
            agent_id: row.get(9)?,
            started_at: row.get(10)?,
            ended_at: row.get(11)?,
            close_reason: row.get(12)?,
            totals: Totals::default(),
        };
        let totals: Option<String> = row.get(13)?;
        let totals = totals.map(|text| serde_json::from_str(&text)).transpose();
        Ok((row.get(0)?, (session, totals.map_err(|error| bad(13, error.into()))?)))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What the stored calls of a session come to.
fn calls_so_far(ledger: &Transaction<'_>, session: &Session) -> anyhow::Result<Totals> {
    let mut statement = ledger.prepare_cached(
        "SELECT tool, status, currency, count(*), sum(billable), decimal_sum(price),
         decimal_sum(provider_cost) FROM calls WHERE session_id = ? AND source = ?
         GROUP BY tool, status, currency ORDER BY tool",
    )?;
    let mut rows = statement.query([&session.session_id, &session.source])?;
    let mut totals = Totals {
        total_provider_cost: Some(Decimal::ZERO),
        total_revenue: Some(Decimal::ZERO),
        ..Totals::default()
    };
    let mut mixed = false;
    while let Some(row) = rows.next()? {
        let (tool_name, status): (String, String) = (row.get(0)?, row.get(1)?);
        let currency: String = row.get(2)?;
        let calls = row.get::<_, i64>(3)?.unsigned_abs();
        let billable_calls = row.get::<_, i64>(4)?.unsigned_abs();
        let revenue = Some(money::column(row, 5)?);
        let provider_cost = Some(money::column(row, 6)?);
        mixed |= *totals.currency.get_or_insert_with(|| currency.clone()) != currency;
        totals.total_tool_calls += calls;
        totals.billable_tool_calls += billable_calls;
        *totals.calls_by_status.entry(status).or_default() += calls;
        add(&mut totals.total_revenue, revenue)?;
        add(&mut totals.total_provider_cost, provider_cost)?;
        match totals.calls_by_tool.last_mut().filter(|tool| tool.tool_name == tool_name) {
            Some(tool) => {
                tool.calls += calls;
                tool.billable_calls += billable_calls;
                add(&mut tool.revenue, revenue)?;
                add(&mut tool.provider_cost, provider_cost)?;
            }
            None => totals.calls_by_tool.push(ToolTotals {
                tool_name,
                calls,
                billable_calls,
                revenue,
                provider_cost,
            }),
        }
    }
    if mixed {
        // Amounts in different currencies have no sum.
        (totals.currency, totals.total_revenue, totals.total_provider_cost) = (None, None, None);
        for tool in &mut totals.calls_by_tool {
            (tool.revenue, tool.provider_cost) = (None, None);
        }
    }
    Ok(totals)
}

fn add(sum: &mut Option<Decimal>, amount: Option<Decimal>) -> Result<(), money::Overflow> {
    *sum = match (*sum, amount) {
        (Some(sum), Some(amount)) => Some(money::add(sum, amount)?),
        _ => None,
    };
    Ok(())
}
