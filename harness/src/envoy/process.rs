//! One Envoy process: start, readiness, stats, stop. It never outlives the harness.
//!
//! A small shell script starts Envoy: it becomes Envoy (`exec`) and leaves a watcher behind. The
//! watcher reads from a pipe whose other end the harness keeps open, the *leash*. The pipe closes
//! when the harness wants Envoy to stop, or when the harness ends for any reason. The watcher then
//! sends SIGTERM, and SIGKILL after a while. The watcher keeps the other pipe open, writes nothing
//! to it, and closes it when it ends, so that the harness can wait for the watcher too.
//! PR_SET_PDEATHSIG would need unsafe code, and fires when the starting *thread* ends.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::bootstrap::{Bootstrap, module_in};
use super::find::Program;
use super::log::Failure;
use crate::wait;

/// `$1` is a cleanup command, the rest is Envoy's command line.
const LEASH: &str = r#"
cleanup=$1; shift
exec 3<&0 </dev/null
(
    trap '' INT TERM HUP
    while read -r _ <&3; do :; done
    kill -TERM $$ 2>/dev/null
    tries=0
    # A zombie has ended, though nobody may be left to reap it.
    alive() { kill -0 $$ 2>/dev/null && ! grep -q '^State:.Z' /proc/$$/status 2>/dev/null; }
    while [ $tries -lt 100 ] && alive; do sleep 0.1; tries=$((tries + 1)); done
    alive && kill -KILL $$ 2>/dev/null
    eval "$cleanup"
) &
exec "$@" 3<&- >&2
"#;

/// How long a start may take: it compiles the module in one VM for each worker, perhaps on a slow
/// machine, and may pull an image.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long a stop may take: less than the watcher's ten seconds, so that the harness reports the
/// reason.
const STOP_LIMIT: Duration = Duration::from_secs(8);
/// How long the watcher may take to end: a few of its checks of Envoy.
const WATCHER_LIMIT: Duration = Duration::from_secs(1);

/// How a process of Envoy is started, beside its bootstrap.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// The number of worker threads.
    pub concurrency: u32,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// Takes over the listeners of the Envoy that was started before it from the same directory, and
    /// ends that one; `None` starts an Envoy that stands alone.
    pub succession: Option<Succession>,
}

/// A hot restart.
#[derive(Debug, Clone, Copy)]
pub struct Succession {
    /// How many Envoys there were before.
    pub epoch: u32,
    /// How long the predecessor serves on, in seconds.
    pub parent_s: u32,
}

/// A running Envoy. Dropped without [`Envoy::stop`], it is killed.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    leash: Option<ChildStdin>,
    watcher: Option<ChildStdout>,
    listen: SocketAddr,
    admin: SocketAddr,
    log: PathBuf,
    http: reqwest::Client,
}

/// Reads the counters of one Envoy.
#[derive(Debug, Clone)]
pub struct Counters {
    admin: SocketAddr,
    http: reqwest::Client,
}

impl Counters {
    /// The counters and gauges whose names start with `prefix`, by full name.
    pub async fn read(&self, prefix: &str) -> anyhow::Result<BTreeMap<String, u64>> {
        let url = format!("http://{}/stats?format=json&filter=^{prefix}", self.admin);
        let stats = get_json(&self.http, &url).await?;
        let list = stats["stats"].as_array().context("Envoy's /stats has no list")?;
        let named = list
            .iter()
            .filter_map(|stat| Some((stat["name"].as_str()?.to_owned(), stat["value"].as_u64()?)));
        Ok(named.filter(|(name, _)| name.starts_with(prefix)).collect())
    }
}

impl Launch {
    /// The words before those that run Envoy.
    fn before(&self) -> Vec<OsString> {
        if self.environment.is_empty() {
            return Vec::new();
        }
        let variables = self.environment.iter().map(|(name, value)| format!("{name}={value}"));
        ["env".to_owned()].into_iter().chain(variables).map(OsString::from).collect()
    }

    /// The options of Envoy; `dir` keeps the number by which the processes of a hot restart find
    /// each other.
    fn behind(&self, dir: &Path) -> anyhow::Result<Vec<OsString>> {
        let id_file = dir.join("base-id");
        let mut words: Vec<OsString> = vec!["--concurrency".into()];
        words.push(self.concurrency.to_string().into());
        match self.succession {
            None => {
                words.extend(["--use-dynamic-base-id", "--base-id-path"].map(OsString::from));
                words.push(id_file.into_os_string());
            }
            Some(Succession { epoch, parent_s }) => {
                let id = fs::read_to_string(&id_file);
                let id = id.with_context(|| format!("cannot read {}", id_file.display()))?;
                let (epoch, parent_s) = (epoch.to_string(), parent_s.to_string());
                words.extend(["--base-id", id.trim()].map(OsString::from));
                words.extend(["--restart-epoch", &epoch].map(OsString::from));
                words.extend(["--parent-shutdown-time-s", &parent_s].map(OsString::from));
            }
        }
        Ok(words)
    }
}

