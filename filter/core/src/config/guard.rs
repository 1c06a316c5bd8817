//! Guards: what of whom is held against what, at which levels something happens, and what.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;

use crate::base::pattern::is_fit;
use crate::base::text::{Duration, Price, Share, ThrottleRate};
use crate::domain::level::{Level, ScopeKind};
use crate::domain::period::Period;
use crate::domain::usage::TokenKind;

/// A guard. Without `budget` it holds provider cost against revenue, with it usage against a limit.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guard {
    /// Its name in events; unique.
    pub id: String,
    /// Whose totals are looked at.
    #[serde(default)]
    pub scope: ScopeKind,
    /// What counts; `None` is everything.
    #[serde(default)]
    pub metric: Option<Metric>,
    /// How long totals are added up.
    #[serde(default)]
    pub period: Period,
    /// Whether it acts, or only tells.
    #[serde(default)]
    pub mode: Mode,
    /// The products whose calls and generations count, and whose requests it acts on; empty is all.
    #[serde(default)]
    pub products: Vec<String>,
    /// The customers it is for, names or patterns with `*`; empty is everyone who is known.
    #[serde(default)]
    pub customers: Vec<String>,
    /// The plans it is for; empty is all.
    #[serde(default)]
    pub plans: Vec<String>,
    /// What cost is held against.
    #[serde(default)]
    pub revenue: RevenueBasis,
    /// A limit that usage is held against instead.
    #[serde(default)]
    pub budget: Option<Budget>,
    /// Calls of the same tool with the same arguments are counted instead, within a session.
    #[serde(default, rename = "loop")]
    pub loop_rule: Option<LoopRule>,
    /// Below this cost of a period nothing is evaluated: the first call of a period may cost before it earns.
    #[serde(default)]
    pub min_cost: Price,
    /// The floor: the threshold of level 3 where that names none.
    #[serde(default)]
    pub min_margin: Share,
    /// Other floors, for some; the levels keep their distance to the floor.
    #[serde(default)]
    pub floors: Floors,
    /// How far a margin has to be above a level's threshold before the level is left.
    #[serde(default = "hysteresis_default")]
    pub hysteresis: Share,
    /// What happens at which level.
    #[serde(rename = "actions")]
    pub levels: LevelRules,
    /// Headroom is taken on entry for what a call may cost.
    #[serde(default)]
    pub reserve: Option<Reserve>,
    /// The other Envoys' totals count too, as the collector tells them.
    #[serde(default)]
    pub fleet: bool,
    /// What happens while the collector does not answer.
    #[serde(default)]
    pub on_collector_loss: OnCollectorLoss,
}

fn hysteresis_default() -> Share {
    Share(Decimal::new(2, 2))
}

/// What counts for a guard: usage of this kind, its cost and its revenue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
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
    /// Tokens made by the model, but for reasoning.
    AiOutputTokens,
    /// Reasoning.
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

    /// Whether tokens of this kind count. A kind counts for the metric of its whole, unless it has a
    /// metric of its own.
    pub fn has(self, kind: TokenKind) -> bool {
        let own = match kind {
            TokenKind::Reasoning => Self::AiReasoningTokens,
            TokenKind::CacheRead | TokenKind::CacheReadAudio => Self::AiCacheReadTokens,
            TokenKind::CacheWrite5m | TokenKind::CacheWrite1h => Self::AiCacheWriteTokens,
            _ if kind.whole() == TokenKind::Output => Self::AiOutputTokens,
            _ => Self::AiInputTokens,
        };
        match self {
            Self::ToolInvocations | Self::ApiCalls | Self::AgentSteps | Self::AiTokens => true,
            _ => self == own,
        }
    }
}

/// Whether a guard acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It does what its actions say.
    #[default]
    Enforce,
    /// Everything is evaluated, told and counted, and no request is touched.
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

/// What cost is held against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

/// A limit for one period; exactly one is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Calls.
    pub calls: Option<u64>,
    /// Tokens, input and output.
    pub tokens: Option<u64>,
    /// Provider cost.
    pub provider_cost: Option<Price>,
}

/// How often the same tool may be called with the same arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopRule {
    /// More calls than this in the window are a loop.
    pub calls: u32,
    /// The window, which moves on in eighths.
    pub window: Duration,
}

