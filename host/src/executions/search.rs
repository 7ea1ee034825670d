//! Searching the execution log.

use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, params};

use super::{Execution, ExecutionLog, ExecutionLogError, ExecutionStatus};
use crate::{database::DatabaseError, events::ListenerKind};

/// Which executions are asked for; what is `None` doesn't matter.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    /// The event's or hook's name.
    pub event: Option<String>,
    /// The handler's name or the plugin's id.
    pub listener: Option<String>,
    /// How it ended.
    pub status: Option<ExecutionStatus>,
    /// The object's id.
    pub object: Option<String>,
    /// The delivery.
    pub delivery: Option<i64>,
    /// Not before this time, in milliseconds since 1970.
    pub since: Option<i64>,
    /// Before this time, in milliseconds since 1970.
    pub until: Option<i64>,
    /// Those with higher ids than this, the oldest first; without it, the newest first.
    pub after: Option<i64>,
    /// Those with lower ids than this.
    pub before: Option<i64>,
    /// At most so many; all if it is 0.
    pub limit: usize,
}

impl ExecutionLog {
    /// Executions, the newest first, or the oldest first after an id.
    ///
    /// One that has to look at too much is broken off.
    pub(crate) fn search(&self, filter: &ExecutionFilter) -> Result<Vec<Execution>, ExecutionLogError> {
        if !self.exists() {
            return Ok(Vec::new());
        }
        self.search_for(filter, LONGEST)
    }

    fn search_for(&self, filter: &ExecutionFilter, limit: Duration) -> Result<Vec<Execution>, ExecutionLogError> {
        let mut connection = self.searcher()?;
        let end = Instant::now() + limit;
        connection.progress_handler(10_000, Some(move || Instant::now() >= end))?;
        let found = find(&connection, filter);
        connection.progress_handler(0, None::<fn() -> bool>)?;
        found.map_err(|error| match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => DatabaseError::TooLong(limit).into(),
            _ => error.into(),
        })
    }

    /// How many calls were not noted because there were too many at once or it could not be written, as far as the log goes back.
    pub(crate) fn dropped(&self) -> Result<u64, ExecutionLogError> {
        if !self.exists() {
            return Ok(0);
        }
        let connection = self.searcher()?;
        let sum = "SELECT coalesce(sum(count), 0) FROM dropped";
        Ok(connection.query_row(sum, (), |row| row.get::<_, i64>(0))?.unsigned_abs())
    }
}

/// The longest that a search may take.
const LONGEST: Duration = Duration::from_secs(5);

fn find(connection: &Connection, filter: &ExecutionFilter) -> rusqlite::Result<Vec<Execution>> {
    let order = if filter.after.is_some() { "ASC" } else { "DESC" };
    let limit = if filter.limit == 0 { -1 } else { i64::try_from(filter.limit).unwrap_or(i64::MAX) };
    // Only the conditions that are asked for, so that an index can serve them.
    let conditions: String = [
        (filter.event.is_some(), "event = ?1"),
        (filter.listener.is_some(), "listener = ?2"),
        (filter.status.is_some(), "status = ?3"),
        (filter.object.is_some(), "object = ?4"),
        (filter.delivery.is_some(), "delivery = ?5"),
        (filter.since.is_some(), "date >= ?6"),
        (filter.until.is_some(), "date < ?7"),
        (filter.after.is_some(), "id > ?8"),
        (filter.before.is_some(), "id < ?9"),
    ]
    .iter()
    .filter(|(is_asked, _)| *is_asked)
    .map(|(_, condition)| format!(" AND {condition}"))
    .collect();
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, date, event, object, kind, listener, attempt, status, error, response, duration_us, delivery
             FROM execution WHERE ?1 IS ?1 AND ?2 IS ?2 AND ?3 IS ?3 AND ?4 IS ?4 AND ?5 IS ?5 AND ?6 IS ?6 AND ?7 IS ?7
             AND ?8 IS ?8 AND ?9 IS ?9{conditions} ORDER BY id {order} LIMIT ?10"
    ))?;
    let ExecutionFilter { event, listener, status, object, delivery, since, until, after, before, .. } = filter;
    let status = status.map(ExecutionStatus::code);
    let values = params![event, listener, status, object, delivery, since, until, after, before, limit];
    let rows = statement.query_map(values, |row| {
        let kind: String = row.get(4)?;
        let duration: i64 = row.get(10)?;
        Ok(Execution {
            id: row.get(0)?,
            date: row.get(1)?,
            event: row.get(2)?,
            object_id: row.get(3)?,
            kind: ListenerKind::parse(&kind),
            listener: row.get(5)?,
            attempt: row.get(6)?,
            status: ExecutionStatus::of(row.get(7)?),
            error: row.get(8)?,
            response: row.get(9)?,
            duration_us: duration.unsigned_abs(),
            delivery: row.get(11)?,
        })
    })?;
    rows.collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::executions::{Name, Note, Retention};

    fn note(number: usize) -> Note {
        Note {
            at: SystemTime::now(),
            event: Name::Hook("on_product_acquisition"),
            object: format!("asset-{number}"),
            kind: ListenerKind::Plugin,
            listener: "healthy".into(),
            attempt: 1,
            status: ExecutionStatus::Success,
            error: None,
            response: String::new(),
            took: Duration::from_micros(1),
            delivery: None,
        }
    }

    #[test]
    fn a_search_that_takes_too_long_is_broken_off_and_the_next_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = ExecutionLog::new(folder.path(), Retention::default());
        log.write(&(0..20_000).map(note).collect::<Vec<_>>(), 0).expect("written");
        // It has to look at all.
        let nothing = ExecutionFilter { event: Some("nothing".to_owned()), limit: 1, ..ExecutionFilter::default() };
        let error = log.search_for(&nothing, Duration::ZERO).expect_err("broken off");
        assert!(error.is_too_long(), "{error}");
        assert_eq!(log.search(&nothing).expect("searched"), []);
        let one = ExecutionFilter { object: Some("asset-7".to_owned()), ..ExecutionFilter::default() };
        assert_eq!(log.search(&one).expect("searched").len(), 1);
    }

    #[test]
    fn whoever_searches_holds_up_nobody_who_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = ExecutionLog::new(folder.path(), Retention::default());
        let searching = log.searcher().expect("opened");
        log.write(&[note(1)], 0).expect("written while somebody searches");
        drop(searching);
        assert_eq!(log.search(&ExecutionFilter::default()).expect("searched").len(), 1);
    }
}
