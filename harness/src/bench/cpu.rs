//! Measures the CPU time of a process and of its worker threads, and pins both to cores; Linux
//! only.
//!
//! `/proc/PID/stat` counts in steps of 10 ms, which is 10 us for each of 1000 requests. So the
//! total comes from `/proc/PID/task/*/schedstat`, in nanoseconds, if the kernel has it. The kernel
//! only samples user time, a few hundred times a second: only its mean over many rounds is
//! meaningful.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

/// The step of `/proc/PID/stat`: USER_HZ is 100 on every architecture that Envoy runs on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time that Envoy has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct CpuTime {
    pub(super) total: Duration,
    /// The part of the total that the threads used which serve requests. The filter delivers events
    /// from another thread.
    pub(super) workers: Duration,
    pub(super) user: Duration,
}

impl CpuTime {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let (user, _) = user_and_system(&process)?;
        let mut time = Self { user, ..Self::default() };
        // No thread of Envoy ends before Envoy does.
        for thread in fs::read_dir(process.join("task"))? {
            let thread = thread?.path();
            let used = match scheduled(&thread) {
                Some(used) => used,
                None => user_and_system(&thread).map(|(user, system)| user + system)?,
            };
            time.total += used;
            if fs::read_to_string(thread.join("comm"))?.starts_with("wrk:") {
                time.workers += used;
            }
        }
        Ok(time)
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            workers: self.workers.saturating_sub(earlier.workers),
            user: self.user.saturating_sub(earlier.user),
        }
    }
}

/// CPU time that this process has used, with threads that have ended; in steps of 10 ms.
pub(super) fn own() -> anyhow::Result<Duration> {
    user_and_system(Path::new("/proc/self")).map(|(user, system)| user + system)
}

fn user_and_system(of: &Path) -> anyhow::Result<(Duration, Duration)> {
    let path = of.join("stat");
    let name = path.display();
    let stat = fs::read_to_string(&path);
    let stat = stat.with_context(|| format!("{name}: CPU time is measured on Linux only"))?;
    fields_14_and_15(&stat).with_context(|| format!("{name} is odd: {stat}"))
}

/// The second field is a name in parentheses, which may contain any character.
fn fields_14_and_15(stat: &str) -> Option<(Duration, Duration)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse().ok().map(|ticks: u32| TICK * ticks);
    Some((ticks()?, ticks()?))
}

fn scheduled(thread: &Path) -> Option<Duration> {
    let text = fs::read_to_string(thread.join("schedstat")).ok()?;
    Some(Duration::from_nanos(text.split_ascii_whitespace().next()?.parse().ok()?))
}

/// Pins Envoy to one core, and this process and the external processor to the others; returns a
/// sentence that says so.
pub(super) async fn separate(envoy: u32, processor: Option<u32>) -> anyhow::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut cores = cores(allowed.context("/proc/self/status names no cores")?.trim())?;
    let Some(own) = cores.pop().filter(|_| !cores.is_empty()) else {
        bail!("there is only one core");
    };
    let others: Vec<String> = cores.iter().map(u32::to_string).collect();
    let others = others.join(",");
    pin(std::process::id(), &others).await?;
    if let Some(processor) = processor {
        pin(processor, &others).await?;
    }
    pin(envoy, &own.to_string()).await?;
    Ok(format!("Envoy alone on core {own}, load and servers on {others}"))
}

/// Reads a list such as `0-2,7`.
fn cores(list: &str) -> anyhow::Result<Vec<u32>> {
    let mut cores = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        cores.extend(first.parse::<u32>()?..=last.parse()?);
    }
    Ok(cores)
}

/// Pins every thread of a process; threads that start later inherit it.
async fn pin(pid: u32, cores: &str) -> anyhow::Result<()> {
    let taskset = Command::new("taskset")
        .args(["-a", "-p", "-c", cores, &pid.to_string()])
        .output()
        .await
        .context("cannot run `taskset`")?;
    let stderr = String::from_utf8_lossy(&taskset.stderr).trim().to_owned();
    ensure!(taskset.status.success(), "`taskset` failed: {stderr}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_whatever_the_process_is_called() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 250 31 0 0 20 0 9 0 1 2 3";
        let expected = (Duration::from_millis(2500), Duration::from_millis(310));
        assert_eq!(fields_14_and_15(stat), Some(expected));
        assert_eq!(fields_14_and_15("42 (envoy) S 1 42"), None);
        assert_eq!(fields_14_and_15(""), None);
    }

    #[test]
    fn lists_of_cores_are_read() {
        for (list, expected) in [("0", vec![0]), ("0-1", vec![0, 1]), ("0-2,7", vec![0, 1, 2, 7])] {
            assert_eq!(cores(list).expect(list), expected, "{list}");
        }
        assert!(cores("").is_err());
        assert!(cores("a-b").is_err());
    }
}
