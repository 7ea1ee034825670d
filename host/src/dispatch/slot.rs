//! One installed plugin as the dispatch sees it: its library is loaded and its instance made by the first call.

use std::{
    collections::HashMap,
    fmt,
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use billhook_plugin_api::{
    Hook, HookSet,
    call::{HookCall, HookReply},
};

use billhook_model::{Isolation, ModuleInfo, PluginStatus, RunPolicy, text::with_causes};
use billhook_process::ChildProgram;
use billhook_store::{Crashed, Plugins, RoutedPlugin, RoutedVersion};

use super::{HookError, load_failure::LoadFailure, observe::Observer};
use crate::{
    package::{Digest, Manifest},
    runtime::{InProcess, Instance, Library, PluginServices, StateStore, WorkerConfig, Workers, overdue},
};

/// After a load that failed, calls are answered with its error for this long before another is tried.
const RETRY: Duration = Duration::from_secs(1);

/// What a slot stands for: a version of a plugin, and what the operator said of the plugin. Two slots of equal specifications
/// behave alike.
#[derive(Debug, Clone)]
pub(crate) struct SlotSpec {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) status: PluginStatus,
    pub(crate) needs_settings: Option<String>,
    pub(crate) quarantined: Option<String>,
    pub(crate) policy: Result<RunPolicy, String>,
    pub(crate) settings_changed: i64,
    pub(crate) version: RoutedVersion,
}

impl SlotSpec {
    /// Returns one for each version that calls of a plugin go to, the one in use first.
    pub(super) fn of(plugin: &RoutedPlugin) -> impl Iterator<Item = SlotSpec> + '_ {
        plugin.versions.iter().map(|version| SlotSpec {
            id: plugin.id.clone(),
            name: plugin.name.clone(),
            status: plugin.status,
            needs_settings: plugin.needs_settings.clone(),
            quarantined: plugin.quarantined.clone(),
            policy: plugin.policy.clone(),
            settings_changed: plugin.settings_changed,
            version: version.clone(),
        })
    }
}

impl PartialEq for SlotSpec {
    fn eq(&self, other: &Self) -> bool {
        self.version.digest == other.version.digest
            && self.id == other.id
            && self.name == other.name
            && self.status == other.status
            && self.needs_settings == other.needs_settings
            && self.settings_changed == other.settings_changed
            && self.policy == other.policy
            && self.quarantined == other.quarantined
    }
}

/// Makes instances.
pub(crate) struct Loader {
    pub(crate) packages: PathBuf,
    /// Where settings are read when an instance is made, and quarantines are kept.
    pub(crate) plugins: Arc<dyn Plugins>,
    pub(crate) state: Arc<dyn StateStore>,
    /// Libraries by their paths. They stay loaded, so a second instance needs neither file nor digest. Each has a lock of
    /// its own, because opening one runs its constructors, and those of one must not hold up another.
    pub(crate) libraries: Mutex<HashMap<PathBuf, Arc<Mutex<Option<Library>>>>>,
    /// The program and the folders of workers, and how long one may take to start.
    pub(crate) child_program: ChildProgram,
    pub(crate) worker_folders: PathBuf,
    pub(crate) start_limit: Duration,
    /// Whether calls are counted and timed.
    pub(crate) is_observed: bool,
}

impl Loader {
    /// Makes a plugin ready with the settings of now: loads its library here, or prepares its workers.
    fn load(&self, spec: &SlotSpec, policy: &RunPolicy, number: u32) -> Result<Box<dyn Instance>, LoadFailure> {
        let RoutedVersion { digest, library_digest, module, .. } = &spec.version;
        let module = module.clone()?;
        let settings = match self.plugins.settings(&spec.id) {
            Ok(Some(settings)) => settings,
            Ok(None) => return Err("the plugin was removed".to_owned().into()),
            Err(error) => return Err(LoadFailure::of(&error, with_causes(&error))),
        };
        let folder = self.packages.join(digest).to_string_lossy().into_owned();
        let services = PluginServices { plugin: spec.id.clone(), settings, folder, state: Arc::clone(&self.state) };
        if policy.isolation == Isolation::Process {
            self.check_library(digest, library_digest, &module)?;
            let config = WorkerConfig {
                program: self.child_program.clone(),
                folders: Some(self.worker_folders.clone()),
                library: self.packages.join(digest).join(&module.path),
                module,
                services: Arc::new(services),
                runtime: policy.clone(),
                start_limit: self.start_limit,
            };
            let (plugins, crashed) = (Arc::clone(&self.plugins), spec.clone());
            let workers = Workers::new(config, Box::new(move |reason| quarantine(&*plugins, &crashed, reason)));
            return Ok(Box::new(workers));
        }
        let library = self.library(digest, library_digest, &module)?;
        let instance = library.construct(services).map_err(|error| error.message().to_owned())?;
        Ok(Box::new(InProcess { instance: Arc::new(instance), released: policy.released(), number }))
    }

