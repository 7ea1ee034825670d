//! The standard streams: answers go to standard output, everything else to standard error, and neither decides over the work.
//!
//! Plugins in this process may write to standard output and to standard error, or close them. So what this command itself writes
//! has descriptors of its own. What plugins write goes to the log; where that is no terminal, through a pipe, so that a plugin
//! never waits for whoever reads the log.
//!
//! Lines of the log wait in a queue of fixed size for a thread that writes them. What can't be written, because the reader is slow
//! or gone or the disk is full, is lost and counted.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::OwnedFd,
    sync::{
        Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::io::fcntl_dupfd_cloexec;

/// So many bytes of the log wait to be written at most.
const LARGEST_QUEUE: usize = 4 * 1024 * 1024;

static STREAMS: OnceLock<Streams> = OnceLock::new();
/// An answer could not be written.
static IS_UNREAD: AtomicBool = AtomicBool::new(false);
/// So many lines of the log were lost in all.
static LOST: AtomicU64 = AtomicU64::new(0);

struct Streams {
    answers: Mutex<File>,
    errors: File,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    texts: VecDeque<Vec<u8>>,
    bytes: usize,
    is_writing: bool,
    /// What plugins write to standard error is read to its end.
    is_read: bool,
    /// Lines that were lost since the log was written last.
    lost: u64,
}

/// Takes the standard streams. To be called once, before anything is written and before a plugin is loaded.
pub(crate) fn take() -> io::Result<()> {
    let own = |stream: io::Result<OwnedFd>| stream.map(File::from);
    let answers = own(fcntl_dupfd_cloexec(io::stdout(), 3).map_err(Into::into))?;
    let errors = own(fcntl_dupfd_cloexec(io::stderr(), 3).map_err(Into::into))?;
    let is_terminal = errors.is_terminal();
    let queue = Mutex::new(Queue { is_read: is_terminal, ..Queue::default() });
    let streams = Streams { answers: Mutex::new(answers), errors, queue, changed: Condvar::new() };
    let streams = STREAMS.get_or_init(|| streams);
    thread::Builder::new().name("billhook-log".to_owned()).spawn(|| streams.write_log())?;
    if is_terminal {
        rustix::stdio::dup2_stdout(&streams.errors)?;
    } else {
        let (of_plugins, to_log) = io::pipe()?;
        thread::Builder::new().name("billhook-stderr".to_owned()).spawn(|| streams.read_plugins(of_plugins))?;
        rustix::stdio::dup2_stdout(&to_log)?;
        rustix::stdio::dup2_stderr(&to_log)?;
    }
    Ok(())
}

impl Streams {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, text: Vec<u8>) {
        let mut queue = self.queue();
        if queue.bytes + text.len() > LARGEST_QUEUE {
            queue.lose(&text);
            return;
        }
        queue.bytes += text.len();
        queue.texts.push_back(text);
        drop(queue);
        self.changed.notify_all();
    }

    fn write_log(&self) {
        let mut queue = self.queue();
        loop {
            let Some(text) = queue.texts.pop_front() else {
                queue.is_writing = false;
                self.changed.notify_all();
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            queue.bytes -= text.len();
            queue.is_writing = true;
            let lost = queue.lost;
            drop(queue);
            let written = (&self.errors).write_all(&text);
            let is_told = written.is_ok()
                && lost > 0
                && writeln!(&self.errors, "{}", serde_json::json!({ "level": "WARN", "lost_log_lines": lost })).is_ok();
            queue = self.queue();
            if written.is_err() {
                queue.lose(&text);
            } else if is_told {
                queue.lost -= lost;
            }
        }
    }

    fn read_plugins(&self, mut from: io::PipeReader) {
        let mut buffer = [0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            self.push(buffer[..length].to_vec());
        }
        self.queue().is_read = true;
        self.changed.notify_all();
    }
}

impl Queue {
    fn lose(&mut self, text: &[u8]) {
        let lines = text.iter().filter(|byte| **byte == b'\n').count().max(1) as u64;
        self.lost += lines;
        LOST.fetch_add(lines, Ordering::Relaxed);
        metrics::counter!("billhook_log_lines_lost_total").increment(lines);
    }
}

/// Writes an answer to standard output. What can't be written is said on standard error; it changes nothing of the work, nor of
/// the exit code.
pub(crate) fn answer(text: &str) {
    let written = match STREAMS.get() {
        Some(streams) => {
            let mut answers = streams.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.write_all(text.as_bytes())
        }
        None => io::stdout().write_all(text.as_bytes()),
    };
    if let Err(error) = written
        && !IS_UNREAD.swap(true, Ordering::Relaxed)
        // Whoever read the answer has read enough.
        && error.kind() != io::ErrorKind::BrokenPipe
    {
        log(format!("warning: the answer can't be written to standard output: {error}\n").into_bytes());
    }
}

/// Whether nobody reads the answers any more.
pub(crate) fn is_unread() -> bool {
    IS_UNREAD.load(Ordering::Relaxed)
}

/// Puts lines of the log into the queue. Never waits.
pub(crate) fn log(text: Vec<u8>) {
    match STREAMS.get() {
        Some(streams) => streams.push(text),
        // There is nobody left to tell if it is closed.
        None => drop(io::stderr().write_all(&text)),
    }
}

/// Whether a person looks at the answers.
pub(crate) fn answers_are_seen() -> bool {
    STREAMS.get().is_some_and(|streams| streams.answers.lock().unwrap_or_else(PoisonError::into_inner).is_terminal())
}

/// Whether a person looks at standard error.
pub(crate) fn errors_are_seen() -> bool {
    STREAMS.get().map_or_else(|| io::stderr().is_terminal(), |streams| streams.errors.is_terminal())
}

/// Returns the width of the terminal that shows the answers, in columns.
pub(crate) fn width() -> Option<u16> {
    let streams = STREAMS.get()?;
    let answers = streams.answers.lock().unwrap_or_else(PoisonError::into_inner);
    rustix::termios::tcgetwinsize(&*answers).ok().map(|size| size.ws_col)
}

/// Writes what waits to be written, as far as that goes in a time.
pub(crate) fn flush(limit: Duration) {
    let Some(streams) = STREAMS.get() else { return };
    // The pipe ends when nothing writes to it any more.
    let _ = (rustix::stdio::dup2_stdout(&streams.errors), rustix::stdio::dup2_stderr(&streams.errors));
    let deadline = Instant::now() + limit;
    let mut queue = streams.queue();
    while !queue.texts.is_empty() || queue.is_writing || !queue.is_read {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        queue = streams.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Collects a line of the log, which goes into the queue as a whole.
#[derive(Default)]
pub(crate) struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.0.is_empty() {
            let line = String::from_utf8_lossy(&self.0);
            // Colours are the log's own; what others say in it was made visible before.
            let shown = if errors_are_seen() { line } else { billhook::visible(&line).into_owned().into() };
            log(shown.into_owned().into_bytes());
        }
    }
}
