//! The one way to open a SQLite file of a home: told from other programs' files, made, and brought to the newest format.

use std::{
    fs::{File, TryLockError},
    io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use billhook_machine::private;
use billhook_store::{Kept, StoreError, StoreErrorKind};
use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};

use crate::failure::{Failure, Step, commit};

/// What a file holds, and how it grew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileSpec {
    pub(crate) kept: Kept,
    /// The name in messages.
    pub(crate) name: &'static str,
    /// What each minor format adds, from 1.0 on. Never edited once it was released: a later format adds a later entry. Within a
    /// major, a later minor only adds what an older billhook can leave alone.
    pub(crate) formats: &'static [&'static str],
    /// Whether it is brought to a later format only while no other process has it open, which [`Presence`] tells.
    pub(crate) grows_alone: bool,
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The end of the machine.
    Full,
    /// The end of the process; after a power cut the last commits may be lost, and no more than those.
    Process,
}

/// A file that is open, in the newest format.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) connection: Connection,
    /// Whether opening it made it.
    pub(crate) is_new: bool,
    pub(crate) presence: Option<Presence>,
}

/// `application_id`: tells our files from other programs'.
const APPLICATION: i64 = 0x6268_6f6f;
/// `user_version` is major times this plus minor. All these files have the major 1.
const RADIX: i64 = 1000;
const MAJOR: i64 = 1;
/// How long a statement waits for another process's transaction.
pub(crate) const BUSY: Duration = Duration::from_secs(20);

impl FileSpec {
    fn newest(&self) -> i64 {
        MAJOR * RADIX + i64::try_from(self.formats.len()).unwrap_or(i64::MAX) - 1
    }

    fn not_opened(&self, path: &Path, source: impl Into<Failure>) -> StoreError {
        let error = source.into().of(self.kept);
        let kind = match error.kind() {
            StoreErrorKind::Failed | StoreErrorKind::Unreadable => StoreErrorKind::Open,
            other => other,
        };
        error.of_kind(kind).with_message(format!("{} {} can't be opened", self.name, path.display()))
    }

    fn unknown(&self, path: &Path, found: &str) -> StoreError {
        let known = format(self.newest());
        let message = format!(
            "{} {} has format {found}, which this billhook doesn't know (it knows {known})",
            self.name,
            path.display()
        );
        StoreError::new(self.kept, StoreErrorKind::Newer, message)
    }

    /// Opens a connection; makes the file if there is none. One that can't be written to is opened to be read.
    pub(crate) fn connect(&self, path: &Path, durability: Durability) -> Result<Connection, StoreError> {
        connect(path, durability).map_err(|error| self.not_opened(path, error))
    }

    /// Opens the file, makes it if there is none, and brings an older format to the newest one.
    pub(crate) fn open(&self, path: &Path, durability: Durability) -> Result<Opened, StoreError> {
        let mut connection = self.connect(path, durability)?;
        let (is_new, presence) = self.prepare(&mut connection, path)?;
        Ok(Opened { connection, is_new, presence })
    }

    /// Brings the file to the newest format. Returns whether that made it, and that this process is on it.
    fn prepare(&self, connection: &mut Connection, path: &Path) -> Result<(bool, Option<Presence>), StoreError> {
        let presence = |is_new| -> Result<(bool, Option<Presence>), StoreError> {
            if !self.grows_alone {
                return Ok((is_new, None));
            }
            Presence::shared(path).map(|presence| (is_new, presence)).map_err(|error| self.not_opened(path, sql(error)))
        };
        let deadline = Instant::now() + BUSY;
        loop {
            let found = retry(|| number(connection, "user_version")).map_err(|error| self.not_opened(path, error))?;
            if found > 0 {
                let application = number(connection, "application_id").map_err(|error| self.not_opened(path, error))?;
                if application != APPLICATION || found / RADIX != MAJOR {
                    return Err(self.unknown(path, &format(found)));
                }
            }
            if found >= self.newest() {
                return presence(false);
            }
            if connection.is_readonly("main").map_err(|error| self.not_opened(path, error))? {
                return Err(self.older(path, found, StoreErrorKind::OlderReadOnly));
            }
            let alone = match found {
                // Nobody is on what isn't there yet.
                0 => None,
                _ if !self.grows_alone => None,
                _ => match Presence::alone(path).map_err(|error| self.not_opened(path, sql(error)))? {
                    Some(alone) => Some(alone),
                    None if Instant::now() > deadline => {
                        return Err(self.older(path, found, StoreErrorKind::OlderInUse));
                    }
                    None => {
                        // Perhaps it is another process that brings it to this format just now.
                        thread::sleep(Duration::from_millis(20));
                        continue;
                    }
                },
            };
            let made = self.grow(connection, found).map_err(|failure| match failure {
                Growth::Foreign => self.unknown(path, "of another program"),
                Growth::Failed(failure) => self.not_opened(path, failure),
            })?;
            drop(alone);
            match made {
                // Another process made it meanwhile, perhaps one of an older format.
                None => {}
                Some(is_new) => return presence(is_new),
            }
        }
    }

