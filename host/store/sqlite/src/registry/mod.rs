//! The registry: what is installed and set, and what has to be durable beside events. A file for each home, that several processes
//! share.

mod formats;
mod handlers;
mod plugins;
mod resources;
mod state;
mod tokens;
mod usage;
mod uses;

use std::{
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use billhook_machine::{crash_point, private};
use billhook_model::Clock;
use billhook_store::{Kept, Result, StoreError, StoreErrorKind};
use rusqlite::{Connection, Transaction};
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    clock::KeptClock,
    failure::{Failure, Step, commit},
    file::{Durability, Opened, Presence, begin, log_of, sql},
    foreign_log,
};
pub(crate) use formats::REGISTRY;

/// The registry of a home.
pub(crate) struct Registry {
    main: Mutex<Connection>,
    /// The state has a connection of its own, so that plugins that keep things don't hold up anything else.
    state: Mutex<Connection>,
    /// So has the usage book.
    usage: Mutex<Connection>,
    clock: Arc<dyn Clock>,
    kept_clock: KeptClock,
    /// Held as long as this process works on the registry.
    _presence: Option<Presence>,
}

/// What a change came to, and whether running hosts have to notice it.
enum Change<T> {
    /// Something is another way now.
    Made(T),
    /// Everything is as it was.
    Nothing(T),
}

/// A connection of its own for each purpose. A panic between two statements leaves a transaction that is rolled back: the
/// connection stays good.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// Opens the registry at a path, and makes it if there is none. Returns whether it was made.
    pub(crate) fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<(Self, bool)> {
        let Opened { connection: main, is_new, presence } = REGISTRY.open(path, Durability::Full)?;
        let state = REGISTRY.connect(path, Durability::Full)?;
        let mut usage = REGISTRY.connect(path, Durability::Full)?;
        let kept_clock = KeptClock::open(&mut usage, &clock).map_err(|failure| failure.of(Kept::Registry))?;
        let (main, state, usage) = (Mutex::new(main), Mutex::new(state), Mutex::new(usage));
        Ok((Registry { main, state, usage, clock, kept_clock, _presence: presence }, is_new))
    }

    /// Reads in one transaction, so that no other process's change comes in between.
    fn read<T>(&self, read: impl FnOnce(&Transaction<'_>) -> Step<T>) -> Result<T> {
        read_on(&mut lock(&self.main), read)
    }

    /// Changes what running hosts have to notice, in one transaction, and raises the generation if anything changed. Durable on
    /// return.
    fn change<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Step<Change<T>>) -> Result<T> {
        let mut connection = lock(&self.main);
        let changed = || -> Step<T> {
            let transaction = begin(&mut connection)?;
            let changed = match change(&transaction)? {
                Change::Made(changed) => changed,
                Change::Nothing(found) => return Ok(found),
            };
            transaction.execute("UPDATE registry SET generation = generation + 1", ())?;
            foreign_log::count(&transaction)?;
            crash_point::reached("before commit");
            commit(transaction)?;
            crash_point::reached("after commit");
            Ok(changed)
        };
        told(changed)
    }

    /// Changes what no running host has to notice, in one transaction. Durable on return.
    fn change_quietly<T>(
        &self,
        connection: &Mutex<Connection>,
        crash_points: [&str; 2],
        change: impl FnOnce(&Transaction<'_>) -> Step<T>,
    ) -> Result<T> {
        let mut connection = lock(connection);
        told(|| {
            let transaction = begin(&mut connection)?;
            let changed = change(&transaction)?;
            foreign_log::count(&transaction)?;
            crash_point::reached(crash_points[0]);
            commit(transaction)?;
            crash_point::reached(crash_points[1]);
            Ok(changed)
        })
    }
}

/// Reads in one transaction of a connection.
fn read_on<T>(connection: &mut Connection, read: impl FnOnce(&Transaction<'_>) -> Step<T>) -> Result<T> {
    told(|| read(&connection.transaction()?))
}

/// Tells what fails as the registry's.
fn told<T>(step: impl FnOnce() -> Step<T>) -> Result<T> {
    step().map_err(|failure| failure.of(Kept::Registry))
}

fn to_json<T: Serialize>(what: &str, value: &T) -> Step<String> {
    serde_json::to_string(value).map_err(|error| Failure::unreadable(what, error))
}

fn parse<T: DeserializeOwned>(what: &str, text: &str) -> Step<T> {
    serde_json::from_str(text).map_err(|error| Failure::unreadable(what, error))
}

/// A count of SQLite's, which is never negative.
fn count(row: &rusqlite::Row<'_>) -> rusqlite::Result<u64> {
    row.get::<_, i64>(0).map(i64::unsigned_abs)
}

/// Refuses files of a home, by their names, beside which the logs of others lie; where others work on the home, they have looked.
pub(crate) fn refuse_foreign_logs(home: &Path, registry: &str, files: &[&str]) -> Result<()> {
    let registry = home.join(registry);
    let paths = || files.iter().map(|file| home.join(file));
    let has_log = |path: &Path| log_of(path).metadata().is_ok_and(|log| log.len() > 0);
    if private::is_read_only(&registry) || !paths().any(|path| has_log(&path)) {
        return Ok(());
    }
    let failed = |error| {
        let message = format!("the registry {} can't be opened", registry.display());
        StoreError::failed(Kept::Registry, sql(error)).of_kind(StoreErrorKind::Open).with_message(message)
    };
    let Some(_alone) = Presence::alone(&registry).map_err(failed)? else { return Ok(()) };
    for path in paths() {
        if foreign_log::is_beside(&path).map_err(failed)? {
            let (file, log) = (path.display(), log_of(&path));
            let message = format!(
                "{file} was put back beside a log that isn't its own: {}. To go on with what was put back, delete the log and {}; \
                 to go on with what was there before, put that file back. Of a home that was copied as a whole, `touch` the log",
                log.display(),
                path.with_extension("db-shm").display()
            );
            return Err(StoreError::new(Kept::Registry, StoreErrorKind::ForeignLog, message));
        }
    }
    Ok(())
}
