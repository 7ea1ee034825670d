//! Executions: calls of listeners, as the log has them.

use serde::Serialize;

use crate::{ListenerKind, Moment, named::named};

named! {
    /// How a call ended.
    pub enum ExecutionStatus: "execution status" {
        /// It went through.
        Success = 0, "success";
        /// The listener forbade, or refused.
        Forbidden = 1, "forbidden";
        /// It failed.
        Failed = 2, "failed";
        /// It didn't end in time: nobody knows what it did.
        TimedOut = 3, "timed_out";
        /// It was cut off otherwise: nobody knows what it did.
        Unknown = 4, "unknown";
    }
}

/// One call of one listener.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Execution {
    /// Its number in the log.
    pub id: i64,
    /// When it ended; in JSON, in milliseconds since 1970.
    #[cfg_attr(feature = "schema", schema(value_type = i64))]
    pub date: Moment,
    /// The event, or the hook that was called.
    pub event: String,
    /// The object that it was about; empty where it was about none.
    pub object_id: String,
    /// What kind of listener was called.
    pub kind: ListenerKind,
    /// The handler's name or the plugin's id.
    pub listener: String,
    /// Which attempt it was.
    pub attempt: u32,
    /// How it ended.
    pub status: ExecutionStatus,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The beginning of what a handler answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<String>,
    /// How long it took, in microseconds.
    pub duration_us: u64,
    /// The delivery that it was an attempt of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery: Option<i64>,
}

impl Execution {
    /// Returns a first call of a listener that went through.
    pub fn new(
        id: i64,
        date: Moment,
        event: impl Into<String>,
        kind: ListenerKind,
        listener: impl Into<String>,
    ) -> Self {
        Execution {
            id,
            date,
            event: event.into(),
            object_id: String::new(),
            kind,
            listener: listener.into(),
            attempt: 1,
            status: ExecutionStatus::Success,
            error: None,
            response: None,
            duration_us: 0,
            delivery: None,
        }
    }
}

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
    /// Not before this time.
    pub since: Option<Moment>,
    /// Before this time.
    pub until: Option<Moment>,
    /// Those with higher ids than this, the oldest first; without it, the newest first.
    pub after: Option<i64>,
    /// Those with lower ids than this.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: Option<usize>,
}
