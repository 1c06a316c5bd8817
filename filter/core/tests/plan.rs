//! Plans of a few calls each, which a seed makes up, and a model that knows which of them were
//! answered: each answer counts once, and each call is an event.

use std::collections::BTreeMap;

use crate::dice::Dice;
use crate::play::Play;

/// A few calls of two sessions. The ids of every second plan are constant.
pub(crate) fn plan(seed: u64, dice: &mut Dice) -> Vec<Play> {
    let is_constant = seed.is_multiple_of(2);
    let calls = 2 + dice.below(8);
    let play = |number: u64| {
        let session = dice.below(2);
        let id = if is_constant { 1 } else { number };
        Play::new(dice, session, format!("t{number}"), id, !is_constant)
    };
    (0..calls).map(play).collect()
}

/// Checks the calls of a plan against the status of each tool's call: a call is a success if it was
/// answered. Which of several calls with one id an answer elsewhere is for, nobody can tell: there
/// are as many successes as answers.
pub(crate) fn check(plays: &[Play], statuses: &BTreeMap<String, String>) -> Result<(), String> {
    if statuses.len() != plays.len() {
        return Err(format!("{} calls, but events of {statuses:?}", plays.len()));
    }
    let mut balance: BTreeMap<u64, i64> = BTreeMap::new();
    for play in plays {
        let status = statuses.get(&play.tool).ok_or(format!("no event of {play:?}"))?;
        let is_success = status == "SUCCESS";
        *balance.entry(play.session).or_default() +=
            i64::from(is_success) - i64::from(is_answered(play));
        let has_own_id = plays.iter().filter(|other| other.id == play.id).count() == 1;
        if (play.is_answered_on_own() || has_own_id) && is_success != is_answered(play) {
            return Err(format!("{status} of {play:?}"));
        }
    }
    if balance.values().any(|off| *off != 0) {
        return Err(format!("successes beyond answers by session: {balance:?}"));
    }
    Ok(())
}

fn is_answered(play: &Play) -> bool {
    play.is_answered_on_own() || play.elsewhere.is_some()
}
