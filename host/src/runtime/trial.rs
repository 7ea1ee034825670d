//! Trying a module in a child process: it is loaded, constructed, asked for its usage specifications, and dropped. What it
//! breaks there, it doesn't break here.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File},
    io::{self, BufRead, Read, Write},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use billhook_plugin_api::{
    PluginError, UsageSpec,
    call::{HookCall, HookReply},
};
use serde::{Deserialize, Serialize};

use super::{ChildProgram, Library, PluginServices, StateStore, child};
use billhook_machine::{disk, private};
use billhook_model::{ModuleInfo, text::visible};

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

/// What is tried.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Trial {
    pub(crate) plugin: String,
    pub(crate) library: PathBuf,
    pub(crate) module: ModuleInfo,
    pub(crate) settings: String,
    /// The folder of the unpacked package.
    pub(crate) folder: String,
    /// The registry that holds the plugin's state, to be read.
    pub(crate) registry: Option<PathBuf>,
}

/// How a trial ended that did not fail.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TrialOutcome {
    /// It works with these settings.
    Works { usage_specs: Vec<UsageSpec> },
    /// Its constructor refused.
    NeedsSettings { message: String },
}

/// A line of the file that the child process answers in.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Stage(Stage),
    Ended(TrialOutcome),
    Refused(String),
}

/// How much of what a child writes to standard error is kept: the end of it.
const KEPT_ERRORS: usize = 4096;

/// Tries a module. `scratch` is a folder of the trial's own.
pub(crate) fn try_module(
    trial: &Trial,
    program: &ChildProgram,
    scratch: &Path,
    limit: Duration,
) -> Result<TrialOutcome, TrialError> {
    may_load(&trial.library)?;
    let answer = scratch.join("answer");
    private::new_file(&answer).map_err(TrialError::Start)?;
    let mut command = program.command("try").map_err(TrialError::Start)?;
    let child = command.arg(&answer).stdin(Stdio::piped()).spawn();
    let not_run = |error| TrialError::Start(disk::not_run(Path::new(command.get_program()), error));
    let mut child = child.map_err(not_run)?;
    let errors = match keep_errors(child.stderr.take()) {
        Ok(errors) => errors,
        Err(error) => {
            child::kill(&mut child);
            let _ = child.wait();
            return Err(TrialError::Start(error));
        }
    };
    let deadline = Instant::now() + limit;
    let mut request = serde_json::to_vec(trial).map_err(|error| TrialError::Start(error.into()))?;
    request.push(b'\n');
    let pipe = child.stdin.take();
    let ended = thread::scope(|scope| {
        // The pipe stays open until the child is done: its end tells the child that this process is gone. Writing has a
        // thread of its own, because a child that doesn't read would hold it up.
        let (done, is_done) = mpsc::channel::<()>();
        let write = move || {
            let mut pipe = pipe;
            // A child that died at once is reported by how it ended.
            let _ = pipe.as_mut().map(|pipe| pipe.write_all(&request));
            let _ = is_done.recv();
        };
        let started = thread::Builder::new().name("billhook-trial".to_owned()).spawn_scoped(scope, write);
        let ended = started.and_then(|_| wait(&mut child, deadline));
        // Also after a good end: what it started and left behind goes with it.
        child::kill(&mut child);
        drop(done);
        ended
    });
    let status = child.wait().map_err(TrialError::Start)?;
    let status = ended.map_err(TrialError::Start)?.then_some(status);
    let (stage, last) = read_answer(&answer).map_err(TrialError::Start)?;
    let errors = errors.text();
    if !errors.is_empty() {
        tracing::debug!(plugin = trial.plugin, "the trial wrote: {errors}");
    }
    match (status, last) {
        (Some(status), Some(Line::Ended(outcome))) if status.success() => Ok(outcome),
        (Some(status), Some(Line::Refused(problem))) if status.success() => Err(TrialError::Refused { stage, problem }),
        (None, _) => Err(TrialError::Hung { stage, limit }),
        (Some(status), _) => {
            // What the child couldn't write says nothing of the module.
            disk::probe(scratch).map_err(TrialError::Start)?;
            Err(TrialError::Crashed { stage, how: how_it_ended(status, &errors) })
        }
    }
}

/// Tells why no library could be loaded from where one lies, whatever is in it.
pub(super) fn may_load(library: &Path) -> Result<(), TrialError> {
    let folder = library.parent().unwrap_or(library);
    if disk::is_noexec(folder) { Err(TrialError::Noexec { folder: folder.to_owned() }) } else { Ok(()) }
}

/// Waits until the child ended, or until the deadline: then `false`.
fn wait(child: &mut std::process::Child, deadline: Instant) -> io::Result<bool> {
    let mut pause = Duration::from_micros(500);
    while !child::has_ended(child)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(true)
}

/// The last stage that was reached, and the last line if it is more than a stage.
fn read_answer(path: &Path) -> io::Result<(Stage, Option<Line>)> {
    let mut text = String::new();
    // The child is not trusted, and the answer never large.
    File::open(path)?.take(128 * 1024 * 1024).read_to_string(&mut text)?;
    let (mut stage, mut last) = (Stage::Starting, None);
    for line in text.lines() {
        match serde_json::from_str(line) {
            Ok(Line::Stage(reached)) => (stage, last) = (reached, None),
            Ok(line) => last = Some(line),
            Err(_) => {}
        }
    }
    Ok((stage, last))
}

