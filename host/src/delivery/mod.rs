//! Deliveries: the host takes them from the ledger, tells each listener, and notes what became of it.
//!
//! Every listener has a lane of its own, with threads of its own, so that one that hangs holds up no other. What a lane takes it
//! holds under a lease, which is renewed as long as the host lives; a delivery whose lease ran out is not begun. What became of
//! deliveries is settled by one thread, many at once, and only then the next delivery of the same object runs.

mod attempt;
mod lanes;
mod shared;
mod threads;

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{self, Receiver},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use billhook_machine::crash_point;
use billhook_model::{Clock, text::with_causes};
use billhook_store::{Coordination, ExecutionLog, Ledger, Result};

use crate::dispatch::Dispatcher;
pub(crate) use attempt::takes;
use lanes::Lanes;
pub(crate) use shared::Wake;
use shared::{Ended, Shared};

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
        threads::give_back(&self.shared);
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
        threads::fill(shared)?;
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
                    threads::put(shared, next, lapses);
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
