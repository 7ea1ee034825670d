//! How a host takes deliveries, and tells what became of them.

use std::collections::{HashMap, HashSet};

use billhook_machine::crash_point;
use billhook_model::Listener;
use billhook_store::{HeldDelivery, Result, Settled, Take, Verdict};
use rusqlite::{OptionalExtension, Row, params};

use super::{BLOCKED, DEAD, DONE, Hold, Place, READY, SqliteLedger, in_millis, listener_kind, promote};
use crate::{failure::commit, file::begin, foreign_log};

const RETURNED: &str = "number, event, kind, listener, object, attempts, taken, lease";

fn held(row: &Row<'_>) -> rusqlite::Result<HeldDelivery> {
    Ok(HeldDelivery {
        number: row.get(0)?,
        event: row.get(1)?,
        listener: Listener::new(listener_kind(&row.get::<_, String>(2)?), row.get::<_, String>(3)?),
        object: row.get(4)?,
        attempts: row.get(5)?,
        taken: row.get(6)?,
        lease: row.get(7)?,
    })
}

impl SqliteLedger {
    pub(super) fn find_ready(&self) -> Result<Vec<Listener>> {
        self.read(|connection| {
            let mut found: Vec<Listener> = Vec::new();
            // From the end of one listener in the index to the next. SQLite looks for what is larger by walking on from what is
            // equal, so the end is named by a time that no delivery has.
            let mut next = connection.prepare_cached(
                "SELECT kind, listener FROM delivery WHERE state = 0 AND (kind, listener, due) > (?1, ?2, ?3)
                 ORDER BY kind, listener, due LIMIT 1",
            )?;
            let (mut kind, mut name) = (String::new(), String::new());
            loop {
                let mut rows = next.query(params![kind, name, i64::MAX])?;
                let Some(row) = rows.next()? else { return Ok(found) };
                (kind, name) = (row.get(0)?, row.get(1)?);
                found.push(Listener::new(listener_kind(&kind), &name));
            }
        })
    }

