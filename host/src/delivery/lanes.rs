//! The lanes: what waits for each listener, and who works on it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use billhook_model::Listener;
use billhook_store::HeldDelivery;

/// All lanes.
/// What waits for one listener.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<Listener, Arc<Lane>>>);

/// What waits for one listener.
#[derive(Default)]
pub(super) struct Lane {
    state: Mutex<State>,
    pub(super) changed: Condvar,
}

/// What a lane holds now.
#[derive(Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Queued>,
    /// Threads, and how many of them wait for work.
    pub(super) threads: usize,
    pub(super) idle: usize,
}

/// A delivery that waits for a thread, and how often the host's lease had run out when it was taken.
pub(super) struct Queued {
    pub(super) held: HeldDelivery,
    pub(super) lapses: u64,
}

impl Lane {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    pub(super) fn lane(&self, listener: &Listener) -> Arc<Lane> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry(listener.clone()).or_default())
    }

    pub(super) fn all(&self) -> Vec<Arc<Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// Drops what is queued and isn't held any more; what is goes on. `kept` has the numbers of deliveries and of their leases.
    pub(super) fn keep(&self, kept: &HashMap<i64, i64>, lapses: u64) {
        for lane in self.all() {
            lane.lock().queue.retain_mut(|queued| {
                queued.lapses = lapses;
                kept.get(&queued.held.number) == Some(&queued.held.lease)
            });
        }
    }

    /// Whether any thread is at work.
    pub(super) fn are_busy(&self) -> bool {
        self.all().iter().any(|lane| {
            let state = lane.lock();
            state.threads > state.idle
        })
    }
}
