//! The ledger: which events happened, and what became of each delivery. A file of its own for each home, so that its commits wait
//! for nobody who changes what is installed.

mod formats;
mod queue;
mod record;
mod work;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use billhook_model::{Clock, Delivery, DeliveryFilter, DeliveryStatus, Emitted, Listener, ListenerKind, Moment};
use billhook_plugin_api::{
    Json, Timestamp,
    data::{Event, ObjectId},
};
use billhook_store::{EventRecord, HeldDelivery, Intervention, Kept, Ledger, Result, Settled, Take};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::{
    clock::KeptClock,
    failure::{Step, commit},
    file::{Durability, begin},
    filter::Filter,
    foreign_log,
};
use formats::LEDGER;
use queue::Queue;

/// The states as the table has them: the first two are of deliveries that are left.
const READY: i64 = 0;
const BLOCKED: i64 = 1;
const DONE: i64 = 2;
const DEAD: i64 = 3;
const DISCARDED: i64 = 4;

/// The ledger of a home. Opened when it is first needed.
pub(crate) struct SqliteLedger {
    path: PathBuf,
    clock: Arc<dyn Clock>,
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

fn in_millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The kind of a listener by its name. Whatever a later version adds is no handler of this one's: it isn't found, and waits.
fn listener_kind(name: &str) -> ListenerKind {
    name.parse().unwrap_or(ListenerKind::Handler)
}

/// Tells what fails as the ledger's.
fn told<T>(step: impl FnOnce() -> Step<T>) -> Result<T> {
    step().map_err(|failure| failure.of(Kept::Ledger))
}

impl SqliteLedger {
    pub(crate) fn new(home: &Path, clock: Arc<dyn Clock>) -> Self {
        let (open, opening, queue) = (OnceLock::new(), Mutex::new(()), Mutex::default());
        SqliteLedger { path: home.join("ledger.db"), clock, open, opening, queue }
    }

    fn open(&self) -> Result<&Open> {
        if let Some(open) = self.open.get() {
            return Ok(open);
        }
        let _opening = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = self.open.get() {
            return Ok(open);
        }
        let mut durable = LEDGER.open(&self.path, Durability::Full)?.connection;
        let clock = told(|| KeptClock::open(&mut durable, &self.clock))?;
        let connect = || LEDGER.connect(&self.path, Durability::Process);
        let writer = Mutex::new(Writer { durable, quick: connect()? });
        let (reader, searcher) = (Mutex::new(connect()?), Mutex::new(connect()?));
        Ok(self.open.get_or_init(|| Open { clock, noted: AtomicI64::new(0), writer, reader, searcher }))
    }

