//! How a hook reaches code: in this process, or in a worker process; and, to try a package, in a child process.
//!
//! The only folder of this crate with unsafe code, and the only place that starts processes.

mod call;
mod child;
#[cfg(target_os = "linux")]
mod confine;
mod in_process;
#[cfg(target_os = "linux")]
mod last_words;
pub(crate) mod overdue;
mod plugin;
mod script;
mod services;
mod starter;
#[cfg(target_os = "linux")]
mod supervisor;
mod trial;
#[cfg(target_os = "linux")]
mod worker;
#[cfg(not(target_os = "linux"))]
#[path = "no_worker.rs"]
mod worker;

pub(crate) use call::{CallFailure, Fault, FaultKind, Instance, is_outage};
pub use child::ChildProgram;
pub(crate) use child::child_arguments;
pub(crate) use in_process::{Library, LoadedInstance};
#[cfg(target_os = "linux")]
pub use last_words::keep_last_words;
pub(crate) use plugin::InProcess;
pub(crate) use script::{Script, ScriptEnd, ScriptExit, run_script};
pub(crate) use services::{PluginServices, StateStore};
pub use trial::{Stage, TrialError};
pub(crate) use trial::{ThrowAwayState, Trial, TrialOutcome, run as run_trial, try_module};
#[cfg(not(target_os = "linux"))]
pub(crate) use worker::lacking;
pub(crate) use worker::{WorkerConfig, Workers, tidy as tidy_workers, try_in_worker};
#[cfg(target_os = "linux")]
pub(crate) use {confine::lacking, script::become_script, worker::run as run_worker};
