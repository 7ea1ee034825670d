//! How a call ends that doesn't end well.

use std::{fmt, time::Duration};

use billhook_plugin_api::{ErrorKind, Hook, PluginError};
use serde::{Serialize, Serializer, ser::SerializeStruct};

/// A refusal or a failure of a hook, with who refused what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookError(Box<Details>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    hook: Hook,
    plugin: Option<String>,
    asset: Option<String>,
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
}

impl HookError {
    fn of_host(hook: Hook, plugin: Option<&str>, kind: ErrorKind, message: String) -> Self {
        let plugin = plugin.map(str::to_owned);
        HookError(Box::new(Details { hook, plugin, asset: None, kind, message, retry_after: None }))
    }

    #[cold]
    pub(super) fn unknown_type(hook: Hook, asset_type: &str) -> Self {
        let message = format!("The given product specification contains a not supported asset type: {asset_type}");
        Self::of_host(hook, None, ErrorKind::Invalid, message)
    }

    #[cold]
    pub(super) fn not_installed(hook: Hook, id: &str) -> Self {
        Self::of_host(hook, Some(id), ErrorKind::NotFound, format!("there is no plugin {id:?}"))
    }

    #[cold]
    pub(super) fn unavailable(hook: Hook, plugin: &str, message: String) -> Self {
        Self::of_host(hook, Some(plugin), ErrorKind::Unavailable, message)
    }

    #[cold]
    pub(crate) fn invalid(hook: Hook, plugin: &str, message: String) -> Self {
        Self::of_host(hook, Some(plugin), ErrorKind::Invalid, message)
    }

    #[cold]
    pub(crate) fn bad_value(hook: Hook, plugin: &str, message: String) -> Self {
        Self::of_host(hook, Some(plugin), ErrorKind::BadValue, message)
    }

    #[cold]
    pub(crate) fn internal(hook: Hook, plugin: &str, message: String) -> Self {
        Self::of_host(hook, Some(plugin), ErrorKind::Internal, message)
    }

    #[cold]
    pub(super) fn of_plugin(hook: Hook, plugin: &str, error: PluginError) -> Self {
        let (kind, retry_after) = (error.kind(), error.retry_after());
        let message =
            if error.is_panic() { format!("the plugin {}", error.message()) } else { error.message().to_owned() };
        HookError(Box::new(Details { hook, plugin: Some(plugin.to_owned()), asset: None, kind, message, retry_after }))
    }

    #[cold]
    pub(crate) fn about(mut self, asset: &str) -> Self {
        self.0.asset = Some(asset.to_owned());
        self
    }

    /// The hook that was called.
    pub fn hook(&self) -> Hook {
        self.0.hook
    }

    /// The id of the plugin; none if no plugin has the asset's type.
    pub fn plugin(&self) -> Option<&str> {
        self.0.plugin.as_deref()
    }

    /// The id of the asset, if the hook is about one.
    pub fn asset(&self) -> Option<&str> {
        self.0.asset.as_deref()
    }

    /// What kind of refusal or failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence for whoever asked. From the plugin, and so not to be trusted: escape it where it is shown.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The HTTP status that stands for the kind.
    pub fn status(&self) -> u16 {
        self.0.kind.status()
    }

    /// When it makes sense to try again, where the plugin said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }
}

impl fmt::Display for HookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Details { hook, plugin, kind, message, .. } = &*self.0;
        match plugin {
            Some(plugin) => write!(f, "{plugin}: {hook}: {kind}: {message}"),
            None => write!(f, "{hook}: {kind}: {message}"),
        }
    }
}

impl std::error::Error for HookError {}

impl Serialize for HookError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("HookError", 7)?;
        object.serialize_field("kind", self.kind().name())?;
        object.serialize_field("status", &self.status())?;
        object.serialize_field("message", self.message())?;
        object.serialize_field("hook", self.hook().name())?;
        match self.plugin() {
            Some(plugin) => object.serialize_field("plugin", plugin)?,
            None => object.skip_field("plugin")?,
        }
        match self.asset() {
            Some(asset) => object.serialize_field("asset", asset)?,
            None => object.skip_field("asset")?,
        }
        match self.retry_after() {
            Some(delay) => object.serialize_field("retry_after_ms", &delay.as_millis())?,
            None => object.skip_field("retry_after_ms")?,
        }
        object.end()
    }
}
