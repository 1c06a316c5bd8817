//! How many times the CPU that one filter adds another one adds, and how sure that is: intervals by
//! resampling the rounds, and no ratio where the noise of the machine may be all of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::report::Slice;
use super::stats::{Quartiles, Random, differences};
use super::variant::Variant;

/// How often the rounds are drawn anew.
const DRAWS: usize = 2000;
/// Of fewer rounds the middle says nothing for certain.
const ROUNDS_MIN: usize = 6;
const SEED: u64 = 0x0072_6174_696f;
/// What is compared, each with what it is divided by, and the most that it should be.
const COMPARED: [(Variant, Variant, Option<f64>); 13] = [
    (Variant::AgentMeter, Variant::NativeMcp, Some(1.0)),
    (Variant::AgentMeter, Variant::EmptyWasm, Some(2.5)),
    (Variant::AgentMeter, Variant::ExtProc, Some(0.2)),
    (Variant::Guarded, Variant::AgentMeter, Some(1.1)),
    (Variant::Reserving, Variant::AgentMeter, Some(1.4)),
    (Variant::Unmatched, Variant::EmptyWasm, Some(1.2)),
    (Variant::AgentMeter, Variant::Beside, None),
    (Variant::AgentMeter, Variant::ReadingWasm, None),
    (Variant::ReadingWasm, Variant::NativeMcp, None),
    (Variant::AgentMeter, Variant::NativeMcpAndAi, None),
    (Variant::AgentMeter, Variant::BufferingWasm, None),
    (Variant::AgentMeter, Variant::Lua, None),
    (Variant::ExtProc, Variant::NativeMcp, None),
];

/// The added CPU of a listener as a multiple of another one's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ratio {
    listener: &'static str,
    of: &'static str,
    /// The ratio of the medians, with its interval of 95 %; `None` if noise may be all of it.
    times: Option<Interval>,
    /// The most that it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<f64>,
    /// Whether it is; `None` without a target or without a ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<Verdict>,
    /// Why there is no ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Whether a ratio is within its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// The whole interval is.
    Met,
    /// The interval reaches beyond it.
    Uncertain,
    /// None of the interval is.
    Missed,
}

impl Verdict {
    fn of(times: Interval, target: f64) -> Self {
        match times {
            Interval { high, .. } if high <= target => Self::Met,
            Interval { low, .. } if low > target => Self::Missed,
            _ => Self::Uncertain,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::Uncertain => "uncertain",
            Self::Missed => "missed",
        })
    }
}

/// A median, and between which bounds it lies in 95 of 100 draws of the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) median: f64,
    pub(super) high: f64,
}

impl fmt::Display for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_digits(2))
    }
}

impl Interval {
    /// With so many digits behind the point.
    pub(super) fn in_digits(&self, digits: usize) -> String {
        let Self { low, median, high } = self;
        format!("{median:.digits$} ({low:.digits$} to {high:.digits$})")
    }

    /// A figure of all rounds, and the interval in which it lies if rounds are drawn anew, with
    /// repetition. Rounds are drawn whole, so neighbours stay together.
    pub(super) fn of<T: Copy>(rounds: &[T], figure: impl Fn(&[T]) -> f64) -> Self {
        let mut random = Random(SEED);
        let count = u64::try_from(rounds.len().max(1)).unwrap_or(u64::MAX);
        let mut drawn: Vec<f64> = (0..DRAWS)
            .map(|_| {
                let place =
                    |random: &mut Random| usize::try_from(random.next() % count).unwrap_or(0);
                let draw: Vec<T> =
                    rounds.iter().filter_map(|_| rounds.get(place(&mut random)).copied()).collect();
                figure(&draw)
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        let at = |fortieths: usize| drawn.get(DRAWS * fortieths / 40).copied().unwrap_or(f64::NAN);
        let (low, high) = (at(1), at(39));
        Self { low, median: figure(rounds), high }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listener, of, times, target, verdict, reason } = self;
        match (times, reason) {
            (Some(times), _) => write!(f, "{listener} : {of} = {times}")?,
            (None, reason) => {
                let reason = reason.as_deref().unwrap_or_default();
                write!(f, "{listener} : {of}: no ratio, {reason}")?;
            }
        }
        if let Some(target) = target {
            write!(f, "; target {target}")?;
        }
        if let Some(verdict) = verdict {
            write!(f, ": {verdict}")?;
        }
        Ok(())
    }
}

/// The slices of each listener, in the order of the rounds.
pub(super) type Listeners<'a> = [(Variant, &'a [Slice])];

/// All ratios of the listeners that are there.
pub(super) fn ratios(listeners: &Listeners<'_>) -> Vec<Ratio> {
    let noise = added(listeners, Variant::NoFilterAgain).map(|added| Interval::of(&added, median));
    let noise_us = noise.map_or(0.0, |noise| noise.low.abs().max(noise.high.abs()));
    let compared = COMPARED.into_iter().filter_map(|(variant, of, target)| {
        let (ours, theirs) = (added(listeners, variant)?, added(listeners, of)?);
        let ratio = ratio((variant.name(), &ours), (of.name(), &theirs), noise_us);
        let verdict = ratio.times.zip(target).map(|(times, target)| Verdict::of(times, target));
        Some(Ratio { target, verdict, ..ratio })
    });
    compared.collect()
}

