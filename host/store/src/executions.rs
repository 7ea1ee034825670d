//! The execution log.

use std::{sync::Arc, time::Duration};

use billhook_model::{Execution, ExecutionFilter, ExecutionStatus, ListenerKind, Moment};

use crate::Result;

/// Calls of listeners, to be searched. A record of what happened and never a reason for what happens: what is written survives
/// the process, and need not survive the end of the machine.
pub trait ExecutionLog: Send + Sync {
    /// Writes calls in one transaction, and how many were dropped before them.
    ///
    /// Deliveries are settled behind it, so it must not wait for long: another process that stands still in the middle of a
    /// change is waited for once, and until a write succeeds again each is tried for a moment only.
    fn write(&self, notes: &[ExecutionNote], dropped: u64) -> Result<()>;

    /// Counts calls that could not be written: they are told with the next write.
    fn lose(&self, count: u64);

    /// Returns executions, the newest first, or the oldest first after an id. One that has to look at too much is broken off,
    /// with an error of the kind [`TooLong`](crate::StoreErrorKind::TooLong). Searching holds up nobody who writes.
    fn search(&self, filter: &ExecutionFilter) -> Result<Vec<Execution>>;

    /// Returns how many calls were not written, as far as the log goes back.
    fn dropped(&self) -> Result<u64>;

    /// Deletes what is older than the log is kept for, as of `now`, and the oldest while the log is too large. In short steps,
    /// between which others get their turn.
    fn trim(&self, now: Moment) -> Result<()>;
}

/// A call that is to be noted.
#[derive(Debug, Clone)]
pub struct ExecutionNote {
    /// When it ended.
    pub at: Moment,
    /// The event's name; hooks' names are never copied.
    pub event: CalledName,
    /// The object that it was about; empty where it was about none.
    pub object: String,
    /// What kind of listener was called.
    pub kind: ListenerKind,
    /// The handler's name or the plugin's id.
    pub listener: Arc<str>,
    /// Which attempt it was.
    pub attempt: u32,
    /// How it ended.
    pub status: ExecutionStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// The beginning of what a handler answered; empty where nothing was.
    pub response: String,
    /// How long it took.
    pub took: Duration,
    /// The delivery that it was an attempt of.
    pub delivery: Option<i64>,
}

/// The name of what was called.
#[derive(Debug, Clone)]
pub enum CalledName {
    /// A hook.
    Hook(&'static str),
    /// A listener of an event.
    Event(String),
}

impl CalledName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        match self {
            CalledName::Hook(name) => name,
            CalledName::Event(name) => name,
        }
    }
}

/// How much of the log is kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// For how long.
    pub age: Duration,
    /// How many bytes at most.
    pub bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Retention { age: Duration::from_secs(30 * 86_400), bytes: 1024 * 1024 * 1024 }
    }
}