    fn older(&self, path: &Path, found: i64, kind: StoreErrorKind) -> StoreError {
        let (name, path, found, known) = (self.name, path.display(), format(found), format(self.newest()));
        let message = if kind == StoreErrorKind::OlderReadOnly {
            format!(
                "{name} {path} has format {found}, and is read-only: it can't be brought to format {known}, by which it can be \
                 read"
            )
        } else {
            format!(
                "{name} {path} has format {found}, and another billhook is running on it: it can't be brought to format {known} \
                 now"
            )
        };
        StoreError::new(self.kept, kind, message)
    }

    /// Adds what a file lacks, in one transaction. Returns whether that made the file; `None` if it isn't as it was found.
    fn grow(&self, connection: &mut Connection, expected: i64) -> Result<Option<bool>, Growth> {
        // The switch to WAL doesn't wait for other connections by itself.
        retry(|| connection.pragma_update(None, "journal_mode", "WAL"))?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        // Another process may have done it while this one waited.
        let found = number(&transaction, "user_version")?;
        if found != expected {
            return Ok(None);
        }
        if found == 0 {
            let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
            if tables > 0 {
                return Err(Growth::Foreign);
            }
            transaction.pragma_update(None, "application_id", APPLICATION)?;
        }
        let done = usize::try_from(if found == 0 { 0 } else { found % RADIX + 1 }).unwrap_or(usize::MAX);
        for added in self.formats.iter().skip(done) {
            transaction.execute_batch(added)?;
        }
        transaction.pragma_update(None, "user_version", self.newest())?;
        commit(transaction).map_err(Growth::Failed)?;
        Ok(Some(found == 0))
    }
}

/// Why a file can't be brought to the newest format.
enum Growth {
    /// It holds another program's tables.
    Foreign,
    Failed(Failure),
}

impl From<rusqlite::Error> for Growth {
    fn from(error: rusqlite::Error) -> Self {
        Growth::Failed(error.into())
    }
}

/// An error of the file system, as one of a statement.
pub(crate) fn sql(error: io::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(error))
}

/// That this process works on a file: as long as any does, no other brings it to a later format.
///
/// A lock on a file beside it; the system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Presence {
    _file: File,
}

impl Presence {
    fn file(path: &Path) -> io::Result<File> {
        private::file(&path.with_file_name("in-use"))
    }

    /// Beside others. Where nobody can write to the file, there is nothing to be there for.
    fn shared(path: &Path) -> io::Result<Option<Self>> {
        if private::is_read_only(path) {
            return Ok(None);
        }
        let file = Self::file(path)?;
        file.lock_shared()?;
        Ok(Some(Presence { _file: file }))
    }

    /// The only one, if nobody else is there.
    pub(crate) fn alone(path: &Path) -> io::Result<Option<Self>> {
        let file = Self::file(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Presence { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Begins a transaction that writes.
pub(crate) fn begin(connection: &mut Connection) -> Step<Transaction<'_>> {
    Ok(connection.transaction_with_behavior(TransactionBehavior::Immediate)?)
}

/// Opens a connection.
fn connect(path: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    if private::is_read_only(path) {
        return open_to_read(path);
    }
    // What it will hold may be secret. SQLite gives its other files the mode of this one.
    private::ensure_file(path).map_err(sql)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    let synchronous = if durability == Durability::Full { "FULL" } else { "NORMAL" };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.set_prepared_statement_cache_capacity(64);
    Ok(connection)
}

/// Opens a file that can't be written to.
fn open_to_read(path: &Path) -> rusqlite::Result<Connection> {
    read_only(path, "").or_else(|error| {
        // Whoever closed it last left nothing beside it, and nobody can write to it: all of it is in the file. SQLite would make
        // the files of a log, also to read.
        if log_of(path).metadata().is_ok_and(|log| log.len() > 0) { Err(error) } else { immutable(path) }
    })
}

/// The log of a file: SQLite's, beside it.
pub(crate) fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

/// Opens a file to read it alone, without its log: nobody may write to it meanwhile.
pub(crate) fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    read_only(path, "?immutable=1")
}

fn read_only(path: &Path, parameters: &str) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let uri = format!("file:{}{parameters}", percent_encoding::utf8_percent_encode(&path.to_string_lossy(), IN_URI));
    let connection = Connection::open_with_flags(uri, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get::<_, i64>(0))?;
    Ok(connection)
}

/// What means something in the URI of a file.
const IN_URI: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b'%').add(b'?').add(b'#').add(b' ');

