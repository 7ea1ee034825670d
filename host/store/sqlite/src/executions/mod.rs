//! The execution log, in a file of its own for each home: its commits survive the process only, and wait for nobody.

mod search;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use billhook_model::{Clock, Execution, ExecutionFilter, Moment};
use billhook_store::{ExecutionLog, ExecutionNote, Kept, Result, Retention, StoreErrorKind};
use rusqlite::{Connection, params};

use crate::{
    failure::{Step, commit},
    file::{Durability, FileSpec, begin},
};

/// The file of executions.
const EXECUTIONS: FileSpec =
    FileSpec { kept: Kept::ExecutionLog, name: "the execution log", formats: &[FORMAT_1_0], grows_alone: false };

const FORMAT_1_0: &str = "
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
";

struct Open {
    writer: Mutex<Connection>,
    /// Searching may take long, and holds up nobody who writes: deliveries are settled behind what is noted of them.
    searcher: Mutex<Connection>,
}

/// The log of a home. Opened when it is first needed.
pub(crate) struct SqliteExecutionLog {
    path: PathBuf,
    retention: Retention,
    clock: Arc<dyn Clock>,
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

/// Tells what fails as the log's.
fn told<T>(step: impl FnOnce() -> Step<T>) -> Result<T> {
    step().map_err(|failure| failure.of(Kept::ExecutionLog))
}

/// The longest that a search may take.
const LONGEST_SEARCH: Duration = Duration::from_secs(5);

impl SqliteExecutionLog {
    pub(crate) fn new(home: &Path, retention: Retention, clock: Arc<dyn Clock>) -> Self {
        let path = home.join("executions.db");
        let (open, opening, lost) = (OnceLock::new(), Mutex::new(()), AtomicU64::new(0));
        SqliteExecutionLog { path, retention, clock, open, opening, lost, is_held_up: AtomicBool::new(false) }
    }

    /// Whether there is one on disk: until something was called, there is nothing in it.
    fn exists(&self) -> bool {
        self.open.get().is_some() || self.path.exists()
    }

