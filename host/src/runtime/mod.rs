//! How a hook reaches code: in this process, and, to try a package, in a child process.
//!
//! The only folder of this crate with unsafe code, and the only place that starts processes.

mod child;
mod in_process;
mod services;
mod trial;

pub use child::ChildProgram;
pub(crate) use child::child_arguments;
pub(crate) use in_process::{Instance, Library};
pub(crate) use services::{PluginServices, StateStore};
pub use trial::{Stage, TrialError};
pub(crate) use trial::{Trial, TrialOutcome, run as run_trial, try_module};
