//! How many times the CPU that one filter adds another one adds, and how sure that is: intervals by
//! resampling the rounds, and no ratio where the noise of the machine may be all of it.

use std::fmt;

use serde::Serialize;

use super::listeners::Variant;
use super::report::Slice;
use super::stats::{Quartiles, Random};

/// How often the rounds are drawn anew.
const DRAWS: usize = 2000;
/// Of fewer rounds the middle says nothing for certain.
const ROUNDS_MIN: usize = 6;
const SEED: u64 = 0x0072_6174_696f;
/// What is compared, each with what it is divided by.
const COMPARED: [(Variant, Variant); 8] = [
    (Variant::Guarded, Variant::AgentMeter),
    (Variant::Reserving, Variant::AgentMeter),
    (Variant::AgentMeter, Variant::Beside),
    (Variant::AgentMeter, Variant::EmptyWasm),
    (Variant::AgentMeter, Variant::ReadingWasm),
    (Variant::ReadingWasm, Variant::NativeMcp),
    (Variant::AgentMeter, Variant::NativeMcp),
    (Variant::AgentMeter, Variant::Lua),
];

/// The added CPU of a listener as a multiple of another one's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ratio {
    listener: &'static str,
    of: &'static str,
    /// The ratio of the medians, with its interval of 95 %; `None` if noise may be all of it.
    times: Option<Interval>,
    /// Why there is no ratio.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// A median, and between which bounds it lies in 95 of 100 draws of the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Interval {
    low: f64,
    median: f64,
    high: f64,
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
        let Self { listener, of, times, reason } = self;
        match (times, reason) {
            (Some(times), _) => write!(f, "{listener} : {of} = {times}"),
            (None, reason) => {
                write!(f, "{listener} : {of}: no ratio, {}", reason.as_deref().unwrap_or_default())
            }
        }
    }
}

/// The slices of each listener, in the order of the rounds.
pub(super) type Listeners<'a> = [(Variant, &'a [Slice])];

/// All ratios of the listeners that are there.
pub(super) fn ratios(listeners: &Listeners<'_>) -> Vec<Ratio> {
    let noise = added(listeners, Variant::NoFilterAgain).map(|added| Interval::of(&added, median));
    let noise_us = noise.map_or(0.0, |noise| noise.low.abs().max(noise.high.abs()));
    let compared = COMPARED.into_iter().filter_map(|(variant, of)| {
        let (ours, theirs) = (added(listeners, variant)?, added(listeners, of)?);
        Some(ratio((variant.name(), &ours), (of.name(), &theirs), noise_us))
    });
    compared.collect()
}

/// What a listener adds to the CPU of a call in each round, in microseconds.
fn added(listeners: &Listeners<'_>, variant: Variant) -> Option<Vec<f64>> {
    let of = |wanted| listeners.iter().find(|(found, _)| *found == wanted).map(|(_, own)| *own);
    let rounds = of(variant)?.iter().zip(of(Variant::NoFilter)?);
    Some(rounds.map(|(own, reference)| own.cpu_us - reference.cpu_us).collect())
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
    Ratio { listener, of, times, reason }
}

fn median(values: &[f64]) -> f64 {
    Quartiles::median(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(cpu_us: impl Iterator<Item = f64>) -> Vec<Slice> {
        let slice =
            |cpu_us| Slice { cpu_us, workers_us: 0.0, user_us: 0.0, p50_us: 0.0, p99_us: 0.0 };
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
        assert_eq!(only.to_string(), format!("agent-meter : native mcp filter = {times}"));
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
            "with guards : agent-meter: no ratio, as 5 rounds are fewer than 6"
        );
    }
}
