//! The services of a plugin that runs here: its log goes to `tracing`, its state to a store.

use std::sync::Arc;

use billhook_plugin_api::{
    PluginError,
    abi::services::{HostServices, check_state_size},
};

use billhook_model::text::visible;

/// Where plugins' state is kept.
pub(crate) trait StateStore: Send + Sync + 'static {
    /// The value under a key.
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, PluginError>;
    /// Keeps a value; durable on return.
    fn keep(&self, plugin: &str, key: &str, value: &str) -> Result<(), PluginError>;
    /// Deletes a value; durable on return.
    fn delete(&self, plugin: &str, key: &str) -> Result<(), PluginError>;
}

/// What one plugin is offered.
pub(crate) struct PluginServices {
    pub(crate) plugin: String,
    pub(crate) settings: String,
    pub(crate) folder: String,
    pub(crate) state: Arc<dyn StateStore>,
}

impl HostServices for PluginServices {
    fn plugin_id(&self) -> &str {
        &self.plugin
    }

    fn settings(&self) -> &str {
        &self.settings
    }

    fn package_folder(&self) -> &str {
        &self.folder
    }

    fn log(&self, level: u32, message: &str) {
        let (plugin, message) = (self.plugin.as_str(), visible(message));
        // `tracing` fixes the level at compile time, so each has a call of its own.
        match level {
            1 => tracing::error!(target: "billhook::plugin", plugin, "{message}"),
            2 => tracing::warn!(target: "billhook::plugin", plugin, "{message}"),
            3 => tracing::info!(target: "billhook::plugin", plugin, "{message}"),
            4 => tracing::debug!(target: "billhook::plugin", plugin, "{message}"),
            _ => tracing::trace!(target: "billhook::plugin", plugin, "{message}"),
        }
    }

    fn state_get(&self, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        self.state.get(&self.plugin, key)
    }

    fn state_keep(&self, key: &str, value: &str) -> Result<(), PluginError> {
        check_state_size(key, value)?;
        self.state.keep(&self.plugin, key, value)
    }

    fn state_delete(&self, key: &str) -> Result<(), PluginError> {
        self.state.delete(&self.plugin, key)
    }
}
