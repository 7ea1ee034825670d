//! The threads of lanes: each listener has threads of its own.

use std::{
    sync::{Arc, PoisonError},
    thread,
    time::Duration,
};

use billhook_store::{HeldDelivery, Result, Settled, Verdict};

use super::{
    attempt,
    lanes::{Lane, Queued},
    shared::Shared,
};

/// So many deliveries to one listener run at once, each for another object.
const MOST_AT_ONCE: usize = 4;
/// A lane holds so many at most, and takes more when it has fewer than half.
const LONGEST_LANE: usize = 256;
/// A thread without work ends after so long.
const IDLE: Duration = Duration::from_secs(2);

/// Takes deliveries for all lanes that have room.
pub(super) fn fill(shared: &Arc<Shared>) -> Result<()> {
    for listener in shared.ledger.ready_listeners()? {
        // A listener that doesn't take any now keeps them; one that never will gets them, to be given up.
        if attempt::takes(&shared.dispatcher, &listener) == Some(false) {
            continue;
        }
        let room = {
            let queued = shared.lanes.lane(&listener).lock().queue.len();
            if queued > LONGEST_LANE / 2 { 0 } else { LONGEST_LANE - queued }
        };
        // A full lane isn't looked at: that would walk over all that it holds.
        if room > 0 && shared.ledger.is_due(&listener)? {
            let lapses = shared.lapses();
            let held = shared.take(&listener, room)?;
            put(shared, held, lapses);
        }
    }
    Ok(())
}

/// Puts deliveries into their lanes. When the host is being ended, gives them back. `lapses` is how often the lease had run out
/// before they were taken.
pub(super) fn put(shared: &Arc<Shared>, all: Vec<HeldDelivery>, lapses: u64) {
    for held in all {
        if shared.is_ended() {
            shared.end(Settled { held, verdict: Verdict::Released }, None);
            continue;
        }
        let lane = shared.lanes.lane(&held.listener);
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
pub(super) fn give_back(shared: &Shared) {
    for lane in shared.lanes.all() {
        let queued: Vec<HeldDelivery> = lane.lock().queue.drain(..).map(|queued| queued.held).collect();
        lane.changed.notify_all();
        for held in queued {
            shared.end(Settled { held, verdict: Verdict::Released }, None);
        }
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
