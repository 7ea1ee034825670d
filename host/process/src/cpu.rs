//! How much processor time a call takes.

use std::time::Duration;

/// The clock of the processor time that a process used, on all its threads.
#[derive(Debug, Clone, Copy)]
pub struct CpuClock(libc::clockid_t);

/// How much processor time a call may take. It counts from the first time that it is looked at, one slice after the call
/// began: most calls are answered before, and pay nothing.
#[derive(Debug)]
pub struct CpuLimit {
    clock: CpuClock,
    most: Duration,
    until: Option<Duration>,
}

impl CpuLimit {
    /// Returns a limit of so much more than the process used until now.
    pub fn new(clock: CpuClock, most: Duration) -> Self {
        CpuLimit { clock, most, until: None }
    }

    /// Returns whether the process used more than it may.
    pub fn is_over(&mut self) -> bool {
        let Some(used) = self.clock.used() else { return false };
        used > *self.until.get_or_insert(used.saturating_add(self.most))
    }
}

impl CpuClock {
    /// Returns the clock of a process, as long as there is one of that number.
    pub fn of(process: u32) -> Option<Self> {
        let mut clock = 0;
        // SAFETY: the pointer is to a live local of the type that the function writes, and it keeps none.
        let failed = unsafe { libc::clock_getcpuclockid(libc::pid_t::try_from(process).ok()?, &raw mut clock) };
        (failed == 0).then_some(CpuClock(clock))
    }

    fn used(self) -> Option<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is to a live local of the type that the function writes, and it keeps none.
        let failed = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        let used = Duration::new(u64::try_from(time.tv_sec).ok()?, u32::try_from(time.tv_nsec).ok()?);
        (failed == 0).then_some(used)
    }
}
