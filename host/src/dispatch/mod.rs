//! Which plugin an event goes to, and what became of it.
//!
//! The path of a call takes no lock, touches no file, and writes nothing that all callers share: it reads an immutable
//! table that is swapped as a whole when something was installed or changed.

mod answered;
mod error;
mod forbidden;
mod load_failure;
mod observe;
mod phases;
mod pipeline;
mod slot;
mod table;

use std::{
    collections::BTreeMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use billhook_plugin_api::Hook;

pub(crate) use crate::runtime::overdue::TICK;
pub use error::HookError;
pub use forbidden::Forbidden;
pub(crate) use phases::{Phases, merged_data};
pub(crate) use pipeline::{Returned, Target};
use slot::SlotSpec;
pub(crate) use slot::{Loader, Slot};
use table::{Route, Table};

use billhook_model::{ExecutionStatus, Isolation, PluginStatus, text::with_causes};
use billhook_store::{NewVersion, Plugins, StoreError};

use crate::{
    events::Listeners,
    package::Manifest,
    runtime::{is_outage, overdue},
};

/// Carries calls to plugins.
///
/// No lock of its is held while a plugin's code runs: making an instance for new settings, and ending one that nobody calls
/// any more, each have a thread of their own, so that a plugin that hangs there holds up nothing else.
pub(crate) struct Dispatcher {
    plugins: Arc<dyn Plugins>,
    table: Arc<Apart>,
    loader: Arc<Loader>,
    phases: Arc<Phases>,
    /// Plugins of which an older instance goes on, and why.
    stale: Arc<Mutex<BTreeMap<String, String>>>,
    /// What no thread could be started for that makes an instance.
    unrenewed: Mutex<Vec<SlotSpec>>,
    /// As the phases have it: here it is at hand.
    records_hooks: bool,
    /// Held while the table is made anew; holds what was taken out of it and may still be in use, and since when.
    retired: Arc<Mutex<Retired>>,
}

/// Slots that are in no table any more, and since when.
type Retired = Vec<(Instant, Arc<Slot>)>;

impl Dispatcher {
    pub(crate) fn new(plugins: Arc<dyn Plugins>, loader: Loader, phases: Arc<Phases>) -> Self {
        let records_hooks = phases.records_hooks;
        let (table, loader) = (Arc::default(), Arc::new(loader));
        Dispatcher {
            plugins,
            table,
            loader,
            phases,
            records_hooks,
            stale: Arc::default(),
            unrenewed: Mutex::default(),
            retired: Arc::default(),
        }
    }

    /// Makes the table anew if the registry changed. Calls that are under way finish on what they began with.
    pub(crate) fn refresh(&self) -> Result<(), StoreError> {
        self.renew().map(drop)
    }

    /// Makes the table anew, and waits for plugins that got new settings, at most for a time.
    pub(crate) fn refresh_and_wait(&self, limit: Duration) -> Result<(), StoreError> {
        wait(self.renew()?, limit);
        Ok(())
    }

    /// Makes the table anew; the threads make instances for new settings.
    fn renew(&self) -> Result<Vec<JoinHandle<()>>, StoreError> {
        let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        let mut to_renew = Vec::new();
        if self.plugins.generation()? != self.table.load().generation {
            let changed = self.table.load().with(self.plugins.routes()?, &self.loader);
            self.table.store(Arc::new(changed.table));
            retired.extend(changed.gone.into_iter().map(|slot| (Instant::now(), slot)));
            to_renew = changed.to_renew;
        }
        let (unused, used) = retired.drain(..).partition(|(_, slot)| Arc::strong_count(slot) == 1);
        *retired = used;
        for (since, slot) in retired.iter() {
            slot.drain(since.elapsed());
        }
        // What can't be ended now is tried again at the next look.
        let (_, left) = end(unused);
        retired.extend(left);
        drop(retired);
        if self.loader.is_observed {
            observe::stale(self.stale().len());
        }
        for slot in self.table.load().slots() {
            slot.end_idle();
            if self.loader.is_observed && slot.is_loaded() {
                observe::workers(slot.id(), slot.workers());
            }
        }
        to_renew.append(&mut self.unrenewed.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(to_renew.into_iter().filter_map(|spec| self.renew_settings(spec)).collect())
    }

    /// Opens the library of a version that is to be installed, where the plugin is loaded into this process: one that can't be
    /// opened here must not take the place of one that works.
    pub(crate) fn preload(&self, version: &NewVersion) -> Result<(), String> {
        let table = self.table.load();
        let slot = table.by_id(&version.id).map(Route::in_use);
        let is_used = slot.is_some_and(|slot| slot.is_loaded() && slot.is_in_this_process());
        if !is_used || version.policy.isolation == Isolation::Process {
            return Ok(());
        }
        let library = self.loader.library(&version.digest, &version.library_digest, &version.module);
        library.map(drop).map_err(|failure| failure.message)
    }

    /// Loads a plugin again at its next call, if loading it failed.
    pub(crate) fn try_again(&self, id: &str) {
        if let Some(route) = self.table.load().by_id(id) {
            route.in_use().try_again();
        }
    }

    /// Returns the plugins of which this process goes on with an older version or with older settings, and why.
    pub(crate) fn stale(&self) -> Vec<(String, String)> {
        let stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        stale.iter().map(|(id, problem)| (id.clone(), problem.clone())).collect()
    }

    /// Makes an instance of another version or with new settings, on a thread of its own; the old one serves until it is there.
    fn renew_settings(&self, spec: SlotSpec) -> Option<JoinHandle<()>> {
        let (table, loader, retired) = (Arc::clone(&self.table), Arc::clone(&self.loader), Arc::clone(&self.retired));
        let all_stale = Arc::clone(&self.stale);
        let its_spec = spec.clone();
        let renew = move || match Slot::renewed(its_spec.clone(), &loader) {
            Ok(slot) => {
                // Held until the lock is given back: without a place in the table it is dropped here, and that runs code of
                // the plugin's.
                let slot = Arc::new(slot);
                all_stale.lock().unwrap_or_else(PoisonError::into_inner).remove(&its_spec.id);
                let mut retired = retired.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(changed) = table.load().renewed(Arc::clone(&slot)) {
                    table.store(Arc::new(changed.table));
                    retired.extend(changed.gone.into_iter().map(|slot| (Instant::now(), slot)));
                }
            }
            Err(problem) => {
                tracing::error!(
                    plugin = its_spec.id,
                    "what is installed can't be loaded here, the older one stays: {}",
                    problem.message
                );
                all_stale.lock().unwrap_or_else(PoisonError::into_inner).insert(its_spec.id.clone(), problem.message);
            }
        };
        match thread::Builder::new().name("billhook-settings".to_owned()).spawn(renew) {
            Ok(thread) => Some(thread),
            // The next look tries again.
            Err(error) => {
                let problem = format!("no thread can be started: {error}");
                tracing::error!(plugin = spec.id, "what is installed can't be loaded here yet: {problem}");
                self.stale.lock().unwrap_or_else(PoisonError::into_inner).insert(spec.id.clone(), problem);
                self.unrenewed.lock().unwrap_or_else(PoisonError::into_inner).push(spec);
                None
            }
        }
    }

    /// The generation of the registry that the table was made from.
    pub(crate) fn generation(&self) -> i64 {
        self.table.load().generation
    }

    /// Who listens to which event.
    pub(crate) fn listeners(&self) -> Arc<Listeners> {
        Arc::clone(&self.table.load().listeners)
    }

    pub(crate) fn phases(&self) -> &Arc<Phases> {
        &self.phases
    }

    /// Whether a plugin takes events now; `None` if it never will.
    pub(crate) fn takes_events(&self, id: &str) -> Option<bool> {
        let table = self.table.load();
        let slot = table.by_id(id).map(Route::in_use).filter(|slot| slot.implements(Hook::OnEvent))?;
        Some(slot.spec().status == PluginStatus::Enabled)
    }

    /// The id and the isolation-independent hooks of the plugin of an asset type, for explanations.
    pub(crate) fn plugin_of_type(&self, asset_type: &str, hook: Hook) -> Option<(String, bool)> {
        let table = self.table.load();
        table.by_type(asset_type).map(Route::in_use).map(|slot| (slot.spec().id.clone(), slot.implements(hook)))
    }

    #[cold]
    fn table_after_refresh(&self) -> Arc<Table> {
        if let Err(error) = self.refresh() {
            tracing::warn!("the registry can't be read, plugins stay as they are: {}", with_causes(&error));
        }
        self.table.load_full()
    }

    /// The `package.json` of the plugin of an asset type.
    pub(crate) fn manifest_of(&self, hook: Hook, asset_type: &str) -> Result<Arc<Manifest>, HookError> {
        let find = |table: &Table| {
            let slot = table.by_type(asset_type).map(|route| Arc::clone(route.in_use()));
            slot.ok_or_else(|| HookError::unknown_type(hook, asset_type))
        };
        let slot = match find(&self.table.load()) {
            Ok(slot) => slot,
            Err(_) => find(&self.table_after_refresh())?,
        };
        slot.manifest(hook).or_else(|error| {
            // As for a call: it may have been changed or removed since the table was made.
            let now = find(&self.table_after_refresh())?;
            if Arc::ptr_eq(&now, &slot) { Err(error) } else { now.manifest(hook) }
        })
    }

    /// The id of the plugin of an asset type.
    pub(crate) fn plugin_of(&self, hook: Hook, asset_type: &str) -> Result<String, HookError> {
        let id = |table: &Table| table.by_type(asset_type).map(|route| route.in_use().spec().id.clone());
        id(&self.table.load())
            .or_else(|| id(&self.table_after_refresh()))
            .ok_or_else(|| HookError::unknown_type(hook, asset_type))
    }

    /// Whether the plugin of an asset type implements a hook; `None` where there is no such type.
    pub(crate) fn implements(&self, asset_type: &str, hook: Hook) -> Option<bool> {
        self.table.load().by_type(asset_type).map(|route| route.in_use().implements(hook))
    }

    /// Whether a plugin implements a hook; `None` where there is no such plugin.
    pub(crate) fn implements_hook(&self, id: &str, hook: Hook) -> Option<bool> {
        self.table.load().by_id(id).map(|route| route.in_use().implements(hook))
    }

    /// The deadlines of a hook's before handlers and of the plugin itself, one after the other; `None` where there is no such plugin.
    pub(crate) fn longest_call(&self, id: &str, hook: Hook) -> Option<Duration> {
        let table = self.table.load();
        let own = table.by_id(id)?.in_use().deadline(hook);
        Some(table.listeners.chain(hook.name()).before.iter().map(|handler| handler.deadline()).sum::<Duration>() + own)
    }

    /// Whether the code of a plugin is run by this process, and not by a worker.
    pub(crate) fn runs_in_this_process(&self, id: &str) -> bool {
        self.table.load().by_id(id).is_some_and(|route| route.in_use().is_in_this_process())
    }

    /// Notices calls that take too long in this process: to be called every [`overdue::TICK`].
    pub(crate) fn watch_calls(&self) {
        let overdue = overdue::look();
        for slot in self.table.load().slots() {
            slot.note_overdue(overdue.iter().filter(|number| **number == slot.number).count());
        }
    }

    /// How many worker processes there are.
    pub(crate) fn workers(&self) -> usize {
        self.table.load().slots().map(|slot| slot.workers()).sum()
    }

    /// How many plugins have their library loaded and an instance made.
    pub(crate) fn loaded(&self) -> usize {
        self.table.load().slots().filter(|slot| slot.is_loaded()).count()
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        let mut slots = std::mem::take(&mut *self.retired.lock().unwrap_or_else(PoisonError::into_inner));
        slots.extend(self.table.load().slots().map(|slot| (Instant::now(), Arc::clone(slot))));
        self.table.store(Arc::default());
        // Whoever drops the host waits for its plugins, and not for ever.
        wait(end(slots).0, LAST_WAIT);
    }
}

/// How a call that didn't go through is noted.
pub(crate) fn status_of(error: &HookError) -> ExecutionStatus {
    match error.kind() {
        _ if error.is_timed_out() => ExecutionStatus::TimedOut,
        _ if error.is_outcome_unknown() => ExecutionStatus::Unknown,
        kind if is_outage(kind) => ExecutionStatus::Failed,
        _ => ExecutionStatus::Forbidden,
    }
}

/// The table in a cache line of its own: every call reads it, so nothing that is written may lie beside it.
#[derive(Default)]
#[repr(align(128))]
struct Apart(ArcSwap<Table>);

impl Deref for Apart {
    type Target = ArcSwap<Table>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// How long the end of a host waits for its plugins'.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// Ends slots that nobody uses any more, each that was loaded on a thread of its own, because that runs code of the plugin's, which
/// may hang. Returns the threads, and those for which no thread can be started.
fn end(slots: Retired) -> (Vec<JoinHandle<()>>, Retired) {
    let (mut threads, mut left) = (Vec::new(), Retired::new());
    for (since, slot) in slots.into_iter().filter(|(_, slot)| slot.is_loaded()) {
        // Taken out of it by the thread: one that isn't started must not drop it here.
        let place = Arc::new(Mutex::new(Some(slot)));
        let taken = Arc::clone(&place);
        let run = move || {
            let slot = taken.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(slot);
        };
        match thread::Builder::new().name("billhook-end".to_owned()).spawn(run) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                tracing::error!("a plugin can't be ended now: no thread can be started: {error}");
                let slot = place.lock().unwrap_or_else(PoisonError::into_inner).take();
                left.extend(slot.map(|slot| (since, slot)));
            }
        }
    }
    (threads, left)
}

/// Waits for threads, at most for a time.
fn wait(threads: Vec<JoinHandle<()>>, limit: Duration) {
    let deadline = Instant::now() + limit;
    let mut pause = Duration::from_micros(200);
    while Instant::now() < deadline && !threads.iter().all(JoinHandle::is_finished) {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
