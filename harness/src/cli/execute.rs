//! Runs each command with its options.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agent_meter::bench::{self, Bench};
use agent_meter::demo::margin::{self, Margin};
use agent_meter::demo::{self, Demo};
use agent_meter::envoy::{Bootstrap, Endpoint, Failure};
use agent_meter::mcp_server::{self, McpServer, Mode};
use agent_meter::run::{self, Run, Signals};
use agent_meter::stack::Events;
use agent_meter::{check, plugin, suggest, wasm};
use agent_meter_collector::prices::{self, Edition, Question, Wanted};
use agent_meter_core::base::document;
use agent_meter_core::base::invalid::ConfigError;
use agent_meter_core::config::Config;
use agent_meter_core::config::schema::schema;
use agent_meter_core::domain::price_factors::{Modifier, PriceFactors, ServiceTier, Word};
use agent_meter_core::domain::seller::Seller;
use agent_meter_core::domain::units::UnitName;
use agent_meter_core::domain::usage::TokenKind;
use agent_meter_core::pricing::RateCard;
use anyhow::{Context, anyhow, bail, ensure};
use serde_json::{Value, json};

use super::{
    BenchArgs, BootstrapArgs, CheckCommand, CheckPricesArgs, Cli, Command, DemoArgs, EnvoyArgs,
    ExplainArgs, ImportArgs, McpServerArgs, PricesCommand, RunArgs,
};

impl Cli {
    /// Runs the command that the command line names.
    pub(crate) async fn execute(self) -> anyhow::Result<()> {
        match self.command {
            Command::Demo(args) => args.execute().await,
            Command::Run(args) => args.execute().await,
            Command::Collect(args) => args.execute().await,
            Command::Bootstrap(args) => args.execute(),
            Command::McpServer(args) => args.execute().await,
            Command::Invoice(args) => tokio::task::spawn_blocking(move || args.execute()).await?,
            Command::Export(command) => {
                tokio::task::spawn_blocking(move || command.execute()).await?
            }
            Command::Recover(args) => args.execute().await,
            Command::Quarantine(command) => {
                tokio::task::spawn_blocking(move || command.execute()).await?
            }
            Command::Correct(command) => {
                tokio::task::spawn_blocking(move || command.execute()).await?
            }
            Command::Close(args) => tokio::task::spawn_blocking(move || args.execute()).await?,
            Command::Invoices(args) => tokio::task::spawn_blocking(move || args.execute()).await?,
            Command::Balance(command) => {
                tokio::task::spawn_blocking(move || command.execute()).await?
            }
            Command::Sinks(command) => {
                tokio::task::spawn_blocking(move || command.execute()).await?
            }
            Command::Reconcile(args) => tokio::task::spawn_blocking(move || args.execute()).await?,
            Command::Seal(args) => tokio::task::spawn_blocking(move || args.execute()).await?,
            Command::Verify(args) => tokio::task::spawn_blocking(move || args.execute()).await?,
            Command::Prove(args) => tokio::task::spawn_blocking(move || args.execute()).await?,
            Command::Schema => print(&serde_json::to_string_pretty(&schema())?),
            Command::Completions(args) => args.execute(),
            Command::Man(args) => args.execute(),
            Command::Prices(PricesCommand::Import(args)) => args.execute(),
            Command::Prices(PricesCommand::Check(args)) => args.execute(),
            Command::Prices(PricesCommand::Explain(args)) => args.execute(),
            Command::Bench(args) => args.execute().await,
            Command::Check(CheckCommand::Config { file, wasm }) => {
                for warning in check::config(&file, &wasm::find(wasm.as_deref())?).await? {
                    eprintln!("warning: {}: {warning}", file.display());
                }
                println!("OK {}", file.display());
                Ok(())
            }
            Command::Check(CheckCommand::Module { file }) => {
                println!("OK {}: {}", file.display(), check::module(&file)?);
                Ok(())
            }
        }
    }
}

