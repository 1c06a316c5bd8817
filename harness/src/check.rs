//! `agent-meter check`: a plugin configuration as the filter reads it, a module as Envoy loads it.

use std::path::Path;

use agent_meter_core::config::product::Speaks;
use agent_meter_core::config::{Config, PathCase, Unmatched};
use anyhow::{Context, anyhow, bail};

use crate::envoy::{self, Bootstrap};
use crate::plugin;
use crate::stack::{ANY_PORT, WorkDir};
use crate::wasm::Module;

/// Lets the real filter in a real Envoy read a plugin configuration; opens no port.
///
/// Returns what the filter takes but an operator should know, one line each. The error is the filter's
/// own line where it refused.
pub async fn config(file: &Path, wasm: &Path) -> anyhow::Result<Vec<String>> {
    let plugin = plugin::read(file)?;
    let text = plugin.to_string();
    let program = envoy::find().await?;
    let mut dir = WorkDir::create()?;
    let bootstrap = Bootstrap {
        node_id: "agent-meter".to_owned(),
        listen: ANY_PORT,
        admin: ANY_PORT,
        upstream: ANY_PORT.into(),
        collector: ANY_PORT.into(),
        wasm: Some(wasm.to_owned()),
        plugin,
        settings: Vec::new(),
    };
    let valid = envoy::validate(&program, &bootstrap, dir.path()).await;
    dir.done = true;
    valid.with_context(|| file.display().to_string())?;
    let config = Config::from_bytes(text.as_bytes()).map_err(|refused| anyhow!("{refused}"))?;
    let warnings = config.warnings().into_iter().map(|warning| warning.to_string());
    Ok(warnings.chain(ways_around(&config)).collect())
}

/// How requests that reach a product's server may match no product, and pass unmetered.
fn ways_around(config: &Config) -> Vec<String> {
    let takes_all = config.products.iter().any(|product| {
        let matcher = &product.matcher;
        let is_any = matcher.host.is_empty() && matcher.headers.is_empty();
        is_any && matcher.path_prefix.as_deref() == Some("/")
    });
    if takes_all || config.unmatched == Unmatched::Reject {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (at, product) in config.products.iter().enumerate() {
        let matcher = &product.matcher;
        let mut note = |place: &str, what: &str| {
            let id = &product.id;
            found.push(format!("products[{at}].match.{place}: {what} passes {id:?} by, unmetered"));
        };
        if !matcher.host.is_empty() {
            note("host", "a request with another host");
        }
        if !matcher.headers.is_empty() {
            note("headers", "a request without these headers");
        }
        if matcher.path.is_some() && product.product_type.traits().speaks == Speaks::Api {
            note("path", "a request to a path below this one");
        }
        if matcher.case == PathCase::Sensitive {
            note("case", "a path in another case, if the server does not distinguish it,");
        }
    }
    if !found.is_empty() {
        found.push(
            "unmatched: `reject` refuses all that matches no product; `pass` is right only if routes keep it from the servers"
                .to_owned(),
        );
    }
    found
}

/// Checks that a binary is a module that Envoy can run as this filter.
///
/// The error has a line for each problem.
pub fn module(file: &Path) -> anyhow::Result<Module> {
    let name = file.display();
    let binary = std::fs::read(file).with_context(|| format!("cannot read {name}"))?;
    let module = Module::parse(&binary).with_context(|| name.to_string())?;
    match &module.problems()[..] {
        [] => Ok(module),
        problems => bail!("{name}: {}", problems.join(&format!("\n{name}: "))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn places(matcher: &Value, unmatched: &str, more: &[Value]) -> Vec<String> {
        let product = json!({ "id": "p", "type": "STANDARD_API", "match": matcher });
        let products = [&[product], more].concat();
        let config = json!({ "unmatched": unmatched, "products": products }).to_string();
        let config = Config::from_bytes(config.as_bytes()).expect("it is accepted");
        let place = |line: String| line.split(':').next().unwrap_or_default().to_owned();
        ways_around(&config).into_iter().map(place).collect()
    }

    #[test]
    fn what_passes_a_product_by_is_named_once_for_each_reason() {
        let host = json!({ "host": "a.example", "path_prefix": "/" });
        let headers = json!({ "headers": [{ "name": "x-plan" }], "path_prefix": "/p" });
        let all = json!({ "id": "all", "type": "MCP_SERVER", "match": { "path_prefix": "/" } });
        for (matcher, unmatched, more, expected) in [
            (&json!({ "path_prefix": "/p" }), "pass", &[][..], &[][..]),
            (&host, "pass", &[], &["products[0].match.host", "unmatched"]),
            (&headers, "pass", &[], &["products[0].match.headers", "unmatched"]),
            (&json!({ "path": "/p" }), "pass", &[], &["products[0].match.path", "unmatched"]),
            (
                &json!({ "path_prefix": "/p", "case": "sensitive" }),
                "pass",
                &[],
                &["products[0].match.case", "unmatched"],
            ),
            (&host, "reject", &[], &[]),
            (&host, "pass", &[all], &[]),
        ] {
            assert_eq!(places(matcher, unmatched, more), expected, "{matcher}");
        }
    }
}
