//! `agent-meter collect`: its options, and the secrets that it shares with `recover`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agent_meter::run::Signals;
use agent_meter_collector::proof::SigningKey;
use agent_meter_collector::{
    Collector, Contracts, Extras, Secret, Secrets, SharedSecret, Sinks, Webhook, Webhooks,
};
use anyhow::{Context, anyhow, ensure};
use clap::Args;
use serde_json::json;

/// Has the secret of the filter, if no option names a file.
const SECRET_VARIABLE: &str = "AGENT_METER_COLLECTOR_SECRET";

#[derive(Debug, Args)]
pub(super) struct CollectArgs {
    /// Where to listen; port 0 takes a free one. An address that others reach needs --secret-file or
    /// --insecure
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where to keep the ledger: sqlite:FILE, or postgres://USER@HOST/DATABASE, which several
    /// collectors may share; the password may be in $PGPASSWORD
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    /// Where to run queries that change nothing, such as a replica, if the ledger is in PostgreSQL
    #[arg(long, value_name = "URL")]
    read_ledger: Option<String>,
    /// A secret of at least 16 bytes that senders of events share with the collector, the filter's
    /// `collector.secret`; may be repeated. A source belongs to the NAME that it first wrote with;
    /// two files of one name are the new and the old secret
    /// [default: $AGENT_METER_COLLECTOR_SECRET; without any, everybody may write]
    #[arg(long, value_name = "[NAME=]FILE")]
    secret_file: Vec<String>,
    /// A secret of at least 16 bytes that readers need, as a bearer token or a password; may be
    /// repeated [default: who is on this machine may read; without any secret, everybody]
    #[arg(long, value_name = "[NAME=]FILE")]
    read_secret_file: Vec<String>,
    /// A secret of at least 16 bytes that top-ups over HTTP need, as a bearer token; may be repeated.
    /// A secret of --secret-file does not do: filters have it
    /// [default: nobody may write top-ups over HTTP]
    #[arg(long, value_name = "[NAME=]FILE")]
    top_up_secret_file: Vec<String>,
    /// A name under which the collector is reached, beside loopback and its own address; may be
    /// repeated
    #[arg(long, value_name = "HOST[:PORT]", default_value = "agent-meter-collector")]
    allow_host: Vec<String>,
    /// Listen where others reach it although everybody may write: something else keeps strangers out
    #[arg(long)]
    insecure: bool,
    /// Close the sessions of a source that told that it lives and has been silent for so long, such
    /// as 90s, 15m or 2h; 0 for never
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = duration)]
    source_lost_after: Duration,
    /// A private key of Ed25519 in PEM: sign what the events come to, each day and when the collector
    /// starts; see `agent-meter seal`
    #[arg(long, value_name = "FILE")]
    signing_key_file: Option<PathBuf>,
    #[command(flatten)]
    extras: ExtrasArgs,
}

/// What a collector does besides keeping its ledger.
#[derive(Debug, Args)]
pub(super) struct ExtrasArgs {
    /// Contracted revenue of customers, for margin guards: YAML or JSON such as
    /// `customers: {acme: {contracted_revenue: "2.00", plan: pro}}`; read again when it changes
    #[arg(long, value_name = "FILE")]
    contracts: Option<PathBuf>,
    /// Post each event of a scope that crossed a level to URL, if its guard notifies NAME; all of
    /// them if NAME is *; may be repeated. The collector signs them after Standard Webhooks, and
    /// tries again for 24 h
    #[arg(long, value_name = "NAME=URL")]
    webhook: Vec<String>,
    /// The secret that signs webhooks, whsec_BASE64 or any text
    /// [default: $AGENT_METER_WEBHOOK_SECRET]
    #[arg(long, value_name = "FILE", requires = "webhook")]
    webhook_secret_file: Option<PathBuf>,
    /// Hand events over to billing systems, archives and telemetry: YAML or JSON such as
    /// `sinks: {archive: {type: json_lines, file: events.jsonl}}`; see harness/collector/README.md
    #[arg(long, value_name = "FILE")]
    sinks: Option<PathBuf>,
}