impl Envoy {
    /// Starts Envoy with its files in `dir`, and waits until it is ready and listens.
    pub async fn start(
        program: &Program,
        bootstrap: &Bootstrap,
        dir: &Path,
        launch: &Launch,
    ) -> anyhow::Result<Self> {
        let config = write_files(bootstrap, dir)?;
        Self::launch(program, config, dir, launch).await
    }

    /// As [`Envoy::start`], from a bootstrap file; Envoy must be able to read every file that it
    /// names.
    pub async fn start_from(
        program: &Program,
        config: PathBuf,
        dir: &Path,
        concurrency: u32,
    ) -> anyhow::Result<Self> {
        let launch = Launch { concurrency, ..Launch::default() };
        Self::launch(program, config, dir, &launch).await
    }

    async fn launch(
        program: &Program,
        config: PathBuf,
        dir: &Path,
        launch: &Launch,
    ) -> anyhow::Result<Self> {
        let (log, admin_file) = (dir.join("envoy.log"), dir.join("admin-address"));
        // Removes the address file of an earlier Envoy, so that nobody takes it for this one's.
        if admin_file.exists() {
            fs::remove_file(&admin_file)?;
        }
        let mut words = launch.before();
        words.extend(program.words(dir)?);
        words.push("-c".into());
        words.push(config.into_os_string());
        words.extend(launch.behind(dir)?);
        words.push("--admin-address-path".into());
        words.push(admin_file.clone().into_os_string());

        let mut child = leashed(&words, &program.cleanup(dir), &log)?;
        let (leash, watcher) = (child.stdin.take(), child.stdout.take());
        let http = reqwest::Client::new();
        let ready = wait::until(START_LIMIT, "Envoy is ready", async || {
            addresses(&http, &admin_file).await
        });
        let (listen, admin) = tokio::select! {
            status = child.wait() => return Err(Failure::read(&stopped(&status?), &log).into()),
            ready = ready => ready.map_err(|error| Failure::read(&format!("{error:#}"), &log))?,
        };
        Ok(Self { child, leash, watcher, listen, admin, log, http })
    }

    /// The address that clients connect to.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The address of Envoy's admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The path of Envoy's log, which has the filter's lines too.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The address of each listener, by the listener's name.
    pub async fn listeners(&self) -> anyhow::Result<BTreeMap<String, SocketAddr>> {
        let statuses = listeners(&self.http, self.admin).await?;
        let statuses =
            statuses["listener_statuses"].as_array().context("/listeners has no list")?;
        let named = statuses.iter().map(|status| {
            let name = status["name"].as_str().context("/listeners names no listener")?;
            Ok((name.to_owned(), local_address(status)?))
        });
        named.collect()
    }

    /// The process id; `None` once it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// The counters and gauges whose names start with `prefix`, by full name.
    pub async fn stats(&self, prefix: &str) -> anyhow::Result<BTreeMap<String, u64>> {
        self.counters().read(prefix).await
    }

    /// Reads the counters while something else waits for Envoy's end.
    pub fn counters(&self) -> Counters {
        Counters { admin: self.admin, http: self.http.clone() }
    }

    /// Waits until Envoy ends by itself; the error says why it did.
    pub async fn ended(&mut self) -> anyhow::Error {
        match self.child.wait().await {
            Ok(status) => Failure::read(&stopped(&status), &self.log).into(),
            Err(error) => anyhow!("cannot wait for Envoy: {error}"),
        }
    }

