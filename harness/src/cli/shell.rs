//! What shells and `man` need to know of the command line, made from its own description.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// For bash: agent-meter completions bash > ~/.local/share/bash-completion/completions/agent-meter
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// For one user: agent-meter man ~/.local/share/man/man1
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// Where to write agent-meter.1 and a page for each command; is made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

impl CompletionsArgs {
    /// Prints the script that completes command lines in this shell.
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let mut script = Vec::new();
        let mut command = Cli::command();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        super::execute::print(String::from_utf8(script)?.trim_end())
    }
}

impl ManArgs {
    /// Writes the pages of the manual.
    pub(super) fn execute(&self) -> anyhow::Result<()> {
        let Self { dir } = self;
        let place = || format!("cannot write the manual to {}", dir.display());
        std::fs::create_dir_all(dir).with_context(place)?;
        clap_mangen::generate_to(Cli::command(), dir).with_context(place)
    }
}