    /// Refuses a library that isn't the one that was installed.
    fn check_library(&self, digest: &str, library_digest: &str, module: &ModuleInfo) -> Result<PathBuf, LoadFailure> {
        let path = self.packages.join(digest).join(&module.path);
        let found = File::open(&path).and_then(|mut file| Digest::of(&mut file)).map_err(|error| {
            let message = format!("its library can't be read ({error}); load its package again, which puts it back");
            LoadFailure::of(&error, message)
        })?;
        if found.to_string() == library_digest {
            return Ok(path);
        }
        Err("its library was changed on disk; load its package again, which puts it back".to_owned().into())
    }

    /// Opens a library, or returns the one that is open.
    pub(super) fn library(
        &self,
        digest: &str,
        library_digest: &str,
        module: &ModuleInfo,
    ) -> Result<Library, LoadFailure> {
        let path = self.packages.join(digest).join(&module.path);
        let entry = {
            let mut libraries = self.libraries.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(libraries.entry(path.clone()).or_default())
        };
        let mut opened = entry.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = *opened {
            return Ok(library);
        }
        self.check_library(digest, library_digest, module)?;
        let library = Library::open(&path, module).map_err(|error| error.to_string())?;
        *opened = Some(library);
        Ok(library)
    }
}

/// Puts a plugin into quarantine, as it was installed and set when it crashed, and tells why.
fn quarantine(plugins: &dyn Plugins, spec: &SlotSpec, reason: &str) {
    tracing::error!(plugin = spec.id, "{reason}");
    let crashed = Crashed { id: &spec.id, digest: &spec.version.digest, settings_changed: spec.settings_changed };
    if let Err(error) = plugins.quarantine(&crashed, reason) {
        tracing::error!(plugin = spec.id, "the quarantine can't be kept: {}", with_causes(&error));
    }
}

/// Why a call comes to nothing.
pub(super) enum NotReady {
    /// It is disabled, needs settings, or refused or failed.
    Refused(HookError),
    /// It was not asked: it can't be loaded or has no worker, perhaps because it isn't what it was any more.
    NotBegun(HookError),
}

/// How far loading is.
#[derive(Default)]
enum Loading {
    #[default]
    NotTried,
    /// A thread is at it.
    Running,
    Failed {
        at: Instant,
        failure: LoadFailure,
    },
}

/// One installed plugin.
pub(crate) struct Slot {
    spec: SlotSpec,
    /// The id of the plugin, to be shared.
    id: Arc<str>,
    /// The hooks that are implemented.
    hooks: HookSet,
    /// What tells it from all other slots of this process.
    pub(super) number: u32,
    /// How long a call of each hook may take, in ticks of the coarse clock.
    deadlines: [u32; Hook::ALL.len()],
    /// So many calls are overdue that no more are taken.
    is_stuck: AtomicBool,
    instance: OnceLock<Box<dyn Instance>>,
    manifest: OnceLock<Arc<Manifest>>,
    loading: Mutex<Loading>,
    loaded: Condvar,
    loader: Arc<Loader>,
    /// Boxed, because calls that aren't observed read nothing of it.
    observer: Box<Observer>,
}

impl Slot {
    /// A slot that loads nothing yet.
    pub(super) fn new(spec: SlotSpec, loader: &Arc<Loader>) -> Self {
        let implemented = |hook: &&Hook| spec.version.module.as_ref().is_ok_and(|module| module.implements(**hook));
        let hooks = Hook::ALL.iter().filter(implemented).copied().collect();
        static NUMBERS: AtomicU32 = AtomicU32::new(1);
        let of_defaults = RunPolicy::default();
        let policy = spec.policy.as_ref().unwrap_or(&of_defaults);
        let deadline = |hook: Hook| overdue::ticks(policy.deadline(hook));
        let mut deadlines = [0; Hook::ALL.len()];
        Hook::ALL.iter().for_each(|hook| deadlines[*hook as usize] = deadline(*hook));
        Slot {
            observer: Box::new(Observer::new(&spec.id)),
            id: spec.id.as_str().into(),
            spec,
            hooks,
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            deadlines,
            is_stuck: AtomicBool::new(false),
            instance: OnceLock::new(),
            manifest: OnceLock::new(),
            loading: Mutex::default(),
            loaded: Condvar::new(),
            loader: Arc::clone(loader),
        }
    }

