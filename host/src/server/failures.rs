//! Who guesses secrets too often.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use super::connections::network;

/// Counts wrong guesses of each address, at each secret. A guess that was wrong leaks away in two seconds.
#[derive(Debug)]
pub(super) struct Failures {
    most: f64,
    state: RandomState,
    counts: Mutex<HashMap<(IpAddr, String), Guesses>>,
}

/// The wrong guesses of an address at a secret.
#[derive(Debug)]
struct Guesses {
    /// How many haven't leaked away, as of when.
    count: f64,
    at: Instant,
    /// The last passwords, hashed with a key that nobody knows.
    last: [u64; 8],
    next: usize,
}

impl Guesses {
    fn left(&self) -> f64 {
        (self.count - self.at.elapsed().as_secs_f64() * LEAK).max(0.0)
    }
}

/// So many are remembered at most.
const LARGEST: usize = 20_000;
/// Guesses that leak away in a second.
const LEAK: f64 = 0.5;

impl Failures {
    pub(super) fn new(most: u32) -> Self {
        Failures { most: f64::from(most.max(1)), state: RandomState::new(), counts: Mutex::default() }
    }

    /// Seconds until somebody may guess again; `None` if now.
    pub(super) fn must_wait(&self, address: IpAddr, guessed: &str) -> Option<u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.is_empty() {
            return None;
        }
        let left = counts.get(&key(address, guessed))?.left() - (self.most - 1.0);
        (left > 0.0).then_some((left / LEAK).ceil() as u64)
    }

    /// Notes a wrong guess: at what, and with which password, if it is one. The same password again tells nobody anything new, and mostly comes from a
    /// program that has an old one: it counts for a quarter.
    pub(super) fn note(&self, address: IpAddr, guessed: &str, password: Option<&str>) {
        let password = password.map(|password| self.state.hash_one(password));
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= LARGEST {
            counts.retain(|_, guesses| guesses.left() > 0.0);
            if counts.len() >= LARGEST {
                // Who guessed once or twice is forgotten before who guesses all the time.
                counts.retain(|_, guesses| guesses.left() > 2.0);
            }
            if counts.len() >= LARGEST {
                counts.clear();
            }
        }
        let none = || Guesses { count: 0.0, at: Instant::now(), last: [0; 8], next: 0 };
        let guesses = counts.entry(key(address, guessed)).or_insert_with(none);
        let is_known = password.is_some_and(|password| guesses.last.contains(&password));
        guesses.count = guesses.left() + if is_known { 0.25 } else { 1.0 };
        guesses.at = Instant::now();
        if let Some(password) = password.filter(|_| !is_known) {
            guesses.last[guesses.next] = password;
            guesses.next = (guesses.next + 1) % guesses.last.len();
        }
    }
}

fn key(address: IpAddr, guessed: &str) -> (IpAddr, String) {
    let end = guessed.char_indices().nth(120).map_or(guessed.len(), |(at, _)| at);
    (network(address), guessed[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_guesses_too_often_waits_and_others_do_not() {
        let failures = Failures::new(4);
        let (one, other): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for guess in ["1", "2", "2", "2", "1", "2", "3"] {
            assert_eq!(failures.must_wait(one, "a"), None, "the same guess again counts less");
            failures.note(one, "a", Some(guess));
        }
        assert!(failures.must_wait(one, "a").is_some_and(|seconds| seconds <= 2));
        assert_eq!(failures.must_wait(one, "b"), None);
        assert_eq!(failures.must_wait(other, "a"), None);
    }

    #[test]
    fn a_network_of_version_6_is_one_client_and_memory_is_bounded() {
        let failures = Failures::new(1);
        let address = |last: u16| IpAddr::from([1, 2, 3, 4, 0, 0, 0, last]);
        failures.note(address(1), "", None);
        assert!(failures.must_wait(address(2), "").is_some());
        for number in 0..50_000_u32 {
            failures.note(IpAddr::from(number.to_be_bytes()), "", None);
        }
        assert!(failures.counts.lock().expect("not poisoned").len() <= LARGEST);
    }
}
