//! `agent-meter recover --follow`: brings what is spilled to the target as the logs grow.
//!
//! To the next maintainer: a position is saved only when everything before it has arrived, so a
//! restart may send again what the target has already, and never leaves anything out. While the
//! target is down nothing more is read, but rotated logs are kept open, so that what is deleted
//! meanwhile can still be read.

mod state;
mod tail;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio::time::sleep;

use self::state::State;
use self::tail::Series;
use super::input::Place;
use super::scan::Scan;
use super::send::deliver;
use super::{Options, Recovered, Target, is_full};

/// The most logs that are followed at once.
const LOGS_MAX: usize = 4096;
/// The most bytes that are read of one log before the others have their turn.
const TURN_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// After this many rounds without anything new, the missing parts of a text do not come any more.
const PARTS_ROUNDS: u32 = 600;
/// A log that was renamed may still be written to for this many rounds.
const GRACE_ROUNDS: u32 = 5;
/// The longest wait between two tries.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What to follow.
#[derive(Debug, Clone)]
pub struct Follow {
    /// The directory of the logs.
    pub dir: PathBuf,
    /// The names of the logs; `*` stands for any text and `?` for a character.
    pub pattern: String,
    /// Where to keep how far each log has been read.
    pub state: PathBuf,
    /// How often to look.
    pub period: Duration,
}

/// Follows until `stop`; `report` gets what came of each round in which anything came.
///
/// # Errors
///
/// If the state cannot be read or written, or the directory cannot be read at the start.
pub async fn follow(
    what: &Follow,
    target: &Target,
    options: &Options<'_>,
    stop: impl Future<Output = ()>,
    report: &mut dyn FnMut(&Recovered),
) -> anyhow::Result<Recovered> {
    let mut logs = Logs::open(what)?;
    // Fails now, rather than after what cannot be remembered has been sent.
    logs.state.save(&what.state)?;
    let mut scan = Scan::new(options.secrets.clone(), &options.formats);
    let mut total = Recovered::default();
    let mut stop = std::pin::pin!(stop);
    loop {
        let mut round = Recovered::default();
        logs.look(&scan, &mut round);
        let (batch, has_more) = logs.read(&mut scan, options, &mut round);
        let (mut tries, mut meanwhile) = (0_u32, Recovered::default());
        let mut wait = async |error: anyhow::Error| {
            // The first of many, and later ever fewer: the reason may have become another.
            if tries == 0 || u32::is_power_of_two(tries) {
                tracing::warn!("the target takes no events, which wait: {error:#}");
            }
            let mut left = what.period.saturating_mul(1 << tries.min(16)).min(PAUSE_MAX);
            tries = tries.saturating_add(1);
            while !left.is_zero() {
                let step = left.min(what.period);
                sleep(step).await;
                left -= step;
                // Keeps what is rotated away meanwhile.
                logs.look(&scan, &mut meanwhile);
            }
            Ok(())
        };
        tokio::select! {
            biased;
            done = deliver(&batch, target, &mut round, &mut wait) => done?,
            // What waits is read again at the next start.
            () = &mut stop => return Ok(total),
        }
        round.add(meanwhile);
        if tries > 0 {
            tracing::warn!("the target takes events again");
        }
        logs.save(&scan)?;
        if !has_more {
            scan.end_parts(PARTS_ROUNDS, &mut round);
        }
        if round != Recovered::default() {
            report(&round);
            total.add(round);
        }
        if !has_more {
            tokio::select! {
                () = sleep(what.period) => {}
                () = &mut stop => return Ok(total),
            }
        }
    }
}

/// The logs of a directory.
#[derive(Debug)]
struct Logs<'a> {
    what: &'a Follow,
    state: State,
    series: BTreeMap<PathBuf, Series>,
    /// Where the next turn begins, so that each log has its own.
    next: usize,
}

impl<'a> Logs<'a> {
    fn open(what: &'a Follow) -> anyhow::Result<Self> {
        let dir = what.dir.display();
        std::fs::read_dir(&what.dir).with_context(|| format!("cannot read {dir}"))?;
        let mut state = State::open(&what.state)?;
        state.forget_gone();
        Ok(Self { what, state, series: BTreeMap::new(), next: 0 })
    }