/// The signal or the exit code, and the last lines that were written to standard error.
pub(super) fn how_it_ended(status: ExitStatus, errors: &str) -> String {
    #[cfg(unix)]
    let signal = std::os::unix::process::ExitStatusExt::signal(&status).map(|signal| {
        let name = match signal {
            4 => " (SIGILL)",
            6 => " (SIGABRT)",
            7 => " (SIGBUS)",
            8 => " (SIGFPE)",
            9 => " (SIGKILL)",
            11 => " (SIGSEGV)",
            15 => " (SIGTERM)",
            _ => "",
        };
        format!("it was ended by signal {signal}{name}")
    });
    #[cfg(not(unix))]
    let signal: Option<String> = None;
    let how = signal.unwrap_or_else(|| match status.code() {
        Some(code) => format!("it ended its process with exit code {code}"),
        None => "its process ended".to_owned(),
    });
    let mut last: Vec<&str> = errors.lines().map(str::trim).filter(|line| !line.is_empty()).rev().take(3).collect();
    last.reverse();
    if last.is_empty() { how } else { format!("{how}; it wrote last: {}", last.join(" / ")) }
}

/// The end of what a child writes to standard error, read on a thread of its own so that the child never waits.
pub(super) struct Errors {
    kept: Arc<Mutex<Vec<u8>>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Errors {
    /// What was kept; asked for when the child is gone.
    pub(super) fn text(&self) -> String {
        // The pipe ends with the child, unless something that it started still holds it.
        for _ in 0..50 {
            if self.reader.as_ref().is_none_or(thread::JoinHandle::is_finished) {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        visible(&String::from_utf8_lossy(&kept)).into_owned()
    }
}

pub(super) fn keep_errors(pipe: Option<impl Read + Send + 'static>) -> io::Result<Errors> {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let Some(mut pipe) = pipe else { return Ok(Errors { kept, reader: None }) };
    let end = Arc::clone(&kept);
    let read = move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let mut kept = end.lock().unwrap_or_else(PoisonError::into_inner);
            kept.extend(&buffer[..count]);
            let excess = kept.len().saturating_sub(KEPT_ERRORS);
            kept.drain(..excess);
        }
    };
    let reader = Some(thread::Builder::new().name("billhook-errors".to_owned()).spawn(read)?);
    Ok(Errors { kept, reader })
}

/// Reads a plugin's state from a registry without being able to write: registry, plugin, key.
pub(crate) type ReadState = fn(&Path, &str, &str) -> Result<Option<Vec<u8>>, PluginError>;

/// What the child process does.
pub(crate) fn run(answer: &Path, read_state: ReadState) -> io::Result<()> {
    let mut request = String::new();
    io::stdin().lock().read_line(&mut request)?;
    child::die_with_parent();
    let trial: Trial = serde_json::from_str(&request)?;
    let mut answer = fs::OpenOptions::new().append(true).open(answer)?;
    let mut say = |line: &Line| {
        let mut line = serde_json::to_vec(line)?;
        line.push(b'\n');
        answer.write_all(&line)
    };

    say(&Line::Stage(Stage::Loading))?;
    let library = match Library::open(&trial.library, &trial.module) {
        Ok(library) => library,
        Err(error) => return say(&Line::Refused(error.to_string())),
    };
    say(&Line::Stage(Stage::Constructing))?;
    let state = Arc::new(ThrowAwayState::new(trial.registry, read_state));
    let services = PluginServices { plugin: trial.plugin, settings: trial.settings, folder: trial.folder, state };
    let instance = match library.construct(services) {
        Ok(instance) => instance,
        // A constructor that panics is a fault of the plugin's; one that returns an error asks for other settings.
        Err(error) if error.is_panic() => {
            return say(&Line::Refused(error.message().to_owned()));
        }
        Err(error) => {
            return say(&Line::Ended(TrialOutcome::NeedsSettings { message: error.message().to_owned() }));
        }
    };
    say(&Line::Stage(Stage::AskingForUsageSpecs))?;
    let usage_specs = match instance.call(HookCall::GetUsageSpecs {}) {
        Ok(HookReply::GetUsageSpecs(usage_specs)) => usage_specs,
        Ok(_) => Vec::new(),
        Err(error) => return say(&Line::Refused(error.to_string())),
    };
    if let Err(problem) = check_usage_specs(&usage_specs) {
        return say(&Line::Refused(problem));
    }
    say(&Line::Stage(Stage::Dropping))?;
    if let Err(error) = instance.end() {
        return say(&Line::Refused(error.message().to_owned()));
    }
    say(&Line::Ended(TrialOutcome::Works { usage_specs }))
}

/// The most units that a plugin may declare.
const MOST_USAGE_SPECS: usize = 1000;

/// Every unit has a name and a description, and no name stands twice: usage is matched to units by their names,
/// regardless of case.
pub(super) fn check_usage_specs(specs: &[UsageSpec]) -> Result<(), String> {
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
pub(crate) struct ThrowAwayState {
    registry: Option<PathBuf>,
    read_state: ReadState,
    changes: Mutex<std::collections::BTreeMap<String, Option<String>>>,
}

impl ThrowAwayState {
    /// State that is read from a registry, if there is one, and never written to it.
    pub(crate) fn new(registry: Option<PathBuf>, read_state: ReadState) -> Self {
        ThrowAwayState { registry, read_state, changes: Mutex::default() }
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
        match (changes.get(key), &self.registry) {
            (Some(value), _) => Ok(value.clone().map(String::into_bytes)),
            (None, Some(registry)) => (self.read_state)(registry, plugin, key),
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