impl EnvoyArgs {
    fn plugin(&self) -> anyhow::Result<Option<Value>> {
        self.config.as_deref().map(plugin::read).transpose()
    }

    fn wasm(&self) -> anyhow::Result<PathBuf> {
        wasm::find(self.wasm.as_deref())
    }
}

impl DemoArgs {
    async fn execute(self) -> anyhow::Result<()> {
        self.check()?;
        let (plugin, wasm) = (self.envoy.plugin()?, self.envoy.wasm()?);
        let concurrency = self.envoy.concurrency;
        let Self { scenario, sessions, calls, ledger, json, keep, envoy } = self;
        if scenario == demo::Scenario::Margin {
            return margin::run(Margin { concurrency, wasm, json, keep }).await;
        }
        let (sessions, calls) = (sessions.unwrap_or(4), calls.unwrap_or(15));
        let ledger = ledger.unwrap_or_else(|| "sqlite::memory:".to_owned());
        let demo = Demo { sessions, calls, concurrency, ledger, plugin, wasm, json, keep };
        demo::run(demo).await.map_err(in_file(envoy.config))
    }

    /// Refuses options that the scenario would ignore.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let given = [
            ("--sessions", self.sessions.is_some()),
            ("--calls", self.calls.is_some()),
            ("--ledger", self.ledger.is_some()),
            ("--config", self.envoy.config.is_some()),
        ];
        let given: Vec<&str> =
            given.into_iter().filter(|(_, is_given)| *is_given).map(|(name, _)| name).collect();
        ensure!(
            self.scenario == demo::Scenario::Calls || given.is_empty(),
            "{}: not for --scenario margin, which has its own agents, prices and ledgers",
            given.join(", ")
        );
        Ok(())
    }
}

impl RunArgs {
    async fn execute(self) -> anyhow::Result<()> {
        let plugin = self.envoy.plugin()?.unwrap_or_else(plugin::everything_free);
        let wasm = self.envoy.wasm()?;
        let events = if self.collector.contains("://") {
            let endpoint: Endpoint = self.collector.parse().context("--collector")?;
            ensure!(!endpoint.tls, "--collector: https is not supported; put a proxy before it");
            self.extras.ensure_none(&self.collector)?;
            Events::At(endpoint)
        } else {
            let listen = self.collector.parse::<SocketAddr>();
            let listen = listen.with_context(|| format!("--collector: {:?}", self.collector))?;
            // A collector of strangers needs a secret, and options of its own.
            ensure!(
                listen.ip().to_canonical().is_loopback(),
                "--collector: {listen} can be reached by others: run `agent-meter collect` with \
                 --secret-file there, and give its URL"
            );
            Events::Own { listen, ledger: self.ledger }
        };
        let concurrency = self.envoy.concurrency;
        let extras = self.extras.into_extras()?;
        let Self { served, listen, admin, .. } = self;
        let (upstream, routes) = served.into_parts()?;
        let run = Run { upstream, routes, listen, admin, events, plugin, concurrency, wasm };
        run::run(run, extras).await.map_err(in_file(self.envoy.config))
    }
}

impl BootstrapArgs {
    fn execute(self) -> anyhow::Result<()> {
        if let Some(file) = &self.config {
            filter_config(file)?;
        }
        let plugin = self.config.as_deref().map(plugin::read).transpose()?;
        let mut plugin = plugin.unwrap_or_else(plugin::everything_free);
        plugin::deliver_to_harness(&mut plugin)?;
        if let Some(authority) = plugin.pointer_mut("/collector/authority") {
            *authority = json!(self.collector.authority());
        }
        // A path that the user gives need not exist on this machine.
        let wasm = Some(self.wasm.map_or_else(|| wasm::find(None), Ok)?);
        let Self { node_id, listen, admin, upstream, further, collector, .. } = self;
        let upstream = further.endpoint(upstream)?;
        let settings = Vec::new();
        let mut bootstrap =
            Bootstrap { node_id, listen, admin, upstream, collector, wasm, plugin, settings };
        bootstrap.route(&further.route).context("--route")?;
        print(serde_yaml_ng::to_string(&bootstrap.render()?)?.trim_end())
    }
}

