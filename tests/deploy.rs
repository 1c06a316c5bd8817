//! Tests the files that operators load: reads every YAML file, checks the plugin configurations,
//! and compares names and versions. It starts nothing but a collector, for its metrics; it does not
//! test whether Envoy and Kubernetes accept the files. `make rules` tests what Prometheus makes of
//! the rules.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use agent_meter::stack::ANY_PORT;
use agent_meter_collector::{Collector, Extras, Secret, Sinks, Webhook, Webhooks};
use agent_meter_core::config::Config;
use agent_meter_core::host::counter::{Counter, Gauge};
use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The images that this repository builds; their tag is the version of the workspace.
const OWN_IMAGES: [&str; 3] = ["agent-meter", "agent-meter-collector", "agent-meter-envoy"];
const ENVOY_IMAGE: &str = "envoyproxy/envoy";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files below `envoy` and `harness` whose names `fits` accepts.
fn files(fits: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join("envoy"), root().join("harness")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).with_context(|| dir.display().to_string())? {
            let path = entry?.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.file_name().and_then(|name| name.to_str()).is_some_and(&fits) {
                found.push(path);
            }
        }
    }
    ensure!(!found.is_empty(), "no file fits");
    Ok(found)
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// The documents in a YAML file.
fn documents(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = read(path)?;
    serde_yaml_ng::Deserializer::from_str(&text)
        .map(|document| {
            let mut document = serde_yaml_ng::Value::deserialize(document)?;
            document.apply_merge()?;
            Ok(serde_json::to_value(document)?)
        })
        .collect::<anyhow::Result<_>>()
        .with_context(|| path.display().to_string())
}

/// The one document of this kind in `envoy/istio/{file}`.
fn resource(file: &str, kind: &str) -> anyhow::Result<Value> {
    let documents = documents(&root().join("envoy/istio").join(file))?;
    let mut found = documents.into_iter().filter(|document| document["kind"] == kind);
    match (found.next(), found.next()) {
        (Some(resource), None) => Ok(resource),
        _ => bail!("{file}: expected one {kind}"),
    }
}

fn text<'a>(tree: &'a Value, pointer: &str) -> anyhow::Result<&'a str> {
    tree.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no text at {pointer}"))
}

#[test]
fn every_yaml_file_is_read() -> anyhow::Result<()> {
    for path in files(|name| name.ends_with(".yaml") || name.ends_with(".yml"))? {
        let documents = documents(&path)?;
        ensure!(documents.iter().all(Value::is_object), "{}: not all mappings", path.display());
        ensure!(!documents.is_empty(), "{}: nothing in it", path.display());
    }
    Ok(())
}

#[test]
fn the_filter_accepts_the_wasm_plugins_and_their_collector_exists() -> anyhow::Result<()> {
    let service = resource("collector.yaml", "Service")?;
    let port = &service["spec"]["ports"][0]["port"];
    let (name, namespace) =
        (text(&service, "/metadata/name")?, text(&service, "/metadata/namespace")?);
    let cluster = format!("outbound|{port}||{name}.{namespace}.svc.cluster.local");
    let callers = resource("collector.yaml", "AuthorizationPolicy")?;
    let callers = &callers["spec"]["rules"][0]["from"][0]["source"]["namespaces"];
    for file in ["wasmplugin-sidecar.yaml", "wasmplugin-gateway.yaml"] {
        let plugin = resource(file, "WasmPlugin")?;
        // JSON in a string, as Istio passes it.
        let config = Config::from_bytes(plugin["spec"]["pluginConfig"].to_string().as_bytes());
        let config = config.with_context(|| file.to_owned())?;
        assert_eq!(config.collector.cluster, cluster, "{file}");
        let namespace = &plugin["metadata"]["namespace"];
        let is_allowed = callers.as_array().is_some_and(|callers| callers.contains(namespace));
        assert!(is_allowed, "{file}: collector.yaml does not let {namespace} in");
    }
    Ok(())
}