    fn open(&self) -> Result<&Open> {
        if let Some(open) = self.open.get() {
            return Ok(open);
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = self.open.get() {
            return Ok(open);
        }
        let writer = EXECUTIONS.open(&self.path, Durability::Process)?.connection;
        told(|| Ok(writer.busy_timeout(PATIENCE)?))?;
        let searcher = EXECUTIONS.connect(&self.path, Durability::Process)?;
        Ok(self.open.get_or_init(|| Open { writer: Mutex::new(writer), searcher: Mutex::new(searcher) }))
    }

    fn writer(&self) -> Result<MutexGuard<'_, Connection>> {
        Ok(self.open()?.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn searcher(&self) -> Result<MutexGuard<'_, Connection>> {
        Ok(self.open()?.searcher.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write_with(&self, connection: &mut Connection, notes: &[ExecutionNote], dropped: u64) -> Step<()> {
        let lost = self.lost.load(Ordering::Relaxed);
        let transaction = begin(connection)?;
        {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO execution (date, event, object, kind, listener, attempt, status, error, response, duration_us,
                                        delivery)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?;
            for note in notes {
                insert.execute(params![
                    note.at.millis().max(0),
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
                let now = self.clock.now().millis();
                transaction.execute("INSERT INTO dropped (date, count) VALUES (?1, ?2)", [now, dropped])?;
            }
        }
        commit(transaction)?;
        self.lost.fetch_sub(lost, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes some of what is too old or too much. Returns whether there is more.
    fn trim_some(&self, now: Moment) -> Result<bool> {
        /// So many at once.
        const MOST: usize = 20_000;
        let before = now.before(self.retention.age).millis();
        let mut connection = self.writer()?;
        told(|| {
            let size: i64 = connection.query_row(
                "SELECT (page_count - freelist_count) * page_size
                 FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
                (),
                |row| row.get(0),
            )?;
            let transaction = begin(&mut connection)?;
            let mut deleted = transaction.execute(
                "DELETE FROM execution WHERE id IN (SELECT id FROM execution WHERE date < ?1 ORDER BY date LIMIT ?2)",
                params![before, MOST as i64],
            )?;
            transaction.execute("DELETE FROM dropped WHERE date < ?1", [before])?;
            let is_too_large = size.unsigned_abs() > self.retention.bytes;
            if is_too_large && deleted == 0 {
                let delete = "DELETE FROM execution WHERE id IN (SELECT id FROM execution ORDER BY id LIMIT ?1)";
                deleted = transaction.execute(delete, [MOST as i64])?;
            }
            commit(transaction)?;
            Ok(deleted >= MOST || (is_too_large && deleted > 0))
        })
    }
}

impl ExecutionLog for SqliteExecutionLog {
    fn write(&self, notes: &[ExecutionNote], dropped: u64) -> Result<()> {
        let mut connection = self.writer()?;
        let written = told(|| self.write_with(&mut connection, notes, dropped));
        let is_busy = written.as_ref().is_err_and(|error| error.kind() == StoreErrorKind::Busy);
        if self.is_held_up.swap(is_busy, Ordering::Relaxed) != is_busy {
            told(|| Ok(connection.busy_timeout(if is_busy { MOMENT } else { PATIENCE })?))?;
        }
        written
    }

    fn lose(&self, count: u64) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    fn search(&self, filter: &ExecutionFilter) -> Result<Vec<Execution>> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        self.search_for(filter, LONGEST_SEARCH)
    }

    fn dropped(&self) -> Result<u64> {
        if !self.exists() {
            return Ok(0);
        }
        let connection = self.searcher()?;
        let sum = "SELECT coalesce(sum(count), 0) FROM dropped";
        told(|| Ok(connection.query_row(sum, (), |row| row.get::<_, i64>(0))?.unsigned_abs()))
    }

    fn trim(&self, now: Moment) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        while self.trim_some(now)? {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use billhook_machine::MachineClock;
    use billhook_model::{ExecutionStatus, ListenerKind};
    use billhook_store::CalledName;

    use super::*;

    fn note(event: &str, age: Duration) -> ExecutionNote {
        ExecutionNote {
            at: MachineClock.now().before(age),
            event: CalledName::Event(event.to_owned()),
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

    fn log(retention: Retention) -> (tempfile::TempDir, SqliteExecutionLog) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = SqliteExecutionLog::new(folder.path(), retention, Arc::new(MachineClock));
        (folder, log)
    }

    #[test]
    fn what_is_old_or_too_much_is_deleted_the_oldest_first() {
        let (_folder, log) = log(Retention { age: Duration::from_secs(100), bytes: 1024 * 1024 });
        log.write(&[note("old", Duration::from_secs(200)), note("new", Duration::ZERO)], 3).expect("written");
        log.trim(MachineClock.now()).expect("trimmed");
        let found = log.search(&ExecutionFilter::default()).expect("found");
        assert_eq!(found.iter().map(|entry| entry.event.as_str()).collect::<Vec<_>>(), ["new"]);
        assert_eq!(log.dropped().expect("counted"), 3);

        let many: Vec<ExecutionNote> = (0..50_000).map(|_| note("many", Duration::ZERO)).collect();
        for some in many.chunks(5_000) {
            log.write(some, 0).expect("written");
            log.trim(MachineClock.now()).expect("trimmed");
        }
        let found = log.search(&ExecutionFilter::default()).expect("found");
        assert!(found.len() < 5_000, "{}", found.len());
        log.write(&many[..100], 0).expect("written");
        log.trim(MachineClock.now()).expect("trimmed");
        assert!(log.search(&ExecutionFilter::default()).expect("found").len() >= 100, "the newest are left");
    }
}
