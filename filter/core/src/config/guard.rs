//! Guards: whose cost or usage they compare with what, and what they do at each level.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::base::pattern::is_fit;
use crate::base::text::{Duration, Price, Share, ThrottleRate};
use crate::config::llm::OnUnseen;
use crate::domain::level::{Level, ScopeKind};
use crate::domain::period::Period;
use crate::domain::usage::{TokenKind, Usage};

/// A guard. Without `budget` it compares provider cost with revenue, with it usage with a limit.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Its name in events; unique.
    pub id: String,
    /// The kind of scope whose totals the guard evaluates.
    #[serde(default)]
    pub scope: ScopeKind,
    /// What counts; null means everything.
    #[serde(default)]
    pub metric: Option<Metric>,
    /// The period for which the guard adds up totals.
    #[serde(default)]
    pub period: Period,
    /// Whether it acts, or only reports.
    #[serde(default)]
    pub mode: Mode,
    /// The products on whose requests it acts, and whose calls and generations count; empty is all.
    #[serde(default)]
    pub products: Vec<String>,
    /// The customers that it covers, names or patterns with `*`; empty means every known customer.
    #[serde(default)]
    pub customers: Vec<String>,
    /// The plans that it covers; empty means all.
    #[serde(default)]
    pub plans: Vec<String>,
    /// The revenue with which it compares cost.
    #[serde(default)]
    pub revenue: RevenueBasis,
    /// A limit with which it compares usage instead.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// Counts calls of the same tool with the same arguments in a session instead.
    #[serde(default, rename = "loop")]
    pub(crate) loop_rule: Option<LoopRule>,
    /// Below this cost of a period it evaluates nothing: the first call may cost before it earns.
    #[serde(default)]
    pub(crate) min_cost: Price,
    /// The floor: the threshold of level 3 if that level names none.
    #[serde(default)]
    pub min_margin: Share,
    /// Other floors, for some plans and customers; the levels keep their distance to the floor.
    #[serde(default)]
    pub floors: Floors,
    /// How far the margin must rise above a level's threshold before the scope leaves the level.
    #[serde(default = "hysteresis_default")]
    pub hysteresis: Share,
    /// What the guard does at each level.
    #[serde(rename = "actions")]
    pub levels: LevelRules,
    /// Reserves headroom on entry for what a call may cost.
    #[serde(default)]
    pub reserve: Option<Reserve>,
    /// True if the other Envoys' totals count too, as the collector reports them.
    #[serde(default)]
    pub fleet: bool,
    /// What the guard does while the collector does not reply.
    #[serde(default)]
    pub on_collector_loss: OnCollectorLoss,
    /// Where a customer whose balance is spent pays; empty is nowhere.
    #[serde(default)]
    pub(crate) top_up_url: String,
    /// What the filter does with requests until the collector has told their scope's balance; it refuses
    /// with 402.
    #[serde(default = "on_unknown_balance_default")]
    pub(crate) on_unknown_balance: OnUnseen,
}

fn hysteresis_default() -> Share {
    Share(Decimal::new(2, 2))
}

/// What counts for a guard: usage of this kind, with its cost and its revenue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Tool executions, and the generations that they cause.
    ToolInvocations,
    /// Calls of APIs, and the generations that they cause.
    ApiCalls,
    /// Steps of agents, and the generations that they cause.
    AgentSteps,
    /// All tokens.
    AiTokens,
    /// Tokens read by the model.
    AiInputTokens,
    /// Tokens made by the model, without reasoning.
    AiOutputTokens,
    /// Reasoning tokens.
    AiReasoningTokens,
    /// Tokens read from the cache.
    AiCacheReadTokens,
    /// Tokens written to the cache.
    AiCacheWriteTokens,
}

