//! The tables, and how a file of an older format becomes one of this format.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::{BUSY, RegistryError};

/// The format: within a major, a later minor only adds what an older billhook can leave alone.
const MAJOR: i64 = 1;
const MINOR: i64 = 0;
/// `user_version` is major times this plus minor.
const RADIX: i64 = 1000;
/// `application_id`: tells our files from other programs'.
const APPLICATION: i64 = 0x6268_6f6f;

const CREATE: &str = "
CREATE TABLE registry (
    -- One row. Raised by every change to plugins and versions: by what a running host has to notice.
    generation INTEGER NOT NULL
) STRICT;
INSERT INTO registry VALUES (1);

CREATE TABLE plugin (
    id TEXT PRIMARY KEY,
    -- The version in use; always the last one of the history.
    position INTEGER NOT NULL,
    enabled INTEGER NOT NULL,
    settings TEXT NOT NULL,
    settings_changed INTEGER NOT NULL,
    -- Why the plugin refused its settings, if it did.
    needs_settings TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE version (
    plugin TEXT NOT NULL REFERENCES plugin (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    version TEXT NOT NULL,
    name TEXT NOT NULL,
    author TEXT NOT NULL,
    digest TEXT NOT NULL,
    library_digest TEXT NOT NULL,
    manifest TEXT NOT NULL,
    module TEXT NOT NULL,
    usage_specs TEXT NOT NULL,
    installed_at INTEGER NOT NULL,
    PRIMARY KEY (plugin, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE asset_in_use (
    -- The backend's id of an asset that is attached to a product: its plugin can't be removed.
    asset TEXT PRIMARY KEY,
    plugin TEXT NOT NULL REFERENCES plugin (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE TABLE state (
    plugin TEXT NOT NULL REFERENCES plugin (id) ON DELETE CASCADE,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (plugin, key)
) STRICT, WITHOUT ROWID;
";

/// Opens a connection whose commits are durable.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    Ok(connection)
}

/// Opens the registry and makes it if there is none: the second part tells if it did.
pub(super) fn open(path: &Path) -> Result<(Connection, bool), RegistryError> {
    let opened = |source| RegistryError::Open { path: path.to_owned(), source };
    let mut connection = connect(path).map_err(opened)?;
    let found = retry(|| number(&connection, "user_version")).map_err(opened)?;
    let foreign =
        |found: String| RegistryError::Newer { path: path.to_owned(), found, known: format!("{MAJOR}.{MINOR}") };
    if found != 0 {
        let application = number(&connection, "application_id").map_err(opened)?;
        if application != APPLICATION || found / RADIX != MAJOR {
            return Err(foreign(format!("{}.{}", found / RADIX, found % RADIX)));
        }
        return Ok((connection, false));
    }
    // The switch to WAL doesn't wait for other connections by itself.
    retry(|| connection.pragma_update(None, "journal_mode", "WAL")).map_err(opened)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(opened)?;
    // Another process may have made the tables while this one waited.
    let is_new = number(&transaction, "user_version")? == 0;
    if is_new {
        let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        if tables > 0 {
            return Err(foreign("of another program".to_owned()));
        }
        transaction.execute_batch(CREATE)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", MAJOR * RADIX + MINOR)?;
    }
    transaction.commit()?;
    Ok((connection, is_new))
}

fn number(connection: &Connection, pragma: &str) -> rusqlite::Result<i64> {
    connection.query_row(&format!("PRAGMA {pragma}"), (), |row| row.get(0))
}

/// Tries again for as long as a statement may wait, if another process is in the way.
fn retry<T>(mut run: impl FnMut() -> rusqlite::Result<T>) -> rusqlite::Result<T> {
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
    use super::*;

    #[test]
    fn a_registry_of_a_later_major_format_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        drop(open(&path).expect("made"));
        let connection = connect(&path).expect("opened");
        connection.pragma_update(None, "user_version", 1_007).expect("written");
        assert!(open(&path).is_ok_and(|(_, is_new)| !is_new), "a later minor format is only added to");
        connection.pragma_update(None, "user_version", 2_000).expect("written");
        let error = open(&path).expect_err("refused").to_string();
        assert!(error.contains("has format 2.0") && error.contains("it knows 1.0"), "{error}");
    }

    #[test]
    fn a_database_of_another_program_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, setup) in [("a", "PRAGMA user_version = 5"), ("b", "CREATE TABLE theirs (x)")] {
            let path = folder.path().join(name);
            let connection = connect(&path).expect("opened");
            connection.execute_batch(setup).expect("set up");
            assert!(matches!(open(&path), Err(RegistryError::Newer { .. })), "{setup}");
            let ours =
                connection.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'plugin'", (), |row| row.get(0));
            assert_eq!(ours, Ok(0));
        }
    }

    #[test]
    fn a_file_that_is_no_registry_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        std::fs::write(&path, "this is not a database, and it is long enough to be looked at".repeat(20))
            .expect("written");
        let error = open(&path).expect_err("refused").to_string();
        assert!(error.contains("can't be opened"), "{error}");
        assert!(std::fs::read_to_string(&path).expect("still there").starts_with("this is not"));
    }
}
