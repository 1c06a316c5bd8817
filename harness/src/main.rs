//! The `agent-meter` command. It exits with 2 on a usage error, with 3 if there was nothing to
//! recover, and with 1 on any other, each with a line on stderr.

mod cli;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How long to wait for what still runs at the end, such as a look-up of a name.
const LEFTOVERS_LIMIT: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // rmcp returns its errors to the caller, so its log lines would repeat them.
    let levels =
        Targets::new().with_default(LevelFilter::WARN).with_target("rmcp", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(levels).init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(cli.execute());
    runtime.shutdown_timeout(LEFTOVERS_LIMIT);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<cli::NothingFound>() {
                return ExitCode::from(3);
            }
            ExitCode::FAILURE
        }
    }
}