impl Metric {
    /// The name in the configuration and in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ToolInvocations => "tool_invocations",
            Self::ApiCalls => "api_calls",
            Self::AgentSteps => "agent_steps",
            Self::AiTokens => "ai_tokens",
            Self::AiInputTokens => "ai_input_tokens",
            Self::AiOutputTokens => "ai_output_tokens",
            Self::AiReasoningTokens => "ai_reasoning_tokens",
            Self::AiCacheReadTokens => "ai_cache_read_tokens",
            Self::AiCacheWriteTokens => "ai_cache_write_tokens",
        }
    }

    /// Whether tokens of this kind count. A kind counts for the metric of its whole, unless it has
    /// a metric of its own.
    pub fn has(self, kind: TokenKind) -> bool {
        let own = match kind {
            TokenKind::Reasoning => Self::AiReasoningTokens,
            TokenKind::CacheRead | TokenKind::CacheReadAudio | TokenKind::CacheReadImage => {
                Self::AiCacheReadTokens
            }
            TokenKind::CacheWrite5m | TokenKind::CacheWrite1h => Self::AiCacheWriteTokens,
            _ if kind.whole() == TokenKind::Output => Self::AiOutputTokens,
            _ => Self::AiInputTokens,
        };
        match self {
            Self::ToolInvocations | Self::ApiCalls | Self::AgentSteps | Self::AiTokens => true,
            _ => self == own,
        }
    }

    /// How many tokens of these kinds a generation has.
    pub fn tokens(self, usage: &Usage) -> u64 {
        let of_whole = |whole| {
            let parts = self.apart_from(whole, usage, |_| true);
            if self.has(whole) { usage.part(whole).saturating_sub(parts) } else { parts }
        };
        TokenKind::wholes().map(of_whole).fold(0, u64::saturating_add)
    }

    /// How many tokens are in parts of `whole` that count where the whole does not, or that do not
    /// where it does, as far as the parts are meant.
    pub(crate) fn apart_from(
        self,
        whole: TokenKind,
        usage: &Usage,
        is_meant: impl Fn(TokenKind) -> bool,
    ) -> u64 {
        let parts = whole.parts().filter(|_| whole.is_whole());
        let apart = parts.filter(|part| self.has(*part) != self.has(whole) && is_meant(*part));
        apart.map(|part| usage.part(part)).fold(0, u64::saturating_add)
    }
}

/// Whether a guard acts, or only observes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The guard takes its actions.
    #[default]
    Enforce,
    /// The guard evaluates, reports and counts everything, but touches no request.
    Observe,
}

impl Mode {
    /// The name in the configuration and in events.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Observe => "observe",
        }
    }
}

/// The revenue with which a guard compares cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum RevenueBasis {
    /// What the customer's contract says it pays for a period.
    Contracted,
    /// The prices of what it used in the period.
    Earned,
    /// The larger of the two.
    #[default]
    Larger,
}

/// A limit for one period; the configuration contains exactly one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// The most calls in a period.
    pub calls: Option<u64>,
    /// The most tokens in a period, input and output together.
    pub tokens: Option<u64>,
    /// The highest provider cost of a period, in the currency of the products.
    pub provider_cost: Option<Price>,
    /// True if the limit is what the scope paid in advance, as the collector knows it, less the prices of
    /// what it uses.
    pub prepaid_balance: bool,
}

/// How often a session may call the same tool with the same arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct LoopRule {
    /// More calls than this in the window are a loop.
    pub calls: u32,
    /// The length of the window, which advances in eighths.
    pub window: Duration,
}

/// Floors for some customers. They override `min_margin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Floors {
    /// Floors by plan.
    pub plans: BTreeMap<String, Share>,
    /// Floors by customer. They override those of the plans.
    pub customers: BTreeMap<String, Share>,
}

/// What happens at each level; a scope never reaches a level that is not configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LevelRules {
    /// Level 1: alert.
    pub level_1: Option<LevelRule>,
    /// Level 2: throttle.
    pub level_2: Option<LevelRule>,
    /// Level 3: block.
    pub level_3: Option<LevelRule>,
}

/// What a guard may do to requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// At level 3 the filter answers requests with 429, or pauses them with 503.
    Block,
    /// From level 2 on, requests pass at a limited rate; the filter answers the others with 429.
    Throttle,
    /// Each call reserves an estimate of its cost on entry, at any level.
    Reserve,
    /// At level 3 the filter ends streamed responses in the middle.
    StopStreams,
}

impl Action {
    /// The actions on requests, in order. Reserving is last: a refusal then has little to release.
    pub(crate) const ON_REQUEST: [Self; 3] = [Self::Block, Self::Throttle, Self::Reserve];
}

/// When a scope reaches a level, and what happens then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct LevelRule {
    /// A scope reaches the level when its margin, or what remains of its budget, is not above this.
    pub threshold: Option<Share>,
    /// The collector's channels for the event.
    pub notify: Vec<String>,
    /// Level 2: the rate at which requests of a scope pass; the filter answers the others with 429.
    pub throttle_rate: Option<ThrottleRate>,
    /// Level 3: what happens to requests; without it they pass.
    pub action: Option<BlockAction>,
    /// True if the filter also ends streamed responses in the middle; level 3 with an action only.
    pub stop_streams: bool,
}

/// What the filter does with requests at level 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum BlockAction {
    /// It answers them with 429.
    BlockRequest,
    /// It answers them with 503 and `Retry-After`: they are to come again, and what runs goes on.
    PauseRequest,
}

