//! What plugins keep.

use std::{path::Path, sync::PoisonError};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension};

use super::{Registry, RegistryError, counted};
use crate::database::BUSY;

impl Registry {
    /// The value that a plugin keeps under a key.
    pub(crate) fn state_get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, RegistryError> {
        get(&self.state.lock().unwrap_or_else(PoisonError::into_inner), plugin, key)
    }

    /// Keeps a value; durable on return. `false` if the plugin isn't installed any more.
    pub(crate) fn state_keep(&self, plugin: &str, key: &str, value: &str) -> Result<bool, RegistryError> {
        let mut connection = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = counted(&mut connection, |transaction| {
            let insert = "INSERT INTO state (plugin, key, value) VALUES (?1, ?2, ?3)
                          ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value";
            transaction.prepare_cached(insert)?.execute([plugin, key, value])
        });
        match kept {
            Ok(_) => Ok(true),
            Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::ConstraintViolation => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a value; durable on return.
    pub(crate) fn state_delete(&self, plugin: &str, key: &str) -> Result<(), RegistryError> {
        let mut connection = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let delete = "DELETE FROM state WHERE plugin = ?1 AND key = ?2";
        counted(&mut connection, |transaction| transaction.prepare_cached(delete)?.execute([plugin, key]))?;
        Ok(())
    }
}

/// Reads a value without being able to write any: for a process in which a package is only tried.
pub(crate) fn read_only_state(registry: &Path, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, RegistryError> {
    let connection = Connection::open_with_flags(registry, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    connection.busy_timeout(BUSY)?;
    get(&connection, plugin, key)
}

fn get(connection: &Connection, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, RegistryError> {
    let mut statement = connection.prepare_cached("SELECT value FROM state WHERE plugin = ?1 AND key = ?2")?;
    Ok(statement.query_row([plugin, key], |row| row.get::<_, String>(0)).optional()?.map(String::into_bytes))
}
