//! The tables, and how a file of an older format becomes one of this format.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, TransactionBehavior};

use super::RegistryError;
use crate::{
    database::{self, BUSY, CLOCK_TABLE, Durability, foreign_log, number, retry},
    private,
};

/// The format: within a major, a later minor only adds what an older billhook can leave alone.
const MAJOR: i64 = 1;
const MINOR: i64 = 7;
/// `user_version` is major times this plus minor.
const RADIX: i64 = 1000;
/// `application_id`: tells our files from other programs'.
const APPLICATION: i64 = 0x6268_6f6f;

/// What each minor format adds, from 1.0 on. Never edited once it was released: a later format adds a later entry.
const FORMATS: [&str; 1 + MINOR as usize] =
    [FORMAT_1_0, FORMAT_1_1, FORMAT_1_2, FORMAT_1_3, FORMAT_1_4, FORMAT_1_5, CLOCK_TABLE, foreign_log::TABLE];

const FORMAT_1_0: &str = "
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

const FORMAT_1_1: &str = "
CREATE TABLE usage_spec (
    -- A usage specification that the usage API has, or that it may have, or that a record needs.
    plugin TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    -- The usage API's id and address of it, once it is known to be there.
    id TEXT,
    href TEXT,
    -- The ids that the name had before the usage API was asked to make it; tells ours from others if the answer is lost.
    before TEXT,
    tries INTEGER NOT NULL DEFAULT 0,
    retry_at INTEGER NOT NULL DEFAULT 0,
    failure TEXT,
    PRIMARY KEY (plugin, name, description)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_contract (
    order_id TEXT NOT NULL,
    product_id TEXT NOT NULL,
    customer TEXT NOT NULL,
    -- The next correlation number.
    next INTEGER NOT NULL,
    -- No record below has anything left to do; nothing is left at all where it is null.
    unsent_from INTEGER,
    tries INTEGER NOT NULL DEFAULT 0,
    retry_at INTEGER NOT NULL DEFAULT 0,
    -- Until then the usage API may still be at work on what it gave no answer to.
    settles_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, product_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX usage_contract_unsent ON usage_contract (retry_at) WHERE unsent_from IS NOT NULL;

CREATE TABLE usage_reported (
    -- The last usage that was reported: a contract has several assets, and each its own last usage.
    plugin TEXT NOT NULL,
    asset TEXT NOT NULL,
    order_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    last_usage TEXT NOT NULL,
    PRIMARY KEY (plugin, asset, order_id, item_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage_record (
    order_id TEXT NOT NULL,
    product_id TEXT NOT NULL,
    -- The correlation number; with order and product the identity of the document in the usage API.
    number INTEGER NOT NULL,
    plugin TEXT NOT NULL,
    item_id TEXT NOT NULL,
    identity TEXT NOT NULL,
    asset TEXT NOT NULL,
    unit TEXT NOT NULL,
    date TEXT NOT NULL,
    value TEXT NOT NULL,
    -- 0 recorded, 1 may have been sent, 2 the document is guided.
    stage INTEGER NOT NULL,
    PRIMARY KEY (order_id, product_id, number),
    UNIQUE (plugin, order_id, item_id, identity)
) STRICT, WITHOUT ROWID;
";

const FORMAT_1_2: &str = "
-- How the plugin is run: a JSON document; null is the default.
ALTER TABLE plugin ADD COLUMN runtime TEXT;
-- Why the plugin takes no calls until it is enabled again, if it crashed too often.
ALTER TABLE plugin ADD COLUMN quarantined TEXT;
";

const FORMAT_1_3: &str = "
-- The plugin's place among the listeners of an event; null is the default.
ALTER TABLE plugin ADD COLUMN priority INTEGER;

CREATE TABLE event (
    -- An event that the operator added.
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE handler (
    name TEXT PRIMARY KEY,
    -- Everything else about it but the secret: a JSON document.
    definition TEXT NOT NULL,
    secret TEXT
) STRICT, WITHOUT ROWID;
";

const FORMAT_1_4: &str = "
CREATE TABLE resource (
    -- A resource of an add-on. It outlives the plugin: one that is installed again finds its resources.
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    addon TEXT NOT NULL,
    -- Who made it: another plugin, or another author's, gets it only if the operator says so.
    plugin TEXT NOT NULL,
    author TEXT NOT NULL,
    -- The add-on's id of it as text, and as JSON; null as long as the add-on was asked for it and nobody knows what it answered.
    id TEXT,
    id_json TEXT,
    uuid TEXT,
    platform_id TEXT,
    platform_id_json TEXT,
    plan TEXT,
    region TEXT,
    -- A JSON object.
    config TEXT NOT NULL,
    message TEXT,
    -- In milliseconds since 1970.
    created INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    UNIQUE (addon, id),
    UNIQUE (addon, uuid)
) STRICT;
CREATE INDEX resource_id ON resource (id);
CREATE INDEX resource_addon ON resource (addon, number);

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    -- SHA-256 of its secret.
    hash BLOB NOT NULL,
    -- In seconds since 1970.
    created INTEGER NOT NULL,
    expires INTEGER
) STRICT, WITHOUT ROWID;
";

const FORMAT_1_5: &str = "
-- Until when the usage API may still be at work on making it, in seconds of the registry's clock.
ALTER TABLE usage_spec ADD COLUMN settles_at INTEGER NOT NULL DEFAULT 0;
-- The settings that a version had when a later one took its place.
ALTER TABLE version ADD COLUMN settings TEXT;
";

/// Opens a connection whose commits are durable.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    database::open(path, Durability::Full)
}

/// That this process works on the registry: as long as any does, no other brings it to a later format.
///
/// A lock on a file beside the registry; the system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(super) struct Presence {
    _file: File,
}

impl Presence {
    fn file(registry: &Path) -> io::Result<File> {
        private::file(&registry.with_file_name("in-use"))
    }

    /// Beside others. Where nobody can write to the registry, there is nothing to be there for.
    fn shared(registry: &Path) -> io::Result<Option<Self>> {
        if private::is_read_only(registry) {
            return Ok(None);
        }
        let file = Self::file(registry)?;
        file.lock_shared()?;
        Ok(Some(Presence { _file: file }))
    }

    /// The only one, if nobody else is there.
    fn alone(registry: &Path) -> io::Result<Option<Self>> {
        let file = Self::file(registry)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Presence { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

/// Refuses files of a home, by their names, beside which the logs of others lie; where others work on the home, they have looked.
pub(super) fn refuse_foreign_logs(home: &Path, files: &[&str]) -> Result<(), RegistryError> {
    let registry = home.join("registry.db");
    let paths = || files.iter().map(|file| home.join(file));
    let has_log = |path: &Path| foreign_log::log_of(path).metadata().is_ok_and(|log| log.len() > 0);
    if private::is_read_only(&registry) || !paths().any(|path| has_log(&path)) {
        return Ok(());
    }
    let failed = |source| RegistryError::Open {
        path: registry.clone(),
        source: rusqlite::Error::ToSqlConversionFailure(Box::new(source)),
    };
    let Some(_alone) = Presence::alone(&registry).map_err(failed)? else { return Ok(()) };
    for path in paths() {
        if foreign_log::is_beside(&path).map_err(failed)? {
            return Err(RegistryError::ForeignLog { path });
        }
    }
    Ok(())
}

/// Opens the registry, makes it if there is none (the second part tells if it did), and brings an older format to this one.
pub(super) fn open(path: &Path) -> Result<(Connection, bool, Option<Presence>), RegistryError> {
    let opened = |source| RegistryError::Open { path: path.to_owned(), source };
    let locked = |source: io::Error| opened(rusqlite::Error::ToSqlConversionFailure(Box::new(source)));
    let mut connection = connect(path).map_err(opened)?;
    let deadline = Instant::now() + BUSY;
    loop {
        let found = retry(|| number(&connection, "user_version")).map_err(opened)?;
        if found == 0 {
            if create(&mut connection, path)? {
                return Ok((connection, true, Presence::shared(path).map_err(locked)?));
            }
            // Another process made it meanwhile, perhaps one of an older format.
            continue;
        }
        check(&connection, path, found)?;
        if found % RADIX >= MINOR {
            return Ok((connection, false, Presence::shared(path).map_err(locked)?));
        }
        if private::is_read_only(path) {
            let (path, found, known) = (path.to_owned(), format(found), format(MAJOR * RADIX + MINOR));
            return Err(RegistryError::OlderReadOnly { path, found, known });
        }
        if let Some(alone) = Presence::alone(path).map_err(locked)? {
            migrate(&mut connection)?;
            drop(alone);
        } else if Instant::now() > deadline {
            let (path, found, known) = (path.to_owned(), format(found), format(MAJOR * RADIX + MINOR));
            return Err(RegistryError::OlderInUse { path, found, known });
        } else {
            // Perhaps it is another process that brings it to this format just now.
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn format(version: i64) -> String {
    format!("{}.{}", version / RADIX, version % RADIX)
}

fn unknown(path: &Path, found: String) -> RegistryError {
    RegistryError::Newer { path: path.to_owned(), found, known: format(MAJOR * RADIX + MINOR) }
}

/// Refuses what is of a later major format or another program's.
fn check(connection: &Connection, path: &Path, found: i64) -> Result<(), RegistryError> {
    let application = number(connection, "application_id")?;
    if application != APPLICATION || found / RADIX != MAJOR {
        return Err(unknown(path, format(found)));
    }
    Ok(())
}

/// Makes the tables, unless another process does just now. Answers whether it made them.
fn create(connection: &mut Connection, path: &Path) -> Result<bool, RegistryError> {
    let opened = |source| RegistryError::Open { path: path.to_owned(), source };
    // The switch to WAL doesn't wait for other connections by itself.
    retry(|| connection.pragma_update(None, "journal_mode", "WAL")).map_err(opened)?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(opened)?;
    // Another process may have made the tables while this one waited.
    let is_new = number(&transaction, "user_version")? == 0;
    if is_new {
        let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
        if tables > 0 {
            return Err(unknown(path, "of another program".to_owned()));
        }
        for added in FORMATS {
            transaction.execute_batch(added)?;
        }
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", MAJOR * RADIX + MINOR)?;
    }
    transaction.commit()?;
    Ok(is_new)
}

/// Adds what an older format lacks, in one transaction.
fn migrate(connection: &mut Connection) -> Result<(), RegistryError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = number(&transaction, "user_version")? % RADIX;
    for added in FORMATS.iter().skip(1 + usize::try_from(found).unwrap_or(usize::MAX - 1)) {
        transaction.execute_batch(added)?;
    }
    if found < MINOR {
        transaction.pragma_update(None, "user_version", MAJOR * RADIX + MINOR)?;
    }
    transaction.commit()?;
    Ok(())
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
        connection.pragma_update(None, "user_version", MAJOR * RADIX + MINOR + 1).expect("written");
        assert!(open(&path).is_ok_and(|(_, is_new, _)| !is_new), "a later minor format is only added to");
        connection.pragma_update(None, "user_version", 2_000).expect("written");
        let error = open(&path).expect_err("refused").to_string();
        assert!(error.contains("has format 2.0") && error.contains(&format!("it knows {MAJOR}.{MINOR}")), "{error}");
    }

    /// A registry as the first release of the format made it.
    fn old(path: &Path) -> Connection {
        let connection = connect(path).expect("made");
        connection.pragma_update(None, "journal_mode", "WAL").expect("set");
        connection.execute_batch(FORMAT_1_0).expect("made");
        connection.pragma_update(None, "application_id", APPLICATION).expect("set");
        connection.pragma_update(None, "user_version", 1_000).expect("set");
        connection
    }

    #[test]
    fn a_registry_of_an_older_format_is_brought_to_this_one_and_loses_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let (older, newest) = (folder.path().join("older.db"), folder.path().join("newest.db"));
        old(&older).execute_batch("INSERT INTO plugin VALUES ('x', 1, 1, '{}', 1, NULL)").expect("written");
        // Several at once: one does it, the others wait.
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| open(&older).expect("opens"));
            }
        });
        let (migrated, _, _) = open(&older).expect("opens");
        let (made, _, _) = open(&newest).expect("opens");
        let plugins: i64 = migrated.query_row("SELECT count(*) FROM plugin", (), |row| row.get(0)).expect("counted");
        assert_eq!(plugins, 1);
        let schema = |connection: &Connection| -> Vec<(String, String)> {
            let mut all =
                connection.prepare("SELECT name, coalesce(sql, '') FROM sqlite_schema ORDER BY name").unwrap();
            all.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
        };
        assert_eq!(schema(&migrated), schema(&made));
        assert_eq!(number(&migrated, "user_version"), Ok(MAJOR * RADIX + MINOR));
    }

    #[test]
    fn a_registry_is_not_migrated_under_another_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("registry.db");
        drop(old(&path));
        let present = Presence::shared(&path).expect("present");
        assert!(Presence::alone(&path).expect("looked").is_none());
        drop(present);
        assert!(Presence::alone(&path).expect("looked").is_some());
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
