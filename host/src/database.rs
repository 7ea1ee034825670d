//! SQLite files of a home beside the registry: opened, made, and told from other programs' files.

mod clock;
pub(crate) mod foreign_log;

use std::{
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

pub(crate) use clock::{KeptClock, TABLE as CLOCK_TABLE};

use crate::{crash_point, disk::DiskError, private};
use foreign_log::log_of;

/// Why a database can't be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// The file can't be opened.
    #[error("{} can't be opened: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// A later billhook made it, or another program.
    #[error("{} has format {found}, which this billhook doesn't know (it knows {known})", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The newest known format.
        known: String,
    },
    /// It has an older format, and can't be written to.
    #[error(
        "{} has format {found}, and is read-only: it can't be brought to format {known}, by which it can be read",
        path.display()
    )]
    OlderReadOnly {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// The format that it is to get.
        known: String,
    },
    /// A search was broken off.
    #[error("the search took longer than {} s: ask for less", .0.as_secs())]
    TooLong(Duration),
    /// The disk failed a statement.
    #[error("the database failed: {0}")]
    Disk(#[source] DiskError),
    /// A statement failed.
    #[error("the database failed: {0}")]
    Sql(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for DatabaseError {
    fn from(error: rusqlite::Error) -> Self {
        DiskError::take(error).map_or_else(DatabaseError::Sql, DatabaseError::Disk)
    }
}

impl DatabaseError {
    /// Whether another process held the file for longer than it was waited for.
    pub(crate) fn is_busy(&self) -> bool {
        matches!(self, DatabaseError::Sql(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy))
    }
}

/// What a commit survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The end of the machine.
    Full,
    /// The end of the process; after a power cut the last commits may be lost, and no more than those.
    Process,
}

/// `application_id`: tells our files from other programs'.
const APPLICATION: i64 = 0x6268_6f6f;
/// `user_version` is major times this plus minor. All these files have the major 1.
const RADIX: i64 = 1000;
/// How long a statement waits for another process's transaction.
pub(crate) const BUSY: Duration = Duration::from_secs(20);

/// Opens a connection; makes the file if there is none. One that can't be written to is opened to be read.
pub(crate) fn connect(path: &Path, durability: Durability) -> Result<Connection, DatabaseError> {
    open(path, durability).map_err(|source| DatabaseError::Open { path: path.to_owned(), source })
}

/// The same, with SQLite's own error.
pub(crate) fn open(path: &Path, durability: Durability) -> rusqlite::Result<Connection> {
    if private::is_read_only(path) {
        return open_to_read(path);
    }
    // What it will hold may be secret. SQLite gives its other files the mode of this one.
    private::ensure_file(path).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
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

/// Opens a file to read it alone, without its log: nobody may write to it meanwhile.
fn immutable(path: &Path) -> rusqlite::Result<Connection> {
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

/// Brings the file to the newest of the formats: each is the statements that it adds to the one before.
pub(crate) fn prepare(connection: &mut Connection, path: &Path, formats: &[&str]) -> Result<(), DatabaseError> {
    let newest = RADIX + i64::try_from(formats.len()).unwrap_or(i64::MAX) - 1;
    let unknown = |found: String| DatabaseError::Newer { path: path.to_owned(), found, known: format(newest) };
    let opened = |source| DatabaseError::Open { path: path.to_owned(), source };
    let found = retry(|| number(connection, "user_version")).map_err(opened)?;
    if found > 0 && (number(connection, "application_id")? != APPLICATION || found / RADIX != 1) {
        return Err(unknown(format(found)));
    }
    if found >= newest {
        return Ok(());
    }
    if connection.is_readonly("main")? {
        let (path, found, known) = (path.to_owned(), format(found), format(newest));
        return Err(DatabaseError::OlderReadOnly { path, found, known });
    }
    // The switch to WAL doesn't wait for other connections by itself.
    retry(|| connection.pragma_update(None, "journal_mode", "WAL")).map_err(opened)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have done it while this one waited.
    let found = number(&transaction, "user_version")?;
    if found == 0 {
        let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        if tables > 0 {
            return Err(unknown("of another program".to_owned()));
        }
        transaction.pragma_update(None, "application_id", APPLICATION)?;
    }
    let done = usize::try_from(if found == 0 { 0 } else { found % RADIX + 1 }).unwrap_or(usize::MAX);
    for added in formats.iter().skip(done) {
        transaction.execute_batch(added)?;
    }
    if found < newest {
        transaction.pragma_update(None, "user_version", newest)?;
    }
    transaction.commit()?;
    Ok(())
}

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

/// Milliseconds since 1970.
pub(crate) fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis())
        .unwrap_or(i64::MAX)
        .saturating_add(crash_point::number("BILLHOOK_CLOCK_AHEAD_MS").unwrap_or(0))
}

/// Milliseconds of a clock that nobody sets, the same for all processes of this machine: since it was started, where that can be
/// told. For leases, which must not run out because somebody set the time.
pub(crate) fn steady_ms() -> i64 {
    #[cfg(target_os = "linux")]
    {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec.saturating_mul(1_000).saturating_add(now.tv_nsec / 1_000_000)
    }
    #[cfg(not(target_os = "linux"))]
    now_ms()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [&str; 2] = ["CREATE TABLE one (x) ", "CREATE TABLE two (x)"];

    #[test]
    fn a_file_is_made_grows_by_what_later_formats_add_and_is_refused_if_it_is_not_ours() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.db");
        let mut connection = connect(&path, Durability::Full).expect("opened");
        prepare(&mut connection, &path, &FORMATS[..1]).expect("made");
        connection.execute("INSERT INTO one VALUES (1)", ()).expect("written");
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut connection = connect(&path, Durability::Process).expect("opened");
                    prepare(&mut connection, &path, &FORMATS).expect("grown");
                });
            }
        });
        prepare(&mut connection, &path, &FORMATS[..1]).expect("a later minor format is only added to");
        let kept: i64 = connection.query_row("SELECT x FROM one", (), |row| row.get(0)).expect("kept");
        assert_eq!((kept, number(&connection, "user_version")), (1, Ok(1_001)));
        connection.pragma_update(None, "user_version", 2_000).expect("written");
        let error = prepare(&mut connection, &path, &FORMATS).expect_err("refused").to_string();
        assert!(error.contains("has format 2.0") && error.contains("it knows 1.1"), "{error}");

        let theirs = folder.path().join("theirs.db");
        let mut connection = connect(&theirs, Durability::Full).expect("opened");
        connection.execute_batch("CREATE TABLE theirs (x)").expect("made");
        prepare(&mut connection, &theirs, &FORMATS).expect_err("refused");
    }
}
