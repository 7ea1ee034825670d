//! How a host takes deliveries, and tells what became of them.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use rusqlite::{OptionalExtension, Row, params};

use super::{BLOCKED, DEAD, DONE, Hold, Ledger, LedgerError, Place, READY, promote, schema};
use crate::{
    crash_point,
    database::steady_ms,
    events::{Listener, ListenerKind},
};

/// A delivery that this host holds: nobody else delivers it, and nobody delivers later ones of its object.
#[derive(Debug, Clone)]
pub(crate) struct Held {
    pub(crate) number: i64,
    /// The number of its event.
    pub(crate) event: i64,
    pub(crate) listener: Listener,
    pub(crate) object: Option<String>,
    /// How many attempts ended.
    pub(crate) attempts: u32,
    /// How often it was taken since, this time included.
    pub(crate) taken: u32,
    /// How often it was taken since it was recorded: what is noted of it under a lower number is left alone.
    pub(crate) lease: i64,
}

/// What becomes of a delivery.
#[derive(Debug, Clone)]
pub(crate) enum Verdict {
    Done,
    /// Another attempt, after a pause.
    Again {
        pause: Duration,
        problem: String,
    },
    Dead(String),
    /// It was not attempted, and anybody may take it.
    Released,
}

/// What became of a delivery that this host held.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    pub(crate) held: Held,
    pub(crate) verdict: Verdict,
}

const RETURNED: &str = "number, event, kind, listener, object, attempts, taken, lease";

fn held(row: &Row<'_>) -> rusqlite::Result<Held> {
    let kind: String = row.get(2)?;
    Ok(Held {
        number: row.get(0)?,
        event: row.get(1)?,
        listener: Listener { kind: ListenerKind::parse(&kind), name: row.get(3)? },
        object: row.get(4)?,
        attempts: row.get(5)?,
        taken: row.get(6)?,
        lease: row.get(7)?,
    })
}

impl Ledger {
    /// The listeners for which deliveries wait that nobody has to wait for. Takes as long as there are listeners, however much waits
    /// for each.
    pub(crate) fn ready_listeners(&self) -> Result<Vec<Listener>, LedgerError> {
        let connection = self.reader()?;
        let mut found: Vec<Listener> = Vec::new();
        // From the end of one listener in the index to the next. SQLite looks for what is larger by walking on from what is equal,
        // so the end is named by a time that no delivery has.
        let mut next = connection.prepare_cached(
            "SELECT kind, listener FROM delivery WHERE state = 0 AND (kind, listener, due) > (?1, ?2, ?3)
             ORDER BY kind, listener, due LIMIT 1",
        )?;
        let (mut kind, mut name) = (String::new(), String::new());
        loop {
            let mut rows = next.query(params![kind, name, i64::MAX])?;
            let Some(row) = rows.next()? else { return Ok(found) };
            (kind, name) = (row.get(0)?, row.get(1)?);
            found.push(Listener { kind: ListenerKind::parse(&kind), name: name.clone() });
        }
    }

