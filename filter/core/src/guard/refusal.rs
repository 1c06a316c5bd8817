//! The response that a client gets when the filter refuses its request.
//!
//! Clients of MCP and A2A get a JSON-RPC error with their request's id, all others a JSON object.
//! The codes are in the range that MCP 2026-07-28 leaves to implementations (-32000 to -32019),
//! above those to which A2A gives a meaning (-32001 to -32009).

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use crate::base::limits::VALUE_BYTES_MAX;
use crate::base::time::Timestamp;
use crate::domain::level::{Level, ScopeKind};
use crate::fact::ReservedAmount;
use crate::wire::doubt::Doubt;
use crate::wire::http::LocalReply;
use crate::wire::json_rpc::Id;

/// Why the filter refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// The margin is at level 3.
    Margin,
    /// The budget is spent.
    Budget,
    /// More requests came than the throttle lets pass.
    Throttled,
    /// What was paid in advance is spent, or not known.
    PrepaidBalance,
    /// Running calls have reserved what remains.
    InsufficientHeadroom,
    /// The collector is lost, and the guard is set to block then.
    CollectorLost,
    /// The plan does not include the tool, or the filter could not read which tool it is.
    ToolNotInPlan,
    /// The customer makes more than the filter can write down.
    OverShare,
    /// It is not certain what the request asks for.
    Unreadable(Doubt),
    /// It may make a generation that the filter cannot meter.
    Unseen,
    /// It asks for a WebSocket, and the product allows none.
    Upgrade,
    /// A guard or an operator has paused such calls.
    Paused,
    /// An operator drains this Envoy, and the request's head names no session.
    Draining,
}

impl RefusalReason {
    const fn message(self) -> &'static str {
        match self {
            Self::Margin => "margin limit exceeded",
            Self::Budget => "budget exceeded",
            Self::PrepaidBalance => "prepaid balance exhausted or not known",
            Self::Throttled => "throttled: too many requests at the present margin or budget",
            Self::InsufficientHeadroom => "what is left is reserved by calls that run",
            Self::CollectorLost => "the collector that holds the totals is not known to live",
            Self::ToolNotInPlan => "the tool is not part of the plan",
            Self::OverShare => "too many requests: they come faster than they can be metered",
            Self::Unreadable(doubt) => doubt.message(),
            Self::Unseen => "what this address does cannot be metered",
            Self::Upgrade => "no WebSocket is served here: send the request by HTTP",
            Self::Paused => "paused: try again later, the session stays open",
            Self::Draining => "this proxy takes no new sessions: try again",
        }
    }

    /// The reason's name in `data`, and its code in the JSON of other clients.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Margin => ("margin", "SERVICE_RESTRICTED_MARGIN"),
            Self::Budget => ("budget", "SERVICE_RESTRICTED_BUDGET"),
            Self::PrepaidBalance => ("prepaid_balance", "PAYMENT_REQUIRED_BALANCE"),
            Self::Throttled => ("throttled", "RATE_LIMITED_MARGIN"),
            Self::InsufficientHeadroom => ("no_room", "RATE_LIMITED_MARGIN"),
            Self::CollectorLost => ("collector_lost", "SERVICE_RESTRICTED_MARGIN"),
            Self::ToolNotInPlan => ("tool_not_in_plan", "TOOL_NOT_IN_PLAN"),
            Self::OverShare => ("over_share", "RATE_LIMITED"),
            Self::Unreadable(_) => ("unreadable", "UNREADABLE_REQUEST"),
            Self::Unseen => ("unseen", "NOT_METERED"),
            Self::Upgrade => ("upgrade", "UPGRADE_NOT_ALLOWED"),
            Self::Paused => ("paused", "SERVICE_PAUSED"),
            Self::Draining => ("draining", "DRAINING"),
        }
    }
}

/// The refusal of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub reason: RefusalReason,
    /// The level of the scope.
    pub level: Level,
    /// The guard's id; empty if the plan refuses.
    pub guard_id: String,
    /// The kind of the guard's scope.
    pub scope: ScopeKind,
    /// When the period ends.
    pub resets_at: Option<Timestamp>,
    /// After how many seconds the client may try again.
    pub(crate) retry_after_s: Option<u64>,
    /// The balance, if it is that which refuses.
    pub(crate) prepaid: Option<Box<Prepaid>>,
}

/// The balance of a scope whose request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prepaid {
    /// What is left; `None` if it is not known.
    pub(crate) balance: Option<Decimal>,
    /// ISO 4217.
    pub(crate) currency: String,
    /// Where to pay; empty is nowhere.
    pub(crate) top_up_url: String,
    /// Asks the accountant for the balance, as a reservation of nothing.
    pub(crate) ask: Option<ReservedAmount>,
}

