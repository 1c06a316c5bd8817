//! What Envoy gives to the module: the configuration of a filter that meters, or of one on a listener
//! of its own by which an operator controls it.

use serde::Deserialize;

use crate::base::invalid::{ConfigError, is_path};
use crate::config::{Config, read, value_of};

/// The configuration of a filter that controls those of the same name and `vm_id`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ControlConfig {
    /// The path to which a `POST` drains.
    pub drain_path: String,
}

impl Default for ControlConfig {
    fn default() -> Self {
        Self { drain_path: "/drain".to_owned() }
    }
}

/// A configuration of either kind.
#[derive(Clone, Debug)]
pub enum PluginConfig {
    /// It meters.
    Meter(Box<Config>),
    /// It has one member, `control`.
    Control(ControlConfig),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Controlling {
    control: ControlConfig,
}

impl PluginConfig {
    /// Reads JSON, or a serialised `google.protobuf.Struct`.
    ///
    /// # Errors
    ///
    /// If it is neither of the two; the error names the place.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ConfigError> {
        let value = value_of(bytes)?;
        if value.get("control").is_none() {
            return Config::from_bytes(bytes).map(|config| Self::Meter(Box::new(config)));
        }
        let Controlling { control } = read(value)?;
        is_path("control.drain_path", &control.drain_path)?;
        Ok(Self::Control(control))
    }
}
