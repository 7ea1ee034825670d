//! What plugins keep.

use billhook_store::{PluginState, Result};
use rusqlite::{Connection, ErrorCode, OptionalExtension};

use super::{Registry, lock, read_on};
use crate::failure::Step;

impl PluginState for Registry {
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>> {
        read_on(&mut lock(&self.state), |transaction| find(transaction, plugin, key))
    }

    fn keep(&self, plugin: &str, key: &str, value: &str) -> Result<bool> {
        self.change_quietly(&self.state, [""; 2], |transaction| {
            let insert = "INSERT INTO state (plugin, key, value) VALUES (?1, ?2, ?3)
                          ON CONFLICT (plugin, key) DO UPDATE SET value = excluded.value";
            match transaction.prepare_cached(insert)?.execute([plugin, key, value]) {
                Ok(_) => Ok(true),
                Err(rusqlite::Error::SqliteFailure(error, _)) if error.code == ErrorCode::ConstraintViolation => {
                    Ok(false)
                }
                Err(error) => Err(error.into()),
            }
        })
    }

    fn delete(&self, plugin: &str, key: &str) -> Result<()> {
        self.change_quietly(&self.state, [""; 2], |transaction| {
            transaction.prepare_cached("DELETE FROM state WHERE plugin = ?1 AND key = ?2")?.execute([plugin, key])?;
            Ok(())
        })
    }
}

fn find(connection: &Connection, plugin: &str, key: &str) -> Step<Option<Vec<u8>>> {
    let mut statement = connection.prepare_cached("SELECT value FROM state WHERE plugin = ?1 AND key = ?2")?;
    Ok(statement.query_row([plugin, key], |row| row.get::<_, String>(0)).optional()?.map(String::into_bytes))
}
