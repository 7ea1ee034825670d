//! Which plugin an event goes to, and what became of it.
//!
//! The path of a call takes no lock, touches no file, and writes nothing that all callers share: it reads an immutable
//! table that is swapped as a whole when something was installed or changed.

mod error;
mod hooks;
mod slot;
mod table;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use billhook_plugin_api::{Hook, PluginError, abi::module::PluginInstance};

pub use error::HookError;
pub use hooks::{HookAnswer, HookObjects};
use slot::NotReady;
pub(crate) use slot::{Loader, Slot};
use table::Table;

use crate::registry::{DispatchRow, Registry, RegistryError};

/// Carries calls to plugins.
pub(crate) struct Dispatcher {
    registry: Arc<Registry>,
    table: ArcSwap<Table>,
    loader: Arc<Loader>,
    /// Held while the table is made anew; holds what was taken out of it and may still be in use.
    retired: Mutex<Vec<Arc<Slot>>>,
}

impl Dispatcher {
    pub(crate) fn new(registry: Arc<Registry>, loader: Loader) -> Self {
        Dispatcher {
            registry,
            table: ArcSwap::from_pointee(Table::default()),
            loader: Arc::new(loader),
            retired: Mutex::default(),
        }
    }

    /// Makes the table anew if the registry changed. Calls that are under way finish on what they began with.
    pub(crate) fn refresh(&self) -> Result<(), RegistryError> {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let old = self.table.load_full();
        if self.registry.generation()? != old.generation {
            let (generation, rows) = self.registry.dispatch_rows()?;
            let (new, gone) = old.with(generation, rows, &self.loader);
            self.table.store(Arc::new(new));
            retired.extend(gone);
        }
        drop(old);
        // An instance that nobody calls any more is dropped here, not on the thread of whoever called it last.
        retired.retain(|slot| Arc::strong_count(slot) > 1);
        Ok(())
    }

    /// Calls a hook of the plugin of an asset type.
    #[inline]
    fn by_type<T: Default>(
        &self,
        hook: Hook,
        asset_type: &str,
        call: impl FnOnce(&PluginInstance) -> Result<T, PluginError>,
    ) -> Result<T, HookError> {
        self.call_found(
            hook,
            |table| table.by_type(asset_type).ok_or_else(|| HookError::unknown_type(hook, asset_type)),
            call,
        )
    }

    /// Calls a hook of a plugin by the plugin's id, whatever the asset's type is.
    fn by_id<T: Default>(
        &self,
        hook: Hook,
        id: &str,
        call: impl FnOnce(&PluginInstance) -> Result<T, PluginError>,
    ) -> Result<T, HookError> {
        self.call_found(hook, |table| table.by_id(id).ok_or_else(|| HookError::not_installed(hook, id)), call)
    }

    #[inline]
    fn call_found<T: Default>(
        &self,
        hook: Hook,
        find: impl Fn(&Table) -> Result<&Arc<Slot>, HookError>,
        call: impl FnOnce(&PluginInstance) -> Result<T, PluginError>,
    ) -> Result<T, HookError> {
        let table = self.table.load();
        let slot = find(&table)?;
        match slot.plugin(hook) {
            Ok(Some(plugin)) => slot.run(hook, plugin, call),
            Ok(None) => Ok(T::default()),
            Err(NotReady::Refused(error)) => Err(error),
            Err(NotReady::NotLoaded(error)) => {
                // The plugin may have been changed or removed since the table was made: then the answer is of its new
                // state.
                let table = self.table_after_refresh();
                let now = find(&table)?;
                if Arc::ptr_eq(now, slot) {
                    return Err(error);
                }
                match now.plugin(hook) {
                    Ok(Some(plugin)) => now.run(hook, plugin, call),
                    Ok(None) => Ok(T::default()),
                    Err(NotReady::Refused(error) | NotReady::NotLoaded(error)) => Err(error),
                }
            }
        }
    }

    #[cold]
    fn table_after_refresh(&self) -> Arc<Table> {
        if let Err(error) = self.refresh() {
            tracing::warn!("the registry can't be read, plugins stay as they are: {error}");
        }
        self.table.load_full()
    }

    /// Whether the plugin of an asset type implements a hook; `None` where there is no such type.
    pub(crate) fn implements(&self, asset_type: &str, hook: Hook) -> Option<bool> {
        self.table.load().by_type(asset_type).map(|slot| slot.implements(hook))
    }

    /// Loads a plugin now, so that its first call need not.
    pub(crate) fn load(&self, id: &str, hook: Hook) -> Result<(), HookError> {
        let table = self.table.load_full();
        let slot = table.by_id(id).ok_or_else(|| HookError::not_installed(hook, id))?;
        match slot.load(hook) {
            Ok(_) => Ok(()),
            Err(NotReady::Refused(error) | NotReady::NotLoaded(error)) => Err(error),
        }
    }

    /// How many plugins have their library loaded and an instance made.
    pub(crate) fn loaded(&self) -> usize {
        self.table.load().slots().filter(|slot| slot.is_loaded()).count()
    }
}

/// The row of a slot: two slots with equal rows behave alike.
fn same(left: &DispatchRow, right: &DispatchRow) -> bool {
    left.digest == right.digest
        && left.name == right.name
        && left.status == right.status
        && left.needs_settings == right.needs_settings
        && left.settings_changed == right.settings_changed
}
