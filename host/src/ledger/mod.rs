//! The ledger: which events happened, and what became of each delivery.
//!
//! A delivery is what one listener is told of one event. It is in the ledger before whoever emitted the event goes on, and stays
//! until it is done, dead or discarded. Deliveries of the same listener and object run in the order of their events: only the
//! first that is left *may run*, the others wait for it. A host takes deliveries under a lease, and settles many at once.

mod record;
mod schema;
mod work;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use billhook_plugin_api::data::{Event, ObjectId};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use record::Queue;
pub(crate) use record::Record;
pub(crate) use work::{Held, Settled, Verdict};

use crate::{
    database::{DatabaseError, Durability, KeptClock, steady_ms},
    events::{Listener, ListenerKind},
};

/// Why the ledger can't be read or written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the ledger (ledger.db in the home) failed: {0}")]
pub struct LedgerError(#[source] Arc<DatabaseError>);

impl From<DatabaseError> for LedgerError {
    fn from(error: DatabaseError) -> Self {
        LedgerError(Arc::new(error))
    }
}

impl From<rusqlite::Error> for LedgerError {
    fn from(error: rusqlite::Error) -> Self {
        DatabaseError::from(error).into()
    }
}

/// What became of a delivery so far.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeliveryStatus {
    /// It runs when it is due, or when earlier ones of the same listener and object are done.
    Waiting,
    /// A host holds it.
    Running,
    /// The listener was told.
    Done,
    /// It failed for good, or too often: a dead letter.
    Dead,
    /// The operator discarded it.
    Discarded,
}

impl DeliveryStatus {
    /// Each of them, in the order of a delivery's life.
    pub const ALL: &[DeliveryStatus] = &[
        DeliveryStatus::Waiting,
        DeliveryStatus::Running,
        DeliveryStatus::Done,
        DeliveryStatus::Dead,
        DeliveryStatus::Discarded,
    ];

    /// The name in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            DeliveryStatus::Waiting => "waiting",
            DeliveryStatus::Running => "running",
            DeliveryStatus::Done => "done",
            DeliveryStatus::Dead => "dead",
            DeliveryStatus::Discarded => "discarded",
        }
    }
}

/// The states as the table has them.
const READY: i64 = 0;
const BLOCKED: i64 = 1;
const DONE: i64 = 2;
const DEAD: i64 = 3;
const DISCARDED: i64 = 4;

/// A delivery.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Delivery {
    /// Its number.
    pub number: i64,
    /// The id of the event.
    pub event_id: String,
    /// The name of the event.
    pub event: String,
    /// When the event happened, as RFC 3339 has it.
    pub date: String,
    /// The object that the event is about.
    pub object_id: Option<ObjectId>,
    /// What kind of listener it is for.
    pub kind: ListenerKind,
    /// The handler's name or the plugin's id.
    pub listener: String,
    /// What became of it so far.
    pub status: DeliveryStatus,
    /// How many attempts ended.
    pub attempts: u32,
    /// When it may run next, in milliseconds since 1970.
    pub due: i64,
    /// The delivery that it waits for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<i64>,
    /// Why the last attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Which deliveries are asked for; what is `None` doesn't matter.
#[derive(Debug, Clone, Default)]
pub struct DeliveryFilter {
    /// The status.
    pub status: Option<DeliveryStatus>,
    /// The event's name.
    pub event: Option<String>,
    /// The event's id.
    pub event_id: Option<String>,
    /// The handler's name or the plugin's id.
    pub listener: Option<String>,
    /// The object's id.
    pub object: Option<String>,
    /// Deliveries with lower numbers than this.
    pub before: Option<i64>,
    /// At most so many; all if it is 0.
    pub limit: usize,
}

/// An event that was recorded.
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Emitted {
    /// The event's id.
    pub id: String,
    /// The numbers of its deliveries, in the order of the listeners.
    pub deliveries: Vec<i64>,
    /// It had been recorded before.
    pub is_repeated: bool,
}

/// The ledger of a home. Opened when it is first needed.
pub(crate) struct Ledger {
    path: PathBuf,
    open: OnceLock<Open>,
    opening: Mutex<()>,
    /// Events that wait to be recorded.
    queue: Mutex<Queue>,
}

