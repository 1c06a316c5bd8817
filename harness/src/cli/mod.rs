//! The command line of `agent-meter`: names, units and defaults of every option. `execute.rs` runs
//! the commands.

mod balance;
mod books;
mod collect;
mod documents;
mod execute;
mod export;
mod proof;
mod quarantine;
mod reconcile;
mod recover;
mod served;
mod shell;
mod sinks;

use std::net::SocketAddr;
use std::path::PathBuf;

use agent_meter::bench::{Scenario, Section};
use agent_meter::demo;
use agent_meter::envoy::Endpoint;
use agent_meter_collector::prices::Source;
use chrono::NaiveDate;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand};
use reqwest::Url;

use self::balance::BalanceCommand;
use self::books::CorrectCommand;
use self::collect::{CollectArgs, ExtrasArgs};
use self::documents::{CloseArgs, InvoiceArgs, InvoicesArgs};
use self::export::ExportCommand;
use self::proof::{ProveArgs, SealArgs, VerifyArgs};
use self::quarantine::QuarantineCommand;
use self::reconcile::ReconcileArgs;
pub(crate) use self::recover::NothingFound;
use self::recover::RecoverArgs;
use self::served::{FurtherArgs, ServedArgs};
use self::shell::{CompletionsArgs, ManArgs};
use self::sinks::SinksCommand;

const RUN_EXAMPLES: &str = "\
Examples:
  agent-meter run --upstream http://127.0.0.1:3000
  agent-meter run --stdio 'npx -y @modelcontextprotocol/server-everything'
  agent-meter run --stdio 'uvx mcp-server-time' --config my-products.yaml
  agent-meter run --stdio 'agent-meter mcp-server --stdio'";

/// Meters AI-agent traffic in Envoy and keeps the ledger.
#[derive(Debug, Parser)]
#[command(name = "agent-meter", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole loop once: agents, Envoy, MCP server, collector, invoice; exit 1 on any
    /// difference
    Demo(DemoArgs),
    /// Stay up and meter your own MCP server
    Run(RunArgs),
    /// Run the collector alone
    Collect(CollectArgs),
    /// Print an Envoy bootstrap that meters your own MCP server, as YAML
    Bootstrap(BootstrapArgs),
    /// Run the demo's MCP server alone, at /mcp
    McpServer(McpServerArgs),
    /// Print what customers owe
    Invoice(InvoiceArgs),
    /// Write what customers owe in a format that others read
    #[command(subcommand)]
    Export(ExportCommand),
    /// Check a plugin configuration or a module
    #[command(subcommand)]
    Check(CheckCommand),
    /// Print the JSON Schema of the plugin configuration, with every option's description and default
    Schema,
    /// Print a script by which a shell completes command lines
    Completions(CompletionsArgs),
    /// Write the pages of the manual
    Man(ManArgs),
    /// Make rate cards from public price lists, and compare them
    #[command(subcommand)]
    Prices(PricesCommand),
    /// Measure what the filter costs, with and without guards, against no filter, an empty one,
    /// Envoy's own and Lua
    Bench(BenchArgs),
    /// Bring events that the filter wrote to Envoy's log into a ledger or to a collector; exit 3 if
    /// there are none
    Recover(RecoverArgs),
    /// Decide about events that a ledger keeps apart because their numbers or times cannot be
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Show how far sinks have come, and decide about events that they set aside
    #[command(subcommand)]
    Sinks(SinksCommand),
    /// Compare a ledger with Envoy's access log, or with the bill of a provider; exit 1 on any difference,
    /// or on one that nothing explains
    Reconcile(ReconcileArgs),
    /// Correct what was counted: void, amend, rerate, credit, merge, backfill, revert
    #[command(subcommand)]
    Correct(CorrectCommand),
    /// Close a period: number the invoices of a month or a day
    Close(CloseArgs),
    /// Show closed invoices
    Invoices(InvoicesArgs),
    /// Write down what customers pay in advance, and show what is left of it
    #[command(subcommand)]
    Balance(BalanceCommand),
    /// Sign what the events of a ledger come to
    Seal(SealArgs),
    /// Find what was changed in a ledger, or check a proof; exit 1 on any fault
    Verify(VerifyArgs),
    /// Print the proof that an event is in a ledger as it is
    Prove(ProveArgs),
}

#[derive(Debug, Args)]
struct EnvoyArgs {
    /// Plugin configuration, YAML or JSON [default: see the command]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Envoy's worker threads
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=256))]
    concurrency: u32,
    /// The filter's module [default: $AGENT_METER_WASM, else the one in target/]
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,
}

