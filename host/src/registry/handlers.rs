//! Handlers, the operator's own events, and the places of plugins among listeners.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Registry, RegistryError, parse, to_json};
use crate::events::Handler;

/// All handlers, by name.
pub(super) fn all(connection: &Connection) -> Result<Vec<Handler>, RegistryError> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY name"))?;
    let rows = statement.query_map((), columns)?.collect::<Result<Vec<_>, _>>()?;
    rows.into_iter().map(handler).collect()
}

const SELECT: &str = "SELECT name, definition, secret FROM handler";

type Columns = (String, String, Option<String>);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn handler((name, definition, secret): Columns) -> Result<Handler, RegistryError> {
    let handler: Handler = parse(&format!("the handler {name:?}"), &definition)?;
    Ok(Handler { name, secret, ..handler })
}

/// The operator's own events, with what they are about.
pub(super) fn own_events(connection: &Connection) -> Result<Vec<(String, String)>, RegistryError> {
    let mut statement = connection.prepare_cached("SELECT name, description FROM event ORDER BY name")?;
    let rows = statement.query_map((), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Registry {
    /// All handlers, by name.
    pub(crate) fn handlers(&self) -> Result<Vec<Handler>, RegistryError> {
        all(&self.main())
    }

    /// A handler.
    pub(crate) fn handler(&self, name: &str) -> Result<Option<Handler>, RegistryError> {
        let connection = self.main();
        let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE name = ?1"))?;
        statement.query_row([name], columns).optional()?.map(handler).transpose()
    }

    /// The operator's own events, with what they are about.
    pub(crate) fn own_events(&self) -> Result<Vec<(String, String)>, RegistryError> {
        own_events(&self.main())
    }

    /// Adds a handler. Answers whether its name was free.
    pub(crate) fn add_handler(&self, handler: &Handler) -> Result<bool, RegistryError> {
        let definition = to_json(&handler.name, handler)?;
        self.change(|transaction| {
            let added = transaction.execute(
                "INSERT INTO handler (name, definition, secret) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![handler.name, definition, handler.secret],
            )?;
            Ok(added > 0)
        })
    }

    /// Changes a handler in one step; `None` if there is none of that name. The change can refuse.
    pub(crate) fn set_handler<E>(
        &self,
        name: &str,
        change: impl FnOnce(Handler) -> Result<Handler, E>,
    ) -> Result<Option<Result<Handler, E>>, RegistryError> {
        self.change(|transaction| {
            let mut statement = transaction.prepare_cached(&format!("{SELECT} WHERE name = ?1"))?;
            let Some(found) = statement.query_row([name], columns).optional()? else { return Ok(None) };
            let changed = match change(handler(found)?) {
                Ok(changed) => changed,
                Err(refusal) => return Ok(Some(Err(refusal))),
            };
            let definition = to_json(name, &changed)?;
            transaction.execute(
                "UPDATE handler SET definition = ?2, secret = ?3 WHERE name = ?1",
                params![name, definition, changed.secret],
            )?;
            Ok(Some(Ok(changed)))
        })
    }

    /// Removes a handler. Answers whether there was one.
    pub(crate) fn remove_handler(&self, name: &str) -> Result<bool, RegistryError> {
        self.change(|transaction| Ok(transaction.execute("DELETE FROM handler WHERE name = ?1", [name])? > 0))
    }

    /// Adds an event of the operator's. Answers whether its name was free.
    pub(crate) fn add_event(&self, name: &str, description: &str) -> Result<bool, RegistryError> {
        self.change(|transaction| {
            let statement = "INSERT INTO event (name, description) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            Ok(transaction.execute(statement, [name, description])? > 0)
        })
    }

    /// Removes an event of the operator's. Answers whether there was one.
    pub(crate) fn remove_event(&self, name: &str) -> Result<bool, RegistryError> {
        self.change(|transaction| Ok(transaction.execute("DELETE FROM event WHERE name = ?1", [name])? > 0))
    }

    /// Gives a plugin its place among the listeners of an event.
    pub(crate) fn set_priority(&self, id: &str, priority: u32) -> Result<bool, RegistryError> {
        self.change(|transaction| {
            Ok(transaction.execute("UPDATE plugin SET priority = ?2 WHERE id = ?1", params![id, priority])? > 0)
        })
    }
}
