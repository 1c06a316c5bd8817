//! Stops a stack, and brings the events that Envoy had not delivered to the collector.

use std::path::PathBuf;
use std::time::Duration;

use agent_meter_collector::SharedSecret;
use agent_meter_collector::recover::{
    self, Authentication, Log, Recovered, Remote, Target, recover,
};
use anyhow::{Context, anyhow};
use reqwest::Url;
use tokio::time::timeout;

use super::Stack;
use crate::plugin;

/// What became of a stack that was stopped.
#[derive(Debug)]
pub struct Stopped {
    /// The events that Envoy had not delivered.
    pub recovered: Recovered,
    /// Why Envoy did not end well.
    pub envoy: anyhow::Result<()>,
}

impl Stack {
    /// Stops Envoy, delivers the events that Envoy had not delivered to the collector, and stops
    /// the rest.
    ///
    /// It keeps the working files if anything could not be recovered.
    pub async fn stop(self) -> anyhow::Result<Recovered> {
        let Stopped { recovered, envoy } = self.stop_within(None).await?;
        envoy?;
        Ok(recovered)
    }

    /// The same, and waits only for so long for a collector that is another's.
    ///
    /// The error tells how many events are left, and how to recover them.
    pub async fn stop_within(mut self, patience: Option<Duration>) -> anyhow::Result<Stopped> {
        let envoy = match self.envoy.take() {
            Some(envoy) => envoy.stop().await,
            None => Ok(()),
        };
        let recovered = self.recover_within(patience).await;
        if let Some(server) = self.server.take() {
            server.stop().await;
        }
        if let Some(llm) = self.llm.take() {
            llm.stop().await;
        }
        if let Some(collector) = self.collector.take() {
            collector.stop().await;
        }
        let recovered = recovered.inspect_err(|_| self.dir.is_named = true)?;
        self.dir.keep |= !recovered.is_complete();
        self.dir.done = envoy.is_ok();
        let envoy = envoy.map_err(|error| self.dir.named_in(error));
        Ok(Stopped { recovered, envoy })
    }

    /// The command that brings what is left in Envoy's log to where it should have gone.
    pub fn recover_command(&self) -> anyhow::Result<String> {
        let log = self.log();
        let target = match &self.ledger_url {
            Some(url) => format!("--ledger {}", without_password(url)),
            None => {
                let has_secret = plugin::collector_secret(&self.bootstrap.plugin).is_some();
                let secret = if has_secret { " --secret-file FILE" } else { "" };
                format!("--collector {}{secret}", self.events_url()?)
            }
        };
        Ok(format!("agent-meter recover {} {target}", log.display()))
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("envoy.log")
    }

    async fn recover_within(&self, patience: Option<Duration>) -> anyhow::Result<Recovered> {
        let target = self.target()?;
        let all = self.recover_to(&target);
        let recovered = match patience {
            Some(patience) if self.collector.is_none() => match timeout(patience, all).await {
                Ok(recovered) => recovered,
                Err(_) => Err(anyhow!("the collector has not taken them within {patience:?}")),
            },
            _ => all.await,
        };
        let Err(error) = recovered else { return recovered };
        let left = self.recover_to(&Target::Nowhere).await.map_or(0, |found| found.taken);
        let command = self.recover_command()?;
        Err(error.context(format!(
            "{left} events are left in Envoy's log, for `{command}`: cannot bring them to the collector"
        )))
    }

    fn secret(&self) -> anyhow::Result<Option<SharedSecret>> {
        let secret = plugin::collector_secret(&self.bootstrap.plugin);
        secret.map(SharedSecret::unnamed).transpose().context("collector.secret")
    }

    /// Where recovered events go.
    fn target(&self) -> anyhow::Result<Target> {
        Ok(match &self.collector {
            Some(collector) => Target::Ledger { ledger: collector.ledger(), allows_older: false },
            None => {
                let remote = Remote::new(self.events_url()?);
                Target::Collector(remote.with_secret(self.secret()?, Authentication::default()))
            }
        })
    }

    async fn recover_to(&self, target: &Target) -> anyhow::Result<Recovered> {
        let log = Log::open(&self.log())?;
        let secrets = self.secret()?.into_iter().collect();
        let options = recover::Options { secrets, ..recover::Options::default() };
        recover([log], target, &options).await
    }

    fn events_url(&self) -> anyhow::Result<Url> {
        let authority = self.bootstrap.collector.authority();
        let path = plugin::collector_path(&self.bootstrap.plugin);
        Ok(Url::parse(&format!("http://{authority}{path}"))?)
    }
}

/// A ledger's URL as it may be shown.
fn without_password(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Only a URL without a host cannot have its password taken away, and such has none.
            let _ = parsed.set_password(None);
            parsed.to_string()
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown() {
        for (url, shown) in [
            ("postgres://u:secret@h/d", "postgres://u@h/d"),
            ("postgres://u@h/d", "postgres://u@h/d"),
            ("sqlite:agent-meter.db", "sqlite:agent-meter.db"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