/// What a guard counts, and what its reservations are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Unit {
    /// Provider cost, in the currency of the products.
    Cost,
    /// Calls.
    Calls,
    /// Tokens, input and output together.
    Tokens,
}

/// The estimate of what a call will cost or use, before it is known. Of a budget of calls each call
/// reserves one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Reserve {
    /// The estimate for a call of a tool whose last cost is not known.
    pub estimate: Price,
    /// True if the last known cost of the same tool replaces the estimate.
    pub last_cost: bool,
    /// For a budget of tokens: the estimate for a call.
    pub estimate_tokens: Option<u64>,
}

/// What a guard does while the collector does not reply and the others' totals are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, serde::Serialize))]
#[serde(rename_all = "snake_case")]
pub enum OnCollectorLoss {
    /// It decides by this Envoy's own totals and the last reported totals of the others.
    #[default]
    Local,
    /// It throttles and blocks nothing.
    Allow,
    /// It blocks everything.
    Block,
}

fn on_unknown_balance_default() -> OnUnseen {
    OnUnseen::Reject
}

impl Guard {
    /// Whether the guard covers this product and this customer, who has this plan.
    pub fn is_for(&self, product_id: &str, customer: &str, plan: &str) -> bool {
        let is_of = |list: &[String], name: &str| list.iter().any(|pattern| is_fit(pattern, name));
        // All unknown callers share one name: the guard covers them only where it says so, or where
        // its scopes do not go by customers.
        let is_named = if self.customers.is_empty() {
            customer != crate::domain::identity::ANONYMOUS || !self.scope.is_of_customer()
        } else {
            is_of(&self.customers, customer)
        };
        is_named
            && (self.products.is_empty() || self.products.iter().any(|id| id == product_id))
            && (self.plans.is_empty() || self.plans.iter().any(|name| name == plan))
    }

    /// The rule of a level.
    pub fn rule(&self, level: Level) -> Option<&LevelRule> {
        match level {
            Level::None => None,
            Level::Alert => self.levels.level_1.as_ref(),
            Level::Throttle => self.levels.level_2.as_ref(),
            Level::Block => self.levels.level_3.as_ref(),
        }
    }

    /// The threshold of a level, for a customer with this plan.
    pub fn threshold(&self, level: Level, customer: &str, plan: &str) -> Option<Decimal> {
        let rule = self.rule(level)?;
        let of_rule = rule.threshold.unwrap_or(self.min_margin).0;
        let floors = &self.floors;
        let floor = floors.customers.get(customer).or_else(|| floors.plans.get(plan));
        let floor = floor.copied().unwrap_or(self.min_margin).0;
        of_rule.checked_add(floor)?.checked_sub(self.min_margin.0)
    }

    /// Whether the guard takes this action when the action's level is reached.
    pub fn does(&self, action: Action) -> bool {
        let level_3 = self.levels.level_3.as_ref();
        match action {
            Action::Block => level_3.is_some_and(|rule| rule.action.is_some()),
            Action::Throttle => self.throttle_rate().is_some(),
            Action::Reserve => self.reserve.is_some(),
            Action::StopStreams => level_3.is_some_and(|rule| rule.stop_streams),
        }
    }

    /// Whether it pauses requests at level 3, and does not block them.
    pub(crate) fn pauses(&self) -> bool {
        let level_3 = self.levels.level_3.as_ref();
        level_3.is_some_and(|rule| rule.action == Some(BlockAction::PauseRequest))
    }

    /// What the guard counts.
    pub(crate) fn unit(&self) -> Unit {
        match self.budget {
            Some(Budget { calls: Some(_), .. }) => Unit::Calls,
            Some(Budget { tokens: Some(_), .. }) => Unit::Tokens,
            Some(Budget { provider_cost: _, prepaid_balance: _, .. }) | None => Unit::Cost,
        }
    }

    /// Whether it goes by what the scope paid in advance.
    pub(crate) fn is_prepaid(&self) -> bool {
        self.budget.is_some_and(|budget| budget.prepaid_balance)
    }

    /// Whether it may refuse requests.
    pub(crate) fn acts_on_requests(&self) -> bool {
        Action::ON_REQUEST.into_iter().any(|action| self.does(action))
    }

    /// The rate at which requests pass at level 2.
    pub fn throttle_rate(&self) -> Option<ThrottleRate> {
        self.levels.level_2.as_ref()?.throttle_rate
    }

    /// The guard's kind in events.
    pub const fn kind(&self) -> &'static str {
        match (&self.loop_rule, &self.budget) {
            (Some(_), _) => "loop",
            (None, Some(_)) => "budget",
            (None, None) => "margin",
        }
    }
}
