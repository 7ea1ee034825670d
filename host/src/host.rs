//! The host: joins packages, registry, runtime and dispatch.

mod access;
mod backend;
mod background;
mod deliveries;
mod error;
mod events;
mod home;
mod hooks;
mod install;
mod plugin_state;
mod provisioning;
mod tokens;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use billhook_machine::MachineClock;
use billhook_model::{Clock, Confinement, PluginDetails, PluginSummary, text::with_causes};
use billhook_plugin_api::{
    Hook,
    call::{HookObjects, HookReply},
};
use billhook_process::ChildProgram;
use billhook_store::{Retention, StoreError, Stores};
use billhook_store_sqlite::SqliteStores;

pub use error::HostError;
pub use events::{EventError, HandlerFilter, Step};
pub use install::{Downgrade, Install, Installed};

use crate::{
    accounting::{Accounting, UsageApi},
    delivery::Deliverer,
    dispatch::{Dispatcher, HookError, Loader, Phases, TICK, Target},
    events::{Caller, HandlerOptions},
    package::{self, CheckReport, Limits},
    provisioning::KnownAddons,
};
use background::Background;
use home::Home;
use plugin_state::kept_state;

/// How a host works; the defaults suit most.
#[derive(Clone)]
pub struct HostOptions {
    child_program: ChildProgram,
    trial_limit: Duration,
    limits: Limits,
    usage_api: Option<Arc<dyn UsageApi>>,
    refresh_patience: Duration,
    is_observed: bool,
    records_hooks: bool,
    group_may_write: bool,
    handlers: HandlerOptions,
    retention: Retention,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for HostOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostOptions")
            .field("child_program", &self.child_program)
            .field("trial_limit", &self.trial_limit)
            .field("limits", &self.limits)
            .field("has_usage_api", &self.usage_api.is_some())
            .finish_non_exhaustive()
    }
}

impl Default for HostOptions {
    fn default() -> Self {
        HostOptions {
            child_program: ChildProgram::default(),
            trial_limit: Duration::from_secs(10),
            limits: Limits::default(),
            usage_api: None,
            refresh_patience: Duration::from_secs(60),
            is_observed: false,
            records_hooks: false,
            group_may_write: false,
            handlers: HandlerOptions::default(),
            retention: Retention::default(),
            clock: Arc::new(MachineClock),
        }
    }
}

impl HostOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The program that packages are tried in, if it isn't this one: the path of a `billhook` command. See
    /// [`run_child_process`](crate::run_child_process).
    #[must_use]
    pub fn child_program(mut self, path: impl Into<PathBuf>) -> Self {
        self.child_program = ChildProgram::At(path.into());
        self
    }

    /// How long a package may take to be loaded, constructed, asked for its usage specifications and dropped when it is
    /// tried; 10 seconds unless set.
    #[must_use]
    pub fn trial_limit(mut self, limit: Duration) -> Self {
        self.trial_limit = limit;
        self
    }

    /// Where usage is accounted: an [`HttpUsageApi`](crate::HttpUsageApi), or a backend's own. Without one, usage is not
    /// pulled from plugins.
    #[must_use]
    pub fn usage_api(mut self, api: Arc<dyn UsageApi>) -> Self {
        self.usage_api = Some(api);
        self
    }

    /// How long a refresh waits for another one of the same contract; a minute unless set.
    #[must_use]
    pub fn refresh_patience(mut self, patience: Duration) -> Self {
        self.refresh_patience = patience;
        self
    }

    /// Whether calls are counted and timed, through the `metrics` facade and `tracing` spans; they aren't unless set, and then
    /// no clock is read for them.
    #[must_use]
    pub fn observe(mut self, observe: bool) -> Self {
        self.is_observed = observe;
        self
    }

    /// Whether calls of hooks are noted in the execution log; they aren't unless set. Calls of handlers and deliveries always
    /// are. Noting a call never waits for the disk; where there are too many, some are dropped and counted.
    #[must_use]
    pub fn record(mut self, record: bool) -> Self {
        self.records_hooks = record;
        self
    }

    /// How long, and how much of, the execution log is kept: 30 days and 1 GiB unless set.
    #[must_use]
    pub fn keep_executions(mut self, age: Duration, bytes: u64) -> Self {
        self.retention = Retention { age, bytes };
        self
    }

    /// The hosts that handlers may be called at: `host`, `host:port`, or `*.domain` for all below a domain. Without a list, all.
    #[must_use]
    pub fn allowed_hosts(mut self, hosts: impl IntoIterator<Item = String>) -> Self {
        self.handlers.allowed_hosts = Some(hosts.into_iter().collect());
        self
    }

    /// Whether the group of the home may write to it, if it is a group of this process's: as on a volume to which the platform gives
    /// its group that right again and again. It may not unless set. What is within the home stays its user's own all the same.
    #[must_use]
    pub fn group_writable(mut self, may_write: bool) -> Self {
        self.group_may_write = may_write;
        self
    }

    /// The clock that the host asks for the time; the machine's unless set. All hosts on one home have to agree on it.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// How much of a package is taken.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}

