//! Handlers, and the operator's own events.

use billhook_model::{Handler, OwnEvent};
use billhook_store::{HandlerChange, Handlers, Result};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{Change, Registry, parse, to_json};
use crate::failure::Step;

/// All handlers, by name.
pub(super) fn all(connection: &Connection) -> Step<Vec<Handler>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} ORDER BY name"))?;
    let rows = statement.query_map((), columns)?.collect::<rusqlite::Result<Vec<_>>>()?;
    rows.into_iter().map(handler).collect()
}

const SELECT: &str = "SELECT name, definition, secret FROM handler";

type Columns = (String, String, Option<String>);

fn columns(row: &Row<'_>) -> rusqlite::Result<Columns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
}

fn handler((name, definition, secret): Columns) -> Step<Handler> {
    let mut handler: Handler = parse(&format!("the handler {name:?}"), &definition)?;
    handler.name = name;
    handler.secret = secret;
    Ok(handler)
}

fn find(connection: &Connection, name: &str) -> Step<Option<Handler>> {
    let mut statement = connection.prepare_cached(&format!("{SELECT} WHERE name = ?1"))?;
    statement.query_row([name], columns).optional()?.map(handler).transpose()
}

/// The operator's own events, by name.
pub(super) fn own_events(connection: &Connection) -> Step<Vec<OwnEvent>> {
    let mut statement = connection.prepare_cached("SELECT name, description FROM event ORDER BY name")?;
    let rows = statement.query_map((), |row| Ok(OwnEvent::new(row.get::<_, String>(0)?, row.get::<_, String>(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Whether a statement changed anything.
fn any(changed: usize) -> Change<bool> {
    if changed > 0 { Change::Made(true) } else { Change::Nothing(false) }
}

impl Handlers for Registry {
    fn handlers(&self) -> Result<Vec<Handler>> {
        self.read(|transaction| all(transaction))
    }

    fn handler(&self, name: &str) -> Result<Option<Handler>> {
        self.read(|transaction| find(transaction, name))
    }

    fn add_handler(&self, handler: &Handler) -> Result<bool> {
        self.change(|transaction| {
            let definition = to_json(&handler.name, handler)?;
            Ok(any(transaction.execute(
                "INSERT INTO handler (name, definition, secret) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
                params![handler.name, definition, handler.secret],
            )?))
        })
    }

    fn change_handler(&self, name: &str, change: &mut dyn FnMut(Handler) -> Option<Handler>) -> Result<HandlerChange> {
        self.change(|transaction| {
            let Some(found) = find(transaction, name)? else { return Ok(Change::Nothing(HandlerChange::Missing)) };
            let Some(changed) = change(found.clone()) else { return Ok(Change::Nothing(HandlerChange::Refused)) };
            if changed == found {
                return Ok(Change::Nothing(HandlerChange::Done(Box::new(found))));
            }
            transaction.execute(
                "UPDATE handler SET definition = ?2, secret = ?3 WHERE name = ?1",
                params![name, to_json(name, &changed)?, changed.secret],
            )?;
            Ok(Change::Made(HandlerChange::Done(Box::new(changed))))
        })
    }

    fn remove_handler(&self, name: &str) -> Result<bool> {
        self.change(|transaction| Ok(any(transaction.execute("DELETE FROM handler WHERE name = ?1", [name])?)))
    }

    fn own_events(&self) -> Result<Vec<OwnEvent>> {
        self.read(|transaction| own_events(transaction))
    }

    fn add_event(&self, event: &OwnEvent) -> Result<bool> {
        self.change(|transaction| {
            let insert = "INSERT INTO event (name, description) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
            Ok(any(transaction.execute(insert, [&event.name, &event.description])?))
        })
    }

    fn remove_event(&self, name: &str) -> Result<bool> {
        self.change(|transaction| Ok(any(transaction.execute("DELETE FROM event WHERE name = ?1", [name])?)))
    }
}
