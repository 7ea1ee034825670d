//! What every store has to do: the contracts of the traits as tests.
//!
//! Each test is a plain function that takes a [`Maker`], which makes an empty store. [`all`] lists them, so that a new store runs
//! those that come later, too:
//!
//! ```ignore
//! #[test]
//! fn the_store_keeps_its_contracts() {
//!     assert_eq!(billhook_store::conformance::failed(&make), [""; 0]);
//! }
//! ```

mod coordination;
mod executions;
mod faults;
mod handlers;
mod ledger;
mod plugins;
mod races;
mod resources;
mod subject;
mod usage;

use std::panic;

pub use subject::{Maker, Subject, Test, TestClock};

/// Returns all tests.
pub fn all() -> Vec<Test> {
    [
        plugins::TESTS,
        handlers::TESTS,
        resources::TESTS,
        usage::TESTS,
        ledger::TESTS,
        executions::TESTS,
        coordination::TESTS,
        faults::TESTS,
        races::TESTS,
    ]
    .concat()
}

/// Runs all tests, and returns the names of those that failed. Why they did stands on standard error, as with every panic.
pub fn failed(make: Maker<'_>) -> Vec<&'static str> {
    let fails = |test: fn(Maker<'_>)| panic::catch_unwind(panic::AssertUnwindSafe(|| test(make))).is_err();
    all().into_iter().filter(|(_, test)| fails(*test)).map(|(name, _)| name).collect()
}