/// Without --config: one MCP server; a lookup costs 0.001, a database write 0.05, an analysis
/// 0.10 USD.
#[derive(Debug, Args)]
struct DemoArgs {
    /// Which scenario to play
    #[arg(long, value_name = "NAME", default_value = "calls")]
    scenario: demo::Scenario,
    /// Agent sessions, all at once; not for `margin` [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    sessions: Option<u32>,
    /// Tool calls in each session; not for `margin` [default: 15]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: Option<u32>,
    /// Where to keep the ledger, such as sqlite:agent-meter.db; not for `margin`
    /// [default: sqlite::memory:]
    #[arg(long, value_name = "URL")]
    ledger: Option<String>,
    /// Print only one JSON object with the totals
    #[arg(long)]
    json: bool,
    /// Stay up until Ctrl-C; for `margin`, with the second stack, the one that reserves
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    envoy: EnvoyArgs,
}

/// Without --config, the filter meters every path and tool at price 0, for the customer and the
/// agent in the request headers x-customer-id and x-agent-id.
#[derive(Debug, Args)]
#[command(after_help = RUN_EXAMPLES)]
struct RunArgs {
    #[command(flatten)]
    served: ServedArgs,
    /// Where clients connect; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10000")]
    listen: SocketAddr,
    /// Where the own collector listens, port 0 takes a free one; or http://HOST:PORT of another
    /// collector
    #[arg(long, value_name = "ADDR|URL", default_value = "127.0.0.1:8080")]
    collector: String,
    /// Envoy's admin interface; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Where the own collector keeps its ledger
    #[arg(long, value_name = "URL", default_value = "sqlite:agent-meter.db")]
    ledger: String,
    #[command(flatten)]
    extras: ExtrasArgs,
    #[command(flatten)]
    envoy: EnvoyArgs,
}

#[derive(Debug, Args)]
struct BootstrapArgs {
    /// The server to meter: http:// or https://, host and port, no path
    #[arg(long, value_name = "URL")]
    upstream: Endpoint,
    #[command(flatten)]
    further: FurtherArgs,
    /// Where Envoy sends the events: http:// or https://, host and port, no path
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    collector: Endpoint,
    /// Where clients connect
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10000")]
    listen: SocketAddr,
    /// Envoy's admin interface
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Envoy's node id, which names it in the events' source
    #[arg(long, value_name = "ID", default_value = "agent-meter")]
    node_id: String,
    /// Plugin configuration, YAML or JSON; the events go to --collector, whatever it names
    /// [default: as `run`]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The filter's module where Envoy will find it
    /// [default: $AGENT_METER_WASM, else the one in target/]
    #[arg(long, value_name = "FILE")]
    wasm: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct McpServerArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Speak with one client over stdin and stdout, as most MCP servers do
    #[arg(long, conflicts_with = "listen")]
    stdio: bool,
    /// Base URL of an LLM with OpenAI's API, for the tool `summarise`, such as
    /// http://127.0.0.1:10000/llm
    #[arg(long, value_name = "URL")]
    llm_url: Option<Url>,
}