/// A plugin host on a home: a folder that holds packages and registry, and that several processes may share.
///
/// `Host` is `Send + Sync`: share one among all threads. Its functions block; calls from many threads run in parallel. A
/// hook runs on the thread that calls it.
pub struct Host {
    /// Notices what other processes changed, and ends instances that nobody calls any more.
    watch: Option<Background>,
    /// Notices calls that take too long.
    calls: Option<Background>,
    /// Brings the usage API up to date, once it was asked for.
    reconciler: Mutex<Option<Background>>,
    shared: Arc<Shared>,
    options: HostOptions,
}

/// What the host's own thread shares with it.
struct Shared {
    home: Home,
    stores: Stores,
    dispatcher: Arc<Dispatcher>,
    accounting: Accounting,
    known_addons: KnownAddons,
    /// Tells after listeners, once it was asked for.
    deliverer: Arc<Mutex<Option<Deliverer>>>,
}

impl Shared {
    fn refresh(&self) -> Result<(), StoreError> {
        self.dispatcher.refresh()
    }
}

/// How often the registry is looked at: less than a second, with room for a slow machine.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// How often it is looked whether the usage API has to be brought up to date.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(1);
/// How long the end of a host waits for a call of the usage API that is under way.
const LAST_WAIT: Duration = Duration::from_secs(5);

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("home", &self.shared.home.path()).finish_non_exhaustive()
    }
}

impl Host {
    /// Opens a home, and makes it if there is none. Loads no plugin: the first call of each does.
    ///
    /// What an install that was cut off left behind is cleared away. A thread notices within a second what other processes
    /// install and change. A home is a local folder that only its user can write to, never a network share.
    pub fn open(home: impl AsRef<Path>) -> Result<Self, HostError> {
        Self::open_with(home, HostOptions::default())
    }

    /// Opens a home with other options.
    pub fn open_with(home: impl AsRef<Path>, options: HostOptions) -> Result<Self, HostError> {
        let home = Home::open(home.as_ref(), options.group_may_write)?;
        let opened = billhook_store_sqlite::open(home.path(), &home.locks(), options.retention, &options.clock)?;
        let SqliteStores { stores, is_new } = opened;
        // A registry that was made just now knows of no package: if there are any, it took the place of a lost one.
        if !is_new && !home.is_read_only() {
            home.sweep(&*stores.plugins)?;
            billhook_process::tidy(&home.workers());
        }
        let clock = &options.clock;
        let deliverer: Arc<Mutex<Option<Deliverer>>> = Arc::default();
        let to_wake = Arc::downgrade(&deliverer);
        let phases = Phases::new(
            Caller::new(&options.handlers, options.child_program.clone(), Arc::clone(clock)),
            Arc::clone(&stores.ledger),
            Arc::clone(&stores.executions),
            Arc::clone(clock),
            options.records_hooks && !home.is_read_only(),
            Box::new(move || {
                if let Some(deliverer) = to_wake.upgrade()
                    && let Some(deliverer) = deliverer.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
                {
                    deliverer.wake();
                }
            }),
        );
        let loader = Loader {
            packages: home.packages(),
            plugins: Arc::clone(&stores.plugins),
            state: kept_state(&stores.state),
            libraries: Default::default(),
            child_program: options.child_program.clone(),
            worker_folders: home.workers(),
            start_limit: options.trial_limit,
            is_observed: options.is_observed,
        };
        let dispatcher = Arc::new(Dispatcher::new(Arc::clone(&stores.plugins), loader, Arc::new(phases)));
        let accounting = Accounting {
            book: Arc::clone(&stores.usage),
            api: options.usage_api.clone(),
            coordination: Arc::clone(&stores.coordination),
            patience: options.refresh_patience,
            is_ended: Default::default(),
        };
        let shared =
            Arc::new(Shared { home, stores, dispatcher, accounting, known_addons: Default::default(), deliverer });
        shared.refresh()?;
        let watched = Arc::clone(&shared);
        let watch = Background::start("billhook-watch", WATCH_INTERVAL, move || {
            if let Err(error) = watched.refresh() {
                tracing::warn!("the registry can't be read, plugins stay as they are: {}", with_causes(&error));
            }
        });
        let watched = Arc::clone(&shared);
        let calls = Background::start("billhook-overdue", TICK, move || watched.dispatcher.watch_calls());
        // One whose threads can't all be started ends those that run.
        let mut host = Host { watch: None, calls: None, reconciler: Mutex::default(), shared, options };
        host.watch = Some(watch.map_err(HostError::Thread)?);
        host.calls = Some(calls.map_err(HostError::Thread)?);
        if host.options.records_hooks && !host.is_read_only() {
            host.shared.dispatcher.phases().start_recorder().map_err(HostError::Thread)?;
        }
        Ok(host)
    }