impl McpServerArgs {
    async fn execute(self) -> anyhow::Result<()> {
        let llm_url = self.llm_url.map(|url| url.as_str().trim_end_matches('/').to_owned());
        if self.stdio {
            return mcp_server::serve_stdio(llm_url).await;
        }
        let mut signals = Signals::new()?;
        let server = McpServer::start(self.listen, Mode::default()).await?;
        if let Some(url) = llm_url {
            server.set_llm(url);
        }
        println!("ready {}", json!({ "mcp": format!("http://{}/mcp", server.addr()) }));
        signals.stop().await;
        server.stop().await;
        Ok(())
    }
}

impl ImportArgs {
    fn execute(self) -> anyhow::Result<()> {
        let Self { from, file, out, report, provider, model, version, date } = self;
        let wanted = Wanted { providers: provider, models: model };
        let date = date.unwrap_or_else(|| Edition::today().date);
        let imported = prices::import(from, &file, &wanted, Edition { version, date })?;
        let text = imported.card.to_text(out.as_deref())?;
        match &out {
            Some(out) => {
                std::fs::write(out, text)
                    .with_context(|| format!("cannot write {}", out.display()))?;
            }
            None => print(text.trim_end())?,
        }
        if let Some(report) = &report {
            std::fs::write(report, imported.report.to_text())
                .with_context(|| format!("cannot write {}", report.display()))?;
        }
        eprintln!("{}", imported.report);
        Ok(())
    }
}

impl ExplainArgs {
    fn execute(self) -> anyhow::Result<()> {
        let cards = match (&self.cards.card, &self.cards.config) {
            (Some(card), _) => vec![rate_card(card)?],
            (None, Some(config)) => {
                filter_config(config)?;
                let plugin = plugin::read(config)?;
                let cards = plugin.get("rate_cards").and_then(Value::as_array).cloned();
                cards.filter(|cards| !cards.is_empty()).with_context(|| {
                    format!("{}: expected a rate card in `rate_cards`", config.display())
                })?
            }
            (None, None) => bail!("expected --card or --config"),
        };
        let answers = prices::explain(&cards, &self.question()?)?;
        if self.json {
            return print(&serde_json::to_string(&answers)?);
        }
        let texts: Vec<String> = answers.iter().map(ToString::to_string).collect();
        print(&texts.join("\n\n"))
    }

    fn question(&self) -> anyhow::Result<Question> {
        let provider = self.provider.as_deref().map(|name| {
            Seller::new(name).with_context(|| format!("--provider: {name:?} is no seller's name"))
        });
        let mut factors = PriceFactors {
            service_tier: ServiceTier::new(&self.tier),
            location: self.location.as_deref().map(Word::new),
            ..PriceFactors::default()
        };
        for told in &self.modifier {
            let (name, word) = pair("--modifier", told)?;
            let known = Modifier::ALL.into_iter().find(|modifier| modifier.name() == name);
            let modifier = known.with_context(|| format!("--modifier: {name:?} is none"))?;
            factors.modifiers.tell(modifier, word);
        }
        let mut usage = serde_json::Map::new();
        usage.insert("input".to_owned(), json!(self.input));
        usage.insert("output".to_owned(), json!(self.output));
        for told in &self.tokens {
            let (kind, count) = pair("--tokens", told)?;
            let is_kind = TokenKind::ALL.into_iter().any(|known| known.name() == kind);
            ensure!(is_kind, "--tokens: {kind:?} is no kind of tokens");
            let count: u64 = count.parse().with_context(|| format!("--tokens: {told:?}"))?;
            usage.insert(kind.to_owned(), json!(count));
        }
        let mut units = Vec::new();
        for told in &self.unit {
            let (name, quantity) = pair("--unit", told)?;
            let name = UnitName::parse(name);
            let name = name.with_context(|| format!("--unit: {told:?} names no unit"))?;
            units.push((name, quantity.parse().with_context(|| format!("--unit: {told:?}"))?));
        }
        let at = self.at.unwrap_or_else(chrono::Utc::now).timestamp_millis();
        Ok(Question {
            model: self.model.clone(),
            provider: provider.transpose()?,
            at_millis: u64::try_from(at).context("--at: expected a time after 1970")?,
            factors,
            usage: serde_json::from_value(Value::Object(usage))?,
            units,
        })
    }
}

