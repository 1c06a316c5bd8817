//! The stack: MCP server and LLM endpoint (optional), collector (own or another's), Envoy. It
//! starts them in this order and stops them in reverse.

mod stop;
mod work_dir;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use agent_meter_collector::{Collector, Extras, Ledger};
use anyhow::{Context, ensure};
use serde_json::Value;

use crate::envoy::{self, Bootstrap, Endpoint, Envoy, Launch, Program, Route, Succession};
use crate::health::{Role, Server};
use crate::llm_server::{LlmOptions, LlmServer};
use crate::mcp_server::{McpServer, Mode};
use crate::plugin;

pub use stop::Stopped;
pub(crate) use work_dir::WorkDir;

/// An address of this machine with a free port.
pub const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Which server to meter.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// An MCP server of this process, on a free port.
    Demo(Mode),
    /// A server that is running already.
    At(Endpoint),
}

/// Which collector receives the events.
#[derive(Debug, Clone)]
pub enum Events {
    /// A collector of this process.
    Own {
        /// The address to listen on; port 0 takes a free one.
        listen: SocketAddr,
        /// Its ledger, such as `sqlite:FILE` or `sqlite::memory:`.
        ledger: String,
    },
    /// A collector that is running already, without TLS.
    At(Endpoint),
}

/// The options of a [`Stack`].
#[derive(Debug, Clone)]
pub struct Options {
    /// Worker threads of Envoy.
    pub concurrency: u32,
    /// The plugin configuration; the stack sets its collector's cluster and authority.
    pub plugin: Value,
    /// The filter's module; `None` runs Envoy without the filter.
    pub wasm: Option<PathBuf>,
    /// The address that clients connect to; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The address of Envoy's admin interface; port 0 takes a free one.
    pub admin: SocketAddr,
    /// Which server to meter.
    pub upstream: Upstream,
    /// Runs an LLM endpoint in this process, behind Envoy at `/llm/`, for the own MCP server's tool
    /// `summarise`; `None` runs none.
    pub llm: Option<LlmOptions>,
    /// Further servers behind the same filter.
    pub routes: Vec<Route>,
    /// Which collector receives the events.
    pub events: Events,
    /// Envoy's node id, the default source of the events.
    pub node_id: String,
    /// Other settings: JSON pointers into the rendered bootstrap, and the value to put at each.
    pub settings: Vec<(String, Value)>,
    /// Variables of Envoy's environment.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// A stack for tests: free ports, own MCP server with sessions, ledger in memory, two workers.
    pub fn new(plugin: Value, wasm: Option<PathBuf>) -> Self {
        Self {
            concurrency: 2,
            plugin,
            wasm,
            listen: ANY_PORT,
            admin: ANY_PORT,
            upstream: Upstream::Demo(Mode::Sessions),
            llm: None,
            routes: Vec::new(),
            events: Events::Own { listen: ANY_PORT, ledger: "sqlite::memory:".to_owned() },
            node_id: "agent-meter".to_owned(),
            settings: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// A running stack. Dropped without [`Stack::stop`], as after a failure, it kills Envoy, keeps the
/// working files and prints their path.
#[derive(Debug)]
pub struct Stack {
    // In the order in which Rust drops them.
    envoy: Option<Envoy>,
    collector: Option<Collector>,
    server: Option<McpServer>,
    llm: Option<LlmServer>,
    dir: WorkDir,
    program: Program,
    bootstrap: Bootstrap,
    launch: Launch,
    routes: Vec<Route>,
    /// The own collector's ledger.
    ledger_url: Option<String>,
}

impl Stack {
    /// Finds Envoy, starts everything, and returns once Envoy serves.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        Self::start_with(options, Extras::default()).await
    }

    /// The same, with more for the own collector to do.
    pub async fn start_with(options: Options, extras: Extras) -> anyhow::Result<Self> {
        ensure!(options.concurrency > 0, "concurrency: expected at least 1 worker");
        let program = envoy::find().await?;
        let (server, upstream) = match options.upstream {
            Upstream::At(endpoint) => (None, endpoint),
            Upstream::Demo(mode) => {
                let server = McpServer::start(ANY_PORT, mode).await?;
                let endpoint = server.addr().into();
                (Some(server), endpoint)
            }
        };
        let llm = match options.llm {
            Some(options) => Some(LlmServer::start(ANY_PORT, options).await?),
            None => None,
        };
        let ledger_url = match &options.events {
            Events::At(_) => None,
            Events::Own { ledger, .. } => Some(ledger.clone()),
        };
        let (collector, events) = match options.events {
            Events::At(endpoint) => (None, endpoint),
            Events::Own { listen, ledger } => {
                let collector = Collector::start_with(listen, &ledger, extras)
                    .await
                    .context("cannot start the collector")?;
                let endpoint = reachable(collector.addr()).into();
                (Some(collector), endpoint)
            }
        };
        let mut plugin = options.plugin;
        plugin::deliver_to_harness(&mut plugin)?;
        let mut bootstrap = Bootstrap {
            node_id: options.node_id,
            listen: options.listen,
            admin: options.admin,
            upstream,
            collector: events,
            wasm: options.wasm,
            plugin,
            settings: options.settings,
        };
        let mut routes = options.routes;
        if let Some(llm) = &llm {
            routes.push(Route { name: "llm".to_owned(), endpoint: llm.addr().into() });
        }
        bootstrap.route(&routes)?;
        let (concurrency, environment) = (options.concurrency, options.environment);
        let launch = Launch { concurrency, environment, succession: None };
        let mut dir = WorkDir::create()?;
        let envoy = Envoy::start(&program, &bootstrap, dir.path(), &launch).await;
        let envoy = envoy.map_err(|error| dir.named_in(error)).context("cannot start Envoy")?;
        if let (Some(server), Some(_)) = (&server, &llm) {
            server.set_llm(format!("http://{}/llm", reachable(envoy.listen())));
        }
        let envoy = Some(envoy);
        Ok(Self {
            envoy,
            collector,
            server,
            llm,
            dir,
            program,
            bootstrap,
            launch,
            routes,
            ledger_url,
        })
    }

    /// The URL of the MCP endpoint behind Envoy, for clients on this machine.
    pub fn mcp_url(&self) -> anyhow::Result<String> {
        Ok(format!("http://{}/mcp", reachable(self.envoy()?.listen())))
    }

    /// The running Envoy; an error after [`Stack::kill_envoy`].
    pub fn envoy(&self) -> anyhow::Result<&Envoy> {
        self.envoy.as_ref().context("Envoy was killed")
    }

    /// The servers behind Envoy.
    pub fn servers(&self) -> Vec<Server> {
        let Bootstrap { upstream, collector, .. } = &self.bootstrap;
        let server = |role, cluster: &str, endpoint: &Endpoint| Server {
            role,
            cluster: cluster.to_owned(),
            endpoint: endpoint.clone(),
        };
        let routes = self.routes.iter();
        let routed = routes.map(|route| server(Role::Upstream, &route.cluster(), &route.endpoint));
        let collector = server(Role::Collector, "agent_meter_collector", collector);
        let own = [server(Role::Upstream, "upstream", upstream), collector];
        own.into_iter().chain(routed).collect()
    }

    /// The own collector.
    pub fn collector(&self) -> Option<&Collector> {
        self.collector.as_ref()
    }

    /// The own collector's ledger.
    pub fn ledger(&self) -> anyhow::Result<Ledger> {
        Ok(self.collector.as_ref().context("the collector is another's")?.ledger())
    }

    /// The own MCP server.
    pub fn server(&self) -> anyhow::Result<&McpServer> {
        self.server.as_ref().context("the MCP server is another's")
    }

    /// The LLM endpoint, if the stack has one.
    pub fn llm(&self) -> Option<&LlmServer> {
        self.llm.as_ref()
    }

    /// The directory of the working files: `bootstrap.json`, `envoy.log`, the module.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Keeps the working files even after [`Stack::stop`].
    pub fn keep_files(&mut self) {
        self.dir.keep = true;
    }

    /// Waits until Envoy ends by itself; the error says why it did.
    pub async fn ended(&mut self) -> anyhow::Error {
        match &mut self.envoy {
            Some(envoy) => envoy.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Kills Envoy with SIGKILL and starts another on the same listener: simulates the crash of a
    /// node.
    pub async fn restart_envoy(&mut self) -> anyhow::Result<()> {
        if let Some(envoy) = self.envoy.take() {
            self.bootstrap.listen = envoy.listen();
            envoy.kill().await?;
        }
        self.launch.succession = None;
        let dir = self.dir.path();
        self.envoy = Some(Envoy::start(&self.program, &self.bootstrap, dir, &self.launch).await?);
        Ok(())
    }

    /// Starts an Envoy that takes over the listeners of the running one by hot restart. Returns that
    /// one, which its successor ends after `parent_s` seconds.
    pub async fn hot_restart_envoy(&mut self, parent_s: u32) -> anyhow::Result<Envoy> {
        ensure!(matches!(self.program, Program::Binary(_)), "Envoy runs in a container");
        let predecessor = self.envoy.take().context("Envoy was killed")?;
        self.bootstrap.listen = predecessor.listen();
        let epoch = self.launch.succession.map_or(0, |last| last.epoch) + 1;
        self.launch.succession = Some(Succession { epoch, parent_s });
        let dir = self.dir.path();
        self.envoy = Some(Envoy::start(&self.program, &self.bootstrap, dir, &self.launch).await?);
        Ok(predecessor)
    }

    /// Kills Envoy with SIGKILL.
    pub async fn kill_envoy(&mut self) -> anyhow::Result<()> {
        match self.envoy.take() {
            Some(envoy) => envoy.kill().await,
            None => Ok(()),
        }
    }

    /// Kills what still runs, and removes the working files.
    pub async fn discard(mut self) -> anyhow::Result<()> {
        self.dir.done = true;
        self.kill_envoy().await
    }
}

/// The address by which this machine reaches a listener on `addr`.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
mod tests {
    use agent_meter_collector::recover::Recovered;
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::http::header::{HOST, LOCATION};
    use axum::response::Redirect;
    use axum::routing::post;
    use reqwest::redirect::Policy;
    use tokio::net::TcpListener;

    use super::*;
    use crate::mcp_client::{Agent, Call, Protocol};
    use crate::mcp_server::{Calls, Outcome};

    /// Plays one session through Envoy without the filter: the client must see what the server did.
    async fn check(mode: Mode, protocol: Protocol) {
        let upstream = Upstream::Demo(mode);
        let options = Options { upstream, ..Options::new(plugin::demo(), None) };
        let mut stack = Stack::start(options).await.expect("the stack starts");
        let url = stack.mcp_url().expect("Envoy runs");
        let agent = Agent { protocol, ..Agent::new(&url, "acme", "agent-1") };
        let calls = [
            Call::new("lookup_customer", "customer_id", "c-1"),
            Call::new("analyze_report", "report", "r-1"),
            Call::new("fail", "reason", "no"),
            Call::new("write_record", "rekord", "misspelt"),
            Call::new("drop_table", "table", "t"),
        ];
        let (good, bad) = (Outcome::Success, Outcome::ValidationFailed);
        let seen = agent.play(&calls).await.expect("the session ends well");
        assert_eq!(seen, [good, good, Outcome::Error, bad, bad], "{mode:?} {protocol:?}");
        let done: Calls = calls.iter().zip(seen).map(|(c, o)| ((c.tool.clone(), o), 1)).collect();
        assert_eq!(stack.server().expect("own").executed(), done, "{mode:?} {protocol:?}");
        stack.restart_envoy().await.expect("starts again");
        assert_eq!(stack.mcp_url().expect("Envoy runs"), url);
        let dir = stack.dir().to_owned();
        assert_eq!(stack.stop().await.expect("stops"), Recovered::default());
        assert!(!dir.exists(), "{} is left", dir.display());
    }

    /// A server that redirects `/mcp` to `/mcp/` with an absolute URL, made of the request's host,
    /// as FastMCP does.
    async fn redirecting_server() -> SocketAddr {
        let redirect = async |headers: HeaderMap| {
            let host = headers[HOST].to_str().expect("text").to_owned();
            Redirect::temporary(&format!("http://{host}/mcp/"))
        };
        let served = async |headers: HeaderMap| headers[HOST].to_str().expect("text").to_owned();
        let routes = Router::new().route("/mcp", post(redirect)).route("/mcp/", post(served));
        let listener = TcpListener::bind(ANY_PORT).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        tokio::spawn(async move { axum::serve(listener, routes).await });
        addr
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_redirect_leads_back_to_envoy_unless_the_host_is_rewritten() {
        let server = redirecting_server().await;
        for header in [None, Some("tools.internal")] {
            let endpoint: Endpoint = format!("http://{server}").parse().expect("a URL");
            let endpoint = match header {
                Some(header) => endpoint.with_host_header(header).expect(header),
                None => endpoint,
            };
            let upstream = Upstream::At(endpoint);
            let options = Options { upstream, ..Options::new(plugin::demo(), None) };
            let stack = Stack::start(options).await.expect("the stack starts");
            let url = stack.mcp_url().expect("Envoy runs");
            let client = reqwest::Client::builder().redirect(Policy::none()).build();
            let client = client.expect("a client");
            let found = client.post(&url).send().await.expect("an answer");
            let envoy = stack.envoy().expect("Envoy runs").listen().to_string();
            let host = header.unwrap_or(&envoy);
            assert_eq!(found.status(), 307);
            assert_eq!(found.headers()[LOCATION], format!("http://{host}/mcp/"));
            if header.is_none() {
                let served = reqwest::Client::new().post(&url).send().await.expect("an answer");
                assert_eq!(served.text().await.expect("text"), envoy);
            }
            assert_eq!(stack.stop().await.expect("stops"), Recovered::default());
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn mcp_sessions_pass_through_envoy() {
        for (mode, protocol) in [
            (Mode::Sessions, Protocol::Sessions),
            (Mode::Json, Protocol::Sessions),
            (Mode::Sessions, Protocol::Stateless),
            (Mode::Json, Protocol::Stateless),
        ] {
            check(mode, protocol).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_tool_asks_the_llm_behind_envoy_in_the_trace_of_its_call() {
        for mode in [Mode::Sessions, Mode::Json] {
            let (upstream, llm) = (Upstream::Demo(mode), Some(LlmOptions::default()));
            let options = Options { upstream, llm, ..Options::new(plugin::demo(), None) };
            let stack = Stack::start(options).await.expect("the stack starts");
            let agent = Agent::new(&stack.mcp_url().expect("Envoy runs"), "acme", "agent-1");
            let session = agent.open().await.expect("a session");
            let tools = session.tools().await.expect("tools");
            assert!(tools.contains(&"summarise".to_owned()), "{tools:?}");
            let long = "all that was said in the third quarter of the year";
            for text in ["short", long, long] {
                let call = Call::new("summarise", "text", text);
                assert_eq!(session.call(&call).await.expect("a call"), Outcome::Success);
            }
            session.close().await.expect("closes");
            let llm = stack.llm().expect("an endpoint");
            let account = llm.account();
            let generations: Vec<_> =
                account.entries.iter().map(|entry| (&entry.model[..], entry.generations)).collect();
            assert_eq!(generations, [("gpt-4o-2024-08-06", 2), ("gpt-4o-mini-2024-07-18", 1)]);
            assert!(account.cost() > rust_decimal::Decimal::ZERO);
            let traces: Vec<String> =
                llm.traceparents().iter().map(|parent| parent[..35].to_owned()).collect();
            assert_eq!(traces.len(), 3, "{traces:?}");
            assert!(traces.iter().all(|trace| trace.starts_with("00-6167656e746d7472")));
            assert!(traces[0] != traces[1] && traces[1] != traces[2], "{traces:?}");
            assert_eq!(stack.stop().await.expect("stops"), Recovered::default());
        }
    }
}