impl CollectArgs {
    pub(super) async fn execute(self) -> anyhow::Result<()> {
        let mut signals = Signals::new()?;
        let lost_after = self.source_lost_after;
        let secrets = |options: &[String]| {
            let secrets = options.iter().map(|option| SharedSecret::read(option));
            secrets.collect::<anyhow::Result<_>>().and_then(Secrets::new)
        };
        let readers = secrets(&self.read_secret_file).context("--read-secret-file")?;
        let payers = secrets(&self.top_up_secret_file).context("--top-up-secret-file")?;
        let extras = Extras {
            writers: Secrets::new(write_secrets(&self.secret_file)?).context("--secret-file")?,
            readers,
            payers,
            hosts: self.allow_host.clone(),
            insecure: self.insecure,
            signing_key: self.signing_key_file.as_deref().map(SigningKey::read).transpose()?,
            read_ledger: self.read_ledger.clone(),
            source_lost_after: (!lost_after.is_zero()).then_some(lost_after),
            ..self.extras.into_extras()?
        };
        let collector = Collector::start_with(self.listen, &self.ledger, extras).await?;
        println!("ready {}", json!({ "collector": collector.addr() }));
        signals.stop().await;
        tokio::select! {
            () = collector.stop() => {}
            () = signals.stop() => {}
        }
        Ok(())
    }
}

impl ExtrasArgs {
    /// Refuses options that another's collector would not get.
    pub(super) fn ensure_none(&self, collector: &str) -> anyhow::Result<()> {
        let given = [
            ("--contracts", self.contracts.is_some()),
            ("--webhook", !self.webhook.is_empty()),
            ("--sinks", self.sinks.is_some()),
        ];
        let given: Vec<&str> =
            given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
        ensure!(
            given.is_empty(),
            "{}: only for the own collector; {collector} has options of its own",
            given.join(", ")
        );
        Ok(())
    }

    pub(super) fn into_extras(self) -> anyhow::Result<Extras> {
        Ok(Extras {
            contracts: self.contracts.as_deref().map(Contracts::open).transpose()?,
            webhooks: self.webhooks()?,
            sinks: self.sinks.as_deref().map(Sinks::read).transpose().context("--sinks")?,
            ..Extras::default()
        })
    }

    fn webhooks(&self) -> anyhow::Result<Option<Webhooks>> {
        if self.webhook.is_empty() {
            return Ok(None);
        }
        let hooks = self.webhook.iter().map(|text| text.parse());
        let hooks = hooks.collect::<anyhow::Result<Vec<Webhook>>>().context("--webhook")?;
        let (text, from) = match &self.webhook_secret_file {
            Some(file) => {
                let text = std::fs::read_to_string(file);
                let text = text.with_context(|| format!("cannot read {}", file.display()))?;
                (text, file.display().to_string())
            }
            None => {
                let name = "AGENT_METER_WEBHOOK_SECRET";
                let text = std::env::var(name).ok().with_context(|| {
                    format!("--webhook: needs a secret, in --webhook-secret-file or ${name}")
                })?;
                (text, format!("${name}"))
            }
        };
        let secret = Secret::parse(&text).with_context(|| format!("the secret in {from}"))?;
        Webhooks::new(hooks, secret).map(Some).context("--webhook")
    }
}

/// The secrets in the files of `--secret-file`; without any, the one in the environment.
pub(super) fn write_secrets(options: &[String]) -> anyhow::Result<Vec<SharedSecret>> {
    if !options.is_empty() {
        let secrets = options.iter().map(|option| SharedSecret::read(option));
        return secrets.collect::<anyhow::Result<_>>().context("--secret-file");
    }
    // An empty variable is one that somebody forgot to fill: better to say so than to let all in.
    let told = std::env::var_os(SECRET_VARIABLE);
    let secret = told.map(|text| {
        let text = text.into_string().map_err(|_| anyhow!("must be UTF-8"))?;
        SharedSecret::unnamed(&text)
    });
    let secret = secret.transpose().with_context(|| format!("${SECRET_VARIABLE}"))?;
    Ok(secret.into_iter().collect())
}

/// Reads `90s`, `15m` or `2h`, or `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a time such as 90s, 15m or 2h, found {text:?}");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit = text.chars().last().ok_or_else(expected)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(expected()),
    };
    let count: u64 = text.trim_end_matches(unit).parse().map_err(|_| expected())?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        for (text, seconds) in [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("2h", Some(7200)),
            ("0", Some(0)),
            ("15", None),
            ("m", None),
            ("-1s", None),
            ("1.5h", None),
            ("99999999999999999999h", None),
            ("9999999999999999999h", None),
            ("", None),
        ] {
            assert_eq!(duration(text).ok(), seconds.map(Duration::from_secs), "{text:?}");
        }
    }
}
