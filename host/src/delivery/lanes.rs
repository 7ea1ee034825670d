//! The lanes: each listener has threads of its own.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use billhook_model::Listener;
use billhook_store::{HeldDelivery, Result, Settled, Verdict};

use super::{Shared, attempt};

/// So many deliveries to one listener run at once, each for another object.
const MOST_AT_ONCE: usize = 4;
/// A lane holds so many at most, and takes more when it has fewer than half.
const LONGEST_LANE: usize = 256;
/// A thread without work ends after so long.
const IDLE: Duration = Duration::from_secs(2);

/// All lanes.
#[derive(Default)]
pub(super) struct Lanes(Mutex<HashMap<Listener, Arc<Lane>>>);

#[derive(Default)]
struct Lane {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Queued>,
    /// Threads, and how many of them wait for work.
    threads: usize,
    idle: usize,
}

/// A delivery that waits for a thread, and how often the host's lease had run out when it was taken.
pub(super) struct Queued {
    pub(super) held: HeldDelivery,
    pub(super) lapses: u64,
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn lane(&self, listener: &Listener) -> Arc<Lane> {
        let mut lanes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lanes.entry(listener.clone()).or_default())
    }

    fn all(&self) -> Vec<Arc<Lane>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().map(Arc::clone).collect()
    }

    /// Takes deliveries for all lanes that have room.
    pub(super) fn fill(&self, shared: &Arc<Shared>) -> Result<()> {
        for listener in shared.ledger.ready_listeners()? {
            // A listener that doesn't take any now keeps them; one that never will gets them, to be given up.
            if attempt::takes(&shared.dispatcher, &listener) == Some(false) {
                continue;
            }
            let room = {
                let queued = self.lane(&listener).lock().queue.len();
                if queued > LONGEST_LANE / 2 { 0 } else { LONGEST_LANE - queued }
            };
            // A full lane isn't looked at: that would walk over all that it holds.
            if room > 0 && shared.ledger.is_due(&listener)? {
                let lapses = shared.lapses();
                let held = shared.take(&listener, room)?;
                self.put(shared, held, lapses);
            }
        }
        Ok(())
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

    /// Puts deliveries into their lanes. When the host is being ended, gives them back. `lapses` is how often the lease had run out
    /// before they were taken.
    pub(super) fn put(&self, shared: &Arc<Shared>, all: Vec<HeldDelivery>, lapses: u64) {
        for held in all {
            if shared.is_ended() {
                shared.end(Settled { held, verdict: Verdict::Released }, None);
                continue;
            }
            let lane = self.lane(&held.listener);
            let mut state = lane.lock();
            state.queue.push_back(Queued { held, lapses });
            // One that was woken counts as idle until it took something.
            if state.queue.len() <= state.idle {
                lane.changed.notify_one();
            } else if state.threads < MOST_AT_ONCE {
                let (own, its) = (Arc::clone(&lane), Arc::clone(shared));
                let run = move || work(&its, &own);
                match thread::Builder::new().name("billhook-lane".to_owned()).spawn(run) {
                    Ok(_) => state.threads += 1,
                    Err(error) => {
                        tracing::error!("no thread can be started to deliver: {error}");
                        // Where there are others, they do what is there.
                        if state.threads == 0 {
                            let queued: Vec<HeldDelivery> = state.queue.drain(..).map(|queued| queued.held).collect();
                            drop(state);
                            let release = |held| shared.end(Settled { held, verdict: Verdict::Released }, None);
                            queued.into_iter().for_each(release);
                        }
                    }
                }
            }
        }
    }

    /// Gives back what was not begun, and lets idle threads end.
    pub(super) fn end(&self, shared: &Shared) {
        for lane in self.all() {
            let queued: Vec<HeldDelivery> = lane.lock().queue.drain(..).map(|queued| queued.held).collect();
            lane.changed.notify_all();
            for held in queued {
                shared.end(Settled { held, verdict: Verdict::Released }, None);
            }
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

/// What a thread of a lane does.
fn work(shared: &Arc<Shared>, lane: &Lane) {
    let mut state = lane.lock();
    loop {
        if let Some(queued) = state.queue.pop_front() {
            let runs_low = state.queue.len() == LONGEST_LANE / 2;
            drop(state);
            if runs_low {
                shared.wake.wake();
            }
            attempt::run(shared, queued);
            state = lane.lock();
            continue;
        }
        if shared.is_ended() {
            break;
        }
        state.idle += 1;
        let waited = lane.changed.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
        state = waited.0;
        state.idle -= 1;
        if waited.1.timed_out() && state.queue.is_empty() {
            break;
        }
    }
    state.threads -= 1;
}
