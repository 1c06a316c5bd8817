//! Guards: what of whom is held against what, at which levels something happens, and what.

use core::fmt;
use std::collections::BTreeMap;
use std::rc::Rc;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected, Visitor};

use crate::base::invalid::{ConfigError, error, not_empty};
use crate::base::pattern::is_fit;
use crate::base::text::{Duration, Price};
use crate::base::time::Millis;
use crate::config::product::Product;
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
    pub repeats: Option<LoopRule>,
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
    pub actions: Actions,
    /// Room is taken on entry for what a call may cost.
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
pub struct Actions {
    /// Alert.
    pub level_1: Option<LevelRule>,
    /// Throttle.
    pub level_2: Option<LevelRule>,
    /// Block.
    pub level_3: Option<LevelRule>,
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

/// A share such as `"25%"` or `"0.25"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Share(pub Decimal);

impl Share {
    fn parse(text: &str) -> Option<Self> {
        let (number, is_percent) = match text.strip_suffix('%') {
            Some(number) => (number, true),
            None => (text, false),
        };
        let digits = number.strip_prefix('-').unwrap_or(number);
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
            && digits.bytes().next().is_some_and(|b| b.is_ascii_digit())
            && digits.bytes().last().is_some_and(|b| b.is_ascii_digit());
        if !is_plain {
            return None;
        }
        let value = Decimal::from_str_exact(number).ok()?;
        let value = if is_percent { value.checked_div(Decimal::ONE_HUNDRED)? } else { value };
        (value.abs() <= Decimal::TEN && value.scale() <= 12).then(|| Self(value.normalize()))
    }
}

/// A rate such as `"5req/sec"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThrottleRate {
    /// Requests that may come at once, and that pass in `per`.
    pub requests: u32,
    /// The span.
    pub per: Millis,
}

impl ThrottleRate {
    fn parse(text: &str) -> Option<Self> {
        let (count, unit) = text.split_once("req/")?;
        let per = match unit {
            "s" | "sec" | "second" => 1000,
            "m" | "min" | "minute" => 60_000,
            "h" | "hour" => 3_600_000,
            _ => return None,
        };
        let requests = count.trim().parse().ok()?;
        (1..=1_000_000).contains(&requests).then_some(Self { requests, per: Millis(per) })
    }
}

struct Text<T> {
    expected: &'static str,
    parse: fn(&str) -> Option<T>,
}

impl<T> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a share such as \"25%\" or \"0.25\", between -1000% and 1000%";
        from.deserialize_str(Text { expected, parse: Self::parse })
    }
}

