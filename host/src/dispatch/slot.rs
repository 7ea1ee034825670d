//! One installed plugin as the dispatch sees it: its library is loaded and its instance made by the first call.

use std::{
    collections::HashMap,
    fs::File,
    path::PathBuf,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use billhook_plugin_api::{Hook, PluginError, abi::module::PluginInstance};

use super::HookError;
use crate::{
    package::{Digest, Manifest, ModuleInfo},
    registry::{DispatchRow, Status},
    runtime::{Instance, Library, PluginServices, StateStore},
};

/// After a load that failed, calls are answered with its error for this long before another is tried.
const RETRY: Duration = Duration::from_secs(1);

/// The operator's settings of a plugin by its id, read when an instance is made.
pub(crate) type Settings = Box<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// Makes instances.
pub(crate) struct Loader {
    pub(crate) packages: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) state: Arc<dyn StateStore>,
    /// Libraries by their paths. They stay loaded, so a second instance needs neither file nor digest. Each has a lock of
    /// its own, because opening one runs its constructors, and those of one must not hold up another.
    pub(crate) libraries: Mutex<HashMap<PathBuf, Arc<Mutex<Option<Library>>>>>,
}

impl Loader {
    /// Loads the library of a row and makes an instance with the settings of now.
    fn load(&self, row: &DispatchRow) -> Result<Instance, String> {
        let module: ModuleInfo =
            serde_json::from_str(&row.module).map_err(|error| format!("its record is unreadable: {error}"))?;
        let settings = (self.settings)(&row.id)?;
        let library = self.library(row, &module)?;
        let folder = self.packages.join(&row.digest).to_string_lossy().into_owned();
        let services = PluginServices { plugin: row.id.clone(), settings, folder, state: Arc::clone(&self.state) };
        library.construct(services).map_err(|error| error.message().to_owned())
    }

    fn library(&self, row: &DispatchRow, module: &ModuleInfo) -> Result<Library, String> {
        let path = self.packages.join(&row.digest).join(&module.path);
        let entry = {
            let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(libraries.entry(path.clone()).or_default())
        };
        let mut opened = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = *opened {
            return Ok(library);
        }
        let found = File::open(&path)
            .and_then(|mut file| Digest::of(&mut file))
            .map_err(|error| format!("its library can't be read: {error}"))?;
        if found.to_string() != row.library_digest {
            return Err("its library was changed on disk; remove the plugin and load it again".to_owned());
        }
        let library = Library::open(&path, module).map_err(|error| error.to_string())?;
        *opened = Some(library);
        Ok(library)
    }
}

/// Why a plugin takes no call.
pub(super) enum NotReady {
    /// It is disabled, or needs settings.
    Refused(HookError),
    /// It can't be loaded; perhaps because it isn't what it was any more.
    NotLoaded(HookError),
}

/// A load that failed, and when.
struct Failure {
    at: Instant,
    message: String,
}

/// One installed plugin.
pub(crate) struct Slot {
    row: DispatchRow,
    /// The bit of each hook that is implemented.
    hooks: u32,
    instance: OnceLock<Instance>,
    manifest: OnceLock<Arc<Manifest>>,
    loading: Mutex<Option<Failure>>,
    loader: Arc<Loader>,
}

fn bit(hook: Hook) -> u32 {
    1 << (hook as u32)
}

impl Slot {
    /// A slot that loads nothing yet.
    pub(super) fn new(row: DispatchRow, loader: &Arc<Loader>) -> Self {
        let module: Option<ModuleInfo> = serde_json::from_str(&row.module).ok();
        let implemented = |hook: &&Hook| module.as_ref().is_some_and(|module| module.implements(**hook));
        let hooks = Hook::ALL.iter().filter(implemented).map(|hook| bit(*hook)).sum();
        Slot {
            row,
            hooks,
            instance: OnceLock::new(),
            manifest: OnceLock::new(),
            loading: Mutex::default(),
            loader: Arc::clone(loader),
        }
    }

