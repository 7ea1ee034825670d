//! Who guesses secrets too often.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

/// Counts wrong guesses of each address and user. A guess that was wrong leaks away in two seconds.
#[derive(Debug)]
pub(super) struct Failures {
    most: f64,
    counts: Mutex<HashMap<(IpAddr, String), (f64, Instant)>>,
}

/// So many are remembered at most.
const LARGEST: usize = 20_000;
/// Guesses that leak away in a second.
const LEAK: f64 = 0.5;

impl Failures {
    pub(super) fn new(most: u32) -> Self {
        Failures { most: f64::from(most.max(1)), counts: Mutex::default() }
    }

    /// Seconds until somebody may guess again; `None` if now.
    pub(super) fn must_wait(&self, address: IpAddr, user: &str) -> Option<u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.is_empty() {
            return None;
        }
        let (count, at) = counts.get(&key(address, user))?;
        let left = count - at.elapsed().as_secs_f64() * LEAK - (self.most - 1.0);
        (left > 0.0).then_some((left / LEAK).ceil() as u64)
    }

    /// Notes a wrong guess.
    pub(super) fn note(&self, address: IpAddr, user: &str) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= LARGEST {
            counts.retain(|_, (count, at)| *count > at.elapsed().as_secs_f64() * LEAK);
            if counts.len() >= LARGEST {
                // So many guess at once that it doesn't matter who is forgotten.
                counts.clear();
            }
        }
        let (count, at) = counts.entry(key(address, user)).or_insert((0.0, Instant::now()));
        *count = (*count - at.elapsed().as_secs_f64() * LEAK).max(0.0) + 1.0;
        *at = Instant::now();
    }
}

/// Whoever has one address of a network of version 6 has the others of the last 64 bits, too.
fn key(address: IpAddr, user: &str) -> (IpAddr, String) {
    let address = match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        address => address,
    };
    let end = user.char_indices().nth(100).map_or(user.len(), |(at, _)| at);
    (address, user[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_guesses_too_often_waits_and_others_do_not() {
        let failures = Failures::new(3);
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..3 {
            assert_eq!(failures.must_wait(one, "a"), None);
            failures.note(one, "a");
        }
        assert!(failures.must_wait(one, "a").is_some_and(|seconds| seconds <= 2));
        assert_eq!(failures.must_wait(one, "b"), None);
        assert_eq!(failures.must_wait(other, "a"), None);
    }

    #[test]
    fn a_network_of_version_6_is_one_client_and_memory_is_bounded() {
        let failures = Failures::new(1);
        let address = |last: u16| IpAddr::from([1, 2, 3, 4, 0, 0, 0, last]);
        failures.note(address(1), "");
        assert!(failures.must_wait(address(2), "").is_some());
        for number in 0..50_000_u32 {
            failures.note(IpAddr::from(number.to_be_bytes()), "");
        }
        assert!(failures.counts.lock().expect("not poisoned").len() <= LARGEST);
    }
}
