//! Every refusal with its codes, for the reference.

use std::iter::successors;

use serde_json::Value;

use crate::guard::refusal::{Refusal, RefusalReason};
use crate::wire::doubt::Doubt;

/// A refusal as clients get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalRow {
    /// The HTTP status.
    pub status: u16,
    /// The code of the JSON-RPC error, for clients of MCP and A2A.
    pub json_rpc_code: i64,
    /// `error.code`, for all other clients.
    pub code: &'static str,
    /// `data.reason`, for both.
    pub reason: String,
    /// The message in words.
    pub message: &'static str,
}

/// Every refusal by a guard, a plan, an operator or a doubt, in the order of the code.
pub fn refusals() -> Vec<RefusalRow> {
    let reasons = successors(Some(RefusalReason::Margin), |reason| after(*reason));
    reasons.map(|reason| row(&Refusal::without_guard(reason))).collect()
}

fn row(refusal: &Refusal) -> RefusalRow {
    let reply = refusal.json_rpc(None);
    let code = reply.pointer("/error/code").and_then(Value::as_i64);
    let reason = reply.pointer("/error/data/reason").and_then(Value::as_str);
    RefusalRow {
        status: refusal.status(),
        json_rpc_code: code.unwrap_or_default(),
        code: refusal.code(),
        reason: reason.unwrap_or_default().to_owned(),
        message: refusal.message(),
    }
}

/// The reason behind this one. It names each, so that a new one does not compile without its place.
const fn after(reason: RefusalReason) -> Option<RefusalReason> {
    use RefusalReason as R;
    Some(match reason {
        R::Margin => R::Budget,
        R::Budget => R::PrepaidBalance,
        R::PrepaidBalance => R::Throttled,
        R::Throttled => R::InsufficientHeadroom,
        R::InsufficientHeadroom => R::CollectorLost,
        R::CollectorLost => R::ToolNotInPlan,
        R::ToolNotInPlan => R::OverShare,
        R::OverShare => R::Unseen,
        R::Unseen => R::Upgrade,
        R::Upgrade => R::Paused,
        R::Paused => R::Draining,
        R::Draining => R::Unreadable(Doubt::Coding),
        R::Unreadable(doubt) => match after_doubt(doubt) {
            Some(next) => R::Unreadable(next),
            None => return None,
        },
    })
}

/// The doubt behind this one, in the same way.
const fn after_doubt(doubt: Doubt) -> Option<Doubt> {
    Some(match doubt {
        Doubt::Coding => Doubt::Charset,
        Doubt::Charset => Doubt::MediaType,
        Doubt::MediaType => Doubt::Undecodable,
        Doubt::Undecodable => Doubt::TooLarge,
        Doubt::TooLarge => Doubt::NotUtf8,
        Doubt::NotUtf8 => Doubt::NotJson,
        Doubt::NotJson => Doubt::NotAMessage,
        Doubt::NotAMessage => Doubt::Member,
        Doubt::Member => Doubt::Method,
        Doubt::Method => Doubt::Id,
        Doubt::Id => Doubt::HttpMethod,
        Doubt::HttpMethod => Doubt::Name,
        Doubt::Name => Doubt::TooManyRequests,
        Doubt::TooManyRequests => return None,
    })
}
