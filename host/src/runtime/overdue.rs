//! Calls in this process that take too long: nobody can end them, but a plugin with several takes no more.
//!
//! Each thread notes the call that it is in, in a place of its own that no other thread writes; a thread of the host looks
//! at all those places every so often, by a clock that it winds itself. A call reads that clock and no other.

use std::{
    cell::Cell,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How often it is looked.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// The ticks since this process looked first. In a cache line of its own: every call reads it.
#[repr(align(128))]
struct Clock(AtomicU32);
static CLOCK: Clock = Clock(AtomicU32::new(0));

/// The call that a thread is in: the number of the slot that it calls, 0 if it calls none, and the tick at which it is overdue.
/// One value, so that nobody sees the one without the other.
#[derive(Default)]
#[repr(align(128))]
struct Place(AtomicU64);

fn join(slot: u32, due: u32) -> u64 {
    u64::from(slot) << 32 | u64::from(due)
}

fn split(call: u64) -> (u32, u32) {
    ((call >> 32) as u32, call as u32)
}

/// All places, and those that no thread has. A place is never freed: the next thread takes it.
#[derive(Default)]
struct Places {
    all: Vec<&'static Place>,
    free: Vec<&'static Place>,
}

static PLACES: Mutex<Places> = Mutex::new(Places { all: Vec::new(), free: Vec::new() });

thread_local! {
    // Without a destructor, and so without a look at whether it ran.
    static PLACE: Cell<Option<&'static Place>> = const { Cell::new(None) };
    static LEASE: Cell<Option<Lease>> = const { Cell::new(None) };
}

/// That a thread has a place, until it ends.
struct Lease(&'static Place);

impl Drop for Lease {
    fn drop(&mut self) {
        PLACE.set(None);
        self.0.0.store(0, Ordering::Relaxed);
        PLACES.lock().unwrap_or_else(PoisonError::into_inner).free.push(self.0);
    }
}

/// How many ticks a time is; a time that is too long to count never passes.
pub(crate) fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis().div_ceil(TICK.as_millis())).map_or(u32::MAX / 2, |ticks| ticks.min(u32::MAX / 2))
}

/// A call that is under way, until it is dropped.
pub(crate) struct Watched {
    /// The call around it on the same thread, if there is one.
    outer: u64,
}

/// Notes that this thread calls a slot.
#[inline]
pub(crate) fn enter(slot: u32, deadline: u32) -> Watched {
    let due = CLOCK.0.load(Ordering::Relaxed).wrapping_add(deadline).wrapping_add(1);
    Watched { outer: note(join(slot, due)) }
}

impl Drop for Watched {
    #[inline]
    fn drop(&mut self) {
        note(self.outer);
    }
}

#[inline]
fn note(call: u64) -> u64 {
    let place = PLACE.get().unwrap_or_else(take_place);
    let outer = place.0.load(Ordering::Relaxed);
    place.0.store(call, Ordering::Relaxed);
    outer
}

#[cold]
fn take_place() -> &'static Place {
    let place = {
        let mut places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
        match places.free.pop() {
            Some(place) => place,
            None => {
                let place: &'static Place = Box::leak(Box::default());
                places.all.push(place);
                place
            }
        }
    };
    PLACE.set(Some(place));
    // A thread that is ending already keeps its place for good; there is one such call at most.
    let _ = LEASE.try_with(|lease| lease.set(Some(Lease(place))));
    place
}

/// Winds the clock, and answers the slots of all calls that are overdue, as often as they have one.
pub(crate) fn look() -> Vec<u32> {
    static FIRST: Mutex<Option<Instant>> = Mutex::new(None);
    let mut first = FIRST.lock().unwrap_or_else(PoisonError::into_inner);
    let since = first.get_or_insert_with(Instant::now).elapsed();
    // Wraps around after six years, as the sums do. After a pause of this process the clock catches up little by little, so
    // that calls which began in the pause aren't overdue at its end.
    let now = (since.as_millis() / TICK.as_millis()) as u32;
    let last = CLOCK.0.load(Ordering::Relaxed);
    let now = last.wrapping_add(now.wrapping_sub(last).min(2));
    CLOCK.0.store(now, Ordering::Relaxed);
    drop(first);
    let places = PLACES.lock().unwrap_or_else(PoisonError::into_inner);
    let calls = places.all.iter().map(|place| split(place.0.load(Ordering::Relaxed)));
    calls.filter(|(slot, due)| *slot != 0 && now.wrapping_sub(*due) < u32::MAX / 2).map(|(slot, _)| slot).collect()
}