impl<'de> Deserialize<'de> for ThrottleRate {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let expected = "a rate such as \"5req/sec\", \"300req/min\" or \"1000req/hour\"";
        from.deserialize_str(Text { expected, parse: Self::parse })
    }
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
            Level::Alert => self.actions.level_1.as_ref(),
            Level::Throttle => self.actions.level_2.as_ref(),
            Level::Block => self.actions.level_3.as_ref(),
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

    /// Whether requests are answered 429 at the third level.
    pub fn blocks(&self) -> bool {
        self.actions.level_3.as_ref().is_some_and(|rule| rule.action.is_some())
    }

    /// Whether responses that stream are ended at the third level.
    pub fn stops_streams(&self) -> bool {
        self.actions.level_3.as_ref().is_some_and(|rule| rule.stop_streams)
    }

    /// The kind in events.
    pub const fn kind(&self) -> &'static str {
        match (&self.repeats, &self.budget) {
            (Some(_), _) => "loop",
            (None, Some(_)) => "budget",
            (None, None) => "margin",
        }
    }

    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        not_empty(&format!("{path}.id"), &self.id)?;
        if self.id.len() > 64 {
            return Err(error(&format!("{path}.id"), "expected at most 64 bytes"));
        }
        if let Some(budget) = self.budget {
            let given = [budget.calls.is_some(), budget.tokens.is_some()];
            let given = given.into_iter().chain([budget.provider_cost.is_some()]);
            if given.filter(|is_given| *is_given).count() != 1 {
                let reason = "expected exactly one of `calls`, `tokens` and `provider_cost`";
                return Err(error(&format!("{path}.budget"), reason));
            }
        }
        if self.hysteresis.0.is_sign_negative() {
            return Err(error(&format!("{path}.hysteresis"), "expected zero or more"));
        }
        if self.reserve.is_some() && (!self.blocks() || self.is_counted()) {
            let reason = "expected none without a level 3 that blocks, by margin or provider cost";
            return Err(error(&format!("{path}.reserve"), reason));
        }
        if self.scope == ScopeKind::Session && self.fleet {
            let reason = "expected none for sessions: each Envoy has its own";
            return Err(error(&format!("{path}.fleet"), reason));
        }
        if (self.scope == ScopeKind::Session) != (self.period == Period::Session) {
            let reason = "expected \"session\" for the scope \"session\", and for no other";
            return Err(error(&format!("{path}.period"), reason));
        }
        if let Some(rule) = self.repeats {
            return self.validate_loop(rule, path);
        }
        self.validate_actions(&format!("{path}.actions"))
    }

    fn validate_loop(&self, rule: LoopRule, path: &str) -> Result<(), ConfigError> {
        if self.scope != ScopeKind::Session {
            let reason = "expected \"session\" with `loop`: calls are compared within a session";
            return Err(error(&format!("{path}.scope"), reason));
        }
        if self.budget.is_some() || self.reserve.is_some() || self.metric.is_some() {
            let reason = "expected none beside `budget`, `reserve` or `metric`";
            return Err(error(&format!("{path}.loop"), reason));
        }
        if rule.calls == 0 || rule.window.millis() < WINDOW_MIN {
            let reason = "expected at least 1 call and a window of at least 1 s";
            return Err(error(&format!("{path}.loop"), reason));
        }
        let Actions { level_1, level_2, level_3 } = &self.actions;
        let others = [("level_1", level_1), ("level_3", level_3)];
        if let Some((name, _)) = others.iter().find(|(_, rule)| rule.is_some()) {
            let reason = "expected none: a loop goes to level 2";
            return Err(error(&format!("{path}.actions.{name}"), reason));
        }
        let path = format!("{path}.actions.level_2");
        match level_2 {
            None => Err(error(&path, "expected what happens to a loop, found none")),
            Some(LevelRule { threshold: Some(_), .. }) => {
                let path = format!("{path}.threshold");
                Err(error(&path, "expected none: `loop` says when the level is reached"))
            }
            Some(rule) => Self::validate_rule(rule, Level::Throttle, &path),
        }
    }

    /// A scope adds up the amounts of all products that its guard looks at, unless it only counts.
    pub(super) fn validate_currency(
        &self,
        products: &[Rc<Product>],
        path: &str,
    ) -> Result<(), ConfigError> {
        if self.is_counted() || self.repeats.is_some() {
            return Ok(());
        }
        let is_guarded = |id: &String| self.products.is_empty() || self.products.contains(id);
        let mut guarded = products.iter().filter(|product| is_guarded(&product.id));
        let Some(first) = guarded.next() else { return Ok(()) };
        let currency = &first.pricing.currency;
        let Some(other) = guarded.find(|product| product.pricing.currency != *currency) else {
            return Ok(());
        };
        let reason = format!(
            "expected products of one currency, found {currency:?} in {:?} and {:?} in {:?}: amounts are not converted",
            first.id, other.pricing.currency, other.id
        );
        Err(error(&format!("{path}.products"), &reason))
    }

    /// Whether calls or tokens are counted, and not money.
    fn is_counted(&self) -> bool {
        self.budget.is_some_and(|budget| budget.provider_cost.is_none())
    }

    fn validate_actions(&self, path: &str) -> Result<(), ConfigError> {
        let levels = [Level::Alert, Level::Throttle, Level::Block];
        if levels.iter().all(|level| self.rule(*level).is_none()) {
            return Err(error(path, "expected at least one of `level_1`, `level_2` and `level_3`"));
        }
        let mut above: Option<Share> = None;
        for (level, name) in levels.into_iter().zip(["level_1", "level_2", "level_3"]) {
            let Some(rule) = self.rule(level) else { continue };
            let path = format!("{path}.{name}");
            if rule.threshold.is_none() && level != Level::Block {
                let reason = "expected a share such as \"30%\", found none";
                return Err(error(&format!("{path}.threshold"), reason));
            }
            Self::validate_rule(rule, level, &path)?;
            let threshold = rule.threshold.unwrap_or(self.min_margin);
            if above.is_some_and(|above| above < threshold) {
                let reason = "expected at most the threshold of the level before";
                return Err(error(&format!("{path}.threshold"), reason));
            }
            above = Some(threshold);
        }
        Ok(())
    }

    /// What a rule says must be of its level.
    fn validate_rule(rule: &LevelRule, level: Level, path: &str) -> Result<(), ConfigError> {
        if rule.throttle_rate.is_some() && level != Level::Throttle {
            let reason = "expected none: requests are throttled at level 2";
            return Err(error(&format!("{path}.throttle_rate"), reason));
        }
        if rule.action.is_some() && level != Level::Block {
            let reason = "expected none: requests are blocked at level 3";
            return Err(error(&format!("{path}.action"), reason));
        }
        if rule.stop_streams && rule.action.is_none() {
            let reason =
                "expected none without the action of level 3: what runs ends with what is blocked";
            return Err(error(&format!("{path}.stop_streams"), reason));
        }
        Ok(())
    }
}

/// Shorter than this nothing that an agent does is a loop, and the window's eighths are no times to look at.
const WINDOW_MIN: Millis = Millis(1000);
