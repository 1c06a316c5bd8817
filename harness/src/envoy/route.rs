//! Routes to further servers behind the same listener and filter, such as LLM providers.

use std::net::IpAddr;
use std::str::FromStr;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::bootstrap::{
    Bootstrap, CLUSTERS, Endpoint, MANAGER, at, named, set_endpoint, without_brackets,
};

/// The longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// A server that requests reach by the path below `/NAME/`, or by its own name as the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The first segment of the path; the server does not see it.
    pub name: String,
    /// The server. It gets its own name as the host, unless it has another: providers are served by
    /// name, and make no URLs that a client follows.
    pub endpoint: Endpoint,
}

impl FromStr for Route {
    type Err = anyhow::Error;

    /// Reads `NAME=URL`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let parts = text.split_once('=');
        let (name, url) = parts.with_context(|| format!("expected NAME=URL, found {text:?}"))?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        ensure!(
            (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain),
            "expected a name of 1 to {NAME_BYTES_MAX} of A-Z a-z 0-9 - _, found {name:?}"
        );
        Ok(Self { name: name.to_owned(), endpoint: url.parse()? })
    }
}

impl Route {
    /// The name of its cluster.
    pub(crate) fn cluster(&self) -> String {
        format!("route_{}", self.name)
    }

    /// What Envoy does with a request to this server.
    fn action(&self) -> Value {
        let Endpoint { host_header, .. } = &self.endpoint;
        let host = host_header.clone().unwrap_or_else(|| self.endpoint.authority());
        // As to the metered server: a generation may take its time, and be silent for long.
        json!({ "cluster": self.cluster(), "timeout": "0s", "idle_timeout": "3900s",
            "host_rewrite_literal": host })
    }

    fn by_path(&self) -> Value {
        let mut action = self.action();
        action["prefix_rewrite"] = json!("/");
        json!({ "match": { "prefix": format!("/{}/", self.name) }, "route": action })
    }

    /// The route by the server's own name, on any port: a product matches a host without its port,
    /// and what it meters must not reach another server. `None` if clients may mean Envoy itself.
    fn by_host(&self, upstream: &Endpoint) -> Option<Value> {
        let Endpoint { host, tls, .. } = &self.endpoint;
        let is_of_this_machine = host.eq_ignore_ascii_case("localhost")
            || without_brackets(host).parse::<IpAddr>().is_ok();
        if !tls || is_of_this_machine || host.eq_ignore_ascii_case(&upstream.host) {
            return None;
        }
        let regex = format!("(?i:{})(:[0-9]+)?", escaped(host));
        let header =
            json!({ "name": ":authority", "string_match": { "safe_regex": { "regex": regex } } });
        Some(json!({ "match": { "prefix": "/", "headers": [header] }, "route": self.action() }))
    }
}

/// The regular expression that only this text fits.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c.is_ascii_alphanumeric() || !c.is_ascii() {
        true => c.to_string(),
        false => format!("\\{c}"),
    };
    text.chars().map(escape).collect()
}

