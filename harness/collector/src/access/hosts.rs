//! The names under which requests may reach the collector: a page of a stranger in the operator's
//! browser can let a name of its own lead here, and then read what the collector answers.

use std::net::{IpAddr, SocketAddr};

use anyhow::ensure;

/// The names that the operator allows beside loopback and the address of the connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// Takes names, each with a port or without one.
    ///
    /// # Errors
    ///
    /// If one is empty, or holds anything that no `Host` has.
    pub(crate) fn new(names: &[String]) -> anyhow::Result<Hosts> {
        for name in names {
            let is_of_host = |c: char| c.is_ascii_alphanumeric() || "-_.:[]".contains(c);
            ensure!(
                !name.is_empty() && name.chars().all(is_of_host),
                "must be a name, or NAME:PORT, found {name:?}"
            );
        }
        Ok(Hosts(names.iter().map(|name| canonical(name)).collect()))
    }

    /// Whether a request with this `Host` may be answered; `local` is the collector's end of the
    /// connection.
    pub(crate) fn allows(&self, host: &str, local: SocketAddr) -> bool {
        let host = canonical(host);
        let name = without_port(&host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            if ip.is_loopback() || ip == local.ip().to_canonical() {
                return true;
            }
        }
        name == "localhost" || self.0.iter().any(|known| *known == host || known == name)
    }
}

/// In lower case, without the dot that may end a name.
fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let (name, port) = host.split_at(without_port(&host).len());
    format!("{}{port}", name.strip_suffix('.').unwrap_or(name))
}

fn without_port(host: &str) -> &str {
    let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    match host.rsplit_once(':') {
        // The last colon of an address in brackets, or of one without, is no port's.
        Some((name, port)) if is_port(port) && (name.ends_with(']') || !name.contains(':')) => name,
        _ => host,
    }
}

/// Whether a browser sends a request for a page that is not the collector's own; `origin` and
/// `fetch_site` are the headers `Origin` and `Sec-Fetch-Site`.
pub(crate) fn is_cross_site(host: &str, origin: Option<&str>, fetch_site: Option<&str>) -> bool {
    let is_of_page = |origin: &str| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host))
    };
    origin.is_some_and(|origin| !is_of_page(origin))
        || fetch_site.is_some_and(|site| site != "same-origin" && site != "none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_the_own_address_and_named_hosts_are_allowed() {
        let names = ["billing.example.com".to_owned(), "Edge:8443".to_owned()];
        let hosts = Hosts::new(&names).expect("names");
        let local: SocketAddr = "10.1.2.3:8080".parse().expect("an address");
        for (host, is_allowed) in [
            ("127.0.0.1:8080", true),
            ("127.9.9.9", true),
            ("localhost:9", true),
            ("LOCALHOST.", true),
            ("[::1]:8080", true),
            ("::1", true),
            ("10.1.2.3:8080", true),
            ("[::ffff:10.1.2.3]:8080", true),
            ("10.1.2.4:8080", false),
            ("billing.example.com", true),
            ("Billing.Example.com.:443", true),
            ("edge:8443", true),
            ("edge", false),
            ("edge:80", false),
            ("rebind.example.net", false),
            ("billing.example.com.evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.nip.io", false),
            ("2130706433", false),
            ("", false),
            (":8080", false),
        ] {
            assert_eq!(hosts.allows(host, local), is_allowed, "{host:?}");
        }
        for name in ["", "a b", "http://x"] {
            let error = Hosts::new(&[name.to_owned()]).expect_err(name);
            assert_eq!(error.to_string(), format!("must be a name, or NAME:PORT, found {name:?}"));
        }
    }

    #[test]
    fn only_the_collectors_own_page_may_post_from_a_browser() {
        let host = "127.0.0.1:8080";
        for (origin, fetch_site, is_cross) in [
            (None, None, false),
            (Some("http://127.0.0.1:8080"), Some("same-origin"), false),
            (None, Some("none"), false),
            (Some("http://127.0.0.1:3000"), None, true),
            (Some("https://evil.example"), None, true),
            (Some("null"), None, true),
            (None, Some("cross-site"), true),
            (None, Some("same-site"), true),
        ] {
            let told = is_cross_site(host, origin, fetch_site);
            assert_eq!(told, is_cross, "{origin:?} {fetch_site:?}");
        }
    }
}
