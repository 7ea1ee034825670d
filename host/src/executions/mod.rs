//! The execution log: every call of every listener, in a file that can be searched.
//!
//! Who calls a hook only puts a note into a queue of fixed length; a thread writes what is there, many at once. Where the queue
//! is full, the note is dropped and counted. Deliveries wait for nobody, and their notes are written with what became of them.

#[cfg(any(feature = "command", feature = "server"))]
mod moment;
mod search;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rusqlite::{Connection, TransactionBehavior, params};
use serde::Serialize;

#[cfg(any(feature = "command", feature = "server"))]
pub use moment::parse_moment;
pub use search::ExecutionFilter;

use crate::{
    database::{self, DatabaseError, Durability, now_ms},
    events::ListenerKind,
};

/// How a call ended.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExecutionStatus {
    /// It went through.
    Success,
    /// The listener forbade, or refused.
    Forbidden,
    /// It failed.
    Failed,
    /// It didn't end in time: nobody knows what it did.
    TimedOut,
    /// It was cut off otherwise: nobody knows what it did.
    Unknown,
}

impl ExecutionStatus {
    /// Each of them.
    pub const ALL: &[ExecutionStatus] = &[
        ExecutionStatus::Success,
        ExecutionStatus::Forbidden,
        ExecutionStatus::Failed,
        ExecutionStatus::TimedOut,
        ExecutionStatus::Unknown,
    ];

    /// The name in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            ExecutionStatus::Success => "success",
            ExecutionStatus::Forbidden => "forbidden",
            ExecutionStatus::Failed => "failed",
            ExecutionStatus::TimedOut => "timed out",
            ExecutionStatus::Unknown => "unknown",
        }
    }

    fn code(self) -> i64 {
        self as i64
    }

    fn of(code: i64) -> Self {
        let known = usize::try_from(code).ok().and_then(|code| Self::ALL.get(code));
        known.copied().unwrap_or(ExecutionStatus::Unknown)
    }
}

/// One call of one listener.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Execution {
    /// Its number in the log.
    pub id: i64,
    /// When it ended, in milliseconds since 1970.
    pub date: i64,
    /// The event, or the hook that was called.
    pub event: String,
    /// The object that it was about; empty where it was about none.
    pub object_id: String,
    /// What kind of listener was called.
    pub kind: ListenerKind,
    /// The handler's name or the plugin's id.
    pub listener: String,
    /// Which attempt it was.
    pub attempt: u32,
    /// How it ended.
    pub status: ExecutionStatus,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The beginning of what a handler answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// The delivery that it was an attempt of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<i64>,
}

/// A call that is to be noted.
#[derive(Debug)]
pub(crate) struct Note {
    pub(crate) at: SystemTime,
    /// The event's name; hooks' names are never copied.
    pub(crate) event: Name,
    pub(crate) object: String,
    pub(crate) kind: ListenerKind,
    pub(crate) listener: Arc<str>,
    pub(crate) attempt: u32,
    pub(crate) status: ExecutionStatus,
    pub(crate) error: Option<String>,
    pub(crate) response: String,
    pub(crate) took: Duration,
    pub(crate) delivery: Option<i64>,
}

/// The name of an event.
#[derive(Debug)]
pub(crate) enum Name {
    Hook(&'static str),
    Event(String),
}

impl Name {
    fn as_str(&self) -> &str {
        match self {
            Name::Hook(name) => name,
            Name::Event(name) => name,
        }
    }
}

/// How much of the log is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    pub(crate) age: Duration,
    pub(crate) bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { age: Duration::from_secs(30 * 86_400), bytes: 1024 * 1024 * 1024 }
    }
}

