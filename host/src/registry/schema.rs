//! The tables, and how a file of an older format becomes one of this format.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::{BUSY, RegistryError};

/// The format: within a major, a later minor only adds what an older billhook can leave alone.
const MAJOR: i64 = 1;
const MINOR: i64 = 0;
/// `user_version` is major times this plus minor.
const RADIX: i64 = 1000;

const CREATE: &str = "
CREATE TABLE registry (
    -- One row. Raised by every change to the tables below, not by changes of plugins' state.
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

/// Opens the registry and brings it to this format.
pub(super) fn open(path: &Path) -> Result<Connection, RegistryError> {
    let opened = |source| RegistryError::Open { path: path.to_owned(), source };
    let mut connection = connect(path).map_err(opened)?;
    let format = |connection: &Connection| connection.query_row("PRAGMA user_version", (), |row| row.get::<_, i64>(0));
    let found = format(&connection).map_err(opened)?;
    if found / RADIX > MAJOR {
        return Err(RegistryError::Newer {
            path: path.to_owned(),
            found: format!("{}.{}", found / RADIX, found % RADIX),
            known: format!("{MAJOR}.{MINOR}"),
        });
    }
    if found == 0 {
        connection.pragma_update(None, "journal_mode", "WAL").map_err(opened)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(opened)?;
        // Another process may have made the tables while this one waited.
        if format(&transaction)? == 0 {
            transaction.execute_batch(CREATE)?;
            transaction.pragma_update(None, "user_version", MAJOR * RADIX + MINOR)?;
        }
        transaction.commit()?;
    }
    Ok(connection)
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
        assert!(open(&path).is_ok(), "a later minor format is only added to");
        connection.pragma_update(None, "user_version", 2_000).expect("written");
        let error = open(&path).expect_err("refused").to_string();
        assert!(error.contains("has format 2.0") && error.contains("it knows 1.0"), "{error}");
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
