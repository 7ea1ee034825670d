//! The store, and how all of its concerns change it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use billhook_model::{Clock, Moment};

use super::tables::{ExecutionTable, LedgerTable, Locks, Registry};
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
    pub(super) clock: Arc<dyn Clock>,
    pub(super) retention: Retention,
    pub(super) registry: Mutex<Registry>,
    pub(super) ledger: Mutex<LedgerTable>,
    pub(super) executions: Mutex<ExecutionTable>,
    pub(super) locks: Arc<Locks>,
    pub(super) fault: Mutex<Fault>,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether running hosts have to notice a change.
pub(super) enum Change<T> {
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

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Changes a part as a whole, or not at all. The closure returns whether the copy that it got takes the place of the original.
    pub(super) fn change_part<P: Clone, T>(
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

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Registry) -> Result<Change<T>>) -> Result<T> {
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

    pub(super) fn read<T>(&self, read: impl FnOnce(&Registry) -> T) -> Result<T> {
        Ok(read(&lock(&self.registry)))
    }
}
