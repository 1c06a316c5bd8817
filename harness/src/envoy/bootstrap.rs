//! Renders Envoy's bootstrap from the checked-in `envoy/envoy.yaml`: edits its tree, and has no
//! other template.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, bail, ensure};
use reqwest::Url;
use serde_json::{Value, json};

const TEMPLATE: &str = include_str!("../../../envoy/envoy.yaml");

const LISTENER: &str = "/static_resources/listeners/0";
pub(super) const CLUSTERS: &str = "/static_resources/clusters";
pub(super) const MANAGER: &str =
    "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config";

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
    /// The `host` header that the server gets, such as `mcp.example.com`. `None` passes on the
    /// client's, so that each URL that the server makes of it names Envoy.
    pub host_header: Option<String>,
}

impl Endpoint {
    /// The same server, which gets this `host` header. With TLS, Envoy also asks for the
    /// certificate of this host.
    pub fn with_host_header(self, header: &str) -> anyhow::Result<Self> {
        url_of_host(header)?;
        Ok(Self { host_header: Some(header.to_owned()), ..self })
    }

    /// Host and port as in a URL, without the port that its scheme implies.
    pub fn authority(&self) -> String {
        // URLs write IPv6 addresses in brackets, Envoy does not.
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        let implied = if self.tls { 443 } else { 80 };
        if self.port == implied { host } else { format!("{host}:{}", self.port) }
    }

    /// The name that the server's certificate has to have.
    fn certificate_name(&self) -> anyhow::Result<String> {
        let Some(header) = &self.host_header else { return Ok(self.host.clone()) };
        let url = url_of_host(header)?;
        Ok(without_brackets(url.host_str().unwrap_or_default()).to_owned())
    }
}

/// Reads a `host` header: a host, and a port if it is not the scheme's.
fn url_of_host(header: &str) -> anyhow::Result<Url> {
    let url = Url::parse(&format!("http://{header}/"));
    let url = url.with_context(|| {
        format!("expected a host such as example.com or a:81, found {header:?}")
    })?;
    let is_host_alone = url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
        && !header.contains(['/', '\\', '@'])
        && header.trim() == header;
    ensure!(is_host_alone, "expected a host, and a port or none, found {header:?}");
    Ok(url)
}

pub(super) fn without_brackets(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// As a URL, without the `host` header.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(addr: SocketAddr) -> Self {
        Self { host: addr.ip().to_string(), port: addr.port(), tls: false, host_header: None }
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
        Ok(Self { host: without_brackets(host).to_owned(), port, tls, host_header: None })
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
        if let Some(header) = &self.upstream.host_header {
            let route = "/route_config/virtual_hosts/0/routes/0/route";
            at(&mut root, &format!("{MANAGER}{route}"))?["host_rewrite_literal"] = json!(header);
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

pub(super) fn set_endpoint(cluster: &mut Value, endpoint: &Endpoint) -> anyhow::Result<()> {
    let address = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address";
    *at(cluster, address)? = socket(&endpoint.host, endpoint.port);
    if endpoint.tls {
        let name = endpoint.certificate_name()?;
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": name,
                "common_tls_context": { "validation_context": {
                    "trusted_ca": { "filename": trusted_authorities()? },
                    "match_typed_subject_alt_names": [
                        { "san_type": "DNS", "matcher": { "exact": name } },
                        { "san_type": "IP_ADDRESS", "matcher": { "exact": name } },
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

pub(super) fn at<'a>(tree: &'a mut Value, pointer: &str) -> anyhow::Result<&'a mut Value> {
    tree.pointer_mut(pointer).with_context(|| format!("envoy/envoy.yaml has no {pointer}"))
}

/// The member of a list of objects that has this `name`.
pub(super) fn named<'a>(list: &'a mut Value, name: &str) -> anyhow::Result<&'a mut Value> {
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
            r#""filename":"m.wasm""#,
            r#""value":"{\"products\":[]}""#,
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }

    /// The bootstrap for this upstream, which gets this `host` header.
    fn rendered(upstream: &str, header: Option<&str>) -> String {
        let mut bootstrap = bootstrap(upstream);
        if let Some(header) = header {
            bootstrap.upstream = bootstrap.upstream.with_host_header(header).expect(header);
        }
        bootstrap.render().expect("renders").to_string()
    }

    #[test]
    fn the_server_gets_the_clients_host_unless_it_is_given_one() {
        for upstream in ["http://tools.internal:3", "https://mcp.example.com"] {
            assert!(!rendered(upstream, None).contains("host_rewrite"), "{upstream}");
        }
        let text = rendered("http://tools.internal:3", Some("tools.example:81"));
        assert!(text.contains(r#""host_rewrite_literal":"tools.example:81""#), "{text}");
    }

    #[test]
    fn a_certificate_is_asked_for_by_the_host_that_the_server_gets() {
        for (upstream, header, name) in [
            ("https://mcp.example.com", None, "mcp.example.com"),
            ("https://10.0.0.5:8443", Some("mcp.example.com"), "mcp.example.com"),
            ("https://10.0.0.5:8443", Some("mcp.example.com:8443"), "mcp.example.com"),
            ("https://10.0.0.5", Some("[::1]:8443"), "::1"),
        ] {
            let text = rendered(upstream, header);
            assert!(text.contains(&format!(r#""sni":"{name}""#)), "{upstream}: {text}");
            assert!(text.contains(&format!(r#""exact":"{name}""#)), "{upstream}: {text}");
        }
    }

    #[test]
    fn what_is_no_host_is_no_host_header() {
        let endpoint: Endpoint = "http://a:1".parse().expect("a URL");
        for header in ["", "http://a", "a/b", "a?b", "a#b", "u@a", "a b", " a", "a:b", "a\\b"] {
            assert!(endpoint.clone().with_host_header(header).is_err(), "{header:?} was taken");
        }
    }

    #[test]
    fn without_a_module_the_filter_is_left_out() {
        let bare = Bootstrap { wasm: None, ..bootstrap("http://127.0.0.1:3") };
        assert!(!bare.render().expect("renders").to_string().contains("envoy.runtime"));
    }

    #[test]
    fn endpoints_are_read_from_urls() {
        for (text, host, port, tls, authority) in [
            ("http://localhost:3000", "localhost", 3000, false, "localhost:3000"),
            ("http://[::1]:3000/", "::1", 3000, false, "[::1]:3000"),
            ("http://a:80", "a", 80, false, "a"),
            ("http://a:443", "a", 443, false, "a:443"),
            ("https://mcp.example.com", "mcp.example.com", 443, true, "mcp.example.com"),
        ] {
            let found: Endpoint = text.parse().expect(text);
            let host = host.to_owned();
            assert_eq!(found, Endpoint { host, port, tls, host_header: None }, "{text}");
            assert_eq!(found.authority(), authority, "{text}");
        }
        for text in
            ["localhost:3000", "ftp://a:1", "http://a:1/mcp", "http://a:1?x", "http://u@a:1"]
        {
            assert!(text.parse::<Endpoint>().is_err(), "{text} was taken");
        }
    }
}
