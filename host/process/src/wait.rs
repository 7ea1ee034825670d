//! Waiting for what nothing tells of.

use std::{
    thread,
    time::{Duration, Instant},
};

/// How long the first pause is, and the longest: each is twice as long as the one before.
const FIRST: Duration = Duration::from_micros(200);
const LONGEST: Duration = Duration::from_millis(5);

/// Waits until something is so, on the thread of the caller, and asks every so often. Returns whether it is; `false` at the
/// deadline.
pub fn wait_until(deadline: Instant, mut is_so: impl FnMut() -> bool) -> bool {
    let mut pause = FIRST;
    while !is_so() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_so_is_found_also_at_the_deadline() {
        let past = Instant::now();
        assert!(wait_until(past, || true));
        assert!(!wait_until(past, || false));
        let mut asked = 0;
        assert!(wait_until(past + Duration::from_secs(60), || {
            asked += 1;
            asked == 5
        }));
    }
}
