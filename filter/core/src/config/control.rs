//! What Envoy gives to the module: the configuration of a filter that meters, or of one on a listener
//! of its own by which an operator controls it.

use serde_json::{Map, Value};

use crate::base::invalid::{ConfigError, error, is_path};
use crate::config::{Config, value_of};

/// The configuration of a filter that controls those of the same name and `vm_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// The path to which a `POST` drains.
    pub drain_path: String,
}

/// A configuration of either kind.
#[derive(Clone, Debug)]
pub enum PluginConfig {
    /// It meters.
    Meter(Box<Config>),
    /// It has one member, `control`.
    Control(ControlConfig),
}

impl PluginConfig {
    /// Reads JSON, or a serialised `google.protobuf.Struct`.
    ///
    /// # Errors
    ///
    /// If it is neither of the two; the error names the place.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        let value = value_of(bytes)?;
        match value.get("control") {
            None => Config::of_value(value).map(|config| Self::Meter(Box::new(config))),
            Some(control) => {
                only(value.as_object(), "", "control")?;
                ControlConfig::read(control).map(Self::Control)
            }
        }
    }
}

impl ControlConfig {
    // By hand: the derived readers would be 10 KB of the module, for one member.
    fn read(value: &Value) -> Result<Self, ConfigError> {
        let expected = |what: &str| error("control", &format!("expected {what}, found {value}"));
        let members = value.as_object().ok_or_else(|| expected("an object"))?;
        only(Some(members), "control.", "drain_path")?;
        let drain_path = match members.get("drain_path") {
            None => "/drain",
            Some(path) => path.as_str().ok_or_else(|| {
                error("control.drain_path", &format!("expected a string, found {path}"))
            })?,
        };
        is_path("control.drain_path", drain_path)?;
        Ok(Self { drain_path: drain_path.to_owned() })
    }
}

/// Fails if there is another member than this one.
fn only(members: Option<&Map<String, Value>>, place: &str, known: &str) -> Result<(), ConfigError> {
    let other = members.into_iter().flat_map(Map::keys).find(|name| *name != known);
    match other {
        None => Ok(()),
        Some(name) => {
            let reason = format!("unknown field `{name}`, expected `{known}`");
            Err(error(&format!("{place}{name}"), &reason))
        }
    }
}
