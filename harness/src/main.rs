//! The `agent-meter` command. It exits with 2 on a usage error, with 3 if there was nothing to
//! recover, and with 1 on any other, each with a line on stderr.

mod cli;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    // rmcp returns its errors to the caller, so its log lines would repeat them.
    let levels =
        Targets::new().with_default(LevelFilter::WARN).with_target("rmcp", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(lines).with(levels).init();
    match cli.execute().await {
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
