//! What goes wrong within a transaction, on its way to a store's error.

use std::fmt;

use billhook_machine::disk::{DiskError, DiskTrouble};
use billhook_store::{Kept, StoreError, StoreErrorKind};
use rusqlite::ErrorCode;

/// A step that failed, and that is rolled back.
#[derive(Debug)]
pub(crate) enum Failure {
    /// A statement, for another reason than the disk.
    Statement(rusqlite::Error),
    /// The disk.
    Disk(DiskError),
    /// What is kept for something can't be read.
    Unreadable { what: String, problem: String },
    /// It is told already.
    Told(StoreError),
    /// The last step, whose answer is lost: all may have been done.
    Commit(Box<Failure>),
}

/// What a step within a transaction returns.
pub(crate) type Step<T> = Result<T, Failure>;

impl Failure {
    pub(crate) fn unreadable(what: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Failure::Unreadable { what: what.to_string(), problem: problem.to_string() }
    }

    /// The error of a store.
    pub(crate) fn of(self, kept: Kept) -> StoreError {
        match self {
            Failure::Statement(error) => {
                let kind = match error.sqlite_error_code() {
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreErrorKind::Busy,
                    Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Unreadable,
                    _ => StoreErrorKind::Failed,
                };
                StoreError::failed(kept, error).of_kind(kind)
            }
            Failure::Disk(error) => StoreError::of_disk(kept, error),
            Failure::Unreadable { what, problem } => StoreError::unreadable(kept, what, problem),
            Failure::Told(error) => error,
            Failure::Commit(failure) => failure.of(kept).perhaps_done(),
        }
    }
}

impl From<rusqlite::Error> for Failure {
    /// To be called right after the statement, on its thread: the system's last error tells of the disk.
    fn from(error: rusqlite::Error) -> Self {
        match trouble_of(&error) {
            Some(trouble) => Failure::Disk(DiskError::new(trouble, error)),
            None => Failure::Statement(error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Failure::Told(error)
    }
}

/// The trouble of the disk that SQLite tells of, by its numbers.
fn trouble_of(error: &rusqlite::Error) -> Option<DiskTrouble> {
    let rusqlite::Error::SqliteFailure(error, _) = error else {
        // A file that couldn't be made is in it.
        return DiskTrouble::of(error);
    };
    match error.code {
        ErrorCode::DiskFull => Some(DiskTrouble::Full),
        ErrorCode::ReadOnly => Some(DiskTrouble::ReadOnly),
        ErrorCode::SystemIoFailure if error.extended_code != rusqlite::ffi::SQLITE_IOERR_NOMEM => {
            Some(DiskTrouble::Failing)
        }
        _ => None,
    }
}

/// Makes a transaction last. Where that fails, it may last all the same.
pub(crate) fn commit(transaction: rusqlite::Transaction<'_>) -> Step<()> {
    #[cfg(test)]
    let transaction = tests::fail(transaction)?;
    transaction.commit().map_err(|error| match error.sqlite_error_code() {
        // Nothing was written yet.
        Some(ErrorCode::DatabaseBusy) => error.into(),
        _ => Failure::Commit(Box::new(error.into())),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;

    use std::cell::Cell;

    use billhook_store::Fault;
    use rusqlite::{Transaction, ffi};

    use super::*;

    thread_local! {
        static FAULT: Cell<Fault> = const { Cell::new(Fault::None) };
    }

    /// Lets the next commit on this thread fail.
    pub(crate) fn fail_next(fault: Fault) {
        FAULT.set(fault);
    }

    fn disk() -> Failure {
        rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_IOERR_FSYNC), None).into()
    }

    /// Fails a commit that is to fail.
    pub(super) fn fail(transaction: Transaction<'_>) -> Step<Transaction<'_>> {
        match FAULT.take() {
            Fault::None => Ok(transaction),
            Fault::BeforeCommit => Err(disk()),
            Fault::AfterCommit => {
                transaction.commit()?;
                Err(Failure::Commit(Box::new(disk())))
            }
        }
    }

    #[test]
    fn trouble_of_the_disk_is_told_by_the_number_of_a_database() {
        for (code, expected) in [
            (ffi::SQLITE_FULL, Some(DiskTrouble::Full)),
            (ffi::SQLITE_READONLY, Some(DiskTrouble::ReadOnly)),
            (ffi::SQLITE_READONLY_DIRECTORY, Some(DiskTrouble::ReadOnly)),
            (ffi::SQLITE_IOERR_WRITE, Some(DiskTrouble::Failing)),
            (ffi::SQLITE_IOERR_FSYNC, Some(DiskTrouble::Failing)),
            (ffi::SQLITE_IOERR_READ, Some(DiskTrouble::Failing)),
            (ffi::SQLITE_IOERR_NOMEM, None),
            (ffi::SQLITE_BUSY, None),
            (ffi::SQLITE_CONSTRAINT, None),
        ] {
            let error = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
            assert_eq!(trouble_of(&error), expected, "{code}");
        }
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let inner = rusqlite::Error::ToSqlConversionFailure(Box::new(full));
        assert_eq!(trouble_of(&inner), Some(DiskTrouble::Full));
    }

    #[test]
    fn a_busy_file_is_told_from_one_that_fails() {
        for (code, expected) in [
            (ffi::SQLITE_BUSY, StoreErrorKind::Busy),
            (ffi::SQLITE_CORRUPT, StoreErrorKind::Unreadable),
            (ffi::SQLITE_FULL, StoreErrorKind::Disk(DiskTrouble::Full)),
            (ffi::SQLITE_ERROR, StoreErrorKind::Failed),
        ] {
            let failure = Failure::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None));
            assert_eq!(failure.of(Kept::Ledger).kind(), expected, "{code}");
        }
    }
}