#[test]
fn the_recovery_of_a_node_reaches_the_collector_and_its_files() -> anyhow::Result<()> {
    let service = resource("collector.yaml", "Service")?;
    let daemon = resource("recover-daemonset.yaml", "DaemonSet")?;
    let pod = &daemon["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let words = container["args"].as_array().context("no args")?;
    let option = |name: &str| {
        let values = words.iter().filter_map(Value::as_str);
        let mut values = values.filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        values.next().with_context(|| format!("no {name}"))
    };
    let (name, namespace) =
        (text(&service, "/metadata/name")?, text(&service, "/metadata/namespace")?);
    let port = &service["spec"]["ports"][0]["port"];
    let url = format!("http://{name}.{namespace}.svc.cluster.local:{port}");
    assert_eq!(option("--collector")?, url);
    let mounts = container["volumeMounts"].as_array().context("no mounts")?;
    let volumes = pod["volumes"].as_array().context("no volumes")?;
    for (file, may_write) in [
        (option("--follow")?, false),
        (option("--state")?, true),
        (option("--secret-file")?, false),
    ] {
        let is_in = |mount: &&Value| {
            let path = mount["mountPath"].as_str().unwrap_or("-");
            Path::new(file).starts_with(path)
        };
        let mount = mounts.iter().find(is_in).with_context(|| format!("{file} is not mounted"))?;
        assert_eq!(mount["readOnly"] != true, may_write, "{file}");
        let has_volume = volumes.iter().any(|volume| volume["name"] == mount["name"]);
        assert!(has_volume, "{file}: no volume {}", mount["name"]);
    }
    let account = text(&daemon, "/spec/template/spec/serviceAccountName")?;
    let principal =
        format!("cluster.local/ns/{}/sa/{account}", text(&daemon, "/metadata/namespace")?);
    let policy = resource("recover-daemonset.yaml", "AuthorizationPolicy")?;
    let rule = &policy["spec"]["rules"][0];
    assert_eq!(rule["from"][0]["source"]["principals"][0], principal);
    let own = resource("collector.yaml", "AuthorizationPolicy")?;
    assert_eq!(policy["spec"]["selector"], own["spec"]["selector"]);
    assert_eq!(rule["to"], own["spec"]["rules"][0]["to"]);
    Ok(())
}

#[test]
fn the_filter_accepts_what_the_compose_file_meters() -> anyhow::Result<()> {
    let documents = documents(&root().join("harness/docker-plugin.yaml"))?;
    Config::from_bytes(documents[0].to_string().as_bytes())?;
    Ok(())
}

/// The tags of `image` in a text.
fn tags<'a>(text: &'a str, image: &str) -> Vec<&'a str> {
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let named = text.match_indices(image).filter_map(|(at, _)| {
        let (before, after) = (text.get(..at)?, text.get(at + image.len()..)?.strip_prefix(':')?);
        let tag = after.split(|c| !is_in_name(c)).next()?.trim_end_matches('.');
        let begins_with_number =
            tag.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit());
        (!before.ends_with(is_in_name) && begins_with_number).then_some(tag)
    });
    named.collect()
}

#[test]
fn image_tags_are_the_versions_of_this_workspace_and_of_the_pinned_envoy() -> anyhow::Result<()> {
    let envoy = format!("v{}", agent_meter::envoy::VERSION);
    let mut seen = 0;
    for path in files(|name| {
        name.ends_with(".yaml") || name.ends_with(".md") || name.starts_with("Dockerfile")
    })? {
        let text = read(&path)?;
        let expected = OWN_IMAGES.iter().map(|image| (*image, VERSION));
        for (image, version) in expected.chain([(ENVOY_IMAGE, envoy.as_str())]) {
            for tag in tags(&text, image) {
                assert_eq!(tag, version, "{image} in {}", path.display());
                seen += 1;
            }
        }
    }
    // Two WasmPlugins, the collector, two in the compose file, Envoy's: with fewer, the search is
    // broken.
    assert!(seen >= 6, "only {seen} images found");
    Ok(())
}