    /// A slot of the same library that is loaded at once, for new settings.
    pub(super) fn renewed(row: DispatchRow, loader: &Arc<Loader>) -> Result<Self, String> {
        let instance = loader.load(&row)?;
        let slot = Slot::new(row, loader);
        // Nobody else has the slot yet.
        let _ = slot.instance.set(instance);
        Ok(slot)
    }

    pub(super) fn row(&self) -> &DispatchRow {
        &self.row
    }

    /// Whether a row differs from a loaded slot's in nothing but the settings.
    pub(super) fn only_settings_differ(&self, row: &DispatchRow) -> bool {
        let enabled = self.row.status == Status::Enabled && row.status == Status::Enabled;
        enabled && self.is_loaded() && self.row.digest == row.digest && self.row.name == row.name
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.instance.get().is_some()
    }

    /// Its `package.json`, read from its package when it is first asked for.
    pub(super) fn manifest(&self, hook: Hook) -> Result<Arc<Manifest>, HookError> {
        if let Some(manifest) = self.manifest.get() {
            return Ok(Arc::clone(manifest));
        }
        let path = self.loader.packages.join(&self.row.digest).join("package.json");
        let failed = |problem: String| {
            HookError::internal(hook, &self.row.id, format!("its package.json can't be read: {problem}"))
        };
        let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
        let manifest = Manifest::parse(&text).map_err(|error| failed(error.to_string()))?;
        Ok(Arc::clone(self.manifest.get_or_init(|| Arc::new(manifest))))
    }

    pub(super) fn implements(&self, hook: Hook) -> bool {
        self.hooks & bit(hook) != 0
    }

    /// The plugin, ready for a call of a hook; `None` if it doesn't implement the hook.
    #[inline]
    pub(super) fn plugin(&self, hook: Hook) -> Result<Option<&PluginInstance>, NotReady> {
        if self.row.status != Status::Enabled {
            return Err(NotReady::Refused(self.refuse(hook)));
        }
        if !self.implements(hook) {
            return Ok(None);
        }
        match self.instance.get() {
            Some(instance) => Ok(instance.hooks()),
            None => self.load(hook).map(Instance::hooks),
        }
    }

    /// Runs a call of a hook.
    #[inline]
    pub(super) fn run<T>(
        &self,
        hook: Hook,
        plugin: &PluginInstance,
        call: impl FnOnce(&PluginInstance) -> Result<T, PluginError>,
    ) -> Result<T, HookError> {
        match call(plugin) {
            Ok(answer) => Ok(answer),
            Err(error) => Err(HookError::of_plugin(hook, &self.row.id, error)),
        }
    }

    /// Why a plugin that isn't enabled takes no calls.
    #[cold]
    fn refuse(&self, hook: Hook) -> HookError {
        let id = &self.row.id;
        let message = match (&self.row.needs_settings, self.row.status) {
            (Some(reason), Status::NeedsSettings) => format!("the plugin needs settings: {reason}"),
            _ => "the plugin is disabled".to_owned(),
        };
        HookError::unavailable(hook, id, message)
    }

    /// Loads the library and makes the instance, unless another thread already did.
    #[cold]
    pub(super) fn load(&self, hook: Hook) -> Result<&Instance, NotReady> {
        let mut failure = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(instance) = self.instance.get() {
            return Ok(instance);
        }
        let id = &self.row.id;
        if let Some(failure) = failure.as_ref().filter(|failure| failure.at.elapsed() < RETRY) {
            return Err(NotReady::NotLoaded(HookError::internal(hook, id, failure.message.clone())));
        }
        match self.loader.load(&self.row) {
            Ok(instance) => {
                *failure = None;
                tracing::info!(plugin = id, "the plugin was loaded");
                Ok(self.instance.get_or_init(|| instance))
            }
            Err(problem) => {
                let message = format!("the plugin can't be loaded: {problem}");
                tracing::warn!(plugin = id, "{message}");
                *failure = Some(Failure { at: Instant::now(), message: message.clone() });
                Err(NotReady::NotLoaded(HookError::internal(hook, id, message)))
            }
        }
    }
}
