//! The options that name the metered server.

use std::time::Duration;

use agent_meter::envoy::{Endpoint, Route};
use agent_meter::run::Served;
use agent_meter::stdio;
use anyhow::Context;
use clap::Args;

use super::collect::duration;

/// The metered server of `run`: its address, or the command that starts it.
#[derive(Debug, Args)]
pub(super) struct ServedArgs {
    /// The server to meter: http:// or https://, host and port, no path
    #[arg(long, value_name = "URL", required_unless_present = "stdio", conflicts_with = "stdio")]
    upstream: Option<Endpoint>,
    /// The server to meter, if it speaks stdio: the command that starts it, such as
    /// 'npx -y @modelcontextprotocol/server-everything'. Clients reach it at /mcp. Each session has a
    /// process of its own; quotes and backslashes work as in a shell, and no shell runs
    #[arg(long, value_name = "COMMAND", conflicts_with = "upstream_host")]
    stdio: Option<String>,
    /// Sessions of --stdio at once; the next gets 503
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        conflicts_with = "upstream",
        value_parser = clap::value_parser!(u32).range(1..=10_000)
    )]
    stdio_sessions: u32,
    /// How long a session of --stdio may be idle, such as 90s, 30m or 2h, before its process is ended
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30m",
        conflicts_with = "upstream",
        value_parser = duration
    )]
    stdio_idle: Duration,
    #[command(flatten)]
    pub(super) further: FurtherArgs,
}

/// What Envoy sends to the metered server, and what besides.
#[derive(Debug, Args)]
pub(super) struct FurtherArgs {
    /// The Host that the server gets, such as mcp.example.com; with https also the name in its
    /// certificate. For servers that are served by their own name only, or that refuse any other
    /// Host with 421 or 403; their redirects then lead past Envoy [default: the client's Host]
    #[arg(long, value_name = "HOST[:PORT]")]
    upstream_host: Option<String>,
    /// A further server behind the same filter, such as openai=https://api.openai.com; may be
    /// repeated. Requests reach it below /NAME/, which it does not see, and by https also with its
    /// own name as their Host; products of --config match them so. It gets its own name as the Host
    #[arg(long, value_name = "NAME=URL", requires = "config")]
    pub(super) route: Vec<Route>,
}

impl ServedArgs {
    /// The server, and the further ones.
    pub(super) fn into_parts(self) -> anyhow::Result<(Served, Vec<Route>)> {
        let Self { upstream, stdio, stdio_sessions, stdio_idle, further } = self;
        let served = match (upstream, stdio) {
            (Some(upstream), _) => Served::At(further.endpoint(upstream)?),
            (None, command) => {
                let command = stdio::split(&command.unwrap_or_default()).context("--stdio")?;
                Served::Stdio(stdio::Options {
                    command,
                    sessions_max: stdio_sessions,
                    idle: stdio_idle,
                })
            }
        };
        Ok((served, further.route))
    }
}

impl FurtherArgs {
    /// The server with the `host` header that it gets. Warns of a public server that would get the
    /// client's.
    pub(super) fn endpoint(&self, upstream: Endpoint) -> anyhow::Result<Endpoint> {
        if let Some(header) = &self.upstream_host {
            return upstream.with_host_header(header).context("--upstream-host");
        }
        if upstream.tls {
            eprintln!(
                "warning: --upstream: the server gets the client's Host; if it is served by its own name only, add --upstream-host {}",
                upstream.authority()
            );
        }
        Ok(upstream)
    }
}
