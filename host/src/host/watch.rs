//! The host's own thread: notices what other processes changed, and drops instances that nobody calls any more.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use super::Shared;

/// Less than a second, with room for a slow machine.
const INTERVAL: Duration = Duration::from_millis(250);

pub(super) struct Watch {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(shared: Arc<Shared>) -> Self {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let signal = Arc::clone(&stop);
        let thread = thread::Builder::new().name("billhook-watch".to_owned()).spawn(move || watch(&shared, &signal));
        if let Err(error) = &thread {
            tracing::error!("changes by other processes go unnoticed: the thread for that can't be started: {error}");
        }
        Watch { stop, thread: thread.ok() }
    }

    pub(super) fn stop(&mut self) {
        let (stopped, signal) = &*self.stop;
        *stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        signal.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn watch(shared: &Shared, (stopped, signal): &(Mutex<bool>, Condvar)) {
    let mut stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
    while !*stopped {
        stopped = signal.wait_timeout(stopped, INTERVAL).unwrap_or_else(PoisonError::into_inner).0;
        if *stopped {
            return;
        }
        if let Err(error) = shared.refresh() {
            tracing::warn!("the registry can't be read, plugins stay as they are: {error}");
        }
    }
}