    /// How long a call of a hook may take.
    pub(super) fn deadline(&self, hook: Hook) -> Duration {
        self.spec.policy.as_ref().map_or(Duration::ZERO, |runtime| runtime.deadline(hook))
    }

    /// A slot of the same library that is loaded at once, for new settings.
    pub(super) fn renewed(spec: SlotSpec, loader: &Arc<Loader>) -> Result<Self, LoadFailure> {
        let slot = Slot::new(spec, loader);
        let instance = loader.load(&slot.spec, slot.spec.policy.as_ref().map_err(Clone::clone)?, slot.number)?;
        // Nobody else has the slot yet.
        let _ = slot.instance.set(instance);
        Ok(slot)
    }

    pub(super) fn id(&self) -> &Arc<str> {
        &self.id
    }

    pub(super) fn spec(&self) -> &SlotSpec {
        &self.spec
    }

    /// Whether a specification differs from a loaded slot's in nothing but the settings and, in this process, the version: then the loaded one
    /// serves until the other is loaded.
    pub(super) fn serves_until(&self, spec: &SlotSpec) -> bool {
        let enabled = self.spec.status == PluginStatus::Enabled && spec.status == PluginStatus::Enabled;
        let is_same = self.spec.name == spec.name && self.spec.policy == spec.policy;
        // Another version in worker processes is begun by its first call, as any is.
        let is_one_version = self.spec.version.digest == spec.version.digest || self.is_in_this_process();
        enabled && self.is_loaded() && is_same && is_one_version
    }

    /// Whether its calls run in this process.
    pub(super) fn is_in_this_process(&self) -> bool {
        self.spec.policy.as_ref().is_ok_and(|runtime| runtime.isolation != Isolation::Process)
    }

    pub(super) fn is_loaded(&self) -> bool {
        self.instance.get().is_some()
    }

    /// How many calls have to be overdue at once for the plugin to be stuck.
    fn most_overdue(&self) -> u32 {
        self.spec.policy.as_ref().map_or(u32::MAX, |runtime| runtime.most_overdue)
    }

    /// How many worker processes it has.
    pub(super) fn workers(&self) -> usize {
        self.instance.get().map_or(0, |instance| instance.workers())
    }

    /// Ends workers that nobody called for a while.
    pub(super) fn end_idle(&self) {
        if let Some(instance) = self.instance.get() {
            instance.end_idle();
        }
    }

    /// Ends workers without a call, and calls in workers that go on for too long, some time after the plugin was changed or
    /// removed.
    pub(super) fn drain(&self, since: Duration) {
        if let Some(instance) = self.instance.get() {
            instance.drain(since);
        }
    }

    /// Notes how many calls are overdue: with too many the plugin takes no more.
    pub(super) fn note_overdue(&self, count: usize) {
        let is_stuck = count >= self.most_overdue() as usize;
        if self.is_stuck.swap(is_stuck, Ordering::Relaxed) != is_stuck {
            let plugin = &self.spec.id;
            if is_stuck {
                tracing::error!(plugin, "{count} calls are overdue: the plugin takes no more until one returns");
            } else {
                tracing::info!(plugin, "calls returned: the plugin takes calls again");
            }
        }
    }

    /// Its `package.json`, read from its package when it is first asked for.
    pub(super) fn manifest(&self, hook: Hook) -> Result<Arc<Manifest>, HookError> {
        if let Some(manifest) = self.manifest.get() {
            return Ok(Arc::clone(manifest));
        }
        let path = self.loader.packages.join(&self.spec.version.digest).join("package.json");
        let unreadable = |problem: &dyn fmt::Display| format!("its package.json can't be read: {problem}");
        let failed = |failure: LoadFailure| HookError::not_loaded(hook, &self.spec.id, failure);
        let text = std::fs::read(path).map_err(|error| failed(LoadFailure::of(&error, unreadable(&error))))?;
        let manifest = Manifest::parse(&text).map_err(|error| failed(unreadable(&error).into()))?;
        Ok(Arc::clone(self.manifest.get_or_init(|| Arc::new(manifest))))
    }

    pub(super) fn implements(&self, hook: Hook) -> bool {
        self.hooks.contains(hook)
    }

