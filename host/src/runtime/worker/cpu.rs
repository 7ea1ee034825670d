//! How much processor time a call takes.

use std::time::Duration;

/// The processor time that a process used, on all its threads.
#[derive(Clone, Copy)]
pub(super) struct CpuClock(libc::clockid_t);

/// How much processor time a call may take. It counts from the first time that it is looked at, one slice after the call
/// began: most calls are answered before, and pay nothing.
pub(super) struct CpuLimit {
    clock: CpuClock,
    most: Duration,
    until: Option<Duration>,
}

impl CpuLimit {
    pub(super) fn new(clock: CpuClock, most: Duration) -> Self {
        CpuLimit { clock, most, until: None }
    }

    pub(super) fn is_over(&mut self) -> bool {
        let Some(used) = self.clock.used() else { return false };
        used > *self.until.get_or_insert(used.saturating_add(self.most))
    }
}

impl CpuClock {
    pub(super) fn of(process: u32) -> Option<Self> {
        let mut clock = 0;
        // SAFETY: fills in the number of a clock.
        let failed = unsafe { libc::clock_getcpuclockid(libc::pid_t::try_from(process).ok()?, &raw mut clock) };
        (failed == 0).then_some(CpuClock(clock))
    }

    fn used(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: fills in a time.
        let failed = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        let used = Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
        (failed == 0).then_some(used)
    }
}
