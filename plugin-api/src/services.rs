//! What the host offers a plugin: a log, the operator's settings, and a small durable state.

use std::{fmt, path::Path};

use serde::{Serialize, de::DeserializeOwned};

use crate::{Json, PluginError, abi::services::SharedServices, json_tree::parse_located};

/// What the host offers, handed to [`Plugin::new`](crate::Plugin::new). Cheap to clone; any thread may use it, also
/// threads of the plugin's own, for as long as they like.
#[derive(Clone)]
pub struct Services(pub(crate) SharedServices);

impl Services {
    /// The plugin's id: its name in lower case, with `-` for spaces.
    pub fn plugin_id(&self) -> &str {
        self.0.plugin_id()
    }

    /// The operator's settings as they are, `{}` where there are none. They don't change during an instance's life:
    /// new settings make a new instance.
    pub fn settings(&self) -> Json<'_> {
        Json::from_checked(self.0.settings())
    }

    /// The operator's settings as a type of the plugin's.
    ///
    /// Return the error from [`Plugin::new`](crate::Plugin::new): the plugin is then installed as *needs settings*, and
    /// the operator reads what is missing.
    ///
    /// ```
    /// # use billhook_plugin_api::testing;
    /// #[derive(serde::Deserialize)]
    /// struct Settings { api: String }
    ///
    /// let services = testing::services().with_settings(r#"{"api": "https://acme.example"}"#).build();
    /// let settings: Settings = services.parse_settings().unwrap();
    /// assert_eq!(settings.api, "https://acme.example");
    ///
    /// let error = testing::services().build().parse_settings::<Settings>().err().unwrap();
    /// assert_eq!(error.message(), "the settings don't fit: missing field `api` at line 1 column 2");
    /// ```
    pub fn parse_settings<T: DeserializeOwned>(&self) -> Result<T, PluginError> {
        parse_located(self.0.settings())
            .map_err(|error| PluginError::bad_value(format!("the settings don't fit: {error}")))
    }

    /// The folder of the unpacked package: there are the files that were packed with the plugin. Only read them: what is
    /// written there is not part of the package, and is gone after an upgrade.
    pub fn package_folder(&self) -> &Path {
        Path::new(self.0.package_folder())
    }

    /// The host's log, where lines carry the plugin's id.
    pub fn log(&self) -> Log<'_> {
        Log(&self.0)
    }

    /// What the host keeps for the plugin.
    pub fn state(&self) -> State<'_> {
        State(&self.0)
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Services").field("plugin_id", &self.plugin_id()).finish_non_exhaustive()
    }
}

/// Writes to the host's log. Never log secrets.
#[derive(Clone, Copy)]
pub struct Log<'a>(&'a SharedServices);

impl Log<'_> {
    /// Something failed that an operator has to look at.
    pub fn error(&self, message: impl AsRef<str>) {
        self.0.log(1, message.as_ref());
    }

    /// Something is not as it should be.
    pub fn warn(&self, message: impl AsRef<str>) {
        self.0.log(2, message.as_ref());
    }

    /// Something worth knowing happened.
    pub fn info(&self, message: impl AsRef<str>) {
        self.0.log(3, message.as_ref());
    }

    /// A detail for who looks for a fault.
    pub fn debug(&self, message: impl AsRef<str>) {
        self.0.log(4, message.as_ref());
    }

    /// The smallest details.
    pub fn trace(&self, message: impl AsRef<str>) {
        self.0.log(5, message.as_ref());
    }
}

/// Small values that the host keeps for the plugin, by key.
///
/// A change is durable when its function returns. It is not undone when the hook then refuses, it outlives upgrades, and
/// it is deleted with the plugin. Keys take up to 512 bytes and values up to 64 KiB of JSON: state is for what a plugin
/// has to remember, such as which customer was given which key, not for data sets.
#[derive(Clone, Copy)]
pub struct State<'a>(&'a SharedServices);

impl State<'_> {
    /// The value under `key`, if there is one.
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, PluginError> {
        let Some(bytes) = self.0.state_get(key)? else { return Ok(None) };
        serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|error| PluginError::internal(format!("the state under {key:?} has another shape: {error}")))
    }

    /// Keeps `value` under `key`, in place of an older one.
    pub fn keep<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), PluginError> {
        self.0.state_keep(key, Json::from_value(value)?.as_str())
    }

    /// Deletes the value under `key`, if there is one.
    pub fn delete(&self, key: &str) -> Result<(), PluginError> {
        self.0.state_delete(key)
    }
}