impl Bootstrap {
    /// Adds routes to further servers before those of the metered one. Of two for one host, the first
    /// counts.
    pub fn route(&mut self, routes: &[Route]) -> anyhow::Result<()> {
        for (index, route) in routes.iter().enumerate() {
            let is_new = routes[..index].iter().all(|earlier| earlier.name != route.name);
            ensure!(is_new, "the name {} is given twice", route.name);
        }
        if routes.is_empty() {
            return Ok(());
        }
        let mut root = self.render()?;
        let pointer = format!("{MANAGER}/route_config/virtual_hosts/0/routes");
        let list = at(&mut root, &pointer)?;
        let own = list.as_array().context("envoy/envoy.yaml: no list of routes")?.clone();
        // Envoy takes the first route that matches. Who names a host means that server, whatever
        // the path.
        let by_host = routes.iter().filter_map(|route| route.by_host(&self.upstream));
        let by_path = routes.iter().map(Route::by_path);
        self.settings.push((pointer, by_host.chain(by_path).chain(own).collect()));
        let clusters = at(&mut root, CLUSTERS)?;
        let template = named(clusters, "upstream")?.clone();
        for route in routes {
            let mut cluster = template.clone();
            cluster["name"] = json!(route.cluster());
            cluster["load_assignment"]["cluster_name"] = json!(route.cluster());
            if let Some(cluster) = cluster.as_object_mut() {
                // Drops the metered server's TLS, if it has any.
                cluster.remove("transport_socket");
            }
            set_endpoint(&mut cluster, &route.endpoint)?;
            clusters.as_array_mut().context("envoy/envoy.yaml: no list of clusters")?.push(cluster);
        }
        self.settings.push((CLUSTERS.to_owned(), clusters.take()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    /// The bootstrap for this upstream, with these routes.
    fn routed(upstream: &str, routes: &[&str]) -> anyhow::Result<Value> {
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        let mut bootstrap = Bootstrap {
            node_id: "n1".to_owned(),
            listen: addr,
            admin: addr,
            upstream: upstream.parse()?,
            collector: addr.into(),
            wasm: None,
            plugin: json!({}),
            settings: Vec::new(),
        };
        let routes: anyhow::Result<Vec<Route>> = routes.iter().map(|text| text.parse()).collect();
        bootstrap.route(&routes?)?;
        bootstrap.render()
    }

    fn routes_of(root: &Value) -> Vec<Value> {
        let routes = root.pointer(&format!("{MANAGER}/route_config/virtual_hosts/0/routes"));
        routes.and_then(Value::as_array).expect("routes").clone()
    }

    #[test]
    fn a_server_has_a_route_by_path_before_the_metered_one() {
        let root = routed("https://tools.internal:3", &["llm=http://llm.internal:7"]);
        let root = root.expect("renders");
        let routes = routes_of(&root);
        let route = json!({ "cluster": "route_llm", "prefix_rewrite": "/", "timeout": "0s",
            "idle_timeout": "3900s", "host_rewrite_literal": "llm.internal:7" });
        assert_eq!(routes[0], json!({ "match": { "prefix": "/llm/" }, "route": route }));
        assert_eq!(routes[1]["route"]["cluster"], "upstream");
        let clusters = root.pointer(CLUSTERS).expect("clusters");
        assert_eq!(clusters[2]["name"], "route_llm");
        assert!(clusters[0]["transport_socket"].is_object());
        assert!(clusters[2]["transport_socket"].is_null());
        assert!(clusters[2].to_string().contains(r#""address":"llm.internal","port_value":7"#));
    }

    #[test]
    fn a_server_of_the_outside_is_found_by_its_host_too_and_asked_by_its_own_name() {
        let root = routed(
            "http://127.0.0.1:3000",
            &["openai=https://api.openai.com", "claude=https://api.anthropic.com"],
        );
        let root = root.expect("renders");
        let routes = routes_of(&root);
        let found: Vec<&Value> = routes.iter().map(|route| &route["route"]["cluster"]).collect();
        let [openai, claude] = ["route_openai", "route_claude"];
        assert_eq!(found, [openai, claude, openai, claude, "upstream"]);
        let regex = routes[0].pointer("/match/headers/0/string_match/safe_regex/regex");
        assert_eq!(regex.expect("a regex"), r"(?i:api\.openai\.com)(:[0-9]+)?");
        assert_eq!(routes[0]["route"]["host_rewrite_literal"], "api.openai.com");
        assert!(routes[0]["route"]["prefix_rewrite"].is_null());
        let sni = root.pointer(&format!("{CLUSTERS}/3/transport_socket/typed_config/sni"));
        assert_eq!(sni.expect("TLS"), "api.anthropic.com");
    }

    #[test]
    fn a_host_that_may_be_envoys_own_is_no_route() {
        for (upstream, route) in [
            ("http://127.0.0.1:3000", "a=http://127.0.0.1:4000"),
            ("http://127.0.0.1:3000", "a=https://127.0.0.1:4000"),
            ("http://127.0.0.1:3000", "a=https://localhost:4000"),
            ("http://127.0.0.1:3000", "a=http://llm.internal"),
            ("https://mcp.example.com", "a=https://mcp.example.com"),
        ] {
            let root = routed(upstream, &[route]).expect("renders");
            assert_eq!(routes_of(&root).len(), 2, "{route}");
        }
    }

    #[test]
    fn what_is_no_route_is_refused() {
        for routes in [
            &["http://a:1"][..],
            &["=http://a:1"],
            &["a/b=http://a:1"],
            &["..=http://a:1"],
            &["a=a:1"],
            &["a=https://a/v1"],
            &["a=http://a:1", "a=http://b:1"],
        ] {
            assert!(routed("http://127.0.0.1:3000", routes).is_err(), "{routes:?} was taken");
        }
    }
}
