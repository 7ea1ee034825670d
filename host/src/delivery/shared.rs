//! What the threads of a host share that delivers.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Sender},
    },
    time::Duration,
};

use billhook_model::{Clock, Listener};
use billhook_store::{
    Coordination, ExecutionLog, ExecutionNote, HeldDelivery, Ledger, Membership, Result, Settled, Take,
};

use super::lanes::{Lanes, Queued};
use crate::dispatch::Dispatcher;

/// What the threads share.
pub(super) struct Shared {
    pub(super) dispatcher: Arc<Dispatcher>,
    pub(super) ledger: Arc<dyn Ledger>,
    pub(super) log: Arc<dyn ExecutionLog>,
    pub(super) coordination: Arc<dyn Coordination>,
    pub(super) clock: Arc<dyn Clock>,
    /// What this host is called in the ledger.
    pub(super) holder: String,
    /// How long it holds deliveries without a sign of life.
    pub(super) lease_time: Duration,
    /// Until when its lease certainly lasts, in milliseconds since the machine's start.
    pub(super) lease: AtomicU64,
    /// How often its lease ran out. What was queued before it did last may be somebody else's.
    pub(super) lapses: AtomicU64,
    pub(super) lanes: Lanes,
    /// What became of deliveries, to be settled.
    pub(super) ended: Mutex<Sender<Ended>>,
    pub(super) wake: Wake,
    pub(super) is_ended: AtomicBool,
    /// Held as long as this host delivers: by it others tell that it is no more. It ends with the last that is settled.
    pub(super) membership: Mutex<Option<Arc<dyn Membership>>>,
}

/// A delivery that was attempted, and what the execution log is told of it.
pub(super) struct Ended {
    pub(super) settled: Settled,
    pub(super) note: Option<ExecutionNote>,
}

/// Wakes the thread that looks for deliveries.
#[derive(Default)]
pub(crate) struct Wake {
    pub(super) is_woken: Mutex<bool>,
    pub(super) signal: Condvar,
}

impl Wake {
    pub(crate) fn wake(&self) {
        *self.lock() = true;
        self.signal.notify_all();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn wait(&self, longest: Duration) {
        let waited = self.signal.wait_timeout_while(self.lock(), longest, |woken| !*woken);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

impl Shared {
    /// How much sooner a lease is taken for ended than it ends.
    pub(super) fn margin(&self) -> Duration {
        self.lease_time / 6
    }

    /// How often a sign of life is given.
    pub(super) fn sign_of_life(&self) -> Duration {
        self.lease_time / 10
    }

    /// Until when the lease certainly lasts, since the machine's start.
    pub(super) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease.load(Ordering::Acquire))
    }

    /// Until when what was queued is certainly this host's own, since the machine's start; `None` if it isn't any more.
    pub(super) fn holds_until(&self, queued: &Queued) -> Option<Duration> {
        // In this order: a lease that was renewed after it ran out is seen with the number of times that it did.
        let until = self.lease();
        let is_own = self.lapses.load(Ordering::Acquire) == queued.lapses;
        (self.clock.since_boot() < until && is_own).then_some(until)
    }

    /// Takes deliveries of a listener, but for those that another host is just beginning: one whose lease ran out, and that stands
    /// still.
    pub(super) fn take(&self, listener: &Listener, most: usize) -> Result<Vec<HeldDelivery>> {
        let take = Take { listener, holder: &self.holder, hold_for: self.lease_time, most };
        self.ledger.take(&take, &|holder| self.coordination.announced_by(holder))
    }

    /// Whether the lease lasts.
    pub(super) fn holds(&self) -> bool {
        self.clock.since_boot() < self.lease()
    }

    pub(super) fn membership(&self) -> Option<Arc<dyn Membership>> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Acquire)
    }

    pub(super) fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// Nobody has anything more to tell the thread that settles: it ends when it settled what it was told.
    pub(super) fn end_settling(&self) {
        let (nobody, _) = mpsc::channel();
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = nobody;
    }

    pub(super) fn end(&self, settled: Settled, note: Option<ExecutionNote>) {
        // Without the thread that settles, the lease runs out and somebody else delivers.
        let _ = self.ended.lock().unwrap_or_else(PoisonError::into_inner).send(Ended { settled, note });
    }

    pub(super) fn renew(&self) -> Result<()> {
        // Before the store's clock is asked: the lease lasts for at least so long.
        let until = self.clock.since_boot() + self.lease_time - self.margin();
        if self.holds() {
            self.ledger.renew(&self.holder, self.lease_time)?;
        } else {
            // Others may have taken what this host held. What is still its own goes on; everything else in its queues is dropped
            // before the lease is good again.
            let kept = self.ledger.renew_lapsed(&self.holder, self.lease_time)?;
            let lapses = self.lapses.fetch_add(1, Ordering::AcqRel) + 1;
            self.lanes.keep(&kept, lapses);
        }
        self.lease.store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
        Ok(())
    }
}