/// HTTP 429: Too Many Requests.
pub const TOO_MANY_REQUESTS: u16 = 429;

/// HTTP 402: Payment Required.
const PAYMENT_REQUIRED: u16 = 402;

/// HTTP 403: Forbidden.
pub(crate) const FORBIDDEN: u16 = 403;

/// In seconds: the accountant reads thousands of facts in that time.
const RETRY_OVER_SHARE_S: u64 = 1;

/// HTTP 426: Upgrade Required. Of the statuses that refuse a WebSocket, it is the one after which
/// clients such as Codex send their requests by HTTP at once.
pub(crate) const UPGRADE_REQUIRED: u16 = 426;

/// HTTP 503: Service Unavailable.
const UNAVAILABLE: u16 = 503;

/// In seconds: an orchestrator takes an Envoy that drains out of its endpoints within that time.
const RETRY_DRAINING_S: u64 = 1;

/// In seconds: a pause may end at any time.
const RETRY_PAUSED_S: u64 = 60;

const LIMITED: i32 = -32_013;

const NOT_ALLOWED: i32 = -32_014;

const PAUSED: i32 = -32_015;

const UNPAID: i32 = -32_016;

/// As JSON-RPC 2.0 defines it.
const INVALID_REQUEST: i32 = -32_600;

impl Refusal {
    /// The refusal of a tool that the customer's plan does not include.
    pub(crate) fn tool_not_in_plan() -> Self {
        Self::without_guard(RefusalReason::ToolNotInPlan)
    }

    /// The refusal of a request that the filter does not understand for certain.
    pub(crate) fn unreadable(doubt: Doubt) -> Self {
        Self::without_guard(RefusalReason::Unreadable(doubt))
    }

    /// The refusal of a customer who makes more than the filter can write down.
    pub(crate) fn over_share() -> Self {
        let retry_after_s = Some(RETRY_OVER_SHARE_S);
        Self { retry_after_s, ..Self::without_guard(RefusalReason::OverShare) }
    }

    /// The refusal of a request that may make a generation unseen.
    pub(crate) fn unseen() -> Self {
        Self::without_guard(RefusalReason::Unseen)
    }

    /// The refusal of a WebSocket.
    pub(crate) fn upgrade() -> Self {
        Self::without_guard(RefusalReason::Upgrade)
    }

    /// The refusal of a new session while an operator drains this Envoy: the client's next connection
    /// goes elsewhere.
    pub(crate) fn draining() -> Self {
        let retry_after_s = Some(RETRY_DRAINING_S);
        Self { retry_after_s, ..Self::without_guard(RefusalReason::Draining) }
    }

    /// The refusal of a call that an operator has paused, until a time if that is known.
    pub(crate) fn paused(until: Option<Timestamp>, now: Timestamp) -> Self {
        let retry_after_s = Some(retry_paused_s(until, now));
        Self { resets_at: until, retry_after_s, ..Self::without_guard(RefusalReason::Paused) }
    }

    pub(super) fn without_guard(reason: RefusalReason) -> Self {
        Self {
            reason,
            level: Level::None,
            guard_id: String::new(),
            scope: ScopeKind::Customer,
            resets_at: None,
            retry_after_s: None,
            prepaid: None,
        }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self.reason {
            RefusalReason::ToolNotInPlan | RefusalReason::Unseen => FORBIDDEN,
            RefusalReason::PrepaidBalance => PAYMENT_REQUIRED,
            RefusalReason::Upgrade => UPGRADE_REQUIRED,
            RefusalReason::Draining | RefusalReason::Paused => UNAVAILABLE,
            RefusalReason::Unreadable(doubt) => doubt.http_status(),
            RefusalReason::Margin
            | RefusalReason::Budget
            | RefusalReason::Throttled
            | RefusalReason::InsufficientHeadroom
            | RefusalReason::CollectorLost
            | RefusalReason::OverShare => TOO_MANY_REQUESTS,
        }
    }