    /// Sends SIGTERM and waits for the end. After eight seconds it sends SIGKILL, which is an
    /// error.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.leash.take());
        match tokio::time::timeout(STOP_LIMIT, self.child.wait()).await {
            Ok(status) => {
                let status = status.context("cannot wait for Envoy")?;
                self.watcher_ended().await;
                ensure!(status.success(), Failure::read(&stopped(&status), &self.log));
                Ok(())
            }
            Err(_) => {
                self.child.kill().await.context("cannot kill Envoy")?;
                let what = format!("Envoy did not stop within {STOP_LIMIT:?}");
                Err(Failure::read(&what, &self.log).into())
            }
        }
    }

    /// Sends SIGKILL and waits for the end: simulates the crash of a node.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill Envoy")?;
        self.watcher_ended().await;
        Ok(())
    }

    /// Waits until the watcher of an Envoy that has ended is gone as well.
    async fn watcher_ended(&mut self) {
        drop(self.leash.take());
        if let Some(mut pipe) = self.watcher.take() {
            // A watcher that hangs ends by itself; nothing depends on it any more.
            let _ = tokio::time::timeout(WATCHER_LIMIT, pipe.read_to_end(&mut Vec::new())).await;
        }
    }
}

/// Lets Envoy check the bootstrap and the filter's configuration as it does at start, without
/// opening a port.
///
/// The error is a [`Failure`]: the filter's own message if there is one.
pub async fn validate(program: &Program, bootstrap: &Bootstrap, dir: &Path) -> anyhow::Result<()> {
    let mut words = program.words(dir)?;
    words.extend(["--mode", "validate", "-c"].map(OsString::from));
    words.push(write_files(bootstrap, dir)?.into_os_string());
    let log = dir.join("validate.log");
    let mut child = leashed(&words, &program.cleanup(dir), &log)?;
    let leash = child.stdin.take();
    let status = tokio::time::timeout(START_LIMIT, child.wait())
        .await
        .with_context(|| format!("envoy --mode validate: not within {START_LIMIT:?}"))??;
    drop(leash);
    match status.success() {
        true => Ok(()),
        false => Err(Failure::read("Envoy refuses the configuration", &log).into()),
    }
}

/// Writes the bootstrap and a copy of the module into `dir`: a container sees only this directory.
fn write_files(bootstrap: &Bootstrap, dir: &Path) -> anyhow::Result<PathBuf> {
    let mut bootstrap = bootstrap.clone();
    if let Some(wasm) = &mut bootstrap.wasm {
        let copy = module_in(dir);
        fs::copy(&*wasm, &copy).with_context(|| format!("cannot copy {}", wasm.display()))?;
        *wasm = copy;
    }
    let config = dir.join("bootstrap.json");
    fs::write(&config, format!("{:#}\n", bootstrap.render()?))
        .with_context(|| format!("cannot write {}", config.display()))?;
    Ok(config)
}

/// Starts `words` on a leash. The process group is its own, so that Ctrl-C reaches only the
/// harness.
fn leashed(words: &[OsString], cleanup: &str, log: &Path) -> anyhow::Result<Child> {
    // A restarted Envoy appends to the log, which may contain spilled events.
    let out = File::options().create(true).append(true).open(log);
    let out = out.with_context(|| format!("cannot write {}", log.display()))?;
    Command::new("sh")
        .args(["-c", LEASH, "agent-meter-leash", cleanup])
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(out)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .context("cannot run `sh`")
}

fn stopped(status: &ExitStatus) -> String {
    format!("Envoy stopped by itself ({status})")
}

/// The real addresses of the listener and the admin interface, once Envoy is ready.
async fn addresses(
    http: &reqwest::Client,
    admin_file: &Path,
) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let admin = fs::read_to_string(admin_file).context("no admin address yet")?;
    let admin: SocketAddr = admin.trim().parse().context("the admin address is incomplete")?;
    let ready = http.get(format!("http://{admin}/ready")).send().await?;
    ensure!(ready.status().is_success(), "/ready says {}", ready.text().await?.trim());
    let listeners = listeners(http, admin).await?;
    let first =
        listeners.pointer("/listener_statuses/0").context("/listeners names no listener")?;
    Ok((local_address(first)?, admin))
}

async fn listeners(http: &reqwest::Client, admin: SocketAddr) -> anyhow::Result<Value> {
    get_json(http, &format!("http://{admin}/listeners?format=json")).await
}

fn local_address(status: &Value) -> anyhow::Result<SocketAddr> {
    let socket = &status["local_address"]["socket_address"];
    let ip = socket["address"].as_str().context("/listeners names no address")?;
    let port = socket["port_value"].as_u64().context("/listeners names no port")?;
    Ok(SocketAddr::new(ip.parse()?, u16::try_from(port)?))
}

async fn get_json(http: &reqwest::Client, url: &str) -> anyhow::Result<Value> {
    let answer = http.get(url).send().await?.error_for_status()?;
    answer.json().await.with_context(|| format!("{url} is not JSON"))
}
