//! Says when a server behind Envoy can no longer be reached or refuses what it gets, and when it is
//! back: one line on stderr each.
//!
//! Envoy's counters tell it, so a server gets no request for this. While nobody asks an upstream
//! anything, only a connection that is opened and closed tells whether it is there: once at the
//! start, and every second while it could not be reached.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use reqwest::StatusCode;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use crate::envoy::{Counters, Endpoint};

/// How often to look.
const PERIOD: Duration = Duration::from_secs(1);
/// How long a server may take to accept a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// What Envoy counts when it cannot connect; the last one if it knows no address of the server.
const FAILED: [&str; 3] =
    ["upstream_cx_connect_fail", "upstream_cx_connect_timeout", "upstream_cx_none_healthy"];
/// What precedes a status in the name of a counter, such as `upstream_rq_401` or `upstream_rq_2xx`.
const BY_STATUS: &str = "upstream_rq_";

/// What a server is to this Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It serves clients: what it answers is between it and them.
    Upstream,
    /// It has to take the events.
    Collector,
}

/// A server behind Envoy.
#[derive(Debug, Clone)]
pub struct Server {
    /// What it is to this Envoy.
    pub role: Role,
    /// The name of its cluster.
    pub cluster: String,
    /// Where it is.
    pub endpoint: Endpoint,
}

/// What is wrong with a server.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// Envoy cannot connect. The text is the reason.
    Unreachable(String),
    /// It answers with this status.
    Refuses(u16),
}

/// What the counters tell of the last second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Serves,
    FailsToConnect,
    Refuses(u16),
}

/// A server, and what is known of it.
#[derive(Debug)]
struct Watched {
    server: Server,
    counts: BTreeMap<String, u64>,
    fault: Option<Fault>,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Upstream => "upstream",
            Role::Collector => "collector",
        };
        write!(f, "the {role} {}", self.endpoint)
    }
}

/// Looks after the servers, and hands each line to `say`, until it is dropped.
pub async fn watch(
    counters: &Counters,
    servers: Vec<Server>,
    mut say: impl FnMut(String),
) -> Infallible {
    let watched = |server| Watched { server, counts: BTreeMap::new(), fault: None };
    let mut all: Vec<Watched> = servers.into_iter().map(watched).collect();
    for watched in &mut all {
        if let Err(reason) = connect(&watched.server.endpoint).await {
            watched.turn(Some(Fault::Unreachable(reason)), &mut say);
        }
    }
    loop {
        sleep(PERIOD).await;
        // While Envoy ends, it does not answer; whoever waits for its end tells that.
        let Ok(counts) = counters.read("cluster.").await else { continue };
        for watched in &mut all {
            watched.look(&counts, &mut say).await;
        }
    }
}

impl Watched {
    /// Compares the counters with those of a second ago.
    async fn look(&mut self, counts: &BTreeMap<String, u64>, say: &mut impl FnMut(String)) {
        let prefix = format!("cluster.{}.", self.server.cluster);
        let own = counts
            .iter()
            .filter_map(|(name, count)| Some((name.strip_prefix(&prefix)?.to_owned(), *count)));
        let now: BTreeMap<String, u64> = own.collect();
        let told = told(self.server.role, &self.counts, &now);
        self.counts = now;
        let fault = match (told, &self.fault) {
            (Some(Told::Serves), _) => None,
            (Some(Told::FailsToConnect), Some(Fault::Unreachable(_))) => return,
            (Some(Told::FailsToConnect), _) => {
                let reason = match connect(&self.server.endpoint).await {
                    Err(reason) => reason,
                    Ok(()) if self.server.endpoint.tls => {
                        "it accepts connections, and TLS fails".to_owned()
                    }
                    Ok(()) => "Envoy's connections fail".to_owned(),
                };
                Some(Fault::Unreachable(reason))
            }
            // What Envoy itself answers in place of a server that it cannot reach.
            (Some(Told::Refuses(503 | 504)), Some(Fault::Unreachable(_))) => return,
            (Some(Told::Refuses(status)), _) => Some(Fault::Refuses(status)),
            // Only of a server without TLS does a connection say enough.
            (None, Some(Fault::Unreachable(_))) if !self.server.endpoint.tls => {
                match connect(&self.server.endpoint).await {
                    Ok(()) => None,
                    Err(_) => return,
                }
            }
            (None, _) => return,
        };
        self.turn(fault, say);
    }

