//! Handlers: an operator's scripts and HTTP endpoints.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::named::named;

named! {
    /// When a handler is called.
    pub enum Mode: "mode" {
        /// Before it happens: it may change the data, or forbid.
        Before = 0, "before";
        /// After it happened: told at least once.
        After = 1, "after";
    }
}

named! {
    /// Whether a handler is called.
    pub enum HandlerStatus: "handler status" {
        /// It is called.
        Enabled = 0, "enabled";
        /// It is not called; deliveries that it had before wait.
        Disabled = 1, "disabled";
        /// It is not called and not listed; deliveries that it had before become dead letters.
        Archived = 2, "archived";
    }
}

named! {
    /// What stands for a before handler that doesn't answer.
    pub enum OnFailure: "choice for failures" {
        /// Go on, with the data as it is.
        Open = 0, "open";
        /// Forbid.
        Closed = 1, "closed";
    }
}

named! {
    /// What kind of task a handler has.
    pub enum TaskKind: "kind of task" {
        /// An HTTP endpoint is called.
        Http = 0, "http";
        /// A script is run.
        Script = 1, "script";
    }
}

/// What is called.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Task {
    /// An `http` or `https` address that the envelope is posted to.
    Http(String),
    /// The absolute path of a script, and its arguments.
    Script(Vec<String>),
}

impl Task {
    /// Returns what kind of task it is.
    pub fn kind(&self) -> TaskKind {
        match self {
            Task::Http(_) => TaskKind::Http,
            Task::Script(_) => TaskKind::Script,
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Task::Http(address) => f.write_str(address),
            Task::Script(words) => f.write_str(&words.join(" ")),
        }
    }
}

/// How often, and how far apart, a delivery is attempted.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetryPolicy {
    /// The most attempts, the first included; after the last one a delivery is a dead letter.
    pub attempts: u32,
    /// The pause after the first attempt, in milliseconds; each later one is twice as long. Each is shortened by chance, by up to
    /// half, so that many don't come at once.
    pub first_ms: u64,
    /// The longest pause, in milliseconds.
    pub longest_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        RetryPolicy { attempts: 8, first_ms: 1_000, longest_ms: 600_000 }
    }
}

impl RetryPolicy {
    /// Returns the pause after so many failed attempts, before chance shortens it.
    pub fn longest_pause(&self, failed: u32) -> Duration {
        let doubled = self.first_ms.saturating_mul(1 << failed.saturating_sub(1).min(32));
        Duration::from_millis(doubled.min(self.longest_ms))
    }
}

/// A handler: what is called, when, and what becomes of failures.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handler {
    /// The name, which no other handler has.
    pub name: String,
    /// The event.
    pub event: String,
    /// When it is called.
    pub mode: Mode,
    /// What is called.
    pub task: Task,
    /// Whether it is called.
    pub status: HandlerStatus,
    /// Its place among the listeners: lower ones come first.
    pub priority: u32,
    /// How long a call may take, in milliseconds.
    pub deadline_ms: u64,
    /// How often a delivery is attempted; of no effect before.
    pub retry: RetryPolicy,
    /// What stands for it where it doesn't answer; of no effect after.
    pub on_failure: OnFailure,
    /// The names of the environment variables that a script gets beside `PATH`.
    #[serde(default)]
    pub environment: Vec<String>,
    /// The key that calls over HTTP are signed with. Never shown.
    #[serde(skip)]
    pub secret: Option<String>,
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("name", &self.name).field("task", &self.task).finish_non_exhaustive()
    }
}

/// The priority of a listener that was given none.
pub const DEFAULT_PRIORITY: u32 = 100;

impl Handler {
    /// Returns a handler with the defaults: enabled, after the event, priority 100, ten seconds, eight attempts, closed.
    pub fn new(name: impl Into<String>, event: impl Into<String>, task: Task) -> Self {
        Handler {
            name: name.into(),
            event: event.into(),
            mode: Mode::After,
            task,
            status: HandlerStatus::Enabled,
            priority: DEFAULT_PRIORITY,
            deadline_ms: 10_000,
            retry: RetryPolicy::default(),
            on_failure: OnFailure::Closed,
            environment: Vec::new(),
            secret: None,
        }
    }

    /// Returns how long a call may take.
    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let policy = RetryPolicy { attempts: 8, first_ms: 1_000, longest_ms: 5_000 };
        for (failed, expected) in [(0, 1_000), (1, 1_000), (2, 2_000), (3, 4_000), (4, 5_000), (200, 5_000)] {
            assert_eq!(policy.longest_pause(failed), Duration::from_millis(expected), "{failed}");
        }
    }
}
