//! CPU time of a process, and which cores it may use; Linux only.
//!
//! `/proc/PID/stat` counts in steps of 10 ms, which is 10 us for each of 1000 requests. The total is therefore read
//! from `/proc/PID/task/*/schedstat` in nanoseconds where the kernel has it; how much of it was user time the kernel
//! only samples, so that figure is the coarser one.

use std::fs;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::process::Command;

/// The step of `/proc/PID/stat`: USER_HZ is 100 on every architecture that Envoy runs on.
const TICK: Duration = Duration::from_millis(10);

/// CPU time that a process has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CpuTime {
    pub(super) total: Duration,
    pub(super) user: Duration,
}

impl CpuTime {
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path);
        let stat = stat.with_context(|| format!("{path}: CPU time is measured on Linux only"))?;
        let (user, system) = user_and_system(&stat).with_context(|| format!("{path} is odd"))?;
        Ok(Self { total: scheduled(pid).unwrap_or(user + system), user })
    }

    pub(super) fn since(self, earlier: Self) -> Self {
        Self {
            total: self.total.saturating_sub(earlier.total),
            user: self.user.saturating_sub(earlier.user),
        }
    }
}

/// The 14th and 15th field; the second is a name in parentheses, with any character in it.
fn user_and_system(stat: &str) -> Option<(Duration, Duration)> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse().ok().map(|ticks: u32| TICK * ticks);
    Some((ticks()?, ticks()?))
}

/// Time on a core of all threads together; none of Envoy's threads ends before Envoy does.
fn scheduled(pid: u32) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        total += Duration::from_nanos(text.split_ascii_whitespace().next()?.parse().ok()?);
    }
    Some(total).filter(|total| !total.is_zero())
}

/// Keeps Envoy on a core of its own, and this process off it; returns a sentence that says so.
pub(super) async fn separate(envoy: u32) -> anyhow::Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    let mut cores = cores(allowed.context("/proc/self/status names no cores")?.trim())?;
    let Some(own) = cores.pop().filter(|_| !cores.is_empty()) else {
        bail!("there is only one core");
    };
    let others: Vec<String> = cores.iter().map(u32::to_string).collect();
    let others = others.join(",");
    pin(std::process::id(), &others).await?;
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

/// Pins every thread of a process; later threads inherit it.
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
        assert_eq!(user_and_system(stat), Some(expected));
        assert_eq!(user_and_system("42 (envoy) S 1 42"), None);
        assert_eq!(user_and_system(""), None);
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
