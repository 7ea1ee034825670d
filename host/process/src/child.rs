//! A child below a supervisor, from the side of the host.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    process::{Child, ChildStderr, Command, ExitStatus},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid},
};

use crate::{starter, wait_until};

/// How long a supervisor may take to end everything that its child started.
const HARD_END: Duration = Duration::from_secs(10);

/// A child whose supervisor ends everything that it started when it is asked to, when the child ends, and when this process ends.
/// Any thread may end it while another waits for it. It has to be reaped.
#[derive(Debug)]
pub struct SupervisedChild(Mutex<Held>);

/// A child, and whether its number may be another process's by now.
#[derive(Debug)]
struct Held {
    child: Child,
    is_reaped: bool,
}

impl SupervisedChild {
    /// Starts a child. What it starts as has to begin with [`split`](crate::split).
    ///
    /// # Errors
    /// The system gives no process or no thread, or the program can't be run.
    pub fn spawn(command: Command) -> io::Result<Self> {
        let child = starter::spawn(command)?;
        Ok(SupervisedChild(Mutex::new(Held { child, is_reaped: false })))
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of its process, which is the supervisor's.
    pub fn id(&self) -> u32 {
        self.held().child.id()
    }

    /// Takes the pipe of its standard error, if it has one that wasn't taken yet.
    pub fn take_stderr(&self) -> Option<ChildStderr> {
        self.held().child.stderr.take()
    }

    /// Asks the supervisor to end the child and everything that it started. It may take a moment; see [`SupervisedChild::reap`].
    pub fn end(&self) {
        let mut held = self.held();
        if !held.has_ended()
            && let Some(pid) = pid(&held.child)
        {
            let _ = kill_process(pid, Signal::TERM);
            // A process that was stopped takes no other signal.
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    /// Waits until the child ended, and everything that it started. Returns `false` at the deadline.
    pub fn wait(&self, deadline: Instant) -> bool {
        wait_until(deadline, || self.held().has_ended())
    }

    /// Waits until the child ended, and ends it for good if that takes too long: then what it started may be left. Returns how it
    /// ended, where that is known.
    pub fn reap(&self) -> Option<ExitStatus> {
        let has_ended = self.wait(Instant::now() + HARD_END);
        let mut held = self.held();
        if !has_ended {
            if let Some(group) = pid(&held.child) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = held.child.kill();
        }
        let status = held.child.wait().ok();
        held.is_reaped = true;
        status
    }
}

impl Held {
    /// Whether the child ended. It is not reaped yet, so that its number is still its own.
    fn has_ended(&mut self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // A child that can't be waited for is none any more.
        self.is_reaped || pid(&self.child).is_none_or(|pid| !matches!(waitid(WaitId::Pid(pid), options), Ok(None)))
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// Returns how a process ended, as a sentence about `it`: the signal or the exit code, and the last lines that it wrote to standard
/// error.
pub fn how_it_ended(it: &str, status: ExitStatus, errors: &str) -> String {
    let how = match (status.signal(), status.code()) {
        (Some(signal), _) => format!("{it} was ended by signal {signal}{}", signal_name(signal)),
        (None, Some(code)) => format!("{it} ended its process with exit code {code}"),
        (None, None) => "its process ended".to_owned(),
    };
    let mut last: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty()).rev().take(3).collect();
    last.reverse();
    if last.is_empty() { how } else { format!("{how}; it wrote last: {}", last.join(" / ")) }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        libc::SIGILL => " (SIGILL)",
        libc::SIGABRT => " (SIGABRT)",
        libc::SIGBUS => " (SIGBUS)",
        libc::SIGFPE => " (SIGFPE)",
        libc::SIGKILL => " (SIGKILL)",
        libc::SIGSEGV => " (SIGSEGV)",
        libc::SIGTERM => " (SIGTERM)",
        _ => "",
    }
}

/// Whether the system lacked threads, processes, memory or descriptors for something: it may have them in a moment.
pub fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE))
}
