//! Searching the execution log.

use std::time::{Duration, Instant};

use billhook_model::{Execution, ExecutionFilter, ExecutionStatus, ListenerKind, Moment};
use billhook_store::{Kept, Result, StoreError, StoreErrorKind};
use rusqlite::{Connection, ErrorCode, Row};

use super::{SqliteExecutionLog, told};
use crate::{
    failure::{Failure, Step},
    filter::Filter,
};

impl SqliteExecutionLog {
    pub(super) fn search_for(&self, filter: &ExecutionFilter, limit: Duration) -> Result<Vec<Execution>> {
        let mut connection = self.searcher()?;
        let end = Instant::now() + limit;
        told(|| {
            connection.progress_handler(10_000, Some(move || Instant::now() >= end))?;
            let found = find(&connection, filter);
            connection.progress_handler(0, None::<fn() -> bool>)?;
            found.map_err(|failure| match failure {
                Failure::Statement(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
                    let message = format!("the search took longer than {} s: ask for less", limit.as_secs());
                    StoreError::new(Kept::ExecutionLog, StoreErrorKind::TooLong, message).into()
                }
                other => other,
            })
        })
    }
}

fn find(connection: &Connection, asked: &ExecutionFilter) -> Step<Vec<Execution>> {
    let ExecutionFilter { event, listener, status, object, delivery, since, until, after, before, limit } = asked;
    let mut filter = Filter::default();
    filter.when(event, "event =");
    filter.when(listener, "listener =");
    filter.when(&status.map(ExecutionStatus::code), "status =");
    filter.when(object, "object =");
    filter.when(delivery, "delivery =");
    filter.when(&since.map(Moment::millis), "date >=");
    filter.when(&until.map(Moment::millis), "date <");
    filter.when(after, "id >");
    filter.when(before, "id <");
    let order = if after.is_some() { "ASC" } else { "DESC" };
    let most = filter.limit(*limit);
    let mut statement = connection.prepare_cached(&format!(
        "SELECT id, date, event, object, kind, listener, attempt, status, error, response, duration_us, delivery
         FROM execution{} ORDER BY id {order} LIMIT {most}",
        filter.text()
    ))?;
    let rows = statement.query_map(filter.values(), execution)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn execution(row: &Row<'_>) -> rusqlite::Result<Execution> {
    let (event, kind, listener): (String, String, String) = (row.get(2)?, row.get(4)?, row.get(5)?);
    let kind = kind.parse().unwrap_or(ListenerKind::Handler);
    let mut execution = Execution::new(row.get(0)?, Moment::from_millis(row.get(1)?), event, kind, listener);
    execution.object_id = row.get(3)?;
    execution.attempt = row.get(6)?;
    execution.status = ExecutionStatus::of_code(row.get(7)?).unwrap_or(ExecutionStatus::Unknown);
    execution.error = row.get(8)?;
    execution.response = row.get(9)?;
    execution.duration_us = row.get::<_, i64>(10)?.unsigned_abs();
    execution.delivery = row.get(11)?;
    Ok(execution)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use billhook_machine::MachineClock;
    use billhook_model::Clock as _;
    use billhook_store::{CalledName, ExecutionLog as _, ExecutionNote, Retention};

    use super::*;

    fn opened(folder: &tempfile::TempDir) -> SqliteExecutionLog {
        SqliteExecutionLog::new(folder.path(), Retention::default(), Arc::new(MachineClock))
    }

    fn note(number: usize) -> ExecutionNote {
        ExecutionNote {
            at: MachineClock.now(),
            event: CalledName::Hook("on_product_acquisition"),
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
        let log = opened(&folder);
        log.write(&(0..20_000).map(note).collect::<Vec<_>>(), 0).expect("written");
        // It has to look at all.
        let nothing =
            ExecutionFilter { event: Some("nothing".to_owned()), limit: Some(1), ..ExecutionFilter::default() };
        let error = log.search_for(&nothing, Duration::ZERO).expect_err("broken off");
        assert_eq!(error.kind(), StoreErrorKind::TooLong);
        assert_eq!(log.search(&nothing).expect("searched"), []);
        let one = ExecutionFilter { object: Some("asset-7".to_owned()), ..ExecutionFilter::default() };
        assert_eq!(log.search(&one).expect("searched").len(), 1);
    }

    #[test]
    fn whoever_searches_holds_up_nobody_who_writes() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = opened(&folder);
        let searching = log.searcher().expect("opened");
        log.write(&[note(1)], 0).expect("written while somebody searches");
        drop(searching);
        assert_eq!(log.search(&ExecutionFilter::default()).expect("searched").len(), 1);
    }
}