#[test]
fn tags_are_found_where_an_image_is_named() {
    for (text, expected) in [
        ("image: registry.example/agent-meter:0.1.0\n", vec!["0.1.0"]),
        ("url: \"oci://r/agent-meter:0.2.0\"; agent-meter:0.3.0.", vec!["0.2.0", "0.3.0"]),
        ("my-agent-meter:1 agent-meter-x:1 agent-meter: text agent-meter:latest", vec![]),
    ] {
        assert_eq!(tags(text, "agent-meter"), expected, "{text}");
    }
}

#[test]
fn the_services_of_the_compose_file_can_be_built() -> anyhow::Result<()> {
    let compose = documents(&root().join("harness/docker-compose.yaml"))?.remove(0);
    let services = compose["services"].as_object().context("no services")?;
    for (name, service) in services {
        let build = &service["build"];
        let context = root().join("harness").join(text(build, "/context")?);
        let file = context.join(text(build, "/dockerfile")?);
        let steps = read(&file).with_context(|| format!("service {name}"))?;
        let stages: Vec<Vec<&str>> = steps
            .lines()
            .filter(|line| line.starts_with("FROM "))
            .map(|line| line.split_whitespace().skip(1).collect())
            .collect();
        if let Some(target) = build["target"].as_str() {
            let is_there = stages.iter().any(|stage| stage.last() == Some(&target));
            assert!(is_there, "service {name}: no stage {target} in {}", file.display());
        }
        for (other, place) in build["additional_contexts"].as_object().into_iter().flatten() {
            let service = place.as_str().and_then(|place| place.strip_prefix("service:"));
            let is_there = service.is_some_and(|service| services.contains_key(service));
            assert!(is_there, "service {name}: {place} is no service");
            let is_used = stages.iter().any(|stage| stage.first() == Some(&other.as_str()));
            assert!(is_used, "service {name}: nothing is built from {other}");
        }
        for other in service["depends_on"].as_array().into_iter().flatten() {
            let is_there = other.as_str().is_some_and(|other| services.contains_key(other));
            assert!(is_there, "service {name}: {other} is no service");
        }
    }
    Ok(())
}

/// The values of an option in the arguments of a command, as `--name=value` or `--name value`.
fn values<'a>(arguments: &'a Value, option: &str) -> Vec<&'a str> {
    let words: Vec<&str> =
        arguments.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let mut found: Vec<&str> =
        words.iter().filter_map(|word| word.strip_prefix(option)?.strip_prefix('=')).collect();
    let pairs = words.iter().zip(words.iter().skip(1));
    found.extend(pairs.filter(|(name, _)| **name == option).map(|(_, value)| *value));
    found
}

#[test]
fn the_collector_in_kubernetes_has_a_secret_and_knows_its_name() -> anyhow::Result<()> {
    let deployment = resource("collector.yaml", "Deployment")?;
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let file = values(&container["args"], "--secret-file");
    let (_, file) = file.first().and_then(|told| told.split_once('=')).context("no secret")?;
    let mounts = container["volumeMounts"].as_array().context("no volumes")?;
    let mount = mounts.iter().find(|mount| {
        mount["mountPath"]
            .as_str()
            .is_some_and(|path| Path::new(file).parent() == Some(Path::new(path)))
    });
    let mount = mount.context("nothing is mounted where the secret is read")?;
    let volumes = pod["volumes"].as_array().context("no volumes")?;
    let volume = volumes.iter().find(|volume| volume["name"] == mount["name"]);
    let secret = resource("collector.yaml", "Secret")?;
    let volume = volume.context("the secret's volume is none")?;
    assert_eq!(volume["secret"]["secretName"], secret["metadata"]["name"]);
    let key = Path::new(file).file_name().and_then(|name| name.to_str()).context("no file")?;
    let shipped = text(&secret["stringData"], &format!("/{key}"))?;
    // Whoever does not replace it gets no collector that everybody knows the secret of.
    agent_meter_collector::SharedSecret::unnamed(shipped).expect_err("too short");

    let hosts = values(&container["args"], "--allow-host");
    for file in ["wasmplugin-sidecar.yaml", "wasmplugin-gateway.yaml"] {
        let plugin = resource(file, "WasmPlugin")?;
        let authority = text(&plugin, "/spec/pluginConfig/collector/authority")?;
        let name = authority.split(':').next().unwrap_or_default();
        assert!(hosts.contains(&name), "{file}: the collector does not know {authority}");
    }
    let rule = resource("collector.yaml", "DestinationRule")?;
    assert_eq!(rule["spec"]["host"], json_text(hosts.first().copied()));
    assert_eq!(rule["spec"]["trafficPolicy"]["tls"]["mode"], "ISTIO_MUTUAL");
    let account = &pod["serviceAccountName"];
    let name = text(&rule["spec"]["trafficPolicy"]["tls"], "/subjectAltNames/0")?;
    assert!(name.ends_with(&format!("/sa/{}", account.as_str().unwrap_or_default())), "{name}");
    assert_eq!(resource("collector.yaml", "PeerAuthentication")?["spec"]["mtls"]["mode"], "STRICT");
    Ok(())
}