    /// The home's folder.
    pub fn home(&self) -> &Path {
        self.shared.home.path()
    }

    /// Whether nothing in the home can be changed, because its disk is read-only, or it is another user's: it can be looked at.
    pub fn is_read_only(&self) -> bool {
        self.shared.home.is_read_only()
    }

    /// All installed plugins, ordered by id.
    pub fn list(&self) -> Result<Vec<PluginSummary>, HostError> {
        Ok(self.shared.stores.plugins.list()?)
    }

    /// Everything about a plugin.
    pub fn show(&self, id: &str) -> Result<PluginDetails, HostError> {
        self.shared.stores.plugins.details(id)?.ok_or_else(|| HostError::NotInstalled { id: id.to_owned() })
    }

    /// Checks a package without running its code: a zip, the folder of an unpacked one, or a `package.json` alone.
    pub fn check(path: impl AsRef<Path>, limits: &Limits) -> std::io::Result<CheckReport> {
        package::check(path.as_ref(), limits).map(|checked| CheckReport::from(&checked.examined))
    }

    /// Looks at once for what other processes changed, without waiting for the host's own thread to notice.
    pub fn refresh(&self) -> Result<(), HostError> {
        Ok(self.shared.refresh()?)
    }

    /// The generation of what this host knows of the registry: another one tells that something changed.
    pub fn generation(&self) -> i64 {
        self.shared.dispatcher.generation()
    }

    /// The plugin of an asset type, as far as that is known without looking into the registry.
    pub fn plugin_of_type(&self, asset_type: &str) -> Option<String> {
        self.shared.dispatcher.plugin_of_type(asset_type, Hook::GetUsageSpecs).map(|(id, _)| id)
    }

    /// The longest that a call of a plugin's hook may take: the deadlines of its before handlers and its own. In this process,
    /// nothing ends a call that takes longer.
    pub fn longest_call(&self, plugin: &str, hook: Hook) -> Option<Duration> {
        self.shared.dispatcher.longest_call(plugin, hook)
    }

    /// Returns the plugins of which this process goes on with an older version or older settings, because what is installed can't be
    /// loaded here; and why.
    pub fn stale_plugins(&self) -> Vec<(String, String)> {
        self.shared.dispatcher.stale()
    }

    /// How many plugins are loaded into this process.
    pub fn loaded(&self) -> usize {
        self.shared.dispatcher.loaded()
    }

    /// What the kernel of this machine lacks to confine workers with.
    pub fn lacking_confinements() -> Vec<Confinement> {
        billhook_process::lacking()
    }

    /// How many worker processes there are.
    pub fn workers(&self) -> usize {
        self.shared.dispatcher.workers()
    }

    /// Whether the plugin of an asset type implements a hook; `None` where no plugin has the type.
    pub fn implements(&self, asset_type: &str, hook: Hook) -> Option<bool> {
        self.shared.dispatcher.implements(asset_type, hook)
    }

    /// Whether a plugin implements a hook; `None` where there is no such plugin.
    pub fn implements_hook(&self, id: &str, hook: Hook) -> Option<bool> {
        self.shared.dispatcher.implements_hook(id, hook)
    }

    /// Calls any hook of the plugin of an asset type. Returns `None` where the plugin doesn't implement the hook.
    pub fn call_type(
        &self,
        asset_type: &str,
        hook: Hook,
        objects: HookObjects,
    ) -> Result<Option<HookReply>, HookError> {
        self.shared.dispatcher.call_with(Target::Type(asset_type), hook, objects)
    }

    /// Calls any hook of a plugin by the plugin's id. Returns `None` where the plugin doesn't implement the hook.
    pub fn call(&self, id: &str, hook: Hook, objects: HookObjects) -> Result<Option<HookReply>, HookError> {
        self.shared.dispatcher.call_with(Target::Plugin(id), hook, objects)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stop_deliveries(LAST_WAIT);
        for thread in [&mut self.watch, &mut self.calls].into_iter().flatten() {
            thread.stop(LAST_WAIT);
        }
        self.shared.accounting.is_ended.store(true, Ordering::Relaxed);
        if let Some(reconciler) = self.reconciler.get_mut().unwrap_or_else(PoisonError::into_inner) {
            reconciler.stop(LAST_WAIT);
        }
    }
}
