//! Renders Envoy's bootstrap from the checked-in `envoy/envoy.yaml`: edits its tree, and has no
//! other template.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use reqwest::Url;
use serde_json::{Value, json};

const TEMPLATE: &str = include_str!("../../../envoy/envoy.yaml");

const LISTENER: &str = "/static_resources/listeners/0";
const CLUSTERS: &str = "/static_resources/clusters";
const MANAGER: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

/// The parts of `envoy/envoy.yaml` that the harness sets.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Envoy's node id, the default source of the events.
    pub node_id: String,
    /// Where clients connect; port 0 asks for a free one.
    pub listen: SocketAddr,
    /// Envoy's admin interface; port 0 asks for a free one.
    pub admin: SocketAddr,
    /// The metered server.
    pub upstream: Endpoint,
    /// The server that receives the events.
    pub collector: Endpoint,
    /// The filter's module; `None` leaves the filter out.
    pub wasm: Option<PathBuf>,
    /// The plugin configuration.
    pub plugin: Value,
    /// Other settings: JSON pointers into the rendered bootstrap, and the value to put at each.
    pub settings: Vec<(String, Value)>,
}

/// A server that Envoy connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host name or IP address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// True if Envoy connects with TLS and verifies the certificate.
    pub tls: bool,
    /// What Envoy sets the `host` header to; `None` passes on the client's.
    pub authority: Option<String>,
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self { host: addr.ip().to_string(), port: addr.port(), tls: false, authority: None }
    }
}

impl FromStr for Endpoint {
    type Err = anyhow::Error;

    /// Reads `http://host:port` or `https://host:port`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let url = Url::parse(text).with_context(|| format!("not a URL: {text:?}"))?;
        let tls = match url.scheme() {
            "http" => false,
            "https" => true,
            scheme => bail!("expected http:// or https://, found {scheme:?} in {text:?}"),
        };
        ensure!(
            url.path() == "/" && url.query().is_none() && url.username().is_empty(),
            "expected only scheme, host and port, found {text:?}; a request's path is passed on unchanged"
        );
        let host = url.host_str().with_context(|| format!("no host in {text:?}"))?;
        let port = url.port_or_known_default().with_context(|| format!("no port in {text:?}"))?;
        let authority = url.port().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        // URLs write IPv6 addresses in brackets, Envoy does not.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, tls, authority: Some(authority) })
    }
}

impl Bootstrap {
    /// The bootstrap as JSON, which Envoy reads as it reads YAML.
    pub fn render(&self) -> anyhow::Result<Value> {
        let mut root: Value =
            serde_yaml_ng::from_str(TEMPLATE).context("envoy/envoy.yaml is not YAML")?;
        *at(&mut root, "/node/id")? = json!(self.node_id);
        *at(&mut root, "/admin/address")? = socket(&self.admin.ip().to_string(), self.admin.port());
        *at(&mut root, &format!("{LISTENER}/address"))? =
            socket(&self.listen.ip().to_string(), self.listen.port());
        if let Some(authority) = &self.upstream.authority {
            let route = "/route_config/virtual_hosts/0/routes/0/route";
            at(&mut root, &format!("{MANAGER}{route}"))?["host_rewrite_literal"] = json!(authority);
        }
        self.set_filter(at(&mut root, &format!("{MANAGER}/http_filters"))?)?;
        let clusters = at(&mut root, CLUSTERS)?;
        set_endpoint(named(clusters, "upstream")?, &self.upstream)?;
        set_endpoint(named(clusters, "agent_meter_collector")?, &self.collector)?;
        for (pointer, value) in &self.settings {
            set(&mut root, pointer, value.clone())?;
        }
        Ok(root)
    }

