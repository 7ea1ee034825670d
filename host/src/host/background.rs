//! Threads of the host's own, which do something again and again until the host is dropped.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// A thread that does something every so often.
pub(super) struct Background {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    is_stopped: Mutex<bool>,
    signal: Condvar,
}

impl Stop {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for an interval, and answers whether to go on.
    fn wait(&self, interval: Duration) -> bool {
        let stopped = self.signal.wait_timeout_while(self.lock(), interval, |stopped| !*stopped);
        !*stopped.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Background {
    /// Starts the thread; `work` runs first after one interval.
    pub(super) fn start(name: &str, interval: Duration, work: impl Fn() + Send + 'static) -> io::Result<Self> {
        let stop = Arc::new(Stop::default());
        let until = Arc::clone(&stop);
        let run = move || {
            while until.wait(interval) {
                // A backend's own code may run in it, and its panic must not end the thread for good.
                if catch_unwind(AssertUnwindSafe(&work)).is_err() {
                    tracing::error!("a panic in {}; it goes on", thread::current().name().unwrap_or_default());
                }
            }
        };
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run)?;
        Ok(Background { stop, thread: Some(thread) })
    }

    /// Ends the thread after what it does just now, and waits for that at most for a time.
    pub(super) fn stop(&mut self, patience: Duration) {
        *self.stop.lock() = true;
        self.stop.signal.notify_all();
        let Some(thread) = self.thread.take() else { return };
        let deadline = Instant::now() + patience;
        let mut pause = Duration::from_micros(100);
        while !thread.is_finished() && Instant::now() < deadline {
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
        if thread.is_finished() {
            let _ = thread.join();
        }
    }
}
