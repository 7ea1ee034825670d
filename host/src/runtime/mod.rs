//! How a hook reaches code: in this process, or in a worker process; and how a package is tried.
//!
//! The only folder of this crate with unsafe code: the libraries of plugins are opened here.

mod call;
mod in_process;
pub(crate) mod overdue;
mod plugin;
mod services;
mod stage;
mod trial;
mod worker;

pub(crate) use call::{CallFailure, Fault, FaultKind, Instance, is_outage};
pub(crate) use in_process::{Library, LoadedInstance};
pub(crate) use plugin::InProcess;
pub(crate) use services::{PluginServices, StateStore};
pub use stage::Stage;
pub use trial::TrialError;
pub(crate) use trial::{ThrowAwayState, TrialOutcome, try_module};
pub(crate) use worker::{WORK, WorkerConfig, Workers, run as run_worker};