#[derive(Debug, Subcommand)]
enum CheckCommand {
    /// Let the filter in Envoy read a plugin configuration
    Config {
        /// YAML or JSON
        file: PathBuf,
        /// The filter's module [default: $AGENT_METER_WASM, else the one in target/]
        #[arg(long, value_name = "FILE")]
        wasm: Option<PathBuf>,
    },
    /// Check the imports and exports of a module, and print its size in bytes
    Module {
        /// A WebAssembly binary
        file: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum PricesCommand {
    /// Make a rate card from a price list, and sum up on stderr what a card cannot express
    ///
    /// The card takes every price digit for digit, in US dollars. The filter's own reader checks
    /// it.
    Import(ImportArgs),
    /// Say which rate applies to a model and why, and what an example costs
    Explain(ExplainArgs),
    /// Name what changed between a rate card and a newer price list; exit 1 on any difference
    ///
    /// Of the list, only the sellers of the card count.
    Check(CheckPricesArgs),
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// The model, as a response or a request names it
    model: String,
    #[command(flatten)]
    cards: CardsArgs,
    /// The seller [default: every seller with a rate of its own for the model]
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// When it runs, such as 2026-11-27T08:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    at: Option<chrono::DateTime<chrono::Utc>>,
    /// The service tier, in the provider's word
    #[arg(long, value_name = "TIER", default_value = "standard")]
    tier: String,
    /// Where the model runs, such as eu or europe-west4
    #[arg(long, value_name = "PLACE")]
    location: Option<String>,
    /// The provider's word for a modifier, such as speed=fast; may be repeated
    #[arg(long, value_name = "NAME=WORD")]
    modifier: Vec<String>,
    /// Input tokens of the example, with all of their parts
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    input: u64,
    /// Output tokens of the example, with all of their parts
    #[arg(long, value_name = "N", default_value_t = 0)]
    output: u64,
    /// Other tokens of the example, such as cache_read=1000 or reasoning=50; may be repeated
    #[arg(long, value_name = "KIND=N")]
    tokens: Vec<String>,
    /// Units of the example, such as web_searches=2; may be repeated
    #[arg(long, value_name = "UNIT=N")]
    unit: Vec<String>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct CardsArgs {
    /// The plugin configuration with the rate cards, YAML or JSON
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A rate card, YAML or JSON
    #[arg(long, value_name = "FILE")]
    card: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckPricesArgs {
    /// The rate card, YAML or JSON
    card: PathBuf,
    /// The newer list, JSON; without --from, a newer rate card
    list: PathBuf,
    /// Which price list it is
    #[arg(long, value_name = "SOURCE", value_parser = sources())]
    from: Option<Source>,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ImportArgs {
    /// Which price list it is
    #[arg(long, value_name = "SOURCE", value_parser = sources())]
    from: Source,
    /// The list, JSON: LiteLLM's model_prices_and_context_window.json, models.dev's api.json or the
    /// data.json of genai-prices
    file: PathBuf,
    /// Where to write the card; the name ends in .yaml or .json [default: stdout, as YAML]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Where to write all that the card leaves out, one line each: model, member (* is the whole
    /// model) and reason, with tabs between them
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Only these providers, such as openai,groq; one that only the list knows keeps its name there
    /// [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    provider: Vec<String>,
    /// Only these models; * stands for any text; may be repeated [default: all]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    model: Vec<String>,
    /// The card's version, which events carry [default: the list's source and the date]
    #[arg(long, value_name = "TEXT")]
    version: Option<String>,
    /// The day of which the list's prices are: events tell how old they were [default: today, in UTC]
    #[arg(long, value_name = "YYYY-MM-DD")]
    date: Option<NaiveDate>,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// Measured rounds
    #[arg(long, value_name = "N", default_value_t = 14, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Calls to each listener in each round
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// How the upstream answers: one JSON body, or an event stream
    #[arg(long, default_value_t = Scenario::Json)]
    scenario: Scenario,
    /// Measure this part only
    #[arg(long, value_name = "PART")]
    only: Option<Section>,
    /// Sessions that live at once; ten times as many come and go
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=400_000))]
    sessions: u32,
    /// Another module of the filter, such as the one of before a change, to measure beside it
    #[arg(long, value_name = "FILE")]
    beside: Option<PathBuf>,
    /// Draw what the part `calls` has measured: added CPU with its intervals, as SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Measure nothing; draw what an earlier run printed with --json
    #[arg(long, value_name = "FILE", requires = "svg")]
    from: Option<PathBuf>,
    /// Print only one JSON object
    #[arg(long)]
    json: bool,
}

/// Reads the name of a public price list.
fn sources() -> impl TypedValueParser<Value = Source> {
    let named = Source::ALL.map(|source| PossibleValue::new(source.name()).help(source.file()));
    PossibleValuesParser::new(named).try_map(|name| {
        let known = Source::ALL.into_iter().find(|source| source.name() == name);
        known.ok_or("an unknown price list")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The options of `agent-meter demo` as the demo gets them, or why they are refused.
    fn demo(options: &str) -> Result<DemoArgs, String> {
        let words = ["agent-meter", "demo"].into_iter().chain(options.split_whitespace());
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        let Command::Demo(args) = cli.command else { return Err("another command".to_owned()) };
        args.check().map_err(|error| error.to_string())?;
        Ok(args)
    }

    #[test]
    fn the_demo_plays_calls_by_default() {
        for (options, scenario) in [
            ("", demo::Scenario::Calls),
            ("--sessions 2 --calls 3 --ledger sqlite::memory: --config f", demo::Scenario::Calls),
            ("--scenario calls --calls 3", demo::Scenario::Calls),
            ("--scenario margin", demo::Scenario::Margin),
            ("--scenario margin --concurrency 3 --json --keep --wasm f", demo::Scenario::Margin),
        ] {
            assert_eq!(demo(options).expect(options).scenario, scenario, "{options}");
        }
        assert!(demo("--scenario loop").expect_err("unknown").contains("calls, margin"));
    }

    #[test]
    fn an_earlier_run_is_drawn_only_into_a_file() {
        for (options, error) in
            [("--from run.json", Some("--svg <FILE>")), ("--from run.json --svg a.svg", None)]
        {
            let words = ["agent-meter", "bench"].into_iter().chain(options.split_whitespace());
            let found = Cli::try_parse_from(words).err().map(|error| error.to_string());
            let is_expected = match (&found, error) {
                (Some(found), Some(error)) => found.contains(error),
                (found, error) => found.is_none() && error.is_none(),
            };
            assert!(is_expected, "{options}: {found:?}");
        }
    }

    #[test]
    fn options_that_the_margin_scenario_would_ignore_are_refused() {
        for (options, named) in [
            ("--sessions 2", "--sessions"),
            ("--calls 3", "--calls"),
            ("--ledger sqlite::memory:", "--ledger"),
            ("--config f", "--config"),
            ("--config f --calls 3", "--calls, --config"),
        ] {
            let error = demo(&format!("--scenario margin {options}")).expect_err(options);
            assert!(error.starts_with(&format!("{named}: not for --scenario margin")), "{error}");
        }
    }
}
