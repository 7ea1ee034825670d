//! Why something can't be read or kept, and whether it may have been.

use std::{error::Error, fmt, sync::Arc};

use billhook_machine::disk::{DiskError, DiskTrouble};

/// What a function of a store returns.
pub type Result<T> = std::result::Result<T, StoreError>;

/// What can't be read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kept {
    /// Plugins, their versions, settings and state, handlers, usage, resources and tokens.
    Registry,
    /// Events and deliveries.
    Ledger,
    /// Executions.
    ExecutionLog,
    /// Locks and leases.
    Coordination,
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kept::Registry => "the registry",
            Kept::Ledger => "the ledger (ledger.db in the home)",
            Kept::ExecutionLog => "the execution log (executions.db in the home)",
            Kept::Coordination => "the home's locks",
        })
    }
}

/// What kind of error it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// It can't be opened.
    Open,
    /// A later billhook made it, or another program.
    Newer,
    /// It has an older format, and can't be written to.
    OlderReadOnly,
    /// It has an older format, and another process works on it that may not know the new one.
    OlderInUse,
    /// It was put back beside the log of another file.
    ForeignLog,
    /// It holds something that can't be read.
    Unreadable,
    /// Another process held it for longer than it was waited for.
    Busy,
    /// The disk is in trouble.
    Disk(DiskTrouble),
    /// A search was broken off, because it took too long.
    TooLong,
    /// A correlation number is too large to be kept.
    CorrelationNumber,
    /// Anything else.
    Failed,
}

/// Whether what failed may have been done all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WasDone {
    /// Nothing was done.
    No,
    /// It may have been done, as a whole: the answer to the last step was lost.
    Perhaps,
}

/// Why something can't be read or kept.
///
/// It displays without its cause, which is its [source](Error::source).
#[derive(Debug, Clone)]
pub struct StoreError {
    kept: Kept,
    kind: StoreErrorKind,
    was_done: WasDone,
    message: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl StoreError {
    /// Returns an error of a kind, before which nothing was done.
    pub fn new(kept: Kept, kind: StoreErrorKind, message: impl Into<String>) -> Self {
        StoreError { kept, kind, was_done: WasDone::No, message: message.into(), source: None }
    }

    /// Returns the error of a step that failed, before which nothing was done. Trouble of the disk is found out.
    pub fn failed(kept: Kept, source: impl Error + Send + Sync + 'static) -> Self {
        let kind = DiskTrouble::of(&source).map_or(StoreErrorKind::Failed, StoreErrorKind::Disk);
        StoreError::new(kept, kind, format!("{kept} failed")).caused_by(source)
    }

    /// Returns the error of a step that failed because of the disk, before which nothing was done.
    pub fn of_disk(kept: Kept, source: DiskError) -> Self {
        StoreError::new(kept, StoreErrorKind::Disk(source.trouble()), format!("{kept} failed")).caused_by(source)
    }

    /// Returns an error for something that is kept and can't be read.
    pub fn unreadable(kept: Kept, what: impl fmt::Display, problem: impl fmt::Display) -> Self {
        let message = format!("{kept} holds something unreadable for {what}: {problem}");
        StoreError::new(kept, StoreErrorKind::Unreadable, message)
    }

    /// Returns the same error with its cause.
    #[must_use]
    pub fn caused_by(self, source: impl Error + Send + Sync + 'static) -> Self {
        StoreError { source: Some(Arc::new(source)), ..self }
    }

    /// Returns the same error as one of another kind.
    #[must_use]
    pub fn of_kind(self, kind: StoreErrorKind) -> Self {
        StoreError { kind, ..self }
    }

    /// Returns the same error in other words.
    #[must_use]
    pub fn with_message(self, message: impl Into<String>) -> Self {
        StoreError { message: message.into(), ..self }
    }

    /// Returns the same error, after which something may have been done.
    #[must_use]
    pub fn perhaps_done(self) -> Self {
        StoreError { was_done: WasDone::Perhaps, ..self }
    }

    /// Returns what can't be read or written.
    pub fn kept(&self) -> Kept {
        self.kept
    }

    /// Returns what kind of error it is.
    pub fn kind(&self) -> StoreErrorKind {
        self.kind
    }

    /// Returns whether what failed may have been done all the same.
    pub fn was_done(&self) -> WasDone {
        self.was_done
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}
