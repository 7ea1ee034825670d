//! How far a module came that is loaded in a process of its own.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The steps of a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The child process starts.
    Starting,
    /// The library is opened, and its constructors run.
    Loading,
    /// The plugin's instance is made.
    Constructing,
    /// It is asked for its usage specifications.
    AskingForUsageSpecs,
    /// The instance is dropped.
    Dropping,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stage::Starting => "before it was loaded",
            Stage::Loading => "when it was loaded",
            Stage::Constructing => "when it was constructed",
            Stage::AskingForUsageSpecs => "in get_usage_specs",
            Stage::Dropping => "when it was dropped",
        })
    }
}
