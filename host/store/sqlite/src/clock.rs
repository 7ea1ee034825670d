//! The time of what is kept: pauses, leases and ages are counted by it. Nobody who sets the machine's clock moves it.

use std::sync::Arc;

use billhook_model::{Clock, Moment};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use crate::failure::{Step, commit};

/// The table of the clock, for the formats of a file.
pub(crate) const TABLE: &str = "
CREATE TABLE clock (
    -- The one row.
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- Which start of the machine the offset belongs to.
    boot TEXT NOT NULL,
    -- What is added to the clock that counts since that start, in milliseconds.
    offset INTEGER NOT NULL,
    -- What this clock and the machine's own said when they were last noted.
    seen INTEGER NOT NULL,
    seen_wall INTEGER NOT NULL
) STRICT;
";

/// What is known of the time when the machine was off: at most so much of it counts, because it is told by a clock that may be
/// wrong.
const LONGEST_OFF: i64 = 86_400_000;

/// A clock that begins with the machine's own, and from then on follows the one that counts since the machine's start.
///
/// Across a start it goes on where it was last noted, and counts the time that the machine was off, as far as its clock tells, up
/// to a day.
#[derive(Debug, Clone)]
pub(crate) struct KeptClock {
    clock: Arc<dyn Clock>,
    offset: i64,
}

/// What the machine says about the time.
#[derive(Debug, Clone)]
struct Machine {
    boot: String,
    steady: i64,
    wall: i64,
}

impl Machine {
    fn now(clock: &dyn Clock) -> Self {
        Machine { boot: clock.boot(), steady: steady_ms(clock), wall: clock.now().millis() }
    }

    /// The time by the clock of a file that was noted last before this start of the machine.
    fn since(&self, seen: i64, seen_wall: i64) -> i64 {
        seen + (self.wall - seen_wall).clamp(0, LONGEST_OFF)
    }
}

/// Milliseconds of a clock that nobody sets, the same for all processes of this machine. For leases, which must not run out because
/// somebody set the time.
pub(crate) fn steady_ms(clock: &dyn Clock) -> i64 {
    i64::try_from(clock.since_boot().as_millis()).unwrap_or(i64::MAX)
}

impl KeptClock {
    /// Reads the clock of a file, and notes it where the file or the machine's start is new, and the file can be written to.
    pub(crate) fn open(connection: &mut Connection, clock: &Arc<dyn Clock>) -> Step<Self> {
        let offset = offset(connection, &Machine::now(&**clock))?;
        Ok(KeptClock { clock: Arc::clone(clock), offset })
    }

    fn now_ms(&self) -> i64 {
        steady_ms(&*self.clock) + self.offset
    }

    /// Returns the time of day, as far as the machine's clock was right when the file was made.
    pub(crate) fn now(&self) -> Moment {
        Moment::from_millis(self.now_ms())
    }

    /// Returns the milliseconds of the clock that leases run by.
    pub(crate) fn steady(&self) -> i64 {
        steady_ms(&*self.clock)
    }

    /// Returns a time of this clock as the machine's clock has it now: for people to read.
    pub(crate) fn shown(&self, time: i64) -> Moment {
        Moment::from_millis(time.saturating_add(self.clock.now().millis() - self.now_ms()))
    }

    /// Notes the time, to go on from after the machine's next start.
    pub(crate) fn note(&self, connection: &Connection) -> rusqlite::Result<()> {
        write(connection, &Machine::now(&*self.clock), self.offset)
    }
}

/// What is added to the clock that counts since the machine's start.
fn offset(connection: &mut Connection, machine: &Machine) -> Step<i64> {
    if let Some((boot, offset, ..)) = read(connection)?
        && boot == machine.boot
    {
        return Ok(offset);
    }
    if connection.is_readonly("main")? {
        let seen = read(connection)?.map_or(machine.wall, |(_, _, seen, wall)| machine.since(seen, wall));
        return Ok(seen - machine.steady);
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another process may have noted it meanwhile.
    let seen = match read(&transaction)? {
        Some((boot, offset, ..)) if boot == machine.boot => return Ok(offset),
        Some((_, _, seen, seen_wall)) => machine.since(seen, seen_wall),
        None => machine.wall,
    };
    let offset = seen - machine.steady;
    write(&transaction, machine, offset)?;
    commit(transaction)?;
    Ok(offset)
}

fn write(connection: &Connection, machine: &Machine, offset: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO clock (id, boot, offset, seen, seen_wall) VALUES (1, ?1, ?2, ?3, ?4)
             ON CONFLICT (id) DO UPDATE SET boot = ?1, offset = ?2, seen = ?3, seen_wall = ?4",
        )?
        .execute(params![machine.boot, offset, machine.steady + offset, machine.wall])
        .map(drop)
}

/// The boot, the offset, and what both clocks said when they were noted.
fn read(connection: &Connection) -> rusqlite::Result<Option<(String, i64, i64, i64)>> {
    connection
        .prepare_cached("SELECT boot, offset, seen, seen_wall FROM clock WHERE id = 1")?
        .query_row((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    /// What the clock says at a moment of the machine.
    fn at(connection: &mut Connection, boot: &str, steady: i64, wall: i64) -> i64 {
        let machine = Machine { boot: boot.to_owned(), steady, wall };
        offset(connection, &machine).expect("read") + steady
    }

    #[test]
    fn the_clock_follows_the_time_since_the_start_whatever_is_set() {
        let mut connection = Connection::open_in_memory().expect("opened");
        connection.execute_batch(TABLE).expect("made");
        let noon = 1_800_000_000_000;
        assert_eq!(at(&mut connection, "a", 5_000, noon), noon, "it begins with the machine's clock");
        for wall in [noon + DAY, noon - DAY, 0, i64::MAX / 4] {
            assert_eq!(at(&mut connection, "a", 6_000, wall), noon + 1_000, "it was set to {wall}");
        }
        // The machine was started anew: what it was off for counts, up to a day.
        for (boot, wall, expected) in [
            ("b", noon + 60_000, noon + 60_000),
            ("c", noon + 60_000 + 400 * DAY, noon + 60_000 + DAY),
            ("d", 0, noon + 60_000 + DAY),
        ] {
            assert_eq!(at(&mut connection, boot, 10, wall), expected, "start {boot}");
            assert_eq!(at(&mut connection, boot, 1_010, 7), expected + 1_000, "start {boot}, a second later");
        }
    }
}
