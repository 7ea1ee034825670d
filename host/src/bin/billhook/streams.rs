//! The standard streams: answers go to standard output, everything else to standard error, and neither decides over the work.
//!
//! Plugins in this process may write to standard output and to standard error, or close them. So what this command itself writes
//! has descriptors of its own, and what plugins write goes through a pipe to the log: a plugin never waits for whoever reads that.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, IsTerminal, Read as _, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::Stdio,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use billhook::{visible, visible_json};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::{fcntl_dupfd_cloexec, ioctl_fionread},
};

use crate::log_queue::{LogQueue, PENDING, write_whole};

/// What plugins write on one line is cut into pieces of so many bytes.
const LONGEST_LINE: u64 = 8 * 1024;

static STREAMS: OnceLock<Streams> = OnceLock::new();
/// An answer could not be written.
static IS_UNREAD: AtomicBool = AtomicBool::new(false);

struct Streams {
    answers: Mutex<File>,
    errors: File,
    queue: LogQueue,
    /// The end of the pipe from which the thread reads what plugins write.
    of_plugins: OwnedFd,
    reader: JoinHandle<()>,
}

/// Where what plugins write to the standard streams goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Printed {
    /// To standard error, as it is: whoever runs a command wants to see it.
    AsItIs,
    /// Into the log, with what a line of it has.
    Logged,
}

/// Takes the standard streams. To be called once, before anything is written and before a plugin is loaded.
pub(crate) fn take(printed: Printed) -> anyhow::Result<()> {
    let own = |stream: BorrowedFd<'_>| fcntl_dupfd_cloexec(stream, 3);
    let answers = File::from(own(io::stdout().as_fd())?);
    let errors = File::from(own(io::stderr().as_fd())?);
    let queue = LogQueue::start(errors.try_clone()?, |lost, problem| {
        tracing::warn!(target: "billhook::log", lost, "lines of the log were lost: {problem}");
    })
    .context(NO_THREAD)?;
    let (of_plugins, to_log) = io::pipe()?;
    let of_plugins = OwnedFd::from(of_plugins);
    // Read by a crash, too, which must not wait.
    rustix::io::ioctl_fionbio(&of_plugins, true)?;
    let pipe = File::from(of_plugins.try_clone()?);
    let read = move || read_plugins(pipe, printed);
    let reader = thread::Builder::new().name("billhook-printed".to_owned()).spawn(read).context(NO_THREAD)?;
    rustix::stdio::dup2_stdout(&to_log)?;
    rustix::stdio::dup2_stderr(&to_log)?;
    billhook::keep_last_words(of_plugins.try_clone()?, own(errors.as_fd())?, &PENDING)?;
    let streams = Streams { answers: Mutex::new(answers), errors, queue, of_plugins, reader };
    ensure!(STREAMS.set(streams).is_ok(), "the standard streams are taken already");
    Ok(())
}

/// Why the command can't do its work, whatever it is.
pub(crate) const NO_THREAD: &str =
    "a thread of the command's can't be started; raise the limit of processes (ulimit -u, TasksMax or pids.max)";

impl Streams {
    fn answers(&self) -> MutexGuard<'_, File> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads what plugins write to the standard streams, to its end.
fn read_plugins(pipe: File, printed: Printed) {
    let mut lines = BufReader::with_capacity(16 * 1024, Waiting { pipe, is_pending: false });
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\n', '\r']);
        match printed {
            Printed::AsItIs => log(format!("{}\n", visible(text)).into_bytes()),
            Printed::Logged => tracing::info!(target: "billhook::printed", "{text}"),
        }
    }
}

/// A pipe that doesn't wait by itself, and is waited for.
struct Waiting {
    pipe: File,
    /// What was read last is not in the queue yet.
    is_pending: bool,
}

impl io::Read for Waiting {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if std::mem::take(&mut self.is_pending) {
                PENDING.fetch_sub(1, Ordering::Relaxed);
            }
            let _ = poll(&mut [PollFd::new(&self.pipe, PollFlags::IN)], None);
            // Before it is read: a crash that finds nothing in the pipe looks at this again.
            PENDING.fetch_add(1, Ordering::SeqCst);
            self.is_pending = true;
            match self.pipe.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

/// Writes an answer to standard output. What can't be written is said on standard error; it changes nothing of the work, nor of
/// the exit code.
pub(crate) fn answer(text: &str) {
    let written = match STREAMS.get() {
        Some(streams) => write_whole(&mut streams.answers(), text.as_bytes()).map_err(|(_, error)| error),
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

/// Shows lost lines among the metrics from now on, also as long as there are none.
#[cfg(feature = "server")]
pub(crate) fn count_lost() {
    metrics::counter!("billhook_log_lines_lost_total").increment(0);
}

/// Puts lines of the log into the queue. Never waits.
pub(crate) fn log(text: Vec<u8>) {
    match STREAMS.get() {
        Some(streams) => streams.queue.push(text),
        // There is nobody left to tell if it is closed.
        None => drop(io::stderr().write_all(&text)),
    }
}

/// Whether a person looks at the answers.
pub(crate) fn answers_are_seen() -> bool {
    STREAMS.get().is_some_and(|streams| streams.answers().is_terminal())
}

/// Whether a person looks at standard error.
pub(crate) fn errors_are_seen() -> bool {
    STREAMS.get().map_or_else(|| io::stderr().is_terminal(), |streams| streams.errors.is_terminal())
}

/// Returns the standard error of a program that is started: the terminal itself, or else the pipe to the log.
pub(crate) fn errors_of_others() -> Stdio {
    let terminal = STREAMS.get().filter(|streams| streams.errors.is_terminal());
    terminal.and_then(|streams| streams.errors.try_clone().ok()).map_or_else(Stdio::inherit, Stdio::from)
}

/// Returns the width of the terminal that shows the answers, in columns.
pub(crate) fn width() -> Option<u16> {
    rustix::termios::tcgetwinsize(&*STREAMS.get()?.answers()).ok().map(|size| size.ws_col)
}

/// How long the last that plugins wrote may take to be read.
const LAST_READ: Duration = Duration::from_millis(500);

/// How long the end waits for whoever reads the log: where nothing is taken, and in all.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Writes what waits to be written, as long as somebody takes it, and not for ever.
pub(crate) fn flush() {
    let Some(streams) = STREAMS.get() else { return };
    // The pipe ends when nothing writes to it any more. What plugins started may go on, and has had its time.
    let _ = (rustix::stdio::dup2_stdout(&streams.errors), rustix::stdio::dup2_stderr(&streams.errors));
    let deadline = Instant::now() + LAST_READ;
    let mut pause = Duration::from_micros(50);
    while !streams.reader.is_finished() && Instant::now() < deadline {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(5));
        if pause >= Duration::from_millis(5) && ioctl_fionread(&streams.of_plugins).is_ok_and(|left| left == 0) {
            break;
        }
    }
    streams.queue.flush(PATIENCE.0, PATIENCE.1);
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
            log(std::mem::take(&mut self.0));
        }
    }
}

/// The same for a line of JSON, in which nothing is hidden.
#[derive(Default)]
pub(crate) struct JsonLine(Line);

impl Write for JsonLine {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for JsonLine {
    fn drop(&mut self) {
        let line = String::from_utf8_lossy(&self.0.0);
        if let std::borrow::Cow::Owned(shown) = visible_json(&line) {
            self.0.0 = shown.into_bytes();
        }
    }
}
