//! Tests the files that operators load: reads every YAML file, checks the plugin configurations,
//! and compares names and versions. It starts nothing; it does not test whether Envoy and
//! Kubernetes accept the files.

use std::fs;
use std::path::{Path, PathBuf};

use agent_meter_core::config::Config;
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