fn format(version: i64) -> String {
    format!("{}.{}", version / RADIX, version % RADIX)
}

/// Reads a pragma that is a number.
pub(crate) fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {pragma}"), (), |row| row.get(0))
}

/// Tries again for as long as a statement may wait, if another process is in the way.
pub(crate) fn retry<T>(mut run: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let deadline = Instant::now() + BUSY;
    loop {
        match run() {
            Err(rusqlite::Error::SqliteFailure(error, _))
                if error.code == ErrorCode::DatabaseBusy && Instant::now() < deadline =>
            {
                thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use billhook_machine::disk::DiskTrouble;

    use super::*;

    const TWO: FileSpec = FileSpec {
        kept: Kept::Registry,
        name: "the file",
        formats: &["CREATE TABLE one (x) ", "CREATE TABLE two (x)"],
        grows_alone: false,
    };
    const ONE: FileSpec = FileSpec { formats: &["CREATE TABLE one (x) "], ..TWO };

    #[test]
    fn a_file_is_made_grows_by_what_later_formats_add_and_is_refused_if_it_is_not_ours() {
        for grows_alone in [false, true] {
            let (one, two) = (FileSpec { grows_alone, ..ONE }, FileSpec { grows_alone, ..TWO });
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().join("a.db");
            let first = one.open(&path, Durability::Full).expect("made");
            assert!(first.is_new);
            first.connection.execute("INSERT INTO one VALUES (1)", ()).expect("written");
            drop(first);
            // Several at once: one does it, the others wait.
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| assert!(!two.open(&path, Durability::Process).expect("grown").is_new));
                }
            });
            let opened = one.open(&path, Durability::Full).expect("a later minor format is only added to");
            let connection = opened.connection;
            let kept: i64 = connection.query_row("SELECT x FROM one", (), |row| row.get(0)).expect("kept");
            assert_eq!((kept, number(&connection, "user_version")), (1, Ok(1_001)));
            connection.pragma_update(None, "user_version", 2_000).expect("written");
            let error = two.open(&path, Durability::Full).expect_err("refused");
            assert_eq!(error.kind(), StoreErrorKind::Newer);
            let text = error.to_string();
            assert!(text.contains("has format 2.0") && text.contains("it knows 1.1"), "{text}");
        }
    }

    #[test]
    fn a_database_of_another_program_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, setup) in [("a", "PRAGMA user_version = 5"), ("b", "CREATE TABLE theirs (x)")] {
            let path = folder.path().join(name);
            Connection::open(&path).expect("opened").execute_batch(setup).expect("set up");
            let error = TWO.open(&path, Durability::Full).expect_err("refused");
            assert_eq!(error.kind(), StoreErrorKind::Newer, "{setup}");
            let connection = Connection::open(&path).expect("opened");
            let ours =
                connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'one'", (), |row| row.get(0));
            assert_eq!(ours, Ok(0), "{setup}");
        }
    }

    #[test]
    fn a_file_that_is_no_database_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        std::fs::write(&path, "this is not a database, and it is long enough to be looked at".repeat(20))
            .expect("written");
        let error = TWO.open(&path, Durability::Full).expect_err("refused");
        assert_eq!(error.kind(), StoreErrorKind::Open);
        assert!(error.to_string().ends_with("can't be opened"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
        assert!(std::fs::read_to_string(&path).expect("still there").starts_with("this is not"));
    }

    #[test]
    fn a_file_does_not_grow_under_another_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        drop(FileSpec { grows_alone: true, ..ONE }.open(&path, Durability::Full).expect("made"));
        let present = Presence::shared(&path).expect("present");
        assert!(Presence::alone(&path).expect("looked").is_none());
        drop(present);
        assert!(Presence::alone(&path).expect("looked").is_some());
    }

    #[test]
    fn trouble_of_the_disk_keeps_its_kind_where_a_file_is_opened() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let error = TWO.not_opened(Path::new("a.db"), sql(full));
        assert_eq!(error.kind(), StoreErrorKind::Disk(DiskTrouble::Full));
        assert_eq!(DiskTrouble::of(&error), Some(DiskTrouble::Full));
    }
}
