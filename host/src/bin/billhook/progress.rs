//! Tells a waiting person that something is going on: after a second, on a terminal.

use std::{
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use billhook::visible_line;

use crate::streams;

/// Shows a line as long as it lives.
pub(crate) struct Progress {
    done: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

const STEPS: [char; 10] = ['⠋', '⠙', '⠹', '⠸', '⠼', '⠴', '⠦', '⠧', '⠇', '⠏'];
/// To the beginning of the line, which is cleared.
const CLEAR: &str = "\r\u{1b}[2K";

impl Progress {
    pub(crate) fn start(message: impl Into<String>) -> Self {
        if !streams::errors_are_seen() {
            return Progress { done: None, thread: None };
        }
        let message = visible_line(&message.into()).into_owned();
        let (done, is_done) = mpsc::channel::<()>();
        let show = move || {
            let mut pause = Duration::from_secs(1);
            for step in STEPS.into_iter().cycle() {
                if is_done.recv_timeout(pause) != Err(mpsc::RecvTimeoutError::Timeout) {
                    break;
                }
                streams::log(format!("{CLEAR}{step} {message}").into_bytes());
                pause = Duration::from_millis(100);
            }
            if pause < Duration::from_secs(1) {
                streams::log(CLEAR.as_bytes().to_vec());
            }
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