fn json_text(text: Option<&str>) -> Value {
    text.map_or(Value::Null, Value::from)
}

#[test]
fn the_collector_of_the_compose_file_is_reached_by_this_machine_alone() -> anyhow::Result<()> {
    let compose = documents(&root().join("harness/docker-compose.yaml"))?.remove(0);
    let collector = &compose["services"]["collector"];
    let command = &collector["command"];
    let insecure = command.as_array().is_some_and(|words| words.contains(&"--insecure".into()));
    assert!(insecure, "it listens where others reach it, and has no secret");
    let ports = collector["ports"].as_array().context("no ports")?;
    let is_local = |port: &Value| port.as_str().is_some_and(|port| port.starts_with("127.0.0.1:"));
    assert!(ports.iter().all(is_local), "{ports:?}");
    let image = read(&root().join("harness/Dockerfile.envoy"))?;
    for host in values(command, "--allow-host") {
        assert!(image.contains(&format!("http://{host}:8080")), "nobody calls it {host}");
    }
    Ok(())
}

#[test]
fn a_collector_behind_tls_is_checked_by_its_name() -> anyhow::Result<()> {
    let cluster = documents(&root().join("envoy/collector-cluster-tls.yaml"))?.remove(0);
    let envoy = documents(&root().join("envoy/envoy.yaml"))?.remove(0);
    let clusters = envoy["static_resources"]["clusters"].as_array().context("no clusters")?;
    assert!(clusters.iter().any(|own| own["name"] == cluster["name"]), "it replaces no cluster");
    let tls = &cluster["transport_socket"]["typed_config"];
    let name = &tls["sni"];
    let checked = &tls["common_tls_context"]["validation_context"];
    assert!(checked["trusted_ca"]["filename"].is_string(), "any authority's certificate is taken");
    assert_eq!(&checked["match_typed_subject_alt_names"][0]["matcher"]["exact"], name);
    let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address";
    let endpoint = cluster.pointer(endpoint).context("no endpoint")?;
    assert_eq!(&endpoint["address"], name);

    let front = documents(&root().join("envoy/collector-tls.yaml"))?.remove(0);
    let listener = &front["static_resources"]["listeners"][0];
    assert_eq!(listener["address"]["socket_address"]["port_value"], endpoint["port_value"]);
    let chain = &listener["filter_chains"][0];
    let tls = &chain["transport_socket"]["typed_config"];
    assert_eq!(tls["require_client_certificate"], true);
    assert!(tls["common_tls_context"]["validation_context"]["trusted_ca"]["filename"].is_string());
    let host = &chain["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0];
    assert!(host["domains"].as_array().is_some_and(|domains| domains.contains(name)));
    for route in host["routes"].as_array().context("no routes")? {
        assert_eq!(route["match"]["path"], "/v1/events", "reading passes");
    }

    let external = resource("collector-external.yaml", "DestinationRule")?;
    let tls = &external["spec"]["trafficPolicy"]["portLevelSettings"][0]["tls"];
    assert_eq!((&tls["sni"], &tls["subjectAltNames"][0]), (name, name));
    assert!(tls["caCertificates"].is_string());
    Ok(())
}

/// The names of metrics in a text of rules: what begins as ours do.
fn metric_names(text: &str) -> BTreeSet<&str> {
    let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.split(|c: char| !is_in_name(c)).filter(|word| word.starts_with("agent_meter_")).collect()
}

#[tokio::test]
async fn the_rules_for_prometheus_name_metrics_that_there_are() -> anyhow::Result<()> {
    let rules = documents(&root().join("envoy/prometheus-rules.yaml"))?.remove(0);
    let mut wanted = BTreeSet::new();
    let mut alerts = BTreeSet::new();
    for rule in rules["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|group| group["rules"].as_array().into_iter().flatten())
    {
        let alert = text(rule, "/alert")?;
        assert!(alerts.insert(alert.to_owned()), "{alert} is there twice");
        text(rule, "/annotations/summary")?;
        text(rule, "/annotations/action")?;
        let names = metric_names(text(rule, "/expr")?);
        assert!(!names.is_empty(), "{alert} watches nothing of ours");
        wanted.extend(names.into_iter().map(str::to_owned));
    }
    let hook = Webhook { name: "finance".to_owned(), url: "http://127.0.0.1:9/".parse()? };
    let webhooks = Webhooks::new(vec![hook], Secret::parse("a secret for webhooks")?)?;
    let folder = tempfile::tempdir()?;
    let (file, lines) = (folder.path().join("sinks.yaml"), folder.path().join("events.jsonl"));
    let sink = format!("sinks: {{archive: {{type: json_lines, file: '{}'}}}}", lines.display());
    fs::write(&file, sink)?;
    let sinks = Some(Sinks::read(&file)?);
    let extras = Extras { webhooks: Some(webhooks), sinks, ..Extras::default() };
    let collector = Collector::start_with(ANY_PORT, "sqlite::memory:", extras).await?;
    let url = format!("http://{}/metrics", collector.addr());
    let told = http_get(&url).await?;
    let mut known: BTreeSet<String> = told
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next())
        .map(str::to_owned)
        .collect();
    collector.stop().await;
    let of_filter = Counter::ALL.iter().map(|counter| counter.name());
    let of_filter = of_filter.chain(Gauge::ALL.iter().map(|gauge| gauge.name()));
    known.extend(of_filter.map(|name| format!("agent_meter_{name}")));
    let unknown: Vec<&String> = wanted.difference(&known).collect();
    assert!(unknown.is_empty(), "nobody has these metrics: {unknown:?}");
    // What the collector tells of its own state has an alert, or is for looking at.
    let looked_at = ["last_event_age_seconds", "open_sessions", "sink_lag_events"]
        .map(|name| format!("agent_meter_collector_{name}"));
    for name in told.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" gauge"))
    {
        let is_of_webhooks = name.contains("_webhook_");
        assert!(
            wanted.contains(name) || looked_at.iter().any(|other| other == name) || is_of_webhooks,
            "{name} has no alert"
        );
    }
    let tests = read(&root().join("envoy/prometheus-rules-test.yaml"))?;
    let untested: Vec<&String> =
        alerts.iter().filter(|alert| !tests.contains(alert.as_str())).collect();
    assert!(untested.is_empty(), "no unit test: {untested:?}");
    Ok(())
}

/// The body of a response to a GET.
async fn http_get(url: &str) -> anyhow::Result<String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (host, path) =
        url.strip_prefix("http://").and_then(|url| url.split_once('/')).context("a URL")?;
    let mut stream = tokio::net::TcpStream::connect(host).await?;
    let request = format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).context("no body")
}
