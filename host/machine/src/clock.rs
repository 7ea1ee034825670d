//! The machine's own clocks.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use billhook_model::{Clock, Moment};

use crate::crash_point;

/// The clock of this machine. A debug build adds `BILLHOOK_CLOCK_AHEAD_MS` to the time of day.
#[derive(Debug, Clone, Copy, Default)]
pub struct MachineClock;

impl Clock for MachineClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that is passed in")]
    fn now(&self) -> Moment {
        let now = Moment::from(SystemTime::now());
        match crash_point::number("BILLHOOK_CLOCK_AHEAD_MS") {
            Some(ahead) => Moment::from_millis(now.millis().saturating_add(ahead)),
            None => now,
        }
    }

    fn since_boot(&self) -> Duration {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
    }

    fn boot(&self) -> String {
        fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
    }
}