    /// Adds a route for `/llm/` to an LLM endpoint behind the same listener and filter as the
    /// metered server. The endpoint sees the path without `/llm`.
    pub fn route_llm(&mut self, llm: &Endpoint) -> anyhow::Result<()> {
        let mut root = self.render()?;
        let routes = format!("{MANAGER}/route_config/virtual_hosts/0/routes");
        let mut route = json!({ "cluster": "llm", "prefix_rewrite": "/", "timeout": "0s" });
        if let Some(authority) = &llm.authority {
            route["host_rewrite_literal"] = json!(authority);
        }
        let list = at(&mut root, &routes)?;
        // Envoy takes the first route that matches.
        list.as_array_mut()
            .context("envoy/envoy.yaml: no list of routes")?
            .insert(0, json!({ "match": { "prefix": "/llm/" }, "route": route }));
        self.settings.push((routes, list.take()));
        let clusters = at(&mut root, CLUSTERS)?;
        let mut cluster = named(clusters, "upstream")?.clone();
        cluster["name"] = json!("llm");
        cluster["load_assignment"]["cluster_name"] = json!("llm");
        if let Some(cluster) = cluster.as_object_mut() {
            // Drops the metered server's TLS, if it has any.
            cluster.remove("transport_socket");
        }
        set_endpoint(&mut cluster, llm)?;
        clusters.as_array_mut().context("envoy/envoy.yaml: no list of clusters")?.push(cluster);
        self.settings.push((CLUSTERS.to_owned(), clusters.take()));
        Ok(())
    }

    fn set_filter(&self, filters: &mut Value) -> anyhow::Result<()> {
        let Some(wasm) = &self.wasm else {
            let filters = filters.as_array_mut().context("envoy/envoy.yaml: no list of filters")?;
            filters.retain(|filter| filter["name"] != "agent-meter");
            return Ok(());
        };
        let config = at(named(filters, "agent-meter")?, "/typed_config/config")?;
        *at(config, "/vm_config/code/local")? = json!({ "filename": wasm });
        // As text, as Istio does it: the filter gets exactly what the user wrote.
        *at(config, "/configuration")? = json!({
            "@type": "type.googleapis.com/google.protobuf.StringValue",
            "value": self.plugin.to_string(),
        });
        Ok(())
    }
}

fn set_endpoint(cluster: &mut Value, endpoint: &Endpoint) -> anyhow::Result<()> {
    let address = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
    *at(cluster, address)? = socket(&endpoint.host, endpoint.port);
    if endpoint.tls {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": endpoint.host,
                "common_tls_context": { "validation_context": {
                    "trusted_ca": { "filename": trusted_authorities()? },
                    "match_typed_subject_alt_names": [
                        { "san_type": "DNS", "matcher": { "exact": endpoint.host } },
                        { "san_type": "IP_ADDRESS", "matcher": { "exact": endpoint.host } },
                    ],
                } },
            },
        });
    }
    Ok(())
}

/// The system's file of trusted certificate authorities.
fn trusted_authorities() -> anyhow::Result<PathBuf> {
    let usual = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/cert.pem",
    ];
    std::env::var_os("SSL_CERT_FILE")
        .map(PathBuf::from)
        .into_iter()
        .chain(usual.map(PathBuf::from))
        .find(|path| path.is_file())
        .context("no file of certificate authorities found for https; set SSL_CERT_FILE")
}

/// A socket address with a host name or an IP address, in Envoy's form.
fn socket(host: &str, port: u16) -> Value {
    json!({ "socket_address": { "address": host, "port_value": port } })
}

/// Puts a value at a JSON pointer; only the last member may be new. `-` adds a member at the end of
/// a list, and `+0` at its start.
fn set(tree: &mut Value, pointer: &str, value: Value) -> anyhow::Result<()> {
    if let Some(found) = tree.pointer_mut(pointer) {
        *found = value;
        return Ok(());
    }
    let (parent, member) = pointer.rsplit_once('/').unwrap_or_default();
    let parent = at(tree, parent)?;
    if let (Some(list), "-") = (parent.as_array_mut(), member) {
        list.push(value);
        return Ok(());
    }
    if let (Some(list), "+0") = (parent.as_array_mut(), member) {
        list.insert(0, value);
        return Ok(());
    }
    let parent = parent.as_object_mut();
    parent.with_context(|| format!("{pointer}: no object"))?.insert(member.to_owned(), value);
    Ok(())
}