    /// The reason for programs, such as `SERVICE_RESTRICTED_MARGIN`.
    pub fn code(&self) -> &'static str {
        self.reason.names().1
    }

    /// The reason in words.
    pub fn message(&self) -> &'static str {
        self.reason.message()
    }

    /// The response to a JSON-RPC request.
    pub(crate) fn json_rpc(&self, id: Option<&Id>) -> Value {
        let code = match self.reason {
            RefusalReason::ToolNotInPlan | RefusalReason::Unseen | RefusalReason::Upgrade => {
                NOT_ALLOWED
            }
            RefusalReason::Unreadable(_) => INVALID_REQUEST,
            RefusalReason::Paused => PAUSED,
            RefusalReason::PrepaidBalance => UNPAID,
            RefusalReason::Margin
            | RefusalReason::Budget
            | RefusalReason::Throttled
            | RefusalReason::InsufficientHeadroom
            | RefusalReason::CollectorLost
            | RefusalReason::OverShare
            | RefusalReason::Draining => LIMITED,
        };
        let error = json!({ "code": code, "message": self.message(), "data": self.data() });
        json!({ "jsonrpc": "2.0", "id": id.map_or(Value::Null, id_value), "error": error })
    }

    /// The response to any other request.
    pub fn json(&self) -> Value {
        json!({
            "error": {
                "code": self.code(),
                "message": self.message(),
                "retryAfterSeconds": self.retry_after_s,
                "data": self.data(),
            },
        })
    }

    /// Whether a guard refuses, at a level.
    fn is_of_guard(&self) -> bool {
        match self.reason {
            RefusalReason::Margin
            | RefusalReason::Budget
            | RefusalReason::PrepaidBalance
            | RefusalReason::Throttled
            | RefusalReason::InsufficientHeadroom
            | RefusalReason::CollectorLost => true,
            RefusalReason::Paused => !self.guard_id.is_empty(),
            RefusalReason::ToolNotInPlan
            | RefusalReason::Unreadable(_)
            | RefusalReason::OverShare
            | RefusalReason::Unseen
            | RefusalReason::Upgrade
            | RefusalReason::Draining => false,
        }
    }

    fn data(&self) -> Map<String, Value> {
        let mut data = Map::new();
        let mut say = |key: &str, value: Value| data.insert(key.to_owned(), value);
        say("reason", self.reason.names().0.into());
        if self.is_of_guard() {
            say("level", self.level.name().into());
            say("guard_id", self.guard_id.as_str().into());
            say("scope", self.scope.name().into());
        }
        if self.is_of_guard() || self.reason == RefusalReason::Paused {
            say("resets_at", self.resets_at.map(Timestamp::to_rfc3339).into());
            say("retry_after_seconds", self.retry_after_s.into());
        }
        if let Some(prepaid) = &self.prepaid {
            say("balance", prepaid.balance.map(|balance| balance.normalize().to_string()).into());
            say("currency", prepaid.currency.as_str().into());
            if !prepaid.top_up_url.is_empty() {
                say("top_up_url", prepaid.top_up_url.as_str().into());
            }
        }
        data
    }

    /// What the client gets. `ids` are those of its JSON-RPC requests; `None` for other clients.
    pub fn reply(&self, ids: Option<&[Id]>) -> LocalReply {
        let body = match ids {
            None => self.json(),
            Some([]) => self.json_rpc(None),
            Some([id]) => self.json_rpc(Some(id)),
            Some(ids) => ids.iter().map(|id| self.json_rpc(Some(id))).collect(),
        };
        let mut headers = vec![("content-type", "application/json".to_owned())];
        let is_paused = self.reason == RefusalReason::Paused;
        if is_paused {
            headers.push(("x-margin-guard", "paused".to_owned()));
        }
        if self.is_of_guard() {
            let is_throttled = matches!(
                self.reason,
                RefusalReason::Throttled | RefusalReason::InsufficientHeadroom
            );
            let guard = if is_throttled { "throttled" } else { "blocked" };
            headers.extend((!is_paused).then(|| ("x-margin-guard", guard.to_owned())));
            headers.push(("x-margin-guard-level", self.level.short_name().to_owned()));
            headers.push(("x-aforo-margin-level", self.level.name().to_owned()));
            if is_throttled {
                headers.push(("x-aforo-throttle", "true".to_owned()));
            }
        }
        headers.extend(self.retry_after_s.map(|seconds| ("retry-after", seconds.to_string())));
        LocalReply { status: self.status(), headers, body: body.to_string() }
    }
}

/// After how many seconds to try again what is paused: at its end, or in a minute, as it may be resumed.
pub(crate) fn retry_paused_s(until: Option<Timestamp>, now: Timestamp) -> u64 {
    let wait_s = until.map(|until| until.saturating_since(now).0.div_ceil(1000));
    wait_s.map_or(RETRY_PAUSED_S, |wait_s| wait_s.clamp(1, RETRY_PAUSED_S))
}

/// The id as the client sent it; null if it was too long to keep.
fn id_value(id: &Id) -> Value {
    let text = String::from_utf8_lossy(&id.text);
    if id.text.len() >= VALUE_BYTES_MAX {
        Value::Null
    } else if id.is_string {
        text.into_owned().into()
    } else {
        serde_json::from_str(&text).unwrap_or_default()
    }
}