    /// Says what has changed.
    fn turn(&mut self, fault: Option<Fault>, say: &mut impl FnMut(String)) {
        if self.fault == fault {
            return;
        }
        let Server { role, .. } = self.server;
        let server = &self.server;
        say(match (&fault, &self.fault) {
            (None, Some(Fault::Refuses(_))) => format!("{server} takes the events again"),
            (None, _) => format!("{server} can be reached again"),
            (Some(Fault::Unreachable(reason)), _) => {
                let so = match role {
                    Role::Upstream => "clients get 503",
                    Role::Collector => "events wait in Envoy",
                };
                format!("warning: {server} cannot be reached: {reason}; {so}")
            }
            (Some(Fault::Refuses(status)), _) => {
                let name = StatusCode::from_u16(*status).ok();
                let name = name.and_then(|status| status.canonical_reason()).unwrap_or_default();
                let why = match status {
                    401 => "; is the configuration's `collector.secret` one of its secrets?",
                    404 => "; does it take events at the configuration's `collector.path`?",
                    421 => "; does it know the configuration's `collector.authority`?",
                    _ => "",
                };
                format!(
                    "warning: {server} refuses the events with {status} {name}, and they wait in Envoy{why}"
                )
            }
        });
        self.fault = fault;
    }
}

/// What has been counted since `then`.
fn told(role: Role, then: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Option<Told> {
    let grown = |name: &str| now.get(name) > then.get(name).or(Some(&0));
    let served = match role {
        Role::Upstream => &["2xx", "3xx", "4xx"][..],
        Role::Collector => &["2xx"],
    };
    if served.iter().any(|class| grown(&format!("{BY_STATUS}{class}"))) {
        return Some(Told::Serves);
    }
    if FAILED.iter().any(|name| grown(name)) {
        return Some(Told::FailsToConnect);
    }
    if role == Role::Upstream {
        return None;
    }
    let statuses = now.keys().filter_map(|name| name.strip_prefix(BY_STATUS)?.parse().ok());
    let mut grown = statuses.filter(|status: &u16| grown(&format!("{BY_STATUS}{status}")));
    grown.find(|status| *status >= 300).map(Told::Refuses)
}

/// Opens a connection, and closes it.
async fn connect(endpoint: &Endpoint) -> Result<(), String> {
    let addr = (&endpoint.host[..], endpoint.port);
    match timeout(CONNECT_LIMIT, TcpStream::connect(addr)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {CONNECT_LIMIT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::stack::ANY_PORT;

    fn counts(told: &[(&str, u64)]) -> BTreeMap<String, u64> {
        told.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn counters_tell_whether_a_server_serves() {
        let (upstream, collector) = (Role::Upstream, Role::Collector);
        let failed = ("upstream_cx_connect_fail", 1);
        let [ok, unauthorized, busy] =
            ["200", "401", "503"].map(|code| format!("{BY_STATUS}{code}"));
        for (role, now, expected) in [
            (upstream, &[][..], None),
            (upstream, &[("upstream_rq_2xx", 1)], Some(Told::Serves)),
            (upstream, &[("upstream_rq_4xx", 1), (&unauthorized, 1)], Some(Told::Serves)),
            (upstream, &[("upstream_rq_5xx", 1), (&busy, 1)], None),
            (upstream, &[("upstream_rq_5xx", 1), failed], Some(Told::FailsToConnect)),
            (upstream, &[("upstream_cx_none_healthy", 1)], Some(Told::FailsToConnect)),
            (upstream, &[("upstream_rq_2xx", 1), failed], Some(Told::Serves)),
            (collector, &[("upstream_rq_2xx", 1), (&ok, 1)], Some(Told::Serves)),
            (collector, &[("upstream_rq_4xx", 1), (&unauthorized, 1)], Some(Told::Refuses(401))),
            (collector, &[(&busy, 1), failed], Some(Told::FailsToConnect)),
            (collector, &[(&ok, 0), (&busy, 1)], Some(Told::Refuses(503))),
            (collector, &[("upstream_rq_completed", 1), ("upstream_rq_timeout", 1)], None),
        ] {
            let now = counts(now);
            assert_eq!(told(role, &counts(&[]), &now), expected, "{role:?} {now:?}");
            assert_eq!(told(role, &now, &now), None, "nothing new: {role:?} {now:?}");
        }
    }

    /// The lines that a server's counters cause, a list for each second.
    async fn lines(server: Server, seconds: &[&[(&str, u64)]]) -> Vec<Vec<String>> {
        let mut watched = Watched { server, counts: BTreeMap::new(), fault: None };
        let mut said = Vec::new();
        for counted in seconds {
            let mut lines = Vec::new();
            let counted = counted.iter();
            let counts = counted.map(|(name, count)| (format!("cluster.c.{name}"), *count));
            watched.look(&counts.collect(), &mut |line| lines.push(line)).await;
            said.push(lines);
        }
        said
    }

    #[tokio::test]
    async fn each_change_is_one_line() {
        let listener = TcpListener::bind(ANY_PORT).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let server = |role| Server { role, cluster: "c".to_owned(), endpoint: addr.into() };
        let (failed, ok) = ("upstream_cx_connect_fail", "upstream_rq_2xx");
        let said = lines(
            server(Role::Collector),
            &[
                &[(ok, 1)],
                &[(ok, 1), ("upstream_rq_401", 1)],
                &[(ok, 1), ("upstream_rq_401", 2)],
                &[(ok, 2), ("upstream_rq_401", 2)],
            ],
        )
        .await;
        let collector = format!("the collector http://{addr}");
        let refused = format!(
            "warning: {collector} refuses the events with 401 Unauthorized, and they wait in Envoy; is the configuration's `collector.secret` one of its secrets?"
        );
        let back = format!("{collector} takes the events again");
        assert_eq!(said, [vec![], vec![refused], vec![], vec![back]]);

        drop(listener);
        let said = lines(
            server(Role::Upstream),
            &[
                &[("upstream_rq_4xx", 1)],
                &[("upstream_rq_4xx", 1), (failed, 1)],
                &[("upstream_rq_4xx", 1), (failed, 2)],
                &[("upstream_rq_4xx", 1), (failed, 2)],
                &[("upstream_rq_4xx", 2), (failed, 2)],
            ],
        )
        .await;
        let upstream = format!("the upstream http://{addr}");
        let down = format!(
            "warning: {upstream} cannot be reached: Connection refused (os error 111); clients get 503"
        );
        let back = format!("{upstream} can be reached again");
        assert_eq!(said, [vec![], vec![down], vec![], vec![], vec![back]]);
    }

    #[tokio::test]
    async fn a_server_that_listens_again_is_back_without_a_request() {
        let listener = TcpListener::bind(ANY_PORT).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        let server =
            Server { role: Role::Upstream, cluster: "c".to_owned(), endpoint: addr.into() };
        let fault = Some(Fault::Unreachable("it was not there".to_owned()));
        let mut watched = Watched { server, counts: BTreeMap::new(), fault };
        let mut lines = Vec::new();
        watched.look(&BTreeMap::new(), &mut |line| lines.push(line)).await;
        assert_eq!(lines, [format!("the upstream http://{addr} can be reached again")]);
    }
}
