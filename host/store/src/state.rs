//! What plugins keep.

use crate::Result;

/// Values that plugins keep under keys, each plugin its own. Each function is one atomic operation, and durable on return.
pub trait PluginState: Send + Sync {
    /// Returns the value that a plugin keeps under a key, if it keeps one.
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>>;

    /// Keeps a value, in place of the one that was there. Returns whether the plugin is installed; if not, nothing is kept.
    fn keep(&self, plugin: &str, key: &str, value: &str) -> Result<bool>;

    /// Deletes a value, if there is one.
    fn delete(&self, plugin: &str, key: &str) -> Result<()>;
}
