//! How the operator wants a plugin to be run.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use billhook_plugin_api::Hook;
use serde::{Deserialize, Serialize};

use crate::named::named;

named! {
    /// Where a plugin runs.
    pub enum Isolation: "isolation" {
        /// In the process of the host, on the threads of its callers: fast, and trusted.
        InProcess = 0, "in-process";
        /// In worker processes: whatever it does, the host lives.
        Process = 1, "process";
    }
}

#[allow(clippy::derivable_impls, reason = "the list of values derives nothing")]
impl Default for Isolation {
    fn default() -> Self {
        Isolation::InProcess
    }
}

/// How a plugin is run. Every field may be left out; the defaults suit most.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = RuntimeSettings))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct RunPolicy {
    /// Where it runs.
    pub isolation: Isolation,
    /// How long a call may take, in milliseconds; 30 seconds unless set. Waiting for a free worker counts.
    pub deadline_ms: u64,
    /// What differs for single hooks, by their names.
    pub hooks: BTreeMap<String, HookPolicy>,
    /// In this process: with so many calls overdue at once, the plugin is stuck and takes no more until one returns; 4
    /// unless set.
    pub most_overdue: u32,
    /// How many worker processes there may be, each with an instance of its own; 1 unless set.
    pub workers: u32,
    /// How long a worker that nobody calls is kept, in seconds; 5 minutes unless set.
    pub idle_s: u64,
    /// After an upgrade or a removal, how long calls that are under way in workers may go on, in seconds; 30 unless set.
    pub drain_s: u64,
    /// After so many crashes of workers within `crash_window_s`, the plugin takes no calls until it is enabled again; 3 unless
    /// set.
    pub most_crashes: u32,
    /// The time within which crashes count, in seconds; an hour unless set.
    pub crash_window_s: u64,
    /// What a worker may use.
    pub limits: WorkerLimits,
}

/// What differs for one hook.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = HookSettings))]
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct HookPolicy {
    /// How long a call may take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    /// In this process: the hook runs on a thread of its own with copies of its objects, and the caller is let go at the
    /// deadline.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
}

/// What a worker process may use.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct WorkerLimits {
    /// How much memory it may have of its own, in MiB; 512 unless set.
    pub memory_mb: u64,
    /// How much processor time a call may take on all its threads, in milliseconds; 10 seconds unless set.
    pub cpu_ms: u64,
    /// How many files and sockets it may have open; 256 unless set.
    pub open_files: u64,
    /// Whether it may start processes.
    pub processes: bool,
    /// Whether it may open internet sockets.
    pub network: bool,
    /// The names of the environment variables that it sees; none unless set.
    pub environment: Vec<String>,
    /// Files and folders that it may read, besides its package, the system's libraries, and its own folder.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub read: Vec<PathBuf>,
    /// Files and folders that it may write, besides its own folder.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<String>))]
    pub write: Vec<PathBuf>,
    /// Confinements that may be missing, where the kernel lacks them: `landlock`, `seccomp`. A worker that lacks another one
    /// doesn't start.
    pub may_lack: Vec<Confinement>,
}

named! {
    /// What keeps a worker from doing harm, and needs the kernel for it.
    pub enum Confinement: "confinement" {
        /// Which files it may read and write.
        Landlock = 0, "landlock";
        /// Which system calls it may make: processes, sockets, signals to others.
        Seccomp = 1, "seccomp";
    }
}

impl Default for RunPolicy {
    fn default() -> Self {
        RunPolicy {
            isolation: Isolation::InProcess,
            deadline_ms: 30_000,
            hooks: BTreeMap::new(),
            most_overdue: 4,
            workers: 1,
            idle_s: 300,
            drain_s: 30,
            most_crashes: 3,
            crash_window_s: 3600,
            limits: WorkerLimits::default(),
        }
    }
}

impl Default for WorkerLimits {
    fn default() -> Self {
        WorkerLimits {
            memory_mb: 512,
            cpu_ms: 10_000,
            open_files: 256,
            processes: false,
            network: false,
            environment: Vec::new(),
            read: Vec::new(),
            write: Vec::new(),
            may_lack: Vec::new(),
        }
    }
}

/// The longest that a time of the settings may be, in milliseconds: a day.
const LONGEST: u64 = 24 * 60 * 60 * 1000;

impl RunPolicy {
    /// Returns how long a call of a hook may take.
    pub fn deadline(&self, hook: Hook) -> Duration {
        let own = self.hooks.get(hook.name()).and_then(|hook| hook.deadline_ms);
        Duration::from_millis(own.unwrap_or(self.deadline_ms))
    }

    /// Returns the hooks that run on threads of their own, with their deadlines.
    pub fn released(&self) -> Vec<(Hook, Duration)> {
        let is_released = |hook: &&Hook| self.hooks.get(hook.name()).is_some_and(|hook| hook.release);
        Hook::ALL.iter().filter(is_released).map(|hook| (*hook, self.deadline(*hook))).collect()
    }

    /// Returns what is wrong with it, if anything is.
    pub fn problem(&self) -> Option<String> {
        for name in self.hooks.keys() {
            if name.parse::<Hook>().is_err() {
                return Some(format!("{name:?} is no hook"));
            }
        }
        let deadlines = self.hooks.values().filter_map(|hook| hook.deadline_ms);
        for deadline in deadlines.chain([self.deadline_ms]) {
            if !(1..=LONGEST).contains(&deadline) {
                return Some(format!("a deadline of {deadline} ms is not between 1 ms and a day"));
            }
        }
        let limits = &self.limits;
        let in_range = [
            ("workers", u64::from(self.workers), 1, 64),
            ("most_overdue", u64::from(self.most_overdue), 1, 10_000),
            ("most_crashes", u64::from(self.most_crashes), 1, 1_000_000),
            ("crash_window_s", self.crash_window_s, 1, LONGEST / 1000),
            ("idle_s", self.idle_s, 0, LONGEST / 1000),
            ("drain_s", self.drain_s, 0, LONGEST / 1000),
            ("memory_mb", limits.memory_mb, 16, 1024 * 1024),
            ("cpu_ms", limits.cpu_ms, 1, LONGEST),
            ("open_files", limits.open_files, 16, 1024 * 1024),
        ];
        for (name, value, least, most) in in_range {
            if !(least..=most).contains(&value) {
                return Some(format!("{name} is {value}, which is not between {least} and {most}"));
            }
        }
        let relative = limits.read.iter().chain(&limits.write).find(|path| !path.is_absolute());
        if let Some(path) = relative {
            return Some(format!("the path {} is not absolute", path.display()));
        }
        let wrong = limits.environment.iter().find(|name| name.is_empty() || name.contains(['=', '\0']));
        wrong.map(|name| format!("{name:?} is no name of an environment variable"))
    }
}
