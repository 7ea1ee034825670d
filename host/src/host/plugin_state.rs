//! What plugins keep, as they see it.

use std::sync::Arc;

use billhook_machine::disk::DiskTrouble;
use billhook_model::text::with_causes;
use billhook_plugin_api::PluginError;
use billhook_store::{PluginState, StoreError};

use crate::runtime::StateStore;

/// Returns what plugins keep, as they see it.
pub(super) fn kept_state(state: &Arc<dyn PluginState>) -> Arc<dyn StateStore> {
    Arc::new(KeptState(Arc::clone(state)))
}

struct KeptState(Arc<dyn PluginState>);

impl StateStore for KeptState {
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        self.0.get(plugin, key).map_err(not_kept)
    }

    fn keep(&self, plugin: &str, key: &str, value: &str) -> Result<(), PluginError> {
        if self.0.keep(plugin, key, value).map_err(not_kept)? {
            Ok(())
        } else {
            Err(PluginError::unavailable("the plugin was removed, and its state with it"))
        }
    }

    fn delete(&self, plugin: &str, key: &str) -> Result<(), PluginError> {
        self.0.delete(plugin, key).map_err(not_kept)
    }
}

/// What a plugin hears where its state can't be read or kept. Of a disk in trouble it hears that it may ask later.
fn not_kept(error: StoreError) -> PluginError {
    match DiskTrouble::of(&error) {
        Some(trouble) => {
            tracing::error!("a plugin's state can't be read or kept: {}", with_causes(&error));
            PluginError::unavailable(trouble.to_string())
        }
        None => error.into(),
    }
}