    pub(super) fn has_due(&self, listener: &Listener) -> Result<bool> {
        let clock = &self.open()?.clock;
        let (now, steady) = (clock.now().millis(), clock.steady());
        self.read(|connection| {
            let mut is_due = connection.prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM delivery WHERE state = 0 AND kind = ?1 AND listener = ?2 AND due <= ?3
                                AND held_until <= ?4)",
            )?;
            Ok(is_due.query_row(params![listener.kind.name(), listener.name, now, steady], |row| row.get(0))?)
        })
    }

    pub(super) fn take_due(
        &self,
        take: &Take<'_>,
        announced: &dyn Fn(&str) -> HashSet<i64>,
    ) -> Result<Vec<HeldDelivery>> {
        let Take { listener, holder, hold_for, most } = *take;
        let clock = &self.open()?.clock;
        let now = clock.now().millis();
        self.write(|writer| {
            let transaction = begin(&mut writer.quick)?;
            // In this order: who announces something after this time looks at a lease that has run out.
            let (at, mut begun) = (clock.steady(), HashSet::new());
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
            let until = at.saturating_add(in_millis(hold_for));
            let rows = statement
                .query_map(params![listener.kind.name(), listener.name, now, holder, until, most, at, begun], held)?
                .collect::<rusqlite::Result<Vec<_>>>();
            drop(statement);
            let mut taken = rows?;
            commit(transaction)?;
            taken.sort_by_key(|held| held.number);
            Ok(taken)
        })
    }

    pub(super) fn note_begun(&self, holder: &str, held: &HeldDelivery) -> Result<Option<u32>> {
        self.write(|writer| {
            let transaction = begin(&mut writer.quick)?;
            let begun = transaction
                .prepare_cached(
                    "UPDATE delivery SET begun = begun + 1
                     WHERE number = ?1 AND holder = ?2 AND lease = ?3 AND state = 0 RETURNING begun",
                )?
                .query_row(params![held.number, holder, held.lease], |row| row.get(0))
                .optional()?;
            commit(transaction)?;
            Ok(begun)
        })
    }

    pub(super) fn hold_longer(&self, holder: &str, hold_for: std::time::Duration) -> Result<HashMap<i64, i64>> {
        let clock = &self.open()?.clock;
        self.write(|writer| {
            let transaction = begin(&mut writer.quick)?;
            let until = clock.steady().saturating_add(in_millis(hold_for));
            let held = transaction
                .prepare_cached(
                    "UPDATE delivery SET held_until = ?2 WHERE holder = ?1 AND state = 0 RETURNING number, lease",
                )?
                .query_map(params![holder, until], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            commit(transaction)?;
            Ok(held)
        })
    }

    pub(super) fn settle_all(
        &self,
        holder: &str,
        hold_for: Option<std::time::Duration>,
        all: &[Settled],
    ) -> Result<Vec<HeldDelivery>> {
        let clock = &self.open()?.clock;
        let now = clock.now().millis();
        self.write(|writer| {
            let transaction = begin(&mut writer.durable)?;
            foreign_log::count(&transaction)?;
            // From when nobody has to be waited for any more: a lease that was renewed meanwhile must not be longer than these.
            let until = hold_for.map(|time| clock.steady().saturating_add(in_millis(time)));
            let mut next = Vec::new();
            {
                let mut settle = transaction.prepare_cached(
                    "UPDATE delivery SET state = ?3, attempts = attempts + ?4,
                         taken = CASE WHEN ?4 = 0 THEN taken - 1 ELSE 0 END,
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
                            (READY, 1, Some(now.saturating_add(in_millis(*pause))), Some(problem))
                        }
                        Verdict::Dead(problem) => (DEAD, 1, None, Some(problem)),
                        Verdict::Released => (READY, 0, None, None),
                    };
                    let settled =
                        settle.execute(params![of.number, holder, state, ended, due, problem, now, of.lease])?;
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
            commit(transaction)?;
            crash_point::reached("after settling");
            Ok(next)
        })
    }

    pub(super) fn find_holders(&self) -> Result<Vec<String>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT DISTINCT holder FROM delivery WHERE holder IS NOT NULL")?;
            let rows = statement.query_map((), |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    pub(super) fn free(&self, holder: &str) -> Result<Vec<HeldDelivery>> {
        self.write(|writer| {
            let transaction = begin(&mut writer.quick)?;
            let freed = transaction
                .prepare_cached(&format!(
                    "UPDATE delivery SET holder = NULL, held_until = 0 WHERE holder = ?1 RETURNING {RETURNED}"
                ))?
                .query_map([holder], held)?
                .collect::<rusqlite::Result<_>>()?;
            commit(transaction)?;
            Ok(freed)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    };

    use std::time::Duration;

    use billhook_machine::MachineClock;
    use billhook_model::{ListenerKind, NewEvent};
    use billhook_store::{EventRecord, Ledger as _};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn listener(name: &str) -> Listener {
        Listener::new(ListenerKind::Handler, name)
    }

    fn record(ledger: &SqliteLedger, name: &str, objects: std::ops::Range<i64>) {
        let record = |object| EventRecord::new(NewEvent::new("clients.create").about(object), vec![listener(name)]);
        ledger.emit(objects.map(record).collect()).expect("recorded");
    }

    /// How many steps of SQLite's machine something takes.
    fn steps(ledger: &SqliteLedger, run: impl FnOnce()) -> u64 {
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
            let ledger = SqliteLedger::new(home.path(), Arc::new(MachineClock));
            for name in ["hangs", "behind"] {
                record(&ledger, name, 0..waiting);
            }
            record(&ledger, "good", 0..1);
            let nothing = |_: &str| HashSet::new();
            let take_of = |name: &str| {
                let listener = listener(name);
                let take = Take { listener: &listener, holder: "host", hold_for: MINUTE, most: 256 };
                ledger.take(&take, &nothing).expect("taken")
            };
            take_of("hangs");
            let take = || take_of("good");
            let settle = |held: Vec<HeldDelivery>| {
                let settled = |held| Settled { held, verdict: Verdict::Done };
                let all: Vec<Settled> = held.into_iter().map(settled).collect();
                ledger.settle("host", Some(MINUTE), &all).expect("settled");
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