    /// Notes the time in a transaction that writes, so that the clock goes on from there when the machine is started anew.
    fn note_time(&self, transaction: &Transaction<'_>) -> Step<()> {
        let Open { clock, noted, .. } = self.open()?;
        let now = clock.now().millis();
        if now - noted.load(Ordering::Relaxed) >= NOTE_TIME {
            clock.note(transaction)?;
            noted.store(now, Ordering::Relaxed);
        }
        Ok(())
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>> {
        // A panic between two statements leaves a transaction that is rolled back: the connection stays good.
        Ok(self.open()?.writer.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Writer) -> Step<T>) -> Result<T> {
        let mut writer = self.writer()?;
        told(|| write(&mut writer))
    }

    fn reader(&self) -> Result<MutexGuard<'_, Connection>> {
        Ok(self.open()?.reader.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn read<T>(&self, read: impl FnOnce(&Connection) -> Step<T>) -> Result<T> {
        let reader = self.reader()?;
        told(|| read(&reader))
    }

    fn search<T>(&self, search: impl FnOnce(&Connection) -> Step<T>) -> Result<T> {
        let searcher = self.open()?.searcher.lock().unwrap_or_else(PoisonError::into_inner);
        told(|| search(&searcher))
    }

    fn intervene(
        &self,
        number: i64,
        change: impl FnOnce(&Transaction<'_>, &Place) -> Step<bool>,
    ) -> Result<Intervention> {
        self.write(|writer| {
            let transaction = begin(&mut writer.durable)?;
            foreign_log::count(&transaction)?;
            let Some(place) = place(&transaction, number)? else { return Ok(Intervention::Missing) };
            let changed = change(&transaction, &place)?;
            commit(transaction)?;
            Ok(if changed { Intervention::Done } else { Intervention::NotPossible })
        })
    }
}

impl Ledger for SqliteLedger {
    fn exists(&self) -> bool {
        self.open.get().is_some() || self.path.exists()
    }

    fn now(&self) -> Result<Moment> {
        Ok(self.open()?.clock.now())
    }

    fn emit(&self, records: Vec<EventRecord>) -> Result<Vec<Emitted>> {
        self.emit_together(records)
    }

    fn event(&self, number: i64, attempt: u64) -> Result<Option<Event>> {
        self.read(|connection| event(connection, number, attempt))
    }

    fn recorded(&self, id: &str) -> Result<Option<(Emitted, Event)>> {
        if !self.exists() {
            return Ok(None);
        }
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT number FROM event WHERE id = ?1")?;
            let Some(number) = statement.query_row([id], |row| row.get::<_, i64>(0)).optional()? else {
                return Ok(None);
            };
            let mut statement =
                connection.prepare_cached("SELECT number FROM delivery WHERE event = ?1 ORDER BY number")?;
            let deliveries =
                statement.query_map([number], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
            let emitted = Emitted::new(id, deliveries).repeated();
            Ok(event(connection, number, 0)?.map(|event| (emitted, event)))
        })
    }

    fn show(&self, number: i64) -> Result<Option<(Delivery, Event)>> {
        let clock = &self.open()?.clock;
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("{SELECT}, d.event {FROM} WHERE d.number = ?1"))?;
            let found =
                statement.query_row([number], |row| Ok((delivery(row, clock)?, row.get::<_, i64>(12)?))).optional()?;
            let Some((mut delivery, of)) = found else { return Ok(None) };
            // The first of the same listener and object.
            let mut statement = connection.prepare_cached(
                "SELECT o.number FROM delivery d JOIN delivery o ON o.kind = d.kind AND o.listener = d.listener
                 AND o.object = d.object WHERE d.number = ?1 AND d.state = 1 AND o.state = 0",
            )?;
            delivery.waits_for = statement.query_row([number], |row| row.get(0)).optional()?;
            let event = event(connection, of, u64::from(delivery.attempts))?;
            Ok(event.map(|event| (delivery, event)))
        })
    }