/// What a listener adds to the CPU of a call in each round, with the external processor's own, in
/// microseconds.
fn added(listeners: &Listeners<'_>, variant: Variant) -> Option<Vec<f64>> {
    let of = |wanted| {
        let (_, slices) = listeners.iter().find(|(found, _)| *found == wanted)?;
        Some(slices.iter().map(Slice::whole_us).collect::<Vec<f64>>())
    };
    Some(differences(&of(variant)?, &of(Variant::NoFilter)?))
}

fn ratio(
    (listener, ours): (&'static str, &[f64]),
    (of, theirs): (&'static str, &[f64]),
    noise_us: f64,
) -> Ratio {
    let rounds = ours.len();
    let least = Interval::of(theirs, median).low;
    let reason = if rounds < ROUNDS_MIN {
        Some(format!("as {rounds} rounds are fewer than {ROUNDS_MIN}"))
    } else if least <= noise_us {
        Some(format!("as the {of} may add {least:.1} us and the machine's noise {noise_us:.1}"))
    } else {
        None
    };
    let times = reason.is_none().then(|| {
        let pairs: Vec<(f64, f64)> = ours.iter().copied().zip(theirs.iter().copied()).collect();
        let quotient = |pairs: &[(f64, f64)]| {
            let (ours, theirs): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
            median(&ours) / median(&theirs)
        };
        Interval::of(&pairs, quotient)
    });
    Ratio { listener, of, times, target: None, verdict: None, reason }
}

fn median(values: &[f64]) -> f64 {
    Quartiles::median(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(cpu_us: impl Iterator<Item = f64>) -> Vec<Slice> {
        // A quarter is the external processor's.
        let slice = |us: f64| Slice {
            cpu_us: us * 0.75,
            processor_us: us * 0.25,
            workers_us: 0.0,
            user_us: 0.0,
            p50_us: 0.0,
            p99_us: 0.0,
        };
        cpu_us.map(slice).collect()
    }

    /// Slices of 14 rounds of a machine whose speed changes by a tenth from round to round, and whose
    /// noise is up to one microsecond.
    fn listeners(rounds: u32, adds: &[(Variant, f64)]) -> Vec<(Variant, Vec<Slice>)> {
        let mut random = Random(7);
        let adds = adds.iter().map(|(variant, adds)| {
            let round = |round: u32| {
                let noise = f64::from(u32::try_from(random.next() % 2000).expect("small")) / 1000.0;
                (80.0 + adds) * (1.0 + f64::from(round % 3) / 10.0) + noise - 1.0
            };
            (*variant, slices((0..rounds).map(round)))
        });
        adds.collect()
    }

    fn told(rounds: u32, adds: &[(Variant, f64)]) -> Vec<Ratio> {
        let listeners = listeners(rounds, adds);
        let borrowed: Vec<(Variant, &[Slice])> =
            listeners.iter().map(|(variant, own)| (*variant, own.as_slice())).collect();
        ratios(&borrowed)
    }

    #[test]
    fn a_ratio_has_an_interval_that_holds_it() {
        let all = told(
            14,
            &[
                (Variant::NoFilter, 0.0),
                (Variant::NoFilterAgain, 0.0),
                (Variant::AgentMeter, 80.0),
                (Variant::NativeMcp, 40.0),
            ],
        );
        let [only] = &all[..] else { panic!("{all:?}") };
        let times = only.times.expect("a ratio");
        assert!(times.low < 2.0 && 2.0 < times.high && times.high - times.low < 0.3, "{times}");
        assert!((1.9..2.1).contains(&times.median), "{times}");
        assert_eq!(
            only.to_string(),
            format!("agent-meter : native mcp filter = {times}; target 1: missed")
        );
    }

    #[test]
    fn a_target_is_met_only_by_the_whole_interval() {
        for (low, high, verdict) in [
            (0.5, 1.0, Verdict::Met),
            (0.5, 1.01, Verdict::Uncertain),
            (1.0, 2.0, Verdict::Uncertain),
            (1.01, 2.0, Verdict::Missed),
            (f64::NAN, f64::NAN, Verdict::Uncertain),
        ] {
            let times = Interval { low, median: 1.0, high };
            assert_eq!(Verdict::of(times, 1.0), verdict, "{times}");
        }
    }

    #[test]
    fn there_is_no_ratio_where_noise_may_be_all_of_it() {
        let adds = [
            (Variant::NoFilter, 0.0),
            (Variant::NoFilterAgain, 6.0),
            (Variant::AgentMeter, 80.0),
            (Variant::EmptyWasm, 6.0),
        ];
        let all = told(14, &adds);
        let [only] = &all[..] else { panic!("{all:?}") };
        assert_eq!(only.times, None);
        assert!(only.to_string().contains("no ratio, as the empty Wasm filter may add"), "{only}");
        let few = told(5, &[adds[0], adds[2], (Variant::Guarded, 90.0)]);
        assert_eq!(
            few[0].to_string(),
            "with guards : agent-meter: no ratio, as 5 rounds are fewer than 6; target 1.1"
        );
    }
}
