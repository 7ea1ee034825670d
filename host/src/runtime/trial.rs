//! Trying a module in a worker of its own: it is loaded, constructed, asked for its usage specifications, and dropped. What it
//! breaks there, it doesn't break here.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use billhook_machine::disk;
use billhook_plugin_api::{
    Hook, PluginError, UsageSpec,
    call::{HookCall, HookReply},
};

use super::{
    Stage, StateStore,
    worker::{Failure, ModuleFailure, Worker, WorkerConfig},
};

/// Why a module that was tried can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrialError {
    /// The child process could not be started or talked to.
    #[error("the module can't be tried: {0}")]
    Start(#[source] io::Error),
    /// Nothing can be loaded from where the module lies.
    #[error("the module can't be tried: the file system of {} is mounted noexec, so that no library can be loaded from it", folder.display())]
    Noexec {
        /// The folder.
        folder: PathBuf,
    },
    /// The module was refused, or it panicked.
    #[error("the module failed {stage}: {problem}")]
    Refused {
        /// What was being done.
        stage: Stage,
        /// What went wrong.
        problem: String,
    },
    /// The child process died.
    #[error("the module crashed {stage}: {how}")]
    Crashed {
        /// What was being done.
        stage: Stage,
        /// The signal or the exit code, and what it wrote last.
        how: String,
    },
    /// It didn't end in time.
    #[error("the module hung {stage}: it was ended after {} s", limit.as_secs_f64())]
    Hung {
        /// What was being done.
        stage: Stage,
        /// The time that it had.
        limit: Duration,
    },
}

/// How a trial ended that did not fail.
#[derive(Debug)]
pub(crate) enum TrialOutcome {
    /// It works with these settings.
    Works { usage_specs: Vec<UsageSpec> },
    /// Its constructor refused.
    NeedsSettings { message: String },
}

/// Tries a module in a worker: confined as its workers will be, or not at all where it is to run in this process. Of one that is to
/// run here, it also matters how its instance is dropped.
pub(crate) fn try_module(config: &WorkerConfig) -> Result<TrialOutcome, TrialError> {
    let folder = config.library.parent().unwrap_or(&config.library);
    if disk::is_noexec(folder) {
        return Err(TrialError::Noexec { folder: folder.to_owned() });
    }
    let tried = config.start().and_then(|worker| examine(worker, config, Instant::now() + config.start_limit));
    match tried {
        Ok(usage_specs) => Ok(TrialOutcome::Works { usage_specs }),
        Err(ModuleFailure::NeedsSettings(message)) => Ok(TrialOutcome::NeedsSettings { message }),
        Err(ModuleFailure::NoProcess(problem)) => Err(TrialError::Start(problem)),
        Err(ModuleFailure::Refused(stage, problem)) => Err(TrialError::Refused { stage, problem }),
        Err(ModuleFailure::Hung(stage)) => Err(TrialError::Hung { stage, limit: config.start_limit }),
        Err(ModuleFailure::Crashed(stage, how)) => {
            // What went wrong because the disk did says nothing of the module.
            disk::probe(config.folders.as_deref().unwrap_or(&std::env::temp_dir())).map_err(TrialError::Start)?;
            Err(TrialError::Crashed { stage, how })
        }
    }
}

/// Asks a module that was loaded for its usage specifications, and ends it.
fn examine(mut worker: Worker, config: &WorkerConfig, deadline: Instant) -> Result<Vec<UsageSpec>, ModuleFailure> {
    let usage_specs = match config.module.implements(Hook::GetUsageSpecs) {
        true => usage_specs(&mut worker, config, deadline)?,
        false => Vec::new(),
    };
    check_usage_specs(&usage_specs).map_err(|problem| ModuleFailure::Refused(Stage::AskingForUsageSpecs, problem))?;
    if config.folders.is_none() {
        worker.finish(deadline)?;
    } else {
        worker.retire();
    }
    Ok(usage_specs)
}

fn usage_specs(worker: &mut Worker, config: &WorkerConfig, deadline: Instant) -> Result<Vec<UsageSpec>, ModuleFailure> {
    let stage = Stage::AskingForUsageSpecs;
    // In this process nothing bounds its processor time but the deadline.
    let bounded = || Duration::from_millis(config.runtime.limits.cpu_ms);
    let cpu = config.folders.as_ref().map_or(Duration::MAX, |_| bounded());
    match worker.call(HookCall::GetUsageSpecs {}, deadline, cpu) {
        Ok(Ok(HookReply::GetUsageSpecs(usage_specs))) => Ok(usage_specs),
        Ok(Ok(_)) => Ok(Vec::new()),
        Ok(Err(error)) => Err(ModuleFailure::Refused(stage, error.to_string())),
        Err(Failure::Gone | Failure::GoneBefore) => Err(ModuleFailure::Crashed(stage, worker.bury())),
        Err(Failure::Nonsense(how) | Failure::Unsendable(how)) => Err(ModuleFailure::Crashed(stage, how)),
        Err(Failure::NonsenseBefore) => Err(ModuleFailure::Crashed(stage, "it spoke unasked".to_owned())),
        Err(Failure::TimedOut | Failure::TooMuchCpu) => Err(ModuleFailure::Hung(stage)),
    }
}

/// The most units that a plugin may declare.
const MOST_USAGE_SPECS: usize = 1000;

/// Every unit has a name and a description, and no name stands twice: usage is matched to units by their names,
/// regardless of case.
fn check_usage_specs(specs: &[UsageSpec]) -> Result<(), String> {
    if specs.len() > MOST_USAGE_SPECS {
        return Err(format!("it has {} usage specifications; at most {MOST_USAGE_SPECS} are taken", specs.len()));
    }
    let mut names = HashSet::new();
    for spec in specs {
        if spec.name.trim().is_empty() || spec.description.trim().is_empty() {
            return Err("a usage specification has to have a name and a description".to_owned());
        }
        if !names.insert(spec.name.to_lowercase()) {
            return Err(format!("two usage specifications are named {:?}", spec.name));
        }
    }
    Ok(())
}

/// State whose changes are thrown away.
#[derive(Default)]
pub(crate) struct ThrowAwayState {
    kept: Option<Arc<dyn StateStore>>,
    changes: Mutex<BTreeMap<String, Option<String>>>,
}

impl ThrowAwayState {
    /// Returns state that is read from what is kept, and never written to it.
    pub(crate) fn over(kept: Arc<dyn StateStore>) -> Self {
        ThrowAwayState { kept: Some(kept), changes: Mutex::default() }
    }

    fn change(&self, key: &str, value: Option<&str>) -> Result<(), PluginError> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        changes.insert(key.to_owned(), value.map(str::to_owned));
        Ok(())
    }
}

impl StateStore for ThrowAwayState {
    fn get(&self, plugin: &str, key: &str) -> Result<Option<Vec<u8>>, PluginError> {
        let changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match (changes.get(key), &self.kept) {
            (Some(value), _) => Ok(value.clone().map(String::into_bytes)),
            (None, Some(kept)) => kept.get(plugin, key),
            (None, None) => Ok(None),
        }
    }

    fn keep(&self, _plugin: &str, key: &str, value: &str) -> Result<(), PluginError> {
        self.change(key, Some(value))
    }

    fn delete(&self, _plugin: &str, key: &str) -> Result<(), PluginError> {
        self.change(key, None)
    }
}
