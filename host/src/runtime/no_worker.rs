//! Where there are no worker processes: they need Linux, for what confines them.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use billhook_plugin_api::Hook;

use super::{
    Confinement, PluginServices, RuntimeSettings, TrialError, TrialOutcome,
    call::{Borrowed, CallFailure, Fault, HookAnswer},
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
    pub(crate) runtime: RuntimeSettings,
    pub(crate) start_limit: Duration,
}

/// The workers of one plugin, of which there are none.
pub(crate) struct Workers;

impl Workers {
    pub(crate) fn new(_: WorkerConfig, _: Box<dyn Fn(&str) + Send + Sync>) -> Self {
        Workers
    }

    pub(super) fn call(&self, _: Hook, _: Borrowed<'_>) -> Result<HookAnswer, CallFailure> {
        Err(Fault::unavailable(NEEDS_LINUX.to_owned(), None).into())
    }

    pub(crate) fn end_idle(&self) {}

    pub(crate) fn retire(&self) {}

    pub(crate) fn cut_off(&self) {}

    pub(crate) fn drain_time(&self) -> Duration {
        Duration::ZERO
    }

    pub(crate) fn alive(&self) -> usize {
        0
    }
}

pub(crate) fn try_in_worker(_: &WorkerConfig) -> Result<TrialOutcome, TrialError> {
    Err(TrialError::Start(io::Error::other(NEEDS_LINUX)))
}

pub(crate) fn sweep(_: &Path) {}

pub(crate) fn lacking() -> Vec<Confinement> {
    vec![Confinement::Landlock, Confinement::Seccomp]
}
