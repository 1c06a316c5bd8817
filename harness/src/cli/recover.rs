//! `agent-meter recover`: its options, and what it says.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_meter::run::Signals;
use agent_meter_collector::recover::follow::{Follow, follow};
use agent_meter_collector::recover::{
    self, Authentication, EventsOfFact, Format, Log, Options, Recovered, Remote, Target,
};
use agent_meter_collector::{Ledger, SharedSecret};
use agent_meter_core::config::Config;
use agent_meter_core::meter::recovered::events_of_fact;
use anyhow::{Context, bail, ensure};
use clap::{Args, ValueEnum};
use reqwest::Url;

use super::collect::write_secrets;
use super::execute::{filter_config, print};

/// How often `--follow` looks for new lines.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);

/// Reads Envoy's log as it is, or as docker, containerd, CRI-O, kubectl, Loki or fluent-bit keep
/// it, also compressed with gzip. What has been recovered before is recognised, so whole logs can
/// be read again and again.
#[derive(Debug, Args)]
pub(crate) struct RecoverArgs {
    /// Logs to read; - is stdin
    #[arg(value_name = "FILE", required_unless_present_any = ["log", "follow"])]
    files: Vec<PathBuf>,
    /// A log to read; the same as FILE
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
    /// Into this ledger
    #[arg(long, value_name = "URL", required_unless_present_any = ["collector", "dry_run"], conflicts_with = "collector")]
    ledger: Option<String>,
    /// To this collector: http://HOST:PORT, with the path of the events if it is not /v1/events
    #[arg(long, value_name = "URL")]
    collector: Option<Url>,
    /// Only read, check and count; write nothing, and ask no ledger what it knows
    #[arg(long, conflicts_with = "follow")]
    dry_run: bool,
    /// A file with the filter's `collector.secret`: takes only lines that it has signed, and shows
    /// it to the collector; may be repeated: older ones, which signed earlier lines, come behind it
    /// [default: $AGENT_METER_COLLECTOR_SECRET]
    #[arg(long, value_name = "FILE")]
    secret_file: Vec<String>,
    /// Take events of any age; else those older than 35 days are kept apart, to be released with
    /// `agent-meter quarantine`
    #[arg(long, conflicts_with = "collector")]
    older: bool,
    /// How to show the secret to the collector
    #[arg(long, value_name = "HOW", default_value = "signature")]
    authentication: How,
    /// The plugin configuration that was in force, YAML or JSON: prices what the filter could not
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Envoy's --log-format, or its json_format as a JSON object, if it is neither Envoy's default
    /// nor Istio's; may be repeated
    #[arg(long, value_name = "FORMAT")]
    log_format: Vec<String>,
    /// Follow the logs of this directory until SIGTERM, such as /var/log/containers
    #[arg(long, value_name = "DIR", conflicts_with_all = ["files", "log"], requires = "state")]
    follow: Option<PathBuf>,
    /// The names of the logs to follow; * stands for any text
    #[arg(long, value_name = "PATTERN", default_value = "*.log", requires = "follow", conflicts_with_all = ["files", "log"])]
    r#match: String,
    /// Where to keep how far each log has been read
    #[arg(long, value_name = "FILE", requires = "follow", conflicts_with_all = ["files", "log"])]
    state: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum How {
    /// A header `agent-meter-signature` over each batch
    Signature,
    /// A header `authorization: Bearer SECRET`
    Bearer,
}

/// No log had a spilled line: exit code 3.
#[derive(Debug)]
pub(crate) struct NothingFound(String);

impl fmt::Display for NothingFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NothingFound {}

impl RecoverArgs {
    pub(super) async fn execute(self) -> anyhow::Result<()> {
        let secrets = write_secrets(&self.secret_file)?;
        let config = self.config.as_deref().map(filter_config).transpose()?;
        let facts = config.map(|json| {
            // The filter's configuration belongs to one thread, so each fact reads it again.
            move |fact: &str| Ok(events_of_fact(Config::from_bytes(&json)?, fact)?)
        });
        let formats = self.log_format.iter().map(|format| Format::parse(format));
        let formats = formats.collect::<anyhow::Result<_>>().context("--log-format")?;
        let options = Options {
            secrets: secrets.clone(),
            formats,
            facts: facts.as_ref().map(|facts| facts as &EventsOfFact<'_>),
        };
        let target = self.target(secrets.into_iter().next()).await?;
        match (&self.follow, &self.state) {
            (Some(dir), Some(state)) => {
                let what = Follow {
                    dir: dir.clone(),
                    pattern: self.r#match.clone(),
                    state: state.clone(),
                    period: FOLLOW_PERIOD,
                };
                let mut signals = Signals::new()?;
                let mut report = |round: &Recovered| {
                    println!("{}", arrived(round));
                    for line in round.losses().into_iter().chain(round.notes()) {
                        eprintln!("warning: {line}");
                    }
                };
                println!("following {}", dir.join(&what.pattern).display());
                let total = follow(&what, &target, &options, signals.stop(), &mut report).await?;
                print(&format!("stopped; {} in all", arrived(&total)))
            }
            _ => {
                let files: Vec<&PathBuf> = self.files.iter().chain(&self.log).collect();
                let logs = files.iter().map(|file| Log::open(file));
                let logs = logs.collect::<anyhow::Result<Vec<_>>>()?;
                let found = recover::recover(logs, &target, &options).await?;
                self.tell(&found, &files)
            }
        }
    }

    async fn target(&self, secret: Option<SharedSecret>) -> anyhow::Result<Target> {
        match (&self.ledger, &self.collector) {
            _ if self.dry_run => Ok(Target::Nowhere),
            (Some(url), _) => {
                let url = url.clone();
                let ledger = tokio::task::spawn_blocking(move || Ledger::open(&url)).await??;
                Ok(Target::Ledger { ledger, allows_older: self.older })
            }
            (None, Some(url)) => {
                let mut url = url.clone();
                ensure!(
                    url.scheme() == "http",
                    "--collector: expected http://HOST:PORT, found {url}"
                );
                if url.path() == "/" {
                    url.set_path("/v1/events");
                }
                let how = match self.authentication {
                    How::Signature => Authentication::Signature,
                    How::Bearer => Authentication::Bearer,
                };
                Ok(Target::Collector(Remote::new(url).with_secret(secret, how)))
            }
            (None, None) => bail!("expected --ledger or --collector"),
        }
    }

    /// Prints what came of it; an error if anything is lost, or nothing was found.
    fn tell(&self, found: &Recovered, files: &[&PathBuf]) -> anyhow::Result<()> {
        for note in found.notes() {
            eprintln!("warning: {note}");
        }
        if found.lines == 0 && found.is_complete() {
            let names: Vec<String> = files.iter().map(|file| name_of(file)).collect();
            return Err(NothingFound(format!(
                "no spilled line of the filter in {}: either it lost nothing, or this is not the log of Envoy's Wasm logger at level warning",
                names.join(", ")
            ))
            .into());
        }
        print(&if self.dry_run {
            format!("found {} events in {} lines; nothing was written", found.taken, found.lines)
        } else {
            arrived(found)
        })?;
        let losses = found.losses();
        ensure!(losses.is_empty(), "{}", losses.join("\n"));
        Ok(())
    }
}

fn name_of(file: &Path) -> String {
    if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() }
}

fn arrived(found: &Recovered) -> String {
    let new = found.taken.saturating_sub(found.known);
    format!("recovered {new} new events, {} were known already", found.known)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::{Cli, Command};

    /// The file has three documents; only the second has `args`.
    #[test]
    fn the_daemon_set_is_run_with_options_that_exist() {
        let text = include_str!("../../../envoy/istio/recover-daemonset.yaml");
        let daemon = text.split("\n---\n").find(|document| document.contains("kind: DaemonSet"));
        let daemon =
            agent_meter_collector::yaml_or_json(daemon.expect("a DaemonSet")).expect("YAML");
        let args = daemon.pointer("/spec/template/spec/containers/0/args").expect("arguments");
        let words =
            args.as_array().expect("a list").iter().map(|word| word.as_str().expect("text"));
        let cli = Cli::try_parse_from(std::iter::once("agent-meter").chain(words));
        let Command::Recover(args) = cli.expect("options").command else { panic!("no recovery") };
        assert!(args.follow.is_some() && !args.secret_file.is_empty() && args.state.is_some());
    }
}
