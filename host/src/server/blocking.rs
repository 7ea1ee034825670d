//! Threads for what blocks. Where the system gives none, that is an error of one call, and not the end of anything.

use std::{
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use tokio::task::JoinError;

/// Why what blocks came to no end.
#[derive(Debug)]
pub(super) enum NotRun {
    /// No thread can be started: it was not begun.
    NoThread,
    /// It panicked.
    Panicked,
}

impl fmt::Display for NotRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NotRun::NoThread => "the system lets this process start no more threads",
            NotRun::Panicked => "the server failed",
        })
    }
}

impl From<NotRun> for io::Error {
    fn from(not_run: NotRun) -> Self {
        io::Error::other(not_run.to_string())
    }
}

/// Runs what blocks on a thread of the runtime's.
pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotRun> {
    // The runtime panics where it has no thread and can't start one.
    let started = catch_unwind(AssertUnwindSafe(|| tokio::task::spawn_blocking(work)));
    started.map_err(|_| NotRun::NoThread)?.await.map_err(|_: JoinError| NotRun::Panicked)
}
