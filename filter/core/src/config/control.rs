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
    /// The path to which a `POST` pauses calls, and where a `GET` lists what is paused.
    pub pause_path: String,
    /// The path to which a `POST` resumes calls.
    pub resume_path: String,
}

/// The paths where the configuration names none.
const DRAIN_PATH: &str = "/drain";
const PAUSE_PATH: &str = "/pause";
const RESUME_PATH: &str = "/resume";

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
                only(value.as_object(), "", &["control"])?;
                ControlConfig::read(control).map(Self::Control)
            }
        }
    }
}

impl ControlConfig {
    // By hand: the derived readers would be 10 KB of the module.
    fn read(value: &Value) -> Result<Self, ConfigError> {
        let expected = |what: &str| error("control", &format!("expected {what}, found {value}"));
        let members = value.as_object().ok_or_else(|| expected("an object"))?;
        only(Some(members), "control.", &["drain_path", "pause_path", "resume_path"])?;
        let path = |name: &str, default: &str| {
            let place = format!("control.{name}");
            let path = match members.get(name) {
                None => default,
                Some(path) => path
                    .as_str()
                    .ok_or_else(|| error(&place, &format!("expected a string, found {path}")))?,
            };
            is_path(&place, path)?;
            Ok(path.to_owned())
        };
        let drain_path = path("drain_path", DRAIN_PATH)?;
        let pause_path = path("pause_path", PAUSE_PATH)?;
        let resume_path = path("resume_path", RESUME_PATH)?;
        if pause_path == resume_path || [&pause_path, &resume_path].contains(&&drain_path) {
            return Err(error("control", "expected three different paths"));
        }
        Ok(Self { drain_path, pause_path, resume_path })
    }
}

/// Fails if there is another member than these.
fn only(
    members: Option<&Map<String, Value>>,
    place: &str,
    known: &[&str],
) -> Result<(), ConfigError> {
    let mut names = members.into_iter().flat_map(Map::keys);
    match names.find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let known = known.join("`, `");
            let reason = format!("unknown field `{name}`, expected `{known}`");
            Err(error(&format!("{place}{name}"), &reason))
        }
    }
}

#[cfg(feature = "schema")]
impl schemars::JsonSchema for ControlConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Control".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let path = |default: &str| schemars::json_schema!({ "type": "string", "pattern": "^/", "default": default });
        let members = [
            ("drain_path", "The path to which a `POST` drains.", path(DRAIN_PATH)),
            (
                "pause_path",
                "The path to which a `POST` pauses calls, and where a `GET` lists what is paused.",
                path(PAUSE_PATH),
            ),
            ("resume_path", "The path to which a `POST` resumes calls.", path(RESUME_PATH)),
        ];
        let about = "A filter on a listener of its own, by which an operator controls the filters of the same name and `vm_id`.";
        crate::base::schema::object(about, &[], members)
    }
}