fn at<'a>(tree: &'a mut Value, pointer: &str) -> anyhow::Result<&'a mut Value> {
    tree.pointer_mut(pointer).with_context(|| format!("envoy/envoy.yaml has no {pointer}"))
}

/// The member of a list of objects that has this `name`.
fn named<'a>(list: &'a mut Value, name: &str) -> anyhow::Result<&'a mut Value> {
    list.as_array_mut()
        .and_then(|list| list.iter_mut().find(|member| member["name"] == name))
        .with_context(|| format!("envoy/envoy.yaml has nothing named {name:?}"))
}

/// The path of the module inside Envoy's working directory.
pub(super) fn module_in(dir: &Path) -> PathBuf {
    dir.join("agent_meter_filter.wasm")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bootstrap(upstream: &str) -> Bootstrap {
        Bootstrap {
            node_id: "n1".to_owned(),
            listen: SocketAddr::from(([127, 0, 0, 1], 1)),
            admin: SocketAddr::from(([127, 0, 0, 1], 2)),
            upstream: upstream.parse().expect("a URL"),
            collector: SocketAddr::from(([127, 0, 0, 1], 4)).into(),
            wasm: Some(PathBuf::from("m.wasm")),
            plugin: json!({ "products": [] }),
            settings: vec![("/node/cluster".to_owned(), json!("c1"))],
        }
    }

    #[test]
    fn every_setting_of_the_harness_lands_in_the_template() {
        let text = bootstrap("http://tools.internal:3").render().expect("renders").to_string();
        for part in [
            r#""id":"n1""#,
            r#""cluster":"c1""#,
            r#""address":"127.0.0.1","port_value":1"#,
            r#""address":"127.0.0.1","port_value":2"#,
            r#""address":"tools.internal","port_value":3"#,
            r#""address":"127.0.0.1","port_value":4"#,
            r#""host_rewrite_literal":"tools.internal:3""#,
            r#""filename":"m.wasm""#,
            r#""value":"{\"products\":[]}""#,
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    #[test]
    fn without_a_module_the_filter_is_left_out() {
        let bare = Bootstrap { wasm: None, ..bootstrap("http://127.0.0.1:3") };
        assert!(!bare.render().expect("renders").to_string().contains("envoy.runtime"));
    }

    #[test]
    fn the_llm_has_a_route_of_its_own_before_all_others() {
        let mut routed = bootstrap("https://tools.internal:3");
        routed.route_llm(&"http://llm.internal:7".parse().expect("a URL")).expect("a route");
        let root = routed.render().expect("renders");
        let routes = root.pointer(&format!("{MANAGER}/route_config/virtual_hosts/0/routes"));
        let routes = routes.expect("routes");
        let route = json!({ "cluster": "llm", "prefix_rewrite": "/", "timeout": "0s",
            "host_rewrite_literal": "llm.internal:7" });
        assert_eq!(routes[0], json!({ "match": { "prefix": "/llm/" }, "route": route }));
        assert_eq!(routes[1]["route"]["cluster"], "upstream");
        let clusters = root.pointer(CLUSTERS).expect("clusters");
        assert_eq!(clusters[2]["name"], "llm");
        assert!(clusters[0]["transport_socket"].is_object());
        assert!(clusters[2]["transport_socket"].is_null());
        assert!(clusters[2].to_string().contains(r#""address":"llm.internal","port_value":7"#));
    }

    #[test]
    fn endpoints_are_read_from_urls() {
        for (text, host, port, tls, authority) in [
            ("http://localhost:3000", "localhost", 3000, false, "localhost:3000"),
            ("http://[::1]:3000/", "::1", 3000, false, "[::1]:3000"),
            ("https://mcp.example.com", "mcp.example.com", 443, true, "mcp.example.com"),
        ] {
            let expected = Endpoint {
                host: host.to_owned(),
                port,
                tls,
                authority: Some(authority.to_owned()),
            };
            assert_eq!(text.parse::<Endpoint>().expect(text), expected, "{text}");
        }
        for text in
            ["localhost:3000", "ftp://a:1", "http://a:1/mcp", "http://a:1?x", "http://u@a:1"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text} was taken");
        }
    }
}