    /// Whether a listener has deliveries that may run and that nobody holds.
    pub(crate) fn is_due(&self, listener: &Listener) -> Result<bool, LedgerError> {
        let now = self.now()?;
        let connection = self.reader()?;
        let mut is_due = connection.prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM delivery WHERE state = 0 AND kind = ?1 AND listener = ?2 AND due <= ?3
                            AND held_until <= ?4)",
        )?;
        Ok(is_due.query_row(params![listener.kind.name(), listener.name, now, steady_ms()], |row| row.get(0))?)
    }

    /// Takes deliveries of a listener for so many milliseconds, the ones that are due for longest first. `announced` tells what a host
    /// whose lease ran out is just beginning: that is left alone.
    pub(crate) fn take(
        &self,
        listener: &Listener,
        holder: &str,
        hold_for: i64,
        most: usize,
        announced: &dyn Fn(&str) -> HashSet<i64>,
    ) -> Result<Vec<Held>, LedgerError> {
        let now = self.now()?;
        let mut writer = self.writer()?;
        let transaction = schema::begin(&mut writer.quick)?;
        // In this order: who announces something after this time looks at a lease that has run out.
        let (at, mut begun) = (steady_ms(), HashSet::new());
        {
            // From one holder in the index to the next, however much each holds.
            let mut next = transaction.prepare_cached(
                "SELECT holder FROM delivery WHERE holder IS NOT NULL AND holder > ?1 ORDER BY holder LIMIT 1",
            )?;
            let mut lapsed = transaction
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM delivery WHERE holder = ?1 AND held_until <= ?2)")?;
            let mut name = String::new();
            while let Some(other) = next.query_row([&name], |row| row.get::<_, String>(0)).optional()? {
                if other != holder && lapsed.query_row(params![other, at], |row| row.get(0))? {
                    begun.extend(announced(&other));
                }
                name = other;
            }
        }
        let begun: Vec<String> = begun.iter().map(i64::to_string).collect();
        let begun = format!("[{}]", begun.join(","));
        let mut statement = transaction.prepare_cached(&format!(
            "UPDATE delivery SET holder = ?4, held_until = ?5, taken = taken + 1, lease = lease + 1
             WHERE number IN (SELECT number FROM delivery WHERE state = 0 AND kind = ?1 AND listener = ?2 AND due <= ?3
                              AND held_until <= ?7 AND holder IS NOT ?4
                              AND number NOT IN (SELECT value FROM json_each(?8)) ORDER BY due, number LIMIT ?6)
             RETURNING {RETURNED}"
        ))?;
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let rows = statement
            .query_map(
                params![listener.kind.name(), listener.name, now, holder, at.saturating_add(hold_for), most, at, begun],
                held,
            )?
            .collect::<Result<Vec<_>, _>>();
        drop(statement);
        let mut taken = rows?;
        transaction.commit()?;
        taken.sort_by_key(|held| held.number);
        Ok(taken)
    }

    /// Notes that a delivery is begun. Returns how often it was, since an attempt ended last; `None` if somebody else has it.
    pub(crate) fn begin(&self, holder: &str, held: &Held) -> Result<Option<u32>, LedgerError> {
        let writer = self.writer()?;
        let mut statement = writer.quick.prepare_cached(
            "UPDATE delivery SET begun = begun + 1 WHERE number = ?1 AND holder = ?2 AND lease = ?3 AND state = 0
             RETURNING begun",
        )?;
        Ok(statement.query_row(params![held.number, holder, held.lease], |row| row.get(0)).optional()?)
    }

    /// Holds what a host holds for longer.
    pub(crate) fn renew(&self, holder: &str, until: i64) -> Result<(), LedgerError> {
        let writer = self.writer()?;
        let mut statement =
            writer.quick.prepare_cached("UPDATE delivery SET held_until = ?2 WHERE holder = ?1 AND state = 0")?;
        statement.execute(params![holder, until])?;
        Ok(())
    }

    /// Holds for longer what a host whose lease had run out still holds, because nobody took it. Returns that: the number of each
    /// delivery with that of its lease.
    pub(crate) fn renew_lapsed(&self, holder: &str, until: i64) -> Result<HashMap<i64, i64>, LedgerError> {
        let writer = self.writer()?;
        let mut statement = writer.quick.prepare_cached(
            "UPDATE delivery SET held_until = ?2 WHERE holder = ?1 AND state = 0 RETURNING number, lease",
        )?;
        let rows = statement.query_map(params![holder, until], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Notes what became of deliveries, and lets the next ones of their objects run: held by the same host, to which they are
    /// answered, for so many milliseconds, or, without a time, by anybody.
    ///
    /// What the host holds no longer, because its lease ran out, is left alone: whoever took it notes what becomes of it.
    pub(crate) fn settle(
        &self,
        holder: &str,
        hold_for: Option<i64>,
        all: &[Settled],
    ) -> Result<Vec<Held>, LedgerError> {
        let now = self.now()?;
        let mut writer = self.writer()?;
        let transaction = schema::begin_counted(&mut writer.durable)?;
        // From when nobody has to be waited for any more: a lease that was renewed meanwhile must not be longer than these.
        let until = hold_for.map(|time| steady_ms().saturating_add(time));
        let mut next = Vec::new();
        {
            let mut settle = transaction.prepare_cached(
                "UPDATE delivery SET state = ?3, attempts = attempts + ?4, taken = CASE WHEN ?4 = 0 THEN taken - 1 ELSE 0 END,
                     begun = CASE WHEN ?4 = 0 THEN begun ELSE 0 END,
                     due = coalesce(?5, due), settled = CASE WHEN ?3 IN (2, 3) THEN ?7 END, problem = ?6,
                     holder = NULL, held_until = 0
                 WHERE number = ?1 AND holder = ?2 AND lease = ?8 AND state = 0",
            )?;
            let mut follower = transaction.prepare_cached(&format!(
                "SELECT {RETURNED} FROM delivery WHERE holder = ?4 AND state = 0 AND number =
                 (SELECT min(number) FROM delivery WHERE state < 2 AND kind = ?1 AND listener = ?2 AND object = ?3)"
            ))?;
            for Settled { held: of, verdict } in all {
                let (state, ended, due, problem) = match verdict {
                    Verdict::Done => (DONE, 1, None, None),
                    Verdict::Again { pause, problem } => {
                        let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
                        (READY, 1, Some(now.saturating_add(pause)), Some(problem))
                    }
                    Verdict::Dead(problem) => (DEAD, 1, None, Some(problem)),
                    Verdict::Released => (READY, 0, None, None),
                };
                let settled = settle.execute(params![of.number, holder, state, ended, due, problem, now, of.lease])?;
                if settled == 0 || state == READY {
                    continue;
                }
                let (kind, listener) = (of.listener.kind.name().to_owned(), of.listener.name.clone());
                let place = Place { number: of.number, state: BLOCKED, kind, listener, object: of.object.clone() };
                let is_next = promote(&transaction, &place, now, until.map(|until| Hold { holder, until }))?;
                if is_next && until.is_some() {
                    let row = params![place.kind, place.listener, place.object, holder];
                    let mut found = follower.query_map(row, held)?;
                    next.extend(found.next().transpose()?);
                }
            }
        }
        self.note_time(&transaction)?;
        crash_point::reached("before settling");
        transaction.commit()?;
        crash_point::reached("after settling");
        Ok(next)
    }

    /// Who holds deliveries.
    pub(crate) fn holders(&self) -> Result<Vec<String>, LedgerError> {
        let connection = self.reader()?;
        let mut statement =
            connection.prepare_cached("SELECT DISTINCT holder FROM delivery WHERE holder IS NOT NULL")?;
        let rows = statement.query_map((), |row| row.get(0))?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Lets anybody take what a host held that is no more. Answers that.
    pub(crate) fn recover(&self, holder: &str) -> Result<Vec<Held>, LedgerError> {
        let writer = self.writer()?;
        let mut statement = writer.quick.prepare_cached(&format!(
            "UPDATE delivery SET holder = NULL, held_until = 0 WHERE holder = ?1 RETURNING {RETURNED}"
        ))?;
        let rows = statement.query_map([holder], held)?;
        Ok(rows.collect::<Result<_, _>>()?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use super::*;
    use crate::{events::NewEvent, ledger::Record};

    fn listener(name: &str) -> Listener {
        Listener { kind: ListenerKind::Handler, name: name.to_owned() }
    }

    fn record(ledger: &Ledger, name: &str, objects: std::ops::Range<i64>) {
        let record =
            |object| Record { event: NewEvent::new("clients.create").about(object), listeners: vec![listener(name)] };
        ledger.emit(objects.map(record).collect()).expect("recorded");
    }

    /// How many steps of SQLite's machine something takes.
    fn steps(ledger: &Ledger, run: impl FnOnce()) -> u64 {
        let count = Arc::new(AtomicU64::new(0));
        let counts = |connection: &mut rusqlite::Connection, is_on: bool| {
            let counted = Arc::clone(&count);
            let step = move || {
                counted.fetch_add(1, Ordering::Relaxed);
                false
            };
            connection.progress_handler(1, is_on.then_some(step)).expect("set");
        };
        let all = |is_on| {
            let mut writer = ledger.writer().expect("open");
            counts(&mut writer.durable, is_on);
            counts(&mut writer.quick, is_on);
            drop(writer);
            counts(&mut ledger.reader().expect("open"), is_on);
        };
        all(true);
        run();
        all(false);
        count.load(Ordering::Relaxed)
    }

    #[test]
    fn what_waits_for_one_listener_costs_the_others_nothing() {
        let costs = [10, 10_000].map(|waiting| {
            let home = tempfile::tempdir().expect("a folder");
            let ledger = Ledger::new(home.path());
            for name in ["hangs", "behind"] {
                record(&ledger, name, 0..waiting);
            }
            record(&ledger, "good", 0..1);
            let nothing = |_: &str| HashSet::new();
            ledger.take(&listener("hangs"), "host", 60_000, 256, &nothing).expect("taken");
            let take = || ledger.take(&listener("good"), "host", 60_000, 256, &nothing).expect("taken");
            let settle = |held: Vec<Held>| {
                let settled = |held| Settled { held, verdict: Verdict::Done };
                let all: Vec<Settled> = held.into_iter().map(settled).collect();
                ledger.settle("host", Some(60_000), &all).expect("settled");
            };
            [
                steps(&ledger, || drop(ledger.ready_listeners().expect("found"))),
                steps(&ledger, || assert!(ledger.is_due(&listener("good")).expect("found"))),
                steps(&ledger, || record(&ledger, "good", 1..2)),
                steps(&ledger, || settle(take())),
            ]
        });
        for (few, many) in costs[0].into_iter().zip(costs[1]) {
            assert!(few > 0 && many <= few, "{costs:?}");
        }
    }
}