    fn list(&self, asked: &DeliveryFilter) -> Result<Vec<Delivery>> {
        let clock = &self.open()?.clock;
        let DeliveryFilter { status, event, event_id, listener, object, before, limit } = asked;
        let mut filter = Filter::default();
        filter.when(event, "e.name =");
        filter.when_within(event_id, "d.event = (SELECT number FROM event WHERE id =", ")");
        filter.when(listener, "d.listener =");
        filter.when(object, "d.object =");
        filter.when(before, "d.number <");
        match status {
            None => {}
            Some(DeliveryStatus::Waiting) => {
                let now = filter.bind(clock.steady());
                filter.and(&format!("d.state < 2 AND d.held_until <= {now}"));
            }
            Some(DeliveryStatus::Running) => {
                let now = filter.bind(clock.steady());
                filter.and(&format!("d.state < 2 AND d.held_until > {now}"));
            }
            Some(DeliveryStatus::Dead) => filter.and("d.state = 3"),
            Some(DeliveryStatus::Discarded) => filter.and("d.state = 4"),
            Some(_) => filter.and("d.state = 2"),
        }
        let most = filter.limit(*limit);
        self.search(|connection| {
            let text = format!("{SELECT} {FROM}{} ORDER BY d.number DESC LIMIT {most}", filter.text());
            let mut statement = connection.prepare_cached(&text)?;
            let rows = statement.query_map(filter.values(), |row| delivery(row, clock))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn open_deliveries(&self, listener: &Listener) -> Result<u64> {
        if !self.exists() {
            return Ok(0);
        }
        self.read(|connection| {
            let count = "SELECT count(*) FROM delivery WHERE state < 2 AND kind = ?1 AND listener = ?2";
            let count: i64 = connection.query_row(count, [listener.kind.name(), &listener.name], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
    }

    fn waiting_listeners(&self) -> Result<Vec<Listener>> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        self.search(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT DISTINCT kind, listener FROM delivery WHERE state < 2 ORDER BY kind, listener",
            )?;
            let rows = statement.query_map((), |row| {
                Ok(Listener::new(listener_kind(&row.get::<_, String>(0)?), row.get::<_, String>(1)?))
            })?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    fn redrive(&self, number: i64) -> Result<Intervention> {
        let clock = &self.open()?.clock;
        let now = clock.now().millis();
        self.intervene(number, |transaction, row| {
            if row.state == READY && !is_held(transaction, row, clock.steady())? {
                transaction
                    .execute("UPDATE delivery SET due = min(due, ?2) WHERE number = ?1", params![number, now])?;
                return Ok(true);
            }
            if !matches!(row.state, DEAD | DISCARDED) {
                return Ok(false);
            }
            // Behind one that may run now, and before those that wait: it is older than they.
            let state = if has_ready(transaction, row)? { BLOCKED } else { READY };
            transaction.execute(
                "UPDATE delivery SET state = ?2, attempts = 0, taken = 0, begun = 0, due = ?3, problem = NULL,
                     settled = NULL
                 WHERE number = ?1",
                params![number, state, now],
            )?;
            Ok(true)
        })
    }

    fn discard(&self, number: i64) -> Result<Intervention> {
        let clock = &self.open()?.clock;
        let now = clock.now().millis();
        self.intervene(number, |transaction, row| {
            let is_open = matches!(row.state, READY | BLOCKED);
            let is_ended = matches!(row.state, DONE | DISCARDED);
            if is_ended || (is_open && is_held(transaction, row, clock.steady())?) {
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

    fn give_up(&self, listener: &Listener, problem: &str) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        let clock = &self.open()?.clock;
        self.write(|writer| {
            let transaction = begin(&mut writer.durable)?;
            foreign_log::count(&transaction)?;
            transaction.execute(
                "UPDATE delivery SET state = ?6, settled = ?3, problem = ?4, holder = NULL, held_until = 0
                 WHERE state < 2 AND kind = ?1 AND listener = ?2 AND held_until <= ?5",
                params![listener.kind.name(), listener.name, clock.now().millis(), problem, clock.steady(), DEAD],
            )?;
            commit(transaction)
        })
    }

    fn forget(&self, kept: Duration) -> Result<bool> {
        /// So many at once.
        const MOST: usize = 2_000;
        let before = self.now()?.before(kept).millis();
        self.write(|writer| {
            let transaction = begin(&mut writer.quick)?;
            let events: Vec<i64> = {
                let mut delete = transaction.prepare_cached(
                    "DELETE FROM delivery WHERE number IN
                     (SELECT number FROM delivery WHERE state IN (2, 4) AND settled < ?1 LIMIT ?2) RETURNING event",
                )?;
                delete.query_map(params![before, MOST as i64], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?
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
                 (SELECT number FROM event WHERE unheard = 1 AND recorded < ?1 ORDER BY recorded LIMIT ?2)",
                params![before, MOST as i64],
            )?);
            commit(transaction)?;
            Ok(forgotten >= MOST)
        })
    }

    fn ready_listeners(&self) -> Result<Vec<Listener>> {
        self.find_ready()
    }

    fn is_due(&self, listener: &Listener) -> Result<bool> {
        self.has_due(listener)
    }

    fn take(&self, take: &Take<'_>, announced: &dyn Fn(&str) -> HashSet<i64>) -> Result<Vec<HeldDelivery>> {
        self.take_due(take, announced)
    }

    fn begin(&self, holder: &str, held: &HeldDelivery) -> Result<Option<u32>> {
        self.note_begun(holder, held)
    }

    fn renew(&self, holder: &str, hold_for: Duration) -> Result<()> {
        self.hold_longer(holder, hold_for).map(drop)
    }

    fn renew_lapsed(&self, holder: &str, hold_for: Duration) -> Result<HashMap<i64, i64>> {
        self.hold_longer(holder, hold_for)
    }

    fn settle(&self, holder: &str, hold_for: Option<Duration>, all: &[Settled]) -> Result<Vec<HeldDelivery>> {
        self.settle_all(holder, hold_for, all)
    }

    fn holders(&self) -> Result<Vec<String>> {
        self.find_holders()
    }

    fn recover(&self, holder: &str) -> Result<Vec<HeldDelivery>> {
        self.free(holder)
    }
}

/// An event, as a listener gets it at an attempt.
fn event(connection: &Connection, number: i64, attempt: u64) -> Step<Option<Event>> {
    let mut statement =
        connection.prepare_cached("SELECT id, name, object_id, date, data FROM event WHERE number = ?1")?;
    let event = statement.query_row([number], |row| {
        let (object_id, date, data): (Option<String>, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
        Ok(Event {
            id: row.get(0)?,
            name: row.get(1)?,
            object_id: object_id.as_deref().and_then(ObjectId::from_json),
            date: Timestamp::new(date).unwrap_or_default(),
            attempt,
            data: Json::new(data).unwrap_or_default(),
        })
    });
    Ok(event.optional()?)
}

/// Where a delivery is among those of its listener and object.
struct Place {
    number: i64,
    state: i64,
    kind: String,
    listener: String,
    object: Option<String>,
}

fn place(transaction: &Transaction<'_>, number: i64) -> Step<Option<Place>> {
    let mut statement =
        transaction.prepare_cached("SELECT state, kind, listener, object FROM delivery WHERE number = ?1")?;
    let place = statement.query_row([number], |row| {
        Ok(Place { number, state: row.get(0)?, kind: row.get(1)?, listener: row.get(2)?, object: row.get(3)? })
    });
    Ok(place.optional()?)
}

/// Whether another delivery of the same listener and object may run.
fn has_ready(transaction: &Transaction<'_>, place: &Place) -> Step<bool> {
    let mut statement = transaction.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM delivery WHERE state < 2 AND kind = ?1 AND listener = ?2 AND object = ?3
                        AND state = 0 AND number <> ?4)",
    )?;
    let Place { number, kind, listener, object, .. } = place;
    Ok(statement.query_row(params![kind, listener, object, number], |row| row.get(0))?)
}

/// Whether a host holds the delivery, or the one before it: it may be about to run both.
fn is_held(transaction: &Transaction<'_>, place: &Place, now: i64) -> Step<bool> {
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
fn promote(transaction: &Transaction<'_>, place: &Place, now: i64, hold: Option<Hold<'_>>) -> Step<bool> {
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

fn delivery(row: &Row<'_>, clock: &KeptClock) -> rusqlite::Result<Delivery> {
    let (id, name, kind, listener): (String, String, String, String) =
        (row.get(1)?, row.get(2)?, row.get(4)?, row.get(5)?);
    let (state, held_until): (i64, i64) = (row.get(6)?, row.get(9)?);
    let mut delivery = Delivery::new(row.get(0)?, id, name, listener_kind(&kind), listener);
    delivery.date = Timestamp::new(row.get::<_, String>(11)?).unwrap_or_default();
    delivery.object_id = row.get::<_, Option<String>>(3)?.as_deref().and_then(ObjectId::from_json);
    delivery.status = match state {
        DONE => DeliveryStatus::Done,
        DEAD => DeliveryStatus::Dead,
        DISCARDED => DeliveryStatus::Discarded,
        _ if held_until > clock.steady() => DeliveryStatus::Running,
        _ => DeliveryStatus::Waiting,
    };
    delivery.attempts = row.get(7)?;
    delivery.due = clock.shown(row.get(8)?);
    delivery.problem = row.get(10)?;
    Ok(delivery)
}