/// Why the log can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the execution log (executions.db in the home) failed: {0}")]
pub struct ExecutionLogError(#[from] DatabaseError);

impl ExecutionLogError {
    /// Whether it is a search that took too long, and nothing is wrong.
    pub fn is_too_long(&self) -> bool {
        matches!(self.0, DatabaseError::TooLong(_))
    }
}

impl From<rusqlite::Error> for ExecutionLogError {
    fn from(error: rusqlite::Error) -> Self {
        ExecutionLogError(error.into())
    }
}

const FORMATS: [&str; 1] = ["
CREATE TABLE execution (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    -- In milliseconds since 1970.
    date INTEGER NOT NULL,
    event TEXT NOT NULL,
    object TEXT NOT NULL,
    kind TEXT NOT NULL,
    listener TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    status INTEGER NOT NULL,
    error TEXT,
    response TEXT,
    duration_us INTEGER NOT NULL,
    delivery INTEGER
) STRICT;
CREATE INDEX execution_date ON execution (date);
CREATE INDEX execution_listener ON execution (listener, id);
CREATE INDEX execution_object ON execution (object, id);
CREATE INDEX execution_delivery ON execution (delivery) WHERE delivery IS NOT NULL;

CREATE TABLE dropped (
    -- Calls that were not noted, because there were too many: how many, until when, in milliseconds since 1970.
    date INTEGER NOT NULL,
    count INTEGER NOT NULL
) STRICT;
"];

struct Open {
    writer: Mutex<Connection>,
    /// Searching may take long, and holds up nobody who writes: deliveries are settled behind what is noted of them.
    searcher: Mutex<Connection>,
}

/// The log of a home. Opened when it is first needed.
pub(crate) struct ExecutionLog {
    path: PathBuf,
    retention: Retention,
    open: OnceLock<Open>,
    opening: Mutex<()>,
    /// How many executions could not be written.
    lost: AtomicU64,
    /// Another process held the file for longer than it was waited for.
    is_held_up: AtomicBool,
}

/// How long a write waits for another process's transaction.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where the last one waited in vain.
const MOMENT: Duration = Duration::from_millis(20);

impl ExecutionLog {
    pub(crate) fn new(home: &Path, retention: Retention) -> Self {
        let path = home.join("executions.db");
        let (open, opening, lost) = (OnceLock::new(), Mutex::new(()), AtomicU64::new(0));
        ExecutionLog { path, retention, open, opening, lost, is_held_up: AtomicBool::new(false) }
    }

    /// Whether there is one on disk: until something was called, there is nothing in it.
    fn exists(&self) -> bool {
        self.open.get().is_some() || self.path.exists()
    }

    fn open(&self) -> Result<&Open, ExecutionLogError> {
        if self.open.get().is_none() {
            let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
            if self.open.get().is_none() {
                let mut writer = database::connect(&self.path, Durability::Process)?;
                database::prepare(&mut writer, &self.path, &FORMATS)?;
                writer.busy_timeout(PATIENCE)?;
                let searcher = database::connect(&self.path, Durability::Process)?;
                let _ = self.open.set(Open { writer: Mutex::new(writer), searcher: Mutex::new(searcher) });
            }
        }
        Ok(self.open.get().ok_or(rusqlite::Error::InvalidQuery)?)
    }

    fn writer(&self) -> Result<MutexGuard<'_, Connection>, ExecutionLogError> {
        Ok(self.open()?.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn searcher(&self) -> Result<MutexGuard<'_, Connection>, ExecutionLogError> {
        Ok(self.open()?.searcher.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes notes, and how many were dropped before them.
    ///
    /// Deliveries are settled behind their notes. So another process that stands still in the middle of a change is waited for once;
    /// until a write succeeds again, each is tried for a moment only.
    pub(crate) fn write(&self, notes: &[Note], dropped: u64) -> Result<(), ExecutionLogError> {
        let mut connection = self.writer()?;
        let written = self.write_with(&mut connection, notes, dropped);
        let is_busy = written.as_ref().is_err_and(|error| error.0.is_busy());
        if self.is_held_up.swap(is_busy, Ordering::Relaxed) != is_busy {
            connection.busy_timeout(if is_busy { MOMENT } else { PATIENCE })?;
        }
        written
    }

    fn write_with(&self, connection: &mut Connection, notes: &[Note], dropped: u64) -> Result<(), ExecutionLogError> {
        let lost = self.lost.load(Ordering::Relaxed);
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO execution (date, event, object, kind, listener, attempt, status, error, response, duration_us,
                                        delivery)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?;
            for note in notes {
                let date = note.at.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
                insert.execute(params![
                    i64::try_from(date).unwrap_or(i64::MAX),
                    note.event.as_str(),
                    note.object,
                    note.kind.name(),
                    &*note.listener,
                    note.attempt,
                    note.status.code(),
                    note.error,
                    (!note.response.is_empty()).then_some(&note.response),
                    i64::try_from(note.took.as_micros()).unwrap_or(i64::MAX),
                    note.delivery
                ])?;
            }
            let dropped = dropped + lost;
            if dropped > 0 {
                let dropped = i64::try_from(dropped).unwrap_or(i64::MAX);
                transaction.execute("INSERT INTO dropped (date, count) VALUES (?1, ?2)", [now_ms(), dropped])?;
            }
        }
        transaction.commit()?;
        self.lost.fetch_sub(lost, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes what is too old, and the oldest while the file is too large. `now` is in milliseconds since 1970, by a clock that
    /// nobody sets: one that is wrong for a while deletes nothing.
    pub(crate) fn trim(&self, now: i64) -> Result<(), ExecutionLogError> {
        if !self.exists() {
            return Ok(());
        }
        // In short steps, between which others get their turn.
        while self.trim_some(now)? {}
        Ok(())
    }

    /// Deletes some of what is too old or too much. Answers whether there is more.
    fn trim_some(&self, now: i64) -> Result<bool, ExecutionLogError> {
        const AT_ONCE: usize = 20_000;
        let before = now.saturating_sub(i64::try_from(self.retention.age.as_millis()).unwrap_or(i64::MAX));
        let mut connection = self.writer()?;
        let size: i64 = connection.query_row(
            "SELECT (page_count - freelist_count) * page_size
             FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
            (),
            |row| row.get(0),
        )?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut deleted = transaction.execute(
            "DELETE FROM execution WHERE id IN (SELECT id FROM execution WHERE date < ?1 ORDER BY date LIMIT 20000)",
            [before],
        )?;
        transaction.execute("DELETE FROM dropped WHERE date < ?1", [before])?;
        let is_too_large = size.unsigned_abs() > self.retention.bytes;
        if is_too_large && deleted == 0 {
            deleted = transaction
                .execute("DELETE FROM execution WHERE id IN (SELECT id FROM execution ORDER BY id LIMIT 20000)", ())?;
        }
        transaction.commit()?;
        Ok(deleted >= AT_ONCE || (is_too_large && deleted > 0))
    }

    /// Counts executions that could not be written.
    pub(crate) fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }
}

/// Notes calls of hooks without holding them up.
pub(crate) struct Recorder {
    queue: SyncSender<Note>,
    dropped: Arc<AtomicU64>,
    is_ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// So many notes wait to be written at most.
const LONGEST_QUEUE: usize = 16 * 1024;
/// How often they are written. The writer isn't woken by a note: waking costs the caller more than noting does.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the log is trimmed.
const TRIMMED: Duration = Duration::from_secs(60);

impl Recorder {
    /// Starts the thread that writes.
    pub(crate) fn start(log: Arc<ExecutionLog>) -> std::io::Result<Self> {
        let (queue, notes) = sync_channel(LONGEST_QUEUE);
        let (dropped, is_ended) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, end) = (Arc::clone(&dropped), Arc::clone(&is_ended));
        let run = move || write_all(&log, &notes, &count, &end);
        let thread = thread::Builder::new().name("billhook-executions".to_owned()).spawn(run)?;
        Ok(Recorder { queue, dropped, is_ended, thread: Some(thread) })
    }

    /// Notes a call. Never waits.
    #[inline]
    pub(crate) fn note(&self, note: Note) {
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.is_ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // What was noted is written before the host is gone.
            let _ = thread.join();
        }
    }
}

fn write_all(log: &ExecutionLog, notes: &Receiver<Note>, dropped: &AtomicU64, is_ended: &AtomicBool) {
    let mut batch = Vec::new();
    let mut trimmed: Option<Instant> = None;
    loop {
        // Asked before the queue is emptied: what was noted before the end is still there then.
        let ended = is_ended.load(Ordering::Relaxed);
        let is_open = loop {
            match notes.try_recv() {
                Ok(note) if batch.len() < LONGEST_QUEUE => batch.push(note),
                Ok(note) => {
                    batch.push(note);
                    break true;
                }
                Err(TryRecvError::Empty) => break true,
                Err(TryRecvError::Disconnected) => break false,
            }
        };
        let lost = dropped.swap(0, Ordering::Relaxed);
        if !batch.is_empty() || lost > 0 {
            if let Err(error) = log.write(&batch, lost) {
                tracing::error!("{} executions are not in the log: {error}", batch.len());
                dropped.fetch_add(lost + batch.len() as u64, Ordering::Relaxed);
            }
            batch.clear();
        }
        if ended || !is_open {
            return;
        }
        if trimmed.is_none_or(|at| at.elapsed() >= TRIMMED) {
            trimmed = Some(Instant::now());
            if let Err(error) = log.trim(now_ms()) {
                tracing::warn!("the execution log can't be trimmed: {error}");
            }
        }
        thread::park_timeout(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(event: &str, age: Duration) -> Note {
        Note {
            at: SystemTime::now() - age,
            event: Name::Event(event.to_owned()),
            object: "o".to_owned(),
            kind: ListenerKind::Handler,
            listener: "l".into(),
            attempt: 1,
            status: ExecutionStatus::Success,
            error: None,
            response: "x".repeat(2_000),
            took: Duration::from_millis(1),
            delivery: None,
        }
    }

    fn log(retention: Retention) -> (tempfile::TempDir, Arc<ExecutionLog>) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Arc::new(ExecutionLog::new(folder.path(), retention));
        (folder, log)
    }

    #[test]
    fn what_is_old_or_too_much_is_deleted_the_oldest_first() {
        let (_folder, log) = log(Retention { age: Duration::from_secs(100), bytes: 1024 * 1024 });
        log.write(&[note("old", Duration::from_secs(200)), note("new", Duration::ZERO)], 3).expect("written");
        log.trim(now_ms()).expect("trimmed");
        let found = log.search(&ExecutionFilter::default()).expect("found");
        assert_eq!(found.iter().map(|entry| entry.event.as_str()).collect::<Vec<_>>(), ["new"]);
        assert_eq!(log.dropped().expect("counted"), 3);

        let many: Vec<Note> = (0..50_000).map(|_| note("many", Duration::ZERO)).collect();
        for some in many.chunks(5_000) {
            log.write(some, 0).expect("written");
            log.trim(now_ms()).expect("trimmed");
        }
        let found = log.search(&ExecutionFilter::default()).expect("found");
        assert!(found.len() < 5_000, "{}", found.len());
        log.write(&many[..100], 0).expect("written");
        log.trim(now_ms()).expect("trimmed");
        assert!(log.search(&ExecutionFilter::default()).expect("found").len() >= 100, "the newest are left");
    }

    #[test]
    fn notes_never_wait_and_what_is_dropped_is_counted() {
        let (_folder, log) = log(Retention::default());
        // Nobody empties the queue meanwhile.
        let (queue, notes) = sync_channel(10);
        let dropped = Arc::new(AtomicU64::new(0));
        let is_ended = Arc::new(AtomicBool::new(true));
        let recorder = Recorder { queue, dropped: Arc::clone(&dropped), is_ended: Arc::clone(&is_ended), thread: None };
        (0..25).for_each(|_| recorder.note(note("a", Duration::ZERO)));
        write_all(&log, &notes, &dropped, &is_ended);
        assert_eq!(log.search(&ExecutionFilter::default()).expect("found").len(), 10);
        assert_eq!(log.dropped().expect("counted"), 15);
    }
}
