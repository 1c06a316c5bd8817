//! Runs the command as a user does, with files of a test's own.

#![allow(dead_code, reason = "not every test binary asks for all of it")]

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// The command with these arguments, and without a secret of whoever runs the test.
pub(crate) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_agent-meter"));
    command.args(words).env_remove("AGENT_METER_COLLECTOR_SECRET");
    command
}

/// Runs it to its end.
pub(crate) fn run(words: &[&str]) -> Ended {
    end(&mut command(words))
}

/// Runs a command to its end.
pub(crate) fn end(command: &mut Command) -> Ended {
    let output = command.output().expect("a command");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let status = output.status.code().expect("a status");
    Ended { status, out: text(output.stdout), err: text(output.stderr) }
}

pub(crate) fn path(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// The path of a fixture.
pub(crate) fn fixture(name: &str) -> String {
    path(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name))
}

/// A directory for the files of one test.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn at(&self, name: &str) -> String {
        path(&PathBuf::from(self.0.path()).join(name))
    }

    pub(crate) fn with(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let file = self.at(name);
        std::fs::write(&file, text).expect(name);
        file
    }

    pub(crate) fn ledger(&self) -> String {
        format!("sqlite:{}", self.at("ledger.db"))
    }
}