struct Open {
    clock: KeptClock,
    /// When the time was noted last, by the ledger's clock.
    noted: AtomicI64,
    writer: Mutex<Writer>,
    /// Reading waits for nobody who writes.
    reader: Mutex<Connection>,
    /// Searching may take long, and holds up no delivery.
    searcher: Mutex<Connection>,
}

/// The time is noted so often, in milliseconds.
const NOTE_TIME: i64 = 3_000;

/// The connections that write, of which one does at a time.
struct Writer {
    /// What it commits survives the end of the machine.
    durable: Connection,
    /// What it commits survives the end of the process: for who holds what, which means nothing after the end of the machine.
    quick: Connection,
}

impl Ledger {
    pub(crate) fn new(home: &Path) -> Self {
        Ledger { path: home.join("ledger.db"), open: OnceLock::new(), opening: Mutex::new(()), queue: Mutex::default() }
    }

    /// Whether there is one on disk: until an event was emitted, there is nothing to deliver.
    pub(crate) fn exists(&self) -> bool {
        self.open.get().is_some() || self.path.exists()
    }

    fn open(&self) -> Result<&Open, LedgerError> {
        if let Some(open) = self.open.get() {
            return Ok(open);
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if self.open.get().is_none() {
            let mut durable = schema::open(&self.path, Durability::Full)?;
            let clock = KeptClock::open(&mut durable)?;
            let quick = schema::open(&self.path, Durability::Process)?;
            let reader = schema::open(&self.path, Durability::Process)?;
            let searcher = schema::open(&self.path, Durability::Process)?;
            let writer = Mutex::new(Writer { durable, quick });
            let _ = self.open.set(Open {
                clock,
                noted: AtomicI64::new(0),
                writer,
                reader: Mutex::new(reader),
                searcher: Mutex::new(searcher),
            });
        }
        self.open.get().ok_or_else(|| rusqlite::Error::InvalidQuery.into())
    }

    fn clock(&self) -> Result<KeptClock, LedgerError> {
        Ok(self.open()?.clock)
    }

    /// Returns the time by which deliveries are due and age, in milliseconds since 1970.
    pub(crate) fn now(&self) -> Result<i64, LedgerError> {
        Ok(self.clock()?.now())
    }

    /// Notes the time in a transaction that writes, so that the clock goes on from there when the machine is started anew.
    fn note_time(&self, transaction: &Transaction<'_>) -> Result<(), LedgerError> {
        let Open { clock, noted, .. } = self.open()?;
        let now = clock.now();
        if now - noted.load(Ordering::Relaxed) >= NOTE_TIME {
            clock.note(transaction)?;
            noted.store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, LedgerError> {
        // A panic between two statements leaves a transaction that is rolled back: the connection stays good.
        Ok(self.open()?.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn reader(&self) -> Result<MutexGuard<'_, Connection>, LedgerError> {
        Ok(self.open()?.reader.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn searcher(&self) -> Result<MutexGuard<'_, Connection>, LedgerError> {
        Ok(self.open()?.searcher.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The event of a delivery, as the listener gets it at an attempt.
    pub(crate) fn event(&self, number: i64, attempt: u64) -> Result<Option<Event>, LedgerError> {
        let connection = self.reader()?;
        let mut statement =
            connection.prepare_cached("SELECT id, name, object_id, date, data FROM event WHERE number = ?1")?;
        let event = statement.query_row([number], |row| {
            let (object_id, date, data): (Option<String>, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
            Ok(Event {
                id: row.get(0)?,
                name: row.get(1)?,
                object_id: object_id.as_deref().and_then(ObjectId::from_json),
                date: billhook_plugin_api::Timestamp::new(date).unwrap_or_default(),
                attempt,
                data: billhook_plugin_api::Json::new(data).unwrap_or_default(),
            })
        });
        Ok(event.optional()?)
    }

    /// A delivery and its event.
    pub(crate) fn show(&self, number: i64) -> Result<Option<(Delivery, Event)>, LedgerError> {
        let found = {
            let clock = self.clock()?;
            let connection = self.reader()?;
            let mut statement = connection.prepare_cached(&format!("{SELECT}, d.event {FROM} WHERE d.number = ?1"))?;
            statement.query_row([number], |row| Ok((delivery(row, clock)?, row.get::<_, i64>(12)?))).optional()?
        };
        let Some((mut delivery, event)) = found else { return Ok(None) };
        delivery.waits_for = self.waits_for(number)?;
        let event = self.event(event, u64::from(delivery.attempts))?;
        Ok(event.map(|event| (delivery, event)))
    }

    /// The delivery that one waits for: the first of the same listener and object.
    fn waits_for(&self, number: i64) -> Result<Option<i64>, LedgerError> {
        let connection = self.reader()?;
        let mut statement = connection.prepare_cached(
            "SELECT o.number FROM delivery d JOIN delivery o ON o.kind = d.kind AND o.listener = d.listener
             AND o.object = d.object WHERE d.number = ?1 AND d.state = 1 AND o.state = 0",
        )?;
        Ok(statement.query_row([number], |row| row.get(0)).optional()?)
    }

    /// Deliveries, the newest first.
    pub(crate) fn list(&self, filter: &DeliveryFilter) -> Result<Vec<Delivery>, LedgerError> {
        let clock = self.clock()?;
        let connection = self.searcher()?;
        let now = steady_ms();
        let limit = if filter.limit == 0 { -1 } else { i64::try_from(filter.limit).unwrap_or(i64::MAX) };
        let status = match filter.status {
            None => "",
            Some(DeliveryStatus::Waiting) => " AND d.state < 2 AND d.held_until <= ?6",
            Some(DeliveryStatus::Running) => " AND d.state < 2 AND d.held_until > ?6",
            Some(DeliveryStatus::Done) => " AND d.state = 2",
            Some(DeliveryStatus::Dead) => " AND d.state = 3",
            Some(DeliveryStatus::Discarded) => " AND d.state = 4",
        };
        // Only the conditions that are asked for, so that an index can serve them.
        let conditions: String = [
            (filter.event.is_some(), " AND e.name = ?1"),
            (filter.event_id.is_some(), " AND d.event = (SELECT number FROM event WHERE id = ?2)"),
            (filter.listener.is_some(), " AND d.listener = ?3"),
            (filter.object.is_some(), " AND d.object = ?4"),
            (filter.before.is_some(), " AND d.number < ?5"),
            (true, status),
        ]
        .iter()
        .filter(|(is_asked, _)| *is_asked)
        .map(|(_, condition)| *condition)
        .collect();
        let mut statement = connection.prepare_cached(&format!(
            "{SELECT} {FROM} WHERE ?1 IS ?1 AND ?2 IS ?2 AND ?3 IS ?3 AND ?4 IS ?4 AND ?5 IS ?5 AND ?6 IS ?6{conditions}
             ORDER BY d.number DESC LIMIT ?7"
        ))?;
        let DeliveryFilter { event, event_id, listener, object, before, .. } = filter;
        let rows = statement
            .query_map(params![event, event_id, listener, object, before, now, limit], |row| delivery(row, clock))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// What was recorded of an event, by its id; none if it wasn't.
    pub(crate) fn recorded(&self, id: &str) -> Result<Option<(Emitted, Event)>, LedgerError> {
        if !self.exists() {
            return Ok(None);
        }
        let (number, deliveries) = {
            let connection = self.reader()?;
            let mut statement = connection.prepare_cached("SELECT number FROM event WHERE id = ?1")?;
            let Some(number) = statement.query_row([id], |row| row.get::<_, i64>(0)).optional()? else {
                return Ok(None);
            };
            let mut statement =
                connection.prepare_cached("SELECT number FROM delivery WHERE event = ?1 ORDER BY number")?;
            let deliveries = statement.query_map([number], |row| row.get(0))?.collect::<Result<_, _>>()?;
            (number, deliveries)
        };
        let emitted = Emitted { id: id.to_owned(), deliveries, is_repeated: true };
        Ok(self.event(number, 0)?.map(|event| (emitted, event)))
    }

    /// Whether a listener has deliveries that are neither done nor dead, and how many.
    pub(crate) fn open_deliveries(&self, listener: &Listener) -> Result<u64, LedgerError> {
        if !self.exists() {
            return Ok(0);
        }
        let connection = self.reader()?;
        let count = "SELECT count(*) FROM delivery WHERE state < 2 AND kind = ?1 AND listener = ?2";
        let count: i64 = connection.query_row(count, [listener.kind.name(), &listener.name], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// Lets a dead or discarded delivery run again, with all its attempts, and one that waits for another attempt run now. `None`
    /// if there is no such delivery; `false` if it is done, is just being delivered, or waits for an earlier one.
    pub(crate) fn redrive(&self, number: i64) -> Result<Option<bool>, LedgerError> {
        let now = self.now()?;
        self.change(number, |transaction, row| {
            if row.state == READY && !is_held(transaction, row, steady_ms())? {
                transaction.execute("UPDATE delivery SET due = min(due, ?2) WHERE number = ?1", params![number, now])?;
                return Ok(true);
            }
            if !matches!(row.state, DEAD | DISCARDED) {
                return Ok(false);
            }
            // Behind one that may run now, and before those that wait: it is older than they.
            let state = if has_ready(transaction, row)? { BLOCKED } else { READY };
            transaction.execute(
                "UPDATE delivery SET state = ?2, attempts = 0, taken = 0, begun = 0, due = ?3, problem = NULL, settled = NULL
                 WHERE number = ?1",
                params![number, state, now],
            )?;
            Ok(true)
        })
    }

    /// Gives a delivery up. `None` if there is no such delivery; `false` if it is done, or just being delivered.
    pub(crate) fn discard(&self, number: i64) -> Result<Option<bool>, LedgerError> {
        let now = self.now()?;
        self.change(number, |transaction, row| {
            let is_open = matches!(row.state, READY | BLOCKED);
            if matches!(row.state, DONE | DISCARDED) || (is_open && is_held(transaction, row, steady_ms())?) {
                return Ok(false);
            }
            transaction.execute(
                "UPDATE delivery SET state = ?2, settled = ?3, holder = NULL, held_until = 0 WHERE number = ?1",
                params![number, DISCARDED, now],
            )?;
            if row.state == READY {
                let _ = promote(transaction, row, now, None)?;
            }
            Ok(true)
        })
    }

    fn change(
        &self,
        number: i64,
        change: impl FnOnce(&Transaction<'_>, &Place) -> Result<bool, LedgerError>,
    ) -> Result<Option<bool>, LedgerError> {
        let mut writer = self.writer()?;
        let transaction = schema::begin_counted(&mut writer.durable)?;
        let Some(place) = place(&transaction, number)? else { return Ok(None) };
        let changed = change(&transaction, &place)?;
        transaction.commit()?;
        Ok(Some(changed))
    }

    /// Deletes what was done or discarded long ago; at most some thousand deliveries at once, so that nobody waits for long. Answers
    /// whether there may be more.
    pub(crate) fn forget(&self, kept: Duration) -> Result<bool, LedgerError> {
        const AT_ONCE: usize = 2_000;
        let before = self.now()?.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        let mut writer = self.writer()?;
        let transaction = schema::begin(&mut writer.quick)?;
        let events: Vec<i64> = {
            let mut delete = transaction.prepare_cached(
                "DELETE FROM delivery WHERE number IN
                 (SELECT number FROM delivery WHERE state IN (2, 4) AND settled < ?1 LIMIT 2000) RETURNING event",
            )?;
            delete.query_map([before], |row| row.get(0))?.collect::<Result<_, _>>()?
        };
        let mut forgotten = events.len();
        {
            let mut delete = transaction.prepare_cached(
                "DELETE FROM event WHERE number = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE event = ?1)",
            )?;
            for event in events {
                delete.execute([event])?;
            }
        }
        forgotten = forgotten.max(transaction.execute(
            "DELETE FROM event WHERE number IN
             (SELECT number FROM event WHERE unheard = 1 AND recorded < ?1 ORDER BY recorded LIMIT 2000)",
            [before],
        )?);
        transaction.commit()?;
        Ok(forgotten >= AT_ONCE)
    }

    /// Makes dead letters of all deliveries that a listener has left, but for those that are just being delivered.
    pub(crate) fn give_up(&self, listener: &Listener, problem: &str) -> Result<(), LedgerError> {
        if !self.exists() {
            return Ok(());
        }
        let now = self.now()?;
        let writer = self.writer()?;
        writer.durable.execute(
            "UPDATE delivery SET state = 3, settled = ?3, problem = ?4, holder = NULL, held_until = 0
             WHERE state < 2 AND kind = ?1 AND listener = ?2 AND held_until <= ?5",
            params![listener.kind.name(), listener.name, now, problem, steady_ms()],
        )?;
        Ok(())
    }

    /// The listeners that have deliveries left, whether they may run or not.
    pub(crate) fn waiting_listeners(&self) -> Result<Vec<Listener>, LedgerError> {
        let connection = self.searcher()?;
        let mut statement = connection
            .prepare_cached("SELECT DISTINCT kind, listener FROM delivery WHERE state < 2 ORDER BY kind, listener")?;
        let rows = statement.query_map((), |row| {
            let kind: String = row.get(0)?;
            Ok(Listener { kind: ListenerKind::parse(&kind), name: row.get(1)? })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

/// Where a delivery is among those of its listener and object.
struct Place {
    number: i64,
    state: i64,
    kind: String,
    listener: String,
    object: Option<String>,
}

fn place(transaction: &Transaction<'_>, number: i64) -> Result<Option<Place>, LedgerError> {
    let mut statement =
        transaction.prepare_cached("SELECT state, kind, listener, object FROM delivery WHERE number = ?1")?;
    let place = statement.query_row([number], |row| {
        Ok(Place { number, state: row.get(0)?, kind: row.get(1)?, listener: row.get(2)?, object: row.get(3)? })
    });
    Ok(place.optional()?)
}

/// Whether another delivery of the same listener and object may run.
fn has_ready(transaction: &Transaction<'_>, place: &Place) -> Result<bool, LedgerError> {
    let mut statement = transaction.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM delivery WHERE state < 2 AND kind = ?1 AND listener = ?2 AND object = ?3
                        AND state = 0 AND number <> ?4)",
    )?;
    let Place { number, kind, listener, object, .. } = place;
    Ok(statement.query_row(params![kind, listener, object, number], |row| row.get(0))?)
}

/// Whether a host holds the delivery, or the one before it: it may be about to run both.
fn is_held(transaction: &Transaction<'_>, place: &Place, now: i64) -> Result<bool, LedgerError> {
    let mut statement = transaction.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM delivery WHERE held_until > ?5 AND state < 2 AND
                        (number = ?4 OR (kind = ?1 AND listener = ?2 AND object = ?3)))",
    )?;
    let Place { number, kind, listener, object, .. } = place;
    Ok(statement.query_row(params![kind, listener, object, number, now], |row| row.get(0))?)
}

/// Who holds deliveries, and until when.
#[derive(Debug, Clone, Copy)]
struct Hold<'a> {
    holder: &'a str,
    until: i64,
}

/// Lets the next delivery of the same listener and object run, held by whoever goes on with it. Answers whether there is one.
fn promote(
    transaction: &Transaction<'_>,
    place: &Place,
    now: i64,
    hold: Option<Hold<'_>>,
) -> Result<bool, LedgerError> {
    let Place { kind, listener, object: Some(object), .. } = place else { return Ok(false) };
    let mut statement = transaction.prepare_cached(
        "UPDATE delivery SET state = 0, due = ?4, holder = ?5, held_until = ?6, taken = taken + (?5 IS NOT NULL),
             lease = lease + (?5 IS NOT NULL)
         WHERE number = (SELECT min(number) FROM delivery
                         WHERE state < 2 AND kind = ?1 AND listener = ?2 AND object = ?3)",
    )?;
    let (holder, until) = hold.map_or((None, 0), |hold| (Some(hold.holder), hold.until));
    Ok(statement.execute(params![kind, listener, object, now, holder, until])? > 0)
}

const SELECT: &str =
    "SELECT d.number, e.id, e.name, e.object_id, d.kind, d.listener, d.state, d.attempts, d.due, d.held_until,
    d.problem, e.date";
const FROM: &str = "FROM delivery d JOIN event e ON e.number = d.event";

fn delivery(row: &Row<'_>, clock: KeptClock) -> rusqlite::Result<Delivery> {
    let (kind, object_id): (String, Option<String>) = (row.get(4)?, row.get(3)?);
    let (state, held_until): (i64, i64) = (row.get(6)?, row.get(9)?);
    Ok(Delivery {
        number: row.get(0)?,
        event_id: row.get(1)?,
        event: row.get(2)?,
        date: row.get(11)?,
        object_id: object_id.as_deref().and_then(ObjectId::from_json),
        kind: ListenerKind::parse(&kind),
        listener: row.get(5)?,
        status: match state {
            DONE => DeliveryStatus::Done,
            DEAD => DeliveryStatus::Dead,
            DISCARDED => DeliveryStatus::Discarded,
            _ if held_until > steady_ms() => DeliveryStatus::Running,
            _ => DeliveryStatus::Waiting,
        },
        attempts: row.get(7)?,
        due: clock.shown(row.get(8)?),
        waits_for: None,
        problem: row.get(10)?,
    })
}