/// Floors for some customers, before `min_margin`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Floors {
    /// By plan.
    pub plans: BTreeMap<String, Share>,
    /// By customer, before the plan's.
    pub customers: BTreeMap<String, Share>,
}

/// What happens at each level; a level that is not there is never reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LevelRules {
    /// Alert.
    pub level_1: Option<LevelRule>,
    /// Throttle.
    pub level_2: Option<LevelRule>,
    /// Block.
    pub level_3: Option<LevelRule>,
}

/// What a guard may do to requests and responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// At level 3 requests are answered 429.
    Block,
    /// From level 2 on only so many requests pass; the others are answered 429.
    Throttle,
    /// Each call reserves an estimate of its cost on entry, at any level.
    Reserve,
    /// At level 3 responses that stream are ended in the middle.
    StopStreams,
}

impl Action {
    /// What is done to requests, in this order: what reserves comes last, so that a refusal has little
    /// to release.
    pub const ON_REQUEST: [Self; 3] = [Self::Block, Self::Throttle, Self::Reserve];
}

/// When a level is reached, and what happens then.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LevelRule {
    /// Reached where the margin, or what is left of a budget, is at or below this.
    pub threshold: Option<Share>,
    /// The collector's channels that the event is for.
    pub notify: Vec<String>,
    /// Of level 2: how many requests pass, for each scope; beyond it they are answered 429.
    pub throttle_rate: Option<ThrottleRate>,
    /// Of level 3: what happens to requests; without it they pass.
    pub action: Option<BlockAction>,
    /// Of level 3 with an action: responses that stream are ended too, in the middle.
    pub stop_streams: bool,
}

/// What happens to requests at level 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockAction {
    /// They are answered 429.
    BlockRequest,
}

/// What a call may cost, before that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Reserve {
    /// For a call of a tool whose last cost is not known.
    pub estimate: Price,
    /// The last cost of the same tool is taken where it is known.
    pub last_cost: bool,
}

/// What happens while the collector does not answer, and the others' totals are not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnCollectorLoss {
    /// This Envoy's own totals decide, with what was last told of the others.
    #[default]
    Local,
    /// Nothing is throttled or blocked.
    Allow,
    /// Everything is blocked.
    Block,
}

impl Guard {
    /// Whether it is for this product and customer, who is of this plan.
    pub fn is_for(&self, product_id: &str, customer: &str, plan: &str) -> bool {
        let is_of = |list: &[String], name: &str| list.iter().any(|pattern| is_fit(pattern, name));
        // Who is not known is everyone: guarded only where the configuration says so.
        let is_named = if self.customers.is_empty() {
            customer != crate::domain::identity::ANONYMOUS || self.scope == ScopeKind::Product
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

    /// Where a level is reached, for a customer of this plan.
    pub fn threshold(&self, level: Level, customer: &str, plan: &str) -> Option<Decimal> {
        let rule = self.rule(level)?;
        let of_rule = rule.threshold.unwrap_or(self.min_margin).0;
        let floors = &self.floors;
        let floor = floors.customers.get(customer).or_else(|| floors.plans.get(plan));
        let floor = floor.copied().unwrap_or(self.min_margin).0;
        of_rule.checked_add(floor)?.checked_sub(self.min_margin.0)
    }

    /// Whether it does this when the action's level is reached.
    pub fn does(&self, action: Action) -> bool {
        let level_3 = self.levels.level_3.as_ref();
        match action {
            Action::Block => level_3.is_some_and(|rule| rule.action.is_some()),
            Action::Throttle => self.throttle_rate().is_some(),
            Action::Reserve => self.reserve.is_some(),
            Action::StopStreams => level_3.is_some_and(|rule| rule.stop_streams),
        }
    }

    /// How many requests pass at level 2.
    pub fn throttle_rate(&self) -> Option<ThrottleRate> {
        self.levels.level_2.as_ref()?.throttle_rate
    }

    /// The kind in events.
    pub const fn kind(&self) -> &'static str {
        match (&self.loop_rule, &self.budget) {
            (Some(_), _) => "loop",
            (None, Some(_)) => "budget",
            (None, None) => "margin",
        }
    }
}