    /// Finds new and rotated logs.
    fn look(&mut self, scan: &Scan, into: &mut Recovered) {
        let needed = |name: &_| scan.needed_from(name);
        match matching(&self.what.dir, &self.what.pattern) {
            Err(error) => tracing::warn!("cannot read {}: {error}", self.what.dir.display()),
            Ok(paths) => {
                for path in paths {
                    if self.series.contains_key(&path) {
                        continue;
                    }
                    if self.series.len() >= LOGS_MAX {
                        tracing::warn!("more than {LOGS_MAX} logs: {} waits", path.display());
                        break;
                    }
                    self.series.insert(path.clone(), Series::new(path));
                }
            }
        }
        self.series.retain(|path, series| match series.look(&mut self.state, &needed) {
            Ok(0) => {
                series.is_gone = false;
                true
            }
            Ok(lost) => {
                series.is_gone = false;
                let path = path.display();
                into.unreadable.push(format!("{path}: {lost} rotated logs: too many wait"));
                true
            }
            // It is gone; what is open can still be read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let is_done = series.waiting.is_empty();
                if is_done {
                    self.state.forget(path);
                }
                series.is_gone = true;
                !is_done
            }
            Err(error) => {
                tracing::warn!("cannot read {}: {error}", path.display());
                true
            }
        });
    }

    /// Reads until a batch is full or nothing is left; says whether there may be more.
    fn read(
        &mut self,
        scan: &mut Scan,
        options: &Options<'_>,
        round: &mut Recovered,
    ) -> (Vec<String>, bool) {
        let mut batch = Vec::new();
        let mut has_more = false;
        let count = self.series.len();
        let grace = self.what.period * GRACE_ROUNDS;
        let start = self.next.checked_rem(count).unwrap_or(0);
        let paths: Vec<PathBuf> =
            self.series.keys().cycle().skip(start).take(count).cloned().collect();
        for path in paths {
            let Some(series) = self.series.get_mut(&path) else { continue };
            let mut turn = 0;
            loop {
                if is_full(&batch) {
                    return (batch, true);
                }
                if turn > TURN_BYTES_MAX {
                    has_more = true;
                    break;
                }
                let is_last = series.waiting.len() == 1 && !series.is_gone;
                let Some(tail) = series.waiting.front_mut() else { break };
                let may_grow = is_last || !tail.is_quiet(grace);
                let place = Place { log: tail.name.clone(), line: 0, offset: tail.offset };
                match tail.next_line(may_grow) {
                    Ok(Some(line)) => {
                        turn += line.length;
                        for spilled in scan.read(&place, &line.text, round) {
                            options.add(spilled, &mut batch, round);
                        }
                    }
                    Ok(None) if may_grow => break,
                    Ok(None) => series.end_first(scan, round),
                    Err(error) => {
                        round.unreadable.push(format!("{place}: the log ends here: {error}"));
                        series.end_first(scan, round);
                    }
                }
            }
            self.next = self.next.wrapping_add(1);
        }
        (batch, has_more)
    }

    /// Remembers what has arrived.
    fn save(&mut self, scan: &Scan) -> anyhow::Result<()> {
        let needed = |name: &_| scan.needed_from(name);
        let mut is_changed = false;
        for (path, series) in &mut self.series {
            is_changed |= self.state.set(path, series.positions(&needed));
        }
        if is_changed { self.state.save(&self.what.state) } else { Ok(()) }
    }
}

/// The paths in a directory whose names fit.
fn matching(dir: &Path, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let is_named = fits(pattern.as_bytes(), entry.file_name().to_string_lossy().as_bytes());
        let is_file = || std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file());
        if is_named && is_file() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a name fits a pattern with `*` and `?`.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut in_name) = (0, 0);
    // Behind the last `*`, and what it stands for at least.
    let mut retry: Option<(usize, usize)> = None;
    while in_name < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, in_name));
                at += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == name.get(in_name) => {
                at += 1;
                in_name += 1;
            }
            _ => match retry {
                Some((behind, taken)) => {
                    retry = Some((behind, taken + 1));
                    (at, in_name) = (behind, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn names_fit_patterns() {
        for (pattern, name, expected) in [
            ("*.log", "a.log", true),
            ("*.log", "a.log.1", false),
            ("*_istio-proxy-*.log", "pod-1_mcp_istio-proxy-0123.log", true),
            ("*_istio-proxy-*.log", "pod-1_mcp_server-0123.log", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("**a", "ba", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
