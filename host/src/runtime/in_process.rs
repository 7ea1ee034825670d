//! Modules that are loaded into this process.

use std::{ffi::OsStr, mem::ManuallyDrop, path::Path, sync::Arc};

use billhook_plugin_api::{
    PluginError,
    abi::{
        PLUGIN_ENTRY,
        module::{LoadedModule, PluginInstance},
        record::Record,
        services::{HostServices, SharedServices},
    },
    call::{HookCall, HookReply},
};

use billhook_machine::disk;
use billhook_model::ModuleInfo;

/// Why a module can't be loaded into this process.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("it can't be opened: {0}")]
    Open(String),
    #[error("its file system is mounted noexec, so that no library can be loaded from it")]
    Noexec,
    #[error("it lacks the entry symbol {PLUGIN_ENTRY}")]
    NoEntry,
    #[error("{0}")]
    Entry(String),
    #[error("the loaded library says something else about itself than its file")]
    OtherRecord,
}

/// A library in this process, checked. It stays for the life of the process: closing a library that has thread-local
/// destructors or threads of its own ends in a crash.
#[derive(Clone, Copy)]
pub(crate) struct Library(LoadedModule);

impl Library {
    /// Opens a library and checks its entry.
    ///
    /// The constructors of the library run: whoever calls has checked its file, and tried it in another process. The path
    /// must never have had, and never get, another content.
    pub(crate) fn open(path: &Path, expected: &ModuleInfo) -> Result<Self, LoadError> {
        let library = open(path.as_os_str()).map_err(|error| match disk::is_noexec(path) {
            true => LoadError::Noexec,
            false => LoadError::Open(chain(&error)),
        })?;
        let library = ManuallyDrop::new(library);
        // SAFETY: only the address of the symbol is used; what it points to is checked below.
        let address = unsafe {
            let entry = library.get::<*const ()>(PLUGIN_ENTRY).map_err(|_| LoadError::NoEntry)?;
            entry.try_as_raw_ptr().ok_or(LoadError::NoEntry)?.cast::<()>().cast_const()
        };
        // SAFETY: the library is never closed. That the symbol is what the attribute makes was checked by the record in
        // the file, as far as anyone can check it without running code.
        let module = unsafe { LoadedModule::from_entry(address, crate::package::is_newer_than_host(expected)) };
        let module = module.map_err(|error| {
            if let Some(report) = error.report {
                tracing::debug!(path = %path.display(), "the interfaces differ: {report}");
            }
            LoadError::Entry(error.message)
        })?;
        let record = Record::parse(module.record()).map_err(|_| LoadError::OtherRecord)?;
        if record.api != expected.api || record.hooks != expected.hooks {
            return Err(LoadError::OtherRecord);
        }
        Ok(Library(module))
    }

    /// Makes an instance. Runs code of the plugin's; a panic is an error.
    pub(crate) fn construct(self, services: impl HostServices) -> Result<LoadedInstance, PluginError> {
        let id = services.plugin_id().to_owned();
        let instance = self.0.construct(SharedServices::new(Arc::new(services)))?;
        Ok(LoadedInstance { plugin: id, instance: Some(instance) })
    }
}

fn open(path: &OsStr) -> Result<libloading::Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    // Bound at once, so that a missing symbol shows here and not in a call; local, so that plugins don't see each other.
    // SAFETY: the caller vouches for the library's constructors.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }.map(Into::into)
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// An instance of a plugin in this process.
pub(crate) struct LoadedInstance {
    plugin: String,
    /// `None` only while it is dropped.
    instance: Option<PluginInstance>,
}

/// Why there are no hooks: the instance is being dropped, so nobody can have the plugin any more.
#[cold]
fn ended() -> PluginError {
    PluginError::unavailable("the plugin is being ended")
}

impl LoadedInstance {
    /// The plugin's id.
    pub(crate) fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Calls a hook.
    #[inline]
    pub(crate) fn call(&self, call: HookCall<'_>) -> Result<HookReply, PluginError> {
        match &self.instance {
            Some(instance) => instance.call(call),
            None => Err(ended()),
        }
    }

    /// Ends the instance. Runs code of the plugin's; a panic is an error.
    pub(crate) fn end(mut self) -> Result<(), PluginError> {
        self.instance.take().map_or(Ok(()), PluginInstance::end)
    }
}

impl Drop for LoadedInstance {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.instance.take().map(PluginInstance::end) {
            tracing::error!(plugin = self.plugin, "the plugin failed when its instance was dropped: {error}");
        }
    }
}