    /// Returns the instance, ready for a call of a hook; `None` if it doesn't implement the hook.
    #[inline]
    pub(super) fn instance(self: &Arc<Self>, hook: Hook) -> Result<Option<&dyn Instance>, NotReady> {
        if self.spec.status != PluginStatus::Enabled || self.is_stuck.load(Ordering::Relaxed) {
            if self.loader.is_observed {
                self.observer.refused(hook);
            }
            return Err(NotReady::Refused(self.refuse(hook)));
        }
        if !self.implements(hook) {
            return Ok(None);
        }
        match self.instance.get() {
            Some(instance) => Ok(Some(&**instance)),
            None => self.load(hook).map(Some),
        }
    }

    /// Calls a hook of the instance, and watches over the call.
    #[inline]
    pub(super) fn call(&self, instance: &dyn Instance, call: HookCall<'_>) -> Result<HookReply, HookError> {
        let hook = call.hook();
        let is_watched = instance.is_in_this_process();
        let watched = is_watched.then(|| overdue::enter(self.number, self.deadlines[hook as usize]));
        let returned =
            if self.loader.is_observed { self.observer.observed(instance, call) } else { instance.call(call) };
        drop(watched);
        match returned {
            Ok(reply) => Ok(reply),
            Err(failure) => Err(HookError::of_call(hook, &self.spec.id, failure)),
        }
    }

    /// Why a plugin takes no calls.
    #[cold]
    fn refuse(&self, hook: Hook) -> HookError {
        let id = &self.spec.id;
        let spec = &self.spec;
        let message = match spec.status {
            PluginStatus::NeedsSettings => {
                return HookError::needs_settings(hook, id, spec.needs_settings.as_deref().unwrap_or_default());
            }
            PluginStatus::Quarantined => spec.quarantined.clone().unwrap_or_else(|| "in quarantine".to_owned()),
            PluginStatus::Disabled => "the plugin is disabled".to_owned(),
            _ => format!("the plugin is stuck: {} of its calls or more are overdue", self.most_overdue()),
        };
        HookError::unavailable(hook, id, message)
    }

    /// Makes the plugin ready, unless another thread already did.
    ///
    /// That runs code of the plugin's, so it has a thread of its own: who calls waits no longer than the call may take.
    #[cold]
    fn load(self: &Arc<Self>, hook: Hook) -> Result<&dyn Instance, NotReady> {
        let id = &self.spec.id;
        let limit = self.spec.policy.as_ref().map_or(RETRY, |runtime| runtime.deadline(hook));
        let deadline = Instant::now() + limit;
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(instance) = self.instance.get() {
                return Ok(&**instance);
            }
            match &*loading {
                Loading::Failed { at, failure } if at.elapsed() < RETRY => {
                    return Err(NotReady::NotBegun(HookError::not_loaded(hook, id, failure.clone())));
                }
                Loading::Running => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let message = format!("the plugin is still being loaded after {} s", limit.as_secs_f64());
                        return Err(NotReady::Refused(HookError::unavailable(hook, id, message)));
                    }
                    loading = self.loaded.wait_timeout(loading, left).unwrap_or_else(PoisonError::into_inner).0;
                }
                Loading::NotTried | Loading::Failed { .. } => {
                    let slot = Arc::clone(self);
                    let run = move || slot.load_now();
                    let thread = thread::Builder::new().name("billhook-load".to_owned()).spawn(run);
                    match thread {
                        Ok(_) => *loading = Loading::Running,
                        // The next call tries again.
                        Err(error) => {
                            let message = format!("the plugin can't be loaded: no thread can be started: {error}");
                            return Err(NotReady::Refused(HookError::unavailable(hook, id, message)));
                        }
                    }
                }
            }
        }
    }

    /// Forgets that loading failed: what was missing is there.
    pub(super) fn try_again(&self) {
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*loading, Loading::Failed { .. }) {
            *loading = Loading::NotTried;
        }
    }

    fn load_now(&self) {
        let id = &self.spec.id;
        let load = || self.loader.load(&self.spec, self.spec.policy.as_ref().map_err(Clone::clone)?, self.number);
        // Whoever waits must not wait for ever because of a fault here.
        let loaded =
            catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| Err("the host panicked".to_owned().into()));
        let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        *loading = match loaded {
            Ok(instance) => {
                tracing::info!(plugin = id, "the plugin was loaded");
                self.instance.get_or_init(|| instance);
                Loading::NotTried
            }
            Err(problem) => {
                let message = format!("the plugin can't be loaded: {}", problem.message);
                tracing::warn!(plugin = id, "{message}");
                Loading::Failed { at: Instant::now(), failure: LoadFailure { message, ..problem } }
            }
        };
        drop(loading);
        self.loaded.notify_all();
    }
}
