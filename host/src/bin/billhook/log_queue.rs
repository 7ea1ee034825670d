//! Lines of the log on their way to standard error: they wait in a queue of fixed size for a thread that writes them, so that
//! nobody who logs waits for a disk, a terminal or a reader. What can't be written is lost, counted, and told once writing works.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};

/// So many bytes wait to be written at most.
const LARGEST: usize = 4 * 1024 * 1024;

/// So many texts were taken and neither written nor lost yet: what a crash waits for.
pub(crate) static PENDING: AtomicUsize = AtomicUsize::new(0);

/// Says how many lines were lost, by logging it: called on the queue's own thread, once writing works again.
type Tell = fn(lost: u64, problem: &str);

/// The queue before a file. Its thread lasts as long as the process.
pub(crate) struct LogQueue {
    shared: Arc<Shared>,
}

struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    tell: Tell,
}

#[derive(Default)]
struct Waiting {
    texts: VecDeque<Text>,
    bytes: usize,
    is_writing: bool,
    /// So many were written or lost in all: by it is seen whether anything goes on.
    done: u64,
    /// Lines that were lost and not told of yet, and why the last one was.
    lost: u64,
    problem: String,
    /// The thread that writes, as soon as it runs.
    writer: Option<ThreadId>,
    /// What the next text tells of, while the writer logs that.
    telling: u64,
}

struct Text {
    bytes: Vec<u8>,
    /// So many lost lines does it tell of.
    tells_of: u64,
}

impl LogQueue {
    /// Starts the thread that writes.
    pub(crate) fn start(file: File, tell: Tell) -> io::Result<Self> {
        let shared = Arc::new(Shared { waiting: Mutex::default(), changed: Condvar::new(), tell });
        let writing = Arc::clone(&shared);
        let write = move || writing.write_all(&mut Writer { file, is_mid_line: false });
        thread::Builder::new().name("billhook-log".to_owned()).spawn(write)?;
        Ok(LogQueue { shared })
    }

    /// Puts text into the queue; where that is full, the text is lost. Never waits.
    pub(crate) fn push(&self, bytes: Vec<u8>) {
        let mut waiting = self.shared.lock();
        let is_own = waiting.writer == Some(thread::current().id());
        if !is_own && waiting.bytes + bytes.len() > LARGEST {
            waiting.lose(&bytes, "it came faster than it could be written");
            return;
        }
        let tells_of = if is_own { std::mem::take(&mut waiting.telling) } else { 0 };
        PENDING.fetch_add(1, Ordering::Relaxed);
        waiting.bytes += bytes.len();
        waiting.texts.push_back(Text { bytes, tells_of });
        drop(waiting);
        self.shared.changed.notify_all();
    }

    /// Waits until everything was written or lost, as long as that goes on: where nothing was written for `patience`, no longer; and
    /// for a reader that takes little by little, at most for `longest`.
    pub(crate) fn flush(&self, patience: Duration, longest: Duration) {
        let begun = Instant::now();
        let mut waiting = self.shared.lock();
        let (mut seen, mut since) = (waiting.done, Instant::now());
        while !waiting.texts.is_empty() || waiting.is_writing {
            if waiting.done != seen {
                (seen, since) = (waiting.done, Instant::now());
            }
            let left = patience.saturating_sub(since.elapsed()).min(longest.saturating_sub(begun.elapsed()));
            if left.is_zero() {
                return;
            }
            waiting = self.shared.changed.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all(&self, writer: &mut Writer) {
        let mut waiting = self.lock();
        waiting.writer = Some(thread::current().id());
        loop {
            let Some(text) = waiting.texts.pop_front() else {
                waiting.is_writing = false;
                self.changed.notify_all();
                waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            waiting.bytes -= text.bytes.len();
            waiting.is_writing = true;
            drop(waiting);
            let written = writer.write(&text.bytes);
            PENDING.fetch_sub(1, Ordering::Relaxed);
            waiting = self.lock();
            waiting.done += 1;
            match written {
                Ok(()) if waiting.lost > 0 => {
                    let (lost, problem) = (std::mem::take(&mut waiting.lost), std::mem::take(&mut waiting.problem));
                    waiting.telling = lost;
                    drop(waiting);
                    (self.tell)(lost, &problem);
                    waiting = self.lock();
                    waiting.telling = 0;
                }
                Ok(()) => {}
                Err(error) => {
                    waiting.lose(&text.bytes, &error.to_string());
                    waiting.lost += text.tells_of;
                }
            }
            self.changed.notify_all();
        }
    }
}

impl Waiting {
    fn lose(&mut self, text: &[u8], problem: &str) {
        let lines = text.iter().filter(|byte| **byte == b'\n').count().max(1) as u64;
        self.lost += lines;
        self.problem.clear();
        self.problem.push_str(problem);
        metrics::counter!("billhook_log_lines_lost_total").increment(lines);
    }
}

/// Writes to a file that may be anything.
struct Writer {
    file: File,
    /// Writing failed in the middle of a line: the next text begins another.
    is_mid_line: bool,
}

impl Writer {
    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        if self.is_mid_line {
            write_whole(&mut self.file, b"\n").map_err(|(_, error)| error)?;
            self.is_mid_line = false;
        }
        write_whole(&mut self.file, text).map_err(|(written, error)| {
            self.is_mid_line = written > 0;
            error
        })
    }
}

/// Writes all of it, and waits where the file says that it can't take it now: others may have made it one that doesn't wait by
/// itself. An error comes with how much was written.
pub(crate) fn write_whole(file: &mut File, bytes: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        match file.write(&bytes[written..]) {
            Ok(0) => return Err((written, io::ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let _ = poll(&mut [PollFd::new(file, PollFlags::OUT)], None);
            }
            Err(error) => return Err((written, error)),
        }
    }
    Ok(())
}
