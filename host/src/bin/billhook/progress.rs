//! Tells a waiting person that something is going on: after a second, on a terminal.

use std::{
    io::{self, IsTerminal},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::ProgressBar;

/// Shows a line as long as it lives.
pub(crate) struct Progress {
    done: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Progress {
    pub(crate) fn start(message: impl Into<String>) -> Self {
        if !io::stderr().is_terminal() {
            return Progress { done: None, thread: None };
        }
        let message = message.into();
        let (done, is_done) = mpsc::channel();
        let show = move || {
            if is_done.recv_timeout(Duration::from_secs(1)) != Err(mpsc::RecvTimeoutError::Timeout) {
                return;
            }
            let bar = ProgressBar::new_spinner().with_message(message);
            bar.enable_steady_tick(Duration::from_millis(100));
            let _ = is_done.recv();
            bar.finish_and_clear();
        };
        // Without a thread nobody is told.
        let thread = thread::Builder::new().name("billhook-progress".to_owned()).spawn(show);
        Progress { done: Some(done), thread: thread.ok() }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.done.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
