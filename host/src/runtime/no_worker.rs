//! Where there are no worker processes: they need Linux, for what confines them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use billhook_plugin_api::call::{HookCall, HookReply};

use super::{
    Confinement, PluginServices, RunPolicy, TrialError, TrialOutcome,
    call::{CallFailure, Fault, Instance},
    child::ChildProgram,
};
use crate::package::ModuleInfo;

const NEEDS_LINUX: &str = "worker processes need Linux; run the plugin in the process of the host";

/// What the workers of a plugin would be made of.
pub(crate) struct WorkerConfig {
    pub(crate) program: ChildProgram,
    pub(crate) folders: PathBuf,
    pub(crate) library: PathBuf,
    pub(crate) module: ModuleInfo,
    pub(crate) services: Arc<PluginServices>,
    pub(crate) runtime: RunPolicy,
    pub(crate) start_limit: Duration,
}

/// The workers of one plugin, of which there are none.
pub(crate) struct Workers;

impl Workers {
    pub(crate) fn new(_: WorkerConfig, _: Box<dyn Fn(&str) + Send + Sync>) -> Self {
        Workers
    }
}

impl Instance for Workers {
    fn call(&self, _: HookCall<'_>) -> Result<HookReply, CallFailure> {
        Err(Fault::unavailable(NEEDS_LINUX.to_owned(), None).into())
    }

    fn is_in_this_process(&self) -> bool {
        false
    }
}

pub(crate) fn try_in_worker(_: &WorkerConfig) -> Result<TrialOutcome, TrialError> {
    Err(TrialError::Start(io::Error::other(NEEDS_LINUX)))
}

pub(crate) fn tidy(_: &Path) {}

pub(crate) fn lacking() -> Vec<Confinement> {
    vec![Confinement::Landlock, Confinement::Seccomp]
}
