//! The JSON Schema of the configuration: its file, the examples of the repository, and the filter's own
//! reader, which it must not contradict.
//! `AGENT_METER_WRITE=1 cargo test -p agent-meter-core --features schema --test schema` writes
//! `envoy/filter.schema.json` anew.

#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "it reads the repository's files; the core does not"
)]

mod definitions;
mod examples;
mod mutations;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, bail, ensure};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> anyhow::Result<String> {
    fs::read_to_string(root().join(name)).with_context(|| name.to_owned())
}

/// The names of the files with this ending that git knows or would add.
fn files(ending: &str) -> anyhow::Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let listed = String::from_utf8(git.output().context("git lists the files")?.stdout)?;
    let fits = |name: &&str| name.ends_with(ending) && root().join(name).is_file();
    let found: Vec<String> = listed.lines().filter(fits).map(str::to_owned).collect();
    ensure!(!found.is_empty(), "no file ends in {ending}");
    Ok(found)
}

/// Compares a generated file with its text from the code, or writes it anew.
fn is_current(name: &str, text: &str) -> anyhow::Result<()> {
    if env::var_os("AGENT_METER_WRITE").is_some() {
        return fs::write(root().join(name), text).with_context(|| name.to_owned());
    }
    let written = read(name).unwrap_or_default();
    let differs = |(at, (old, new)): (usize, (&str, &str))| {
        (old != new).then(|| format!("line {}: {old:?} should be {new:?}", at + 1))
    };
    if written == text {
        return Ok(());
    }
    let first = written.lines().zip(text.lines()).enumerate().find_map(differs);
    let first = first.unwrap_or_else(|| "one is longer".to_owned());
    bail!("{name} is old, AGENT_METER_WRITE=1 writes it anew; {first}")
}
