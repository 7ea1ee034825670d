//! A store in memory: for tests of what stands on a store, and as the second opinion on the contracts.
//!
//! One lock holds everything, so that every function is atomic. A change is made on a copy, which takes the place of the original
//! when it is whole.

mod coordination;
mod executions;
mod handlers;
mod ledger;
mod plugins;
mod resources;
mod usage;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use billhook_model::{Clock, Moment};

use crate::{Kept, Result, Retention, StoreError, StoreErrorKind, Stores};

/// What happens to the next change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Fault {
    /// It goes through.
    #[default]
    None,
    /// It fails, and nothing is changed.
    BeforeCommit,
    /// It is made, and its answer is lost.
    AfterCommit,
}

/// Everything that is kept in memory.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    retention: Retention,
    registry: Mutex<Registry>,
    ledger: Mutex<ledger::Ledger>,
    executions: Mutex<executions::Executions>,
    locks: Arc<coordination::Locks>,
    fault: Mutex<Fault>,
}

/// What has one generation, or is counted with it.
#[derive(Debug, Clone, Default)]
struct Registry {
    generation: i64,
    plugins: plugins::PluginTable,
    handlers: handlers::HandlerTable,
    resources: resources::ResourceTable,
    usage: usage::UsageTable,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether running hosts have to notice a change.
enum Change<T> {
    /// Something is another way now.
    Made(T),
    /// Something is another way now, which no running host has to notice.
    Quiet(T),
    /// Everything is as it was.
    Nothing(T),
}

impl MemoryStore {
    /// Returns an empty store.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(MemoryStore {
            clock,
            retention: Retention::default(),
            registry: Mutex::new(Registry { generation: 1, ..Registry::default() }),
            ledger: Mutex::default(),
            executions: Mutex::default(),
            locks: Arc::default(),
            fault: Mutex::default(),
        })
    }

    /// Returns all concerns of the store.
    pub fn stores(self: &Arc<Self>) -> Stores {
        Stores {
            plugins: Arc::clone(self) as _,
            state: Arc::clone(self) as _,
            handlers: Arc::clone(self) as _,
            ledger: Arc::clone(self) as _,
            executions: Arc::clone(self) as _,
            usage: Arc::clone(self) as _,
            resources: Arc::clone(self) as _,
            tokens: Arc::clone(self) as _,
            coordination: Arc::clone(self) as _,
        }
    }

    /// Lets the next change fail.
    pub fn fail_next(&self, fault: Fault) {
        *lock(&self.fault) = fault;
    }

    fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Changes a part as a whole, or not at all. The closure returns whether the copy that it got takes the place of the original.
    fn change_part<P: Clone, T>(
        &self,
        kept: Kept,
        part: &Mutex<P>,
        change: impl FnOnce(&mut P) -> Result<(bool, T)>,
    ) -> Result<T> {
        let mut original = lock(part);
        let mut copy = original.clone();
        let (is_changed, returned) = change(&mut copy)?;
        if !is_changed {
            return Ok(returned);
        }
        let failed = || StoreError::new(kept, StoreErrorKind::Failed, format!("{kept} failed"));
        match std::mem::take(&mut *lock(&self.fault)) {
            Fault::None => {
                *original = copy;
                Ok(returned)
            }
            Fault::BeforeCommit => Err(failed()),
            Fault::AfterCommit => {
                *original = copy;
                Err(failed().perhaps_done())
            }
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Registry) -> Result<Change<T>>) -> Result<T> {
        self.change_part(Kept::Registry, &self.registry, |registry| {
            Ok(match change(registry)? {
                Change::Made(made) => {
                    registry.generation += 1;
                    (true, made)
                }
                Change::Quiet(made) => (true, made),
                Change::Nothing(found) => (false, found),
            })
        })
    }

    fn read<T>(&self, read: impl FnOnce(&Registry) -> T) -> Result<T> {
        Ok(read(&lock(&self.registry)))
    }
}
