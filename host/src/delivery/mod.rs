//! Deliveries: the host takes them from the ledger, tells each listener, and notes what became of it.
//!
//! Every listener has a lane of its own, with threads of its own, so that one that hangs holds up no other. What a lane takes it
//! holds under a lease, which is renewed as long as the host lives; a delivery whose lease ran out is not begun. What became of
//! deliveries is settled by one thread, many at once, and only then the next delivery of the same object runs.

mod attempt;
mod lanes;

use std::{
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use billhook_machine::crash_point;
use billhook_model::{Clock, Listener, text::with_causes};
use billhook_store::{
    Coordination, ExecutionLog, ExecutionNote, HeldDelivery, Ledger, Membership, Result, Settled, Take,
};

use crate::dispatch::Dispatcher;
pub(crate) use attempt::takes;
use lanes::{Lanes, Queued};

/// How long a host holds deliveries without a sign of life.
const LEASE: Duration = Duration::from_secs(30);
/// How often it is looked whether there is something to deliver that this host was not told of.
const LOOK: Duration = Duration::from_millis(200);
/// How long settling may take at the end.
const LAST_MOMENT: Duration = Duration::from_secs(5);
/// How long done deliveries are kept.
const KEPT: Duration = Duration::from_secs(7 * 86_400);
/// How often they are looked for.
const FORGET: Duration = Duration::from_secs(60);

/// Delivers, as long as it lives.
pub(crate) struct Deliverer {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// What the threads share.
struct Shared {
    dispatcher: Arc<Dispatcher>,
    ledger: Arc<dyn Ledger>,
    log: Arc<dyn ExecutionLog>,
    coordination: Arc<dyn Coordination>,
    clock: Arc<dyn Clock>,
    /// What this host is called in the ledger.
    holder: String,
    /// How long it holds deliveries without a sign of life.
    lease_time: Duration,
    /// Until when its lease certainly lasts, in milliseconds since the machine's start.
    lease: AtomicU64,
    /// How often its lease ran out. What was queued before it did last may be somebody else's.
    lapses: AtomicU64,
    lanes: Lanes,
    /// What became of deliveries, to be settled.
    ended: Mutex<Sender<Ended>>,
    wake: Wake,
    is_ended: AtomicBool,
    /// Held as long as this host delivers: by it others tell that it is no more. It ends with the last that is settled.
    membership: Mutex<Option<Arc<dyn Membership>>>,
}

/// A delivery that was attempted, and what the execution log is told of it.
struct Ended {
    settled: Settled,
    note: Option<ExecutionNote>,
}

/// Wakes the thread that looks for deliveries.
#[derive(Default)]
pub(crate) struct Wake {
    is_woken: Mutex<bool>,
    signal: Condvar,
}

impl Wake {
    pub(crate) fn wake(&self) {
        *self.lock() = true;
        self.signal.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_woken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, longest: Duration) {
        let waited = self.signal.wait_timeout_while(self.lock(), longest, |woken| !*woken);
        *waited.unwrap_or_else(PoisonError::into_inner).0 = false;
    }
}

impl Shared {
    /// How much sooner a lease is taken for ended than it ends.
    fn margin(&self) -> Duration {
        self.lease_time / 6
    }

    /// How often a sign of life is given.
    fn sign_of_life(&self) -> Duration {
        self.lease_time / 10
    }

    /// Until when the lease certainly lasts, since the machine's start.
    fn lease(&self) -> Duration {
        Duration::from_millis(self.lease.load(Ordering::Acquire))
    }

    /// Until when what was queued is certainly this host's own, since the machine's start; `None` if it isn't any more.
    fn holds_until(&self, queued: &Queued) -> Option<Duration> {
        // In this order: a lease that was renewed after it ran out is seen with the number of times that it did.
        let until = self.lease();
        let is_own = self.lapses.load(Ordering::Acquire) == queued.lapses;
        (self.clock.since_boot() < until && is_own).then_some(until)
    }

    /// Takes deliveries of a listener, but for those that another host is just beginning: one whose lease ran out, and that stands
    /// still.
    fn take(&self, listener: &Listener, most: usize) -> Result<Vec<HeldDelivery>> {
        let take = Take { listener, holder: &self.holder, hold_for: self.lease_time, most };
        self.ledger.take(&take, &|holder| self.coordination.announced_by(holder))
    }

    /// Whether the lease lasts.
    fn holds(&self) -> bool {
        self.clock.since_boot() < self.lease()
    }

    fn membership(&self) -> Option<Arc<dyn Membership>> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Acquire)
    }

    fn is_ended(&self) -> bool {
        self.is_ended.load(Ordering::Relaxed)
    }

    /// Nobody has anything more to tell the thread that settles: it ends when it settled what it was told.
    fn end_settling(&self) {
        let (nobody, _) = mpsc::channel();
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = nobody;
    }

    fn end(&self, settled: Settled, note: Option<ExecutionNote>) {
        // Without the thread that settles, the lease runs out and somebody else delivers.
        let _ = self.ended.lock().unwrap_or_else(PoisonError::into_inner).send(Ended { settled, note });
    }

    fn renew(&self) -> Result<()> {
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

/// What a deliverer works on.
pub(crate) struct Stage {
    pub(crate) dispatcher: Arc<Dispatcher>,
    pub(crate) ledger: Arc<dyn Ledger>,
    pub(crate) log: Arc<dyn ExecutionLog>,
    pub(crate) coordination: Arc<dyn Coordination>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Deliverer {
    /// Starts to deliver.
    ///
    /// # Errors
    /// The host can't join the others, or the system gives no thread.
    pub(crate) fn start(stage: Stage, wake: Wake) -> io::Result<Self> {
        let Stage { dispatcher, ledger, log, coordination, clock } = stage;
        let holder = uuid::Uuid::now_v7().to_string();
        sweep(&*coordination, &*ledger).map_err(io::Error::other)?;
        let membership = coordination.join(&holder).map_err(io::Error::other)?;
        let (ended, to_settle) = mpsc::channel();
        let shared = Arc::new(Shared {
            dispatcher,
            ledger,
            log,
            coordination,
            clock,
            holder,
            lease_time: crash_point::number("BILLHOOK_LEASE_MS")
                .map_or(LEASE, |time| Duration::from_millis(time.unsigned_abs())),
            lease: AtomicU64::new(0),
            lapses: AtomicU64::new(0),
            lanes: Lanes::default(),
            ended: Mutex::new(ended),
            wake,
            is_ended: AtomicBool::new(false),
            membership: Mutex::new(Some(membership.into())),
        });
        let mut deliverer = Deliverer { shared: Arc::clone(&shared), threads: Vec::new() };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| thread::Builder::new().name(name.to_owned()).spawn(run);
        let settling = Arc::clone(&shared);
        deliverer.threads.push(spawn("billhook-settle", Box::new(move || settle_all(&settling, &to_settle)))?);
        let scheduling = Arc::clone(&shared);
        match spawn("billhook-deliver", Box::new(move || schedule(&scheduling))) {
            Ok(thread) => deliverer.threads.push(thread),
            Err(error) => {
                // The other one ends, and others don't take this host for one that delivers.
                deliverer.shared.end_settling();
                return Err(error);
            }
        }
        Ok(deliverer)
    }

    /// Says that there may be something to deliver.
    pub(crate) fn wake(&self) {
        self.shared.wake.wake();
    }

    /// Begins nothing more, and waits for what is under way, at most for a time. What goes on for longer keeps its lease, and is
    /// settled when it ends, as long as the process lasts.
    pub(crate) fn stop(&mut self, patience: Duration) {
        let deadline = Instant::now().checked_add(patience);
        let is_over = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        // Settling takes a moment; where even that hangs, nobody waits for it.
        let last = deadline.and_then(|deadline| deadline.checked_add(LAST_MOMENT));
        let is_last = || last.is_some_and(|last| Instant::now() >= last);
        self.shared.is_ended.store(true, Ordering::Relaxed);
        self.shared.lanes.end(&self.shared);
        self.shared.wake.wake();
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && !is_last() && (!is_over() || !self.shared.lanes.are_busy()) {
                thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

/// Looks for deliveries, gives signs of life, and frees what hosts held that are no more. Goes on until nothing is under way.
fn schedule(shared: &Arc<Shared>) {
    let (mut renewed, mut forgot): (Option<Instant>, Option<Instant>) = (None, None);
    let mut look = || -> Result<()> {
        if renewed.is_none_or(|at| at.elapsed() >= shared.sign_of_life()) || !shared.holds() {
            shared.renew()?;
            recover(shared)?;
            renewed = Some(Instant::now());
        }
        if shared.is_ended() {
            return Ok(());
        }
        shared.lanes.fill(shared)?;
        if forgot.is_none_or(|at| at.elapsed() >= FORGET) {
            forgot = Some(Instant::now());
            while shared.ledger.forget(KEPT)? && !shared.is_ended() {}
            if let Err(error) = shared.log.trim(shared.ledger.now()?) {
                tracing::warn!("the execution log can't be trimmed: {}", with_causes(&error));
            }
        }
        Ok(())
    };
    while !shared.is_ended() || shared.lanes.are_busy() {
        // Without a ledger nothing was ever emitted.
        if shared.ledger.exists()
            && let Err(error) = look()
        {
            tracing::error!("nothing can be delivered now: {}", with_causes(&error));
            thread::sleep(LOOK);
        }
        shared.wake.wait(LOOK);
    }
    shared.end_settling();
}

/// Forgets hosts that are no more and held nothing.
fn sweep(coordination: &dyn Coordination, ledger: &dyn Ledger) -> Result<()> {
    let holders = if ledger.exists() { ledger.holders()? } else { Vec::new() };
    for member in coordination.members()? {
        if !holders.contains(&member) && coordination.is_gone(&member) {
            coordination.forget(&member);
        }
    }
    Ok(())
}

/// Frees what hosts held that are no more, without waiting for their leases to run out.
fn recover(shared: &Shared) -> Result<()> {
    for holder in shared.ledger.holders()? {
        if holder == shared.holder || !shared.coordination.is_gone(&holder) {
            continue;
        }
        let freed = shared.ledger.recover(&holder)?;
        if !freed.is_empty() {
            tracing::warn!(
                "a host ended that held what is to be delivered, {} in all: it is delivered now",
                freed.len()
            );
        }
        shared.coordination.forget(&holder);
    }
    Ok(())
}

/// How long it is waited for others to be settled with.
const GATHER: Duration = Duration::from_millis(1);
/// So many deliveries are settled at once at most.
const LARGEST_BATCH: usize = 512;

/// Settles what became of deliveries, many at once, and puts the next ones of their objects into their lanes.
fn settle_all(shared: &Arc<Shared>, to_settle: &Receiver<Ended>) {
    let mut last = 0;
    while let Ok(first) = to_settle.recv() {
        let mut batch = vec![first];
        // Where many end at once, a moment's wait lets more of them share a transaction.
        if last > 1 {
            thread::sleep(GATHER);
        }
        while batch.len() < LARGEST_BATCH
            && let Ok(more) = to_settle.try_recv()
        {
            batch.push(more);
        }
        last = batch.len();
        let (mut settled, mut notes) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for ended in batch {
            settled.push(ended.settled);
            notes.extend(ended.note);
        }
        if !notes.is_empty()
            && let Err(error) = shared.log.write(&notes, 0)
        {
            tracing::error!("{} executions are not in the log: {}", notes.len(), with_causes(&error));
            shared.log.lose(notes.len() as u64);
        }
        loop {
            // Read before: what the lease's end takes away meanwhile must not be queued as if it were held.
            let lapses = shared.lapses();
            let hold_for = (!shared.is_ended()).then_some(shared.lease_time);
            match shared.ledger.settle(&shared.holder, hold_for, &settled) {
                Ok(next) => {
                    shared.lanes.put(shared, next, lapses);
                    break;
                }
                Err(error) => {
                    tracing::error!(
                        "what became of {} deliveries can't be noted: {}",
                        settled.len(),
                        with_causes(&error)
                    );
                    // They are delivered again if that lasts for longer than the lease.
                    if shared.is_ended() {
                        break;
                    }
                    thread::sleep(Duration::from_millis(500));
                }
            }
        }
    }
    // Others take at once what this host may still hold.
    shared.membership.lock().unwrap_or_else(PoisonError::into_inner).take();
}
