//! What the benchmarks share: fixtures built for them, and medians.

mod package;

use std::time::{Duration, Instant};

pub use package::package;

/// The median of some durations.
pub fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

/// Times two things in turn, so that both meet the same machine: their medians.
pub fn in_turn(rounds: usize, mut floor: impl FnMut(), mut subject: impl FnMut()) -> (Duration, Duration) {
    let (mut floors, mut subjects) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let start = Instant::now();
        floor();
        floors.push(start.elapsed());
        let start = Instant::now();
        subject();
        subjects.push(start.elapsed());
    }
    (median(floors), median(subjects))
}