/// Names the file of a configuration that the filter refused, and leaves any other error as it is.
fn in_file(file: Option<PathBuf>) -> impl FnOnce(anyhow::Error) -> anyhow::Error {
    move |error| match (error.downcast_ref::<Failure>().and_then(Failure::refusal), file) {
        (Some(refusal), Some(file)) => anyhow!("{}: {refusal}", file.display()),
        _ => error,
    }
}

/// Splits `NAME=VALUE`.
fn pair<'a>(option: &str, told: &'a str) -> anyhow::Result<(&'a str, &'a str)> {
    told.split_once('=').with_context(|| format!("{option}: expected NAME=VALUE, found {told:?}"))
}

impl CheckPricesArgs {
    fn execute(self) -> anyhow::Result<()> {
        let Self { card, list, from, json } = self;
        let older = rate_card(&card)?;
        let newer = match from {
            Some(source) => {
                let everything = Wanted::default();
                let imported = prices::import(source, &list, &everything, Edition::today())?;
                serde_json::to_value(&imported.card)?
            }
            None => rate_card(&list)?,
        };
        let differences = prices::differences(&older, &newer)?;
        if json {
            print(&serde_json::to_string(&differences)?)?;
        } else if !differences.is_empty() {
            let lines: Vec<String> = differences.iter().map(ToString::to_string).collect();
            print(&lines.join("\n"))?;
        }
        ensure!(differences.is_empty(), "{} prices differ", differences.len());
        Ok(())
    }
}

/// Reads a rate card that the filter takes.
fn rate_card(file: &Path) -> anyhow::Result<Value> {
    let name = || file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", name()))?;
    let value = agent_meter_collector::yaml_or_json(&text).with_context(name)?;
    let card: Result<RateCard, ConfigError> = document::read(value.clone());
    let valid = card.and_then(|card| card.validate(""));
    valid.map_err(|refused| anyhow!("{}: {refused}", name()))?;
    Ok(value)
}

impl BenchArgs {
    async fn execute(self) -> anyhow::Result<()> {
        if let (Some(from), Some(svg)) = (&self.from, &self.svg) {
            let name = from.display();
            let text = std::fs::read_to_string(from);
            let text = text.with_context(|| format!("cannot read {name}"))?;
            return bench::draw(&text, svg).with_context(|| name.to_string());
        }
        let wasm = wasm::find(None)?;
        let Self { rounds, requests, scenario, only, sessions, beside, svg, json, .. } = self;
        let bench = Bench { rounds, requests, scenario, only, sessions, json, wasm, beside, svg };
        bench::run(bench).await
    }
}

/// Reads a plugin configuration that the filter understands, as JSON.
pub(super) fn filter_config(file: &Path) -> anyhow::Result<Vec<u8>> {
    let json = plugin::read(file)?.to_string().into_bytes();
    Config::from_bytes(&json).map_err(|refused| {
        let refused = suggest::with_name(&refused.to_string());
        anyhow!("{}: {refused}", file.display())
    })?;
    Ok(json)
}

/// Prints to stdout. The reader may close it early, as `head` does.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("stdout"),
        Ok(()) | Err(_) => Ok(()),
    }
}
