//! Checks that every setting of a guard has an effect.

use std::rc::Rc;

use crate::base::invalid::{ConfigError, error, not_empty};
use crate::base::text::Share;
use crate::base::time::Millis;
use crate::config::guard::{
    Action, BlockAction, Guard, LevelRule, LevelRules, LoopRule, Reserve, Unit,
};
use crate::config::llm::OnUnseen;
use crate::config::product::Product;
use crate::domain::level::{Level, ScopeKind};
use crate::domain::period::Period;

impl Guard {
    pub(super) fn validate(&self, path: &str) -> Result<(), ConfigError> {
        not_empty(&format!("{path}.id"), &self.id)?;
        if self.id.len() > 64 {
            return Err(error(&format!("{path}.id"), "expected at most 64 bytes"));
        }
        if let Some(budget) = self.budget {
            let given = [budget.calls.is_some(), budget.tokens.is_some()];
            let given = given.into_iter().chain([budget.provider_cost.is_some()]);
            let given = given.chain([budget.prepaid_balance]);
            if given.filter(|is_given| *is_given).count() != 1 {
                let reason = "expected exactly one of `calls`, `tokens`, `provider_cost` and `prepaid_balance`";
                return Err(error(&format!("{path}.budget"), reason));
            }
        }
        self.validate_prepaid(path)?;
        if self.hysteresis.0.is_sign_negative() {
            return Err(error(&format!("{path}.hysteresis"), "expected zero or more"));
        }
        if let Some(reserve) = &self.reserve {
            self.validate_reserve(reserve, &format!("{path}.reserve"))?;
        }
        if self.scope == ScopeKind::Session && self.fleet {
            let reason = "expected none for sessions: each Envoy has its own";
            return Err(error(&format!("{path}.fleet"), reason));
        }
        if (self.scope == ScopeKind::Session) != (self.period == Period::Session) {
            let reason = "expected \"session\" for the scope \"session\", and for no other";
            return Err(error(&format!("{path}.period"), reason));
        }
        if let Some(rule) = self.loop_rule {
            return self.validate_loop(rule, path);
        }
        self.validate_actions(&format!("{path}.actions"))
    }

    /// A balance is known to the collector alone, of a few kinds of scope, and counts prices.
    fn validate_prepaid(&self, path: &str) -> Result<(), ConfigError> {
        let url = &self.top_up_url;
        let is_url = url.starts_with("https://")
            && url.bytes().all(|byte| byte.is_ascii_graphic())
            && url.len() <= URL_BYTES_MAX;
        let has_balance =
            matches!(self.scope, ScopeKind::Customer | ScopeKind::Team | ScopeKind::Agent);
        let is_unset = url.is_empty() && self.on_unknown_balance == OnUnseen::Reject;
        let rules = if self.is_prepaid() {
            [
                (
                    self.fleet,
                    "fleet",
                    "expected true with `prepaid_balance`: the collector tells it",
                ),
                (has_balance, "scope", "expected customer, team or agent with `prepaid_balance`"),
                (
                    self.metric.is_none() && self.reserve.is_none(),
                    "budget.prepaid_balance",
                    "expected none beside `metric` and `reserve`: all prices are taken from it",
                ),
                (
                    !self.pauses(),
                    "actions.level_3.action",
                    "expected `block_request` with `prepaid_balance`: it takes a top-up",
                ),
                (
                    is_url || url.is_empty(),
                    "top_up_url",
                    "expected a URL such as \"https://pay.example.com\"",
                ),
            ]
        } else {
            let reason = "expected none without `budget: { prepaid_balance: true }`";
            [(is_unset, "top_up_url", reason); 5]
        };
        let broken = rules.iter().find(|(holds, ..)| !holds);
        broken.map_or(Ok(()), |(_, member, reason)| Err(error(&format!("{path}.{member}"), reason)))
    }

    fn validate_reserve(&self, reserve: &Reserve, path: &str) -> Result<(), ConfigError> {
        if !self.does(Action::Block) {
            return Err(error(path, "expected none without a level 3 that blocks"));
        }
        let is_of_money = reserve.last_cost || !reserve.estimate.amount().is_zero();
        match (self.unit(), reserve.estimate_tokens) {
            (Unit::Calls, None) if !is_of_money => Ok(()),
            (Unit::Calls, _) => {
                Err(error(path, "expected {} for a budget of calls: each call reserves one"))
            }
            (Unit::Tokens, Some(1..)) if !is_of_money => Ok(()),
            (Unit::Tokens, _) => {
                let reason = "expected only `estimate_tokens`, at least 1, for a budget of tokens";
                Err(error(path, reason))
            }
            (Unit::Cost, Some(_)) => {
                let reason = "expected none: this guard counts provider cost";
                Err(error(&format!("{path}.estimate_tokens"), reason))
            }
            (Unit::Cost, None) => Ok(()),
        }
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
        let LevelRules { level_1, level_2, level_3 } = &self.levels;
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

    /// A scope adds up amounts of all its guard's products, so these need one currency. A guard
    /// that only counts calls or tokens adds up no amounts.
    pub(super) fn validate_currency(
        &self,
        products: &[Rc<Product>],
        path: &str,
    ) -> Result<(), ConfigError> {
        if self.is_counted() || self.loop_rule.is_some() {
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

    /// Whether the guard counts calls or tokens, not money.
    fn is_counted(&self) -> bool {
        self.unit() != Unit::Cost
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

    /// A rule may contain only what fits its level.
    fn validate_rule(rule: &LevelRule, level: Level, path: &str) -> Result<(), ConfigError> {
        if rule.throttle_rate.is_some() && level != Level::Throttle {
            let reason = "expected none: requests are throttled at level 2";
            return Err(error(&format!("{path}.throttle_rate"), reason));
        }
        if rule.action.is_some() && level != Level::Block {
            let reason = "expected none: requests are blocked at level 3";
            return Err(error(&format!("{path}.action"), reason));
        }
        if rule.stop_streams && rule.action == Some(BlockAction::PauseRequest) {
            let reason = "expected none with `pause_request`: what runs goes on";
            return Err(error(&format!("{path}.stop_streams"), reason));
        }
        if rule.stop_streams && rule.action.is_none() {
            let reason =
                "expected none without the action of level 3: what runs ends with what is blocked";
            return Err(error(&format!("{path}.stop_streams"), reason));
        }
        Ok(())
    }
}

/// Refusals repeat the URL.
const URL_BYTES_MAX: usize = 1024;

/// In a shorter window an agent cannot loop, and its eighths are too short to evaluate.
const WINDOW_MIN: Millis = Millis(1000);
